"""The devnet's chain: the ledger, the blocks around it, messages waiting for the next block, and the clock.

Synchronous and without input or output; `devnet.node` drives it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import BlockId, Transaction
from devnet.accounts import StoredAccount
from devnet.augmented import AugTree, key_bits
from devnet.blocks import BASECHAIN, MASTERCHAIN, Block, BlockBuilder, Round, empty_accounts
from devnet.engine import DevnetError, PrevBlocks
from devnet.ledger import Ledger, Rejected, Snapshot
from devnet.mcblocks import SEEN_BLOCKS, SPARSE_STEP
from devnet.network import DEVNET_GLOBAL_ID
from devnet.saved import Saved

KEPT_ROUNDS = 2_000
"""Blocks, states and proofs are served for this many rounds; ids of every 100th block and all transactions last."""
# So that PREVMCBLOCKS_100 has something to show from the first moment.
FIRST_ROUNDS = SPARSE_STEP + SEEN_BLOCKS
DELIVERIES_PER_BLOCK = 2_000
FAUCET = bytes(32)


@dataclass(frozen=True, slots=True)
class ChainSnapshot:
    ledger: Snapshot
    accounts: AugTree
    rounds: tuple[Round, ...]
    sparse: tuple[BlockId, ...]
    located: dict[bytes, BlockId]
    offset_seconds: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """An external message that was taken in and that the account refused when its turn came."""

    message_hash: bytes
    reason: str


class DevnetChain:
    def __init__(
        self,
        *,
        global_id: int = DEVNET_GLOBAL_ID,
        clock: Callable[[], float] = time.time,
        kept_rounds: int = KEPT_ROUNDS,
    ) -> None:
        self.clock = clock
        self.offset_seconds = 0
        self.ledger = Ledger(global_id=global_id, now=int(clock()) - FIRST_ROUNDS)
        self.rounds: dict[int, Round] = {}
        """By seqno, oldest first."""
        self.mempool: deque[Cell] = deque()
        self.dropped: deque[Dropped] = deque(maxlen=100)
        self.located: dict[bytes, BlockId] = {}
        """Transaction hash, and hash of its inbound message -> its workchain-0 block."""
        self.changed: set[bytes] = set()
        """Accounts touched since the last block, for whoever persists them."""
        self.kept_rounds = kept_rounds
        self._awaited = 0
        self._accounts = empty_accounts()
        self._sparse: deque[BlockId] = deque()
        self._builder = BlockBuilder(global_id, self.ledger.config)
        self._seen: PrevBlocks | None = None

    @classmethod
    def born(
        cls,
        *,
        global_id: int = DEVNET_GLOBAL_ID,
        clock: Callable[[], float] = time.time,
        kept_rounds: int = KEPT_ROUNDS,
    ) -> DevnetChain:
        """A new chain with its first FIRST_ROUNDS rounds, one a second up to now."""
        chain = cls(global_id=global_id, clock=clock, kept_rounds=kept_rounds)
        chain._keep(chain._builder.genesis(chain.ledger.now, chain.ledger.lt, chain._accounts))
        chain.ledger.mc_blocks = chain
        for _ in range(FIRST_ROUNDS):
            chain.ledger.now += 1
            chain._seal(())
        return chain

    @classmethod
    def restored(
        cls,
        saved: Saved,
        *,
        global_id: int = DEVNET_GLOBAL_ID,
        clock: Callable[[], float] = time.time,
        kept_rounds: int = KEPT_ROUNDS,
    ) -> DevnetChain:
        """A chain that goes on where `saved` ended. States, and so proofs, exist from its last round on.

        Raises DevnetError where the saved accounts do not hash to what the last block says.
        """
        chain = cls(global_id=global_id, clock=clock, kept_rounds=kept_rounds)
        chain.offset_seconds = saved.offset_seconds
        by_round: dict[int, list[Transaction]] = {}
        for tx, seqno in saved.transactions:
            by_round.setdefault(seqno, []).append(tx)
            chain.ledger.transactions.setdefault(tx.account, []).append(tx)
            chain._locate(tx, saved.ids[seqno][1])
        for account, stored in saved.accounts.items():
            chain._accounts = chain._accounts.set(key_bits(account), stored.shard, stored.state.balance_nano)
        chain.ledger.restore(saved.accounts, saved.queue, now=saved.now, lt=saved.lt)
        chain.ledger.mc_blocks = chain
        chain._sparse.extend(ids[0] for seqno, ids in sorted(saved.ids.items()) if seqno % SPARSE_STEP == 0)
        for kept in saved.rounds:
            chain.rounds[kept.seqno] = chain._builder.stateless(
                kept.master,
                kept.shard,
                tuple(by_round.get(kept.seqno, ())),
                kept.master_id,
                kept.shard_id,
                now=kept.now,
                start_lt=kept.start_lt,
                end_lt=kept.end_lt,
            )
        last = chain.head.master.seqno
        chain.rounds[last] = chain._builder.with_states(chain.rounds[last - 1], chain.rounds[last], chain._accounts)
        return chain

    @property
    def head(self) -> Round:
        return self.rounds[next(reversed(self.rounds))]

    @property
    def genesis_id(self) -> BlockId:
        """The masterchain's zero state."""
        return self._sparse[0]

    def now(self) -> int:
        """Chain time: real time plus what was travelled; never behind the last block."""
        return max(int(self.clock()) + self.offset_seconds, self.ledger.now)

    def at(self, now: int) -> PrevBlocks:
        """What PREVMCBLOCKS and PREVMCBLOCKS_100 show to the block in the making."""
        if self._seen is None or self._seen.last[0].seqno != self.head.master.seqno:
            last = []
            for seqno in reversed(self.rounds):
                last.append(self.rounds[seqno].master.id)
                if len(last) == SEEN_BLOCKS:
                    break
            hundreds = tuple(self._sparse)[: -SEEN_BLOCKS - 1 : -1]
            self._seen = PrevBlocks(tuple(last), self.genesis_id, hundreds)
        return self._seen

    def submit(self, message: Cell) -> bytes:
        """Take an inbound external message for the next block; its hash. Raises Rejected where it would fail now."""
        self.ledger.now = self.now()
        self.ledger.estimate(message)
        if all(waiting.hash != message.hash for waiting in self.mempool):
            self.mempool.append(message)
        return bytes(message.hash)

    def faucet(self, account: bytes, amount_nano: int) -> None:
        """Send `amount_nano` out of nothing from account zero, in the next block."""
        if amount_nano <= 0:
            raise DevnetError(f"the faucet gives a positive amount, not {amount_nano} nanoTON")
        self.ledger.now = self.now()
        self.ledger.send_internal(source=FAUCET, destination=account, value_nano=amount_nano, bounce=False, run=False)

    def advance(self, seconds: int) -> None:
        """Travel in time; the next block is that much later."""
        if seconds < 0:
            raise DevnetError("time goes forward only; revert to a snapshot to go back")
        if (self.now() + seconds) >> 32:
            raise DevnetError(f"{seconds} seconds from now is past 2106, where chain time ends; travel less far")
        self.offset_seconds += seconds

    @property
    def busy(self) -> bool:
        return bool(self.mempool or self.ledger.queue)

    def produce(self) -> Round:
        """Seal a block out of everything that waits."""
        self.ledger.now = self.now()
        transactions: list[Transaction] = []
        for _ in range(len(self.mempool)):
            message = self.mempool.popleft()
            try:
                transactions.extend(self.ledger.send_external(message, run=False).transactions)
            except Rejected as rejected:
                self.dropped.append(Dropped(bytes(message.hash), rejected.reason))
        transactions.extend(self.ledger.run(DELIVERIES_PER_BLOCK).transactions)
        return self._seal(tuple(transactions))

    def find(self, workchain: int, root_hash: bytes) -> Block:
        """Raises DevnetError for a block that is not kept."""
        for block in self.blocks(workchain):
            if block.root_hash == root_hash:
                return block
        raise DevnetError(f"block with root hash {root_hash.hex()} is not kept: the devnet keeps {self.kept_rounds}")

    def blocks(self, workchain: int) -> Iterator[Block]:
        """Newest first."""
        for seqno in reversed(self.rounds):
            yield self.block(workchain, seqno)

    def block(self, workchain: int, seqno: int) -> Block:
        if workchain not in (MASTERCHAIN, BASECHAIN):
            raise DevnetError(f"the devnet has workchains -1 and 0, not {workchain}")
        found = self.rounds.get(seqno)
        if found is None:
            self._await(seqno)
            raise DevnetError(f"block {seqno} does not exist or is not kept (head {self.head.master.seqno})")
        return found.master if workchain == MASTERCHAIN else found.shard

    @property
    def behind(self) -> bool:
        """Whether somebody waits for a block that is still to be made."""
        return self.head.master.seqno < self._awaited

    def _await(self, seqno: int) -> None:
        # Validators never rest, so the next block whose number is divisible by 100 is minutes away at most. Here blocks
        # are made when there is work; to be asked for a block that is due within a hundred is work.
        if seqno <= self.head.master.seqno + SPARSE_STEP:
            self._awaited = max(self._awaited, seqno)

    def first_block(self, workchain: int, reached: Callable[[Block], bool]) -> Block:
        """The oldest kept block for which `reached` holds. Raises DevnetError where there is none."""
        for seqno in self.rounds:
            block = self.block(workchain, seqno)
            if seqno and reached(block):
                return block
        raise DevnetError(f"no kept block is that late (head {self.head.master.seqno})")

    def sparse_id(self, seqno: int) -> BlockId | None:
        """Id of a masterchain block whose seqno is a multiple of 100, however old."""
        index, rest = divmod(seqno, SPARSE_STEP)
        return self._sparse[index] if rest == 0 and 0 <= index < len(self._sparse) else None

    def sparse_ids(self) -> tuple[BlockId, ...]:
        """Ids of all masterchain blocks whose seqno is a multiple of 100, oldest first."""
        return tuple(self._sparse)

    def history(self, account: bytes) -> list[Transaction]:
        """All its transactions, oldest first, those before a deletion included."""
        return self.ledger.transactions.get(account, [])

    def history_from(self, account: bytes, lt: int, limit: int) -> list[Transaction]:
        """Up to `limit` transactions, newest first, from logical time `lt` on back to the account's (re)birth.

        The chain links transactions by previous logical time; the link of the first one after a deletion is 0.
        Raises DevnetError where the account has no transaction at `lt`.
        """
        history = self.history(account)
        index = bisect_left(history, lt, key=lambda tx: tx.lt)
        if index == len(history) or history[index].lt != lt:
            raise DevnetError(f"LITE_SERVER_UNKNOWN: cannot locate transaction with logical time {lt}")
        found = [history[index]]
        while index and found[-1].prev_lt and len(found) < limit:
            index -= 1
            found.append(history[index])
        return found

    def stored_at(self, seqno: int, account: bytes) -> StoredAccount | None:
        """The account as of round `seqno`. Raises DevnetError where that state is not kept."""
        kept = self.rounds.get(seqno)
        if kept is None or kept.accounts is None:
            raise DevnetError(f"the state of block {seqno} is not kept; ask about a newer block")
        shard = kept.accounts.get(key_bits(account))
        return None if shard is None else StoredAccount.of(shard, account)

    def snapshot(self) -> ChainSnapshot:
        rounds, sparse = tuple(self.rounds.values()), tuple(self._sparse)
        located = dict(self.located)
        return ChainSnapshot(self.ledger.snapshot(), self._accounts, rounds, sparse, located, self.offset_seconds)

    def revert(self, snapshot: ChainSnapshot) -> None:
        """Back to `snapshot`, blocks and travelled time included; waiting externals are forgotten."""
        self.ledger.revert(snapshot.ledger)
        self._accounts = snapshot.accounts
        self.rounds = {kept.master.seqno: kept for kept in snapshot.rounds}
        self._sparse = deque(snapshot.sparse)
        self.located = dict(snapshot.located)
        self.offset_seconds = snapshot.offset_seconds
        self._awaited = 0
        self.mempool.clear()
        self.changed.clear()
        self._seen = None

    def _seal(self, transactions: tuple[Transaction, ...]) -> Round:
        touched = {tx.account for tx in transactions}
        self.changed |= touched
        for account in sorted(touched):
            stored = self.ledger.accounts.get(account)
            key = key_bits(account)
            if stored is None:
                self._accounts = self._accounts.delete(key)
            else:
                self._accounts = self._accounts.set(key, stored.shard, stored.state.balance_nano)
        self.ledger.lt += 1
        now, end_lt = self.ledger.now, self.ledger.lt
        sealed = self._builder.next(self.head, self._accounts, transactions, now=now, end_lt=end_lt)
        for tx in transactions:
            self._locate(tx, sealed.shard.id)
        self._keep(sealed)
        return sealed

    def _locate(self, tx: Transaction, block: BlockId) -> None:
        self.located[tx.hash] = block
        if tx.in_msg is not None:
            self.located[tx.in_msg.hash] = block

    def _keep(self, sealed: Round) -> None:
        seqno = sealed.master.seqno
        self.rounds[seqno] = sealed
        if seqno % SPARSE_STEP == 0:
            self._sparse.append(sealed.master.id)
        self.rounds.pop(seqno - self.kept_rounds, None)
