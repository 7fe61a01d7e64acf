"""Which llama.cpp slot serves a request, and whether its KV cache may be reused (G15).

A llama.cpp slot keeps the tokens of its last request and, left alone, hands any common prefix to the next one whoever
that is; the cached count in the usage then tells a tenant what another one asked. So slots are chosen here, by salt.
What stays visible is load: a tenant whose slot was taken in the meantime is served uncached.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lease:
    """A slot held for one request. `reuse` allows prefix reuse: what its cache holds belongs to the same salt."""

    slot: int
    reuse: bool


class SlotPool:
    """`count` slots, handed out first come first served; a salt gets the slot it used last when that one is free."""

    def __init__(self, count: int) -> None:
        # Oldest release first: a stranger takes the slot whose owner has been silent longest.
        self._free: deque[int] = deque(range(count))
        self._owner: dict[int, str] = {}
        self._waiting: deque[tuple[asyncio.Future[int], str]] = deque()

    @property
    def free(self) -> int:
        return len(self._free)

    async def acquire(self, salt: str) -> Lease:
        """Wait for a slot. Cancelling the wait gives the place in the queue up and loses no slot."""
        if self._free and not self._waiting:
            return self._lease(self._pick(salt), salt)
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((turn, salt))
        try:
            slot = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(turn.result(), "")
            raise
        return self._lease(slot, salt)

    def release(self, slot: int, owner: str) -> None:
        """Give a slot back. `owner` is the salt whose prompt is known to fill the slot's cache, else empty.

        A request that was refused or aborted early may have left its predecessor's prefix there, so it owns nothing.
        """
        self._owner[slot] = owner
        self._free.append(slot)
        while self._waiting and self._free:
            turn, salt = self._waiting.popleft()
            if not turn.done():
                turn.set_result(self._pick(salt))

    def _pick(self, salt: str) -> int:
        own = [slot for slot in self._free if salt and self._owner.get(slot) == salt]
        slot = own[-1] if own else self._free[0]
        self._free.remove(slot)
        return slot

    def _lease(self, slot: int, salt: str) -> Lease:
        reuse = bool(salt) and self._owner.get(slot) == salt
        return Lease(slot, reuse)
