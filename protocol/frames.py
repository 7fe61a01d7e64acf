"""Frames of an answer on the wire: type u8 | length u32 big-endian | payload.

A relay reads the five header bytes, copies RECEIPT payloads and forwards the rest unread. Order is one table; a
pair that is not in it is a fault.

HEAD     version u8 | request id 32 | worker nonce 32
DATA     index u32 | sealed chunk
RECEIPT  the outer receipt and its signature in clear (`receipts.SignedReceipt`)
LAST     index u32 | sealed inner receipt; the receipt always comes before it
REFUSAL  index u32 | sealed `Refusal`: the enclave's own word that the request was not and will not be run
ERROR    `errors.WireError` in clear, from relayer, agent or worker: a hint that proves nothing
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum, unique
from typing import Self

from protocol.codec import Reader, fixed, uint
from protocol.errors import AfterEnd, Malformed, OurFault, OutOfOrder, Truncated, WireError
from protocol.receipts import IssuedReceipt, parse_many

HEADER_BYTES = 5
MAX_PAYLOAD_BYTES = 1 << 16
MAX_MISSED = 64
_VERSION = 1


@unique
class FrameType(IntEnum):
    HEAD = 1
    DATA = 2
    RECEIPT = 3
    LAST = 4
    ERROR = 5
    REFUSAL = 6


_TYPES = {int(member): member for member in FrameType}


@unique
class Phase(Enum):
    """How far an answer has come."""

    START = "start"
    BODY = "body"
    RECEIPTED = "receipted"
    ENDED = "ended"
    """With LAST or REFUSAL: complete."""
    FAILED = "failed"
    """With ERROR: nothing more comes, nothing is proven."""


_NEXT: dict[tuple[Phase, FrameType], Phase] = {
    (Phase.START, FrameType.HEAD): Phase.BODY,
    (Phase.START, FrameType.ERROR): Phase.FAILED,
    (Phase.BODY, FrameType.DATA): Phase.BODY,
    (Phase.BODY, FrameType.RECEIPT): Phase.RECEIPTED,
    (Phase.BODY, FrameType.REFUSAL): Phase.ENDED,
    (Phase.BODY, FrameType.ERROR): Phase.FAILED,
    (Phase.RECEIPTED, FrameType.LAST): Phase.ENDED,
    (Phase.RECEIPTED, FrameType.ERROR): Phase.FAILED,
}
FINISHED = frozenset({Phase.ENDED, Phase.FAILED})


def advance(phase: Phase, frame_type: FrameType) -> Phase:
    """The phase after a frame of this type. Raises AfterEnd or OutOfOrder."""
    following = _NEXT.get((phase, frame_type))
    if following is None:
        if phase in FINISHED:
            raise AfterEnd(f"a {frame_type.name} frame came after the end of the answer")
        raise OutOfOrder(f"a {frame_type.name} frame cannot come in phase {phase.value}")
    return following


def parse_header(header: bytes | bytearray | memoryview, offset: int = 0) -> tuple[FrameType, int]:
    """Type and payload length from the 5 bytes at `offset`. Raises Malformed on an unknown type or too much payload."""
    frame_type = _TYPES.get(header[offset])
    length = int.from_bytes(header[offset + 1 : offset + HEADER_BYTES], "big")
    if frame_type is None:
        raise Malformed(f"unknown frame type {header[offset]}")
    if length > MAX_PAYLOAD_BYTES:
        raise Malformed(f"a frame of {length} bytes is over the limit of {MAX_PAYLOAD_BYTES}")
    return frame_type, length


@dataclass(frozen=True, slots=True)
class Frame:
    type: FrameType
    payload: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        if len(self.payload) > MAX_PAYLOAD_BYTES:
            raise OurFault(f"a frame of {len(self.payload)} bytes", f"keep it within {MAX_PAYLOAD_BYTES}")
        return bytes((self.type,)) + len(self.payload).to_bytes(4, "big") + self.payload


class FrameParser:
    """Bytes in, whole frames out; holds at most one unfinished frame."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yield every complete frame; exhaust the iterator before the next call. Raises Malformed; then stop."""
        buffer = self._buffer
        buffer += data
        at = 0
        try:
            while len(buffer) - at >= HEADER_BYTES:
                frame_type, length = parse_header(buffer, at)
                end = at + HEADER_BYTES + length
                if len(buffer) < end:
                    break
                payload = bytes(buffer[at + HEADER_BYTES : end])
                at = end
                yield Frame(frame_type, payload)
        finally:
            del buffer[:at]

    @property
    def pending(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._buffer)

    def close(self) -> None:
        """The connection ended. Raises Truncated inside a frame."""
        if self._buffer:
            raise Truncated(f"the connection ended inside a frame, after {len(self._buffer)} bytes of it")


@dataclass(frozen=True, slots=True)
class Head:
    """Opens an answer. `worker_nonce` is fresh per answer, so that no key ever seals two texts."""

    request_id: bytes
    worker_nonce: bytes

    def to_frame(self) -> Frame:
        payload = fixed(self.request_id, 32, "the request id") + fixed(self.worker_nonce, 32, "the worker nonce")
        return Frame(FrameType.HEAD, bytes((_VERSION,)) + payload)

    @classmethod
    def from_payload(cls, payload: bytes) -> Self:
        s = Reader(payload, "a head frame")
        if s.uint(8) != _VERSION:
            raise Malformed("the answer has an unknown version")
        head = cls(s.take(32), s.take(32))
        s.end()
        return head


@dataclass(frozen=True, slots=True)
class Refusal:
    """The enclave opened the request and will never run it: nothing is billed, its promise may be dropped.

    So the id is burnt, and a repeat of it must be refused with the same code. ALREADY_OPENED alone means that the
    request did run (its receipt is in `missed` unless the client has accepted it) or still runs.

    `missed` are receipts that the client lacks, in order of seq, at most MAX_MISSED.
    """

    error: WireError
    missed: tuple[IssuedReceipt, ...] = ()

    def to_bytes(self) -> bytes:
        if len(self.missed) > MAX_MISSED:
            raise OurFault(f"{len(self.missed)} missed receipts", f"send the first {MAX_MISSED}")
        error = self.error.to_bytes()
        return uint(len(error), 16, "the error's length") + error + b"".join(one.to_bytes() for one in self.missed)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        s = Reader(data, "a refusal")
        error = WireError.from_bytes(s.take(s.uint(16)))
        return cls(error, parse_many(s.take(s.left), MAX_MISSED))


def error_frame(error: WireError) -> Frame:
    return Frame(FrameType.ERROR, error.to_bytes())
