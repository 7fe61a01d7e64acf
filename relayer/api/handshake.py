"""Who speaks for a node: the holder of its release key, at this relayer, just now. Pure but for nonces."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from relayer import link
from relayer.link import LinkError

MAX_SOFTWARE_CHARACTERS = 80
MAX_IN_FLIGHT = 10_000
DEFAULT_MESSAGE_BYTES = 1 << 20
"""What an agent takes that does not say."""
MIN_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Challenge:
    nonce: bytes
    issued_at: int

    @classmethod
    def new(cls, now: int) -> Challenge:
        return cls(secrets.token_bytes(32), now)


@dataclass(frozen=True, slots=True)
class Hello:
    node: bytes
    signature: bytes
    max_in_flight: int
    software: str
    offer: dict[str, Any] | None
    max_message_bytes: int
    """The longest message that the agent takes."""


def read_hello(message: bytes) -> Hello:
    """Raises LinkError."""
    if link.kind_of(message) is not link.Kind.HELLO:
        raise LinkError("the first message must be HELLO")
    body = link.json_body(message)
    if body.get("version") != link.VERSION:
        raise LinkError(f"the agent speaks version {body.get('version')!r} of the link, this relayer {link.VERSION}")
    most, software, offer = body.get("max_in_flight"), body.get("software"), body.get("offer")
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_IN_FLIGHT:
        raise LinkError(f"max_in_flight must be 1 to {MAX_IN_FLIGHT}")
    if not isinstance(software, str) or len(software) > MAX_SOFTWARE_CHARACTERS or not software.isprintable():
        raise LinkError(f"software must be at most {MAX_SOFTWARE_CHARACTERS} printable characters")
    if offer is not None and not isinstance(offer, dict):
        raise LinkError("offer must be an object or null")
    longest = body.get("max_message_bytes", DEFAULT_MESSAGE_BYTES)
    if not isinstance(longest, int) or isinstance(longest, bool) or longest < MIN_MESSAGE_BYTES:
        raise LinkError(f"max_message_bytes must be at least {MIN_MESSAGE_BYTES}")
    return Hello(octets(body, "node", 32), octets(body, "signature", 64), most, software, offer, longest)


def octets(body: dict[str, Any], name: str, size: int) -> bytes:
    """`size` bytes given in hex. Raises LinkError."""
    raw = body.get(name)
    try:
        value = bytes.fromhex(raw) if isinstance(raw, str) else b""
    except ValueError:
        value = b""
    if len(value) != size:
        raise LinkError(f"{name} must be {size} bytes in hex")
    return value


def number(body: dict[str, Any], name: str, bits: int) -> int:
    """An unsigned number. Raises LinkError."""
    value = body.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
        raise LinkError(f"{name} must be a whole number of at most {bits} bits")
    return value


def speaks_for_node(
    hello: Hello, challenge: Challenge, *, release_key: bytes, network: bytes, origins: Sequence[str]
) -> bool:
    """Whether the hello answers this challenge, for one of this relayer's own origins, by the node's release key."""
    return any(
        signed_by(
            release_key,
            hello.signature,
            link.link_challenge(
                network=network, node=hello.node, nonce=challenge.nonce, issued_at=challenge.issued_at, origin=origin
            ),
        )
        for origin in origins
    )


def signed_by(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Ed25519 (RFC 8032) over raw bytes. Never raises on bad input."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
