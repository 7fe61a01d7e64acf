"""The local endpoint with the unmodified `openai` package, and what must not reach it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest

from client import delivery
from client.relayer_link import RelayerLink
from client.sidecar import CONTROL_FILE, Sidecar

PROMPT: Any = [{"role": "user", "content": "what is the answer?"}]
ANSWER = "The answer is 42."


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.Delivery, "_wait", lambda self, trouble: 0.01)


@contextlib.asynccontextmanager
async def served(world: Any, *, token: str | None = None, **changes: Any) -> AsyncIterator[tuple[Any, str]]:
    async with world.client(**changes) as client:
        sidecar = Sidecar(client, token=token)
        try:
            yield client, await sidecar.start("127.0.0.1", 0)
        finally:
            await sidecar.close()


@contextlib.asynccontextmanager
async def library(url: str, key: str = "unused") -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=url, api_key=key, max_retries=2) as made:
        yield made


async def test_the_openai_package_gets_a_whole_answer_with_its_receipt(world: Any) -> None:
    async with served(world) as (client, url), library(url) as ai:
        raw = await ai.chat.completions.with_raw_response.create(model="tiny", messages=PROMPT, max_tokens=20)
        answer = raw.parse()
        assert answer.choices[0].message.content == ANSWER and answer.usage is not None
        (held,) = client.receipts()
        assert raw.headers["Cocoon-Receipt"] == held.hash.hex()
        assert answer.model_extra is not None and answer.model_extra["cocoon"]["simulated"] is True


async def test_the_openai_package_streams_and_the_last_chunk_names_the_receipt(world: Any) -> None:
    async with served(world) as (client, url), library(url) as ai:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            text, last = "", None
            stream: Any = await ai.chat.completions.create(model="tiny", messages=PROMPT, stream=True, **options)
            async for chunk in stream:
                assert last is None or last.model_extra.get("cocoon") is None
                text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
                last = chunk
            assert text == ANSWER and last is not None
            assert last.model_extra["cocoon"]["receipt"] == client.receipts()[0].hash.hex()
            assert last.model_extra["cocoon"]["amount_nano"] == 1000
            assert bool(last.usage) == bool(options)


async def test_the_openai_package_completes_and_lists_models(world: Any) -> None:
    async with served(world) as (_, url), library(url) as ai:
        completed = await ai.completions.create(model="tiny", prompt="the answer is", max_tokens=5)
        assert completed.choices[0].text == ANSWER
        (model,) = [one async for one in await ai.models.list()]
        extra = model.model_extra or {}
        assert model.id == "tiny" and extra["context_length"] == 2048 and extra["simulated"] is True
        assert extra["pricing"]["completion"] == 20_000_000 and extra["tier"] == "simulated"
        assert (await ai.models.retrieve("tiny")).id == "tiny"
        with pytest.raises(openai.NotFoundError):
            await ai.models.retrieve("huge")


async def test_errors_are_openai_errors_with_cause_and_cure(world: Any) -> None:
    world.show_escrow()
    async with served(world) as (_, url), library(url) as ai:
        with pytest.raises(openai.APIStatusError, match="cocoon client allot") as caught:
            await ai.chat.completions.create(model="tiny", messages=PROMPT)
        assert caught.value.status_code == 402 and not world.posts
        world.show_escrow(world.row())
    async with served(world) as (_, url), library(url) as ai:
        with pytest.raises(openai.NotFoundError, match="use one of: tiny"):
            await ai.chat.completions.create(model="huge", messages=PROMPT)
        for wrong in ({"messages": []}, {"messages": PROMPT, "extra_body": {"frobnicate": 1}}, {"messages": "hello"}):
            with pytest.raises(openai.BadRequestError):
                await ai.chat.completions.create(model="tiny", **wrong)  # type: ignore[call-overload]
        assert not world.posts, "nothing of it was sealed, so nothing is billed"


async def test_a_failed_engine_is_one_error_and_no_silent_second_bill(world: Any) -> None:
    world.enclave.answer = lambda body: [{"error": {"message": "out of slots", "type": "engine_error"}}]
    async with served(world) as (client, url), library(url) as ai:
        with pytest.raises(openai.APIStatusError, match="out of slots") as caught:
            await ai.chat.completions.create(model="tiny", messages=PROMPT)
        assert caught.value.response.headers["Cocoon-Receipt"] == client.receipts()[0].hash.hex()
        assert len(world.enclave.opened) == 1


async def test_a_stream_that_breaks_ends_in_an_error_and_never_in_done(world: Any, behave: Any) -> None:
    world.on_post = [behave.cut_after(4)] * delivery.MAX_ATTEMPTS
    async with served(world) as (_, url), library(url) as ai:
        stream: Any = await ai.chat.completions.create(model="tiny", messages=PROMPT, stream=True)
        with pytest.raises(openai.APIError, match="incomplete"):
            async for _ in stream:
                pass
        async with aiohttp.ClientSession() as session:
            world.on_post = [behave.cut_after(4)] * delivery.MAX_ATTEMPTS
            body = {"model": "tiny", "messages": PROMPT, "stream": True}
            async with session.post(f"{url}/chat/completions", json=body) as response:
                assert b"[DONE]" not in await response.read()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 400),
        ({"Origin": "https://evil.example"}, 400),
        ({"Origin": "null"}, 400),
        ({"Content-Type": "text/plain"}, 400),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Host": "[::1]:10000"}, 200),
    ],
)
async def test_a_web_page_cannot_spend(world: Any, headers: dict[str, str], status: int) -> None:
    async with served(world) as (_, url), aiohttp.ClientSession() as session:
        data = json.dumps({"model": "tiny", "messages": PROMPT})
        headers = {"Content-Type": "application/json", **headers}
        async with session.post(f"{url}/chat/completions", data=data, headers=headers) as response:
            assert response.status == status
        assert len(world.posts) == (status == 200)


async def test_a_token_is_demanded_where_one_is_set(world: Any) -> None:
    async with served(world, token="s3cret") as (_, url):
        async with library(url, "wrong") as ai:
            with pytest.raises(openai.AuthenticationError):
                await ai.models.list()
        async with library(url, "s3cret") as ai:
            assert [one.id async for one in await ai.models.list()] == ["tiny"]


async def test_commands_are_taken_from_who_can_read_the_control_file_only(world: Any) -> None:
    async with served(world), aiohttp.ClientSession() as session:
        path = world.home / CONTROL_FILE
        assert path.stat().st_mode & 0o077 == 0
        contact = json.loads(path.read_text())
        command = {"command": "balance", "arguments": {}}
        async with session.post(f"{contact['url']}/cocoon/control", json=command) as response:
            assert response.status == 401
        headers = {"Authorization": f"Bearer {contact['token']}"}
        async with session.post(f"{contact['url']}/cocoon/control", json=command, headers=headers) as response:
            assert (await response.json())["escrow"] == world.escrow.hex()
        command["command"] = "rm -rf"
        async with session.post(f"{contact['url']}/cocoon/control", json=command, headers=headers) as response:
            assert response.status == 400
    assert not path.exists()


async def test_many_requests_are_served_at_once(world: Any) -> None:
    async with served(world) as (client, url), library(url) as ai:
        calls = (ai.chat.completions.create(model="tiny", messages=PROMPT, max_tokens=5) for _ in range(12))
        answers = await asyncio.gather(*calls)
        assert {answer.choices[0].message.content for answer in answers} == {ANSWER}
        assert len(client.receipts()) == 12


async def test_an_unreachable_relayer_is_named(world: Any) -> None:
    async with served(world) as (client, url), library(url) as ai:
        await client.link.close()
        client.link.url = "http://127.0.0.1:1"
        with pytest.raises(openai.APIStatusError, match=r"127\.0\.0\.1:1 does not") as caught:
            await ai.chat.completions.create(model="tiny", messages=PROMPT)
        assert caught.value.status_code == 502
    assert isinstance(client.link, RelayerLink)
