"""The agent's desk over a real journal, a chain that shows one escrow, and an enclave that notes what it is sent."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.api import Unreachable
from protocol.errors import Code, WireError
from protocol.frames import Frame, FrameType
from protocol.receipts import SignedReceipt
from protocol.sealing import SealedRequest
from worker.agent.desk import Desk
from worker.agent.journal import Journal
from worker.messages import Issued, Post, Stored
from wrappers.escrow import EscrowState
from wrappers.receipts import Receipt, Voucher
from wrappers.rows import Row, RowTerms
from wrappers.signed import allotment_id, sign

NETWORK, NODE, ESCROW, KEY, RELEASE_KEY = b"N" * 32, b"n" * 32, b"e" * 32, b"k" * 32, b"r" * 32
ALLOTMENT = allotment_id(NETWORK, ESCROW, 17, NODE)
CLIENT = Ed25519PrivateKey.generate()
HEAD, DATA, LAST = (Frame(kind, b"x").to_bytes() for kind in (FrameType.HEAD, FrameType.DATA, FrameType.LAST))


class View:
    """A chain that shows one escrow with one row."""

    account, network = NODE, NETWORK

    def __init__(self) -> None:
        self.row = Row(17, 1000, 0, 2, 0, RowTerms(RELEASE_KEY, 7200), allotment=ALLOTMENT)
        self.down = self.draining = False
        self.reads = 0

    async def node(self, *, fresh: bool = False):
        if self.down:
            raise Unreachable("gone")
        state = SimpleNamespace(release_key=RELEASE_KEY, key_attested=lambda key, now: True, draining=self.draining)
        return SimpleNamespace(state=state)

    async def escrow(self, escrow: bytes, *, fresh: bool = False) -> EscrowState | None:
        self.reads += 1
        await asyncio.sleep(0)
        key = CLIENT.public_key().public_bytes_raw()
        rows = {NODE: self.row}
        return EscrowState(key, NETWORK, False, 5000, 1000, 0, rows, b"R" * 32, b"w" * 32, 0, 3600, 604_800)


class Enclave:
    key = KEY

    def __init__(self) -> None:
        self.posted: list = []

    def post(self, message) -> None:
        self.posted.append(message)

    def posts(self) -> list:
        return [one for one in self.posted if isinstance(one, Post)]


class Sink:
    def __init__(self) -> None:
        self.frames = b""
        self.ended = False

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        assert not self.ended
        self.frames += frames
        self.ended = ends

    @property
    def error(self) -> Code:
        assert self.ended and self.frames[0] == FrameType.ERROR
        return WireError.from_bytes(self.frames[5:]).code


def request(number: int = 1, cap: int = 500) -> SealedRequest:
    voucher = Voucher(ALLOTMENT, KEY, cap, 0, b"t" * 32)
    return SealedRequest(
        bytes([number]) * 32, ESCROW, 17, NODE, b"s" * 32, voucher, sign(voucher, CLIENT), bytes(64), bytes(1200)
    )


def issued(a_request: SealedRequest, seq: int = 1) -> Issued:
    receipt = Receipt(ALLOTMENT, b"i" * 32, seq, b"t" * 32, 10, 10 * seq, bytes(32), bytes(32))
    frame = Frame(FrameType.RECEIPT, SignedReceipt(receipt, bytes(64)).to_bytes()).to_bytes()
    return Issued(a_request.request_id, ESCROW, 17, 500, 0, b"t" * 32, bytes(64), frame)


class House:
    def __init__(self, path: Path) -> None:
        self.view, self.enclave = View(), Enclave()
        self.journal = Journal.open(path)
        self.desk = Desk(self.journal, self.view, max_in_flight=2, min_close_timer=3600, clock=lambda: 1_790_000_000)  # type: ignore[arg-type]
        self.desk.enclave_came(self.enclave)  # type: ignore[arg-type]

    async def begin(self, a_request: SealedRequest) -> tuple[Sink, object]:
        sink = Sink()
        return sink, await self.desk.answer(a_request.to_bytes(), sink)

    async def stored(self) -> None:
        async with asyncio.timeout(5):
            while not any(isinstance(one, Stored) for one in self.enclave.posted):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
