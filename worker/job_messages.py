"""Messages about batch jobs between enclave and agent (`worker.link`). Inputs and results cross sealed, in pieces."""

from __future__ import annotations

from dataclasses import dataclass

from worker.fields import B32, B64, BYTES, TEXT, U64, Message

PIECE_BYTES = 1 << 20
"""Of one JobInput or JobPiece: a job must not hold up what interactive requests send on the same socket."""


# ------------------------------------------------------------------------------------------------ agent -> enclave


@dataclass(frozen=True, slots=True)
class JobBegin(Message):
    """A job that this node may accept, as the agent read it from the chain; its input follows in pieces."""

    KIND = 16
    LAYOUT = (B32, U64, U64, BYTES, BYTES)
    job: bytes
    """Account."""
    epoch: int
    maximum_nano: int
    spec: bytes
    """Bag of cells of JobSpec."""
    wraps: bytes


@dataclass(frozen=True, slots=True)
class JobInput(Message):
    """The next bytes of the sealed input."""

    KIND = 17
    LAYOUT = (B32, BYTES)
    job: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class JobRun(Message):
    """The acceptance is on chain: run it. Lines that have no answer by `ends_at` (unix seconds) get an error.

    Again, with a time that is over: end it now.
    """

    KIND = 18
    LAYOUT = (B32, U64)
    job: bytes
    ends_at: int


@dataclass(frozen=True, slots=True)
class JobDrop(Message):
    """The job ended without us: forget it."""

    KIND = 19
    LAYOUT = (B32,)
    job: bytes


# ------------------------------------------------------------------------------------------------ enclave -> agent


@dataclass(frozen=True, slots=True)
class JobAccepted(Message):
    """The whole input was opened and can be done within its maximum. `signature`: over wrappers.signed.Acceptance."""

    KIND = 48
    LAYOUT = (B32, B64)
    job: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class JobRefused(Message):
    """Nothing was signed, and nothing will be for this job unless it is begun anew."""

    KIND = 49
    LAYOUT = (B32, TEXT, TEXT, TEXT)
    job: bytes
    code: str
    """protocol.errors.Code."""
    cause: str
    cure: str


@dataclass(frozen=True, slots=True)
class JobPiece(Message):
    """The next bytes of the sealed result."""

    KIND = 50
    LAYOUT = (B32, BYTES)
    job: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class JobFinished(Message):
    """The result is whole. `signature`: over wrappers.signed.JobResult."""

    KIND = 51
    LAYOUT = (B32, B32, U64, B32, B64)
    job: bytes
    result: bytes
    """SHA-256 of the sealed result."""
    amount_nano: int
    inner: bytes
    signature: bytes


FROM_AGENT: tuple[type[Message], ...] = (JobBegin, JobInput, JobRun, JobDrop)
FROM_ENCLAVE: tuple[type[Message], ...] = (JobAccepted, JobRefused, JobPiece, JobFinished)
