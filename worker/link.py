"""Messages between the enclave and the operator's agent, and their codec.

One unix socket, one connection: u32 length (big-endian), u8 kind, body. Bodies are the fields of the message in
order (`worker.fields`). Nothing here carries plaintext: requests and answers cross sealed.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from worker import job_messages
from worker.fields import B32, B64, BYTES, FLAG, TEXT, U32, U64, Reader, Record, many
from worker.fields import LinkError as LinkError
from worker.fields import Message as Message

MAX_MESSAGE_BYTES = 5 << 20
CLOSE_SECONDS = 2.0


class LinkClosed(LinkError):
    """The other process is gone."""


# ------------------------------------------------------------------------------------------------ agent -> enclave


@dataclass(frozen=True, slots=True)
class Introduce(Message):
    """Which node this enclave works for. Once; a lie makes evidence and receipts that the chain refuses."""

    KIND = 1
    LAYOUT = (B32, B32, U64, U64)
    network: bytes
    """Network id."""
    node: bytes
    node_epoch: int
    tokens: int
    """Tokens that the node's earlier keys reported, as the chain shows them."""


@dataclass(frozen=True, slots=True)
class Attest(Message):
    """Make evidence that is fresh as of this masterchain block."""

    KIND = 2
    LAYOUT = (U32, B32)
    block_seqno: int
    block_root_hash: bytes


@dataclass(frozen=True, slots=True)
class Post(Message):
    """A sealed request. `voucher_key` is the escrow's, as the agent read it from the chain."""

    KIND = 3
    LAYOUT = (B32, B32, BYTES)
    request_id: bytes
    voucher_key: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Stored(Message):
    """The receipt of this request has reached the disk: its last frame may go."""

    KIND = 4
    LAYOUT = (B32,)
    request_id: bytes


@dataclass(frozen=True, slots=True)
class Cancel(Message):
    """Nobody waits for this answer any more. What was sealed so far is billed."""

    KIND = 5
    LAYOUT = (B32,)
    request_id: bytes


@dataclass(frozen=True, slots=True)
class ClaimLine(Record):
    """An account to claim for, and the last seq of it that is known to have landed on chain."""

    LAYOUT = (B32, B32, U32)
    escrow: bytes
    allotment: bytes
    landed_seq: int


@dataclass(frozen=True, slots=True)
class SignClaim(Message):
    """Sign a batch claim over these accounts, for the node's present `seqno`."""

    KIND = 6
    LAYOUT = (U32, U32, U32, many(ClaimLine))
    order: int
    """Echoed in the answer."""
    seqno: int
    valid_until: int
    lines: tuple[ClaimLine, ...]


@dataclass(frozen=True, slots=True)
class Certify(Message):
    """Serve TLS at the unix socket `listen` under this evidence; what comes in goes on to the one at `forward`."""

    KIND = 7
    LAYOUT = (BYTES, BYTES, TEXT, TEXT)
    evidence: bytes
    """JSON, as the enclave made it."""
    collateral: bytes
    """JSON of what its quote is judged by."""
    listen: str
    forward: str


@dataclass(frozen=True, slots=True)
class Judge(Message):
    """Answer a committee's question that this node was drawn for. Bags of cells: Question, and the two of its `ask`."""

    KIND = 8
    LAYOUT = (U32, BYTES, BYTES, BYTES)
    order: int
    """Echoed in the answer."""
    question: bytes
    evidence: bytes
    collateral: bytes


# ------------------------------------------------------------------------------------------------ enclave -> agent


@dataclass(frozen=True, slots=True)
class OfferedModel(Record):
    LAYOUT = (TEXT, U32, BYTES)
    name: str
    context_tokens: int
    terms: bytes
    """Bag of cells of the Terms."""


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """The engine is loaded and the keys are born."""

    KIND = 32
    LAYOUT = (B32, FLAG, FLAG, many(OfferedModel))
    signing_key: bytes
    simulated: bool
    """Evidence comes from the simulated TEE."""
    measured: bool
    """The model's weights were hashed as they were loaded."""
    models: tuple[OfferedModel, ...]


@dataclass(frozen=True, slots=True)
class SealingOffer(Record):
    LAYOUT = (BYTES, U32, B64)
    public_key: bytes
    expires_at: int
    signature: bytes
    """Over wrappers.signed.SealingKey, by the signing key."""


@dataclass(frozen=True, slots=True)
class SealingKeys(Message):
    """All sealing keys that open requests now, newest first. Sent on introduction and on every rotation."""

    KIND = 33
    LAYOUT = (many(SealingOffer),)
    keys: tuple[SealingOffer, ...]


@dataclass(frozen=True, slots=True)
class EvidenceReady(Message):
    KIND = 34
    LAYOUT = (BYTES,)
    evidence: bytes
    """JSON of attestation.evidence.Evidence."""


@dataclass(frozen=True, slots=True)
class Answer(Message):
    """The next whole wire frames of an answer; `ends` with those after which nothing more comes."""

    KIND = 35
    LAYOUT = (B32, FLAG, BYTES)
    request_id: bytes
    ends: bool
    frames: bytes


@dataclass(frozen=True, slots=True)
class Issued(Message):
    """A signed receipt with the voucher that pays it; `frame` is the RECEIPT frame for the client.

    The agent answers `Stored` when all of it is on disk, together with the frames that came before.
    """

    KIND = 36
    LAYOUT = (B32, B32, U64, U64, U64, B32, B64, BYTES)
    request_id: bytes
    escrow: bytes
    allotment_epoch: int
    cap_nano: int
    acked_nano: int
    terms: bytes
    """Terms hash of the voucher."""
    voucher_signature: bytes
    frame: bytes


@dataclass(frozen=True, slots=True)
class ClaimSigned(Message):
    KIND = 37
    LAYOUT = (U32, U32, U32, BYTES)
    order: int
    seqno: int
    valid_until: int
    message: bytes
    """Bag of cells of the external message, ready to broadcast."""


@dataclass(frozen=True, slots=True)
class Failed(Message):
    """An order of the agent could not be carried out. `what` names it; `order` is 0 where it has no number."""

    KIND = 38
    LAYOUT = (TEXT, U32, TEXT, TEXT)
    what: str
    order: int
    cause: str
    cure: str


@dataclass(frozen=True, slots=True)
class Certified(Message):
    """TLS is served; its key ends then, unix seconds."""

    KIND = 39
    LAYOUT = (U64,)
    expires_at: int


@dataclass(frozen=True, slots=True)
class Judged(Message):
    """The enclave's answer, signed as `wrappers.committee.CommitteeVerdict`."""

    KIND = 40
    LAYOUT = (U32, FLAG, B64, TEXT)
    order: int
    accepted: bool
    signature: bytes
    reasons: str
    """Why not; empty when accepted."""


FROM_AGENT: tuple[type[Message], ...] = (Introduce, Attest, Post, Stored, Cancel, SignClaim, Certify, Judge)
FROM_AGENT += job_messages.FROM_AGENT
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
    *job_messages.FROM_ENCLAVE,
)
_KINDS = {message.KIND: message for message in FROM_AGENT + FROM_ENCLAVE}


def encode(message: Message) -> bytes:
    """The message as it travels, length first. Raises LinkError when it is over the bounds."""
    body = bytes([message.KIND]) + message.body()
    if len(body) > MAX_MESSAGE_BYTES:
        raise LinkError(f"{type(message).__name__} of {len(body)} bytes is over the limit of {MAX_MESSAGE_BYTES}")
    return len(body).to_bytes(4, "big") + body


def decode(data: bytes) -> Message:
    """The message in one packet without its length. Raises LinkError on anything that `encode` does not make."""
    reader = Reader(data)
    kind = reader.take(1)[0]
    if kind not in _KINDS:
        raise LinkError(f"unknown message kind {kind}")
    message: Message = _KINDS[kind].read(reader)
    reader.end()
    return message


class Link:
    """Whole messages over a stream pair. `accepts` lists what the other side may say."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accepts: tuple[type[Message], ...]
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._accepts = accepts

    async def receive(self) -> Message:
        """The next message. Raises LinkClosed at the end, LinkError on a message that is out of place."""
        try:
            length = int.from_bytes(await self._reader.readexactly(4), "big")
            if not 1 <= length <= MAX_MESSAGE_BYTES:
                raise LinkError(f"message of {length} bytes, allowed are 1 to {MAX_MESSAGE_BYTES}")
            message = decode(await self._reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise LinkClosed("the other process closed the link") from error
        if not isinstance(message, self._accepts):
            raise LinkError(f"{type(message).__name__} came from the wrong side")
        return message

    def post(self, message: Message) -> None:
        """Queue a message. A link that is closing drops it: whoever reads will see LinkClosed."""
        if not self._writer.is_closing():
            self._writer.write(encode(message))

    async def send(self, message: Message) -> None:
        """Queue a message and wait while the other side is behind. Raises LinkClosed."""
        self.post(message)
        try:
            await self._writer.drain()
        except ConnectionError as error:
            raise LinkClosed("the other process closed the link") from error

    async def close(self) -> None:
        """What is queued still goes out, unless the other side does not read it."""
        self._writer.close()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()
        except ConnectionError:
            # Already gone: that is what closing is for.
            return
        except TimeoutError:
            self._writer.transport.abort()
