"""What a relayer asks of a node's agent, and the answers as they travel: claims, releases, receipts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from protocol.errors import Code, ProtocolError, WireError
from protocol.link import MAX_RECEIPTS, BadMessage, Kind, LinkCode, Reason, json_message, number
from protocol.link_messages import OutgoingClaim, ReceiptFrame, ReceiptsQuery, ReleaseAnswer, ReleaseRequest

ANSWER_SECONDS = 25.0
"""Within the time after which the relayer gives up."""
ANSWERS = {Kind.ASK_CLAIM: Kind.CLAIM, Kind.ASK_RELEASE: Kind.RELEASE, Kind.ASK_RECEIPTS: Kind.RECEIPTS}


class Refusal(ProtocolError):
    """The agent declines what the relayer asked for."""

    def __init__(self, code: Code | LinkCode, cause: str, cure: str) -> None:
        super().__init__(cause, cure)
        self.reason = Reason(code, cause, cure)


class Answerer(Protocol):
    """Who knows the answers."""

    async def claim(self) -> OutgoingClaim:
        """A batch claim over everything that is owed. Raises Refusal."""

    async def release(self, ask: ReleaseRequest) -> tuple[int, bytes]:
        """(allotted_nano, signature). Raises Refusal."""

    async def receipts(self, allotment: bytes, key: bytes, after_seq: int, limit: int) -> Sequence[ReceiptFrame]: ...


async def answer(answerer: Answerer, kind: Kind, body: dict[str, Any]) -> bytes:
    """The message that answers a question of a kind in ANSWERS. Raises BadMessage when the question has no number."""
    ask = number(body, "ask", 63)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            fields = await _fields(answerer, kind, body)
    except Refusal as refusal:
        fields = {"error": refusal.reason.to_json()}
    except BadMessage as error:
        fields = {"error": Reason.of(Code.BAD_REQUEST, error).to_json()}
    except TimeoutError:
        late = WireError.of(Code.TIMEOUT, "the agent could not answer in time")
        fields = {"error": Reason(late.code, late.cause, "ask again").to_json()}
    return json_message(ANSWERS[kind], {"ask": ask, **fields})


async def _fields(answerer: Answerer, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    if kind is Kind.ASK_CLAIM:
        return (await answerer.claim()).to_json()
    if kind is Kind.ASK_RELEASE:
        ask = ReleaseRequest.from_json(body.get("release_request"))
        allotted, signature = await answerer.release(ask)
        return ReleaseAnswer(ask.allotment, ask.row_seqno, allotted, signature).to_json()
    query = ReceiptsQuery.from_json(body)
    return receipts_fields(await answerer.receipts(query.allotment, query.key, query.after_seq, query.limit))


def receipts_fields(rows: Sequence[ReceiptFrame]) -> dict[str, Any]:
    return {"receipts": [row.to_json() for row in rows], "error": None}


def pushed_claim(claim: OutgoingClaim) -> bytes:
    """A claim that nobody asked for."""
    return json_message(Kind.CLAIM, {"ask": None, **claim.to_json()})


def pushed_receipts(rows: Sequence[ReceiptFrame]) -> list[bytes]:
    """Receipts that nobody asked for, in as many messages as they need."""
    parts = (rows[start : start + MAX_RECEIPTS] for start in range(0, len(rows), MAX_RECEIPTS))
    return [json_message(Kind.RECEIPTS, {"ask": None, **receipts_fields(part)}) for part in parts]
