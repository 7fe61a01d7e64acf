"""Microseconds per step of the protocol on one core: `python -m bench.protocol`. Median of five rounds each."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.account import ClientAccount, Promise
from protocol.commitments import NOTHING, inner_salt, request_commitment
from protocol.enclave_account import EnclaveAccount
from protocol.frames import FrameParser, FrameType, parse_header
from protocol.opening import Endpoint, Opening
from protocol.pricing import Stop
from protocol.sealing import SealedRequest, SealingKeyPair, seal
from protocol.stream import ResponseReader, ResponseWriter
from wrappers.receipts import InnerReceipt, Terms
from wrappers.signed import allotment_id

NETWORK, ESCROW, NODE, NODE_ID, REQUEST, SECRET = (bytes([i]) * 32 for i in range(1, 7))
TOKENS = 2000


def measure(name: str, step: Callable[[], object], times: int, per: int = 1) -> None:
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            step()
        rounds.append((time.perf_counter() - start) / (times * per) * 1e6)
    print(f"{name:<58}{statistics.median(rounds):9.1f} us")


def main() -> None:
    voucher_key, signing_key = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    voucher_public, public = voucher_key.public_key().public_bytes_raw(), signing_key.public_key().public_bytes_raw()
    pair = SealingKeyPair.generate()
    terms = Terms(b"m" * 32, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1)
    allotment = allotment_id(NETWORK, ESCROW, 1, NODE)
    commitment = request_commitment(SECRET, REQUEST, b"{}")
    promise = Promise(REQUEST, 100, terms, inner_salt(SECRET), commitment, 1 << 31)
    client = ClientAccount(allotment, NODE_ID, public).promise(promise)
    voucher = client.voucher(terms.hash)
    opening = Opening(SECRET, 100, 0, terms, Endpoint.CHAT_COMPLETIONS, b"{}")

    def sealed() -> SealedRequest:
        return seal(
            opening,
            request_id=REQUEST,
            escrow=ESCROW,
            allotment_epoch=1,
            node=NODE,
            sealing_key=pair.public_key,
            voucher=voucher,
            voucher_key=voucher_key,
        )

    request = sealed()
    wire = request.to_bytes()
    enclave = EnclaveAccount(allotment, NODE_ID, public)
    enclave, refusal = enclave.admit(
        voucher, request.voucher_signature, request_id=REQUEST, maximum_nano=100, terms=terms, acked_seq=0
    )
    assert refusal is None
    inner = InnerReceipt(inner_salt(SECRET), terms.model, 10, 0, 20, 0, Stop.END, commitment, b"r" * 32, NOTHING)
    _, issued = enclave.issue(REQUEST, inner, signing_key)

    def writer() -> ResponseWriter:
        one = ResponseWriter(response_secret=SECRET, enc=request.enc, request_id=REQUEST, worker_nonce=bytes(32))
        one.head()
        return one

    def write() -> bytes:
        one = writer()
        return b"".join(one.data(b" token") for _ in range(TOKENS))

    head = ResponseWriter(response_secret=SECRET, enc=request.enc, request_id=REQUEST, worker_nonce=bytes(32)).head()
    answer = write()

    def read() -> None:
        reader = ResponseReader(response_secret=SECRET, enc=request.enc, request_id=REQUEST)
        reader.feed(head)
        for at in range(0, len(answer), 4096):
            reader.feed(answer[at : at + 4096])

    def relay() -> None:
        at = 0
        while at < len(answer):
            frame_type, length = parse_header(answer, at)
            assert frame_type is FrameType.DATA
            at += 5 + length

    def parse() -> None:
        parser = FrameParser()
        for at in range(0, len(answer), 4096):
            list(parser.feed(answer[at : at + 4096]))

    measure("client: seal and sign a request", sealed, 200)
    measure("relayer: parse a request and check its voucher", lambda: _relayed(wire, voucher_public), 200)
    measure(
        "enclave: check a request's voucher and signature",
        lambda: request.check_authority(NETWORK, voucher_public, node=NODE, signing_key=public),
        200,
    )
    measure("enclave: open a request", lambda: pair.open(request), 200)
    measure("enclave: begin an answer", writer, 500)
    measure("enclave: issue a receipt", lambda: enclave.issue(REQUEST, inner, signing_key), 200)
    measure("client: check a receipt and advance", lambda: client.receive(issued, b"r" * 32), 200)
    measure("enclave: seal one token", write, 3, TOKENS)
    measure("relayer: step over one frame by its header", relay, 3, TOKENS)
    measure("relayer: parse one frame", parse, 3, TOKENS)
    measure("client: open one token", read, 3, TOKENS)


def _relayed(wire: bytes, voucher_public: bytes) -> None:
    SealedRequest.from_bytes(wire).check_voucher(NETWORK, voucher_public)


if __name__ == "__main__":
    main()
