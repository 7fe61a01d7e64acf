"""Claims on escrows, as a node takes them: a batch that its enclave signs, or a single receipt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from pytoniq_core import Cell, HashMap, begin_cell

from wrappers.cells import CellError, address_of
from wrappers.ops import Op
from wrappers.receipts import Receipt

MAX_CLAIM_ENTRIES = 200
"""What an enclave signs at once. A node takes 255, as many as its transaction may send messages."""
MAX_CLAIM_SECONDS = 120
"""A claim's `valid_until` lies at most this far in the future when it lands."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is claimed from one escrow, with the client's consent. TL-B: Entry."""

    cumulative_nano: int
    seq: int
    cap_nano: int
    acked_nano: int
    terms: bytes
    voucher_signature: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(self.cumulative_nano, 64).store_uint(self.seq, 32).store_uint(self.cap_nano, 64)
        return (
            cell.store_uint(self.acked_nano, 64).store_bytes(self.terms).store_bytes(self.voucher_signature).end_cell()
        )

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        return cls(
            s.load_uint(64), s.load_uint(32), s.load_uint(64), s.load_uint(64), s.load_bytes(32), s.load_bytes(64)
        )


@dataclass(frozen=True, slots=True)
class ClaimEntry:
    """One entry of a batch claim; `root` is `receipts_root` of the receipts since the claim before."""

    escrow: bytes
    entry: Entry
    root: bytes


def receipts_root(receipts: Sequence[Receipt]) -> bytes:
    """Hash of `HashmapE 32 ^Receipt` keyed by seq, as one dictionary cell; 32 zero bytes for none."""
    map_ = HashMap(32, value_serializer=lambda receipt, builder: builder.store_ref(receipt.to_cell()))
    for receipt in receipts:
        map_.set_int_key(receipt.seq, receipt)
    cell = map_.serialize()
    return bytes(cell.hash) if cell is not None else bytes(32)


def batch(entries: Sequence[ClaimEntry]) -> tuple[Cell, Cell]:
    """`spines` of a claim to be signed. Raises ValueError outside 1 to MAX_CLAIM_ENTRIES entries."""
    if not 1 <= len(entries) <= MAX_CLAIM_ENTRIES:
        raise ValueError(f"a claim takes 1 to {MAX_CLAIM_ENTRIES} entries, got {len(entries)}; split the batch")
    return spines(entries)


def spines(entries: Sequence[ClaimEntry]) -> tuple[Cell, Cell]:
    """The two parallel spines of a claim: (Entries, Roots), three entries to a cell. Raises ValueError for none."""
    entries_cell: Cell | None = None
    roots_cell: Cell | None = None
    starts = range(0, len(entries), 3)
    for start in reversed(starts):
        group = entries[start : start + 3]
        escrows, roots = begin_cell(), begin_cell()
        for item in group:
            escrows.store_bytes(item.escrow)
            roots.store_bytes(item.root)
        for item in group:
            escrows.store_ref(item.entry.to_cell())
        if entries_cell is not None and roots_cell is not None:
            escrows.store_ref(entries_cell)
            roots.store_ref(roots_cell)
        entries_cell, roots_cell = escrows.end_cell(), roots.end_cell()
    if entries_cell is None or roots_cell is None:
        raise ValueError("no entries")
    return entries_cell, roots_cell


@dataclass(frozen=True, slots=True)
class ClaimMessage:
    """Body of a batch claim. TL-B: ClaimMessage."""

    signature: bytes
    seqno: int
    valid_until: int
    tokens: int
    entries: tuple[ClaimEntry, ...]

    @classmethod
    def from_cell(cls, body: Cell) -> Self:
        """Raises CellError for what is not a batch claim."""
        try:
            s = body.begin_parse()
            signature, valid_until, count = s.load_bytes(64), s.load_uint(32), s.load_uint(8)
            tokens, seqno = s.load_uint(64), s.load_uint(32)
            entries, roots = s.load_ref().begin_parse(), s.load_ref().begin_parse()
            items: list[ClaimEntry] = []
            while len(items) < count:
                if not entries.remaining_bits:
                    entries, roots = entries.load_ref().begin_parse(), roots.load_ref().begin_parse()
                items.append(
                    ClaimEntry(entries.load_bytes(32), Entry.from_cell(entries.load_ref()), roots.load_bytes(32))
                )
            if not items:
                raise CellError("it claims nothing")
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a batch claim: {error}") from error
        return cls(signature, seqno, valid_until, tokens, tuple(items))


def claim_message(
    node: bytes, signature: bytes, seqno: int, valid_until: int, tokens: int, entries: Sequence[ClaimEntry]
) -> Cell:
    """External message to `node`; `signature` is over `signed.Claim` with the hashes of `batch(entries)`."""
    entries_cell, roots_cell = batch(entries)
    body = begin_cell().store_bytes(signature).store_uint(valid_until, 32).store_uint(len(entries), 8)
    body.store_uint(tokens, 64).store_uint(seqno, 32).store_ref(entries_cell).store_ref(roots_cell)
    # TL-B ext_in_msg_info$10, source addr_none, import fee 0; no StateInit; body in the root, whose bits are free.
    message = begin_cell().store_uint(0b10, 2).store_uint(0, 2).store_address(address_of(node)).store_coins(0)
    return message.store_bit(0).store_bit(0).store_cell(body.end_cell()).end_cell()


def claim_receipt(
    key: bytes, escrow: bytes, allotment_epoch: int, receipt: Receipt, signature: bytes, entry: Entry
) -> Cell:
    """Body from anyone: settles up to one receipt at the sender's gas, also after the enclave is gone."""
    body = begin_cell().store_uint(Op.CLAIM_RECEIPT, 32).store_bytes(key).store_bytes(escrow)
    body.store_uint(allotment_epoch, 64).store_ref(receipt.to_cell())
    return body.store_ref(begin_cell().store_bytes(signature).end_cell()).store_ref(entry.to_cell()).end_cell()
