"""One account's audit: what it is, whose its money is, whether it holds what it owes, whether its history agrees."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import TypeVar

from app.audit.core import escrow, node, others
from app.audit.core.facts import Facts, Finding, Kind, Line, Report
from app.audit.core.history import check_history, fees, flows
from attestation.onchain.state import VerifierState
from chain.api import AccountState, ChainError, Status
from protocol.siblings import job_of, may_be_child
from wrappers.addresses import Kind as ChildKind
from wrappers.addresses import child_address
from wrappers.cells import CellError
from wrappers.code import Contract, code, living_code
from wrappers.committee import CommitteeState
from wrappers.court import CourtState
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.prices import Prices
from wrappers.registry import RegistryState

T = TypeVar("T")
STUB_BITS = 256 + 8 + 256 + 32
_CHILDREN = {Kind.NODE: ChildKind.NODE, Kind.ESCROW: ChildKind.ESCROW}


@cache
def _kinds() -> Mapping[bytes, Kind]:
    singletons = {Contract.REGISTRY: Kind.REGISTRY, Contract.ATTESTATION: Kind.ATTESTATION, Contract.COURT: Kind.COURT}
    singletons[Contract.COMMITTEE] = Kind.COMMITTEE
    children = {Contract.NODE: Kind.NODE, Contract.ESCROW: Kind.ESCROW, Contract.JOB: Kind.JOB}
    return {
        **{bytes(code(contract).hash): kind for contract, kind in singletons.items()},
        **{bytes(living_code(code(contract)).hash): kind for contract, kind in children.items()},
        bytes(code(Contract.STUB).hash): Kind.STUB,
    }


def identify(state: AccountState) -> Kind:
    """By code alone: data can claim anything."""
    if state.status is Status.ABSENT:
        return Kind.ABSENT
    if state.code is None:
        return Kind.OTHER
    return _kinds().get(bytes(state.code.hash), Kind.OTHER)


def audit(facts: Facts, prices: Prices) -> Report:
    """`prices`: of storage and forwarding, which an escrow's birth is recomputed with. Never raises on bad data."""
    kind = identify(facts.state)
    try:
        lines, findings, counters = _judge(kind, facts, prices)
    except (CellError, ChainError) as error:
        lines, findings, counters = (), (Finding("the state can be read", False, str(error)),), {}
    if facts.history is not None and kind is not Kind.ABSENT:
        try:
            findings = (*findings, *check_history(facts))
        except ChainError as error:
            findings = (*findings, Finding("the history can be read", False, str(error)))
    if kind is not Kind.ABSENT and lines:
        findings = (*findings, _explained(lines, facts.state.balance_nano))
    taken = sum(map(fees, facts.history or ()))
    balance = facts.state.balance_nano
    return Report(facts.account, kind, balance, lines, findings, flows(facts), taken, counters)


def _explained(lines: tuple[Line, ...], balance_nano: int) -> Finding:
    total = sum(line.nano for line in lines)
    holds = total == balance_nano and all(line.nano >= 0 for line in lines)
    return Finding("every nanoTON of the balance has an owner", holds, f"{total} of {balance_nano}")


_Judged = tuple[tuple[Line, ...], tuple[Finding, ...], Mapping[str, int]]


def _judge(kind: Kind, facts: Facts, prices: Prices) -> _Judged:
    balance, data = facts.state.balance_nano, facts.state.data
    if kind is Kind.ABSENT:
        return (), (Finding("there is an account", False, "it never was, or it has ended"),), {}
    if kind is Kind.OTHER or data is None:
        said = "no code yet" if facts.state.code is None else bytes(facts.state.code.hash).hex()
        finding = Finding("its code is one that this release compiled", False, said)
        return (), (finding,), {}
    if kind is Kind.STUB:
        return _stub(facts)
    if kind is Kind.NODE:
        node_state = _born(NodeState.from_cell(data))
        return node.lines(node_state, balance), *node.check(facts, node_state)
    if kind is Kind.ESCROW:
        escrow_state = _born(EscrowState.from_cell(data, facts.account))
        return escrow.lines(escrow_state, balance), *escrow.check(facts, escrow_state, prices)
    if kind is Kind.JOB:
        job_state = others.decode_job(facts)
        return others.job_lines(job_state, balance), tuple(others.check_job(facts, job_state)), {}
    if kind is Kind.COMMITTEE:
        committee = CommitteeState.from_cell(data)
        return others.committee_lines(committee, balance), tuple(others.check_committee(facts, committee)), {}
    findings: Iterator[Finding]
    if kind is Kind.REGISTRY:
        findings = others.check_registry(facts, RegistryState.from_cell(data))
    elif kind is Kind.ATTESTATION:
        findings = others.check_attestation(facts, VerifierState.from_cell(data))
    else:
        findings = others.check_court(facts, CourtState.from_cell(data))
    return others.singleton_lines(kind, balance), tuple(findings), {}


def _born(state: T | None) -> T:
    if state is None:
        raise CellError("the code is that of a born account, the data are a stub's")
    return state


def _stub(facts: Facts) -> _Judged:
    """A child's address before its birth, or the address of money that came too early."""
    data = facts.state.data
    assert data is not None
    if len(data.bits) != STUB_BITS or data.refs:
        raise CellError("not a stub's data")
    s = data.begin_parse()
    registry, kind, owner, index = s.load_bytes(32), s.load_uint(8), s.load_bytes(32), s.load_uint(32)
    balance = facts.state.balance_nano
    genuine = kind in list(ChildKind) and child_address(registry, ChildKind(kind), owner, index) == facts.account
    finding = Finding("the address follows from registry, owner and index", genuine, owner.hex())
    line = Line(owner.hex(), "waits at an account that is not born: opening it again finds it", balance)
    return ((line,) if balance else ()), (finding,), {}


def check_registry_of(facts: Facts, registry: bytes, singletons: Collection[bytes]) -> Finding | None:
    """Whether the account is one of that registry's; None where there is nothing that could be.

    Who deploys a registry of his own has nodes and escrows of which everything else holds.
    """
    kind, data = identify(facts.state), facts.state.data
    if data is None or kind in (Kind.ABSENT, Kind.OTHER, Kind.COMMITTEE):
        return None
    if kind is Kind.STUB:
        holds = len(data.bits) == STUB_BITS and data.begin_parse().load_bytes(32) == registry
    elif kind is Kind.JOB:
        holds = job_of(data, facts.account, registry) is not None
    elif kind in _CHILDREN:
        born = len(data.bits) != STUB_BITS or bool(data.refs)
        holds = born and may_be_child(data, _CHILDREN[kind], facts.account, registry)
    else:
        holds = facts.account in singletons
    return Finding(f"{facts.account.hex()[:16]}: it is of the registry that was named", holds, registry.hex())


def all_hold(reports: tuple[Report, ...], between: tuple[Finding, ...]) -> bool:
    return all(report.holds for report in reports) and all(finding.holds for finding in between)
