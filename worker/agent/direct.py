"""Direct connections: clients dial this node, with no relayer between. Off unless `[direct] listen` is set.

The agent takes TCP connections and joins them unread to the enclave, which ends TLS (`worker.enclave.direct`) and hands
what was inside back to a unix socket here. There it is the client API of a relayer with this one node.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from worker.agent.direct_api import DirectApi
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.rounds import tell
from worker.messages import Certify
from worker.pump import close, join

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 512
RETRY_SECONDS = 10.0


class Direct:
    """`address`: host and port; port 0 takes any, `port` tells which."""

    def __init__(self, address: tuple[str, int], api: DirectApi, clock: Callable[[], float] = time.time) -> None:
        self.port = 0
        self.certified = asyncio.Event()
        """Set while the enclave serves TLS."""
        self._address = address
        self._api = api
        self._clock = clock
        self._admitted: tuple[Enclave, bytes] | None = None
        self._changed = asyncio.Event()
        self._open = 0

    def admitted(self, enclave: Enclave, evidence: bytes) -> None:
        """The chain shows this enclave's key. `evidence`: JSON of evidence and collateral, as offers carry it."""
        self._admitted = (enclave, evidence)
        self._changed.set()

    def gone(self) -> None:
        """The enclave ended: until another is admitted nobody answers."""
        self._admitted = None
        self.certified.clear()

    async def run(self) -> None:
        """Until cancelled. Raises OSError where the address cannot be had."""
        # A folder of its own: nobody else can be there first, and the paths are short enough for sockets' names.
        folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="cocoon-direct-"))
        runner = web.AppRunner(self._api.app(), access_log=None)
        try:
            await runner.setup()
            await web.UnixSite(runner, str(folder / "inner.sock")).start()

            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                await self._carry(reader, writer, folder / "tls.sock")

            server = await asyncio.start_server(connected, *self._address)
            self.port = server.sockets[0].getsockname()[1]
            log.info("direct connections are taken at port %d", self.port)
            try:
                await self._keep_certified(folder)
            finally:
                server.close()
        finally:
            await runner.cleanup()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _keep_certified(self, folder: Path) -> None:
        while True:
            pause = None
            if self._admitted is not None:
                enclave, evidence = self._admitted
                pause = await self._certify(enclave, evidence, folder)
            try:
                async with asyncio.timeout(pause):
                    await self._changed.wait()
            except TimeoutError:
                continue
            self._changed.clear()

    async def _certify(self, enclave: Enclave, evidence: bytes, folder: Path) -> float:
        """Seconds until it is due again."""
        try:
            parts = json.loads(evidence)
            order = Certify(
                evidence=json.dumps(parts["evidence"]).encode(),
                collateral=json.dumps(parts["collateral"]).encode(),
                listen=str(folder / "tls.sock"),
                forward=str(folder / "inner.sock"),
            )
            ends = await enclave.certify(order)
        except Exception as error:
            expected = (EnclaveRefused, EnclaveGone, TimeoutError)
            tell("no direct connections: the enclave is not certified", error, expected)
            return RETRY_SECONDS
        if self._admitted is not None and self._admitted[0] is enclave:
            self.certified.set()
        return max(RETRY_SECONDS, (ends - self._clock()) / 2)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, enclave: Path) -> None:
        if self._open >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open += 1
        try:
            await join((reader, writer), await asyncio.open_unix_connection(str(enclave)))
        except OSError:
            await close(writer)  # no enclave is certified now; the client sees a connection that ends
        finally:
            self._open -= 1
