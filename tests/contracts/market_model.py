"""What a contract does with one message, said once more in Python: what the state machine holds the chain to."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell, Slice

from chain.api import Transaction
from chain.reader import Reader
from wrappers.fees import Fees

BAD_SIGNATURE, NOT_ALLOWED, LOW_VALUE, UNKNOWN_OP = 105, 101, 102, 100


class Refusal(Exception):
    """The contract throws this code."""

    def __init__(self, code: int) -> None:
        super().__init__(str(code))
        self.code = code


def require(holds: bool, code: int) -> None:
    if not holds:
        raise Refusal(code)


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message at a contract. Amounts nanoTON."""

    account: bytes
    sender: bytes | None
    """None for an external message."""
    value: int
    body: Cell
    bounced: bool
    base: int
    """The account's balance without the message's value, after rent."""
    gas_fee: int
    now: int
    lt: int
    fees: Fees
    network: bytes

    def parse(self) -> tuple[int, Slice]:
        """Op (0: money without a message) and the rest of the body."""
        s = self.body.begin_parse()
        if len(self.body.bits) < 32 or self.bounced:
            return 0, s
        return s.load_uint(32), s

    @property
    def all_kept(self) -> int:
        """The balance where nothing leaves."""
        return self.base + self.value - self.gas_fee


@dataclass(frozen=True, slots=True)
class Outcome:
    """What must be afterwards."""

    state: object
    """None: the account has ended."""
    balance: int | None
    """None: whatever the chain says."""
    bodies: tuple[bytes, ...] = ()
    """Hashes of the bodies of messages that must be among those that leave."""


def storage_fee(tx: Transaction) -> int:
    """TL-B: trans_ord$0000 credit_first:Bool storage_ph:(Maybe TrStoragePhase) ..."""
    reader = Reader(tx.cell.refs[2])
    reader.uint(4 + 1)
    return reader.coins() if reader.bit() else 0
