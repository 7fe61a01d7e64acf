"""Holds every transaction of a trace to the references, and counts which messages were ever taken and refused."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import market_escrow
import market_job
import market_node
from market_model import Arrival, Outcome, Refusal, Rent

from chain.api import Status, Transaction
from devnet.ledger import Ledger
from devnet.trace import Trace
from wrappers.escrow import EscrowState
from wrappers.fees import Fees
from wrappers.job import JobState
from wrappers.node import NodeState
from wrappers.ops import Op
from wrappers.registry import RegistryState

NO_GAS, NOT_PARSED = -14, 9
EXTERNAL, PLAIN, BOUNCED, ENDED_BY_RENT, IN_DEBT = "claim", "money", "bounced", "rent", "debt"
FREEZE_DUE = 100_000_000
"""Of configuration parameter 21: an account that owes more is frozen."""
STEPS = {
    EscrowState: market_escrow.step,
    NodeState: market_node.step,
    JobState: market_job.step,
    RegistryState: market_job.registry_step,
}
NAMES = {EscrowState: "escrow", NodeState: "node", JobState: "job", RegistryState: "registry"}


def parsed(data: Any, account: bytes) -> Any:
    """State of a child; None for a stub."""
    for parse in (
        lambda: EscrowState.from_cell(data, account),
        lambda: NodeState.from_cell(data),
        lambda: JobState.from_cell(data),
    ):
        try:
            return parse()
        except ValueError:
            continue
    raise AssertionError("a child in no known state")


@dataclass
class Checker:
    ledger: Ledger
    registry: bytes
    others: dict[bytes, str]
    """Contracts whose messages are counted but not modelled, by account."""
    network: bytes
    taken: Counter[tuple[str, str]] = field(default_factory=Counter)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    codes: Counter[tuple[str, str, int | None]] = field(default_factory=Counter)
    states: dict[bytes, Any] = field(default_factory=dict)
    balances: dict[bytes, int] = field(default_factory=dict)
    rent_paid: dict[bytes, int] = field(default_factory=dict)
    children: set[bytes] = field(default_factory=set)

    def begin(self, children: set[bytes]) -> None:
        """Takes what is on the chain now for the truth."""
        self.children = set(children)
        self.rent_paid.clear()
        self.states.clear()
        self.balances.clear()
        self._reread((self.registry, *children))

    def forget(self, account: bytes) -> None:
        """The account is gone, by no message of ours."""
        self.states.pop(account, None)
        self.balances.pop(account, None)
        self.rent_paid.pop(account, None)

    def _reread(self, accounts: tuple[bytes, ...]) -> None:
        for account in accounts:
            chain = self.ledger.account(account)
            self.states.pop(account, None)
            self.balances.pop(account, None)
            if chain.status is Status.ACTIVE and chain.data is not None:
                state = RegistryState.from_cell(chain.data) if account == self.registry else parsed(chain.data, account)
                if state is not None:
                    self.states[account], self.balances[account] = state, chain.balance_nano

    def check(self, trace: Trace, fees: Fees) -> None:
        touched: dict[bytes, bool] = {}
        for tx in trace.transactions:
            if tx.account in self.children or tx.account == self.registry:
                exact = self._follow(tx, fees)
                touched[tx.account] = touched.get(tx.account, True) and exact
            elif tx.account in self.others:
                self._count(self.others[tx.account], _name(tx), tx, tx.in_msg is not None and _passed(tx))
        for account, exact in touched.items():
            self._compare(account, exact)

    def _compare(self, account: bytes, exact: bool) -> None:
        chain, state = self.ledger.account(account), self.states.get(account)
        if state is None:
            assert chain.status is not Status.ACTIVE or parsed(chain.data, account) is None, (
                "the account should have ended"
            )
            return
        assert chain.status is Status.ACTIVE and chain.data is not None, f"{chain.status}: the account has ended"
        if state.to_cell().hash != chain.data.hash:
            now = RegistryState.from_cell(chain.data) if account == self.registry else parsed(chain.data, account)
            raise AssertionError(f"the reference says\n{state}\nthe chain\n{now}")
        if exact:
            assert chain.balance_nano == self.balances[account], (
                f"G1: balance off by {chain.balance_nano - self.balances[account]}"
            )
        self.balances[account] = chain.balance_nano

    def _follow(self, tx: Transaction, fees: Fees) -> bool:
        """Moves the reference along; whether it knows the balance to the nanoTON."""
        message, account = tx.in_msg, tx.account
        assert message is not None
        state = self.states.get(account)
        if state is None:
            return self._birth(tx, fees)
        kind, name = NAMES[type(state)], _name(tx)
        rent = Rent.of(tx)
        self.rent_paid[account] = self.rent_paid.get(account, 0) + rent.collected
        base, seen = rent.split(self.balances[account], message.value_nano)
        if rent.due or seen < message.value_nano:
            self._count(kind, IN_DEBT, tx, True)
        if rent.ends:
            self._count(kind, ENDED_BY_RENT, tx, True)
            assert rent.due > FREEZE_DUE and tx.exit_code is None, "G9: an account ends by rent where its debt is large"
            self.forget(account)
            return True
        a = self._arrival(tx, base, seen, fees)
        passed = _passed(tx)
        code: int | None = None
        try:
            outcome: Outcome | None = STEPS[type(state)](state, a)  # type: ignore[operator]
        except Refusal as refusal:
            outcome, code = None, refusal.code
        except Exception as error:  # a body that does not parse
            if passed:
                raise
            outcome, code = None, 9
            assert "parse" in str(error) or error, name
        self._count(kind, name, tx, passed)
        if not passed:
            opening = type(state) is RegistryState and name.startswith("open_")
            short = (
                tx.exit_code in (None, NO_GAS)
                or tx.action_code not in (None, 0)
                or (tx.exit_code or 0) == -(NO_GAS + 1)
            )
            assert outcome is None or short or opening, (
                f"{kind}.{name}: refused with {tx.exit_code}, the reference takes it"
            )
            if code is not None and not short and tx.exit_code != NOT_PARSED:
                assert code == tx.exit_code, f"{kind}.{name}: refused with {tx.exit_code}, the reference says {code}"
            returned = any(out.bounced for out in tx.out_msgs)
            self.balances[account] = base if returned else a.all_kept
            return True
        assert outcome is not None, f"{kind}.{name}: taken, the reference refuses with {code}"
        for body in outcome.bodies:
            assert body in {bytes(out.body.hash) for out in tx.out_msgs}, f"{kind}.{name}: did not send what it must"
        if outcome.state is None:
            self.forget(account)
            return True
        self.states[account] = outcome.state
        self.balances[account] = base if outcome.balance is None else outcome.balance
        return outcome.balance is not None

    def _birth(self, tx: Transaction, fees: Fees) -> bool:
        message = tx.in_msg
        assert message is not None
        after = self.ledger.account(tx.account)
        if message.source != self.registry or _name(tx) != "init" or after.data is None:
            return True
        state = parsed(after.data, tx.account)
        assert state is not None, "init never fails for a genuine registry"
        born = {EscrowState: market_escrow.born, NodeState: market_node.born, JobState: market_job.born}[type(state)]
        a = self._arrival(tx, 0, message.value_nano, fees)
        self.rent_paid.pop(tx.account, None)
        self.states[tx.account] = born(a, state)  # type: ignore[operator]
        self.balances[tx.account] = after.balance_nano
        self._count(NAMES[type(state)], "birth", tx, True)
        return False

    def _arrival(self, tx: Transaction, base: int, value: int, fees: Fees) -> Arrival:
        message = tx.in_msg
        assert message is not None
        gas = fees.prices.gas(tx.gas_used) if tx.exit_code is not None else 0
        body = message.body
        return Arrival(
            tx.account,
            message.source,
            value,
            body,
            message.bounced,
            base,
            gas,
            tx.now,
            tx.lt,
            fees,
            self.network,
        )

    def _count(self, kind: str, name: str, tx: Transaction, passed: bool) -> None:
        (self.taken if passed else self.refused)[kind, name] += 1
        if not passed:
            self.codes[kind, name, tx.exit_code] += 1


def _passed(tx: Transaction) -> bool:
    return tx.exit_code in (0, 1) and tx.action_code in (None, 0) and not tx.aborted


def _name(tx: Transaction) -> str:
    message = tx.in_msg
    assert message is not None
    if message.external:
        return EXTERNAL
    if message.bounced:
        return BOUNCED
    if len(message.body.bits) < 32:
        return PLAIN
    op = message.body.begin_parse().load_uint(32)
    if op == 0:
        return PLAIN
    try:
        return Op(op).name.lower()
    except ValueError:
        return "unknown"
