"""The link's bytes: published vectors of what is signed, the codec against anything from outside, shapes both ways."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from protocol import link
from protocol.errors import Code, OurFault
from protocol.frames import MAX_PAYLOAD_BYTES, Frame, FrameParser, FrameType
from protocol.link import BadMessage, Kind, LinkCode, Reason
from protocol.link_messages import (
    Challenge,
    Hello,
    OfferAnswer,
    OutgoingClaim,
    ReceiptFrame,
    ReceiptsQuery,
    ReleaseAnswer,
    ReleaseRequest,
    receipts_of,
)
from protocol.sealing import ENC_BYTES, HEADER_BYTES, MAX_SEALED_BYTES

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
PUBLIC = SIGNER.public_key().public_bytes_raw()
NETWORK, NODE, NONCE, ESCROW, ALLOTMENT = (bytes((byte,)) * 32 for byte in (0x11, 0x22, 0x33, 0x44, 0x55))
ORIGIN = "ws://127.0.0.1:8781"
NOW = 1_790_000_000
RELEASE_SIGNATURE = bytes.fromhex(
    "e46bde21258e79add92fd8175b6be3b0b80eff7a7e91c6143473a4aeb2abc9226f8ecfd4d41b7b748a485cb03df6e102"
    "a908cb249a6f38246e892f2926099a09"
)

# ---- vectors: docs/wire.md shows the same


def test_challenge_vector() -> None:
    message = link.link_challenge(network=NETWORK, node=NODE, nonce=NONCE, issued_at=NOW, origin=ORIGIN)
    assert message == Challenge(NETWORK, NONCE, NOW, "any name").signed_bytes(NODE, ORIGIN)
    assert len(message) == 175
    assert sha256(message).hexdigest() == "73b713766fe08da5e005e6260d02b2e14e2f08b9a07c5881ae18443e81755646"
    assert SIGNER.sign(message).hex() == (
        "18f948800078dfd8b9d97ed8810a9245da3040dccb8a94d2ad758921066512ce"
        "f1169c88a7660f525db807c8a0b9c700d416b207cccca00f20a68d0c3516ca0d"
    )


def test_release_vector() -> None:
    request = ReleaseRequest.sign(
        SIGNER,
        network=NETWORK,
        escrow=ESCROW,
        node=NODE,
        allotment=ALLOTMENT,
        row_seqno=3,
        allotted_nano=5_000_000_000,
        expires_at=NOW + 300,
    )
    message = request.signed_bytes(NETWORK)
    assert len(message) == 187
    assert sha256(message).hexdigest() == "cfd9e9db710c83bc37d2e22e4faeaa4a97888517a9bf7bf5e6815afd13da12f7"
    assert request.signature == RELEASE_SIGNATURE


def test_receipts_vector() -> None:
    message = link.receipts_request(network=NETWORK, escrow=ESCROW, at=NOW)
    assert len(message) == 116
    assert sha256(message).hexdigest() == "f69f5f3680e06cbdc95ccee484dff5c6539a9c638641189ba39dc9517e89f1ff"
    assert SIGNER.sign(message).hex() == (
        "986e600fe76fa8bf9691bd26ffa4a857fde1a538957660f31bdea0f4a5281064"
        "b699bfd299fc223de5566e367e9b497aa32603ee5a14ab612f0bef9b5643f004"
    )


RELEASE = ReleaseRequest(ESCROW, NODE, ALLOTMENT, 3, 5_000_000_000, NOW + 300, RELEASE_SIGNATURE)


@pytest.mark.parametrize(
    "changes",
    [
        {"escrow": NODE},
        {"node": ESCROW},
        {"allotment": NODE},
        {"row_seqno": 4},
        {"allotted_nano": 5_000_000_001},
        {"expires_at": NOW + 301},
        {"signature": bytes(64)},
        {"signature": b""},
    ],
)
def test_g10_a_release_request_holds_for_nothing_else(changes: dict[str, Any]) -> None:
    assert RELEASE.signed_by(PUBLIC, NETWORK)
    assert not replace(RELEASE, **changes).signed_by(PUBLIC, NETWORK)
    assert not RELEASE.signed_by(PUBLIC, NODE) and not RELEASE.signed_by(NODE, NETWORK)


def test_g10_no_signed_bytes_can_be_taken_for_others_or_for_a_cell_hash() -> None:
    signed = (
        link.link_challenge(network=NETWORK, node=NODE, nonce=NONCE, issued_at=NOW, origin=ORIGIN),
        RELEASE.signed_bytes(NETWORK),
        link.receipts_request(network=NETWORK, escrow=ESCROW, at=NOW),
    )
    assert len({len(message) for message in signed} | {32}) == 4
    assert len({message[: message.index(0)] for message in signed}) == 3


def test_g10_a_field_of_another_size_is_never_signed() -> None:
    with pytest.raises(OurFault):
        link.receipts_request(network=NETWORK, escrow=ESCROW + b"\0", at=NOW)
    with pytest.raises(OurFault):
        replace(RELEASE, row_seqno=1 << 32).signed_bytes(NETWORK)


# ---- origin


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("ws://127.0.0.1:8781", ORIGIN),
        ("ws://127.0.0.1:8781/x/?y", ORIGIN),
        ("WS://h:1/v1/link", "ws://h:1"),
        (" wss://Relayer.Example/ ", "wss://relayer.example"),
        ("wss://user:word@relayer.example", "wss://relayer.example"),
        ("ws://[::1]:8781/", "ws://[::1]:8781"),
    ],
)
def test_origin_is_what_was_dialled(url: str, origin: str) -> None:
    assert link.origin_of(url) == origin


@pytest.mark.parametrize("url", ["", "http://x", "ws://", "relayer.example", "ws:///path"])
def test_g18_origin_of_nonsense_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ws://host:port"):
        link.origin_of(url)


# ---- codec


@given(st.binary(max_size=200))
def test_g18_any_bytes_are_read_or_refused_by_name(data: bytes) -> None:
    try:
        kind = link.kind_of(data)
        if kind in (Kind.FRAMES, Kind.END, Kind.CANCEL, Kind.OPEN):
            assert 0 <= link.stream_of(data) < 1 << 32
        else:
            assert isinstance(link.json_body(data), dict)
    except BadMessage as error:
        assert error.cause and error.cure


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'"x"', b"[" * 100_000, b'{"a":1,"a":2}', b'{"a":NaN}', b"\xff{}", b'"' + b"x" * (300 << 10)],
)
def test_g18_bad_json_is_refused(body: bytes) -> None:
    with pytest.raises(BadMessage):
        link.json_body(bytes((Kind.CLAIM,)) + body)


def test_json_is_bounded_unless_it_carries_an_offer() -> None:
    long = {"offer": "x" * link.MAX_JSON_BYTES}
    for kind in (Kind.HELLO, Kind.OFFER):
        assert link.json_body(link.json_message(kind, long)) == long
    with pytest.raises(BadMessage, match="over the limit"):
        link.json_body(link.json_message(Kind.RECEIPTS, long))


@pytest.mark.parametrize("value", [True, -1, 1.5, "1", None, 1 << 63])
def test_g18_bad_numbers_are_refused(value: object) -> None:
    with pytest.raises(BadMessage, match="ask"):
        link.number({"ask": value}, "ask", 63)


@pytest.mark.parametrize("value", ["zz", "aa", 5, None, "aa" * 33])
def test_g18_bad_hex_is_refused(value: object) -> None:
    with pytest.raises(BadMessage, match="key"):
        link.octets({"key": value}, "key")


def test_stream_messages() -> None:
    message = link.stream_message(Kind.OPEN, 7, b"sealed")
    assert message == b"\x10\x00\x00\x00\x07sealed"
    assert link.kind_of(message) is Kind.OPEN and link.stream_of(message) == 7
    with pytest.raises(BadMessage, match="CANCEL"):
        link.stream_of(b"\x11abc")


def test_the_largest_sealed_request_fits_one_message() -> None:
    assert len(link.stream_message(Kind.OPEN, 1, bytes(MAX_SEALED_BYTES))) == link.MAX_MESSAGE_BYTES


@given(st.lists(st.integers(0, MAX_PAYLOAD_BYTES), min_size=1, max_size=12))
def test_stored_frames_are_cut_between_frames_into_messages_that_relayers_take(sizes: list[int]) -> None:
    frames = [Frame(FrameType.DATA, bytes(size)) for size in sizes]
    whole = b"".join(frame.to_bytes() for frame in frames)
    messages = list(link.frames_messages(9, whole))
    parts = [message[link.STREAM_HEADER_BYTES :] for message in messages]
    assert {link.stream_of(message) for message in messages} == {9}
    assert b"".join(parts) == whole
    assert all(0 < len(part) <= link.FRAMES_RUN_BYTES for part in parts)
    for part in parts:
        parser = FrameParser()
        assert list(parser.feed(part)) and parser.pending == 0


# ---- codes and reasons


def test_codes_are_kebab_case_and_never_two_names_for_one_thing() -> None:
    codes = [*LinkCode, *Code]
    assert len(set(codes)) == len(codes)
    assert all(code == code.lower() and code.replace("-", "").isalpha() for code in codes)


def test_reasons_from_outside_are_made_showable() -> None:
    assert Reason.from_json(None) is None and Reason.from_json("x") is None
    said = Reason.from_json({"code": "from-a-newer-peer", "cause": "a\x1b[2Jb", "cure": "\ud800" + "é" * 5000})
    assert said is not None and said.code == "from-a-newer-peer" and said.cause == "a?[2Jb"
    assert said.cure.isprintable() and len(said.cure.encode()) <= 1000
    assert Reason.from_json({}) == Reason("", "", "")
    assert Reason.from_json({"code": 5}) == Reason("", "", "")


# ---- shapes


def read(raw: dict[str, Any]) -> dict[str, Any]:
    """As it comes out at the other side, with a key that is not known there."""
    return link.json_body(link.json_message(Kind.HELLO, {**raw, "later": 1}))


HELLO = Hello(NODE, b"\x33" * 64, 4, "agent 1", {"an": "offer"}, 1 << 22)
SHAPES: list[Any] = [
    Challenge(NETWORK, NONCE, NOW, "relayer"),
    HELLO,
    replace(HELLO, offer=None),
    OfferAnswer(ESCROW, None),
    OfferAnswer(b"", Reason(LinkCode.BAD_OFFER, "cause", "cure")),
    RELEASE,
    ReleaseAnswer(ALLOTMENT, 3, 5, b"\x66" * 64),
    ReceiptsQuery(ALLOTMENT, ESCROW, 17, 200),
    ReceiptFrame(ESCROW, (1 << 64) - 1, NODE, b"payload"),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_shapes_come_back_as_they_were_sent(shape: Any) -> None:
    assert type(shape).from_json(read(shape.to_json())) == shape


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: type(shape).__name__)
def test_g18_shapes_with_a_field_spoilt_are_refused_by_name(shape: Any) -> None:
    optional = {"relayer", "offer", "max_message_bytes", "code", "accepted", "error"}
    for name in set(shape.to_json()) - optional:
        for bad in ("zz", -1, [], {}, 1.5):
            if isinstance(shape, Hello) and name == "software" and bad == "zz":
                continue
            with pytest.raises(BadMessage):
                type(shape).from_json({**shape.to_json(), name: bad})


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"version": True},
        {"node": "22"},
        {"node": None},
        {"signature": "zz"},
        {"max_in_flight": 0},
        {"max_in_flight": True},
        {"max_in_flight": 10_001},
        {"software": "a\nb"},
        {"software": "a" * 99},
        {"offer": []},
        {"max_message_bytes": 5},
        {"max_message_bytes": None},
    ],
)
def test_g18_bad_hello_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadMessage):
        Hello.from_json({**HELLO.to_json(), **changes})


def test_a_hello_without_its_longest_message_takes_a_mebibyte() -> None:
    body = HELLO.to_json()
    del body["max_message_bytes"]
    assert Hello.from_json(body).max_message_bytes == 1 << 20


def test_an_offer_refused_without_a_reason_is_a_bad_message() -> None:
    with pytest.raises(BadMessage):
        OfferAnswer.from_json({"accepted": False, "key": "", "error": None})


def test_receipts_queries_are_cut_to_what_one_message_holds() -> None:
    assert ReceiptsQuery.from_json(ReceiptsQuery(ALLOTMENT, ESCROW, 0, 10**6).to_json()).limit == link.MAX_RECEIPTS


def test_g18_receipts_are_bounded_and_read_strictly() -> None:
    one = ReceiptFrame(ESCROW, 3, NODE, b"payload")
    full = [one.to_json()] * link.MAX_RECEIPTS
    assert receipts_of({"receipts": full}) == (one,) * link.MAX_RECEIPTS
    for bad in (None, {}, [*full, one.to_json()], [5], [{**one.to_json(), "frame": "*"}]):
        with pytest.raises(BadMessage):
            receipts_of({"receipts": bad})


def test_a_full_batch_claim_fits_one_message() -> None:
    entries = tuple((ESCROW, (1 << 63) - 1, (1 << 32) - 1) for _ in range(200))
    message = link.json_message(Kind.CLAIM, {"ask": 1, **OutgoingClaim(bytes(80_000), 1, NOW, entries).to_json()})
    assert len(message) <= link.MAX_JSON_BYTES
    body = json.loads(message[1:])
    assert body["entries"][0] == {"escrow": ESCROW.hex(), "cumulative_nano": (1 << 63) - 1, "seq": (1 << 32) - 1}


# ---- the reference

WIRE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


def test_the_reference_has_every_kind_close_code_and_error_code() -> None:
    kinds = dict(re.findall(r"^\| 0x([0-9A-F]{2}) \| (\w+) \|", WIRE, re.MULTILINE))
    assert {int(value, 16): name for value, name in kinds.items()} == {kind.value: kind.name for kind in Kind}
    closes = dict(re.findall(r"^\| (\d{4}) \| (\w+) \| ", WIRE, re.MULTILINE))
    assert {int(value): name for value, name in closes.items()} == {close.value: close.name for close in link.Close}
    assert {*LinkCode, *Code} <= set(re.findall(r"`([a-z-]+)`", WIRE))
    frames = dict(re.findall(r"^\| (\d) \| ([A-Z]+) \|", WIRE, re.MULTILINE))
    assert {int(value): name for value, name in frames.items()} == {frame.value: frame.name for frame in FrameType}


def test_the_reference_has_the_layout_of_a_sealed_request() -> None:
    rows = re.findall(
        r"^\| (\d+) \| (\d+) \| ", WIRE.partition("\nHPKE")[0].partition("## Sealed request")[2], re.MULTILINE
    )
    at = 0
    for offset, size in rows:
        assert int(offset) == at
        at += int(size)
    assert at == HEADER_BYTES
    for figure in (MAX_SEALED_BYTES, link.MAX_MESSAGE_BYTES, MAX_PAYLOAD_BYTES, ENC_BYTES):
        assert f"{figure:,}" in WIRE


def test_the_reference_has_the_vectors_of_this_file() -> None:
    for message in (
        link.link_challenge(network=NETWORK, node=NODE, nonce=NONCE, issued_at=NOW, origin=ORIGIN),
        RELEASE.signed_bytes(NETWORK),
        link.receipts_request(network=NETWORK, escrow=ESCROW, at=NOW),
    ):
        assert f"`{sha256(message).hexdigest()}` | `{SIGNER.sign(message).hex()}`" in WIRE
    assert PUBLIC.hex() in WIRE
