"""The committee at its borders: the last second, the last nanoTON, and messages in shapes that no builder writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count

import pytest
from committee_stage import Stage
from market_prices import TODAY, Factors, set_prices
from pytoniq_core import Cell, begin_cell
from test_committee import conserved, refused

from devnet.engine import PrevBlocks
from devnet.ledger import Snapshot
from devnet.mcblocks import SyntheticBlocks
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, account_of_name, key_of, public
from tests.support.altered import flipped, with_ref
from wrappers import committee_messages
from wrappers.addresses import singleton_address, singleton_state_init
from wrappers.code import Contract, code
from wrappers.committee import (
    DRAW_SECONDS,
    LEAST_BOND_NANO,
    LEAST_FEE_NANO,
    LEAVE_SECONDS,
    LONGEST_VERDICT_SECONDS,
    CommitteeVerdict,
    Vote,
)
from wrappers.committee_fees import CommitteeFees
from wrappers.errors import ContractError as E
from wrappers.ops import Op
from wrappers.prices import Prices
from wrappers.registry import genesis
from wrappers.signed import GenesisState, sign, verify

CELL_UNDERFLOW = 9
NO_KEY = bytes(32)
LARGEST_BOND_NANO, LARGEST_FEE_NANO = 10**15, 10**12
QUESTION = b"\x07" * 32


@dataclass(frozen=True)
class Moments:
    """One committee of seven members, at the steps of one request."""

    stage: Stage
    empty: Snapshot
    joined: Snapshot
    asked: Snapshot
    drawn: Snapshot


@pytest.fixture(scope="module")
def _moments() -> Moments:
    stage = Stage()
    assert not stage.genesis().failed
    empty = stage.ledger.snapshot()
    stage.join(7)
    joined = stage.ledger.snapshot()
    assert not stage.ask().failed
    stage.wait_for_block()
    asked = stage.ledger.snapshot()
    assert not stage.draw().failed
    return Moments(stage, empty, joined, asked, stage.ledger.snapshot())


@pytest.fixture
def at(_moments: Moments) -> Callable[[str], Stage]:
    def reverted(moment: str) -> Stage:
        _moments.stage.ledger.revert(getattr(_moments, moment))
        return _moments.stage

    return reverted


def seat(stage: Stage, number: int = 0) -> int:
    """Index of a verifier that was drawn."""
    return [i for i in range(7) if stage.verifier(i).owner in stage.request().seats][number]


def contradiction(stage: Stage, index: int) -> Cell:
    who = stage.verifier(index)
    yes, no = (sign(CommitteeVerdict(QUESTION, said), who.key) for said in (True, False))
    return committee_messages.contradiction(who.owner, QUESTION, public(who.key), yes, no)


# ------------------------------------------------------------------------------------------------ shapes


def a_message(stage: Stage, name: str, revert: Callable[[str], Stage]) -> tuple[Cell, bytes | None]:
    """One that the committee takes now, and who sends it."""
    revert({"ask": "joined", "draw": "asked"}.get(name, "drawn"))
    who = stage.verifier(0)
    if name == "presented":
        return stage.presented(stage.verifier(9)).to_cell(), stage.verifier(9).node
    if name == "leave":
        return committee_messages.leave(who.owner), who.owner
    if name == "withdraw_bond":
        conserved(stage.tell(committee_messages.leave(who.owner), TON, who.owner))
        stage.ledger.now += LEAVE_SECONDS
        return committee_messages.withdraw_bond(who.owner), None
    if name == "contradiction":
        return contradiction(stage, 0), None
    if name == "ask":
        return stage.question(consent=bytes(64)).to_cell(), None
    if name == "draw":
        return committee_messages.draw(stage.node), None
    if name == "answer":
        who = stage.verifier(seat(stage))
        return committee_messages.answer(stage.node, who.owner, True, stage.signed(who, True)), None
    stage.past_deadline()
    return committee_messages.conclude(stage.node), None


def longer(cell: Cell) -> Cell:
    return flipped(cell, -1)


def shorter(cell: Cell) -> Cell:
    return begin_cell().store_bits(cell.bits[:-1]).end_cell()


def with_a_ref(cell: Cell) -> Cell:
    return begin_cell().store_cell(cell).store_ref(cell).end_cell()


MESSAGES = ("presented", "leave", "withdraw_bond", "contradiction", "ask", "draw", "answer", "conclude")


@pytest.mark.parametrize("name", MESSAGES)
def test_g1_g8_every_message_is_read_to_its_end_and_leaves_what_it_is_for(
    _moments: Moments, at: Callable[[str], Stage], name: str
) -> None:
    """To the nanoTON: bonds and fees move, a request's rent stays, and all else goes back to who sent it."""
    stage = _moments.stage
    body, sender = a_message(stage, name, at)
    refused(stage.tell(flipped(body, -1), 12 * TON, sender), CELL_UNDERFLOW)
    before, terms = stage.ledger.balance(stage.account), stage.terms
    trace = stage.tell(body, 12 * TON, sender)
    conserved(trace)
    tx = trace.of(stage.account)[0]
    kept = stage.ledger.balance(stage.account) - before
    expected = {
        "presented": 12 * TON - stage.fees.prices.gas(tx.gas_used),
        "withdraw_bond": -terms.bond_nano,
        "contradiction": -terms.bond_nano,
        "ask": terms.seats * terms.fee_nano + stage.fees.request_rent(),
        "answer": -terms.fee_nano,
        "conclude": -terms.seats * terms.fee_nano,
    }
    assert kept == expected.get(name, 0)
    if name == "presented":
        assert not tx.out_msgs
    else:
        assert tx.out_msgs[-1].destination == (sender or stage.stranger)
        assert tx.out_msgs[-1].value_nano > 11 * TON


@pytest.mark.parametrize(
    ("name", "part", "altered", "error"),
    [
        ("presented", 0, longer, CELL_UNDERFLOW),
        ("contradiction", 0, longer, E.BAD_SIGNATURE),
        ("contradiction", 1, with_a_ref, E.BAD_SIGNATURE),
        ("answer", 0, longer, E.BAD_SIGNATURE),
        ("answer", 0, with_a_ref, E.BAD_SIGNATURE),
        ("answer", 0, shorter, E.BAD_SIGNATURE),
        ("ask", 0, longer, E.WRONG_QUESTION),
        ("ask", 0, shorter, E.WRONG_QUESTION),
        ("ask", 0, with_a_ref, E.WRONG_QUESTION),
        ("ask", 3, longer, E.BAD_SIGNATURE),
        ("ask", 3, shorter, E.BAD_SIGNATURE),
        ("ask", 3, with_a_ref, E.BAD_SIGNATURE),
    ],
)
def test_g10_what_hangs_on_a_message_has_its_exact_shape(
    _moments: Moments, at: Callable[[str], Stage], name: str, part: int, altered: Callable[[Cell], Cell], error: int
) -> None:
    """What is stored or passed on is paid for by its size: nobody makes a request or a consent larger than that."""
    stage = _moments.stage
    body, sender = a_message(stage, name, at)
    refused(stage.tell(with_ref(body, part, altered(body.refs[part])), 12 * TON, sender), error)


@pytest.mark.parametrize("content", ["nothing", "comment", "bounced"])
def test_money_that_says_nothing_stays_as_rent(at: Callable[[str], Stage], content: str) -> None:
    stage = at("drawn")
    body = None
    if content != "nothing":
        body = begin_cell().store_uint(0 if content == "comment" else 0xFFFFFFFF, 32).store_uint(7, 32).end_cell()
    before, state = stage.ledger.balance(stage.account), stage.state
    trace = stage.ledger.send_internal(
        source=stage.stranger, destination=stage.account, value_nano=TON, body=body, bounced=content == "bounced"
    )
    conserved(trace)
    assert len(trace.transactions) == 1 and stage.state == state
    assert stage.ledger.balance(stage.account) > before + TON - TON // 1000


# ------------------------------------------------------------------------------------------------ genesis


def born(stage: Stage, state: Cell, op: int = Op.GENESIS) -> Trace:
    key = stage.genesis_key
    init = singleton_state_init(code(Contract.COMMITTEE), public(key), 0)
    account = singleton_address(code(Contract.COMMITTEE), public(key), 0)
    signature = sign(GenesisState(stage.ledger.global_id, account, bytes(state.hash)), key)
    body = genesis(signature, state)
    named = begin_cell().store_uint(op, 32).store_bits(body.bits[32:]).store_ref(state).end_cell()
    return stage.ledger.send_internal(
        source=stage.stranger, destination=account, value_nano=5 * TON, body=named, state_init=init
    )


def test_a_committee_is_born_by_genesis_alone_and_of_exact_terms() -> None:
    stage = Stage()
    terms = stage.terms.to_cell()
    refused(born(stage, terms, Op.ASK), E.NOT_BORN)
    refused(born(stage, flipped(terms, -1)), CELL_UNDERFLOW)
    refused(born(stage, with_ref(terms, 0, flipped(terms.refs[0], -1))), CELL_UNDERFLOW)
    conserved(born(stage, terms))
    assert stage.state.terms == stage.terms


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"window": 2 * DAY}, True),
        ({"window": HOUR}, True),
        ({"seats": 15, "quorum": 8}, True),
        ({"bond_nano": LEAST_BOND_NANO, "fee_nano": LEAST_FEE_NANO}, True),
        ({"bond_nano": LARGEST_BOND_NANO, "fee_nano": LARGEST_FEE_NANO}, True),
        ({"bond_nano": LARGEST_BOND_NANO + 1}, False),
        ({"fee_nano": LARGEST_FEE_NANO + 1}, False),
        ({"seats": 3}, True),
    ],
)
def test_terms_at_their_bounds(changes: dict[str, int], taken: bool) -> None:
    stage = Stage()
    trace = stage.genesis(replace(stage.terms, **changes))  # type: ignore[arg-type]
    if taken:
        conserved(trace)
    else:
        refused(trace, E.BAD_PARAMETERS)


def test_what_anybody_may_ask_of_a_committee(at: Callable[[str], Stage]) -> None:
    stage = at("drawn")
    ledger, terms = stage.ledger, stage.terms
    assert ledger.run_get(stage.account, "get_version") == [1]
    told = [int.from_bytes(stage.registry, "big"), int.from_bytes(terms.policy, "big")]
    told += [terms.seats, terms.quorum, terms.window, 7, 1]
    assert ledger.run_get(stage.account, "get_committee") == told


# ------------------------------------------------------------------------------------------------ members


def test_g3_a_bond_goes_where_the_node_pays_out_now(at: Callable[[str], Stage]) -> None:
    """A member that presents itself again says where to, and until when it is attested."""
    stage = at("joined")
    who, elsewhere = stage.verifier(2), account_of_name("elsewhere")
    until = stage.ledger.now + 20 * DAY
    conserved(stage.present(who, stage.fees.presented(), payout=elsewhere, attested_until=until))
    member = stage.state.members[who.owner]
    assert (member.payout, member.attested_until) == (elsewhere, until)
    refused(stage.tell(committee_messages.leave(who.owner), TON, who.payout), E.NOT_ALLOWED)
    conserved(stage.tell(committee_messages.leave(who.owner), TON, elsewhere))
    stage.ledger.now += LEAVE_SECONDS
    trace = stage.tell(committee_messages.withdraw_bond(who.owner), TON)
    assert [m.destination for m in trace.of(stage.account)[0].out_msgs] == [elsewhere, stage.stranger]


def forged(question: bytes, accepted: bool) -> bytes:
    """A signature that Ed25519 takes under key 0, which nobody holds: a point of order 4, for which s = 0 will do with
    the R that the hash happens to ask for. Found for about three questions in four; else empty."""
    points = [b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f", bytes(32), bytes(31) + b"\x80"]
    verdict = CommitteeVerdict(question, accepted)
    return next((point + bytes(32) for point in points if verify(verdict, point + bytes(32), NO_KEY)), b"")


def test_g10_a_member_without_an_earlier_key_is_not_convicted_under_key_0(at: Callable[[str], Stage]) -> None:
    stage = at("joined")
    who = stage.verifier(0)
    assert stage.state.members[who.owner].previous_key == NO_KEY
    questions = (number.to_bytes(32, "big") for number in count())
    question = next(each for each in questions if forged(each, True) and forged(each, False))
    yes, no = forged(question, True), forged(question, False)
    body = committee_messages.contradiction(who.owner, question, NO_KEY, yes, no)
    refused(stage.tell(body, TON), E.BAD_SIGNATURE)
    assert stage.state.members[who.owner].bond_nano == stage.terms.bond_nano


def test_g10_nobody_answers_under_key_0_for_a_member_without_an_earlier_key(at: Callable[[str], Stage]) -> None:
    stage = at("joined")
    for number in count():
        here = stage.ledger.snapshot()
        conserved(stage.ask(epoch=number))
        if signature := forged(stage.request().question.hash, True):
            break
        stage.ledger.revert(here)
    stage.wait_for_block()
    conserved(stage.draw())
    who = stage.verifier(seat(stage))
    assert stage.state.members[who.owner].previous_key == NO_KEY
    refused(stage.tell(committee_messages.answer(stage.node, who.owner, True, signature), TON), E.BAD_SIGNATURE)


# ------------------------------------------------------------------------------------------------ requests


def test_g12_a_verdict_is_asked_for_seven_days_and_not_for_a_second_more(at: Callable[[str], Stage]) -> None:
    stage = at("joined")
    longest = stage.ledger.now + LONGEST_VERDICT_SECONDS
    refused(stage.ask(attested_until=longest + 1), E.WRONG_QUESTION)
    conserved(stage.ask(attested_until=longest))


class SlowBlocks(SyntheticBlocks):
    """One masterchain block in ten seconds: the block that draws is still seen when the time to draw ends."""

    def at(self, now: int) -> PrevBlocks:
        return super().at(self.BIRTH + (now - self.BIRTH) // 10)


def test_g3_a_request_is_drawn_up_to_its_last_second(
    at: Callable[[str], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = at("joined")
    monkeypatch.setattr(stage.ledger, "mc_blocks", SlowBlocks())
    conserved(stage.ask())
    stage.ledger.now += DRAW_SECONDS
    refused(stage.conclude(), E.NOT_DUE)
    conserved(stage.draw())


def test_g12_who_lost_its_bond_answers_no_more(at: Callable[[str], Stage]) -> None:
    stage = at("drawn")
    index = seat(stage)
    conserved(stage.tell(contradiction(stage, index), TON))
    refused(stage.answer(stage.verifier(index)), E.NOT_VERIFIED)
    refused(stage.answer(stage.verifier(index), False), E.NOT_VERIFIED)


@pytest.mark.parametrize("accepted", [True, False])
def test_g7_a_member_answers_with_the_key_before_its_present_one(at: Callable[[str], Stage], accepted: bool) -> None:
    """Its enclave started anew between draw and answer; the word of the last one still counts."""
    stage = at("drawn")
    who = stage.verifier(seat(stage))
    conserved(stage.present(who, stage.fees.presented(), key=public(key_of("next"))))
    conserved(stage.answer(who, accepted))
    assert stage.request().seats[who.owner] == (Vote.YES if accepted else Vote.NO)
    assert (stage.request().yes, stage.request().no) == (int(accepted), int(not accepted))
    conserved(stage.present(who, stage.fees.presented(), key=public(key_of("one more"))))
    refused(stage.answer(who, False), E.BAD_SIGNATURE if accepted else E.ANSWERED_ALREADY)


@pytest.mark.parametrize("early", [1, 0])
def test_g12_a_verdict_that_ends_this_second_admits_nobody(at: Callable[[str], Stage], early: int) -> None:
    stage = at("joined")
    ends = stage.ledger.now + DAY
    conserved(stage.ask(attested_until=ends))
    stage.wait_for_block()
    conserved(stage.draw())
    for number in range(stage.quorum):
        conserved(stage.answer(stage.verifier(seat(stage, number))))
    stage.ledger.now = ends - early
    trace = stage.conclude()
    told = [m for m in trace.of(stage.account)[0].out_msgs if m.destination == stage.attestation]
    assert len(told) == early


def test_g7_what_the_verifier_cannot_take_comes_back(at: Callable[[str], Stage]) -> None:
    """Nothing is at the verifier's address here. The request is over all the same, and its value is the committee's."""
    stage = at("drawn")
    for number in range(stage.quorum):
        conserved(stage.answer(stage.verifier(seat(stage, number))))
    stage.past_deadline()
    before = stage.ledger.balance(stage.account)
    trace = stage.conclude(2 * TON)
    back = trace.of(stage.account)[1]
    assert back.in_msg is not None and back.in_msg.bounced and back.exit_code in (0, 1)
    assert not stage.state.requests and stage.ledger.balance(stage.attestation) == 0
    fees = (stage.terms.seats - stage.quorum) * stage.terms.fee_nano
    assert stage.ledger.balance(stage.account) - before + fees > 2 * TON - TON // 10


@pytest.mark.parametrize("silent", [1, 2])
def test_g8_a_refund_that_would_only_pay_its_own_way_is_not_sent(at: Callable[[str], Stage], silent: int) -> None:
    """At forwarding prices at which one fee is the way of one message, to the nanoTON."""
    stage = at("drawn")
    for number in range(stage.terms.seats - silent):
        conserved(stage.answer(stage.verifier(seat(stage, number)), False))
    stage.past_deadline()
    lump = Prices.from_config(stage.ledger.config).forward(0, 0)
    try:
        set_prices(stage.ledger, Factors(forward=100 * stage.terms.fee_nano // lump))
        prices = Prices.from_config(stage.ledger.config)
        assert prices.forward(0, 0) == stage.terms.fee_nano
        conserved(stage.tell(Cell.empty(), TON))
        before, sender = stage.ledger.balance(stage.account), account_of_name("anybody")
        body = committee_messages.conclude(stage.node)
        need = CommitteeFees(prices, stage.terms).conclude(admitted=False)
        trace = stage.tell(body, need, sender)
        conserved(trace)
        out = trace.of(stage.account)[0].out_msgs
        assert [m.destination for m in out] == ([sender] if silent == 1 else [stage.stranger, sender])
        assert before - stage.ledger.balance(stage.account) == (0 if silent == 1 else 2 * stage.terms.fee_nano)
    finally:
        set_prices(stage.ledger, TODAY)
