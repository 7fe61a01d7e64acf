"""Strangers at the relayer's door: what they send must cost nobody else a request."""

import asyncio
import secrets
from dataclasses import replace
from pathlib import Path

import pytest
import relayer_net as api

from protocol.errors import Code
from relayer.config import Limits


async def test_a_stranger_cannot_use_up_a_clients_rate(tmp_path: Path) -> None:
    """The escrow's account is public, and whoever names it has signed nothing."""
    limits = Limits(requests_per_second_per_escrow=2, mirror_seconds=5)
    async with api.network(tmp_path, limits=limits) as net:
        await net.attach()
        await net.ask()
        sealed, _ = net.client.seal("x")
        forged = replace(sealed, request_signature=bytes(64))
        codes = {(await net.refused(forged))[1] for _ in range(12)}
        headers = {"Cocoon-Time": str(net.chain.now), "Cocoon-Signature": "00" * 64}
        for _ in range(6):
            async with net.http.get(f"{net.url}/v1/receipts?escrow={net.client.account.hex()}", headers=headers) as one:
                codes.add((await one.json())["code"])
        assert codes == {Code.VOUCHER_INVALID}
        text, _ = await net.ask()
        assert text == "hello sealed world"


@pytest.mark.timeout(60)
async def test_strangers_whose_escrows_take_long_to_look_up_hold_up_nobody(tmp_path: Path) -> None:
    limits = Limits(in_flight=20, mirror_seconds=0.2)
    async with api.network(tmp_path, limits=limits) as net:
        await net.attach()
        await net.ask()
        read, slow = net.chain.account, asyncio.Event()

        async def account(name: bytes):
            if name not in net.chain.data:
                await slow.wait()
            return await read(name)

        net.chain.account = account
        sealed, _ = net.client.seal("x")
        strangers = [
            asyncio.ensure_future(net.post(replace(sealed, escrow=secrets.token_bytes(32)))) for _ in range(90)
        ]
        await asyncio.sleep(0.5)
        assert not all(one.done() for one in strangers)
        text, _ = await asyncio.wait_for(net.ask(), 5)
        assert text == "hello sealed world"
        slow.set()
        statuses = {status for status, _ in await asyncio.gather(*strangers)}
        assert statuses == {404, 503}, "unknown, or told to come again"


@pytest.mark.parametrize("ahead_seconds", [3600, -3600])
async def test_claims_are_settled_by_the_chains_clock(tmp_path: Path, ahead_seconds: int) -> None:
    """A devnet travels in time, and a relayer's clock may be wrong: claims live by the chain's."""
    async with api.network(tmp_path, policy=api.EAGER) as net:
        net.chain.shift_seconds = ahead_seconds
        sign = net.enclave.claim
        net.enclave.claim = lambda seqno, now: sign(seqno, net.chain.now)
        await net.attach()
        await asyncio.sleep(0.3)  # the chain's time was read
        for count in (1, 2):
            await net.ask(cap_nano=count * api.world.PRICE_NANO)
            await api.until(lambda count=count: sum(one[2] for one in net.chain.paid) == count * api.world.PRICE_NANO)
