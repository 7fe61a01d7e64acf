"""A third endpoint is there for bad days: it must not make good ones bad."""

import asyncio
import time

import pytest

from chain.api import AccountState, BlockId, Disagreement, Head, Status, Unreachable
from chain.quorum import Quorum

ACCOUNT = b"a" * 32


class Endpoint:
    def __init__(self, name: str, *, hangs: bool = False, lt: int = 7) -> None:
        self.name = name
        self.hangs = hangs
        self.lt = lt
        self.cancelled = 0

    async def _answer(self) -> None:
        try:
            await asyncio.sleep(60 if self.hangs else 0)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def head(self) -> Head:
        await self._answer()
        return Head(BlockId(5, b"r" * 32, b"f" * 32), 100)

    async def account(self, account: bytes) -> AccountState:
        await self._answer()
        return AccountState(account, Status.UNINIT, 1, None, None, self.lt, b"h" * 32)


async def test_g17_an_endpoint_that_hangs_slows_nobody_down_while_two_agree() -> None:
    hanging = Endpoint("c", hangs=True)
    quorum = Quorum([Endpoint("a"), hanging, Endpoint("b")], grace_seconds=0.05)
    started = time.monotonic()
    async with asyncio.timeout(5):
        assert (await quorum.account(ACCOUNT)).last_lt == 7 and (await quorum.head()).now == 100
    assert time.monotonic() - started < 2 and hanging.cancelled == 2


async def test_g17_what_the_two_others_do_not_agree_on_is_still_no_fact() -> None:
    endpoints = [Endpoint("a"), Endpoint("b", lt=8), Endpoint("c", hangs=True)]
    with pytest.raises(Disagreement):
        await Quorum(endpoints, grace_seconds=0.05, settle_seconds=0.5).account(ACCOUNT)


async def test_g17_one_answer_and_two_that_hang_are_waited_for() -> None:
    quorum = Quorum([Endpoint("a"), Endpoint("b", hangs=True), Endpoint("c", hangs=True)], grace_seconds=0.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(quorum.account(ACCOUNT), 0.3)
    quorum = Quorum([Endpoint("a"), Endpoint("b", hangs=True)], grace_seconds=0.05)
    with pytest.raises((TimeoutError, Unreachable)):
        await asyncio.wait_for(quorum.head(), 0.3)
