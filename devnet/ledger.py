"""Accounts and a message queue in memory: synchronous, repeatable to the bit, no blocks. The tool of contract tests.

Every rule of the chain (fees, gas, rent, bounces, limits) is the emulator's under mainnet's configuration. What it does
not model: other workchains, validators, and any delay between a message and its delivery.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import AccountState, Message, Status, Transaction
from chain.decode import decode_message, decode_transaction
from devnet.accounts import NO_SHARD_ACCOUNT, ZERO_HASH, StoredAccount, credited
from devnet.engine import DevnetError, Engine, GetResult, NotAccepted, Outcome, PrevBlocks, StackValue
from devnet.mcblocks import McBlocks, SyntheticBlocks
from devnet.messages import decode_external_in, internal, is_internal, transaction_messages
from devnet.network import DEVNET_GLOBAL_ID, config_cell
from devnet.trace import Trace

# Logical times of mainnet's present: tonpy switches to old TVM rules below 3.7e12.
FIRST_LT = 50_000_000_000_000
MAX_DELIVERIES = 20_000
NO_CODE = -256


class Rejected(DevnetError):
    """An external message was not accepted: no transaction, nothing charged."""

    def __init__(self, exit_code: int | None, reason: str) -> None:
        super().__init__(reason)
        self.exit_code = exit_code
        """None where the code ended without accepting or there was none to run."""
        self.reason = reason


class GetMethodFailed(DevnetError):
    def __init__(self, account: bytes, method: str, exit_code: int) -> None:
        super().__init__(f"get method {method} of 0:{account.hex()} ended with exit code {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Pending:
    """An internal message on its way."""

    cell: Cell
    message: Message


@dataclass(frozen=True, slots=True)
class Snapshot:
    accounts: dict[bytes, StoredAccount]
    transactions: dict[bytes, list[Transaction]]
    queue: tuple[Pending, ...]
    now: int
    lt: int


@dataclass(slots=True)
class _Run:
    """One trace in the making."""

    transactions: list[Transaction]
    balances_before: dict[bytes, int]
    queued_before_nano: int
    fees_nano: int = 0
    minted_nano: int = 0
    left_nano: int = 0


class Ledger:
    def __init__(self, *, global_id: int = DEVNET_GLOBAL_ID, now: int = 1_790_000_000) -> None:
        """`now`: unix seconds of the chain. `global_id`: parameter 19 of the configuration, what GLOBALID returns."""
        self.global_id = global_id
        self.config: Cell = config_cell(global_id)
        self.lt = FIRST_LT
        self.mc_blocks: McBlocks = SyntheticBlocks()
        """Source of PREVMCBLOCKS and PREVMCBLOCKS_100; `mc_blocks.at(now)` lists what a transaction sees."""
        self.transactions: dict[bytes, list[Transaction]] = {}
        """Per account, oldest first."""
        self.queue: deque[Pending] = deque()
        """Messages not delivered yet, in order of delivery."""
        self._now = now
        self._accounts: dict[bytes, StoredAccount] = {}
        self._engine = Engine(self.config)

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        if value < self._now:
            raise DevnetError(f"chain time cannot go back from {self._now} to {value}; revert to a snapshot instead")
        if value >> 32:
            raise DevnetError(f"chain time is a number of 32 bits: {value} is past 2106; travel less far")
        self._now = value

    @property
    def prev_blocks(self) -> PrevBlocks:
        """Masterchain blocks that a transaction would see now, newest first."""
        return self.mc_blocks.at(self._now)

    @property
    def accounts(self) -> dict[bytes, StoredAccount]:
        """Every account that exists. For reading; the ledger replaces values, never changes them."""
        return self._accounts

    def faucet(self, account: bytes, amount_nano: int) -> None:
        """Credit at once, without a transaction and without fees; creates an uninitialized account."""
        if amount_nano <= 0:
            raise DevnetError(f"the faucet gives a positive amount, not {amount_nano} nanoTON")
        self._accounts[account] = credited(self._accounts.get(account), account, amount_nano, self._now)

    def send_external(self, message: Cell, *, run: bool = True) -> Trace:
        """Execute an inbound external message (`Message Any` cell), then (`run`) everything that follows, to quiet.

        Raises Rejected where the account does not accept it: then nothing has changed.
        """
        header = decode_external_in(message)
        trace = self._begin()
        self._execute(trace, message, header)
        if run:
            self._deliver(trace, None)
        return self._finish(trace)

    def estimate(self, message: Cell, *, ignore_signatures: bool = False) -> Transaction:
        """The transaction that an inbound external message would cause now. Changes nothing. Raises Rejected."""
        header = decode_external_in(message)
        assert header.destination is not None
        outcome = self._transact(header.destination, message, ignore_signatures=ignore_signatures)
        if isinstance(outcome, NotAccepted):
            raise Rejected(outcome.exit_code, self._reason(header.destination, outcome.exit_code))
        return decode_transaction(outcome.transaction, header.destination)

    def send_internal(
        self,
        *,
        source: bytes,
        destination: bytes,
        value_nano: int,
        body: Cell | None = None,
        state_init: Cell | None = None,
        bounce: bool = True,
        bounced: bool = False,
        run: bool = True,
    ) -> Trace:
        """Inject a message that claims to come from `source`. Its value comes from nowhere: `Trace.minted_nano`."""
        self.lt += 1
        cell = internal(
            source=source,
            destination=destination,
            value_nano=value_nano,
            body=body,
            state_init=state_init,
            bounce=bounce,
            bounced=bounced,
            lt=self.lt,
            now=self._now,
        )
        trace = self._begin()
        trace.minted_nano += value_nano
        self.queue.append(Pending(cell, decode_message(cell)))
        if run:
            self._deliver(trace, None)
        return self._finish(trace)

    def run(self, limit: int | None = None) -> Trace:
        """Deliver queued messages in order of logical time, and what they cause: all, or `limit` messages."""
        trace = self._begin()
        self._deliver(trace, limit)
        return self._finish(trace)

    def account(self, account: bytes) -> AccountState:
        stored = self._accounts.get(account)
        return AccountState(account, Status.ABSENT, 0, None, None, 0, ZERO_HASH) if stored is None else stored.state

    def balance(self, account: bytes) -> int:
        return self.account(account).balance_nano

    def run_get(self, account: bytes, method: str, *args: int | Cell) -> list[StackValue]:
        """Stack that the get method leaves, bottom first. Raises GetMethodFailed; DevnetError without code to run."""
        result = self.get_result(account, method, list(args))
        if result.exit_code == NO_CODE:
            status = self.account(account).status
            raise DevnetError(f"account 0:{account.hex()} is {status}: it has no code to run {method} on")
        if result.exit_code not in (0, 1):
            raise GetMethodFailed(account, method, result.exit_code)
        return result.stack

    def get_result(self, account: bytes, method: str | int, stack: Sequence[StackValue]) -> GetResult:
        """Run a get method by name or id; exit code NO_CODE where the account has no code, as a liteserver says it."""
        return self.get_result_of(self.account(account), method, stack)

    def get_result_of(self, state: AccountState, method: str | int, stack: Sequence[StackValue]) -> GetResult:
        """The same on a state of the account's past; the clock and the blocks are the present's."""
        if state.code is None or state.data is None:
            return GetResult(NO_CODE, [], 0)
        return self._engine.run_get(
            state.code,
            state.data,
            account=state.account,
            balance_nano=state.balance_nano,
            method=method,
            stack=stack,
            now=self._now,
            prev_blocks=self.prev_blocks,
            lt=self.lt,
        )

    def snapshot(self) -> Snapshot:
        transactions = {account: list(history) for account, history in self.transactions.items()}
        return Snapshot(dict(self._accounts), transactions, tuple(self.queue), self._now, self.lt)

    def revert(self, snapshot: Snapshot) -> None:
        """Back to `snapshot`, time included. A snapshot may be used any number of times."""
        self._accounts = dict(snapshot.accounts)
        self.transactions = {account: list(history) for account, history in snapshot.transactions.items()}
        self.queue = deque(snapshot.queue)
        self._now = snapshot.now
        self.lt = snapshot.lt

    def restore(self, accounts: dict[bytes, StoredAccount], queue: Sequence[Pending], *, now: int, lt: int) -> None:
        """Take over accounts, messages on their way and clocks that were saved; histories are the caller's."""
        self._accounts = dict(accounts)
        self.queue = deque(queue)
        self._now = now
        self.lt = lt

    def _begin(self) -> _Run:
        return _Run([], {}, sum(pending.message.value_nano for pending in self.queue))

    def _finish(self, run: _Run) -> Trace:
        before = sum(run.balances_before.values()) + run.queued_before_nano + run.minted_nano
        after = sum(self.balance(account) for account in run.balances_before) + run.left_nano
        after += sum(pending.message.value_nano for pending in self.queue)
        return Trace(tuple(run.transactions), run.fees_nano, run.minted_nano, run.left_nano, before - after)

    def _deliver(self, run: _Run, limit: int | None) -> None:
        delivered = 0
        while self.queue and delivered != limit:
            if delivered >= MAX_DELIVERIES:
                raise DevnetError(
                    f"{MAX_DELIVERIES} messages delivered and no end: contracts answer each other for ever"
                )
            pending = self.queue.popleft()
            delivered += 1
            if pending.message.destination is None:
                run.left_nano += pending.message.value_nano
            else:
                self._execute(run, pending.cell, pending.message)

    def _transact(self, account: bytes, cell: Cell, *, ignore_signatures: bool = False) -> Outcome:
        stored = self._accounts.get(account)
        return self._engine.transact(
            NO_SHARD_ACCOUNT if stored is None else stored.shard,
            cell,
            now=self._now,
            lt=self.lt + 1,
            prev_blocks=self.prev_blocks,
            ignore_signatures=ignore_signatures,
        )

    def _execute(self, run: _Run, cell: Cell, header: Message) -> None:
        account = header.destination
        assert account is not None
        stored = self._accounts.get(account)
        outcome = self._transact(account, cell)
        if isinstance(outcome, NotAccepted):
            if not header.external:
                raise DevnetError(
                    f"the emulator refused an internal message to 0:{account.hex()}: {outcome.log[-300:]}"
                )
            raise Rejected(outcome.exit_code, self._reason(account, outcome.exit_code))
        run.balances_before.setdefault(account, 0 if stored is None else stored.state.balance_nano)
        tx = decode_transaction(outcome.transaction, account)
        after = StoredAccount.of(outcome.shard_account, account)
        if after is None:
            self._accounts.pop(account, None)
        else:
            self._accounts[account] = after
        self.transactions.setdefault(account, []).append(tx)
        run.transactions.append(tx)
        # A transaction takes one logical time for itself and one for each message that it sends.
        self.lt = tx.lt + len(tx.out_msgs)
        run.fees_nano += tx.total_fees_nano
        for out_cell, message in zip(transaction_messages(tx.cell)[1], tx.out_msgs, strict=True):
            if is_internal(out_cell):
                run.fees_nano += message.forward_fee_nano
                self.queue.append(Pending(out_cell, message))

    def _reason(self, account: bytes, exit_code: int | None) -> str:
        name = f"0:{account.hex()}"
        if exit_code is not None:
            return f"{name} did not accept the external message: exit code {exit_code}"
        status = self.account(account).status
        if status is Status.ABSENT:
            return f"{name} does not exist: nothing can pay for an external message; send it some TON first"
        return f"{name} ({status}) ended without accepting the external message; see its code and the state init sent"
