"""What a client is not made to spend, or to trust, beside its requests: jobs, the wallet, and a running endpoint."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from client import ask_cli, command, settings
from client.config import Config
from client.errors import HomeError, Locked, PaymentFailed, RelayerUnreachable, TooExpensive
from client.job_link import JobLink
from client.payments import fees
from client.sidecar import NODE_HEADER, Sidecar
from wrappers.registry import Parameters
from wrappers.rows import ENDED

LINE = {
    "custom_id": "1",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 10},
}
BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}


async def test_g5_a_job_without_a_maximum_of_its_own_is_bounded_as_a_request_is(world: Any) -> None:
    """Prices are the node's of the moment: nobody agreed to what they are today."""
    async with world.client(max_request_nano=900) as client:
        with pytest.raises(TooExpensive, match="the maximum is 900"):
            await client.jobs.submit(json.dumps(LINE).encode(), [world.node])
        assert client.jobs.all() == []
        with pytest.raises(RelayerUnreachable):  # this world's relayer keeps no jobs: it got so far
            await client.jobs.submit(json.dumps(LINE).encode(), [world.node], maximum_nano=10**8)


async def test_g5_what_the_deposit_lacks_for_a_job_is_not_taken_from_the_wallet(world: Any) -> None:
    world.show_escrow(world.row(), deposit_nano=10**9 + 500)
    async with world.client() as client:
        with pytest.raises(TooExpensive, match="500 of the deposit are not allotted"):
            await client.jobs.submit(json.dumps(LINE).encode(), [world.node])
        assert client.jobs.all() == []


async def test_g16_a_damaged_job_record_does_not_stop_the_others_from_being_looked_after(world: Any) -> None:
    async with world.client() as client:
        folder = world.home / "jobs"
        folder.mkdir()
        (folder / f"{'ab' * 32}.json").write_text("{")
        assert await client.jobs.refundable() == []


async def test_g18_a_relayer_that_names_no_nodes_is_told_as_such(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    link = JobLink(world.client, world.network, world.escrow, world.voucher)

    async def document(*_: Any, **__: Any) -> dict[str, Any]:
        return {"results": {"no node": 5}}

    monkeypatch.setattr(link, "_document", document)
    monkeypatch.setattr(link, "_link", type("Link", (), {"url": "http://relayer"}))
    with pytest.raises(RelayerUnreachable, match="does not say"):
        await link.results(b"j" * 32)


@pytest.mark.parametrize("closing_at", [0, 2**32 - 1])
async def test_g8_shares_of_an_ended_row_leave_without_a_message_that_is_refused(
    world: Any, monkeypatch: pytest.MonkeyPatch, closing_at: int
) -> None:
    """A row that others ended keeps its shares while another runs: `finish` would be refused for it, every hour."""
    ended, sent = replace(world.row(), closing_at=ENDED), []
    world.show_escrow(world.row(), rows={world.node: world.row(closing_at=closing_at), b"\x05" * 32: ended})

    async def pay(kind: str, message: Any) -> Any:
        sent.append(kind)
        return kind

    async def closed(*_: Any) -> None:
        return None

    async def costs() -> Any:
        return fees(Parameters(0, 0, 0, 0, 0, 0, 0, 3600, 604_800))

    async with world.client() as client:
        monkeypatch.setattr(client.money, "fees", costs)
        monkeypatch.setattr(client.money, "_pay", pay)
        monkeypatch.setattr(client.money, "_closed", closed)
        assert "finish" in await client.due()
        await client.finish()
        assert sent == ["pay shares"]
        world.show_escrow(world.row(closing_at=closing_at))
        with pytest.raises(PaymentFailed, match="no row's close timer has run"):
            await client.finish()
        world.show_escrow(world.row(closing_at=ENDED + 1))
        await client.finish()
        assert sent == ["pay shares", "finish"]


# ---- commands that an endpoint runs which is there already


@contextlib.asynccontextmanager
async def serving(world: Any) -> AsyncIterator[str]:
    async with world.client() as client:
        sidecar = Sidecar(client)
        try:
            yield await sidecar.start("127.0.0.1", 0)
        finally:
            await sidecar.close()


async def test_g12_a_command_is_not_run_under_other_settings_than_it_was_given(world: Any, tmp_path: Path) -> None:
    locked = Locked("taken", "wait")

    def asked(**changes: Any) -> str:
        return command.running(Config(world.settings(**changes), tmp_path / "wallet"), locked)[0]

    async with serving(world) as url:
        assert url.startswith(asked())
        strict = replace(world.policy, images=())
        for name, changes in (
            ("policy", {"policy": strict}),
            ("allow_simulated", {"allow_simulated": False}),
            ("relayer", {"relayer_url": "http://other"}),
            ("relayer", {"direct": "other:1"}),
            ("registry", {"registry": b"\x01" * 32}),
        ):
            with pytest.raises(HomeError, match=f"another {name}"):
                asked(**changes)
    with pytest.raises(Locked):
        asked()


def test_equal_settings_are_equal_texts_in_every_process() -> None:
    assert settings._plain(frozenset((0, 8))) == settings._plain(frozenset((8, 0)))
    assert settings._plain({"a": {0, 8}, "b": 1}) == settings._plain({"b": 1, "a": {8, 0}})
    assert settings._plain((1, "a")) != settings._plain((1, "b"))


async def test_a_node_that_is_named_is_the_only_one_that_is_asked(
    world: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serving(world) as url, aiohttp.ClientSession() as session:
        for named, status in ((b"\x06" * 32).hex(), 402), ("no node", 400), (world.node.hex(), 200):
            for stream in (False, True):
                body = {**BODY, "stream": stream}
                async with session.post(f"{url}/chat/completions", json=body, headers={NODE_HEADER: named}) as response:
                    assert response.status == status
        assert len(world.posts) == 2
        with pytest.raises(HomeError, match="nothing is allotted"):
            headers = {NODE_HEADER: (b"\x06" * 32).hex()}
            await ask_cli._chat_through(url.removesuffix("/v1"), headers, BODY, Locked("taken", "wait"))
        assert len(world.posts) == 2
