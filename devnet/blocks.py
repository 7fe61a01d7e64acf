"""Block and state cells (block.tlb) around the ledger: one masterchain block and one workchain-0 block per round.

Real where clients look: block headers, states, account dictionaries, transaction dictionaries, shard hashes and Merkle
proofs over them. Left empty: message queues and their descriptors, value flow, validators and signatures, so that a
client which checks validator signatures (pytoniq trust level 0) cannot follow this chain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from pytoniq_core import Builder, Cell, HashMap, begin_cell

from chain.api import BlockId, Transaction
from chain.reader import Reader
from devnet.augmented import AugTree, key_bits, write_currency, write_depth_balance
from devnet.engine import DevnetError
from devnet.merkle import update
from wrappers.cells import cell_of, to_boc

MASTERCHAIN, BASECHAIN = -1, 0
_HASH_UPDATE = 0x72
_NO_TRANSACTIONS: tuple[Transaction, ...] = ()


def _repeat_currency(builder: Builder, count: int) -> Builder:
    for _ in range(count):
        write_currency(builder, 0)
    return builder


_ZERO_FLOWS = cell_of(_repeat_currency(begin_cell(), 4))
_VALUE_FLOW = cell_of(
    write_currency(begin_cell().store_uint(0xB8E48DFB, 32).store_ref(_ZERO_FLOWS), 0).store_ref(_ZERO_FLOWS)
)
_NO_IN_MESSAGES = cell_of(write_currency(begin_cell().store_bit(0).store_coins(0), 0))
_NO_OUT_MESSAGES = cell_of(write_currency(begin_cell().store_bit(0), 0))
_NO_QUEUE = cell_of(begin_cell().store_bit(0).store_uint(0, 64).store_bit(0).store_bit(0))
# validator_info, prev_blocks (empty), after_key_block, last_key_block (none), no block_create_stats
_MC_EXTRA_INFO = cell_of(begin_cell().store_uint(0, 16).store_uint(0, 65).store_uint(0, 2).store_uint(0, 66))
_NO_SIGNATURES = cell_of(begin_cell().store_uint(0, 3))
_CONFIG_ADDRESS = b"\x55" * 32


@dataclass(frozen=True, slots=True)
class Block:
    workchain: int
    seqno: int
    now: int
    start_lt: int
    end_lt: int
    root_hash: bytes
    file_hash: bytes
    cell: Cell
    """`Block`; for seqno 0 the state itself."""
    state: Cell | None
    """`ShardStateUnsplit` after the block; None for blocks from before a restart, whose states are not kept."""
    transactions: tuple[Transaction, ...]

    @property
    def id(self) -> BlockId:
        return BlockId(self.seqno, self.root_hash, self.file_hash)


@dataclass(frozen=True, slots=True)
class Round:
    """A masterchain block and the workchain-0 block that it registers."""

    master: Block
    shard: Block
    accounts: AugTree | None
    """ShardAccounts after the round; None where the state is not kept."""
    shard_hashes: Cell
    """`Hashmap 32 ^(BinTree ShardDescr)`."""


@dataclass(frozen=True, slots=True)
class BlockBuilder:
    global_id: int
    config: Cell

    def genesis(self, now: int, lt: int, accounts: AugTree) -> Round:
        """Seqno 0: the block ids are the zero states' own hashes, as on the real chain."""
        hashes = _shard_hashes(None)
        shard_state = self._state(BASECHAIN, 0, now, lt, accounts, None, None)
        master_state = self._state(MASTERCHAIN, 0, now, lt, empty_accounts(), None, self._mc_state_extra(hashes))
        shard = _zero_block(BASECHAIN, now, lt, shard_state)
        return Round(_zero_block(MASTERCHAIN, now, lt, master_state), shard, accounts, hashes)

    def next(
        self, previous: Round, accounts: AugTree, transactions: Sequence[Transaction], *, now: int, end_lt: int
    ) -> Round:
        """The round after `previous`: `accounts` is the state after `transactions` (in order of execution)."""
        seqno = previous.master.seqno + 1
        start_lt = previous.shard.end_lt
        state = self._state(BASECHAIN, seqno, now, end_lt, accounts, previous.master, None)
        body = _account_blocks(transactions)
        cell = self._block(BASECHAIN, seqno, now, start_lt, end_lt, previous, state, body, None)
        shard = _block_of(BASECHAIN, seqno, now, start_lt, end_lt, cell, state, tuple(transactions))
        hashes = _shard_hashes(shard)
        master_state = self._state(
            MASTERCHAIN, seqno, now, end_lt, empty_accounts(), None, self._mc_state_extra(hashes)
        )
        extra = _mc_block_extra(hashes)
        cell = self._block(MASTERCHAIN, seqno, now, start_lt, end_lt, previous, master_state, _no_accounts(), extra)
        master = _block_of(MASTERCHAIN, seqno, now, start_lt, end_lt, cell, master_state, _NO_TRANSACTIONS)
        return Round(master, shard, accounts, hashes)

    def stateless(
        self,
        master: Cell,
        shard: Cell,
        transactions: tuple[Transaction, ...],
        master_id: BlockId,
        shard_id: BlockId,
        *,
        now: int,
        start_lt: int,
        end_lt: int,
    ) -> Round:
        """A round out of its saved block cells and ids."""
        blocks = [
            Block(workchain, block.seqno, now, start_lt, end_lt, block.root_hash, block.file_hash, cell, None, found)
            for workchain, block, cell, found in (
                (MASTERCHAIN, master_id, master, _NO_TRANSACTIONS),
                (BASECHAIN, shard_id, shard, transactions),
            )
        ]
        return Round(blocks[0], blocks[1], None, _shard_hashes(blocks[1]))

    def with_states(self, previous: Round, last: Round, accounts: AugTree) -> Round:
        """`last` with the states that its blocks committed to. Raises DevnetError where `accounts` are not theirs."""
        seqno, now, end_lt = last.master.seqno, last.master.now, last.master.end_lt
        state = self._state(BASECHAIN, seqno, now, end_lt, accounts, previous.master, None)
        extra = self._mc_state_extra(last.shard_hashes)
        master_state = self._state(MASTERCHAIN, seqno, now, end_lt, empty_accounts(), None, extra)
        for block, rebuilt in ((last.shard, state), (last.master, master_state)):
            if block.cell.refs[2].refs[1].get_hash(0) != rebuilt.hash:
                raise DevnetError(
                    f"the saved accounts are not the state of block {seqno}: the file is damaged; remove it"
                )
        master, shard = replace(last.master, state=master_state), replace(last.shard, state=state)
        return Round(master, shard, accounts, last.shard_hashes)

    def _state(
        self,
        workchain: int,
        seqno: int,
        now: int,
        lt: int,
        accounts: AugTree,
        master: Block | None,
        custom: Cell | None,
    ) -> Cell:
        """`shard_state#9023afe2`."""
        totals = _repeat_currency(write_currency(begin_cell().store_uint(0, 128), accounts.amount_nano), 1).store_bit(0)
        if master is None:
            totals.store_bit(0)
        else:
            totals.store_bit(1).store_cell(_ext_block_ref(master))
        builder = begin_cell().store_uint(0x9023AFE2, 32).store_int(self.global_id, 32)
        builder.store_cell(_shard_ident(workchain)).store_uint(seqno, 32).store_uint(0, 32).store_uint(now, 32)
        builder.store_uint(lt, 64).store_uint(0, 32).store_ref(_NO_QUEUE).store_bit(0)
        builder.store_ref(accounts.hashmap_e()).store_ref(cell_of(totals))
        return cell_of(builder.store_maybe_ref(custom))

    def _block(
        self,
        workchain: int,
        seqno: int,
        now: int,
        start_lt: int,
        end_lt: int,
        previous: Round,
        state: Cell,
        account_blocks: Cell,
        custom: Cell | None,
    ) -> Cell:
        """`block#11ef55aa`."""
        before = previous.shard if workchain == BASECHAIN else previous.master
        assert before.state is not None
        info = begin_cell().store_uint(0x9BC7A987, 32).store_uint(0, 32).store_bit(int(workchain != MASTERCHAIN))
        info.store_uint(0, 7).store_uint(0, 8).store_uint(seqno, 32).store_uint(0, 32)
        info.store_cell(_shard_ident(workchain)).store_uint(now, 32).store_uint(start_lt, 64).store_uint(end_lt, 64)
        info.store_uint(0, 128)  # validator list hash, catchain seqno, min_ref_mc_seqno, prev_key_block_seqno
        if workchain != MASTERCHAIN:
            info.store_ref(_ext_block_ref(previous.master))
        info.store_ref(_ext_block_ref(before))
        extra = begin_cell().store_uint(0x4A33F6FD, 32).store_ref(_NO_IN_MESSAGES).store_ref(_NO_OUT_MESSAGES)
        extra.store_ref(account_blocks).store_bytes(sha256(b"seed" + seqno.to_bytes(4, "big")).digest())
        extra.store_uint(0, 256).store_maybe_ref(custom)
        builder = begin_cell().store_uint(0x11EF55AA, 32).store_int(self.global_id, 32).store_ref(cell_of(info))
        builder.store_ref(_VALUE_FLOW).store_ref(update(before.state, state))
        return cell_of(builder.store_ref(cell_of(extra)))

    def _mc_state_extra(self, shard_hashes: Cell) -> Cell:
        """`masterchain_state_extra#cc26`."""
        builder = begin_cell().store_uint(0xCC26, 16).store_bit(1).store_ref(shard_hashes)
        builder.store_bytes(_CONFIG_ADDRESS).store_ref(self.config).store_ref(_MC_EXTRA_INFO)
        return cell_of(write_currency(builder, 0))


def empty_accounts() -> AugTree:
    """No `ShardAccounts`."""
    return AugTree(256, write_depth_balance)


def block_transactions(block: Block, *, after: tuple[bytes, int] | None = None) -> list[Transaction]:
    """In a block's own order, by account and logical time; from behind `after` on."""
    ordered = sorted(block.transactions, key=lambda tx: (tx.account, tx.lt))
    return [tx for tx in ordered if after is None or (tx.account, tx.lt) > after]


def _zero_block(workchain: int, now: int, lt: int, state: Cell) -> Block:
    file_hash = sha256(to_boc(state)).digest()
    return Block(workchain, 0, now, lt, lt, state.hash, file_hash, state, state, _NO_TRANSACTIONS)


def _block_of(
    workchain: int,
    seqno: int,
    now: int,
    start_lt: int,
    end_lt: int,
    cell: Cell,
    state: Cell,
    transactions: tuple[Transaction, ...],
) -> Block:
    file_hash = sha256(to_boc(cell)).digest()
    return Block(workchain, seqno, now, start_lt, end_lt, cell.hash, file_hash, cell, state, transactions)


def _shard_ident(workchain: int) -> Cell:
    """The full shard. Its prefix is 0 in cells: tonlib refuses the 1<<63 of block ids here."""
    return cell_of(begin_cell().store_uint(0, 8).store_int(workchain, 32).store_uint(0, 64))


def _ext_block_ref(block: Block) -> Cell:
    builder = begin_cell().store_uint(block.end_lt, 64).store_uint(block.seqno, 32)
    return cell_of(builder.store_bytes(block.root_hash).store_bytes(block.file_hash))


def _no_accounts() -> Cell:
    return AugTree(256, write_currency).hashmap_e()


def _account_blocks(transactions: Sequence[Transaction]) -> Cell:
    """`ShardAccountBlocks`: per account its transactions by logical time, and the state hashes before and after."""
    histories: dict[bytes, list[Transaction]] = {}
    for tx in transactions:
        histories.setdefault(tx.account, []).append(tx)
    blocks = AugTree(256, write_currency)
    for account, history in histories.items():
        tree = AugTree(64, write_currency)
        for tx in history:
            payload = cell_of(begin_cell().store_ref(tx.cell))
            tree = tree.set(key_bits(tx.lt.to_bytes(8, "big")), payload, tx.total_fees_nano)
        change = begin_cell().store_uint(_HASH_UPDATE, 8)
        change.store_bytes(_state_change(history[0])[0]).store_bytes(_state_change(history[-1])[1])
        builder = begin_cell().store_uint(5, 4).store_bytes(account).store_cell(tree.hashmap())
        blocks = blocks.set(key_bits(account), cell_of(builder.store_ref(cell_of(change))), tree.amount_nano)
    return blocks.hashmap_e()


def _state_change(tx: Transaction) -> tuple[bytes, bytes]:
    """`HASH_UPDATE Account` of a transaction."""
    reader = Reader(tx.cell.refs[1])
    reader.uint(8)
    return reader.octets(32), reader.octets(32)


def _shard_hashes(shard: Block | None) -> Cell:
    """`Hashmap 32 ^(BinTree ShardDescr)` with the one shard of workchain 0."""
    leaf = begin_cell().store_bit(0).store_uint(0xB, 4)
    if shard is None:
        leaf.store_uint(0, 32 + 32 + 64 + 64 + 256 + 256 + 8 + 32).store_uint(1 << 63, 64).store_uint(0, 65)
    else:
        leaf.store_uint(shard.seqno, 32).store_uint(shard.seqno, 32).store_uint(shard.start_lt, 64)
        leaf.store_uint(shard.end_lt, 64).store_bytes(shard.root_hash).store_bytes(shard.file_hash)
        leaf.store_uint(0, 8).store_uint(0, 32).store_uint(1 << 63, 64).store_uint(0, 32)
        leaf.store_uint(shard.now, 32).store_bit(0)
    tree = HashMap(32, value_serializer=lambda value, builder: builder.store_ref(value))
    tree.set_int_key(BASECHAIN, cell_of(_repeat_currency(leaf, 2)))
    root = tree.serialize()
    assert isinstance(root, Cell)
    return root


def _mc_block_extra(shard_hashes: Cell) -> Cell:
    """`masterchain_block_extra#cca5`, no key block."""
    builder = begin_cell().store_uint(0xCCA5, 16).store_bit(0).store_bit(1).store_ref(shard_hashes).store_bit(0)
    return cell_of(_repeat_currency(builder, 2).store_ref(_NO_SIGNATURES))
