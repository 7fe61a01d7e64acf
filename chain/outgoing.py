"""Messages as a wallet sends them (block.tlb: `MessageRelaxed`, `Message`)."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Builder, Cell, begin_cell

from wrappers.cells import address_of

_ROOT_BITS = 1023
_ROOT_REFS = 4


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One internal message. `destination`: 32-byte account id, workchain 0.

    `mode`: TON's send mode; 3 = fees on top, errors skipped. Mode bit 2 is demanded by the wallet.
    """

    destination: bytes
    value_nano: int
    body: Cell | None = None
    state_init: Cell | None = None
    bounce: bool = True
    mode: int = 3


def internal_message(message: Outgoing) -> Cell:
    """`MessageRelaxed` with an empty source, which the chain fills in.

    Body and StateInit go inline where they fit: the root cell's bits are free of forward fees. The chain moves them to
    references itself where the filled-in address leaves no room.
    """
    if message.value_nano < 0:
        raise ValueError(f"a message cannot carry {message.value_nano} nanoTON")
    header = begin_cell().store_bits("01" + ("1" if message.bounce else "0") + "0").store_uint(0, 2)
    header.store_address(address_of(message.destination)).store_coins(message.value_nano).store_bit(0)
    header.store_coins(0).store_coins(0).store_uint(0, 64 + 32)
    return _finish(header, message.state_init, message.body)


def external_in(account: bytes, body: Cell, state_init: Cell | None) -> Cell:
    """`ext_in_msg_info$10` to an account of workchain 0, body inline where it fits: every cell costs import fees."""
    header = begin_cell().store_uint(0b10, 2).store_uint(0, 2).store_address(address_of(account)).store_coins(0)
    return _finish(header, state_init, body)


def _finish(message: Builder, state_init: Cell | None, body: Cell | None) -> Cell:
    body_bits, body_refs = (0, 0) if body is None else (len(body.bits), len(body.refs))
    if state_init is None:
        message.store_bit(0)
    elif _fits(message, state_init, spare_bits=3, spare_refs=1 if body is not None else 0):
        message.store_bit(1).store_bit(0).store_cell(state_init)
    else:
        message.store_bit(1).store_bit(1).store_ref(state_init)
    if body is None:
        return _cell(message.store_bit(0))
    if len(message.bits) + 1 + body_bits <= _ROOT_BITS and len(message.refs) + body_refs <= _ROOT_REFS:
        return _cell(message.store_bit(0).store_cell(body))
    return _cell(message.store_bit(1).store_ref(body))


def _fits(message: Builder, part: Cell, *, spare_bits: int, spare_refs: int) -> bool:
    return (
        len(message.bits) + spare_bits + len(part.bits) <= _ROOT_BITS
        and len(message.refs) + len(part.refs) + spare_refs <= _ROOT_REFS
    )


def _cell(builder: Builder) -> Cell:
    cell: Cell = builder.end_cell()
    return cell
