"""Merkle proofs of one account's state, presence and absence alike (block.tlb of TON; `liteServer.accountState`).

pytoniq's client takes an empty answer for an absent account without any proof, which is the lie that G17 forbids. Here
a masterchain block hash leads to its state, to the one shard that covers the account, to that shard's state, to the
account's place in the dictionary. A pruned cell on that path is an error, never an absence.
"""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from chain.decode import DecodeError, hashmap_label
from chain.history import ZERO_HASH
from chain.reader import Reader

_MERKLE_PROOF = 3
_MERKLE_UPDATE = 4
_MERKLE_UPDATE_BITS = 8 + 2 * (256 + 16)
_STATE_TAG = 0x9023AFE2
_BLOCK_TAG = 0x11EF55AA
_MC_EXTRA_TAG = 0xCC26


@dataclass(frozen=True, slots=True)
class ProvedAccount:
    """`state_hash` is the hash of the `Account` cell, None where the proof shows that there is no such account."""

    global_id: int
    state_hash: bytes | None
    last_lt: int
    last_hash: bytes


def prove_account(*, block_hash: bytes, shard_proof: bytes, account_proof: bytes, account: bytes) -> ProvedAccount:
    """What a masterchain block says about a workchain-0 account.

    `block_hash`: root hash of the masterchain block that the caller trusts. Both proofs are bags with two roots: a
    block header and a state. Raises DecodeError where the proof does not hold.
    """
    key = int.from_bytes(account, "big")
    mc_state = _state(shard_proof, block_hash)
    shard_hash = _shard_block(mc_state, key)
    shard_state = _state(account_proof, shard_hash)
    r = Reader(shard_state)
    r.uint(32)
    global_id = r.sint(32)
    leaf = _find(Reader(shard_state.refs[1]), key)
    if leaf is None:
        return ProvedAccount(global_id, None, 0, ZERO_HASH)
    leaf.uint(5)  # depth_balance: split_depth
    leaf.currency()
    state_cell = leaf.ref()
    last_hash, last_lt = leaf.octets(32), leaf.uint(64)
    return ProvedAccount(global_id, bytes(state_cell.get_hash(0)), last_lt, last_hash)


def _roots(proof: bytes) -> tuple[Cell, Cell]:
    try:
        roots = Cell.from_boc(proof)
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise DecodeError(f"the proof is no bag of cells: {error}") from error
    if len(roots) != 2:
        raise DecodeError(f"the proof has {len(roots)} roots, two were expected")
    for root in roots:
        if root.type_ != _MERKLE_PROOF or len(root.refs) != 1 or root.data[1:33] != root.refs[0].get_hash(0):
            raise DecodeError("the proof is no Merkle proof")
    return roots[0].refs[0], roots[1].refs[0]


def _state(proof: bytes, block_hash: bytes) -> Cell:
    """The state after the block with that hash."""
    block, state = _roots(proof)
    if block.get_hash(0) != block_hash:
        raise DecodeError(f"the proof is about block {block.get_hash(0).hex()}, not {block_hash.hex()}")
    if Reader(block).uint(32) != _BLOCK_TAG or len(block.refs) != 4:
        raise DecodeError("the proof's block is no block")
    update = block.refs[2]  # state_update:^(MERKLE_UPDATE ShardState)
    if update.type_ != _MERKLE_UPDATE or len(update.bits) != _MERKLE_UPDATE_BITS:
        raise DecodeError("the proof's block has no state update")
    # The new state's hash is read from the update's own data, which the block's hash covers. The reference beside it is
    # covered at level 1 only: a pruned cell of level 2 there keeps the block's hash and names any state it likes.
    if update.data[33:65] != state.get_hash(0):
        raise DecodeError("the proof's state is not the state after its block")
    if Reader(state).uint(32) != _STATE_TAG or len(state.refs) < 3:
        raise DecodeError("the proof's state is no state of one shard")
    return state


def _shard_block(mc_state: Cell, key: int) -> bytes:
    """Root hash of the latest block of the one shard of workchain 0 that holds `key`."""
    if len(mc_state.refs) != 4:
        raise DecodeError("the masterchain state lacks its extra part")
    extra = Reader(mc_state.refs[3])
    if extra.uint(16) != _MC_EXTRA_TAG:
        raise DecodeError("the masterchain state's extra part is something else")
    root = extra.maybe_ref()
    leaf = None if root is None else _descend(Reader(root), 0, 32)
    if leaf is None:
        raise DecodeError("the masterchain state lists no shards of workchain 0")
    tree = Reader(leaf.ref())
    depth = 0
    while tree.bit():  # bt_fork$1
        left, right = tree.ref(), tree.ref()
        depth += 1
        if depth > 60:
            raise DecodeError("the shard tree is deeper than shards can be")
        tree = Reader(right if key >> (256 - depth) & 1 else left)
    if tree.uint(4) not in (0xA, 0xB):
        raise DecodeError("a shard description has an unknown tag")
    tree.uint(32 + 32 + 64 + 64)  # seq_no, reg_mc_seqno, start_lt, end_lt
    return tree.octets(32)


def _find(dictionary: Reader, key: int) -> Reader | None:
    """`HashmapAugE 256 ShardAccount DepthBalanceInfo`: the leaf's extra and value, None where the key is absent."""
    if not dictionary.bit():
        return None
    return _descend(Reader(dictionary.ref()), key, 256)


def _descend(edge: Reader, key: int, width: int) -> Reader | None:
    while True:
        length, label = hashmap_label(edge, width)
        width -= length
        if (key >> width) & ((1 << length) - 1) != label:
            return None
        if width == 0:
            return edge
        width -= 1
        left, right = edge.ref(), edge.ref()
        edge = Reader(right if key >> width & 1 else left)
