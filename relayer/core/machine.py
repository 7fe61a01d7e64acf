"""Which states a fact touches, and what becomes of each. The only entry into the machines."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from relayer.core import request, settlement, tally
from relayer.core.effects import Effect
from relayer.core.facts import (
    Fact,
    ReceiptSeen,
    RelayerStarted,
    RequestAdmitted,
    RequestAnswered,
    RequestBroken,
    RowGone,
    RowSeen,
)
from relayer.core.policy import SettlePolicy
from relayer.core.request import Request
from relayer.core.settlement import Settlement
from relayer.core.tally import Tally

State = Request | Settlement | Tally


class Machine(StrEnum):
    REQUEST = "request"
    SETTLEMENT = "settlement"
    TALLY = "tally"


@dataclass(frozen=True, slots=True)
class Subject:
    """Names one state: a request id, a node account, or allotment id || enclave key."""

    machine: Machine
    id: bytes


def subjects(fact: Fact) -> tuple[Subject, ...]:
    match fact:
        case RequestAdmitted() | RequestAnswered() | RequestBroken() | RelayerStarted():
            return (Subject(Machine.REQUEST, fact.request_id),)
        case ReceiptSeen():
            tallied = Subject(Machine.TALLY, fact.allotment + fact.key)
            return (tallied,) if fact.request_id is None else (tallied, Subject(Machine.REQUEST, fact.request_id))
        case RowSeen() | RowGone():
            return (Subject(Machine.TALLY, fact.allotment + fact.key),)
        case _:
            return (Subject(Machine.SETTLEMENT, fact.node),)


def step(
    subject: Subject, state: State | None, fact: Fact, policy: SettlePolicy
) -> tuple[State | None, tuple[Effect, ...]]:
    """The state after the fact, and the effects that it opens. Pure; equal inputs give equal outputs."""
    match subject.machine:
        case Machine.REQUEST:
            assert state is None or isinstance(state, Request)
            return request.step(state, fact), ()
        case Machine.TALLY:
            assert state is None or isinstance(state, Tally)
            return tally.step(state, fact), ()
        case Machine.SETTLEMENT:
            assert state is None or isinstance(state, Settlement)
            known = state or Settlement(subject.id)
            return settlement.step(
                known, fact, settle_seconds=policy.settle_seconds, retry_seconds=policy.retry_seconds
            )
