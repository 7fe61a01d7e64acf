"""What the agent does over and over while it lives, so that no message, file or chain answer can end it.

Relayers, clients and strangers on the chain write what a round reads, and disks fill. Whatever a round comes to, the
node goes on serving, and the next round looks again: an agent that ends takes its enclave along, and with it the key
that alone can sign what running jobs owe.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

log = logging.getLogger(__name__)


def tell(what: str, error: BaseException, expected: tuple[type[Exception], ...]) -> None:
    """Log that `what` waits: in a line where the error is one of the `expected`, else with its trace."""
    if isinstance(error, expected):
        log.warning("%s: %s", what, error or type(error).__name__)
    else:
        log.error("%s; report this", what, exc_info=error)


async def attempt(what: str, work: Awaitable[object], expected: tuple[type[Exception], ...]) -> bool:
    """Whether it went well; what did not is told as `what`."""
    try:
        await work
    except Exception as error:
        tell(what, error, expected)
        return False
    return True


async def over_and_over(
    what: str,
    one: Callable[[], Awaitable[object]],
    expected: tuple[type[Exception], ...],
    pause: Callable[[], Awaitable[object]],
) -> NoReturn:
    """Round after round, each followed by a pause, until cancelled."""
    while True:
        await attempt(what, one(), expected)
        await pause()


def every(seconds: float) -> Callable[[], Awaitable[object]]:
    """A pause of fixed length."""
    return lambda: asyncio.sleep(seconds)
