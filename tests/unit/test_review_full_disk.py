"""A disk that is full: a clear error, nothing lost, and work goes on when there is room again."""

import asyncio
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import desk_house as desk
import pytest
import relayer_net as api

from client.errors import HomeError
from client.records import Escrow
from client.store import Store as ClientStore
from protocol.errors import Code
from relayer.config import RelayerConfig
from relayer.core.facts import RequestAdmitted
from relayer.shell import Shell
from relayer.store.store import StoreError as StoreTrouble
from worker.agent.store import StoreError
from worker.messages import Answer


@contextmanager
def full_disk(*databases: Path) -> Iterator[None]:
    """No file of this process can grow past the write-ahead logs as they are; without any, nothing is written."""
    size = max((path.with_name(path.name + "-wal").stat().st_size for path in databases), default=0)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_g18_a_client_with_a_full_disk_says_so_and_goes_on_later(tmp_path: Path) -> None:
    store = ClientStore.open(tmp_path, network_id=b"n" * 32, registry=b"r" * 32, owner=b"o" * 32)
    first, second = (Escrow(number, bytes([number]) * 32, b"k" * 32, "open") for number in (1, 2))
    store.put_escrow(first)
    with full_disk(tmp_path / "client.db"):
        with pytest.raises(HomeError, match="make room on the disk"):
            store.put_escrow(second)
        assert store.escrow() == first
    store.put_escrow(second)
    assert store.escrow() == second
    store.close()


async def test_g18_an_agent_with_a_full_disk_serves_nothing_that_it_could_not_bill(tmp_path: Path) -> None:
    house = desk.House(tmp_path / "r.db")
    await house.begin(desk.request(1))
    house.desk.on_issued(desk.issued(desk.request(1), 1))
    await house.stored()
    house.desk.on_answer(Answer(desk.request(1).request_id, True, desk.LAST))
    await house.desk.close()
    with full_disk(tmp_path / "r.db"):
        lost, _ = await house.begin(desk.request(2))
        house.desk.on_answer(Answer(desk.request(2).request_id, False, desk.HEAD))
        house.desk.on_issued(desk.issued(desk.request(2), 2))
        await house.desk.close()
        assert lost.ended and lost.frames.startswith(desk.HEAD)
        assert desk.issued(desk.request(2), 2).frame not in lost.frames, "a receipt left that is not on disk"
        house.desk.on_answer(Answer(desk.request(2).request_id, True, desk.LAST))
        refused, _ = await house.begin(desk.request(3))
        assert refused.error is Code.INTERNAL and b"receipt store" in refused.frames
        assert len(house.enclave.posts()) == 2, "it would have been answered for nothing"
        with pytest.raises(StoreError, match="Make room"):
            await house.journal.check()
    served, _ = await house.begin(desk.request(4))
    house.desk.on_issued(desk.issued(desk.request(4), 3))
    await house.desk.close()
    assert desk.issued(desk.request(4), 3).frame in served.frames
    assert (await house.journal.read(lambda store: store.totals())).receipts == 2
    await house.journal.close()


async def test_g18_a_relayer_with_a_full_disk_passes_no_receipt_on_and_says_so(tmp_path: Path) -> None:
    async with api.network(tmp_path) as net:
        await net.attach()
        text, _ = await net.ask()
        with full_disk(tmp_path / "relayer.sqlite"):
            status, body = await net.post(net.client.seal("x")[0])
            assert status == 503 and json.loads(body)["code"] == Code.INTERNAL and b"store" in body
            await asyncio.sleep(0.3)  # it may have been begun beside the write that failed
            begun = net.enclave.runs
            status, body = await net.post(net.client.seal("y")[0])
            await asyncio.sleep(0.3)
            assert status == 503 and net.enclave.runs == begun, "begun although its receipt could not be stored"
            async with net.http.get(f"{net.url}/v1/status") as response:
                said = (await response.json())["store"]["error"]
            assert "disk" in said["cause"]
        again, _ = await net.ask(cap_nano=3 * api.world.PRICE_NANO)
        assert text == again == "hello sealed world"


def test_g18_a_relayer_that_finds_the_disk_full_at_its_start_says_so(tmp_path: Path) -> None:
    config = RelayerConfig(network="devnet", registry=b"r" * 32, data_dir=tmp_path)
    chain = api.world.MemoryChain()
    store = Shell(config, chain, global_id=-3).writer._store
    b = b"b" * 32
    store.record(
        RequestAdmitted(request_id=b, escrow=b, node=b, allotment=b, key=b, cap_nano=1, acked_nano=0, attempt=1, at=1)
    )
    with full_disk(), pytest.raises(StoreTrouble, match="disk"):
        Shell(config, chain, global_id=-3)  # it has to note that the open request was interrupted
    store.close()
