"""What a verifier accepts of a GPU, as data: the same fields in a client's policy and in the measured worker's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from attestation import strict
from attestation.gpu.opaque import Mode
from attestation.strict import Malformed


class Architecture(StrEnum):
    HOPPER = "hopper"
    BLACKWELL = "blackwell"

    @classmethod
    def of(cls, chip: str) -> Architecture | None:
        """GH100 is Hopper; GB10x and GB20x are Blackwell. None for a chip that is not known here."""
        if chip == "GH100":
            return cls.HOPPER
        return cls.BLACKWELL if chip[:4] in ("GB10", "GB20") and len(chip) == 5 else None


@dataclass(frozen=True, slots=True)
class GpuPolicy:
    """Versions are compared number by number: a driver's in decimal, a VBIOS's in hex."""

    min_driver: str = "0"
    min_vbios: Mapping[str, str] = field(default_factory=dict)
    """By chip (`GH100`): numbering differs between chips. A chip that is not named has no minimum."""
    architectures: frozenset[Architecture] = frozenset(Architecture)
    modes: frozenset[Mode] = frozenset({Mode.SINGLE, Mode.MULTI, Mode.UNSTATED})
    """Without protected PCIe by default: plain NVLink is only as good as the switches, which nothing here shows."""
    revocation_required: bool = False
    """True: refuse while any certificate but the GPU's own attestation key lacks a current CRL or OCSP answer."""

    def driver_faults(self, version: str) -> list[str]:
        if _decimal(version) >= _decimal(self.min_driver):
            return []
        return [f"driver {version} is older than {self.min_driver}, the oldest that the policy accepts; update it"]

    def vbios_faults(self, chip: str, version: str) -> list[str]:
        least = self.min_vbios.get(chip)
        if least is None or _hexadecimal(version) >= _hexadecimal(least):
            return []
        return [f"VBIOS {version} is older than {least}, the oldest that the policy accepts; update it"]


def from_document(document: Mapping[str, Any], what: str) -> GpuPolicy:
    """The `[gpu]` table of a policy or configuration; every field optional. Raises Malformed."""
    optional = ("min_driver", "min_vbios", "architectures", "modes", "revocation_required")
    strict.only_keys(document, what, required=(), optional=optional)
    values: dict[str, Any] = {}
    if "min_driver" in document:
        values["min_driver"] = strict.text_field(document, "min_driver", what, limit=32)
        _checked(_decimal, values["min_driver"], what, "min_driver", "550.90.07")
    if "min_vbios" in document:
        table = document["min_vbios"]
        if not isinstance(table, dict) or any(Architecture.of(chip) is None for chip in table):
            raise Malformed(f'{what}: min_vbios must name chips, as in {{ GH100 = "96.00.74.00.1A" }}')
        values["min_vbios"] = {chip: strict.text_field(table, chip, what, limit=32) for chip in table}
        for version in values["min_vbios"].values():
            _checked(_hexadecimal, version, what, "min_vbios", "96.00.74.00.1A")
    for name, kind in (("architectures", Architecture), ("modes", Mode)):
        if name in document:
            values[name] = _some(kind, document[name], f"{what}: {name}")
    if "revocation_required" in document:
        values["revocation_required"] = strict.boolean_field(document, "revocation_required", what)
    return GpuPolicy(**values)


def _some(kind: type[StrEnum], names: object, what: str) -> frozenset[StrEnum]:
    known = [each.value for each in kind]
    if not isinstance(names, list) or not names or not all(name in known for name in names):
        raise Malformed(f"{what} must be a list out of {', '.join(known)}")
    return frozenset(kind(name) for name in names)


def _checked(read: Any, version: str, what: str, key: str, example: str) -> None:
    try:
        read(version)
    except ValueError:
        raise Malformed(f"{what}: {key} is {version!r}, expected numbers with dots, as in {example}") from None


def _decimal(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in version.split("."))


def _hexadecimal(version: str) -> tuple[int, ...]:
    return tuple(int(each, 16) for each in version.split("."))
