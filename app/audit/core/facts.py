"""What an audit is given, and what it says. Amounts nanoTON, times unix seconds, accounts 32-byte ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from chain.api import AccountState, Transaction


class Kind(StrEnum):
    """What an account is, by the hash of the code that it runs."""

    REGISTRY = "registry"
    ATTESTATION = "attestation"
    COURT = "court"
    COMMITTEE = "committee"
    NODE = "node"
    ESCROW = "escrow"
    JOB = "job"
    STUB = "stub"
    OTHER = "other"
    ABSENT = "absent"


@dataclass(frozen=True, slots=True)
class Facts:
    """One account as two endpoints agree on it."""

    account: bytes
    state: AccountState
    history: tuple[Transaction, ...] | None
    """Oldest first: the whole of the account's present life, each proved to follow the one before. None: not read."""
    global_id: int


@dataclass(frozen=True, slots=True)
class Finding:
    """One statement that holds or not. `said`: the numbers it was judged by, for people."""

    rule: str
    holds: bool
    said: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One part of a balance: whose it is, as what, and how it can leave."""

    whose: str
    what: str
    nano: int


@dataclass(frozen=True, slots=True)
class Flow:
    """Everything that went one way between the account and one counterparty under one name."""

    counterparty: str
    purpose: str
    in_nano: int
    out_nano: int
    count: int


@dataclass(frozen=True, slots=True)
class Report:
    account: bytes
    kind: Kind
    balance_nano: int
    lines: tuple[Line, ...] = ()
    """Their sum is the balance."""
    findings: tuple[Finding, ...] = ()
    flows: tuple[Flow, ...] = ()
    fees_nano: int = 0
    """What the chain itself took from the account in its present life."""
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        return all(finding.holds for finding in self.findings)


def equal(rule: str, found: int, expected: int, where: str) -> Finding:
    """`found`: what the state says; `expected`: what was recomputed from `where`."""
    if found == expected:
        return Finding(rule, True, f"{found}")
    return Finding(rule, False, f"the state says {found}, {where} gives {expected}: {found - expected:+d}")
