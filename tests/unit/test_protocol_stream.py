"""The sealed answer: codecs of frames, and that nobody between enclave and client can change it unseen."""

from __future__ import annotations

import hmac
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.commitments import NOTHING, inner_salt, logprobs_commitment, request_commitment
from protocol.errors import (
    AfterEnd,
    Altered,
    Code,
    Duplicate,
    Malformed,
    OurFault,
    OutOfOrder,
    ProtocolError,
    Truncated,
    WireError,
)
from protocol.frames import (
    HEADER_BYTES,
    MAX_MISSED,
    Frame,
    FrameParser,
    FrameType,
    Head,
    Refusal,
    error_frame,
    parse_header,
)
from protocol.pricing import Stop, Usage, charge
from protocol.receipts import (
    Expectation,
    IssuedReceipt,
    SignedReceipt,
    check_issued,
)
from protocol.sealing import ENC_BYTES
from protocol.stream import (
    MAX_CHUNK_BYTES,
    Completed,
    Data,
    Event,
    Failed,
    Receipted,
    Refused,
    ResponseReader,
    ResponseWriter,
    Started,
    response_key,
)
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.signed import sign

SECRET, REQUEST, NONCE = b"s" * 32, b"r" * 32, b"n" * 32
ENC = b"e" * ENC_BYTES
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
TERMS = Terms(b"m" * 32, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1)
BODY = b"{}"
EXPECTED = Expectation(
    b"a" * 32, b"i" * 32, PUBLIC, TERMS, 100, inner_salt(SECRET), request_commitment(SECRET, REQUEST, BODY)
)


def writer(quantum: int = 64, nonce: bytes = NONCE) -> ResponseWriter:
    return ResponseWriter(
        response_secret=SECRET, enc=ENC, request_id=REQUEST, worker_nonce=nonce, quantum_bytes=quantum
    )


def reader() -> ResponseReader:
    return ResponseReader(response_secret=SECRET, enc=ENC, request_id=REQUEST)


USAGE = Usage(3, 0, 4, 0)


def issue(response: bytes, usage: Usage = USAGE) -> IssuedReceipt:
    inner = InnerReceipt(
        EXPECTED.salt,
        TERMS.model,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        Stop.END,
        EXPECTED.request,
        response,
        NOTHING,
    )
    amount = charge(TERMS, usage, Stop.END)
    receipt = Receipt(EXPECTED.allotment, EXPECTED.node, 1, TERMS.hash, amount, amount, NOTHING, inner.hash)
    return IssuedReceipt(REQUEST, SignedReceipt(receipt, sign(receipt, KEY)), inner)


def answer(parts: list[bytes], quantum: int = 64, nonce: bytes = NONCE) -> list[bytes]:
    """The wire frames of a whole answer."""
    w = writer(quantum, nonce)
    frames = [w.head(), *(w.data(part) for part in parts)]
    issued = issue(w.commitment.digest())
    return [*frames, w.receipt(issued.signed), w.last(issued.inner)]


def accept(wire: bytes) -> bytes:
    """All that a client does: read, then check the receipt. The answer's bytes, or ProtocolError."""
    r = reader()
    events = r.feed(wire)
    r.close()
    done = events[-1]
    if isinstance(done, Failed | Refused):
        raise Truncated("no answer")
    assert isinstance(done, Completed)
    check_issued(IssuedReceipt(REQUEST, done.signed, done.inner), EXPECTED, done.response)
    return b"".join(event.plaintext for event in events if isinstance(event, Data))


PARTS = [b"Hel", b"lo", b"", b" world" * 30]
FRAMES = answer(PARTS)


@given(st.lists(st.binary(max_size=200), max_size=8), st.sampled_from([1, 7, 64, 4096]), st.integers(1, 400))
def test_answer_round_trip_whatever_the_segments(parts: list[bytes], quantum: int, size: int) -> None:
    wire = b"".join(answer(parts, quantum))
    r = reader()
    events: list[Event] = []
    for at in range(0, len(wire), size):
        events += r.feed(wire[at : at + size])
    r.close()
    assert b"".join(event.plaintext for event in events if isinstance(event, Data)) == b"".join(parts)
    assert isinstance(events[0], Started) and isinstance(events[-2], Receipted) and isinstance(events[-1], Completed)


@given(st.integers(0, 3 * MAX_CHUNK_BYTES))
@settings(max_examples=15)
def test_long_data_is_split_into_bounded_frames(size: int) -> None:
    w = writer()
    w.head()
    wire = w.data(b"x" * size)
    frames = list(FrameParser().feed(wire))
    assert len(frames) == max(1, -(-size // MAX_CHUNK_BYTES))
    assert all(len(frame.payload) <= MAX_CHUNK_BYTES + 128 for frame in frames)


def test_g11_chunk_sizes_tell_only_the_number_of_quanta() -> None:
    w = writer()
    w.head()
    sizes = [len(w.data(b"x" * n)) for n in (0, 1, 30, 62, 63, 126)]
    assert len(set(sizes[:4])) == 1 and len(set(sizes[4:])) == 1
    assert sizes[4] - sizes[3] == 64


def test_g11_no_plaintext_and_no_usage_on_the_wire() -> None:
    wire = b"".join(answer([b"the answer is secret"], quantum=1))
    for part in (b"secret", EXPECTED.salt, EXPECTED.request):
        assert part not in wire


def test_a_relay_reads_headers_alone() -> None:
    wire, at, types = b"".join(FRAMES), 0, []
    while at < len(wire):
        frame_type, length = parse_header(wire, at)
        if frame_type is FrameType.RECEIPT:
            signed = SignedReceipt.from_bytes(wire[at + HEADER_BYTES : at + HEADER_BYTES + length])
            signed.check(PUBLIC)
        types.append(frame_type)
        at += HEADER_BYTES + length
    assert types == [FrameType.HEAD, *[FrameType.DATA] * 4, FrameType.RECEIPT, FrameType.LAST]


def test_every_cut_is_detected_as_truncation() -> None:
    wire = b"".join(FRAMES)
    for cut in range(len(wire)):
        r = reader()
        r.feed(wire[:cut])
        with pytest.raises(Truncated):
            r.close()


@pytest.mark.parametrize(
    ("order", "error"),
    [
        ([0, 2, 1, 3, 4, 5, 6], OutOfOrder),  # reordered
        ([0, 1, 3, 4, 5, 6], OutOfOrder),  # dropped
        ([0, 1, 1, 2, 3, 4, 5, 6], Duplicate),
        ([0, 0, 1, 2, 3, 4, 5, 6], OutOfOrder),  # two heads
        ([1, 2, 3, 4, 5, 6], OutOfOrder),  # no head
        ([0, 1, 2, 3, 4, 6, 5], OutOfOrder),  # last before the receipt
        ([0, 1, 2, 3, 4, 6], OutOfOrder),  # no receipt
        ([0, 1, 2, 3, 5, 6], OutOfOrder),  # last chunk of data dropped
        ([0, 1, 2, 3, 4, 5, 5, 6], OutOfOrder),  # two receipts
        ([0, 1, 2, 3, 4, 5, 6, 6], AfterEnd),
        ([0, 1, 2, 3, 4, 5, 6, 1], AfterEnd),
        ([0, 1, 2, 3, 4, 5], Truncated),
        ([0], Truncated),
        ([], Truncated),
    ],
)
def test_reordered_repeated_dropped_frames_are_told_apart(order: list[int], error: type[ProtocolError]) -> None:
    with pytest.raises(error) as caught:
        accept(b"".join(FRAMES[i] for i in order))
    assert type(caught.value) is error


def test_swapped_chunks_are_detected() -> None:
    """Chunks with their indices exchanged, chunks of another answer, and a chunk that poses as the end."""
    other = answer([b"Bye", b"no", b"", b" world" * 30], nonce=b"x" * 32)
    frames = [next(FrameParser().feed(frame)) for frame in FRAMES]
    renumbered = Frame(FrameType.DATA, frames[1].payload[:4] + frames[2].payload[4:]).to_bytes()
    posing = Frame(FrameType.DATA, frames[6].payload).to_bytes()
    for changed in (
        [FRAMES[0], renumbered, *FRAMES[2:]],
        [FRAMES[0], other[1], *FRAMES[2:]],
        [other[0], *FRAMES[1:]],
        [*FRAMES[:5], posing, *FRAMES[5:]],
    ):
        with pytest.raises(Altered):
            accept(b"".join(changed))


def test_another_requests_receipt_is_detected() -> None:
    foreign = issue(NOTHING, Usage(1, 0, 1, 0))
    swapped = Frame(FrameType.RECEIPT, foreign.signed.to_bytes()).to_bytes()
    with pytest.raises(Altered, match="receipt in clear"):
        accept(b"".join([*FRAMES[:5], swapped, FRAMES[6]]))


def test_another_requests_answer_is_detected() -> None:
    head = Head(b"q" * 32, NONCE).to_frame().to_bytes()
    with pytest.raises(Altered, match="another request"):
        accept(b"".join([head, *FRAMES[1:]]))


@pytest.mark.parametrize("flip", [1, 3, 4, 0x80])
def test_g13_any_flipped_byte_of_an_answer_is_refused(flip: int) -> None:
    wire = b"".join(answer([b"Hello", b" world"], quantum=16))
    assert accept(wire) == b"Hello world"
    for position in range(len(wire)):
        changed = bytearray(wire)
        changed[position] ^= flip
        with pytest.raises(ProtocolError):
            accept(bytes(changed))


def test_a_voided_answer_stays_void() -> None:
    r = reader()
    r.feed(FRAMES[0] + FRAMES[1])
    with pytest.raises(Duplicate):
        r.feed(FRAMES[1])
    for later in (lambda: r.feed(FRAMES[2]), r.close):
        with pytest.raises(Duplicate):
            later()


def test_a_frame_that_voids_the_answer_cannot_be_skipped() -> None:
    frames = [next(FrameParser().feed(frame)) for frame in FRAMES]
    r = reader()
    for frame in frames[:2]:
        r.frame(frame)
    for frame in (frames[1], frames[2]):
        with pytest.raises(Duplicate):
            r.frame(frame)


@pytest.mark.parametrize("content", [b"\x00\x01x\x01", b"\x00\x05x", b"\xff\xff"])
def test_a_chunk_with_a_wrong_padding_is_refused(content: bytes) -> None:
    """Padding that is not zero would be a channel of its own; a length beyond the chunk reads what is not there."""
    sealed = AESGCM(response_key(SECRET, ENC, NONCE)).encrypt(bytes(12), content, b"\x02" + bytes(4) + b"\x00")
    with pytest.raises(Malformed):
        reader().feed(FRAMES[0] + Frame(FrameType.DATA, bytes(4) + sealed).to_bytes())


def test_bytes_after_the_end_are_refused() -> None:
    with pytest.raises(AfterEnd):
        accept(b"".join(FRAMES) + b"\x02\x00")


def test_a_fresh_nonce_changes_every_chunk() -> None:
    keys = [
        response_key(SECRET, ENC, NONCE),
        response_key(SECRET, ENC, bytes(32)),
        response_key(SECRET, bytes(ENC_BYTES), NONCE),
        response_key(bytes(32), ENC, NONCE),
    ]
    assert len(set(keys)) == 4
    again = answer(PARTS, nonce=bytes(32))
    assert all(a != b for a, b in zip(FRAMES[1:5], again[1:5], strict=True))
    sealed = [frame[HEADER_BYTES + 4 :] for frame in FRAMES[1:4]]
    assert all(a != b for a, b in pairwise(sealed))


def test_a_sealed_refusal_is_the_enclaves_word() -> None:
    w = writer()
    refusal = Refusal(WireError.of(Code.BEHIND), (issue(NOTHING),))
    wire = w.head() + w.refusal(refusal)
    r = reader()
    events = r.feed(wire)
    r.close()
    assert events[-1] == Refused(refusal)
    for position in range(HEADER_BYTES + 33, len(wire)):
        changed = bytearray(wire)
        changed[position] ^= 1
        with pytest.raises(ProtocolError):
            accept(bytes(changed))


def test_the_largest_refusal_fits_a_frame() -> None:
    longest = WireError(Code.BEHIND, '"' * 1000, "\\" * 1000)
    w = writer(quantum=4096)
    wire = w.head() + w.refusal(Refusal(longest, (issue(NOTHING),) * MAX_MISSED))
    events = reader().feed(wire)
    assert isinstance(events[-1], Refused) and len(events[-1].refusal.missed) == MAX_MISSED
    with pytest.raises(OurFault):
        Refusal(longest, (issue(NOTHING),) * (MAX_MISSED + 1)).to_bytes()


def test_an_error_in_clear_ends_the_answer_without_proof() -> None:
    error = error_frame(WireError.of(Code.NODE_GONE)).to_bytes()
    for before in (b"", FRAMES[0], FRAMES[0] + FRAMES[1], b"".join(FRAMES[:6])):
        r = reader()
        assert isinstance(r.feed(before + error)[-1], Failed)
        r.close()
        with pytest.raises(AfterEnd):
            r.feed(error)


def test_the_writer_keeps_the_order() -> None:
    issued = issue(NOTHING)
    w = writer()
    with pytest.raises(OurFault):
        w.data(b"before the head")
    w.head()
    with pytest.raises(OurFault):
        w.last(issued.inner)
    w.receipt(issued.signed)
    with pytest.raises(OurFault):
        w.data(b"after the receipt")
    w.last(issued.inner)
    with pytest.raises(ProtocolError):
        w.error(WireError.of(Code.INTERNAL))


@given(st.binary(max_size=400))
def test_g18_garbage_on_the_wire_is_an_error_with_a_cure(data: bytes) -> None:
    for wire in (data, FRAMES[0] + data, b"".join(FRAMES[:6]) + data):
        try:
            accept(wire)
        except ProtocolError as error:
            assert error.cause and error.cure
        else:
            pytest.fail("garbage was accepted")


def test_commitments_hide_and_bind() -> None:
    other = b"o" * 32
    assert request_commitment(SECRET, REQUEST, b"yes") != request_commitment(other, REQUEST, b"yes")
    assert request_commitment(SECRET, REQUEST, b"yes") != request_commitment(SECRET, other, b"yes")
    assert request_commitment(SECRET, REQUEST, b"yes") != request_commitment(SECRET, REQUEST, b"no")
    assert len({inner_salt(SECRET), logprobs_commitment(SECRET, b""), writer().commitment.digest()}) == 3
    with pytest.raises(OurFault):
        inner_salt(b"short")


def test_layouts_are_frozen() -> None:
    """Known answers: a change of any layout or label must be a decision, not an accident."""
    # RFC 5869 by hand, so that the key schedule is tied to the text and not to a library's options.
    extracted = hmac.digest(ENC, SECRET, "sha256")
    key = hmac.digest(extracted, b"cocoon.stream.v1|" + NONCE + b"\x01" + b"\x01", "sha256")
    assert response_key(SECRET, ENC, NONCE) == key
    assert inner_salt(SECRET).hex()[:16] == "cc3b6b87a1b4f657"
    assert EXPECTED.request.hex()[:16] == "a556f7c08f4f74b2"
    assert FRAMES[0] == bytes.fromhex("0100000041") + b"\x01" + REQUEST + NONCE
    assert FRAMES[1].hex()[:42] == "02000000540000000031e91ed40c357978c2c0ae24"
    content = AESGCM(key).decrypt(bytes(12), FRAMES[1][9:], b"\x02" + bytes(4) + b"\x00")
    assert content == b"\x00\x03Hel" + bytes(59)
