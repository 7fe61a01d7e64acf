"""Evidence to stake, through the real contracts: registry, node, escrow, job, court, verifier."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from court_stage import TERMS as PRICES
from court_stage import USAGE
from job_stage import code_of
from pytoniq_core import Cell, begin_cell
from test_fees import claim_receipt_body

from devnet.trace import Trace
from protocol.pricing import Stop, charge
from scripts.stage import HOUR, NO_HASH, TON, Pair, World, key_of, public
from wrappers import claims, court, escrow, escrow_rare, job
from wrappers.addresses import Kind, child_address
from wrappers.code import Contract, code_hash, rare_program
from wrappers.errors import ContractError
from wrappers.node_rare import accept_job, unbond, withdraw_stake
from wrappers.receipts import InnerReceipt, Receipt
from wrappers.signed import Acceptance, JobResult, node_id, sign

HONEST = charge(PRICES, USAGE, Stop.END)


def program() -> Cell:
    """What a node needs for its rare messages."""
    return rare_program(Contract.NODE)


@dataclass(frozen=True)
class Case:
    """What the enclave of `pair` signed, and who is accused for it."""

    world: World
    pair: Pair

    @property
    def accused(self) -> court.Accused:
        return court.Accused(self.pair.node, self.world.node(self.pair.node).epoch, public(self.world.enclave_key))

    @property
    def place(self) -> court.Place:
        return court.Place(self.pair.escrow, self.world.escrow(self.pair.escrow).rows[self.pair.node].epoch, 1)

    def inner(self) -> InnerReceipt:
        counts = USAGE.prompt_tokens, USAGE.cached_tokens, USAGE.completion_tokens, USAGE.reasoning_tokens
        return InnerReceipt(b"\x51" * 32, PRICES.model, *counts, Stop.END, b"\x52" * 32, b"\x53" * 32, b"\x54" * 32)

    def receipt(self, amount: int = HONEST) -> court.SignedReceipt:
        row, state = self.world.escrow(self.pair.escrow).rows[self.pair.node], self.world.node(self.pair.node)
        inner = self.inner().hash
        receipt = Receipt(row.allotment, state.node_id, 1, PRICES.hash, amount, amount, NO_HASH, inner)
        return court.SignedReceipt(receipt, sign(receipt, self.world.enclave_key))

    def equivocation(self, amount: int = TON // 4) -> Cell:
        return court.equivocation(self.place, self.accused, self.receipt(), self.receipt(amount), program())

    def false_amount(self, amount: int) -> Cell:
        return court.false_amount(self.place, self.accused, self.receipt(amount), self.inner(), PRICES, program())

    def accuse(self, body: Cell, value: int | None = None) -> Trace:
        value = self.world.fees.evidence(program()) if value is None else value
        return self.world.tell(self.world.stranger.account, self.world.court, value, body)


@pytest.fixture
def case(world: World, pair: Pair) -> Case:
    return Case(world, pair)


def sent_to(trace: Trace, source: bytes, destination: bytes) -> list[int]:
    return [m.value_nano for tx in trace.of(source) for m in tx.out_msgs if m.destination == destination]


def test_g2_a_lie_takes_the_whole_stake_and_pays_harm_tenth_and_treasury_to_the_nanoton(case: Case) -> None:
    world, pair = case.world, case.pair
    stake = world.node(pair.node).stake_nano
    before, deposit = world.ledger.balance(pair.node), world.escrow(pair.escrow).deposit_nano
    trace = case.accuse(case.equivocation(TON // 4))
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    state = world.node(pair.node)
    assert state.stake_nano == 0 and state.unbond_at == world.ledger.now
    fee = world.fees.prices.forward(0, 0)
    assert sent_to(trace, pair.node, pair.escrow) == [TON // 4 - fee]
    assert sent_to(trace, pair.node, world.treasury) == [stake - TON // 4 - stake // 10 - fee]
    (reward,) = sent_to(trace, pair.node, world.stranger.account)
    assert 0 < reward - stake // 10 < world.fees.evidence(program()), "the tenth, and what the evidence did not cost"
    assert world.escrow(pair.escrow).deposit_nano == deposit + TON // 4 - fee - world.fees.top_up()
    assert before - stake - TON // 1000 < world.ledger.balance(pair.node) <= before - stake


def test_a_false_amount_gives_the_client_back_what_was_too_much(case: Case) -> None:
    world, pair = case.world, case.pair
    trace = case.accuse(case.false_amount(HONEST + TON // 8))
    assert not trace.failed
    assert sent_to(trace, pair.node, pair.escrow) == [TON // 8 - world.fees.prices.forward(0, 0)]
    assert world.node(pair.node).stake_nano == 0


def test_g10_an_honest_receipt_touches_no_node(case: Case) -> None:
    world, pair = case.world, case.pair
    before, balance = world.ledger.account(pair.node).data, world.ledger.balance(pair.node)
    for body in (case.false_amount(HONEST), case.equivocation(HONEST)):
        trace = case.accuse(body)
        assert code_of(trace) == ContractError.NO_OFFENCE and not trace.of(pair.node)
    after = world.ledger.account(pair.node).data
    assert before is not None and after is not None and before.hash == after.hash
    assert world.ledger.balance(pair.node) == balance


@pytest.mark.parametrize("what", ["key", "epoch"])
def test_g10_what_a_key_of_the_reporters_own_signed_convicts_nobody(case: Case, what: str) -> None:
    """Every signature holds, and the court cannot know better; the node does."""
    world, pair = case.world, case.pair
    row, state = world.escrow(pair.escrow).rows[pair.node], world.node(pair.node)
    thief = key_of("thief")
    epoch = state.epoch + (what == "epoch")
    id_ = node_id(world.network, pair.node, epoch)
    key = thief if what == "key" else world.enclave_key
    receipts = [Receipt(row.allotment, id_, 1, PRICES.hash, amount, amount, NO_HASH, NO_HASH) for amount in (1, 2)]
    first, second = (court.SignedReceipt(each, sign(each, key)) for each in receipts)
    accused = court.Accused(pair.node, epoch, public(key))
    balance = world.ledger.balance(pair.node)
    trace = case.accuse(court.equivocation(case.place, accused, first, second, program()))
    assert not trace.failed and world.node(pair.node) == state
    assert world.ledger.balance(pair.node) == balance
    assert len(sent_to(trace, pair.node, world.stranger.account)) == 1, "less gas, it has its value back"


def test_g4_one_lie_is_punished_once(case: Case) -> None:
    world, pair = case.world, case.pair
    body = case.equivocation()
    assert not case.accuse(body).failed
    balance, deposit = world.ledger.balance(pair.node), world.escrow(pair.escrow).deposit_nano
    for again in (body, case.equivocation(TON // 3), case.false_amount(7)):
        trace = case.accuse(again)
        assert not trace.failed and not sent_to(trace, pair.node, pair.escrow)
        assert not sent_to(trace, pair.node, world.treasury)
    assert world.ledger.balance(pair.node) == balance
    assert world.escrow(pair.escrow).deposit_nano == deposit


def test_g5_claims_in_flight_after_a_slash_are_paid_what_the_client_acknowledged(case: Case) -> None:
    world, pair = case.world, case.pair
    entry = world.entry(pair.escrow, pair.node, TON, acked=TON // 8)
    message = world.claim_external(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)])
    receipt = claim_receipt_body(world, pair)
    assert not case.accuse(case.equivocation()).failed
    world.ledger.send_external(message)
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON // 8
    trace = world.tell(world.stranger.account, pair.node, TON, receipt)
    assert code_of(trace) == ContractError.NOTHING_DUE


def test_harm_takes_half_of_the_stake_at_most(case: Case) -> None:
    """Otherwise who holds an enclave's key would report himself for a lie to his own escrow, and keep the stake."""
    world, pair = case.world, case.pair
    stake = world.node(pair.node).stake_nano
    trace = case.accuse(case.equivocation((1 << 64) - 1))
    assert not trace.failed
    assert sent_to(trace, pair.node, pair.escrow) == [stake // 2 - world.fees.prices.forward(0, 0)]
    assert sent_to(trace, pair.node, world.treasury) == [
        stake - stake // 2 - stake // 10 - world.fees.prices.forward(0, 0)
    ]


def test_g10_slash_from_anybody_but_the_court_is_refused(case: Case) -> None:
    world, pair = case.world, case.pair
    state = world.node(pair.node)
    key = public(world.enclave_key)
    slash = court.Slash(state.epoch, key, 0, TON, pair.escrow, world.stranger.account, world.treasury, program())
    for source in (world.stranger.account, world.governor.account, world.attestation, world.registry, pair.escrow):
        trace = world.tell(source, pair.node, TON, slash.to_cell())
        assert code_of(trace) == ContractError.NOT_ALLOWED
    assert world.node(pair.node) == state


def test_a_wrong_program_leaves_the_evidence_good(case: Case) -> None:
    world, pair = case.world, case.pair
    wrong = court.equivocation(case.place, case.accused, case.receipt(), case.receipt(1), begin_cell().end_cell())
    trace = case.accuse(wrong)
    assert code_of(trace) == ContractError.UNKNOWN_OP and world.node(pair.node).stake_nano > 0
    assert not case.accuse(case.equivocation()).failed
    assert world.node(pair.node).stake_nano == 0


# ------------------------------------------------------------------------------------------------ jobs

MAXIMUM = TON // 2


def config_of(case: Case) -> job.JobConfig:
    now = case.world.ledger.now
    delivery = public(key_of("delivery"))
    return job.JobConfig(b"\x61" * 32, delivery, MAXIMUM, now + HOUR, HOUR, HOUR, frozenset((case.pair.node,)))


def accepting(case: Case, account: bytes, key_name: str = "enclave") -> Cell:
    world, state = case.world, job_state(case.world, account)
    acceptance = Acceptance(state.job_id, world.node(case.pair.node).node_id)
    key = key_of(key_name)
    return accept_job(account, state.epoch, state.config.spec, public(world.enclave_key), sign(acceptance, key))


def job_state(world: World, account: bytes) -> job.JobState:
    data = world.ledger.account(account).data
    assert data is not None
    state = job.JobState.from_cell(data)
    assert state is not None
    return state


def open_job(world: World, owner: bytes, config: job.JobConfig, index: int) -> bytes:
    """Ordered by the client out of his escrow's free deposit, opened by the registry."""
    cell = config.to_cell()
    amount = world.fees.open_job(cell, config.maximum_nano)
    assert not world.send(world.client, owner, amount + TON, escrow.top_up()).failed
    body = escrow_rare.order_job(amount, code_hash(Contract.JOB), index, cell)
    trace = world.send(world.client, owner, world.fees.order_job(cell) + TON // 10, body)
    assert not trace.failed, [(tx.exit_code, tx.action_code) for tx in trace.failed]
    return child_address(world.registry, Kind.JOB, owner, index)


def opened(case: Case, index: int = 0) -> bytes:
    return open_job(case.world, case.pair.escrow, config_of(case), index)


def accepted(case: Case) -> bytes:
    world, account = case.world, opened(case)
    trace = world.tell(world.stranger.account, case.pair.node, world.fees.accept_job(), accepting(case, account))
    assert not trace.failed
    return account


def posted(case: Case, account: bytes, amount: int = MAXIMUM) -> Cell:
    result = JobResult(job_state(case.world, account).job_id, b"\x62" * 32, amount, b"\x63" * 32)
    return job.job_posted(result.result, amount, result.inner, sign(result, case.world.enclave_key))


def test_a_job_from_acceptance_to_the_nodes_earnings(case: Case) -> None:
    world, pair = case.world, case.pair
    account, before = accepted(case), world.node(pair.node)
    acceptance = job_state(world, account).acceptance
    key = public(world.enclave_key)
    assert acceptance == job.Acceptance(pair.node, before.epoch, key, bytes(program().hash))
    stranger = world.stranger.account
    assert not world.tell(stranger, account, TON, posted(case, account)).failed
    world.ledger.now += HOUR
    deposit, held = world.escrow(pair.escrow).deposit_nano, world.ledger.balance(account)
    trace = world.tell(stranger, account, world.fees.finish_job(), job.finish_job())
    assert not trace.failed and not world.alive(account)
    after = world.node(pair.node)
    assert (after.earned_nano - before.earned_nano, after.requests - before.requests) == (MAXIMUM, 1)
    back = world.escrow(pair.escrow).deposit_nano - deposit
    assert 0 < held - MAXIMUM - back < TON // 1000, "the rest is the client's deposit again"


def test_g10_an_acceptance_that_the_active_key_did_not_sign_is_refused(case: Case) -> None:
    world, account = case.world, opened(case)
    for name in ("thief", "release"):
        trace = world.tell(world.stranger.account, case.pair.node, TON, accepting(case, account, name))
        assert code_of(trace) == ContractError.BAD_SIGNATURE
    assert job_state(world, account).acceptance is None


def test_g4_accepting_again_changes_nothing(case: Case) -> None:
    world, account = case.world, accepted(case)
    before = job_state(world, account)
    trace = world.tell(world.stranger.account, case.pair.node, TON, accepting(case, account))
    assert code_of(trace) == ContractError.JOB_ACCEPTED and job_state(world, account) == before


def test_g2_a_miss_returns_everything_and_costs_the_node_the_jobs_maximum(case: Case) -> None:
    world, pair = case.world, case.pair
    account = accepted(case)
    stake, held = world.node(pair.node).stake_nano, world.ledger.balance(account)
    deposit = world.escrow(pair.escrow).deposit_nano
    world.ledger.now += 2 * HOUR + 1
    value = world.fees.refund(program())
    trace = world.tell(world.stranger.account, account, value, job.refund(program()))
    assert not trace.failed and not world.alive(account)
    assert trace.total_fees_nano == trace.balance_delta_nano
    state = world.node(pair.node)
    assert stake - state.stake_nano == MAXIMUM and not state.unbond_at, "it goes on"
    fee = world.fees.prices.forward(0, 0)
    assert sent_to(trace, pair.node, world.treasury) == [MAXIMUM - MAXIMUM // 10 - fee]
    (reward,) = sent_to(trace, pair.node, world.stranger.account)
    assert MAXIMUM // 10 < reward < MAXIMUM // 10 + value
    assert abs(world.escrow(pair.escrow).deposit_nano - deposit - held) < TON // 100


def test_a_miss_of_more_than_the_stake_takes_the_stake(case: Case) -> None:
    world, pair = case.world, case.pair
    stake = world.node(pair.node).stake_nano
    config = replace(config_of(case), maximum_nano=2 * stake)
    account = open_job(world, pair.escrow, config, 0)
    assert not world.tell(world.stranger.account, pair.node, TON, accepting(case, account)).failed
    world.ledger.now += 2 * HOUR + 1
    assert not world.tell(world.stranger.account, account, TON, job.refund(program())).failed
    assert world.node(pair.node).stake_nano == 0


@pytest.mark.parametrize("late", [0, 1])
def test_g10_no_job_is_accepted_that_outlasts_the_stake(case: Case, late: int) -> None:
    """Who accepts and unbonds in the same second would be gone before anybody could show that he delivered nothing."""
    world, pair = case.world, case.pair
    windows = world.parameters.claim_window + world.parameters.challenge_window
    last = world.ledger.now + windows - HOUR - job.REPORT_SECONDS
    account = open_job(world, pair.escrow, replace(config_of(case), deadline=last + late), 0)
    trace = world.tell(world.stranger.account, pair.node, TON, accepting(case, account))
    if late:
        assert code_of(trace) == ContractError.NOT_COVERED and job_state(world, account).acceptance is None
        world.ledger.now += late
        world.attest(pair.node)
        assert not world.tell(world.stranger.account, pair.node, TON, accepting(case, account)).failed, "later it may"
        return
    assert not trace.failed
    assert not world.send(world.operator, pair.node, TON, unbond()).failed
    refundable, leaves = job_state(world, account).refundable_at, world.node(pair.node).withdrawable_at
    assert refundable is not None and leaves is not None and refundable + job.REPORT_SECONDS <= leaves + 1


def test_g3_a_missed_job_whose_node_has_left_returns_everything_all_the_same(case: Case) -> None:
    world, pair = case.world, case.pair
    account = accepted(case)
    assert not world.send(world.operator, pair.node, TON, unbond()).failed
    withdrawable = world.node(pair.node).withdrawable_at
    assert withdrawable is not None
    world.ledger.now = withdrawable
    assert not world.send(world.operator, pair.node, TON, withdraw_stake()).failed
    assert not world.alive(pair.node)
    assert world.ledger.now > (job_state(world, account).refundable_at or 0) + job.REPORT_SECONDS, "nobody came in time"
    deposit, held = world.escrow(pair.escrow).deposit_nano, world.ledger.balance(account)
    trace = world.tell(world.stranger.account, account, TON, job.refund(program()))
    assert not world.alive(account)
    assert world.escrow(pair.escrow).deposit_nano - deposit > held - TON // 100
    assert [tx.exit_code for tx in trace.of(world.court)] == [0, 0], "the slash came back; it is the court's rent"


def test_g3_what_a_job_returns_to_an_escrow_that_has_ended_is_the_owners_at_its_next_life(case: Case) -> None:
    world, pair = case.world, case.pair
    account = opened(case)
    held = world.ledger.balance(account)
    release = world.release(pair.escrow, pair.node, 0)
    assert not world.send(
        world.client, pair.escrow, TON, escrow.close([escrow.CloseRelease(pair.node, 0, release)])
    ).failed
    assert not world.alive(pair.escrow)
    world.ledger.now += HOUR + 1
    assert not world.tell(world.stranger.account, account, world.fees.refund(None), job.refund(None)).failed
    assert world.ledger.balance(pair.escrow) > held - TON // 1000
    again, trace = world.open_escrow()
    assert again == pair.escrow and not trace.failed
    before = world.ledger.balance(world.client.account)
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    assert world.ledger.balance(world.client.account) - before > held - TON // 100
