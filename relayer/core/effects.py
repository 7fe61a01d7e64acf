"""Effects: what the relayer wants done in the world. An effect stays open until a fact closes it.

Nothing here is a promise kept by sending: a message that was sent may be lost, a process may die between sending and
noting it. So the outbox is closed by what came back, never by what went out, and doing an open effect again is safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from relayer.core.facts import ClaimDeclined, ClaimExpired, ClaimLanded, ClaimReady, Fact


@dataclass(frozen=True, slots=True)
class AskForClaim:
    """Ask the node's agent for a batch claim signed by its enclave."""

    node: bytes
    ask: int
    reason: str
    unclaimed_nano: int


@dataclass(frozen=True, slots=True)
class SubmitClaim:
    """Send the message until the chain shows it landed or too late. The same bytes every time."""

    node: bytes
    seqno: int
    valid_until: int
    message_hash: bytes
    message: bytes


Effect = AskForClaim | SubmitClaim


def key_of(effect: Effect) -> str:
    match effect:
        case AskForClaim():
            return f"AskForClaim:{effect.node.hex()}:{effect.ask}"
        case SubmitClaim():
            return f"SubmitClaim:{effect.node.hex()}:{effect.seqno}:{effect.message_hash.hex()}"


def closes(fact: Fact, effect: Effect) -> bool:
    """Whether the fact shows that the effect is done or can no longer be done."""
    match effect, fact:
        case AskForClaim(), ClaimReady():
            return effect.node == fact.node
        case AskForClaim(), ClaimDeclined():
            return effect.node == fact.node and effect.ask == fact.ask
        case SubmitClaim(), ClaimLanded() | ClaimExpired():
            return effect.node == fact.node and effect.message_hash == fact.message_hash
    return False
