"""A whole world for a client in one process: a scripted enclave made of protocol pieces, a relayer, a chain of facts.

Nothing here is shipped. The enclave keeps the rules unless a test tells it to break one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Cell

from attestation.evidence import Evidence, Kind
from attestation.onchain.state import ChainImage
from attestation.policy import AllowedImage, Policy, Tier
from attestation.report_data import NO_GPU, Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import Registers, SimulatedTee
from chain.api import AccountState, BlockId, Head, Status, Transaction, Unreachable
from chain.config import Network
from chain.wallet import Wallet
from client.records import Escrow
from client.relayer_link import RelayerLink, Timeouts
from client.sdk import Client, Settings
from client.store import Store
from protocol import commitments
from protocol.enclave_account import EnclaveAccount
from protocol.errors import Code, WireError
from protocol.frames import Refusal, error_frame
from protocol.offer import AnnouncedKey, ModelOffer, NodeOffer
from protocol.opening import Opening
from protocol.pricing import Stop
from protocol.receipts import SignedReceipt
from protocol.sealing import SealedRequest, SealingKeyPair
from protocol.stream import ResponseWriter
from scripts.attest_stage import bare_state
from wrappers.addresses import Kind as Child
from wrappers.addresses import child_address
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.rows import KeyRow, Row, RowTerms
from wrappers.signed import Release, allotment_id, network_id, node_id, sign

GLOBAL_ID = -7001
REGISTRY = b"\x11" * 32
MODEL = Terms(b"\x77" * 32, 2_000_000, 500_000, 20_000_000, 20_000_000, 1_000)
NODE_EPOCH = 1_000_001
VERIFIER = b"\x33" * 32
ROW_EPOCH = 2_000_002


def _empty() -> Cell:
    return Cell.empty()


class FakeChain:
    """Facts that tests set. `down` makes it unreachable."""

    name = "fake"

    def __init__(self) -> None:
        self.accounts: dict[bytes, AccountState] = {}
        self.blocks: dict[int, Head] = {}
        self.down = False
        self.reads = 0

    def put(self, account: bytes, data: Cell | None, balance_nano: int = 10**9) -> None:
        status = Status.ABSENT if data is None else Status.ACTIVE
        self.accounts[account] = AccountState(account, status, balance_nano, None, data, 1, bytes(32))

    async def head(self) -> Head:
        self._check()
        return Head(BlockId(1000, b"\x01" * 32, b"\x02" * 32), int(time.time()))

    async def block(self, seqno: int) -> Head:
        self._check()
        return self.blocks[seqno]

    async def account(self, account: bytes) -> AccountState:
        self._check()
        self.reads += 1
        absent = AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))
        return self.accounts.get(account, absent)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        raise Unreachable("no history here")

    async def send(self, message: Cell) -> bytes:
        raise Unreachable("nothing can be sent here")

    async def close(self) -> None:
        pass

    def _check(self) -> None:
        if self.down:
            raise Unreachable("the chain is down")


@dataclass
class Enclave:
    """`answer`: lines of JSON objects. `break_receipt` changes a receipt before it is signed, `break_inner` its inner
    part. `refuse`: refusals to give, in order. `frames`: what was answered, by request id."""

    node: bytes
    network: bytes
    signing: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sealing: SealingKeyPair = field(default_factory=SealingKeyPair.generate)
    accounts: dict[bytes, EnclaveAccount] = field(default_factory=dict)
    frames: dict[bytes, list[bytes]] = field(default_factory=dict)
    opened: list[bytes] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], list[dict[str, Any]]] | None = None
    usage: tuple[int, int, int, int] = (10, 0, 5, 0)
    stop: Stop = Stop.END
    break_receipt: Callable[[Receipt], Receipt] = lambda receipt: receipt
    break_inner: Callable[[InnerReceipt], InnerReceipt] = lambda inner: inner
    refuse: list[Code] = field(default_factory=list)
    max_unacked: int = 64
    stored_only: bool = False

    @property
    def key(self) -> bytes:
        return self.signing.public_key().public_bytes_raw()

    @property
    def node_id(self) -> bytes:
        return node_id(self.network, self.node, NODE_EPOCH)

    def serve(self, data: bytes, voucher_key: bytes) -> list[bytes]:
        """Frames of the answer, each as bytes. A repeat gets the stored ones."""
        request = SealedRequest.from_bytes(data)
        if request.request_id in self.frames:
            return self.frames[request.request_id]
        request.check_authority(self.network, voucher_key, node=self.node, signing_key=self.key)
        opening = self.sealing.open(request)
        assert request.request_id not in self.opened, "an enclave opens a request once"
        self.opened.append(request.request_id)
        self.openings.append(opening)
        writer = ResponseWriter(
            response_secret=opening.response_secret,
            enc=request.enc,
            request_id=request.request_id,
            worker_nonce=secrets.token_bytes(32),
            quantum_bytes=opening.shape.quantum_bytes,
        )
        frames = [writer.head(), *self._answer(request, opening, writer)]
        self.frames[request.request_id] = frames
        return frames

    def _answer(self, request: SealedRequest, opening: Opening, writer: ResponseWriter) -> list[bytes]:
        voucher = request.voucher
        account = self.accounts.get(voucher.allotment) or EnclaveAccount(voucher.allotment, self.node_id, self.key)
        if self.refuse:
            self.accounts[voucher.allotment] = account
            return [writer.refusal(Refusal(WireError.of(self.refuse.pop(0)), account.missed))]
        account, refusal = account.admit(
            voucher,
            request.voucher_signature,
            request_id=request.request_id,
            maximum_nano=opening.maximum_nano,
            terms=opening.terms,
            acked_seq=opening.acked_seq,
            max_unacked=self.max_unacked,
        )
        if refusal is not None:
            self.accounts[voucher.allotment] = account
            return [writer.refusal(refusal)]
        body = json.loads(opening.body)
        lines = self.answer(body) if self.answer else answer_lines(body)
        frames = [writer.data(json.dumps(line).encode() + b"\n") for line in lines]
        inner = self.break_inner(
            InnerReceipt(
                commitments.inner_salt(opening.response_secret),
                opening.terms.model,
                *self.usage,
                self.stop,
                commitments.request_commitment(opening.response_secret, request.request_id, opening.body),
                writer.commitment.digest(),
                commitments.NOTHING,
            )
        )
        account, issued = account.issue(request.request_id, inner, self.signing)
        receipt = self.break_receipt(issued.signed.receipt)
        signed = SignedReceipt(receipt, sign(receipt, self.signing))
        kept = replace(account.unacked[-1], signed=signed)
        self.accounts[voucher.allotment] = replace(account, unacked=(*account.unacked[:-1], kept))
        return [*frames, writer.receipt(signed), writer.last(inner)]


def answer_lines(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What a small engine says: OpenAI chunks, or one whole object."""
    words = ["The ", "answer ", "is ", "42."]
    base = {"id": "cmpl-1", "created": 1, "model": body.get("model", "m")}
    if "messages" not in body:
        return [
            base | {"object": "text_completion", "choices": [_text_choice("".join(words), "stop")], "usage": _USAGE}
        ]
    if not body.get("stream"):
        message = {"role": "assistant", "content": "".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}
        return [base | {"object": "chat.completion", "choices": [choice], "usage": _USAGE}]
    base["object"] = "chat.completion.chunk"
    chunks = [base | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]} for word in words]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(base | {"choices": [], "usage": _USAGE})
    return chunks


_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _text_choice(text: str, reason: str) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": reason, "logprobs": None}


@dataclass
class World:
    """Everything around a client. Tests change what they need before or while it runs."""

    home: Path
    chain: FakeChain
    wallet: Wallet
    enclave: Enclave
    tee: SimulatedTee
    policy: Policy
    voucher: Ed25519PrivateKey
    url: str = ""
    allow_simulated: bool = True
    posts: list[bytes] = field(default_factory=list)
    on_post: list[Callable[[web.Request, list[bytes]], Any]] = field(default_factory=list)
    """Behaviours of the relayer for the next posts, in order; then it is honest."""
    on_offer: Callable[[NodeOffer], NodeOffer] = lambda offer: offer
    sealing_life: int = 3600
    release_codes: list[str] = field(default_factory=list)

    @property
    def network(self) -> bytes:
        return network_id(GLOBAL_ID, REGISTRY)

    @property
    def node(self) -> bytes:
        return self.enclave.node

    @property
    def escrow(self) -> bytes:
        return child_address(REGISTRY, Child.ESCROW, self.wallet.account, 0)

    def settings(self, **changes: Any) -> Settings:
        base = Settings(
            home=self.home,
            network=Network("devnet", GLOBAL_ID, ("http://a.invalid", "http://b.invalid")),
            registry=REGISTRY,
            relayer_url=self.url,
            policy=self.policy,
            allow_simulated=self.allow_simulated,
        )
        return replace(base, **changes)

    @contextlib.asynccontextmanager
    async def client(self, **changes: Any) -> AsyncIterator[Client]:
        link = RelayerLink(self.url, Timeouts(connect=2, document=5, first_frame=5, silence=5))
        async with Client.open(self.settings(**changes), self.wallet, chain=self.chain, link=link) as client:
            yield client

    # ---- the chain's facts

    def node_state(self, **changes: Any) -> NodeState:
        state = NodeState(
            seqno=0,
            tokens=0,
            node_id=self.enclave.node_id,
            signing_key=self.enclave.key,
            acked_only=False,
            claims_until=int(time.time()) + 3600 + 604_800,
            stake_nano=10**10,
            requests=0,
            earned_nano=0,
            unbond_at=0,
            block_seqno=900,
            tier=int(Tier.SIMULATED),
            retired={},
            measurement=self.tee.registers.measurement,
            platform=self.tee.platform_id,
            controller=b"\x21" * 32,
            payout=b"\x22" * 32,
            release_key=RELEASE_KEY.public_key().public_bytes_raw(),
            extras=None,
            registry=REGISTRY,
            stub_prefix=bytes(39),
            gas_level_nano=10**9,
            payout_threshold_nano=10**8,
            rent_reserve_nano=10**8,
            court=bytes(32),
            owner=OWNER,
            index=0,
            epoch=NODE_EPOCH,
            attestation=VERIFIER,
            unbonding=604_800,
            claim_window=604_800,
            challenge_window=259_200,
        )
        return replace(state, **changes)

    def show_node(self, **changes: Any) -> None:
        state = self.node_state(**changes)
        self.chain.put(self.node, state.to_cell())
        self.show_verifier({self.tee.registers.measurement: ChainImage()})

    def show_verifier(
        self, images: dict[bytes, ChainImage], platforms: dict[bytes, tuple[bool, bytes]] | None = None
    ) -> None:
        self.chain.put(VERIFIER, bare_state(images, platforms))

    def row(self, **changes: Any) -> Row:
        terms = RowTerms(RELEASE_KEY.public_key().public_bytes_raw(), 3600)
        allotment = allotment_id(self.network, self.escrow, ROW_EPOCH, self.node)
        return replace(Row(ROW_EPOCH, 10**9, 0, 1, 0, terms, {}, None, allotment), **changes)

    def show_escrow(self, *rows: Row, **changes: Any) -> None:
        state = EscrowState(
            voucher_key=self.voucher.public_key().public_bytes_raw(),
            network_id=self.network,
            closing=False,
            deposit_nano=2 * 10**9,
            reserved_nano=sum(row.allotted_nano - row.paid_nano for row in rows),
            accrued_nano=0,
            rows=dict.fromkeys([self.node], rows[0]) if rows else {},
            registry=REGISTRY,
            owner=self.wallet.account,
            index=0,
            min_close_timer=3600,
            max_close_timer=604_800,
        )
        self.chain.put(self.escrow, replace(state, **changes).to_cell())

    def restart_enclave(self) -> None:
        """A new process has a new key; the chain and the evidence follow."""
        self.enclave = Enclave(self.node, self.network)
        self.show_node()

    def paid_row(self, key: bytes, paid_nano: int, **changes: Any) -> Row:
        return self.row(paid_nano=paid_nano, keys={key: KeyRow(paid_nano, paid_nano, 0, 1)}, current_key=key, **changes)

    # ---- the relayer

    def offer(self) -> NodeOffer:
        binding = Binding(self.network, self.node, NODE_EPOCH, self.enclave.key, NO_GPU, 900, b"\x09" * 32)
        evidence = Evidence(Kind.SIMULATED, self.tee.quote(binding.report_data()), binding)
        now = int(time.time())
        collateral = mint(now)
        announced = AnnouncedKey.announce(
            self.enclave.sealing, self.enclave.node_id, now + self.sealing_life, self.enclave.signing
        )
        offer = NodeOffer(
            self.network,
            self.node,
            NODE_EPOCH,
            self.enclave.key,
            {"evidence": json.loads(evidence.to_json()), "collateral": json.loads(collateral.to_json())},
            (announced,),
            (ModelOffer("tiny", 2048, MODEL),),
        )
        return self.on_offer(offer)

    def application(self) -> web.Application:
        app = web.Application(client_max_size=8 << 20)
        app.router.add_get("/v1/nodes", self._nodes)
        app.router.add_get("/v1/nodes/{account}", self._one_node)
        app.router.add_post("/v1/requests", self._requests)
        app.router.add_post("/v1/release", self._release)
        app.router.add_get("/v1/receipts", self._receipts)
        return app

    def _view(self) -> dict[str, Any]:
        return {"node": self.node.hex(), "offer": json.loads(self.offer().to_json()), "ready": True}

    async def _nodes(self, request: web.Request) -> web.Response:
        return web.json_response({"nodes": [self._view()]})

    async def _one_node(self, request: web.Request) -> web.Response:
        if request.match_info["account"] != self.node.hex():
            return refusal("node-unknown", 404)
        return web.json_response(self._view())

    async def _requests(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        self.posts.append(data)
        sealed = SealedRequest.from_bytes(data)
        if sealed.voucher.key != self.enclave.key:
            return refusal("sealing-key-unknown", 409)
        behaviour = self.on_post.pop(0) if self.on_post else None
        if behaviour is not None and getattr(behaviour, "before", False):
            return await behaviour(request, [])
        frames = self.enclave.serve(data, self.voucher.public_key().public_bytes_raw())
        if behaviour is not None:
            return await behaviour(request, frames)
        return await stream(request, frames)

    async def _release(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.release_codes:
            return refusal(self.release_codes.pop(0), 409)
        release = Release(bytes.fromhex(body["allotment"]), body["row_seqno"], body["allotted_nano"])
        fields = {name: body[name] for name in ("allotment", "row_seqno", "allotted_nano")}
        return web.json_response({**fields, "signature": sign(release, RELEASE_KEY).hex()})

    async def _receipts(self, request: web.Request) -> web.Response:
        found = []
        for account in self.enclave.accounts.values():
            for one in account.unacked:
                if one.signed.receipt.seq > int(request.query["after"]):
                    found.append({"frame": base64.b64encode(one.signed.to_bytes()).decode()})
        return web.json_response({"receipts": found, "more": False})


OWNER = b"\x44" * 32
RELEASE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x55" * 32)


def refusal(code: str, status: int, retry_after: int | None = None) -> web.Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    body = {"code": code, "cause": f"cause of {code}", "cure": f"cure of {code}"}
    return web.json_response(body, status=status, headers=headers)


async def stream(request: web.Request, parts: list[bytes], *, cut: bool = False) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/vnd.cocoon.frames"})
    response.enable_chunked_encoding()
    await response.prepare(request)
    for part in parts:
        await response.write(part)
    if cut:
        assert request.transport is not None
        request.transport.abort()
    return response


class Behave:
    """Ways in which a relayer can treat one post."""

    @staticmethod
    def cut_after(count: int) -> Any:
        """The connection breaks after `count` frames."""

        async def behave(request: web.Request, frames: list[bytes]) -> web.StreamResponse:
            return await stream(request, frames[:count], cut=True)

        return behave

    @staticmethod
    def end_after(count: int) -> Any:
        async def behave(request: web.Request, frames: list[bytes]) -> web.StreamResponse:
            return await stream(request, frames[:count])

        return behave

    @staticmethod
    def change(edit: Callable[[list[bytes]], list[bytes]]) -> Any:
        async def behave(request: web.Request, frames: list[bytes]) -> web.StreamResponse:
            return await stream(request, edit(frames))

        return behave

    @staticmethod
    def error_after(count: int, code: Code) -> Any:
        async def behave(request: web.Request, frames: list[bytes]) -> web.StreamResponse:
            return await stream(request, [*frames[:count], error_frame(WireError.of(code)).to_bytes()])

        return behave

    @staticmethod
    def refuse(code: str, status: int, retry_after: int | None = None) -> Any:
        """Before the node sees anything."""

        async def behave(request: web.Request, frames: list[bytes]) -> web.StreamResponse:
            return refusal(code, status, retry_after)

        behave.before = True  # type: ignore[attr-defined]
        return behave


@pytest.fixture
def behave() -> type[Behave]:
    return Behave


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    node = child_address(REGISTRY, Child.NODE, OWNER, 0)
    tee = SimulatedTee(b"client tests")
    policy = Policy(
        images=(AllowedImage("worker", Registers.of_image().measurement),),
        max_age_seconds=604_800,
        tiers=frozenset(Tier),
        allow_simulated=True,
        block_required=False,
    )
    made = World(
        home=tmp_path / "client",
        chain=FakeChain(),
        wallet=Wallet(Ed25519PrivateKey.generate()),
        enclave=Enclave(node, network_id(GLOBAL_ID, REGISTRY)),
        tee=tee,
        policy=policy,
        voucher=Ed25519PrivateKey.generate(),
    )
    made.home.mkdir(mode=0o700)
    key_file = made.home / "voucher-0.key"
    key_file.touch(mode=0o600)
    key_file.write_text(made.voucher.private_bytes_raw().hex())
    store = Store.open(made.home, network_id=made.network, registry=REGISTRY, owner=made.wallet.account)
    store.put_escrow(Escrow(0, made.escrow, made.voucher.public_key().public_bytes_raw(), "open"))
    store.close()
    made.show_node()
    made.show_escrow(made.row())
    made.chain.put(made.wallet.account, _empty(), 5 * 10**9)
    server = TestServer(made.application())
    await server.start_server()
    made.url = str(server.make_url("")).rstrip("/")
    try:
        yield made
    finally:
        await server.close()
