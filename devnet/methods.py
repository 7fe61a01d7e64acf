"""What toncenter v2 answers: one pure function per method, (chain, parameters) -> JSON result. Raises DevnetError."""

from __future__ import annotations

from collections.abc import Callable

from pytoniq_core import Cell, begin_cell

from chain.api import Status, Transaction
from chain.reader import Reader
from devnet.blockmethods import (
    block_header,
    block_transaction_ids,
    block_transactions_ext,
    config_all,
    config_param,
    consensus_block,
    head_id,
    lookup_block,
    master_info,
    shards,
)
from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.messages import external_in, parse_account
from devnet.params import Params, account_of, number, text
from devnet.render import (
    Json,
    account_state,
    b64,
    boc64,
    friendly,
    raw,
    read_bytes,
    read_cell,
    read_stack,
    stack,
    transaction,
    transaction_id,
)
from wrappers.cells import cell_of

Method = Callable[[DevnetChain, Params], Json]
MAX_TRANSACTIONS = 1000

# Hashes of the code cells of the standard wallets, for getWalletInformation.
WALLET_CODES = {
    "84dafa449f98a6987789ba232358072bc0f76dc4524002a5d0918b9a75d2d599": "wallet v3 r2",
    "feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0": "wallet v4 r2",
    "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f": "wallet v5 r1",
}


def address_information(chain: DevnetChain, params: Params) -> Json:
    return account_state(chain.ledger.account(account_of(params)), head_id(chain), chain.head.master.now)


def extended_address_information(chain: DevnetChain, params: Params) -> Json:
    account = account_of(params)
    state = chain.ledger.account(account)
    inner: Json = {"@type": "uninited.accountState", "frozen_hash": ""}
    if state.status is Status.ACTIVE:
        inner = {"@type": "raw.accountState", "code": boc64(state.code), "data": boc64(state.data), "frozen_hash": ""}
    return {
        "@type": "fullAccountState",
        "address": {"@type": "accountAddress", "account_address": friendly(account)},
        "balance": str(state.balance_nano),
        "extra_currencies": [],
        "last_transaction_id": transaction_id(state.last_lt, state.last_hash),
        "block_id": head_id(chain),
        "sync_utime": chain.head.master.now,
        "account_state": inner,
        "revision": 0,
    }


def wallet_information(chain: DevnetChain, params: Params) -> Json:
    account = account_of(params)
    state = chain.ledger.account(account)
    kind = None if state.code is None else WALLET_CODES.get(state.code.hash.hex())
    found: dict[str, Json] = {
        "wallet": kind is not None,
        "balance": str(state.balance_nano),
        "account_state": account_state(state, None, 0)["state"],
        "last_transaction_id": transaction_id(state.last_lt, state.last_hash),
    }
    if kind is not None:
        found |= {"wallet_type": kind, "seqno": chain.ledger.run_get(account, "seqno")[0]}
    return found


def address_balance(chain: DevnetChain, params: Params) -> Json:
    return str(chain.ledger.balance(account_of(params)))


def address_state(chain: DevnetChain, params: Params) -> Json:
    return address_information(chain, params)["state"]


def transactions(chain: DevnetChain, params: Params) -> Json:
    """Newest first, from (lt, hash) on, that one included, down to `to_lt`, excluded."""
    account = account_of(params)
    limit = number(params, "limit", 10)
    if not 1 <= limit <= MAX_TRANSACTIONS:
        raise DevnetError(f"parameter 'limit' must be between 1 and {MAX_TRANSACTIONS}, not {limit}")
    to_lt = number(params, "to_lt", 0)
    lt = number(params, "lt", 0) or chain.ledger.account(account).last_lt
    if lt == 0:
        return []
    found = chain.history_from(account, lt, limit)
    if params.get("hash") and read_bytes(text(params, "hash")) != found[0].hash:
        raise DevnetError(f"LITE_SERVER_UNKNOWN: the transaction with logical time {lt} has another hash")
    return [transaction(tx) for tx in found if tx.lt > to_lt]


def run_get_method(chain: DevnetChain, params: Params) -> Json:
    account = account_of(params)
    method = params.get("method")
    if not isinstance(method, str | int):
        raise DevnetError("parameter 'method' must be the name or number of a get method")
    state = chain.ledger.account(account)
    result = chain.ledger.get_result(account, method, read_stack(params.get("stack", [])))
    return {
        "@type": "smc.runResult",
        "gas_used": result.gas_used,
        "stack": stack(result.stack),
        "exit_code": result.exit_code,
        "block_id": head_id(chain),
        "last_transaction_id": transaction_id(state.last_lt, state.last_hash),
    }


def send_boc(chain: DevnetChain, params: Params) -> Json:
    chain.submit(read_cell(text(params, "boc")))
    return {"@type": "ok"}


def send_boc_return_hash(chain: DevnetChain, params: Params) -> Json:
    message_hash = b64(chain.submit(read_cell(text(params, "boc"))))
    return {"@type": "raw.extMessageInfo", "hash": message_hash, "hash_norm": message_hash}


def estimate_fee(chain: DevnetChain, params: Params) -> Json:
    """Fees of the wallet's own transaction; like toncenter's, without those of what it causes elsewhere."""
    code, data = params.get("init_code"), params.get("init_data")
    init = _state_init(read_cell(str(code)), read_cell(str(data))) if code and data else None
    message = external_in(account_of(params), read_cell(text(params, "body")), init)
    tx = chain.ledger.estimate(message, ignore_signatures=bool(params.get("ignore_chksig", True)))
    fees = _fee_parts(tx)
    return {"@type": "query.fees", "source_fees": {"@type": "fees", **fees}, "destination_fees": []}


def _state_init(code: Cell, data: Cell) -> Cell:
    builder = begin_cell().store_uint(0, 2).store_bit(1).store_ref(code).store_bit(1).store_ref(data)
    return cell_of(builder.store_bit(0))


def _fee_parts(tx: Transaction) -> dict[str, int]:
    reader = Reader(tx.cell.refs[2])
    reader.uint(4 + 1)
    storage = gas = 0
    if reader.bit():
        storage = reader.coins()
        reader.maybe_coins()
        if reader.bit():
            reader.bit()
    if reader.bit():
        reader.maybe_coins()
        reader.currency()
    if reader.bit():
        reader.uint(3)
        gas = reader.coins()
    forward = sum(message.forward_fee_nano for message in tx.out_msgs)
    imported = tx.total_fees_nano - storage - gas
    return {"in_fwd_fee": imported, "storage_fee": storage, "gas_fee": gas, "fwd_fee": forward}


def locate_result(chain: DevnetChain, params: Params) -> Json:
    """The transaction that received the message (source, destination, created_lt)."""
    source, destination, created_lt = _route(params)
    for tx in reversed(chain.history(destination)):
        if tx.in_msg is not None and tx.in_msg.source == source and tx.in_msg.created_lt == created_lt:
            return transaction(tx)
    raise DevnetError("LITE_SERVER_UNKNOWN: message not found")


def locate_source(chain: DevnetChain, params: Params) -> Json:
    """The transaction that sent the message (source, destination, created_lt)."""
    source, destination, created_lt = _route(params)
    for tx in reversed(chain.history(source)):
        if any(out.destination == destination and out.created_lt == created_lt for out in tx.out_msgs):
            return transaction(tx)
    raise DevnetError("LITE_SERVER_UNKNOWN: message not found")


def _route(params: Params) -> tuple[bytes, bytes, int]:
    source, destination = parse_account(text(params, "source")), parse_account(text(params, "destination"))
    return source, destination, number(params, "created_lt")


def libraries(_: DevnetChain, __: Params) -> Json:
    return {"@type": "smc.libraryResult", "result": []}


def pack_address(_: DevnetChain, params: Params) -> Json:
    return friendly(account_of(params))


def unpack_address(_: DevnetChain, params: Params) -> Json:
    return raw(account_of(params))


METHODS: dict[str, Method] = {
    "getMasterchainInfo": master_info,
    "getConsensusBlock": consensus_block,
    "getAddressInformation": address_information,
    "getExtendedAddressInformation": extended_address_information,
    "getWalletInformation": wallet_information,
    "getAddressBalance": address_balance,
    "getAddressState": address_state,
    "getTransactions": transactions,
    "getTransactionsStd": lambda chain, params: {
        "@type": "raw.transactions",
        "transactions": transactions(chain, params),
    },
    "runGetMethod": run_get_method,
    "runGetMethodStd": run_get_method,
    "sendBoc": send_boc,
    "sendBocReturnHash": send_boc_return_hash,
    "estimateFee": estimate_fee,
    "shards": shards,
    "getShards": shards,
    "lookupBlock": lookup_block,
    "getBlockHeader": block_header,
    "getBlockTransactions": block_transaction_ids,
    "getBlockTransactionsExt": block_transactions_ext,
    "getConfigAll": config_all,
    "getConfigParam": config_param,
    "tryLocateTx": locate_result,
    "tryLocateResultTx": locate_result,
    "tryLocateSourceTx": locate_source,
    "getLibraries": libraries,
    "packAddress": pack_address,
    "unpackAddress": unpack_address,
}
