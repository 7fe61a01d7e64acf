"""The relayer's job API between a client's and an agent's real ends of it: who may do what, and that pieces resume."""

import dataclasses
import hashlib
import json
import time
from types import SimpleNamespace

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import RelayerRefused
from client.job_link import JobLink
from client.relayer_link import RelayerLink
from protocol.job_link import PIECE_BYTES, Entry
from protocol.jobs import Wrap, wraps_to_bytes
from protocol.sealing import WRAP_OVERHEAD
from relayer.api.jobs import JobApi
from relayer.api.server import _errors
from relayer.config import Limits
from relayer.store.shelf import Shelf
from worker.agent.job_relay import JobRelay, RelayTrouble
from wrappers.addresses import Kind, child_address
from wrappers.cells import to_boc
from wrappers.job import JobSpec

NETWORK, REGISTRY, ESCROW, NODE = b"N" * 32, b"R" * 32, b"e" * 32, b"n" * 32
OTHER = b"o" * 32
JOB = child_address(REGISTRY, Kind.JOB, ESCROW, 7)
VOUCHER, RELEASE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
DATA = bytes(range(251)) * (2 * PIECE_BYTES // 251 + 1)
RESULT = DATA[::-1]
WRAPS = wraps_to_bytes([Wrap(NODE, b"h" * 32, bytes(32 + WRAP_OVERHEAD))])
SPEC = JobSpec(hashlib.sha256(DATA).digest(), len(DATA), hashlib.sha256(WRAPS).digest(), b"t" * 32, 2)


class Mirror:
    """One escrow and one node, as the chain shows them."""

    registry, network = REGISTRY, NETWORK

    async def escrow(self, account, *, max_age_seconds):
        state = SimpleNamespace(voucher_key=VOUCHER.public_key().public_bytes_raw()) if account == ESCROW else None
        return SimpleNamespace(state=state, why_not="no such escrow")

    async def node(self, account, *, max_age_seconds):
        state = (
            SimpleNamespace(release_key=RELEASE.public_key().public_bytes_raw()) if account in (NODE, OTHER) else None
        )
        return SimpleNamespace(state=state)


class Admission:
    async def meet(self, escrow):
        return None

    def spend(self, escrow):
        return None


def entry(**changes) -> Entry:
    made = Entry(JOB, ESCROW, 7, to_boc(SPEC.to_cell()), WRAPS, int(time.time()) + 1000)
    return dataclasses.replace(made, **changes)


@pytest.fixture
async def house(tmp_path):
    shelf = Shelf(tmp_path, jobs_per_escrow=2, total_bytes=1 << 28)
    api = JobApi(shelf, Mirror(), Admission(), Limits())
    servers = []
    for routes in (api.client_routes(), api.agent_routes()):
        app = web.Application(middlewares=[_errors], client_max_size=PIECE_BYTES + 1)
        app.add_routes(routes)
        servers.append(TestServer(app))
        await servers[-1].start_server()
    link = RelayerLink(str(servers[0].make_url("")))
    yield SimpleNamespace(
        shelf=shelf,
        link=link,
        client=JobLink(link, NETWORK, ESCROW, VOUCHER),
        origin=str(servers[1].make_url("")).rstrip("/"),
    )
    await link.close()
    for server in servers:
        await server.close()


def agent(house, key=RELEASE, node=NODE) -> JobRelay:
    return JobRelay(house.origin, network=NETWORK, node=node, signer=key)


async def whole_input(relay: JobRelay) -> bytes:
    data = b""
    while piece := await relay.input_piece(JOB, len(data)):
        data += piece
    return data


async def test_g16_input_and_result_travel_in_pieces_and_resume(house) -> None:
    made = entry()
    house.shelf.put(made, 0)
    from relayer.store.shelf import INPUT, Blob

    house.shelf.append(JOB, Blob(INPUT, SPEC.size, SPEC.input), 0, DATA[:1000])
    assert await agent(house).entries() == (), "not before it is whole"
    await house.client.leave(made, DATA)
    await house.client.leave(made, DATA)
    assert await agent(house).entries() == (made,)
    assert await whole_input(agent(house)) == DATA
    assert await house.client.results(JOB) == {}
    digest = hashlib.sha256(RESULT).digest()
    await agent(house).put_result(JOB, RESULT, digest)
    await agent(house).put_result(JOB, RESULT, digest)
    assert await house.client.results(JOB) == {NODE: len(RESULT)}
    assert await house.client.result(JOB, NODE) == RESULT


async def test_g10_strangers_neither_leave_nor_read_jobs(house) -> None:
    stranger = Ed25519PrivateKey.generate()
    for client in (
        JobLink(house.link, NETWORK, ESCROW, stranger),
        JobLink(house.link, b"n" * 32, ESCROW, VOUCHER),
    ):
        with pytest.raises(RelayerRefused, match="does not hold"):
            await client.leave(entry(), DATA)
    await house.client.leave(entry(), DATA)
    with pytest.raises(RelayerRefused, match="does not hold"):
        await JobLink(house.link, NETWORK, ESCROW, stranger).results(JOB)
    for relay in (agent(house, key=stranger), agent(house, node=b"x" * 32)):
        with pytest.raises(RelayTrouble, match="402"):
            await relay.entries()
        with pytest.raises(RelayTrouble, match="402"):
            await relay.put_result(JOB, b"x", b"h" * 32)


async def test_a_node_gets_and_answers_only_what_is_sealed_to_it(house) -> None:
    await house.client.leave(entry(), DATA)
    other = agent(house, node=OTHER)
    assert await other.entries() == ()
    with pytest.raises(RelayTrouble, match="400"):
        await other.put_result(JOB, b"x", hashlib.sha256(b"x").digest())
    assert await house.client.results(JOB) == {}


async def test_g3_a_node_reads_the_list_page_by_page_and_begins_anew(house, monkeypatch) -> None:
    monkeypatch.setattr(house.shelf, "_per_escrow", 200)
    made = {}
    for index in range(70):
        job = child_address(REGISTRY, Kind.JOB, ESCROW, index)
        made[job] = entry(job=job, index=index)
        house.shelf.put(made[job], 0)
    monkeypatch.setattr(house.shelf, "is_whole", lambda *_: True)
    relay = agent(house)
    pages = [await relay.entries() for _ in range(4)]
    assert [len(page) for page in pages] == [32, 32, 6, 32] and pages[0] == pages[3]
    assert {one.job: one for page in pages for one in page} == made
    with pytest.raises(RelayTrouble, match="400"):
        relay._after = b"short"
        await relay.entries()
    assert await relay.entries() == pages[0], "what went wrong is not asked for again"


async def test_a_job_is_left_under_the_account_of_its_own_escrow_alone(house) -> None:
    for bad in (entry(index=8), entry(job=b"j" * 32), entry(keep_until=int(time.time()) + 100 * 86_400)):
        with pytest.raises(RelayerRefused):
            await house.client.leave(bad, DATA)
    with pytest.raises(RelayerRefused, match="over already"):
        await house.client.leave(entry(keep_until=1), DATA)
    assert list(house.shelf._folder.iterdir()) == []


async def test_what_is_no_piece_is_refused_and_changes_nothing(house) -> None:
    await house.client.leave(entry(), DATA)
    with pytest.raises(RelayTrouble, match="400"):
        await agent(house).put_result(JOB, RESULT, b"h" * 32)
    with pytest.raises(RelayTrouble, match="404"):
        await agent(house).input_piece(b"j" * 32, 0)
    with pytest.raises(RelayerRefused, match="not here yet"):
        await house.client.result(JOB, NODE)
    headers = house.client._headers(JOB)
    for method, path, code in (
        ("GET", f"/v1/jobs/{JOB.hex()}/result?node=zz&offset=0", 400),
        ("PUT", f"/v1/jobs/{JOB.hex()}/input?offset=-1", 400),
        ("PUT", f"/v1/jobs/{JOB.hex()}/input", 400),
        ("GET", "/v1/jobs/00", 400),
        ("POST", f"/v1/jobs/{JOB.hex()}", 400),
    ):
        with pytest.raises(RelayerRefused) as raised:
            await house.link.bytes_of(method, path, headers=headers, data=json.dumps([]).encode(), most=1000)
        assert raised.value.http_status == code and raised.value.cause and raised.value.cure
