"""What the operator chooses on chain: more stake, prices, drain, who controls the node and who is paid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pytoniq_core import Cell

from chain.api import Transaction
from chain.follower import AccountFollower
from chain.wait import until, wait_for_transaction
from protocol.pricing import table
from worker.agent import control
from worker.agent.operations import OperationRefused, Operator
from worker.agent.release_keys import ReleaseKeys
from wrappers import node_rare
from wrappers.cells import from_boc
from wrappers.node import NodeState
from wrappers.ops import Op
from wrappers.receipts import Terms

SETTING_NANO = 80_000_000
"""Above the need of a setting with the rent of a new price; what is not used comes back."""
SHOWN_SECONDS = 60.0
ROTATED_SECONDS = 900.0
"""An enclave loads its model, and waits for a block that its quote can name."""


NOTARY_MARGIN_NANO = 5_000_000
"""What is not used comes back."""


class Role(StrEnum):
    """What can be handed over, in two steps."""

    CONTROLLER = "controller"
    PAYOUT = "payout"


_OFFER = {Role.CONTROLLER: node_rare.offer_controller, Role.PAYOUT: node_rare.offer_payout}
_ACCEPT = {Role.CONTROLLER: node_rare.accept_controller, Role.PAYOUT: node_rare.accept_payout}


@dataclass(frozen=True, slots=True)
class Settings:
    """Raises OperationRefused before anything is sent that the node would refuse, else what Operator raises."""

    operator: Operator

    async def _state(self) -> NodeState:
        return (await self.operator.view.node(fresh=True)).state

    async def _controls(self) -> NodeState:
        state, wallet = await self._state(), self.operator.wallet()
        if state.controller != wallet.account:
            raise OperationRefused(
                f"the node's controller is {state.controller.hex()}, not this wallet; use the controller's wallet_file"
            )
        return state

    async def _change(self, body: Cell, shown: Callable[[NodeState], bool], what: str) -> Transaction:
        sent = await self.operator.send(SETTING_NANO, body)

        async def seen() -> bool | None:
            return True if shown(await self._state()) else None

        await until(seen, what=f"the chain to show {what}", timeout_seconds=SHOWN_SECONDS)
        return sent

    async def stake(self, amount_nano: int) -> int:
        """Add to the stake; the stake then, in nanoTON."""
        before = await self._state()
        if before.unbond_at:
            raise OperationRefused("the node is unbonding: its stake can only leave; open another node")
        need = (await self.operator.fees()).top_up_stake()
        await self.operator.send(amount_nano + need, node_rare.top_up_stake())

        async def seen() -> int | None:
            now = (await self._state()).stake_nano
            return now if now > before.stake_nano else None

        return await until(seen, what="the chain to show the added stake", timeout_seconds=SHOWN_SECONDS)

    async def drain(self, on: bool) -> Transaction | None:
        """Tell clients, relayers and this node's own agent to begin nothing new, or that they may. None: it is so."""
        if (await self._controls()).draining == on:
            return None
        return await self._change(node_rare.drain(on), lambda state: state.draining == on, "the drain flag")

    async def publish(self) -> list[str]:
        """Put the prices of the running enclave on chain; the names of models whose price was not there yet."""
        state = await self._controls()
        changed = []
        for name, terms in await self.served():
            if state.offers.get(terms.model) != terms:
                await self._change(node_rare.set_offer(terms), _has(terms), f"the price of {name}")
                changed.append(name)
        return changed

    async def unpublish(self, model: bytes) -> Transaction:
        if model not in (await self._controls()).offers:
            raise OperationRefused(f"no price of model {model.hex()} is on chain; see `cocoon node price`")
        return await self._change(node_rare.drop_offer(model), lambda state: model not in state.offers, "its end")

    async def served(self) -> list[tuple[str, Terms]]:
        """Name and terms of what the running enclave serves. Raises OperationRefused where none runs."""
        try:
            said = await control.ask(self.operator.config.control_socket, {"do": "prices"}, timeout_seconds=10)
        except (control.NotRunning, TimeoutError) as error:
            raise OperationRefused(f"{error}: start the worker, whose enclave names its prices") from error
        return [(one["name"], Terms.from_cell(from_boc(bytes.fromhex(one["terms"])))) for one in said["prices"]]

    async def prices(self) -> dict[str, Any]:
        """What is on chain, and what the running enclave asks."""
        state = await self._state()
        try:
            served = await self.served()
        except OperationRefused:
            served = []
        return {
            "published": [table(terms) for terms in state.offers.values()],
            "served": [{"name": name, **table(terms)} for name, terms in served],
        }

    async def offer(self, role: Role, account: bytes | None) -> Transaction:
        """First step of a hand-over, by the controller; None withdraws it."""
        await self._controls()
        return await self._change(_OFFER[role](account), lambda state: offered(state, role) == account, "the offer")

    async def accept(self, role: Role) -> Transaction:
        """Second step, by the wallet that was offered the role."""
        mine = self.operator.wallet().account
        state = await self._state()
        if offered(state, role) != mine:
            raise OperationRefused(f"the {role} was not offered to this wallet, {mine.hex()}; its controller offers it")
        return await self._change(_ACCEPT[role](), lambda now: getattr(now, role.value) == mine, f"the new {role}")

    async def release_key(self) -> dict[str, Any]:
        """The node's release key on chain, and whether its file is here."""
        shown, keys = (await self._state()).release_key, ReleaseKeys(self.operator.config.release_key)
        return {"release_key": shown.hex(), "file": str(keys.path), "held": shown == keys.public}

    async def new_release_key(self) -> dict[str, Any]:
        """Another release key, named on chain and then used. Safe to repeat, wherever it broke off."""
        state, keys = await self._controls(), ReleaseKeys(self.operator.config.release_key)
        before, following = keys.public, keys.following()
        if state.release_key not in (keys.public, following):
            raise OperationRefused(
                f"the node's release key is {state.release_key.hex()}, and {keys.path} holds another; restore that "
                "file, or set release_key_file"
            )
        if state.release_key != following:
            body = node_rare.set_release_key(following)
            await self._change(body, lambda now: now.release_key == following, "the new release key")
        try:
            said = await control.ask(self.operator.config.control_socket, {"do": "release-key"}, timeout_seconds=30)
            if "error" in said:
                raise OperationRefused(f"the chain has the new key, the running agent not: {said['error']}; restart it")
        except control.NotRunning:
            keys.adopt(following)
        return {"old_key": before.hex(), "release_key": following.hex()}

    async def notarise(self, escrow: bytes) -> dict[str, Any]:
        """The hash of the escrow's latest receipt into the chain's history, signed by the enclave that issued it."""
        asked = {"do": "notarise", "escrow": escrow.hex()}
        try:
            said = await control.ask(self.operator.config.control_socket, asked, timeout_seconds=60)
        except (control.NotRunning, TimeoutError) as error:
            raise OperationRefused(f"{error}: only the enclave that issued a receipt can sign its hash") from error
        if "error" in said:
            raise OperationRefused(said["error"])
        hash_, key, signature = (bytes.fromhex(said[name]) for name in ("hash", "key", "signature"))
        value = (await self.operator.fees()).notarise() + NOTARY_MARGIN_NANO
        node = self.operator.ground.node
        follower = await AccountFollower.from_now(self.operator.ground.chain, node)
        await self.operator.send(value, node_rare.notarise(hash_, key, signature))
        landed = await wait_for_transaction(
            follower,
            lambda one: any(message.external and _names(message.body, hash_) for message in one.out_msgs),
            SHOWN_SECONDS,
        )
        named = {"escrow": escrow.hex(), "seq": said["seq"], "receipt": said["hash"], "key": said["key"]}
        return {**named, "node": node.hex(), "transaction": landed.hash.hex(), "lt": landed.lt}

    async def rotate(self, progress: Callable[[str], None]) -> dict[str, Any]:
        """A new enclave with a new key, attested; then what the old key earned is claimed. Needs the running agent."""
        socket = self.operator.config.control_socket
        try:
            said = await control.ask(socket, {"do": "rotate"}, timeout_seconds=240)
        except control.NotRunning as error:
            raise OperationRefused(f"{error}: nothing holds a key; the worker starts with a new one") from error
        if "error" in said:
            raise OperationRefused(said["error"])
        old = said["old_key"]
        progress(f"key {old} ended; the next enclave loads its model and is attested")

        async def fresh() -> str | None:
            try:
                found = await control.ask(socket, {"do": "status"}, timeout_seconds=10)
            except TimeoutError:
                return None
            return found["key"] if found["serving"] and found["key"] not in (None, old) else None

        new = await until(fresh, what="the new key to be attested", timeout_seconds=ROTATED_SECONDS)
        settled = await control.ask(socket, {"do": "settle"})
        retired = (await self._state()).retired.get(bytes.fromhex(old))
        ends_at = retired.ends_at if retired is not None else None
        return {"old_key": old, "new_key": new, "old_claims_until": ends_at, "settled": settled}


def _names(body: Cell, hash_: bytes) -> bool:
    """Whether it is TL-B `notarised` of this hash."""
    s = body.begin_parse()
    if len(body.bits) != 32 + 3 * 256 or s.load_uint(32) != Op.NOTARISED:
        return False
    s.skip_bits(512)
    return bool(s.load_bytes(32) == hash_)


def offered(state: NodeState, role: Role) -> bytes | None:
    """Whom the role is offered to."""
    if state.extras is None:
        return None
    return state.extras.new_controller if role is Role.CONTROLLER else state.extras.new_payout


def _has(terms: Terms) -> Callable[[NodeState], bool]:
    return lambda state: state.offers.get(terms.model) == terms
