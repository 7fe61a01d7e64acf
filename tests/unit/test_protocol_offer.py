"""A node's offer: strict JSON, and sealing keys that only the attested key can announce."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import Malformed, NotAuthentic, OurFault
from protocol.offer import MAX_MODELS, MAX_OFFER_BYTES, MAX_SEALING_SECONDS, AnnouncedKey, ModelOffer, NodeOffer
from protocol.sealing import PUBLIC_KEY_BYTES, SealingKeyPair
from wrappers.receipts import Terms
from wrappers.signed import node_id

NETWORK, NODE = b"w" * 32, b"n" * 32
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
PAIR = SealingKeyPair.generate()
NODE_ID = node_id(NETWORK, NODE, 3)
NOW = 1_000_000
ANNOUNCED = AnnouncedKey.announce(PAIR, NODE_ID, NOW + 3600, KEY)
TERMS = Terms(b"m" * 32, 1, 2, 3, 4, (1 << 64) - 1)
OFFER = NodeOffer(
    NETWORK, NODE, 3, PUBLIC, {"kind": "simulated", "quote": "AAAA"}, (ANNOUNCED,), (ModelOffer("tiny", 2048, TERMS),)
)

IDS = st.binary(min_size=32, max_size=32)
U32, U64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.builds(
    AnnouncedKey,
    st.binary(min_size=8, max_size=8).map(lambda seed: seed * (PUBLIC_KEY_BYTES // 8)),
    U32,
    st.binary(min_size=64, max_size=64),
)
MODELS = st.builds(
    ModelOffer,
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=200),
    U32,
    st.builds(Terms, IDS, U64, U64, U64, U64, U64),
)


@settings(max_examples=50)
@given(
    st.builds(
        NodeOffer,
        IDS,
        IDS,
        U64,
        IDS,
        st.dictionaries(st.text(), JSON, max_size=4),
        st.lists(KEYS, max_size=2).map(tuple),
        st.lists(MODELS, max_size=3, unique_by=lambda one: one.name).map(tuple),
    )
)
def test_offer_round_trip(offer: NodeOffer) -> None:
    assert NodeOffer.from_json(offer.to_json()) == offer
    assert NodeOffer.from_json(offer.to_json().encode()) == offer


def test_the_longest_living_good_key_is_chosen() -> None:
    later = AnnouncedKey.announce(SealingKeyPair.generate(), NODE_ID, NOW + 7200, KEY)
    forged = replace(later, expires_at=NOW + 9000)
    expired = AnnouncedKey.announce(PAIR, NODE_ID, NOW, KEY)
    assert replace(OFFER, sealing_keys=(ANNOUNCED, forged, later, expired)).sealing_key(NOW) == later
    with pytest.raises(NotAuthentic):
        replace(OFFER, sealing_keys=(forged, expired)).sealing_key(NOW)
    with pytest.raises(NotAuthentic, match="no sealing key"):
        replace(OFFER, sealing_keys=()).sealing_key(NOW)


def test_g10_sealing_keys_hold_for_their_node_epoch_and_key_alone() -> None:
    ANNOUNCED.check(NODE_ID, PUBLIC, NOW)
    other = bytearray(PAIR.public_key)
    other[7] ^= 1
    for changed, node, key in (
        (ANNOUNCED, node_id(NETWORK, NODE, 4), PUBLIC),
        (ANNOUNCED, NODE_ID, bytes(32)),
        (replace(ANNOUNCED, public_key=bytes(other)), NODE_ID, PUBLIC),
        (replace(ANNOUNCED, expires_at=NOW + 3601), NODE_ID, PUBLIC),
        (replace(ANNOUNCED, signature=bytes(64)), NODE_ID, PUBLIC),
    ):
        with pytest.raises(NotAuthentic):
            changed.check(node, key, NOW)


@pytest.mark.parametrize(
    ("lifetime", "good"),
    [(1, True), (0, False), (-1, False), (MAX_SEALING_SECONDS, True), (MAX_SEALING_SECONDS + 1, False)],
)
def test_sealing_keys_are_short_lived(lifetime: int, good: bool) -> None:
    key = AnnouncedKey.announce(PAIR, NODE_ID, NOW + lifetime, KEY)
    if good:
        key.check(NODE_ID, PUBLIC, NOW)
    else:
        with pytest.raises(NotAuthentic, match="within a day"):
            key.check(NODE_ID, PUBLIC, NOW)


def _set(*path: str | int, to: object) -> Callable[[Any], None]:
    def change(raw: Any) -> None:
        for step in path[:-1]:
            raw = raw[step]
        raw[path[-1]] = to

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("version", to=2),
        _set("version", to=True),
        _set("more", to=1),
        _set("network", to="00" * 31),
        _set("network", to="AB" * 32),
        _set("network", to=" " + "00" * 32),
        _set("node", to=None),
        _set("node_epoch", to=3),
        _set("node_epoch", to="03"),
        _set("node_epoch", to="-3"),
        _set("node_epoch", to="٣"),
        _set("node_epoch", to=str(1 << 64)),
        _set("evidence", to=[]),
        _set("sealing_keys", to={}),
        _set("sealing_keys", 0, "public_key", to="AAAA"),
        _set("sealing_keys", 0, "signature", to="A" * 87 + "\n="),
        _set("sealing_keys", 0, "expires_at", to=1.5),
        _set("sealing_keys", 0, "expires_at", to=True),
        _set("sealing_keys", 0, "expires_at", to=1 << 32),
        _set("models", 0, "name", to=""),
        _set("models", 0, "name", to="\x1b[2J"),
        _set("models", 0, "name", to="x" * 201),
        _set("models", 0, "context_tokens", to=-1),
        _set("models", 0, "terms", "prompt_price", to=1),
        _set("models", 0, "terms", to={}),
    ],
)
def test_g18_offers_out_of_bounds_are_refused(change: Callable[[Any], None]) -> None:
    raw = json.loads(OFFER.to_json())
    change(raw)
    with pytest.raises(Malformed):
        NodeOffer.from_json(json.dumps(raw))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "[" * 100_000,
        b"\xff",
        " " * (MAX_OFFER_BYTES + 1),
        OFFER.to_json()[:-1],
        OFFER.to_json() + "{}",
        OFFER.to_json().replace('"version":1', '"version":1,"version":1'),
        OFFER.to_json().replace('"AAAA"', "NaN"),
        OFFER.to_json().replace('"AAAA"', "1" * 5000),
    ],
    ids=range(12),
)
def test_g18_offers_that_are_not_strict_json_are_refused(text: str | bytes) -> None:
    with pytest.raises(Malformed):
        NodeOffer.from_json(text)


def test_an_offer_that_no_client_would_take_is_not_made() -> None:
    many = tuple(ModelOffer(f"m{i}", 1, TERMS) for i in range(MAX_MODELS + 1))
    for bad in (
        replace(OFFER, models=many),
        replace(OFFER, models=(OFFER.models[0],) * 2),
        replace(OFFER, signing_key=b""),
        replace(OFFER, evidence={"quote": "x" * MAX_OFFER_BYTES}),
    ):
        with pytest.raises(OurFault):
            bad.to_json()


def test_models_are_found_by_name() -> None:
    assert OFFER.model("tiny") == OFFER.models[0]
    assert OFFER.model("huge") is None
