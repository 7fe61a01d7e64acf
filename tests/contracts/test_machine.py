"""Any order of all messages by honest, late, absent and malicious parties, through other prices, years and deletions.

Every transaction is held to the references (market_escrow, market_node, market_job): same state, same balance to the
nanoTON, same refusals. What the references cannot say, because they look at one account at a time, is said here.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from market import PASSER_BY, REBUILDER, RICH, Market, enclave, unknown
from market_prices import CHOICES, TODAY
from pytoniq_core import Cell, begin_cell

from attestation.onchain.messages import sync
from protocol.pricing import Stop, Usage, charge
from scripts.stage import DAY, HOUR, NO_HASH, TERMS, TON, account_of_name, key_of, public
from wrappers import claims, court, escrow, escrow_rare, governance, job, node, node_rare
from wrappers.code import Contract, code_hash, rare_program
from wrappers.ops import Op
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.registry import Rebuilders, RegistryState, open_node
from wrappers.signed import Acceptance, Delivery, JobResult, Notary, sign

Step = tuple[int, bytes, bytes, Cell]
"""When at the earliest, from whom, to whom, what."""
Act = TypeVar("Act", bound=Callable[..., None])
AMOUNTS = [1, TON // 100, TON // 7, TON // 2, TON, 3 * TON]
VALUES = [TON, TON, TON, TON // 4, TON // 100, TON // 1000]
WHICH, KEYS = range(2), range(3)
HONEST = [True, True, True, False]
RESULT, INNER = b"\x31" * 32, b"\x32" * 32
PRICES = Terms(b"\x41" * 32, 3 << 20, 1 << 20, 7 << 20, 11 << 20, 1000)
USAGE = Usage(prompt_tokens=500, cached_tokens=100, completion_tokens=60, reasoning_tokens=20)
_MARKETS: dict[int, Market] = {}
DONE = {"steps": 0, "examples": 0}
# Every message of these contracts must have been taken and refused at least once.
EXPECTED = {
    "escrow": "settle allot raise withdraw close finish top_up money lower reclaim allot_shared order_job pay_shares "
    "rotate_voucher_key apply_voucher_key return_rent give_up_key",
    "node": "claim claim_receipt paid verdict standing slash top_up_stake collect unbond withdraw_stake accept_job "
    "notarise offer_controller accept_controller offer_payout accept_payout set_release_key set_offer drop_offer drain",
    "job": "accepted job_posted deliver finish_job refund",
    "registry": "open_node open_escrow open_job propose cancel execute endorse offer_governor accept_governor "
    "stop_opening revoke_model revoke_image deny_platform drop_tcb",
    "court": "equivocation false_amount missed",
}
# Taken whoever sends it with whatever: money, and what only a genuine sender can make happen.
# What takes a long story to reach: asked for in long runs, and by test_escrow_rare.py and test_job.py.
SELDOM = {"escrow.give_up_key never taken", "job.deliver never taken"}
NEVER_REFUSED = {("escrow", "bounced"), ("court", "missed")}
ALSO_TAKEN = (
    ("escrow", "bounced"),
    ("node", "bounced"),
    ("node", "money"),
    ("job", "money"),
    ("escrow", "birth"),
    ("node", "birth"),
    ("job", "birth"),
    ("attestation", "governed"),
    ("attestation", "release_platform"),
    ("attestation", "deny_platform"),
)


ACTIONS: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {}


def action(weight: int, **choices: Sequence[Any]) -> Callable[[Act], Act]:
    """A method that the machine calls with one of each of `choices`, `weight` times as often as one of weight 1."""

    def register(method: Act) -> Act:
        ACTIONS[method.__name__] = weight, choices
        return method

    return register


class Machine(RuleBasedStateMachine):
    left_out: frozenset[str] = frozenset()
    """Actions that a kind of machine does without."""

    @initialize(fee=st.sampled_from([0, 0, 300]), seed=st.binary(min_size=8, max_size=8))
    def start(self, fee: int, seed: bytes) -> None:
        if fee not in _MARKETS:
            _MARKETS[fee] = Market(fee)
        self.m = _MARKETS[fee]
        self.m.reset()
        self.world = self.m.world
        self.governor = self.world.governor.account
        self.operator = self.world.operator.account
        self.proposed: list[Cell] = []
        self.seed = seed
        DONE["examples"] += 1
        for which in range(2):
            self.open_escrow(which, 3 * TON, True, which == 1, 8 * TON)

    @rule(seed=st.binary(min_size=8, max_size=8))
    def step(self, seed: bytes) -> None:
        """One action, chosen by all seeds so far. Hypothesis repeats much of one example in the next: with its own
        choice of rules and values most messages stay out of most sequences."""
        self.seed = sha256(self.seed + seed).digest()
        rng = Random(self.seed)
        names = [name for name in ACTIONS if name not in self.left_out]
        name = rng.choices(names, [ACTIONS[name][0] for name in names])[0]
        arguments = {key: rng.choice(choices) for key, choices in ACTIONS[name][1].items()}
        if currently_in_test_context():
            note(f"{name} {arguments}")
        getattr(self, name)(**arguments)

    def until(self, moment: int) -> None:
        self.world.ledger.now = max(self.m.now, moment)

    # ------------------------------------------------------------------------------------------ births

    @action(1, which=WHICH, amount=AMOUNTS, first=(False, True), shared=(False, True), value=[8 * TON, TON, TON // 9])
    def open_escrow(self, which: int, amount: int, first: bool, shared: bool, value: int) -> None:
        self.m.open_escrow(which, amount, value, first=first, shared=shared)

    @action(1, which=WHICH, value=[12 * TON, 12 * TON, TON])
    def open_node(self, which: int, value: int) -> None:
        self.m.open_node(which, value)

    # ------------------------------------------------------------------------------------------ clients

    def owner_of(self, which: int, honest: bool) -> bytes:
        return self.m.owners[which] if honest else PASSER_BY

    def to_escrow(self, which: int, honest: bool, value: int, body: Cell | None) -> None:
        self.m.tell(self.owner_of(which, honest), self.m.escrows[which], value, body)

    @action(2, which=WHICH, value=AMOUNTS, how=["empty", "op", "comment"])
    def top_up(self, which: int, value: int, how: str) -> None:
        comment = begin_cell().store_uint(0, 32).store_bytes(b"hello").end_cell()
        body = {"empty": None, "op": escrow.top_up(), "comment": comment}[how]
        self.m.tell(PASSER_BY, self.m.escrows[which], value, body)

    @action(
        4,
        which=WHICH,
        at=WHICH,
        amount=AMOUNTS,
        timer=[HOUR, 3 * HOUR, 60],
        shared=(False, True),
        honest=HONEST,
        value=[3 * TON, TON, TON // 50],
    )
    def allot(self, which: int, at: int, amount: int, timer: int, shared: bool, honest: bool, value: int) -> None:
        terms = self.m.terms(timer, shared)
        make = escrow_rare.allot_shared if shared or self.m.fee else escrow.allot
        self.to_escrow(which, honest, value, make(self.m.nodes[at], amount, terms))

    @action(2, which=WHICH, at=WHICH, amount=AMOUNTS, honest=HONEST, value=VALUES)
    def raise_row(self, which: int, at: int, amount: int, honest: bool, value: int) -> None:
        self.to_escrow(which, honest, value, escrow.raise_allotment(self.m.nodes[at], amount))

    @action(1, which=WHICH, amount=[0, 1, TON // 2, 5 * TON], honest=HONEST, value=VALUES)
    def withdraw(self, which: int, amount: int, honest: bool, value: int) -> None:
        self.to_escrow(which, honest, value, escrow.withdraw(amount))

    @action(1, which=WHICH, released=[0, 1, 3], honest=HONEST, value=VALUES, sure=range(3))
    def close(self, which: int, released: int, honest: bool, value: int, sure: int) -> None:
        state, releases = self.m.escrow(which), []
        for at in range(2):
            if state is not None and released >> at & 1 and self.m.nodes[at] in state.rows:
                paid = state.rows[self.m.nodes[at]].paid_nano
                releases.append(escrow.CloseRelease(self.m.nodes[at], paid, self.m.release(which, at, paid)))
        if sure == 0 or not honest:
            self.to_escrow(which, honest, value, escrow.close(releases))

    @action(
        3,
        which=WHICH,
        at=WHICH,
        key=KEYS,
        honest=HONEST,
        value=VALUES,
        act=["reclaim", "give up", "rotate", "return rent"],
    )
    def seldom(self, which: int, at: int, key: int, honest: bool, value: int, act: str) -> None:
        state, account = self.m.escrow(which), self.m.nodes[at]
        if act == "give up" and state is not None and account in state.rows and honest:
            row = state.rows[account]
            key = next((k for k in range(3) if enclave(k) in row.keys and enclave(k) != row.current_key), key)
            self.m.book.forgotten.add((row.allotment, enclave(key)))
        body = {
            "reclaim": lambda: escrow_rare.reclaim(account),
            "give up": lambda: escrow_rare.give_up_key(account, enclave(key)),
            "rotate": lambda: escrow_rare.rotate_voucher_key(self.m.voucher_key(which, key)),
            "return rent": escrow_rare.return_rent,
        }[act]()
        self.to_escrow(which, honest, value, body)

    @action(
        3,
        which=WHICH,
        at=WHICH,
        value=VALUES,
        patient=(False, True),
        act=["finish", "finish", "pay shares", "pay shares", "apply"],
    )
    def anyone(self, which: int, at: int, value: int, patient: bool, act: str) -> None:
        state = self.m.escrow(which)
        if patient and state is not None:
            ends = [row.closing_at for row in state.rows.values() if act == "finish"]
            self.until(max([*ends, state.next_key.ready_at if state.next_key and act == "apply" else 0]))
        body = {
            "finish": escrow.finish,
            "pay shares": lambda: escrow_rare.pay_shares(self.m.nodes[at]),
            "apply": escrow_rare.apply_voucher_key,
        }[act]()
        self.m.tell(PASSER_BY, self.m.escrows[which], value, body)

    @action(2, which=WHICH, at=WHICH, share=[0, 50, 100, 120], value=VALUES)
    def lower(self, which: int, at: int, share: int, value: int) -> None:
        state = self.m.escrow(which)
        if state is not None and self.m.nodes[at] in state.rows:
            row = state.rows[self.m.nodes[at]]
            allotted = row.paid_nano + (row.allotted_nano - row.paid_nano) * share // 100
            body = escrow_rare.lower(self.m.nodes[at], allotted, self.m.release(which, at, allotted))
            self.m.tell(PASSER_BY, self.m.escrows[which], value, body)

    # ------------------------------------------------------------------------------------------ claims

    @action(6, at=WHICH, key=KEYS, more=AMOUNTS, cap=AMOUNTS, acked=range(3), both=(False, True), which=WHICH)
    def claim(self, at: int, key: int, more: int, cap: int, acked: int, both: bool, which: int) -> None:
        if self.m.node(at) is None:
            return
        items = []
        for index in (0, 1) if both else (which,):
            entry = self.m.entry(index, at, key, more, cap, acked)
            if entry is not None:
                items.append(claims.ClaimEntry(self.m.escrows[index], entry, NO_HASH))
        if items:
            message = self.world.claim_external(self.m.nodes[at], items, key=key_of(f"enclave {key}"))
            self.m.externals.append(message)
            self.m.external(message)

    @action(4, which=WHICH, at=WHICH, key=KEYS, more=AMOUNTS, acked=range(3), value=VALUES, honest=HONEST)
    def claim_receipt(self, which: int, at: int, key: int, more: int, acked: int, value: int, honest: bool) -> None:
        entry, state = self.m.entry(which, at, key, more, more, acked), self.m.escrow(which)
        owner = self.m.node(at)
        if entry is None or owner is None or state is None:
            return
        row = state.rows[self.m.nodes[at]]
        receipt = Receipt(row.allotment, owner.node_id, entry.seq, TERMS, more, entry.cumulative_nano, NO_HASH, NO_HASH)
        secret = key_of(f"enclave {key if honest else key + 1}")
        body = claims.claim_receipt(
            enclave(key), self.m.escrows[which], row.epoch, receipt, sign(receipt, secret), entry
        )
        self.m.tell(PASSER_BY, self.m.nodes[at], value, body)

    # ------------------------------------------------------------------------------------------ nodes

    @action(5, at=WHICH, key=KEYS, until=[DAY, DAY, 60], consent=HONEST, honest=HONEST, stray=HONEST)
    def verdict(self, at: int, key: int, until: int, consent: bool, honest: bool, stray: bool) -> None:
        if self.m.node(at) is not None:
            sender = self.world.attestation if honest else PASSER_BY
            self.m.verdict(at, key, until=until, consent=consent, sender=sender, platform=at if stray else 1 - at)

    @action(1, at=WHICH, status=[0, 1, 1, 8, 2, 4], own=HONEST, honest=HONEST, sure=range(3))
    def standing(self, at: int, status: int, own: bool, honest: bool, sure: int) -> None:
        image = self.m.measurement if own else b"\x99" * 32
        sender = self.world.attestation if honest else PASSER_BY
        if sure == 0:
            self.m.tell(sender, self.m.nodes[at], TON, node_rare.standing(image, self.m.platforms[at], status))

    @action(1, at=WHICH, value=VALUES)
    def sync(self, at: int, value: int) -> None:
        body = sync(self.m.nodes[at], self.m.measurement, self.m.platforms[at], rare_program(Contract.NODE))
        self.m.tell(PASSER_BY, self.world.attestation, value, body)

    @action(
        4,
        at=WHICH,
        value=VALUES,
        honest=HONEST,
        payout=WHICH,
        key=KEYS,
        act=[
            "collect",
            "collect",
            "top up",
            "unbond",
            "withdraw",
            "withdraw",
            "offer controller",
            "accept controller",
            "offer payout",
            "accept payout",
            "accept",
            "accept",
            "release key",
            "offer",
            "drop",
            "drain",
        ],
    )
    def operate(self, at: int, value: int, honest: bool, payout: int, key: int, act: str) -> None:
        state = self.m.node(at)
        controller = state.controller if state is not None else self.operator
        open_offers = state.extras if state is not None else None
        pending = open_offers and (
            (open_offers.new_payout and "payout") or (open_offers.new_controller and "controller")
        )
        if act == "accept" or (pending and act in ("top up", "release key", "offer payout", "drain")):
            act = f"accept {pending or 'controller'}"  # an offer seldom lasts long enough to be taken by chance
        body = {
            "collect": node_rare.collect,
            "top up": node_rare.top_up_stake,
            "unbond": node_rare.unbond,
            "withdraw": node_rare.withdraw_stake,
            "offer controller": lambda: node_rare.offer_controller(account_of_name(f"controller {payout}")),
            "accept controller": node_rare.accept_controller,
            "offer payout": lambda: node_rare.offer_payout(account_of_name(f"payout {payout}")),
            "accept payout": node_rare.accept_payout,
            "release key": lambda: node_rare.set_release_key(public(self.world.release_key)),
            "offer": lambda: node_rare.set_offer(replace(PRICES, model=bytes([key]) * 32)),
            "drop": lambda: node_rare.drop_offer(bytes([key]) * 32),
            "drain": lambda: node_rare.drain(bool(payout)),
        }[act]()
        sender = controller if honest else PASSER_BY
        extras = state.extras if state is not None else None
        if act.startswith("accept") and extras is not None and honest:
            sender = (extras.new_controller if act == "accept controller" else extras.new_payout) or sender
        if act != "unbond" or key == 0:
            self.m.tell(sender, self.m.nodes[at], value, body)

    @action(2, at=WHICH, key=KEYS, value=VALUES, honest=HONEST)
    def notarise(self, at: int, key: int, value: int, honest: bool) -> None:
        state = self.m.node(at)
        if state is not None:
            signature = sign(Notary(state.node_id, RESULT), key_of(f"enclave {key if honest else 5}"))
            self.m.tell(PASSER_BY, self.m.nodes[at], value, node_rare.notarise(RESULT, enclave(key), signature))

    # ------------------------------------------------------------------------------------------ jobs and the court

    @action(
        3,
        which=WHICH,
        index=WHICH,
        maximum=[1, TON // 2],
        amount=[TON // 100, TON],
        grace=[HOUR, HOUR, 1],
        honest=HONEST,
        value=VALUES,
    )
    def order_job(
        self, which: int, index: int, maximum: int, amount: int, grace: int, honest: bool, value: int
    ) -> None:
        key = public(key_of("delivery"))
        config = job.JobConfig(INNER, key, maximum, self.m.now + DAY, grace, HOUR, frozenset(self.m.nodes[: 1 + index]))
        body = escrow_rare.order_job(amount, code_hash(Contract.JOB), index, config.to_cell())
        self.to_escrow(which, honest, value, body)

    @action(
        6,
        pick=range(4),
        at=WHICH,
        act=["next", "next", "next", "accept", "post", "deliver", "finish", "refund"],
        over=(False, True),
        honest=HONEST,
        value=VALUES,
    )
    def job(self, pick: int, at: int, act: str, over: bool, honest: bool, value: int) -> None:
        living = [account for account in self.m.jobs if self.m.job(account) is not None]
        if not living:
            return
        account = living[pick % len(living)]
        state = self.m.job(account)
        assert state is not None
        if act == "next":
            follows = {
                job.Phase.OPEN: "accept",
                job.Phase.ACCEPTED: "post",
                job.Phase.POSTED: "deliver" if over else "finish",
            }
            act = follows[state.phase]
            if state.refundable_at is not None and self.m.now >= state.refundable_at:
                act = "refund"
        owner = self.m.node(at)
        if act == "accept":
            key = (
                0
                if owner is None or owner.signing_key is None
                else next(k for k in range(3) if enclave(k) == owner.signing_key)
            )
            if owner is not None:
                secret = key_of(f"enclave {key if honest else 5}")
                signature = sign(Acceptance(state.job_id, owner.node_id), secret)
                body = node_rare.accept_job(account, state.epoch, state.config.spec, enclave(key), signature)
                self.m.tell(PASSER_BY, self.m.nodes[at], value, body)
            return
        if act == "post":
            signer = state.acceptance.key if state.acceptance else enclave(0)
            secret = key_of(f"enclave {next(k for k in range(3) if enclave(k) == signer) if honest else 5}")
            amount = state.config.maximum_nano + (1 if over and pick == 0 else 0)
            signature = sign(JobResult(state.job_id, RESULT, amount, INNER), secret)
            body = job.job_posted(RESULT, amount, INNER, signature)
        elif act == "deliver":
            body = job.deliver(sign(Delivery(state.job_id, RESULT), key_of("delivery" if honest else "other")))
        elif act == "finish":
            body = job.finish_job()
        else:
            program = unknown() if not honest else rare_program(Contract.NODE) if state.acceptance else None
            body = job.refund(program)
        self.m.tell(PASSER_BY, account, value, body)

    @action(
        2, which=WHICH, at=WHICH, key=KEYS, guilty=(False, True), act=["equivocation", "false amount"], sure=range(4)
    )
    def accuse(self, which: int, at: int, key: int, guilty: bool, act: str, sure: int) -> None:
        """False evidence costs its sender the gas and nothing else: no stake moves."""
        owner, state = self.m.node(at), self.m.escrow(which)
        if owner is None or state is None or self.m.nodes[at] not in state.rows or (guilty and sure):
            return
        row, secret = state.rows[self.m.nodes[at]], key_of(f"enclave {key}")
        counts = USAGE.prompt_tokens, USAGE.cached_tokens, USAGE.completion_tokens, USAGE.reasoning_tokens
        inner = InnerReceipt(b"\x51" * 32, PRICES.model, *counts, Stop.END, b"\x52" * 32, b"\x53" * 32, b"\x54" * 32)
        right = charge(PRICES, USAGE, Stop.END)
        amount = right + (1000 if guilty and act == "false amount" else 0)
        receipt = Receipt(row.allotment, owner.node_id, 1, PRICES.hash, amount, amount, NO_HASH, inner.hash)
        first = court.SignedReceipt(receipt, sign(receipt, secret))
        place = court.Place(self.m.escrows[which], row.epoch, 1)
        accused = court.Accused(self.m.nodes[at], owner.epoch, enclave(key))
        program = rare_program(Contract.NODE)
        if act == "equivocation":
            other = replace(receipt, amount_nano=amount + 1) if guilty else receipt
            second = court.SignedReceipt(other, sign(other, secret))
            body = court.equivocation(place, accused, first, second, program)
        else:
            body = court.false_amount(place, accused, first, inner, PRICES, program)
        stake = owner.stake_nano
        self.m.tell(PASSER_BY, self.world.court, TON, body)
        after = self.m.node(at)
        if not guilty:
            assert after is not None and after.stake_nano == stake, "false evidence took a stake"

    # ------------------------------------------------------------------------------------------ the governor

    @action(
        4,
        act=[
            "propose",
            "propose",
            "execute",
            "execute",
            "cancel",
            "endorse",
            "offer",
            "accept",
            "stop",
            "revoke model",
            "revoke image",
            "deny",
            "drop tcb",
            "narrow all",
        ],
        pick=range(10),
        honest=HONEST,
        patient=HONEST,
        value=VALUES,
    )
    def govern(self, act: str, pick: int, honest: bool, patient: bool, value: int) -> None:
        """G20: whoever sends it, no child is reached but by what the verifier says of its key."""
        ledger, world = self.world.ledger, self.world
        state = self.m.checker.states[world.registry]
        assert isinstance(state, RegistryState)
        actions = [
            replace(state.settings, treasury=world.treasury, stopped=0, time_lock=DAY).to_cell(),
            governance.allow_model(bytes([pick]) * 32),
            governance.set_rebuilders(Rebuilders(1, frozenset({REBUILDER, account_of_name(f"rebuilder {pick}")}))),
            governance.allow_image(bytes([pick]) * 32, 1, b"\x55" * 32),
            governance.free_platform(bytes([pick]) * 32),
            governance.restore_tcb(bytes([pick]) * 6),
        ]
        action = actions[pick % len(actions)]
        if act in ("execute", "cancel", "endorse") and self.proposed:
            action = self.proposed[pick % len(self.proposed)]
        if act == "propose":
            self.proposed.append(action)
        proposal = state.proposals.get(bytes(action.hash))
        if act == "execute" and patient and proposal is not None:
            self.until(proposal.ready_at)
        body = {
            "propose": lambda: governance.propose(action),
            "execute": lambda: governance.execute(action),
            "cancel": lambda: governance.cancel(bytes(action.hash)),
            "endorse": lambda: governance.endorse(bytes(action.hash)),
            "offer": lambda: governance.offer_governor(account_of_name("next governor")),
            "accept": governance.accept_governor,
            "stop": lambda: governance.stop_opening(pick & 3 if pick else 0),
            "revoke model": lambda: governance.revoke_model(bytes([pick]) * 32),
            "revoke image": lambda: governance.revoke_image(
                self.m.measurement if pick == 9 else b"\x66" * 32, compromised=bool(pick & 1)
            ),
            "deny": lambda: governance.deny_platform(self.m.platforms[0] if pick == 9 else bytes([pick]) * 32),
            "drop tcb": lambda: governance.drop_tcb(bytes([pick]) * 6),
            "narrow all": lambda: governance.stop_opening(8 + pick),
        }[act]()
        sender = state.governor if honest else PASSER_BY
        if act == "endorse" and honest:
            sender = REBUILDER
        if act == "accept" and honest:
            sender = account_of_name("next governor")
        before = [ledger.account(child) for child in sorted(self.m.children)]
        self.m.tell(sender, world.registry, value, body)
        assert [ledger.account(child) for child in sorted(self.m.children)] == before, "G20: a child was reached"

    @action(8, pick=range(10**6), value=[RICH, TON, TON // 100])
    def follow_up(self, pick: int, value: int) -> None:
        """Whatever somebody began and can now go on with, or forges as if he could."""
        steps = [*self._of_escrows(), *self._of_nodes(), *self._of_jobs(), *self._of_the_governor()]
        if steps:
            moment, sender, account, body = steps[pick % len(steps)]
            s = body.begin_parse()
            if s.load_uint(32) == Op.GIVE_UP_KEY:
                state = self.m.checker.states[account]
                self.m.book.forgotten.add((state.rows[s.load_bytes(32)].allotment, s.load_bytes(32)))
            self.until(moment)
            self.m.tell(sender, account, 12 * TON if account == self.world.registry else value, body)

    def _of_escrows(self) -> Iterator[Step]:
        for which, account in enumerate(self.m.escrows):
            state = self.m.escrow(which)
            if state is None:
                continue
            if state.next_key is not None:
                yield state.next_key.ready_at, PASSER_BY, account, escrow_rare.apply_voucher_key()
            for name, row in state.rows.items():
                for key in row.keys:
                    if key != row.current_key:
                        yield 0, state.owner, account, escrow_rare.give_up_key(name, key)

    def _of_nodes(self) -> Iterator[Step]:
        for at, account in enumerate(self.m.nodes):
            state = self.m.node(at)
            if state is None:
                config = node.NodeConfig(self.operator, self.world.payout, public(self.world.release_key))
                yield 0, self.operator, self.world.registry, open_node(code_hash(Contract.NODE), at, config)
                continue
            key = state.signing_key or NO_HASH
            yield 0, PASSER_BY, account, node.paid(2, PASSER_BY, 0, TON, 1)
            yield 0, PASSER_BY, account, node_rare.slash(state.epoch, key, 0, TON, PASSER_BY, PASSER_BY, PASSER_BY)
            if state.withdrawable_at is not None:
                yield state.withdrawable_at, state.controller, account, node_rare.withdraw_stake()
            if state.extras is not None:
                if state.extras.new_controller:
                    yield 0, state.extras.new_controller, account, node_rare.accept_controller()
                if state.extras.new_payout:
                    yield 0, state.extras.new_payout, account, node_rare.accept_payout()
                for model in state.extras.offers:
                    yield 0, state.controller, account, node_rare.drop_offer(model)

    def _of_jobs(self) -> Iterator[Step]:
        for account in self.m.jobs:
            state = self.m.job(account)
            if state is not None:
                yield 0, PASSER_BY, account, begin_cell().store_uint(0, 32).end_cell()
                if state.payable_at is not None:
                    signature = sign(Delivery(state.job_id, RESULT), key_of("delivery"))
                    yield state.payable_at, PASSER_BY, account, job.finish_job()
                    yield 0, PASSER_BY, account, job.deliver(signature)

    def _of_the_governor(self) -> Iterator[Step]:
        account = self.world.registry
        state = self.m.checker.states[account]
        assert isinstance(state, RegistryState)
        if state.candidate is not None:
            yield 0, state.candidate, account, governance.accept_governor()
            yield 0, state.candidate, account, governance.accept_governor()
        else:
            yield 0, state.governor, account, governance.offer_governor(account_of_name("next governor"))
        for action in self.proposed:
            proposal = state.proposals.get(bytes(action.hash))
            if proposal is not None:
                yield proposal.ready_at, state.governor, account, governance.execute(action)
                yield 0, REBUILDER, account, governance.endorse(bytes(action.hash))
                yield 0, state.governor, account, governance.cancel(bytes(action.hash))

    # ------------------------------------------------------------------------------------------ attackers, prices, time

    @action(2, pick=range(10**6), thief=(False, True), value=VALUES)
    def replay(self, pick: int, thief: bool, value: int) -> None:
        source, where, body = self.m.sent[pick % len(self.m.sent)]
        self.m.tell(PASSER_BY if thief else source, where, value, body)

    @action(1, pick=range(10**6))
    def replay_external(self, pick: int) -> None:
        if self.m.externals:
            self.m.external(self.m.externals[pick % len(self.m.externals)])

    @action(2, pick=range(10**6), at=range(8), bounced=(False, True), value=VALUES, kin=range(8))
    def astray(self, pick: int, at: int, bounced: bool, value: int, kin: int) -> None:
        """Any message at any account, from a sibling or a stranger, also as if it came back."""
        children = sorted(self.m.children)
        said = [
            *self.m.heard,
            *self.m.heard,
            *((there, body) for _, there, body in self.m.sent),
            (children[at], unknown()),
        ]
        there, body = said[pick % len(said)]
        there = there if pick & 64 and not bounced else children[at]
        source = children[kin] if pick % 2 else PASSER_BY
        if bounced:
            body = begin_cell().store_uint(0xFFFFFFFF, 32).store_bits(body.bits[:256]).end_cell()
        self.m.tell(source, there, value, body, bounced=bounced)

    @action(2, seconds=[1, 60, 60, HOUR, HOUR, HOUR, 4 * HOUR, DAY, 2 * DAY, 8 * DAY, 400 * DAY])
    def wait(self, seconds: int) -> None:
        if self.m.now + seconds < 2**32 - 12 * 365 * DAY:
            self.world.ledger.now += seconds

    @action(1, factors=[*CHOICES, TODAY, TODAY, TODAY])
    def change_prices(self, factors: object) -> None:
        self.m.prices(factors)  # type: ignore[arg-type]

    @action(1, pick=range(8), sure=range(6))
    def forgotten_by_the_chain(self, pick: int, sure: int) -> None:
        account = sorted(self.m.children)[pick]
        if sure == 0 and account in self.m.checker.states:
            self.m.forget(account)

    # ------------------------------------------------------------------------------------------ what always holds

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "m"):
            DONE["steps"] += 1
            self.m.invariants()

    def teardown(self) -> None:
        """G3, G6: each gets out alone, whatever went before and whatever the others do."""
        if not hasattr(self, "m"):
            return
        m, world = self.m, self.world
        m.prices(TODAY)
        for account in m.jobs:
            state = m.job(account)
            if state is not None:
                world.ledger.now += 9 * DAY
                program = rare_program(Contract.NODE) if state.acceptance else None
                m.tell(PASSER_BY, account, RICH, job.refund(program) if state.outcome is None else job.finish_job())
                assert m.job(account) is None, "G3: job"
        for which, account in enumerate(m.escrows):
            if m.escrow(which) is None:
                continue
            m.tell(m.owners[which], account, RICH, escrow.close())
            world.ledger.now += 3 * HOUR
            if m.escrow(which) is not None:
                m.tell(m.owners[which], account, RICH, escrow.finish())
            for node_account in m.nodes:
                state = m.escrow(which)
                if state is not None and node_account in state.rows:
                    m.tell(m.owners[which], account, RICH, escrow_rare.pay_shares(node_account))
            assert m.escrow(which) is None and world.ledger.balance(account) == 0, "G3: client"
        for at, account in enumerate(m.nodes):
            state = m.node(at) if account in m.checker.states else None
            if state is not None:
                m.tell(state.controller, account, RICH, node_rare.unbond())
                world.ledger.now += 70 * DAY
                m.tell(state.controller, account, RICH, node_rare.withdraw_stake())
                assert m.node(at) is None and world.ledger.balance(account) == 0, "G3: operator"


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
TestMachine = pytest.mark.timeout(900)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "90")),
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a shorter sequence is another one: what failed is printed as it was
    suppress_health_check=QUIET,
)


def unreached() -> list[str]:
    """Messages that were never taken, or never refused."""
    missing = []
    for kind, names in EXPECTED.items():
        for name in names.split():
            taken = sum(m.checker.taken[kind, name] for m in _MARKETS.values())
            refused = sum(m.checker.refused[kind, name] for m in _MARKETS.values())
            missing += [f"{kind}.{name} never taken"] * (not taken)
            missing += [f"{kind}.{name} never refused"] * (not refused and (kind, name) not in NEVER_REFUSED)
    for pair in ALSO_TAKEN:
        missing += ["{}.{} never taken".format(*pair)] * (not any(m.checker.taken[pair] for m in _MARKETS.values()))
    return missing


def live(number: int) -> None:
    machine = Machine()
    Machine.start(machine, fee=(0, 300)[number % 2], seed=number.to_bytes(8, "big"))
    for step in range(60):
        Machine.step(machine, seed=step.to_bytes(8, "big"))
        Machine.holds(machine)
    machine.teardown()


def report() -> None:
    print(f"\n{DONE['examples']} lives of the network, {DONE['steps']} steps; taken and refused, by message:")
    names = {pair for m in _MARKETS.values() for pair in (*m.checker.taken, *m.checker.refused)}
    for pair in sorted(names):
        taken, refused = (
            sum(c[pair] for c in cs)
            for cs in zip(*((m.checker.taken, m.checker.refused) for m in _MARKETS.values()), strict=True)
        )
        codes = sum((m.checker.codes for m in _MARKETS.values()), Counter[tuple[str, str, int | None]]())
        told = " ".join(f"{code}:{count}" for (*name, code), count in codes.items() if tuple(name) == pair)
        print(f"  {'.'.join(pair):32} {taken:7} {refused:7}  {told}")


@pytest.mark.timeout(600)
def test_every_message_was_taken_and_refused() -> None:
    if not DONE["steps"]:
        pytest.skip("the state machine was not run before this")
    number = 0
    while set(unreached()) - SELDOM and number < 120:  # the same lives each time, of other randomness than those before
        live(number)
        number += 1
    report()
    assert DONE["steps"] >= 5_000
    assert not set(unreached()) - SELDOM


@pytest.mark.timeout(0)
def test_soak() -> None:
    """`make soak`: the same with new randomness until the time is up."""
    minutes = float(os.environ.get("SOAK_MINUTES", "0"))
    if not minutes:
        pytest.skip("set SOAK_MINUTES, or: make soak")
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine,
            settings=settings(
                max_examples=50,
                stateful_step_count=80,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=QUIET,
            ),
        )
        print(f"{DONE['steps']} steps, {(end - time.monotonic()) / 60:.0f} minutes left", flush=True)
    report()
    assert DONE["steps"] < 20_000 or not unreached()
