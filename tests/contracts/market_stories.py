"""What chance seldom puts together: some steps in their order, each held to the references like any other."""

from __future__ import annotations

from market_actions import WHICH, action
from market_clients import Clients
from market_operators import Operators

from scripts.stage import DAY, HOUR, TON


class Stories(Clients, Operators):
    @action(1, which=WHICH, at=WHICH, key=range(2))
    def outlive_a_key(self, which: int, at: int, key: int) -> None:
        """A row is claimed on under two keys, and its owner gives up the first."""
        if self.m.node(at) is None or self.m.escrow(which) is None:
            return
        self.allot(which, at, TON // 2, 3 * HOUR, False, True, TON)
        self.raise_row(which, at, TON // 2, True, TON)
        for each in (key, key + 1):
            self.verdict(at, each, DAY, True, True, True)
            self.claim_receipt(which, at, each, TON // 100, 1, TON, True)
        self.seldom(which, at, key, True, TON, "give up")

    @action(1, which=WHICH, at=WHICH, key=range(3), end=["deliver", "deliver", "finish"])
    def deliver_a_job(self, which: int, at: int, key: int, end: str) -> None:
        """A job is ordered, accepted, done, and taken."""
        if self.m.node(at) is None or self.m.escrow(which) is None:
            return
        self.verdict(at, key, DAY, True, True, True)
        self.top_up(which, 3 * TON, "op")
        before = {account for account in self.m.jobs if self.m.job(account) is not None}
        for index in range(2):
            self.order_job(which, index, TON // 2, TON, HOUR, True, TON)
        for account in sorted({account for account in self.m.jobs if self.m.job(account) is not None} - before):
            for act in ("accept", "post", end):
                living = [job for job in self.m.jobs if self.m.job(job) is not None]
                if account in living:
                    self.job(living.index(account), at, act, False, True, TON)

    @action(1, at=WHICH, payout=WHICH, what=["payout", "payout", "controller"])
    def hand_over(self, at: int, payout: int, what: str) -> None:
        """An offer, and its taking before anything else happens."""
        for act in (f"offer {what}", f"accept {what}"):
            self.operate(at, TON, True, payout, 0, act)

    @action(1, at=WHICH, key=range(3), value=[TON // 1000, TON // 4])
    def tend(self, at: int, key: int, value: int) -> None:
        """A price offer comes and goes; more stake, with enough money or too little."""
        for act in ("offer", "drop"):
            self.operate(at, TON, True, 0, key, act)
        self.operate(at, value, True, 0, key, "top up")

    @action(1, at=WHICH, sure=range(3))
    def leave_and_return(self, at: int, sure: int) -> None:
        """An operator waits for his stake, and opens a node at the same address."""
        if sure:
            return
        self.operate(at, TON, True, 0, 0, "unbond")
        state = self.m.node(at)
        if state is not None and state.withdrawable_at is not None:
            self.until(state.withdrawable_at)
            self.operate(at, TON, True, 0, 0, "withdraw")
        self.open_node(at, 12 * TON)
