"""One answer on its way from the enclave to whoever waits for it: its pieces, and what is stored of its receipt."""

from __future__ import annotations

from dataclasses import dataclass, field

from protocol.frames import HEADER_BYTES, parse_header
from protocol.receipts import SignedReceipt
from protocol.sealing import SealedRequest
from worker.agent.enclave_process import Enclave
from worker.agent.store import ReceiptRow
from worker.agent.streams import Sink
from worker.messages import Cancel, Issued
from wrappers.cells import to_boc

MAX_ANSWER_BYTES = 32 << 20
# One message over the relayer's limit would cost the link, and with it everybody's answers; sent faster than its client
# reads, a stored answer would be cut off again at every repeat.
PIECE_BYTES = 64 << 10
MAX_JOINED_BYTES = 1 << 20


@dataclass(eq=False, slots=True)
class Running:
    """One request that the enclave works on."""

    request: SealedRequest
    enclave: Enclave
    sinks: list[Sink]
    frames: bytearray = field(default_factory=bytearray)
    waiting: set[int] = field(default_factory=set)
    """ids of the sinks at which somebody still waits."""
    receipt: bytes | None = None
    stored: bool = False
    last: bytes | None = None
    """The last frame, while it is on its way to the disk."""
    lost: bool = False
    """Its receipt could not be stored; the enclave has not ended it yet."""

    def cancel(self, sink: Sink) -> None:
        self.waiting.discard(id(sink))
        if not self.waiting:
            self.enclave.post(Cancel(self.request.request_id))

    def leave(self, sink: Sink) -> None:
        self.waiting.discard(id(sink))
        self.sinks = [one for one in self.sinks if one is not sink]

    def join(self, sink: Sink) -> None:
        """A repeat of a request that still runs: it gets what there is, and the rest as it comes."""
        self.waiting.add(id(sink))
        self.sinks.append(sink)
        if self.frames:
            for piece in pieces(bytes(self.frames)):
                sink.send(piece, ends=False, receipt=False)
        if self.stored and self.receipt is not None:
            sink.send(self.receipt, ends=False, receipt=True)
        if self.last is not None:
            sink.send(self.last, ends=True, receipt=False)

    def send(self, frames: bytes, *, ends: bool = False, receipt: bool = False) -> None:
        for sink in tuple(self.sinks):
            sink.send(frames, ends=ends, receipt=receipt)


def pieces(frames: bytes) -> list[bytes]:
    """Whole frames in strings of about PIECE_BYTES."""
    found, start, at = [], 0, 0
    while at < len(frames):
        at += HEADER_BYTES + parse_header(frames, at)[1]
        if at - start >= PIECE_BYTES or at >= len(frames):
            found.append(frames[start:at])
            start = at
    return found


def receipt_row(message: Issued, key: bytes) -> ReceiptRow:
    """What is stored of a receipt. Raises Malformed where the enclave's frame is none."""
    signed = SignedReceipt.from_bytes(message.frame[HEADER_BYTES:])
    receipt = signed.receipt
    return ReceiptRow(
        request_id=message.request_id,
        key=key,
        escrow=message.escrow,
        allotment=receipt.allotment,
        allotment_epoch=message.allotment_epoch,
        seq=receipt.seq,
        receipt=to_boc(receipt.to_cell()),
        signature=signed.signature,
        amount_nano=receipt.amount_nano,
        cumulative_nano=receipt.cumulative_nano,
        cap_nano=message.cap_nano,
        acked_nano=message.acked_nano,
        terms=message.terms,
        voucher_signature=message.voucher_signature,
        frame=message.frame,
    )
