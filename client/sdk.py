"""The client: verify evidence, seal, voucher, send, check the receipt. Everything else in this package serves this.

async with Client.open(settings, wallet) as client:
    await client.open_escrow(2_000_000_000, first=(node, 1_000_000_000))
    async for event in client.chat({"messages": [...], "stream": True}):
        ...
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from chain.api import Chain
from chain.config import connect
from chain.wallet import Wallet
from client.body import Body
from client.chain_view import ChainView
from client.choice import Choice, row_balance
from client.direct import link_of
from client.directory import Directory
from client.errors import ClientError, NodeRefused, RelayerRefused, TooLittleAllotted
from client.events import Done, Event, Receipted, Text
from client.home import Home
from client.job_results import Fetched
from client.job_view import JobView
from client.jobs import Jobs
from client.leftovers import Leftovers
from client.money import Closed, Money
from client.payments import Paid, Payments
from client.records import Escrow, Held, Request
from client.relayer_link import RelayerLink
from client.session import Session, Target
from client.settings import Balance, Recovered, RowBalance, Settings
from client.store import Store
from client.trust import RefusedNode, TrustedNode
from client.upkeep import Upkeep
from protocol.receipts import SignedReceipt
from wrappers.escrow import EscrowState

__all__ = [
    "Balance",
    "Client",
    "Closed",
    "Done",
    "Event",
    "Fetched",
    "Held",
    "JobView",
    "Receipted",
    "RefusedNode",
    "RowBalance",
    "Settings",
    "Text",
    "TrustedNode",
]

ESCROW_SECONDS = 60
"""How long a row's room is believed: only this wallet's owner or the node's release can lower it."""
_STALE = frozenset(
    {
        "sealing-key-unknown",
        "terms-refused",
        "allotment-unknown",
        "allotment-too-low",
        "node-unknown",
        "node-not-live",
        "node-draining",
    }
)
"""Codes that what this client remembers of node or escrow may be out of date."""
log = logging.getLogger("cocoon.client")
T = TypeVar("T")


class Client:
    """Make one with `Client.open`. Many requests at once, one process per home. Raises ClientErrors."""

    def __init__(
        self, settings: Settings, home: Home, store: Store, chain: Chain, link: RelayerLink, wallet: Wallet
    ) -> None:
        facts = settings.facts
        self.settings = settings
        self.store = store
        self.wallet = wallet
        self.link = link
        self.view = ChainView(chain, facts)
        self.directory = Directory(
            link, self.view, store, facts, settings.policy, allow_simulated=settings.allow_simulated
        )
        payments = Payments(chain, wallet, store)
        self.money = Money(home, store, self.view, payments, link, facts)
        limit = settings.max_request_nano
        self.jobs = Jobs(home, store, self.view, self.money, payments, link, facts, self.verify, limit)
        """Batch jobs: submit, status, fetch, refund."""
        self._home = home
        self._upkeep = Upkeep(self.money, home)
        self._session = Session(store, link, keep_texts=settings.keep_texts, abandoned=self._abandoned)
        self._leftovers = Leftovers(home, store, link, self._session, facts.network_id)
        self._choice = Choice(self.directory, store, settings.max_request_nano)
        self._seen: tuple[float, Escrow, EscrowState] | None = None
        self._auto_allotted_nano = 0
        self._allotting = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: Settings, wallet: Wallet, *, chain: Chain | None = None, link: RelayerLink | None = None
    ) -> AsyncIterator[Client]:
        """`chain`: a quorum; by default the endpoints of the network profile. Raises HomeError, Locked."""
        with Home(settings.home) as home:
            facts = settings.facts
            store = Store.open(
                settings.home, network_id=facts.network_id, registry=facts.registry, owner=wallet.account
            )
            own = connect(settings.network) if chain is None else None
            relayer = link or link_of(settings)
            try:
                client = cls(settings, home, store, chain or own or connect(settings.network), relayer, wallet)
                try:
                    yield client
                finally:
                    await client._leftovers.end()
            finally:
                await relayer.close()
                if own is not None:
                    await own.close()
                store.close()

    def _abandoned(self, request: Request) -> None:
        self._leftovers.collect_later(request)

    # ---- nodes

    async def nodes(self) -> list[TrustedNode | RefusedNode]:
        """Every node that the relayer lists, judged by this client."""
        return await self.directory.all()

    async def verify(self, node: bytes) -> TrustedNode:
        """Judge one node anew. Raises Untrusted with every reason, NoNode."""
        self.directory.forget(node)
        return await self.directory.node(node)

    # ---- money

    async def open_escrow(
        self, deposit_nano: int, first: tuple[bytes, int] | None = None, close_timer: int | None = None
    ) -> Escrow:
        """Open an escrow with `deposit_nano`; `first` = (node, amount) reserves a part of it for a node at once."""
        allotted = None if first is None else (await self.directory.node(first[0]), first[1])
        return await self._moved(self.money.open(deposit_nano, allotted, close_timer))

    async def allot(self, node: bytes, amount_nano: int, close_timer: int | None = None) -> Paid:
        """Reserve (more of) the deposit for a node; a new row or the one it has."""
        return await self._moved(self.money.allot(await self.directory.node(node), amount_nano, close_timer))

    async def raise_(self, node: bytes, amount_nano: int) -> Paid:
        """`allot` for a node that has a row."""
        return await self.allot(node, amount_nano)

    async def top_up(self, amount_nano: int) -> Paid:
        return await self._moved(self.money.top_up(amount_nano))

    async def withdraw(self, amount_nano: int = 0) -> Paid:
        """From the part that is not allotted; 0 = all of it."""
        return await self._moved(self.money.withdraw(amount_nano))

    async def close(
        self, *, patience_seconds: float = 60.0, progress: Callable[[str], None] = lambda text: None
    ) -> Closed:
        """By the nodes' releases where they give them within `patience_seconds`, else by the rows' close timers."""
        return await self._moved(self.money.close(patience_seconds=patience_seconds, progress=progress))

    async def finish(self) -> Closed:
        """After the close timers: free the rows, end the account."""
        return await self._moved(self.money.finish())

    async def plan(self, command: str, node: bytes | None = None, key: bytes | None = None) -> tuple[str, ...]:
        """What `close` or an `upkeep` would do and cost, in words."""
        return await self._upkeep.plan(command, (await self.view.head()).now, node, key)

    async def upkeep(self, command: str, node: bytes | None = None, key: bytes | None = None) -> Paid:
        """rotate-voucher-key, give-up-key, shares, reclaim, return-rent. Raises BadRequest where it cannot be now."""
        return await self._moved(self._upkeep.act(command, (await self.view.head()).now, node, key))

    async def due(self) -> tuple[str, ...]:
        """What the owner began with his escrow and can be ended now: `rotate-voucher-key`, `finish`."""
        return await self._upkeep.due((await self.view.head()).now)

    async def _moved(self, work: Awaitable[T]) -> T:
        try:
            return await work
        finally:
            self._seen = None

    async def balance(self) -> Balance:
        """Read from the chain and from the client's own receipts. Raises NoEscrow, Uncertain."""
        known, state = await self._escrow(anew=True)
        rows = tuple(row_balance(self.store, node, row) for node, row in state.rows.items())
        wallet_nano = await self.wallet_nano()
        return Balance(known.account, state.deposit_nano, state.free_nano, state.closing, wallet_nano, rows)

    async def wallet_nano(self) -> int:
        return (await self.view.account(self.wallet.account)).balance_nano

    def receipts(self, limit: int = 1_000_000) -> list[Held]:
        """Newest first."""
        return self.store.receipts(limit)

    async def _escrow(self, *, anew: bool = False) -> tuple[Escrow, EscrowState]:
        if not anew and self._seen is not None and time.monotonic() < self._seen[0] + ESCROW_SECONDS:
            return self._seen[1], self._seen[2]
        known, state = await self.money.escrow()
        self._seen = (time.monotonic(), known, state)
        return known, state

    # ---- requests

    async def chat(self, body: Mapping[str, Any] | Body, *, node: bytes | None = None) -> AsyncGenerator[Event, None]:
        """One OpenAI body (chat completion where there are `messages`, else completion), paid from what is allotted.

        Yields Text, Receipted, Done. `node`: only this one; by default the one with the most room that has the model.
        """
        parsed = body if isinstance(body, Body) else Body.of(body)
        told = False
        for last in (False, True):
            try:
                target, known = await self._target(parsed, node)
                key = self._home.known_voucher_key(known.number)
                async with aclosing(self._session.run(target, parsed, key, self.settings.shape)) as events:
                    async for event in events:
                        told = True
                        yield event
                return
            except TooLittleAllotted as error:
                if last or not await self._auto_allot(parsed, node, error):
                    raise
            except ClientError as error:
                # Whatever went wrong on the way, the next request looks at node and escrow anew.
                self.directory.forget(node)
                self._seen = None
                if last or told or not isinstance(error, RelayerRefused | NodeRefused) or error.code not in _STALE:
                    raise

    async def _target(self, body: Body, wanted: bytes | None) -> tuple[Target, Escrow]:
        known, state = await self._escrow()
        return await self._choice.target(body, wanted, known, state), known

    async def _auto_allot(self, body: Body, wanted: bytes | None, error: TooLittleAllotted) -> bool:
        """Allot what is missing, where the settings allow it; False where they do not."""
        before = self._auto_allotted_nano
        async with self._allotting:
            if self._auto_allotted_nano > before:
                return True  # another request has just done it
            budget = self.settings.max_auto_allot_nano - self._auto_allotted_nano
            node = wanted or await self._choice.candidate(body, (await self._escrow())[1])
            if node is None or budget <= 0 or error.missing_nano > budget:
                return False
            amount = max(error.missing_nano, min(budget, self.settings.max_auto_allot_nano // 4))
            self._auto_allotted_nano += amount
            await self.allot(node, amount)
            log.info("allotted %d nanoTON to node %s by itself", amount, node.hex())
            return True

    # ---- what is left over

    async def recover(self) -> list[Recovered]:
        """Post again what an earlier process left in flight and take the receipts. Nothing runs or is billed twice."""
        return await self._leftovers.recover()

    async def unaccepted(self) -> list[SignedReceipt]:
        """Receipts that the relayer has and this client has not: billed, without the sealed parts that prove them."""
        return await self._leftovers.unaccepted()
