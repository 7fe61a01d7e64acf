"""What living accounts take from a sibling by its address alone, whatever code later settings give to siblings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_escrow import code_of
from test_governance import LOCK, govern, state_of
from test_slashing import MAXIMUM, Case, accepting, config_of, job_state, open_job, program

from scripts.stage import DAY, HOUR, TON, Pair, World, key_of, make_pair
from wrappers import governance, job, node
from wrappers.addresses import Kind
from wrappers.code import Contract, code
from wrappers.errors import ContractError


@pytest.fixture
def patient(world: World) -> Case:
    """A node that was born under settings whose unbonding is longer than the claim window, as the main network's is."""
    settings = state_of(world).settings
    settings = replace(settings, parameters=replace(settings.parameters, unbonding=14 * DAY))
    govern(world, governance.propose(settings.to_cell()))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(settings.to_cell())).failed
    return Case(world, make_pair(world))


def test_g20_the_code_of_jobs_is_that_of_genesis_for_a_job_can_take_stakes(world: World) -> None:
    """The court takes a miss from any account that is a job by its address: with a program of his choice the governor
    could bring one for each node that lives."""
    settings = replace(state_of(world).settings, job_code=code(Contract.ESCROW))
    assert code_of(govern(world, governance.propose(settings.to_cell()))) == ContractError.BAD_PARAMETERS
    assert state_of(world).job_code.hash == code(Contract.JOB).hash and not state_of(world).proposals


def test_g4_no_sibling_can_bring_the_counters_to_where_a_payment_is_refused(world: World, pair: Pair) -> None:
    """A payment that a node refuses is the client's again, and its row keeps it as paid: the work would be lost."""
    owner = world.client.account
    most = node.paid(Kind.ESCROW, owner, 0, (1 << 64) - 1, (1 << 40) - 1)
    assert not world.tell(pair.escrow, pair.node, TON // 10, most).failed
    assert world.node(pair.node).earned_nano == (1 << 64) - 1
    before = world.ledger.balance(world.payout)
    trace = world.settle_one(pair.escrow, pair.node, TON)
    assert not trace.failed
    assert world.ledger.balance(world.payout) - before > TON // 2
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON


def test_g10_a_miss_costs_its_maximum_also_when_the_key_that_accepted_was_replaced_long_ago(patient: Case) -> None:
    world, pair = patient.world, patient.pair
    most = world.node(pair.node).answers_until(world.ledger.now) - world.ledger.now
    config = replace(config_of(patient), deadline=world.ledger.now + most - HOUR - job.REPORT_SECONDS)
    account = open_job(world, pair.escrow, config, 0)
    assert not world.tell(
        world.stranger.account, pair.node, world.fees.accept_job(), accepting(patient, account)
    ).failed
    stake = world.node(pair.node).stake_nano
    assert not world.attest(pair.node, key_of("after a restart")).failed
    world.ledger.now = config.deadline + config.grace + 1
    for name in ("later", "and later"):
        assert not world.attest(pair.node, key_of(name)).failed
    assert not world.tell(world.stranger.account, account, TON, job.refund(program())).failed
    assert stake - world.node(pair.node).stake_nano == MAXIMUM


def test_g10_no_job_is_accepted_that_outlasts_what_the_node_remembers_of_its_keys(patient: Case) -> None:
    world, pair = patient.world, patient.pair
    windows = world.parameters.claim_window + world.parameters.challenge_window
    deadline = world.ledger.now + windows - HOUR - job.REPORT_SECONDS + 1
    account = open_job(world, pair.escrow, replace(config_of(patient), deadline=deadline), 0)
    trace = world.tell(world.stranger.account, pair.node, TON, accepting(patient, account))
    assert code_of(trace) == ContractError.NOT_COVERED and job_state(world, account).acceptance is None
    assert not job.covered(job_state(world, account), world.node(pair.node), world.ledger.now)
