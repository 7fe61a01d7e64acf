"""A machine: its stake, its reserves, what it earned; and whether its history gives the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.audit.core.facts import Facts, Finding, Line, equal
from app.audit.core.history import brought, gas_price, phases, rent_paid, spent, strangers_paid
from app.audit.core.messages import op_of, payment, received, succeeded
from chain.api import Transaction
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.claims import ClaimMessage
from wrappers.gas import Gas
from wrappers.node import NodeConfig, NodeState
from wrappers.ops import Op
from wrappers.signed import network_id

# A slash takes stake; a setting that needs room locks its rent.
_MOVE_THE_LOCKED = (
    Op.SLASH,
    Op.OFFER_CONTROLLER,
    Op.ACCEPT_CONTROLLER,
    Op.OFFER_PAYOUT,
    Op.ACCEPT_PAYOUT,
    Op.SET_RELEASE_KEY,
    Op.SET_OFFER,
    Op.DROP_OFFER,
    Op.DRAIN,
)


@dataclass(slots=True)
class Told:
    """What the history makes of the node."""

    locked_nano: int = 0
    """Stake and rent reserve."""
    earned_nano: int = 0
    requests: int = 0
    seqno: int = 0
    tokens: int = 0
    claims: int = 0


def lines(state: NodeState, balance_nano: int) -> tuple[Line, ...]:
    """Sum to the balance while it covers the stake."""
    payout = state.payout.hex()
    leaves = f"leaves at {state.withdrawable_at}" if state.withdrawable_at else "leaves after unbonding and its windows"
    rent = max(0, min(state.rent_reserve_nano, balance_nano - state.stake_nano))
    above = max(0, balance_nano - state.stake_nano - rent)
    gas = min(above, state.gas_level_nano)
    found = (
        Line(payout, f"stake: {leaves}, or the court takes it", min(state.stake_nano, balance_nano)),
        Line(payout, "kept for the account's rent: what is left comes back with the stake", rent),
        Line(payout, "gas reserve: pays for claims, refilled by earnings", gas),
        Line(payout, "earned: leaves at the next payment above the threshold, or by collect", above - gas),
    )
    return tuple(line for line in found if line.nano)


def check(facts: Facts, state: NodeState) -> tuple[tuple[Finding, ...], Mapping[str, int]]:
    findings = [*_identity(facts, state), *_solvent(facts, state)]
    counters = {
        "stake_nano": state.stake_nano,
        "earned_nano": state.earned_nano,
        "requests": state.requests,
        "claims": state.seqno,
        "tokens_enclave_reported": state.tokens,
    }
    if facts.history is not None:
        told = tell(facts.history, state)
        findings += _told(state, told)
        strangers = strangers_paid(_own(facts.history), _parties(state, facts.history))
        rule = "money left only to payout addresses, escrows, jobs, by the court's word, and back to its sender"
        findings.append(Finding(rule, not strangers, "; ".join(strangers)))
    return tuple(findings), counters


def _identity(facts: Facts, state: NodeState) -> Iterator[Finding]:
    address = child_address(state.registry, Kind.NODE, state.owner, state.index)
    yield Finding("the address follows from registry, owner and index", address == facts.account, state.owner.hex())
    bound = state.belongs_to(network_id(facts.global_id, state.registry), facts.account)
    yield Finding("it is bound to this network", bound, state.registry.hex())


def _solvent(facts: Facts, state: NodeState) -> Iterator[Finding]:
    locked = state.stake_nano + state.rent_reserve_nano
    balance = facts.state.balance_nano
    said = f"{balance} >= {state.stake_nano} stake"
    yield Finding("balance >= stake", balance >= state.stake_nano, said)
    rent = rent_paid(facts.history) if facts.history is not None else state.rent_reserve_nano
    said = f"{balance} >= {state.stake_nano} + {state.rent_reserve_nano} - {rent} that the chain has taken"
    yield Finding("balance >= stake + what is left of the rent reserve", balance >= locked - rent, said)


def tell(history: Sequence[Transaction], state: NodeState) -> Told:
    """`state` gives what never changes: the gas level that was frozen at birth."""
    told, born = Told(), False
    for one in history:
        if one.in_msg is None or not succeeded(one):
            continue
        if one.in_msg.external:
            told.claims += 1
            told.seqno += 1
            try:
                told.tokens = ClaimMessage.from_cell(one.in_msg.body).tokens
            except CellError:
                told.tokens = -1
        elif not born and received(one, Op.INIT):
            born = True
            told.locked_nano = brought(one) - state.gas_level_nano - gas_price(one, Gas.NODE_INIT)
        elif received(one, Op.TOP_UP_STAKE):
            told.locked_nano += brought(one) - gas_price(one, Gas.TOP_UP_STAKE)
        elif any(received(one, op) for op in _MOVE_THE_LOCKED):
            # All that such a message brought leaves again but what is locked on, or what is taken beyond it.
            told.locked_nano += brought(one) - spent(one) + phases(one).storage_nano
        elif (paid := payment(one.in_msg)) is not None:
            told.earned_nano += paid.amount_nano
            told.requests += paid.requests
    return told


def _told(state: NodeState, told: Told) -> Iterator[Finding]:
    locked = state.stake_nano + state.rent_reserve_nano
    where = "the history"
    yield equal(
        "stake and rent reserve are what birth and top-ups brought, less what was slashed",
        locked,
        told.locked_nano,
        where,
    )
    yield equal("earned = sum of payments", state.earned_nano, told.earned_nano, where)
    yield equal("requests = sum of payments'", state.requests, told.requests, where)
    yield equal("seqno = claims that were taken", state.seqno, told.seqno, where)
    yield equal("tokens = the last claim's", state.tokens, told.tokens, where)


def _own(history: Sequence[Transaction]) -> Iterator[Transaction]:
    """Transactions whose money the node itself sent on; before its birth the stub sends everything back."""
    return (one for one in history if succeeded(one))


def _parties(state: NodeState, history: Sequence[Transaction]) -> set[bytes]:
    """Whoever was ever to be paid, and whom claims, jobs and the court named."""
    found = {state.payout, state.owner, state.controller, state.attestation}
    for one in history:
        message = one.in_msg
        if message is not None and received(one, Op.INIT) and message.source == state.registry:
            found.add(NodeConfig.from_cell(message.body.refs[0]).payout)
        if message is not None and message.source is not None and received(one, Op.ACCEPT_PAYOUT):
            found.add(message.source)
        named = received(one, Op.SLASH) or received(one, Op.ACCEPT_JOB)
        for sent in one.out_msgs:
            if sent.destination is not None and (named or op_of(sent.body) == Op.SETTLE):
                found.add(sent.destination)
    return found
