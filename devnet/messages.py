"""Message cells in and out of the ledger (TL-B: `message$_`)."""

from __future__ import annotations

from typing import Any

from pytoniq_core import Address, Builder, Cell, HashMap, begin_cell

from chain.api import Message
from chain.decode import decode_message
from chain.reader import DecodeError, Reader
from devnet.engine import DevnetError
from wrappers.cells import EMPTY, address_of, cell_of

EXTERNAL_IN_TAG = 0b10


def external_in(destination: bytes, body: Cell, state_init: Cell | None = None) -> Cell:
    """`ext_in_msg_info$10` from nowhere, no import fee."""
    builder = begin_cell().store_uint(EXTERNAL_IN_TAG, 2).store_uint(0, 2).store_address(address_of(destination))
    return _tail(builder.store_coins(0), body, state_init)


def internal(
    *,
    source: bytes,
    destination: bytes,
    value_nano: int,
    body: Cell | None,
    state_init: Cell | None,
    bounce: bool,
    bounced: bool,
    lt: int,
    now: int,
) -> Cell:
    """`int_msg_info$0` with no forward fee of its own: nobody paid for an injected message."""
    builder = begin_cell().store_bit(0).store_bit(1).store_bit(int(bounce)).store_bit(int(bounced))
    builder.store_address(address_of(source)).store_address(address_of(destination))
    builder.store_coins(value_nano).store_bit(0).store_coins(0).store_coins(0).store_uint(lt, 64).store_uint(now, 32)
    return _tail(builder, EMPTY if body is None else body, state_init)


def _tail(builder: Builder, body: Cell, state_init: Cell | None) -> Cell:
    if state_init is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_bit(1).store_ref(state_init)
    return cell_of(builder.store_bit(1).store_ref(body))


def decode_external_in(cell: Cell) -> Message:
    """Raises DevnetError on anything that is not an inbound external message to workchain 0."""
    try:
        tag = Reader(cell).uint(2)
        message = decode_message(cell)
    except DecodeError as error:
        raise DevnetError(f"not a message: {error}; send a cell of type Message Any") from error
    if tag != EXTERNAL_IN_TAG:
        raise DevnetError("only inbound external messages (ext_in_msg_info$10) can be sent to the chain from outside")
    if message.destination is None:
        raise DevnetError("the devnet has accounts in workchain 0 only; send to an address that begins with 0:")
    return message


def is_internal(cell: Cell) -> bool:
    return Reader(cell).uint(1) == 0


def transaction_messages(transaction: Cell) -> tuple[Cell | None, tuple[Cell, ...]]:
    """The inbound message cell and the outbound ones in order, out of a `Transaction` cell."""
    reader = Reader(transaction.refs[0])
    inbound = reader.maybe_ref()
    root = reader.maybe_ref()
    if root is None:
        return inbound, ()
    tree: Any = HashMap.parse(root.begin_parse(), 15, value_deserializer=lambda s: s.load_ref())
    return inbound, tuple(tree[index] for index in sorted(tree))


def raw_address(account: bytes) -> str:
    return f"0:{account.hex()}"


def parse_account(text: str) -> bytes:
    """Account id of any spelling of a workchain-0 address. Raises DevnetError."""
    try:
        address = Address(text)
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise DevnetError(f"{text[:80]!r} is not an address: {error}") from error
    if address.wc != 0:
        raise DevnetError(f"{text[:80]!r} is in workchain {address.wc}; the devnet has accounts in workchain 0 only")
    return bytes(address.hash_part)
