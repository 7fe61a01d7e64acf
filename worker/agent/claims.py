"""Getting paid: batch claims by the living key, single receipts for keys that are gone, and what the chain shows of it.

A claim that is lost or late costs nothing: the next one covers the same receipts. So nothing here is remembered but
what the chain shows as paid.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from chain.api import Chain, ChainError, Refused
from chain.outgoing import Outgoing
from chain.wallet import MAX_MESSAGES, Wallet
from worker.agent.enclave_process import Enclave
from worker.agent.journal import Journal
from worker.agent.store import Account, Store
from worker.agent.view import ChainView
from worker.messages import ClaimLine, ClaimSigned
from wrappers.cells import from_boc
from wrappers.claims import MAX_CLAIM_ENTRIES, Entry, claim_receipt
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.receipts import Receipt, Voucher
from wrappers.rows import KeyRow, payable
from wrappers.signed import verify

log = logging.getLogger(__name__)

VALID_SECONDS = 90
"""Within the contract's 120, with room for clocks and blocks."""
LATE_SECONDS = 30
GONE_SECONDS = 300.0
REPEAT_SECONDS = 600.0
"""What a claim brought to the chain is not claimed again so soon: its payment is on the way, or was refused."""
HURRY_SECONDS = 7_200
"""Vouchers of a key that is replaced within this time are claimed at once."""
CLAIM_RECEIPT_VALUE_NANO = 50_000_000
"""Far above the need; what is not used stays in the node's gas reserve, which is the operator's own."""


class NothingToClaim(Exception):
    """Nothing is owed that a claim would bring now."""


class NoEnclave(Exception):
    """No enclave runs whose key could sign a batch."""


@dataclass(frozen=True, slots=True)
class Due:
    """An account with what a settlement would pay for it now."""

    account: Account
    payable_nano: int


@dataclass(frozen=True, slots=True)
class SignedClaim:
    """A batch claim on its way."""

    key: bytes
    message: bytes
    seqno: int
    valid_until: int
    entries: tuple[tuple[bytes, int, int], ...]
    """(escrow, cumulative_nano, seq) of what it covers."""


@dataclass(frozen=True, slots=True)
class Policy:
    amount_nano: int
    age_seconds: int
    receipt_claim_nano: int


def landed(account: Account, escrow: EscrowState | None, node: bytes) -> tuple[KeyRow, bool]:
    """What the chain shows for the account, and whether it can never pay more. `escrow` is None when it is gone."""
    row = escrow.rows.get(node) if escrow is not None else None
    if row is None or row.allotment != account.allotment:
        return KeyRow(account.landed_nano, 0, 0, account.landed_seq), True
    return row.keys.get(account.key, KeyRow()), False


def due(account: Account, escrow: EscrowState | None, node: bytes, *, acked_only: bool = False) -> Due:
    """What the escrow would pay, by all that it checks: a claim that it refuses costs the node's gas all the same."""
    row = escrow.rows.get(node) if escrow is not None else None
    if escrow is None or row is None or row.allotment != account.allotment:
        return Due(account, 0)
    voucher = Voucher(account.allotment, account.key, account.cap_nano, account.acked_nano, account.terms)
    if not verify(voucher, account.voucher_signature, escrow.voucher_key):
        return Due(account, 0)  # the owner has another voucher key since
    sums = account.cumulative_nano, account.cap_nano, account.acked_nano
    return Due(account, payable(row, account.key, *sums, acked_only=acked_only))


def in_a_hurry(escrow: EscrowState | None, node: bytes, now: int) -> bool:
    """Whether the row is closing, or the voucher key that its claims need is about to be replaced."""
    row = escrow.rows.get(node) if escrow is not None else None
    if escrow is None or row is None:
        return False
    return bool(row.closing_at) or (escrow.next_key is not None and escrow.next_key.ready_at - now <= HURRY_SECONDS)


def is_urgent(dues: Sequence[Due], hurried: bool, policy: Policy, now: int) -> bool:
    """Whether the living key's accounts should be claimed now, by the operator's own policy."""
    if not any(one.payable_nano for one in dues):
        return False
    if sum(one.payable_nano for one in dues) >= policy.amount_nano or hurried:
        return True
    since = [one.account.unlanded_since for one in dues if one.payable_nano and one.account.unlanded_since]
    return bool(since) and now - min(since) >= policy.age_seconds


@dataclass(slots=True)
class Claims:
    """`wallet` is None where the operator keeps none on this machine: then only batches are claimed."""

    journal: Journal
    view: ChainView
    policy: Policy
    wallet: Wallet | None
    enclave: Callable[[], Enclave | None]
    announce: Callable[[SignedClaim], None]
    """Shows a claim to the relayers, which bring it to the chain too."""
    outstanding: SignedClaim | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _gone_since: dict[tuple[bytes, bytes], float] = field(default_factory=dict)
    _brought: dict[tuple[bytes, bytes], tuple[int, float]] = field(default_factory=dict)
    """By key and escrow: (cumulative_nano, when) of the last claim that came to the chain."""

    # ---- what the chain shows

    async def refresh(self, *, fresh: bool = False) -> tuple[Due, ...]:
        """Read every account that is owed something; note what landed. Raises ChainError, NodeMissing."""
        accounts = await self.journal.read(lambda store: store.accounts())
        state = (await self.view.node(fresh=fresh)).state
        now = (await self.view.head()).now
        dues: list[Due] = []
        for account in accounts:
            escrow = await self.view.escrow(account.escrow, fresh=fresh)
            shown, closed = landed(account, escrow, self.view.account)
            closed = self._surely(account, closed or self._over(state, account, now))
            if (shown.seq, shown.paid_nano, closed) != (account.landed_seq, account.landed_nano, False):
                await self._note(account, shown, closed)
            if not closed:
                acked_only = state.key_acked_only(account.key)
                dues.append(self._not_brought(due(account, escrow, self.view.account, acked_only=acked_only)))
        return tuple(dues)

    def _not_brought(self, one: Due) -> Due:
        """`one`, less what a claim has brought a moment ago: else whoever asks right then has it paid for twice."""
        brought_nano, at = self._brought.get((one.account.key, one.account.escrow), (0, 0.0))
        if not brought_nano or time.monotonic() - at >= REPEAT_SECONDS:
            return one
        return replace(one, payable_nano=max(0, min(one.payable_nano, one.account.cumulative_nano - brought_nano)))

    def _note_brought(self, key: bytes, escrow: bytes, cumulative_nano: int) -> None:
        self._brought[key, escrow] = cumulative_nano, time.monotonic()

    def _surely(self, account: Account, gone: bool) -> bool:
        """Endpoints may fall back to an older state together: only what stays gone is given up for good."""
        name = (account.key, account.allotment)
        if not gone:
            self._gone_since.pop(name, None)
            return False
        return time.monotonic() - self._gone_since.setdefault(name, time.monotonic()) >= GONE_SECONDS

    def _over(self, state: NodeState, account: Account, now: int) -> bool:
        enclave, key = self.enclave(), account.key
        if enclave is not None and enclave.key == key:
            return False
        if key == state.signing_key or key in state.retired:
            return not state.key_claimable(key, now)
        # On no list: its evidence may still be on its way, or its window ended and the node forgot it.
        return account.unlanded_since is not None and now - account.unlanded_since > state.claim_window

    async def _note(self, account: Account, shown: KeyRow, closed: bool) -> None:
        def write(store: Store) -> None:
            store.mark_landed(account.key, account.allotment, seq=shown.seq, paid_nano=shown.paid_nano, closed=closed)

        await self.journal.write(write)
        if shown.paid_nano > account.landed_nano:
            log.info("%d nanoTON landed for key %s", shown.paid_nano - account.landed_nano, account.key.hex())

    # ---- batches

    async def batch(self, least_nano: int = 1) -> SignedClaim:
        """The batch that is on its way, or a new one over all that is owed; it is also sent to the chain.

        A new one is made for `least_nano` in all, or for any sum that soon cannot be claimed any more.

        Raises NothingToClaim, NoEnclave, ChainError, EnclaveRefused, EnclaveGone.
        """
        async with self._lock:
            enclave = self.enclave()
            if enclave is None:
                raise NoEnclave
            node = (await self.view.node(fresh=True)).state
            head = await self.view.head()
            held = self.outstanding
            if held is not None and held.key == enclave.key and held.seqno == node.seqno:
                if head.now <= held.valid_until:
                    return held
                if head.now <= held.valid_until + LATE_SECONDS:
                    raise NothingToClaim  # it may still land; a second one would only race with it
            elif held is not None and held.seqno < node.seqno:
                for escrow, cumulative_nano, _ in held.entries:
                    self._note_brought(held.key, escrow, cumulative_nano)
            self.outstanding = None
            dues = [one for one in await self.refresh(fresh=True) if one.account.key == enclave.key]
            lines = [one for one in dues if one.payable_nano][:MAX_CLAIM_ENTRIES]
            if not lines or node.signing_key != enclave.key:
                raise NothingToClaim
            if sum(one.payable_nano for one in lines) < least_nano and not await self._hurried(lines, head.now):
                raise NothingToClaim
            signed = await enclave.claim(
                node.seqno,
                head.now + VALID_SECONDS,
                tuple(ClaimLine(one.account.escrow, one.account.allotment, one.account.landed_seq) for one in lines),
            )
            self.outstanding = _signed_claim(enclave.key, signed, lines)
        await broadcast(self.view.chain, self.outstanding)
        self.announce(self.outstanding)
        return self.outstanding

    async def step(self) -> None:
        """What the operator's own policy asks for now. Raises what `refresh` and `batch` raise."""
        dues = await self.refresh()
        enclave, now = self.enclave(), (await self.view.head()).now
        if enclave is not None:
            own = [one for one in dues if one.account.key == enclave.key]
            if is_urgent(own, await self._hurried(own, now), self.policy, now):
                try:
                    await self.batch()
                except NothingToClaim:
                    log.debug("nothing left to claim")
        await self.claim_receipts(least_nano=self.policy.receipt_claim_nano)

    async def _hurried(self, dues: Sequence[Due], now: int) -> bool:
        escrows = [await self.view.escrow(one.account.escrow) for one in dues]
        return any(in_a_hurry(escrow, self.view.account, now) for escrow in escrows)

    # ---- single receipts

    async def claim_receipts(self, *, least_nano: int = 1, include_living: bool = False) -> int:
        """Claim the latest receipt of every account whose key can sign no batch any more; how many were sent.

        Waits until the wallet's messages have landed. Raises ChainError (WalletError among them).
        """
        if self.wallet is None:
            return 0
        enclave = self.enclave()
        node = (await self.view.node()).state
        now = (await self.view.head()).now
        claimed: list[Account] = []
        for one in await self.refresh():
            living = enclave is not None and one.account.key == enclave.key
            if one.payable_nano < max(1, least_nano) or (living and not include_living):
                continue
            if node.key_claimable(one.account.key, now):
                claimed.append(one.account)
        for start in range(0, len(claimed), MAX_MESSAGES):
            part = claimed[start : start + MAX_MESSAGES]
            sent = await self.wallet.send(self.view.chain, [receipt_message(one, self.view.account) for one in part])
            await sent.landed(self.view.chain)
            for account in part:
                self._note_brought(account.key, account.escrow, account.cumulative_nano)
            log.info("claimed %d receipts of keys that are gone", len(part))
        return len(claimed)


def receipt_message(account: Account, node: bytes) -> Outgoing:
    """The wallet's message that claims an account's latest receipt."""
    entry = Entry(
        account.cumulative_nano,
        account.seq,
        account.cap_nano,
        account.acked_nano,
        account.terms,
        account.voucher_signature,
    )
    receipt = Receipt.from_cell(from_boc(account.receipt))
    body = claim_receipt(account.key, account.escrow, account.allotment_epoch, receipt, account.signature, entry)
    return Outgoing(node, CLAIM_RECEIPT_VALUE_NANO, body)


async def broadcast(chain: Chain, claim: SignedClaim) -> None:
    """Send a claim to the chain; a refusal is only logged, since relayers may have been faster."""
    try:
        await chain.send(from_boc(claim.message))
    except Refused as error:
        log.info("the chain did not take claim %d: %s", claim.seqno, error)
    except ChainError as error:
        log.warning("claim %d could not be sent: %s", claim.seqno, error)


def _signed_claim(key: bytes, signed: ClaimSigned, lines: Sequence[Due]) -> SignedClaim:
    entries = tuple((one.account.escrow, one.account.cumulative_nano, one.account.seq) for one in lines)
    return SignedClaim(key, signed.message, signed.seqno, signed.valid_until, entries)
