"""Which requests reach a worker: vouchers are checked against the mirrored chain, limits against what is in flight.

The enclave and the escrow check everything again; this saves workers the work and clients the wait.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

from protocol.errors import Code, ProtocolError
from protocol.sealing import SealedRequest, public_key_hash
from relayer.api.hub import Hub
from relayer.api.worker_link import WorkerLink
from relayer.chain.mirror import Mirror, Seen
from relayer.config import Limits
from relayer.errors import Refusal
from wrappers.escrow import EscrowState
from wrappers.rows import KeyRow, Row

MAX_BUCKETS = 50_000
MAX_STRANGERS = 64
REREAD_SECONDS = 1.0
"""A refusal on the chain's word is not older than this."""
MAX_AMOUNT_NANO = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Admitted:
    body: bytes = field(repr=False)
    """As posted: it goes to the worker unchanged."""
    sealed: SealedRequest
    link: WorkerLink
    node_id: bytes
    attempt: int
    """Nanoseconds since 1970 at admission: tells repeats of one request id apart."""


class Admission:
    def __init__(self, mirror: Mirror, hub: Hub, limits: Limits) -> None:
        self._mirror = mirror
        self._hub = hub
        self._limits = limits
        self._in_flight: Counter[bytes] = Counter()
        self._total = 0
        self._strangers = 0
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    @property
    def in_flight(self) -> int:
        return self._total

    async def admit(self, body: bytes) -> Admitted:
        """Raises Refusal. Whoever gets an Admitted calls `release` once, whatever happens."""
        try:
            sealed = SealedRequest.from_bytes(body)
        except ProtocolError as error:
            raise Refusal(Code.BAD_REQUEST, error.cause, cure=error.cure) from error
        if self._hub.closing:
            raise Refusal(Code.INTERNAL, "the relayer is shutting down", retry_after=2)
        worker = self._worker(sealed)
        # Nothing counts against an escrow before its key has signed: anybody can name it.
        await self.meet(sealed.escrow)
        node_id = await self._check_node(sealed, worker)
        await self._check_escrow(sealed)
        self._take(sealed.escrow)
        return Admitted(body, sealed, worker, node_id, time.time_ns())

    async def meet(self, escrow: bytes) -> None:
        """Looks up an escrow that was not seen here before: few at a time, since anybody can make one up."""
        if self._mirror.knows_escrow(escrow):
            return
        if self._strangers >= MAX_STRANGERS:
            raise Refusal(Code.NODE_BUSY, "many unknown escrows are being looked up", retry_after=1)
        self._strangers += 1
        try:
            await self._mirror.escrow(escrow, max_age_seconds=self._limits.mirror_seconds)
        finally:
            self._strangers -= 1

    def release(self, escrow: bytes) -> None:
        self._total -= 1
        self._in_flight[escrow] -= 1
        if self._in_flight[escrow] <= 0:
            del self._in_flight[escrow]

    def _worker(self, sealed: SealedRequest) -> WorkerLink:
        worker = self._hub.get(sealed.node)
        if worker is None:
            known = self._mirror.known_node(sealed.node)
            if known is not None and known.state is not None:
                raise Refusal(Code.NODE_NOT_LIVE, "its agent is not connected here now", retry_after=5)
            raise Refusal(Code.NODE_UNKNOWN)
        offered = worker.offered
        if offered is not None and offered.error is not None and offered.error.code == Code.NODE_DRAINING:
            raise Refusal(Code.NODE_DRAINING)
        if offered is None or not offered.live:
            detail = offered.error.cause if offered is not None and offered.error else "it has no offer at present"
            raise Refusal(Code.NODE_NOT_LIVE, detail, retry_after=5)
        offer = offered.offer
        if sealed.voucher.key != offer.signing_key:
            raise Refusal(
                Code.SEALING_KEY_UNKNOWN, "the voucher is for another enclave key than the node's present one"
            )
        now = time.time()
        hashes = {public_key_hash(key.public_key) for key in offer.sealing_keys if key.expires_at > now}
        if sealed.sealing_key_hash not in hashes:
            raise Refusal(Code.SEALING_KEY_UNKNOWN)
        return worker

    def _take(self, escrow: bytes) -> None:
        """Counts the request in. Raises Refusal when somebody has too much already."""
        limits = self._limits
        if self._total >= limits.in_flight:
            raise Refusal(Code.NODE_BUSY, "the relayer is full", cure="repeat in a moment", retry_after=1)
        if self._in_flight[escrow] >= limits.in_flight_per_escrow:
            raise Refusal(Code.RATE_LIMITED, f"{limits.in_flight_per_escrow} are in flight", retry_after=1)
        self.spend(escrow)
        self._total += 1
        self._in_flight[escrow] += 1

    def spend(self, escrow: bytes) -> None:
        """Counts one call of this escrow: a token bucket, twice the rate deep. Raises Refusal."""
        rate, now = self._limits.requests_per_second_per_escrow, time.monotonic()
        left, since = self._buckets.pop(escrow, (2 * rate, now))
        left = min(2 * rate, left + (now - since) * rate)
        granted = left >= 1
        self._buckets[escrow] = (left - 1 if granted else left, now)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not granted:
            raise Refusal(Code.RATE_LIMITED, f"over {rate:g} requests a second", retry_after=1)

    async def _check_node(self, sealed: SealedRequest, worker: WorkerLink) -> bytes:
        now = int(time.time())
        seen = await self._mirror.node(sealed.node, max_age_seconds=self._limits.mirror_seconds)
        if seen.state is None or not seen.state.key_attested(sealed.voucher.key, now):
            await self._hub.check_offer(worker, fresh=True)
            seen = await self._mirror.node(sealed.node, max_age_seconds=REREAD_SECONDS)
        if seen.state is None or not seen.state.key_attested(sealed.voucher.key, now):
            raise Refusal(Code.NODE_NOT_LIVE, retry_after=5)
        if seen.state.draining:
            raise Refusal(Code.NODE_DRAINING)
        return seen.state.node_id

    async def _check_escrow(self, sealed: SealedRequest) -> None:
        seen = await self._mirror.escrow(sealed.escrow, max_age_seconds=self._limits.mirror_seconds)
        if time.monotonic() - seen.read_at >= REREAD_SECONDS:
            try:
                return check_voucher(sealed, seen, self._mirror.network)
            except Refusal:
                # The client may know of a fresh allotment before this mirror does.
                seen = await self._mirror.escrow(sealed.escrow, max_age_seconds=REREAD_SECONDS)
        try:
            check_voucher(sealed, seen, self._mirror.network)
        except Refusal:
            if seen.state is not None and _is_signed(sealed, self._mirror.network, seen.state.voucher_key):
                self.spend(sealed.escrow)
            raise


def _is_signed(sealed: SealedRequest, network: bytes, voucher_key: bytes) -> bool:
    try:
        sealed.check_authority(network, voucher_key, node=sealed.node, signing_key=sealed.voucher.key)
    except ProtocolError:
        return False
    return True


def check_voucher(sealed: SealedRequest, seen: Seen[EscrowState], network: bytes) -> None:
    """Pure: raises Refusal unless the escrow, as read, backs the voucher."""
    escrow = seen.state
    if escrow is None:
        raise Refusal(Code.ESCROW_UNKNOWN, seen.why_not)
    row = escrow.rows.get(sealed.node)
    if row is None:
        raise Refusal(Code.ALLOTMENT_UNKNOWN)
    if row.epoch != sealed.allotment_epoch:
        raise Refusal(Code.ALLOTMENT_UNKNOWN, f"the row's epoch is {row.epoch}")
    if escrow.closing or row.closing_at:
        raise Refusal(Code.ALLOTMENT_CLOSING)
    ceiling_nano = ceiling_of(row, sealed.voucher.key)
    if sealed.voucher.cap_nano > ceiling_nano:
        raise Refusal(Code.ALLOTMENT_TOO_LOW, f"cap {sealed.voucher.cap_nano}, at most {ceiling_nano} nanoTON")
    try:
        sealed.check_authority(network, escrow.voucher_key, node=sealed.node, signing_key=sealed.voucher.key)
    except ProtocolError as error:
        raise Refusal(Code.VOUCHER_INVALID, error.cause, cure=error.cure) from error


def ceiling_of(row: Row, key: bytes) -> int:
    """The highest cap under `key` that the row could pay: what other keys were paid is gone from it."""
    others_nano = row.paid_nano - row.keys.get(key, KeyRow()).paid_nano
    return min(MAX_AMOUNT_NANO, row.allotted_nano - others_nano)
