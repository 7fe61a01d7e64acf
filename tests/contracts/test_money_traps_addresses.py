"""Money sent to the address of a sibling that has ended, where anybody may put the stub back before it arrives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_fees import settle_body
from test_slashing import MAXIMUM, Case, accepting, config_of, open_job, opened, posted, sent_to

from scripts.stage import DAY, HOUR, NO_HASH, TON, Pair, World, public
from wrappers import escrow, escrow_rare, job
from wrappers.addresses import Kind, stub_state_init
from wrappers.claims import ClaimEntry
from wrappers.node_rare import collect, unbond, withdraw_stake


@pytest.fixture
def case(world: World, pair: Pair) -> Case:
    return Case(world, pair)


def put_stub(world: World, kind: Kind, owner: bytes) -> None:
    init = stub_state_init(world.registry, kind, owner, 0)
    world.ledger.send_internal(
        source=world.stranger.account, destination=bytes(init.hash), value_nano=TON // 100, state_init=init
    )
    assert world.alive(bytes(init.hash))


def accepted_job(case: Case, config: job.JobConfig) -> bytes:
    world, account = case.world, open_job(case.world, case.pair.escrow, config, 0)
    trace = world.tell(world.stranger.account, case.pair.node, world.fees.accept_job(), accepting(case, account))
    assert not trace.failed
    return account


def end_escrow(case: Case) -> None:
    world, pair = case.world, case.pair
    release = escrow.CloseRelease(pair.node, 0, world.release(pair.escrow, pair.node, 0))
    assert not world.send(world.client, pair.escrow, TON, escrow.close([release])).failed
    assert not world.alive(pair.escrow)


def test_g4_a_slashed_operator_gets_nothing_of_the_harm_back(case: Case) -> None:
    """The cheated client has left already: his part waits at his address, and does not return to who cheated him."""
    world, pair = case.world, case.pair
    evidence, stake = case.equivocation(TON), world.node(pair.node).stake_nano
    end_escrow(case)
    put_stub(world, Kind.ESCROW, world.client.account)
    held = world.ledger.balance(pair.node)
    trace = case.accuse(evidence)
    (harm,) = sent_to(trace, pair.node, pair.escrow)
    assert world.ledger.balance(pair.escrow) > harm - TON // 1000
    assert held - world.ledger.balance(pair.node) >= stake, "nothing of it is his gas reserve"
    again, opening = world.open_escrow()
    assert again == pair.escrow and not opening.failed
    before = world.ledger.balance(world.client.account)
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    assert world.ledger.balance(world.client.account) - before > harm


def test_g4_the_pay_of_a_node_that_has_ended_waits_for_its_operator_and_not_for_the_client(case: Case) -> None:
    world, pair = case.world, case.pair
    windows = world.parameters.claim_window + world.parameters.challenge_window
    deadline = world.ledger.now + windows - HOUR - job.REPORT_SECONDS
    config = replace(config_of(case), deadline=deadline, delivery_window=7 * DAY)
    account = accepted_job(case, config)
    assert not world.send(world.operator, pair.node, TON, unbond()).failed
    world.ledger.now = deadline
    assert not world.tell(world.stranger.account, account, TON, posted(case, account)).failed
    world.ledger.now = world.node(pair.node).withdrawable_at or 0
    assert not world.send(world.operator, pair.node, TON, withdraw_stake()).failed
    put_stub(world, Kind.NODE, world.operator.account)
    world.ledger.now += 7 * DAY
    trace = world.tell(world.stranger.account, account, TON, job.finish_job())
    assert not world.alive(account) and world.ledger.balance(account) == 0, "nothing where only the client could open"
    assert world.ledger.balance(pair.node) > MAXIMUM - TON // 1000, [tx.exit_code for tx in trace.transactions]
    again, opening = world.open_node()
    assert again == pair.node and not opening.failed
    before = world.ledger.balance(world.payout)
    assert not world.tell(world.stranger.account, pair.node, TON // 10, collect()).failed
    assert world.ledger.balance(world.payout) - before > MAXIMUM - TON // 100


def test_g3_what_a_job_returns_to_an_escrow_that_has_ended_stays_there_whoever_put_a_stub_back(case: Case) -> None:
    world, pair = case.world, case.pair
    account = opened(case)
    held = world.ledger.balance(account)
    end_escrow(case)
    put_stub(world, Kind.ESCROW, world.client.account)
    world.ledger.now += HOUR + 1
    world.tell(world.stranger.account, account, world.fees.refund(None), job.refund(None))
    assert not world.alive(account) and world.ledger.balance(account) == 0
    assert world.ledger.balance(pair.escrow) > held - TON // 1000
    assert world.open_escrow()[0] == pair.escrow
    before = world.ledger.balance(world.client.account)
    assert not world.send(world.client, pair.escrow, TON // 2, escrow_rare.return_rent()).failed
    assert not world.send(world.client, pair.escrow, TON, escrow.withdraw()).failed
    assert world.ledger.balance(world.client.account) - before > held - TON // 100, "also without closing it"


@pytest.mark.parametrize("kind", [Kind.ESCROW, Kind.NODE], ids=["payment", "settlement"])
def test_g7_what_may_bounce_bounces_off_a_stub(case: Case, kind: Kind) -> None:
    """A payment or a settlement that finds a stub is what it is where nothing is: the sender's again, once."""
    world, pair = case.world, case.pair
    entry = world.entry(pair.escrow, pair.node, TON)
    claim = world.claim_external(pair.node, [ClaimEntry(pair.escrow, entry, NO_HASH)])
    gone, owner = (pair.node, world.operator) if kind is Kind.ESCROW else (pair.escrow, world.client)
    rest = {name: stored for name, stored in world.ledger.accounts.items() if name != gone}
    before, held = world.escrow(pair.escrow), world.ledger.balance(pair.node)
    world.ledger.restore(rest, [], now=world.ledger.now, lt=world.ledger.lt)
    put_stub(world, Kind.NODE if gone == pair.node else Kind.ESCROW, owner.account)
    if kind is Kind.ESCROW:
        world.tell(pair.node, pair.escrow, TON // 10, settle_body(entry, public(world.enclave_key)))
        after = world.escrow(pair.escrow)
        assert before.deposit_nano < after.deposit_nano < before.deposit_nano + TON // 10
        assert after.reserved_nano == before.reserved_nano - TON
    else:
        world.ledger.send_external(claim)
        assert 0 < held - world.ledger.balance(pair.node) < TON // 100
