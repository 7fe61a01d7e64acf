"""What the verifier takes from a committee: images, platforms and the tier of their own. G12, G14."""

from __future__ import annotations

from typing import Any

import pytest
from attestation_mirror import INTEL_KEY, NODE, REFUSING_NODE, Mirror, crowded, longer, tee
from pytoniq_core import Cell

from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import release_platform, sync
from attestation.onchain.state import ChainImage, ChainPolicy, Standing, VerifierState
from devnet.ledger import Snapshot
from scripts.attest_stage import Outcome, Stage
from scripts.stage import DAY, TON, account_of_name, key_of
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import Vouched
from wrappers.errors import ContractError
from wrappers.gas import CommitteeGas
from wrappers.governance import allow_image, deny_platform, revoke_image
from wrappers.ops import Op
from wrappers.prices import Prices

COMMITTEE, IMAGE, PLATFORM = account_of_name("committee"), b"\x31" * 32, b"\x32" * 32
TIER = 3


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    mirror = Mirror()
    mirror.load()
    for allowed in (COMMITTEE, IMAGE):
        assert mirror.stage.govern(allow_image(allowed, TIER, bytes(32))).exit_code == 0
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


def vouch(mirror: Mirror, source: bytes = COMMITTEE, value: int = TON, **changes: Any) -> Outcome:
    said: dict[str, Any] = {
        "node": NODE, "epoch": 77, "key": b"\x44" * 32, "attested_until": mirror.ledger.now + DAY,
        "block_seqno": mirror.ledger.prev_blocks.hundreds[0].seqno, "measurement": IMAGE, "platform": PLATFORM,
    }  # fmt: skip
    body: Cell = Vouched(**(said | changes)).to_cell()
    trace = mirror.ledger.send_internal(source=source, destination=mirror.stage.account, value_nano=value, body=body)
    return mirror.stage.outcome(trace)


def state_of(mirror: Mirror) -> VerifierState:
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    return VerifierState.from_cell(data)


def verdict_of(outcome: Outcome) -> tuple[int, int]:
    """(attested_until, tier)"""
    message = outcome.trace.transactions[0].out_msgs[0]
    body = message.body.begin_parse()
    assert body.load_uint(32) == Op.VERDICT and body.load_bytes(24) == PLATFORM[:24]
    body.load_uint(32)
    verdict = body.load_ref().begin_parse()
    assert (verdict.load_uint(64), verdict.load_bytes(32)) == (77, b"\x44" * 32)
    ends = verdict.load_uint(32)
    verdict.load_uint(32)
    tier = verdict.load_uint(8)
    identity = verdict.load_ref().begin_parse()
    assert (identity.load_bytes(32), identity.load_bytes(32)) == (IMAGE, PLATFORM)
    return ends, tier


def test_g12_a_node_that_the_committee_vouched_for_gets_its_verdict(mirror: Mirror) -> None:
    outcome = vouch(mirror)
    assert outcome.accepted
    # This verifier stands on a test root, and so do the committee's members: the tier says so.
    assert verdict_of(outcome) == (mirror.ledger.now + DAY, 0)
    assert state_of(mirror).platforms[PLATFORM].node == NODE


def test_on_intels_root_the_tier_is_its_own() -> None:
    mirror = Mirror()
    images = {each: ChainImage(tier=TIER, launch=bytes(32)) for each in (COMMITTEE, IMAGE)}
    mirror.stage = Stage(mirror.ledger, INTEL_KEY, ChainPolicy(), images, genesis_key=key_of("other genesis"))
    assert not mirror.stage.deploy().failed
    assert verdict_of(vouch(mirror))[1] == TIER


def test_g14_off_unless_the_network_says_so(mirror: Mirror) -> None:
    assert vouch(mirror, source=account_of_name("stranger")).exit_code == Error.UNKNOWN_IMAGE
    assert mirror.stage.govern(revoke_image(COMMITTEE, compromised=False)).exit_code == 0
    assert vouch(mirror).exit_code == Error.REVOKED_IMAGE


def test_a_committee_vouches_for_its_own_images_alone(mirror: Mirror) -> None:
    measured = tee().registers.measurement
    assert vouch(mirror, measurement=measured).exit_code == Error.UNKNOWN_IMAGE
    assert vouch(mirror, measurement=b"\x01" * 32).exit_code == Error.UNKNOWN_IMAGE
    assert mirror.stage.govern(revoke_image(IMAGE, compromised=True)).exit_code == 0
    assert vouch(mirror).exit_code == Error.REVOKED_IMAGE


def test_g12_no_quote_passes_under_an_image_of_the_committee() -> None:
    measured = tee().registers.measurement
    mirror = Mirror(images={measured: ChainImage(tier=TIER)})
    mirror.load()
    assert mirror.attest().exit_code == Error.UNKNOWN_IMAGE


def test_g12_what_a_committee_vouches_for_has_no_launch_registers(mirror: Mirror) -> None:
    """Of a committee the entry is an account, of an image the measurement of an SEV-SNP guest: neither has any."""
    for entry in (COMMITTEE, IMAGE):
        snapshot = mirror.ledger.snapshot()
        assert mirror.stage.govern(allow_image(entry, TIER, b"\x01" * 32)).exit_code == 0
        assert vouch(mirror).exit_code == Error.WRONG_LAUNCH
        mirror.ledger.revert(snapshot)
    assert vouch(mirror).accepted


def test_g9_a_vouched_platforms_rent_is_paid_once(mirror: Mirror) -> None:
    kept = []
    for _ in range(5):
        before = mirror.ledger.balance(mirror.stage.account)
        assert vouch(mirror).accepted
        kept.append(mirror.ledger.balance(mirror.stage.account) - before)
        mirror.ledger.now += 1
    assert 10_000_000 < kept[0] < 15_000_000 and all(abs(each) < 100_000 for each in kept[1:])
    assert (state_of(mirror).platforms[PLATFORM].node, state_of(mirror).platforms[PLATFORM].verdicts) == (NODE, 3)


def test_a_vouched_platform_is_judged_by_denial_and_node_alone(mirror: Mirror) -> None:
    """No TDX statement says anything of it."""

    def standing(node: bytes) -> int:
        outcome = mirror.stage.tell(sync(node, IMAGE, PLATFORM, Cell.empty()))
        body = outcome.trace.of(mirror.stage.account)[0].out_msgs[0].body.begin_parse()
        body.skip_bits(32 + 512)
        return int(body.load_uint(8))

    assert vouch(mirror).accepted
    assert standing(NODE) == Standing(0) and standing(REFUSING_NODE) == Standing.PLATFORM_OUTDATED
    assert mirror.stage.govern(deny_platform(PLATFORM)).exit_code == 0
    assert standing(NODE) == Standing.PLATFORM_DENIED


def test_a_committees_word_is_read_to_its_end(mirror: Mirror) -> None:
    said: dict[str, Any] = {
        "node": NODE, "epoch": 77, "key": b"\x44" * 32, "attested_until": mirror.ledger.now + DAY,
        "block_seqno": 100, "measurement": IMAGE, "platform": PLATFORM,
    }  # fmt: skip
    assert mirror.said(COMMITTEE, longer(Vouched(**said).to_cell())).exit_code == 9


def test_one_live_node_per_platform_and_denied_ones_stay_out(mirror: Mirror) -> None:
    assert vouch(mirror).accepted
    assert vouch(mirror, node=account_of_name("other")).exit_code == Error.PLATFORM_TAKEN
    for _ in range(3):
        mirror.ledger.now += 100
        assert vouch(mirror).accepted
    assert state_of(mirror).platforms[PLATFORM].verdicts == 3
    trace = mirror.ledger.send_internal(
        source=NODE, destination=mirror.stage.account, value_nano=TON, body=release_platform(PLATFORM)
    )
    assert not trace.failed
    assert vouch(mirror, block_seqno=mirror.ledger.prev_blocks.hundreds[0].seqno).exit_code == Error.OLD_BLOCK
    assert mirror.stage.govern(deny_platform(PLATFORM)).exit_code == 0
    assert vouch(mirror).exit_code == Error.DENIED


def test_g7_a_claim_that_the_node_refused_is_undone(mirror: Mirror) -> None:
    assert vouch(mirror, node=REFUSING_NODE).exit_code == 0
    assert state_of(mirror).platforms[PLATFORM].node is None


def test_the_networks_longest_verdict_holds_here_too(mirror: Mirror) -> None:
    ends, _ = verdict_of(vouch(mirror, attested_until=mirror.ledger.now + 300 * DAY))
    assert ends == mirror.ledger.now + state_of(mirror).policy.longest_seconds


def test_g8_border_and_gas(mirror: Mirror) -> None:
    fees = CommitteeFees(Prices.from_config(mirror.ledger.config), None)  # type: ignore[arg-type]
    assert vouch(mirror, value=fees.vouched_need() - 1).exit_code == ContractError.LOW_VALUE
    outcome = vouch(mirror, value=fees.vouched_need())
    assert outcome.accepted


def test_g8_gas_constant_covers_a_crowded_verifier(_loaded: tuple[Mirror, Snapshot]) -> None:
    """Gas grows with the logarithm of the number of platforms: the constant has room for sixteen million of them."""
    worst = {}
    for platforms in (1 << 8, 1 << 12):
        mirror = _loaded[0]
        address = mirror.stage.account
        mirror.ledger.revert(_loaded[1])
        crowded(mirror, platforms=platforms, images=60, vouchable=(COMMITTEE, IMAGE))
        names = [account_of_name(f"platform {number}") for number in range(30)]
        outcomes = [vouch(mirror, platform=name, consent=bytes(64)) for name in (*names, *names)]
        assert {outcome.exit_code for outcome in outcomes} == {0}
        worst[platforms] = max(outcome.gas for outcome in outcomes)
        mirror.stage.account = address
    doubling = (worst[1 << 12] - worst[1 << 8]) / 4
    assert worst[1 << 12] + 12 * doubling <= CommitteeGas.VOUCHED <= worst[1 << 12] + 18 * doubling, worst
