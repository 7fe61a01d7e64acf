"""The enclave against a scripted engine: what it refuses, what it bills, what it lets out before the disk has it."""

import asyncio
import itertools
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from enclave_house import EPOCH, ESCROW, NETWORK, NODE, NODE_ID, PROMPT, ROW_EPOCH, Client, House, ScriptedEngine

from attestation.evidence import Evidence, Kind
from chain.decode import decode_message
from protocol.errors import Code
from protocol.frames import FrameParser
from protocol.opening import Shape
from protocol.pricing import Stop, Usage, charge
from protocol.receipts import SignedReceipt, check_issued
from protocol.sealing import SealedRequest
from protocol.stream import Completed, Refused
from protocol.stream import Failed as StreamFailed
from worker.enclave.keys import Keys
from worker.messages import (
    Attest,
    Cancel,
    ClaimLine,
    ClaimSigned,
    EvidenceReady,
    Failed,
    Notarise,
    Notarised,
    SignClaim,
    Stored,
)
from wrappers.cells import from_boc
from wrappers.claims import ClaimMessage, batch, receipts_root
from wrappers.receipts import Voucher
from wrappers.signed import Claim, Notary, verify


@pytest.fixture
async def house():
    house = await House().start(ScriptedEngine())
    yield house
    await house.stop()


async def test_an_answer_is_sealed_metered_and_receipted(house: House) -> None:
    client = Client(house)
    lines, last = await client.ask()
    assert [line["choices"][0]["delta"]["content"] for line in lines] == ["one ", "two ", "three "]
    assert isinstance(last, Completed)
    assert last.signed.receipt.amount_nano == 10 + 3 * 3 and last.inner.stop == Stop.END
    assert last.inner.model == b"m" * 32
    lines, last = await client.ask()
    assert last.signed.receipt.seq == 2 and last.signed.receipt.cumulative_nano == 38


async def test_g11_nothing_readable_leaves_the_enclave(house: House) -> None:
    await Client(house).ask()
    await Client(house, escrow=b"x" * 32).ask(body={"messages": [{"role": "user", "content": PROMPT}], "bad": 1})
    for word in (PROMPT, "three", "content", "choices", "Unknown key"):
        assert word.encode() not in house.agent.raw


async def test_g4_a_request_id_is_opened_once(house: House) -> None:
    client = Client(house)
    opening, request = client.sealed()
    first = await house.post(request, client.voucher_key)
    again = await house.post(request, client.voucher_key)
    (event,) = client.read(opening, request, again.frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.ALREADY_OPENED
    assert len(house.engine.requests) == 1 and first.issued is not None and again.issued is None


async def test_g4_a_refused_request_id_never_runs_later(house: House) -> None:
    client = Client(house)
    opening, request = client.sealed(maximum=5000, cap=5000, terms=replace(house.terms, prompt_price=1))
    _, last = client.check(opening, request, (await house.post(request, client.voucher_key)).frames)
    assert isinstance(last, Refused) and last.refusal.error.code is Code.TERMS_REFUSED
    (event,) = client.read(opening, request, (await house.post(request, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.ALREADY_OPENED
    assert house.engine.requests == []


async def test_g5_a_voucher_of_another_key_is_refused(house: House) -> None:
    client, stranger = Client(house), Ed25519PrivateKey.generate()
    opening, request = client.sealed()
    answered = await house.post(request, stranger.public_key().public_bytes_raw())
    (event,) = client.read(opening, request, answered.frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.VOUCHER_INVALID


async def test_g5_an_agent_cannot_let_a_stranger_into_a_clients_account(house: House) -> None:
    client = Client(house)
    await client.ask()
    stranger = Client(house, Ed25519PrivateKey.generate())
    opening, request = stranger.sealed()
    (event,) = stranger.read(opening, request, (await house.post(request, stranger.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.VOUCHER_INVALID
    _, last = await client.ask()
    assert last.signed.receipt.seq == 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (dict(allotment_epoch=18), Code.VOUCHER_INVALID),
        (dict(node=b"o" * 32), Code.NOT_OPENED),
        (dict(escrow=b"f" * 32), Code.VOUCHER_INVALID),
    ],
)
async def test_g10_requests_for_other_accounts_are_refused(house: House, change: dict, code: Code) -> None:
    client = Client(house)
    opening, request = client.sealed(**change)
    (event,) = client.read(opening, request, (await house.post(request, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is code


async def test_g5_a_moved_request_does_not_open(house: House) -> None:
    """The same ciphertext and voucher under another request id: neither the signature nor the seal holds."""
    client = Client(house)
    opening, request = client.sealed()
    moved = replace(request, request_id=b"z" * 32)
    (event,) = client.read(opening, request, (await house.post(moved, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.VOUCHER_INVALID
    other = SealedRequest.from_bytes(moved.to_bytes())
    resigned = replace(other, request_signature=client.key.sign(other.signed_bytes()))
    (event,) = client.read(opening, request, (await house.post(resigned, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.NOT_OPENED


async def test_an_unknown_sealing_key_is_named(house: House) -> None:
    client = Client(house)
    opening, request = client.sealed()
    house.loaded.keys.sealing._keys.clear()
    (event,) = client.read(opening, request, (await house.post(request, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.SEALING_KEY_UNKNOWN


async def test_g5_a_cap_that_does_not_cover_is_refused(house: House) -> None:
    client = Client(house)
    house.engine.gate = asyncio.Event()
    _opening, request = client.sealed(maximum=4000, cap=4000)
    running = await house.post(request, client.voucher_key, wait=False)
    _, last = await client.ask(maximum=4000, cap=7999)
    assert isinstance(last, Refused) and last.refusal.error.code is Code.CAP_TOO_LOW
    house.engine.gate.set()
    await running.ended.wait()
    assert running.issued is not None


async def test_a_client_that_missed_a_receipt_gets_it_under_seal(house: House) -> None:
    client = Client(house)
    opening, request = client.sealed()
    await house.post(request, client.voucher_key)  # its answer is lost
    _, last = await client.ask(maximum=5000, cap=5000)
    assert isinstance(last, Refused) and last.refusal.error.code is Code.BEHIND
    (missed,) = last.refusal.missed
    check_issued(missed, client.expectation(opening, request))
    client.acked_seq, client.acked_nano = missed.signed.receipt.seq, missed.signed.receipt.cumulative_nano
    _, last = await client.ask()
    assert last.signed.receipt.seq == 2 and last.signed.receipt.previous == missed.signed.receipt.hash


async def test_a_maximum_that_may_not_pay_the_prompt_is_refused(house: House) -> None:
    _, last = await Client(house).ask(maximum=200)
    assert isinstance(last, Refused) and last.refusal.error.code is Code.MAXIMUM_TOO_LOW
    assert house.engine.requests == []


async def test_g5_the_completion_is_limited_to_what_the_maximum_pays(house: House) -> None:
    client = Client(house)
    body = {"messages": [{"role": "user", "content": PROMPT}], "stream": True, "max_tokens": 900}
    prompt = len(PROMPT) + len("rolecontentuser") + 256 + 16
    _, last = await client.ask(maximum=prompt + 2 * 4 + 1, body=body)
    assert house.engine.requests[0]["max_tokens"] == 2
    assert last.inner.completion_tokens == 2
    house.engine.words = ["w"] * 5000
    house.engine.prompt_tokens = 10**6  # an engine that counts nonsense costs the operator, never the client
    _, last = await client.ask(maximum=5000)
    assert last.signed.receipt.amount_nano == 0 and last.inner.stop == Stop.FAILED


async def test_an_invalid_body_bills_the_minimum_and_says_why(house: House) -> None:
    client = Client(house)
    for body in (b"{nonsense", {"messages": [], "stream": True}, {"prompt": "x"}):
        lines, last = await client.ask(body=body)
        assert lines[-1]["error"]["type"] == "invalid_request_error"
        assert last.signed.receipt.amount_nano == 5 and last.inner.stop == Stop.INVALID
    assert house.engine.requests == []


async def test_a_break_before_the_first_token_bills_nothing(house: House) -> None:
    house.engine.breaks_after = 0
    lines, last = await Client(house).ask()
    assert lines[-1]["error"]["code"] == "engine-failed"
    assert last.signed.receipt.amount_nano == 0 and last.signed.receipt.seq == 1


async def test_a_break_midway_bills_what_was_delivered(house: House) -> None:
    house.engine.breaks_after = 2
    client = Client(house)
    lines, last = await client.ask()
    assert [line["choices"][0]["delta"]["content"] for line in lines[:2]] == ["one ", "two "]
    assert last.inner.completion_tokens == 2 and last.inner.stop == Stop.FAILED
    assert last.signed.receipt.amount_nano == charge(house.terms, Usage(10, 0, 2), Stop.FAILED)
    house.engine.breaks_after = None
    _, last = await client.ask()
    assert last.signed.receipt.seq == 2


@pytest.mark.parametrize("shape", [Shape.plain(), Shape(tick_ms=5)])
async def test_a_cancelled_request_bills_what_was_sealed(house: House, shape: Shape) -> None:
    house.engine.gate, house.engine.gate_after = asyncio.Event(), 2
    client = Client(house)
    opening, request = client.sealed(shape=shape)
    answered = await house.post(request, client.voucher_key, wait=False)
    await house.engine.held.wait()
    await asyncio.sleep(0.05)
    house.agent.link.post(Cancel(request.request_id))
    async with asyncio.timeout(5):
        await answered.ended.wait()
    lines, last = client.check(opening, request, answered.frames)
    assert last.inner.stop == Stop.CANCELLED and last.inner.completion_tokens == len(lines) == 2
    assert house.engine.closed_streams == 1


async def test_g16_the_last_frame_waits_for_the_disk(house: House) -> None:
    house.agent.acks = False
    client = Client(house)
    opening, request = client.sealed()
    answered = await house.post(request, client.voucher_key, wait=False)
    async with asyncio.timeout(5):
        await answered.receipted.wait()
    await asyncio.sleep(0.1)
    assert not answered.ended.is_set()
    assert not isinstance(client.read(opening, request, answered.frames)[-1], Completed)
    house.agent.link.post(Stored(request.request_id))
    async with asyncio.timeout(5):
        await answered.ended.wait()
    assert isinstance(client.read(opening, request, answered.frames)[-1], Completed)


async def test_g16_a_lost_agent_ends_the_session_without_the_last_frame(house: House) -> None:
    house.agent.acks = False
    client = Client(house)
    _opening, request = client.sealed()
    answered = await house.post(request, client.voucher_key, wait=False)
    await answered.receipted.wait()
    await house.agent.link.close()
    async with asyncio.timeout(5):
        await house.session
    assert not answered.ended.is_set()


async def test_many_requests_at_once_keep_one_chain_per_client(house: House) -> None:
    clients = [Client(house, escrow=bytes([number]) * 32) for number in range(1, 9)]

    async def one(client: Client):
        sealed = []
        for _ in range(5):
            opening, request = client.sealed()
            client.in_flight += opening.maximum_nano
            sealed.append((opening, request, await house.post(request, client.voucher_key, wait=False)))
        receipts = []
        for opening, request, answered in sealed:
            await answered.ended.wait()
            events = client.read(opening, request, answered.frames)
            assert isinstance(events[-1], Completed)
            receipts.append(events[-1].signed.receipt)
        receipts.sort(key=lambda receipt: receipt.seq)
        assert [receipt.seq for receipt in receipts] == [1, 2, 3, 4, 5]
        assert receipts[-1].cumulative_nano == 5 * 19
        for before, after in itertools.pairwise(receipts):
            assert after.previous == before.hash

    async with asyncio.timeout(20):
        await asyncio.gather(*(one(client) for client in clients))


async def test_a_full_node_says_busy_under_seal() -> None:
    house = await House().start(ScriptedEngine(), max_in_flight=1)
    house.engine.gate = asyncio.Event()
    client, other = Client(house), Client(house, escrow=b"o" * 32)
    _, request = client.sealed()
    running = await house.post(request, client.voucher_key, wait=False)
    _, last = await other.ask()
    assert isinstance(last, Refused) and last.refusal.error.code is Code.NODE_BUSY
    house.engine.gate.set()
    await running.ended.wait()
    await house.stop()


async def test_g15_clients_have_their_own_cache_salt(house: House) -> None:
    first, second = Client(house), Client(house, escrow=b"f" * 32)
    await first.ask()
    await first.ask()
    await second.ask()
    assert house.engine.salts[0] == house.engine.salts[1] != house.engine.salts[2]
    assert house.loaded.keys.cache_salt(ESCROW, b"k" * 32) != house.loaded.keys.cache_salt(ESCROW, b"l" * 32)
    assert Keys(100).cache_salt(ESCROW, b"k" * 32) != house.loaded.keys.cache_salt(ESCROW, b"k" * 32)


async def test_padded_chunks_leave_on_the_tick(house: House) -> None:
    house.engine.words = ["x"] * 40
    client = Client(house)
    opening, request = client.sealed(shape=Shape(quantum_bytes=512, tick_ms=20))
    answered = await house.post(request, client.voucher_key)
    frames = [frame for frame in FrameParser().feed(answered.frames) if frame.type.name == "DATA"]
    assert 1 <= len(frames) < 10
    assert {(len(frame.payload) - 4 - 16) % 512 for frame in frames} == {0}
    lines, _ = client.check(opening, request, answered.frames)
    assert len(lines) == 40


async def test_a_batch_claim_is_signed_over_what_was_issued(house: House) -> None:
    clients = [Client(house, escrow=bytes([number]) * 32) for number in (1, 2, 3, 4)]
    receipts = {}
    for client in clients:
        for _ in range(2):
            _, last = await client.ask()
            receipts.setdefault(client.escrow, []).append(last.signed.receipt)
    lines = tuple(ClaimLine(client.escrow, client.allotment, index % 2) for index, client in enumerate(clients))
    valid_until = int(time.time()) + 100
    house.agent.link.post(SignClaim(7, 3, valid_until, lines))
    signed = await house.agent.expect(ClaimSigned)
    assert (signed.order, signed.seqno, signed.valid_until) == (7, 3, valid_until)
    claim = ClaimMessage.from_cell(decode_message(from_boc(signed.message)).body)
    tokens = 1000 + 8 * 13
    assert claim.tokens == tokens
    entries, roots = batch(claim.entries)
    header = Claim(NODE_ID, 3, valid_until, 4, tokens, bytes(entries.hash), bytes(roots.hash))
    assert verify(header, claim.signature, house.ready.signing_key)
    for index, (client, entry) in enumerate(zip(clients, claim.entries, strict=True)):
        assert entry.escrow == client.escrow and entry.entry.cumulative_nano == 38 and entry.entry.seq == 2
        assert entry.root == receipts_root(receipts[client.escrow][index % 2 :])
        voucher = Voucher(
            client.allotment,
            house.ready.signing_key,
            entry.entry.cap_nano,
            entry.entry.acked_nano,
            entry.entry.terms,
        )
        assert verify(voucher, entry.entry.voucher_signature, client.voucher_key)


async def test_claims_over_unknown_accounts_fail_with_a_reason(house: House) -> None:
    house.agent.link.post(SignClaim(9, 0, 1, (ClaimLine(ESCROW, b"u" * 32, 0),)))
    failed = await house.agent.expect(Failed)
    assert failed.order == 9 and "no receipts were signed" in failed.cause


async def test_g13_only_hashes_of_receipts_that_this_key_issued_are_notarised(house: House) -> None:
    client, other = Client(house), Client(house, escrow=b"\x05" * 32)
    for _ in range(2):
        _, last = await client.ask()
    house.agent.link.post(Notarise(3, client.allotment))
    signed = await house.agent.expect(Notarised)
    receipt = last.signed.receipt
    assert (signed.order, signed.seq, signed.hash) == (3, 2, receipt.hash)
    assert verify(Notary(NODE_ID, receipt.hash), signed.signature, house.ready.signing_key)
    for number, allotment in ((4, other.allotment), (5, receipt.hash)):
        house.agent.link.post(Notarise(number, allotment))
        failed = await house.agent.expect(Failed)
        assert failed.order == number and "no receipt" in failed.cause


async def test_evidence_binds_key_node_and_block(house: House) -> None:
    house.agent.link.post(Attest(12345, b"r" * 32))
    evidence = Evidence.from_json((await house.agent.expect(EvidenceReady)).evidence)
    binding = evidence.binding
    assert evidence.kind is Kind.SIMULATED and binding.signing_key == house.ready.signing_key
    assert (binding.network_id, binding.node, binding.node_epoch) == (NETWORK, NODE, EPOCH)
    assert (binding.block_seqno, binding.block_root_hash) == (12345, b"r" * 32)
    assert binding.report_data() in evidence.quote


async def test_receipt_signature_travels_with_the_voucher_that_pays_it(house: House) -> None:
    client = Client(house)
    _opening, request = client.sealed()
    answered = await house.post(request, client.voucher_key)
    issued = answered.issued
    assert issued is not None and (issued.escrow, issued.allotment_epoch) == (ESCROW, ROW_EPOCH)
    (frame,) = FrameParser().feed(issued.frame)
    signed = SignedReceipt.from_bytes(frame.payload)
    signed.check(house.ready.signing_key)
    voucher = Voucher(client.allotment, house.ready.signing_key, issued.cap_nano, issued.acked_nano, issued.terms)
    assert verify(voucher, issued.voucher_signature, client.voucher_key)
