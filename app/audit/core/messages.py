"""What messages between contracts say, as far as an audit needs it. Bodies come from anyone: nothing here raises."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import Message, Transaction
from wrappers.ops import Op

_NAMES = {op.value: op.name.lower() for op in Op}


def op_of(body: Cell) -> int | None:
    """The first 32 bits; None for plain money, 0 for a text comment."""
    return int(body.begin_parse().load_uint(32)) if len(body.bits) >= 32 else None


def name_of(message: Message) -> str:
    """For people. The only external message that a contract of Cocoon takes is a node's claim."""
    if message.external:
        return "claim"
    if message.bounced:
        return "bounced"
    op = op_of(message.body)
    if op is None or op == 0:
        return "plain money"
    return _NAMES.get(op, f"op {op:08x}")


def succeeded(transaction: Transaction) -> bool:
    """Whether code ran to its end and all its actions were done."""
    return not transaction.aborted and transaction.exit_code in (0, 1) and transaction.action_code in (None, 0)


def received(transaction: Transaction, op: Op) -> bool:
    """Whether this internal message was taken, and not as something that came back."""
    message = transaction.in_msg
    if message is None or message.external or message.bounced or not succeeded(transaction):
        return False
    return op_of(message.body) == op


@dataclass(frozen=True, slots=True)
class Payment:
    """TL-B: paid, of an escrow or a job to a node."""

    amount_nano: int
    requests: int


def payment(message: Message) -> Payment | None:
    """None for any other message."""
    try:
        s = message.body.begin_parse()
        if message.bounced or message.external or len(message.body.bits) < 32 or s.load_uint(32) != Op.PAID:
            return None
        return Payment(s.load_uint(64), s.load_uint(40))
    except Exception:  # pytoniq-core raises many unrelated types on malformed input
        return None
