"""Codecs of frames, receipts and errors: round trips, bounds, strictness."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import (
    Code,
    Malformed,
    OurFault,
    WireError,
)
from protocol.frames import (
    MAX_PAYLOAD_BYTES,
    Frame,
    FrameParser,
    FrameType,
    Refusal,
    parse_header,
)
from protocol.receipts import (
    IssuedReceipt,
    SignedReceipt,
    inner_from_bytes,
    inner_to_bytes,
)
from wrappers.receipts import InnerReceipt, Receipt

IDS = st.binary(min_size=32, max_size=32)
U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
RECEIPTS = st.builds(Receipt, IDS, IDS, U32, IDS, U64, U64, IDS, IDS)
SIGNED = st.builds(SignedReceipt, RECEIPTS, st.binary(min_size=64, max_size=64))
INNERS = st.builds(InnerReceipt, IDS, IDS, U32, U32, U32, U32, st.integers(0, 255), IDS, IDS, IDS)
ISSUED = st.builds(IssuedReceipt, IDS, SIGNED, INNERS)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=200)
ERRORS = st.builds(WireError, st.sampled_from(list(Code)), TEXTS, TEXTS)


@given(SIGNED)
def test_signed_receipt_round_trip(signed: SignedReceipt) -> None:
    assert SignedReceipt.from_bytes(signed.to_bytes()) == signed


@given(INNERS)
def test_inner_receipt_round_trip(inner: InnerReceipt) -> None:
    assert inner_from_bytes(inner_to_bytes(inner)) == inner


@given(ERRORS, st.lists(ISSUED, max_size=3))
def test_refusal_and_error_round_trip(error: WireError, missed: list[IssuedReceipt]) -> None:
    refusal = Refusal(error, tuple(missed))
    assert Refusal.from_bytes(refusal.to_bytes()) == refusal
    assert WireError.from_bytes(error.to_bytes()) == error


@given(st.lists(st.builds(Frame, st.sampled_from(list(FrameType)), st.binary(max_size=300))), st.integers(1, 50))
def test_frames_round_trip_whatever_the_segments(frames: list[Frame], size: int) -> None:
    wire = b"".join(frame.to_bytes() for frame in frames)
    parser, got = FrameParser(), []
    for at in range(0, len(wire), size):
        got += list(parser.feed(wire[at : at + size]))
    parser.close()
    assert got == frames


def test_oversized_and_unknown_frames_are_refused_from_the_header() -> None:
    with pytest.raises(Malformed, match="limit"):
        parse_header(b"\x02" + (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "big"))
    for unknown in (0, 7, 255):
        with pytest.raises(Malformed, match="unknown"):
            parse_header(bytes((unknown, 0, 0, 0, 0)))
    with pytest.raises(OurFault):
        Frame(FrameType.DATA, bytes(MAX_PAYLOAD_BYTES + 1)).to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"code":"behind","cause":"a","cure":"b","more":1}',
        b'{"code":"behind","code":"behind","cause":"a","cure":"b"}',
        b'{"code":"no-such","cause":"a","cure":"b"}',
        b'{"code":"behind","cause":1,"cure":"b"}',
        b'{"code":"behind","cause":"\\u001b[2J","cure":"b"}',
        b'{"code":"behind","cause":"\\ud800","cure":"b"}',
        b'{"code":"behind","cause":"' + b"x" * 1001 + b'","cure":"b"}',
        b"[" * 8000,
        b'{"code":"behind","cause":"\xff","cure":"b"}',
    ],
)
def test_g18_malformed_errors_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        WireError.from_bytes(data)


@given(st.sampled_from(list(Code)), st.text(max_size=2000))
def test_every_code_has_a_cause_and_a_cure_that_travel(code: Code, detail: str) -> None:
    error = WireError.of(code, detail)
    assert error.cause and error.cure
    assert WireError.from_bytes(error.to_bytes()) == error
