"""Verdicts of the on-chain verifier: what a node gets, and every way in which evidence is refused."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from attestation_mirror import EPOCH, KEY, NODE, REFUSING_NODE, ROOT_KEY, Mirror, tee
from pytoniq_core import Cell, begin_cell

from attestation.onchain import fees
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import appraise, governed, release_platform
from attestation.onchain.state import NO_LAUNCH, ChainImage, ChainPolicy
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.simulated.tee import Registers
from attestation.witness import QuoteParts, attest_message
from devnet.ledger import Ledger, Snapshot
from scripts.attest_stage import TON, Outcome, Stage
from wrappers.errors import ContractError
from wrappers.governance import allow_image, deny_platform, free_platform, revoke_image, set_policy
from wrappers.ops import Op
from wrappers.prices import Prices


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    mirror = Mirror()
    for name, outcome in mirror.load().items():
        assert outcome.accepted, name
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


def verdict(outcome: Outcome) -> dict[str, Any]:
    assert outcome.exit_code == 0
    message = next(m for m in outcome.trace.of(outcome.trace.transactions[1].account)[0].out_msgs)
    body = message.body.begin_parse()
    assert body.load_uint(32) == Op.VERDICT
    prefix, seqno = body.load_bytes(24), body.load_uint(32)
    inner = body.load_ref().begin_parse()
    identity = inner.load_ref().begin_parse()
    consent = body.load_maybe_ref()
    found = {
        "node": message.destination,
        "epoch": inner.load_uint(64),
        "key": inner.load_bytes(32),
        "attested_until": inner.load_uint(32),
        "block_seqno": inner.load_uint(32),
        "tier": inner.load_uint(8),
        "measurement": identity.load_bytes(32),
        "platform": identity.load_bytes(32),
    }
    assert (prefix, seqno) == (found["platform"][:24], found["block_seqno"])
    return found if consent is None else {**found, "consent": consent.begin_parse().load_bytes(64)}


def refused(outcome: Outcome, error: Error | ContractError) -> None:
    assert outcome.exit_code == error, outcome.exit_code


def test_genuine_evidence_becomes_a_verdict_to_the_node(mirror: Mirror) -> None:
    machine = tee()
    found = verdict(mirror.attest(machine))
    assert found == {
        "node": NODE,
        "epoch": EPOCH,
        "key": KEY,
        "attested_until": mirror.ledger.now + ChainPolicy().longest_seconds,
        "block_seqno": mirror.ledger.prev_blocks.hundreds[0].seqno,
        "tier": 0,
        "measurement": machine.registers.measurement,
        "platform": machine.platform_id,
    }


def test_verdict_ends_with_the_earliest_collateral(mirror: Mirror) -> None:
    mirror.ledger.now += simulated.VALIDITY_SECONDS - 1000
    assert verdict(mirror.attest())["attested_until"] == mirror.ledger.now + 1000
    mirror.ledger.now += 1000
    refused(mirror.attest(), Error.EXPIRED)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("node", b"\x34" * 32),
        ("node_epoch", EPOCH + 1),
        ("signing_key", b"\x45" * 32),
        ("gpu_evidence_hash", b"\x01" * 32),
    ],
)
def test_g12_quote_for_another_binding_is_refused(mirror: Mirror, name: str, value: Any) -> None:
    refused(mirror.attest(**{name: value}), Error.WRONG_REPORT_DATA)


def test_g12_quote_for_another_network_is_refused(mirror: Mirror) -> None:
    refused(mirror.attest(binding=mirror.binding(network_id=bytes(32))), Error.WRONG_REPORT_DATA)


def test_g12_quote_over_an_invented_block_is_refused(mirror: Mirror) -> None:
    refused(mirror.attest(binding=mirror.binding(block_root_hash=b"\x01" * 32)), Error.WRONG_REPORT_DATA)


def test_g12_blocks_outside_the_newest_sixteen_hundreds_are_refused(mirror: Mirror) -> None:
    assert verdict(mirror.attest(binding=mirror.binding(back=15)))
    binding = mirror.binding(back=15)
    mirror.ledger.now += 100
    refused(mirror.attest(binding=binding), Error.OLD_BLOCK)
    newest = mirror.ledger.prev_blocks.hundreds[0].seqno
    for seqno in (newest + 100, newest - 1, newest + 1, 0):
        refused(mirror.attest(binding=mirror.binding(block_seqno=seqno)), Error.OLD_BLOCK)


def changed_registers(**changes: Any) -> Registers:
    base = Registers.of_image()
    return Registers(base.mrtd, base.rtmrs, **changes)


@pytest.mark.parametrize("attributes", ["0100001000000000", "1000001000000000", "0000000000000000", "0000003000000000"])
def test_g12_debug_profiling_migratable_or_unprotected_td_is_refused(mirror: Mirror, attributes: str) -> None:
    registers = changed_registers(td_attributes=bytes.fromhex(attributes))
    refused(mirror.attest(tee(registers=registers)), Error.WRONG_ATTRIBUTES)


@pytest.mark.parametrize("name", ["mr_config_id", "mr_owner", "mr_owner_config"])
def test_g12_launch_registers_are_pinned(mirror: Mirror, name: str) -> None:
    registers = changed_registers(**{name: b"\x01" * 48})
    refused(mirror.attest(tee(registers=registers)), Error.WRONG_LAUNCH)
    launch = sha256(registers.mr_config_id + registers.mr_owner + registers.mr_owner_config).digest()
    allowed = allow_image(registers.measurement, 1, launch)
    assert mirror.stage.govern(allowed).accepted
    assert verdict(mirror.attest(tee(registers=registers)))
    refused(mirror.attest(), Error.WRONG_LAUNCH)


def test_g12_measurement_must_be_allowed_and_revocation_is_immediate(mirror: Mirror) -> None:
    other = Registers.of_image("other")
    refused(mirror.attest(tee(registers=other)), Error.UNKNOWN_IMAGE)
    assert mirror.stage.govern(allow_image(other.measurement, 1, NO_LAUNCH)).accepted
    assert verdict(mirror.attest(tee(registers=other)))
    assert mirror.stage.govern(revoke_image(other.measurement, compromised=False)).accepted
    refused(mirror.attest(tee(registers=other)), Error.REVOKED_IMAGE)
    refused(mirror.stage.govern(revoke_image(bytes(32), compromised=True)), Error.UNKNOWN_IMAGE)


def test_one_live_node_per_platform_until_it_is_released(mirror: Mirror) -> None:
    machine, other = tee(), REFUSING_NODE
    assert verdict(mirror.attest(machine))
    refused(mirror.attest(machine, mirror.binding(node=other)), Error.PLATFORM_TAKEN)
    old = mirror.binding(node=other)
    refused(mirror.stage.tell(release_platform(machine.platform_id)), ContractError.NOT_ALLOWED)
    trace = mirror.ledger.send_internal(
        source=NODE, destination=mirror.stage.account, value_nano=TON, body=release_platform(machine.platform_id)
    )
    assert mirror.stage.outcome(trace).exit_code == 0
    # What was quoted before the release cannot take the platform again, whoever sends it.
    refused(mirror.attest(machine, old), Error.OLD_BLOCK)
    mirror.ledger.now += 100
    assert verdict(mirror.attest(machine, mirror.binding(node=other)))["node"] == other
    assert verdict(mirror.attest(tee(b"another machine"), mirror.binding(node=other)))


def test_denied_platform_is_refused_at_once_until_freed(mirror: Mirror) -> None:
    machine = tee()
    assert mirror.stage.govern(deny_platform(machine.platform_id)).accepted
    refused(mirror.attest(machine), Error.DENIED)
    assert mirror.stage.govern(free_platform(machine.platform_id)).accepted
    refused(mirror.attest(machine), Error.OLD_BLOCK)
    mirror.ledger.now += 100
    assert verdict(mirror.attest(machine))
    refused(mirror.stage.govern(free_platform(bytes(32))), Error.UNKNOWN_PLATFORM)


def test_g10_policy_is_the_registrys_alone(mirror: Mirror) -> None:
    for body in (
        set_policy(ChainPolicy().to_cell()),
        allow_image(bytes(32), 1, NO_LAUNCH),
        revoke_image(bytes(32), compromised=True),
        deny_platform(bytes(32)),
        free_platform(bytes(32)),
    ):
        refused(mirror.stage.tell(governed(mirror.stage.wallet.account, body)), ContractError.NOT_ALLOWED)
        assert mirror.stage.tell(body).exit_code != 0


@pytest.mark.parametrize(
    "policy",
    [
        ChainPolicy(floor=3, ceiling=2),
        ChainPolicy(longest_seconds=3599),
        ChainPolicy(longest_seconds=91 * 86_400),
        ChainPolicy(attributes_allowed=0x0100001000000000),
        ChainPolicy(attributes_required=0x0000003000000000),
        ChainPolicy(xfam_required=1 << 63 | 1 << 62 | 1),
    ],
)
def test_g20_policy_outside_the_bounds_in_code_is_refused(mirror: Mirror, policy: ChainPolicy) -> None:
    refused(mirror.stage.govern(set_policy(policy.to_cell())), ContractError.BAD_PARAMETERS)


def test_g12_no_policy_accepts_revoked(mirror: Mirror) -> None:
    cell = ChainPolicy(accepted_statuses=frozenset({"Revoked"})).to_cell()
    refused(mirror.stage.govern(set_policy(cell)), ContractError.BAD_PARAMETERS)


def test_raised_floor_ends_older_collateral_at_once(mirror: Mirror) -> None:
    assert mirror.stage.govern(set_policy(ChainPolicy(floor=simulated.EVALUATION_NUMBER + 1).to_cell())).accepted
    refused(mirror.attest(), Error.WRONG_NUMBER)


def test_xfam_outside_the_policy_is_refused(mirror: Mirror) -> None:
    policy = ChainPolicy(xfam_allowed=0x0300000000000000)
    assert mirror.stage.govern(set_policy(policy.to_cell())).accepted
    refused(mirror.attest(), Error.WRONG_ATTRIBUTES)


def test_g14_simulated_root_is_refused_on_mainnet_at_genesis_and_after() -> None:
    ledger = Ledger(global_id=-239)
    stage = Stage(ledger, ROOT_KEY, images={Registers.of_image().measurement: ChainImage(2)})
    assert stage.outcome(stage.deploy()).exit_code == ContractError.MAIN_NETWORK
    # Even a state that somehow came to be there gives no verdict.
    other = Mirror()
    for outcome in other.load().values():
        assert outcome.accepted
    ledger.now = max(ledger.now, other.ledger.now)
    ledger._accounts[other.stage.account] = other.ledger._accounts[other.stage.account]
    binding = other.binding()
    message = attest_message(tee().quote(binding.report_data()), binding)
    stage.account = other.stage.account
    refused(stage.tell(message), ContractError.MAIN_NETWORK)


def test_g14_simulated_evidence_never_gets_a_hardware_tier() -> None:
    mirror = Mirror(images={Registers.of_image().measurement: ChainImage(2)})
    mirror.load()
    assert verdict(mirror.attest(binding=mirror.binding(gpu_evidence_hash=b"\x07" * 32)))["tier"] == 0


def test_g8_attest_below_its_need_is_refused_with_the_money_returned(mirror: Mirror) -> None:
    binding = mirror.binding()
    body = attest_message(tee().quote(binding.report_data()), binding)
    high = fees.attest(Prices.from_config(mirror.ledger.config))
    low = high - 1
    snapshot = mirror.ledger.snapshot()
    assert mirror.stage.tell(body, high).exit_code == 0
    mirror.ledger.revert(snapshot)
    assert mirror.stage.tell(body, low).exit_code == ContractError.LOW_VALUE
    mirror.ledger.revert(snapshot)
    outcome = mirror.stage.tell(body, low)
    assert any(m.bounced and m.value_nano > 0 for tx in outcome.trace.of(mirror.stage.account) for m in tx.out_msgs)
    # At the border the whole verdict is paid for: it leaves with what the node's worst case needs.
    mirror.ledger.revert(snapshot)
    sent = mirror.stage.tell(body, high).trace.of(mirror.stage.account)[0].out_msgs[0]
    assert sent.value_nano >= 46_200 * 400


def test_g1_balance_of_the_contract_never_falls_by_a_verdict(mirror: Mirror) -> None:
    before = mirror.ledger.balance(mirror.stage.account)
    assert verdict(mirror.attest())
    after = mirror.ledger.balance(mirror.stage.account)
    assert after > before + 7_000_000  # ten years of the platform's entry
    mirror.ledger.now += 100
    assert verdict(mirror.attest())
    # Rent of 100 s aside, and what the bounced verdict of a node that is not there leaves here.
    assert mirror.ledger.balance(mirror.stage.account) >= after - 10_000_000


def test_malformed_messages_change_nothing(mirror: Mirror) -> None:
    before = mirror.ledger.account(mirror.stage.account).data
    parts = QuoteParts.of(tee().quote(bytes(64)))
    td, qe, pck = parts.cells()
    for body in (
        begin_cell().store_uint(0x7FFFFFFF, 32).end_cell(),
        appraise(parts.authority, qe, td, pck),
        appraise(parts.authority, td, qe, td),
        appraise(parts.authority, td, Cell.empty(), pck),
        begin_cell().store_cell(appraise(parts.authority, td, qe, pck)).store_bit(1).end_cell(),
        attest_message(tee().quote(bytes(64)), mirror.binding()),
    ):
        assert mirror.stage.tell(body).exit_code != 0
    data = mirror.ledger.account(mirror.stage.account).data
    assert before is not None and data is not None and data.hash == before.hash


@pytest.mark.parametrize(("url_bytes", "pieces"), [(40, 2), (75, 3)])
def test_extensions_before_the_sgx_extension_may_take_two_cells_or_three(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch, url_bytes: int, pieces: int
) -> None:
    monkeypatch.setattr(pki, "_CRL_URL", "https://crl.example/".ljust(url_bytes, "x"))
    machine = tee()
    first = QuoteParts.of(machine.quote(bytes(64))).cells()[2]
    for _ in range(5):
        first = first.refs[0]
    assert len(first.refs) == pieces - 1
    assert mirror.attest(machine).exit_code == 0


def test_appraisal_answers_whoever_asks(mirror: Mirror) -> None:
    quote = tee().quote(b"\x09" * 64)
    parts = QuoteParts.of(quote)
    outcome = mirror.appraise(quote)
    message = outcome.trace.of(mirror.stage.account)[0].out_msgs[0]
    body = message.body.begin_parse()
    body.load_uint(32)
    assert message.destination == mirror.stage.wallet.account
    assert body.load_bytes(32) == tee().registers.measurement
    assert body.load_bytes(32) == tee().platform_id
    assert body.load_uint(32) == mirror.ledger.now + ChainPolicy().longest_seconds
    assert body.load_ref().begin_parse().load_bytes(64) == b"\x09" * 64
    other: Callable[[], Outcome] = lambda: mirror.stage.tell(appraise(type(parts.authority)(1), *parts.cells()))  # noqa: E731
    refused(other(), Error.NO_AUTHORITY)
