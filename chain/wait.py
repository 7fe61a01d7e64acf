"""Waiting for the chain with a limit: outages in between are waited through, and named when the time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from chain.api import Disagreement, Transaction, Unreachable
from chain.follower import AccountFollower

T = TypeVar("T")


class WaitTimeout(TimeoutError):
    """What was waited for did not happen in time. Says the last trouble, if any."""


async def until(
    read: Callable[[], Awaitable[T | None]], *, what: str, timeout_seconds: float, interval_seconds: float = 0.5
) -> T:
    """The first answer of `read` that is not None. Raises WaitTimeout; any error but an outage at once."""
    deadline = time.monotonic() + timeout_seconds
    trouble = "nothing seen"
    while True:
        try:
            found = await read()
            if found is not None:
                return found
        except (Unreachable, Disagreement) as error:
            trouble = str(error)
        if time.monotonic() + interval_seconds >= deadline:
            raise WaitTimeout(f"waited {timeout_seconds:g} s for {what} in vain; last: {trouble}")
        await asyncio.sleep(interval_seconds)


async def wait_for_transaction(
    follower: AccountFollower,
    match: Callable[[Transaction], bool],
    timeout_seconds: float,
    *,
    interval_seconds: float = 0.5,
) -> Transaction:
    """The first transaction that matches; the follower has moved past everything that was polled with it."""

    async def read() -> Transaction | None:
        return next((transaction for transaction in await follower.poll() if match(transaction)), None)

    return await until(
        read,
        what=f"a transaction of account {follower.account.hex()}",
        timeout_seconds=timeout_seconds,
        interval_seconds=interval_seconds,
    )
