"""What the client reads from the chain, through a quorum: genuine accounts only, or nothing."""

from __future__ import annotations

from attestation.evidence import Evidence
from attestation.onchain.state import VerifierState
from attestation.standings import Standings
from attestation.verify import Block
from chain.api import AccountState, Chain, ChainError, Head, Status
from client.errors import Uncertain, Untrusted
from client.trust import NetworkFacts
from protocol.siblings import job_of, may_be_child
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.escrow import EscrowState
from wrappers.job import JobState
from wrappers.node import NodeState
from wrappers.registry import RegistryState
from wrappers.signed import job_id


class ChainView:
    """Give it a quorum: a single endpoint's word is no fact (G17). Raises Uncertain when the chain cannot be read."""

    def __init__(self, chain: Chain, network: NetworkFacts) -> None:
        self._chain = chain
        self._network = network
        self._standings = Standings(chain)

    @property
    def chain(self) -> Chain:
        return self._chain

    async def head(self) -> Head:
        try:
            return await self._chain.head()
        except ChainError as error:
            raise _uncertain(error) from error

    async def block(self, seqno: int) -> Block | None:
        """The masterchain block with this number; None where the chain has not come that far."""
        try:
            if seqno > (await self._chain.head()).block.seqno:
                return None
            found = await self._chain.block(seqno)
        except ChainError as error:
            raise _uncertain(error) from error
        return Block(found.block.seqno, found.block.root_hash, found.now)

    async def account(self, account: bytes) -> AccountState:
        try:
            return await self._chain.account(account)
        except ChainError as error:
            raise _uncertain(error) from error

    async def node(self, account: bytes) -> NodeState:
        """The node at this account. Raises Untrusted unless it is an active child of the registry."""
        state = await self.account(account)
        if state.status is not Status.ACTIVE or state.data is None:
            raise Untrusted(account, (f"the chain shows no node there ({state.status})",))
        registry = self._network.registry
        if not may_be_child(state.data, Kind.NODE, account, registry):
            raise Untrusted(account, ("it is no node of this network's registry",))
        try:
            node = NodeState.from_cell(state.data)
        except CellError as error:
            raise Untrusted(account, (str(error),)) from error
        # The address commits to registry, kind, owner and index: code and data at it came from the registry.
        if node is None or account != child_address(registry, Kind.NODE, node.owner, node.index):
            raise Untrusted(account, ("it is no node of this network's registry",))
        return node

    async def standing(self, account: bytes, node: NodeState, evidence: Evidence) -> tuple[str, ...]:
        """What the network's verifier holds against the node's image or platform today, one sentence each."""
        try:
            return await self._standings.faults(account, node, evidence)
        except ChainError as error:
            raise _uncertain(error) from error

    async def verifier(self, account: bytes) -> VerifierState:
        """The attestation contract that a genuine node names."""
        state = await self.account(account)
        try:
            if state.data is None:
                raise CellError("it has no state")
            return VerifierState.from_cell(state.data)
        except CellError as error:
            raise Uncertain(
                f"verifier {account.hex()} cannot be read: {error}", "use a release of this network"
            ) from error

    async def escrow(self, account: bytes) -> EscrowState | None:
        """The escrow at this account; None while there is none or its birth is on its way."""
        state = await self.account(account)
        if state.status is not Status.ACTIVE or state.data is None:
            if state.status is Status.FROZEN:
                raise Uncertain(
                    f"escrow {account.hex()} is frozen for unpaid rent", "unfreeze it with its last state and a top-up"
                )
            return None
        try:
            return EscrowState.from_cell(state.data, account)
        except CellError as error:
            raise Uncertain(f"escrow {account.hex()}: {error}", "check the registry of the network profile") from error

    async def job(self, account: bytes) -> JobState | None:
        """The job at this account; None before its birth and after its end."""
        state = await self.account(account)
        if state.status is not Status.ACTIVE or state.data is None:
            return None
        job = job_of(state.data, account, self._network.registry)
        if job is None or job.job_id != job_id(self._network.network_id, account, job.epoch, job.config.spec):
            return None
        return job

    async def registry(self) -> RegistryState:
        state = await self.account(self._network.registry)
        try:
            if state.data is None:
                raise CellError("it has no state")
            registry = RegistryState.from_cell(state.data)
        except CellError as error:
            raise Uncertain(
                f"registry {self._network.registry.hex()} cannot be used: {error}",
                "check the registry of the network profile, or deploy it",
            ) from error
        if registry.network_id != self._network.network_id:
            raise Uncertain("the registry is of another network", "check global_id and registry of the profile")
        return registry


def _uncertain(error: ChainError) -> Uncertain:
    return Uncertain(str(error), "ask again when two endpoints answer alike; nothing was done")
