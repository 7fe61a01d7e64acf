"""A node of the network, attested by the verifier: the verdict that the one sends is the one that the other takes."""

from __future__ import annotations

import pytest
from attestation_mirror import ROOT_KEY, tee

from attestation.onchain.state import ChainImage
from attestation.report_data import NO_GPU, Binding
from attestation.simulated import collateral as simulated
from attestation.simulated.tee import Registers
from attestation.witness import attest_message
from devnet.ledger import Ledger
from scripts.attest_stage import Stage
from scripts.stage import TON, World, public
from wrappers.addresses import singleton_state_init
from wrappers.code import Contract, code
from wrappers.errors import ContractError
from wrappers.signed import KeyConsent, sign

ALL_IN_TARGET_NANO = 65_000_000


@pytest.fixture(scope="module")
def network() -> tuple[World, Stage, bytes]:
    world = World(Ledger())
    images = {Registers.of_image().measurement: ChainImage()}
    stage = Stage(world.ledger, ROOT_KEY, images=images, registry=world.registry)
    assert not stage.deploy().failed
    world.attestation = stage.account
    born = world.ledger.send_internal(
        source=world.governor.account,
        destination=world.registry,
        value_nano=TON,
        body=world.genesis_body(world.registry, world.registry_state.to_cell()),
        state_init=singleton_state_init(code(Contract.REGISTRY), public(world.genesis_key), 0),
    )
    assert not born.failed
    world.fund_wallets(world.governor, world.operator)
    for name, outcome in stage.load(simulated.mint(world.ledger.now)).items():
        assert outcome.accepted, name
    account, trace = world.open_node()
    assert not trace.failed
    return world, stage, account


def binding(world: World, stage: Stage, account: bytes, key: bytes) -> Binding:
    block = world.ledger.prev_blocks.hundreds[0]
    return Binding(stage.network, account, world.node(account).epoch, key, NO_GPU, block.seqno, block.root_hash)


def test_node_takes_the_verdict_and_no_replay_of_it(network: tuple[World, Stage, bytes]) -> None:
    world, stage, account = network
    machine = tee()
    claims = binding(world, stage, account, b"\x51" * 32)
    consent = sign(KeyConsent(world.node(account).node_id, b"\x51" * 32), world.release_key)
    body = attest_message(machine.quote(claims.report_data()), claims, consent=consent)
    outcome = stage.tell(body, 90_000_000)
    assert outcome.accepted
    state = world.node(account)
    assert state.signing_key == b"\x51" * 32
    assert state.measurement == machine.registers.measurement and state.platform == machine.platform_id
    assert state.block_seqno == claims.block_seqno and state.tier == 0
    print("quote to attested node", outcome.all_in_nano)
    assert outcome.all_in_nano <= ALL_IN_TARGET_NANO
    again = stage.tell(body, 90_000_000)
    assert again.exit_code == 0
    assert [tx.exit_code for tx in again.trace.of(account)] == [ContractError.OLD_VERDICT]
    assert world.node(account).attested_until == state.attested_until


def test_renewal_extends_the_same_key(network: tuple[World, Stage, bytes]) -> None:
    world, stage, account = network
    world.ledger.now += 100
    claims = binding(world, stage, account, b"\x51" * 32)
    outcome = stage.tell(attest_message(tee().quote(claims.report_data()), claims), 90_000_000)
    assert outcome.accepted
    assert world.node(account).block_seqno == claims.block_seqno
