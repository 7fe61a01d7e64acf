"""A receipt opened before everyone: bound, signed, priced, and under the root that its enclave signed in a claim.

What is false here is evidence: the court takes the stake for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pytoniq_core import Cell

from app.audit.core.facts import Facts, Finding
from app.audit.core.messages import received, succeeded
from protocol.errors import PeerFault
from protocol.pricing import charge
from protocol.receipts import IssuedReceipt, usage_of
from wrappers import court
from wrappers.cells import CellError, from_boc
from wrappers.claims import ClaimMessage, receipts_root, spines
from wrappers.code import Contract, rare_program
from wrappers.court import Accused, Place, SignedReceipt
from wrappers.fees import Fees
from wrappers.node import NodeState
from wrappers.ops import Op
from wrappers.receipts import Receipt, Terms
from wrappers.signed import Claim, allotment_id, node_id, verify
from wrappers.verdicts import VerdictBody

MOST_STARTS = 300
"""Longer claims are recomputed only from where the one before them ended."""
_Place = tuple[bytes, int, bytes, int, bytes]


@dataclass(frozen=True, slots=True)
class Shown:
    """A receipt with everything that opens it, as `cocoon client receipts --json` writes it."""

    escrow: bytes
    allotment_epoch: int
    node: bytes
    """Account of the node."""
    node_epoch: int
    key: bytes
    issued: IssuedReceipt
    terms: Terms

    @property
    def receipt(self) -> Receipt:
        return self.issued.signed.receipt

    @property
    def place(self) -> _Place:
        return (self.escrow, self.allotment_epoch, self.node, self.node_epoch, self.key)

    @property
    def accused(self) -> Accused:
        return Accused(self.node, self.node_epoch, self.key)


@dataclass(frozen=True, slots=True)
class Evidence:
    """A message that anyone may send: the court judges it. `value_nano`: what is not used comes back."""

    why: str
    court: bytes
    """The one that the node obeys."""
    value_nano: int
    body: Cell


def parse(document: str) -> tuple[Shown, ...]:
    """Raises ValueError naming what is wrong."""
    try:
        found = json.loads(document)["receipts"]
        return tuple(
            Shown(
                bytes.fromhex(one["escrow"]),
                int(one["allotment_epoch"]),
                bytes.fromhex(one["node"]),
                int(one["node_epoch"]),
                bytes.fromhex(one["key"]),
                IssuedReceipt.from_bytes(bytes.fromhex(one["issued"])),
                Terms.from_cell(from_boc(bytes.fromhex(one["terms"]))),
            )
            for one in found
        )
    except (ValueError, KeyError, TypeError, PeerFault, CellError) as error:
        raise ValueError(
            f"no receipts can be read from it ({error}); `cocoon client receipts --json` writes what is read here"
        ) from error


def check_receipts(
    shown: Sequence[Shown], network: bytes, nodes: Mapping[bytes, Facts], fees: Fees
) -> tuple[tuple[Finding, ...], tuple[Evidence, ...]]:
    """`nodes`: facts of the nodes that are named, with their histories, as far as they are nodes of this network.

    `network`: the network id.
    """
    findings: list[Finding] = []
    evidence: list[Evidence] = []
    roots: dict[_Place, tuple[_Root, ...]] = {}
    value = fees.evidence(rare_program(Contract.NODE))

    def accuse(one: Shown, why: str, body: Cell) -> None:
        state = _state(nodes[one.node])
        if state is not None:
            evidence.append(Evidence(why, state.court, value, body))

    genuine: set[tuple[_Place, SignedReceipt]] = set()
    for one in shown:
        name = f"receipt {one.receipt.hash.hex()[:16]}, number {one.receipt.seq}"
        facts = nodes.get(one.node)
        signed = tuple(_signed(name, one, network, facts))
        if all(finding.holds for finding in signed):
            genuine.add((one.place, _testimony(one)))
        opened, priced = _opened(name, one), _priced(name, one)
        sound = (*signed, opened)
        findings += [*sound, priced]
        if facts is not None:
            if one.place not in roots:
                roots[one.place] = _roots([each for each in shown if each.place == one.place], facts, network)
            findings.append(_claimed(name, one, roots[one.place]))
        if all(finding.holds for finding in sound) and not priced.holds:
            place = Place(one.escrow, one.allotment_epoch, one.receipt.seq)
            program = rare_program(Contract.NODE)
            accuse(
                one,
                priced.said,
                court.false_amount(place, one.accused, _testimony(one), one.issued.inner, one.terms, program),
            )
    for first, second in _twice(shown):
        said = f"{first.receipt.hash.hex()} and {second.receipt.hash.hex()} are both number {first.receipt.seq}"
        findings.append(Finding("one receipt per number", False, said))
        pair = (_testimony(first), _testimony(second))
        if all((first.place, each) in genuine for each in pair):
            place = Place(first.escrow, first.allotment_epoch, first.receipt.seq)
            accuse(first, said, court.equivocation(place, first.accused, pair[0], pair[1], rare_program(Contract.NODE)))
    return tuple(findings), tuple(evidence)


def _testimony(one: Shown) -> SignedReceipt:
    return SignedReceipt(one.receipt, one.issued.signed.signature)


def _state(facts: Facts) -> NodeState | None:
    return None if facts.state.data is None else NodeState.from_cell(facts.state.data)


def _signed(name: str, one: Shown, network: bytes, facts: Facts | None) -> Iterator[Finding]:
    birth = allotment_id(network, one.escrow, one.allotment_epoch, one.node)
    life = node_id(network, one.node, one.node_epoch)
    bound = (one.receipt.allotment, one.receipt.node) == (birth, life)
    yield Finding(f"{name}: bound to network, escrow, allotment and node", bound)
    signed = verify(one.receipt, one.issued.signed.signature, one.key)
    yield Finding(f"{name}: signed by its enclave key", signed, one.key.hex())
    attested = facts is not None and one.key in _keys(facts)
    said = one.node.hex() if facts is not None else f"{one.node.hex()} is no node of this network, or it has ended"
    yield Finding(f"{name}: the chain attested its key for this node", attested, said)


def _opened(name: str, one: Shown) -> Finding:
    opened = one.issued.inner.hash == one.receipt.inner and one.terms.hash == one.receipt.terms
    return Finding(f"{name}: its inner half and its terms are the ones it names", opened)


def _priced(name: str, one: Shown) -> Finding:
    try:
        usage, stop = usage_of(one.issued.inner)
        due = charge(one.terms, usage, stop)
    except PeerFault as error:
        return Finding(f"{name}: amount = usage x terms", False, f"{error.cause}: no amount is right")
    amount = one.receipt.amount_nano
    said = f"{amount} nanoTON" if amount == due else f"it bills {amount} nanoTON where usage x terms is {due}"
    return Finding(f"{name}: amount = usage x terms", amount == due, said)


def _keys(facts: Facts) -> set[bytes]:
    """Every key that the chain ever attested for the node, as far as its history tells."""
    found: set[bytes] = set()
    state = _state(facts)
    if state is not None:
        found |= {*state.retired, *([state.signing_key] if state.signing_key else [])}
    for one in facts.history or ():
        if received(one, Op.VERDICT) and one.in_msg is not None:
            found.add(VerdictBody.from_cell(one.in_msg.body.refs[0]).key)
    return found


def _claims(facts: Facts, key: bytes, life: bytes) -> Iterator[ClaimMessage]:
    """Claims that landed under `key`, oldest first."""
    for one in facts.history or ():
        if one.in_msg is None or not one.in_msg.external or not succeeded(one):
            continue
        try:
            claim = ClaimMessage.from_cell(one.in_msg.body)
        except CellError:
            continue
        entries, roots = spines(claim.entries)
        header = Claim(life, claim.seqno, claim.valid_until, len(claim.entries), claim.tokens, entries.hash, roots.hash)
        if verify(header, claim.signature, key):
            yield claim


@dataclass(frozen=True, slots=True)
class _Root:
    """What one claim committed the enclave to, in one account. `first` 0: not recomputed, or of no run of these."""

    claim: int
    root: bytes
    first: int
    last: int
    lacking: bool
    """The file lacks receipts that the root may be of."""


def _roots(shown: Sequence[Shown], facts: Facts, network: bytes) -> tuple[_Root, ...]:
    """`shown`: of one account. A root is of a run that ends at the entry's number and begins anywhere before."""
    one = shown[0]
    mine = {other.receipt.seq: other.receipt for other in shown}
    found, starts = [], {1}
    for claim in _claims(facts, one.key, node_id(network, one.node, one.node_epoch)):
        for entry in claim.entries:
            if entry.escrow != one.escrow or not any(entry.root):
                continue
            last = entry.entry.seq
            whole = last - max((n for n in range(1, last + 1) if n not in mine), default=0)
            # Claims go on where the one before ended; where that one was lost, anywhere before.
            likely = sorted((start for start in starts if start <= last), reverse=True)
            others = range(1, last + 1) if last <= MOST_STARTS else ()
            first = 0
            for start in dict.fromkeys((*likely, *others)):
                if start > last - whole and receipts_root([mine[n] for n in range(start, last + 1)]) == entry.root:
                    first = start
                    break
            found.append(_Root(claim.seqno, entry.root, first, last, whole < last or last > MOST_STARTS))
            starts.add(last + 1)
    return tuple(found)


def _claimed(name: str, one: Shown, roots: Sequence[_Root]) -> Finding:
    """The contracts do not check roots: they commit the enclave to what it signed."""
    rule = f"{name}: nothing that its enclave signed in a claim contradicts it"
    seq = one.receipt.seq
    for root in roots:
        if root.first and root.first <= seq <= root.last:
            run = f"numbers {root.first} to {root.last}"
            return Finding(rule, True, f"it stands under root {root.root.hex()} of claim {root.claim}, {run}")
    for root in roots:
        if seq <= root.last and not root.first:
            what = f"claim {root.claim} signs root {root.root.hex()}, up to number {root.last}"
            if root.lacking:
                return Finding(rule, True, f"not recomputed: {what}; give every receipt of the account")
            said = f"{what}, of other receipts than these: ask for them, two for one number are equivocation"
            return Finding(rule, False, said)
    return Finding(rule, True, "no claim holds it yet")


def _twice(shown: Sequence[Shown]) -> Iterator[tuple[Shown, Shown]]:
    first: dict[tuple[object, ...], Shown] = {}
    for one in shown:
        known = first.setdefault((*one.place, one.receipt.seq), one)
        if known.receipt.hash != one.receipt.hash:
            yield known, one
