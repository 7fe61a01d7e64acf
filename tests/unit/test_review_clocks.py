"""Clocks that disagree: the chain's decides about what the chain ends."""

import asyncio
from types import SimpleNamespace

from chain.api import Unreachable
from worker.agent import attest
from worker.agent.attest import Attesting


class View:
    def __init__(self, now: int) -> None:
        self.now = now
        self.down = False

    async def head(self):
        if self.down:
            raise Unreachable("gone")
        return SimpleNamespace(now=self.now)


async def test_a_key_is_attested_anew_before_its_term_ends_on_chain(monkeypatch) -> None:
    """The chain's time is far from this machine's, jumps, and is away for a while."""
    monkeypatch.setattr(attest, "LOOK_SECONDS", 0.01, raising=False)
    view = View(5_000_000_000)
    waiting = asyncio.create_task(Attesting(view, None, None, None).term(5_000_000_000 + 400))
    await asyncio.sleep(0.05)
    view.now += 299
    view.down = True
    await asyncio.sleep(0.05)
    view.down = False
    await asyncio.sleep(0.05)
    assert not waiting.done()
    view.now += 2
    await asyncio.wait_for(waiting, 1)
