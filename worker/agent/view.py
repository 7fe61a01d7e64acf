"""What the agent knows of the chain: its node's account, and escrows with a row for it.

Reads go through the quorum; a failed read is an error and never an absent account (G17).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from chain.api import AccountState, Chain, Head, Status
from protocol.siblings import job_of, may_be_child
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.escrow import EscrowState
from wrappers.job import JobState
from wrappers.node import NodeState
from wrappers.signed import job_id


class NodeMissing(Exception):
    """The chain shows no such node. Says what to do."""


@dataclass(frozen=True, slots=True)
class NodeView:
    state: NodeState
    balance_nano: int
    read_at: float
    """Monotonic seconds."""

    @property
    def reserve_nano(self) -> int:
        """What is there beside stake and rent: gas for claims, and earnings not forwarded yet."""
        return self.balance_nano - self.state.stake_nano - self.state.rent_reserve_nano


@dataclass(frozen=True, slots=True)
class _EscrowView:
    state: EscrowState | None
    read_at: float


class ChainView:
    """`network` is the network id; states are at most `max_age_seconds` old unless `fresh` is asked for."""

    def __init__(self, chain: Chain, registry: bytes, node: bytes, network: bytes, max_age_seconds: float) -> None:
        self.chain = chain
        self.registry = registry
        self.account = node
        self.network = network
        self._max_age = max_age_seconds
        self._node: NodeView | None = None
        self._escrows: dict[bytes, _EscrowView] = {}
        self._reading: dict[bytes, asyncio.Future[AccountState]] = {}

    async def head(self) -> Head:
        return await self.chain.head()

    async def node(self, *, fresh: bool = False) -> NodeView:
        """Raises NodeMissing, ChainError."""
        held = self._node
        if not fresh and held is not None and time.monotonic() - held.read_at <= self._max_age:
            return held
        account = await self._read(self.account)
        self._node = NodeView(self._node_state(account), account.balance_nano, time.monotonic())
        return self._node

    async def escrow(self, escrow: bytes, *, fresh: bool = False) -> EscrowState | None:
        """The escrow's state, None when the chain agrees that it is no open escrow of ours. Raises ChainError."""
        held = self._escrows.get(escrow)
        if not fresh and held is not None and time.monotonic() - held.read_at <= self._max_age:
            return held.state
        account = await self._read(escrow)
        state = self._escrow_state(account)
        if state is None:
            # Not remembered: anyone can name accounts that do not exist, and memory is not theirs to fill.
            self._escrows.pop(escrow, None)
        else:
            self._escrows[escrow] = _EscrowView(state, time.monotonic())
        return state

    async def job(self, job: bytes) -> JobState | None:
        """The job at this account now; None when the chain agrees that there is none of ours. Raises ChainError."""
        account = await self._read(job)
        if account.status is not Status.ACTIVE or account.data is None:
            return None
        state = job_of(account.data, job, self.registry)
        bound = state is not None and state.job_id == job_id(self.network, job, state.epoch, state.config.spec)
        return state if bound else None

    async def _read(self, account: bytes) -> AccountState:
        # A burst of requests from one client must not become a burst of reads.
        reading = self._reading.get(account)
        if reading is None:
            reading = self._reading[account] = asyncio.ensure_future(self.chain.account(account))
            reading.add_done_callback(lambda _: self._reading.pop(account, None))
        return await asyncio.shield(reading)

    def _node_state(self, account: AccountState) -> NodeState:
        name = account.account.hex()
        if account.status is not Status.ACTIVE or account.data is None:
            raise NodeMissing(f"there is no node at {name} ({account.status}). Open it with `cocoon node open`")
        if not may_be_child(account.data, Kind.NODE, account.account, self.registry):
            raise NodeMissing(f"{name} is not a node of registry {self.registry.hex()}. Correct `node` or `registry`")
        try:
            state = NodeState.from_cell(account.data)
        except CellError as error:
            raise NodeMissing(f"{name} is not a node: {error}. Correct `node` or `registry`") from error
        if state is None or account.account != child_address(self.registry, Kind.NODE, state.owner, state.index):
            raise NodeMissing(f"{name} is not a node of registry {self.registry.hex()}. Correct `node` or `registry`")
        if not state.belongs_to(self.network, account.account):
            raise NodeMissing(f"node {name} belongs to another network. Correct the network profile")
        return state

    def _escrow_state(self, account: AccountState) -> EscrowState | None:
        if account.status is not Status.ACTIVE or account.data is None:
            return None
        if not may_be_child(account.data, Kind.ESCROW, account.account, self.registry):
            return None
        try:
            state = EscrowState.from_cell(account.data, account.account)
        except CellError:
            return None
        # The address is the proof: only this registry's stub with this owner and index has it.
        if state is None or account.account != child_address(self.registry, Kind.ESCROW, state.owner, state.index):
            return None
        return state if state.network_id == self.network else None
