"""Any order of all messages of a committee, by members, askers, liars, through other prices and weeks: G1 to G4.

Every transaction is held to market_committee.py: same state, same balance to the nanoTON, same payments, same refusals.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random
from typing import Any, TypeVar

import pytest
from committee_stage import Stage, Verifier
from market_committee import Committee, Effect, Told, step
from market_model import Refusal, Rent
from market_prices import CHOICES, TODAY, Factors, set_prices
from pytoniq_core import Cell, begin_cell

from attestation.onchain.errors import VerifierError
from chain.api import Transaction
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, account_of_name, key_of, public
from wrappers import committee_messages
from wrappers.addresses import Kind, child_address
from wrappers.committee import LEAVE_SECONDS, MAX_OLDER_KEYS, CommitteeVerdict, Vote
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import place_of
from wrappers.documents import document_cell
from wrappers.errors import ContractError as E
from wrappers.ops import Op
from wrappers.prices import Prices
from wrappers.signed import sign

LIVES = int(os.environ.get("COMMITTEE_LIVES", "17"))
STEPS = 50
MEMBERS = 9
KEYS = MAX_OLDER_KEYS + 6
THIEF = account_of_name("thief")
PAPERS = document_cell(b"evidence")
NEED, LESS, RICH = "need", "less", "rich"
VALUES = [NEED, NEED, NEED, RICH, LESS]
HONEST = [True, True, True, True, False]
NO_GAS, NOT_PARSED = -14, 9
Act = TypeVar("Act", bound=Callable[..., None])
ACTIONS: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {}
SEEN: Counter[tuple[str, int | None]] = Counter()
"""Messages by exit code; taken: 0."""
ADMITTED: Counter[bool] = Counter()
"""Requests that were concluded, by whether the verifier was told."""
CODES = {
    "presented": (E.NOT_GENUINE, E.NOT_VERIFIED, E.OWNER_TAKEN, E.KEY_CHANGES, E.LOW_VALUE),
    "leave": (E.LEAVING, E.NOT_ALLOWED, E.NO_VERIFIER, E.LOW_VALUE),
    "withdraw_bond": (E.BOND_LOCKED, E.NO_VERIFIER, E.LOW_VALUE),
    "ask": (E.WRONG_QUESTION, E.FEW_VERIFIERS, E.ASKED_ALREADY, VerifierError.OLD_BLOCK, E.LOW_VALUE),
    "draw": (E.NO_REQUEST, E.DRAWN_ALREADY, E.REQUEST_OVER, VerifierError.OLD_BLOCK, E.LOW_VALUE),
    "answer": (
        E.NO_REQUEST, E.REQUEST_OVER, E.NOT_DRAWN, E.ANSWERED_ALREADY, E.NOT_VERIFIED, E.BAD_SIGNATURE, E.LOW_VALUE,
    ),
    "conclude": (E.NO_REQUEST, E.NOT_DUE, E.LOW_VALUE),
    "contradiction": (E.NO_VERIFIER, E.BAD_SIGNATURE, E.LOW_VALUE),
}  # fmt: skip
"""What each message must have been refused with. Not reached: a full committee, as many requests as there may be."""


def action(weight: int, **choices: Sequence[Any]) -> Callable[[Act], Act]:
    def register(method: Act) -> Act:
        ACTIONS[method.__name__] = weight, choices
        return method

    return register


@cache
def _verifier(registry: bytes, index: int, key: int) -> Verifier:
    owner = account_of_name(f"owner {index}")
    return Verifier(
        owner,
        child_address(registry, Kind.NODE, owner, 0),
        key_of(f"verifier {index} {key}"),
        account_of_name(f"platform {index}"),
        account_of_name(f"payout {index}"),
    )


@cache
def _keys(index: int) -> list[bytes]:
    return [public(key_of(f"verifier {index} {key}")) for key in range(KEYS)]


@dataclass
class Books:
    """What may happen once only, written down from the messages that left, without the reference."""

    bonds: dict[bytes, int] = field(default_factory=dict)
    """That came in with members and have not left."""
    paid_answers: set[tuple[bytes, bytes, bytes]] = field(default_factory=set)
    """Question, place, owner."""


class Life:
    """One committee from its genesis to the last exit."""

    def __init__(self, number: int) -> None:
        self.rng = Random(number)
        self.stage = Stage()
        assert not self.stage.genesis().failed
        self.now = Committee.of(self.stage.state)
        self.balance = self.stage.ledger.balance(self.stage.account)
        self.books, self.rent_paid = Books(), 0
        self.sent: list[tuple[bytes, int, Cell]] = []
        self.steps: list[str] = []
        self.prices(TODAY)
        for index in range(self.stage.seats + 1):
            self.present(index, 0, 1, 90 * DAY, True, True, RICH)

    # -------------------------------------------------------------------------------------------- the chain

    def tell(self, sender: bytes, body: Cell, need: int, how: str, *, bounced: bool = False) -> None:
        value = {NEED: need, LESS: max(need - 1, 1), RICH: need + TON}[how]
        self.sent.append((sender, value, body))
        self.send(sender, body, value, bounced=bounced)

    def send(self, sender: bytes, body: Cell | None, value: int, *, bounced: bool = False) -> None:
        stage = self.stage
        trace = stage.ledger.send_internal(
            source=sender, destination=stage.account, value_nano=value, body=body, bounced=bounced
        )
        self.check(trace)

    def check(self, trace: Trace) -> None:
        assert trace.total_fees_nano == trace.balance_delta_nano, "G2"
        for tx in trace.of(self.stage.account):
            self.follow(tx)
        seen = Committee.of(self.stage.state)
        assert seen == self.now, f"the reference says\n{self.now}\nthe chain\n{seen}"
        balance = self.stage.ledger.balance(self.stage.account)
        assert balance == self.balance, f"G1: balance off by {balance - self.balance}"
        assert balance + self.rent_paid >= self.now.owed_nano, "G1: bonds and fees are there, but for what rent took"
        assert sum(self.books.bonds.values()) == sum(m.bond_nano for m in self.now.state.members.values()), "G4: bonds"

    def follow(self, tx: Transaction) -> None:
        message, rent = tx.in_msg, Rent.of(tx)
        assert message is not None
        base, value = rent.split(self.balance, message.value_nano)
        self.rent_paid += rent.collected
        gas_fee = self.fees.prices.gas(tx.gas_used) if tx.exit_code is not None else 0
        plain = message.bounced or len(message.body.bits) < 32 or message.body.begin_parse().load_uint(32) == 0
        passed = tx.exit_code in (0, 1) and tx.action_code in (None, 0) and not tx.aborted
        if plain:
            assert passed or tx.exit_code in (NO_GAS, None), "money always stays"
            self.balance = base + value - gas_fee
            return
        s = message.body.begin_parse()
        op, sender = s.load_uint(32), message.source or b""
        blocks = {block.seqno: block.root_hash for block in self.stage.ledger.prev_blocks.hundreds}
        told = Told(sender, value, op, s, message.body, tx.now, blocks, self.stage.network, self.fees)
        effect: Effect | None = None
        code: int | None = None
        try:
            effect = step(self.now, told, gas_fee)
        except Refusal as refusal:
            code = int(refusal.code)
        name = Op(op).name.lower() if op in set(Op) else "unknown"
        SEEN[name, 0 if passed else tx.exit_code] += 1
        if not passed:
            short = tx.exit_code in (None, NO_GAS, NOT_PARSED)
            assert short or effect is None, f"{name}: refused with {tx.exit_code}, the reference takes it"
            assert short or code == tx.exit_code, f"{name}: refused with {tx.exit_code}, the reference says {code}"
            returned = any(out.bounced for out in tx.out_msgs)
            self.balance = base if returned else base + value - gas_fee
            return
        assert effect is not None, f"{name}: taken, the reference refuses with {code}"
        if op == Op.CONCLUDE:
            ADMITTED[effect.vouched is not None] += 1
        self.paid(effect, tx)
        self.written(name, tx, effect)
        self.now = effect.after
        self.balance = base + effect.kept

    def paid(self, effect: Effect, tx: Transaction) -> None:
        way = self.fees.prices.forward(0, 0)
        told = [(out.destination, out.value_nano) for out in tx.out_msgs]
        expected = [(account, amount - way) for account, amount in effect.paid]
        if effect.rest_to is not None:
            assert told and told[-1][0] == effect.rest_to, "the rest goes to who sent it, or on"
            told = told[:-1]
        assert told == expected, "G4: what leaves, and to whom"
        if effect.vouched is not None:
            assert bytes(tx.out_msgs[-1].body.hash) == effect.vouched

    def written(self, name: str, tx: Transaction, effect: Effect) -> None:
        members, after = self.now.state.members, effect.after.state.members
        for owner in after.keys() - members.keys():
            assert owner not in self.books.bonds, "G4: a bond of its own for each member"
            self.books.bonds[owner] = after[owner].bond_nano
        for owner, member in members.items():
            gone = owner not in after or (member.bond_nano and not after[owner].bond_nano)
            if gone:
                left = self.books.bonds.pop(owner)
                assert left == member.bond_nano, "G4: a bond leaves once, whole"
        if name == "answer" and effect.paid:
            assert tx.in_msg is not None
            s = tx.in_msg.body.begin_parse()
            s.load_uint(32)
            place, owner = s.load_bytes(32), s.load_bytes(32)
            once = self.now.state.requests[place].question.hash, place, owner
            assert once not in self.books.paid_answers, "G4: an answer is paid once"
            self.books.paid_answers.add(once)

    # -------------------------------------------------------------------------------------------- members

    def who(self, index: int, key: int = 0) -> Verifier:
        return _verifier(self.stage.registry, index, key)

    def key_index(self, index: int, key: bytes) -> int:
        return _keys(index).index(key)

    @action(
        6,
        index=range(MEMBERS),
        key=range(KEYS),
        tier=[0, 1, 1, 2, 3],
        lasts=[90 * DAY, 90 * DAY, 90 * DAY, 3 * HOUR, 0],
        own=HONEST,
        honest=HONEST,
        how=VALUES,
    )
    def present(self, index: int, key: int, tier: int, lasts: int, own: bool, honest: bool, how: str) -> None:
        who = self.who(index, key)
        told = self.stage.presented(who, tier=tier, attested_until=self.stage.ledger.now + lasts)
        if not own:
            told = replace(told, platform=self.who((index + 1) % MEMBERS).platform)
        member = self.now.state.members.get(who.owner)
        need = self.fees.join() if member is None else self.fees.presented()
        self.tell(who.node if honest else THIEF, told.to_cell(), need, how)

    @action(1, index=range(MEMBERS), many=[2, 3, MAX_OLDER_KEYS + 3])
    def wash(self, index: int, many: int) -> None:
        """Key after key."""
        for key in range(many):
            self.present(index, key, 1, 90 * DAY, True, True, NEED)

    @action(2, index=range(MEMBERS), sender=["owner", "payout", "stranger"], how=VALUES)
    def leave(self, index: int, sender: str, how: str) -> None:
        who = self.who(index)
        source = {"owner": who.owner, "payout": who.payout, "stranger": THIEF}[sender]
        self.tell(source, committee_messages.leave(who.owner), self.fees.leave(), how)

    @action(3, index=range(MEMBERS), patient=[True, False], how=VALUES)
    def withdraw(self, index: int, patient: bool, how: str) -> None:
        waiting = [owner for owner, member in self.now.state.members.items() if member.leaving_at and member.bond_nano]
        owner = waiting[index % len(waiting)] if waiting and patient else self.who(index).owner
        member = self.now.state.members.get(owner)
        if patient and member is not None and member.leaving_at:
            self.until(member.leaving_at + LEAVE_SECONDS)
        self.tell(THIEF, committee_messages.withdraw_bond(owner), self.fees.withdraw_bond(), how)

    @action(3, index=range(MEMBERS), key=range(4), guilty=[True, False], which=["now", "before", "older"], how=VALUES)
    def contradict(self, index: int, key: int, guilty: bool, which: str, how: str) -> None:
        who, question = self.who(index, key), b"\x07" * 32
        member = self.now.state.members.get(who.owner)
        if member is not None and guilty:
            keys = {"now": [member.key], "before": [member.previous_key], "older": sorted(member.older_keys)}[which]
            known = [k for k in keys if any(k)]
            if known:
                who = self.who(index, self.key_index(index, known[key % len(known)]))
        yes, no = (sign(CommitteeVerdict(question, said), who.key) for said in (True, not guilty))
        body = committee_messages.contradiction(who.owner, question, public(who.key), yes, no)
        self.tell(THIEF, body, self.fees.contradiction(), how)

    # -------------------------------------------------------------------------------------------- requests

    def place(self, pick: int) -> bytes:
        """Of an open request mostly; where there is none, one is asked for first."""
        if not self.now.state.requests and pick % 5:
            self.ask(pick % 3, True, 0, 3 * DAY, 0, None, NEED)
        open_ = sorted(self.now.state.requests)
        return open_[pick % len(open_)] if open_ and pick % 7 else place_of(self.stage.node, own=bool(pick % 2))

    @action(
        7,
        node=range(3),
        own=[True, True, False],
        index=[0, 0, 0, 1],
        lasts=[3 * DAY, 3 * DAY, 3 * HOUR, 8 * DAY, 0],
        old=[0, 0, 0, 100, -1],
        consent=[None, bytes(64)],
        how=VALUES,
    )
    def ask(self, node: int, own: bool, index: int, lasts: int, old: int, consent: bytes | None, how: str) -> None:
        stage, newest = self.stage, self.stage.ledger.prev_blocks.hundreds[0].seqno
        asker = (stage.stranger, account_of_name("second asker"), THIEF)[node]
        about = child_address(stage.registry, Kind.NODE, asker, 0)
        body = stage.question(
            node=about, index=index, attested_until=stage.ledger.now + lasts, consent=consent,
            block_seqno=newest - 100 * old, evidence=PAPERS, collateral=PAPERS,
        ).to_cell()  # fmt: skip
        self.tell(asker if own else THIEF, body, self.fees.ask(), how)

    @action(8, pick=range(100), patient=HONEST, how=VALUES)
    def draw(self, pick: int, patient: bool, how: str) -> None:
        place = self.place(pick)
        request = self.now.state.requests.get(place)
        if patient and request is not None:
            while self.stage.ledger.prev_blocks.hundreds[0].seqno < request.draw_at:
                self.stage.ledger.now += 60
        self.tell(THIEF, committee_messages.draw(place), self.fees.draw(), how)

    @action(14, pick=range(100), seat=range(5), yes=[True, True, True, False], honest=HONEST, how=VALUES)
    def answer(self, pick: int, seat: int, yes: bool, honest: bool, how: str) -> None:
        drawn = [p for p, request in sorted(self.now.state.requests.items()) if request.seats]
        place = drawn[pick % len(drawn)] if drawn and pick % 9 else self.place(pick)
        request = self.now.state.requests.get(place)
        index = seat
        if request is not None and request.seats and (honest or pick % 2):
            silent = [owner for owner, vote in sorted(request.seats.items()) if vote is Vote.NONE]
            seats = silent if silent and pick % 5 else sorted(request.seats)
            index = self.index_of(seats[seat % len(seats)])
        member = self.now.state.members.get(self.who(index).owner)
        key = self.key_index(index, member.key) if member is not None else 0
        if member is not None and any(member.previous_key) and pick % 4 == 0:
            key = self.key_index(index, member.previous_key)
        who = self.who(index, key if honest else (key + 1) % KEYS)
        question = request.question.hash if request is not None else b"\x08" * 32
        signed = sign(CommitteeVerdict(question, yes), who.key)
        self.tell(THIEF, committee_messages.answer(place, who.owner, yes, signed), self.fees.answer(), how)

    def index_of(self, owner: bytes) -> int:
        return next(index for index in range(MEMBERS) if self.who(index).owner == owner)

    @action(6, pick=range(100), patient=HONEST, how=VALUES)
    def conclude(self, pick: int, patient: bool, how: str) -> None:
        place = self.place(pick)
        request = self.now.state.requests.get(place)
        if patient and request is not None:
            self.until(request.deadline + 1)
        self.tell(THIEF, committee_messages.conclude(place), self.fees.conclude(admitted=bool(pick % 3)), how)

    @action(3, pick=range(100), members=range(3, 6), honest=HONEST)
    def admitted(self, pick: int, members: int, honest: bool) -> None:
        """A request from its question to its end, as it should go, with others' messages left out."""
        self.ask(pick % 3, True, 0, 6 * DAY, 0, None, NEED)
        about = child_address(
            self.stage.registry, Kind.NODE,
            (self.stage.stranger, account_of_name("second asker"), THIEF)[pick % 3], 0,
        )  # fmt: skip
        request = self.now.state.requests.get(about)
        if request is None or request.drawn:
            return
        while self.stage.ledger.prev_blocks.hundreds[0].seqno < request.draw_at:
            self.stage.ledger.now += 60
        self.tell(THIEF, committee_messages.draw(about), self.fees.draw(), NEED)
        seats = sorted(self.now.state.requests[about].seats)
        for owner in seats[:members]:
            index = self.index_of(owner)
            key = self.key_index(index, self.now.state.members[owner].key)
            signed = sign(CommitteeVerdict(request.question.hash, honest), self.who(index, key).key)
            self.tell(THIEF, committee_messages.answer(about, owner, honest, signed), self.fees.answer(), NEED)
        self.until(self.now.state.requests[about].deadline + 1)
        self.tell(THIEF, committee_messages.conclude(about), self.fees.conclude(admitted=True), NEED)

    # -------------------------------------------------------------------------------------------- the world

    def prices(self, factors: Factors) -> None:
        set_prices(self.stage.ledger, factors)
        self.fees = CommitteeFees(Prices.from_config(self.stage.ledger.config), self.stage.terms)

    def until(self, moment: int) -> None:
        self.stage.ledger.now = max(self.stage.ledger.now, moment)

    @action(2, seconds=[60, HOUR, HOUR, HOUR, 4 * HOUR, DAY, 8 * DAY, 100 * DAY])
    def wait(self, seconds: int) -> None:
        self.stage.ledger.now += seconds

    @action(1, factors=[*CHOICES, TODAY, TODAY])
    def change_prices(self, factors: Factors) -> None:
        self.prices(factors)

    @action(3, pick=range(10**6), thief=[True, False])
    def replay(self, pick: int, thief: bool) -> None:
        sender, value, body = self.sent[pick % len(self.sent)]
        self.send(THIEF if thief else sender, body, value)

    @action(2, pick=range(10**6), what=["money", "bounced", "unknown", "genesis", "cut"], value=[1, TON // 100, TON])
    def astray(self, pick: int, what: str, value: int) -> None:
        body: Cell | None = self.sent[pick % len(self.sent)][2]
        assert body is not None
        if what == "money":
            body = None
        elif what == "bounced":
            body = begin_cell().store_uint(0xFFFFFFFF, 32).store_bits(body.bits[:256]).end_cell()
        elif what == "unknown":
            body = begin_cell().store_uint(0x12345678, 32).end_cell()
        elif what == "genesis":
            body = begin_cell().store_uint(Op.GENESIS, 32).store_bytes(bytes(64)).store_ref(body).end_cell()
        self.send(THIEF, body, value, bounced=what == "bounced")

    def step(self) -> None:
        name = self.rng.choices(list(ACTIONS), [weight for weight, _ in ACTIONS.values()])[0]
        arguments = {key: self.rng.choice(choices) for key, choices in ACTIONS[name][1].items()}
        self.steps.append(f"{name} {arguments}")
        getattr(self, name)(**arguments)

    def exits(self) -> None:
        """G3: every request ends, and every member that did not lie has its bond two weeks after it left."""
        self.prices(TODAY)
        for place in sorted(self.now.state.requests):
            self.until(self.now.state.requests[place].deadline + 1)
            self.tell(THIEF, committee_messages.conclude(place), self.fees.conclude(admitted=True), NEED)
        assert not self.now.state.requests, "G3: a request that cannot end"
        for owner, member in sorted(self.now.state.members.items()):
            if not member.leaving_at:
                self.tell(owner, committee_messages.leave(owner), self.fees.leave(), NEED)
        self.stage.ledger.now += LEAVE_SECONDS
        for owner, member in sorted(self.now.state.members.items()):
            if member.bond_nano:
                self.tell(THIEF, committee_messages.withdraw_bond(owner), self.fees.withdraw_bond(), NEED)
        assert self.now.owed_nano == 0 and not self.books.bonds, "G3: a bond stayed"
        assert all(member.bond_nano == 0 for member in self.now.state.members.values())


def lived(number: int) -> Life:
    life = Life(number)
    try:
        for _ in range(STEPS):
            life.step()
        life.exits()
    except AssertionError as error:
        raise AssertionError("\n".join([*life.steps, str(error)])) from error
    return life


@pytest.mark.timeout(600)
def test_g1_g2_g3_g4_whatever_comes_a_committee_does_what_its_reference_says() -> None:
    for number in range(LIVES):
        lived(number)
    print({name: {int(code): SEEN[name, code] for code in (0, *codes)} for name, codes in CODES.items()}, ADMITTED)
    missing = [(name, int(code)) for name, codes in CODES.items() for code in (0, *codes) if not SEEN[name, code]]
    assert LIVES * STEPS >= 800 and ADMITTED[True] and ADMITTED[False]
    assert not missing, "messages that were never taken (0) or never refused so"
