"""Client of the control routes: what tests and the demo order from a running devnet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import aiohttp

from devnet.engine import DevnetError

TIMEOUT_SECONDS = 30.0


class Control:
    """`url`: `http://host:port` of any HTTP listener of the devnet, or `Endpoints.control`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/").removesuffix("/control") + "/control"
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Control:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def faucet(self, account: bytes, amount_nano: int) -> None:
        """Credit an account out of nothing, by a transaction in a block that exists when this returns."""
        await self._post("faucet", {"address": f"0:{account.hex()}", "amount_nano": amount_nano})

    async def advance(self, seconds: int) -> int:
        """Travel in time and seal a block there; its unix seconds."""
        return int((await self._post("advance", {"seconds": seconds}))["now"])

    async def mine(self, rounds: int = 1) -> int:
        """Seal blocks at once; the head's seqno."""
        return int((await self._post("mine", {"rounds": rounds}))["seqno"])

    async def snapshot(self) -> int:
        return int((await self._post("snapshot", {}))["id"])

    async def revert(self, snapshot: int) -> None:
        """Back to a snapshot, any number of times. Snapshots live as long as the devnet's process."""
        await self._post("revert", {"id": snapshot})

    async def faults(self, listener: str, faults: Sequence[Mapping[str, Any]]) -> None:
        """Order faults from one listener (`toncenter`, `toncenter-2`, `liteserver`); [] makes it honest again.

        Each fault: `kind` (drop, delay, error, lie) and optionally `method`, `account` (address), `times`, `seconds`
        (delay), `error` and `status` (error), `patch` (lie: merged into the true result).
        """
        await self._post("faults", {"listener": listener, "faults": [dict(fault) for fault in faults]})

    async def status(self) -> dict[str, Any]:
        return await self._call("GET", "status", None)

    async def global_config(self) -> dict[str, Any]:
        """The liteserver as lite clients want it."""
        return await self._call("GET", "global-config", None)

    async def _post(self, command: str, params: Mapping[str, Any]) -> dict[str, Any]:
        return await self._call("POST", command, params)

    async def _call(self, method: str, command: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        try:
            async with self._session.request(method, f"{self._url}/{command}", json=params) as response:
                answer = await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise DevnetError(f"no devnet answers at {self._url}: {error}; is it running?") from error
        if not answer.get("ok"):
            raise DevnetError(f"{command} refused: {answer.get('error')}")
        result: dict[str, Any] = answer["result"]
        return result
