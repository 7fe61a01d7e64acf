"""Asks agents for claims when the policy says so, and takes the claims that they hand over."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

from protocol.link import Kind
from relayer.api.hub import Hub
from relayer.api.worker_link import WorkerLink
from relayer.chain.claim import ClaimFault, read_claim
from relayer.chain.mirror import Mirror
from relayer.core.effects import AskForClaim
from relayer.core.facts import ClaimDeclined, ClaimDue
from relayer.core.policy import SettlePolicy, due, overdue
from relayer.core.tally import Tally
from relayer.core.views import owed_to
from relayer.errors import Refusal
from relayer.log import log
from relayer.store.store import Store
from relayer.store.writer import Writer

MAX_CODE_CHARACTERS = 60


class Settler:
    """`clock`: unix seconds by the chain, since claims live and die and rows close by its time and not by ours."""

    def __init__(
        self, hub: Hub, mirror: Mirror, writer: Writer, policy: SettlePolicy, clock: Callable[[], int]
    ) -> None:
        self._hub = hub
        self._mirror = mirror
        self._writer = writer
        self._policy = policy
        self._clock = clock
        self._asking: dict[tuple[bytes, int], asyncio.Task[None]] = {}

    async def run_once(self) -> None:
        """States what is due, gives up what is overdue, and sends the asks that are open."""
        now = self._clock()
        await self._decide(now)
        for effect in await self._writer.read(lambda store: store.pending()):
            if isinstance(effect, AskForClaim):
                self._send(effect)

    async def _decide(self, now: int) -> None:
        by_node: dict[bytes, list[Tally]] = defaultdict(list)
        for tally in await self._writer.read(lambda store: store.unclaimed()):
            by_node[tally.node].append(tally)
        settlements = {one.node: one for one in await self._writer.read(lambda store: store.settlements())}
        for settlement in settlements.values():
            if overdue(self._policy, settlement, now):
                await self._writer.record(ClaimDeclined(settlement.node, settlement.ask, "too-late", now))
        for node, tallies in by_node.items():
            if self._hub.get(node) is None:
                continue  # nobody to ask; the agent claims by itself when it is there
            settlement = await self._writer.read(partial(Store.settlement, node=node))
            owed = owed_to(tallies, settlement.key)
            reason = due(self._policy, settlement, owed, now)
            if reason is None:
                continue
            ask = await self._writer.read(lambda store: store.next_ask())
            await self._writer.record(ClaimDue(node, ask, reason, owed.unclaimed_nano, now))
            log("claim due", node=node, reason=reason, unclaimed_nano=owed.unclaimed_nano, ask=ask)

    def _send(self, effect: AskForClaim) -> None:
        name = (effect.node, effect.ask)
        worker = self._hub.get(effect.node)
        if worker is None or name in self._asking:
            return
        task = asyncio.ensure_future(self._ask(worker, effect))
        self._asking[name] = task
        task.add_done_callback(lambda done: self._asked(name, done))

    def _asked(self, name: tuple[bytes, int], task: asyncio.Task[None]) -> None:
        self._asking.pop(name, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log("ask failed", node=name[0], ask=name[1], error=error)

    async def _ask(self, worker: WorkerLink, effect: AskForClaim) -> None:
        body = {"reason": effect.reason, "unclaimed_nano": effect.unclaimed_nano}
        try:
            answer = await worker.ask(Kind.ASK_CLAIM, body, float(self._policy.ask_seconds))
        except Refusal as refusal:
            await self._decline(effect, refusal.code)
            return
        error = answer.get("error")
        if isinstance(error, dict):
            await self._decline(effect, str(error.get("code"))[:MAX_CODE_CHARACTERS])
            return
        try:
            await self._take(worker, answer)
        except ClaimFault as fault:
            log("claim refused", node=worker.node, reason=str(fault))
            await self._decline(effect, "claim-refused")

    async def _decline(self, effect: AskForClaim, code: str) -> None:
        log("claim declined", node=effect.node, ask=effect.ask, code=code)
        await self._writer.record(ClaimDeclined(effect.node, effect.ask, code, self._clock()))

    async def take_unasked(self, worker: WorkerLink, body: dict[str, Any]) -> None:
        """A claim that the agent handed over by itself."""
        try:
            await self._take(worker, body)
        except (ClaimFault, Refusal) as fault:
            log("claim refused", node=worker.node, reason=str(fault))

    async def _take(self, worker: WorkerLink, body: dict[str, Any]) -> None:
        try:
            message = base64.b64decode(body["message"], validate=True)
        except (KeyError, TypeError, binascii.Error, ValueError) as error:
            raise ClaimFault("message is not base64") from error
        seen = await self._mirror.node(worker.node, max_age_seconds=1.0)
        if seen.state is None:
            raise ClaimFault(f"the node is not live: {seen.why_not}")
        ready = read_claim(message, node=worker.node, state=seen.state, now=self._clock())
        recorded = await self._writer.record(ready)
        log("claim ready", node=worker.node, seqno=ready.seqno, message=ready.message_hash, new=recorded.new)

    async def close(self) -> None:
        for task in tuple(self._asking.values()):
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
