"""What the verifier keeps of a platform, when it lets go of it, and what it tells nodes of it afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from attestation_mirror import NODE, REFUSING_NODE, Mirror, lists, statement, tee
from pytoniq_core import Cell, begin_cell

from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.facts import facts_of
from attestation.onchain.messages import release_platform, sync
from attestation.onchain.standing import standing as judged
from attestation.onchain.standing import still_passes
from attestation.onchain.state import (
    NO_LAUNCH,
    ChainPolicy,
    ImageStatus,
    PlatformState,
    Standing,
    VerifierState,
)
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.witness import attest_message
from devnet.ledger import Snapshot
from scripts.attest_stage import TON, Outcome
from wrappers.errors import ContractError
from wrappers.governance import (
    allow_image,
    deny_platform,
    drop_tcb,
    free_platform,
    restore_tcb,
    revoke_image,
    set_policy,
)
from wrappers.ops import Op

MACHINE = tee()
PLATFORM = MACHINE.platform_id
IMAGE = MACHINE.registers.measurement
PROGRAM = begin_cell().store_uint(1, 8).end_cell()


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    mirror = Mirror()
    mirror.load()
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


def state_of(mirror: Mirror) -> VerifierState:
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    return VerifierState.from_cell(data)


def entry(mirror: Mirror) -> PlatformState:
    return state_of(mirror).platforms[PLATFORM]


def said_by(mirror: Mirror, source: bytes, body: Cell, value: int = TON) -> Outcome:
    trace = mirror.ledger.send_internal(source=source, destination=mirror.stage.account, value_nano=value, body=body)
    return mirror.stage.outcome(trace)


def standing(mirror: Mirror, node: bytes = NODE, measurement: bytes = IMAGE, platform: bytes = PLATFORM) -> Standing:
    outcome = mirror.stage.tell(sync(node, measurement, platform, PROGRAM))
    assert outcome.exit_code == 0
    (message,) = outcome.trace.of(mirror.stage.account)[0].out_msgs
    assert message.destination == node and message.value_nano > TON - TON // 20
    body = message.body.begin_parse()
    assert body.load_uint(32) == Op.STANDING
    assert (body.load_bytes(32), body.load_bytes(32)) == (measurement, platform)
    status = Standing(body.load_uint(8))
    assert body.load_ref().hash == PROGRAM.hash
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    assert judged(data, node, measurement, platform) == status, "clients judge as the contract does"
    return status


# ------------------------------------------------------------------------------------------------ claims and bounces


def test_g7_a_claim_that_the_node_refused_is_undone(mirror: Mirror) -> None:
    assert mirror.attest(binding=mirror.binding(node=REFUSING_NODE)).exit_code == 0
    assert entry(mirror).node is None and entry(mirror).verdicts == 0
    assert mirror.attest().accepted, "the same block serves: nothing was taken"
    assert entry(mirror).node == NODE


def test_g4_who_brings_the_evidence_first_without_consent_gains_nothing(mirror: Mirror) -> None:
    """A verdict that was taken and one that came back: the platform stays the node's, in either order."""
    for _ in range(2):
        assert mirror.attest().accepted
    assert entry(mirror).verdicts == 2
    bounced = refusal(PLATFORM, mirror.ledger.prev_blocks.hundreds[0].seqno)
    bounce(mirror, NODE, bounced)
    assert (entry(mirror).node, entry(mirror).verdicts) == (NODE, 1)
    bounce(mirror, NODE, bounced)
    assert (entry(mirror).node, entry(mirror).verdicts) == (None, 0)
    bounce(mirror, NODE, bounced)
    assert (entry(mirror).node, entry(mirror).verdicts) == (None, 0)


def refusal(platform: bytes, seqno: int) -> Cell:
    body = begin_cell().store_uint(0xFFFFFFFF, 32).store_uint(Op.VERDICT, 32).store_bytes(platform[:24])
    return body.store_uint(seqno, 32).end_cell()


def bounce(mirror: Mirror, source: bytes, body: Cell) -> None:
    mirror.ledger.send_internal(
        source=source, destination=mirror.stage.account, value_nano=TON // 100, body=body, bounced=True
    )


def test_g10_a_refusal_of_somebody_elses_or_of_an_earlier_life_frees_nothing(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    seqno = mirror.ledger.prev_blocks.hundreds[0].seqno
    before = entry(mirror)
    bounce(mirror, REFUSING_NODE, refusal(PLATFORM, seqno))
    bounce(mirror, NODE, refusal(PLATFORM[:23] + bytes([PLATFORM[23] ^ 1]), seqno))
    bounce(mirror, NODE, refusal(bytes(32), seqno))
    bounce(mirror, NODE, refusal(b"\xff" * 32, seqno))
    not_bounced = refusal(PLATFORM, seqno)
    assert said_by(mirror, NODE, not_bounced).exit_code == ContractError.UNKNOWN_OP
    assert entry(mirror) == before
    assert said_by(mirror, NODE, release_platform(PLATFORM)).exit_code == 0
    mirror.ledger.now += 100
    assert mirror.attest().accepted
    bounce(mirror, NODE, refusal(PLATFORM, seqno))
    assert entry(mirror).node == NODE and entry(mirror).verdicts == 1


def test_g4_after_three_verdicts_a_platform_is_its_nodes_until_released(mirror: Mirror) -> None:
    for _ in range(4):
        assert mirror.attest().accepted
        mirror.ledger.now += 100
    for _ in range(4):
        bounce(mirror, NODE, refusal(PLATFORM, mirror.ledger.prev_blocks.hundreds[0].seqno))
    assert (entry(mirror).node, entry(mirror).verdicts) == (NODE, 3)


def test_consent_travels_with_the_verdict_unread(mirror: Mirror) -> None:
    binding = mirror.binding()
    body = attest_message(MACHINE.quote(binding.report_data()), binding, consent=b"\x05" * 64)
    outcome = mirror.stage.tell(body)
    message = outcome.trace.of(mirror.stage.account)[0].out_msgs[0].body.begin_parse()
    message.skip_bits(256)
    message.load_ref()
    assert outcome.accepted and message.load_maybe_ref().begin_parse().load_bytes(64) == b"\x05" * 64


# ------------------------------------------------------------------------------------------------ standing


def test_the_facts_that_the_chain_keeps_are_those_of_the_quote(mirror: Mirror) -> None:
    binding = mirror.binding()
    quote = MACHINE.quote(binding.report_data())
    assert mirror.attest(MACHINE, binding).accepted
    assert entry(mirror).facts == facts_of(quote)
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None and still_passes(data, facts_of(quote))


def test_a_node_in_good_standing_is_told_so(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    assert standing(mirror) == Standing(0)


def test_g20_revoked_images_are_told_at_once(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    assert standing(mirror, measurement=bytes(32)) == Standing.IMAGE_RETIRED
    assert mirror.stage.govern(revoke_image(IMAGE, compromised=False)).accepted
    assert standing(mirror) == Standing.IMAGE_RETIRED
    assert mirror.stage.govern(allow_image(IMAGE, 2, NO_LAUNCH)).accepted
    assert standing(mirror) == Standing(0) and state_of(mirror).images[IMAGE].tier == 2
    assert mirror.stage.govern(revoke_image(IMAGE, compromised=True)).accepted
    assert standing(mirror) == Standing.IMAGE_COMPROMISED
    # Compromised is for good.
    assert mirror.stage.govern(revoke_image(IMAGE, compromised=False)).accepted
    assert state_of(mirror).images[IMAGE].status is ImageStatus.COMPROMISED
    assert mirror.stage.govern(allow_image(IMAGE, 1, NO_LAUNCH)).exit_code == Error.REVOKED_IMAGE


def test_g20_a_denied_platform_is_told_at_once_whoever_denied_it(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    snapshot = mirror.ledger.snapshot()
    assert mirror.stage.govern(deny_platform(PLATFORM)).accepted
    assert standing(mirror) == Standing.PLATFORM_DENIED
    mirror.ledger.revert(snapshot)
    # A slashed node denies its own platform, and nobody else's.
    assert said_by(mirror, REFUSING_NODE, deny_platform(PLATFORM)).exit_code == ContractError.NOT_ALLOWED
    assert said_by(mirror, NODE, deny_platform(PLATFORM)).exit_code == 0
    assert standing(mirror) == Standing.PLATFORM_DENIED
    assert said_by(mirror, NODE, release_platform(PLATFORM)).exit_code == 0
    mirror.ledger.now += 100
    assert mirror.attest(MACHINE).exit_code == Error.DENIED
    # Freed, it is no longer the node's that had it: what that one still has ends with its window.
    assert mirror.stage.govern(free_platform(PLATFORM)).accepted
    assert standing(mirror) == Standing.PLATFORM_OUTDATED


def test_a_platform_that_serves_another_node_is_no_longer_this_ones(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    assert standing(mirror, node=REFUSING_NODE) == Standing.PLATFORM_OUTDATED


def outdated(document: dict[str, Any]) -> None:
    for level in document["tcbLevels"]:
        level["tcbStatus"] = "OutOfDate"


def old_enclave(document: dict[str, Any]) -> None:
    for level in document["tcbLevels"]:
        level["tcb"]["isvsvn"] += 100


def old_module(document: dict[str, Any]) -> None:
    for module in document["tdxModuleIdentities"]:
        for level in module["tcbLevels"]:
            level["tcb"]["isvsvn"] += 100


def above(document: dict[str, Any]) -> None:
    for level in document["tcbLevels"]:
        level["tcb"]["pcesvn"] += 1000


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"tcb": outdated}, {"update_tcb"}),
        ({"tcb": above}, {"update_tcb"}),
        ({"tcb": old_module}, {"update_tcb"}),
        ({"qe": old_enclave}, {"update_qe"}),
    ],
)
def test_g12_a_tcb_downgrade_reaches_a_node_without_a_new_quote(
    mirror: Mirror, changes: dict[str, Any], names: set[str]
) -> None:
    assert mirror.attest(MACHINE).accepted
    mirror.ledger.now += 100
    loaded = mirror.load(statement(simulated.mint(mirror.ledger.now), **changes))
    assert all(loaded[name].accepted for name in names)
    before = standing(mirror)
    assert before == Standing.PLATFORM_OUTDATED
    assert mirror.attest(MACHINE).exit_code != 0


def test_g12_a_revoked_certificate_reaches_a_node_without_a_new_quote(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    mirror.ledger.now += 100
    now = mirror.ledger.now
    snapshot = mirror.ledger.snapshot()
    leaf = MACHINE.platform.pck.certificate
    mirror.load(lists(simulated.mint(now), now, revoked=(leaf,)))
    assert standing(mirror) == Standing.PLATFORM_OUTDATED
    mirror.ledger.revert(snapshot)
    mirror.load(lists(simulated.mint(now), now, root_revoked=(pki.platform_ca().certificate,)))
    assert standing(mirror) == Standing.PLATFORM_OUTDATED


def test_collateral_that_ran_out_suspends_nobody_by_itself(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    mirror.ledger.now += simulated.VALIDITY_SECONDS + 100
    assert standing(mirror) == Standing(0)
    floor = ChainPolicy(floor=simulated.EVALUATION_NUMBER + 1)
    assert mirror.stage.govern(set_policy(floor.to_cell())).accepted
    assert standing(mirror) == Standing(0)


def test_g20_a_dropped_platform_type_is_out_at_once_until_it_is_restored(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    assert mirror.stage.govern(drop_tcb(simulated.FMSPC)).accepted
    assert state_of(mirror).barred == {simulated.FMSPC}
    assert standing(mirror) == Standing.PLATFORM_OUTDATED
    mirror.ledger.now += 100
    assert mirror.attest(MACHINE).exit_code == Error.BARRED
    # Neither newer collateral nor another policy brings it back.
    mirror.load()
    assert mirror.stage.govern(set_policy(ChainPolicy().to_cell())).accepted
    assert mirror.attest(MACHINE).exit_code == Error.BARRED
    assert mirror.stage.govern(restore_tcb(simulated.FMSPC)).accepted
    assert mirror.attest(MACHINE).accepted and standing(mirror) == Standing(0)
    assert mirror.stage.govern(restore_tcb(simulated.FMSPC)).exit_code == Error.UNKNOWN_PLATFORM


def test_facts_follow_the_last_quote(mirror: Mirror) -> None:
    for _ in range(4):
        assert mirror.attest(MACHINE).accepted
        mirror.ledger.now += 100
    before = entry(mirror).facts
    assert before is not None and before.fmspc == simulated.FMSPC
    assert before.serial == MACHINE.platform.pck.certificate.serial_number and before.running_svns is None
    # Recertified, as after an update of the BIOS: another certificate of the same platform.
    fresh = tee()
    assert fresh.platform_id == PLATFORM and mirror.attest(fresh).accepted
    after = entry(mirror).facts
    assert after is not None and (after.serial != before.serial) == (
        fresh.platform.pck.certificate.serial_number != before.serial
    )


# ------------------------------------------------------------------------------------------------ money


def test_g9_each_new_entry_leaves_its_rent_and_the_rest_goes_to_the_governor(mirror: Mirror) -> None:
    governor = mirror.stage.wallet.account
    for action, grows in (
        (allow_image(b"\x01" * 32, 1, NO_LAUNCH), True),
        (allow_image(b"\x01" * 32, 2, NO_LAUNCH), False),
        (deny_platform(b"\x02" * 32), True),
        (deny_platform(b"\x02" * 32), False),
        (free_platform(b"\x02" * 32), False),
        (drop_tcb(b"\x03" * 6), True),
        (drop_tcb(b"\x03" * 6), False),
        (restore_tcb(b"\x03" * 6), False),
    ):
        before = mirror.ledger.balance(mirror.stage.account), mirror.ledger.balance(governor)
        outcome = mirror.stage.govern(action)
        assert outcome.accepted
        kept = mirror.ledger.balance(mirror.stage.account) - before[0]
        assert (9_000_000 < kept < 13_000_000) if grows else abs(kept) < 10_000
        assert mirror.ledger.balance(governor) > before[1] + TON - TON // 20


def test_g8_an_action_that_cannot_pay_its_rent_changes_nothing(mirror: Mirror) -> None:
    from attestation.onchain.messages import governed

    body = governed(mirror.stage.wallet.account, deny_platform(b"\x02" * 32))
    outcome = said_by(mirror, mirror.stage.registry, body, 9_000_000)
    assert outcome.trace.failed and b"\x02" * 32 not in state_of(mirror).platforms


def test_get_methods_tell_the_policy(mirror: Mirror) -> None:
    assert mirror.attest(MACHINE).accepted
    account, run = mirror.stage.account, mirror.ledger.run_get
    assert run(account, "get_version") == [3]
    assert run(account, "get_image", int.from_bytes(IMAGE, "big")) == [0, 1, int.from_bytes(NO_LAUNCH, "big")]
    assert run(account, "get_image", 7)[0] == -1
    assert run(account, "get_platform", int.from_bytes(PLATFORM, "big")) == [-1, 0, int.from_bytes(NODE, "big"), 0]
    assert run(account, "get_platform", 7) == [0, 0, 0, 0]
    assert run(account, "get_policy")[:4] == [0, 2**32 - 1, 0, ChainPolicy().longest_seconds]
