"""An enclave session with a scripted engine, its agent over a socket pair, and clients of the protocol."""

import asyncio
import json
import secrets
import socket
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.evidence import Kind
from attestation.provider import Simulated
from protocol import commitments
from protocol.opening import Endpoint, Opening, Shape
from protocol.receipts import Expectation, IssuedReceipt, check_issued
from protocol.sealing import SealedRequest, seal
from protocol.stream import Completed, Data, ResponseReader
from worker.enclave.config import EnclaveConfig, Prices
from worker.enclave.keys import Keys
from worker.enclave.loaded import Loaded
from worker.enclave.session import Session
from worker.engine import api
from worker.link import FROM_AGENT, FROM_ENCLAVE, Link
from worker.messages import (
    Answer,
    Introduce,
    Issued,
    Post,
    Ready,
    SealingKeys,
    Stored,
)
from wrappers.cells import from_boc
from wrappers.receipts import Terms, Voucher
from wrappers.signed import allotment_id, node_id

NETWORK, NODE, EPOCH, ESCROW, ROW_EPOCH = b"N" * 32, b"n" * 32, 41, b"e" * 32, 17
NODE_ID = node_id(NETWORK, NODE, EPOCH)
PROMPT = "the quick secret of the prompt"


class ScriptedEngine:
    """Answers with given words; `breaks_after` words it fails, `gate` holds it back."""

    def __init__(self) -> None:
        self.words = ["one ", "two ", "three "]
        self.breaks_after: int | None = None
        self.gate: asyncio.Event | None = None
        self.gate_after = 0
        self.held = asyncio.Event()
        self.prompt_tokens = 10
        self.salts: list[str] = []
        self.requests: list[dict] = []
        self.closed_streams = 0

    async def start(self) -> api.ModelInfo:
        return api.ModelInfo("tiny", b"m" * 32, 1000, True)

    async def chat(self, request, *, cache_salt=""):
        self.salts.append(cache_salt)
        self.requests.append(dict(request))
        try:
            words = self.words[: request.get("max_tokens", 1000)]
            for count, word in enumerate(words):
                if self.gate is not None and count >= self.gate_after:
                    self.held.set()
                    await self.gate.wait()
                if self.breaks_after is not None and count >= self.breaks_after:
                    raise api.EngineError("The engine died", "Restart it", detail="secret detail")
                raw = {"choices": [{"index": 0, "delta": {"content": word}}]}
                yield api.Delta(word, raw, api.Usage(self.prompt_tokens, 0, count + 1))
                await asyncio.sleep(0)
            if self.breaks_after is not None and self.breaks_after >= len(words):
                raise api.EngineError("The engine died", "Restart it")
            yield api.Done(api.Usage(self.prompt_tokens, 0, len(words)), "stop")
        finally:
            self.closed_streams += 1

    async def close(self) -> None:
        pass


@dataclass
class Answered:
    frames: bytes = b""
    issued: Issued | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    receipted: asyncio.Event = field(default_factory=asyncio.Event)


class Agent:
    """The other end of the link: collects answers, acknowledges receipts when `acks` says so."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.acks = True
        self.answers: dict[bytes, Answered] = {}
        self.inbox: asyncio.Queue = asyncio.Queue()
        self.raw = b""

    async def run(self) -> None:
        while True:
            message = await self.link.receive()
            if isinstance(message, Answer):
                answered = self.answers[message.request_id]
                answered.frames += message.frames
                self.raw += message.frames
                if message.ends:
                    answered.ended.set()
            elif isinstance(message, Issued):
                answered = self.answers[message.request_id]
                answered.frames += message.frame
                self.raw += message.body()
                answered.issued = message
                answered.receipted.set()
                if self.acks:
                    self.link.post(Stored(message.request_id))
            else:
                await self.inbox.put(message)

    async def expect(self, kind):
        async with asyncio.timeout(5):
            message = await self.inbox.get()
        assert isinstance(message, kind), message
        return message


class Client:
    """A client of the protocol: promises, seals, reads, accepts."""

    def __init__(self, house: "House", key: Ed25519PrivateKey | None = None, escrow: bytes = ESCROW) -> None:
        self.house = house
        self.key = key or Ed25519PrivateKey.generate()
        self.escrow = escrow
        self.allotment = allotment_id(NETWORK, escrow, ROW_EPOCH, NODE)
        self.acked_seq, self.acked_nano, self.in_flight = 0, 0, 0

    @property
    def voucher_key(self) -> bytes:
        return self.key.public_key().public_bytes_raw()

    def sealed(self, *, maximum: int = 5000, cap: int | None = None, terms: Terms | None = None, body=None, **changes):
        terms = terms or self.house.terms
        cap = self.acked_nano + self.in_flight + maximum if cap is None else cap
        voucher = Voucher(self.allotment, self.house.ready.signing_key, cap, self.acked_nano, terms.hash)
        if body is None:
            body = {"messages": [{"role": "user", "content": PROMPT}], "stream": True}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        opening = Opening(
            secrets.token_bytes(32), maximum, self.acked_seq, terms, Endpoint.CHAT_COMPLETIONS, raw, Shape.plain()
        )
        if "shape" in changes:
            opening = replace(opening, shape=changes.pop("shape"))
        fields = dict(
            request_id=secrets.token_bytes(32),
            escrow=self.escrow,
            allotment_epoch=ROW_EPOCH,
            node=NODE,
            sealing_key=self.house.sealing[0].public_key,
            voucher=voucher,
            voucher_key=self.key,
        )
        return opening, seal(opening, **(fields | changes))

    def expectation(self, opening: Opening, request: SealedRequest) -> Expectation:
        return Expectation(
            self.allotment,
            NODE_ID,
            self.house.ready.signing_key,
            opening.terms,
            opening.maximum_nano,
            commitments.inner_salt(opening.response_secret),
            commitments.request_commitment(opening.response_secret, request.request_id, opening.body),
        )

    def read(self, opening: Opening, request: SealedRequest, frames: bytes):
        reader = ResponseReader(response_secret=opening.response_secret, enc=request.enc, request_id=request.request_id)
        events = reader.feed(frames)
        return events

    async def ask(self, **changes):
        """(text lines, last event) of one request, acknowledged and checked."""
        opening, request = self.sealed(**changes)
        self.in_flight += opening.maximum_nano
        answered = await self.house.post(request, self.voucher_key)
        self.in_flight -= opening.maximum_nano
        return self.check(opening, request, answered.frames)

    def check(self, opening: Opening, request: SealedRequest, frames: bytes):
        events = self.read(opening, request, frames)
        last = events[-1]
        if isinstance(last, Completed):
            issued = IssuedReceipt(request.request_id, last.signed, last.inner)
            check_issued(issued, self.expectation(opening, request), last.response)
            receipt = last.signed.receipt
            if receipt.seq == self.acked_seq + 1:
                self.acked_seq, self.acked_nano = receipt.seq, receipt.cumulative_nano
        text = b"".join(event.plaintext for event in events if isinstance(event, Data))
        return [json.loads(line) for line in text.splitlines()], last


class House:
    """An enclave session and its agent over a socket pair."""

    async def start(self, engine: ScriptedEngine, **config) -> "House":
        self.engine = engine
        prices = Prices(1 << 20, 1 << 19, 3 << 20, 4 << 20, 5)
        guard = config.pop("guard", None)
        self.config = EnclaveConfig(-7001, prices, Kind.SIMULATED, **config)
        keys, quotes = Keys(self.config.sealing_seconds), Simulated(b"test platform")
        self.loaded = Loaded(self.config, keys, engine, await engine.start(), quotes, guard)
        left, right = socket.socketpair()
        self.enclave_link = Link(*await asyncio.open_connection(sock=left), FROM_AGENT)
        self.agent = Agent(Link(*await asyncio.open_connection(sock=right), FROM_ENCLAVE))
        self.session = asyncio.create_task(Session(self.loaded, self.enclave_link).run())
        self.reading = asyncio.create_task(self.agent.run())
        self.ready = await self.agent.expect(Ready)
        self.terms = Terms.from_cell(from_boc(self.ready.models[0].terms))
        self.agent.link.post(Introduce(NETWORK, NODE, EPOCH, 1000))
        self.sealing = (await self.agent.expect(SealingKeys)).keys
        return self

    async def post(self, request: SealedRequest, voucher_key: bytes, *, wait: bool = True) -> Answered:
        answered = self.agent.answers[request.request_id] = Answered()
        self.agent.link.post(Post(request.request_id, voucher_key, request.to_bytes()))
        if wait:
            async with asyncio.timeout(10):
                await answered.ended.wait()
        return answered

    async def stop(self) -> None:
        self.reading.cancel()
        await asyncio.gather(self.reading, return_exceptions=True)
        await self.agent.link.close()
        await asyncio.gather(self.session, return_exceptions=True)
        await self.enclave_link.close()
