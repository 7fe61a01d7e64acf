"""What the liteserver answers: one pure function per TL query, with Merkle proofs against the block asked about."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from pytoniq_core import Cell, begin_cell
from pytoniq_core.tlb.vm_stack import VmStack, VmTuple

from chain.api import BlockId, Transaction
from devnet.augmented import key_bits
from devnet.blocks import BASECHAIN, MASTERCHAIN, Block, Round, block_transactions
from devnet.core import DevnetChain
from devnet.engine import DevnetError, GetResult, StackValue
from devnet.ledger import NO_CODE
from devnet.merkle import proof
from devnet.render import FULL_SHARD
from wrappers.cells import cell_of, from_boc, to_boc

Query: TypeAlias = Mapping[str, Any]
Answer: TypeAlias = tuple[str, dict[str, Any]]
_VERSION, _CAPABILITIES = 0x101, 7


def _id(block: Block) -> dict[str, Any]:
    return _block_id(block.workchain, block.id)


def _block_id(workchain: int, block: BlockId) -> dict[str, Any]:
    return {
        "workchain": workchain,
        "shard": FULL_SHARD,
        "seqno": block.seqno,
        "root_hash": block.root_hash.hex(),
        "file_hash": block.file_hash.hex(),
    }


def _init(chain: DevnetChain) -> dict[str, Any]:
    genesis = chain.genesis_id
    return {"workchain": -1, "root_hash": genesis.root_hash.hex(), "file_hash": genesis.file_hash.hex()}


def _asked(chain: DevnetChain, query: Query, field: str = "id") -> Block:
    return chain.find(query[field]["workchain"], bytes.fromhex(query[field]["root_hash"]))


def _account_of(query: Query) -> bytes:
    if query["account"]["workchain"] != BASECHAIN:
        raise DevnetError("the devnet has accounts in workchain 0 only")
    return bytes.fromhex(query["account"]["id"])


def _header_proof(block: Block) -> Cell:
    """Block info and state update; value flow and transactions pruned."""
    if block.seqno == 0:
        raise DevnetError("the zero state has no block header")
    return proof(block.cell, {block.cell.refs[1].hash, block.cell.refs[3].hash})


def _state(block: Block) -> Cell:
    if block.state is None:
        raise DevnetError(f"the state of block {block.seqno} is not kept; ask about a newer block")
    return block.state


def _transactions_proof(block: Block) -> Cell:
    return proof(block.cell, {tx.hash for tx in block.transactions})


def _shard_of(chain: DevnetChain, query: Query) -> tuple[Block, Block, bytes]:
    """The block asked about, its shard block and `shard_proof`, empty where the shard block itself was named."""
    asked = _asked(chain, query)
    if asked.workchain == BASECHAIN:
        return asked, asked, b""
    link = proof(_state(asked), {chain.ledger.config.hash})
    return asked, chain.block(BASECHAIN, asked.seqno), to_boc(_header_proof(asked), link)


def _account_proof(chain: DevnetChain, shard: Block, account: bytes) -> tuple[bytes, bytes]:
    """(proof, state): the path to the account in ShardAccounts; both neighbours of an absent one stay pruned."""
    kept: Round = chain.rounds[shard.seqno]
    stored = chain.stored_at(shard.seqno, account)
    assert kept.accounts is not None
    prune = {cell.hash for cell in kept.accounts.off_path(key_bits(account))}
    if stored is not None:
        prune.add(stored.cell.hash)
    found = to_boc(_header_proof(shard), proof(_state(shard), prune))
    return found, b"" if stored is None else to_boc(stored.cell)


def _master_info(chain: DevnetChain, _: Query) -> Answer:
    block = chain.head.master
    return "masterchainInfo", {
        "last": _id(block),
        "state_root_hash": _state(block).hash.hex(),
        "init": _init(chain),
    }


def _master_info_ext(chain: DevnetChain, _: Query) -> Answer:
    block = chain.head.master
    return "masterchainInfoExt", {
        "mode": 0,
        "version": _VERSION,
        "capabilities": _CAPABILITIES,
        "last": _id(block),
        "last_utime": block.now,
        "now": chain.now(),
        "state_root_hash": _state(block).hash.hex(),
        "init": _init(chain),
    }


def _time(chain: DevnetChain, _: Query) -> Answer:
    return "currentTime", {"now": chain.now()}


def _version(chain: DevnetChain, _: Query) -> Answer:
    return "version", {"mode": 0, "version": _VERSION, "capabilities": _CAPABILITIES, "now": chain.now()}


def _block(chain: DevnetChain, query: Query) -> Answer:
    block = _asked(chain, query)
    return "blockData", {"id": _id(block), "data": to_boc(block.cell)}


def _block_header(chain: DevnetChain, query: Query) -> Answer:
    block = _asked(chain, query)
    return "blockHeader", {"id": _id(block), "mode": 0, "header_proof": to_boc(_header_proof(block))}


def _lookup_block(chain: DevnetChain, query: Query) -> Answer:
    workchain, mode = query["id"]["workchain"], query["mode"]
    if mode & 1:
        block = chain.block(workchain, query["id"]["seqno"])
    elif mode & 2:
        block = chain.first_block(workchain, lambda candidate: candidate.end_lt >= query["lt"])
    else:
        block = chain.first_block(workchain, lambda candidate: candidate.now >= query["utime"])
    return "blockHeader", {"id": _id(block), "mode": 0, "header_proof": to_boc(_header_proof(block))}


def _all_shards(chain: DevnetChain, query: Query) -> Answer:
    asked, _, shard_proof = _shard_of(chain, query)
    hashes = chain.rounds[asked.seqno].shard_hashes
    data = to_boc(cell_of(begin_cell().store_bit(1).store_ref(hashes)))
    return "allShardsInfo", {"id": _id(asked), "proof": shard_proof, "data": data}


def _shard_info(chain: DevnetChain, query: Query) -> Answer:
    asked, shard, shard_proof = _shard_of(chain, query)
    fields = {"id": _id(asked), "shardblk": _id(shard), "shard_proof": shard_proof, "shard_descr": b""}
    return "shardInfo", fields


def _account_state(chain: DevnetChain, query: Query) -> Answer:
    asked, shard, shard_proof = _shard_of(chain, query)
    account_proof, state = _account_proof(chain, shard, _account_of(query))
    return "accountState", {
        "id": _id(asked),
        "shardblk": _id(shard),
        "shard_proof": shard_proof,
        "proof": account_proof,
        "state": state,
    }


def _run_method(chain: DevnetChain, query: Query) -> Answer:
    asked, shard, shard_proof = _shard_of(chain, query)
    account, mode = _account_of(query), query["mode"]
    account_proof, _ = _account_proof(chain, shard, account)
    parameters = VmStack.deserialize(from_boc(query["params"]).begin_parse()) if query["params"] else []
    stored = chain.stored_at(shard.seqno, account)
    result = GetResult(NO_CODE, [], 0)
    if stored is not None:
        result = chain.ledger.get_result_of(stored.state, query["method_id"], parameters)
    fields: dict[str, Any] = {"mode": mode & 7, "id": _id(asked), "shardblk": _id(shard), "exit_code": result.exit_code}
    if mode & 1:
        fields |= {"shard_proof": shard_proof, "proof": account_proof}
    if mode & 2:
        fields["state_proof"] = b""
    if mode & 4:
        fields["result"] = to_boc(VmStack.serialize([_vm_value(value) for value in result.stack]))
    return "runMethodResult", fields


def _vm_value(value: StackValue) -> Any:
    return VmTuple([_vm_value(item) for item in value]) if isinstance(value, list) else value


def _send_message(chain: DevnetChain, query: Query) -> Answer:
    try:
        chain.submit(from_boc(query["body"]))
    except DevnetError as error:
        raise DevnetError(f"cannot apply external message to current state : {error}") from error
    return "sendMsgStatus", {"status": 1}


def _transactions(chain: DevnetChain, query: Query) -> Answer:
    found = chain.history_from(_account_of(query), query["lt"], query["count"])
    return "transactionList", {
        "ids": [_block_id(BASECHAIN, chain.located[tx.hash]) for tx in found],
        "transactions": to_boc(*(tx.cell for tx in found)),
    }


def _one_transaction(chain: DevnetChain, query: Query) -> Answer:
    block, account = _asked(chain, query), _account_of(query)
    for tx in block.transactions:
        if tx.account == account and tx.lt == query["lt"]:
            fields = {"id": _id(block), "proof": to_boc(_transactions_proof(block)), "transaction": to_boc(tx.cell)}
            return "transactionInfo", fields
    raise DevnetError(f"block {block.seqno} has no such transaction")


def _block_transactions(chain: DevnetChain, query: Query) -> Answer:
    block, found, incomplete = _listed(chain, query)
    ids = [{"mode": 7, "account": tx.account.hex(), "lt": tx.lt, "hash": tx.hash.hex()} for tx in found]
    return "blockTransactions", {
        "id": _id(block),
        "req_count": query["count"],
        "incomplete": incomplete,
        "ids": ids,
        "proof": to_boc(_transactions_proof(block)),
    }


def _block_transactions_ext(chain: DevnetChain, query: Query) -> Answer:
    block, found, incomplete = _listed(chain, query)
    return "blockTransactionsExt", {
        "id": _id(block),
        "req_count": query["count"],
        "incomplete": incomplete,
        "transactions": to_boc(*(tx.cell for tx in found)) if found else b"",
        "proof": to_boc(_transactions_proof(block)),
    }


def _listed(chain: DevnetChain, query: Query) -> tuple[Block, list[Transaction], bool]:
    block, after = _asked(chain, query), None
    if query["mode"] & 128 and query.get("after"):
        after = (bytes.fromhex(query["after"]["account"]), query["after"]["lt"])
    found = block_transactions(block, after=after)
    return block, found[: query["count"]], len(found) > query["count"]


def _config(chain: DevnetChain, query: Query) -> Answer:
    block = _asked(chain, query)
    return "configInfo", {
        "mode": 0,
        "id": _id(block),
        "state_proof": to_boc(_header_proof(block)),
        "config_proof": to_boc(proof(_state(block))),
    }


def _libraries(_: DevnetChain, __: Query) -> Answer:
    return "libraryResult", {"result": []}


def _shard_block_proof(chain: DevnetChain, query: Query) -> Answer:
    block = _asked(chain, query)
    master = chain.block(MASTERCHAIN, block.seqno)
    link = {"id": _id(master), "proof": to_boc(_header_proof(master))}
    return "shardBlockProof", {"masterchain_id": _id(master), "links": [link]}


QUERIES: dict[str, Callable[[DevnetChain, Query], Answer]] = {
    "getMasterchainInfo": _master_info,
    "getMasterchainInfoExt": _master_info_ext,
    "getTime": _time,
    "getVersion": _version,
    "getBlock": _block,
    "getBlockHeader": _block_header,
    "lookupBlock": _lookup_block,
    "getAllShardsInfo": _all_shards,
    "getShardInfo": _shard_info,
    "getAccountState": _account_state,
    "runSmcMethod": _run_method,
    "sendMessage": _send_message,
    "getTransactions": _transactions,
    "getOneTransaction": _one_transaction,
    "listBlockTransactions": _block_transactions,
    "listBlockTransactionsExt": _block_transactions_ext,
    "getConfigAll": _config,
    "getConfigParams": _config,
    "getLibraries": _libraries,
    "getShardBlockProof": _shard_block_proof,
}
