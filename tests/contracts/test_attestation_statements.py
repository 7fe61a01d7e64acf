"""Intel's statements say what their text says and nothing else (G12): statuses, texts that stay text, forms."""

from __future__ import annotations

import json
from typing import Any

import pytest
from attestation_mirror import SIGNER_KEY, Mirror, longer, moment, statement, tee
from pytoniq_core import Cell, begin_cell

from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import Op
from attestation.onchain.pieces import chain
from attestation.onchain.statements import DEFECTS, qe_message, tcb_message
from attestation.simulated import collateral as simulated

CELL_UNDERFLOW = 9
DAY = 86_400
DATE = "2024-11-13T00:00:00Z"


def rfc3339(seconds: int) -> str:
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def tcb_body(mirror: Mirror, **changes: Any) -> Cell:
    changed = statement(simulated.mint(mirror.ledger.now), tcb=lambda document: document.update(changes))
    return tcb_message(changed.tcb_info, changed.tcb_info_signature, SIGNER_KEY)


def qe_body(mirror: Mirror, **changes: Any) -> Cell:
    changed = statement(simulated.mint(mirror.ledger.now), qe=lambda document: document.update(changes))
    return qe_message(changed.qe_identity, changed.qe_identity_signature, SIGNER_KEY)


def swapped(cell: Cell, path: tuple[int, ...], at: int, new: bytes) -> Cell:
    """The tree with other bytes in the cell at `path`, from bit `at` on."""
    if path:
        refs = [swapped(ref, path[1:], at, new) if index == path[0] else ref for index, ref in enumerate(cell.refs)]
        builder = begin_cell().store_bits(cell.bits)
    else:
        refs = list(cell.refs)
        bits = cell.bits.copy()
        bits[at : at + 8 * len(new)] = begin_cell().store_bytes(new).end_cell().bits
        builder = begin_cell().store_bits(bits)
    for ref in refs:
        builder.store_ref(ref)
    return builder.end_cell()


def with_ref(cell: Cell, path: tuple[int, ...], new: Cell) -> Cell:
    """The tree with another cell at `path`."""
    if not path:
        return new
    builder = begin_cell().store_bits(cell.bits)
    for index, ref in enumerate(cell.refs):
        builder.store_ref(with_ref(ref, path[1:], new) if index == path[0] else ref)
    return builder.end_cell()


def at_path(cell: Cell, path: tuple[int, ...]) -> Cell:
    for index in path:
        cell = cell.refs[index]
    return cell


def levels_of(*rows: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"tcb": {"isvsvn": svn}, "tcbDate": DATE, "tcbStatus": status} for svn, status in rows]


def identity(name: str, *rows: tuple[int, str]) -> dict[str, Any]:
    (known,) = json.loads(simulated.mint(0).tcb_info)["tdxModuleIdentities"]
    return {**known, "id": name, "tcbLevels": levels_of(*rows)}


# ------------------------------------------------------------------------------------------------ statuses


@pytest.mark.parametrize("status", DEFECTS)
def test_g12_a_status_is_the_word_that_intel_wrote(mirror: Mirror, status: str) -> None:
    """Of every level: the platform's, the module's, the enclave's. Only seven sets of defects have a word."""
    level = json.loads(simulated.mint(0).tcb_info)["tcbLevels"][0]
    tcb = tcb_body(mirror, tcbLevels=[{**level, "tcbStatus": status}])
    module = tcb_body(mirror, tdxModuleIdentities=[identity("TDX_01", (6, status))])
    qe = qe_body(mirror, tcbLevels=levels_of((4, status)))
    for body, path, at in ((tcb, (2,), 272), (module, (1, 0), 16), (qe, (1,), 16)):
        assert at_path(body, path).bits[at : at + 8].tobytes() == bytes([DEFECTS[status]])
        for defects in {0, 3, 5, 7, 8, 64} - {DEFECTS[status]}:
            expected = (Error.FORGED, Error.BAD_HINT) if defects in DEFECTS.values() else (Error.BAD_STATEMENT,)
            changed = swapped(body, path, at, bytes([defects]))
            assert mirror.stage.tell(changed).exit_code in expected, (path, defects)
        mirror.ledger.now += 1
    assert mirror.stage.tell(tcb).accepted and mirror.stage.tell(qe).accepted


# ------------------------------------------------------------------------------------------------ what stays text


@pytest.mark.parametrize("where", [0, 1, 2])
def test_g12_an_advisory_cannot_reach_past_its_level(mirror: Mirror, where: int) -> None:
    """In the first cell of the names or in a later one, in a level of the platform, the module or the enclave."""
    level = json.loads(simulated.mint(0).tcb_info)["tcbLevels"][0]
    for names in (["A}B"], ["A" * 120, "B" * 120, "C}"]):
        for good, ids in ((False, names), (True, [name.replace("}", "]") for name in names])):
            mirror.ledger.now += 1
            body = (
                tcb_body(mirror, tcbLevels=[{**level, "advisoryIDs": ids}]),
                tcb_body(
                    mirror,
                    tdxModuleIdentities=[
                        {**identity("TDX_01"), "tcbLevels": [{**levels_of((6, "UpToDate"))[0], "advisoryIDs": ids}]}
                    ],
                ),
                qe_body(mirror, tcbLevels=[{**levels_of((4, "UpToDate"))[0], "advisoryIDs": ids}]),
            )[where]
            assert mirror.stage.tell(body).exit_code == (0 if good else Error.BAD_STATEMENT), ids


def test_g12_fifteen_kinds_of_components_and_the_plain_one(mirror: Mirror) -> None:
    level = json.loads(simulated.mint(0).tcb_info)["tcbLevels"][0]
    for index, component in enumerate(level["tcb"]["sgxtcbcomponents"][:15]):
        component["category"] = f"kind {index}"
    body = tcb_body(mirror, tcbLevels=[level])
    head = body.refs[0]
    tails = [b"", *(b',"category":"kind %d"' % index for index in range(16))]
    for count, expected in ((17, Error.BAD_STATEMENT), (16, 0)):
        changed = with_ref(body, (0, 0), chain(tails[:count]))
        assert at_path(changed, (0,)).bits == head.bits
        assert mirror.stage.tell(changed).exit_code == expected
    assert mirror.attest().accepted


def test_g12_statements_are_read_to_their_end(mirror: Mirror) -> None:
    tcb, qe = tcb_body(mirror), qe_body(mirror)
    for body, paths in ((tcb, ((), (0,), (2,))), (qe, ((), (0,)))):
        for path in paths:
            changed = with_ref(body, path, longer(at_path(body, path)))
            assert mirror.stage.tell(changed).exit_code == CELL_UNDERFLOW, path
        assert mirror.stage.tell(body).accepted


# ------------------------------------------------------------------------------------------------ forms


@pytest.mark.parametrize(("version", "expected"), [(1, 634), (2, 0), (3, 0), (4, 634)])
def test_g12_versions_of_the_enclaves_identity(mirror: Mirror, version: int, expected: int) -> None:
    assert mirror.stage.tell(qe_body(mirror, version=version)).exit_code == expected


@pytest.mark.parametrize(("digits", "expected"), [(62, 634), (63, 634), (64, 0), (65, 634), (66, 634)])
def test_g12_an_enclaves_signer_has_64_digits(mirror: Mirror, digits: int, expected: int) -> None:
    signer = json.loads(simulated.mint(0).qe_identity)["mrsigner"]
    assert mirror.stage.tell(qe_body(mirror, mrsigner=(signer + "00")[:digits])).exit_code == expected


def test_g12_times_in_another_form_are_refused(mirror: Mirror) -> None:
    body = qe_body(mirror)
    shorter = begin_cell().store_uint(Op.UPDATE_QE, 32)
    shorter.store_bits(body.bits[32:192]).store_bits(body.bits[200:])
    for ref in body.refs:
        shorter.store_ref(ref)
    assert mirror.stage.tell(shorter.end_cell()).exit_code != 0


def test_g12_each_platform_type_has_its_own_statement(mirror: Mirror) -> None:
    assert mirror.stage.tell(tcb_body(mirror)).accepted
    before = {"issueDate": rfc3339(mirror.ledger.now - DAY)}
    older = mirror.stage.tell(tcb_body(mirror, **before))
    other = mirror.stage.tell(tcb_body(mirror, fmspc="5C0000000001", tcbEvaluationDataNumber=1, **before))
    assert (older.exit_code, other.exit_code) == (Error.NOT_NEWER, 0)
    mirror.ledger.now += 1
    known = mirror.state.tcb
    assert {fmspc: each.number for fmspc, each in known.items()} == {
        simulated.FMSPC: simulated.EVALUATION_NUMBER,
        bytes.fromhex("5c0000000001"): 1,
    }
    assert mirror.stage.tell(tcb_body(mirror, fmspc="5C0000000001", tcbEvaluationDataNumber=1)).accepted
    lower = mirror.stage.tell(tcb_body(mirror, tcbEvaluationDataNumber=simulated.EVALUATION_NUMBER - 1))
    assert lower.exit_code == Error.NOT_NEWER


@pytest.mark.parametrize(
    ("identities", "expected"),
    [
        ((("TDX_01", (6, "UpToDate")), ("TDX_03", (9, "UpToDate"))), 0),
        ((("TDX_03", (9, "UpToDate")), ("TDX_01", (7, "OutOfDate"), (6, "UpToDate"))), 0),
        ((("TDX_03", (6, "UpToDate")), ("TDX_01", (7, "UpToDate"))), Error.OLD_MODULE),
        ((("TDX_03", (6, "UpToDate")), ("TDX_10", (6, "UpToDate"))), Error.OLD_MODULE),
        ((("TDX_01", (6, "OutOfDate")), ("TDX_03", (6, "UpToDate"))), Error.REFUSED_STATUS),
        ((("TDX_0a", (6, "UpToDate")), ("TDX_0A", (6, "UpToDate")), ("TDX_01", (0, "UpToDate"))), 0),
    ],
)
def test_g12_a_module_has_the_levels_of_its_own_identity(
    mirror: Mirror, identities: tuple[tuple[Any, ...], ...], expected: int
) -> None:
    body = tcb_body(mirror, tdxModuleIdentities=[identity(name, *rows) for name, *rows in identities])
    assert mirror.stage.tell(body).accepted
    assert mirror.attest(tee()).exit_code == expected


def test_g12_a_module_of_more_than_a_byte_is_refused_not_cut(mirror: Mirror) -> None:
    body = tcb_body(mirror, tdxModuleIdentities=[identity("TDX_01", (256, "UpToDate"), (6, "OutOfDate"))])
    assert mirror.stage.tell(body).exit_code != 0
    assert mirror.stage.tell(qe_body(mirror, tcbLevels=levels_of((256, "UpToDate"), (4, "OutOfDate")))).accepted
    assert mirror.attest().exit_code == Error.REFUSED_STATUS
