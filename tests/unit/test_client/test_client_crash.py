"""kill -9 at every point: what is on disk then is enough, and never too much."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import aclosing, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from client import delivery
from client.database import Database
from client.errors import HomeError, Locked
from client.store import Store

BODY = {"messages": [{"role": "user", "content": "what is the answer?"}], "stream": True, "max_tokens": 50}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.Delivery, "_wait", lambda self, trouble: 0.01)


async def ask(client: Any) -> None:
    async with aclosing(client.chat(BODY)) as events:
        async for _ in events:
            pass


@pytest.fixture
def crashes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """Copies of the home before and after every transaction: what kill -9 there would leave."""
    homes: list[Path] = []
    real = Database.transaction

    def snapshot(home: Path) -> None:
        copy = tmp_path / f"crash-{len(homes)}"
        shutil.copytree(home, copy, ignore=shutil.ignore_patterns("lock"))
        homes.append(copy)

    @contextmanager
    def watched(self: Database) -> Iterator[None]:
        home = tmp_path / "client"
        snapshot(home)
        with real(self):
            yield
            snapshot(home)  # written, not committed
        snapshot(home)

    monkeypatch.setattr(Database, "transaction", watched)
    return homes


@pytest.mark.parametrize("together", [1, 3])
async def test_g16_a_killed_client_loses_no_receipt_and_pays_nothing_twice(
    world: Any, crashes: list[Path], monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    async with world.client() as client:
        await asyncio.gather(*(ask(client) for _ in range(together)))
        await ask(client)
    homes = list(crashes)
    monkeypatch.undo()
    monkeypatch.setattr(delivery.Delivery, "_wait", lambda self, trouble: 0.01)
    ((_, truth),) = Store.open(
        world.home, network_id=world.network, registry=world.settings().registry, owner=world.wallet.account
    ).accounts()
    assert len(homes) > 10
    for home in homes:
        world.home = home
        async with world.client() as client:
            before = client.store.accounts()
            promised = {one.request_id for _, account in before for one in account.promises if one.receipt is None}
            posts = len(world.posts)
            await client.recover()
            # exactly what was promised is asked for again, under the same ids
            assert len(world.posts) - posts == len(promised)
            assert not client.store.requests()
            for _, account in client.store.accounts():
                assert account.cap_nano <= truth.acked_nano
                held = [one for one in client.receipts() if one.issued.signed.receipt.seq <= account.seq]
                assert sum(one.issued.signed.receipt.amount_nano for one in held) == account.acked_nano
                assert not {one.request_id for one in account.promises if one.receipt is None}
    assert len(world.enclave.opened) == together + 1, "every request ran once, whatever crashed"


async def test_g16_a_receipt_in_clear_is_kept_when_its_sealed_part_never_comes(world: Any, behave: Any) -> None:
    world.on_post = [behave.end_after(7)] * delivery.MAX_ATTEMPTS
    async with world.client() as client:
        with pytest.raises(Exception, match="before its last frame"):
            await ask(client)
        (request,) = client.store.requests()
        assert request.outer is not None and len(request.outer) == 244


def on_disk(home: Path) -> bytes:
    """Everything that a thief of the disk could read."""
    return b"".join(path.read_bytes() for path in sorted(home.iterdir()) if path.is_file())


@pytest.mark.parametrize("together", [1, 12])
async def test_g11_the_secret_of_an_answered_request_is_on_no_disk_while_the_client_runs(
    world: Any, behave: Any, together: int
) -> None:
    async with world.client() as client:
        await ask(client)
        await asyncio.gather(*(ask(client) for _ in range(together)))
        world.on_post = [behave.end_after(2)] * delivery.MAX_ATTEMPTS
        with pytest.raises(Exception, match="incomplete"):
            await ask(client)
        secrets = [opening.response_secret for opening in world.enclave.openings]
        assert len(secrets) == together + 2
        left = on_disk(world.home)
        assert [secret in left for secret in secrets] == [False] * (together + 1) + [True]
        sealed = set(world.posts)
        assert [post[-200:] in left for post in sealed].count(True) == 1
        await client.recover()
        left = on_disk(world.home)
        assert not any(secret in left for secret in secrets)
        assert not any(post[-200:] in left for post in sealed)


async def test_g11_a_client_killed_before_it_emptied_its_log_empties_it_when_it_is_back(
    world: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "killed"
    async with world.client() as client:
        with monkeypatch.context() as patch:
            patch.setattr(Database, "empty_log", lambda self: None)
            await ask(client)
        shutil.copytree(world.home, copy, ignore=shutil.ignore_patterns("lock"))
    (secret,) = [opening.response_secret for opening in world.enclave.openings]
    assert secret in on_disk(copy)
    world.home = copy
    async with world.client():
        assert secret not in on_disk(copy)


async def test_a_reader_of_the_books_delays_no_request(world: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with world.client() as client:
        with closing(sqlite3.connect(world.home / "client.db", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM meta").fetchall()
            async with asyncio.timeout(3):
                await ask(client)
            assert "read by another process" in caplog.text
        await ask(client)
        left = on_disk(world.home)
        assert not any(opening.response_secret in left for opening in world.enclave.openings)


async def test_one_process_at_a_time_owns_the_books(world: Any) -> None:
    async with world.client():
        with pytest.raises(Locked, match="another process"):
            async with world.client():
                pass
    async with world.client():
        pass


async def test_a_home_of_another_network_or_wallet_is_refused(world: Any) -> None:
    async with world.client():
        pass
    with pytest.raises(HomeError, match="another network id"):
        async with world.client(registry=b"\x12" * 32):
            pass


async def test_g19_key_files_that_others_can_read_are_refused_and_nothing_shows_them(world: Any) -> None:
    path = world.home / "voucher-0.key"
    path.chmod(0o644)
    secret = path.read_text().strip()
    async with world.client() as client:
        with pytest.raises(HomeError, match="chmod 600") as caught:
            await ask(client)
    path.chmod(0o600)
    path.write_text(secret[:40])
    async with world.client() as client:
        with pytest.raises(HomeError, match="damaged") as caught:
            await ask(client)
    assert secret[:8] not in repr(caught.value) + str(caught.value)
    path.unlink()
    async with world.client() as client:
        with pytest.raises(HomeError, match="is gone"):
            await ask(client)
