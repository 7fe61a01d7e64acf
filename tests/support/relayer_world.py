"""A small world for the relayer's tests: a chain in memory, an agent with an enclave in it, a client.

Protocol, wrappers and link bytes are the real ones; only consensus, hardware and the model are missing. Tests load this
file by path (the test folders are no packages).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Cell, begin_cell

from attestation.onchain.state import ChainImage
from chain.api import AccountState, BlockId, Head, Refused, Status, Transaction, Unreachable
from chain.decode import decode_message
from protocol import commitments, link
from protocol.frames import Refusal
from protocol.link import Kind
from protocol.offer import AnnouncedKey, ModelOffer, NodeOffer
from protocol.opening import Endpoint, Opening, Shape
from protocol.pricing import Stop
from protocol.receipts import SignedReceipt
from protocol.sealing import SealedRequest, SealingKeyPair, seal
from protocol.stream import ResponseReader, ResponseWriter
from scripts.attest_stage import bare_state
from wrappers.addresses import Kind as ChildKind
from wrappers.addresses import child_address
from wrappers.cells import to_boc
from wrappers.claims import ClaimEntry, ClaimMessage, Entry, batch, claim_message, receipts_root
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.receipts import InnerReceipt, Receipt, Terms, Voucher
from wrappers.rows import KeyRow, Row, RowTerms
from wrappers.signed import Claim, Release, allotment_id, network_id, node_id, sign, verify

GLOBAL_ID = -7001
REGISTRY = b"\x0a" * 32
NETWORK = network_id(GLOBAL_ID, REGISTRY)
TON = 10**9
VERIFIER, IMAGE = b"\x33" * 32, b"\x31" * 32
TERMS = Terms(b"\x00" * 32, 1 << 20, 1 << 20, 1 << 30, 1 << 30, 1000)
PRICE_NANO = 5_000_000


def raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class MemoryChain:
    """chain.api.Chain over a dictionary. Applies batch claims the way node and escrow do, and counts what was paid."""

    name = "memory a + memory b"

    def __init__(self) -> None:
        self.data: dict[bytes, Cell | None] = {}
        self.history: dict[bytes, list[Transaction]] = {}
        self.sent: list[bytes] = []
        self.paid: list[tuple[bytes, bytes, int]] = []
        """(escrow, key, amount) of every payment ever made."""
        self.down = False
        self.dropping = False
        self.shift_seconds = 0
        self.lt = 1_000_000
        self.put(VERIFIER, bare_state({IMAGE: ChainImage()}))

    def put(self, account: bytes, data: Cell | None) -> None:
        self.lt += 1000
        history = self.history.setdefault(account, [])
        before = history[-1] if history else None
        history.append(
            Transaction(
                account=account,
                lt=self.lt,
                hash=hashlib.sha256(account + self.lt.to_bytes(8, "big")).digest(),
                prev_lt=before.lt if before else 0,
                prev_hash=before.hash if before else bytes(32),
                now=self.now,
                in_msg=None,
                out_msgs=(),
                total_fees_nano=0,
                aborted=False,
                exit_code=0,
                action_code=0,
                gas_used=0,
                cell=begin_cell().end_cell(),
            )
        )
        self.data[account] = data

    @property
    def now(self) -> int:
        return int(time.time()) + self.shift_seconds

    def _up(self) -> None:
        if self.down:
            raise Unreachable("memory a is down; bring it back")

    async def head(self) -> Head:
        self._up()
        return Head(BlockId(self.now, bytes(32), bytes(32)), self.now)

    async def account(self, account: bytes) -> AccountState:
        self._up()
        history = self.history.get(account, [])
        last_lt, last_hash = (history[-1].lt, history[-1].hash) if history else (0, bytes(32))
        data = self.data.get(account)
        if data is None:
            return AccountState(account, Status.ABSENT, 0, None, None, last_lt, last_hash)
        return AccountState(account, Status.ACTIVE, TON, begin_cell().end_cell(), data, last_lt, last_hash)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        self._up()
        older = [one for one in self.history.get(account, []) if one.lt <= lt]
        return tuple(reversed(older))[:limit]

    async def send(self, message: Cell) -> bytes:
        self._up()
        self.sent.append(bytes(message.hash))
        if not self.dropping:
            self._claim(message)
        return bytes(message.hash)

    def _claim(self, message: Cell) -> None:
        decoded = decode_message(message)
        node = decoded.destination
        assert node is not None
        data = self.data[node]
        state = NodeState.from_cell(data) if data is not None else None
        claim = ClaimMessage.from_cell(decoded.body)
        if state is None or claim.seqno != state.seqno or not self.now < claim.valid_until <= self.now + 120:
            raise Refused("external message was not accepted: exit code 33")
        signed = Claim(
            state.node_id,
            claim.seqno,
            claim.valid_until,
            len(claim.entries),
            claim.tokens,
            decoded.body.refs[0].hash,
            decoded.body.refs[1].hash,
        )
        assert state.signing_key is not None and verify(signed, claim.signature, state.signing_key)
        earned_nano = sum(self._settle(one, node, state.signing_key) for one in claim.entries)
        self.put(node, replace(state, seqno=state.seqno + 1, earned_nano=state.earned_nano + earned_nano).to_cell())

    def _settle(self, one: ClaimEntry, node: bytes, key: bytes) -> int:
        data = self.data[one.escrow]
        escrow = EscrowState.from_cell(data, one.escrow) if data is not None else None
        if escrow is None or node not in escrow.rows:
            return 0
        row = escrow.rows[node]
        known = row.keys.get(key, KeyRow())
        amount = min(
            min(one.entry.cumulative_nano, one.entry.cap_nano) - known.paid_nano, row.allotted_nano - row.paid_nano
        )
        if amount <= 0:
            return 0
        self.paid.append((one.escrow, key, amount))
        keys = {**row.keys, key: replace(known, paid_nano=known.paid_nano + amount, seq=one.entry.seq)}
        rows = {**escrow.rows, node: replace(row, paid_nano=row.paid_nano + amount, keys=keys, current_key=key)}
        after = replace(
            escrow, rows=rows, deposit_nano=escrow.deposit_nano - amount, reserved_nano=escrow.reserved_nano - amount
        )
        self.put(one.escrow, after.to_cell())
        return amount

    async def close(self) -> None:
        return None


@dataclass
class Machine:
    """A node on chain with the keys of its enclave and its operator."""

    owner: bytes = b"\x21" * 32
    seed: bytes = b"machine"
    epoch: int = 77

    def __post_init__(self) -> None:
        self.signing = _key(self.seed + b"signing")
        self.release = _key(self.seed + b"release")
        self.account = child_address(REGISTRY, ChildKind.NODE, self.owner, 0)
        self.id = node_id(NETWORK, self.account, self.epoch)
        self.key = raw_public(self.signing)
        self.sealing = SealingKeyPair.generate()

    def state(self, **changes: object) -> NodeState:
        claim_window = 7 * 86_400
        state = NodeState(
            seqno=0,
            tokens=0,
            node_id=self.id,
            signing_key=self.key,
            acked_only=False,
            claims_until=int(time.time()) + 86_400 + claim_window,
            stake_nano=100 * TON,
            requests=0,
            earned_nano=0,
            unbond_at=0,
            block_seqno=1,
            tier=0,
            retired={},
            measurement=IMAGE,
            platform=b"\x32" * 32,
            controller=self.owner,
            payout=self.owner,
            release_key=raw_public(self.release),
            extras=None,
            registry=REGISTRY,
            stub_prefix=bytes(39),
            gas_level_nano=TON,
            payout_threshold_nano=TON,
            rent_reserve_nano=TON,
            court=bytes(32),
            owner=self.owner,
            index=0,
            epoch=self.epoch,
            attestation=VERIFIER,
            unbonding=86_400,
            claim_window=claim_window,
            challenge_window=86_400,
        )
        return replace(state, **changes)  # type: ignore[arg-type]

    def offer(self) -> NodeOffer:
        expires_at = int(time.time()) + 3600
        key = AnnouncedKey.announce(self.sealing, self.id, expires_at, self.signing)
        model = ModelOffer("scripted", 2048, TERMS)
        return NodeOffer(
            NETWORK, self.account, self.epoch, self.key, {"evidence": {"kind": "simulated"}}, (key,), (model,)
        )


def _key(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed).digest())


@dataclass
class Client:
    """An escrow with one row for the machine, and the client's side of sealing."""

    machine: Machine
    owner: bytes = b"\x41" * 32
    allotted_nano: int = TON
    row_epoch: int = 555

    def __post_init__(self) -> None:
        self.voucher_key = _key(self.owner + b"voucher")
        self.account = child_address(REGISTRY, ChildKind.ESCROW, self.owner, 0)
        self.allotment = allotment_id(NETWORK, self.account, self.row_epoch, self.machine.account)
        self.acked_nano = 0
        self.acked_seq = 0

    def state(self, **changes: object) -> EscrowState:
        row = Row(self.row_epoch, self.allotted_nano, 0, 0, 0, RowTerms(raw_public(self.machine.release), 3600))
        state = EscrowState(
            voucher_key=raw_public(self.voucher_key),
            network_id=NETWORK,
            closing=False,
            deposit_nano=2 * TON,
            reserved_nano=self.allotted_nano,
            accrued_nano=0,
            rows={self.machine.account: row},
            registry=REGISTRY,
            owner=self.owner,
            index=0,
            min_close_timer=3600,
            max_close_timer=7 * 86_400,
        )
        return replace(state, **changes)  # type: ignore[arg-type]

    def seal(
        self, prompt: str, *, cap_nano: int | None = None, request_id: bytes | None = None
    ) -> tuple[SealedRequest, bytes]:
        """The request and its response secret."""
        secret = secrets.token_bytes(32)
        opening = Opening(
            secret, PRICE_NANO, self.acked_seq, TERMS, Endpoint.CHAT_COMPLETIONS, prompt.encode(), Shape()
        )
        cap = self.acked_nano + PRICE_NANO if cap_nano is None else cap_nano
        voucher = Voucher(self.allotment, self.machine.key, cap, self.acked_nano, TERMS.hash)
        sealed = seal(
            opening,
            request_id=request_id or secrets.token_bytes(32),
            escrow=self.account,
            allotment_epoch=self.row_epoch,
            node=self.machine.account,
            sealing_key=self.machine.sealing.public_key,
            voucher=voucher,
            voucher_key=self.voucher_key,
        )
        return sealed, secret

    def reader(self, sealed: SealedRequest, secret: bytes) -> ResponseReader:
        return ResponseReader(response_secret=secret, enc=sealed.enc, request_id=sealed.request_id)


Answer = Callable[["Enclave", SealedRequest], AsyncIterator[bytes]]


@dataclass
class Enclave:
    """Opens, answers and signs, with the answers a test gives it."""

    machine: Machine
    words: list[str] = field(default_factory=lambda: ["hello", " sealed", " world"])
    pause_seconds: float = 0.0
    cumulative: dict[bytes, int] = field(default_factory=dict)
    receipts: dict[bytes, list[SignedReceipt]] = field(default_factory=dict)
    vouchers: dict[bytes, tuple[SealedRequest, SignedReceipt]] = field(default_factory=dict)
    stored: dict[bytes, bytes] = field(default_factory=dict)
    runs: int = 0

    async def answer(self, sealed: SealedRequest) -> AsyncIterator[bytes]:
        """One message's worth of frames at a time."""
        if sealed.request_id in self.stored:
            yield self.stored[sealed.request_id]
            return
        self.runs += 1
        opening = self.machine.sealing.open(sealed)
        writer = ResponseWriter(
            response_secret=opening.response_secret,
            enc=sealed.enc,
            request_id=sealed.request_id,
            worker_nonce=secrets.token_bytes(32),
        )
        whole = writer.head()
        yield whole
        for word in self.words:
            await asyncio.sleep(self.pause_seconds)
            part = writer.data(word.encode())
            whole += part
            yield part
        inner = InnerReceipt(
            commitments.inner_salt(opening.response_secret),
            bytes(32),
            3,
            0,
            len(self.words),
            0,
            Stop.END,
            commitments.request_commitment(opening.response_secret, sealed.request_id, opening.body),
            writer.commitment.digest(),
            commitments.NOTHING,
        )
        signed = self.issue(sealed, PRICE_NANO, inner.hash)
        end = writer.receipt(signed) + writer.last(inner)
        self.stored[sealed.request_id] = whole + end
        yield end

    def issue(self, sealed: SealedRequest, amount_nano: int, inner: bytes) -> SignedReceipt:
        allotment = sealed.voucher.allotment
        chain = self.receipts.setdefault(allotment, [])
        total = self.cumulative.get(allotment, 0) + amount_nano
        self.cumulative[allotment] = total
        previous = chain[-1].receipt.hash if chain else bytes(32)
        receipt = Receipt(allotment, self.machine.id, len(chain) + 1, TERMS.hash, amount_nano, total, previous, inner)
        signed = SignedReceipt(receipt, sign(receipt, self.machine.signing))
        chain.append(signed)
        self.vouchers[allotment] = (sealed, signed)
        return signed

    def claim(self, seqno: int, now: int) -> bytes:
        """Whole external message as a bag of cells."""
        entries = []
        for allotment, (sealed, signed) in self.vouchers.items():
            voucher = sealed.voucher
            entry = Entry(
                signed.receipt.cumulative_nano,
                signed.receipt.seq,
                voucher.cap_nano,
                voucher.acked_nano,
                voucher.terms,
                sealed.voucher_signature,
            )
            root = receipts_root([one.receipt for one in self.receipts[allotment]])
            entries.append(ClaimEntry(sealed.escrow, entry, root))
        entries_cell, roots_cell = batch(entries)
        valid_until = now + 100
        header = Claim(self.machine.id, seqno, valid_until, len(entries), 0, entries_cell.hash, roots_cell.hash)
        signature = sign(header, self.machine.signing)
        return to_boc(claim_message(self.machine.account, signature, seqno, valid_until, 0, entries))


class Agent:
    """The worker's side of the link, as /v1/link wants it."""

    def __init__(self, machine: Machine, enclave: Enclave, *, max_in_flight: int = 64) -> None:
        self.machine = machine
        self.enclave = enclave
        self.max_in_flight = max_in_flight
        self.release_key = machine.release
        self.origin: str | None = None
        self.node_seqno: Callable[[], int] = lambda: 0
        self.welcome: dict | None = None
        self.goodbye: dict | None = None
        self.offer_answers: list[dict] = []
        self.cancelled: list[int] = []
        self.asks: list[dict] = []
        self.claims_answered = 0
        self.decline_claims = False
        self.push: list[dict] = []
        self.answer: Callable[[SealedRequest], AsyncIterator[bytes]] = enclave.answer
        self.after_cancel: Callable[[int], Awaitable[None]] | None = None
        self.send_offer = True
        self.escrow, self.row_epoch = b"", 0
        self.offer: NodeOffer | None = None
        self._tasks: set[asyncio.Task] = set()
        self.close_code: int | None = None

    async def run(self, url: str) -> None:
        """Serves until the connection ends."""
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(url + link.PATH, protocols=(link.SUBPROTOCOL,), max_msg_size=1 << 22) as socket,
        ):
            self.socket = socket
            challenge = json.loads((await socket.receive_bytes())[1:])
            message = link.link_challenge(
                network=bytes.fromhex(challenge["network_id"]),
                node=self.machine.account,
                nonce=bytes.fromhex(challenge["nonce"]),
                issued_at=challenge["issued_at"],
                origin=self.origin or link.origin_of(url),
            )
            hello = {
                "version": 1,
                "node": self.machine.account.hex(),
                "signature": self.release_key.sign(message).hex(),
                "max_in_flight": self.max_in_flight,
                "software": "test agent",
                "offer": None,
            }
            await socket.send_bytes(link.json_message(Kind.HELLO, hello))
            try:
                async for raw in socket:
                    if raw.type is aiohttp.WSMsgType.BINARY:
                        await self._take(socket, raw.data)
            finally:
                self.close_code = socket.close_code
                for task in self._tasks:
                    task.cancel()

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        kind = link.kind_of(data)
        if kind is Kind.WELCOME:
            self.welcome = json.loads(data[1:])
            if self.send_offer:
                offer = self.offer or self.machine.offer()
                await socket.send_bytes(bytes([Kind.OFFER]) + offer.to_json().encode())
            if self.push:
                await socket.send_bytes(link.json_message(Kind.RECEIPTS, {"ask": None, "receipts": self.push}))
        elif kind is Kind.OFFER_ANSWER:
            self.offer_answers.append(json.loads(data[1:]))
        elif kind is Kind.GOODBYE:
            self.goodbye = json.loads(data[1:])
        elif kind is Kind.OPEN:
            self._spawn(self._serve(socket, data))
        elif kind is Kind.CANCEL:
            self.cancelled.append(link.stream_of(data))
            if self.after_cancel is not None:
                await self.after_cancel(link.stream_of(data))
        elif kind is Kind.ASK_CLAIM:
            await self._claim(socket, json.loads(data[1:]))
        elif kind is Kind.ASK_RECEIPTS:
            await self._receipts(socket, json.loads(data[1:]))
        elif kind is Kind.ASK_RELEASE:
            await self._release(socket, json.loads(data[1:]))

    async def _receipts(self, socket: aiohttp.ClientWebSocketResponse, ask: dict) -> None:
        found = self.enclave.receipts.get(bytes.fromhex(ask["allotment"]), [])
        rows = [
            {
                "escrow": self.escrow.hex(),
                "allotment_epoch": self.row_epoch,
                "key": ask["key"],
                "frame": base64.b64encode(one.to_bytes()).decode(),
            }
            for one in found
            if one.receipt.seq > ask["after_seq"]
        ]
        await socket.send_bytes(link.json_message(Kind.RECEIPTS, {"ask": ask["ask"], "receipts": rows, "error": None}))

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse, data: bytes) -> None:
        number = link.stream_of(data)
        sealed = SealedRequest.from_bytes(data[link.STREAM_HEADER_BYTES :])
        async for frames in self.answer(sealed):
            await socket.send_bytes(link.stream_message(Kind.FRAMES, number, frames))

    async def _claim(self, socket: aiohttp.ClientWebSocketResponse, ask: dict) -> None:
        self.asks.append(ask)
        if self.decline_claims:
            error = {"code": "no-enclave", "cause": "it restarts", "cure": "ask later"}
            await socket.send_bytes(link.json_message(Kind.CLAIM, {"ask": ask["ask"], "error": error}))
            return
        message = self.enclave.claim(self.node_seqno(), int(time.time()))
        self.claims_answered += 1
        body = {"ask": ask["ask"], "message": base64.b64encode(message).decode(), "entries": []}
        await socket.send_bytes(link.json_message(Kind.CLAIM, body))

    async def _release(self, socket: aiohttp.ClientWebSocketResponse, ask: dict) -> None:
        request = ask["release_request"]
        release = Release(bytes.fromhex(request["allotment"]), request["row_seqno"], request["allotted_nano"])
        body = {
            "ask": ask["ask"],
            "allotment": request["allotment"],
            "row_seqno": request["row_seqno"],
            "allotted_nano": request["allotted_nano"],
            "signature": sign(release, self.release_key).hex(),
        }
        await socket.send_bytes(link.json_message(Kind.RELEASE, body))

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


__all__ = [name for name in dir() if not name.startswith("_")] + ["Refusal"]
