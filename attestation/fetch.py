"""Bounded HTTP GET from a server that nobody trusts."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp

TIMEOUT_SECONDS = 20.0
BODY_LIMIT_BYTES = 512 * 1024


class CollateralUnavailable(Exception):
    """Collateral cannot be had, or what came is of no use. The text names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


Get = Callable[[str], Awaitable[Answer]]
"""Raises CollateralUnavailable."""


async def http_get(url: str) -> Answer:
    """One GET: no redirect, bounded time and size. Raises CollateralUnavailable."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            body = await response.content.read(BODY_LIMIT_BYTES + 1)
            while len(body) <= BODY_LIMIT_BYTES and (more := await response.content.read(BODY_LIMIT_BYTES + 1)):
                body += more
            headers = {name.lower(): value for name, value in response.headers.items()}
            status = response.status
    except aiohttp.ClientConnectorCertificateError as error:
        raise CollateralUnavailable(
            f"{url}: its TLS certificate is not trusted ({error.certificate_error}); name its CA in SSL_CERT_FILE"
        ) from error
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        raise CollateralUnavailable(
            f"{url} cannot be read ({error or type(error).__name__}); check the address and that the service runs"
        ) from error
    if len(body) > BODY_LIMIT_BYTES:
        raise CollateralUnavailable(
            f"{url} answered with more than {BODY_LIMIT_BYTES} bytes, which is no collateral; check the address"
        )
    return Answer(status, headers, body)


async def get_ok(get: Get, url: str) -> Answer:
    """The answer when its status is 200. Raises CollateralUnavailable."""
    answer = await get(url)
    if answer.status == 429:
        raise CollateralUnavailable(f"{url}: too many requests (429); wait, or run a cache of your own nearer by")
    if answer.status != 200:
        begin = answer.body[:80].decode("ascii", "replace")
        raise CollateralUnavailable(f"{url} answered {answer.status} ({begin!r}); check the address and the service")
    return answer
