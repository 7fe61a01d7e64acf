"""Releases: the node's consent to lower a client's row, given when nothing is owed beyond what stays in it.

A release is written down before it leaves: under the row as it stands nothing is served any more, also after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from chain.api import ChainError
from protocol.errors import Code
from protocol.link import MAX_RELEASE_SECONDS, LinkCode
from protocol.link_messages import ReleaseRequest
from worker.agent.desk import Desk
from worker.agent.journal import Journal
from worker.agent.questions import Refusal
from worker.agent.release_keys import ReleaseKeys
from worker.agent.store import SignedRelease, Store, StoreError
from worker.agent.view import ChainView
from wrappers.rows import Row
from wrappers.signed import Release, sign


@dataclass(frozen=True, slots=True)
class Releases:
    journal: Journal
    view: ChainView
    desk: Desk
    keys: ReleaseKeys
    claim: Callable[[], Awaitable[None]]
    """Starts to claim what is owed."""
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def sign(self, ask: ReleaseRequest) -> tuple[int, bytes]:
        """(allotted_nano, signature) for the row as it stands. Raises Refusal."""
        try:
            row = await self._row(ask)
        except ChainError as error:
            raise Refusal(Code.CHAIN_UNCERTAIN, str(error), "ask again in a few seconds") from error
        # One at a time: an ask that is refused would let requests in under a row that another ask is just releasing.
        async with self._one_at_a_time:
            self.desk.hold(ask.allotment)
            try:
                if self.desk.runs_under(ask.allotment):
                    cause = "requests still run under the row"
                    raise Refusal(LinkCode.IN_FLIGHT, cause, "ask again when they are over")
                release = await self._decide(ask, row)
            except StoreError as error:
                raise Refusal(Code.INTERNAL, "the node's receipt store takes nothing now", "ask later") from error
            finally:
                # Where it was signed the store now refuses what comes; the row's next seqno is served again.
                self.desk.unhold(ask.allotment)
        return release.allotted_nano, release.signature

    async def _row(self, ask: ReleaseRequest) -> Row:
        now = (await self.view.head()).now
        if not now < ask.expires_at <= now + MAX_RELEASE_SECONDS:
            raise Refusal(
                LinkCode.EXPIRED, "the ask is over or lives too long", "sign it anew, and check this machine's clock"
            )
        escrow = await self.view.escrow(ask.escrow, fresh=True)
        row = escrow.rows.get(self.view.account) if escrow is not None else None
        if escrow is None or row is None or ask.node != self.view.account:
            raise Refusal(LinkCode.WRONG_ROW, "the escrow has no row for this node", "read the escrow from the chain")
        if (row.allotment, row.seqno) != (ask.allotment, ask.row_seqno):
            raise Refusal(LinkCode.WRONG_ROW, f"the row is at seqno {row.seqno}", "read the escrow anew")
        if not ask.signed_by(escrow.voucher_key, self.view.network):
            raise Refusal(LinkCode.NOT_AUTHORISED, "the voucher key did not sign this", "sign it with the voucher key")
        return row

    async def _decide(self, ask: ReleaseRequest, row: Row) -> SignedRelease:
        held = await self.journal.read(lambda store: store.release(ask.allotment, ask.row_seqno))
        if held is not None:
            return held
        accounts = await self.journal.read(lambda store: store.accounts())
        unpaid = 0
        for one in accounts:
            if one.allotment == ask.allotment:
                shown = row.keys.get(one.key)
                paid = max(one.landed_nano, shown.paid_nano if shown is not None else 0)
                unpaid += max(0, min(one.cumulative_nano, one.cap_nano) - paid)
        if ask.allotted_nano < row.paid_nano + unpaid:
            if unpaid:
                await self.claim()
                raise Refusal(
                    LinkCode.UNCLAIMED, f"{unpaid} nanoTON are owed, not yet paid", "ask again in a few seconds"
                )
            raise Refusal(LinkCode.WRONG_ROW, f"{row.paid_nano} nanoTON are paid already", "ask for at least that much")
        if ask.allotted_nano > row.allotted_nano:
            raise Refusal(LinkCode.WRONG_ROW, f"only {row.allotted_nano} nanoTON are allotted", "ask for no more")
        # The row's own key: it froze the one that the node had when it was allotted.
        key = await asyncio.to_thread(self.keys.holding, row.terms.release_key)
        if key is None:
            raise Refusal(
                LinkCode.WRONG_ROW, "the row names a release key that is not here", "wait for its close timer"
            )
        signature = sign(Release(ask.allotment, ask.row_seqno, ask.allotted_nano), key)
        release = SignedRelease(ask.allotted_nano, signature)

        def write(store: Store) -> None:
            store.add_release(ask.allotment, ask.row_seqno, release)

        await self.journal.write(write)
        return release
