"""An account's history: every nanoTON that came, left, or went to the chain, and who may have got it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from app.audit.core.facts import Facts, Finding, Flow
from app.audit.core.messages import name_of
from chain.api import Message, Transaction
from chain.reader import DecodeError, Reader

_UPDATE = 0x72


@dataclass(frozen=True, slots=True)
class Phases:
    """What the chain charged inside one transaction, and the account's state before and after it."""

    storage_nano: int
    gas_nano: int
    before: bytes
    after: bytes


def phases(transaction: Transaction) -> Phases:
    """TL-B: `transaction$0111 ...`, its HASH_UPDATE and description. Raises DecodeError."""
    update = Reader(transaction.cell.refs[1])
    if update.uint(8) != _UPDATE:
        raise DecodeError("a transaction's state update is none")
    before, after = update.octets(32), update.octets(32)
    r = Reader(transaction.cell.refs[2])
    if r.uint(3) != 0:
        raise DecodeError("a transaction of an unknown kind in workchain 0")
    if r.bit():  # trans_storage$0001
        return Phases(r.coins(), 0, before, after)
    r.bit()
    storage = 0
    if r.bit():
        storage = r.coins()
        r.maybe_coins()
        if r.bit():
            r.bit()
    if r.bit():
        r.maybe_coins()
        r.currency()
    gas = 0
    if r.bit():
        r.uint(3)
        gas = r.coins()
    return Phases(storage, gas, before, after)


def gas_price(transaction: Transaction, gas: int) -> int:
    """GETGASFEE of `gas` at the price that this transaction paid, in nanoTON rounded up.

    Exact where the flat part of the price is in line with the rest, as on mainnet.
    """
    return -(-phases(transaction).gas_nano * gas // transaction.gas_used) if transaction.gas_used else 0


def spent(transaction: Transaction) -> int:
    """What left the account with its messages, and what the chain took, in nanoTON."""
    return transaction.total_fees_nano + sum(one.value_nano + one.forward_fee_nano for one in transaction.out_msgs)


def fees(transaction: Transaction) -> int:
    """What the chain took, forwarding included."""
    return transaction.total_fees_nano + sum(one.forward_fee_nano for one in transaction.out_msgs)


def brought(transaction: Transaction) -> int:
    return 0 if transaction.in_msg is None or transaction.in_msg.external else transaction.in_msg.value_nano


def rent_paid(history: Iterable[Transaction]) -> int:
    return sum(phases(one).storage_nano for one in history)


def check_history(facts: Facts) -> tuple[Finding, ...]:
    """Whole, unbroken, and balance = what came - what left - fees, after every transaction (G2)."""
    history = facts.history
    assert history is not None
    findings = []
    whole = not history or history[0].prev_lt == 0
    last = (history[-1].lt, history[-1].hash) if history else (0, bytes(32))
    whole = whole and last == (facts.state.last_lt, facts.state.last_hash)
    for one, after in pairwise(history):
        whole = whole and (after.prev_lt, after.prev_hash) == (one.lt, one.hash)
        whole = whole and phases(one).after == phases(after).before
    findings.append(Finding("the history is whole, each transaction follows the one before", whole, str(len(history))))
    balance, lowest = 0, 0
    for one in history:
        balance += brought(one) - spent(one)
        lowest = min(lowest, balance)
    came, left = sum(map(brought, history)), sum(m.value_nano for one in history for m in one.out_msgs)
    taken = sum(map(fees, history))
    said = f"{came} came - {left} left - {taken} fees = {balance}"
    if balance != facts.state.balance_nano:
        said += f", and the balance is {facts.state.balance_nano}"
    rule = "balance = what came - what left - fees, over the whole history"
    findings.append(Finding(rule, balance == facts.state.balance_nano and lowest >= 0, said))
    return tuple(findings)


def flows(facts: Facts) -> tuple[Flow, ...]:
    """What went where, largest first."""
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for one in facts.history or ():
        if one.in_msg is not None:
            row = sums[_party(one.in_msg, one.in_msg.source), name_of(one.in_msg)]
            row[0] += brought(one)
            row[2] += 1
        for message in one.out_msgs:
            row = sums[_party(message, message.destination), name_of(message)]
            row[1] += message.value_nano
            row[2] += 1
    found = [Flow(party, purpose, *row) for (party, purpose), row in sums.items()]
    return tuple(sorted(found, key=lambda flow: -max(flow.in_nano, flow.out_nano)))


def _party(message: Message, account: bytes | None) -> str:
    if account is not None:
        return account.hex()
    return "outside the chain" if message.external else "another workchain"


def strangers_paid(history: Iterable[Transaction], allowed: Iterable[bytes]) -> list[str]:
    """Transactions in which money went to an account that is not `allowed` and had not brought as much itself."""
    known = frozenset(allowed)
    found = []
    for one in history:
        source = None if one.in_msg is None or one.in_msg.external else one.in_msg.source
        for message in one.out_msgs:
            if message.external or message.destination in known:
                continue
            if message.destination != source or message.value_nano > brought(one):
                to = _party(message, message.destination)
                found.append(f"{message.value_nano} to {to} at lt {one.lt} ({name_of(message)})")
    return found
