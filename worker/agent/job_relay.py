"""Sealed inputs from a relayer, sealed results to it, piece by piece: what breaks off is gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import aiohttp

from protocol import strict_json
from protocol.errors import ProtocolError
from protocol.job_link import LISTED, MAX_ENTRY_BYTES, PATH, PIECE_BYTES, Entry, node_request
from protocol.link import BadMessage, number
from worker.agent.release_keys import Signer

TIMEOUT_SECONDS = 60.0
MAX_ENTRIES = 2 * LISTED
_Put = tuple[bytes, bytes]
"""Job, and SHA-256 of the result that is put."""
_NOTHING: _Put = (bytes(32), bytes(32))


class RelayTrouble(Exception):
    """The relayer is away or says no. Names it; the agent tries again by itself."""


def http_origin(url: str) -> str:
    """Where the relayer of this link's URL (ws://, wss://) keeps jobs."""
    return "http" + url.rstrip("/").removeprefix("ws")


class JobRelay:
    """One relayer, asked in the name of one node."""

    def __init__(
        self,
        origin: str,
        *,
        network: bytes,
        node: bytes,
        signer: Signer,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.origin = origin
        self._network = network
        self._node = node
        self._signer = signer
        self._clock = clock
        self._after = b""
        """The last job of the page before: whatever is left at a relayer, a node comes to every job in turn."""

    async def entries(self) -> tuple[Entry, ...]:
        """Jobs that are sealed to this node: the next page, after the last one the first. Raises RelayTrouble."""
        query = {"after": self._after.hex()} if self._after else {}
        self._after = b""
        data = await self._ask("GET", PATH, query, MAX_ENTRIES * MAX_ENTRY_BYTES)
        try:
            body = strict_json.parse(data)
            if not isinstance(body, dict) or not isinstance(rows := body["jobs"], list):
                raise BadMessage("no list of jobs")
            found = tuple(Entry.from_json(row) for row in rows[:MAX_ENTRIES] if isinstance(row, dict))
        except (ValueError, KeyError, ProtocolError) as error:
            raise RelayTrouble(f"{self.origin} lists no jobs that can be read: {error}") from error
        if found and body.get("more") is True:
            self._after = found[-1].job
        return found

    async def input_piece(self, job: bytes, offset: int) -> bytes:
        """Raises RelayTrouble."""
        return await self._ask("GET", f"{PATH}/{job.hex()}/input", {"offset": str(offset)}, PIECE_BYTES)

    async def put_result(self, job: bytes, data: bytes, digest: bytes) -> None:
        """All of it, from where the relayer has it. Raises RelayTrouble."""
        have, facts = 0, {"size": str(len(data)), "hash": digest.hex()}
        while have < len(data):
            piece = data[have : have + PIECE_BYTES]
            answer = await self._ask(
                "PUT", f"{PATH}/{job.hex()}/result", {**facts, "offset": str(have)}, 4096, piece, puts=(job, digest)
            )
            try:
                body = strict_json.parse(answer)
                got = number(body, "bytes", 63) if isinstance(body, dict) else 0
            except (ValueError, BadMessage) as error:
                raise RelayTrouble(f"{self.origin} does not say what it has of the result") from error
            if got <= have or got > len(data):
                raise RelayTrouble(f"{self.origin} takes no more of the result than {got} bytes")
            have = got

    async def _ask(
        self, method: str, path: str, query: dict[str, str], most: int, data: bytes = b"", *, puts: _Put = _NOTHING
    ) -> bytes:
        at, (job, result) = int(self._clock()), puts
        signed = node_request(network=self._network, node=self._node, at=at, job=job, result=result)
        headers: dict[str, Any] = {
            "Cocoon-Node": self._node.hex(),
            "Cocoon-Time": str(at),
            "Cocoon-Signature": self._signer.sign(signed).hex(),
        }
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(
                    method,
                    self.origin + path,
                    params=query,
                    headers=headers,
                    data=data or None,
                    allow_redirects=False,  # not to whatever this machine alone can reach
                ) as response,
            ):
                body = bytearray()
                async for part in response.content.iter_chunked(1 << 16):
                    body += part
                    if len(body) > most:
                        raise RelayTrouble(f"{self.origin} sends more than was asked for")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise RelayTrouble(f"{self.origin} cannot be reached: {error or type(error).__name__}") from error
        if response.status != 200:
            raise RelayTrouble(f"{self.origin} answers HTTP {response.status} to {method} {path}")
        return bytes(body)
