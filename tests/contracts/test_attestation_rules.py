"""What the verifier takes from the registry, from nodes and from anybody, to the last bit. G10, G12, G20."""

from __future__ import annotations

import dataclasses

import pytest
from attestation_mirror import (
    NODE,
    PLATFORM_KEY,
    REFUSING_NODE,
    ROOT_KEY,
    SIGNER_KEY,
    Mirror,
    der_of,
    lists,
    longer,
    moment,
    tee,
)
from cryptography.hazmat.primitives.asymmetric import ec
from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import public_key
from attestation.onchain.collateral import authority_message, crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.hints import N
from attestation.onchain.messages import (
    Authority,
    Op,
    governed,
    release_platform,
    set_authority,
    sync,
)
from attestation.onchain.state import NO_LAUNCH, ChainImage, ChainPolicy, Standing
from attestation.onchain.statements import DEFECTS, qe_message, tcb_message
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.simulated.tee import Registers
from attestation.witness import attest_message
from scripts.attest_stage import TON
from wrappers.errors import ContractError
from wrappers.governance import allow_image, deny_platform, drop_tcb, free_platform, revoke_image, set_policy
from wrappers.ops import Op as CommonOp

CELL_UNDERFLOW = 9
DAY = 86_400
IMAGE = Registers.of_image().measurement
PLATFORM = tee().platform_id


# ------------------------------------------------------------------------------------------------ policy


@pytest.mark.parametrize(
    "policy",
    [
        ChainPolicy(floor=7, ceiling=7),
        ChainPolicy(longest_seconds=3600),
        ChainPolicy(longest_seconds=90 * DAY),
        ChainPolicy(accepted_statuses=frozenset(set(DEFECTS) - {"Revoked"})),
        ChainPolicy(attributes_allowed=2**56 - 1),
    ],
)
def test_g20_policy_at_the_bounds_in_code_is_taken(mirror: Mirror, policy: ChainPolicy) -> None:
    assert mirror.stage.govern(set_policy(policy.to_cell())).accepted
    assert mirror.state.policy == policy


@pytest.mark.parametrize(
    "policy",
    [
        ChainPolicy(floor=8, ceiling=7),
        ChainPolicy(longest_seconds=3599),
        ChainPolicy(longest_seconds=90 * DAY + 1),
        ChainPolicy(attributes_allowed=2**56 | 0x0000001000000000),
        ChainPolicy(attributes_required=0x0000003000000000),
        ChainPolicy(xfam_required=0x0300000000000001),
    ],
)
def test_g20_policy_just_outside_the_bounds_is_refused(mirror: Mirror, policy: ChainPolicy) -> None:
    assert mirror.stage.govern(set_policy(policy.to_cell())).exit_code == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize("bit", range(3, 8))
def test_g12_no_other_defect_than_the_three_can_be_accepted(mirror: Mirror, bit: int) -> None:
    bits = ChainPolicy().to_cell().bits.copy()
    bits[64:72] = begin_cell().store_uint(1 << bit, 8).end_cell().bits
    policy = begin_cell().store_bits(bits).end_cell()
    assert mirror.stage.govern(set_policy(policy)).exit_code == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize(("image_tier", "expected"), [(0, 204), (1, 0), (3, 0), (4, 204)])
def test_g14_tiers_of_images_are_one_to_three(mirror: Mirror, image_tier: int, expected: int) -> None:
    assert mirror.stage.govern(allow_image(b"\x09" * 32, image_tier, NO_LAUNCH)).exit_code == expected


def test_actions_and_messages_are_read_to_their_end(mirror: Mirror) -> None:
    stage = mirror.stage
    assert mirror.attest().accepted
    for action in (
        set_policy(ChainPolicy().to_cell()), allow_image(b"\x09" * 32, 1, NO_LAUNCH),
        revoke_image(IMAGE, compromised=False), deny_platform(PLATFORM), free_platform(PLATFORM), drop_tcb(bytes(6)),
    ):  # fmt: skip
        assert stage.govern(longer(action)).exit_code == CELL_UNDERFLOW
    policy = set_policy(ChainPolicy().to_cell())
    assert (
        stage.govern(begin_cell().store_bits(policy.bits).store_ref(longer(policy.refs[0])).end_cell()).exit_code == 9
    )
    bodies = (
        (stage.registry, governed(stage.wallet.account, deny_platform(PLATFORM))),
        (NODE, release_platform(PLATFORM)),
        (NODE, sync(NODE, IMAGE, PLATFORM, Cell.empty())),
        (NODE, authority_message(der_of(pki.processor_ca()), ROOT_KEY)),
    )
    for source, body in bodies:
        assert mirror.said(source, longer(body)).exit_code == CELL_UNDERFLOW
    now = mirror.ledger.now
    for message in (
        crl_messages(Authority.PLATFORM, lists(simulated.mint(now), now).pck_crl, PLATFORM_KEY)[0],
        tcb_message((c := simulated.mint(now)).tcb_info, c.tcb_info_signature, SIGNER_KEY),
        qe_message(c.qe_identity, c.qe_identity_signature, SIGNER_KEY),
    ):
        assert stage.tell(longer(message)).exit_code == CELL_UNDERFLOW
        assert stage.tell(message).accepted


def test_g20_an_action_that_is_none_of_the_verifiers_changes_nothing(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    before = mirror.state.platforms
    for op in (CommonOp.RELEASE_PLATFORM, CommonOp.GOVERNED, 0):
        action = begin_cell().store_uint(op, 32).store_bytes(PLATFORM).end_cell()
        assert mirror.stage.govern(action).exit_code == ContractError.UNKNOWN_OP
    assert mirror.state.platforms == before


def test_g9_money_without_a_message_stays_as_rent(mirror: Mirror) -> None:
    for body in (None, begin_cell().store_uint(0, 32).store_bytes(b"rent").end_cell()):
        before = mirror.ledger.balance(mirror.stage.account)
        assert mirror.said(NODE, body).accepted
        assert mirror.ledger.balance(mirror.stage.account) > before + TON - TON // 100


def test_g7_what_bounces_and_is_no_verdict_frees_nothing(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    before = mirror.state.platforms
    seqno = mirror.ledger.prev_blocks.hundreds[0].seqno
    for op, platform in ((CommonOp.STANDING, PLATFORM), (CommonOp.VERDICT, b"\xff" * 32)):
        body = begin_cell().store_uint(0xFFFFFFFF, 32).store_uint(op, 32).store_bytes(platform[:24])
        outcome = mirror.said(NODE, body.store_uint(seqno, 32).end_cell(), TON // 100, bounced=True)
        assert outcome.exit_code == 0
    assert mirror.state.platforms == before


# ------------------------------------------------------------------------------------------------ platforms


def test_a_platform_that_nobody_knows_is_no_nodes(mirror: Mirror) -> None:
    for op in (CommonOp.RELEASE_PLATFORM, CommonOp.DENY_PLATFORM):
        body = begin_cell().store_uint(op, 32).store_bytes(bytes(32)).end_cell()
        assert mirror.said(NODE, body).exit_code == ContractError.NOT_ALLOWED


def test_what_is_known_of_a_platform_outlives_denial_and_release(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    entry = mirror.state.platforms[PLATFORM]
    newest = mirror.ledger.prev_blocks.hundreds[0].seqno
    assert entry.facts is not None and entry.node == NODE and entry.verdicts == 1
    snapshot = mirror.ledger.snapshot()
    free = dataclasses.replace(entry, node=None, since=newest, verdicts=0)
    assert mirror.said(NODE, release_platform(PLATFORM)).accepted
    assert mirror.state.platforms[PLATFORM] == free
    mirror.ledger.revert(snapshot)
    assert mirror.stage.govern(deny_platform(PLATFORM)).accepted
    assert mirror.state.platforms[PLATFORM] == dataclasses.replace(entry, denied=True)
    assert mirror.said(NODE, release_platform(PLATFORM)).accepted
    assert mirror.state.platforms[PLATFORM] == dataclasses.replace(free, denied=True)
    mirror.ledger.now += 100
    assert mirror.stage.govern(free_platform(PLATFORM)).accepted
    newest = mirror.ledger.prev_blocks.hundreds[0].seqno
    assert mirror.state.platforms[PLATFORM] == dataclasses.replace(free, since=newest)
    mirror.ledger.revert(snapshot)
    assert mirror.said(NODE, deny_platform(PLATFORM)).accepted
    assert mirror.state.platforms[PLATFORM] == dataclasses.replace(entry, denied=True)


def test_g9_a_platforms_rent_is_paid_once(mirror: Mirror) -> None:
    balances = []
    for _ in range(3):
        before = mirror.ledger.balance(mirror.stage.account)
        assert mirror.attest().accepted
        balances.append(mirror.ledger.balance(mirror.stage.account) - before)
        mirror.ledger.now += 1
    assert balances[0] > 10_000_000 and all(abs(each) < 100_000 for each in balances[1:])


def status(mirror: Mirror, node: bytes = NODE) -> int:
    outcome = mirror.stage.tell(sync(node, IMAGE, PLATFORM, Cell.empty()))
    assert outcome.exit_code == 0
    body = outcome.trace.of(mirror.stage.account)[0].out_msgs[0].body.begin_parse()
    body.skip_bits(32 + 512)
    return int(body.load_uint(8))


def test_g12_statements_that_are_gone_suspend_nobody(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    snapshot = mirror.ledger.snapshot()
    # Of another PCE of the same platform type: it says nothing about this one.
    mirror.ledger.now += 10
    assert mirror.bring_tcb(pceId="0001").accepted
    assert status(mirror) == 0 and mirror.attest().exit_code == Error.UNKNOWN_PLATFORM
    mirror.ledger.revert(snapshot)
    # With the signer's key its statements are gone.
    validity = (moment(mirror.ledger.now - DAY), moment(mirror.ledger.now + DAY))
    other = pki.renewed(pki.tcb_signer(), validity, pki.derive_key("another signer"))
    assert mirror.stage.tell(authority_message(der_of(other), ROOT_KEY)).accepted
    assert mirror.state.tcb == {} and status(mirror) == 0


def test_g12_a_signers_key_is_both_of_its_coordinates(mirror: Mirror) -> None:
    """The negative of a key has the same x; what the one signed is nothing that the other did."""
    secret = pki.tcb_signer().key.private_numbers().private_value
    validity = (moment(mirror.ledger.now - DAY), moment(mirror.ledger.now + DAY))
    negative = pki.renewed(pki.tcb_signer(), validity, ec.derive_private_key(N - secret, ec.SECP256R1()))
    assert public_key(der_of(negative))[:32] == SIGNER_KEY[:32]
    assert mirror.stage.tell(authority_message(der_of(negative), ROOT_KEY)).accepted
    assert mirror.state.tcb == {}


def test_g12_kinds_of_authorities_are_three(mirror: Mirror) -> None:
    good = authority_message(
        der_of(pki.renewed(pki.platform_ca(), (moment(mirror.ledger.now), moment(mirror.ledger.now + DAY)))), ROOT_KEY
    )
    for kind in (1, 2, 3, 255):
        assert mirror.stage.tell(set_authority(kind, good.refs[0])).exit_code == Error.NO_AUTHORITY
    assert mirror.stage.tell(good).accepted


def test_g10_a_refusing_node_frees_its_platform_by_refusing_alone(mirror: Mirror) -> None:
    assert mirror.attest(binding=mirror.binding(node=REFUSING_NODE)).exit_code == 0
    assert mirror.state.platforms[PLATFORM].node is None
    assert status(mirror, REFUSING_NODE) == Standing.PLATFORM_OUTDATED


def test_images_of_genesis_are_the_networks(mirror: Mirror) -> None:
    assert mirror.state.images == {IMAGE: ChainImage()}
    assert mirror.ledger.run_get(mirror.stage.account, "get_image", int.from_bytes(IMAGE, "big"))[1] == 1


def test_g8_ops_of_others_are_none_of_the_verifiers(mirror: Mirror) -> None:
    for op in (CommonOp.VERDICT, CommonOp.STANDING, CommonOp.GENESIS, Op.APPRAISAL):
        body = begin_cell().store_uint(op, 32).end_cell()
        assert mirror.said(NODE, body).exit_code == ContractError.UNKNOWN_OP


def test_g4_evidence_for_no_node_leaves_a_platform_to_no_two(mirror: Mirror) -> None:
    """Verdicts to account 0 bounce. Three under way at once count as a claim, which must not stand for every node's."""
    binding = mirror.binding(node=bytes(32))
    body = attest_message(tee().quote(binding.report_data()), binding)
    for _ in range(3):
        mirror.ledger.send_internal(source=NODE, destination=mirror.stage.account, value_nano=TON, body=body, run=False)
    trace = mirror.ledger.run()
    assert [tx.exit_code for tx in trace.of(mirror.stage.account)[:3]] == [ContractError.NOT_ALLOWED] * 3
    assert PLATFORM not in mirror.state.platforms
    assert mirror.attest().accepted and mirror.state.platforms[PLATFORM].node == NODE
    assert mirror.attest(binding=mirror.binding(node=REFUSING_NODE)).exit_code == Error.PLATFORM_TAKEN


def test_g12_a_platform_is_judged_again_by_the_list_of_its_own_authority(mirror: Mirror) -> None:
    assert mirror.stage.tell(authority_message(der_of(pki.processor_ca()), ROOT_KEY)).accepted
    machine, key = tee(issuer=pki.processor_ca()), pki.raw_public_key(pki.processor_ca().key)
    for revoked, expected in (((), 0), ((machine.platform.pck.certificate,), 8)):
        mirror.ledger.now += 10
        now = mirror.ledger.now
        crl = lists(simulated.mint(now), now, issuer=pki.processor_ca(), revoked=revoked).pck_crl
        assert mirror.stage.tell(crl_messages(Authority.PROCESSOR, crl, key)[0]).accepted
        if not revoked:
            assert mirror.attest(machine).accepted
        assert status(mirror) == expected
