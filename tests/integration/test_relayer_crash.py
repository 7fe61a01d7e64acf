"""kill -9 of the relayer at the points that matter, and what its memory holds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import relayer_process as process
import relayer_world as world
from aiohttp import web

from protocol.stream import Completed, Data

SUPPORT = Path(__file__).parent.parent / "support"


CONFIG = """
network = "devnet"
registry = "{registry}"
data_dir = "data"
client_listen = "127.0.0.1:{client_port}"
worker_listen = "127.0.0.1:{worker_port}"
poll_seconds = 0.1
[limits]
mirror_seconds = 0.2
[settle]
amount_nano = {amount_nano}
ask_seconds = 2
settle_seconds = 1
retry_seconds = 1
"""


def contents(folder: Path, *, but: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != but)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.01)


class World:
    """One chain, one agent that redials, one client; the relayer is a process that tests kill and start again."""

    def __init__(self, folder: Path, chain_url: str, chain: Any, amount_nano: int) -> None:
        self.folder, self.chain_url, self.chain = folder, chain_url, chain
        self.machine = world.Machine()
        self.client = world.Client(self.machine)
        self.enclave = world.Enclave(self.machine)
        self.agent = world.Agent(self.machine, self.enclave)
        self.agent.node_seqno = lambda: world.NodeState.from_cell(chain.data[self.machine.account]).seqno
        chain.put(self.machine.account, self.machine.state().to_cell())
        chain.put(self.client.account, self.client.state().to_cell())
        self.client_port, self.worker_port = free_port(), free_port()
        self.config = folder / "relayer.toml"
        self.config.write_text(
            CONFIG.format(
                registry=world.REGISTRY.hex(),
                client_port=self.client_port,
                worker_port=self.worker_port,
                amount_nano=amount_nano,
            )
        )
        self.log = folder / "relayer.log"
        self.dump = folder / "memory.dump"
        self.running: asyncio.subprocess.Process | None = None
        self.redialling = asyncio.ensure_future(self._redial())

    async def _redial(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError, TypeError):
                await self.agent.run(f"ws://127.0.0.1:{self.worker_port}")
            await asyncio.sleep(0.05)

    async def start(self) -> None:
        self.agent.offer_answers.clear()
        with self.log.open("ab") as log:
            self.running = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SUPPORT / "relayer_process.py"),
                self.chain_url,
                str(self.config),
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env={**os.environ, "COCOON_TEST_MEMORY_DUMP": str(self.dump)},
            )
        assert self.running.stdout is not None
        async with asyncio.timeout(20):
            line = await self.running.stdout.readline()
        assert line and json.loads(line)["ready"], self.log.read_text()
        await until(lambda: any(answer["accepted"] for answer in self.agent.offer_answers))

    async def kill(self) -> None:
        assert self.running is not None
        self.running.send_signal(signal.SIGKILL)
        await self.running.wait()

    async def post(self, sealed: Any, on_bytes: Callable[[bytes], Awaitable[None]] | None = None) -> tuple[bytes, bool]:
        """The bytes that came, and whether the response was whole."""
        got = b""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http:
            try:
                url = f"http://127.0.0.1:{self.client_port}/v1/requests"
                async with http.post(url, data=sealed.to_bytes()) as response:
                    assert response.status == 200, await response.text()
                    async for part in response.content.iter_any():
                        got += part
                        if on_bytes is not None:
                            await on_bytes(got)
            except (aiohttp.ClientError, ConnectionError):
                return got, False
        return got, True

    def database(self, query: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.folder / "data" / "relayer.sqlite")) as db:
            return db.execute(query).fetchall()

    async def stop(self) -> None:
        self.redialling.cancel()
        await asyncio.gather(self.redialling, return_exceptions=True)
        if self.running is not None and self.running.returncode is None:
            await self.kill()


@contextlib.asynccontextmanager
async def crashing(folder: Path, *, amount_nano: int = 10**18) -> AsyncIterator[World]:
    chain = world.MemoryChain()
    runner = web.AppRunner(process.chain_server(chain), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    here = World(folder, f"http://127.0.0.1:{runner.addresses[0][1]}", chain, amount_nano)
    try:
        await here.start()
        yield here
    finally:
        await here.stop()
        await runner.cleanup()


async def test_g16_killed_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    async with crashing(tmp_path) as here:
        here.enclave.pause_seconds = 0.3
        sealed, secret = here.client.seal("x")

        async def kill(got: bytes) -> None:
            if here.running is not None and here.running.returncode is None:
                await here.kill()

        got, whole = await here.post(sealed, kill)
        assert got and not whole, "a cut response is seen as cut"
        here.enclave.pause_seconds = 0
        await here.start()
        assert here.database("select status from requests") == [("interrupted",)]
        got, whole = await here.post(sealed)
        end = here.client.reader(sealed, secret).feed(got)[-1]
        assert whole and isinstance(end, Completed) and end.signed.receipt.seq <= 2
        await until(lambda: here.database("select status from requests") == [("answered",)])


async def test_g16_killed_after_the_receipt_before_the_last_frame(tmp_path: Path) -> None:
    async with crashing(tmp_path, amount_nano=1) as here:
        here.agent.decline_claims = True
        answer = here.enclave.answer

        async def receipt_then_wait(sealed: Any) -> AsyncIterator[bytes]:
            async for frames in answer(sealed):
                if sealed.request_id in here.enclave.stored and len(frames) > 249:
                    yield frames[:249]  # the RECEIPT frame; LAST is still to come
                    await asyncio.sleep(0.5)
                    yield frames[249:]
                else:
                    yield frames

        here.agent.answer = receipt_then_wait
        sealed, secret = here.client.seal("x")
        posting = asyncio.ensure_future(here.post(sealed))
        await until(lambda: here.database("select count(*) from receipts") == [(1,)])
        await here.kill()
        _, whole = await posting
        assert not whole
        here.agent.answer = answer
        here.agent.decline_claims = False
        await here.start()
        assert here.database("select count(*) from receipts") == [(1,)], "no receipt is lost"
        await until(lambda: bool(here.chain.paid))
        got, _ = await here.post(sealed)
        assert isinstance(here.client.reader(sealed, secret).feed(got)[-1], Completed)
        assert here.enclave.runs == 1
        assert [amount for _, _, amount in here.chain.paid] == [world.PRICE_NANO]


async def test_g4_killed_with_a_signed_claim_that_was_not_sent(tmp_path: Path) -> None:
    async with crashing(tmp_path, amount_nano=1) as here:
        here.chain.dropping = True
        sealed, _ = here.client.seal("x")
        await here.post(sealed)
        await until(lambda: here.database("select count(*) from outbox where kind = 'SubmitClaim'") == [(1,)])
        await here.kill()
        claims, sent = here.agent.claims_answered, set(here.chain.sent)
        here.chain.dropping = False
        await here.start()
        await until(lambda: bool(here.chain.paid))
        await until(lambda: here.database("select count(*) from outbox where closed_at is null") == [(0,)])
        assert here.agent.claims_answered == claims, "the stored claim was sent, no second one was asked for"
        assert sent <= set(here.chain.sent) and len(set(here.chain.sent)) == 1
        assert len(here.chain.paid) == 1


async def test_g4_killed_right_after_the_claim_landed(tmp_path: Path) -> None:
    async with crashing(tmp_path, amount_nano=1) as here:
        send = here.chain.send

        async def land_and_die(message: Any) -> bytes:
            digest = await send(message)
            if here.running is not None and here.running.returncode is None:
                await here.kill()
            return digest

        here.chain.send = land_and_die
        sealed, _ = here.client.seal("x")
        await here.post(sealed)
        await until(lambda: bool(here.chain.paid))
        await until(lambda: here.running is not None and here.running.returncode is not None)
        here.chain.send = send
        await here.start()
        await until(lambda: here.database("select phase from settlements") == [("idle",)])
        await asyncio.sleep(1.5)
        assert len(here.chain.paid) == 1, "nothing is paid twice"
        assert here.database("select count(*) from outbox where closed_at is null") == [(0,)]
        assert here.database("select sum(unclaimed_nano) from tallies") == [(0,)]


async def test_g11_memory_database_and_log_hold_no_plaintext(tmp_path: Path) -> None:
    async with crashing(tmp_path) as here:
        prompt, word = "prompt-" + secrets.token_hex(20), "answer-" + secrets.token_hex(20)
        here.enclave.words = [word]
        sealed, secret = here.client.seal(prompt)
        got, _ = await here.post(sealed)
        events = here.client.reader(sealed, secret).feed(got)
        assert any(isinstance(event, Data) and event.plaintext == word.encode() for event in events)
        assert here.running is not None
        here.running.send_signal(signal.SIGUSR1)
        barred = here.dump.with_suffix(".barred")
        await until(lambda: here.dump.exists() or barred.exists())
        if barred.exists():
            pytest.skip(f"this system bars a process from reading its own memory: {barred.read_text()}")
        memory = here.dump.read_bytes()
        assert sealed.escrow in memory, "the dump must show what the relayer does hold, else it proves nothing"
        assert got[:200] in memory or sealed.request_id in memory
        await here.stop()
        files = contents(tmp_path, but=here.dump)
        for secret_text in (prompt, word, secret.hex()):
            assert secret_text.encode() not in memory
            assert secret_text.encode() not in files
        assert secret not in memory and secret not in files


async def test_sigterm_stops_in_order(tmp_path: Path) -> None:
    async with crashing(tmp_path) as here:
        assert here.running is not None
        here.running.send_signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await here.running.wait() == 0
        events = [json.loads(line)["event"] for line in here.log.read_text().splitlines()]
        assert events[-1] == "relayer stopped" and "worker disconnected" in events


async def relayer_command(config: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "relayer",
        "run",
        "--config",
        str(config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_g17_command_serves_while_the_chain_is_away_and_says_so(tmp_path: Path) -> None:
    away = [f"http://127.0.0.1:{free_port()}/api/v2" for _ in range(2)]
    (tmp_path / "net.toml").write_text(f"global_id = -7001\ntoncenter = {json.dumps(away)}\n")
    config = tmp_path / "relayer.toml"
    config.write_text(
        f'network = "{tmp_path}/net.toml"\nregistry = "{"0a" * 32}"\ndata_dir = "data"\n'
        'client_listen = "127.0.0.1:0"\nworker_listen = "127.0.0.1:0"\npoll_seconds = 0.1\n'
    )
    running = await relayer_command(config)
    try:
        assert running.stdout is not None
        async with asyncio.timeout(20):
            ready = json.loads(await running.stdout.readline())
        async with aiohttp.ClientSession() as http:
            for _ in range(300):
                async with http.get(ready["client_url"] + "/v1/status") as response:
                    status = await response.json()
                if status["chain"]["error"] is not None:
                    break
                await asyncio.sleep(0.05)
        assert status["chain"]["error"]["code"] == "chain-uncertain" and status["chain"]["seqno"] == 0
    finally:
        running.send_signal(signal.SIGTERM)
    async with asyncio.timeout(15):
        assert await running.wait() == 0


async def test_g18_command_names_what_is_wrong_with_its_settings(tmp_path: Path) -> None:
    config = tmp_path / "relayer.toml"
    config.write_text(f'network = "devnet"\nregistry = "{"0a" * 32}"\n')
    running = await relayer_command(config)
    _, errors = await running.communicate()
    assert running.returncode == 2
    assert b"data_dir missing" in errors and b"Traceback" not in errors
