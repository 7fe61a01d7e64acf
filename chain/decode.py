"""Transactions, messages and account states out of cells (block.tlb of TON), the same for every backend."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import AccountState, Message, Status, Transaction
from chain.reader import DecodeError, Reader

__all__ = ["DecodeError", "decode_account", "decode_message", "decode_transaction", "hashmap_label"]

_STD_ADDRESS = 2


def decode_transaction(cell: Cell, account: bytes) -> Transaction:
    """TL-B: `transaction$0111 account_addr:bits256 lt:uint64 ... = Transaction`.

    `account` is the 32-byte workchain-0 account id that the transaction must belong to.
    Raises DecodeError where the cell is no transaction or belongs to another account.
    """
    r = Reader(cell)
    if r.uint(4) != 0b0111:
        raise DecodeError("not a transaction: wrong constructor tag")
    owner = r.octets(32)
    if owner != account:
        raise DecodeError(f"the transaction belongs to account {owner.hex()}, not to {account.hex()}")
    lt, prev_hash, prev_lt, now, out_count = r.uint(64), r.octets(32), r.uint(64), r.uint(32), r.uint(15)
    r.uint(4)  # orig_status, end_status
    in_msg, out_msgs = _messages(r.ref(), out_count)
    total_fees_nano = r.currency()
    r.ref()  # state_update
    outcome = _description(r.ref())
    return Transaction(
        account=account,
        lt=lt,
        hash=cell.hash,
        prev_lt=prev_lt,
        prev_hash=prev_hash,
        now=now,
        in_msg=in_msg,
        out_msgs=out_msgs,
        total_fees_nano=total_fees_nano,
        aborted=outcome.aborted,
        exit_code=outcome.exit_code,
        action_code=outcome.action_code,
        gas_used=outcome.gas_used,
        cell=cell,
    )


def decode_message(cell: Cell) -> Message:
    """TL-B: `message$_ {X:Type} info:CommonMsgInfo init:(Maybe (Either StateInit ^StateInit)) body:(Either X ^X)`.

    `source` and `destination` are None for anything that is not an account of workchain 0: account ids repeat across
    workchains, so a masterchain account must never pass for the workchain-0 account with the same hash. `external`
    tells a true external message apart.
    """
    r = Reader(cell)
    value_nano = forward_fee_nano = created_lt = 0
    bounced = external = False
    if not r.bit():  # int_msg_info$0
        r.bit()  # ihr_disabled
        r.bit()  # bounce
        bounced = r.bit()
        source, destination = _address(r), _address(r)
        value_nano = r.currency()
        r.coins()  # ihr_fee
        forward_fee_nano = r.coins()
        created_lt = r.uint(64)
        r.uint(32)  # created_at
    else:
        external = True
        outbound = r.bit()
        source, destination = _address(r), _address(r)
        if outbound:  # ext_out_msg_info$11
            created_lt = r.uint(64)
            r.uint(32)  # created_at
        else:  # ext_in_msg_info$10
            r.coins()  # import_fee
    if r.bit():
        if r.bit():
            r.ref()
        else:
            _skip_state_init(r)
    body = r.ref() if r.bit() else r.rest()
    return Message(
        source=source,
        destination=destination,
        value_nano=value_nano,
        body=body,
        bounced=bounced,
        created_lt=created_lt,
        forward_fee_nano=forward_fee_nano,
        external=external,
        hash=cell.hash,
    )


def decode_account(cell: Cell, account: bytes, *, last_lt: int, last_hash: bytes) -> AccountState:
    """TL-B: `account_none$0 | account$1 addr:MsgAddressInt storage_stat:StorageInfo storage:AccountStorage = Account`.

    `last_lt` and `last_hash` come from the ShardAccount that holds the cell.
    """
    r = Reader(cell)
    if not r.bit():
        return AccountState(account, Status.ABSENT, 0, None, None, last_lt, last_hash)
    if _address(r) != account:
        raise DecodeError(f"the state belongs to another account than {account.hex()}")
    r.var_uint(3)  # used.cells
    r.var_uint(3)  # used.bits
    extra = r.uint(3)
    if extra == 1:
        r.octets(32)  # storage_extra_info.dict_hash
    elif extra != 0:
        raise DecodeError(f"unknown StorageExtraInfo tag {extra}")
    r.uint(32)  # last_paid
    r.maybe_coins()  # due_payment
    r.uint(64)  # last_trans_lt of the storage: after the last transaction's messages, not its own
    balance_nano = r.currency()
    code = data = None
    if r.bit():  # account_active$1
        status = Status.ACTIVE
        code, data = _skip_state_init(r)
    else:
        status = Status.FROZEN if r.bit() else Status.UNINIT
    return AccountState(account, status, balance_nano, code, data, last_lt, last_hash)


def _address(r: Reader) -> bytes | None:
    """`MsgAddress`: the 32-byte id of a workchain-0 account, else None."""
    tag = r.uint(2)
    if tag == 0:
        return None
    if tag == 1:
        r.uint(r.uint(9))
        return None
    anycast = r.bit()
    if anycast:
        r.uint(r.uint(5))
    length = r.uint(9) if tag != _STD_ADDRESS else 256
    workchain = r.sint(8 if tag == _STD_ADDRESS else 32)
    identifier = r.uint(length)
    if anycast or workchain != 0 or length != 256:
        return None
    return identifier.to_bytes(32, "big")


def _skip_state_init(r: Reader) -> tuple[Cell | None, Cell | None]:
    if r.bit():
        r.uint(5)  # fixed_prefix_length
    if r.bit():
        r.uint(2)  # special
    code, data = r.maybe_ref(), r.maybe_ref()
    r.maybe_ref()  # library
    return code, data


def _messages(cell: Cell, out_count: int) -> tuple[Message | None, tuple[Message, ...]]:
    r = Reader(cell)
    in_cell = r.maybe_ref()
    root = r.maybe_ref()
    leaves: dict[int, Cell] = {}
    if root is not None:
        _walk(root, 15, 0, leaves)
    if sorted(leaves) != list(range(out_count)):
        raise DecodeError(f"the transaction declares {out_count} outbound messages and holds {sorted(leaves)}")
    in_msg = None if in_cell is None else decode_message(in_cell)
    return in_msg, tuple(decode_message(leaves[i]) for i in range(out_count))


def _walk(cell: Cell, width: int, prefix: int, leaves: dict[int, Cell]) -> None:
    """`Hashmap width ^(Message Any)`: collects key -> message cell."""
    r = Reader(cell)
    length, label = hashmap_label(r, width)
    prefix, width = prefix << length | label, width - length
    if width == 0:
        leaves[prefix] = r.ref()
        return
    for branch in (0, 1):
        _walk(r.ref(), width - 1, prefix << 1 | branch, leaves)


def hashmap_label(r: Reader, width: int) -> tuple[int, int]:
    """`HmLabel ~n width`: (length, bits) of a dictionary edge's label."""
    if not r.bit():  # hml_short$0
        length = 0
        while r.bit():
            length += 1
        value = r.uint(length)
    elif not r.bit():  # hml_long$10
        length = r.uint(width.bit_length())
        value = r.uint(length)
    else:  # hml_same$11
        bit = r.bit()
        length = r.uint(width.bit_length())
        value = (1 << length) - 1 if bit else 0
    if length > width:
        raise DecodeError("a dictionary label is longer than its key")
    return length, value


@dataclass(slots=True)
class _Outcome:
    aborted: bool = False
    exit_code: int | None = None
    action_code: int | None = None
    gas_used: int = 0


def _description(cell: Cell) -> _Outcome:
    """`TransactionDescr`: ordinary, storage and tick-tock; split and merge do not exist in workchain 0 of TON."""
    r = Reader(cell)
    outcome = _Outcome()
    tag = r.uint(3)
    if tag == 0b001:  # trans_tick_tock$001
        r.bit()  # is_tock
        _storage_phase(r)
        _compute_phase(r, outcome)
        _action_phase(r, outcome)
        outcome.aborted = r.bit()
        return outcome
    if tag != 0:
        raise DecodeError("unknown kind of transaction description")
    if r.bit():  # trans_storage$0001
        _storage_phase(r)
        return outcome
    r.bit()  # credit_first
    if r.bit():
        _storage_phase(r)
    if r.bit():  # credit_ph
        r.maybe_coins()  # due_fees_collected
        r.currency()  # credit
    _compute_phase(r, outcome)
    _action_phase(r, outcome)
    outcome.aborted = r.bit()
    return outcome


def _storage_phase(r: Reader) -> None:
    r.coins()  # storage_fees_collected
    r.maybe_coins()  # storage_fees_due
    _status_change(r)


def _status_change(r: Reader) -> None:
    if r.bit():
        r.bit()


def _compute_phase(r: Reader, outcome: _Outcome) -> None:
    if not r.bit():  # tr_phase_compute_skipped$0
        if r.uint(2) == 0b11:
            r.bit()
        return
    r.uint(3)  # success, msg_state_used, account_activated
    r.coins()  # gas_fees
    inner = Reader(r.ref())
    outcome.gas_used = inner.var_uint(3)
    inner.var_uint(3)  # gas_limit
    if inner.bit():
        inner.var_uint(2)  # gas_credit
    inner.uint(8)  # mode
    outcome.exit_code = inner.sint(32)


def _action_phase(r: Reader, outcome: _Outcome) -> None:
    if not r.bit():
        return
    inner = Reader(r.ref())
    inner.uint(3)  # success, valid, no_funds
    _status_change(inner)
    inner.maybe_coins()  # total_fwd_fees
    inner.maybe_coins()  # total_action_fees
    outcome.action_code = inner.sint(32)
