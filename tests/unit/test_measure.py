"""What an image measures to: against published values, independent implementations, and a naive second one here."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_firmware import FOUR_GIB, PAGE, SEV_SECTIONS, TDX_SECTIONS, firmware
from synthetic_kernel import kernel
from typer.testing import CliRunner

from app.cli import app
from attestation import vectors
from attestation.measure import acpi, eventlog, snp, tdx
from attestation.measure.events import Event, event, replay
from attestation.measure.firmware import tdvf_sections
from attestation.measure.hob import hand_off_block
from attestation.measure.kernel import as_qemu_loads, authenticode
from attestation.measure.mrtd import Order, mrtd
from attestation.measure.uefi import ui_app_option, variable
from attestation.policy import from_document
from attestation.quote import measurement
from attestation.strict import Malformed

OVMF = firmware()
KERNEL = kernel()
INITRD = b"an initrd" * 1000
GIB = 1 << 30


def sha384(data: bytes) -> bytes:
    return hashlib.sha384(data).digest()


# ---------------------------------------------------------------------------------------------------- MRTD


def naive_mrtd(image: bytes, *, by_section: bool) -> bytes:
    """Another writing of the same specification: first the list of calls, then one hash over all of it."""
    calls: list[tuple[int, int, bytes]] = []
    for number, (offset, _, address, memory, _, attributes) in enumerate(TDX_SECTIONS):
        for page in range(memory // PAGE):
            at = address + page * PAGE
            if not attributes & 2:
                calls.append(
                    (
                        number,
                        -page if by_section else page,
                        b"MEM.PAGE.ADD" + bytes(4) + struct.pack("<Q", at) + bytes(104),
                    )
                )
            for chunk in range(16 if attributes & 1 else 0):
                start = offset + page * PAGE + chunk * 256
                call = b"MR.EXTEND" + bytes(7) + struct.pack("<Q", at + chunk * 256) + bytes(104)
                calls.append((number, 1_000_000 if by_section else page, call + image[start : start + 256]))
    if by_section:
        calls = [
            call
            for number in range(len(TDX_SECTIONS))
            for extends in (False, True)
            for call in calls
            if call[0] == number and (call[1] == 1_000_000) is extends
        ]
    return sha384(b"".join(call[2] for call in calls))


@pytest.mark.parametrize("order", list(Order))
def test_mrtd_is_that_of_a_second_implementation(order: Order) -> None:
    assert mrtd(OVMF, order) == naive_mrtd(OVMF, by_section=order is Order.SECTION_BY_SECTION)
    assert mrtd(OVMF, Order.PAGE_BY_PAGE) != mrtd(OVMF, Order.SECTION_BY_SECTION)


def test_mrtd_of_a_published_firmware_is_the_published_one() -> None:
    """OVMF.fd of Ubuntu 25.04 (2025.02-3ubuntu2); value from the test data of virtee/tdx-measure."""
    try:
        image = vectors.read("firmware/OVMF_2025.02-3ubuntu2.fd")
    except vectors.Unobtainable as error:
        pytest.skip(f"that firmware is not to be had: {error}")
    published = "7357a10d2e2724dffe68813e3cc4cfcde6814d749f2fb62e3953e54f6e0b50a219786afe2cd478f684b52c61837e1114"
    assert mrtd(image).hex() == published


def test_mrtd_covers_code_and_layout_but_not_the_configuration() -> None:
    changed = bytearray(OVMF)
    changed[3 * PAGE] ^= 1
    assert mrtd(bytes(changed)) != mrtd(OVMF)
    changed = bytearray(OVMF)
    changed[PAGE] ^= 1
    # The configuration volume is measured by the firmware, into RTMR0.
    assert mrtd(bytes(changed)) == mrtd(OVMF)
    moved = (TDX_SECTIONS[0], TDX_SECTIONS[1], (0, 0, 0x811000, 0x10000, 3, 0), *TDX_SECTIONS[3:])
    assert mrtd(firmware(tdx=moved)) != mrtd(OVMF)


@pytest.mark.parametrize(
    ("section", "word"),
    [
        ((2 * PAGE, 6 * PAGE, 0x1001, 6 * PAGE, 0, 1), "whole pages"),
        ((2 * PAGE, 7 * PAGE, 0x1000, 7 * PAGE, 0, 1), "outside"),
        ((2 * PAGE, 5 * PAGE, 0x1000, 6 * PAGE, 0, 1), "fill"),
        ((2 * PAGE, 6 * PAGE, 0x1000, 6 * PAGE, 0, 3), "fill"),
        ((0, 0, 0x1000, 1 << 40, 3, 0), "memory"),
        ((0, 0, 0x1000, PAGE, 9, 0), "unknown"),
        ((0, 0, 0x1000, PAGE, 3, 4), "unknown"),
    ],
)
def test_g18_damaged_metadata_is_named(section: tuple[int, ...], word: str) -> None:
    with pytest.raises(Malformed, match=word):
        mrtd(firmware(tdx=(section,)))


@pytest.mark.parametrize("image", [b"", b"\0" * 4096, OVMF[:-1], OVMF[: 2 * PAGE]])
def test_g18_what_is_no_firmware_is_named(image: bytes) -> None:
    with pytest.raises(Malformed, match="firmware"):
        mrtd(image)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_g18_no_damage_does_anything_but_a_clear_refusal(data: st.DataObject) -> None:
    changed = bytearray(OVMF)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(len(OVMF) - 1600, len(OVMF) - 1))
        changed[at] = data.draw(st.integers(0, 255))
    for measured in (mrtd, lambda image: snp.launch_digest(image, 2, 1)):
        try:
            assert len(measured(bytes(changed))) == 48
        except Malformed as error:
            assert "firmware" in str(error)


# ---------------------------------------------------------------------------------------------------- RTMRs


@pytest.mark.parametrize(
    ("measured", "digest"),
    [
        (
            variable("db", b""),
            "08a74f8963b337acb6c93682f934496373679dd26af1089cb4eaf0c30cf260a12e814856385ab8843e56a9acea19e127",
        ),
        (
            variable("dbx", b""),
            "18cc6e01f0c6ea99aa23f8a280423e94ad81d96d0aeb5180504fc0f7a40cb3619dd39bd6a95ec1680a86ed6ab0f9828d",
        ),
        (bytes(2), "1dd6f7b457ad880d840d41c961283bab688e94e4b59359ea45686581e90feccea3c624b1226113f824f315eb60ae0a7c"),
        (
            ui_app_option(),
            "23ada07f5261f12f34a0bd8e46760962d6b4d576a416f1fea1c64bc656b1d28eacf7047ae6e967c58fd2a98bfa74c298",
        ),
    ],
)
def test_events_have_the_digests_that_a_real_guest_logged(measured: bytes, digest: str) -> None:
    """From the log of a TDX guest under Ubuntu 24.04, as its owner published it (virtee/tdx-measure, report 52)."""
    assert sha384(measured).hex() == digest


def expected_hob(ranges: list[tuple[int, int, int]]) -> bytes:
    body = b"".join(
        struct.pack("<HHI", 3, 48, 0) + bytes(16) + struct.pack("<IIQQ", kind, 7, start, length)
        for kind, start, length in ranges
    )
    return struct.pack("<HHIII", 1, 56, 0, 9, 0) + bytes(32) + struct.pack("<Q", 0x809000 + 56 + len(body) + 8) + body


LOW = [
    (7, 0, 0x800000),
    (0, 0x800000, 0x6000),
    (7, 0x806000, 0x3000),
    (0, 0x809000, 0x2000),
    (7, 0x80B000, 0x5000),
    (0, 0x810000, 0x10000),
]


@pytest.mark.parametrize(
    ("memory", "rest"),
    [
        (2 * GIB, [(7, 0x820000, 2 * GIB - 0x820000)]),
        (0xB0000000 - PAGE, [(7, 0x820000, 0xB0000000 - PAGE - 0x820000)]),
        (0xB0000000, [(7, 0x820000, 2 * GIB - 0x820000), (7, FOUR_GIB, 0x30000000)]),
        (16 * GIB, [(7, 0x820000, 2 * GIB - 0x820000), (7, FOUR_GIB, 14 * GIB)]),
    ],
)
def test_the_memory_map_is_as_qemu_writes_it(memory: int, rest: list[tuple[int, int, int]]) -> None:
    assert hand_off_block(tdvf_sections(OVMF), memory) == expected_hob(LOW + rest)


def test_g18_too_little_memory_is_named() -> None:
    for memory in (0, 4 << 20, 2 * GIB + 1):
        with pytest.raises(Malformed, match="memory"):
            hand_off_block(tdvf_sections(OVMF), memory)


def test_authenticode_is_that_of_another_implementation() -> None:
    """Values by osslsigncode 2.5 over the same files, signed."""
    assert authenticode(KERNEL).hex() == (
        "a7631d59c6e19b3f26b743c928f53446927ffbe5e9583890d11f1c990869638e845379211a14c7fb3aef5d511eac8e68"
    )
    assert authenticode(kernel(trailing=b"unhashed?!")).hex() == (
        "762545b3ac13b1f5dc42712a78872d0424c71af64f653ce8b34e720ec713a9e51978899267656282b27126439f775b5a"
    )


def test_authenticode_leaves_out_checksum_and_signature_alone() -> None:
    at = 0x40 + 24
    signed = bytearray(KERNEL + b"signature!" + bytes(6))
    struct.pack_into("<I", signed, at + 64, 0x12345678)
    struct.pack_into("<II", signed, at + 112 + 32, len(KERNEL), 16)
    assert authenticode(bytes(signed)) == authenticode(KERNEL)
    for place in (0x30, at + 60 - 8, 0x1000, 0x1FFF):
        changed = bytearray(KERNEL)
        changed[place] ^= 1
        assert authenticode(bytes(changed)) != authenticode(KERNEL), place


def test_the_kernel_is_patched_as_qemu_does() -> None:
    patched = as_qemu_loads(KERNEL, 0x12345, 4 * GIB)
    changes = {at: patched[at] for at in range(len(KERNEL)) if patched[at] != KERNEL[at]}
    address = (2 * GIB - 0x28000 - 1 - 0x12345) & ~0xFFF
    assert patched[0x210] == 0xB0 and patched[0x211] == 0x81
    assert struct.unpack_from("<H", patched, 0x224) == (0xFE00,)
    assert struct.unpack_from("<I", patched, 0x228) == (0x20000,)
    assert struct.unpack_from("<II", patched, 0x218) == (address, 0x12345)
    assert set(changes) <= {0x210, 0x211, 0x224, 0x225, *range(0x228, 0x22C), *range(0x218, 0x220)}


@pytest.mark.parametrize(
    ("image", "top"),
    [
        (kernel(), 2 * GIB - 0x28001),
        (kernel(xloadflags=0, initrd_max=0x7FFFFFF), 0x7FFFFFF),
        (kernel(protocol=0x203, initrd_max=0x37FFFFFF), 0x37FFFFFF),
        (kernel(protocol=0x202), 0x37FFFFFF),
    ],
)
def test_the_initrd_lies_where_the_kernel_allows(image: bytes, top: int) -> None:
    patched = as_qemu_loads(image, 1000, 2 * GIB)
    assert struct.unpack_from("<I", patched, 0x218) == ((top - 1000) & ~0xFFF,)


@pytest.mark.parametrize("image", [b"", b"MZ" * 4000, kernel(protocol=0x201), KERNEL[:0x1800], kernel()[:0x900]])
def test_g18_what_is_no_kernel_is_named(image: bytes) -> None:
    with pytest.raises(Malformed, match="kernel"):
        authenticode(as_qemu_loads(image, 0, GIB))


def tables() -> bytes:
    """FACS, DSDT, FACP, APIC, MCFG, RSDT in QEMU's order, with arbitrary content."""

    def table(signature: bytes, length: int) -> bytes:
        return signature + struct.pack("<I", length) + bytes(index & 0xFF for index in range(length - 8))

    found = ((b"FACS", 64), (b"DSDT", 300), (b"FACP", 244), (b"APIC", 120), (b"MCFG", 60), (b"RSDT", 48))
    return b"".join(table(*each) for each in found) + bytes(100)


def test_the_loaders_commands_are_those_of_qemu() -> None:
    found = acpi.files(tables())
    commands = [found.loader[at : at + 128] for at in range(0, 4096, 128)]
    name = b"etc/acpi/tables".ljust(56, b"\0")
    rsdp = b"etc/acpi/rsdp".ljust(56, b"\0")
    starts = {"DSDT": 64, "FACP": 364, "APIC": 608, "MCFG": 728, "RSDT": 788}

    def checksum(start: int, length: int) -> bytes:
        return struct.pack("<I", 3) + name + struct.pack("<III", start + 9, start, length) + bytes(56)

    def pointer(file: bytes, at: int, width: int) -> bytes:
        return struct.pack("<I", 2) + file + name + struct.pack("<IB", at, width) + bytes(7)

    expected = [
        struct.pack("<I", 1) + rsdp + struct.pack("<IB", 16, 2) + bytes(63),
        struct.pack("<I", 1) + name + struct.pack("<IB", 64, 1) + bytes(63),
        checksum(starts["DSDT"], 300),
        pointer(name, starts["FACP"] + 36, 4),
        pointer(name, starts["FACP"] + 40, 4),
        pointer(name, starts["FACP"] + 140, 8),
        checksum(starts["FACP"], 244),
        checksum(starts["APIC"], 120),
        checksum(starts["MCFG"], 60),
        *(pointer(name, starts["RSDT"] + 36 + 4 * index, 4) for index in range(3)),
        checksum(starts["RSDT"], 48),
        pointer(rsdp, 16, 4),
        struct.pack("<I", 3) + rsdp + struct.pack("<III", 8, 0, 20) + bytes(56),
    ]
    assert commands[: len(expected)] == expected
    assert not any(found.loader[128 * len(expected) :])
    assert found.rsdp == b"RSD PTR \0BOCHS \0" + struct.pack("<I", 788)


def test_g18_tables_that_are_not_qemus_are_named() -> None:
    for broken in (b"", tables()[64:200], tables().replace(b"RSDT", b"XSDT"), tables() + b"\0" * acpi.LIMIT_BYTES):
        with pytest.raises(Malformed, match="ACPI tables"):
            acpi.files(broken)


IMAGE = tdx.Image(OVMF, KERNEL, "console=ttyS0 ro", 4 * GIB, acpi.files(tables()), INITRD)


def test_registers_of_an_image_are_those_of_a_second_implementation() -> None:
    def extend(*digests: bytes) -> bytes:
        register = bytes(48)
        for digest in digests:
            register = sha384(register + digest)
        return register

    files = acpi.files(tables())
    rest = [(7, 0x820000, 2 * GIB - 0x820000), (7, FOUR_GIB, 2 * GIB)]
    rtmr0 = extend(
        sha384(expected_hob(LOW + rest)),
        sha384(OVMF[: 2 * PAGE]),
        *(sha384(variable(name, b"")) for name in ("SecureBoot", "PK", "KEK", "db", "dbx")),
        sha384(bytes(4)),
        sha384(files.loader),
        sha384(files.rsdp),
        sha384(tables()),
        sha384(bytes(2)),
        sha384(ui_app_option()),
    )
    rtmr1 = extend(
        authenticode(as_qemu_loads(KERNEL, len(INITRD), 4 * GIB)),
        sha384(b"Calling EFI Application from Boot Option"),
        sha384(bytes(4)),
        sha384(b"Exit Boot Services Invocation"),
        sha384(b"Exit Boot Services Returned with Success"),
    )
    line = "".join(f"{char}\0" for char in "console=ttyS0 ro initrd=initrd").encode() + b"\0\0"
    rtmr2 = extend(sha384(line), sha384(INITRD))
    found = tdx.measure(IMAGE)
    assert found.rtmrs == (rtmr0, rtmr1, rtmr2, bytes(48))
    assert found.measurement == measurement(mrtd(OVMF), found.rtmrs)
    whole = mrtd(OVMF) + rtmr0 + rtmr1 + rtmr2 + bytes(48)
    assert found.measurement == hashlib.sha256(whole).digest()


@pytest.mark.parametrize(
    ("change", "register"),
    [
        ({"firmware": firmware(tdx=(*TDX_SECTIONS[:5], (0, 0, 0x1000000, 0x8000, 3, 0)))}, "mrtd"),
        ({"order": Order.SECTION_BY_SECTION}, "mrtd"),
        ({"acpi_files": acpi.files(tables()[:-1] + b"x")}, "rtmr0"),
        ({"secure_boot": {"db": b"a certificate"}}, "rtmr0"),
        ({"memory_bytes": 5 * GIB}, "rtmr0"),
        ({"kernel_as_is": True}, "rtmr1"),
        ({"kernel": KERNEL[:-1] + b"x"}, "rtmr1"),
        ({"command_line": "console=ttyS0 rw"}, "rtmr2"),
        ({"initrd": INITRD[:-1] + b"x"}, "rtmr2"),
        ({"events": {"rtmr3": (event("model", b"weights"),)}}, "rtmr3"),
    ],
)
def test_each_part_moves_its_register(change: dict[str, Any], register: str) -> None:
    before, after = tdx.measure(IMAGE), tdx.measure(dataclasses.replace(IMAGE, **change))
    moved = {"mrtd": before.mrtd != after.mrtd} | {
        name: one != other for name, one, other in zip(tdx.REGISTERS, before.rtmrs, after.rtmrs, strict=True)
    }
    assert moved[register] and before.measurement != after.measurement
    # Firmware and memory layout are in the memory map as well; nothing else crosses registers.
    assert {name for name, yes in moved.items() if yes} <= {register, *(("rtmr0",) if "firmware" in change else ())}


def test_g18_an_unknown_register_or_variable_is_refused() -> None:
    for change in ({"events": {"rtmr4": ()}}, {"secure_boot": {"Db": b""}}, {"acpi_files": None}):
        with pytest.raises(Malformed):
            tdx.measure(dataclasses.replace(IMAGE, **change))


# ---------------------------------------------------------------------------------------------------- event logs


def ccel(entries: list[tuple[int, int, bytes, bytes]], rest: bytes = b"\xff" * 64) -> bytes:
    """(register, type, digest, text) in the crypto-agile form."""
    spec = b"Spec ID Event03\0" + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, 0x0C, 48, 0)
    log = struct.pack("<II20sI", 0, 3, bytes(20), len(spec)) + spec
    for register, kind, digest, text in entries:
        log += struct.pack("<IIIH", register + 1, kind, 1, 0x0C) + digest + struct.pack("<I", len(text)) + text
    return log + rest


def log_of(image: tdx.Image = IMAGE) -> list[tuple[int, int, bytes, bytes]]:
    """What a guest of this image logs; texts of the covered events are the measured ones."""
    found = []
    for number, name in enumerate(tdx.REGISTERS):
        for each in tdx.measure(image).logs[name]:
            separator = each.name == "separator"
            found.append((number, 4 if separator else 0x8000000B, each.digest, bytes(4) if separator else b"?"))
    return found


def test_a_log_replays_to_the_registers() -> None:
    found = eventlog.parse(ccel(log_of()))
    assert tuple(eventlog.registers(found).values()) == tdx.measure(IMAGE).rtmrs
    assert eventlog.differences(tdx.measure(IMAGE).logs, found) == []
    assert {each.covered for each in found} == {True, None}


def test_the_component_that_differs_is_named() -> None:
    other = dataclasses.replace(IMAGE, command_line="console=ttyS0 init=/bin/sh")
    (difference,) = eventlog.differences(tdx.measure(IMAGE).logs, eventlog.parse(ccel(log_of(other))))
    assert str(difference) == "rtmr2, event 0: command line differs (the log calls it hand-off tables)"
    entries = log_of()
    more = ccel([*entries, (3, 6, sha384(b"late"), b"late")])
    (difference,) = eventlog.differences(tdx.measure(IMAGE).logs, eventlog.parse(more))
    assert "rtmr3, event 0: the log goes on with event tag" in str(difference)
    (difference,) = eventlog.differences(tdx.measure(IMAGE).logs, eventlog.parse(ccel(entries[:-1])))
    assert str(difference) == "rtmr2, event 1: initrd is missing in the log"


def test_a_text_that_its_digest_does_not_cover_is_told() -> None:
    (found,) = eventlog.parse(ccel([(0, 4, sha384(bytes(4)), b"\xff" * 4)]))
    assert found.covered is False


def test_names_in_a_log_cannot_command_a_terminal() -> None:
    (found,) = eventlog.parse(ccel([(1, 0x80000007, bytes(48), b"\x1b]0;owned\x07\x1b[2J")]))
    assert found.event.name.isprintable()


def test_g18_damaged_logs_are_named() -> None:
    good = ccel(log_of())
    for broken in (
        b"",
        good[:40],
        good[:200],
        b"\0" * 200,
        good[:56] + b"\xff" * 4 + good[60:],
        good + bytes(5_000_000),
    ):
        with pytest.raises(Malformed, match="event log"):
            eventlog.parse(broken)


@given(st.binary(max_size=400))
@settings(max_examples=100, deadline=None)
def test_g18_any_bytes_after_a_header_are_an_answer_or_a_refusal(rest: bytes) -> None:
    try:
        eventlog.parse(ccel([], rest))
    except Malformed as error:
        assert "event log" in str(error)


def test_replay_is_a_chain_from_zero() -> None:
    assert replay(()) == bytes(48)
    one, two = Event("a", b"\x01" * 48), Event("b", b"\x02" * 48)
    assert replay((one, two)) == sha384(sha384(bytes(48) + one.digest) + two.digest) != replay((two, one))


# ---------------------------------------------------------------------------------------------------- SEV-SNP

BOOT = snp.Boot(b"a kernel" * 100, b"an initrd", "console=ttyS0")


@pytest.mark.parametrize(
    ("cpu", "vcpus", "boot", "digest"),
    [
        (
            "EPYC",
            1,
            BOOT,
            "cea31259f48ac6aef01ca4d37f2d19ab25075f1ea386e4ee86010ecd23f117cd9305228268b134086f3a30668560d297",
        ),
        (
            "EPYC-Milan",
            3,
            BOOT,
            "44c802f210c5037d3a50b153484ba2b06e08c496ada682649b39bc3d73812ef039b27de6f176442516526c5646dfe4e5",
        ),
        (
            "EPYC-Genoa",
            1,
            None,
            "42841ea0ae10adbb0e5f95e79941cfbd033faf26a720bea7f3076b20467ff477f18ba5f114a97f271e601eaf20271bbe",
        ),
    ],
)
def test_snp_digest_is_that_of_sev_snp_measure(cpu: str, vcpus: int, boot: snp.Boot | None, digest: str) -> None:
    """Values by sev-snp-measure 0.0.13 over the same firmware."""
    assert snp.launch_digest(OVMF, vcpus, snp.vcpu_signature(*snp.VCPU_TYPES[cpu]), boot).hex() == digest


def test_snp_digest_covers_every_part() -> None:
    cases = [(OVMF, 1, 1, BOOT), (OVMF, 2, 1, BOOT), (OVMF, 1, 2, BOOT), (OVMF, 1, 1, None)]
    cases.append((firmware(sev=SEV_SECTIONS[:-1]), 1, 1, BOOT))
    for field in ("kernel", "initrd", "command_line"):
        part = getattr(BOOT, field)
        cases.append((OVMF, 1, 1, dataclasses.replace(BOOT, **{field: part + part[:1]})))
    assert len({snp.launch_digest(*case) for case in cases}) == len(cases)


def test_g18_a_firmware_that_would_not_check_the_kernel_is_refused() -> None:
    without = tuple(section for section in SEV_SECTIONS if section[2] != 0x10)
    with pytest.raises(Malformed, match="hashes"):
        snp.launch_digest(firmware(sev=without), 1, 1, BOOT)
    with pytest.raises(Malformed, match="unknown type"):
        snp.launch_digest(firmware(sev=((0x800000, 0x1000, 7),)), 1, 1)
    for vcpus in (0, 5000):
        with pytest.raises(Malformed, match="vcpus"):
            snp.launch_digest(OVMF, vcpus, 1)


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def parts(tmp_path: Path) -> dict[str, Path]:
    found = {"firmware": OVMF, "kernel": KERNEL, "initrd": INITRD, "acpi-tables": tables()}
    for name, content in found.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in found}


def run(parts: dict[str, Path], *more: Any, line: str = "console=ttyS0 ro") -> tuple[int, Any, str]:
    arguments = [word for name, path in parts.items() for word in (f"--{name}", str(path))]
    done = CliRunner().invoke(app, ["attest", "measure", *arguments, "--cmdline", line, *map(str, more)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout) if done.stdout else None, done.stderr


def test_the_command_prints_registers_components_and_policies(parts: dict[str, Path]) -> None:
    code, document, _ = run(parts)
    found = tdx.measure(IMAGE)
    assert code == 0 and document["measurement"] == found.measurement.hex()
    assert [document[name] for name in tdx.REGISTERS] == [value.hex() for value in found.rtmrs]
    assert {"register": "rtmr1", "name": "kernel", "digest": found.logs["rtmr1"][0].digest.hex()} in document[
        "components"
    ]
    assert document["allow_image"] == {"measurement": found.measurement.hex(), "tier": 1, "launch": document["launch"]}


def test_the_policy_for_clients_is_one(parts: dict[str, Path]) -> None:
    _, document, _ = run(parts, "--name", 'a "quoted"\nname', "--tier", 2)
    policy = {"max_age_seconds": 3600, "tcb_statuses": ["UpToDate"], "tiers": ["gpu"]}
    (image,) = from_document({**policy, **tomllib.loads(document["client_policy"])}).images
    assert image.measurement.hex() == document["measurement"] and image.verifies_gpu
    assert image.name == 'a "quoted"\nname'


def test_the_command_compares_with_a_log(parts: dict[str, Path], tmp_path: Path) -> None:
    log = tmp_path / "ccel"
    log.write_bytes(ccel(log_of()))
    code, document, _ = run(parts, "--eventlog", log)
    assert code == 0 and document["eventlog"]["agrees"]
    code, document, _ = run(parts, "--eventlog", log, line="another")
    assert code == 1 and "command line differs" in document["eventlog"]["differences"][0]


def test_the_command_takes_events_of_a_register(parts: dict[str, Path], tmp_path: Path) -> None:
    given_events = tmp_path / "events.json"
    given_events.write_text(json.dumps({"rtmr3": [{"name": "model", "digest": sha384(b"weights").hex()}]}))
    _, document, _ = run(parts, "--events", given_events)
    assert document["rtmr3"] == replay([event("model", b"weights")]).hex()
    for wrong in ('{"rtmr4": []}', '{"rtmr3": {}}', '{"rtmr3": [{"name": "x", "digest": "00"}]}', "[]", "{"):
        given_events.write_text(wrong)
        code, document, said = run(parts, "--events", given_events)
        assert code == 2 and document is None and "error" in said


def test_g18_the_command_names_what_is_missing(parts: dict[str, Path]) -> None:
    for change, word in (
        ({"kernel": parts["initrd"]}, "kernel"),
        ({"firmware": parts["kernel"]}, "firmware"),
        ({"initrd": Path("absent")}, "absent"),
        ({"acpi-tables": parts["kernel"]}, "ACPI"),
    ):
        code, document, said = run({**parts, **change})
        assert code == 2 and document is None and word in said
    assert "size" in run(parts, "--memory", "four")[2]
    assert "RTMR0" in run({name: path for name, path in parts.items() if name != "acpi-tables"})[2]


def test_the_command_knows_sev_snp(parts: dict[str, Path]) -> None:
    named = {name: parts[name] for name in ("firmware", "kernel", "initrd")}
    code, document, _ = run(named, "--snp", "--vcpus", 3)
    signature = snp.vcpu_signature(*snp.VCPU_TYPES["EPYC-Milan"])
    expected = snp.launch_digest(OVMF, 3, signature, snp.Boot(KERNEL, INITRD, "console=ttyS0 ro"))
    assert code == 0 and document["launch_digest"] == expected.hex()
    assert "known are" in run(named, "--snp", "--vcpu-type", "Skylake")[2]
