"""The committee: its terms and state, and the question its members judge. Amounts nanoTON, times unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from pytoniq_core import Cell, HashMap, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import load_ids
from wrappers.ops import Tag
from wrappers.verdicts import identity_cell

LEAVE_SECONDS = 1_209_600
DRAW_SECONDS = 10_800
LONGEST_VERDICT_SECONDS = 604_800
LEAST_FEE_NANO = 10_000_000
LEAST_BOND_NANO = 1_000_000_000
MAX_OLDER_KEYS = 14
MAX_MEMBERS = 64
MAX_KNOWN_MEMBERS = 4096
"""With those who are leaving and those who lost their bond, whom the contract does not count."""
MAX_REQUESTS = 32


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
        cell.store_ref(identity_cell(self.measurement, self.platform)).store_ref(hashes.end_cell())
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
    older_keys: Mapping[bytes, int] = field(default_factory=dict)
    """Those that only convict any more, and when each stopped to answer."""

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        head = s.load_bytes(32), s.load_bytes(32), s.load_uint(32), s.load_uint(8), s.load_uint(32), s.load_coins() or 0
        more = s.load_ref().begin_parse()
        named = more.load_bytes(32), more.load_bytes(32), more.load_bytes(32)
        return cls(*head, *named, load_ids(more, lambda value: value.load_uint(32)))


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
    """By place: `committee_messages.place_of`."""
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
            members = load_ids(pool, Member.from_slice, MAX_KNOWN_MEMBERS)
            platforms = load_ids(pool, lambda _: None, MAX_KNOWN_MEMBERS)
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
