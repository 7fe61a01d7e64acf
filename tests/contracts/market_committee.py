"""The reference of a committee. Read beside docs/adr/0026-committee.md, not beside the FunC: it says the promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

from market_model import BAD_SIGNATURE, LOW_VALUE, NOT_ALLOWED, UNKNOWN_OP, require
from pytoniq_core import Slice

from attestation.onchain.errors import VerifierError
from wrappers.addresses import Kind, child_address
from wrappers.committee import (
    DRAW_SECONDS,
    LEAVE_SECONDS,
    LONGEST_VERDICT_SECONDS,
    MAX_MEMBERS,
    MAX_OLDER_KEYS,
    MAX_REQUESTS,
    CommitteeState,
    CommitteeVerdict,
    Member,
    Question,
    Request,
    Vote,
    slots_of,
)
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import Ask, Presented, Vouched, place_of
from wrappers.errors import ContractError as E
from wrappers.gas import CommitteeGas
from wrappers.ops import Op
from wrappers.signed import verify

NOBODY = bytes(32)
DRAWN_BLOCKS = 200


@dataclass(frozen=True, slots=True)
class Told:
    """One message at the committee, after rent. Amounts nanoTON."""

    sender: bytes
    value: int
    op: int
    body: Slice
    """After the op."""
    whole: object
    """The body's cell."""
    now: int
    blocks: Mapping[int, bytes]
    """Root hashes of the masterchain blocks that the contract sees, by seqno."""
    network: bytes
    fees: CommitteeFees


@dataclass(frozen=True, slots=True)
class Pool:
    """A request's pool, which the state holds as a tree: owners by number."""

    owners: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Committee:
    """CommitteeState with the pools of requests read."""

    state: CommitteeState
    pools: Mapping[bytes, Pool]

    @classmethod
    def of(cls, state: CommitteeState) -> Committee:
        pools = {place: Pool(tuple(slots_of(request.pool))) for place, request in state.requests.items()}
        bare = {place: replace(request, pool=None) for place, request in state.requests.items()}
        return cls(replace(state, requests=bare), pools)

    @property
    def owed_nano(self) -> int:
        """What belongs to others: bonds, and the fees of answers that may still come."""
        terms = self.state.terms
        left = sum(terms.seats - request.yes - request.no for request in self.state.requests.values())
        return sum(member.bond_nano for member in self.state.members.values()) + left * terms.fee_nano

    def numbered(self) -> tuple[bytes, ...]:
        here = {member.slot: owner for owner, member in self.state.members.items() if not member.leaving_at}
        return tuple(here[slot] for slot in range(self.state.size))


@dataclass(frozen=True, slots=True)
class Effect:
    after: Committee
    kept: int
    """By which the balance grows (below 0: falls)."""
    paid: tuple[tuple[bytes, int], ...] = ()
    """Fixed amounts that leave, and to whom. What is left of the message goes to `rest_to`."""
    rest_to: bytes | None = None
    vouched: bytes | None = None
    """Hash of what attestation is told."""


def step(c: Committee, a: Told, gas_fee: int) -> Effect:
    actions = {
        Op.PRESENTED: _presented,
        Op.LEAVE: _leave,
        Op.WITHDRAW_BOND: _withdraw,
        Op.ASK: _ask,
        Op.DRAW: _draw,
        Op.ANSWER: _answer,
        Op.CONCLUDE: _conclude,
        Op.CONTRADICTION: _contradiction,
    }
    require(a.op in actions, UNKNOWN_OP)
    effect = actions[Op(a.op)](c, a)
    return replace(effect, kept=a.value - gas_fee) if effect.rest_to is None else effect


def _with(c: Committee, **changes: object) -> Committee:
    return replace(c, state=replace(c.state, **changes))  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------ members


def _member(c: Committee, owner: bytes) -> Member:
    require(owner in c.state.members, E.NO_VERIFIER)
    return c.state.members[owner]


def _put(c: Committee, owner: bytes, member: Member) -> Committee:
    return _with(c, members={**c.state.members, owner: member})


def _presented(c: Committee, a: Told) -> Effect:
    s, terms = a.body, c.state.terms
    head = s.load_bytes(32), s.load_uint(32), s.load_bytes(32), s.load_uint(8), s.load_uint(32)
    more = s.load_ref().begin_parse()
    said = Presented(*head, more.load_bytes(32), more.load_bytes(32))
    own = child_address(terms.registry, Kind.NODE, said.owner, said.index)
    require(a.sender == own, E.NOT_GENUINE)
    require(said.tier in (0, 1, 2) and said.attested_until > a.now, E.NOT_VERIFIED)  # 0: this is not mainnet
    member = c.state.members.get(said.owner)
    if member is not None:
        require(a.value >= a.fees.presented(), LOW_VALUE)
        require(member.node == a.sender and not member.leaving_at, E.OWNER_TAKEN)
        member = _with_key(member, said.key, a.now)
        member = replace(member, attested_until=said.attested_until, payout=said.payout)
        return Effect(_put(c, said.owner, member), 0, rest_to=said.payout)
    require(said.platform not in c.state.platforms, E.OWNER_TAKEN)
    require(c.state.size < MAX_MEMBERS, E.COMMITTEE_FULL)
    bond = a.value - a.fees.prices.gas(CommitteeGas.PRESENTED) - a.fees.member_rent()
    require(bond >= terms.bond_nano, LOW_VALUE)
    member = Member(
        own, said.key, said.attested_until, c.state.size, 0, bond, NOBODY, said.platform, said.payout
    )  # fmt: skip
    after = _put(c, said.owner, member)
    return Effect(_with(after, size=c.state.size + 1, platforms=c.state.platforms | {said.platform}), 0)


def _with_key(member: Member, key: bytes, now: int) -> Member:
    if key == member.key:
        return member
    older = member.older_keys
    if member.previous_key != NOBODY:
        older = {old: since for old, since in older.items() if now < since + LEAVE_SECONDS}
        require(len(older) < MAX_OLDER_KEYS, E.KEY_CHANGES)
        older = {**older, member.previous_key: now}
    return replace(member, key=key, previous_key=member.key, older_keys=older)


def _retired(c: Committee, owner: bytes, now: int) -> Committee:
    member = c.state.members[owner]
    last = c.numbered()[-1]
    c = _put(c, owner, replace(member, leaving_at=now))
    if last != owner:
        c = _put(c, last, replace(c.state.members[last], slot=member.slot))
    return _with(c, size=c.state.size - 1)


def _leave(c: Committee, a: Told) -> Effect:
    require(a.value >= a.fees.leave(), LOW_VALUE)
    owner = a.body.load_bytes(32)
    member = _member(c, owner)
    require(not member.leaving_at, E.LEAVING)
    require(a.sender in (owner, member.payout) or member.attested_until <= a.now, NOT_ALLOWED)
    return Effect(_retired(c, owner, a.now), 0, rest_to=a.sender)


def _withdraw(c: Committee, a: Told) -> Effect:
    require(a.value >= a.fees.withdraw_bond(), LOW_VALUE)
    owner = a.body.load_bytes(32)
    member = _member(c, owner)
    due = member.leaving_at and a.now >= member.leaving_at + LEAVE_SECONDS
    require(bool(due) and member.bond_nano > 0, E.BOND_LOCKED)
    members = {other: known for other, known in c.state.members.items() if other != owner}
    after = _with(c, members=members, platforms=c.state.platforms - {member.platform})
    return Effect(after, -member.bond_nano, ((member.payout, member.bond_nano),), a.sender)


def _contradiction(c: Committee, a: Told) -> Effect:
    require(a.value >= a.fees.contradiction(), LOW_VALUE)
    owner, question, key = a.body.load_bytes(32), a.body.load_bytes(32), a.body.load_bytes(32)
    yes, no = (a.body.load_ref().begin_parse().load_bytes(64) for _ in range(2))
    member = _member(c, owner)
    require(member.bond_nano > 0, E.NO_VERIFIER)
    require(key in (member.key, member.previous_key, *member.older_keys) and key != NOBODY, BAD_SIGNATURE)
    lied = verify(CommitteeVerdict(question, True), yes, key) and verify(CommitteeVerdict(question, False), no, key)
    require(lied, BAD_SIGNATURE)
    after = c if member.leaving_at else _retired(c, owner, a.now)
    after = _put(after, owner, replace(after.state.members[owner], bond_nano=0))
    reward = member.bond_nano // 10
    return Effect(after, -member.bond_nano, ((c.state.terms.treasury, member.bond_nano - reward),), a.sender)


# ------------------------------------------------------------------------------------------------ requests


def _request(c: Committee, place: bytes) -> Request:
    require(place in c.state.requests, E.NO_REQUEST)
    return c.state.requests[place]


def _saved(c: Committee, place: bytes, request: Request, pool: Pool) -> Committee:
    after = _with(c, requests={**c.state.requests, place: request})
    return replace(after, pools={**c.pools, place: pool})


def _ask(c: Committee, a: Told) -> Effect:
    terms = c.state.terms
    require(a.value >= a.fees.ask(), LOW_VALUE)
    asked = Ask.from_cell(a.whole)  # type: ignore[arg-type]
    require(a.now < asked.attested_until <= a.now + LONGEST_VERDICT_SECONDS, E.WRONG_QUESTION)
    require(c.state.size >= terms.seats, E.FEW_VERIFIERS)
    require(len(c.state.requests) < MAX_REQUESTS, E.TOO_MANY_REQUESTS)
    own = child_address(terms.registry, Kind.NODE, a.sender, asked.index) == asked.node
    place = place_of(asked.node, own=own)
    require(place not in c.state.requests, E.ASKED_ALREADY)
    require(asked.block_seqno in a.blocks, VerifierError.OLD_BLOCK)
    question = Question(
        a.network, asked.node, asked.epoch, asked.key, asked.attested_until, asked.measurement, asked.platform,
        bytes(asked.evidence.hash), bytes(asked.collateral.hash), terms.policy, a.now, asked.block_seqno,
        a.blocks[asked.block_seqno],
    )  # fmt: skip
    draw_at = max(a.blocks) + DRAWN_BLOCKS
    request = Request(
        draw_at, a.now + DRAW_SECONDS, 0, 0, a.sender, c.state.size, None, {}, question, asked.consent
    )  # fmt: skip
    kept = terms.seats * terms.fee_nano + a.fees.request_rent()
    return Effect(_saved(c, place, request, Pool(c.numbered())), kept, rest_to=a.sender)


def _draw(c: Committee, a: Told) -> Effect:
    require(a.value >= a.fees.draw(), LOW_VALUE)
    place = a.body.load_bytes(32)
    request = _request(c, place)
    require(not request.drawn, E.DRAWN_ALREADY)
    require(a.now <= request.deadline, E.REQUEST_OVER)
    require(request.draw_at in a.blocks, VerifierError.OLD_BLOCK)
    pool, seats = list(c.pools[place].owners), {}
    seed = a.blocks[request.draw_at] + request.question.hash
    for left in range(request.count, request.count - c.state.terms.seats, -1):
        chosen = int.from_bytes(sha256(seed + bytes([left])).digest(), "big") % left
        seats[pool[chosen]] = Vote.NONE
        pool[chosen] = pool[left - 1]
    after = replace(request, count=0, seats=seats, deadline=a.now + c.state.terms.window)
    return Effect(_saved(c, place, after, Pool(())), 0, rest_to=a.sender)


def _answer(c: Committee, a: Told) -> Effect:
    terms = c.state.terms
    require(a.value >= a.fees.answer(), LOW_VALUE)
    place, owner, yes = a.body.load_bytes(32), a.body.load_bytes(32), bool(a.body.load_bit())
    signature = a.body.load_ref().begin_parse().load_bytes(64)
    request = _request(c, place)
    require(a.now <= request.deadline, E.REQUEST_OVER)
    require(owner in request.seats, E.NOT_DRAWN)
    before = request.seats[owner]
    require(before is Vote.NONE or (before is Vote.YES and not yes), E.ANSWERED_ALREADY)
    member = _member(c, owner)
    serves = member.bond_nano > 0 and member.attested_until > a.now
    require(before is Vote.YES or serves, E.NOT_VERIFIED)
    signed = CommitteeVerdict(request.question.hash, yes)
    keys = [key for key in (member.key, member.previous_key) if key != NOBODY]
    require(any(verify(signed, signature, key) for key in keys), BAD_SIGNATURE)
    votes = {**request.seats, owner: Vote.YES if yes else Vote.NO}
    counts = [list(votes.values()).count(vote) for vote in (Vote.YES, Vote.NO)]
    after = replace(request, seats=votes, yes=counts[0], no=counts[1])
    if yes and counts[0] == terms.quorum:
        after = replace(after, deadline=a.now + terms.window)
    paid = ((member.payout, terms.fee_nano),) if before is Vote.NONE else ()
    return Effect(_saved(c, place, after, Pool(())), -sum(amount for _, amount in paid), paid, a.sender)


def _conclude(c: Committee, a: Told) -> Effect:
    terms, place = c.state.terms, a.body.load_bytes(32)
    request = _request(c, place)
    require(a.now > request.deadline, E.NOT_DUE)
    question = request.question
    admitted = request.yes >= terms.quorum and not request.no and question.attested_until > a.now
    require(a.value >= a.fees.conclude(admitted=admitted), LOW_VALUE)
    requests = {other: known for other, known in c.state.requests.items() if other != place}
    pools = {other: pool for other, pool in c.pools.items() if other != place}
    after = replace(_with(c, requests=requests), pools=pools)
    rest = (terms.seats - request.yes - request.no) * terms.fee_nano
    paid = ((request.payer if request.drawn else terms.treasury, rest),) if rest > a.fees.prices.forward(0, 0) else ()
    told = Vouched(
        question.node, question.epoch, question.key, question.attested_until, question.block_seqno,
        question.measurement, question.platform, request.consent,
    )  # fmt: skip
    amount = sum(each for _, each in paid)
    if admitted:
        return Effect(after, -amount, paid, terms.attestation, bytes(told.to_cell().hash))
    return Effect(after, -amount, paid, a.sender)
