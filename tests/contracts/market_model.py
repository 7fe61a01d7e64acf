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


@dataclass(frozen=True, slots=True)
class Rent:
    """What the chain takes for storage before anything else. Amounts nanoTON.

    TL-B: trans_ord$0000 credit_first:Bool storage_ph:(Maybe TrStoragePhase) ...;
    tr_phase_storage$_ storage_fees_collected:Grams storage_fees_due:(Maybe Grams) status_change:AccStatusChange.
    """

    collected: int
    due: int
    """Not there to be taken: the account's debt."""
    ends: bool
    """The debt is so large that the chain freezes or deletes the account."""
    from_message: bool
    """A message without the bounce flag is credited first, so a debt is taken from it before the contract sees it;
    one with the flag arrives whole, and the debt is taken at the next transaction."""

    @classmethod
    def of(cls, tx: Transaction) -> Rent:
        reader = Reader(tx.cell.refs[2])
        reader.uint(4)
        credit_first = bool(reader.bit())
        if not reader.bit():
            return cls(0, 0, False, credit_first)
        return cls(reader.coins(), reader.maybe_coins() or 0, bool(reader.bit()), credit_first)

    def split(self, balance: int, value: int) -> tuple[int, int]:
        """(balance without the message, value that the contract sees)."""
        if not self.from_message:
            assert balance >= self.collected, "rent is taken from what is there"
            return balance - self.collected, value
        left = balance + value - self.collected
        seen = min(value, left)
        return left - seen, seen


def storage_of(account: Cell) -> tuple[int, int, int, int]:
    """(cells, bits, unix second up to which rent is paid, debt in nanoTON) of an `Account`.

    TL-B: account$1 addr:MsgAddressInt storage_stat:StorageInfo ...; storage_info$_ used:StorageUsed
    storage_extra:StorageExtraInfo last_paid:uint32 due_payment:(Maybe Grams).
    """
    reader = Reader(account)
    reader.uint(1 + 2 + 1 + 8 + 256)
    cells, bits = reader.var_uint(3), reader.var_uint(3)
    if reader.uint(3) == 1:
        reader.octets(32)
    return cells, bits, reader.uint(32), reader.maybe_coins() or 0
