"""The machine of one node's settlement: at most one claim is out at a time. Every change of phase is in this file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from protocol.link import LinkCode
from relayer.core.effects import AskForClaim, Effect, SubmitClaim
from relayer.core.facts import (
    ClaimDeclined,
    ClaimDue,
    ClaimExpired,
    ClaimLanded,
    ClaimReady,
    ClaimSubmitted,
    Fact,
    NodeSeen,
    OfferPublished,
)

EXPIRY_MARGIN_SECONDS = 30
"""A message may sit in a block that is final a little after its valid_until by the clock of a lagging endpoint."""


class Phase(StrEnum):
    IDLE = "idle"
    ASKED = "asked"
    READY = "ready"
    """The claim is signed and stored; no endpoint took it yet."""
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Settlement:
    node: bytes
    phase: Phase = Phase.IDLE
    ask: int = 0
    """The last ask made."""
    asked_at: int = 0
    seqno: int = 0
    """Of the claim that is out; meaningful in READY and SENT."""
    valid_until: int = 0
    message_hash: bytes = b""
    not_before: int = 0
    """No ask before this time: a claim just landed and its payments are under way, or the agent declined."""
    node_seqno: int = 0
    """As last read from the chain."""
    node_lt: int = 0
    key: bytes | None = None
    """The node's present enclave key, as last read from the chain."""
    landed: int = 0
    expired: int = 0
    declined: int = 0
    last_code: str = ""


_P = Phase

#: (phase, fact) -> next phase. A pair that is absent changes nothing.
EDGES: dict[tuple[Phase, type[Fact]], Phase] = {
    (_P.IDLE, ClaimDue): _P.ASKED,
    (_P.IDLE, ClaimReady): _P.READY,  # agents may claim unasked
    (_P.ASKED, ClaimReady): _P.READY,
    (_P.ASKED, ClaimDeclined): _P.IDLE,
    (_P.READY, ClaimSubmitted): _P.SENT,
    (_P.READY, ClaimLanded): _P.IDLE,
    (_P.READY, ClaimExpired): _P.IDLE,
    (_P.SENT, ClaimLanded): _P.IDLE,
    (_P.SENT, ClaimExpired): _P.IDLE,
}

Step = tuple[Settlement, tuple[Effect, ...]]


def step(settlement: Settlement, fact: Fact, *, settle_seconds: int, retry_seconds: int) -> Step:
    """Apply one fact. Pure; a fact without an edge changes no phase.

    `settle_seconds` is the pause after a landed claim, in which its payments arrive; `retry_seconds` the one after a
    refusal or an expiry. The one for want of an enclave ends with the node's next offer.
    """
    if isinstance(fact, NodeSeen):
        return _seen(settlement, fact), ()
    if isinstance(fact, OfferPublished):
        return _offered(settlement, fact), ()
    to = EDGES.get((settlement.phase, type(fact)))
    if to is None:
        return settlement, ()
    match fact:
        case ClaimDue():
            ask = AskForClaim(fact.node, fact.ask, fact.reason, fact.unclaimed_nano)
            return replace(settlement, phase=to, ask=fact.ask, asked_at=fact.at), (ask,)
        case ClaimReady():
            return _ready(settlement, fact, to, settle_seconds)
        case ClaimSubmitted() if fact.message_hash == settlement.message_hash:
            return replace(settlement, phase=to), ()
        case ClaimDeclined() if fact.ask == settlement.ask:
            after = replace(settlement, phase=to, declined=settlement.declined + 1, last_code=fact.code)
            return replace(after, not_before=fact.at + retry_seconds), ()
        case ClaimLanded() if fact.message_hash == settlement.message_hash:
            after = replace(settlement, phase=to, landed=settlement.landed + 1, last_code="")
            return replace(
                after, node_seqno=max(after.node_seqno, fact.seqno + 1), not_before=fact.at + settle_seconds
            ), ()
        case ClaimExpired() if fact.message_hash == settlement.message_hash:
            after = replace(settlement, phase=to, expired=settlement.expired + 1, last_code="claim_expired")
            return replace(after, not_before=fact.at + retry_seconds), ()
    return settlement, ()


def _ready(settlement: Settlement, fact: ClaimReady, to: Phase, pause_seconds: int) -> Step:
    if fact.seqno < settlement.node_seqno:
        # Dead on arrival: that seqno is used up on chain. Sending it would be noise, waiting for it would stall.
        not_before = fact.at + pause_seconds
        return replace(settlement, phase=Phase.IDLE, not_before=not_before, last_code="claim_stale"), ()
    after = replace(
        settlement, phase=to, seqno=fact.seqno, valid_until=fact.valid_until, message_hash=fact.message_hash
    )
    return after, (SubmitClaim(fact.node, fact.seqno, fact.valid_until, fact.message_hash, fact.message),)


def _offered(settlement: Settlement, fact: OfferPublished) -> Settlement:
    after = replace(settlement, key=fact.key)  # it was compared with the chain
    if after.last_code != LinkCode.NO_ENCLAVE:
        return after
    # An offer comes from an enclave that runs: what the agent could not sign without one it can now.
    return replace(after, not_before=0, last_code="")


def _seen(settlement: Settlement, fact: NodeSeen) -> Settlement:
    if fact.lt < settlement.node_lt:
        return settlement
    return replace(settlement, node_lt=fact.lt, node_seqno=fact.seqno, key=fact.signing_key)


def judge(settlement: Settlement, *, seqno: int, now: int) -> ClaimLanded | ClaimExpired | None:
    """What the chain says about the claim that is out, if it says anything.

    `seqno` is the node's and `now` the time of the block it was read at, both agreed on by two endpoints: with the
    relayer's own clock a claim that is still on its way could be taken for dead and a second one be asked for.
    """
    if settlement.phase not in (Phase.READY, Phase.SENT):
        return None
    if seqno > settlement.seqno:
        return ClaimLanded(settlement.node, settlement.seqno, settlement.message_hash, now)
    if now > settlement.valid_until + EXPIRY_MARGIN_SECONDS:
        return ClaimExpired(settlement.node, settlement.seqno, settlement.message_hash, now)
    return None
