"""The relayer's machines: tables, money that moves at most once, effects that stay open until the chain answers."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from relayer.core import effects, facts, request, settlement, tally
from relayer.core.effects import AskForClaim, SubmitClaim, closes
from relayer.core.policy import Owed, SettlePolicy, due, overdue
from relayer.core.request import Request, RequestStatus
from relayer.core.settlement import EXPIRY_MARGIN_SECONDS, Phase, Settlement, judge
from relayer.core.tally import Tally
from relayer.core.views import owed_to

NODE, ESCROW, ALLOTMENT, KEY = (bytes([n]) * 32 for n in (1, 2, 3, 4))
RID = b"\x09" * 32


def step(state: Settlement, fact: facts.Fact) -> settlement.Step:
    return settlement.step(state, fact, settle_seconds=30, retry_seconds=300)


def ready(seqno: int, valid_until: int = 200, at: int = 100, salt: int = 0) -> facts.ClaimReady:
    digest = bytes([salt, seqno % 256]) * 16
    return facts.ClaimReady(NODE, seqno, valid_until, digest, b"boc" + digest, at)


def receipt(seq: int, cumulative: int, at: int = 10, rid: bytes | None = RID) -> facts.ReceiptSeen:
    return facts.ReceiptSeen(rid, ESCROW, NODE, ALLOTMENT, KEY, seq, 1, cumulative, seq.to_bytes(32, "big"), at)


def row(lt: int, paid: int, allotted: int = 1000, closing_at: int = 0) -> facts.RowSeen:
    return facts.RowSeen(ESCROW, NODE, ALLOTMENT, KEY, lt, paid, paid, allotted, closing_at, 10)


def admitted(attempt: int = 1) -> facts.RequestAdmitted:
    return facts.RequestAdmitted(RID, ESCROW, NODE, ALLOTMENT, KEY, 10, 0, attempt, 5)


def test_request__answered_once_from_admission_to_last() -> None:
    state = None
    for fact in (admitted(), receipt(1, 5), facts.RequestAnswered(RID, 1, 9)):
        state = request.step(state, fact)
    assert state is not None and (state.status, state.receipt_seq, state.ended_at) == (RequestStatus.ANSWERED, 1, 9)
    assert request.step(state, facts.RequestBroken(RID, "late", 1, 10)) is state


def test_request__open_when_the_relayer_died_is_interrupted_and_may_be_posted_again() -> None:
    state = request.step(None, admitted())
    state = request.step(state, facts.RelayerStarted(RID, 7))
    assert state is not None and state.status is RequestStatus.INTERRUPTED
    again = request.step(state, admitted(2))
    assert again is not None and (again.status, again.attempts) == (RequestStatus.ADMITTED, 2)


def test_request__late_receipt_of_a_broken_request_is_kept() -> None:
    state = request.step(request.step(None, admitted()), facts.RequestBroken(RID, "node-gone", 1, 8))
    state = request.step(state, receipt(4, 44))
    assert state is not None and (state.status, state.receipt_seq) == (RequestStatus.BROKEN, 4)


def test_request__every_status_but_the_final_ones_can_be_left() -> None:
    leaving = {status for (status, _) in request.EDGES if status is not None}
    assert leaving == set(RequestStatus)


@given(st.permutations([receipt(1, 5, 10), receipt(2, 9, 20), row(100, 5), row(200, 9), row(50, 0)]))
def test_g4_tally__is_the_same_in_any_order_and_after_repeats(order: list[facts.Fact]) -> None:
    state: Tally | None = None
    for fact in [*order, *order]:
        state = tally.step(state, fact)
    assert state is not None
    assert (state.cumulative_nano, state.paid_nano, state.lt, state.unclaimed_nano) == (9, 9, 200, 0)


def test_tally__what_the_allotment_refuses_is_not_counted_as_claimable() -> None:
    state = tally.step(tally.step(None, receipt(1, 900)), row(5, 300, allotted=500))
    assert state is not None and state.unclaimed_nano == 200


def test_tally__a_row_that_ended_owes_nothing() -> None:
    state = tally.step(None, receipt(1, 900))
    state = tally.step(state, facts.RowGone(ESCROW, NODE, ALLOTMENT, KEY, 7, 10))
    assert state is not None and state.unclaimed_nano == 0


def test_settlement__stale_claim_is_not_sent() -> None:
    state, _ = step(Settlement(NODE), facts.NodeSeen(NODE, 5, 1, 3, KEY, 999, 10))
    after, opened = step(state, ready(2))
    assert after.phase is Phase.IDLE and opened == ()


def test_settlement__expiry_is_told_by_the_chain_only_and_with_a_margin() -> None:
    state, _ = step(Settlement(NODE), ready(0, valid_until=200))
    assert judge(state, seqno=0, now=200 + EXPIRY_MARGIN_SECONDS) is None
    assert isinstance(judge(state, seqno=0, now=201 + EXPIRY_MARGIN_SECONDS), facts.ClaimExpired)
    assert isinstance(judge(state, seqno=1, now=0), facts.ClaimLanded)


def test_settlement__late_verdict_on_an_older_claim_changes_nothing() -> None:
    first, _ = step(Settlement(NODE), ready(0))
    old = judge(first, seqno=1, now=100)
    assert old is not None
    landed, _ = step(first, old)
    second, _ = step(landed, ready(1, salt=1))
    assert step(second, old) == (second, ())


@pytest.mark.parametrize(("code", "waits"), [("no-enclave", False), ("not-signed", True), ("too-late", True)])
def test_settlement__an_offer_ends_the_pause_for_want_of_an_enclave_and_no_other(code: str, waits: bool) -> None:
    policy, owed = SettlePolicy(), Owed(10**9, 1, 5)
    state = Settlement(NODE)
    for fact in (facts.ClaimDue(NODE, 1, "amount", 5, 100), facts.ClaimDeclined(NODE, 1, code, 101)):
        state, _ = step(state, fact)
    assert due(policy, state, owed, 102) is None
    state, opened = step(state, facts.OfferPublished(NODE, KEY, b"\x08" * 32, 102))
    assert opened == () and state.declined == 1
    assert (due(policy, state, owed, 102) is None) is waits
    assert due(policy, state, owed, 101 + 300) == "amount"


def test_settlement__an_offer_cuts_no_pause_after_a_landed_claim() -> None:
    state = Settlement(NODE)
    for fact in (facts.ClaimDue(NODE, 1, "amount", 5, 1), facts.ClaimDeclined(NODE, 1, "no-enclave", 1), ready(0)):
        state, _ = step(state, fact)
    landed = judge(state, seqno=1, now=500)
    assert landed is not None
    state, _ = step(state, landed)
    after, _ = step(state, facts.OfferPublished(NODE, KEY, b"\x08" * 32, 501))
    assert after.not_before == state.not_before == 530


def test_settlement__table_has_no_way_to_a_second_claim_while_one_is_out() -> None:
    for phase in (Phase.READY, Phase.SENT):
        assert (phase, facts.ClaimReady) not in settlement.EDGES
        assert (phase, facts.ClaimDue) not in settlement.EDGES


def test_policy__asks_by_amount_exposure_age_and_closing() -> None:
    policy, idle = SettlePolicy(), Settlement(NODE)
    assert due(policy, idle, Owed(), 10**9) is None
    assert due(policy, idle, Owed(policy.amount_nano, 1, 5), 10) == "amount"
    assert due(policy, idle, Owed(policy.exposure_nano, 1, policy.exposure_nano), 10) == "exposure"
    assert due(policy, idle, Owed(policy.floor_nano, 1, 5), 1 + policy.age_seconds) == "age"
    assert due(policy, idle, Owed(policy.floor_nano, 1, 5), policy.age_seconds) is None
    assert due(policy, idle, Owed(policy.floor_nano - 1, 1, 5), 10**9) is None
    assert due(policy, idle, Owed(1, 1, 1, 1, 500), 10) == "exposure"


def test_policy__pauses_after_a_landed_claim_unless_a_row_is_about_to_end() -> None:
    policy = SettlePolicy()
    resting = Settlement(NODE, not_before=1000, asked_at=900)
    big = Owed(policy.amount_nano, 1, 5)
    assert due(policy, resting, big, 999) is None
    assert due(policy, resting, big, 1000) == "amount"
    far = Owed(5, 1, 5, 5, 2000 + policy.hurry_seconds)
    assert due(policy, resting, far, 1999) is None and due(policy, resting, far, 2000) == "exposure"
    closing = Owed(5, 1, 5, 5, 1100)
    assert due(policy, resting, closing, 929) is None
    assert due(policy, resting, closing, 930) == "exposure"


def test_policy__silent_agent_is_given_up() -> None:
    policy = SettlePolicy()
    asked, _ = step(Settlement(NODE), facts.ClaimDue(NODE, 1, "age", 5, 100))
    assert not overdue(policy, asked, 100 + policy.ask_seconds - 1)
    assert overdue(policy, asked, 100 + policy.ask_seconds)


def test_owed__sums_only_what_is_claimable() -> None:
    base = Tally(ESCROW, NODE, ALLOTMENT, KEY, cumulative_nano=10, receipt_at=7)
    owed = owed_to([base, replace(base, paid_nano=10), replace(base, gone=True), replace(base, closing_at=50)], KEY)
    assert owed_to([base], b"\x05" * 32) == Owed(), "an earlier key's receipts are no matter of batch claims"
    assert owed == Owed(unclaimed_nano=20, oldest_at=7, largest_nano=10, closing_nano=10, closing_at=50)


def test_keys__facts_and_effects_that_differ_have_different_names() -> None:
    some = [admitted(), admitted(2), receipt(1, 1), receipt(2, 1), row(1, 0), row(2, 0), ready(0), ready(0, salt=1)]
    some += [facts.ClaimDue(NODE, 1, "age", 1, 1), facts.ClaimDue(NODE, 2, "age", 1, 1)]
    assert len({facts.key_of(one) for one in some}) == len(some)
    asks = [AskForClaim(NODE, 1, "age", 1), AskForClaim(NODE, 2, "age", 1)]
    assert len({effects.key_of(one) for one in asks}) == 2


class Settling(RuleBasedStateMachine):
    """Any order of asks, claims, refusals, time and chain answers, with the outbox beside the state."""

    def __init__(self) -> None:
        super().__init__()
        self.state = Settlement(NODE)
        self.open: dict[str, effects.Effect] = {}
        self.seen: set[str] = set()
        self.chain_seqno = 0
        self.ask = 0
        self.now = 1_000
        self.salt = 0

    def feed(self, fact: facts.Fact) -> None:
        if facts.key_of(fact) in self.seen:
            return
        self.seen.add(facts.key_of(fact))
        self.state, opened = step(self.state, fact)
        self.open = {key: effect for key, effect in self.open.items() if not closes(fact, effect)}
        self.open |= {effects.key_of(effect): effect for effect in opened}

    @rule(ask=st.booleans())
    def due(self, ask: bool) -> None:
        self.ask += 1
        self.feed(facts.ClaimDue(NODE, self.ask, "amount", 5, self.now))

    @rule(back=st.integers(0, 2))
    def declined(self, back: int) -> None:
        self.feed(facts.ClaimDeclined(NODE, max(0, self.ask - back), "no-enclave", self.now))

    @rule(ahead=st.integers(-1, 1))
    def agent_claims(self, ahead: int) -> None:
        self.salt += 1
        self.feed(ready(max(0, self.chain_seqno + ahead), self.now + 100, self.now, self.salt))

    @rule()
    def submitted(self) -> None:
        self.feed(facts.ClaimSubmitted(NODE, self.state.seqno, self.state.message_hash, self.now))

    @precondition(lambda self: any(isinstance(one, SubmitClaim) for one in self.open.values()))
    @rule()
    def lands(self) -> None:
        claim = next(one for one in self.open.values() if isinstance(one, SubmitClaim))
        if claim.seqno == self.chain_seqno and self.now < claim.valid_until:
            self.chain_seqno += 1

    @rule()
    def someone_else_lands(self) -> None:
        self.chain_seqno += 1

    @rule(seconds=st.integers(1, 200))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def chain_is_read(self) -> None:
        self.feed(facts.NodeSeen(NODE, self.now * 1000 + self.chain_seqno, 1, self.chain_seqno, KEY, 10**9, self.now))
        verdict = judge(self.state, seqno=self.chain_seqno, now=self.now)
        if verdict is not None:
            self.feed(verdict)

    @invariant()
    def g4_at_most_one_claim_is_out(self) -> None:
        assert sum(isinstance(one, SubmitClaim) for one in self.open.values()) <= 1

    @invariant()
    def an_open_claim_is_the_one_that_the_state_waits_for(self) -> None:
        out = [one for one in self.open.values() if isinstance(one, SubmitClaim)]
        waiting = self.state.phase in (Phase.READY, Phase.SENT)
        assert [one.message_hash for one in out] == ([self.state.message_hash] if waiting else [])

    @invariant()
    def an_open_ask_is_the_one_that_the_state_waits_for(self) -> None:
        asks = [one.ask for one in self.open.values() if isinstance(one, AskForClaim)]
        assert asks == ([self.state.ask] if self.state.phase is Phase.ASKED else [])


Settling.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestSettling = Settling.TestCase


def test_request__repeats_and_disorder_never_lose_the_receipt() -> None:
    some = [receipt(3, 30), facts.RequestBroken(RID, "x", 1, 9), facts.RelayerStarted(RID, 8)]
    for order in permutations(some):
        state: Request | None = request.step(None, admitted())
        for fact in order:
            state = request.step(state, fact)
        assert state is not None and state.receipt_seq == 3
