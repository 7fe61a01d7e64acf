"""`ShardAccount` cells: the empty one, what a transaction left behind, and a credit out of nothing."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell, begin_cell

from chain.api import AccountState
from chain.decode import decode_account
from chain.reader import Reader
from wrappers.cells import address_of, cell_of

NO_ACCOUNT = begin_cell().store_bit(0).end_cell()
ZERO_HASH = bytes(32)


def shard_account(account_cell: Cell, last_hash: bytes, last_lt: int) -> Cell:
    """TL-B: `account_descr$_ account:^Account last_trans_hash:bits256 last_trans_lt:uint64 = ShardAccount`."""
    return cell_of(begin_cell().store_ref(account_cell).store_bytes(last_hash).store_uint(last_lt, 64))


NO_SHARD_ACCOUNT = shard_account(NO_ACCOUNT, ZERO_HASH, 0)


@dataclass(frozen=True, slots=True)
class StoredAccount:
    shard: Cell
    """`ShardAccount`."""
    state: AccountState

    @property
    def cell(self) -> Cell:
        """`Account`."""
        account: Cell = self.shard.refs[0]
        return account

    @classmethod
    def of(cls, shard: Cell, account: bytes) -> StoredAccount | None:
        """None where the account does not exist (any more): the chain then forgets its last transaction too."""
        if shard.refs[0].hash == NO_ACCOUNT.hash:
            return None
        reader = Reader(shard)
        last_hash, last_lt = reader.octets(32), reader.uint(64)
        return cls(shard, decode_account(shard.refs[0], account, last_lt=last_lt, last_hash=last_hash))


def planted(state: AccountState, now: int) -> StoredAccount:
    """An account as another chain shows it, rent paid up to `now`: to see what it would do with a message."""
    if state.code is None or state.data is None:
        return credited(None, state.account, max(state.balance_nano, 1), now)
    storage = begin_cell().store_uint(0, 64).store_coins(state.balance_nano).store_bit(0).store_bit(1)
    # account_active$1 _:StateInit: no split depth, no tick-tock, code and data, no library.
    storage.store_uint(0b00110, 5).store_ref(state.code).store_ref(state.data)
    builder = begin_cell().store_bit(1).store_address(address_of(state.account))
    builder.store_uint(0, 3).store_uint(0, 3)  # storage used: nothing is charged for what the other chain charges
    cell = cell_of(builder.store_uint(0, 3).store_uint(now, 32).store_bit(0).store_cell(storage.end_cell()))
    result = StoredAccount.of(shard_account(cell, ZERO_HASH, 0), state.account)
    assert result is not None
    return result


def credited(stored: StoredAccount | None, account: bytes, amount_nano: int, now: int) -> StoredAccount:
    """The account with `amount_nano` more, as if it had always been there: no transaction, fee or rent."""
    cell = _fresh(account, amount_nano, now) if stored is None else _with_more(stored.cell, amount_nano)
    last_hash, last_lt = (ZERO_HASH, 0) if stored is None else (stored.state.last_hash, stored.state.last_lt)
    result = StoredAccount.of(shard_account(cell, last_hash, last_lt), account)
    assert result is not None
    return result


def _fresh(account: bytes, balance_nano: int, now: int) -> Cell:
    storage = begin_cell().store_uint(0, 64).store_coins(balance_nano).store_bit(0).store_uint(0, 2).end_cell()
    builder = begin_cell().store_bit(1).store_address(address_of(account))
    builder.store_var_uint(1, 3).store_var_uint(len(storage.bits), 3)  # storage used: this one cell
    return cell_of(builder.store_uint(0, 3).store_uint(now, 32).store_bit(0).store_cell(storage))


def _with_more(account_cell: Cell, amount_nano: int) -> Cell:
    """Rewrites `used.bits` and `balance` of `account$1`; every other bit is kept."""
    reader = Reader(account_cell)
    header = reader.uint(1 + 2 + 1 + 8 + 256)
    used_cells, used_bits = reader.var_uint(3), reader.var_uint(3)
    extra = reader.uint(3)
    dict_hash = reader.octets(32) if extra == 1 else b""
    last_paid, due = reader.uint(32), reader.maybe_coins()
    storage_lt, balance_nano = reader.uint(64), reader.coins()
    rest = reader.rest()
    new_balance = balance_nano + amount_nano
    builder = begin_cell().store_uint(header, 268).store_var_uint(used_cells, 3)
    builder.store_var_uint(used_bits + 8 * (_coin_bytes(new_balance) - _coin_bytes(balance_nano)), 3)
    builder.store_uint(extra, 3).store_bytes(dict_hash).store_uint(last_paid, 32)
    if due is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_coins(due)
    return cell_of(builder.store_uint(storage_lt, 64).store_coins(new_balance).store_cell(rest))


def _coin_bytes(amount_nano: int) -> int:
    return (amount_nano.bit_length() + 7) // 8
