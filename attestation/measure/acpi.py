"""QEMU's three ACPI files of fw_cfg, which the firmware measures before it installs them.

`etc/acpi/tables` depends on every device of the machine and is taken from a run of QEMU (or a guest's
/sys/firmware/qemu_fw_cfg/by_name/etc/acpi/tables/raw); the other two follow from it (QEMU hw/acpi/bios-linker-loader.c
and hw/i386/acpi-build.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from attestation.strict import Malformed

LIMIT_BYTES = 4 * 1024 * 1024
_TABLES, _RSDP = b"etc/acpi/tables", b"etc/acpi/rsdp"
_COMMAND_BYTES, _LOADER_BYTES = 128, 4096
_HEADER_BYTES, _CHECKSUM_AT = 36, 9
_RSDP_BYTES, _RSDT_ADDRESS_AT, _RSDP_CHECKSUM_AT = 20, 16, 8
_FADT_POINTERS = ((36, 4), (40, 4), (140, 8))
"""FIRMWARE_CTRL, DSDT, X_DSDT: offset and width."""


@dataclass(frozen=True, slots=True)
class Files:
    tables: bytes
    rsdp: bytes
    loader: bytes


@dataclass(frozen=True, slots=True)
class _Table:
    signature: bytes
    start: int
    length: int


def files(tables: bytes, rsdp: bytes | None = None, loader: bytes | None = None) -> Files:
    """Those that are not given are derived as QEMU's q35 without TPM or NVDIMM writes them. Raises Malformed."""
    if len(tables) > LIMIT_BYTES:
        raise Malformed(f"ACPI tables: more than {LIMIT_BYTES} bytes; give QEMU's etc/acpi/tables")
    if rsdp is not None and loader is not None:
        return Files(tables, rsdp, loader)
    found = list(_walk(tables))
    root = _one(found, b"RSDT")
    if rsdp is None:
        rsdp = b"RSD PTR \0BOCHS \0" + root.start.to_bytes(4, "little")
    return Files(tables, rsdp, _loader(found) if loader is None else loader)


def _walk(tables: bytes) -> Iterator[_Table]:
    at = 0
    while at + 8 <= len(tables) and all(32 <= byte < 127 for byte in tables[at : at + 4]):
        length = int.from_bytes(tables[at + 4 : at + 8], "little")
        if length < 8 or at + length > len(tables):
            raise Malformed(f"ACPI tables: the one at {at:#x} has an impossible length")
        yield _Table(tables[at : at + 4], at, length)
        at += length


def _one(tables: list[_Table], signature: bytes) -> _Table:
    found = [table for table in tables if table.signature == signature]
    if len(found) != 1:
        raise Malformed(f"ACPI tables: {len(found)} times {signature.decode()}; give QEMU's etc/acpi/tables, unchanged")
    return found[0]


def _loader(tables: list[_Table]) -> bytes:
    facp, dsdt, rsdt = (_one(tables, signature) for signature in (b"FACP", b"DSDT", b"RSDT"))
    commands = [_allocate(_RSDP, 16, 2), _allocate(_TABLES, 64, 1), _checksum_of(dsdt)]
    commands += [_pointer(_TABLES, facp.start + at, width) for at, width in _FADT_POINTERS]
    commands.append(_checksum_of(facp))
    commands += [_checksum_of(each) for each in tables if each.signature not in (b"FACS", b"DSDT", b"FACP", b"RSDT")]
    commands += [_pointer(_TABLES, rsdt.start + at, 4) for at in range(_HEADER_BYTES, rsdt.length, 4)]
    commands += [_checksum_of(rsdt), _pointer(_RSDP, _RSDT_ADDRESS_AT, 4)]
    commands.append(_checksum(_RSDP, _RSDP_CHECKSUM_AT, 0, _RSDP_BYTES))
    return b"".join(commands).ljust(_LOADER_BYTES, b"\0")


def _command(layout: str, *fields: int | bytes) -> bytes:
    return struct.pack(layout, *fields).ljust(_COMMAND_BYTES, b"\0")


def _allocate(file: bytes, alignment: int, zone: int) -> bytes:
    return _command("<I56sIB", 1, file, alignment, zone)


def _pointer(file: bytes, offset: int, width: int) -> bytes:
    return _command("<I56s56sIB", 2, file, _TABLES, offset, width)


def _checksum(file: bytes, result: int, start: int, length: int) -> bytes:
    return _command("<I56sIII", 3, file, result, start, length)


def _checksum_of(table: _Table) -> bytes:
    return _checksum(_TABLES, table.start + _CHECKSUM_AT, table.start, table.length)
