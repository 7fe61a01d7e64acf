"""Toncenter v2 JSON shapes of blocks, accounts, transactions, messages and TVM stacks."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from typing import Any

from pytoniq_core import Cell, Slice

from chain.api import AccountState, BlockId, Message, Status, Transaction
from chain.reader import Reader
from devnet.engine import DevnetError, StackValue
from wrappers.cells import address_of, from_boc, to_boc

Json = Any
FULL_SHARD = -(1 << 63)
_STATES = {
    Status.ACTIVE: "active",
    Status.FROZEN: "frozen",
    Status.UNINIT: "uninitialized",
    Status.ABSENT: "uninitialized",
}
_COMMENT_OP = 0


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def boc64(cell: Cell | None) -> str:
    return "" if cell is None else b64(to_boc(cell))


def read_bytes(text: str) -> bytes:
    """Bytes out of hex, base64 or url-safe base64, as toncenter takes hashes and bags of cells. Raises DevnetError."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        pass
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise DevnetError(f"{text[:40]!r} is neither hex nor base64: {error}") from error


def read_cell(text: str) -> Cell:
    return from_boc(read_bytes(text))


def block_id(workchain: int, block: BlockId) -> Json:
    return {
        "@type": "ton.blockIdExt",
        "workchain": workchain,
        "shard": str(FULL_SHARD),
        "seqno": block.seqno,
        "root_hash": b64(block.root_hash),
        "file_hash": b64(block.file_hash),
    }


def transaction_id(lt: int, hash_: bytes) -> Json:
    return {"@type": "internal.transactionId", "lt": str(lt), "hash": b64(hash_)}


def account_state(state: AccountState, block: Json, now: int) -> Json:
    """`getAddressInformation`. Toncenter knows no absent account: it is uninitialized, with lt 0 and balance 0."""
    return {
        "@type": "raw.fullAccountState",
        "balance": str(state.balance_nano),
        "extra_currencies": [],
        "code": boc64(state.code),
        "data": boc64(state.data),
        "last_transaction_id": transaction_id(state.last_lt, state.last_hash),
        "block_id": block,
        "frozen_hash": "",
        "sync_utime": now,
        "state": _STATES[state.status],
    }


def transaction(tx: Transaction) -> Json:
    storage_nano = _storage_fees(tx.cell)
    return {
        "@type": "raw.transaction",
        "address": {"@type": "accountAddress", "account_address": friendly(tx.account)},
        "account": raw(tx.account),
        "utime": tx.now,
        "data": boc64(tx.cell),
        "transaction_id": transaction_id(tx.lt, tx.hash),
        "fee": str(tx.total_fees_nano),
        "storage_fee": str(storage_nano),
        "other_fee": str(tx.total_fees_nano - storage_nano),
        "in_msg": None if tx.in_msg is None else message(tx.in_msg),
        "out_msgs": [message(out) for out in tx.out_msgs],
    }


def message(msg: Message) -> Json:
    return {
        "@type": "raw.message",
        "hash": b64(msg.hash),
        "source": "" if msg.source is None else friendly(msg.source),
        "destination": "" if msg.destination is None else friendly(msg.destination),
        "value": str(msg.value_nano),
        "extra_currencies": [],
        "fwd_fee": str(msg.forward_fee_nano),
        "ihr_fee": "0",
        "created_lt": str(msg.created_lt),
        "body_hash": b64(msg.body.hash),
        "msg_data": {"@type": "msg.dataRaw", "body": boc64(msg.body), "init_state": ""},
        "message": _comment(msg.body),
    }


def short_transaction(workchain: int, tx: Transaction) -> Json:
    return {
        "@type": "blocks.shortTxId",
        "mode": 135,
        "account": f"{workchain}:{tx.account.hex()}",
        "lt": str(tx.lt),
        "hash": b64(tx.hash),
    }


def friendly(account: bytes) -> str:
    return str(address_of(account).to_str())


def raw(account: bytes) -> str:
    return f"0:{account.hex()}"


def stack(values: Sequence[StackValue]) -> list[Json]:
    return [_entry(value) for value in values]


def read_stack(entries: Json) -> list[StackValue]:
    """Raises DevnetError on an entry that toncenter would not take."""
    if not isinstance(entries, list):
        raise DevnetError("`stack` must be a list of [type, value] pairs")
    return [_read_entry(entry) for entry in entries]


def _entry(value: StackValue) -> Json:
    if value is None:
        return ["list", {"@type": "tvm.list", "elements": []}]
    if isinstance(value, int):
        return ["num", hex(value)]
    if isinstance(value, list):
        return ["tuple", {"@type": "tvm.tuple", "elements": [_nested(item) for item in value]}]
    kind = "slice" if isinstance(value, Slice) else "cell"
    return [kind, {"@type": f"tvm.{kind}", "bytes": boc64(_cell(value))}]


def _nested(value: StackValue) -> Json:
    if value is None:
        return {"@type": "tvm.stackEntryList", "list": {"@type": "tvm.list", "elements": []}}
    if isinstance(value, int):
        return {"@type": "tvm.stackEntryNumber", "number": {"@type": "tvm.numberDecimal", "number": str(value)}}
    if isinstance(value, list):
        elements = [_nested(item) for item in value]
        return {"@type": "tvm.stackEntryTuple", "tuple": {"@type": "tvm.tuple", "elements": elements}}
    kind = "slice" if isinstance(value, Slice) else "cell"
    content = {"@type": f"tvm.{kind}", "bytes": boc64(_cell(value))}
    return {"@type": f"tvm.stackEntry{kind.capitalize()}", kind: content}


def _cell(value: Cell | Slice) -> Cell:
    cell: Cell = value.to_cell() if isinstance(value, Slice) else value
    return cell


def _read_entry(entry: Json) -> StackValue:
    match entry:
        case ["num", bool()]:
            raise DevnetError("a num stack entry holds an integer, not a boolean")
        case ["num", int(number)]:
            return number
        case ["num", str(text)]:
            try:
                return int(text, 0)
            except ValueError as error:
                raise DevnetError(f"{text[:40]!r} is not a number: write it in decimal or as 0x...") from error
        case ["tvm.Cell" | "cell", str(text)] | ["tvm.Cell" | "cell", {"bytes": str(text)}]:
            return read_cell(text)
        case ["tvm.Slice" | "slice", str(text)] | ["tvm.Slice" | "slice", {"bytes": str(text)}]:
            begun: Slice = read_cell(text).begin_parse()
            return begun
        case ["tuple", {"elements": list(elements)}]:
            return [_read_entry(element) for element in elements]
        case ["null", _]:
            return None
    raise DevnetError(f"cannot read stack entry {str(entry)[:80]}: use num, tvm.Cell, tvm.Slice or tuple")


def _comment(body: Cell) -> str:
    """Text of a comment message, "" where the body is something else."""
    reader = Reader(body)
    if reader.bits_left < 32 or reader.uint(32) != _COMMENT_OP or reader.bits_left % 8:
        return ""
    text = reader.octets(reader.bits_left // 8)
    rest = body
    while rest.refs:
        rest = rest.refs[0]
        tail = Reader(rest)
        text += tail.octets(tail.bits_left // 8)
    return text.decode("utf-8", "replace")


def _storage_fees(cell: Cell) -> int:
    """Of an ordinary transaction."""
    reader = Reader(cell.refs[2])
    reader.uint(4 + 1)  # trans_ord$0000, credit_first
    return reader.coins() if reader.bit() else 0
