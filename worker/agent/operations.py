"""What the operator does with his own wallet: open the node, settle, collect, unbond, withdraw; and its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pytoniq_core import Cell

from chain.api import Transaction
from chain.outgoing import Outgoing
from chain.wait import until
from chain.wallet import Wallet
from worker.agent import control
from worker.agent.claims import Claims, Policy
from worker.agent.config import AgentConfig
from worker.agent.duty import committee_state
from worker.agent.journal import Journal
from worker.agent.release_keys import create_release_key, load_release_key, public_bytes
from worker.agent.run import Ground
from worker.agent.store import Account, Store
from worker.agent.view import ChainView, NodeMissing, NodeView
from wrappers.addresses import Kind, child_address
from wrappers.code import Contract, code_hash
from wrappers.committee import LEAVE_SECONDS, CommitteeState
from wrappers.committee_messages import leave, withdraw_bond
from wrappers.fees import Fees
from wrappers.node import NodeConfig
from wrappers.node_rare import collect, present, unbond, withdraw_stake
from wrappers.prices import PRICES
from wrappers.registry import Parameters, RegistryState, open_node

OPENING_COSTS_NANO = 300_000_000
"""Above rent, gas and forwarding of a birth; the contract credits what is left to the stake."""
SMALL_MESSAGE_NANO = 50_000_000
"""Above the need of collect, unbond and withdraw_stake; the rest stays in the node's reserve or comes back."""
JOINING_COSTS_NANO = 150_000_000
"""Above rent and gas of a member, and the node's own part; what is left is bond as well."""
SHOWN_SECONDS = 60.0


class OperationRefused(Exception):
    """What the operator asked for cannot be done now. Cause and cure."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator's commands on one node. `ground.chain` is a quorum."""

    config: AgentConfig
    ground: Ground

    @property
    def view(self) -> ChainView:
        return ChainView(self.ground.chain, self.config.registry, self.ground.node, self.ground.network, 0.0)

    def wallet(self) -> Wallet:
        if self.ground.wallet is None:
            raise OperationRefused("this needs the operator's wallet; set wallet_file in the agent's configuration")
        return self.ground.wallet

    async def send(self, value_nano: int, body: Cell) -> Transaction:
        """One message of the wallet to the node."""
        return await self._send(self.ground.node, value_nano, body)

    async def fees(self) -> Fees:
        return Fees(PRICES, await self.parameters())

    async def _send(self, destination: bytes, value_nano: int, body: Cell) -> Transaction:
        sent = await self.wallet().send(self.ground.chain, [Outgoing(destination, value_nano, body)])
        return await sent.landed(self.ground.chain)

    async def parameters(self) -> Parameters:
        account = await self.ground.chain.account(self.config.registry)
        if account.data is None:
            raise OperationRefused(f"there is no registry at {self.config.registry.hex()}; correct `registry`")
        return RegistryState.from_cell(account.data).parameters

    async def open(self, stake_nano: int, payout: bytes | None = None) -> NodeView:
        """Open the node with at least this stake; the wallet is its owner, controller and, by default, payout."""
        wallet = self.wallet()
        expected = child_address(self.config.registry, Kind.NODE, wallet.account, self.config.index)
        if expected != self.ground.node:
            raise OperationRefused("`node` is not what this wallet and index open; leave `node` out, or correct them")
        parameters = await self.parameters()
        if stake_nano < parameters.min_stake_nano:
            raise OperationRefused(f"the least stake is {parameters.min_stake_nano} nanoTON, not {stake_nano}")
        path = self.config.release_key
        key = load_release_key(path) if path.exists() else create_release_key(path)
        node = NodeConfig(wallet.account, payout or wallet.account, public_bytes(key))
        value = stake_nano + parameters.gas_level_nano + OPENING_COSTS_NANO
        try:
            await self.view.node()
        except NodeMissing:
            await self._send(self.config.registry, value, open_node(code_hash(Contract.NODE), self.config.index, node))
            return await self._shown()
        raise OperationRefused(
            f"node {self.ground.node.hex()} is open already; choose another `index` for a second one"
        )

    async def _shown(self) -> NodeView:
        async def read() -> NodeView | None:
            try:
                return await self.view.node()
            except NodeMissing:
                return None

        return await until(read, what="the chain to show the node", timeout_seconds=SHOWN_SECONDS)

    async def settle(self) -> dict[str, Any]:
        """Claim everything that is owed: through the running agent, else receipt by receipt through the wallet."""
        try:
            return {"running": True, **await control.ask(self.config.control_socket, {"do": "settle"})}
        except control.NotRunning:
            journal = Journal.open(self.config.store)
            try:
                claims = Claims(journal, self.view, Policy(0, 0, 0), self.wallet(), lambda: None, lambda _: None)
                return {"running": False, "batch": None, "receipts": await claims.claim_receipts(include_living=True)}
            finally:
                await journal.close()

    async def collect(self) -> Transaction:
        """Send what the node earned above its reserves to the payout address now."""
        return await self._send(self.ground.node, SMALL_MESSAGE_NANO, collect())

    async def unbond(self) -> Transaction:
        """End the node's service; the stake leaves after the windows."""
        return await self._send(self.ground.node, SMALL_MESSAGE_NANO, unbond())

    async def withdraw(self) -> Transaction:
        """Take the stake. Raises OperationRefused before its time."""
        state = (await self.view.node()).state
        now = (await self.ground.chain.head()).now
        if state.withdrawable_at is None:
            raise OperationRefused("the node is bonded; run `cocoon node unbond` first")
        if now < state.withdrawable_at:
            raise OperationRefused(f"the stake may leave at {state.withdrawable_at} (unix seconds), it is {now} now")
        return await self._send(self.ground.node, SMALL_MESSAGE_NANO, withdraw_stake())

    # ---- the committee

    async def join(self) -> Transaction:
        """Put up the bond and be drawn for the committee's questions. Raises OperationRefused."""
        state = await self._committee()
        node = (await self.view.node()).state
        if node.owner in state.members:
            raise OperationRefused("this owner is in the committee already, or still leaving; see `cocoon node status`")
        if node.signing_key is None or node.attested_until <= (await self.ground.chain.head()).now:
            raise OperationRefused("the node is not attested; start the agent first, and wait until it serves")
        value = state.terms.bond_nano + JOINING_COSTS_NANO
        return await self._send(self.ground.node, value, present(self._committee_account()))

    async def leave(self) -> Transaction:
        """Be drawn no more; the bond may leave two weeks later."""
        owner = (await self.view.node()).state.owner
        return await self._send(self._committee_account(), SMALL_MESSAGE_NANO * 2, leave(owner))

    async def take_bond(self) -> Transaction:
        """Take the bond. Raises OperationRefused before its time."""
        state, now = await self._committee(), (await self.ground.chain.head()).now
        owner = (await self.view.node()).state.owner
        member = state.members.get(owner)
        if member is None or not member.leaving_at:
            raise OperationRefused("there is no bond on its way out; run `cocoon node leave` first")
        if now < member.leaving_at + LEAVE_SECONDS:
            raise OperationRefused(
                f"the bond may leave at {member.leaving_at + LEAVE_SECONDS} (unix seconds), it is {now}"
            )
        return await self._send(self._committee_account(), SMALL_MESSAGE_NANO * 2, withdraw_bond(owner))

    def _committee_account(self) -> bytes:
        if self.config.committee is None:
            raise OperationRefused(
                "set committee in the agent's configuration to the account of the network's committee"
            )
        return self.config.committee

    async def _committee(self) -> CommitteeState:
        return await committee_state(self.ground.chain, self._committee_account())

    async def status(self) -> dict[str, Any]:
        """What chain, store and the running agent know of the node."""
        now = (await self.ground.chain.head()).now
        view = await self.view.node()
        state = view.state
        accounts = _accounts(self.config)
        unbonding = "unbonding" if state.unbond_at else None
        live = state.signing_key is not None and now <= state.attested_until
        try:
            agent = await control.ask(self.config.control_socket, {"do": "status"}, timeout_seconds=10)
        except (control.NotRunning, TimeoutError) as error:
            agent = {"running": False, "cause": str(error) or "the agent does not answer"}
        return {
            "node": self.ground.node.hex(),
            "state": unbonding or ("live" if live else "not attested"),
            "stake_nano": state.stake_nano,
            "reserve_nano": view.reserve_nano,
            "signing_key": state.signing_key.hex() if state.signing_key is not None else None,
            "attested_until": state.attested_until,
            "tier": state.tier,
            "draining": state.draining,
            "controller": state.controller.hex(),
            "payout": state.payout.hex(),
            "withdrawable_at": state.withdrawable_at,
            "seqno": state.seqno,
            "earned_nano": state.earned_nano,
            "requests": state.requests,
            "tokens_enclave_reported": state.tokens,
            "owed_nano": sum(one.owed_nano for one in accounts),
            "unclaimed_receipts": sum(one.seq - one.landed_seq for one in accounts),
            "agent": agent,
        }


def _accounts(config: AgentConfig) -> tuple[Account, ...]:
    if not config.store.exists():
        return ()
    store = Store(config.store)
    try:
        return store.accounts()
    finally:
        store.close()
