"""The devnet as one process: chain, block production, two toncenter listeners, a liteserver, and a file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from devnet import controlserver
from devnet.core import KEPT_ROUNDS, ChainSnapshot, DevnetChain
from devnet.engine import DevnetError
from devnet.faults import Faults
from devnet.liteserver import LiteServer
from devnet.network import DEVNET_GLOBAL_ID
from devnet.store import Store
from devnet.toncenter import MAX_BODY_BYTES, PREFIX, Toncenter, report_failures

log = logging.getLogger(__name__)

BURST_BLOCKS = 9
"""More blocks sealed at once while somebody waits for one to come."""
KEY_FILE, DATABASE_FILE, CONFIG_FILE = "liteserver.key", "chain.sqlite", "global.config.json"


@dataclass(frozen=True, slots=True)
class Endpoints:
    toncenter: tuple[str, str]
    """Base URLs (with `/api/v2`) of two listeners over one chain; each has faults of its own."""
    control: str
    lite_host: str
    lite_port: int
    global_config: dict[str, Any]


class Devnet:
    """`state_dir`: where the chain is kept; None keeps it in memory. Ports of 0 are chosen by the system.

    A block is sealed `block_seconds` after something waits, and every `idle_seconds` without anything. Empty
    ones follow fast up to a block that somebody asked for before it was made (at most a hundred ahead).
    """

    TONCENTERS = ("toncenter", "toncenter-2")
    LITESERVER = "liteserver"

    def __init__(
        self,
        state_dir: Path | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        second_port: int = 0,
        lite_port: int = 0,
        global_id: int = DEVNET_GLOBAL_ID,
        block_seconds: float = 0.2,
        idle_seconds: float = 1.0,
        kept_rounds: int = KEPT_ROUNDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._host = host
        self._ports = (port, second_port)
        self._lite_port = lite_port
        self._block_seconds = block_seconds
        self._idle_seconds = idle_seconds
        self._snapshots: list[ChainSnapshot] = []
        self._runners: list[web.AppRunner] = []
        self._producer: asyncio.Task[None] | None = None
        self._endpoints: Endpoints | None = None
        self._state_dir = state_dir
        self._store: Store | None = None
        if state_dir is not None:
            state_dir.mkdir(parents=True, exist_ok=True)
            self._store = Store(state_dir / DATABASE_FILE)
        self.chain = self._open(global_id, clock, kept_rounds)
        self._listeners = tuple(Toncenter(name, self.chain) for name in self.TONCENTERS)
        self._lite = LiteServer(self.LITESERVER, self.chain, _lite_seed(state_dir))

    async def __aenter__(self) -> Devnet:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def endpoints(self) -> Endpoints:
        if self._endpoints is None:
            raise DevnetError("the devnet is not started: await start() first")
        return self._endpoints

    async def start(self) -> Endpoints:
        """Open the listeners and begin to seal blocks. Raises OSError where a port is taken."""
        urls = [await self._listen(*pair) for pair in zip(self._listeners, self._ports, strict=True)]
        lite_port = await self._lite.start(self._host, self._lite_port)
        config = self._lite.global_config(self._host, lite_port)
        if self._state_dir is not None:
            (self._state_dir / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n")
        self._endpoints = Endpoints(
            toncenter=(urls[0] + PREFIX, urls[1] + PREFIX),
            control=urls[0] + controlserver.PREFIX,
            lite_host=self._host,
            lite_port=lite_port,
            global_config=config,
        )
        self._producer = asyncio.create_task(self._produce())
        return self._endpoints

    async def wait(self) -> None:
        """Runs until block production fails, whose error it raises, or until it is cancelled."""
        if self._producer is None:
            raise DevnetError("the devnet is not started: await start() first")
        await asyncio.shield(self._producer)

    async def close(self) -> None:
        """Close listeners and file; the last block is on disk already. Raises what ended production."""
        failure: BaseException | None = None
        if self._producer is not None:
            self._producer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                try:
                    await self._producer
                except Exception as error:
                    failure = error
        await self._lite.close()
        for runner in self._runners:
            await runner.cleanup()
        if self._store is not None:
            self._store.close()
        if failure is not None:
            raise failure

    def mine(self) -> int:
        """Seal a block now; its seqno."""
        sealed = self.chain.produce()
        if self._store is not None:
            self._store.save(self.chain, [sealed])
        return sealed.master.seqno

    def take_snapshot(self) -> int:
        self._snapshots.append(self.chain.snapshot())
        return len(self._snapshots) - 1

    def revert_to(self, snapshot: int) -> None:
        if not 0 <= snapshot < len(self._snapshots):
            raise DevnetError(f"there is no snapshot {snapshot}: {len(self._snapshots)} were taken in this process")
        self.chain.revert(self._snapshots[snapshot])
        if self._store is not None:
            self._store.replace(self.chain)

    def faults(self) -> dict[str, Faults]:
        """By name of the listener."""
        found = {listener.name: listener.faults for listener in self._listeners}
        return found | {self._lite.name: self._lite.faults}

    def _open(self, global_id: int, clock: Callable[[], float], kept_rounds: int) -> DevnetChain:
        saved = None if self._store is None else self._store.load(global_id)
        if saved is not None:
            return DevnetChain.restored(saved, global_id=global_id, clock=clock, kept_rounds=kept_rounds)
        chain = DevnetChain.born(global_id=global_id, clock=clock, kept_rounds=kept_rounds)
        if self._store is not None:
            self._store.save(chain, chain.rounds.values())
        return chain

    async def _listen(self, listener: Toncenter, port: int) -> str:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[report_failures])
        app.add_routes([*controlserver.routes(self), *listener.routes()])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        self._runners.append(runner)
        await web.TCPSite(runner, self._host, port).start()
        return f"http://{self._host}:{runner.addresses[0][1]}"

    async def _produce(self) -> None:
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(self._block_seconds)
            if self.chain.busy or self.chain.behind or loop.time() - last >= self._idle_seconds:
                try:
                    self.mine()
                    for _ in range(BURST_BLOCKS):
                        if self.chain.behind and not self.chain.busy:
                            self.mine()
                except Exception:
                    # Nobody may be waiting on this task: without a line in the log the chain would just stand still.
                    log.exception("block production stopped")
                    raise
                last = loop.time()


def _lite_seed(state_dir: Path | None) -> bytes:
    """The liteserver's key, kept beside the chain so that its global config stays good."""
    if state_dir is None:
        return os.urandom(32)
    path = state_dir / KEY_FILE
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(32))
    seed = path.read_bytes()
    if len(seed) != 32:
        raise DevnetError(f"{path} must hold 32 bytes, not {len(seed)}: remove it to get a new liteserver key")
    return seed
