"""Collateral on chain: Intel-signed only, newer only, within the network's evaluation numbers, revocation at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from attestation_mirror import NODE, ROOT_KEY, Mirror, crl_message, lists, moment, statement, tee
from cryptography.hazmat.primitives.serialization import Encoding
from pytoniq_core import Cell, begin_cell

from attestation.collateral import Collateral
from attestation.onchain.certificates import public_key
from attestation.onchain.collateral import authority_message, collateral_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import ROOT, Op, appraise
from attestation.onchain.needed import needed_messages
from attestation.onchain.state import ChainPolicy, PlatformState, VerifierState
from attestation.onchain.statements import qe_message, tcb_message
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.simulated.collateral import Findings
from attestation.witness import QuoteParts
from devnet.ledger import Snapshot
from wrappers.cells import CellError
from wrappers.code import size_of

SIGNER_KEY = pki.raw_public_key(pki.tcb_signer().key)
PLATFORM_KEY = pki.raw_public_key(pki.platform_ca().key)
DAY = 86_400


def der(authority: pki.Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    mirror = Mirror(policy=ChainPolicy(floor=17, ceiling=19))
    mirror.load()
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


def tcb(collateral: Collateral) -> Cell:
    return tcb_message(collateral.tcb_info, collateral.tcb_info_signature, SIGNER_KEY)


def qe(collateral: Collateral) -> Cell:
    return qe_message(collateral.qe_identity, collateral.qe_identity_signature, SIGNER_KEY)


def numbered(mirror: Mirror, number: int) -> Collateral:
    return simulated.mint(mirror.ledger.now, findings=Findings(evaluation_number=number))


def test_nothing_is_taken_twice_or_older(mirror: Mirror) -> None:
    old = simulated.mint(mirror.ledger.now - DAY)
    for collateral in (simulated.mint(mirror.ledger.now), old):
        for name, body in collateral_messages(collateral, ROOT_KEY):
            assert mirror.stage.tell(body).exit_code == Error.NOT_NEWER, name
    mirror.ledger.now += DAY
    for name, body in collateral_messages(simulated.mint(mirror.ledger.now), ROOT_KEY):
        assert name.startswith("set_authority") or mirror.stage.tell(body).accepted, name


def test_g12_collateral_outside_its_validity_is_refused(mirror: Mirror) -> None:
    now = mirror.ledger.now
    future = simulated.mint(now + 2 * simulated.ISSUED_BEFORE_SECONDS)
    past = simulated.mint(now + 10, validity_seconds=-10)
    for collateral in (future, past):
        assert mirror.stage.tell(tcb(collateral)).exit_code == Error.EXPIRED
        assert mirror.stage.tell(qe(collateral)).exit_code == Error.EXPIRED
        assert mirror.stage.tell(crl_message(ROOT, collateral.root_ca_crl, ROOT_KEY)).exit_code == Error.EXPIRED
        assert mirror.stage.tell(crl_message(0, collateral.pck_crl, PLATFORM_KEY)).exit_code == Error.EXPIRED


def test_evaluation_number_stays_within_floor_and_ceiling_and_never_falls(mirror: Mirror) -> None:
    for number, expected in ((20, Error.WRONG_NUMBER), (19, 0), (18, Error.NOT_NEWER), (16, Error.NOT_NEWER)):
        mirror.ledger.now += 10
        collateral = numbered(mirror, number)
        assert mirror.stage.tell(tcb(collateral)).exit_code == expected, number
        assert mirror.stage.tell(qe(collateral)).exit_code == expected, number


def test_g12_only_the_tcb_signers_statements_are_taken(mirror: Mirror) -> None:
    mirror.ledger.now += 10
    platform = tee().platform.pck
    for signer in (platform, pki.platform_ca(), pki.root()):
        forged = simulated.mint(mirror.ledger.now, signer=signer)
        assert mirror.stage.tell(tcb(forged)).exit_code == Error.FORGED
        assert mirror.stage.tell(qe(forged)).exit_code == Error.FORGED
    for issuer in (pki.processor_ca(), pki.root(), pki.tcb_signer()):
        crl = pki.revocation_list(issuer, mirror.ledger.now - 5, mirror.ledger.now + DAY)
        assert mirror.stage.tell(crl_message(0, crl, PLATFORM_KEY)).exit_code == Error.FORGED


def test_g12_authorities_must_be_the_roots_own_and_named_so(mirror: Mirror) -> None:
    now = mirror.ledger.now
    validity = (moment(now - DAY), moment(now + DAY))
    fresh = pki.renewed(pki.platform_ca(), validity)
    good = authority_message(der(fresh), ROOT_KEY)
    as_signer = good.begin_parse()
    as_signer.load_uint(40)
    body = begin_cell().store_uint(Op.SET_AUTHORITY, 32).store_uint(2, 8).store_ref(as_signer.load_ref()).end_cell()
    assert mirror.stage.tell(body).exit_code == Error.NO_AUTHORITY
    assert mirror.stage.tell(good).accepted
    assert mirror.stage.tell(good).exit_code == Error.NOT_NEWER
    assert mirror.stage.tell(authority_message(der(pki.platform_ca()), ROOT_KEY)).exit_code == Error.NOT_NEWER


def test_replaced_authority_needs_its_own_list_and_ends_the_old_key(mirror: Mirror) -> None:
    now = mirror.ledger.now
    other = pki.renewed(pki.platform_ca(), (moment(now - DAY), moment(now + DAY)), pki.derive_key("another authority"))
    assert mirror.stage.tell(authority_message(der(other), ROOT_KEY)).accepted
    assert mirror.attest(tee(issuer=other)).exit_code == Error.EXPIRED
    crl = pki.revocation_list(other, now - 5, now + DAY)
    assert mirror.stage.tell(crl_message(0, crl, public_key(der(other)))).accepted
    parts = QuoteParts.of(tee().quote(bytes(64))).changed(authority_key=public_key(der(other)))
    assert mirror.stage.tell(appraise(parts.authority, *parts.cells())).exit_code == Error.FORGED


def test_g12_statements_of_a_replaced_signer_go_with_its_key(mirror: Mirror) -> None:
    now = mirror.ledger.now
    validity = (moment(now - 2 * DAY), moment(now + DAY))
    assert mirror.stage.tell(authority_message(der(pki.renewed(pki.tcb_signer(), validity)), ROOT_KEY)).accepted
    assert mirror.attest().exit_code == 0
    validity = (moment(now - DAY), moment(now + DAY))
    other = pki.renewed(pki.tcb_signer(), validity, pki.derive_key("another signer"))
    assert mirror.stage.tell(authority_message(der(other), ROOT_KEY)).accepted
    mirror.ledger.now += 100
    assert mirror.attest().exit_code == Error.EXPIRED
    collateral = simulated.mint(mirror.ledger.now, signer=other)
    key = public_key(der(other))
    assert mirror.stage.tell(tcb_message(collateral.tcb_info, collateral.tcb_info_signature, key)).accepted
    assert mirror.stage.tell(qe_message(collateral.qe_identity, collateral.qe_identity_signature, key)).accepted
    assert mirror.attest().exit_code == 0


def test_g12_revoked_platform_is_refused_from_the_update_on(mirror: Mirror) -> None:
    machine, honest = tee(b"stolen"), tee(b"honest")
    assert mirror.attest(machine).exit_code == 0
    mirror.ledger.now += 100
    others = tuple(tee(f"other {index}".encode()).platform.pck.certificate for index in range(5))
    update = lists(
        simulated.mint(mirror.ledger.now), mirror.ledger.now, revoked=(*others, machine.platform.pck.certificate)
    )
    assert mirror.stage.tell(crl_message(0, update.pck_crl, PLATFORM_KEY)).accepted
    assert mirror.attest(machine).exit_code == Error.REVOKED
    assert mirror.attest(honest).exit_code == 0


@pytest.mark.parametrize("name", ["platform", "signer"])
def test_g12_root_list_removes_an_authority_at_once(mirror: Mirror, name: str) -> None:
    mirror.ledger.now += 100
    authority = pki.platform_ca() if name == "platform" else pki.tcb_signer()
    crl = lists(simulated.mint(mirror.ledger.now), mirror.ledger.now, root_revoked=(authority.certificate,)).root_ca_crl
    assert mirror.attest().exit_code == 0
    assert mirror.stage.tell(crl_message(ROOT, crl, ROOT_KEY)).accepted
    expected = Error.NO_AUTHORITY if name == "platform" else Error.EXPIRED
    assert mirror.attest().exit_code == expected
    # The revoked certificate cannot come back; a later one can.
    later = pki.renewed(authority, (moment(mirror.ledger.now - DAY), moment(mirror.ledger.now + DAY)))
    assert mirror.stage.tell(authority_message(der(authority), ROOT_KEY)).exit_code == Error.REVOKED
    assert mirror.stage.tell(authority_message(der(later), ROOT_KEY)).accepted


def test_lists_of_many_serials_and_of_none(mirror: Mirror) -> None:
    certificates = tuple(tee(f"machine {index}".encode()).platform.pck.certificate for index in range(60))
    for revoked in (certificates, certificates[:1], ()):
        mirror.ledger.now += 100
        crl = lists(simulated.mint(mirror.ledger.now), mirror.ledger.now, revoked=revoked).pck_crl
        outcome = mirror.stage.tell(crl_message(0, crl, PLATFORM_KEY))
        assert outcome.accepted
        refused = mirror.attest(tee(b"machine 0")).exit_code == Error.REVOKED
        assert refused == bool(revoked)


def test_g12_set_of_serials_is_exactly_that_of_the_list(mirror: Mirror) -> None:
    """Neither may one be left out, nor may a sender revoke a machine that Intel did not."""
    mirror.ledger.now += 100
    all_of = [tee(f"machine {index}".encode()).platform.pck.certificate for index in range(5)]
    now = mirror.ledger.now

    def message(listed: list[Any], brought: list[Any]) -> Cell:
        genuine = crl_message(
            0, pki.revocation_list(pki.platform_ca(), now - 5, now + DAY, tuple(listed)), PLATFORM_KEY
        )
        other = crl_message(0, pki.revocation_list(pki.platform_ca(), now - 5, now + DAY, tuple(brought)), PLATFORM_KEY)
        serials = other.begin_parse()
        serials.load_uint(40)
        dictionary = serials.load_maybe_ref()
        body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(0, 8).store_maybe_ref(dictionary)
        for ref in genuine.refs[-2:]:
            body.store_ref(ref)
        return body.end_cell()

    listed = all_of[:3]
    for brought in (all_of[:2], all_of[:4], [], [*all_of[:2], all_of[3]]):
        assert mirror.stage.tell(message(listed, brought)).exit_code == Error.WRONG_SERIALS
    assert mirror.stage.tell(message(listed, listed)).accepted


def test_g12_serials_carry_no_baggage(mirror: Mirror) -> None:
    """A value or reference beside a serial would be stored for good at the contract's rent."""
    mirror.ledger.now += 100
    now = mirror.ledger.now
    one = (tee(b"machine 0").platform.pck.certificate,)
    genuine = crl_message(0, pki.revocation_list(pki.platform_ca(), now - 5, now + DAY, one), PLATFORM_KEY)
    leaf = genuine.refs[0]
    heavy = (
        begin_cell().store_cell(leaf).store_ref(begin_cell().store_uint(1, 256).end_cell()).end_cell(),
        begin_cell().store_cell(leaf).store_bit(1).end_cell(),
    )
    for dictionary in heavy:
        body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(0, 8).store_maybe_ref(dictionary)
        body.store_ref(genuine.refs[1]).store_ref(genuine.refs[2])
        assert mirror.stage.tell(body.end_cell()).exit_code in (Error.WRONG_SERIALS, Error.BAD_LIST)


def test_g12_forks_of_the_set_carry_no_baggage(mirror: Mirror) -> None:
    mirror.ledger.now += 100
    now = mirror.ledger.now
    two = tuple(tee(f"machine {index}".encode()).platform.pck.certificate for index in range(2))
    genuine = crl_message(0, pki.revocation_list(pki.platform_ca(), now - 5, now + DAY, two), PLATFORM_KEY)
    fork = genuine.refs[0]
    assert len(fork.refs) == 2
    for dictionary in (
        begin_cell().store_cell(fork).store_ref(Cell.empty()).end_cell(),
        begin_cell().store_cell(fork).store_uint(0, 64).end_cell(),
    ):
        body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(0, 8).store_maybe_ref(dictionary)
        body.store_ref(genuine.refs[1]).store_ref(genuine.refs[2])
        assert mirror.stage.tell(body.end_cell()).exit_code != 0


def test_g12_library_cells_in_the_set_are_refused(mirror: Mirror) -> None:
    """A library that vanishes later would take every verdict with it on platforms behind that branch."""
    mirror.ledger.now += 100
    now = mirror.ledger.now
    two = tuple(tee(f"machine {index}".encode()).platform.pck.certificate for index in range(2))
    genuine = crl_message(0, pki.revocation_list(pki.platform_ca(), now - 5, now + DAY, two), PLATFORM_KEY)
    fork = genuine.refs[0]
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(fork.refs[1].hash).end_cell().bits, [], 2)
    dictionary = begin_cell().store_bits(fork.bits).store_ref(fork.refs[0]).store_ref(library).end_cell()
    body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(0, 8).store_maybe_ref(dictionary)
    body.store_ref(genuine.refs[1]).store_ref(genuine.refs[2])
    assert mirror.stage.tell(body.end_cell()).exit_code != 0


def test_statements_leave_nothing_of_the_witness_behind(mirror: Mirror) -> None:
    mirror.ledger.now += 100
    collateral = statement(simulated.mint(mirror.ledger.now), tcb=lambda d: d["tcbLevels"][0].update(advisoryIDs=["A"]))
    genuine = tcb(collateral)
    data = mirror.ledger.account(mirror.stage.account).data
    before = size_of(data)
    level = genuine.refs[2]
    advisories = begin_cell().store_cell(level.refs[0])
    for index in range(3):
        advisories.store_ref(begin_cell().store_uint(index, 256).end_cell())
    heavy = begin_cell().store_bits(level.bits).store_ref(advisories.end_cell()).end_cell()
    body = begin_cell().store_uint(Op.UPDATE_TCB, 32).store_ref(genuine.refs[0]).store_ref(genuine.refs[1])
    mirror.stage.tell(body.store_ref(heavy).store_ref(genuine.refs[3]).end_cell())
    mirror.stage.tell(genuine)
    assert size_of(mirror.ledger.account(mirror.stage.account).data) == before


def test_g12_text_cannot_reach_past_its_object(mirror: Mirror) -> None:
    """Witnesses that cut a genuine TCB info elsewhere, so that a lower SVN or a whole level would be swallowed."""
    mirror.ledger.now += 100

    def two_levels(document: dict[str, Any]) -> None:
        level = json.loads(json.dumps(document["tcbLevels"][0]))
        level["tcb"]["pcesvn"] = 1
        level["tcbStatus"] = "OutOfDate"
        document["tcbLevels"][0]["tcb"]["sgxtcbcomponents"][0] = {"svn": 255, "category": "BIOS"}
        document["tcbLevels"].append(level)

    collateral = statement(simulated.mint(mirror.ledger.now), tcb=two_levels)
    genuine = tcb(collateral)
    head, modules, levels, signature = genuine.refs
    # svn 2 with the tail "55,..." instead of 255: the first component's text is the same.
    tails = begin_cell().end_cell()
    tails = begin_cell().store_ref(begin_cell().store_bytes(b'55,"category":"BIOS"').end_cell()).end_cell()
    forged_head = begin_cell().store_bits(head.bits).store_ref(tails).end_cell()
    bits = levels.bits.copy()
    bits[0:8] = begin_cell().store_uint(2, 8).end_cell().bits
    forged_level = begin_cell().store_bits(bits)
    for ref in levels.refs:
        forged_level.store_ref(ref)
    body = begin_cell().store_uint(Op.UPDATE_TCB, 32).store_ref(forged_head).store_ref(modules)
    body.store_ref(forged_level.end_cell()).store_ref(signature)
    assert mirror.stage.tell(body.end_cell()).exit_code == Error.BAD_STATEMENT
    # A tail that holds the end of its object and the beginning of others.
    tails = begin_cell().store_ref(begin_cell().store_bytes(b',"category":"BIOS"},{"svn":3').end_cell()).end_cell()
    forged_head = begin_cell().store_bits(head.bits).store_ref(tails).end_cell()
    body = begin_cell().store_uint(Op.UPDATE_TCB, 32).store_ref(forged_head).store_ref(modules)
    body.store_ref(levels).store_ref(signature)
    assert mirror.stage.tell(body.end_cell()).exit_code == Error.BAD_STATEMENT
    assert mirror.stage.tell(genuine).accepted


def mutations(cell: Cell, step: int) -> Iterator[Cell]:
    """The tree with one bit flipped, for every `step`-th bit of it."""
    counter = [0]

    def visit(current: Cell) -> Iterator[Cell]:
        for at in range(len(current.bits)):
            counter[0] += 1
            if counter[0] % step == 0:
                bits = current.bits.copy()
                bits[at] ^= 1
                builder = begin_cell().store_bits(bits)
                for ref in current.refs:
                    builder.store_ref(ref)
                yield builder.end_cell()
        for index, ref in enumerate(current.refs):
            for changed in visit(ref):
                builder = begin_cell().store_bits(current.bits)
                for other, each in enumerate(current.refs):
                    builder.store_ref(changed if other == index else each)
                yield builder.end_cell()

    return visit(cell)


def test_g12_no_flipped_bit_of_any_collateral_message_is_taken(mirror: Mirror) -> None:
    mirror.ledger.now += 100
    now = mirror.ledger.now
    machines = tuple(tee(f"machine {index}".encode()).platform.pck.certificate for index in range(4))
    collateral = lists(simulated.mint(now), now, revoked=machines)
    fresh = pki.renewed(pki.processor_ca(), (moment(now - DAY), moment(now + DAY)))
    bodies = dict(collateral_messages(collateral, ROOT_KEY))
    bodies["set_authority PCK CA"] = authority_message(der(fresh), ROOT_KEY)
    del bodies["set_authority TCB signer"]
    snapshot = mirror.ledger.snapshot()
    for name, body in bodies.items():
        tried = 0
        for changed in mutations(body, 53):
            tried += 1
            assert mirror.stage.tell(changed).exit_code != 0, (name, tried)
            if tried % 50 == 0:
                mirror.ledger.revert(snapshot)
        assert tried > 40, name
        mirror.ledger.revert(snapshot)
        assert mirror.stage.tell(body).accepted, name


def test_collateral_state_is_what_genesis_leaves_to_intel() -> None:
    """No collateral comes with genesis: without Intel's lists and statements nothing verifies."""
    empty = Mirror()
    assert empty.attest().exit_code == Error.NO_AUTHORITY
    names = [name for name, _ in collateral_messages(simulated.mint(empty.ledger.now), ROOT_KEY)]
    for missing in names:
        mirror = Mirror()
        for name, body in collateral_messages(simulated.mint(mirror.ledger.now), ROOT_KEY):
            if name != missing:
                mirror.stage.tell(body)
        assert mirror.attest().exit_code != 0, missing


def state_of(mirror: Mirror) -> VerifierState:
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    return VerifierState.from_cell(data)


def test_state_reads_back_and_names_what_the_chain_lacks() -> None:
    mirror = Mirror(policy=ChainPolicy(floor=17, ceiling=19, accepted_statuses=frozenset({"UpToDate", "OutOfDate"})))
    collateral = simulated.mint(mirror.ledger.now)
    state = state_of(mirror)
    assert (state.registry, state.network_id, state.simulated) == (mirror.stage.registry, mirror.stage.network, True)
    assert state.policy == mirror.policy and state.images == mirror.stage.images and not state.platforms
    every = [name for name, _ in collateral_messages(collateral, ROOT_KEY)]
    assert [name for name, _ in needed_messages(collateral, ROOT_KEY, state, mirror.ledger.now)] == every
    mirror.load(collateral)
    state = state_of(mirror)
    assert [*needed_messages(collateral, ROOT_KEY, state, mirror.ledger.now)] == []
    assert state.tcb[simulated.FMSPC].number == simulated.EVALUATION_NUMBER == state.qe.number
    assert state.signer.key == SIGNER_KEY and state.platform_authority.key == PLATFORM_KEY
    later = mirror.ledger.now + simulated.VALIDITY_SECONDS
    lacking = {name for name, _ in needed_messages(collateral, ROOT_KEY, state, later)}
    assert lacking == {"update_crl root", "update_crl PCK CA", "update_tcb", "update_qe"}
    assert mirror.attest().exit_code == 0
    found = state_of(mirror).platforms[tee().platform_id]
    assert found == PlatformState(False, NODE, 0, 1, found.facts) and found.facts is not None
    assert (found.facts.fmspc, found.facts.serial) == (simulated.FMSPC, tee().platform.pck.certificate.serial_number)


def needed(mirror: Mirror, collateral: Collateral, **options: int) -> set[str]:
    return {name for name, _ in needed_messages(collateral, ROOT_KEY, state_of(mirror), mirror.ledger.now, **options)}


def test_what_ends_soon_is_needed_ahead_but_only_where_ours_is_newer() -> None:
    mirror = Mirror()
    first = simulated.mint(mirror.ledger.now)
    mirror.load(first)
    assert needed(mirror, first, ahead_seconds=simulated.VALIDITY_SECONDS) == set(), "the same is not newer"
    mirror.ledger.now += 86_400
    second = simulated.mint(mirror.ledger.now)
    assert needed(mirror, second) == set()
    assert needed(mirror, second, ahead_seconds=simulated.VALIDITY_SECONDS) == {
        "update_crl root",
        "update_crl PCK CA",
        "update_tcb",
        "update_qe",
    }


def test_g12_revocations_and_raised_numbers_are_needed_at_once() -> None:
    mirror = Mirror()
    mirror.load()
    mirror.ledger.now += 100
    now = mirror.ledger.now
    revoked = lists(simulated.mint(now), now, revoked=(tee().platform.pck.certificate,))
    assert needed(mirror, revoked) == {"update_crl PCK CA"}
    raised = simulated.mint(now, findings=Findings(evaluation_number=simulated.EVALUATION_NUMBER + 1))
    assert needed(mirror, raised) == {"update_tcb", "update_qe"}
    for name, body in needed_messages(raised, ROOT_KEY, state_of(mirror), now):
        assert mirror.stage.tell(body).accepted, name
    assert needed(mirror, raised) == set()


def test_a_contract_before_its_genesis_has_no_state() -> None:
    with pytest.raises(CellError):
        VerifierState.from_cell(begin_cell().store_uint(1, 256).store_uint(0, 32).end_cell())


def test_excess_of_an_update_returns_to_its_sender(mirror: Mirror) -> None:
    mirror.ledger.now += 100
    before = mirror.ledger.balance(mirror.stage.account)
    outcome = mirror.stage.tell(qe(simulated.mint(mirror.ledger.now)))
    assert outcome.accepted
    assert abs(mirror.ledger.balance(mirror.stage.account) - before) < 10_000
