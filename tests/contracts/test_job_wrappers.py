"""Round trips of jobs' and the court's rows, and refusal of what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from wrappers import court, job
from wrappers.cells import CellError
from wrappers.signed import Delivery, JobResult, job_id

IDS = st.binary(min_size=32, max_size=32)
U8, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 32, 64))
COINS = st.integers(0, (1 << 62) - 1)

configs = st.builds(
    job.JobConfig, IDS, IDS, COINS, U32, U32, U32, st.frozensets(IDS, min_size=1, max_size=job.MAX_NODES)
)
acceptances = st.builds(job.Acceptance, IDS, U64, IDS, IDS)
outcomes = st.builds(job.Outcome, IDS, U64, IDS, U32)
jobs = st.builds(
    job.JobState, IDS, U64, st.none() | acceptances, st.none() | outcomes, IDS, IDS, IDS, U32, configs
)  # fmt: skip
program = begin_cell().store_uint(1, 8).end_cell()
slashes = st.builds(court.Slash, U64, IDS, COINS, COINS, IDS, IDS, IDS, st.just(program))


@settings(max_examples=40, deadline=None)
@given(jobs)
def test_job_state_round_trip(state: job.JobState) -> None:
    assert job.JobState.from_cell(state.to_cell()) == state
    assert state.to_cell().hash == state.to_cell().hash


@settings(max_examples=40, deadline=None)
@given(slashes, st.builds(court.CourtState, IDS, st.binary(min_size=39, max_size=39), IDS))
def test_court_round_trips(slash: court.Slash, state: court.CourtState) -> None:
    assert court.Slash.from_cell(slash.to_cell()) == slash
    assert court.CourtState.from_cell(state.to_cell()) == state


def state_of(acceptance: job.Acceptance | None, outcome: job.Outcome | None) -> job.JobState:
    config = job.JobConfig(bytes(32), bytes(32), 1, 1000, 100, 10, frozenset([bytes(32)]))
    return job.JobState(bytes(32), 1, acceptance, outcome, bytes(32), bytes(32), bytes(32), 0, config)


def test_a_state_tells_its_phase_and_when_it_ends() -> None:
    acceptance = job.Acceptance(bytes(32), 1, bytes(32), bytes(32))
    outcome = job.Outcome(bytes(32), 1, bytes(32), 1050)
    seen = [
        (state.phase, state.refundable_at, state.payable_at)
        for state in (state_of(None, None), state_of(acceptance, None), state_of(acceptance, outcome))
    ]
    assert seen == [
        (job.Phase.OPEN, 1001, None),
        (job.Phase.ACCEPTED, 1101, None),
        (job.Phase.POSTED, None, 1060),
    ]


@pytest.mark.parametrize("bits", [0, 8, 322, 1023])
def test_what_is_no_job_is_refused(bits: int) -> None:
    cell = begin_cell().store_uint(0, bits).end_cell() if bits else Cell.empty()
    with pytest.raises(CellError):
        job.JobState.from_cell(cell)
    with pytest.raises(CellError):
        job.JobState.from_cell(begin_cell().store_cell(state_of(None, None).to_cell()).store_bit(1).end_cell())


def test_a_job_names_one_to_sixteen_nodes() -> None:
    ids = [bytes([i]) * 32 for i in range(17)]
    assert job.allowed(ids[:16]) == frozenset(ids[:16])
    for wrong in ([], ids):
        with pytest.raises(ValueError, match="1 to 16"):
            job.allowed(wrong)


@given(IDS, IDS, U64, IDS, IDS, U64, IDS)
def test_ids_and_signed_structures_tell_every_field_apart(
    network: bytes, account: bytes, epoch: int, spec: bytes, result: bytes, amount: int, inner: bytes
) -> None:
    id_ = job_id(network, account, epoch, spec)
    assert id_ not in (job_id(network, account, epoch ^ 1, spec), job_id(network, account, epoch, id_))
    one = JobResult(id_, result, amount, inner).to_cell().hash
    others = [
        JobResult(id_, result, amount ^ 1, inner),
        JobResult(account, result, amount, inner) if account != id_ else JobResult(id_, result, amount ^ 1, inner),
        Delivery(id_, result),
    ]
    assert all(each.to_cell().hash != one for each in others)
