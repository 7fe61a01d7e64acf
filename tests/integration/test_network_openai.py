"""`cocoon up` as a stranger uses it: the unmodified `openai` package at its endpoint, its commands, its restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio

from app.home import PRICES, Home, Ports
from chain.config import connect, load_network
from chain.wait import until
from chain.wallet import Wallet
from client.config import load as load_client
from client.sidecar import Sidecar
from wrappers.addresses import Kind, child_address
from wrappers.escrow import EscrowState
from wrappers.rows import Row

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

MODEL = "SmolLM2-135M-Instruct"
MESSAGES: Any = [{"role": "user", "content": "Say hello to a sailor."}]
UP = """
import asyncio, sys
from pathlib import Path
from rich.console import Console
from app.home import Home, Ports
from app.up import run
asyncio.run(run(Home(Path(sys.argv[1]), Ports(*map(int, sys.argv[2:]))), Console()))
"""
"""`cocoon up` on ports of the test's own choice: the command takes the ones that are documented."""


@dataclass
class Up:
    home: Home
    process: asyncio.subprocess.Process | None = None
    said: bytearray = field(default_factory=bytearray)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.home.ports.sidecar}/v1"

    async def start(self) -> None:
        ports = [str(getattr(self.home.ports, name)) for name in Ports.__slots__]
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", UP, str(self.home.path), *ports),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert self.process.stdout is not None
        self.said.clear()
        async with asyncio.timeout(60):
            while b"Cocoon is up" not in self.said:
                part = await self.process.stdout.read(4096)
                assert part, self.said.decode()
                self.said += part

    async def stop(self) -> int:
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                self.said += (await self.process.communicate())[0]
        except TimeoutError:
            os.kill(self.process.pid, signal.SIGKILL)
            raise
        assert self.process.returncode is not None
        return self.process.returncode

    async def command(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app.cli", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    async def receipts(self) -> list[dict[str, Any]]:
        said = await self.command("client", "--home", str(self.home.client), "receipts", "--verify", "--json")
        found = json.loads(said)
        assert found["holds"], "a receipt does not verify offline"
        receipts: list[dict[str, Any]] = found["receipts"]
        return receipts

    async def node(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            await self.command("node", "status", "--config", str(self.home.agent_config), "--json")
        )
        return found

    async def row(self) -> Row:
        """The client's allotment on chain."""
        registry = load_client(self.home.client, {}).settings.registry
        wallet = Wallet.from_mnemonic_file(self.home.wallet_file("client"))
        escrow = child_address(registry, Kind.ESCROW, wallet.account, 0)
        chain = connect(load_network(self.home.profile))
        try:
            account = await chain.account(escrow)
        finally:
            await chain.close()
        assert account.data is not None
        (row,) = EscrowState.from_cell(account.data, escrow).rows.values()
        return row


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def up(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Up]:
    running = Up(Home(tmp_path_factory.mktemp("up"), Ports.free()))
    try:
        await running.start()
        yield running
    finally:
        if running.process is not None and running.process.returncode is None:
            await running.stop()


async def wait_paid(up: Up, amount_nano: int) -> Row:
    async def paid() -> Row | None:
        row = await up.row()
        return row if row.paid_nano >= amount_nano else None

    return await until(paid, what=f"{amount_nano} nanoTON to be paid", timeout_seconds=40)


@pytest_asyncio.fixture(loop_scope="session")
async def ai(up: Up) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=up.url, api_key="unused") as client:
        yield client


async def test_up_tells_what_to_try(up: Up) -> None:
    said = up.said.decode()
    for shown in (up.url, up.home.toncenter_url, "global.config.json", "/control/faucet", "SIMULATED"):
        assert shown in said


async def test_models_have_price_and_context_length(ai: openai.AsyncOpenAI) -> None:
    (model,) = [one async for one in ai.models.list()]
    assert model.id == MODEL
    extra: Any = model.model_extra
    assert extra["context_length"] == 2048
    assert {name: extra["pricing"][name] for name in PRICES} == PRICES
    assert extra["simulated"] is True and extra["measured"] is True
    assert (await ai.models.retrieve(MODEL)).id == MODEL


async def test_chat_whole_and_streamed_by_the_unmodified_package(up: Up, ai: openai.AsyncOpenAI) -> None:
    def whole() -> Any:
        with openai.OpenAI(base_url=up.url, api_key="unused") as client:
            return client.chat.completions.create(
                model=MODEL, messages=MESSAGES, max_tokens=24, temperature=0.0, seed=1
            )

    answer = await asyncio.to_thread(whole)
    assert answer.choices[0].message.role == "assistant" and answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.model_extra["cocoon"]["amount_nano"] > 0

    stream = await ai.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=24,
        temperature=0.0,
        seed=1,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == answer.choices[0].message.content, "streamed or not, it is the same answer"
    assert len(chunks) > 3 and chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens
    receipts = {one["hash"] for one in await up.receipts()}
    last: Any = chunks[-1].model_extra
    assert {answer.model_extra["cocoon"]["receipt"], last["cocoon"]["receipt"]} <= receipts


async def test_completions_whole_and_streamed_by_the_unmodified_package(up: Up, ai: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 12, "temperature": 0.0, "seed": 1}
    whole = await ai.completions.create(**asked)
    assert whole.choices[0].text and whole.usage is not None and whole.usage.completion_tokens <= 12

    def streamed() -> str:
        with openai.OpenAI(base_url=up.url, api_key="unused") as client:
            return "".join(
                one.choices[0].text for one in client.completions.create(**asked, stream=True) if one.choices
            )

    assert await asyncio.to_thread(streamed) == whole.choices[0].text


async def test_g18_errors_are_the_packages_own_exceptions(up: Up, ai: openai.AsyncOpenAI) -> None:
    before = len(await up.receipts())
    with pytest.raises(openai.NotFoundError, match="no-such-model") as unknown:
        await ai.chat.completions.create(model="no-such-model", messages=MESSAGES)
    assert unknown.value.code == "model-not-found" and MODEL in unknown.value.message
    with pytest.raises(openai.NotFoundError):
        await ai.models.retrieve("no-such-model")
    with pytest.raises(openai.BadRequestError, match="limit of completion"):
        await ai.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=0)
    with pytest.raises(openai.BadRequestError, match="not offered"):
        await ai.chat.completions.create(model=MODEL, messages=MESSAGES, n=2)
    assert len(await up.receipts()) == before, "what is refused here costs nothing"

    # What only the engine can know costs the minimum, says so, and is not repeated by the package.
    long: Any = [{"role": "user", "content": "word " * 4000}]
    with pytest.raises(openai.BadRequestError, match="Shorten the prompt") as too_long:
        await ai.chat.completions.create(model=MODEL, messages=long, max_tokens=8)
    receipts = await up.receipts()
    assert len(receipts) == before + 1
    body: Any = too_long.value.response.json()
    assert body["cocoon"]["receipt"] == receipts[0]["hash"]


async def test_anyone_verifies_the_node_from_the_root_down(up: Up, tmp_path: Path) -> None:
    """In an empty folder, without a wallet; and where there is an account, down to its last receipt."""
    node, registry = (await up.node())["node"], re.search(r'registry = "(\w+)"', up.home.agent_config.read_text())
    assert registry is not None
    stranger = ("--home", str(tmp_path), "--network", str(up.home.profile), "--registry", registry[1])
    options = ("--relayer", up.home.relayer_url, "--policy", "devnet", "--allow-simulated")
    said = await up.command("client", *stranger, *options, "verify", node)
    assert said.startswith("1. root        the SIMULATED test root") and "chain       verifier" in said
    made = await asyncio.to_thread(os.listdir, tmp_path)
    assert "8. receipt" not in said and not made, "nothing is made for somebody who only looks"
    last = (await up.receipts())[0]["hash"]
    assert f"8. receipt     {last}: holds" in await up.command("client", "--home", str(up.home.client), "verify", node)


async def test_g18_no_allotment_is_payment_required(net: Any) -> None:
    await net.serving()
    async with net.client("openai-poor", allotted_nano=0) as client:
        sidecar = Sidecar(client)
        url = await sidecar.start("127.0.0.1", 0)
        try:
            async with openai.AsyncOpenAI(base_url=url, api_key="unused") as ai:
                with pytest.raises(openai.APIStatusError, match="cocoon client allot") as poor:
                    await ai.chat.completions.create(model=MODEL, messages=MESSAGES)
        finally:
            await sidecar.close()
        assert poor.value.status_code == 402 and poor.value.code == "allotment-too-low"
        assert client.receipts() == []


async def test_g16_everything_is_still_there_after_a_restart(up: Up, ai: openai.AsyncOpenAI) -> None:
    await ai.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    old, node, row = await up.receipts(), await up.node(), await up.row()
    assert node["state"] == "live" and node["agent"]["serving"]
    assert await up.stop() == 0
    assert b"everything is kept" in up.said

    await up.start()
    restarted, kept = await up.node(), await up.row()
    assert restarted["node"] == node["node"] and restarted["stake_nano"] == node["stake_nano"]
    assert restarted["state"] == "live" and restarted["signing_key"] != node["signing_key"]
    assert (kept.allotment, kept.allotted_nano) == (row.allotment, row.allotted_nano), "no second escrow"
    assert [one["hash"] for one in await up.receipts()] == [one["hash"] for one in old]

    await ai.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=8)
    new = await up.receipts()
    assert len(new) == len(old) + 1 and new[0]["key"] == restarted["signing_key"] and new[0]["seq"] == 1

    # What both lives earned is paid without anybody asking, each by its key, and nothing more.
    owed = sum(one["amount_nano"] for one in new)
    settled = await wait_paid(up, owed)
    assert settled.paid_nano == owed
    for key in {one["key"] for one in new}:
        assert settled.keys[bytes.fromhex(key)].paid_nano == sum(o["amount_nano"] for o in new if o["key"] == key)
    said = await up.command("client", "--home", str(up.home.client), "balance")
    assert "deposit" in said and node["node"] in said
