"""The committee: its state, questions and answers, its messages. Amounts nanoTON, times unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from pytoniq_core import Cell, HashMap, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import load_ids
from wrappers.ops import Op, Tag

LEAVE_SECONDS = 1_209_600
DRAW_SECONDS = 10_800
LONGEST_VERDICT_SECONDS = 604_800
MAX_MEMBERS = 64
MAX_REQUESTS = 32
MAX_DOCUMENT_BYTES = 48 * 1024
"""In cells of 127 bytes: no message may be deeper than 512 cells."""
_PIECE_BYTES = 127


def document_cell(data: bytes) -> Cell:
    """Bytes as a chain of cells, how evidence and collateral travel in `ask`. Its hash names them."""
    pieces = [data[at : at + _PIECE_BYTES] for at in range(0, len(data), _PIECE_BYTES)] or [b""]
    cell: Cell | None = None
    for piece in reversed(pieces):
        builder = begin_cell().store_bytes(piece)
        cell = builder.store_ref(cell).end_cell() if cell is not None else builder.end_cell()
    assert cell is not None
    return cell


def document_bytes(cell: Cell) -> bytes:
    """The bytes of such a chain. Raises CellError for any other cell, and above MAX_DOCUMENT_BYTES."""
    parts: list[bytes] = []
    total = 0
    next_: Cell | None = cell
    while next_ is not None:
        if next_.type_ != -1 or len(next_.bits) % 8 or len(next_.refs) > 1 or (next_.refs and not len(next_.bits)):
            raise CellError("not a chain of bytes")
        part = next_.begin_parse().load_bytes(len(next_.bits) // 8)
        total += len(part)
        if total > MAX_DOCUMENT_BYTES:
            raise CellError(f"a document of more than {MAX_DOCUMENT_BYTES} bytes")
        parts.append(part)
        next_ = next_.refs[0] if next_.refs else None
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class CommitteeTerms:
    """Fixed at genesis. TL-B: CommitteeTerms, CommitteeMore."""

    registry: bytes
    stub_prefix: bytes
    """`RegistryState.stub_prefix` (39 bytes)."""
    policy: bytes
    """SHA-256 of the policy document that members judge by."""
    seats: int
    quorum: int
    window: int
    """Seconds: to reach the quorum after the draw, and to contradict it after that."""
    attestation: bytes
    treasury: bytes
    bond_nano: int
    fee_nano: int
    """For each answer."""

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.attestation).store_bytes(self.treasury).store_coins(self.bond_nano)
        cell = begin_cell().store_bytes(self.registry).store_bytes(self.stub_prefix).store_bytes(self.policy)
        cell.store_uint(self.seats, 8).store_uint(self.quorum, 8).store_uint(self.window, 32)
        return cell.store_ref(more.store_coins(self.fee_nano).end_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        head = s.load_bytes(32), s.load_bytes(39), s.load_bytes(32), s.load_uint(8), s.load_uint(8), s.load_uint(32)
        more = s.load_ref().begin_parse()
        return cls(*head, more.load_bytes(32), more.load_bytes(32), more.load_coins() or 0, more.load_coins() or 0)


@dataclass(frozen=True, slots=True)
class Question:
    """All that an answer follows from, so that two honest members never disagree. TL-B: Question."""

    network: bytes
    node: bytes
    """Account of the node."""
    epoch: int
    key: bytes
    attested_until: int
    measurement: bytes
    platform: bytes
    evidence: bytes
    """Hash of the evidence's `document_cell`."""
    collateral: bytes
    """Hash of the collateral's `document_cell`."""
    policy: bytes
    asked_at: int
    """The time to judge at."""
    block_seqno: int
    block_root_hash: bytes
    """Of the masterchain block that the evidence binds, as the contract saw it."""

    def to_cell(self) -> Cell:
        hashes = begin_cell().store_bytes(self.evidence).store_bytes(self.collateral).store_bytes(self.policy)
        moment = begin_cell().store_uint(self.asked_at, 32).store_uint(self.block_seqno, 32)
        cell = begin_cell().store_uint(Tag.QUESTION, 32).store_bytes(self.network).store_bytes(self.node)
        cell.store_uint(self.epoch, 64).store_bytes(self.key).store_uint(self.attested_until, 32)
        cell.store_ref(_identity(self.measurement, self.platform)).store_ref(hashes.end_cell())
        return cell.store_ref(moment.store_bytes(self.block_root_hash).end_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError."""
        s = cell.begin_parse()
        if len(cell.bits) != 896 or len(cell.refs) != 3 or s.load_uint(32) != Tag.QUESTION:
            raise CellError("not a question")
        head = s.load_bytes(32), s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_uint(32)
        parts = [s.load_ref() for _ in range(3)]
        if [len(part.bits) for part in parts] != [512, 768, 320] or any(part.refs for part in parts):
            raise CellError("not a question")
        identity, hashes, moment = (part.begin_parse() for part in parts)
        measurement, platform = identity.load_bytes(32), identity.load_bytes(32)
        named = hashes.load_bytes(32), hashes.load_bytes(32), hashes.load_bytes(32)
        when = moment.load_uint(32), moment.load_uint(32), moment.load_bytes(32)
        return cls(*head, measurement, platform, *named, *when)

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class CommitteeVerdict:
    """A member's word on a question, under its enclave's key. TL-B: CommitteeVerdict."""

    question: bytes
    """Hash of the question."""
    accepted: bool

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.COMMITTEE_VERDICT, 32).store_bytes(self.question)
        return cell.store_uint(int(self.accepted), 8).end_cell()


def _identity(measurement: bytes, platform: bytes) -> Cell:
    return begin_cell().store_bytes(measurement).store_bytes(platform).end_cell()


# ---------------------------------------------------------------------------------------------------- state


class Vote(IntEnum):
    """Of one seat."""

    NONE = 0
    YES = 1
    NO = 2


@dataclass(frozen=True, slots=True)
class Member:
    """TL-B: Member, MemberMore."""

    node: bytes
    key: bytes
    attested_until: int
    slot: int
    """Its number in the draw; without meaning once it is leaving."""
    leaving_at: int
    """0: it is not."""
    bond_nano: int
    """0: slashed."""
    previous_key: bytes
    platform: bytes
    payout: bytes

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        head = s.load_bytes(32), s.load_bytes(32), s.load_uint(32), s.load_uint(8), s.load_uint(32), s.load_coins() or 0
        more = s.load_ref().begin_parse()
        return cls(*head, more.load_bytes(32), more.load_bytes(32), more.load_bytes(32))


@dataclass(frozen=True, slots=True)
class Request:
    """TL-B: Request."""

    draw_at: int
    """Seqno of the masterchain block whose root hash draws."""
    deadline: int
    """Last second to be drawn; then to reach the quorum; then to contradict it."""
    yes: int
    no: int
    payer: bytes
    count: int
    """Members to draw from; 0: drawn."""
    pool: Cell | None
    seats: Mapping[bytes, Vote]
    """By owner."""
    question: Question
    consent: bytes | None

    @property
    def drawn(self) -> bool:
        return self.count == 0

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        head = s.load_uint(32), s.load_uint(32), s.load_uint(8), s.load_uint(8), s.load_bytes(32), s.load_uint(8)
        pool = s.load_maybe_ref()
        seats = load_ids(s, lambda value: Vote(value.load_uint(2)))
        question, consent = Question.from_cell(s.load_ref()), s.load_maybe_ref()
        return cls(*head, pool, seats, question, consent.begin_parse().load_bytes(64) if consent is not None else None)


@dataclass(frozen=True, slots=True)
class CommitteeState:
    """TL-B: CommitteeState, CommitteePool."""

    terms: CommitteeTerms
    requests: Mapping[bytes, Request]
    """By node."""
    members: Mapping[bytes, Member]
    """By owner; those who are leaving too."""
    platforms: frozenset[bytes]
    size: int
    """Members that can be drawn."""

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError, for a committee before its genesis too."""
        try:
            s = cell.begin_parse()
            open_, terms = s.load_uint(8), CommitteeTerms.from_cell(s.load_ref())
            requests = load_ids(s, Request.from_slice)
            pool = s.load_ref().begin_parse()
            size, slots = pool.load_uint(8), pool.load_maybe_ref()
            members = load_ids(pool, Member.from_slice)
            platforms = load_ids(pool, lambda _: None)
        except CellError:
            raise
        except Exception as error:  # pytoniq-core raises bare exceptions past the end of a cell
            raise CellError(f"not a committee's state: {error}") from error
        if open_ != len(requests) or (slots is None) != (size == 0):
            raise CellError("not a committee's state")
        return cls(terms, requests, members, frozenset(platforms), size)


def slots_of(pool: Cell | None) -> list[bytes]:
    """Owners by number. TL-B: HashmapE 8 bits256."""
    if pool is None:
        return []
    found = HashMap.parse(pool.begin_parse(), 8, value_deserializer=lambda s: s.load_bytes(32)) or {}
    return [found[key] for key in sorted(found)]


# ---------------------------------------------------------------------------------------------------- messages


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

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Op.ASK, 32).store_bytes(self.node).store_uint(self.epoch, 64)
        cell.store_bytes(self.key).store_uint(self.attested_until, 32).store_uint(self.block_seqno, 32)
        cell.store_ref(_identity(self.measurement, self.platform)).store_ref(self.evidence).store_ref(self.collateral)
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
        if len(cell.bits) != 673 or len(cell.refs) < 3 or s.load_uint(32) != Op.ASK:
            raise CellError("not a request to a committee")
        head = s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_uint(32), s.load_uint(32)
        identity = s.load_ref().begin_parse()
        consent: Cell | None
        evidence, collateral, consent = s.load_ref(), s.load_ref(), s.load_maybe_ref()
        signature = consent.begin_parse().load_bytes(64) if consent is not None else None
        return cls(*head, identity.load_bytes(32), identity.load_bytes(32), evidence, collateral, signature)


def _signature(signature: bytes) -> Cell:
    return begin_cell().store_bytes(signature).end_cell()


def _about(op: Op, account: bytes) -> Cell:
    return begin_cell().store_uint(op, 32).store_bytes(account).end_cell()


def draw(node: bytes) -> Cell:
    """Body from anyone, once the block `Request.draw_at` is there."""
    return _about(Op.DRAW, node)


def answer(node: bytes, owner: bytes, accepted: bool, signature: bytes) -> Cell:
    """Body from anyone, with a drawn member's signature over its CommitteeVerdict."""
    cell = begin_cell().store_uint(Op.ANSWER, 32).store_bytes(node).store_bytes(owner).store_bit(int(accepted))
    return cell.store_ref(_signature(signature)).end_cell()


def conclude(node: bytes) -> Cell:
    """Body from anyone, after `Request.deadline`."""
    return _about(Op.CONCLUDE, node)


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
        cell = begin_cell().store_uint(Op.VOUCHED, 32).store_bytes(self.node).store_uint(self.epoch, 64)
        cell.store_bytes(self.key).store_uint(self.attested_until, 32).store_uint(self.block_seqno, 32)
        cell.store_ref(_identity(self.measurement, self.platform))
        return cell.store_maybe_ref(_signature(self.consent) if self.consent is not None else None).end_cell()
