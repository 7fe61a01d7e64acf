"""The whole way with the contracts themselves: three nodes with quotes join, a fourth without one is vouched for."""

from __future__ import annotations

import pytest
from committee_stage import COLLATERAL, EVIDENCE, POLICY
from job_stage import code_of

from attestation.onchain.messages import governed
from attestation.onchain.state import VerifierState
from attestation.simulated.tee import SimulatedTee
from chain.wallet import Wallet
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, Pair, World, built_world, key_of, public
from wrappers import committee_messages, node_rare
from wrappers.addresses import singleton_address, singleton_state_init
from wrappers.code import Contract, code
from wrappers.committee import CommitteeState, CommitteeTerms, CommitteeVerdict
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import Ask
from wrappers.errors import ContractError
from wrappers.governance import allow_image, revoke_image
from wrappers.registry import genesis
from wrappers.signed import GenesisState, sign

MEASUREMENT, PLATFORM = b"\x62" * 32, b"\x63" * 32


def born(world: World) -> tuple[bytes, CommitteeTerms]:
    terms = CommitteeTerms(
        world.registry, world.registry_state.stub_prefix, POLICY, 3, 3, HOUR, world.attestation, world.treasury,
        TON, TON // 20,
    )  # fmt: skip
    account = singleton_address(code(Contract.COMMITTEE), public(world.genesis_key), 0)
    state = terms.to_cell()
    trace = world.ledger.send_internal(
        source=world.stranger.account,
        destination=account,
        value_nano=5 * TON,
        body=genesis(sign(GenesisState(world.ledger.global_id, account, bytes(state.hash)), world.genesis_key), state),
        state_init=singleton_state_init(code(Contract.COMMITTEE), public(world.genesis_key), 0),
    )
    assert not trace.failed
    return account, terms


def state_of(world: World, account: bytes) -> CommitteeState:
    data = world.ledger.account(account).data
    assert data is not None
    return CommitteeState.from_cell(data)


def join(world: World, account: bytes, fees: CommitteeFees, index: int) -> Wallet:
    """A node of an owner of its own, attested with a quote of a machine of its own, presents itself."""
    owner = Wallet(key_of(f"owner {index}"))
    world.fund_wallets(owner)
    world.machine = SimulatedTee(f"machine {index}".encode())
    machine, _ = world.open_node(owner)
    assert not world.attest(machine, key_of(f"verifier {index}")).failed
    trace = world.send(owner, machine, fees.join() + world.fees.present(), node_rare.present(account))
    assert not trace.failed, [tx.exit_code for tx in trace.failed]
    member = state_of(world, account).members[owner.account]
    found = world.node(machine)
    assert (member.node, member.key, member.attested_until) == (machine, found.signing_key, found.attested_until)
    assert (member.platform, member.payout) == (found.platform, found.payout)
    return owner


def vouched(world: World, account: bytes, terms: CommitteeTerms, owners: list[Wallet], machine: bytes) -> Trace:
    fees, ledger = CommitteeFees(world.fees.prices, terms), world.ledger
    block, key = ledger.prev_blocks.hundreds[0], key_of("snp enclave")
    ask = Ask(
        machine, world.node(machine).epoch, public(key), ledger.now + 3 * DAY, block.seqno, MEASUREMENT, PLATFORM,
        EVIDENCE, COLLATERAL, world.consent(machine, key),
    )  # fmt: skip
    assert not world.send(world.operator, account, fees.ask() + TON, ask.to_cell()).failed
    while ledger.prev_blocks.hundreds[0].seqno < state_of(world, account).requests[machine].draw_at:
        ledger.now += 60
    assert not world.send(world.stranger, account, fees.draw(), committee_messages.draw(machine)).failed
    question = state_of(world, account).requests[machine].question
    for index, owner in enumerate(owners):
        signature = sign(CommitteeVerdict(question.hash, True), key_of(f"verifier {index}"))
        body = committee_messages.answer(machine, owner.account, True, signature)
        assert not world.send(world.stranger, account, fees.answer(), body).failed
    ledger.now = state_of(world, account).requests[machine].deadline + 1
    return world.send(world.operator, account, fees.conclude(admitted=True), committee_messages.conclude(machine))


def test_g12_from_quotes_of_three_to_a_verdict_for_a_fourth() -> None:
    world = built_world(verifier=True)
    account, terms = born(world)
    fees = CommitteeFees(world.fees.prices, terms)
    owners = [join(world, account, fees, index) for index in range(3)]
    machine, _ = world.open_node(world.operator)
    # Nobody has allowed the committee yet: its word is worth nothing.
    trace = vouched(world, account, terms, owners, machine)
    assert trace.failed and world.node(machine).signing_key is None
    for allowed in (account, MEASUREMENT):
        body = governed(world.governor.account, allow_image(allowed, 3, bytes(32)))
        assert not world.tell(world.registry, world.attestation, TON, body).failed
    trace = vouched(world, account, terms, owners, machine)
    assert not trace.failed, [(tx.account == world.attestation, tx.exit_code) for tx in trace.failed]
    found = world.node(machine)
    assert (found.signing_key, found.measurement, found.platform) == (
        public(key_of("snp enclave")),
        MEASUREMENT,
        PLATFORM,
    )
    assert found.tier == 0, "a verifier on a test root proves no hardware, whoever vouches"
    data = world.ledger.account(world.attestation).data
    assert data is not None and VerifierState.from_cell(data).platforms[PLATFORM].node == machine
    body = governed(world.governor.account, revoke_image(account, compromised=False))
    assert not world.tell(world.registry, world.attestation, TON, body).failed
    assert vouched(world, account, terms, owners, machine).failed


def test_a_node_presents_itself_for_its_controller_only_while_it_serves(world: World, pair: Pair) -> None:
    body, told = node_rare.present(world.payout), world.fees.present()
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.NOT_ALLOWED
    assert code_of(world.send(world.operator, pair.node, told - 1, body)) == ContractError.LOW_VALUE
    trace = world.send(world.operator, pair.node, told, body)
    (said,) = trace.of(pair.node)[0].out_msgs
    state = world.node(pair.node)
    assert state.signing_key is not None and state.platform is not None
    expected = committee_messages.Presented(
        state.owner, state.index, state.signing_key, state.tier, state.attested_until, state.platform, state.payout
    )
    assert said.body.hash == expected.to_cell().hash
    world.ledger.now = state.attested_until + 1
    assert code_of(world.send(world.operator, pair.node, TON, body)) == ContractError.NOT_SERVING


def test_what_a_committee_refuses_comes_back_as_the_nodes_reserve(world: World, pair: Pair) -> None:
    account, terms = born(world)
    fees = CommitteeFees(world.fees.prices, terms)
    before = world.ledger.balance(pair.node)
    trace = world.send(
        world.operator, pair.node, fees.join() + world.fees.present() - TON // 10, node_rare.present(account)
    )
    assert code_of(trace) == ContractError.LOW_VALUE
    assert world.ledger.balance(pair.node) > before + TON // 2
    assert not state_of(world, account).members


@pytest.mark.parametrize("tier", [0, 1])
def test_g14_on_mainnet_a_simulated_machine_joins_no_committee(tier: int) -> None:
    world = built_world(-239)
    account, terms = born(world)
    machine, _ = world.open_node()
    assert not world.attest(machine, tier=tier).failed
    value = CommitteeFees(world.fees.prices, terms).join() + world.fees.present()
    trace = world.send(world.operator, machine, value, node_rare.present(account))
    assert bool(trace.failed) == (tier == 0)
