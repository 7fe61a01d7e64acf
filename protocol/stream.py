"""The sealed answer: chunk keys, padding, and the two ends of a stream.

Key = HKDF-SHA256(response secret, salt = HPKE enc, info = tag | worker nonce | direction). AES-256-GCM with the
chunk's index as nonce and frame type | index | final flag as associated data. Nonce reuse would break everything:
keys are fresh per answer (worker nonce), and writer and reader count by themselves, which is why these two classes
are mutable where all else is frozen.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.codec import fixed, uint
from protocol.commitments import SECRET_BYTES, ResponseCommitment
from protocol.errors import (
    AfterEnd,
    Altered,
    Duplicate,
    Malformed,
    OurFault,
    OutOfOrder,
    ProtocolError,
    Truncated,
    WireError,
)
from protocol.frames import FINISHED, Frame, FrameParser, FrameType, Head, Phase, Refusal, advance, error_frame
from protocol.opening import DEFAULT_QUANTUM_BYTES, MAX_QUANTUM_BYTES
from protocol.receipts import SignedReceipt, inner_from_bytes, inner_to_bytes
from protocol.sealing import ENC_BYTES
from wrappers.receipts import InnerReceipt

MAX_CHUNK_BYTES = 16_384
_MAX_SEALED_BYTES = 48 << 10
_LENGTH_BYTES = 2
_INDEX_BYTES = 4
_TAG_BYTES = 16
_MAX_INDEX = (1 << 32) - 1
_TO_CLIENT = b"\x01"


def response_key(response_secret: bytes, enc: bytes, worker_nonce: bytes) -> bytes:
    """32-byte chunk key of one answer, enclave to client."""
    fixed(response_secret, SECRET_BYTES, "the response secret")
    fixed(enc, ENC_BYTES, "the encapsulation")
    info = b"cocoon.stream.v1|" + fixed(worker_nonce, 32, "the worker nonce") + _TO_CLIENT
    return HKDF(SHA256(), 32, salt=enc, info=info).derive(response_secret)


def _bound(frame_type: FrameType, index: bytes) -> bytes:
    return bytes((frame_type,)) + index + (b"\x00" if frame_type is FrameType.DATA else b"\x01")


def _pad(data: bytes, quantum: int) -> bytes:
    content = len(data).to_bytes(_LENGTH_BYTES, "big") + data
    return content.ljust(-(-len(content) // quantum) * quantum, b"\0")


def _unpad(content: bytes) -> bytes:
    end = _LENGTH_BYTES + int.from_bytes(content[:_LENGTH_BYTES], "big")
    if len(content) < max(end, _LENGTH_BYTES) or content.count(0, end) != len(content) - end:
        raise Malformed("a chunk's padding is wrong")
    return content[_LENGTH_BYTES:end]


class ResponseWriter:
    """The enclave's end: one per opened request, in wire order `head, data*, receipt, last` or `head, refusal`."""

    __slots__ = ("_aead", "_head", "_index", "_phase", "_quantum", "commitment")

    def __init__(
        self,
        *,
        response_secret: bytes,
        enc: bytes,
        request_id: bytes,
        worker_nonce: bytes,
        quantum_bytes: int = DEFAULT_QUANTUM_BYTES,
    ) -> None:
        """`worker_nonce` must be 32 fresh random bytes: with a repeated one two answers share key and nonces."""
        if not 1 <= quantum_bytes <= MAX_QUANTUM_BYTES:
            raise OurFault(f"a quantum of {quantum_bytes} bytes", f"stay within 1..{MAX_QUANTUM_BYTES}")
        self._aead = AESGCM(response_key(response_secret, enc, worker_nonce))
        self._head = Head(request_id, worker_nonce)
        self._quantum = quantum_bytes
        self._index = 0
        self._phase = Phase.START
        self.commitment = ResponseCommitment(response_secret)
        """Over the bytes given to `data` so far; its digest belongs in the inner receipt."""

    def _move(self, frame_type: FrameType) -> None:
        try:
            self._phase = advance(self._phase, frame_type)
        except OutOfOrder as error:
            raise OurFault(error.cause, "write head, data, receipt, last in this order") from error

    def _sealed(self, frame_type: FrameType, data: bytes) -> bytes:
        self._move(frame_type)
        index = uint(self._index, 32, "the chunk index")
        self._index += 1
        sealed = self._aead.encrypt(bytes(8) + index, _pad(data, self._quantum), _bound(frame_type, index))
        return Frame(frame_type, index + sealed).to_bytes()

    def head(self) -> bytes:
        self._move(FrameType.HEAD)
        return self._head.to_frame().to_bytes()

    def data(self, plaintext: bytes) -> bytes:
        """One or more DATA frames that carry `plaintext`; it joins the commitment."""
        self.commitment.update(plaintext)
        parts = range(0, max(1, len(plaintext)), MAX_CHUNK_BYTES)
        return b"".join(self._sealed(FrameType.DATA, plaintext[at : at + MAX_CHUNK_BYTES]) for at in parts)

    def receipt(self, signed: SignedReceipt) -> bytes:
        self._move(FrameType.RECEIPT)
        return Frame(FrameType.RECEIPT, signed.to_bytes()).to_bytes()

    def last(self, inner: InnerReceipt) -> bytes:
        """Send it only when the receipt is safely stored: after it the client may have all it wants."""
        return self._sealed(FrameType.LAST, inner_to_bytes(inner))

    def refusal(self, refusal: Refusal) -> bytes:
        return self._sealed(FrameType.REFUSAL, refusal.to_bytes())

    def error(self, error: WireError) -> bytes:
        """Give up in clear (the enclave is being stopped): the client learns only that nothing more comes."""
        self._move(FrameType.ERROR)
        return error_frame(error).to_bytes()


@dataclass(frozen=True, slots=True)
class Started:
    head: Head


@dataclass(frozen=True, slots=True)
class Data:
    plaintext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receipted:
    """Not yet checked: see `receipts.check_issued` once Completed has brought the inner part."""

    signed: SignedReceipt


@dataclass(frozen=True, slots=True)
class Completed:
    """The enclave ended the answer. `response` is the digest over all Data as received."""

    signed: SignedReceipt
    inner: InnerReceipt
    response: bytes


@dataclass(frozen=True, slots=True)
class Refused:
    refusal: Refusal


@dataclass(frozen=True, slots=True)
class Failed:
    """Somebody on the path says that nothing more comes. Unproven: the promise stays counted."""

    error: WireError


Event = Started | Data | Receipted | Completed | Refused | Failed


class ResponseReader:
    """The client's end: bytes in, authentic events out. After any exception the answer is void."""

    __slots__ = (
        "_aead",
        "_commitment",
        "_enc",
        "_index",
        "_parser",
        "_phase",
        "_request_id",
        "_secret",
        "_signed",
        "_void",
    )

    def __init__(self, *, response_secret: bytes, enc: bytes, request_id: bytes) -> None:
        self._secret = response_secret
        self._enc = enc
        self._request_id = request_id
        self._parser = FrameParser()
        self._phase = Phase.START
        self._aead: AESGCM | None = None
        self._index = 0
        self._signed: SignedReceipt | None = None
        self._commitment = ResponseCommitment(response_secret)
        self._void: ProtocolError | None = None

    @property
    def phase(self) -> Phase:
        return self._phase

    def feed(self, data: bytes) -> list[Event]:
        """Events of the frames that are now complete. Raises StreamFault or Malformed."""
        if self._void is not None:
            raise self._void
        try:
            return [self.frame(frame) for frame in self._parser.feed(data)]
        except ProtocolError as error:
            self._void = error
            raise

    def close(self) -> None:
        """The connection ended. Raises Truncated unless the answer did, or again what voided it."""
        if self._void is not None:
            raise self._void
        if self._phase not in FINISHED:
            raise Truncated(f"the answer ended in phase {self._phase.value}, before its last frame")
        if self._parser.pending:
            raise AfterEnd(f"{self._parser.pending} bytes came after the end of the answer")

    def frame(self, frame: Frame) -> Event:
        """One frame that was parsed elsewhere, in wire order."""
        if self._void is not None:
            raise self._void
        try:
            phase = advance(self._phase, frame.type)
            event = self._event(frame)
        except ProtocolError as error:
            self._void = error
            raise
        self._phase = phase
        return event

    def _event(self, frame: Frame) -> Event:
        match frame.type:
            case FrameType.HEAD:
                head = Head.from_payload(frame.payload)
                if head.request_id != self._request_id:
                    raise Altered("the answer is for another request")
                self._aead = AESGCM(response_key(self._secret, self._enc, head.worker_nonce))
                return Started(head)
            case FrameType.DATA:
                plaintext = self._open(frame)
                self._commitment.update(plaintext)
                return Data(plaintext)
            case FrameType.RECEIPT:
                self._signed = SignedReceipt.from_bytes(frame.payload)
                return Receipted(self._signed)
            case FrameType.LAST:
                inner = inner_from_bytes(self._open(frame))
                if self._signed is None or inner.hash != self._signed.receipt.inner:
                    raise Altered("the receipt in clear is not the one that the answer was sealed with")
                return Completed(self._signed, inner, self._commitment.digest())
            case FrameType.REFUSAL:
                return Refused(Refusal.from_bytes(self._open(frame)))
            case FrameType.ERROR:
                return Failed(WireError.from_bytes(frame.payload))

    def _open(self, frame: Frame) -> bytes:
        if self._aead is None:
            raise OutOfOrder("a chunk came before the head")
        index_bytes, sealed = frame.payload[:_INDEX_BYTES], frame.payload[_INDEX_BYTES:]
        if not _TAG_BYTES + _LENGTH_BYTES <= len(sealed) <= _MAX_SEALED_BYTES:
            raise Malformed(f"a sealed chunk cannot have {len(sealed)} bytes")
        index = int.from_bytes(index_bytes, "big")
        if index < self._index:
            raise Duplicate(f"chunk {index} came again where {self._index} was due")
        if index > self._index:
            raise OutOfOrder(f"chunk {index} came where {self._index} was due")
        try:
            content = self._aead.decrypt(bytes(8) + index_bytes, sealed, _bound(frame.type, index_bytes))
        except InvalidTag as error:
            raise Altered(f"chunk {index} is not what the enclave sealed there") from error
        self._index += 1
        return _unpad(content)
