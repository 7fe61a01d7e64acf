"""What enclave and agent say to each other about batch jobs. Inputs and results cross sealed, in pieces."""

from __future__ import annotations

from dataclasses import dataclass

from worker.fields import B32, B64, U64, Blob, Message, Text

PIECE_BYTES = 1 << 20
"""Of one JobInput or JobPiece: a job must not hold up what interactive requests send on the same socket."""


# ------------------------------------------------------------------------------------------------ agent -> enclave


@dataclass(frozen=True, slots=True)
class JobBegin(Message):
    """A job that this node may accept, as the agent read it from the chain; its input follows in pieces."""

    KIND = 16
    job: B32
    """Account."""
    epoch: U64
    maximum_nano: U64
    spec: Blob
    """Bag of cells of JobSpec."""
    wraps: Blob


@dataclass(frozen=True, slots=True)
class JobInput(Message):
    """The next bytes of the sealed input."""

    KIND = 17
    job: B32
    data: Blob


@dataclass(frozen=True, slots=True)
class JobRun(Message):
    """The acceptance is on chain: run it. Lines that have no answer by `ends_at` (unix seconds) get an error.

    Again, with a time that is over: end it now.
    """

    KIND = 18
    job: B32
    ends_at: U64


@dataclass(frozen=True, slots=True)
class JobDrop(Message):
    """The job ended without us: forget it."""

    KIND = 19
    job: B32


# ------------------------------------------------------------------------------------------------ enclave -> agent


@dataclass(frozen=True, slots=True)
class JobAccepted(Message):
    """The whole input was opened and can be done within its maximum. `signature`: over wrappers.signed.Acceptance."""

    KIND = 48
    job: B32
    signature: B64


@dataclass(frozen=True, slots=True)
class JobRefused(Message):
    """Nothing was signed, and nothing will be for this job unless it is begun anew."""

    KIND = 49
    job: B32
    code: Text
    """protocol.errors.Code."""
    cause: Text
    cure: Text


@dataclass(frozen=True, slots=True)
class JobPiece(Message):
    """The next bytes of the sealed result."""

    KIND = 50
    job: B32
    data: Blob


@dataclass(frozen=True, slots=True)
class JobFinished(Message):
    """The result is whole. `signature`: over wrappers.signed.JobResult."""

    KIND = 51
    job: B32
    result: B32
    """SHA-256 of the sealed result."""
    amount_nano: U64
    inner: B32
    signature: B64


FROM_AGENT: tuple[type[Message], ...] = (JobBegin, JobInput, JobRun, JobDrop)
FROM_ENCLAVE: tuple[type[Message], ...] = (JobAccepted, JobRefused, JobPiece, JobFinished)
