"""What is inside the seal: the response secret, the request's own maximum, the opened terms and the body."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Self

from protocol.codec import Reader, fixed, uint
from protocol.errors import Malformed, OurFault, Peer
from protocol.terms import TERMS_BYTES, read_terms, terms_to_bytes
from wrappers.receipts import Terms

_VERSION = 1
_PADDED = 1
_FIXED_BYTES = 1 + 1 + 1 + 2 + 2 + 4 + 32 + 8 + TERMS_BYTES + 4
MIN_BUCKET_BYTES = 1 << 10
MAX_OPENING_BYTES = 1 << 22
MAX_BODY_BYTES = MAX_OPENING_BYTES - _FIXED_BYTES
DEFAULT_QUANTUM_BYTES = 64
DEFAULT_TICK_MS = 50
MAX_QUANTUM_BYTES = 4096
MAX_TICK_MS = 1000


@unique
class Endpoint(IntEnum):
    """Which OpenAI call the body is for."""

    CHAT_COMPLETIONS = 1
    COMPLETIONS = 2


@dataclass(frozen=True, slots=True)
class Shape:
    """How sizes and times on the wire are blurred; token lengths in clear give answers away."""

    padded: bool = True
    """Whether the request is padded to its bucket."""
    quantum_bytes: int = DEFAULT_QUANTUM_BYTES
    """Chunks of the answer are padded to a multiple of this; 1: not at all."""
    tick_ms: int = DEFAULT_TICK_MS
    """The worker flushes at most once per tick; 0: at once."""

    @classmethod
    def plain(cls) -> Self:
        """No padding, no tick: the client's explicit choice."""
        return cls(padded=False, quantum_bytes=1, tick_ms=0)


@dataclass(frozen=True, slots=True)
class Opening:
    response_secret: bytes = field(repr=False)
    """32 random bytes, used for one request only."""
    maximum_nano: int
    acked_seq: int
    """Seq of the last receipt that the client accepted (0: none): the voucher's amount cannot tell receipts of zero
    apart."""
    terms: Terms
    endpoint: Endpoint
    body: bytes = field(repr=False)
    """The request as OpenAI JSON, UTF-8."""
    shape: Shape = Shape()

    def to_bytes(self) -> bytes:
        """version u8 | flags u8 | endpoint u8 | quantum u16 | tick u16 | acked_seq u32 | secret | maximum u64 | terms |
        body length u32 | body | zeros up to a power of two. Raises OurFault out of bounds."""
        if len(self.body) > MAX_BODY_BYTES:
            raise OurFault(f"the body has {len(self.body)} bytes", f"keep it within {MAX_BODY_BYTES}")
        if not (1 <= self.shape.quantum_bytes <= MAX_QUANTUM_BYTES and 0 <= self.shape.tick_ms <= MAX_TICK_MS):
            raise OurFault(
                f"padding of {self.shape.quantum_bytes} bytes per {self.shape.tick_ms} ms is out of bounds",
                f"stay within 1..{MAX_QUANTUM_BYTES} bytes and 0..{MAX_TICK_MS} ms",
            )
        content = b"".join(
            (
                bytes((_VERSION, _PADDED if self.shape.padded else 0, self.endpoint)),
                uint(self.shape.quantum_bytes, 16, "the quantum"),
                uint(self.shape.tick_ms, 16, "the tick"),
                uint(self.acked_seq, 32, "the acked seq"),
                fixed(self.response_secret, 32, "the response secret"),
                uint(self.maximum_nano, 64, "the maximum"),
                terms_to_bytes(self.terms),
                uint(len(self.body), 32, "the body's length"),
                self.body,
            )
        )
        return content.ljust(_bucket(len(content)), b"\0") if self.shape.padded else content

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises Malformed (blaming the client: the seal held) on anything that `to_bytes` would not have made."""
        if len(data) > MAX_OPENING_BYTES:
            raise Malformed(f"a sealed content of {len(data)} bytes is too large", Peer.CLIENT)
        s = Reader(data, "the sealed content")
        version, flags, endpoint, quantum, tick = s.uint(8), s.uint(8), s.uint(8), s.uint(16), s.uint(16)
        if version != _VERSION or flags not in (0, _PADDED) or endpoint not in tuple(Endpoint):
            raise Malformed("the sealed content has an unknown version, flag or endpoint", Peer.CLIENT)
        if not (1 <= quantum <= MAX_QUANTUM_BYTES and tick <= MAX_TICK_MS):
            raise Malformed("the sealed content asks for a padding out of bounds", Peer.CLIENT)
        acked_seq, secret, maximum = s.uint(32), s.take(32), s.uint(64)
        terms = read_terms(s)
        body = s.take(s.uint(32))
        if len(data) != (_bucket(_FIXED_BYTES + len(body)) if flags else _FIXED_BYTES + len(body)):
            raise Malformed("the sealed content is not padded as it says", Peer.CLIENT)
        s.zeros()
        return cls(secret, maximum, acked_seq, terms, Endpoint(endpoint), body, Shape(bool(flags), quantum, tick))


def _bucket(size: int) -> int:
    return max(MIN_BUCKET_BYTES, 1 << (size - 1).bit_length())
