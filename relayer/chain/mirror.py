"""The relayer's picture of nodes and escrows, decoded from account data that two endpoints agree on (G17)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from attestation.standings import Standings
from chain.api import AccountState, Chain, ChainError, Status
from protocol.errors import Code
from protocol.siblings import may_be_child
from relayer.errors import Refusal
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.escrow import EscrowState
from wrappers.node import NodeState

MAX_MIRRORED = 20_000
MAX_READS = 16
"""Accounts read at once."""
MAX_STRANGE_READS = 8
"""... beside those that were no live child of the registry when they were read last, or never read."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """A decoded state, or None when the account is not a live, genuine child of the registry.

    `read_at` is the relayer's monotonic clock; `lt` that of the account's last transaction.
    """

    account: bytes
    state: T | None
    why_not: str
    lt: int
    last_hash: bytes
    read_at: float


class Mirror:
    """Reads through `chain`, which must be a quorum: what it says decides who is served.

    One read per account at a time, however many wait for it. A failed read raises Refusal(CHAIN_UNCERTAIN) and is never
    taken for an absent account.
    """

    def __init__(self, chain: Chain, *, registry: bytes, network: bytes) -> None:
        self._chain = chain
        # Requests that name random accounts must not turn into a flood at the endpoints, nor hold up the others.
        self._reads = asyncio.Semaphore(MAX_READS)
        self._strange_reads = asyncio.Semaphore(MAX_STRANGE_READS)
        self.registry = registry
        self.network = network
        self._standings = Standings(chain)
        self._nodes = _Cache[NodeState](self._read_node)
        self._escrows = _Cache[EscrowState](self._read_escrow)

    async def node(self, account: bytes, *, max_age_seconds: float) -> Seen[NodeState]:
        return await self._nodes.get(account, max_age_seconds)

    async def escrow(self, account: bytes, *, max_age_seconds: float) -> Seen[EscrowState]:
        return await self._escrows.get(account, max_age_seconds)

    async def standing(self, account: bytes, node: NodeState) -> tuple[str, ...]:
        """What the network's verifier holds against the node's image or platform today, one sentence each."""
        try:
            return await self._standings.faults(account, node)
        except ChainError as error:
            raise Refusal(Code.CHAIN_UNCERTAIN, str(error), retry_after=5) from error

    def learn_node(self, raw: AccountState) -> Seen[NodeState]:
        """Takes a state that somebody else read through the same quorum."""
        return self._nodes.put(self._decode(raw, Kind.NODE, NodeState.from_cell, self._genuine_node))

    def learn_escrow(self, raw: AccountState) -> Seen[EscrowState]:
        return self._escrows.put(
            self._decode(raw, Kind.ESCROW, lambda data: EscrowState.from_cell(data, raw.account), self._genuine_escrow)
        )

    def knows_escrow(self, account: bytes) -> bool:
        """Whether it was a live, genuine escrow when it was read last."""
        seen = self._escrows.peek(account)
        return seen is not None and seen.state is not None

    def known_node(self, account: bytes) -> Seen[NodeState] | None:
        """What was read last, however old: a hint for people."""
        return self._nodes.peek(account)

    async def _read_node(self, account: bytes) -> Seen[NodeState]:
        known = self._nodes.peek(account)
        strange = known is None or known.state is None
        raw = await self._account(account, self._strange_reads if strange else self._reads)
        return self._decode(raw, Kind.NODE, NodeState.from_cell, self._genuine_node)

    async def _read_escrow(self, account: bytes) -> Seen[EscrowState]:
        raw = await self._account(account, self._reads if self.knows_escrow(account) else self._strange_reads)
        decode = EscrowState.from_cell
        return self._decode(raw, Kind.ESCROW, lambda data: decode(data, account), self._genuine_escrow)

    async def _account(self, account: bytes, gate: asyncio.Semaphore) -> AccountState:
        try:
            async with gate:
                return await self._chain.account(account)
        except ChainError as error:
            raise Refusal(Code.CHAIN_UNCERTAIN, str(error), retry_after=5) from error

    def _decode(
        self,
        raw: AccountState,
        kind: Kind,
        decode: Callable[..., T | None],
        genuine: Callable[[bytes, T], bool],
    ) -> Seen[T]:
        state: T | None = None
        why_not = ""
        if raw.status is not Status.ACTIVE or raw.data is None:
            why_not = f"the account is {raw.status}"
        elif not may_be_child(raw.data, kind, raw.account, self.registry):
            why_not = "the account is no child of this network's registry"
        else:
            try:
                state = decode(raw.data)
                if state is None:
                    why_not = "the account is still a stub"
                elif not genuine(raw.account, state):
                    # Data can claim anything; only the address proves that the registry gave birth to the account.
                    state, why_not = None, "the account is no child of this network's registry"
            except CellError as error:
                why_not = str(error)
        return Seen(raw.account, state, why_not, raw.last_lt, raw.last_hash, time.monotonic())

    def _genuine_node(self, account: bytes, state: NodeState) -> bool:
        return self._child(account, Kind.NODE, state.owner, state.index) and state.belongs_to(self.network, account)

    def _genuine_escrow(self, account: bytes, state: EscrowState) -> bool:
        return self._child(account, Kind.ESCROW, state.owner, state.index) and state.network_id == self.network

    def _child(self, account: bytes, kind: Kind, owner: bytes, index: int) -> bool:
        return child_address(self.registry, kind, owner, index) == account


class _Cache(Generic[T]):
    """Least recently used first out; concurrent readers of one account share one read."""

    def __init__(self, read: Callable[[bytes], Awaitable[Seen[T]]]) -> None:
        self._read = read
        self._seen: OrderedDict[bytes, Seen[T]] = OrderedDict()
        self._reading: dict[bytes, asyncio.Task[Seen[T]]] = {}

    def peek(self, account: bytes) -> Seen[T] | None:
        return self._seen.get(account)

    async def get(self, account: bytes, max_age_seconds: float) -> Seen[T]:
        """With age 0 always a read that began after the call."""
        seen = self._seen.get(account)
        if seen is not None and time.monotonic() - seen.read_at < max_age_seconds:
            self._seen.move_to_end(account)
            return seen
        task = self._reading.get(account) if max_age_seconds > 0 else None
        if task is None:
            task = asyncio.ensure_future(self._fetch(account))
            self._reading[account] = task
            task.add_done_callback(lambda done: self._done(account, done))
        return await asyncio.shield(task)

    async def _fetch(self, account: bytes) -> Seen[T]:
        return self.put(await self._read(account))

    def put(self, seen: Seen[T]) -> Seen[T]:
        account = seen.account
        known = self._seen.get(account)
        # A slow read must not put an older state over a newer one.
        if known is None or seen.lt >= known.lt or seen.state is None:
            self._seen[account] = known = seen
            # Accounts that somebody made up must not push out the ones that are used.
            self._seen.move_to_end(account, last=seen.state is not None)
        while len(self._seen) > MAX_MIRRORED:
            self._seen.popitem(last=False)
        return known

    def _done(self, account: bytes, task: asyncio.Task[Seen[T]]) -> None:
        if self._reading.get(account) is task:
            del self._reading[account]
        if not task.cancelled():
            task.exception()  # every waiter gets it; where none is left it is not worth a warning
