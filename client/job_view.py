"""A job as its client sees it: his record, and what the chain shows."""

from __future__ import annotations

from dataclasses import dataclass

from client.job_records import JobRecord, Made
from wrappers.job import JobState


@dataclass(frozen=True, slots=True)
class JobView:
    """What is known of a job now. Times unix seconds, amounts nanoTON."""

    job: bytes
    made: Made
    phase: str
    """`not ordered`, `open`, `accepted`, `posted`, or `ended`: paid or refunded, and the account is gone."""
    model: str
    lines: int
    nodes: tuple[bytes, ...]
    simulated: bool
    maximum_nano: int
    deadline: int
    accepted_by: bytes | None
    amount_nano: int | None
    refundable_at: int | None
    payable_at: int | None
    refund_due: bool = False
    """Whether it may be refunded now."""


def view_of(record: JobRecord, state: JobState | None, now: int) -> JobView:
    """`state` is None before the order and after the end; `now`: the chain's."""
    config = record.job_config
    if state is not None:
        phase = state.phase.value
    elif record.epoch:
        phase = "ended"
    else:
        phase = "not ordered"
    outcome, due = record.seen, None if state is None else state.refundable_at
    return JobView(
        record.job,
        record.made,
        phase,
        record.model,
        len(record.asked),
        tuple(sorted(config.nodes)),
        record.simulated,
        config.maximum_nano,
        config.deadline,
        record.node or None,
        None if outcome is None else outcome.amount_nano,
        due,
        None if state is None else state.payable_at,
        due is not None and now >= due,
    )
