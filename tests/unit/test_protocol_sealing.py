"""The sealed request: what is bound, what a relayer sees, what refuses to open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Malformed, NotAuthentic, OurFault, ProtocolError, VoucherFault
from protocol.opening import MAX_BODY_BYTES, MIN_BUCKET_BYTES, Endpoint, Opening, Shape
from protocol.sealing import (
    _SUITE,
    ENC_BYTES,
    HEADER_BYTES,
    MAX_SEALED_BYTES,
    PUBLIC_KEY_BYTES,
    SealedRequest,
    SealingKeyPair,
    _public,
    public_key_hash,
    seal,
)
from wrappers.receipts import Terms, Voucher
from wrappers.signed import allotment_id, sign

NETWORK, ESCROW, NODE, REQUEST = (bytes([i]) * 32 for i in range(1, 5))
VOUCHER_KEY = Ed25519PrivateKey.from_private_bytes(b"v" * 32)
VOUCHER_PUBLIC = VOUCHER_KEY.public_key().public_bytes_raw()
ENCLAVE_KEY = Ed25519PrivateKey.from_private_bytes(b"e" * 32).public_key().public_bytes_raw()
PAIR = SealingKeyPair.generate()
TERMS = Terms(b"m" * 32, 10, 5, 20, 20, 3)
VOUCHER = Voucher(allotment_id(NETWORK, ESCROW, 9, NODE), ENCLAVE_KEY, 1000, 400, TERMS.hash)
PROMPT = b'{"messages":[{"role":"user","content":"a secret nobody else may read"}]}'
OPENING = Opening(b"s" * 32, 600, 12, TERMS, Endpoint.CHAT_COMPLETIONS, PROMPT)

IDS = st.binary(min_size=32, max_size=32)
U64 = st.integers(0, (1 << 64) - 1)
ALL_TERMS = st.builds(Terms, IDS, U64, U64, U64, U64, U64)
SHAPES = st.builds(Shape, st.booleans(), st.integers(1, 4096), st.integers(0, 1000))
OPENINGS = st.builds(
    Opening,
    IDS,
    U64,
    st.integers(0, (1 << 32) - 1),
    ALL_TERMS,
    st.sampled_from(list(Endpoint)),
    st.binary(max_size=4000),
    SHAPES,
)


def sealed(opening: Opening = OPENING, voucher: Voucher = VOUCHER, key: bytes = PAIR.public_key) -> SealedRequest:
    return seal(
        opening,
        request_id=REQUEST,
        escrow=ESCROW,
        allotment_epoch=9,
        node=NODE,
        sealing_key=key,
        voucher=voucher,
        voucher_key=VOUCHER_KEY,
    )


SEALED = sealed()
WIRE = SEALED.to_bytes()


def receive(data: bytes) -> Opening:
    """All that an enclave does with bytes from a relayer."""
    request = SealedRequest.from_bytes(data)
    request.check_authority(NETWORK, VOUCHER_PUBLIC, node=NODE, signing_key=ENCLAVE_KEY)
    return PAIR.open(request)


@given(OPENINGS)
def test_opening_round_trip(opening: Opening) -> None:
    data = opening.to_bytes()
    assert Opening.from_bytes(data) == opening
    if opening.shape.padded:
        assert len(data) >= MIN_BUCKET_BYTES and len(data).bit_count() == 1


@given(IDS, IDS, U64, IDS, IDS, IDS, IDS, U64, U64, IDS, st.binary(min_size=ENC_BYTES + 16, max_size=ENC_BYTES + 99))
def test_sealed_request_round_trip(
    request: bytes,
    escrow: bytes,
    epoch: int,
    node: bytes,
    sealing: bytes,
    allotment: bytes,
    key: bytes,
    cap: int,
    acked: int,
    terms: bytes,
    rest: bytes,
) -> None:
    voucher = Voucher(allotment, key, cap, acked, terms)
    one = SealedRequest(request, escrow, epoch, node, sealing, voucher, request * 2, escrow * 2, rest)
    data = one.to_bytes()
    assert SealedRequest.from_bytes(data) == one
    assert len(data) == HEADER_BYTES + len(rest)


def test_a_sealed_request_opens_for_its_key_alone() -> None:
    assert receive(WIRE) == OPENING
    other = SealingKeyPair.generate()
    with pytest.raises(NotAuthentic, match="another key"):
        other.open(SEALED)
    with pytest.raises(NotAuthentic, match="does not open"):
        other.open(replace(SEALED, sealing_key_hash=other.hash))


def test_g11_the_wire_holds_no_plaintext() -> None:
    for part in (b"secret", b"nobody", OPENING.response_secret[:8], TERMS.model[:8]):
        assert part in OPENING.to_bytes()
        assert part not in WIRE


def test_g11_prompts_of_one_bucket_have_one_size() -> None:
    sizes = {len(sealed(replace(OPENING, body=b"x" * n)).to_bytes()) for n in (0, 1, 100, 800)}
    assert len(sizes) == 1
    assert len(sealed(replace(OPENING, body=b"x" * 5000)).to_bytes()) not in sizes


@pytest.mark.parametrize(
    "change",
    [
        {"request_id": bytes(32)},
        {"escrow": bytes(32)},
        {"allotment_epoch": 10},
        {"node": bytes(32)},
        {"voucher": replace(VOUCHER, cap_nano=1001)},
        {"voucher": replace(VOUCHER, acked_nano=401)},
        {"voucher": replace(VOUCHER, key=bytes(32))},
        {"voucher": replace(VOUCHER, terms=bytes(32))},
        {"voucher": replace(VOUCHER, allotment=bytes(32))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_g10_a_changed_header_refuses_to_open(change: dict[str, Any]) -> None:
    """Even if every signature were right: the seal itself is bound to the header."""
    with pytest.raises(NotAuthentic, match="does not open"):
        PAIR.open(replace(SEALED, **change))


@pytest.mark.parametrize("flip", [1, 0x80])
def test_g10_any_flipped_byte_is_refused(flip: int) -> None:
    positions = [*range(HEADER_BYTES), *range(HEADER_BYTES, len(WIRE), 37), len(WIRE) - 1]
    for position in positions:
        changed = bytearray(WIRE)
        changed[position] ^= flip
        with pytest.raises(ProtocolError):
            receive(bytes(changed))


@settings(max_examples=60)
@given(st.integers(0, len(WIRE) - 1), st.binary(max_size=40))
def test_cut_or_stretched_requests_are_refused(cut: int, tail: bytes) -> None:
    for changed in (WIRE[:cut], WIRE[:cut] + tail, WIRE + b"\0" + tail):
        if changed != WIRE:
            with pytest.raises(ProtocolError):
                receive(changed)


def test_g5_a_relayer_cannot_use_a_voucher_for_its_own_prompt() -> None:
    """The voucher names no request, and sealing needs only public data: only the client's signature over all of it."""
    thief = Ed25519PrivateKey.generate()
    own = replace(OPENING, response_secret=b"t" * 32, body=b'{"messages":[]}')
    forged = seal(
        own,
        request_id=bytes(32),
        escrow=ESCROW,
        allotment_epoch=9,
        node=NODE,
        sealing_key=PAIR.public_key,
        voucher=VOUCHER,
        voucher_key=thief,
    )
    forged = replace(forged, voucher_signature=SEALED.voucher_signature)
    forged.check_voucher(NETWORK, VOUCHER_PUBLIC)
    for signature in (forged.request_signature, SEALED.request_signature, SEALED.voucher_signature):
        with pytest.raises(VoucherFault, match="request's signature"):
            replace(forged, request_signature=signature).check_authority(
                NETWORK, VOUCHER_PUBLIC, node=NODE, signing_key=ENCLAVE_KEY
            )


def test_g5_a_relayer_cannot_exchange_the_sealed_part() -> None:
    """Under the very header that the client signed."""
    own = replace(OPENING, response_secret=b"t" * 32, body=b'{"messages":[]}')
    ciphertext = _SUITE.encrypt(own.to_bytes(), _public(PAIR.public_key), info=SEALED.info())
    exchanged = replace(SEALED, ciphertext=ciphertext)
    assert PAIR.open(exchanged) == own, "the seal alone cannot tell"
    with pytest.raises(VoucherFault, match="request's signature"):
        receive(exchanged.to_bytes())


def test_g10_vouchers_of_other_networks_allotments_keys_are_refused() -> None:
    SEALED.check_voucher(NETWORK, VOUCHER_PUBLIC)
    with pytest.raises(VoucherFault, match="not for this allotment"):
        SEALED.check_voucher(bytes(32), VOUCHER_PUBLIC)
    with pytest.raises(VoucherFault, match="signature"):
        SEALED.check_voucher(NETWORK, ENCLAVE_KEY)
    with pytest.raises(VoucherFault, match="another node or enclave key"):
        SEALED.check_authority(NETWORK, VOUCHER_PUBLIC, node=ESCROW, signing_key=ENCLAVE_KEY)
    with pytest.raises(VoucherFault, match="another node or enclave key"):
        SEALED.check_authority(NETWORK, VOUCHER_PUBLIC, node=NODE, signing_key=bytes(32))
    upside_down = replace(VOUCHER, cap_nano=1, acked_nano=2)
    with pytest.raises(VoucherFault, match="more than its cap"):
        replace(SEALED, voucher=upside_down, voucher_signature=sign(upside_down, VOUCHER_KEY)).check_voucher(
            NETWORK, VOUCHER_PUBLIC
        )


def test_opened_terms_must_be_the_vouchers() -> None:
    other = replace(OPENING, terms=replace(TERMS, completion_price=1))
    with pytest.raises(OurFault, match="other terms"):
        sealed(other)
    lying = replace(SEALED, ciphertext=_SUITE.encrypt(other.to_bytes(), _public(PAIR.public_key), info=SEALED.info()))
    with pytest.raises(VoucherFault, match="opened terms"):
        PAIR.open(lying)


def test_a_request_beyond_its_voucher_is_not_sealed() -> None:
    with pytest.raises(OurFault, match="does not cover"):
        sealed(replace(OPENING, maximum_nano=601))


@pytest.mark.parametrize("key", [b"", bytes(PUBLIC_KEY_BYTES), b"\xff" * PUBLIC_KEY_BYTES, PAIR.public_key[:-1]])
def test_bad_sealing_keys_are_refused(key: bytes) -> None:
    with pytest.raises(Malformed):
        sealed(key=key)


def test_openings_that_nobody_would_write_are_refused() -> None:
    data = OPENING.to_bytes()
    padded_otherwise = [
        data + bytes(len(data)),  # the next bucket
        data[:-1] + b"\x01",  # not zero
        data[:-1],
        bytes((2,)) + data[1:],  # version
        data[:1] + b"\x02" + data[2:],  # flag
        data[:1] + b"\x00" + data[2:],  # padded, though it says not
        data[:2] + b"\x09" + data[3:],  # endpoint
        data[:3] + b"\x00\x00" + data[5:],  # quantum 0
        data[:5] + b"\xff\xff" + data[7:],  # tick
    ]
    for changed in padded_otherwise:
        with pytest.raises(Malformed):
            Opening.from_bytes(changed)


@pytest.mark.parametrize("change", [{"body": b"x" * (MAX_BODY_BYTES + 1)}, {"shape": Shape(quantum_bytes=0)}])
def test_openings_out_of_bounds_are_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(OurFault):
        replace(OPENING, **change).to_bytes()


def test_the_largest_request_fits_the_wire_limit() -> None:
    largest = sealed(replace(OPENING, body=b"x" * MAX_BODY_BYTES))
    assert len(largest.to_bytes()) == MAX_SEALED_BYTES
    assert receive(largest.to_bytes()).body == b"x" * MAX_BODY_BYTES


def test_g19_secrets_do_not_show_in_reprs() -> None:
    text = repr(OPENING) + repr(SEALED) + repr(PAIR)
    assert "secret" not in text.replace("response_secret", "") and "s" * 32 not in text
    assert PAIR.hash == public_key_hash(PAIR.public_key)
