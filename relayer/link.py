"""The link between relayer and worker agent: kinds of messages, their bytes, and what is signed on it. Pure.

One WebSocket that the agent dials; a message is kind u8 || body. Signatures here are over raw bytes whose length is
never 32: a release or voucher key signs cell hashes elsewhere, and no bytes of ours can be taken for one.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

VERSION = 1
SUBPROTOCOL = "cocoon.link.v1"
PATH = "/v1/link"
MAX_MESSAGE_BYTES = 4 << 20
HEARTBEAT_SECONDS = 10
HANDSHAKE_SECONDS = 10
ASK_SECONDS = 30

_STREAM = struct.Struct(">BI")
STREAM_HEADER_BYTES = _STREAM.size


class Kind(IntEnum):
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


class Close(IntEnum):
    """WebSocket close codes of the link."""

    BAD_MESSAGE = 4400
    NOT_AUTHENTICATED = 4401
    NODE_REFUSED = 4403
    TOO_LATE = 4408
    REPLACED = 4409
    TOO_LARGE = 4413
    SHUTTING_DOWN = 4503


class LinkError(ValueError):
    """The peer broke the link's protocol."""


def json_message(kind: Kind, body: Mapping[str, Any]) -> bytes:
    return bytes([kind]) + json.dumps(body, separators=(",", ":")).encode()


def stream_message(kind: Kind, stream: int, body: bytes = b"") -> bytes:
    return _STREAM.pack(kind, stream) + body


def kind_of(message: bytes) -> Kind:
    if not message:
        raise LinkError("an empty message has no kind")
    try:
        return Kind(message[0])
    except ValueError:
        raise LinkError(f"unknown kind 0x{message[0]:02x}; peer and relayer speak different versions") from None


def json_body(message: bytes) -> dict[str, Any]:
    try:
        body = json.loads(message[1:])
    except (ValueError, RecursionError) as error:
        raise LinkError(f"{kind_of(message).name} is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise LinkError(f"{kind_of(message).name} must be a JSON object")
    return body


def stream_of(message: bytes) -> int:
    """The stream number of a message whose body begins with one."""
    if len(message) < STREAM_HEADER_BYTES:
        raise LinkError(f"{kind_of(message).name} ends before its stream number")
    return int.from_bytes(message[1:STREAM_HEADER_BYTES], "big")


def origin_of(url: str) -> str:
    """`scheme://host[:port]` of a worker URL: what the handshake's signature is bound to."""
    scheme, mark, rest = url.strip().lower().partition("://")
    if scheme not in ("ws", "wss") or not mark or not rest:
        raise LinkError(f"worker URL {url!r} is not of the form ws://host:port or wss://host")
    return f"{scheme}://{rest.split('/', 1)[0]}"


def link_challenge(*, network: bytes, node: bytes, nonce: bytes, issued_at: int, origin: str) -> bytes:
    """175 bytes that the node's release key signs to speak for the node at the relayer named by `origin`."""
    bound = network + node + nonce + issued_at.to_bytes(8, "big") + hashlib.sha256(origin.encode()).digest()
    return b"cocoon.link.v1\0" + bound + bytes(24)


def release_request(
    *, network: bytes, escrow: bytes, node: bytes, allotment: bytes, row_seqno: int, allotted_nano: int, expires_at: int
) -> bytes:
    """187 bytes that the escrow's voucher key signs to ask a node for a release."""
    numbers = row_seqno.to_bytes(4, "big") + allotted_nano.to_bytes(8, "big") + expires_at.to_bytes(8, "big")
    return b"cocoon.release.v1\0" + network + escrow + node + allotment + numbers + bytes(21)


def receipts_request(*, network: bytes, escrow: bytes, at: int) -> bytes:
    """116 bytes that the escrow's voucher key signs to read the escrow's receipts."""
    return b"cocoon.receipts.v1\0" + network + escrow + at.to_bytes(8, "big") + bytes(25)
