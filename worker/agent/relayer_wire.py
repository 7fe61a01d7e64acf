"""The link's wire form, version 1: message kinds, what is signed, strict JSON. Pure.

The relayer has its own copy of these constants: the two programs are siblings, and the vectors in the tests of both
hold them together.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

VERSION = 1
SUBPROTOCOL = "cocoon.link.v1"
MAX_MESSAGE_BYTES = 1 << 20
MAX_JSON_BYTES = 256 << 10
MAX_RELEASE_SECONDS = 600
MAX_RECEIPTS = 200


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


class BadMessage(Exception):
    """The relayer said something that is not in this protocol. Cure: relayer and agent of compatible releases."""


@dataclass(frozen=True, slots=True)
class WireError:
    """An error as it travels: `code` for programs, cause and cure for people."""

    code: str
    cause: str
    cure: str

    def to_dict(self) -> dict[str, str]:
        return {"code": self.code, "cause": self.cause, "cure": self.cure}


def pack(kind: Kind, body: Mapping[str, Any]) -> bytes:
    return bytes([kind]) + json.dumps(body, separators=(",", ":")).encode()


def parse(body: bytes) -> dict[str, Any]:
    """Raises BadMessage unless the body is one JSON object within bounds."""
    if len(body) > MAX_JSON_BYTES:
        raise BadMessage(f"JSON of {len(body)} bytes, at most {MAX_JSON_BYTES}")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadMessage("a message that is not JSON") from error
    if not isinstance(value, dict):
        raise BadMessage("a message that is not a JSON object")
    return value


def hex_field(body: Mapping[str, Any], name: str, length: int = 32) -> bytes:
    value = body.get(name)
    try:
        data = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        data = b""
    if len(data) != length:
        raise BadMessage(f"{name} is not {length} bytes in hex")
    return data


def int_field(body: Mapping[str, Any], name: str, *, high: int = (1 << 63) - 1) -> int:
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        raise BadMessage(f"{name} is not a whole number from 0 to {high}")
    return value


def stream_of(body: bytes) -> tuple[int, bytes]:
    """(stream id, rest) of OPEN and CANCEL."""
    if len(body) < 4:
        raise BadMessage("a stream message without its stream id")
    return int.from_bytes(body[:4], "big"), body[4:]


def origin_of(url: str) -> str:
    """`scheme://host[:port]` of what is dialled: the relayer's identity in the challenge."""
    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise ValueError(f"relayer URL {url!r} must begin with ws:// or wss:// and name a host")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower()


def challenge_bytes(network: bytes, node: bytes, nonce: bytes, issued_at: int, origin: str) -> bytes:
    """What the release key signs to speak for the node at one relayer. 175 bytes: never a cell hash."""
    identity = sha256(origin.encode()).digest()
    return b"cocoon.link.v1\0" + network + node + nonce + issued_at.to_bytes(8, "big") + identity + bytes(24)


def sign_challenge(
    key: Ed25519PrivateKey, network: bytes, node: bytes, nonce: bytes, issued_at: int, origin: str
) -> bytes:
    return key.sign(challenge_bytes(network, node, nonce, issued_at, origin))


@dataclass(frozen=True, slots=True)
class OutgoingClaim:
    """A batch claim, ready to broadcast, and what it covers: (escrow, cumulative_nano, seq)."""

    message: bytes
    seqno: int
    valid_until: int
    entries: tuple[tuple[bytes, int, int], ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "message": base64.b64encode(self.message).decode(),
            "seqno": self.seqno,
            "valid_until": self.valid_until,
            "entries": [
                {"escrow": escrow.hex(), "cumulative_nano": cumulative, "seq": seq}
                for escrow, cumulative, seq in self.entries
            ],
        }


@dataclass(frozen=True, slots=True)
class ReceiptFrame:
    """A stored receipt as relayers read it; `payload` is the RECEIPT frame without its header."""

    escrow: bytes
    allotment_epoch: int
    key: bytes
    payload: bytes

    def to_dict(self) -> dict[str, Any]:
        return {
            "escrow": self.escrow.hex(),
            "allotment_epoch": self.allotment_epoch,
            "key": self.key.hex(),
            "frame": base64.b64encode(self.payload).decode(),
        }


@dataclass(frozen=True, slots=True)
class ReleaseAsk:
    """A client's wish to have its row lowered to `allotted_nano`, signed with the escrow's voucher key."""

    escrow: bytes
    node: bytes
    allotment: bytes
    row_seqno: int
    allotted_nano: int
    expires_at: int
    signature: bytes

    @classmethod
    def parse(cls, body: object) -> ReleaseAsk:
        """Raises BadMessage."""
        if not isinstance(body, dict):
            raise BadMessage("release_request is not an object")
        return cls(
            hex_field(body, "escrow"),
            hex_field(body, "node"),
            hex_field(body, "allotment"),
            int_field(body, "row_seqno", high=(1 << 32) - 1),
            int_field(body, "allotted_nano"),
            int_field(body, "expires_at"),
            hex_field(body, "signature", 64),
        )

    def signed_bytes(self, network: bytes) -> bytes:
        """187 bytes: never a cell hash."""
        numbers = self.row_seqno.to_bytes(4, "big") + self.allotted_nano.to_bytes(8, "big")
        who = network + self.escrow + self.node + self.allotment
        return b"cocoon.release.v1\0" + who + numbers + self.expires_at.to_bytes(8, "big") + bytes(21)

    def signed_by(self, voucher_key: bytes, network: bytes) -> bool:
        try:
            Ed25519PublicKey.from_public_bytes(voucher_key).verify(self.signature, self.signed_bytes(network))
        except (InvalidSignature, ValueError):
            return False
        return True
