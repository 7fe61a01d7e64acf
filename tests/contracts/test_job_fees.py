"""G8 and G9 of jobs: exact borders of every need, and what is reserved against what is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from job_gas import chain, deepest
from job_stage import Stage, code_of, node_program
from market_model import Rent
from pytoniq_core import Cell

from scripts.stage import DAY, TON
from wrappers import job
from wrappers.code import Contract, code, living_code, size_of
from wrappers.errors import ContractError
from wrappers.gas import Size
from wrappers.job import Phase


@pytest.fixture
def stage() -> Stage:
    stage = Stage()
    stage.config = replace(stage.config, nodes=deepest(stage.node), grace=2 * DAY)
    assert not stage.genesis().failed
    return stage


BORDERS: dict[str, tuple[Phase, Callable[[Stage], int]]] = {
    "accepted": (Phase.OPEN, lambda s: s.fees.job_accepted()),
    "job_posted": (Phase.ACCEPTED, lambda s: s.fees.job_posted()),
    "deliver": (Phase.POSTED, lambda s: s.fees.finish_job()),
    "finish_job": (Phase.POSTED, lambda s: s.fees.finish_job()),
    "refund": (Phase.OPEN, lambda s: s.fees.refund(None)),
    "refund of a miss": (Phase.ACCEPTED, lambda s: s.fees.refund(node_program())),
}


@pytest.mark.parametrize("operation", BORDERS)
def test_g8_need_minus_one_is_refused_with_the_money_back_and_need_passes(stage: Stage, operation: str) -> None:
    phase, need_of = BORDERS[operation]
    account, need = stage.brought_to(phase), need_of(stage)
    body: Cell = {
        "accepted": lambda: job.accepted(
            stage.state(account).job_id, 5, bytes(32), bytes(node_program().hash), 1 << 31
        ),
        "job_posted": lambda: stage.posted(account),
        "deliver": lambda: stage.delivery(account),
        "finish_job": job.finish_job,
        "refund": lambda: job.refund(None),
        "refund of a miss": lambda: job.refund(node_program()),
    }[operation]()
    if operation not in ("accepted", "job_posted", "deliver"):
        stage.ledger.now = stage.config.deadline + stage.config.grace + 1
    sender = stage.node if operation == "accepted" else stage.stranger
    before, snapshot = stage.ledger.account(account), stage.ledger.snapshot()
    trace = stage.tell(sender, account, need - 1, body)
    assert code_of(trace) == ContractError.LOW_VALUE
    (back,) = trace.failed[0].out_msgs
    assert back.bounced and back.destination == sender
    after = stage.ledger.account(account)
    assert after.data is not None and before.data is not None and after.data.hash == before.data.hash
    stage.ledger.revert(snapshot)
    trace = stage.tell(sender, account, need, body)
    first = trace.transactions[0]
    assert (first.exit_code, first.action_code) == (0, 0)
    if operation == "refund of a miss":
        slashes = [m for tx in trace.of(stage.court) for m in tx.out_msgs]
        assert slashes[0].destination == stage.node
        assert stage.fees.slash_need() <= slashes[0].value_nano, "the last of the chain has what it needs"


@pytest.mark.parametrize("operation", BORDERS)
def test_g8_at_its_need_a_message_leaves_the_jobs_own_money_alone(stage: Stage, operation: str) -> None:
    phase, need_of = BORDERS[operation]
    account = stage.brought_to(phase)
    held, need = stage.ledger.balance(account), need_of(stage)
    if operation in ("accepted", "job_posted"):
        trace = stage.accept(account) if operation == "accepted" else stage.post(account)
        assert not trace.failed and stage.ledger.balance(account) == held
        return
    if operation == "deliver":
        trace = stage.tell(stage.stranger, account, need, stage.delivery(account))
        rent = 0
    else:
        stage.ledger.now = stage.config.deadline + stage.config.grace + 1
        body = (
            job.finish_job()
            if phase is Phase.POSTED
            else job.refund(node_program() if phase is Phase.ACCEPTED else None)
        )
        trace = stage.tell(stage.stranger, account, need, body)
        rent = TON // 1000
    paid = TON // 2 if phase is Phase.POSTED else 0
    (rest,) = [m for m in trace.transactions[0].out_msgs if m.destination == stage.escrow]
    assert rest.value_nano >= held - paid - rent


@pytest.mark.parametrize("cells", [1, 20, Size.PROGRAM_CELLS])
def test_g8_whoever_refunds_a_miss_pays_the_walk_through_a_program_of_any_size(stage: Stage, cells: int) -> None:
    """Also of a job that rent has emptied, which has nothing of its own to add."""
    program, account = chain(cells), stage.open()
    assert not stage.accept(account, program=program).failed
    stage.ledger.now = stage.config.deadline + stage.config.grace + 1
    held, need = stage.ledger.balance(account), stage.fees.refund(program)
    trace = stage.tell(stage.stranger, account, need, job.refund(program))
    (rest,) = [m for m in trace.transactions[0].out_msgs if m.destination == stage.escrow]
    assert rest.value_nano >= held - Rent.of(trace.transactions[0]).collected
    (slash,) = [m for m in trace.of(stage.court)[0].out_msgs if m.destination == stage.node]
    assert slash.value_nano >= stage.fees.slash_need()


def test_g9_sizes_reserved_for_are_at_least_the_real_ones(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    state = stage.ledger.account(account)
    assert state.data is not None and state.code is not None
    assert state.code.hash == living_code(code(Contract.JOB)).hash
    config = stage.config.to_cell()
    cells, bits = size_of(state.code, state.data)
    code_cells, code_bits = size_of(state.code, config)
    assert cells - code_cells <= Size.JOB_DATA_CELLS and bits - code_bits <= Size.JOB_DATA_BITS
    assert cells - code_cells + 1 >= Size.JOB_DATA_CELLS and bits - code_bits + 700 >= Size.JOB_DATA_BITS


def test_sizes_of_messages_are_at_least_the_real_ones(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    stage.ledger.now = stage.config.deadline + stage.config.grace + 1
    trace = stage.tell(stage.stranger, account, TON, job.refund(node_program()))
    cells, bits = size_of(node_program())
    missed = next(m for m in trace.of(account)[0].out_msgs if m.destination == stage.court)
    slash = trace.of(stage.court)[0].out_msgs[0]
    for message, extra in ((missed, Size.MISSED_BITS), (slash, Size.SLASH_BITS)):
        all_cells, all_bits = size_of(message.body)
        assert all_cells == cells + 2 and all_bits - bits <= extra <= all_bits - bits + 248


@pytest.mark.parametrize("contract", [Contract.JOB, Contract.COURT])
def test_code_does_not_grow_unnoticed(contract: Contract) -> None:
    program = code(contract)
    cells, _ = size_of(living_code(program) if contract is Contract.JOB else program)
    assert cells <= {Contract.JOB: 14, Contract.COURT: 21}[contract]
