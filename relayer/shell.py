"""The only loop: wires chain, store, core and API together and turns each of them once in a while."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from chain.api import Chain
from protocol.errors import Code
from protocol.link import BadMessage, origin_of
from relayer.api.admission import Admission
from relayer.api.client import ClientApi
from relayer.api.hub import Hub
from relayer.api.jobs import JobApi
from relayer.api.receipts import take_pushed
from relayer.api.relay import Relay
from relayer.api.server import Listener, client_app, worker_app
from relayer.api.worker_link import WorkerLink
from relayer.chain.mirror import Mirror
from relayer.chain.scan import Scanner
from relayer.chain.submit import Submitter
from relayer.config import RelayerConfig
from relayer.core.effects import Effect
from relayer.core.facts import RelayerStarted
from relayer.errors import Refusal
from relayer.log import log
from relayer.settler import Settler
from relayer.store.shelf import Shelf
from relayer.store.store import Store
from relayer.store.writer import Writer
from wrappers.signed import network_id

VERSION = "0.1.0"
TICK_SECONDS = 1.0
PRUNE_SECONDS = 3_600.0
DAY_SECONDS = 86_400
DATABASE = "relayer.sqlite"


class Shell:
    """One relayer. `chain` must be a quorum of at least two endpoints; it is closed by whoever made it."""

    def __init__(self, config: RelayerConfig, chain: Chain, *, global_id: int) -> None:
        self._config = config
        self._chain = chain
        self._global_id = global_id
        network = network_id(global_id, config.registry)
        config.data_dir.mkdir(parents=True, exist_ok=True)
        store = Store(config.data_dir / DATABASE, policy=config.settle)
        store.bind("network", network.hex())
        self._interrupt(store)
        self.writer = Writer(store, self._wake)
        self._mirror = Mirror(chain, registry=config.registry, network=network)
        self.hub = Hub(
            self._mirror,
            self.writer,
            config.limits,
            name=config.name,
            on_claim=self._claim,
            on_receipts=self._receipts,
        )
        self._settler = Settler(self.hub, self._mirror, self.writer, config.settle, self._now)
        self._scanner = Scanner(chain, self._mirror, self.writer)
        self._submitter = Submitter(chain, self.writer, self._now)
        admission = Admission(self._mirror, self.hub, config.limits)
        self._relay = Relay(admission, self.writer, config.limits)
        api = ClientApi(self.hub, self._mirror, self.writer, admission, config.limits, self._status, self._now)
        limits = config.limits
        self._shelf = Shelf(
            config.data_dir / "jobs", jobs_per_escrow=limits.jobs_per_escrow, total_bytes=limits.job_bytes
        )
        jobs = JobApi(self._shelf, self._mirror, admission, limits)
        self._clients = Listener(client_app(api, self._relay, jobs, limits, config.web_dir), config.client_listen)
        self._workers = Listener(worker_app(self.hub, jobs), config.worker_listen)
        self._woken = asyncio.Event()
        self.client_address = ""
        self.worker_address = ""

    def _interrupt(self, store: Store) -> None:
        """Requests that were open when the process ended can no longer be answered by it."""
        now = int(time.time())
        for request in store.requests(open_only=True):
            store.record(RelayerStarted(request.request_id, now))

    def _now(self) -> int:
        """The chain's time, our own before it was read."""
        return self._scanner.now or int(time.time())

    def _wake(self, effects: tuple[Effect, ...]) -> None:
        self._woken.set()

    async def _claim(self, worker: WorkerLink, body: dict[str, Any]) -> None:
        await self._settler.take_unasked(worker, body)

    async def _receipts(self, worker: WorkerLink, body: dict[str, Any]) -> None:
        try:
            new = await take_pushed(worker, body, self._mirror, self.writer)
        except Refusal as refusal:
            log("receipts not taken", node=worker.node, reason=str(refusal))
        except BadMessage as error:
            log("receipts refused", node=worker.node, reason=str(error))
            raise
        else:
            log("receipts taken", node=worker.node, new=new)

    def _status(self) -> dict[str, Any]:
        scanner = self._scanner
        chain = {
            "seqno": scanner.seqno,
            "now": scanner.now,
            "endpoints": self._chain.name.split(" + "),
            "error": _trouble(Code.CHAIN_UNCERTAIN, scanner.failure),
        }
        return {
            "version": VERSION,
            "relayer": self._config.name,
            "network_id": self._mirror.network.hex(),
            "global_id": self._global_id,
            "registry": self._config.registry.hex(),
            "chain": chain,
            "store": {"error": _trouble(Code.INTERNAL, self.writer.failure)},
        }

    async def start(self) -> None:
        """Opens both listeners. Raises ConfigError when an address is taken."""
        self.worker_address = await self._workers.start()
        urls = self._config.worker_urls or (f"ws://{self.worker_address}",)
        self.hub.origins = tuple(origin_of(url) for url in urls)
        self.client_address = await self._clients.start()
        log("relayer started", clients=self.client_address, workers=self.worker_address, version=VERSION)

    async def run(self) -> None:
        """Turns everything until cancelled, then closes in order: clients get an error, facts get to disk."""
        writing = asyncio.ensure_future(self.writer.run())
        turning = asyncio.gather(
            self._every(self._config.poll_seconds, self._scan),
            self._every(TICK_SECONDS, self._settle, woken=self._woken),
            self._every(PRUNE_SECONDS, self._prune),
        )
        try:
            await turning
        finally:
            turning.cancel()
            await asyncio.gather(turning, return_exceptions=True)
            await self._close()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await self.writer.close()
            log("relayer stopped")

    async def _close(self) -> None:
        await self.hub.close()
        await self._clients.stop()
        await self._workers.stop()
        await self._relay.close()
        await self._settler.close()

    async def _every(
        self, seconds: float, job: Callable[[], Awaitable[None]], *, woken: asyncio.Event | None = None
    ) -> None:
        """A job that fails is tried again next time: the relayer's one duty is to stay alive; states are on disk."""
        sleeping = woken or asyncio.Event()
        while True:
            sleeping.clear()
            try:
                await job()
            except Exception as error:
                log("job failed", level=logging.ERROR, error=error, job=getattr(job, "__name__", str(job)))
            try:
                async with asyncio.timeout(seconds):
                    await sleeping.wait()
            except TimeoutError:
                continue

    async def _scan(self) -> None:
        await self._scanner.run_once([worker.node for worker in self.hub.links()])
        for worker in self.hub.links():
            await self.hub.check_offer(worker)

    async def _settle(self) -> None:
        await self._settler.run_once()
        await self._submitter.run_once()

    async def _prune(self) -> None:
        before = int(time.time()) - self._config.keep_days * DAY_SECONDS
        await self.writer.read(lambda store: store.prune(before))
        await asyncio.to_thread(self._shelf.expire, int(time.time()))


def _trouble(code: Code, failure: BaseException | None) -> dict[str, str] | None:
    if failure is None:
        return None
    return {"code": code, "cause": str(failure), "cure": "the relayer tries again by itself; see to it if it stays"}
