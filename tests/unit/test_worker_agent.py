"""The agent's parts: the enclave's link, what it refuses, what it releases, when it claims, how it is configured."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner

from attestation.onchain.fees import attest as attest_need
from attestation.onchain.state import ChainImage, ImageStatus, VerifierState
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.verifier import ATTEST_VALUE_NANO, EvidenceRefused, NotAttested
from chain.api import Unreachable
from devnet.ledger import Ledger
from protocol.errors import Code
from protocol.sealing import SealedRequest
from scripts.stage import built_world
from worker.agent import cli, config, control
from worker.agent import keeper as keeper_module
from worker.agent.attest import _check_image
from worker.agent.claims import HURRY_SECONDS, Due, Policy, due, in_a_hurry, is_urgent, landed
from worker.agent.command import config_path
from worker.agent.enclave_process import EnclaveGone
from worker.agent.gate import Facts, refusal
from worker.agent.keeper import Keeper
from worker.agent.release_keys import KeyFileError, create_release_key, load_release_key
from worker.agent.store import Account
from worker.fields import LinkError
from worker.link import FROM_AGENT, FROM_ENCLAVE, Link, LinkClosed, decode, encode
from worker.messages import Answer, ClaimLine, Introduce, Post, SignClaim
from wrappers.escrow import EscrowState, NextKey
from wrappers.node import NodeExtras, NodeState
from wrappers.prices import Prices
from wrappers.receipts import Voucher
from wrappers.rows import KeyRow, Row, RowTerms
from wrappers.signed import allotment_id, sign

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
        acked_only=False,
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
        extras=None,
        registry=REGISTRY,
        stub_prefix=bytes(39),
        gas_level_nano=1,
        payout_threshold_nano=1,
        rent_reserve_nano=1,
        court=bytes(32),
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
        (request(), facts(escrow=escrow_state(row(), next_key=NextKey(OTHER_KEY, NOW + 3600))), Code.ALLOTMENT_CLOSING),
        (request(), facts(escrow=escrow_state(row(), next_key=NextKey(OTHER_KEY, NOW + 3601))), None),
        (request(), facts(row(terms=RowTerms(OTHER_KEY, 7200))), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(row(terms=RowTerms(RELEASE_KEY, 3599))), Code.ALLOTMENT_UNKNOWN),
        (request(epoch=18), facts(), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(escrow=escrow_state(None)), Code.ALLOTMENT_UNKNOWN),
        (request(), facts(row(keys={bytes([i]) * 32: KeyRow() for i in range(16)})), Code.ALLOTMENT_UNKNOWN),
        (request(key=OTHER_KEY), facts(), Code.SEALING_KEY_UNKNOWN),
        (request(), facts(node_state=node_state(signing_key=OTHER_KEY)), Code.NODE_NOT_LIVE),
        (request(), facts(now=NOW + 1001), Code.NODE_NOT_LIVE),
        (request(), facts(node_state=node_state(unbond_at=NOW)), Code.NODE_NOT_LIVE),
        (request(), facts(node_state=node_state(extras=NodeExtras(draining=True))), Code.NODE_DRAINING),
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
    made = replace(made, **changes)
    voucher = Voucher(made.allotment, made.key, made.cap_nano, made.acked_nano, made.terms)
    return replace(made, voucher_signature=sign(voucher, CLIENT))


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
    assert due(account(), escrow_state(row(allotment=OTHER_KEY)), NODE).payable_nano == 0


def test_g8_what_the_escrow_would_refuse_is_not_due_whatever_was_earned() -> None:
    """A claim that brings nothing costs the node's gas, at every poll."""
    shown = row(keys={KEY: KeyRow(paid_nano=60, cap_nano=500, acked_nano=120)}, paid_nano=60)
    for acked, payable_nano in ((0, 60), (100, 60), (200, 140), (900, 340)):
        owed = account(acked_nano=acked)
        assert due(owed, escrow_state(shown), NODE, acked_only=True).payable_nano == payable_nano
        assert due(owed, escrow_state(shown), NODE).payable_nano == 340
    assert due(account(), escrow_state(row(), voucher_key=OTHER_KEY), NODE).payable_nano == 0


def test_policy_claims_on_amount_age_or_a_closing_row() -> None:
    policy = Policy(amount_nano=1000, age_seconds=600, receipt_claim_nano=1)
    one = Due(account(), 400)
    assert not is_urgent([one], False, policy, NOW)
    assert is_urgent([one, Due(account(), 600)], False, policy, NOW)
    assert is_urgent([Due(account(unlanded_since=NOW - 600), 400)], False, policy, NOW)
    assert is_urgent([one], True, policy, NOW)
    assert not is_urgent([Due(account(unlanded_since=0), 0)], True, policy, NOW)
    assert not is_urgent([], False, policy, NOW)


def test_a_closing_row_and_a_voucher_key_about_to_be_replaced_put_claims_in_a_hurry() -> None:
    assert in_a_hurry(escrow_state(row(closing_at=NOW + 10**6)), NODE, NOW)
    for left, hurried in ((HURRY_SECONDS, True), (HURRY_SECONDS + 1, False), (-1, True)):
        waiting = escrow_state(row(), next_key=NextKey(OTHER_KEY, NOW + left))
        assert in_a_hurry(waiting, NODE, NOW) is hurried
    assert not in_a_hurry(escrow_state(row()), NODE, NOW)
    assert not in_a_hurry(escrow_state(None, next_key=NextKey(OTHER_KEY, NOW)), NODE, NOW)
    assert not in_a_hurry(None, NODE, NOW)


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
    assert "KeyError" in (await control.ask(path, {"other": "x"}))["error"], "it answers whatever happens"
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(control.AlreadyRunning):
        await control.serve(path, handler)
    server.close()


# ---- the operator's commands


@pytest.mark.parametrize(
    "command", ["status", "settle", "collect", "unbond", "withdraw", "drain", "rotate-keys", "price", "stake 1"]
)
def test_g18_commands_without_a_configuration_name_the_cure(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for home, expected in ((None, ".cocoon/agent.toml"), (str(tmp_path / "home"), f"{tmp_path}/home/agent.toml")):
        monkeypatch.delenv("COCOON_HOME", raising=False)
        if home is not None:
            monkeypatch.setenv("COCOON_HOME", home)
        result = CliRunner().invoke(cli.app, command.split())
        assert result.exit_code == 1 and "Traceback" not in result.output
        assert expected in result.output and "cocoon up" in result.output


def test_commands_take_the_configuration_of_the_home_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COCOON_HOME", raising=False)
    for name in (".cocoon", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "agent.toml").write_text("")
    assert config_path(None) == Path(".cocoon/agent.toml")
    monkeypatch.setenv("COCOON_HOME", "home")
    assert config_path(None) == Path("home/agent.toml")
    assert config_path(Path("mine.toml")) == Path("mine.toml")
    result = CliRunner().invoke(cli.app, ["status", "--config", "mine.toml"])
    assert result.exit_code == 1 and "mine.toml" in result.output


async def test_g18_evidence_that_the_chain_refused_is_not_paid_for_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage is tried again soon; a refusal costs gas every time, so the pauses grow to hours."""
    failures = iter([Unreachable("down"), *(EvidenceRefused("old platform") for _ in range(5)), EnclaveGone("over")])
    pauses: list[float] = []

    class Attesting:
        async def attest(self, _enclave: object) -> tuple[bytes, int]:
            raise next(failures)

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(keeper_module.asyncio, "sleep", sleep)
    keeper = Keeper.__new__(Keeper)
    keeper._attesting = Attesting()  # type: ignore[assignment]
    await keeper._keep_attested(None, None)  # type: ignore[arg-type]
    assert pauses == [1.0, 60.0, 600.0, 3600.0, 14_400.0, 14_400.0]


def test_an_image_that_the_chain_does_not_allow_costs_no_gas() -> None:
    machine = SimulatedTee(b"machine")
    world = built_world(verifier=True)
    data = world.ledger.account(world.attestation).data
    assert data is not None
    state = VerifierState.from_cell(data)
    _check_image(state, machine.quote(bytes(64)))
    with pytest.raises(NotAttested, match="not on this network's allow-list"):
        _check_image(state, SimulatedTee(b"machine", Registers.of_image("other")).quote(bytes(64)))
    retired = {machine.registers.measurement: ChainImage(status=ImageStatus.RETIRED)}
    with pytest.raises(NotAttested, match="retired there"):
        _check_image(replace(state, images=retired), machine.quote(bytes(64)))


def test_what_attestation_brings_is_above_its_need_at_mainnets_prices() -> None:
    need = attest_need(Prices.from_config(Ledger().config))
    assert need * 1.2 < ATTEST_VALUE_NANO < 3 * need
