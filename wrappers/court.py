"""The court: its state, evidence against an enclave key, and what it sends. Amounts nanoTON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from pytoniq_core import Builder, Cell, HashMap, begin_cell

from wrappers.cells import CellError
from wrappers.ops import Op
from wrappers.receipts import InnerReceipt, Receipt, Terms

_PRUNED, _MERKLE_PROOF = 1, 3
WHOLE_STAKE = 0
"""A slash's penalty that means everything."""


@dataclass(frozen=True, slots=True)
class CourtState:
    """TL-B: CourtState. Nothing of it ever changes."""

    registry: bytes
    stub_prefix: bytes
    """`RegistryState.stub_prefix` (39 bytes)."""
    treasury: bytes
    """Account that a slash leaves what nobody else is owed."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.registry).store_bytes(self.stub_prefix)
        return cell.store_bytes(self.treasury).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for anything else, a court before its genesis included."""
        if len(cell.bits) != 256 + 312 + 256 or cell.refs:
            raise CellError("not a court's state")
        s = cell.begin_parse()
        return cls(s.load_bytes(32), s.load_bytes(39), s.load_bytes(32))


@dataclass(frozen=True, slots=True)
class Accused:
    """TL-B: Accused."""

    node: bytes
    """Account of the node."""
    epoch: int
    key: bytes
    """The enclave key that signed."""

    def to_cell(self) -> Cell:
        return begin_cell().store_bytes(self.node).store_uint(self.epoch, 64).store_bytes(self.key).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        return cls(s.load_bytes(32), s.load_uint(64), s.load_bytes(32))


class Testimony(Protocol):
    """A receipt that an enclave key vouched for."""

    def to_cell(self) -> Cell: ...


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """TL-B: Testimony, signed_receipt."""

    receipt: Receipt
    signature: bytes

    def to_cell(self) -> Cell:
        return begin_cell().store_bit(0).store_bytes(self.signature).store_ref(self.receipt.to_cell()).end_cell()


@dataclass(frozen=True, slots=True)
class ClaimedReceipt:
    """A receipt under the root of one entry of a signed claim. TL-B: Testimony, claimed_receipt."""

    signature: bytes
    """Over `signed.Claim`, whose fields follow."""
    seqno: int
    valid_until: int
    count: int
    tokens: int
    entries: bytes
    """Hash of the claim's entries."""
    index: int
    """Which entry."""
    roots: Cell
    proof: Cell
    """`receipt_proof` of that entry's receipts."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bit(1).store_bytes(self.signature).store_bytes(self.entries)
        cell.store_uint(self.valid_until, 32).store_uint(self.count, 8).store_uint(self.tokens, 64)
        cell.store_uint(self.seqno, 32).store_uint(self.index, 8)
        return cell.store_ref(self.roots).store_ref(self.proof).end_cell()


def _pruned(cell: Cell) -> Cell:
    builder = Builder(1023, _PRUNED).store_uint(_PRUNED, 8).store_uint(1, 8)
    return builder.store_bytes(cell.get_hash(0)).store_uint(cell.get_depth(0), 16).end_cell()


def _only(cell: Cell, wanted: bytes) -> Cell | None:
    """`cell` with everything pruned that does not lead to the cell of hash `wanted`; None where nothing does."""
    if cell.hash == wanted:
        return cell
    kept = [_only(ref, wanted) for ref in cell.refs]
    if all(ref is None for ref in kept):
        return None
    return Cell(cell.bits, [_pruned(old) if new is None else new for old, new in zip(cell.refs, kept, strict=True)])


def receipt_proof(receipts: Sequence[Receipt], seq: int) -> Cell:
    """Merkle proof of the receipt `seq` in `HashmapE 32 ^Receipt`. Raises ValueError when it is not among them."""
    wanted = next((receipt for receipt in receipts if receipt.seq == seq), None)
    map_ = HashMap(32, value_serializer=lambda receipt, builder: builder.store_ref(receipt.to_cell()))
    for receipt in receipts:
        map_.set_int_key(receipt.seq, receipt)
    root: Cell | None = map_.serialize()
    part = _only(root, wanted.hash) if wanted is not None and root is not None else None
    if root is None or part is None:
        raise ValueError(f"no receipt {seq} among the {len(receipts)} given; give all receipts of the claim's entry")
    builder = Builder(1023, _MERKLE_PROOF).store_uint(_MERKLE_PROOF, 8).store_bytes(root.get_hash(0))
    return builder.store_uint(root.get_depth(0), 16).store_ref(part).end_cell()


@dataclass(frozen=True, slots=True)
class Place:
    """Whose receipt it is, and which: the allotment is that of `escrow` at `allotment_epoch` to the accused node."""

    escrow: bytes
    allotment_epoch: int
    seq: int


def _evidence(op: Op, place: Place, accused: Accused) -> Builder:
    body = begin_cell().store_uint(op, 32).store_bytes(place.escrow).store_uint(place.allotment_epoch, 64)
    return body.store_uint(place.seq, 32).store_ref(accused.to_cell())


def equivocation(place: Place, accused: Accused, first: Testimony, second: Testimony, program: Cell) -> Cell:
    """Body from anyone: two different receipts of one key for one place. `program`: of the node's rare messages."""
    body = _evidence(Op.EQUIVOCATION, place, accused).store_ref(first.to_cell())
    return body.store_ref(second.to_cell()).store_ref(program).end_cell()


def false_amount(
    place: Place, accused: Accused, receipt: Testimony, inner: InnerReceipt, terms: Terms, program: Cell
) -> Cell:
    """Body from anyone: a receipt whose amount is not its usage at its terms."""
    opened = begin_cell().store_ref(inner.to_cell()).store_ref(terms.to_cell()).end_cell()
    body = _evidence(Op.FALSE_AMOUNT, place, accused).store_ref(receipt.to_cell())
    return body.store_ref(opened).store_ref(program).end_cell()


def missed(owner: bytes, index: int, amount_nano: int, reporter: bytes, accused: Accused, program: Cell) -> Cell:
    """Body that a job sends when its node accepted and failed to deliver."""
    body = begin_cell().store_uint(Op.MISSED, 32).store_bytes(owner).store_uint(index, 32).store_coins(amount_nano)
    return body.store_bytes(reporter).store_ref(accused.to_cell()).store_ref(program).end_cell()


@dataclass(frozen=True, slots=True)
class Slash:
    """What the court tells a node. TL-B: slash, Parties."""

    epoch: int
    key: bytes
    penalty_nano: int
    """WHOLE_STAKE, or how much of it."""
    harm_nano: int
    escrow: bytes
    reporter: bytes
    treasury: bytes
    program: Cell

    def to_cell(self) -> Cell:
        body = begin_cell().store_uint(Op.SLASH, 32).store_uint(self.epoch, 64).store_bytes(self.key)
        body.store_coins(self.penalty_nano).store_coins(self.harm_nano).store_bytes(self.escrow)
        parties = begin_cell().store_bytes(self.reporter).store_bytes(self.treasury).end_cell()
        return body.store_ref(parties).store_ref(self.program).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for any other message."""
        s = cell.begin_parse()
        if len(cell.bits) < 32 or s.load_uint(32) != Op.SLASH:
            raise CellError("not a slash")
        epoch, key, penalty, harm = s.load_uint(64), s.load_bytes(32), s.load_coins() or 0, s.load_coins() or 0
        escrow, parties = s.load_bytes(32), s.load_ref().begin_parse()
        return cls(epoch, key, penalty, harm, escrow, parties.load_bytes(32), parties.load_bytes(32), s.load_ref())
