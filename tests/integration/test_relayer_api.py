"""The relayer in one process with a chain in memory, a real link and real HTTP clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import relayer_world as world
from relayer_net import EAGER, Net, network, until

from attestation.onchain.state import ChainImage, ImageStatus
from protocol import link
from protocol.errors import Code, WireError
from protocol.frames import Frame, FrameParser, FrameType, error_frame
from protocol.link import Kind
from protocol.stream import Completed, Failed
from relayer.config import Limits
from relayer.core.facts import ReceiptSeen
from relayer.core.request import RequestStatus
from relayer.store.store import StoreError
from wrappers.node import NodeExtras


async def test_sealed_answer_passes_and_its_receipt_is_stored(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        text, end = await net.ask("what is sealed?")
        assert text == "hello sealed world"
        assert isinstance(end, Completed) and end.signed.receipt.amount_nano == world.PRICE_NANO
        requests = await net.shell.writer.read(lambda store: store.requests())
        await until(lambda: True)
        assert [one.receipt_seq for one in requests] == [1]
        (tally,) = await net.shell.writer.read(lambda store: store.tallies())
        assert tally.cumulative_nano == world.PRICE_NANO


async def test_g16_receipt_is_on_disk_before_the_client_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        record, allowed = net.shell.writer.record, asyncio.Event()

        async def slow(fact: Any, **options: Any) -> Any:
            if isinstance(fact, ReceiptSeen):
                await allowed.wait()
            return await record(fact, **options)

        monkeypatch.setattr(net.shell.writer, "record", slow)
        sealed, _ = net.client.seal("x")
        parser, seen = FrameParser(), []
        async with net.http.post(f"{net.url}/v1/requests", data=sealed.to_bytes()) as response:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    async for part in response.content.iter_any():
                        seen += [frame.type for frame in parser.feed(part)]
            assert seen and FrameType.RECEIPT not in seen and FrameType.LAST not in seen
            allowed.set()
            async for part in response.content.iter_any():
                seen += [frame.type for frame in parser.feed(part)]
        assert seen[-2:] == [FrameType.RECEIPT, FrameType.LAST]


async def test_many_requests_at_once_over_one_link(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.enclave.pause_seconds = 0.02
        await net.attach()
        results = await asyncio.gather(*(net.ask(f"p{n}", cap_nano=world.TON // 2) for n in range(24)))
        assert all(text == "hello sealed world" and isinstance(end, Completed) for text, end in results)


async def test_g4_request_posted_twice_is_run_once_and_stored_once(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        sealed, _ = net.client.seal("once")
        first, second = await net.post(sealed), await net.post(sealed)
        assert first == second and first[0] == 200 and net.enclave.runs == 1
        receipts = await net.shell.writer.read(
            lambda store: store.receipts(net.client.account, allotment=None, key=None, after=0, limit=9)
        )
        assert len(receipts) == 1


async def test_settlement_claim_is_asked_sent_and_closed_by_the_chain(tmp_path: Path) -> None:
    async with network(tmp_path, policy=EAGER) as net:
        agent = await net.attach()
        await net.ask()
        await until(lambda: bool(net.chain.paid))
        assert net.chain.paid == [(net.client.account, net.machine.key, world.PRICE_NANO)]

        async def settled() -> bool:
            return await net.shell.writer.read(
                lambda store: (
                    store.settlement(net.machine.account).landed == 1 and not store.pending() and not store.unclaimed()
                )
            )

        for _ in range(400):
            if await settled():
                break
            await asyncio.sleep(0.02)
        assert await settled()
        asked = len(agent.asks)
        await asyncio.sleep(1.5)
        assert len(agent.asks) == asked, "nothing is owed, nothing is asked"


async def test_g4_claim_that_an_endpoint_swallowed_is_sent_again_and_pays_once(tmp_path: Path) -> None:
    async with network(tmp_path, policy=EAGER) as net:
        await net.attach()
        net.chain.dropping = True
        await net.ask()
        await until(lambda: bool(net.chain.sent))
        assert net.chain.paid == []
        net.chain.dropping = False
        await until(lambda: bool(net.chain.paid), 10)
        assert len(set(net.chain.sent)) == 1, "the same bytes every time"
        assert len(net.chain.paid) == 1


async def test_declined_claims_are_asked_again_later(tmp_path: Path) -> None:
    async with network(tmp_path, policy=EAGER) as net:
        agent = await net.attach()
        agent.decline_claims = True
        await net.ask()
        await until(lambda: len(agent.asks) >= 2)
        agent.decline_claims = False
        await until(lambda: bool(net.chain.paid))


async def test_g16_pushed_receipts_are_settled_after_both_sides_forgot_the_stream(tmp_path: Path) -> None:
    async with network(tmp_path, policy=EAGER) as net:
        sealed, _ = net.client.seal("earlier", cap_nano=world.PRICE_NANO)
        signed = net.enclave.issue(sealed, world.PRICE_NANO, bytes(32))
        agent = world.Agent(net.machine, net.enclave)
        agent.push = [
            {
                "escrow": net.client.account.hex(),
                "allotment_epoch": net.client.row_epoch,
                "key": net.machine.key.hex(),
                "frame": base64.b64encode(signed.to_bytes()).decode(),
            }
        ]
        await net.attach(agent)
        await until(lambda: bool(net.chain.paid))


async def test_g10_forged_receipts_pushed_end_the_link(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        sealed, _ = net.client.seal("earlier")
        signed = net.enclave.issue(sealed, world.PRICE_NANO, bytes(32))
        forged = replace(signed, receipt=replace(signed.receipt, cumulative_nano=10 * world.PRICE_NANO))
        agent = world.Agent(net.machine, net.enclave)
        frame = base64.b64encode(forged.to_bytes()).decode()
        common = {"escrow": net.client.account.hex(), "allotment_epoch": net.client.row_epoch}
        agent.push = [{**common, "key": net.machine.key.hex(), "frame": frame}]
        await net.attach(agent, live=False)
        await until(lambda: agent.close_code == link.Close.BAD_MESSAGE)
        assert await net.shell.writer.read(lambda store: store.tallies()) == ()


# -- handshake and offers


async def test_g10_link_not_signed_by_the_release_key_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        agent = world.Agent(net.machine, net.enclave)
        agent.release_key = net.machine.signing
        await net.attach(agent, live=False)
        await until(lambda: agent.close_code is not None)
        assert agent.close_code == link.Close.NOT_AUTHENTICATED
        assert agent.goodbye["code"] == "not-authenticated" and agent.welcome is None


async def test_g10_handshake_made_for_another_relayer_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        agent = world.Agent(net.machine, net.enclave)
        agent.origin = "wss://other.example"
        await net.attach(agent, live=False)
        await until(lambda: agent.close_code == link.Close.NOT_AUTHENTICATED)


async def test_node_that_is_not_on_chain_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        stranger = world.Machine(owner=b"\x77" * 32)
        agent = world.Agent(stranger, world.Enclave(stranger))
        await net.attach(agent, live=False)
        await until(lambda: agent.close_code == link.Close.NODE_REFUSED)


async def test_g10_forged_node_account_is_refused(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        impostor = world.Machine(seed=b"impostor")
        impostor.account = b"\x66" * 32
        net.chain.put(impostor.account, impostor.state().to_cell())
        agent = world.Agent(impostor, world.Enclave(impostor))
        await net.attach(agent, live=False)
        await until(lambda: agent.close_code == link.Close.NODE_REFUSED)
        assert "registry" in agent.goodbye["cause"]


async def test_offer_goes_live_when_the_chain_shows_its_key_and_down_when_it_shows_another(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.chain.put(net.machine.account, net.machine.state(signing_key=None, claims_until=0).to_cell())
        agent = await net.attach(live=False)
        await until(lambda: bool(agent.offer_answers))
        assert agent.offer_answers[0]["error"]["code"] == "key-not-on-chain"
        sealed, _ = net.client.seal("early")
        assert await net.refused(sealed) == (503, Code.NODE_NOT_LIVE)
        net.chain.put(net.machine.account, net.machine.state().to_cell())
        await until(lambda: agent.offer_answers[-1]["accepted"])
        await net.ask()
        net.chain.put(net.machine.account, net.machine.state(signing_key=b"\x05" * 32).to_cell())
        await until(lambda: not agent.offer_answers[-1]["accepted"])
        assert await net.refused(net.client.seal("late")[0]) == (503, Code.NODE_NOT_LIVE)


async def test_a_draining_node_is_not_listed_and_its_clients_are_told(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        agent = await net.attach()
        await net.ask()
        net.chain.put(net.machine.account, net.machine.state(extras=NodeExtras(draining=True)).to_cell())
        await until(lambda: not agent.offer_answers[-1]["accepted"])
        assert agent.offer_answers[-1]["error"]["code"] == "node-draining"
        assert await net.refused(net.client.seal("late")[0]) == (503, Code.NODE_DRAINING)
        net.chain.put(net.machine.account, net.machine.state().to_cell())
        await until(lambda: agent.offer_answers[-1]["accepted"])
        await net.ask("again")


async def test_g12_a_node_whose_image_is_revoked_is_served_no_more_before_it_was_told(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.shell._mirror._standings._max_age = 0.0
        agent = await net.attach()
        await net.ask()
        revoked = world.bare_state({world.IMAGE: ChainImage(status=ImageStatus.COMPROMISED)})
        net.chain.put(world.VERIFIER, revoked)
        await until(lambda: not agent.offer_answers[-1]["accepted"])
        assert agent.offer_answers[-1]["error"]["code"] == "not-in-standing"
        assert "compromised" in agent.offer_answers[-1]["error"]["cause"]
        assert await net.refused(net.client.seal("late")[0]) == (503, Code.NODE_NOT_LIVE)
        net.chain.put(world.VERIFIER, world.bare_state({world.IMAGE: ChainImage()}))
        await until(lambda: agent.offer_answers[-1]["accepted"])
        await net.ask("again")


async def test_newer_link_of_a_node_replaces_the_older(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        first = await net.attach()
        second = await net.attach()
        await until(lambda: first.close_code == link.Close.REPLACED)
        assert second.close_code is None
        await net.ask()


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\x90", b"\x82{", b"\xa3[]", b"\x01{}", b"\x91\x00"])
async def test_g18_junk_on_the_link_ends_that_link_only(tmp_path: Path, junk: bytes) -> None:
    async with network(tmp_path) as net:
        agent = await net.attach()
        await agent.socket.send_bytes(junk)
        if junk != b"\x82{":  # a bad offer is answered, the link stays
            await until(lambda: agent.close_code == link.Close.BAD_MESSAGE)
        else:
            await until(lambda: agent.offer_answers[-1]["error"] is not None)
        assert (await net.attach()).welcome is not None
        await net.ask()


async def test_agent_that_leaves_during_the_handshake_leaves_nothing_behind(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        account = net.chain.account

        async def slow(name: bytes) -> Any:
            await asyncio.sleep(0.2)
            return await account(name)

        net.chain.account = slow
        agent = await net.attach(live=False)
        await until(lambda: agent.welcome is not None)
        agent.task.cancel()
        net.chain.account = account
        await until(lambda: net.shell.hub.get(net.machine.account) is None)
        await net.attach()
        await net.ask()


# -- admission


async def test_g5_admission_follows_the_mirrored_escrow(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        client = net.client
        over = client.seal("x", cap_nano=client.allotted_nano + 1)[0]
        assert await net.refused(over) == (402, Code.ALLOTMENT_TOO_LOW)
        good = client.seal("x")[0]
        unsigned = replace(good, voucher_signature=bytes(64))
        assert await net.refused(unsigned) == (402, Code.VOUCHER_INVALID)
        swapped = replace(good, ciphertext=client.seal("other")[0].ciphertext)
        assert await net.refused(swapped) == (402, Code.VOUCHER_INVALID)
        other_epoch = replace(good, allotment_epoch=good.allotment_epoch + 1)
        assert await net.refused(other_epoch) == (404, Code.ALLOTMENT_UNKNOWN)
        stranger = world.Client(net.machine, owner=b"\x99" * 32)
        assert await net.refused(stranger.seal("x")[0]) == (404, Code.ESCROW_UNKNOWN)
        old_key = replace(good, sealing_key_hash=b"\x01" * 32)
        assert await net.refused(old_key) == (409, Code.SEALING_KEY_UNKNOWN)
        nowhere = replace(good, node=b"\x02" * 32)
        assert await net.refused(nowhere) == (404, Code.NODE_UNKNOWN)
        assert net.enclave.runs == 0


async def test_admission_reads_anew_before_it_says_no(tmp_path: Path) -> None:
    limits = Limits(mirror_seconds=3600)
    async with network(tmp_path, limits=limits) as net:
        await net.attach()
        await net.ask()
        row = net.client.state().rows[net.machine.account]
        raised = net.client.state(rows={net.machine.account: replace(row, allotted_nano=2 * world.TON)})
        net.chain.put(net.client.account, raised.to_cell())
        await asyncio.sleep(1.1)
        text, _ = await net.ask(cap_nano=world.TON + 1)
        assert text == "hello sealed world"


async def test_admission_refuses_a_closing_row_and_a_closing_escrow(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        row = net.client.state().rows[net.machine.account]
        closing = net.client.state(rows={net.machine.account: replace(row, closing_at=int(time.time()) + 60)})
        for state in (closing, net.client.state(closing=True)):
            net.chain.put(net.client.account, state.to_cell())
            await asyncio.sleep(0.25)
            assert await net.refused(net.client.seal("x")[0]) == (409, Code.ALLOTMENT_CLOSING)


async def test_g17_chain_outage_is_said_as_such_and_never_as_an_absent_escrow(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        net.chain.down = True
        await asyncio.sleep(0.3)
        assert await net.refused(net.client.seal("x")[0]) == (503, Code.CHAIN_UNCERTAIN)
        async with net.http.get(f"{net.url}/v1/status") as response:
            status = await response.json()
        assert status["chain"]["error"] is not None
        net.chain.down = False
        await until(lambda: True)
        await net.ask()


async def test_limits_rate_in_flight_body_and_node(tmp_path: Path) -> None:
    limits = Limits(in_flight_per_escrow=2, requests_per_second_per_escrow=3, max_request_bytes=8192, mirror_seconds=5)
    async with network(tmp_path, limits=limits) as net:
        net.enclave.pause_seconds = 0.3
        await net.attach(world.Agent(net.machine, net.enclave, max_in_flight=1))
        async with net.http.post(f"{net.url}/v1/requests", data=bytes(9000)) as response:
            assert (response.status, (await response.json())["code"]) == (413, Code.TOO_LARGE)
        async with net.http.post(f"{net.url}/v1/requests", data=b"junk") as response:
            assert (response.status, (await response.json())["code"]) == (400, Code.BAD_REQUEST)
        running = asyncio.ensure_future(net.ask(cap_nano=world.TON // 2))
        await asyncio.sleep(0.2)
        assert await net.refused(net.client.seal("x")[0]) == (503, Code.NODE_BUSY)
        await running
        codes = [(await net.refused(net.client.seal("x", cap_nano=world.TON * 9)[0]))[1] for _ in range(8)]
        assert codes[-1] == Code.RATE_LIMITED


# -- streams that go wrong


async def broken_answer(net: Net, frames: list[bytes], *, hang: bool = False) -> tuple[bytes, list[Frame]]:
    """What the client gets when the worker sends these messages."""
    agent = world.Agent(net.machine, net.enclave)

    async def answer(sealed: Any) -> AsyncIterator[bytes]:
        for one in frames:
            yield one
        if hang:
            await asyncio.sleep(60)

    agent.answer = answer
    await net.attach(agent)
    status, body = await net.post(net.client.seal("x")[0])
    assert status == 200
    return body, list(FrameParser().feed(body))


def head() -> bytes:
    return Frame(FrameType.HEAD, b"\x01" + bytes(64)).to_bytes()


def data() -> bytes:
    return Frame(FrameType.DATA, bytes(60)).to_bytes()


@pytest.mark.parametrize(
    ("frames", "passed"),
    [
        ([data()], []),
        ([head(), data() + b"\x02\x00"], [FrameType.HEAD]),
        ([head(), b"\x63" + bytes(4)], [FrameType.HEAD]),
        ([head(), data()[:-1]], [FrameType.HEAD]),
        ([head(), head()], [FrameType.HEAD]),
        ([head(), b"\x02\xff\xff\xff\xff"], [FrameType.HEAD]),
        ([head(), Frame(FrameType.RECEIPT, bytes(244)).to_bytes()], [FrameType.HEAD]),
        ([head(), Frame(FrameType.RECEIPT, b"short").to_bytes()], [FrameType.HEAD]),
    ],
)
async def test_g18_worker_that_breaks_the_protocol_ends_in_a_clear_error(
    tmp_path: Path, frames: list[bytes], passed: list[FrameType]
) -> None:
    async with network(tmp_path) as net:
        _, seen = await broken_answer(net, frames)
        assert [one.type for one in seen] == [*passed, FrameType.ERROR]
        assert WireError.from_bytes(seen[-1].payload).code is Code.NODE_GONE
        assert await net.shell.writer.read(lambda store: store.tallies()) == ()


async def test_g18_silent_worker_ends_in_a_timeout_and_is_told(tmp_path: Path) -> None:
    limits = Limits(first_frame_seconds=5, idle_seconds=0.3, mirror_seconds=1)
    async with network(tmp_path, limits=limits) as net:
        _, seen = await broken_answer(net, [head()], hang=True)
        assert [one.type for one in seen] == [FrameType.HEAD, FrameType.ERROR]
        assert WireError.from_bytes(seen[-1].payload).code is Code.TIMEOUT


async def test_error_of_the_worker_passes_as_it_is(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        mine = error_frame(WireError.of(Code.ENGINE_FAILED)).to_bytes()
        body, _ = await broken_answer(net, [head(), mine])
        assert body == head() + mine


async def test_g16_link_lost_midway_gives_an_error_and_the_repeat_the_rest(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.enclave.pause_seconds = 0.2
        agent = await net.attach()
        sealed, secret = net.client.seal("x")
        posting = asyncio.ensure_future(net.post(sealed))
        await until(lambda: net.enclave.runs == 1)
        await asyncio.sleep(0.1)
        agent.task.cancel()
        _, body = await posting
        events = net.client.reader(sealed, secret).feed(body)
        assert isinstance(events[-1], Failed) and events[-1].error.code is Code.NODE_GONE
        net.enclave.pause_seconds = 0
        await net.attach()
        _, body = await net.post(sealed)
        assert isinstance(net.client.reader(sealed, secret).feed(body)[-1], Completed)


async def test_client_that_leaves_costs_no_receipt(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.enclave.pause_seconds = 0.15
        agent = await net.attach()
        sealed, _ = net.client.seal("x")
        async with net.http.post(f"{net.url}/v1/requests", data=sealed.to_bytes()) as response:
            await response.content.readany()
            response.close()
        await until(lambda: bool(agent.cancelled))
        await until(lambda: bool(net.enclave.stored))
        await asyncio.sleep(0.2)
        (tally,) = await net.shell.writer.read(lambda store: store.tallies())
        assert tally.seq == 1
        (request,) = await net.shell.writer.read(lambda store: store.requests())
        assert request.status is RequestStatus.BROKEN and request.receipt_seq == 1


async def test_slow_client_is_dropped_and_others_go_on(tmp_path: Path) -> None:
    limits = Limits(stream_buffer_bytes=64 << 10, mirror_seconds=1)
    async with network(tmp_path, limits=limits) as net:
        agent = world.Agent(net.machine, net.enclave)
        flood = Frame(FrameType.DATA, bytes(60_000)).to_bytes()

        async def answer(sealed: Any) -> AsyncIterator[bytes]:
            if sealed.voucher.cap_nano == world.TON // 2:
                yield head()
                for _ in range(400):
                    yield flood
                await asyncio.sleep(30)
            async for one in net.enclave.answer(sealed):
                yield one

        agent.answer = answer
        await net.attach(agent)
        slow = net.client.seal("x", cap_nano=world.TON // 2)[0].to_bytes()
        host, port = net.shell.client_address.split(":")
        _reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        writer.write(b"POST /v1/requests HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(slow) + slow)
        await until(lambda: bool(agent.cancelled), 15)
        assert (await net.ask())[0] == "hello sealed world"
        writer.close()


# -- receipts, releases, status


def contents(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def receipts_headers(net: Net, key: Any = None, at: int | None = None) -> dict[str, str]:
    at = int(time.time()) if at is None else at
    message = link.receipts_request(network=world.NETWORK, escrow=net.client.account, at=at)
    return {"Cocoon-Time": str(at), "Cocoon-Signature": (key or net.client.voucher_key).sign(message).hex()}


async def test_receipts_are_given_to_the_voucher_keys_holder_only(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        for _ in range(3):
            await net.ask(cap_nano=world.TON // 2)
        url = f"{net.url}/v1/receipts?escrow={net.client.account.hex()}"
        row = f"&allotment={net.client.allotment.hex()}&key={net.machine.key.hex()}"
        async with net.http.get(url + row + "&after=1", headers=receipts_headers(net)) as response:
            body = await response.json()
        assert [one["seq"] for one in body["receipts"]] == [2, 3] and body["more"] is False
        frame = base64.b64decode(body["receipts"][0]["frame"])
        assert frame == net.enclave.receipts[net.client.allotment][1].to_bytes()
        async with net.http.get(url + "&limit=1", headers=receipts_headers(net)) as response:
            assert (await response.json())["more"] is True
        for headers in (
            {},
            receipts_headers(net, key=net.machine.signing),
            receipts_headers(net, at=int(time.time()) - 500),
        ):
            async with net.http.get(url, headers=headers) as response:
                assert (response.status, (await response.json())["code"]) == (402, Code.VOUCHER_INVALID)


async def test_g16_receipts_missed_while_the_relayer_was_down_are_fetched_from_the_agent(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        agent = world.Agent(net.machine, net.enclave)
        agent.escrow, agent.row_epoch = net.client.account, net.client.row_epoch
        await net.attach(agent)
        await net.ask()
        sealed, _ = net.client.seal("elsewhere", cap_nano=world.TON // 2)
        net.enclave.issue(sealed, world.PRICE_NANO, bytes(32))
        url = f"{net.url}/v1/receipts?escrow={net.client.account.hex()}"
        row = f"&allotment={net.client.allotment.hex()}&key={net.machine.key.hex()}"
        async with net.http.get(url + row + "&after=0", headers=receipts_headers(net)) as response:
            body = await response.json()
        assert [one["seq"] for one in body["receipts"]] == [1, 2]


async def test_g18_full_disk_is_an_error_and_not_a_receipt_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with network(tmp_path) as net:
        await net.attach()
        record = net.shell.writer.record

        async def full(fact: Any, **options: Any) -> Any:
            if isinstance(fact, ReceiptSeen):
                raise StoreError("the database does not take facts: disk is full")
            return await record(fact, **options)

        monkeypatch.setattr(net.shell.writer, "record", full)
        sealed, _ = net.client.seal("x")
        _, body = await net.post(sealed)
        frames = list(FrameParser().feed(body))
        assert FrameType.RECEIPT not in [one.type for one in frames]
        assert WireError.from_bytes(frames[-1].payload).code is Code.INTERNAL


def release_body(net: Net, **changes: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "escrow": net.client.account,
        "node": net.machine.account,
        "allotment": net.client.allotment,
        "row_seqno": 0,
        "allotted_nano": 5,
        "expires_at": int(time.time()) + 300,
    }
    signature = net.client.voucher_key.sign(link.release_request(network=world.NETWORK, **fields))
    fields |= {"signature": signature}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in (fields | changes).items()}


async def test_release_is_asked_of_the_agent_and_checked(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        agent = await net.attach()
        async with net.http.post(f"{net.url}/v1/release", json=release_body(net)) as response:
            assert response.status == 200, await response.text()
            body = await response.json()
        assert body["allotted_nano"] == 5 and len(body["signature"]) == 128
        async with net.http.post(f"{net.url}/v1/release", json=release_body(net, allotted_nano=6)) as response:
            assert (response.status, (await response.json())["code"]) == (402, Code.VOUCHER_INVALID)
        agent.release_key = net.machine.signing
        async with net.http.post(f"{net.url}/v1/release", json=release_body(net)) as response:
            assert (response.status, (await response.json())["code"]) == (502, Code.NODE_GONE)
        async with net.http.post(f"{net.url}/v1/release", json=[]) as response:
            assert response.status == 400


async def test_status_and_nodes(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        async with net.http.get(f"{net.url}/v1/nodes") as response:
            assert await response.json() == {"nodes": []}
        await net.attach()
        await until(lambda: True)
        async with net.http.get(f"{net.url}/v1/status") as response:
            status = await response.json()
            assert response.headers["Access-Control-Allow-Origin"] == "*"
        assert status["network_id"] == world.NETWORK.hex() and status["simulated"] is True and status["nodes"] == 1
        async with net.http.get(f"{net.url}/v1/nodes") as response:
            (view,) = (await response.json())["nodes"]
        assert view["ready"] and view["chain"]["signing_key"] == net.machine.key.hex() and view["error"] is None
        assert json.loads(net.machine.offer().to_json())["models"] == view["offer"]["models"]
        async with net.http.get(f"{net.url}/v1/nodes/{net.machine.account.hex()}") as response:
            assert (await response.json())["node"] == net.machine.account.hex()
        for path, status_code in (("/v1/nodes/zz", 400), (f"/v1/nodes/{'00' * 32}", 404), ("/nowhere", 404)):
            async with net.http.get(net.url + path) as response:
                assert response.status == status_code
                assert set(await response.json()) == {"code", "cause", "cure"}


async def test_g11_relayer_keeps_no_plaintext_in_its_files(tmp_path: Path) -> None:
    prompt = "the launch code is " + secrets.token_hex(16)
    async with network(tmp_path) as net:
        net.enclave.words = ["answer-" + secrets.token_hex(16)]
        await net.attach()
        text, _ = await net.ask(prompt)
        assert text == net.enclave.words[0]
    stored = contents(tmp_path)
    assert stored and prompt.encode() not in stored and text.encode() not in stored


async def test_shutdown_tells_clients_and_agents(tmp_path: Path) -> None:
    async with network(tmp_path) as net:
        net.enclave.pause_seconds = 1
        agent = await net.attach()
        sealed, secret = net.client.seal("x")
        posting = asyncio.ensure_future(net.post(sealed))
        await until(lambda: net.enclave.runs == 1)
        await asyncio.sleep(0.1)
        net.serving.cancel()
        _, body = await posting
        assert isinstance(net.client.reader(sealed, secret).feed(body)[-1], Failed)
        await until(lambda: agent.close_code == link.Close.SHUTTING_DOWN)
        assert agent.goodbye["code"] == "shutting-down" and Kind.GOODBYE
