"""The machine of one request. Every change of a request's status is in this file.

It exists for people and for crashes: the money of a request is in its receipt, whatever becomes of the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from relayer.core.facts import Fact, ReceiptSeen, RelayerStarted, RequestAdmitted, RequestAnswered, RequestBroken


class RequestStatus(StrEnum):
    ADMITTED = "admitted"
    RECEIPTED = "receipted"
    ANSWERED = "answered"
    BROKEN = "broken"
    INTERRUPTED = "interrupted"
    """The relayer died while it passed the answer on."""


@dataclass(frozen=True, slots=True)
class Request:
    request_id: bytes
    status: RequestStatus
    escrow: bytes
    node: bytes
    allotment: bytes
    key: bytes
    attempts: int
    admitted_at: int
    ended_at: int = 0
    code: str = ""
    receipt_seq: int | None = None
    amount_nano: int | None = None


_S = RequestStatus

#: (status, fact) -> next status. A pair that is absent changes nothing: it is a repeat or came too late.
EDGES: dict[tuple[RequestStatus | None, type[Fact]], RequestStatus] = {
    (None, RequestAdmitted): _S.ADMITTED,
    (_S.ADMITTED, ReceiptSeen): _S.RECEIPTED,
    (_S.ADMITTED, RequestAnswered): _S.ANSWERED,
    (_S.ADMITTED, RequestBroken): _S.BROKEN,
    (_S.ADMITTED, RelayerStarted): _S.INTERRUPTED,
    (_S.RECEIPTED, RequestAnswered): _S.ANSWERED,
    (_S.RECEIPTED, RequestBroken): _S.BROKEN,
    (_S.RECEIPTED, RelayerStarted): _S.INTERRUPTED,
    # The same request id posted again: the worker answers it from what it stored.
    (_S.ADMITTED, RequestAdmitted): _S.ADMITTED,
    (_S.RECEIPTED, RequestAdmitted): _S.ADMITTED,
    (_S.ANSWERED, RequestAdmitted): _S.ADMITTED,
    (_S.BROKEN, RequestAdmitted): _S.ADMITTED,
    (_S.INTERRUPTED, RequestAdmitted): _S.ADMITTED,
    # A receipt that comes after the stream broke belongs to the request all the same.
    (_S.BROKEN, ReceiptSeen): _S.BROKEN,
    (_S.INTERRUPTED, ReceiptSeen): _S.INTERRUPTED,
}

OPEN = frozenset({_S.ADMITTED, _S.RECEIPTED})


def step(request: Request | None, fact: Fact) -> Request | None:
    """Apply one fact. Pure; a fact without an edge leaves the request as it is."""
    to = EDGES.get((request.status if request else None, type(fact)))
    if to is None:
        return request
    if isinstance(fact, RequestAdmitted):
        attempts = request.attempts + 1 if request else 1
        return Request(
            request_id=fact.request_id,
            status=to,
            escrow=fact.escrow,
            node=fact.node,
            allotment=fact.allotment,
            key=fact.key,
            attempts=attempts,
            admitted_at=fact.at,
            receipt_seq=request.receipt_seq if request else None,
            amount_nano=request.amount_nano if request else None,
        )
    assert request is not None
    match fact:
        case ReceiptSeen():
            return replace(request, status=to, receipt_seq=fact.seq, amount_nano=fact.amount_nano)
        case RequestBroken():
            return replace(request, status=to, ended_at=fact.at, code=fact.code)
        case RelayerStarted():
            return replace(request, status=to, ended_at=fact.at, code="relayer_restarted")
        case RequestAnswered():
            return replace(request, status=to, ended_at=fact.at)
    return request
