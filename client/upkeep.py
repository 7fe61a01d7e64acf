"""What an owner seldom does with his escrow: another voucher key, an enclave key given up, shares sent, a row ended.

Each has a plan: what it will do and what it costs, in words, for whoever is asked before it is done.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from client.errors import BadRequest
from client.home import Home
from client.money import Money
from client.payments import MARGIN_NANO, Paid
from client.records import Escrow
from wrappers import escrow_rare as rare
from wrappers.escrow import EscrowState
from wrappers.fees import Fees
from wrappers.rows import ENDED, Row

NANO = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Act:
    """A message that is ready, and what it means. `need_nano`: fees at most; what is not used comes back."""

    body: Cell
    need_nano: int
    says: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """Raises BadRequest where the chain's state does not allow it, else what Money raises."""

    money: Money
    home: Home

    async def act(self, command: str, now: int, node: bytes | None = None, key: bytes | None = None) -> Paid:
        """`now`: the chain's."""

        def choose(known: Escrow, state: EscrowState, need: Fees) -> tuple[Cell, int]:
            found = self._choose(command, known, state, need, now, node, key)
            return found.body, found.need_nano

        return await self.money.act(command, choose)

    async def due(self, now: int) -> tuple[str, ...]:
        """Of what the owner began, what can be ended at `now`: `rotate-voucher-key`, `finish`. Raises NoEscrow."""
        known, state = await self.money.escrow()
        following = state.next_key
        ripe = following is not None and now >= following.ready_at
        mine = ripe and following is not None and self.home.holds_next_voucher_key(known.number, following.key)
        over = any(row.closing_at and now > row.closing_at for row in state.rows.values())
        return (*(("rotate-voucher-key",) if mine else ()), *(("finish",) if over else ()))

    async def plan(
        self, command: str, now: int, node: bytes | None = None, key: bytes | None = None
    ) -> tuple[str, ...]:
        """What `act` would do, in words. Nothing is sent; a next voucher key may be made."""
        known, state = await self.money.escrow()
        need = await self.money.fees()
        if command == "close":
            return _close(known, state, need, now)
        found = self._choose(command, known, state, need, now, node, key)
        return (*found.says, _cost(found.need_nano))

    def _choose(
        self,
        command: str,
        known: Escrow,
        state: EscrowState,
        need: Fees,
        now: int,
        node: bytes | None,
        key: bytes | None,
    ) -> Act:
        if command == "rotate-voucher-key":
            return self._rotate(known, state, need, now)
        if command == "return-rent":
            says = "What is kept for rent beyond ten years from now becomes deposit."
            return Act(rare.return_rent(), need.return_rent(), (says,))
        if node is None:
            raise BadRequest("no node is named", "name it, see `cocoon client balance`")
        row = state.rows.get(node)
        if row is None:
            raise BadRequest(f"nothing is allotted to node {node.hex()}", "see `cocoon client balance`")
        if command == "shares":
            return _shares(node, row, need)
        if command == "reclaim":
            return _reclaim(node, row, need)
        if command == "give-up-key" and key is not None:
            return _give_up(node, row, key, need)
        raise BadRequest(f"unknown command {ascii(command)[:40]}", "see `cocoon client --help`")

    def _rotate(self, known: Escrow, state: EscrowState, need: Fees, now: int) -> Act:
        """The first time proposes a key, the second time, when it is ready, puts it in place."""
        key = self.home.next_voucher_key(known.number).public_key().public_bytes_raw()
        if state.next_key is not None and state.next_key.key == key:
            if now < state.next_key.ready_at:
                raise BadRequest(
                    f"key {key.hex()} waits until {state.next_key.ready_at}, it is {now}", "come back then"
                )
            says = f"Voucher key {key.hex()} replaces {state.voucher_key.hex()}, whose vouchers are worth nothing then."
            return Act(rare.apply_voucher_key(), need.apply_voucher_key(), (says,))
        waits = state.max_close_timer
        return Act(
            rare.rotate_voucher_key(key),
            need.rotate_voucher_key(),
            (
                f"A new voucher key, {key.hex()}, is in the client's folder: back it up.",
                f"It may replace the present one {waits} s from now, by `cocoon client rotate-voucher-key` once more.",
                "From then on what the present key signed is worth nothing: nodes claim before, and end their service"
                " for this escrow shortly before until the new key is in place.",
            ),
        )


def _shares(node: bytes, row: Row, need: Fees) -> Act:
    if row.terms.shares is None or not row.accrued_nano:
        raise BadRequest(f"no shares wait in the row of node {node.hex()}", "they gather from its payments")
    says = f"{_ton(row.accrued_nano)} of shares leave the row of node {node.hex()} for those they belong to."
    return Act(rare.pay_shares(node), need.pay_shares(), (says,))


def _reclaim(node: bytes, row: Row, need: Fees) -> Act:
    if row.closing_at:
        raise BadRequest(f"the row of node {node.hex()} is closing already", "run `cocoon client finish` at its time")
    left = row.allotted_nano - row.paid_nano
    return Act(
        rare.reclaim(node),
        need.reclaim(),
        (
            f"The close timer of node {node.hex()} starts: {row.terms.close_timer} s. It serves you no more.",
            f"What it has not claimed by then, at most {_ton(left)}, is free again by `cocoon client finish`.",
        ),
    )


def _give_up(node: bytes, row: Row, key: bytes, need: Fees) -> Act:
    known = row.keys.get(key)
    if known is None:
        keys = ", ".join(one.hex() for one in row.keys if one != row.current_key) or "none"
        raise BadRequest(f"the row knows no key {key.hex()}", f"keys that it can forget: {keys}")
    if key == row.current_key:
        raise BadRequest("the row's present key cannot be given up", "it can be when its node has another")
    return Act(
        rare.give_up_key(node, key),
        need.give_up_key(),
        (
            f"The row of node {node.hex()} forgets key {key.hex()}, and that it was paid {_ton(known.paid_nano)}.",
            f"Whoever still holds that key could claim what you signed for it anew: up to {_ton(known.cap_nano)}.",
            "Do it only for a key that its node has retired and whose claim window is over.",
        ),
    )


def _close(known: Escrow, state: EscrowState, need: Fees, now: int) -> tuple[str, ...]:
    says = [f"Escrow {known.account.hex()} ends. {_ton(state.free_nano)} that is free comes back at once."]
    for node, row in state.rows.items():
        left = _ton(row.allotted_nano - row.paid_nano)
        if row.closing_at == ENDED:
            says.append(f"Node {node.hex()}: its shares leave first, by `cocoon client finish`.")
        else:
            at = row.closing_at or now + row.terms.close_timer
            says.append(f"Node {node.hex()}: {left}, less what it still claims, at once if it releases, else at {at}.")
    return (*says, _cost(need.close(len(state.rows))))


def _cost(need_nano: int) -> str:
    return f"It costs at most {_ton(need_nano)}; {_ton(need_nano + MARGIN_NANO)} is sent, the rest comes back."


def _ton(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d} TON"
