"""kill -9 of every party at the points that matter: no payment twice, no receipt lost, and the client knows (G16).

The whole story is one client's books: what the escrow paid in the end is the sum of the receipts that this client
accepted, and the chain's books add up to the nanoTON.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from chain.wait import until
from client.errors import AnswerLost, NodeRefused, NoNode, RelayerRefused, Untrusted
from client.sdk import Client
from client.store import Held

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

LONG = "Tell a long story about a ship and its crew on a stormy sea."
LONG_TOKENS = 250
CLEAR = (AnswerLost, NodeRefused, NoNode, RelayerRefused, Untrusted)
"""What a client may be told when somebody died under its answer; each names cause and cure."""
Ask = Callable[..., Awaitable[Any]]


def amounts(held: list[Held]) -> int:
    """Of distinct receipts."""
    assert len({one.hash for one in held}) == len(held)
    return sum(one.issued.signed.receipt.amount_nano for one in held)


async def settled(client: Client, net: Any) -> int:
    """Every receipt is paid, by key, and nothing more; the sum."""
    escrow = client.store.escrow()
    assert escrow is not None
    held = client.receipts()
    row = await net.wait_paid(escrow.account, amounts(held))
    assert row.paid_nano == amounts(held) == sum(one.paid_nano for one in row.keys.values())
    for key, shown in row.keys.items():
        assert shown.paid_nano == amounts([one for one in held if one.key == key]), "a key was paid for another's work"
    return row.paid_nano


async def until_answered(client: Client, ask_node: Ask, prompt: str, seconds: float = 60) -> Any:
    """As a caller does who is told to ask again: every trouble on the way is a clear one."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await ask_node(client, prompt)
        except CLEAR as error:
            assert error.cause and error.cure
            assert time.monotonic() < deadline, error
            await asyncio.sleep(0.5)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(net: Any) -> Any:
    async with net.client("crash", allotted_nano=1_500_000_000) as client:
        yield client


async def test_g16_relayer_killed_in_the_middle_of_an_answer(net: Any, client: Client, ask_node: Ask) -> None:
    """The client posts the same bytes again, which run and are billed once."""
    before = len(client.receipts())
    asked = asyncio.create_task(ask_node(client, LONG, LONG_TOKENS, lambda: net.kill_now("relayer")))
    await net.service("relayer").process.wait()
    await net.reap("relayer")
    await net.start_relayer()
    text, done = await asked
    assert done.attempts > 1 and len(text) > 200
    assert len(client.receipts()) == before + 1 and client.receipts()[0].answered


async def test_g16_relayer_killed_when_the_receipt_arrives(
    net: Any, client: Client, ask_node: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_outer = client.store.note_outer

    def kill(request_id: bytes, outer: bytes) -> None:
        net.kill_now("relayer")
        monkeypatch.undo()
        note_outer(request_id, outer)

    before = len(client.receipts())
    monkeypatch.setattr(client.store, "note_outer", kill)
    asked = asyncio.create_task(ask_node(client, "Say something about bridges."))
    await net.service("relayer").process.wait()
    await net.reap("relayer")
    await net.start_relayer()
    text, _ = await asked
    assert text
    assert len(client.receipts()) == before + 1 and client.receipts()[0].answered


async def test_g16_enclave_killed_in_the_middle_of_an_answer(net: Any, client: Client, ask_node: Ask) -> None:
    """The answer is lost and said to be; the receipts of the dead key still pay, singly; a new key serves."""
    old_key = await net.serving()
    kept = [one for one in client.receipts() if one.key == old_key]
    assert kept, "there must be receipts that the dead key alone could have claimed in a batch"
    with pytest.raises(CLEAR) as caught:
        await ask_node(client, LONG, LONG_TOKENS, lambda: os.kill(net.enclave_pid(), signal.SIGKILL))
    assert caught.value.cause and caught.value.cure
    assert await net.serving(old_key) != old_key
    row = await net.wait_paid(client.store.escrow().account, amounts(kept))
    assert row.keys[old_key].paid_nano == amounts(kept)
    _, done = await until_answered(client, ask_node, "What is a lighthouse?")
    assert done.receipt.issued.signed.receipt.seq == 1


async def gone(pid: int) -> bool | None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return None
    return True


async def test_g16_agent_killed_in_the_middle_of_an_answer(
    net: Any, client: Client, ask_node: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.delivery.MAX_ATTEMPTS", 3)  # the worker comes back too late in any case
    old_key = await net.serving()
    enclave = net.enclave_pid()
    kept = [one for one in client.receipts() if one.key == old_key]
    asked = asyncio.create_task(ask_node(client, LONG, LONG_TOKENS, lambda: net.kill_now("worker")))
    await net.service("worker").process.wait()
    # An enclave without an agent could store no receipt: it must not go on.
    await until(
        lambda: gone(enclave), what="the enclave to end with its agent", timeout_seconds=5, interval_seconds=0.1
    )
    await net.reap("worker")
    await net.start_worker()
    with pytest.raises(CLEAR):
        await asked
    assert await net.serving(old_key) != old_key
    assert kept
    await settled(client, net)
    await until_answered(client, ask_node, "What is an anchor?")


async def test_g16_client_killed_in_the_middle_of_an_answer(net: Any, ask_node: Ask) -> None:
    """Its successor fetches the receipt for what was done; nothing runs again, and its books fit the chain."""
    await net.serving()
    async with net.client("killed") as client:
        await ask_node(client, "Hello")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "client", "--home", str(net.client_home("killed")), "chat", LONG),
        *("--max-tokens", str(LONG_TOKENS)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    assert await process.stdout.read(1)
    process.kill()
    await process.wait()
    async with net.client("killed") as client:
        (request,) = client.store.requests()
        (recovered,) = await client.recover()
        assert recovered.receipt is not None and recovered.trouble == ""
        assert client.store.requests() == [] and await client.recover() == []
        assert len(client.receipts()) == 2
        assert (recovered.receipt.issued.request_id, recovered.request_id) == (request.request_id,) * 2
        _, done = await ask_node(client, "Hello again")
        assert done.receipt.issued.signed.receipt.seq == 3, "no gap, no repeat"
        await net.settle()
        await settled(client, net)


def relayer_rows(net: Any, query: str, value: bytes) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{net.home.relayer}/relayer.sqlite?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute(query, (value,))]


async def until_phase(net: Any, *phases: str, seconds: float = 20) -> None:
    async def reached() -> bool | None:
        found = relayer_rows(net, "SELECT phase FROM settlements WHERE node = ?", net.node)
        return True if found and found[0] in phases else None

    await until(reached, what=f"a claim to be {' or '.join(phases)}", timeout_seconds=seconds, interval_seconds=0.1)


async def everybody_dies(net: Any) -> None:
    net.kill_now("relayer")
    net.kill_now("worker")
    await net.reap("relayer")
    await net.reap("worker")


async def test_g16_all_killed_before_the_claim_is_sent(net: Any, client: Client, ask_node: Ask) -> None:
    """The claim is signed, and nobody can bring it to the chain; then its signer is gone."""
    await net.settle()
    await settled(client, net)
    await ask_node(client, "What is a harbour?")
    await net.kill("relayer")
    async with net.control() as control:
        drop = [{"kind": "drop", "method": "sendBocReturnHash"}]
        await control.faults("toncenter", drop)
        await control.faults("toncenter-2", drop)
        await net.start_relayer(settle_after_seconds=0)
        await until_phase(net, "ready", "sent")
        await everybody_dies(net)
        assert (await net.row(client.store.escrow().account)).paid_nano < amounts(client.receipts())
        await control.faults("toncenter", [])
        await control.faults("toncenter-2", [])
    await net.start_relayer(settle_after_seconds=0)
    await net.start_worker()
    await net.serving()
    await settled(client, net)


async def test_g16_all_killed_after_the_claim_is_sent(net: Any, client: Client, ask_node: Ask) -> None:
    await until_answered(client, ask_node, "What is a buoy?")
    await until_phase(net, "sent", "idle")
    await net.wait_paid(client.store.escrow().account, amounts(client.receipts()))
    await everybody_dies(net)
    paid = await settled(client, net)
    await net.start_relayer()
    await net.start_worker()
    await net.serving()
    # Whoever comes back finds the claim done: asked again, nobody claims anything.
    said = await net.settle()
    assert (said["batch"], said["receipts"]) == (None, 0), json.dumps(said)
    assert await settled(client, net) == paid


async def test_g2_g4_after_all_crashes_the_books_add_up(net: Any, client: Client, ask_node: Ask) -> None:
    await until_answered(client, ask_node, "Good night.")
    await net.settle()
    paid = await settled(client, net)
    async with net.client("killed") as other:
        paid += await settled(other, net)
    assert (await net.node_state()).earned_nano >= paid
    escrow = client.store.escrow().account
    mirrored = relayer_rows(net, "SELECT hash FROM receipts WHERE escrow = ?", escrow)
    assert mirrored and set(mirrored) <= {one.hash for one in client.receipts()}
    assert await net.unaccounted_nano() == 0
    # What was lost under a dead key was never billed: no late receipt is left to come.
    await client.recover()
    assert amounts(client.receipts()) == (await net.row(escrow)).paid_nano
