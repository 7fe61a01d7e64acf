"""The committee: who may be drawn, how, what answers do, and where the money goes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256

import pytest
from committee_stage import COLLATERAL, EVIDENCE, MEASUREMENT, PLATFORM, POLICY, Stage
from job_stage import code_of
from pytoniq_core import begin_cell

from attestation.onchain.errors import VerifierError
from devnet.ledger import Ledger, Snapshot
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, account_of_name, key_of, public
from wrappers import committee, committee_messages, documents
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.committee import (
    DRAW_SECONDS,
    LEAST_BOND_NANO,
    LEAST_FEE_NANO,
    LEAVE_SECONDS,
    MAX_MEMBERS,
    MAX_OLDER_KEYS,
    CommitteeState,
    CommitteeVerdict,
    Question,
    Vote,
    slots_of,
)
from wrappers.committee_messages import Vouched, place_of
from wrappers.documents import document_bytes, document_cell
from wrappers.errors import ContractError as E
from wrappers.ops import Op
from wrappers.signed import sign


@pytest.fixture(scope="module")
def _born() -> tuple[Stage, Snapshot]:
    stage = Stage()
    assert not stage.genesis().failed
    return stage, stage.ledger.snapshot()


@pytest.fixture
def stage(_born: tuple[Stage, Snapshot]) -> Stage:
    _born[0].ledger.revert(_born[1])
    return _born[0]


def refused(trace: Trace, error: int) -> None:
    assert code_of(trace) == error
    assert trace.total_fees_nano > 0 and all(message.bounced for message in trace.failed[0].out_msgs)


def conserved(trace: Trace) -> None:
    assert not trace.failed, [(tx.exit_code, tx.action_code) for tx in trace.failed]
    assert trace.total_fees_nano == trace.balance_delta_nano


# ------------------------------------------------------------------------------------------------ birth


@pytest.mark.parametrize(
    "changes",
    [{"quorum": 2, "seats": 3}, {"quorum": 6}, {"seats": 16, "quorum": 9}, {"seats": 6, "quorum": 3},
     {"bond_nano": LEAST_BOND_NANO - 1}, {"fee_nano": 0}, {"fee_nano": LEAST_FEE_NANO - 1},
     {"window": HOUR - 1}, {"window": 2 * DAY + 1}, {"treasury": bytes(32)}, {"stub_prefix": bytes(39)}],
)  # fmt: skip
def test_terms_out_of_bounds_are_refused_at_genesis(changes: dict[str, object]) -> None:
    stage = Stage()
    terms = replace(stage.terms, **changes)  # type: ignore[arg-type]
    assert code_of(stage.genesis(terms)) == E.BAD_PARAMETERS


def test_genesis_is_signed_and_comes_once(stage: Stage) -> None:
    stage.genesis_key = key_of("other")
    assert code_of(stage.genesis()) == E.UNKNOWN_OP
    stage.genesis_key = key_of("genesis")
    assert stage.state == CommitteeState(stage.terms, {}, {}, frozenset(), 0)


# ------------------------------------------------------------------------------------------------ members


def test_a_verified_node_joins_with_its_bond(stage: Stage) -> None:
    (who,) = stage.join(1)
    member = stage.state.members[who.owner]
    assert (member.node, member.key, member.platform, member.payout) == (
        who.node, public(who.key), who.platform, who.payout,
    )  # fmt: skip
    assert member.bond_nano == stage.terms.bond_nano and stage.state.platforms == {who.platform}


def test_g14_only_nodes_that_the_chain_verified_itself_join() -> None:
    for global_id, tier, joins in (
        (-7001, 0, True), (-239, 0, False), (-239, 1, True), (-239, 2, True), (-239, 3, False), (-239, 4, False),
    ):  # fmt: skip
        stage = Stage(Ledger(global_id=global_id))
        assert not stage.genesis().failed
        trace = stage.present(stage.verifier(0), tier=tier)
        assert (not trace.failed) == joins, (global_id, tier)
        if not joins:
            refused(trace, E.NOT_VERIFIED)


def test_g10_a_sender_that_is_no_node_of_this_network_is_refused(stage: Stage) -> None:
    who = stage.verifier(0)
    refused(stage.present(who, source=stage.stranger), E.NOT_GENUINE)
    refused(stage.present(who, owner=account_of_name("other")), E.NOT_GENUINE)
    refused(stage.present(who, index=1), E.NOT_GENUINE)
    refused(stage.present(who, attested_until=stage.ledger.now), E.NOT_VERIFIED)


def test_one_node_for_each_owner_and_each_platform(stage: Stage) -> None:
    first, second = stage.verifier(0), stage.verifier(1)
    assert not stage.present(first).failed
    refused(stage.present(second, platform=first.platform), E.OWNER_TAKEN)
    another = child_address(stage.registry, Kind.NODE, first.owner, 1)
    refused(stage.present(first, source=another, index=1, platform=b"\x01" * 32), E.OWNER_TAKEN)


def test_a_member_presents_its_next_key_and_pays_no_bond_again(stage: Stage) -> None:
    (who,) = stage.join(1)
    other = public(key_of("next"))
    trace = stage.present(who, stage.fees.presented(), key=other)
    conserved(trace)
    member = stage.state.members[who.owner]
    assert (member.key, member.previous_key, member.bond_nano) == (other, public(who.key), stage.terms.bond_nano)
    refused(stage.present(who, stage.fees.presented() - 1), E.LOW_VALUE)


def test_g3_a_bond_comes_back_two_weeks_after_leaving(stage: Stage) -> None:
    who, last, _ = stage.join(3)
    refused(stage.tell(committee_messages.leave(who.owner), TON, stage.stranger), E.NOT_ALLOWED)
    refused(stage.tell(committee_messages.withdraw_bond(who.owner), TON), E.BOND_LOCKED)
    conserved(stage.tell(committee_messages.leave(who.owner), stage.fees.leave(), who.owner))
    refused(stage.tell(committee_messages.leave(who.owner), TON, who.owner), E.LEAVING)
    refused(stage.present(who), E.OWNER_TAKEN)
    state = stage.state
    assert state.size == 2 and sorted(m.slot for m in state.members.values() if not m.leaving_at) == [0, 1]
    stage.ledger.now += LEAVE_SECONDS - 1
    refused(stage.tell(committee_messages.withdraw_bond(who.owner), TON), E.BOND_LOCKED)
    stage.ledger.now += 1
    before = stage.ledger.balance(who.payout)
    conserved(stage.tell(committee_messages.withdraw_bond(who.owner), stage.fees.withdraw_bond()))
    received = stage.ledger.balance(who.payout) - before
    assert stage.terms.bond_nano - TON // 1000 < received <= stage.terms.bond_nano
    assert who.owner not in stage.state.members and who.platform not in stage.state.platforms
    assert not stage.present(who).failed
    assert last.owner in stage.state.members


def test_anyone_retires_a_member_whose_verdict_has_ended(stage: Stage) -> None:
    (who,) = stage.join(1)
    stage.ledger.now = stage.state.members[who.owner].attested_until
    conserved(stage.tell(committee_messages.leave(who.owner), stage.fees.leave()))
    assert stage.state.size == 0


def test_numbers_have_no_gaps_whoever_leaves(stage: Stage) -> None:
    members = stage.join(6)
    for who in (members[0], members[5], members[3]):
        assert not stage.tell(committee_messages.leave(who.owner), TON, who.payout).failed
        here = {m.slot: owner for owner, m in stage.state.members.items() if not m.leaving_at}
        data = stage.ledger.account(stage.account).data
        assert data is not None
        pool = data.refs[-1].begin_parse()
        pool.load_uint(8)
        assert slots_of(pool.load_maybe_ref()) == [here[slot] for slot in range(stage.state.size)]


# ------------------------------------------------------------------------------------------------ asking and drawing


def test_a_question_names_all_that_the_answer_follows_from(stage: Stage) -> None:
    stage.join(5)
    ask = stage.question()
    trace = stage.ask()
    conserved(trace)
    block = stage.ledger.prev_blocks.hundreds[0]
    assert stage.request().question == Question(
        stage.network, stage.node, ask.epoch, ask.key, ask.attested_until, MEASUREMENT, PLATFORM,
        bytes(EVIDENCE.hash), bytes(COLLATERAL.hash), POLICY, stage.ledger.now, block.seqno, block.root_hash,
    )  # fmt: skip
    refused(stage.ask(), E.ASKED_ALREADY)


def test_g6_a_question_in_a_victims_name_is_in_nobodys_way(stage: Stage) -> None:
    """A node's own place is its owner's; whoever else asks shares another one, which its owner does without."""
    stage.join(5)
    thief = account_of_name("thief")
    for index in (0, 1):
        trace = stage.tell(stage.question(index=index).to_cell(), stage.fees.ask(), thief)
        assert trace.failed == () if index == 0 else code_of(trace) == E.ASKED_ALREADY
    assert set(stage.state.requests) == {place_of(stage.node, own=False)}
    conserved(stage.ask())
    assert set(stage.state.requests) == {place_of(stage.node, own=False), place_of(stage.node, own=True)}
    refused(stage.ask(), E.ASKED_ALREADY)
    conserved(stage.tell(stage.question(node=account_of_name("sold"), index=3).to_cell(), stage.fees.ask()))
    stage.wait_for_block()
    for own in (False, True):
        conserved(stage.tell(committee_messages.draw(place_of(stage.node, own=own)), stage.fees.draw()))
    shared = place_of(stage.node, own=False)
    for index in range(stage.quorum):
        who = stage.verifier(index)
        signed = stage.signed(who, True, stage.state.requests[shared].question.hash)
        conserved(stage.tell(committee_messages.answer(shared, who.owner, True, signed), stage.fees.answer()))
    stage.past_deadline()
    trace = stage.tell(committee_messages.conclude(shared), stage.fees.conclude(admitted=True))
    (said,) = [m for m in trace.of(stage.account)[0].out_msgs if m.destination == stage.attestation]
    s = said.body.begin_parse()
    assert (s.load_uint(32), s.load_bytes(32)) == (Op.VOUCHED, stage.node), "the node, wherever its request stood"


def test_g7_without_enough_verifiers_a_request_is_refunded(stage: Stage) -> None:
    stage.join(4)
    trace = stage.ask()
    refused(trace, E.FEW_VERIFIERS)
    assert trace.failed[0].out_msgs[0].destination == stage.stranger and not stage.state.requests


def test_evidence_is_bound_to_a_block_that_the_chain_sees(stage: Stage) -> None:
    stage.join(5)
    refused(stage.ask(block_seqno=stage.ledger.prev_blocks.hundreds[0].seqno + 100), VerifierError.OLD_BLOCK)
    refused(stage.ask(block_seqno=stage.ledger.prev_blocks.hundreds[-1].seqno - 100), VerifierError.OLD_BLOCK)
    refused(stage.ask(block_seqno=stage.ledger.prev_blocks.hundreds[0].seqno - 1), VerifierError.OLD_BLOCK)
    refused(stage.ask(attested_until=stage.ledger.now), E.WRONG_QUESTION)
    refused(stage.ask(attested_until=stage.ledger.now + 7 * DAY + 1), E.WRONG_QUESTION)


def expected_seats(stage: Stage, root_hash: bytes) -> set[bytes]:
    """The draw, written once more."""
    request = stage.request()
    pool = slots_of(request.pool)
    seats = set()
    for left in range(len(pool), len(pool) - stage.terms.seats, -1):
        chosen = int.from_bytes(sha256(root_hash + request.question.hash + bytes([left])).digest(), "big") % left
        seats.add(pool[chosen])
        pool[chosen] = pool[left - 1]
        pool.pop()
    return seats


def test_the_draw_is_the_chains_and_waits_for_a_block_that_nobody_knew(stage: Stage) -> None:
    stage.join(9)
    newest = stage.ledger.prev_blocks.hundreds[0].seqno
    assert not stage.ask().failed
    assert stage.request().draw_at == newest + 200 > stage.ledger.prev_blocks.last[0].seqno + 100
    refused(stage.draw(), VerifierError.OLD_BLOCK)
    stage.wait_for_block()
    block = next(b for b in stage.ledger.prev_blocks.hundreds if b.seqno == stage.request().draw_at)
    expected = expected_seats(stage, block.root_hash)
    # Whoever comes or goes now changes nothing: the pool is that of the question.
    assert not stage.present(stage.verifier(20)).failed
    assert not stage.tell(committee_messages.leave(stage.verifier(0).owner), TON, stage.verifier(0).owner).failed
    conserved(stage.draw())
    assert set(stage.request().seats) == expected and len(expected) == stage.terms.seats
    assert set(stage.request().seats.values()) == {Vote.NONE}
    refused(stage.draw(), E.DRAWN_ALREADY)


def test_every_group_of_seats_is_equally_likely(stage: Stage) -> None:
    """Chi-squared over single seats and pairs, on the same rule as the contract's (compared above)."""
    size, seats, rounds = 8, 3, 4000
    singles: Counter[int] = Counter()
    pairs: Counter[tuple[int, int]] = Counter()
    for number in range(rounds):
        pool, drawn = list(range(size)), []
        seed = sha256(number.to_bytes(4, "big")).digest()
        for left in range(size, size - seats, -1):
            chosen = int.from_bytes(sha256(seed + bytes([left])).digest(), "big") % left
            drawn.append(pool[chosen])
            pool[chosen] = pool[left - 1]
        drawn.sort()
        singles.update(drawn)
        pairs.update((a, b) for a in drawn for b in drawn if a < b)
    for counts, cells in ((singles, size), (pairs, size * (size - 1) // 2)):
        mean = sum(counts.values()) / cells
        assert len(counts) == cells
        assert sum((each - mean) ** 2 / mean for each in counts.values()) < 3 * cells


def test_g7_a_request_that_nobody_draws_ends_and_costs_its_fees(stage: Stage) -> None:
    """Everybody can compute the draw before it is brought: who did not like it would ask again, for nothing."""
    stage.join(5)
    assert not stage.ask().failed
    stage.ledger.now += DRAW_SECONDS
    refused(stage.conclude(), E.NOT_DUE)
    stage.ledger.now += 1
    refused(stage.draw(), E.REQUEST_OVER)
    before, stranger = stage.ledger.balance(stage.terms.treasury), stage.ledger.balance(stage.stranger)
    trace = stage.conclude(stage.fees.conclude(admitted=False))
    conserved(trace)
    fees = stage.terms.seats * stage.terms.fee_nano
    assert stage.ledger.balance(stage.terms.treasury) - before > fees - TON // 1000
    assert stage.ledger.balance(stage.stranger) - stranger < fees // 5, "the excess of his message alone"
    assert not stage.state.requests


# ------------------------------------------------------------------------------------------------ answers


def test_a_quorum_without_doubt_is_vouched_for_after_the_window(stage: Stage) -> None:
    seats = stage.drawn()
    for who in seats[: stage.quorum]:
        before = stage.ledger.balance(who.payout)
        conserved(stage.answer(who))
        assert 0 < stage.terms.fee_nano - (stage.ledger.balance(who.payout) - before) < TON // 1000
    deadline = stage.ledger.now + stage.terms.window
    assert stage.request().deadline == deadline and stage.request().yes == stage.quorum
    stage.ledger.now = deadline
    refused(stage.conclude(), E.NOT_DUE)
    stage.ledger.now += 1
    question = stage.request().question
    trace = stage.conclude()
    (said,) = [m for m in trace.of(stage.account)[0].out_msgs if m.destination == stage.attestation]
    expected = Vouched(
        stage.node, question.epoch, question.key, question.attested_until, question.block_seqno, MEASUREMENT, PLATFORM
    )
    assert said.body.hash == expected.to_cell().hash and said.value_nano >= stage.fees.vouched_need()
    assert not stage.state.requests


@pytest.mark.parametrize("late", [False, True])
def test_one_no_suspends_however_many_yes(stage: Stage, late: bool) -> None:
    seats = stage.drawn()
    order = seats[1:] if late else seats
    if not late:
        assert not stage.answer(seats[0], False).failed
    for who in order[: stage.quorum]:
        assert not stage.answer(who).failed or not late
    if late:
        stage.ledger.now = stage.request().deadline
        assert not stage.answer(seats[0], False).failed
    stage.past_deadline()
    trace = stage.conclude()
    assert not trace.failed
    assert all(m.destination != stage.attestation for tx in trace.transactions for m in tx.out_msgs)


def test_a_yes_may_become_a_no_and_never_the_other_way(stage: Stage) -> None:
    seats = stage.drawn()
    assert not stage.answer(seats[0]).failed
    refused(stage.answer(seats[0]), E.ANSWERED_ALREADY)
    before = stage.ledger.balance(seats[0].payout)
    assert not stage.answer(seats[0], False).failed
    assert stage.ledger.balance(seats[0].payout) == before, "paid once"
    assert (stage.request().yes, stage.request().no) == (0, 1)
    refused(stage.answer(seats[0]), E.ANSWERED_ALREADY)
    refused(stage.answer(seats[0], False), E.ANSWERED_ALREADY)


def test_only_drawn_members_under_their_own_key_answer_and_in_time(stage: Stage) -> None:
    seats = stage.drawn()
    owners = set(stage.request().seats)
    outsider = next(stage.verifier(i) for i in range(7) if stage.verifier(i).owner not in owners)
    refused(stage.answer(outsider), E.NOT_DRAWN)
    wrong = replace(seats[0], key=key_of("other"))
    refused(stage.answer(wrong), E.BAD_SIGNATURE)
    crossed = committee_messages.answer(stage.node, seats[0].owner, True, stage.signed(seats[0], False))
    refused(stage.tell(crossed, TON), E.BAD_SIGNATURE)
    other = committee_messages.answer(stage.node, seats[0].owner, True, stage.signed(seats[0], True, b"\x09" * 32))
    refused(stage.tell(other, TON), E.BAD_SIGNATURE)
    refused(stage.tell(committee_messages.answer(b"\x01" * 32, seats[0].owner, True, bytes(64)), TON), E.NO_REQUEST)
    stage.past_deadline()
    refused(stage.answer(seats[0]), E.REQUEST_OVER)


def test_a_member_whose_verdict_ended_says_yes_no_more(stage: Stage) -> None:
    members = [stage.verifier(i) for i in range(5)]
    for who in members:
        assert not stage.present(who, attested_until=stage.ledger.now + 2 * HOUR).failed
    assert not stage.ask().failed
    stage.wait_for_block()
    assert not stage.draw().failed
    assert not stage.answer(members[0]).failed
    stage.ledger.now = stage.state.members[members[0].owner].attested_until
    assert stage.ledger.now <= stage.request().deadline
    refused(stage.answer(members[1]), E.NOT_VERIFIED)
    assert not stage.answer(members[0], False).failed, "doubt about what it said gets in"


def test_what_verifiers_did_not_earn_goes_back_to_who_asked(stage: Stage) -> None:
    seats = stage.drawn()
    for who in seats[:2]:
        assert not stage.answer(who).failed
    stage.past_deadline()
    before = stage.ledger.balance(stage.stranger)
    value = stage.fees.conclude(admitted=False)
    conserved(stage.conclude(value))
    back = stage.ledger.balance(stage.stranger) - before
    assert 3 * stage.terms.fee_nano - TON // 100 < back < 3 * stage.terms.fee_nano + value


def test_admission_needs_the_verdict_not_to_be_over(stage: Stage) -> None:
    stage.join(5)
    assert not stage.ask(attested_until=stage.ledger.now + 2 * HOUR).failed
    stage.wait_for_block()
    assert not stage.draw().failed
    for index in range(3):
        assert not stage.answer(stage.verifier(index)).failed
    stage.past_deadline()
    trace = stage.conclude()
    assert all(m.destination != stage.attestation for tx in trace.transactions for m in tx.out_msgs)


# ------------------------------------------------------------------------------------------------ contradictions


def contradiction(stage: Stage, owner: bytes, question: bytes, key_name: str, **signed: bool) -> Trace:
    key = key_of(key_name)
    yes, no = (sign(CommitteeVerdict(question, signed.get(name, name == "yes")), key) for name in ("yes", "no"))
    body = committee_messages.contradiction(owner, question, public(key), yes, no)
    return stage.tell(body, stage.fees.contradiction())


def test_two_answers_of_one_key_to_one_question_cost_the_bond(stage: Stage) -> None:
    who, _ = stage.join(2)
    question = b"\x07" * 32
    reporter, treasury = stage.ledger.balance(stage.stranger), stage.ledger.balance(stage.treasury)
    trace = contradiction(stage, who.owner, question, "verifier 0")
    conserved(trace)
    bond = stage.terms.bond_nano
    assert bond * 9 // 10 - TON // 1000 < stage.ledger.balance(stage.treasury) - treasury <= bond * 9 // 10
    assert stage.ledger.balance(stage.stranger) - reporter >= bond // 10
    member = stage.state.members[who.owner]
    assert (member.bond_nano, stage.state.size) == (0, 1) and member.leaving_at
    refused(contradiction(stage, who.owner, question, "verifier 0"), E.NO_VERIFIER)
    stage.ledger.now += LEAVE_SECONDS
    refused(stage.tell(committee_messages.withdraw_bond(who.owner), TON), E.BOND_LOCKED)
    refused(stage.present(stage.verifier(5), platform=who.platform), E.OWNER_TAKEN)


def test_g10_what_is_no_contradiction_costs_only_its_gas(stage: Stage) -> None:
    who, _ = stage.join(2)
    question = b"\x07" * 32
    refused(contradiction(stage, who.owner, question, "verifier 0", no=True), E.BAD_SIGNATURE)
    refused(contradiction(stage, who.owner, question, "verifier 0", yes=False), E.BAD_SIGNATURE)
    refused(contradiction(stage, who.owner, question, "verifier 1"), E.BAD_SIGNATURE)
    refused(contradiction(stage, account_of_name("nobody"), question, "verifier 0"), E.NO_VERIFIER)
    key = who.key
    other = sign(CommitteeVerdict(b"\x08" * 32, False), key)
    body = committee_messages.contradiction(
        who.owner, question, public(key), sign(CommitteeVerdict(question, True), key), other
    )
    refused(stage.tell(body, TON), E.BAD_SIGNATURE)


def test_neither_leaving_nor_another_key_saves_the_bond(stage: Stage) -> None:
    first, second = stage.join(2)
    assert not stage.tell(committee_messages.leave(first.owner), TON, first.owner).failed
    assert not contradiction(stage, first.owner, b"\x07" * 32, "verifier 0").failed
    assert not stage.present(second, stage.fees.presented(), key=public(key_of("next"))).failed
    assert not contradiction(stage, second.owner, b"\x07" * 32, "verifier 1").failed
    assert [m.bond_nano for m in stage.state.members.values()] == [0, 0] and stage.state.size == 0


def test_a_member_cannot_wash_off_a_key_that_lied_with_others(stage: Stage) -> None:
    """Each replaced key convicts for two weeks at least; changes beyond what is remembered have to wait for that."""
    (who,) = stage.join(1)
    question = b"\x07" * 32
    for number in range(MAX_OLDER_KEYS + 1):
        conserved(stage.present(who, stage.fees.presented(), key=account_of_name(f"key {number}")))
    member = stage.state.members[who.owner]
    assert len(member.older_keys) == MAX_OLDER_KEYS and public(who.key) in member.older_keys
    refused(stage.present(who, stage.fees.presented(), key=account_of_name("one more")), E.KEY_CHANGES)
    stage.ledger.now += LEAVE_SECONDS - 1
    refused(stage.present(who, stage.fees.presented(), key=account_of_name("one more")), E.KEY_CHANGES)
    assert not stage.present(who, stage.fees.presented(), key=member.key).failed, "the same key is no change"
    snapshot = stage.ledger.snapshot()
    conserved(contradiction(stage, who.owner, question, "verifier 0"))
    assert stage.state.members[who.owner].bond_nano == 0
    stage.ledger.revert(snapshot)
    stage.ledger.now += 1
    conserved(stage.present(who, stage.fees.presented(), key=account_of_name("one more")))
    assert set(stage.state.members[who.owner].older_keys) == {member.previous_key}
    refused(contradiction(stage, who.owner, question, "verifier 0"), E.BAD_SIGNATURE)


def test_the_second_answer_of_who_lost_its_bond_still_suspends(stage: Stage) -> None:
    seats = stage.drawn()
    for who in seats[:3]:
        assert not stage.answer(who).failed
    liar = seats[0]
    no = stage.signed(liar, False)
    name = next(f"verifier {i}" for i in range(7) if stage.verifier(i).owner == liar.owner)
    assert not contradiction(stage, liar.owner, stage.request().question.hash, name).failed
    assert not stage.tell(committee_messages.answer(stage.node, liar.owner, False, no), TON).failed
    assert stage.request().no == 1


# ------------------------------------------------------------------------------------------------ borders and bounds


def test_g8_need_minus_one_is_refused_and_need_passes(stage: Stage) -> None:
    fees, ledger = stage.fees, stage.ledger

    def border(send: Callable[[int], Trace], need: int) -> None:
        snapshot = ledger.snapshot()
        refused(send(need - 1), E.LOW_VALUE)
        ledger.revert(snapshot)
        trace = send(need)
        assert trace.transactions[0].exit_code == 0 and trace.transactions[0].action_code == 0

    border(lambda value: stage.present(stage.verifier(0), value), fees.join())
    who = stage.verifier(0)
    border(lambda value: stage.tell(committee_messages.leave(who.owner), value, who.owner), fees.leave())
    ledger.now += LEAVE_SECONDS
    border(lambda value: stage.tell(committee_messages.withdraw_bond(who.owner), value), fees.withdraw_bond())
    stage.join(6)
    border(lambda value: stage.present(who, value), fees.presented())
    border(lambda value: stage.ask(value), fees.ask())
    stage.wait_for_block()
    border(lambda value: stage.draw(value_nano=value), fees.draw())
    seats = [stage.verifier(i) for i in range(6) if stage.verifier(i).owner in stage.request().seats]
    for seat in seats[:3]:
        border(lambda value, seat=seat: stage.answer(seat, True, value), fees.answer())
    stage.past_deadline()
    refused(stage.conclude(fees.conclude(admitted=True) - 1), E.LOW_VALUE)
    trace = stage.conclude(fees.conclude(admitted=True))
    (said,) = [m for m in trace.transactions[0].out_msgs if m.destination == stage.attestation]
    assert said.value_nano >= fees.vouched_need()


def test_members_are_bounded(stage: Stage) -> None:
    stage.join(MAX_MEMBERS)
    refused(stage.present(stage.verifier(MAX_MEMBERS)), E.COMMITTEE_FULL)


def test_requests_are_bounded(stage: Stage) -> None:
    stage.join(5)
    for number in range(committee.MAX_REQUESTS):
        assert not stage.ask(node=account_of_name(f"node {number}")).failed
    refused(stage.ask(), E.TOO_MANY_REQUESTS)


def test_g1_the_committee_holds_bonds_and_fees_whatever_comes(stage: Stage) -> None:
    seats = stage.drawn()
    own = stage.ledger.balance(stage.account)

    def owed() -> int:
        state = stage.state
        bonds = sum(member.bond_nano for member in state.members.values())
        open_ = sum(
            (stage.terms.seats - request.yes - request.no) * stage.terms.fee_nano for request in state.requests.values()
        )
        return bonds + open_

    spare = own - owed()
    assert spare > 0
    for who in seats:
        assert not stage.answer(who, who is not seats[4]).failed
        assert stage.ledger.balance(stage.account) - owed() >= spare - TON // 1000
    stage.past_deadline()
    assert not stage.conclude().failed
    assert not stage.tell(committee_messages.leave(seats[0].owner), TON, seats[0].owner).failed
    stage.ledger.now += LEAVE_SECONDS
    assert not stage.tell(committee_messages.withdraw_bond(seats[0].owner), TON).failed
    assert stage.ledger.balance(stage.account) - owed() >= spare - TON // 10


def test_documents_are_chains_of_bytes() -> None:
    for size in (0, 1, 127, 128, 5000):
        data = bytes(i % 251 for i in range(size))
        assert document_bytes(document_cell(data)) == data
    with pytest.raises(CellError):
        document_bytes(document_cell(bytes(documents.MAX_DOCUMENT_BYTES + 1)))


def test_plain_money_and_unknown_ops(stage: Stage) -> None:
    refused(stage.tell(begin_cell().store_uint(Op.SETTLE, 32).end_cell(), TON), E.UNKNOWN_OP)
    refused(stage.tell(committee_messages.draw(stage.node), TON), E.NO_REQUEST)
    refused(stage.tell(committee_messages.conclude(stage.node), TON), E.NO_REQUEST)
