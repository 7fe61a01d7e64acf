"""A client that dials the node itself: the enclave ends TLS, the relayer has no part in it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.tls import client_context
from chain.wait import until
from chain.wallet import Wallet
from client.config import load as load_client
from client.direct import judge_of, link_of
from client.errors import RelayerRefused, RelayerUnreachable
from client.sdk import Client
from client.settings import Settings

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]
Ask = Callable[..., Awaitable[Any]]


async def settings_of(net: Any, name: str) -> Settings:
    config = load_client(await net.make_client(name), {"direct": f"127.0.0.1:{net.direct_wire.port}"})
    return config.settings


@asynccontextmanager
async def direct_client(net: Any, name: str) -> AsyncIterator[Client]:
    """With an escrow that was opened over the relayer."""
    async with net.client(name):
        pass
    config = load_client(await net.make_client(name), {"direct": f"127.0.0.1:{net.direct_wire.port}"})
    async with Client.open(config.settings, Wallet.from_mnemonic_file(config.wallet_file)) as client:
        await serving(client)
        yield client


async def serving(client: Client) -> None:
    async def answers() -> bool | None:
        try:
            return bool(await client.link.offers()) or None
        except RelayerUnreachable:
            return None

    await until(answers, what="the node to take direct connections", timeout_seconds=30)


async def test_a_direct_request_is_answered_receipted_and_not_seen_by_the_relayer(net: Any, ask_node: Ask) -> None:
    async with direct_client(net, "direct") as client:
        relayed, seen = len(net.client_wire.up), len(net.direct_wire.up)
        text, done = await ask_node(client, "Name a colour of the rainbow, please.")
        assert text and done.receipt.amount_nano > 0
        assert len(net.client_wire.up) == relayed
        wire = net.direct_wire.up[seen:] + net.direct_wire.down
        assert len(wire) > 4000
        for told in (b"HTTP/1.1", b"/v1/requests", b"application/", client.wallet.account.hex().encode()):
            assert told not in wire, told


async def test_receipts_and_releases_come_directly_too(net: Any, ask_node: Ask) -> None:
    async with direct_client(net, "direct-leaver") as client:
        await ask_node(client, "Say one word.", 8)
        (of, account) = next(iter(client.store.accounts()))
        known = client.store.escrow()
        assert known is not None
        key = client._home.known_voucher_key(known.number)
        network = client.settings.facts.network_id
        query = {"network": network, "escrow": of.escrow, "allotment": of.allotment, "key": of.key}
        (signed,) = await client.link.receipts(key, now=int(time.time()), **query)
        assert signed.receipt.seq == account.seq == 1
        assert await client.link.receipts(key, now=int(time.time()), after=1, **query) == []
        with pytest.raises(RelayerRefused, match="Cocoon-Time"):
            await client.link.receipts(key, now=int(time.time()) - 1000, **query)
        with pytest.raises(RelayerRefused, match="does not hold"):
            await client.link.receipts(Ed25519PrivateKey.generate(), now=int(time.time()), **query)
        relayed = len(net.client_wire.up)
        await net.settle()
        found = await client.close()
        assert not found.refusals, found.refusals
        assert len(net.client_wire.up) == relayed


async def test_g12_g14_an_unwanted_machine_gets_nothing_but_a_handshake(net: Any) -> None:
    """Here simulated evidence, without the client's flag: nothing is asked, and the reason is told."""
    settings = replace(await settings_of(net, "direct-strict"), allow_simulated=False)
    link = link_of(settings)
    try:
        with pytest.raises(RelayerUnreachable, match="simulated"):
            await link.offers()
    finally:
        await link.close()


async def test_g12_a_machine_of_another_network_is_refused(net: Any) -> None:
    settings = replace(await settings_of(net, "direct-lost"), registry=b"\x01" * 32)
    link = link_of(settings)
    try:
        with pytest.raises(RelayerUnreachable, match="network"):
            await link.offers()
    finally:
        await link.close()


async def test_g18_plain_requests_and_unknown_paths_are_turned_away(net: Any) -> None:
    url = f"127.0.0.1:{net.direct_wire.port}"
    context = client_context(judge_of(await settings_of(net, "direct-strict")))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://{url}/v1/nodes")
        async with session.get(f"https://{url}/v1/status", ssl=context) as answer:
            assert (await answer.json())["direct"] is True
        for path, status in (("/", 404), (f"/v1/nodes/{'00' * 32}", 404), ("/v1/receipts", 400)):
            async with session.get(f"https://{url}{path}", ssl=context) as answer:
                assert answer.status == status, path
        async with session.post(f"https://{url}/v1/release", data=b"{", ssl=context) as answer:
            assert answer.status == 400 and (await answer.json())["code"] == "bad-request"
        async with session.post(f"https://{url}/v1/requests", data=b"no request", ssl=context) as answer:
            assert b"bad-request" in await answer.read()
        async with session.post(f"https://{url}/v1/requests", data=bytes(3 << 20), ssl=context) as answer:
            assert answer.status == 413 and json.loads(await answer.read())["code"] == "too-large"


async def test_g16_a_new_enclave_answers_directly_under_a_new_key(net: Any, ask_node: Ask) -> None:
    async with direct_client(net, "direct-again") as client:
        await ask_node(client, "Say one word.", 8)
        before = (await net.node_state()).signing_key
        pid = net.enclave_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await net.serving(before)
        await serving(client)
        await net.trusted(client)  # the offer that it knew is of the old enclave
        text, _ = await ask_node(client, "Say another word.", 8)
        assert text
