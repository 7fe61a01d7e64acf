"""A whole worker on a running chain: agent and enclave as processes, real contracts, a relayer played by the test.

The model is a scripted OpenAI server (allowed only with simulated evidence), so that answers can be held and broken.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from app.home import Home, Ports
from app.network import Network
from app.processes import Service, Supervisor
from chain.outgoing import Outgoing
from chain.wait import until
from protocol import commitments
from protocol.errors import Code, WireError
from protocol.frames import FrameType, parse_header
from protocol.link import Kind, link_challenge
from protocol.link_messages import ReleaseRequest
from protocol.offer import NodeOffer
from protocol.opening import Endpoint, Opening, Shape
from protocol.receipts import Expectation, IssuedReceipt, SignedReceipt, check_issued
from protocol.sealing import SealedRequest, seal
from protocol.stream import Completed, Data, Failed, ResponseReader
from worker.agent.config import load
from worker.agent.operations import OperationRefused, Operator
from worker.agent.run import ground
from wrappers.addresses import Kind as ChildKind
from wrappers.addresses import child_address
from wrappers.code import Contract, code_hash
from wrappers.escrow import EscrowConfig, EscrowState, FirstAllotment
from wrappers.node import NodeState
from wrappers.receipts import Voucher
from wrappers.registry import open_escrow
from wrappers.rows import Row, RowTerms
from wrappers.signed import Release, network_id, verify

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(170)]

TON = 1_000_000_000
PROMPT = "please keep this prompt secret"
WORDS = ["alpha ", "bravo ", "charlie ", "delta "]
MAXIMUM = 200_000_000


# ------------------------------------------------------------------------------------------------- a scripted model


@dataclass
class Model:
    """Streams WORDS; holds after `hold_after` words while `gate` is closed."""

    hold_after: int = 1000
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    prompts: list[str] = field(default_factory=list)

    async def models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted", "max_model_len": 4096}]})

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.prompts.append(json.dumps(body.get("messages", "")))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        chat = "messages" in body
        for count, word in enumerate([*WORDS, None]):
            if count >= self.hold_after:
                self.held.set()
                await self.gate.wait()
            piece: dict[str, Any] = {"delta": {"content": word or ""}} if chat else {"text": word or ""}
            choice = {"index": 0, "finish_reason": None if word else "stop", **piece}
            usage = {"prompt_tokens": 20, "completion_tokens": min(count + 1, len(WORDS))}
            event = {"id": "x", "created": 1, "choices": [choice], "usage": usage}
            await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


# ------------------------------------------------------------------------------------------- a relayer of the test's


@dataclass
class Stream:
    frames: bytes = b""
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Relayer:
    """The relayer's end of the link, with nothing behind it."""

    def __init__(self, network: bytes) -> None:
        self.network = network
        self.url = ""
        self.ws: web.WebSocketResponse | None = None
        self.node: dict[str, Any] = {}
        self.offers: asyncio.Queue[NodeOffer] = asyncio.Queue()
        self.answers: asyncio.Queue[tuple[Kind, dict[str, Any]]] = asyncio.Queue()
        self.streams: dict[int, Stream] = {}
        self.wire = bytearray()
        self.numbers = iter(range(1, 1 << 20))

    async def link(self, request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(protocols=("cocoon.link.v1",), compress=False)
        await ws.prepare(request)
        nonce, issued_at = secrets.token_bytes(32), int(time.time())
        challenge = {"version": 1, "nonce": nonce.hex(), "issued_at": issued_at, "network_id": self.network.hex()}
        await ws.send_bytes(bytes([Kind.CHALLENGE]) + json.dumps({**challenge, "relayer": "test"}).encode())
        hello_raw = await ws.receive_bytes()
        assert hello_raw[0] == Kind.HELLO
        self.node = hello = json.loads(hello_raw[1:])
        node = bytes.fromhex(hello["node"])
        signed = link_challenge(network=self.network, node=node, nonce=nonce, issued_at=issued_at, origin=self.url)
        Ed25519PublicKey.from_public_bytes(self.release_key).verify(bytes.fromhex(hello["signature"]), signed)
        await ws.send_bytes(bytes([Kind.WELCOME]) + b"{}")
        if hello["offer"] is not None:
            self._offer(hello["offer"])
        self.ws = ws
        async for message in ws:
            self._take(message.data)
        for stream in self.streams.values():
            stream.ended.set()
        self.ws = None
        return ws

    release_key = b""

    def _offer(self, document: dict[str, Any]) -> None:
        self.offers.put_nowait(NodeOffer.from_json(json.dumps(document)))

    def _take(self, data: bytes) -> None:
        self.wire += data
        kind, body = Kind(data[0]), data[1:]
        if kind is Kind.OFFER:
            self._offer(json.loads(body))
        elif kind is Kind.FRAMES:
            stream = self.streams[int.from_bytes(body[:4], "big")]
            stream.frames += body[4:]
            at = 4
            while at < len(body):
                frame_type, length = parse_header(body, at)
                at += 5 + length
                if frame_type in (FrameType.LAST, FrameType.ERROR, FrameType.REFUSAL):
                    stream.ended.set()
        elif kind in (Kind.CLAIM, Kind.RELEASE, Kind.RECEIPTS):
            self.answers.put_nowait((kind, json.loads(body)))

    async def open(self, sealed: bytes) -> Stream:
        number = next(self.numbers)
        stream = self.streams[number] = Stream()
        assert self.ws is not None, "the agent is not connected"
        await self.ws.send_bytes(bytes([Kind.OPEN]) + number.to_bytes(4, "big") + sealed)
        return stream

    async def ask(self, kind: Kind, answer: Kind, **body: Any) -> dict[str, Any]:
        ask = next(self.numbers)
        assert self.ws is not None
        await self.ws.send_bytes(bytes([kind]) + json.dumps({"ask": ask, **body}).encode())
        while True:
            async with asyncio.timeout(30):
                kind_, found = await self.answers.get()
            if kind_ is answer and found.get("ask") == ask:
                return found


# ----------------------------------------------------------------------------------------------------------- a client


class Client:
    """Owner of one escrow with a row for the node; keeps one account per enclave key."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.key = Ed25519PrivateKey.generate()
        wallet = world.network.wallet("client")
        self.escrow = child_address(world.network.registry, ChildKind.ESCROW, wallet.account, index)
        self.offer: NodeOffer | None = None
        self.acked_seq = self.acked_nano = 0

    @property
    def voucher_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    async def open(self, allotted_nano: int = TON) -> None:
        world = self.world
        first = FirstAllotment(world.node, allotted_nano, RowTerms(world.relayer.release_key, 3600))
        body = open_escrow(code_hash(Contract.ESCROW), self.index, EscrowConfig(self.voucher_key, first))
        sent = await world.network.wallet("client").send(
            world.network.chain, [Outgoing(world.network.registry, allotted_nano + TON, body)]
        )
        await sent.landed(world.network.chain)
        await until(self.state_or_none, what="the escrow", timeout_seconds=20)

    async def state_or_none(self) -> EscrowState | None:
        account = await self.world.network.chain.account(self.escrow)
        return None if account.data is None else EscrowState.from_cell(account.data, self.escrow)

    async def row(self) -> Row:
        state = await self.state_or_none()
        assert state is not None
        return state.rows[self.world.node]

    def use(self, offer: NodeOffer) -> None:
        if self.offer is None or self.offer.signing_key != offer.signing_key:
            self.acked_seq = self.acked_nano = 0
        self.offer = offer

    async def sealed(self) -> tuple[Opening, SealedRequest]:
        offer, row = self.offer, await self.row()
        assert offer is not None
        terms = offer.models[0].terms
        voucher = Voucher(row.allotment, offer.signing_key, self.acked_nano + MAXIMUM, self.acked_nano, terms.hash)
        body = {"messages": [{"role": "user", "content": PROMPT}], "stream": True, "max_tokens": 16}
        opening = Opening(
            secrets.token_bytes(32),
            MAXIMUM,
            self.acked_seq,
            terms,
            Endpoint.CHAT_COMPLETIONS,
            json.dumps(body).encode(),
            Shape.plain(),
        )
        request = seal(
            opening,
            request_id=secrets.token_bytes(32),
            escrow=self.escrow,
            allotment_epoch=row.epoch,
            node=self.world.node,
            sealing_key=offer.sealing_key(int(time.time())).public_key,
            voucher=voucher,
            voucher_key=self.key,
        )
        return opening, request

    def read(self, opening: Opening, request: SealedRequest, frames: bytes) -> tuple[str, Any]:
        reader = ResponseReader(response_secret=opening.response_secret, enc=request.enc, request_id=request.request_id)
        events = reader.feed(frames)
        lines = b"".join(event.plaintext for event in events if isinstance(event, Data)).splitlines()
        text = "".join(json.loads(line)["choices"][0]["delta"]["content"] for line in lines)
        last = events[-1]
        if isinstance(last, Completed):
            assert self.offer is not None
            expected = Expectation(
                request.voucher.allotment,
                self.offer.node_id,
                self.offer.signing_key,
                opening.terms,
                opening.maximum_nano,
                commitments.inner_salt(opening.response_secret),
                commitments.request_commitment(opening.response_secret, request.request_id, opening.body),
            )
            check_issued(IssuedReceipt(request.request_id, last.signed, last.inner), expected, last.response)
            if last.signed.receipt.seq == self.acked_seq + 1:
                self.acked_seq += 1
                self.acked_nano = last.signed.receipt.cumulative_nano
        return text, last

    async def ask(self) -> tuple[str, Any]:
        opening, request = await self.sealed()
        stream = await self.world.relayer.open(request.to_bytes())
        async with asyncio.timeout(20):
            await stream.ended.wait()
        return self.read(opening, request, stream.frames)

    async def paid_nano(self) -> int:
        return (await self.row()).paid_nano

    async def wait_paid(self, amount_nano: int) -> None:
        async def paid() -> bool | None:
            return True if await self.paid_nano() >= amount_nano else None

        await until(paid, what=f"{amount_nano} nanoTON to be paid", timeout_seconds=45)

    async def ask_release(self, allotted_nano: int) -> dict[str, Any]:
        row = await self.row()
        ask = ReleaseRequest.sign(
            self.key,
            network=self.world.network_id,
            escrow=self.escrow,
            node=self.world.node,
            allotment=row.allotment,
            row_seqno=row.seqno,
            allotted_nano=allotted_nano,
            expires_at=int(time.time()) + 300,
        )
        return await self.world.relayer.ask(Kind.ASK_RELEASE, Kind.RELEASE, release_request=ask.to_json())


# ---------------------------------------------------------------------------------------------------------- the world


@dataclass
class World:
    network: Network
    home: Home
    model: Model
    relayer: Relayer
    node: bytes
    worker: Service
    next_escrow: int = 0

    @property
    def network_id(self) -> bytes:
        return network_id(self.network.global_id, self.network.registry)

    @property
    def data_dir(self) -> Path:
        return self.home.path / "node"

    async def operator(self) -> Operator:
        config = load(self.home.agent_config)
        return Operator(config, ground(config))

    async def client(self, offer: NodeOffer) -> Client:
        client = Client(self, self.next_escrow)
        self.next_escrow += 1
        await client.open()
        client.use(offer)
        return client

    async def node_state(self) -> NodeState:
        account = await self.network.chain.account(self.node)
        assert account.data is not None
        state = NodeState.from_cell(account.data)
        assert state is not None
        return state

    async def live_offer(self) -> NodeOffer:
        """The newest offer, once it is for the key that the chain shows."""
        async with asyncio.timeout(90):
            while True:
                offer = await self.relayer.offers.get()
                if offer.signing_key == (await self.node_state()).signing_key:
                    return offer

    def enclave_pid(self) -> int:
        children = Path(f"/proc/{self.worker.process.pid}/task/{self.worker.process.pid}/children").read_text()
        for child in children.split():
            if b"worker.enclave" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
        raise AssertionError("no enclave process")

    async def restart_worker(self) -> None:
        self.network.supervisor.services.remove(self.worker)
        await self.worker.kill(signal.SIGKILL)
        self.worker = await self.network.start_worker()


def write_configs(home: Home, registry: bytes, model_url: str, relayer_url: str) -> None:
    home.enclave_config.write_text(
        'global_id = -7001\nevidence = "simulated"\nsimulated_platform = "test"\n'
        "[prices]\nprompt = 2_000_000_000\ncached = 1\ncompletion = 4_000_000_000_000\nreasoning = 1\n"
        "minimum_nano = 1000\n"
        f'[engine]\nkind = "url"\nurl = "{model_url}"\nname = "scripted"\ncontext_tokens = 4096\n'
    )
    home.agent_config.write_text(
        f'network = "{home.profile}"\nregistry = "{registry.hex()}"\ndata_dir = "node"\n'
        f'enclave_config = "enclave.toml"\nwallet_file = "operator.mnemonic"\nrelayers = ["{relayer_url}"]\n'
        f"poll_seconds = 0.5\nreceipt_claim_nano = 1\n"
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    home = Home(tmp_path_factory.mktemp("net"), Ports.free())
    supervisor = Supervisor(home.logs)
    model = Model()
    runners = []

    async def serve(routes: list[web.RouteDef]) -> str:
        application = web.Application(client_max_size=8 << 20)
        application.add_routes(routes)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[union-attr]

    network = None
    try:
        network = await Network.start(home, supervisor, lambda _: None)
        relayer = Relayer(network_id(network.global_id, network.registry))
        model_host = await serve(
            [
                web.get("/v1/models", model.models),
                web.post("/v1/chat/completions", model.answer),
                web.post("/v1/completions", model.answer),
            ]
        )
        relayer.url = "ws://" + await serve([web.get("/v1/link", relayer.link)])
        write_configs(home, network.registry, f"http://{model_host}/v1", relayer.url)
        config = load(home.agent_config)
        base = ground(config)
        view = await Operator(config, base).open(5 * TON)
        await base.chain.close()
        relayer.release_key = view.state.release_key
        worker = await network.start_worker()
        yield World(network, home, model, relayer, base.node, worker)
    finally:
        if network is not None:
            await network.stop()
        else:
            await supervisor.stop()
        for runner in runners:
            await runner.cleanup()


async def test_g4_g16_a_node_from_attestation_to_crashes(world: World) -> None:
    """One story, since each chapter needs the one before: a minute of processes is bought once."""
    offer = await world.live_offer()
    client = await world.client(offer)

    # An answer, and its price in a receipt that the client checks.
    text, last = await client.ask()
    assert text == "".join(WORDS) and isinstance(last, Completed)
    amount = last.signed.receipt.amount_nano

    # The same request again is answered from the store and billed once.
    opening, request = await client.sealed()
    first = await world.relayer.open(request.to_bytes())
    await first.ended.wait()
    asked = len(world.model.prompts)
    again = await world.relayer.open(request.to_bytes())
    await again.ended.wait()
    assert again.frames == first.frames and len(world.model.prompts) == asked
    assert isinstance(client.read(opening, request, again.frames)[1], Completed)

    # A relayer's wish for a claim brings the whole amount to the node; no wallet is asked.
    claim = await world.relayer.ask(Kind.ASK_CLAIM, Kind.CLAIM, reason="amount", unclaimed_nano=1)
    assert claim["entries"] == [{"escrow": client.escrow.hex(), "cumulative_nano": 2 * amount, "seq": 2}]
    assert base64.b64decode(claim["message"])
    await client.wait_paid(2 * amount)
    assert (await world.node_state()).requests == 2

    # The enclave dies in the middle of an answer: a clear error, nothing billed, a new key by itself.
    await client.ask()
    unclaimed = await world.relayer.ask(
        Kind.ASK_RECEIPTS,
        Kind.RECEIPTS,
        allotment=(await client.row()).allotment.hex(),
        key=offer.signing_key.hex(),
        after_seq=2,
        limit=10,
    )
    (kept,) = unclaimed["receipts"]
    assert SignedReceipt.from_bytes(base64.b64decode(kept["frame"])).receipt.cumulative_nano == 3 * amount
    world.model.hold_after, world.model.gate = 2, asyncio.Event()
    opening, request = await client.sealed()
    broken = await world.relayer.open(request.to_bytes())
    await world.model.held.wait()
    os.kill(world.enclave_pid(), signal.SIGKILL)
    async with asyncio.timeout(10):
        await broken.ended.wait()
    _, last = client.read(opening, request, broken.frames)
    assert isinstance(last, Failed) and last.error.code is Code.NODE_GONE
    world.model.gate.set()
    world.model.hold_after = 1000
    old_key = offer.signing_key
    offer = await world.live_offer()
    assert offer.signing_key != old_key

    # What the dead key had signed is claimed by its receipt, without anybody asking.
    await client.wait_paid(3 * amount)
    row = await client.row()
    assert row.keys[old_key].paid_nano == 3 * amount
    client.use(offer)
    text, last = await client.ask()
    assert isinstance(last, Completed) and last.signed.receipt.seq == 1

    # The agent dies with an unclaimed receipt and in the middle of an answer; its successor has a new key, is paid for
    # the receipt, and does not know the answer that had none.
    world.model.hold_after, world.model.gate, world.model.held = 2, asyncio.Event(), asyncio.Event()
    _, request = await client.sealed()
    await world.relayer.open(request.to_bytes())
    await world.model.held.wait()
    world.model.hold_after = 1000
    await world.restart_worker()
    world.model.gate.set()
    newest = await world.live_offer()
    assert newest.signing_key not in (offer.signing_key, old_key)
    await client.wait_paid(4 * amount)
    assert sum(row.paid_nano for row in (await client.row()).keys.values()) == 4 * amount
    lost = await world.relayer.open(request.to_bytes())
    await lost.ended.wait()
    assert WireError.from_bytes(lost.frames[5:]).code is Code.SEALING_KEY_UNKNOWN
    client.use(newest)

    # A release is refused while something is owed, then given, and ends the service under the row as it stands.
    await client.ask()
    answer = await client.ask_release(4 * amount)
    assert answer["error"]["code"] == "unclaimed"
    await client.wait_paid(5 * amount)
    row = await client.row()
    answer = await client.ask_release(5 * amount)
    release = Release(row.allotment, row.seqno, 5 * amount)
    assert verify(release, bytes.fromhex(answer["signature"]), world.relayer.release_key)
    _, last = await client.ask()
    assert isinstance(last, Failed) and last.error.code is Code.ALLOTMENT_CLOSING
    stranger = await world.client(newest)
    stranger.key = Ed25519PrivateKey.generate()
    assert (await stranger.ask_release(0))["error"]["code"] == "not-authorised"

    # Settled by the operator alone: no relayer is asked.
    other = await world.client(newest)
    await other.ask()
    operator = await world.operator()
    try:
        status = await operator.status()
        assert status["owed_nano"] == amount and status["state"] == "live" and status["agent"]["serving"]
        settled = await operator.settle()
        assert settled["running"] and settled["batch"]["escrows"] == 1
        await other.wait_paid(amount)
        with pytest.raises(OperationRefused, match="bonded"):
            await operator.withdraw()
        with pytest.raises(OperationRefused, match="open already"):
            await operator.open(5 * TON)
    finally:
        await operator.ground.chain.close()

    # With the agent gone the wallet claims receipt by receipt, also for the key that is still active.
    await other.ask()
    world.network.supervisor.services.remove(world.worker)
    await world.worker.kill(signal.SIGKILL)
    operator = await world.operator()
    try:
        assert (await operator.settle())["receipts"] == 1
        await other.wait_paid(2 * amount)
        assert (await operator.settle())["receipts"] == 0
        assert (await operator.status())["owed_nano"] == 0
    finally:
        await operator.ground.chain.close()


async def test_g11_the_agent_held_no_text(world: World) -> None:
    """After all of the above: neither the store, the logs nor the relayer's wire knows a word of prompt or answer."""
    assert any(PROMPT in prompt for prompt in world.model.prompts)
    found = bytes(world.relayer.wire)
    for path in [*world.data_dir.iterdir(), *world.home.logs.iterdir()]:
        if path.is_file():
            found += path.read_bytes()
    for word in (PROMPT, *(word.strip() for word in WORDS)):
        assert word.encode() not in found, word
    with sqlite3.connect(world.data_dir / "receipts.db") as store:
        assert store.execute("SELECT count(*) FROM receipts").fetchone()[0] >= 7
