"""An escrow's rare messages: each carries the program that handles it as its last reference."""

from __future__ import annotations

from pytoniq_core import Builder, Cell, begin_cell

from wrappers.code import Contract, rare_program
from wrappers.ops import Op
from wrappers.rows import RowTerms


def _with_program(body: Builder) -> Cell:
    return body.store_ref(rare_program(Contract.ESCROW)).end_cell()


def lower(node: bytes, allotted_nano: int, signature: bytes) -> Cell:
    """Body from anyone: lowers a row to `allotted_nano`; `signature` is the node's over `signed.Release`."""
    body = begin_cell().store_uint(Op.LOWER, 32).store_bytes(node).store_uint(allotted_nano, 64)
    return _with_program(body.store_bytes(signature))


def reclaim(node: bytes) -> Cell:
    """Body from the owner: starts a row's close timer; `finish` frees the money when it has run."""
    return _with_program(begin_cell().store_uint(Op.RECLAIM, 32).store_bytes(node))


def allot_shared(node: bytes, amount_nano: int, terms: RowTerms) -> Cell:
    """Body from the owner: a new row of which others get shares; `terms.shares.fee` is what the escrow froze."""
    body = begin_cell().store_uint(Op.ALLOT_SHARED, 32).store_bytes(node).store_coins(amount_nano)
    return _with_program(body.store_ref(terms.to_cell()))


def order_job(amount_nano: int, code_hash: bytes, index: int, config: Cell) -> Cell:
    """Body from the owner: `amount_nano` of what is free, and the rest of the value, opens a job.

    `config`: the cell of JobConfig; `code_hash`: of the program of the job's birth that the owner expects.
    """
    body = begin_cell().store_uint(Op.ORDER_JOB, 32).store_coins(amount_nano).store_bytes(code_hash)
    return _with_program(body.store_uint(index, 32).store_ref(config))


def pay_shares(node: bytes) -> Cell:
    """Body from anyone: a row's shares leave, and the row with them when it has ended."""
    return _with_program(begin_cell().store_uint(Op.PAY_SHARES, 32).store_bytes(node))


def rotate_voucher_key(key: bytes) -> Cell:
    """Body from the owner: `key` (32 bytes) may replace the voucher key after the longest close timer."""
    return _with_program(begin_cell().store_uint(Op.ROTATE_VOUCHER_KEY, 32).store_bytes(key))


def apply_voucher_key() -> Cell:
    """Body from anyone, from NextKey.ready_at on."""
    return _with_program(begin_cell().store_uint(Op.APPLY_VOUCHER_KEY, 32))


def return_rent() -> Cell:
    """Body from the owner: what is kept for rent beyond ten years from now becomes deposit."""
    return _with_program(begin_cell().store_uint(Op.RETURN_RENT, 32))


def give_up_key(node: bytes, key: bytes) -> Cell:
    """Body from the owner: a row forgets an enclave key that it knew before its present one.

    Vouchers that were signed for the key count from 0 again: give up only keys that their node has retired.
    """
    return _with_program(begin_cell().store_uint(Op.GIVE_UP_KEY, 32).store_bytes(node).store_bytes(key))
