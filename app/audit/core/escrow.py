"""A client account: whose each nanoTON is, and whether the state is what its history makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from app.audit.core.escrow_replay import tell
from app.audit.core.escrow_told import Told, Unexplained
from app.audit.core.facts import Facts, Finding, Line, equal
from app.audit.core.history import rent_paid, strangers_paid
from wrappers.addresses import Kind, child_address
from wrappers.escrow import EscrowState
from wrappers.prices import Prices
from wrappers.rows import Row, part
from wrappers.signed import network_id


def lines(state: EscrowState, balance_nano: int) -> tuple[Line, ...]:
    """Sum to the balance while it covers what is owed."""
    owner, found = state.owner.hex(), []
    for node, row in state.rows.items():
        left = row.allotted_nano - row.paid_nano
        if left:
            found.append(Line(owner, f"reserved for node {node.hex()}: paid to it by receipts, or free again", left))
        found += _shares(node, row, owner)
    found.append(Line(owner, "free: withdrawn or allotted at any time", state.free_nano))
    kept = balance_nano - state.deposit_nano - state.accrued_nano
    found.append(Line(owner, "kept for the account's rent: what is left comes back when it closes", kept))
    return tuple(line for line in found if line.nano)


def _shares(node: bytes, row: Row, owner: str) -> Iterator[Line]:
    shares = row.terms.shares
    if shares is None:
        return
    named = [(shares.relayer, "relayer", shares.relayer_share), (shares.royalty, "royalty", shares.royalty_share)]
    if shares.fee is not None:
        named.append((shares.fee.treasury, "treasury", shares.fee.share))
    left = row.accrued_nano
    for account, name, share in named:
        # Each share is rounded by itself: the last may find less left than its own, as when shares are paid.
        amount = min(part(row.paid_nano, share) - part(shares.paid_out_nano, share), left)
        left -= amount
        yield Line(account.hex(), f"{name}'s share of what node {node.hex()} was paid", amount)
    yield Line(owner, f"rounding of shares of node {node.hex()}", left)


def check(facts: Facts, state: EscrowState, prices: Prices) -> tuple[tuple[Finding, ...], Mapping[str, int]]:
    findings = [*_identity(facts, state), *_state(facts, state)]
    counters = {
        "deposit_nano": state.deposit_nano,
        "reserved_nano": state.reserved_nano,
        "accrued_nano": state.accrued_nano,
        "rows": len(state.rows),
    }
    if facts.history is not None:
        try:
            told = tell(facts.history, state.owner, prices)
        except Unexplained as error:
            return (*findings, Finding("the history explains the state", False, str(error))), counters
        if told is None:
            return (*findings, Finding("the history explains the state", False, "no birth is in it")), counters
        findings += _told(state, told)
        counters["paid_to_nodes_nano"] = sum(told.paid_nano.values())
        strangers = strangers_paid(facts.history, {state.owner, state.registry, *told.named})
        rule = "money left only to the owner, nodes, those who share, and back to who had sent it"
        findings.append(Finding(rule, not strangers, "; ".join(strangers)))
    return tuple(findings), counters


def _identity(facts: Facts, state: EscrowState) -> Iterator[Finding]:
    address = child_address(state.registry, Kind.ESCROW, state.owner, state.index)
    yield Finding("the address follows from registry, owner and index", address == facts.account, state.owner.hex())
    network = network_id(facts.global_id, state.registry)
    yield Finding("it is bound to this network", state.network_id == network, state.registry.hex())


def _state(facts: Facts, state: EscrowState) -> Iterator[Finding]:
    owed = state.deposit_nano + state.accrued_nano
    short = owed - facts.state.balance_nano
    said = f"{facts.state.balance_nano} >= {state.deposit_nano} deposit + {state.accrued_nano} shares"
    rent = rent_paid(facts.history) if facts.history is not None else 0
    if 0 < short <= rent:
        said += f": {short} less, for the chain took {rent} of rent, more than was kept for ten years"
    yield Finding("balance >= deposit + shares", short <= 0 or short <= rent, said)
    reserved = sum(row.allotted_nano - row.paid_nano for row in state.rows.values())
    yield equal("reserved = allotted - paid over all rows", state.reserved_nano, reserved, "the sum of the rows")
    said = f"{state.reserved_nano} of {state.deposit_nano}"
    yield Finding("reserved <= deposit", state.reserved_nano <= state.deposit_nano, said)
    accrued = sum(row.accrued_nano for row in state.rows.values())
    yield equal("shares that wait = parts of what rows paid", state.accrued_nano, accrued, "the sum of the rows")
    for node, row in state.rows.items():
        keys = sum(key.paid_nano for key in row.keys.values())
        # Keys that the owner gave up are forgotten with what they were paid.
        paid = keys <= row.paid_nano <= row.allotted_nano and (bool(row.keys) or not row.paid_nano)
        consent = all(key.paid_nano <= max(key.cap_nano, key.acked_nano) for key in row.keys.values())
        said = f"keys {keys}, row {row.paid_nano}, allotted {row.allotted_nano}"
        yield Finding(f"row {node.hex()[:16]}: paid by its keys <= paid <= allotted", paid, said)
        yield Finding(f"row {node.hex()[:16]}: no key was paid more than the client signed for", consent)


def _told(state: EscrowState, told: Told) -> Iterator[Finding]:
    for name in ("deposit_nano", "reserved_nano", "accrued_nano"):
        yield equal(f"{name[:-5]} is what the history gives", getattr(state, name), getattr(told, name), "the history")
    same = set(state.rows) == set(told.rows) and state.closing == told.closing
    yield Finding("rows and closing are what the history gives", same, f"{len(state.rows)} rows")
    key = (state.voucher_key, state.next_key.key if state.next_key else None)
    yield Finding("the voucher key is what the history gives", key == (told.voucher_key, told.next_key))
    for node, row in state.rows.items():
        found = told.rows.get(node)
        if found is None:
            continue
        mine = (row.epoch, row.allotted_nano, row.paid_nano, row.seqno, row.closing_at)
        theirs = (found.epoch, found.allotted_nano, found.paid_nano, found.seqno, found.closing_at)
        said = f"{row.paid_nano} of {row.allotted_nano}"
        if mine != theirs:
            said = f"the state says {mine}, the history gives {theirs} (epoch, allotted, paid, seqno, closing at)"
        yield Finding(f"row {node.hex()[:16]}: allotted and paid are what the history gives", mine == theirs, said)
        keys = dict(row.keys) == found.keys
        yield Finding(f"row {node.hex()[:16]}: what each key was paid is what the history gives", keys)
        same = row.terms == found.present_terms
        yield Finding(f"row {node.hex()[:16]}: its terms are those it was allotted with", same)
