"""A relayer in this process with a chain in memory, a real link and real HTTP clients."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import relayer_world as world

from protocol.stream import Data
from relayer.config import Limits, RelayerConfig
from relayer.core.policy import SettlePolicy
from relayer.shell import Shell

NEVER = SettlePolicy(amount_nano=10**18, age_seconds=10**9, exposure_nano=10**18)


EAGER = SettlePolicy(amount_nano=1, ask_seconds=2, settle_seconds=1, retry_seconds=1)


@dataclass
class Net:
    chain: Any
    machine: Any
    client: Any
    enclave: Any
    shell: Shell
    http: aiohttp.ClientSession
    serving: asyncio.Task
    tasks: list[asyncio.Task]

    @property
    def url(self) -> str:
        return f"http://{self.shell.client_address}"

    async def attach(self, agent: Any = None, *, live: bool = True) -> Any:
        agent = agent or world.Agent(self.machine, self.enclave)
        agent.node_seqno = lambda: world.NodeState.from_cell(self.chain.data[self.machine.account]).seqno
        self.tasks.append(asyncio.ensure_future(agent.run(f"ws://{self.shell.worker_address}")))
        agent.task = self.tasks[-1]
        if live:
            await until(lambda: any(answer["accepted"] for answer in agent.offer_answers))
        return agent

    async def post(self, sealed: Any) -> tuple[int, bytes]:
        async with self.http.post(f"{self.url}/v1/requests", data=sealed.to_bytes()) as response:
            return response.status, await response.read()

    async def ask(self, prompt: str = "hi", **options: Any) -> tuple[str, Any]:
        """The text, and the last event."""
        sealed, secret = self.client.seal(prompt, **options)
        status, body = await self.post(sealed)
        assert status == 200, body
        events = self.client.reader(sealed, secret).feed(body)
        text = b"".join(event.plaintext for event in events if isinstance(event, Data)).decode()
        return text, events[-1]

    async def refused(self, sealed: Any) -> tuple[int, str]:
        status, body = await self.post(sealed)
        error = json.loads(body)
        assert set(error) == {"code", "cause", "cure"} and error["cause"] and error["cure"]
        return status, error["code"]


async def until(condition: Callable[[], bool], seconds: float = 8.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def network(tmp_path: Path, *, policy: SettlePolicy = NEVER, limits: Limits | None = None) -> AsyncIterator[Net]:
    chain, machine = world.MemoryChain(), world.Machine()
    client = world.Client(machine)
    chain.put(machine.account, machine.state().to_cell())
    chain.put(client.account, client.state().to_cell())
    config = RelayerConfig(
        network="devnet",
        registry=world.REGISTRY,
        data_dir=tmp_path,
        client_listen="127.0.0.1:0",
        worker_listen="127.0.0.1:0",
        poll_seconds=0.1,
        limits=limits or Limits(mirror_seconds=0.2),
        settle=policy,
    )
    shell = Shell(config, chain, global_id=world.GLOBAL_ID)
    await shell.start()
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
        serving = asyncio.ensure_future(shell.run())
        net = Net(chain, machine, client, world.Enclave(machine), shell, http, serving, [])
        try:
            yield net
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
            for task in net.tasks:
                task.cancel()
            await asyncio.gather(*net.tasks, return_exceptions=True)
