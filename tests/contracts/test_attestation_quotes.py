"""Quotes of all versions (G12): modules that run, service TDs, enclaves; and witnesses cut at other places."""

from __future__ import annotations

import json
import random
import struct
from hashlib import sha256
from typing import Any

import pytest
from attestation_mirror import NODE, Mirror, statement, tee
from cryptography.hazmat.primitives.asymmetric import ec
from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import Signed
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import appraise, attest, sync
from attestation.onchain.pieces import chain
from attestation.onchain.state import Standing
from attestation.quote import HEADER_BYTES
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.simulated.platform import TEE_TCB_SVN
from attestation.simulated.tee import Registers
from attestation.witness import QuoteParts
from scripts.attest_stage import Outcome

MACHINE = tee()
TD15, TD15_EXTENDED = 3, 4
MORE = random.Random(1).randbytes(237)
IMAGE = MACHINE.registers.measurement


def signed(body: bytes, key: ec.EllipticCurvePrivateKey) -> Signed:
    return Signed(body, pki.raw_signature(key, body))


def version_5(
    report_data: bytes = bytes(64),
    *,
    kind: int = TD15,
    running: bytes = TEE_TCB_SVN,
    service_td: bytes = bytes(48),
    registers: Registers | None = None,
) -> QuoteParts:
    """A quote of a newer module: `running` is the SVN of the module that runs now, which may be another one."""
    machine = tee(registers=registers)
    parts = QuoteParts.of(machine.quote(report_data))
    report = parts.td.body[HEADER_BYTES:] + running + service_td + (MORE if kind == TD15_EXTENDED else b"")
    head = struct.pack("<H", 5) + parts.td.body[2:HEADER_BYTES] + struct.pack("<HI", kind, len(report))
    return parts.changed(td=signed(head + report, machine.platform.attestation_key))


def judged(mirror: Mirror, parts: QuoteParts) -> int | None:
    return mirror.stage.tell(appraise(parts.authority, *parts.cells())).exit_code


def sent(mirror: Mirror, parts: QuoteParts) -> Outcome:
    return mirror.stage.tell(attest(mirror.binding(), parts.authority, *parts.cells()))


# ------------------------------------------------------------------------------------------------ TD reports


@pytest.mark.parametrize("kind", [TD15, TD15_EXTENDED])
def test_g12_quotes_of_version_5_get_their_verdict(mirror: Mirror, kind: int) -> None:
    parts = version_5(mirror.binding().report_data(), kind=kind)
    assert sent(mirror, parts).accepted
    facts = mirror.state.platforms[MACHINE.platform_id].facts
    assert facts is not None and (facts.tdx_svns, facts.running_svns) == (TEE_TCB_SVN, TEE_TCB_SVN)


@pytest.mark.parametrize("kind", [TD15, TD15_EXTENDED])
def test_g12_a_service_td_is_refused(mirror: Mirror, kind: int) -> None:
    """It could have written into the guest after it started. The contract makes the report again with zeros."""
    assert judged(mirror, version_5(kind=kind, service_td=bytes(47) + b"\x01")) in (Error.FORGED, Error.BAD_HINT)


def test_g12_a_migratable_td_of_version_5_is_refused(mirror: Mirror) -> None:
    base = Registers.of_image()
    registers = Registers(base.mrtd, base.rtmrs, td_attributes=bytes.fromhex("0000003000000000"))
    assert judged(mirror, version_5(registers=registers)) == Error.WRONG_ATTRIBUTES


def module(svn: int, version: int = TEE_TCB_SVN[1]) -> bytes:
    return bytes([svn, version]) + TEE_TCB_SVN[2:]


def modules(*levels: tuple[int, str]) -> list[dict[str, Any]]:
    """Identity of the simulated module with these levels."""
    (identity,) = json.loads(simulated.mint(0).tcb_info)["tdxModuleIdentities"]
    made = [{"tcb": {"isvsvn": svn}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status} for svn, status in levels]
    return [{**identity, "tcbLevels": made}]


LEVELS = modules((6, "UpToDate"), (5, "OutOfDate"), (4, "Revoked"))


@pytest.mark.parametrize(
    ("running", "expected"),
    [
        (module(6), 0), (module(7), 0), (module(5), 0), (module(4), Error.REFUSED_STATUS),
        (module(3), Error.OLD_MODULE), (module(6, 2), Error.OLD_MODULE),
        (TEE_TCB_SVN[:2] + b"\x00" + TEE_TCB_SVN[3:], Error.OLD_PLATFORM),
    ],
)  # fmt: skip
def test_g12_the_module_that_runs_is_known_and_not_revoked(mirror: Mirror, running: bytes, expected: int) -> None:
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tdxModuleIdentities=LEVELS).accepted
    assert judged(mirror, version_5(running=running)) == expected


def test_g12_a_module_that_runs_without_any_version_is_judged_too(mirror: Mirror) -> None:
    """Sixteen zero bytes are an SVN, not its absence."""
    assert judged(mirror, version_5(running=bytes(16))) == Error.OLD_PLATFORM


def standing(mirror: Mirror) -> Standing:
    outcome = mirror.stage.tell(sync(NODE, IMAGE, MACHINE.platform_id, Cell.empty()))
    body = outcome.trace.of(mirror.stage.account)[0].out_msgs[0].body.begin_parse()
    body.skip_bits(32 + 512)
    return Standing(body.load_uint(8))


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (((6, "UpToDate"), (5, "OutOfDate")), Standing(0)),
        (((6, "UpToDate"), (5, "Revoked")), Standing.PLATFORM_OUTDATED),
        (((6, "UpToDate"),), Standing.PLATFORM_OUTDATED),
        (((7, "UpToDate"), (5, "OutOfDate")), Standing.PLATFORM_OUTDATED),
    ],
)
def test_g12_the_module_that_runs_is_judged_again(
    mirror: Mirror, levels: tuple[tuple[int, str], ...], expected: Standing
) -> None:
    """Started under ISVSVN 6, running under 5."""
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tdxModuleIdentities=LEVELS).accepted
    assert sent(mirror, version_5(mirror.binding().report_data(), running=module(5))).accepted
    assert standing(mirror) == Standing(0)
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tdxModuleIdentities=modules(*levels)).accepted
    assert standing(mirror) == expected


def test_g12_the_module_that_runs_needs_the_platforms_components_too(mirror: Mirror) -> None:
    assert sent(mirror, version_5(mirror.binding().report_data())).accepted
    mirror.ledger.now += 10

    def raised(document: dict[str, Any]) -> None:
        document["tcbLevels"][0]["tcb"]["tdxtcbcomponents"][2]["svn"] += 1

    mirror.load(statement(simulated.mint(mirror.ledger.now), tcb=raised))
    assert standing(mirror) == Standing.PLATFORM_OUTDATED


def test_g12_quotes_of_other_kinds_are_refused(mirror: Mirror) -> None:
    for quote in (version_5(kind=TD15), version_5(kind=TD15_EXTENDED), QuoteParts.of(MACHINE.quote(bytes(64)))):
        td, *others = quote.cells()
        kind = td.begin_parse().load_uint(8)
        for other in {0, 1, 2, 3, 255} - {kind}:
            bits = begin_cell().store_uint(other, 8).store_bits(td.bits[8:])
            for ref in td.refs:
                bits.store_ref(ref)
            assert mirror.stage.tell(appraise(quote.authority, bits.end_cell(), *others)).exit_code != 0
        assert judged(mirror, quote) == 0
    # One that is none: all that tells it from the last is this number, which no key signs.
    extended = version_5(kind=TD15_EXTENDED)
    td, *others = extended.cells()
    changed = begin_cell().store_uint(3, 8).store_bits(td.bits[8:])
    for ref in td.refs:
        changed.store_ref(ref)
    assert mirror.stage.tell(appraise(extended.authority, changed.end_cell(), *others)).exit_code == Error.BAD_HEADER


# ------------------------------------------------------------------------------------------------ pieces


def with_ref(cell: Cell, index: int, ref: Cell) -> Cell:
    builder = begin_cell().store_bits(cell.bits)
    for at, each in enumerate(cell.refs):
        builder.store_ref(ref if at == index else each)
    return builder.end_cell()


def resized(cell: Cell, path: tuple[int, ...], bits: int) -> Cell:
    """The tree with the cell at `path` shorter or longer by some zero bits."""
    if path:
        return with_ref(cell, path[0], resized(cell.refs[path[0]], path[1:], bits))
    kept = cell.bits[:bits] if bits < 0 else cell.bits + "0" * bits
    builder = begin_cell().store_bits(kept)
    for ref in cell.refs:
        builder.store_ref(ref)
    return builder.end_cell()


@pytest.mark.parametrize("bits", [-8, -1, 1, 8])
def test_g12_every_piece_of_a_report_has_its_one_size(mirror: Mirror, bits: int) -> None:
    """Else bytes of one field could be read as another's, with the same bytes signed."""
    base = Registers.of_image()
    registers = Registers(base.mrtd, base.rtmrs, mr_config_id=b"\x01" * 48)
    quote = version_5(kind=TD15_EXTENDED, registers=registers)
    td, qe, pck = quote.cells()
    assert mirror.stage.tell(appraise(quote.authority, td, qe, pck)).exit_code == 0
    # t0; t1 t2 t3 and behind the running module's t5 t6; launch registers in two cells.
    for path in ((), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0), (2,), (2, 0)):
        if len(path) == 5 and bits > 7:
            continue  # of 127 bytes: there is no room
        body = appraise(quote.authority, resized(td, path, bits), qe, pck)
        assert mirror.stage.tell(body).exit_code == Error.BAD_PIECES, path
    for path in ((), (1,)):
        body = appraise(quote.authority, td, resized(qe, path, bits), pck)
        assert mirror.stage.tell(body).exit_code == Error.BAD_PIECES, path


# ------------------------------------------------------------------------------------------------ enclaves


ATTRIBUTES, SVN, PRODUCT, MISC = 48, 258, 256, 16


def with_enclave(*changes: tuple[int, bytes]) -> QuoteParts:
    """A quoting enclave with other fields, certified by the platform all the same."""
    parts = QuoteParts.of(MACHINE.quote(bytes(64)))
    body = bytearray(parts.qe.body)
    for at, value in changes:
        body[at : at + len(value)] = value
    return parts.changed(qe=signed(bytes(body), MACHINE.platform.pck.key))


def test_g12_a_debug_enclave_is_refused_whatever_intels_mask(mirror: Mirror) -> None:
    mirror.ledger.now += 10
    assert mirror.bring_qe(attributesMask="F9" + "FF" * 7 + "00" * 8).accepted
    assert judged(mirror, with_enclave((ATTRIBUTES, b"\x17"))) == Error.DEBUG
    assert judged(mirror, with_enclave((ATTRIBUTES, b"\x15"))) == 0
    assert judged(mirror, with_enclave((ATTRIBUTES, b"\x35"))) == Error.WRONG_ENCLAVE
    assert judged(mirror, with_enclave((ATTRIBUTES + 7, b"\x01"))) == Error.WRONG_ENCLAVE
    assert judged(mirror, with_enclave((ATTRIBUTES + 8, b"\xff"))) == 0
    assert judged(mirror, with_enclave((MISC, b"\x01"))) == Error.WRONG_ENCLAVE
    assert judged(mirror, with_enclave((MISC + 3, b"\x80"))) == Error.WRONG_ENCLAVE


def test_g12_an_enclaves_numbers_are_little_endian(mirror: Mirror) -> None:
    mirror.ledger.now += 10
    (identity,) = modules((0x0102, "UpToDate"), (1, "Revoked"))
    assert mirror.bring_qe(isvprodid=0x0304, tcbLevels=identity["tcbLevels"]).accepted
    product = (PRODUCT, b"\x04\x03")
    assert judged(mirror, with_enclave(product, (SVN, b"\x02\x01"))) == 0
    assert judged(mirror, with_enclave(product, (SVN, b"\x03\x01"))) == 0
    assert judged(mirror, with_enclave(product, (SVN, b"\x01\x01"))) == Error.REFUSED_STATUS
    assert judged(mirror, with_enclave(product, (SVN, b"\x01\x02"))) == 0
    assert judged(mirror, with_enclave(product, (SVN, b"\x00\x00"))) == Error.OLD_ENCLAVE
    for wrong in (b"\x03\x04", b"\x04\x00", b"\x00\x03"):
        assert judged(mirror, with_enclave((PRODUCT, wrong), (SVN, b"\x02\x01"))) in (Error.FORGED, Error.BAD_HINT)


def test_g12_an_attestation_key_is_on_the_curve(mirror: Mirror) -> None:
    genuine = QuoteParts.of(MACHINE.quote(bytes(64)))
    key = genuine.attestation_key[:63] + bytes([genuine.attestation_key[63] ^ 1])
    vouched = sha256(key + genuine.authentication_data).digest()
    body = genuine.qe.body[:320] + vouched + genuine.qe.body[352:]
    qe = signed(body, MACHINE.platform.pck.key)
    td, _, pck = genuine.cells()
    first = body[:20] + body[48:96] + body[258:260]
    cell = begin_cell().store_bytes(first).store_ref(qe.hints(genuine.pck_key))
    cell.store_ref(chain([key + genuine.authentication_data]))
    assert mirror.stage.tell(appraise(genuine.authority, td, cell.end_cell(), pck)).exit_code == Error.BAD_POINT
