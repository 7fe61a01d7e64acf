"""Receipts on their way through: verified against the node's key, stored, and only then passed on."""

from __future__ import annotations

import time
from typing import Any

from protocol.errors import ProtocolError
from protocol.link import BadMessage
from protocol.link_messages import receipts_of
from protocol.receipts import SignedReceipt
from relayer.api.worker_link import WorkerLink
from relayer.chain.mirror import Mirror
from relayer.core.facts import ReceiptSeen
from relayer.store.store import Entry
from relayer.store.writer import Writer
from wrappers.signed import allotment_id

MAX_AMOUNT_NANO = (1 << 63) - 1


class ReceiptFault(Exception):
    """The worker sent something that is no receipt of its enclave under this allotment."""


def read_receipt(
    payload: bytes,
    *,
    request_id: bytes | None,
    escrow: bytes,
    node: bytes,
    node_id: bytes,
    allotment: bytes,
    key: bytes,
    now: int,
) -> ReceiptSeen:
    """Raises ReceiptFault unless `key` signed this receipt for this allotment and node. Pure."""
    try:
        signed = SignedReceipt.from_bytes(payload)
        signed.check(key)
    except ProtocolError as error:
        raise ReceiptFault(error.cause) from error
    receipt = signed.receipt
    if receipt.allotment != allotment or receipt.node != node_id:
        raise ReceiptFault("the receipt is for another allotment or node")
    if receipt.cumulative_nano > MAX_AMOUNT_NANO or receipt.amount_nano > receipt.cumulative_nano:
        raise ReceiptFault("the receipt's amounts are impossible")
    return ReceiptSeen(
        request_id=request_id,
        escrow=escrow,
        node=node,
        allotment=allotment,
        key=key,
        seq=receipt.seq,
        amount_nano=receipt.amount_nano,
        cumulative_nano=receipt.cumulative_nano,
        hash=receipt.hash,
        at=now,
    )


async def take_pushed(worker: WorkerLink, body: dict[str, Any], mirror: Mirror, writer: Writer) -> int:
    """RECEIPTS of an agent: stores those that hold; how many were new.

    Raises BadMessage when one does not hold: an agent that pushes forgeries is not worth the link.
    """
    pushed = receipts_of(body)
    seen = await mirror.node(worker.node, max_age_seconds=60)
    if seen.state is None:
        raise BadMessage("the node is not on chain")
    entries = []
    for one in pushed:
        try:
            fact = read_receipt(
                one.payload,
                request_id=None,
                escrow=one.escrow,
                node=worker.node,
                node_id=seen.state.node_id,
                allotment=allotment_id(mirror.network, one.escrow, one.allotment_epoch, worker.node),
                key=one.key,
                now=int(time.time()),
            )
        except ReceiptFault as error:
            raise BadMessage(str(error)) from error
        if one.key != seen.state.signing_key and one.key not in seen.state.retired:
            # Nothing signed by a key that the chain does not know will ever be paid; it only would look like exposure.
            continue
        entries.append(Entry(fact, payload=one.payload))
    if not entries:
        return 0
    return sum(recorded.new for recorded in await writer.record_many(tuple(entries)))
