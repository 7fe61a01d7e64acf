"""JSON over HTTP to an endpoint that nobody trusts: bounded answers, bounded time, a retry policy that is data."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from yarl import URL

from chain.api import ChainError, Unreachable

MAX_ANSWER_BYTES = 32 << 20
_BUSY = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Retry:
    """Waits between attempts; all attempts together stay within the endpoint's timeout."""

    first_wait_seconds: float = 0.2
    factor: float = 2.0
    longest_wait_seconds: float = 2.0
    attempts_within_timeout: int = 2
    """One attempt may take at most timeout / this, so a hanging connection leaves room for another try."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: object


class Throttle:
    """At most `per_second` requests: spaces them out instead of failing."""

    def __init__(self, per_second: float | None) -> None:
        if per_second is not None and per_second <= 0:
            raise ValueError(
                f"requests_per_second is {per_second}; give a positive number, or leave it out for no limit"
            )
        self._gap_seconds = 0.0 if per_second is None else 1.0 / per_second
        self._free_at = 0.0

    async def wait(self) -> None:
        now = time.monotonic()
        slot = max(now, self._free_at)
        self._free_at = slot + self._gap_seconds
        if slot > now:
            await asyncio.sleep(slot - now)


class JsonEndpoint:
    """One base URL. Raises Unreachable with the endpoint's name; never follows a redirect; never logs headers."""

    def __init__(
        self,
        url: str,
        *,
        name: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        retry: Retry,
        throttle: Throttle,
    ) -> None:
        self.name = name
        self._url = URL(url)
        self._headers = dict(headers)
        self._timeout_seconds = timeout_seconds
        self._retry = retry
        self._throttle = throttle
        self._session: aiohttp.ClientSession | None = None

    async def get(self, method: str, query: Mapping[str, str]) -> Answer:
        return await self._until_answered("GET", method, query=query, payload=None, repeatable=True)

    async def post(self, method: str, payload: Mapping[str, str]) -> Answer:
        """Not repeated once the request may have arrived: the second answer would speak of the first one's effect."""
        return await self._until_answered("POST", method, query={}, payload=payload, repeatable=False)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _until_answered(
        self, verb: str, method: str, *, query: Mapping[str, str], payload: Mapping[str, str] | None, repeatable: bool
    ) -> Answer:
        deadline = time.monotonic() + self._timeout_seconds
        wait_seconds = self._retry.first_wait_seconds
        while True:
            asked_wait = 0.0
            try:
                await self._throttle.wait()
                return await self._once(verb, method, query, payload, deadline)
            except _Busy as busy:
                # 429 and gateway errors: the request did nothing, so even a broadcast may be repeated
                cause, asked_wait = f"HTTP {busy.status}", busy.retry_after_seconds
            except aiohttp.ClientConnectorError as error:
                cause = _say(error)  # nothing was sent
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                cause = _say(error)
                if not repeatable:
                    raise self._unreachable(method, cause) from error
            pause = max(wait_seconds, asked_wait)
            wait_seconds = min(wait_seconds * self._retry.factor, self._retry.longest_wait_seconds)
            if time.monotonic() + pause >= deadline:
                raise self._unreachable(method, cause)
            await asyncio.sleep(pause)

    async def _once(
        self, verb: str, method: str, query: Mapping[str, str], payload: Mapping[str, str] | None, deadline: float
    ) -> Answer:
        share = self._timeout_seconds / self._retry.attempts_within_timeout
        budget = max(0.001, min(share, deadline - time.monotonic()))
        async with self._open().request(
            verb,
            self._url / method,
            params=query,
            json=payload,
            headers=self._headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=budget),
        ) as response:
            if response.status in _BUSY:
                raise _Busy(response.status, _retry_after(response.headers.get("Retry-After")))
            raw = await _read(response, self.name)
        try:
            return Answer(response.status, json.loads(raw))
        except (ValueError, RecursionError) as error:
            if response.status >= 500:
                raise _Busy(response.status, 0.0) from error
            raise ChainError(
                f"{self.name} answered {method} with HTTP {response.status} and no JSON; check the URL"
            ) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        return self._session

    def _unreachable(self, method: str, cause: str) -> Unreachable:
        return Unreachable(
            f"{self.name} did not answer {method} within {self._timeout_seconds:g} s ({cause}); "
            "check the endpoint's URL and your network, or configure another endpoint"
        )


class _Busy(Exception):
    def __init__(self, status: int, retry_after_seconds: float) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after_seconds = retry_after_seconds


def _retry_after(header: str | None) -> float:
    """Seconds form only; the date form is not used by toncenter and falls back to the backoff."""
    return float(header) if header is not None and header.isdecimal() else 0.0


async def _read(response: aiohttp.ClientResponse, name: str) -> bytes:
    chunks = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise ChainError(f"{name} sent more than {MAX_ANSWER_BYTES} bytes in one answer; remove this endpoint")
        chunks.append(chunk)
    return b"".join(chunks)


def _say(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
