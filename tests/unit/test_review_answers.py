"""Answers of unusual size or length: every admitted request ends with its receipt."""

import asyncio

import enclave_house as enclave
import pytest

from protocol.stream import Completed


@pytest.fixture
async def house():
    house = await enclave.House().start(enclave.ScriptedEngine())
    yield house
    await house.stop()


async def test_an_answer_over_the_links_limit_still_ends_with_its_receipt(house, monkeypatch) -> None:
    monkeypatch.setattr("worker.enclave.answer.PIECE_SECONDS", 0.0, raising=False)
    word = "x" * (6 << 20)  # a whole answer, or one event with all its logprobs
    house.engine.words = [word]
    sizes = []
    post = house.enclave_link.post
    house.enclave_link.post = lambda message: (sizes.append(len(message.body())), post(message))[1]
    client = enclave.Client(house)
    lines, last = await asyncio.wait_for(client.ask(), 20)
    assert isinstance(last, Completed) and lines[0]["choices"][0]["delta"]["content"] == word
    assert max(sizes) < 1 << 20
    house.engine.words = ["short"]
    _, last = await client.ask()
    assert last.signed.receipt.seq == 2


async def test_g3_no_request_runs_longer_than_clients_count_its_promise(house, monkeypatch) -> None:
    """An engine that never ends would hold its slot, the row's release and the client's promise for ever."""
    monkeypatch.setattr("worker.enclave.answer.MAX_REQUEST_SECONDS", 0.2, raising=False)
    house.engine.gate, house.engine.gate_after = asyncio.Event(), 2
    client = enclave.Client(house)
    lines, last = await asyncio.wait_for(client.ask(), 5)
    assert isinstance(last, Completed) and last.inner.completion_tokens == 2
    assert lines[-1]["error"]["code"] == "timeout"
