"""What is sent to a committee, and what it tells the verifier. Times unix seconds."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from pytoniq_core import Builder, Cell, begin_cell

from wrappers.cells import CellError
from wrappers.ops import Op
from wrappers.verdicts import identity_cell


@dataclass(frozen=True, slots=True)
class Presented:
    """What a node tells a committee of itself. TL-B: presented, PresentedMore."""

    owner: bytes
    index: int
    key: bytes
    tier: int
    attested_until: int
    platform: bytes
    payout: bytes

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.platform).store_bytes(self.payout).end_cell()
        cell = begin_cell().store_uint(Op.PRESENTED, 32).store_bytes(self.owner).store_uint(self.index, 32)
        cell.store_bytes(self.key).store_uint(self.tier, 8).store_uint(self.attested_until, 32)
        return cell.store_ref(more).end_cell()


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with all that members judge. TL-B: ask."""

    node: bytes
    epoch: int
    key: bytes
    attested_until: int
    block_seqno: int
    measurement: bytes
    platform: bytes
    evidence: Cell
    """`document_cell` of the evidence's JSON."""
    collateral: Cell
    consent: bytes | None = None
    """Of the node's release key, where the node serves with another key now."""
    index: int = 0
    """Of the node among those of its owner. Where the owner asks, this gets the node's own place (`place_of`)."""

    def to_cell(self) -> Cell:
        cell = _claimed(Op.ASK, self).store_uint(self.index, 32).store_ref(self.evidence).store_ref(self.collateral)
        return cell.store_maybe_ref(_signature(self.consent) if self.consent is not None else None).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for any other message: anybody may send the committee anything."""
        try:
            return cls._from_cell(cell)
        except CellError:
            raise
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a request to a committee: {error}") from error

    @classmethod
    def _from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        if len(cell.bits) != 705 or len(cell.refs) < 3 or s.load_uint(32) != Op.ASK:
            raise CellError("not a request to a committee")
        head = s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_uint(32), s.load_uint(32)
        index, identity = s.load_uint(32), s.load_ref().begin_parse()
        consent: Cell | None
        evidence, collateral, consent = s.load_ref(), s.load_ref(), s.load_maybe_ref()
        signature = consent.begin_parse().load_bytes(64) if consent is not None else None
        return cls(*head, identity.load_bytes(32), identity.load_bytes(32), evidence, collateral, signature, index)


def _claimed(op: Op, about: Ask | Vouched) -> Builder:
    """What is asked, and in the end vouched for, of a node."""
    cell = begin_cell().store_uint(op, 32).store_bytes(about.node).store_uint(about.epoch, 64)
    cell.store_bytes(about.key).store_uint(about.attested_until, 32).store_uint(about.block_seqno, 32)
    return cell.store_ref(identity_cell(about.measurement, about.platform))


def _signature(signature: bytes) -> Cell:
    return begin_cell().store_bytes(signature).end_cell()


def _about(op: Op, account: bytes) -> Cell:
    return begin_cell().store_uint(op, 32).store_bytes(account).end_cell()


def place_of(node: bytes, *, own: bool) -> bytes:
    """Where a request about `node` stands: `own`, that of its owner; else the one that all others share."""
    return node if own else sha256(node).digest()


def draw(place: bytes) -> Cell:
    """Body from anyone, once the block `Request.draw_at` is there."""
    return _about(Op.DRAW, place)


def answer(place: bytes, owner: bytes, accepted: bool, signature: bytes) -> Cell:
    """Body from anyone, with a drawn member's signature over its CommitteeVerdict."""
    cell = begin_cell().store_uint(Op.ANSWER, 32).store_bytes(place).store_bytes(owner).store_bit(int(accepted))
    return cell.store_ref(_signature(signature)).end_cell()


def conclude(place: bytes) -> Cell:
    """Body from anyone, after `Request.deadline`."""
    return _about(Op.CONCLUDE, place)


def leave(owner: bytes) -> Cell:
    """Body from the owner or the payout address; from anyone when the member's verdict has ended."""
    return _about(Op.LEAVE, owner)


def withdraw_bond(owner: bytes) -> Cell:
    """Body from anyone, LEAVE_SECONDS after leaving."""
    return _about(Op.WITHDRAW_BOND, owner)


def contradiction(owner: bytes, question: bytes, key: bytes, yes: bytes, no: bytes) -> Cell:
    """Body from anyone: `key`'s signatures over both verdicts on one question."""
    cell = begin_cell().store_uint(Op.CONTRADICTION, 32).store_bytes(owner).store_bytes(question).store_bytes(key)
    return cell.store_ref(_signature(yes)).store_ref(_signature(no)).end_cell()


@dataclass(frozen=True, slots=True)
class Vouched:
    """What a committee tells the verifier. TL-B: vouched."""

    node: bytes
    epoch: int
    key: bytes
    attested_until: int
    block_seqno: int
    measurement: bytes
    platform: bytes
    consent: bytes | None = None

    def to_cell(self) -> Cell:
        signature = _signature(self.consent) if self.consent is not None else None
        return _claimed(Op.VOUCHED, self).store_maybe_ref(signature).end_cell()
