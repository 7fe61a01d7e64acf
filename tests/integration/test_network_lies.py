"""One of the two chain endpoints lies, or dies: nobody acts on one endpoint's word, and no money moves (G17)."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from chain.api import Disagreement, Status, Unreachable
from chain.quorum import Quorum
from chain.toncenter import Toncenter
from client.body import Body
from client.errors import Uncertain
from client.sdk import Client
from client.store import Request
from protocol.errors import Code
from protocol.sealing import SealedRequest
from protocol.stream import Completed, Failed, ResponseReader
from wrappers.cells import to_boc
from wrappers.escrow import EscrowState

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

LIAR, HONEST = "toncenter-2", "toncenter"
STALE_SECONDS = 5.5
"""Longer than relayer and agent believe what they read before."""
GONE = {"state": "uninitialized", "code": "", "data": "", "balance": "0"}
NEVER = GONE | {"last_transaction_id": {"lt": "0", "hash": base64.b64encode(bytes(32)).decode()}}
Ask = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def voices(net: Any) -> AsyncIterator[tuple[Toncenter, Toncenter]]:
    """The honest endpoint and the one that lies, impatient: a test need not wait as long as a client should."""
    urls = (net.home.toncenter_url, f"http://127.0.0.1:{net.home.ports.second_toncenter}/api/v2")
    one, other = (Toncenter(url, timeout_seconds=2) for url in urls)
    yield one, other
    await one.close()
    await other.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(net: Any, voices: tuple[Toncenter, Toncenter]) -> AsyncIterator[Client]:
    await net.serving()
    async with net.client("lies", chain=Quorum(voices, settle_seconds=1.0)) as client:
        yield client


@asynccontextmanager
async def lying(net: Any, account: bytes, patch: dict[str, Any]) -> AsyncIterator[None]:
    async with net.control() as control:
        lie = {"kind": "lie", "method": "getAddressInformation", "account": f"0:{account.hex()}", "patch": patch}
        await control.faults(LIAR, [lie])
        try:
            yield
        finally:
            await control.faults(LIAR, [])


@asynccontextmanager
async def nothing_moves(net: Any, client: Client) -> AsyncIterator[None]:
    """Neither a request nor a message of the wallet, nor a payment of the escrow, nor what the client holds."""
    escrow = client.store.escrow()
    assert escrow is not None
    watched = (client.wallet.account, escrow.account)

    async def seen() -> Any:
        states = [await net.chain.account(account) for account in watched]
        posts = net.client_wire.up.count(b"POST /v1/requests")
        return (
            [(state.balance_nano, state.last_lt) for state in states],
            posts,
            client.store.escrow(),
            client.receipts(),
        )

    before = await seen()
    yield
    assert await seen() == before


async def other_key(net: Any) -> dict[str, Any]:
    """The node as it is, but with a key that its enclave does not have."""
    state = dataclasses.replace(await net.node_state(), signing_key=b"\x07" * 32)
    return {"data": base64.b64encode(to_boc(state.to_cell())).decode()}


async def emptied(net: Any, escrow: bytes) -> dict[str, Any]:
    """The escrow as it is, but with a row to which nothing is allotted."""
    account = await net.chain.account(escrow)
    state = EscrowState.from_cell(account.data, escrow)
    row = dataclasses.replace(state.rows[net.node], allotted_nano=0)
    lie = dataclasses.replace(state, rows={net.node: row})
    return {"data": base64.b64encode(to_boc(lie.to_cell())).decode()}


def fresh(client: Client) -> None:
    """Forget what was read before: what it does now it does on what it reads now."""
    client.directory.forget()
    client._seen = None


async def test_g17_a_client_believes_no_single_endpoint_about_a_node(
    net: Any, client: Client, voices: tuple[Toncenter, Toncenter], ask_node: Ask
) -> None:
    await ask_node(client, "Hello")
    for patch in (GONE, NEVER, await other_key(net)):
        async with nothing_moves(net, client), lying(net, net.node, patch):
            told = await voices[1].account(net.node)  # the lie is one: whoever asked there alone would believe it
            assert (
                told.status is Status.UNINIT
                or told.status is Status.ABSENT
                or told.data != (await voices[0].account(net.node)).data
            )
            fresh(client)
            with pytest.raises(Uncertain, match="differ about account") as caught:
                await ask_node(client, "Hello")
            assert isinstance(caught.value.__cause__, Disagreement) and "127.0.0.1" in caught.value.cause
            with pytest.raises(Uncertain):
                await client.verify(net.node)
    fresh(client)
    await ask_node(client, "Hello")


async def test_g17_a_client_believes_no_single_endpoint_about_its_escrow(
    net: Any, client: Client, ask_node: Ask
) -> None:
    """An escrow that seems gone is neither forgotten nor opened anew; a row that seems empty is not topped up."""
    escrow = client.store.escrow()
    assert escrow is not None
    for patch in (GONE, await emptied(net, escrow.account)):
        async with nothing_moves(net, client), lying(net, escrow.account, patch):
            fresh(client)
            for act in (
                lambda: client.balance(),
                lambda: ask_node(client, "Hello"),
                lambda: client.open_escrow(10**9),
                lambda: client.allot(net.node, 10**8),
                lambda: client.withdraw(),
                lambda: client.close(patience_seconds=0),
            ):
                with pytest.raises(Uncertain, match="differ about account"):
                    await act()
    fresh(client)
    await ask_node(client, "Hello")


async def post(net: Any, request: Request) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as http:
        url = f"{net.home.relayer_url}/v1/requests"
        async with http.post(url, data=request.sealed, timeout=aiohttp.ClientTimeout(total=60)) as response:
            return response.status, await response.read()


async def reserved(client: Client, prompt: str) -> Request:
    body = Body.of({"messages": [{"role": "user", "content": prompt}], "max_tokens": 8, "stream": True})
    target, known = await client._target(body, None)
    return client._session.reserve(target, body, client._home.known_voucher_key(known.number), client.settings.shape)


def read(request: Request, frames: bytes) -> Any:
    enc = SealedRequest.from_bytes(request.sealed).enc
    reader = ResponseReader(response_secret=request.secret, enc=enc, request_id=request.request_id)
    return reader.feed(frames)[-1]


@pytest_asyncio.fixture(loop_scope="session")
async def newcomer(net: Any, client: Client) -> AsyncIterator[Client]:
    """A client whose escrow the relayer reads for the first time with its first request."""
    async with net.client("lies-newcomer") as client:
        yield client


async def test_g17_relayer_and_agent_believe_no_single_endpoint(net: Any, newcomer: Client, ask_node: Ask) -> None:
    client = newcomer
    escrow = client.store.escrow()
    assert escrow is not None
    await ask_node(client, "Hello")
    owed = sum(one.issued.signed.receipt.amount_nano for one in client.receipts())

    # The relayer still knows the escrow; the agent reads it again, and turns the request away.
    request = await reserved(client, "First")
    paid = (await net.row(escrow.account)).paid_nano
    async with lying(net, escrow.account, GONE):
        await asyncio.sleep(1.2)
        status, frames = await post(net, request)
        assert status == 200
        last = read(request, frames)
        assert isinstance(last, Failed) and last.error.code is Code.CHAIN_UNCERTAIN
        # The relayer, too, has to read it again now.
        await asyncio.sleep(STALE_SECONDS)
        status, said = await post(net, request)
        assert status == 503 and b"chain-uncertain" in said and b"differ about account" in said
        # The agent claims nothing from an escrow of which it does not know what it is.
        answer = await net.settle()
        assert "differ about account" in answer["error"] and answer["batch"] is None
    assert (await net.row(escrow.account)).paid_nano == paid

    # A node with another key: neither a claim nor a request.
    async with lying(net, net.node, await other_key(net)):
        assert "differ about account" in (await net.settle())["error"]
        await asyncio.sleep(STALE_SECONDS)
        status, said = await post(net, request)
        assert status == 503 and b"chain-uncertain" in said
        async with aiohttp.ClientSession() as http, http.get(f"{net.home.relayer_url}/v1/status") as response:
            trouble = (await response.json())["chain"]["error"]
        assert trouble["code"] == "chain-uncertain" and trouble["cause"] and trouble["cure"]
    assert (await net.row(escrow.account)).paid_nano == paid

    # The liar tells the truth again: the same bytes are answered, once, and everything owed is paid.
    status, frames = await post(net, request)
    while status == 503:
        await asyncio.sleep(0.5)
        status, frames = await post(net, request)
    assert isinstance(read(request, frames), Completed)
    (recovered,) = await client.recover()
    assert recovered.receipt is not None
    assert (await net.settle())["batch"] is not None
    await net.wait_paid(escrow.account, owed + recovered.receipt.amount_nano)


async def test_g17_an_endpoint_that_died_is_told_and_waited_for(
    net: Any, client: Client, voices: tuple[Toncenter, Toncenter], ask_node: Ask
) -> None:
    async with net.control() as control:
        for name, voice in ((HONEST, voices[0]), (LIAR, voices[1])):
            async with nothing_moves(net, client):
                await control.faults(name, [{"kind": "drop"}])
                fresh(client)
                with pytest.raises(Uncertain) as caught:
                    await ask_node(client, "Hello")
                await control.faults(name, [])
            assert isinstance(caught.value.__cause__, Unreachable)
            assert voice.name in caught.value.cause and "configure a third" in caught.value.cause
        fresh(client)
        _, done = await ask_node(client, "Hello")
        assert done.receipt.amount_nano > 0
