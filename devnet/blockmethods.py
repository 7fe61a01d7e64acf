"""Toncenter v2 methods about blocks and the configuration; like all of them (chain, parameters) -> JSON result."""

from __future__ import annotations

from chain.api import Transaction
from devnet.blocks import BASECHAIN, MASTERCHAIN, Block, block_transactions
from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.network import config_parameters
from devnet.params import Params, number, text
from devnet.render import Json, b64, block_id, boc64, read_bytes, short_transaction, transaction


def _id(block: Block) -> Json:
    return block_id(block.workchain, block.id)


def head_id(chain: DevnetChain) -> Json:
    return _id(chain.head.master)


def master_info(chain: DevnetChain, _: Params) -> Json:
    state = chain.head.master.state
    return {
        "@type": "blocks.masterchainInfo",
        "last": head_id(chain),
        "state_root_hash": "" if state is None else b64(state.hash),
        "init": block_id(MASTERCHAIN, chain.genesis_id),
    }


def consensus_block(chain: DevnetChain, _: Params) -> Json:
    return {"consensus_block": chain.head.master.seqno, "timestamp": chain.head.master.now}


def shards(chain: DevnetChain, params: Params) -> Json:
    return {"@type": "blocks.shards", "shards": [_id(chain.block(BASECHAIN, number(params, "seqno")))]}


def lookup_block(chain: DevnetChain, params: Params) -> Json:
    workchain = number(params, "workchain")
    if params.get("seqno") not in (None, ""):
        seqno = number(params, "seqno")
        sparse = chain.sparse_id(seqno) if workchain == MASTERCHAIN else None
        return block_id(workchain, sparse) if sparse is not None else _id(chain.block(workchain, seqno))
    if params.get("lt") not in (None, ""):
        lt = number(params, "lt")
        return _id(chain.first_block(workchain, lambda block: block.end_lt >= lt))
    moment = number(params, "unixtime")
    return _id(chain.first_block(workchain, lambda block: block.now >= moment))


def block_header(chain: DevnetChain, params: Params) -> Json:
    block = chain.block(number(params, "workchain"), number(params, "seqno"))
    previous = [] if block.seqno == 0 else [_id(chain.block(block.workchain, block.seqno - 1))]
    return {
        "@type": "blocks.header",
        "id": _id(block),
        "global_id": chain.ledger.global_id,
        "version": 0,
        "flags": 0,
        "after_merge": False,
        "after_split": False,
        "before_split": False,
        "want_merge": False,
        "want_split": False,
        "validator_list_hash_short": 0,
        "catchain_seqno": 0,
        "min_ref_mc_seqno": 0,
        "is_key_block": False,
        "prev_key_block_seqno": 0,
        "start_lt": str(block.start_lt),
        "end_lt": str(block.end_lt),
        "gen_utime": block.now,
        "vert_seqno": 0,
        "prev_blocks": previous,
    }


def _listed(chain: DevnetChain, params: Params) -> tuple[Block, list[Transaction], int, bool]:
    block = chain.block(number(params, "workchain"), number(params, "seqno"))
    count = number(params, "count", 40)
    after = None
    if params.get("after_lt") and params.get("after_hash"):
        after = (read_bytes(text(params, "after_hash")), number(params, "after_lt"))
    found = block_transactions(block, after=after)
    return block, found[:count], count, len(found) > count


def block_transaction_ids(chain: DevnetChain, params: Params) -> Json:
    block, found, count, incomplete = _listed(chain, params)
    return {
        "@type": "blocks.transactions",
        "id": _id(block),
        "req_count": count,
        "incomplete": incomplete,
        "transactions": [short_transaction(block.workchain, tx) for tx in found],
    }


def block_transactions_ext(chain: DevnetChain, params: Params) -> Json:
    block, found, count, incomplete = _listed(chain, params)
    return {
        "@type": "blocks.transactionsExt",
        "id": _id(block),
        "req_count": count,
        "incomplete": incomplete,
        "transactions": [transaction(tx) for tx in found],
    }


def config_all(chain: DevnetChain, _: Params) -> Json:
    return {"@type": "configInfo", "config": {"@type": "tvm.cell", "bytes": boc64(chain.ledger.config)}}


def config_param(chain: DevnetChain, params: Params) -> Json:
    wanted = number(params, "config_id" if "config_id" in params else "param")
    parameters = config_parameters(chain.ledger.config)
    if wanted not in parameters:
        raise DevnetError(f"the configuration has no parameter {wanted}")
    return {"@type": "configInfo", "config": {"@type": "tvm.cell", "bytes": boc64(parameters[wanted])}}
