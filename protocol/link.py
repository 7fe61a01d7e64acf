"""The link between relayer and worker agent, version 1: kinds of messages, their bytes, and what is signed.

One WebSocket that the agent dials; a message is kind u8 | body. A body is JSON (UTF-8, one object, unknown keys are
ignored, accounts and keys in hex, money in nanoTON as numbers), or a stream number u32 followed by bytes.

Signatures here are over raw bytes whose length is never 32: release and voucher keys sign cell hashes elsewhere, and
none of these can be taken for one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique
from typing import Any, Self
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol import strict_json
from protocol.codec import fixed, uint
from protocol.errors import MAX_TEXT_BYTES, ProtocolError
from protocol.frames import HEADER_BYTES, parse_header
from protocol.sealing import MAX_SEALED_BYTES

VERSION = 1
SUBPROTOCOL = "cocoon.link.v1"
PATH = "/v1/link"

_STREAM = struct.Struct(">BI")
STREAM_HEADER_BYTES = _STREAM.size
MAX_MESSAGE_BYTES = STREAM_HEADER_BYTES + MAX_SEALED_BYTES
"""The largest sealed request fits; nothing else comes near it."""
DEFAULT_MESSAGE_BYTES = 1 << 20
"""What an agent takes whose HELLO does not say."""
MIN_MESSAGE_BYTES = 1 << 16
FRAMES_RUN_BYTES = 128 << 10
"""Frames in one FRAMES message: a stored answer of many MiB must hold up neither the link nor its stream's buffer."""
MAX_JSON_BYTES = 256 << 10
"""Of any JSON body without an offer in it."""
MAX_RECEIPTS = 200
"""In one RECEIPTS message."""

HEARTBEAT_SECONDS = 10
HANDSHAKE_SECONDS = 10
ASK_SECONDS = 30
"""Whoever asked gives up after this, and asks anew under another number."""
MAX_RELEASE_SECONDS = 600
"""How far ahead a release request may end."""


@unique
class Kind(IntEnum):
    """Below 0x80: from the relayer; above: from the agent. GOODBYE: from either."""

    CHALLENGE = 0x01
    WELCOME = 0x02
    OFFER_ANSWER = 0x03
    GOODBYE = 0x0F
    OPEN = 0x10
    CANCEL = 0x11
    ASK_CLAIM = 0x20
    ASK_RELEASE = 0x22
    ASK_RECEIPTS = 0x23
    HELLO = 0x81
    OFFER = 0x82
    WITHDRAW = 0x83
    FRAMES = 0x90
    END = 0x91
    CLAIM = 0xA0
    RELEASE = 0xA2
    RECEIPTS = 0xA3


@unique
class Close(IntEnum):
    """WebSocket close codes of the link."""

    BAD_MESSAGE = 4400
    NOT_AUTHENTICATED = 4401
    NODE_REFUSED = 4403
    TOO_LATE = 4408
    REPLACED = 4409
    SHUTTING_DOWN = 4503


PATIENT_CLOSES = frozenset({Close.NOT_AUTHENTICATED, Close.NODE_REFUSED, Close.REPLACED})
"""No redial cures these: something must change first."""


@unique
class LinkCode(StrEnum):
    """Machine names that only the link knows, beside `protocol.errors.Code`. A name never changes its meaning."""

    # why the link ends
    BAD_MESSAGE = "bad-message"
    NOT_AUTHENTICATED = "not-authenticated"
    NODE_REFUSED = "node-refused"
    TOO_LATE = "too-late"
    REPLACED = "replaced"
    SHUTTING_DOWN = "shutting-down"
    WRONG_NETWORK = "wrong-network"
    # why a node is not listed
    NO_OFFER = "no-offer"
    UNCHECKED = "unchecked"
    BAD_OFFER = "bad-offer"
    WRONG_EPOCH = "wrong-epoch"
    NODE_UNBONDING = "node-unbonding"
    KEY_NOT_ON_CHAIN = "key-not-on-chain"
    ATTESTATION_OVER = "attestation-over"
    NOT_IN_STANDING = "not-in-standing"
    # why there is no claim
    NOTHING_TO_CLAIM = "nothing-to-claim"
    NO_ENCLAVE = "no-enclave"
    NOT_SIGNED = "not-signed"
    # why there is no release
    EXPIRED = "expired"
    WRONG_ROW = "wrong-row"
    NOT_AUTHORISED = "not-authorised"
    IN_FLIGHT = "in-flight"
    UNCLAIMED = "unclaimed"


class BadMessage(ProtocolError):
    """The other side of the link said something that is not in this protocol."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause, f"speak {SUBPROTOCOL}: use releases of one protocol version on both sides")


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something was refused or ended: `code` for programs (LinkCode or `errors.Code`), the texts for people."""

    code: str
    cause: str
    cure: str

    @classmethod
    def of(cls, code: str, error: ProtocolError) -> Self:
        return cls(code, error.cause, error.cure)

    def to_json(self) -> dict[str, str]:
        return {"code": self.code, "cause": self.cause, "cure": self.cure}

    @classmethod
    def from_json(cls, raw: object) -> Self | None:
        """None when it is no such object. Unknown codes are taken: peers may be newer. Texts are made printable."""
        if not isinstance(raw, dict):
            return None
        return cls(*(_showable(raw.get(name, "")) for name in ("code", "cause", "cure")))


def _showable(raw: object) -> str:
    """These texts end up in logs and on terminals."""
    text = raw if isinstance(raw, str) else ""
    printable = "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT_BYTES])
    return printable.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")


# ---- messages


def json_message(kind: Kind, body: Mapping[str, Any]) -> bytes:
    return bytes((kind,)) + json.dumps(body, separators=(",", ":")).encode()


def stream_message(kind: Kind, stream: int, body: bytes = b"") -> bytes:
    return _STREAM.pack(kind, stream) + body


def kind_of(message: bytes) -> Kind:
    """Raises BadMessage."""
    if not message:
        raise BadMessage("an empty message has no kind")
    try:
        return Kind(message[0])
    except ValueError:
        raise BadMessage(f"a message of unknown kind 0x{message[0]:02x}") from None


def json_body(message: bytes) -> dict[str, Any]:
    """The JSON object after the kind. Raises BadMessage."""
    kind = kind_of(message)
    if len(message) > MAX_JSON_BYTES and kind not in (Kind.HELLO, Kind.OFFER):
        raise BadMessage(f"{kind.name} has {len(message)} bytes, over the limit of {MAX_JSON_BYTES}")
    try:
        body = strict_json.parse(message[1:])
    except ValueError as error:
        raise BadMessage(f"{kind.name} is not strict JSON") from error
    if not isinstance(body, dict):
        raise BadMessage(f"{kind.name} is not a JSON object")
    return body


def stream_of(message: bytes) -> int:
    """The stream number of a message whose body begins with one. Raises BadMessage."""
    if len(message) < STREAM_HEADER_BYTES:
        raise BadMessage(f"{kind_of(message).name} ends before its stream number")
    return int.from_bytes(message[1:STREAM_HEADER_BYTES], "big")


def frames_messages(stream: int, frames: bytes) -> Iterator[bytes]:
    """FRAMES messages that carry these whole frames, each of at most FRAMES_RUN_BYTES."""
    start = at = 0
    while len(frames) - start > FRAMES_RUN_BYTES:
        following = at + HEADER_BYTES + parse_header(frames, at)[1]
        if following - start > FRAMES_RUN_BYTES:
            yield stream_message(Kind.FRAMES, stream, frames[start:at])
            start = at
        at = following
    yield stream_message(Kind.FRAMES, stream, frames[start:])


# ---- fields of JSON bodies


def octets(body: Mapping[str, Any], name: str, size: int = 32) -> bytes:
    """`size` bytes given in hex. Raises BadMessage."""
    raw = body.get(name)
    try:
        value = bytes.fromhex(raw) if isinstance(raw, str) else b""
    except ValueError:
        value = b""
    if len(value) != size:
        raise BadMessage(f"{name} is not {size} bytes in hex")
    return value


def number(body: Mapping[str, Any], name: str, bits: int) -> int:
    """A whole number of at most `bits` bits. Raises BadMessage."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise BadMessage(f"{name} is not a whole number of at most {bits} bits")
    return value


# ---- what is signed


def origin_of(url: str) -> str:
    """`scheme://host[:port]` of a worker URL, as it was dialled: what the handshake's signature is bound to.

    Raises ValueError on anything but ws:// and wss:// URLs.
    """
    parts = urlsplit(url.strip())
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"worker URL {url!r} is not of the form ws://host:port or wss://host")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def host_and_port(text: str) -> tuple[str, int]:
    """Of `host:port` or `[::1]:port`. Raises ValueError."""
    try:
        parts = urlsplit(f"//{text.strip()}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text!r} is not of the form host:port")
    return host, port


def link_challenge(*, network: bytes, node: bytes, nonce: bytes, issued_at: int, origin: str) -> bytes:
    """175 bytes that the node's release key signs to speak for the node at the relayer named by `origin`.

    "cocoon.link.v1" and a zero byte | network id | node's account | nonce | issued_at u64 | SHA-256 of the origin |
    24 zero bytes.
    """
    bound = _ids(network=network, node=node, nonce=nonce) + uint(issued_at, 64, "the time of issue")
    return b"cocoon.link.v1\0" + bound + hashlib.sha256(origin.encode()).digest() + bytes(24)


def release_request(
    *, network: bytes, escrow: bytes, node: bytes, allotment: bytes, row_seqno: int, allotted_nano: int, expires_at: int
) -> bytes:
    """187 bytes that the escrow's voucher key signs to ask a node for a release.

    "cocoon.release.v1" and a zero byte | network id | escrow | node's account | allotment id | row_seqno u32 |
    allotted_nano u64 | expires_at u64 | 21 zero bytes.
    """
    numbers = (
        uint(row_seqno, 32, "the row's seqno")
        + uint(allotted_nano, 64, "the amount")
        + uint(expires_at, 64, "the end of the request")
    )
    ids = _ids(network=network, escrow=escrow, node=node, allotment=allotment)
    return b"cocoon.release.v1\0" + ids + numbers + bytes(21)


def receipts_request(*, network: bytes, escrow: bytes, at: int) -> bytes:
    """116 bytes that the escrow's voucher key signs to read the escrow's receipts at a relayer.

    "cocoon.receipts.v1" and a zero byte | network id | escrow | unix time u64 | 25 zero bytes.
    """
    return b"cocoon.receipts.v1\0" + _ids(network=network, escrow=escrow) + uint(at, 64, "the time") + bytes(25)


def _ids(**named: bytes) -> bytes:
    return b"".join(fixed(value, 32, name) for name, value in named.items())


def signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519 (RFC 8032) over raw bytes. Never raises on bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
