"""Bookkeeping of a demonstration, read back from the chain: what every step moved and what it cost, to the nanoTON.

Fees are what left the balances of all parties together, so nothing can be forgotten: an account that ended (a closed
escrow) has no readable last transaction, but its balance is in the sum.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from chain.api import Chain, Transaction
from chain.follower import AccountFollower, AccountGone

QUIET_SECONDS = 0.6
"""Longer than the devnet takes from one block to the next while messages are on their way."""
QUIET_LIMIT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `moved_nano`: change of balance by party, zero changes left out. `gas`: of readable transactions."""

    title: str
    moved_nano: Mapping[str, int]
    gas: int
    transactions: tuple[Transaction, ...]

    @property
    def fees_nano(self) -> int:
        return -sum(self.moved_nano.values())


class NotQuiet(Exception):
    """Messages were still on their way when a step was to be booked."""


@dataclass(slots=True)
class Books:
    """`parties`: name -> account. Every account that money can go to must be among them, else it looks like a fee."""

    chain: Chain
    parties: Mapping[str, bytes]
    steps: list[Step] = field(default_factory=list)
    _balances: dict[str, int] = field(default_factory=dict)
    _followers: dict[str, AccountFollower] = field(default_factory=dict)

    async def open(self) -> None:
        """Begin here: what happened before is not booked."""
        for name, account in self.parties.items():
            self._followers[name] = await AccountFollower.from_now(self.chain, account)
        self._balances = await self._quiet_balances()

    async def book(self, title: str) -> Step:
        """Everything since the last step, once nothing moves any more. Raises NotQuiet, ChainError."""
        balances = await self._quiet_balances()
        moved = {name: balances[name] - self._balances[name] for name in self.parties}
        seen: list[Transaction] = []
        for follower in self._followers.values():
            try:
                seen += await follower.poll()
                while not follower.caught_up and follower.state is not None and follower.state.last_lt:
                    seen += await follower.poll()
            except AccountGone:
                follower.restart()
        self._balances = balances
        step = Step(
            title,
            {name: nano for name, nano in moved.items() if nano},
            sum(transaction.gas_used for transaction in seen),
            tuple(sorted(seen, key=lambda one: one.lt)),
        )
        self.steps.append(step)
        return step

    @property
    def fees_nano(self) -> int:
        return sum(step.fees_nano for step in self.steps)

    def moved_nano(self, party: str) -> int:
        return sum(step.moved_nano.get(party, 0) for step in self.steps)

    async def _quiet_balances(self) -> dict[str, int]:
        before = await self._read()
        for _ in range(int(QUIET_LIMIT_SECONDS / QUIET_SECONDS)):
            await asyncio.sleep(QUIET_SECONDS)
            now = await self._read()
            if now == before:
                return {name: balance for name, (balance, _) in now.items()}
            before = now
        raise NotQuiet(
            f"balances still moved after {QUIET_LIMIT_SECONDS:.0f} s: is something else using these wallets?"
        )

    async def _read(self) -> dict[str, tuple[int, int]]:
        states = await asyncio.gather(*(self.chain.account(account) for account in self.parties.values()))
        return {name: (state.balance_nano, state.last_lt) for name, state in zip(self.parties, states, strict=True)}
