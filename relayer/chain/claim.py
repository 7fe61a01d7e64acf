"""A batch claim from an agent, checked before it is stored: the relayer sends nothing that cannot land. Pure."""

from __future__ import annotations

from chain.api import ChainError
from chain.decode import decode_message
from relayer.core.facts import ClaimReady
from wrappers.cells import CellError, from_boc
from wrappers.claims import MAX_CLAIM_SECONDS, ClaimMessage
from wrappers.node import NodeState
from wrappers.signed import Claim, verify

CLOCK_SLACK_SECONDS = 10


class ClaimFault(ValueError):
    """Why the claim cannot land."""


def read_claim(message: bytes, *, node: bytes, state: NodeState, now: int) -> ClaimReady:
    """`message`: the whole external message as a bag of cells. `state`: the node as two endpoints give it.

    Raises ClaimFault for a message to somebody else, one that the node's key did not sign, or one whose time is over.
    """
    try:
        cell = from_boc(message)
        decoded = decode_message(cell)
        claim = ClaimMessage.from_cell(decoded.body)
    except (CellError, ChainError) as error:
        raise ClaimFault(f"it is no claim message: {error}") from error
    if not decoded.external or decoded.destination != node:
        raise ClaimFault("it is not an external message to this node")
    if state.signing_key is None:
        raise ClaimFault("the node has no signing key on chain")
    entries, roots = decoded.body.refs[0], decoded.body.refs[1]
    signed = Claim(
        state.node_id, claim.seqno, claim.valid_until, len(claim.entries), claim.tokens, entries.hash, roots.hash
    )
    if not verify(signed, claim.signature, state.signing_key):
        raise ClaimFault("its signature is not by the node's present key")
    if claim.seqno < state.seqno:
        raise ClaimFault(f"its seqno {claim.seqno} is used up: the node is at {state.seqno}")
    if not now < claim.valid_until <= now + MAX_CLAIM_SECONDS + CLOCK_SLACK_SECONDS:
        raise ClaimFault(f"its valid_until {claim.valid_until} is not within {MAX_CLAIM_SECONDS} s from now")
    return ClaimReady(node, claim.seqno, claim.valid_until, bytes(cell.hash), message, now)
