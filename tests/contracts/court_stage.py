"""A court, an enclave that signs what a test tells it to, and evidence of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from job_stage import Stage, node_program
from pytoniq_core import Cell, begin_cell

from devnet.trace import Trace
from protocol.pricing import Stop, Usage, charge
from scripts.stage import TON, public
from wrappers import court
from wrappers.claims import ClaimEntry, Entry, batch, receipts_root
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.signed import Claim, allotment_id, node_id, sign

NODE_EPOCH, ALLOTMENT_EPOCH = 5, 77
TERMS = Terms(b"\x41" * 32, 3 << 20, 1 << 20, 7 << 20, 11 << 20, 1000)
USAGE = Usage(prompt_tokens=500, cached_tokens=100, completion_tokens=60, reasoning_tokens=20)


@dataclass
class Court(Stage):
    """The stage with its court born, and one allotment of `escrow` to `node` in the enclave's books."""

    terms: Terms = TERMS
    tokens: int = field(default=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        assert not self.genesis().failed
        self.allotment = allotment_id(self.network, self.escrow, ALLOTMENT_EPOCH, self.node)
        self.node_id = node_id(self.network, self.node, NODE_EPOCH)
        self.accused = court.Accused(self.node, NODE_EPOCH, public(self.enclave_key))

    def place(self, seq: int = 1) -> court.Place:
        return court.Place(self.escrow, ALLOTMENT_EPOCH, seq)

    # ------------------------------------------------------------------------------------------ receipts

    def inner(self, usage: Usage = USAGE, stop: int = Stop.END) -> InnerReceipt:
        counts = usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens, usage.reasoning_tokens
        return InnerReceipt(b"\x51" * 32, self.terms.model, *counts, stop, b"\x52" * 32, b"\x53" * 32, b"\x54" * 32)

    def receipt(
        self, seq: int = 1, amount: int | None = None, inner: InnerReceipt | None = None, previous: bytes = bytes(32)
    ) -> Receipt:
        """What an honest enclave signs for USAGE, unless told otherwise."""
        inner = inner or self.inner()
        amount = charge(self.terms, USAGE, Stop.END) if amount is None else amount
        return Receipt(self.allotment, self.node_id, seq, self.terms.hash, amount, amount, previous, inner.hash)

    def signed(self, receipt: Receipt) -> court.SignedReceipt:
        return court.SignedReceipt(receipt, sign(receipt, self.enclave_key))

    def claimed(
        self, receipts: Sequence[Receipt], seq: int = 1, *, index: int = 0, count: int = 1, root: bytes | None = None
    ) -> court.ClaimedReceipt:
        """The receipt `seq` out of `receipts`, which entry `index` of a claim of `count` entries names."""
        roots = [bytes([i]) * 32 for i in range(count)]
        roots[index] = root or receipts_root(receipts)
        entry = Entry(1, 1, 1, 0, bytes(32), bytes(64))
        entries, spine = batch([ClaimEntry(bytes([i]) * 32, entry, each) for i, each in enumerate(roots)])
        return self.under(spine, count, index, court.receipt_proof(receipts, seq), bytes(entries.hash))

    def under(
        self, spine: Cell, count: int, index: int, proof: Cell, entries: bytes = bytes(32)
    ) -> court.ClaimedReceipt:
        """A testimony from the claim over `spine`, signed whatever it says."""
        claim = Claim(self.node_id, 9, self.ledger.now, count, 1234, entries, bytes(spine.hash))
        signature = sign(claim, self.enclave_key)
        return court.ClaimedReceipt(
            signature, claim.seqno, claim.valid_until, count, claim.tokens, entries, index, spine, proof
        )

    # ------------------------------------------------------------------------------------------ evidence

    def equivocation(self, first: court.Testimony, second: court.Testimony, **changes: object) -> Cell:
        place = changes.pop("place", self.place())
        accused = replace(self.accused, **changes)  # type: ignore[arg-type]
        assert isinstance(place, court.Place)
        return court.equivocation(place, accused, first, second, node_program())

    def false_amount(
        self, receipt: court.Testimony, inner: InnerReceipt | None = None, terms: Terms | None = None
    ) -> Cell:
        return court.false_amount(
            self.place(), self.accused, receipt, inner or self.inner(), terms or self.terms, node_program()
        )

    def accuse(self, body: Cell, value_nano: int = TON) -> Trace:
        """One message to the court; what it sends waits in the queue."""
        self.ledger.send_internal(
            source=self.stranger, destination=self.court, value_nano=value_nano, body=body, run=False
        )
        trace = self.ledger.run(1)
        self.ledger.queue.clear()
        return trace


def slash_of(trace: Trace) -> court.Slash:
    assert not trace.failed, [tx.exit_code for tx in trace.failed]
    (message,) = trace.transactions[0].out_msgs
    return court.Slash.from_cell(message.body)


def spine_of(roots: Sequence[bytes], *, thin: bool = False) -> Cell:
    """Roots of a claim; `thin`: one to a cell, behind an empty first cell, the dearest to walk."""
    size = 1 if thin else 3
    cell: Cell | None = None
    for start in reversed(range(0, len(roots), size)):
        builder = begin_cell()
        for root in roots[start : start + size]:
            builder.store_bytes(root)
        cell = builder.store_ref(cell).end_cell() if cell is not None else builder.end_cell()
    assert cell is not None
    return begin_cell().store_ref(cell).end_cell() if thin else cell


def least_value(bench: Court, body: Cell) -> int:
    """Least value at which the court acts on `body`."""
    low, high = 0, TON
    while high - low > 1:
        middle = (low + high) // 2
        snapshot = bench.ledger.snapshot()
        passed = not bench.accuse(body, middle).failed
        bench.ledger.revert(snapshot)
        low, high = (low, middle) if passed else (middle, high)
    return high
