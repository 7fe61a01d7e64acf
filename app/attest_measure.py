"""`cocoon attest measure`: what an image measures to, from its files, with what governance and clients need of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attestation import strict
from attestation.measure import acpi, eventlog, firmware, kernel, snp, tdx
from attestation.measure.events import Event
from attestation.measure.mrtd import Order
from attestation.onchain.state import NO_LAUNCH
from attestation.snp import report as snp_report
from attestation.strict import Malformed

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_INITRD_LIMIT_BYTES = 2 << 30
_EVENTS_LIMIT_BYTES = 1 << 20
_VARIABLE_LIMIT_BYTES = 256 * 1024
NOTES = (
    "RTMR0 and RTMR1 are those of a direct kernel boot with OVMF up to edk2-stable202502; newer OVMF measures more: "
    "give its events with --events",
    "ACPI loader and RSDP are derived from the tables where they are not given",
)


def size(text: str) -> int:
    """Bytes of "4G", "512M" or a plain number. Raises Malformed."""
    found = re.fullmatch(r"([0-9]{1,15})([KMG]?)", text.strip().upper())
    if found is None:
        raise Malformed(f"memory: {text!r} is not a size; write 4G, 2048M or a number of bytes")
    return int(found[1]) * _UNITS[found[2]]


def read(path: Path, what: str, limit: int) -> bytes:
    """Raises Malformed with the file's name and role."""
    try:
        with path.open("rb") as file:
            found = file.read(limit + 1)
    except OSError as error:
        raise Malformed(f"{what}: {path} cannot be read ({error.strerror}); name an existing file") from error
    if len(found) > limit:
        raise Malformed(f"{what}: {path} has more than {limit} bytes")
    return found


def command_line(text: str | None, path: Path | None) -> str:
    """Of the option or the file. A file's last line end is not part of it."""
    if (text is None) == (path is None):
        raise Malformed("command line: give it with --cmdline or in a file with --cmdline-file, not both")
    if text is not None:
        return text
    assert path is not None
    return read(path, "command line", 65536).decode().removesuffix("\n")


def events(path: Path | None) -> dict[str, tuple[Event, ...]]:
    """{"rtmr3": [{"name": ..., "digest": 96 hex digits}, ...], ...}. Raises Malformed."""
    if path is None:
        return {}
    what = "events"
    document = strict.json_object(read(path, what, _EVENTS_LIMIT_BYTES), what, limit_bytes=_EVENTS_LIMIT_BYTES)
    strict.only_keys(document, what, required=(), optional=tdx.REGISTERS)
    return {name: tuple(_event(each, f"{what}, {name}") for each in _list(document, name)) for name in document}


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(document[name], list):
        raise Malformed(f"events: {name} must be a list of objects with name and digest")
    return list(document[name])


def _event(document: object, what: str) -> Event:
    if not isinstance(document, dict):
        raise Malformed(f"{what}: expected an object with name and digest")
    strict.only_keys(document, what, required=("name", "digest"))
    name = strict.text_field(document, "name", what, limit=200)
    return Event(name, strict.hex_field(document, "digest", what, length=48))


def variables(pairs: list[str]) -> dict[str, bytes]:
    """NAME=FILE for each secure boot variable that is set. Raises Malformed."""
    found = {}
    for pair in pairs:
        name, sign, file = pair.partition("=")
        if not sign:
            raise Malformed(f"variable: {pair!r} is not NAME=FILE")
        found[name] = read(Path(file), f"variable {name}", _VARIABLE_LIMIT_BYTES)
    return found


def tdx_image(
    *,
    ovmf: Path,
    kernel_file: Path,
    initrd: Path | None,
    line: str,
    memory: str,
    acpi_tables: Path | None,
    acpi_rsdp: Path | None,
    acpi_loader: Path | None,
    order: Order,
    kernel_as_is: bool,
    secure_boot: list[str],
    event_lists: Path | None,
) -> tdx.Image:
    """Raises Malformed."""
    given = {"tables": acpi_tables, "rsdp": acpi_rsdp, "loader": acpi_loader}
    parts = {
        name: None if path is None else read(path, f"ACPI {name}", acpi.LIMIT_BYTES) for name, path in given.items()
    }
    tables = parts["tables"]
    return tdx.Image(
        firmware=read(ovmf, "firmware", firmware.LIMIT_BYTES),
        kernel=read(kernel_file, "kernel", kernel.LIMIT_BYTES),
        initrd=b"" if initrd is None else read(initrd, "initrd", _INITRD_LIMIT_BYTES),
        command_line=line,
        memory_bytes=size(memory),
        acpi_files=None if tables is None else acpi.files(tables, parts["rsdp"], parts["loader"]),
        order=order,
        kernel_as_is=kernel_as_is,
        secure_boot=variables(secure_boot),
        events=events(event_lists),
    )


def tdx_document(image: tdx.Image, name: str, tier: int, log: bytes | None) -> dict[str, Any]:
    """What is printed. Raises Malformed."""
    found = tdx.measure(image)
    document: dict[str, Any] = {
        "kind": "tdx",
        "measurement": found.measurement.hex(),
        "launch": NO_LAUNCH.hex(),
        "mrtd": found.mrtd.hex(),
        **{register: value.hex() for register, value in zip(tdx.REGISTERS, found.rtmrs, strict=True)},
        "components": [
            {"register": register, "name": each.name, "digest": each.digest.hex()}
            for register in tdx.REGISTERS
            for each in found.logs[register]
        ],
        "allow_image": {"measurement": found.measurement.hex(), "tier": tier, "launch": NO_LAUNCH.hex()},
        "client_policy": _client_policy(name, found.measurement, tier),
        "notes": list(NOTES),
    }
    if log is not None:
        document["eventlog"] = _compared(found, log)
    return document


def snp_document(digest: bytes, vcpus: int, vcpu_type: str) -> dict[str, Any]:
    return {
        "kind": "sev-snp",
        "measurement": snp_report.measurement(digest).hex(),
        "launch_digest": digest.hex(),
        "vcpus": vcpus,
        "vcpu_type": vcpu_type,
    }


def snp_digest(
    ovmf: Path, vcpus: int, vcpu_type: str, kernel_file: Path | None, initrd: Path | None, line: str
) -> bytes:
    """Raises Malformed."""
    if vcpu_type not in snp.VCPU_TYPES:
        raise Malformed(f"vCPU type {vcpu_type!r}: known are {', '.join(snp.VCPU_TYPES)}")
    boot = None
    if kernel_file is not None:
        boot = snp.Boot(
            read(kernel_file, "kernel", kernel.LIMIT_BYTES),
            b"" if initrd is None else read(initrd, "initrd", _INITRD_LIMIT_BYTES),
            line,
        )
    signature = snp.vcpu_signature(*snp.VCPU_TYPES[vcpu_type])
    return snp.launch_digest(read(ovmf, "firmware", firmware.LIMIT_BYTES), vcpus, signature, boot)


def _compared(found: tdx.Registers, log: bytes) -> dict[str, Any]:
    entries = eventlog.parse(log)
    different = eventlog.differences(found.logs, entries)
    return {
        "agrees": not different,
        "differences": [str(each) for each in different],
        "registers": {name: value.hex() for name, value in eventlog.registers(entries).items()},
        "altered_texts": [each.event.name for each in entries if each.covered is False],
    }


def _client_policy(name: str, measured: bytes, tier: int) -> str:
    # JSON's strings are TOML's basic strings, whatever the name holds.
    lines = ["[[images]]", f"name = {json.dumps(name)}", f'measurement = "{measured.hex()}"']
    return "\n".join([*lines, "verifies_gpu = true"] if tier == 2 else lines) + "\n"
