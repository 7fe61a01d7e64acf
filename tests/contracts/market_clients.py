"""Clients and their accounts: openings, money, rows, claims on them."""

from __future__ import annotations

from market import PASSER_BY, enclave
from market_actions import AMOUNTS, HONEST, KEYS, VALUES, WHICH, Actors, action
from pytoniq_core import Cell, begin_cell

from scripts.stage import HOUR, NO_HASH, TERMS, TON, key_of
from wrappers import claims, escrow, escrow_rare
from wrappers.receipts import Receipt
from wrappers.signed import sign


class Clients(Actors):
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
