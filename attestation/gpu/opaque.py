"""What NVIDIA writes into a report's opaque data: little-endian (u16 type, u16 length, value) until the end.

Types and codes as in NVIDIA's verifiers (nvtrust, `spdm_msrt_resp_msg.py`). The GPU signs them with the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from attestation.gpu.envelope import Reader
from attestation.strict import Malformed

_DRIVER, _VBIOS, _NVDEC, _CHIP_SKU, _PROJECT, _PROJECT_SKU, _FWID = 3, 6, 11, 15, 17, 18, 20
_PROTECTED_PCIE, _VERSION, _CHIP, _FEATURE = 21, 34, 35, 36
_ON, _OFF = 0xAA, 0x55
_DRIVER_FORM = re.compile(r"[0-9]{1,4}(\.[0-9]{1,4}){1,3}")
_NAME_FORM = re.compile(r"[0-9A-Za-z]{1,16}")


class Mode(StrEnum):
    """How the GPUs of a machine are joined; it decides which of their links are encrypted."""

    SINGLE = "single"
    """Each GPU by itself ("SPT")."""
    MULTI = "multi"
    """Several, with encrypted NVLink ("MPT")."""
    PROTECTED_PCIE = "protected-pcie"
    """Several over plain NVLink: what the switches are is not in the GPUs' evidence ("PPCIE")."""
    UNSTATED = "unstated"
    """An older report: not protected PCIe, and no more is said."""


@dataclass(frozen=True, slots=True)
class DeviceClaims:
    driver_version: str
    vbios_version: str
    """Five bytes in hex with dots, upper case, as NVIDIA's tools print it."""
    board: tuple[str, str, str]
    """Project, project SKU, chip SKU: which board the VBIOS is for."""
    chip: str | None
    """Absent before opaque data version 1 (Hopper)."""
    firmware_id: bytes | None
    mode: Mode
    video_decoder_off: bool
    """Measurement 35 is of that decoder's firmware, which is then not loaded."""


def parse(opaque: bytes) -> DeviceClaims:
    """Raises Malformed."""
    fields = _fields(opaque)
    return DeviceClaims(
        driver_version=_text(fields, _DRIVER, "driver version", _DRIVER_FORM),
        vbios_version=_vbios(fields),
        board=(
            _text(fields, _PROJECT, "project", _NAME_FORM),
            _text(fields, _PROJECT_SKU, "project SKU", _NAME_FORM),
            _text(fields, _CHIP_SKU, "chip SKU", _NAME_FORM),
        ),
        chip=_text(fields, _CHIP, "chip", _NAME_FORM) if _CHIP in fields else None,
        firmware_id=fields.get(_FWID),
        mode=_mode(fields),
        video_decoder_off=not _switch(fields, _NVDEC, "video decoder"),
    )


def _fields(opaque: bytes) -> dict[int, bytes]:
    reader = Reader(opaque, "GPU report's opaque data")
    found: dict[int, bytes] = {}
    while reader.left:
        kind = reader.little(2)
        if kind in found:
            raise Malformed(f"GPU report: opaque field {kind} appears twice")
        found[kind] = reader.take(reader.little(2))
    return found


def _need(fields: dict[int, bytes], kind: int, what: str) -> bytes:
    if kind not in fields:
        raise Malformed(f"GPU report: it does not state its {what}; update the GPU's driver")
    return fields[kind]


def _text(fields: dict[int, bytes], kind: int, what: str, form: re.Pattern[str]) -> str:
    raw = _need(fields, kind, what)
    text = raw.rstrip(b"\0").decode("ascii", "replace")
    if not form.fullmatch(text):
        raise Malformed(f"GPU report: {text!r} is no {what}")
    return text


def _vbios(fields: dict[int, bytes]) -> str:
    raw = _need(fields, _VBIOS, "VBIOS version")
    if len(raw) != 8:
        raise Malformed(f"GPU report: a VBIOS version of {len(raw)} bytes, expected 8")
    # A little-endian u32 with the first four numbers, then the fifth.
    return ".".join(f"{each:02X}" for each in (raw[3], raw[2], raw[1], raw[0], raw[4]))


def _switch(fields: dict[int, bytes], kind: int, what: str) -> bool:
    raw = _need(fields, kind, f"{what} status")
    if raw not in (bytes([_ON]), bytes([_OFF])):
        raise Malformed(f"GPU report: {what} status {raw.hex()} is neither on nor off")
    return raw == bytes([_ON])


def _mode(fields: dict[int, bytes]) -> Mode:
    protected = _PROTECTED_PCIE in fields and _switch(fields, _PROTECTED_PCIE, "protected PCIe")
    if not int.from_bytes(fields.get(_VERSION, b""), "little"):
        return Mode.PROTECTED_PCIE if protected else Mode.UNSTATED
    number = int.from_bytes(_need(fields, _FEATURE, "mode"), "little")
    modes = (Mode.SINGLE, Mode.MULTI, Mode.PROTECTED_PCIE)
    if number >= len(modes) or (protected and modes[number] is not Mode.PROTECTED_PCIE):
        raise Malformed(f"GPU report: mode {number} is unknown, or contradicts the protected PCIe status")
    return modes[number]
