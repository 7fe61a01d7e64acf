"""Link bytes, settings, mirror, streams and claims of the relayer, one by one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import relayer_world as world
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core import begin_cell

from chain.api import AccountState, Status
from chain.quorum import Quorum
from protocol import link
from protocol.errors import Code, WireError
from protocol.frames import Frame, FrameType
from protocol.link import BadMessage, Kind
from protocol.link_messages import Challenge, Hello
from relayer.api.admission import ceiling_of
from relayer.api.handshake import new_challenge, read_hello, speaks_for_node
from relayer.api.receipts import ReceiptFault, read_receipt
from relayer.api.streams import Chunk, Fault, Stream
from relayer.chain.claim import ClaimFault, read_claim
from relayer.chain.mirror import Mirror
from relayer.chain.scan import escrow_fact
from relayer.config import Limits, RelayerConfig, load_config, parse_config
from relayer.core.facts import RowGone, RowSeen
from relayer.core.policy import SettlePolicy
from relayer.core.tally import Tally
from relayer.errors import STATUS, ConfigError, Refusal
from wrappers.cells import to_boc
from wrappers.claims import ClaimMessage
from wrappers.escrow import NextKey
from wrappers.rows import KeyRow, Row, RowTerms

SIGNER = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


# -- who speaks for a node


def test_handshake__the_first_message_must_be_hello() -> None:
    hello = Hello(b"\x22" * 32, b"\x33" * 64, 4, "x", None)
    assert read_hello(link.json_message(Kind.HELLO, hello.to_json())) == hello
    with pytest.raises(BadMessage, match="HELLO"):
        read_hello(link.json_message(Kind.OFFER, hello.to_json()))


@pytest.mark.parametrize("changed", ["nonce", "issued_at", "origin", "network", "node", "key"])
def test_g10_handshake__any_other_binding_does_not_speak_for_the_node(changed: str) -> None:
    bound: dict[str, Any] = {
        "network": b"\x11" * 32,
        "node": b"\x22" * 32,
        "nonce": b"\x33" * 32,
        "issued_at": 5,
        "origin": "ws://a:1",
    }
    signed = dict(bound)
    if changed in signed:
        value = signed[changed]
        signed[changed] = {bytes: b"\x99" * 32, int: 6, str: "ws://b:1"}[type(value)]
    said = Hello(bound["node"], SIGNER.sign(link.link_challenge(**signed)), 1, "x", None, 1 << 20)
    key = SIGNER.public_key().public_bytes_raw() if changed != "key" else b"\x01" * 32
    challenge = Challenge(bound["network"], bound["nonce"], bound["issued_at"], "relayer")
    assert not speaks_for_node(said, challenge, release_key=key, origins=["ws://a:1"])


def test_handshake__the_release_key_speaks_at_any_of_the_relayers_origins_and_nonces_are_fresh() -> None:
    challenge, other = (new_challenge(b"\x11" * 32, "relayer", 5) for _ in range(2))
    node, key = b"\x22" * 32, SIGNER.public_key().public_bytes_raw()
    said = Hello(node, SIGNER.sign(challenge.signed_bytes(node, "wss://b")), 1, "x", None)
    assert speaks_for_node(said, challenge, release_key=key, origins=["ws://a:1", "wss://b"])
    assert not speaks_for_node(said, other, release_key=key, origins=["ws://a:1", "wss://b"])


# -- settings

MINIMAL = {"network": "devnet", "registry": "0a" * 32, "data_dir": "data"}


def test_config__defaults_tables_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "relayer.toml"
    file.write_text(
        'network = "devnet"\nregistry = "%s"\ndata_dir = "data"\nworker_urls = ["wss://r.example"]\n'
        "[limits]\nidle_seconds = 5\n[settle]\namount_nano = 7\n" % ("0a" * 32)
    )
    environment = {"COCOON_RELAYER_NAME": "mine", "COCOON_RELAYER_LIMITS_IN_FLIGHT": "9", "OTHER": "x"}
    config = load_config(file, environment)
    assert config.data_dir == tmp_path / "data" and config.registry == b"\x0a" * 32 and config.name == "mine"
    assert config.limits == Limits(idle_seconds=5.0, in_flight=9)
    assert config.settle == SettlePolicy(amount_nano=7) and config.worker_urls == ("wss://r.example",)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"registry": "xyz"}, "registry"),
        ({"registry": None}, "registry"),
        ({"colour": "red"}, "colour"),
        ({"poll_seconds": 0}, "poll_seconds"),
        ({"poll_seconds": "soon"}, "poll_seconds"),
        ({"keep_days": -1}, "keep_days"),
        ({"limits": 5}, "limits"),
        ({"limits": {"in_flight": 1.5}}, "in_flight"),
        ({"limits": {"max_request_bytes": 1 << 30}}, "max_request_bytes"),
        ({"worker_urls": ["http://x"]}, "worker_urls"),
        ({"name": ""}, "name"),
    ],
)
def test_g18_config__names_file_key_and_cure(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named) as caught:
        parse_config({**MINIMAL, **changes}, {}, where="relayer.toml")
    assert "relayer.toml" in str(caught.value)


def test_g18_config__missing_file_and_missing_key() -> None:
    with pytest.raises(ConfigError, match="--config"):
        load_config(Path("/nonexistent/relayer.toml"), {})
    with pytest.raises(ConfigError, match="registry missing"):
        parse_config({"network": "devnet", "data_dir": "d"}, {}, where="relayer.toml")


def test_config__every_key_is_documented() -> None:
    import inspect

    for kind in (RelayerConfig, Limits, SettlePolicy):
        lines = inspect.getsource(kind).splitlines()
        for index, line in enumerate(lines):
            if line.startswith("    ") and ": " in line and not line.strip().startswith('"""') and "=" in line:
                name = line.strip().split(":")[0]
                follows = lines[index + 1].strip() if index + 1 < len(lines) else ""
                assert follows.startswith('"""'), f"{kind.__name__}.{name}"


# -- mirror


def mirror_over(*chains: Any) -> Mirror:
    chain = chains[0] if len(chains) == 1 else Quorum(chains, settle_seconds=0.2, reread_seconds=0.05)
    return Mirror(chain, registry=world.REGISTRY, network=world.NETWORK)


async def test_mirror__reads_once_for_many_and_again_when_old() -> None:
    chain, machine = world.MemoryChain(), world.Machine()
    chain.put(machine.account, machine.state().to_cell())
    reads = 0
    account = chain.account

    async def counted(name: bytes) -> AccountState:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0.01)
        return await account(name)

    chain.account = counted
    mirror = mirror_over(chain)
    seen = await asyncio.gather(*(mirror.node(machine.account, max_age_seconds=5) for _ in range(20)))
    assert reads == 1 and all(one.state == machine.state(claims_until=one.state.claims_until) for one in seen)
    await mirror.node(machine.account, max_age_seconds=0)
    assert reads == 2


async def test_g17_mirror__lying_endpoint_is_uncertainty_not_an_answer() -> None:
    honest, liar, machine = world.MemoryChain(), world.MemoryChain(), world.Machine()
    honest.name, liar.name = "honest", "liar"
    honest.put(machine.account, machine.state().to_cell())
    liar.put(machine.account, machine.state(signing_key=b"\x66" * 32).to_cell())
    with pytest.raises(Refusal) as caught:
        await mirror_over(honest, liar).node(machine.account, max_age_seconds=0)
    assert caught.value.code is Code.CHAIN_UNCERTAIN and "honest" in caught.value.cause


async def test_g17_mirror__missing_endpoint_is_never_an_absent_escrow() -> None:
    honest, gone, client = world.MemoryChain(), world.MemoryChain(), world.Client(world.Machine())
    honest.name, gone.name, gone.down = "honest", "gone", True
    with pytest.raises(Refusal) as caught:
        await mirror_over(honest, gone).escrow(client.account, max_age_seconds=0)
    assert caught.value.code is Code.CHAIN_UNCERTAIN


@pytest.mark.parametrize("forge", ["address", "network", "stub", "junk", "absent"])
async def test_g10_mirror__what_the_registry_did_not_bear_is_no_escrow(forge: str) -> None:
    chain, client = world.MemoryChain(), world.Client(world.Machine())
    account = client.account
    states: dict[str, Callable[[], Any]] = {
        "address": lambda: client.state().to_cell(),
        "network": lambda: client.state(network_id=b"\x01" * 32).to_cell(),
        "stub": lambda: begin_cell().store_bytes(bytes(69)).end_cell(),
        "junk": lambda: begin_cell().store_uint(5, 8).end_cell(),
    }
    if forge == "address":
        account = b"\x13" * 32
    if forge in states:
        chain.put(account, states[forge]())
    seen = await mirror_over(chain).escrow(account, max_age_seconds=0)
    assert seen.state is None and seen.why_not


# -- streams


def frame(kind: FrameType, size: int = 10) -> bytes:
    return Frame(kind, bytes(size)).to_bytes()


async def drain(stream: Stream) -> list[Any]:
    found: list[Any] = []
    while True:
        try:
            part = await stream.next(0.05)
        except TimeoutError:
            return [*found, "silence"]
        found.append(part)
        if not isinstance(part, Chunk):
            return found


async def test_stream__copies_messages_and_picks_receipts() -> None:
    stream = Stream(1)
    first = frame(FrameType.HEAD) + frame(FrameType.DATA)
    last = frame(FrameType.DATA) + frame(FrameType.RECEIPT, 7) + frame(FrameType.LAST)
    stream.feed(first)
    stream.feed(last)
    assert await drain(stream) == [Chunk(first), Chunk(last, (bytes(7),)), None]
    assert stream.finished and not stream.may_bring_receipts


async def test_stream__nothing_after_the_end_gets_in() -> None:
    stream = Stream(1)
    stream.feed(frame(FrameType.ERROR))
    stream.feed(frame(FrameType.DATA))
    assert len(await drain(stream)) == 2


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_g18_stream__any_bytes_end_in_order_or_in_a_fault(messages: list[bytes]) -> None:
    async def check() -> None:
        stream = Stream(1)
        for message in messages:
            stream.feed(message)
        for part in await drain(stream):
            if isinstance(part, Fault):
                assert part.error.code is Code.NODE_GONE

    asyncio.run(check())


async def test_stream__overflow_ends_the_client_but_keeps_the_receipt() -> None:
    overflowed: list[int] = []
    stream = Stream(1, buffer_bytes=100)
    stream.on_overflow = lambda: overflowed.append(1)
    stream.feed(frame(FrameType.HEAD))
    stream.feed(frame(FrameType.DATA, 200))
    stream.feed(frame(FrameType.RECEIPT, 3))
    assert overflowed == [1] and stream.finished and stream.may_bring_receipts
    stream.keep_receipts_only()
    stream.feed(frame(FrameType.LAST, 500))
    assert [part for part in await drain(stream) if isinstance(part, Chunk)] == [Chunk(b"", (bytes(3),))]


async def test_stream__lost_link_wakes_the_reader() -> None:
    stream = Stream(1)
    waiting = asyncio.ensure_future(stream.next(5))
    await asyncio.sleep(0)
    stream.fail(WireError.of(Code.NODE_GONE))
    assert isinstance(await waiting, Fault)


# -- receipts and claims from workers


def receipt_of(machine: Any, client: Any) -> tuple[Any, dict[str, Any]]:
    sealed, _ = client.seal("x")
    signed = world.Enclave(machine).issue(sealed, 500, bytes(32))
    bound = {
        "request_id": None,
        "escrow": client.account,
        "node": machine.account,
        "node_id": machine.id,
        "allotment": client.allotment,
        "key": machine.key,
        "now": 9,
    }
    return signed, bound


def test_g13_receipt__any_flipped_byte_is_refused() -> None:
    machine = world.Machine()
    signed, bound = receipt_of(machine, world.Client(machine))
    payload = signed.to_bytes()
    assert read_receipt(payload, **bound).cumulative_nano == 500
    for at in range(len(payload)):
        with pytest.raises(ReceiptFault):
            read_receipt(payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :], **bound)


@pytest.mark.parametrize("name", ["node_id", "allotment", "key"])
def test_g10_receipt__of_another_node_allotment_or_key_is_refused(name: str) -> None:
    machine = world.Machine()
    signed, bound = receipt_of(machine, world.Client(machine))
    with pytest.raises(ReceiptFault):
        read_receipt(signed.to_bytes(), **{**bound, name: b"\x09" * 32})


def claim_of() -> tuple[Any, bytes, int]:
    machine, now = world.Machine(), int(time.time())
    client, enclave = world.Client(machine), world.Enclave(machine)
    enclave.issue(client.seal("x")[0], 500, bytes(32))
    return machine, enclave.claim(0, now), now


def test_claim__good_one_is_read() -> None:
    machine, message, now = claim_of()
    ready = read_claim(message, node=machine.account, state=machine.state(), now=now)
    assert (ready.seqno, ready.valid_until, ready.message) == (0, now + 100, message)


def test_g10_claim__that_cannot_land_is_refused() -> None:
    machine, message, now = claim_of()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"node": b"\x01" * 32}, "not an external message"),
        ({"state": machine.state(seqno=1)}, "used up"),
        ({"state": machine.state(signing_key=b"\x01" * 32)}, "signature"),
        ({"state": machine.state(signing_key=None)}, "no signing key"),
        ({"state": machine.state(node_id=b"\x01" * 32)}, "signature"),
        ({"now": now + 101}, "valid_until"),
        ({"now": now - 1000}, "valid_until"),
    ]
    for changes, why in cases:
        options = {"node": machine.account, "state": machine.state(), "now": now} | changes
        with pytest.raises(ClaimFault, match=why):
            read_claim(message, **options)
    for junk in (b"", b"junk", to_boc(begin_cell().end_cell()), message[:-1]):
        with pytest.raises(ClaimFault):
            read_claim(junk, node=machine.account, state=machine.state(), now=now)
    assert ClaimMessage is not None


# -- what an escrow says about a tally


async def test_scan__only_a_deleted_account_or_a_replaced_row_ends_a_tally() -> None:
    machine = world.Machine()
    client = world.Client(machine)
    tally = Tally(client.account, machine.account, client.allotment, machine.key)
    chain = world.MemoryChain()
    mirror = mirror_over(chain)
    chain.put(client.account, client.state().to_cell())
    seen = await mirror.escrow(client.account, max_age_seconds=0)
    fact = escrow_fact(tally, seen, Status.ACTIVE, 5)
    assert isinstance(fact, RowSeen) and fact.allotted_nano == client.allotted_nano
    assert fact.closing_at == 0 and seen.state is not None
    waiting = replace(seen, state=replace(seen.state, next_key=NextKey(b"\x02" * 32, 99)))
    fact = escrow_fact(tally, waiting, Status.ACTIVE, 5)
    assert isinstance(fact, RowSeen) and fact.closing_at == 99, "what the present voucher key signed ends then"
    other = replace(tally, allotment=b"\x01" * 32)
    assert isinstance(escrow_fact(other, seen, Status.ACTIVE, 5), RowGone)
    nothing = replace(seen, state=None)
    assert isinstance(escrow_fact(tally, nothing, Status.ABSENT, 5), RowGone)
    assert isinstance(escrow_fact(tally, nothing, Status.UNINIT, 5), RowGone)
    assert escrow_fact(tally, nothing, Status.FROZEN, 5) is None
    assert escrow_fact(tally, nothing, Status.ACTIVE, 5) is None, "unreadable data is not an absent row"


def test_g18_errors__every_refusal_has_status_cause_and_cure() -> None:
    for code in STATUS:
        refusal = Refusal(code, "a detail")
        assert 400 <= refusal.status < 600 and "a detail" in refusal.cause and refusal.cure


def test_g6_a_voucher_is_worth_what_the_row_has_left_beside_other_keys() -> None:
    keys = {b"k" * 32: KeyRow(paid_nano=300), b"o" * 32: KeyRow(paid_nano=150)}
    row = Row(7, 1000, 450, 0, 0, RowTerms(bytes(32), 3600), keys)
    assert ceiling_of(row, b"k" * 32) == 850 and ceiling_of(row, b"o" * 32) == 700
    assert ceiling_of(row, b"n" * 32) == 550, "a key that was paid nothing yet"
