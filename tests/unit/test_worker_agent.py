"""The agent's parts: the link's wire form, what it refuses, what it releases, when it claims, how it is configured."""

import asyncio
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Code
from protocol.sealing import SealedRequest
from worker.agent import config, control
from worker.agent.claims import Due, Policy, due, is_urgent, landed
from worker.agent.gate import Facts, refusal
from worker.agent.relayer_wire import (
    BadMessage,
    ReleaseAsk,
    challenge_bytes,
    hex_field,
    int_field,
    origin_of,
    parse,
    sign_challenge,
    stream_of,
)
from worker.agent.releases import KeyFileError, create_release_key, load_release_key
from worker.agent.store import Account
from worker.link import (
    FROM_AGENT,
    FROM_ENCLAVE,
    Answer,
    ClaimLine,
    Introduce,
    Link,
    LinkClosed,
    LinkError,
    Post,
    SignClaim,
    decode,
    encode,
)
from wrappers.escrow import EscrowState, KeyRow, Row, RowTerms
from wrappers.node import NodeState
from wrappers.signed import Voucher, allotment_id, sign

NETWORK, REGISTRY, NODE, ESCROW = b"N" * 32, b"R" * 32, b"n" * 32, b"e" * 32
KEY, RELEASE_KEY, OTHER_KEY = b"k" * 32, b"r" * 32, b"o" * 32
ROW_EPOCH = 17
ALLOTMENT = allotment_id(NETWORK, ESCROW, ROW_EPOCH, NODE)
CLIENT = Ed25519PrivateKey.generate()
NOW = 1_790_000_000


def node_state(**changes) -> NodeState:
    state = NodeState(
        seqno=3,
        tokens=0,
        node_id=b"i" * 32,
        signing_key=KEY,
        claims_until=NOW + 1000 + 604_800,
        stake_nano=5,
        requests=0,
        earned_nano=0,
        unbond_at=0,
        block_seqno=1,
        tier=1,
        retired={},
        measurement=None,
        platform=None,
        controller=b"c" * 32,
        payout=b"p" * 32,
        release_key=RELEASE_KEY,
        registry=REGISTRY,
        stub_prefix=bytes(39),
        gas_level_nano=1,
        payout_threshold_nano=1,
        rent_reserve_nano=1,
        network_id=NETWORK,
        owner=b"w" * 32,
        index=0,
        epoch=5,
        attestation=b"a" * 32,
        unbonding=604_800,
        claim_window=604_800,
        challenge_window=1,
    )
    return replace(state, **changes)


def row(**changes) -> Row:
    made = Row(ROW_EPOCH, 1000, 0, 2, 0, RowTerms(RELEASE_KEY, 7200), allotment=ALLOTMENT)
    return replace(made, **changes)


def escrow_state(a_row: Row | None, **changes) -> EscrowState:
    key = CLIENT.public_key().public_bytes_raw()
    rows = {} if a_row is None else {NODE: a_row}
    state = EscrowState(key, NETWORK, False, 5000, 1000, 0, rows, REGISTRY, b"w" * 32, 0, 3600, 604_800)
    return replace(state, **changes)


def request(cap: int = 500, *, key: bytes = KEY, epoch: int = ROW_EPOCH, signer=CLIENT) -> SealedRequest:
    voucher = Voucher(allotment_id(NETWORK, ESCROW, epoch, NODE), key, cap, 0, b"t" * 32)
    return SealedRequest(
        b"q" * 32, ESCROW, epoch, NODE, b"s" * 32, voucher, sign(voucher, signer), bytes(64), bytes(1200)
    )


def facts(a_row: Row | None = None, **changes) -> Facts:
    made = Facts(NODE, node_state(), KEY, escrow_state(a_row or row()), NOW, 0, False, 3600)
    return replace(made, **changes)


def code_of(a_request: SealedRequest, some_facts: Facts) -> Code | None:
    error = refusal(a_request, some_facts)
    return None if error is None else error.code


def test_gate_lets_a_covered_request_in() -> None:
    assert refusal(request(), facts()) is None


@pytest.mark.parametrize(
    ("a_request", "some_facts", "code"),
    [
        (request(1001), facts(), Code.ALLOTMENT_TOO_LOW),
        (request(1000), facts(owed_elsewhere_nano=1), Code.ALLOTMENT_TOO_LOW),
        (request(600), facts(row(paid_nano=500, keys={OTHER_KEY: KeyRow(500)})), Code.ALLOTMENT_TOO_LOW),
        (request(), facts(released=True), Code.ALLOTMENT_CLOSING),
        (request(), facts(row(closing_at=NOW + 9)), Code.ALLOTMENT_CLOSING),
        (request(), facts(escrow=escrow_state(row(), closing=True)), Code.ALLOTMENT_CLOSING),
        (request(), facts(row(terms=RowTerms(OTHER_KEY, 7200))), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(row(terms=RowTerms(RELEASE_KEY, 3599))), Code.ALLOTMENT_UNKNOWN),
        (request(epoch=18), facts(), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(escrow=escrow_state(None)), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(row(keys={bytes([i]) * 32: KeyRow() for i in range(16)})), Code.ALLOTMENT_UNKNOWN),
        (request(key=OTHER_KEY), facts(), Code.SEALING_KEY_UNKNOWN),
        (request(), facts(node_state=node_state(signing_key=OTHER_KEY)), Code.NODE_NOT_LIVE),
        (request(), facts(now=NOW + 1001), Code.NODE_NOT_LIVE),
        (request(), facts(node_state=node_state(unbond_at=NOW)), Code.NODE_NOT_LIVE),
        (request(signer=Ed25519PrivateKey.generate()), facts(), Code.VOUCHER_INVALID),
    ],
)
def test_gate_refuses_what_might_not_be_paid(a_request: SealedRequest, some_facts: Facts, code: Code) -> None:
    assert code_of(a_request, some_facts) is code


def test_gate_counts_what_this_key_was_paid_as_available() -> None:
    paid = row(paid_nano=600, keys={KEY: KeyRow(400), OTHER_KEY: KeyRow(200)})
    assert code_of(request(800), facts(paid)) is None
    assert code_of(request(801), facts(paid)) is Code.ALLOTMENT_TOO_LOW


# ---- claims


def account(**changes) -> Account:
    made = Account(
        key=KEY,
        allotment=ALLOTMENT,
        escrow=ESCROW,
        allotment_epoch=ROW_EPOCH,
        landed_seq=0,
        landed_nano=0,
        closed=False,
        seq=4,
        receipt=b"",
        signature=bytes(64),
        cumulative_nano=400,
        cap_nano=500,
        acked_nano=0,
        terms=b"t" * 32,
        voucher_signature=bytes(64),
        unlanded_since=NOW - 100,
    )
    return replace(made, **changes)


def test_what_landed_is_read_from_the_row_of_the_same_allotment() -> None:
    shown = row(keys={KEY: KeyRow(paid_nano=300, seq=3)})
    assert landed(account(), escrow_state(shown), NODE) == (KeyRow(300, 0, 0, 3), False)
    assert landed(account(), escrow_state(row()), NODE) == (KeyRow(), False)
    reopened = replace(shown, allotment=b"z" * 32)
    for gone in (escrow_state(reopened), escrow_state(None), None):
        assert landed(account(landed_nano=9, landed_seq=1), gone, NODE) == (KeyRow(9, 0, 0, 1), True)


def test_due_is_what_a_settlement_would_pay() -> None:
    assert due(account(), escrow_state(row()), NODE).payable_nano == 400
    assert due(account(cap_nano=250), escrow_state(row()), NODE).payable_nano == 250
    assert due(account(), escrow_state(row(allotted_nano=100)), NODE).payable_nano == 100
    assert due(account(), escrow_state(row(keys={KEY: KeyRow(400)}, paid_nano=400)), NODE).payable_nano == 0
    assert due(account(), None, NODE).payable_nano == 0


def test_policy_claims_on_amount_age_or_a_closing_row() -> None:
    policy = Policy(amount_nano=1000, age_seconds=600, receipt_claim_nano=1)
    one = Due(account(), 400)
    assert not is_urgent([one], [row()], policy, NOW)
    assert is_urgent([one, Due(account(), 600)], [row()], policy, NOW)
    assert is_urgent([Due(account(unlanded_since=NOW - 600), 400)], [row()], policy, NOW)
    assert is_urgent([one], [row(closing_at=NOW + 10)], policy, NOW)
    assert not is_urgent([Due(account(unlanded_since=0), 0)], [row(closing_at=NOW)], policy, NOW)
    assert not is_urgent([], [], policy, NOW)


# ---- the relayer's link


def test_link_vectors() -> None:
    """The published vectors that both ends of the link are held to."""
    key = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    network, node, nonce = b"\x11" * 32, b"\x22" * 32, b"\x33" * 32
    origin = "ws://127.0.0.1:8781"
    data = challenge_bytes(network, node, nonce, 1_790_000_000, origin)
    assert len(data) == 175
    assert sha256(data).hexdigest() == "73b713766fe08da5e005e6260d02b2e14e2f08b9a07c5881ae18443e81755646"
    assert sign_challenge(key, network, node, nonce, 1_790_000_000, origin).hex() == (
        "18f948800078dfd8b9d97ed8810a9245da3040dccb8a94d2ad758921066512ce"
        "f1169c88a7660f525db807c8a0b9c700d416b207cccca00f20a68d0c3516ca0d"
    )
    ask = ReleaseAsk(b"\x44" * 32, node, b"\x55" * 32, 3, 5_000_000_000, 1_790_000_300, b"")
    signed = ask.signed_bytes(network)
    assert len(signed) == 187
    assert sha256(signed).hexdigest() == "cfd9e9db710c83bc37d2e22e4faeaa4a97888517a9bf7bf5e6815afd13da12f7"
    signature = bytes.fromhex(
        "e46bde21258e79add92fd8175b6be3b0b80eff7a7e91c6143473a4aeb2abc9226f8ecfd4d41b7b748a485cb03df6e102"
        "a908cb249a6f38246e892f2926099a09"
    )
    public = key.public_key().public_bytes_raw()
    assert replace(ask, signature=signature).signed_by(public, network)
    assert not replace(ask, signature=signature, allotted_nano=1).signed_by(public, network)
    assert not replace(ask, signature=signature).signed_by(public, b"\x12" * 32)


def test_origin_is_what_was_dialled() -> None:
    assert origin_of("ws://127.0.0.1:8781/x/") == "ws://127.0.0.1:8781"
    assert origin_of("WSS://Relayer.Example") == "wss://relayer.example"
    for bad in ("http://x", "ws://", "relayer"):
        with pytest.raises(ValueError):
            origin_of(bad)


def test_bad_json_from_a_relayer_is_an_error_with_a_name() -> None:
    for body in (b"[]", b"{", b'"x"', b"[" * 100_000, b"x" * (300 << 10)):
        with pytest.raises(BadMessage):
            parse(body)
    for value in (True, -1, 1.5, "1", None, 1 << 63):
        with pytest.raises(BadMessage):
            int_field({"ask": value}, "ask")
    for value in ("zz", "aa", 5, None):
        with pytest.raises(BadMessage):
            hex_field({"key": value}, "key")
    with pytest.raises(BadMessage):
        stream_of(b"abc")


# ---- the enclave's link


def test_link_messages_round_trip() -> None:
    lines = tuple(ClaimLine(bytes([n]) * 32, bytes([n + 1]) * 32, n) for n in range(5))
    for message in (
        Introduce(NETWORK, NODE, 1 << 60, 3),
        Post(b"q" * 32, KEY, b"sealed"),
        SignClaim(1, 2, 3, lines),
        Answer(b"q" * 32, True, b""),
    ):
        assert decode(encode(message)[4:]) == message


@pytest.mark.parametrize(
    "junk", [b"", b"\xff", encode(Post(KEY, KEY, b"x"))[4:] + b"y", encode(Post(KEY, KEY, b"x"))[4:-1]]
)
def test_link_refuses_junk(junk: bytes) -> None:
    with pytest.raises(LinkError):
        decode(junk)


async def test_link_refuses_the_wrong_side_and_oversize() -> None:
    reader = asyncio.StreamReader()
    link = Link(reader, None, FROM_AGENT)  # type: ignore[arg-type]
    reader.feed_data(encode(Answer(KEY, False, b"")))
    with pytest.raises(LinkError, match="wrong side"):
        await link.receive()
    reader.feed_data(b"\xff\xff\xff\xff")
    with pytest.raises(LinkError, match="allowed"):
        await link.receive()
    reader.feed_eof()
    with pytest.raises(LinkClosed):
        await Link(reader, None, FROM_ENCLAVE).receive()  # type: ignore[arg-type]


# ---- files


def test_release_key_file_is_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "agent" / "release.key"
    key = create_release_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_release_key(path).private_bytes_raw() == key.private_bytes_raw()
    with pytest.raises(KeyFileError):
        create_release_key(path)
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        load_release_key(path)
    path.chmod(0o600)
    path.write_text("junk")
    with pytest.raises(KeyFileError, match="not a release key") as caught:
        load_release_key(path)
    assert "junk" not in str(caught.value)
    with pytest.raises(KeyFileError, match="cocoon node open"):
        load_release_key(tmp_path / "none")


GOOD = {"network": "devnet", "registry": "ab" * 32, "data_dir": "data", "enclave_config": "e.toml", "node": "cd" * 32}


def test_agent_configuration_is_read_strictly(tmp_path: Path) -> None:
    parsed = config.parse(GOOD, where="x", base=tmp_path)
    assert parsed.data_dir == tmp_path / "data" and parsed.node == b"\xcd" * 32
    assert parsed.release_key == tmp_path / "data" / "release.key"
    bad = [
        {"nodes": "x"},
        {"registry": "zz"},
        {"relayers": ["http://x"]},
        {"poll_seconds": 0},
        {"max_in_flight": "3"},
        {"claim_age_seconds": -1},
    ]
    for change in bad:
        with pytest.raises(config.ConfigError, match=next(iter(change))):
            config.parse({**GOOD, **change}, where="x", base=tmp_path)
    for missing in GOOD:
        with pytest.raises(config.ConfigError, match=missing):
            config.parse({k: v for k, v in GOOD.items() if k != missing}, where="x", base=tmp_path)


async def test_control_socket_works_in_deep_folders_and_for_one_agent(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    path = folder / "agent.sock"

    async def handler(asked):
        return {"echo": asked["do"]}

    with pytest.raises(control.NotRunning):
        await control.ask(path, {"do": "x"})
    server = await control.serve(path, handler)
    assert await control.ask(path, {"do": "x"}) == {"echo": "x"}
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(control.AlreadyRunning):
        await control.serve(path, handler)
    server.close()
