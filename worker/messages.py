"""What enclave and agent say to each other about requests, keys, evidence and claims; nothing of it is plaintext."""

from __future__ import annotations

from dataclasses import dataclass

from worker.fields import B32, B64, U32, U64, Blob, Flag, Message, Record, Text

# ------------------------------------------------------------------------------------------------ agent -> enclave


@dataclass(frozen=True, slots=True)
class Introduce(Message):
    """Which node this enclave works for. Once; a lie makes evidence and receipts that the chain refuses."""

    KIND = 1
    network: B32
    """Network id."""
    node: B32
    node_epoch: U64
    tokens: U64
    """Tokens that the node's earlier keys reported, as the chain shows them."""


@dataclass(frozen=True, slots=True)
class Attest(Message):
    """Make evidence that is fresh as of this masterchain block."""

    KIND = 2
    block_seqno: U32
    block_root_hash: B32


@dataclass(frozen=True, slots=True)
class Post(Message):
    """A sealed request. `voucher_key` is the escrow's, as the agent read it from the chain."""

    KIND = 3
    request_id: B32
    voucher_key: B32
    sealed: Blob


@dataclass(frozen=True, slots=True)
class Stored(Message):
    """The receipt of this request has reached the disk: its last frame may go."""

    KIND = 4
    request_id: B32


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Nobody waits for this answer any more. What was sealed so far is billed."""

    KIND = 5
    request_id: B32


@dataclass(frozen=True, slots=True)
class ClaimLine(Record):
    """An account to claim for, and the last seq of it that is known to have landed on chain."""

    escrow: B32
    allotment: B32
    landed_seq: U32


@dataclass(frozen=True, slots=True)
class SignClaim(Message):
    """Sign a batch claim over these accounts, for the node's present `seqno`."""

    KIND = 6
    order: U32
    """Echoed in the answer."""
    seqno: U32
    valid_until: U32
    lines: tuple[ClaimLine, ...]


@dataclass(frozen=True, slots=True)
class Certify(Message):
    """Serve TLS at the unix socket `listen` under this evidence; what comes in goes on to the one at `forward`."""

    KIND = 7
    evidence: Blob
    """JSON, as the enclave made it."""
    collateral: Blob
    """JSON of what its quote is judged by."""
    listen: Text
    forward: Text


@dataclass(frozen=True, slots=True)
class Judge(Message):
    """Answer a committee's question that this node was drawn for. Bags of cells: Question, and the two of its `ask`."""

    KIND = 8
    order: U32
    """Echoed in the answer."""
    question: Blob
    evidence: Blob
    collateral: Blob


@dataclass(frozen=True, slots=True)
class Notarise(Message):
    """Sign the hash of the latest receipt under this allotment for the chain's history."""

    KIND = 9
    order: U32
    """Echoed in the answer."""
    allotment: B32


# ------------------------------------------------------------------------------------------------ enclave -> agent


@dataclass(frozen=True, slots=True)
class OfferedModel(Record):
    name: Text
    context_tokens: U32
    terms: Blob
    """Bag of cells of the Terms."""


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """The engine is loaded and the keys are born."""

    KIND = 32
    signing_key: B32
    simulated: Flag
    """Evidence comes from the simulated TEE."""
    measured: Flag
    """The model's weights were hashed as they were loaded."""
    models: tuple[OfferedModel, ...]


@dataclass(frozen=True, slots=True)
class SealingOffer(Record):
    public_key: Blob
    expires_at: U32
    signature: B64
    """Over wrappers.signed.SealingKey, by the signing key."""


@dataclass(frozen=True, slots=True)
class SealingKeys(Message):
    """All sealing keys that open requests now, newest first. Sent on introduction and on every rotation."""

    KIND = 33
    keys: tuple[SealingOffer, ...]


@dataclass(frozen=True, slots=True)
class EvidenceReady(Message):
    KIND = 34
    evidence: Blob
    """JSON of attestation.evidence.Evidence."""


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """The next whole wire frames of an answer; `ends` with those after which nothing more comes."""

    KIND = 35
    request_id: B32
    ends: Flag
    frames: Blob


@dataclass(frozen=True, slots=True)
class Issued(Message):
    """A signed receipt with the voucher that pays it; `frame` is the RECEIPT frame for the client.

    The agent answers `Stored` when all of it is on disk, together with the frames that came before.
    """

    KIND = 36
    request_id: B32
    escrow: B32
    allotment_epoch: U64
    cap_nano: U64
    acked_nano: U64
    terms: B32
    """Terms hash of the voucher."""
    voucher_signature: B64
    frame: Blob


@dataclass(frozen=True, slots=True)
class ClaimSigned(Message):
    KIND = 37
    order: U32
    seqno: U32
    valid_until: U32
    message: Blob
    """Bag of cells of the external message, ready to broadcast."""


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """An order of the agent could not be carried out. `what` names it; `order` is 0 where it has no number."""

    KIND = 38
    what: Text
    order: U32
    cause: Text
    cure: Text


@dataclass(frozen=True, slots=True)
class Certified(Message):
    """TLS is served; its key ends then, unix seconds."""

    KIND = 39
    expires_at: U64


@dataclass(frozen=True, slots=True)
class Judged(Message):
    """The enclave's answer, signed as `wrappers.committee.CommitteeVerdict`."""

    KIND = 40
    order: U32
    accepted: Flag
    signature: B64
    reasons: Text
    """Why not; empty when accepted."""


@dataclass(frozen=True, slots=True)
class Notarised(Message):
    """A receipt's hash, signed as `wrappers.signed.Notary`."""

    KIND = 41
    order: U32
    seq: U32
    """Of the receipt; it names the one before, so the hash stands for all up to it."""
    hash: B32
    signature: B64


FROM_AGENT: tuple[type[Message], ...] = (Introduce, Attest, Post, Stored, Cancel, SignClaim, Certify, Judge, Notarise)
FROM_ENCLAVE: tuple[type[Message], ...] = (
    Ready,
    SealingKeys,
    EvidenceReady,
    Answer,
    Issued,
    ClaimSigned,
    Failed,
    Certified,
    Judged,
    Notarised,
)
