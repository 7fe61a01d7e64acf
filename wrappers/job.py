"""A job: its configuration, its state, and every message it takes. Amounts nanoTON, times unix seconds."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, unique
from typing import Self

from pytoniq_core import Cell, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.code import living_code, size_of
from wrappers.dicts import ids_cell, load_ids
from wrappers.node import NodeState
from wrappers.ops import Op, Tag

MAX_NODES = 16
MAX_DEADLINE_SECONDS = 30 * 86_400
"""A job's deadline lies at most this far after its opening."""
MIN_GRACE_SECONDS, MAX_GRACE_SECONDS = 3_600, 2 * 86_400
MIN_DELIVERY_SECONDS, MAX_DELIVERY_SECONDS = 600, 7 * 86_400
STUB_BITS = 552
REPORT_SECONDS = 3600
"""How long the stake of who accepts must outlast deadline and grace: somebody has to show the miss."""


@dataclass(frozen=True, slots=True)
class JobConfig:
    """What the client chooses when he orders. TL-B: JobConfig."""

    spec: bytes
    """Hash over the sealed input and what is to be done with it."""
    delivery_key: bytes
    """Public key whose `signed.Delivery` pays at once."""
    maximum_nano: int
    """Most that the result may cost; at least 1. Also what the node loses when it accepts and fails to deliver."""
    deadline: int
    """Last second at which a node may accept."""
    grace: int
    """Seconds after the deadline in which an accepted job's result is still taken."""
    delivery_window: int
    """Seconds from the result to its payment without the client's word."""
    nodes: frozenset[bytes]
    """Accounts of the nodes that may accept: 1 to MAX_NODES."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.spec).store_bytes(self.delivery_key).store_coins(self.maximum_nano)
        cell.store_uint(self.deadline, 32).store_uint(self.grace, 32).store_uint(self.delivery_window, 32)
        nodes = ids_cell(dict.fromkeys(sorted(self.nodes)), lambda _: begin_cell())
        return cell.store_dict(nodes).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        spec, delivery_key, maximum = s.load_bytes(32), s.load_bytes(32), s.load_coins() or 0
        deadline, grace, window = (s.load_uint(32) for _ in range(3))
        return cls(spec, delivery_key, maximum, deadline, grace, window, frozenset(load_ids(s, lambda _: None)))


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job is about; `hash` is JobConfig.spec. TL-B: JobSpec."""

    input: bytes
    """SHA-256 of the sealed input."""
    size: int
    """Bytes of the sealed input."""
    wraps: bytes
    """SHA-256 of the content key, wrapped to each allowed node."""
    terms: bytes
    """Hash of the Terms that the amount follows from."""
    lines: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.JOB_SPEC, 32).store_bytes(self.input).store_uint(self.size, 32)
        return cell.store_bytes(self.wraps).store_bytes(self.terms).store_uint(self.lines, 32).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError."""
        s = cell.begin_parse()
        if cell.type_ != -1 or len(cell.bits) != 32 + 3 * 256 + 2 * 32 or cell.refs or s.load_uint(32) != Tag.JOB_SPEC:
            raise CellError("not a job's specification")
        return cls(s.load_bytes(32), s.load_uint(32), s.load_bytes(32), s.load_bytes(32), s.load_uint(32))

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Who owes the result. TL-B: JobAcceptance."""

    node: bytes
    """Account of the node."""
    node_epoch: int
    key: bytes
    """The enclave key that accepted, and must sign the result."""
    program: bytes
    """Hash of the program that this node's rare messages carry."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.node).store_uint(self.node_epoch, 64)
        return cell.store_bytes(self.key).store_bytes(self.program).end_cell()

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        return cls(s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_bytes(32))


@dataclass(frozen=True, slots=True)
class Outcome:
    """TL-B: JobOutcome."""

    result: bytes
    """SHA-256 of the result's ciphertext."""
    amount_nano: int
    inner: bytes
    posted_at: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.result).store_uint(self.amount_nano, 64)
        return cell.store_bytes(self.inner).store_uint(self.posted_at, 32).end_cell()

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        return cls(s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_uint(32))


@unique
class Phase(Enum):
    """What a job waits for. It has no last phase: every end empties and destroys the account."""

    OPEN = "open"
    ACCEPTED = "accepted"
    POSTED = "posted"


@dataclass(frozen=True, slots=True)
class JobState:
    """TL-B: JobData."""

    job_id: bytes
    epoch: int
    """Logical time of its birth: `signed.job_id` makes the job id of it."""
    acceptance: Acceptance | None
    outcome: Outcome | None
    registry: bytes
    court: bytes
    owner: bytes
    """The escrow that pays, and that all which is left returns to."""
    index: int
    config: JobConfig

    @property
    def phase(self) -> Phase:
        if self.outcome is not None:
            return Phase.POSTED
        return Phase.OPEN if self.acceptance is None else Phase.ACCEPTED

    @property
    def refundable_at(self) -> int | None:
        """First second at which `refund` is taken; None once there is a result."""
        if self.phase is Phase.POSTED:
            return None
        return self.config.deadline + (self.config.grace if self.acceptance is not None else 0) + 1

    @property
    def payable_at(self) -> int | None:
        """First second at which `finish_job` pays without the client's word; None before there is a result."""
        return None if self.outcome is None else self.outcome.posted_at + self.config.delivery_window

    def to_cell(self) -> Cell:
        static = begin_cell().store_bytes(self.registry).store_bytes(self.court).store_bytes(self.owner)
        cell = begin_cell().store_bytes(self.job_id).store_uint(self.epoch, 64)
        cell.store_maybe_ref(self.acceptance.to_cell() if self.acceptance is not None else None)
        cell.store_maybe_ref(self.outcome.to_cell() if self.outcome is not None else None)
        return cell.store_ref(static.store_uint(self.index, 32).end_cell()).store_ref(self.config.to_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self | None:
        """None while the account is still a stub. Raises CellError for anything else."""
        if len(cell.bits) == STUB_BITS and not cell.refs:
            return None
        try:
            s = cell.begin_parse()
            id_, epoch = s.load_bytes(32), s.load_uint(64)
            acceptance, outcome = s.load_maybe_ref(), s.load_maybe_ref()
            static, config = s.load_ref().begin_parse(), s.load_ref()
            state = cls(
                id_,
                epoch,
                Acceptance.from_slice(acceptance.begin_parse()) if acceptance is not None else None,
                Outcome.from_slice(outcome.begin_parse()) if outcome is not None else None,
                static.load_bytes(32),
                static.load_bytes(32),
                static.load_bytes(32),
                static.load_uint(32),
                JobConfig.from_cell(config),
            )
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a job's state: {error}") from error
        if state.to_cell().hash != cell.hash:
            raise CellError("not a job's state: it does not agree with itself")
        return state


def covered(state: JobState, node: NodeState, now: int) -> bool:
    """Whether the node's stake outlasts the job by the time to show a miss; else the job refuses the acceptance."""
    config = state.config
    return config.deadline + config.grace + REPORT_SECONDS <= node.answers_until(now)


def job_terms(court: bytes, program: Cell) -> Cell:
    """TL-B: JobTerms. `program` is that of a job's birth."""
    cells, bits = size_of(living_code(program))
    return begin_cell().store_bytes(court).store_uint(cells, 16).store_uint(bits, 32).store_ref(program).end_cell()


def accepted(job_id: bytes, node_epoch: int, key: bytes, program: bytes, stake_until: int) -> Cell:
    """Body from an allowed node, which has checked the enclave's signature over the acceptance.

    `stake_until`: unix time until which its stake and its memory of `key` are there, were both on their way out now.
    """
    body = begin_cell().store_uint(Op.ACCEPTED, 32).store_bytes(job_id).store_uint(node_epoch, 64)
    return body.store_bytes(key).store_bytes(program).store_uint(stake_until, 32).end_cell()


def job_posted(result: bytes, amount_nano: int, inner: bytes, signature: bytes) -> Cell:
    """Body from anyone: `signature` is the accepting key's over `signed.JobResult`."""
    body = begin_cell().store_uint(Op.JOB_POSTED, 32).store_bytes(result).store_uint(amount_nano, 64).store_bytes(inner)
    return body.store_ref(begin_cell().store_bytes(signature).end_cell()).end_cell()


def deliver(signature: bytes) -> Cell:
    """Body from anyone: `signature` is the delivery key's over `signed.Delivery`. Pays at once."""
    return begin_cell().store_uint(Op.DELIVER, 32).store_bytes(signature).end_cell()


def finish_job() -> Cell:
    """Body from anyone, from `JobState.payable_at` on: pays."""
    return begin_cell().store_uint(Op.FINISH_JOB, 32).end_cell()


def refund(program: Cell | None) -> Cell:
    """Body from anyone, from `JobState.refundable_at` on: everything goes back to the escrow.

    An accepted job needs the program that its node's rare messages carry: the node is slashed, the sender the reporter.
    """
    return begin_cell().store_uint(Op.REFUND, 32).store_maybe_ref(program).end_cell()


def allowed(nodes: Collection[bytes]) -> frozenset[bytes]:
    """The nodes of a configuration. Raises ValueError outside 1 to MAX_NODES."""
    if not 1 <= len(set(nodes)) <= MAX_NODES:
        raise ValueError(f"a job names 1 to {MAX_NODES} nodes, got {len(set(nodes))}; choose the best of them")
    return frozenset(nodes)
