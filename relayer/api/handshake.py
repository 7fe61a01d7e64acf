"""Who speaks for a node: the holder of its release key, at this relayer, just now. Pure but for nonces."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from protocol import link
from protocol.link import BadMessage
from protocol.link_messages import Challenge, Hello


def new_challenge(network: bytes, relayer: str, now: int) -> Challenge:
    return Challenge(network, secrets.token_bytes(32), now, relayer)


def read_hello(message: bytes) -> Hello:
    """Raises BadMessage."""
    if link.kind_of(message) is not link.Kind.HELLO:
        raise BadMessage("the first message must be HELLO")
    return Hello.from_json(link.json_body(message))


def speaks_for_node(hello: Hello, challenge: Challenge, *, release_key: bytes, origins: Sequence[str]) -> bool:
    """Whether the hello answers this challenge, for one of this relayer's own origins, by the node's release key."""
    return any(
        link.signed_by(release_key, hello.signature, challenge.signed_bytes(hello.node, origin)) for origin in origins
    )
