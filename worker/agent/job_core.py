"""What an agent does next about one job: record and chain in, one step out. Pure, and asked again after every step.

The rules that guard the operator's stake stand here: nothing is accepted that could not be run, and posted, in time,
and what was accepted goes before everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto, unique

from worker.agent.job_records import JobRecord, Stage
from wrappers.job import JobState

ACCEPT_MARGIN_SECONDS = 60
"""An acceptance that is sent later than this before the deadline may arrive too late: then it is not sent."""
POST_MARGIN_SECONDS = 300
"""Between the enclave's end of work and the end of the grace: sealing, moving and posting the result."""
LOST_SECONDS = 3600
"""A job that was missed stays on the list so long, for the operator to see."""


@unique
class Step(Enum):
    WAIT = auto()
    FETCH = auto()
    """Get the input."""
    OFFER = auto()
    """Let the enclave open and price it."""
    ACCEPT = auto()
    """Tell the chain that the enclave accepted."""
    RUN = auto()
    POST = auto()
    """Tell the chain the result."""
    DELIVER = auto()
    """Leave the result at the relayer."""
    COLLECT = auto()
    """The client said nothing in his window: have it paid."""
    FORGET = auto()
    LOST = auto()
    """Accepted, and no living key can sign its result: its maximum will be slashed. Nothing helps; say so."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is so now. `chain` None: the chain shows no job there, which two endpoints say."""

    node: bytes
    key: bytes | None
    """The enclave's key, while it is attested on chain."""
    chain: JobState | None
    now: int
    """The chain's clock."""
    max_job_nano: int
    """The most that the operator lets one job put at stake; 0: he takes none."""
    running: bool = False
    """Whether the enclave was told to run it."""
    may_collect: bool = True
    """Whether its pay is worth the message."""
    takes_new: bool = True
    """A node that drains or unbonds accepts nothing more; what it accepted it owes all the same."""


def next_step(record: JobRecord, facts: Facts) -> Step:
    chain = facts.chain
    if chain is None:
        # Before its birth it may still come; after it the account is gone because the job ended.
        return Step.FORGET if record.epoch else _fetch(record, facts)
    if chain.outcome is not None:
        return _posted(record, facts, chain)
    if chain.acceptance is not None:
        return _accepted(record, facts, chain)
    return _open(record, facts, chain)


def _is_kept(record: JobRecord, facts: Facts) -> bool:
    """Whether the relayer still keeps it, by the relayer's own word: nothing that is owed may depend on this."""
    return facts.now <= record.keep_until


def _fetch(record: JobRecord, facts: Facts) -> Step:
    if not _is_kept(record, facts):
        return Step.FORGET
    return Step.FETCH if record.stage is Stage.FETCHING else Step.WAIT


def _open(record: JobRecord, facts: Facts, chain: JobState) -> Step:
    config = chain.config
    wanted = config.maximum_nano <= facts.max_job_nano and facts.now <= config.deadline - ACCEPT_MARGIN_SECONDS
    if facts.node not in config.nodes or config.spec != record.parsed.hash:
        return Step.FORGET
    if record.stage is Stage.SIGNED and facts.key in (None, record.key):
        return _signed(facts, chain, wanted)
    if not wanted or not _is_kept(record, facts):
        return Step.FORGET
    if record.stage is Stage.FETCHING:
        return Step.FETCH
    return Step.WAIT if facts.key is None or not facts.takes_new else Step.OFFER


def _signed(facts: Facts, chain: JobState, wanted: bool) -> Step:
    """An acceptance that has left may land to the deadline: our message may be on its way, and anybody may send it."""
    if facts.now > chain.config.deadline + ACCEPT_MARGIN_SECONDS:
        return Step.FORGET
    return Step.ACCEPT if wanted and facts.key is not None and facts.takes_new else Step.WAIT


def _is_ours(record: JobRecord, facts: Facts, chain: JobState) -> bool:
    accepted = chain.acceptance
    return accepted is not None and (accepted.node, accepted.key) == (facts.node, record.key)


def _accepted(record: JobRecord, facts: Facts, chain: JobState) -> Step:
    if not _is_ours(record, facts, chain):
        return Step.FORGET
    end = chain.config.deadline + chain.config.grace
    if facts.now > end + LOST_SECONDS:
        return Step.FORGET
    if record.stage is Stage.FINISHED:
        return Step.POST if facts.now <= end else Step.LOST
    if facts.running:
        return Step.WAIT
    return Step.RUN if facts.key == record.key and facts.now < end - POST_MARGIN_SECONDS else Step.LOST


def _posted(record: JobRecord, facts: Facts, chain: JobState) -> Step:
    outcome = chain.outcome
    if outcome is None or not _is_ours(record, facts, chain) or outcome.result != record.result:
        return Step.FORGET
    payable_at = chain.payable_at
    if payable_at is not None and facts.now >= payable_at:
        # Delivered or not: a relayer that takes no result must not keep the operator from his pay.
        return Step.COLLECT if facts.may_collect else Step.FORGET
    return Step.WAIT if record.delivered or not _is_kept(record, facts) else Step.DELIVER
