"""Registry, stub and verifier: genesis, births, who may name a node's key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import begin_cell
from test_escrow import from_masterchain

from attestation.onchain.state import ChainPolicy, genesis_state
from chain.api import Status
from devnet.ledger import Ledger
from scripts.stage import HOUR, SIMULATED_ROOT, TON, Pair, World, account_of_name, built_world, key_of, public
from wrappers import addresses, escrow, node, registry, verdicts
from wrappers.addresses import Kind
from wrappers.code import Contract, code, code_hash
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.rows import Fee, Shares
from wrappers.signed import GenesisState, network_id, sign

MAINNET = -239


def bare_world(global_id: int | None = None) -> World:
    return World(Ledger() if global_id is None else Ledger(global_id=global_id), verifier=True)


def birth(world: World, body: object, contract: Contract = Contract.REGISTRY) -> int | None:
    account = world.registry if contract is Contract.REGISTRY else world.attestation
    trace = world.ledger.send_internal(
        source=world.governor.account,
        destination=account,
        value_nano=TON,
        body=body,  # type: ignore[arg-type]
        state_init=addresses.singleton_state_init(code(contract), public(world.genesis_key), 0),
    )
    return trace.transactions[0].exit_code


def test_genesis_sets_the_signed_state_once() -> None:
    world = bare_world()
    state = world.registry_state.to_cell()
    assert birth(world, world.genesis_body(world.registry, state)) == 0
    data = world.ledger.account(world.registry).data
    assert data is not None
    assert registry.RegistryState.from_cell(data) == world.registry_state
    assert birth(world, world.genesis_body(world.registry, state)) == ContractError.UNKNOWN_OP


def test_g10_genesis_of_another_key_account_network_or_state_is_refused() -> None:
    world = bare_world()
    state = world.registry_state.to_cell()
    assert birth(world, world.genesis_body(world.registry, state, key_of("thief"))) == ContractError.BAD_SIGNATURE
    assert birth(world, world.genesis_body(world.attestation, state)) == ContractError.BAD_SIGNATURE
    foreign = sign(GenesisState(MAINNET, world.registry, bytes(state.hash)), world.genesis_key)
    assert birth(world, registry.genesis(foreign, state)) == ContractError.BAD_SIGNATURE
    other = replace(world.registry_state, governor=account_of_name("thief")).to_cell()
    signature = sign(GenesisState(world.ledger.global_id, world.registry, bytes(state.hash)), world.genesis_key)
    assert birth(world, registry.genesis(signature, other)) == ContractError.BAD_SIGNATURE


def test_g10_genesis_state_must_name_this_network() -> None:
    world = bare_world()
    wrong = replace(world.registry_state, network_id=network_id(MAINNET, world.registry)).to_cell()
    assert birth(world, world.genesis_body(world.registry, wrong)) == ContractError.WRONG_NETWORK
    bad = genesis_state(world.registry, network_id(MAINNET, world.registry), SIMULATED_ROOT, ChainPolicy(), {})
    body = world.genesis_body(world.attestation, bad)
    assert birth(world, body, Contract.ATTESTATION) == ContractError.WRONG_NETWORK


@pytest.mark.parametrize(
    "change",
    [
        {"min_close_timer": HOUR - 1},
        {"max_close_timer": 7 * 86_400 + 1},
        {"claim_window": 7 * 86_400 - 1},
        {"unbonding": HOUR - 1},
        {"challenge_window": HOUR - 1},
    ],
)
def test_g20_parameters_outside_the_bounds_in_code_are_refused(change: dict[str, int]) -> None:
    world = bare_world()
    state = replace(world.registry_state, parameters=replace(world.parameters, **change)).to_cell()
    assert birth(world, world.genesis_body(world.registry, state)) == ContractError.BAD_PARAMETERS


def test_g10_an_unborn_registry_opens_nothing() -> None:
    world = bare_world()
    config = node.NodeConfig(world.operator.account, world.payout, public(world.release_key))
    body = registry.open_node(code_hash(Contract.NODE), 0, config)
    assert birth(world, body) == ContractError.NOT_BORN


def test_get_methods_tell_the_state(world: World) -> None:
    values = world.ledger.run_get(world.registry, "get_registry")
    assert values[:3] == [int.from_bytes(x, "big") for x in (world.governor.account, world.attestation, world.network)]
    assert values[3:] == [5 * TON, TON // 10]
    hashes = [
        int.from_bytes(code_hash(c), "big") for c in (Contract.STUB, Contract.NODE, Contract.ESCROW, Contract.JOB)
    ]
    assert world.ledger.run_get(world.registry, "get_code_hashes") == hashes


def test_open_with_another_code_hash_is_refused(world: World) -> None:
    body = registry.open_escrow(code_hash(Contract.NODE), 0, escrow.EscrowConfig(public(world.voucher_key)))
    trace = world.send(world.client, world.registry, 2 * TON, body)
    assert trace.failed[0].exit_code == ContractError.WRONG_CODE


@pytest.mark.parametrize(
    ("terms", "amount", "error"),
    [
        ({"close_timer": HOUR - 1}, TON, ContractError.BAD_TERMS),
        ({"close_timer": 8 * 86_400}, TON, ContractError.BAD_TERMS),
        ({"shares": Shares(relayer_share=1)}, TON, ContractError.BAD_TERMS),
        ({"shares": Shares(1, relayer=b"\x01" * 32, fee=Fee(1, b"\x02" * 32))}, TON, ContractError.BAD_TERMS),
        ({}, 0, ContractError.WRONG_AMOUNT),
        ({}, 50 * TON, ContractError.LOW_VALUE),
    ],
)
def test_g3_a_first_allotment_that_init_could_not_take_is_refused_by_the_registry(
    world: World, terms: dict[str, Any], amount: int, error: ContractError
) -> None:
    row = replace(world.row_terms(), **terms)
    first = escrow.FirstAllotment(account_of_name("node"), amount, row)
    account, trace = world.open_escrow(value_nano=3 * TON, first=first)
    assert trace.failed[0].exit_code == error
    assert world.ledger.account(account).status is Status.ABSENT


def test_g3_configuration_with_anything_more_or_exotic_is_refused(world: World) -> None:
    config = begin_cell().store_bytes(bytes(32)).store_bit(0).store_bit(0).end_cell()
    body = begin_cell().store_uint(Op.OPEN_ESCROW, 32).store_bytes(code_hash(Contract.ESCROW)).store_uint(0, 32)
    trace = world.send(world.client, world.registry, 2 * TON, body.store_ref(config).end_cell())
    assert trace.failed[0].exit_code == 9
    short = begin_cell().store_bytes(bytes(95)).end_cell()
    body = begin_cell().store_uint(Op.OPEN_NODE, 32).store_bytes(code_hash(Contract.NODE)).store_uint(0, 32)
    trace = world.send(world.operator, world.registry, 9 * TON, body.store_ref(short).end_cell())
    assert trace.failed[0].exit_code == 9


# ------------------------------------------------------------------------------------------------ stub


def deploy_stub(world: World, owner: bytes) -> bytes:
    account = addresses.child_address(world.registry, Kind.ESCROW, owner, 7)
    world.ledger.send_internal(
        source=world.stranger.account,
        destination=account,
        value_nano=TON,
        state_init=addresses.stub_state_init(world.registry, Kind.ESCROW, owner, 7),
    )
    return account


@pytest.mark.parametrize("bounce", [True, False], ids=["bounces", "stays"])
@pytest.mark.parametrize("op", [None, 0, Op.INIT, Op.SETTLE, Op.TOP_UP])
def test_g3_a_stub_is_like_no_account_to_every_other_message(world: World, op: int | None, bounce: bool) -> None:
    """What can bounce goes back; what cannot waits for whoever may open, and not for whoever sent it."""
    account = deploy_stub(world, world.client.account)
    body = None
    if op is not None:
        body = begin_cell().store_uint(op, 32).store_ref(begin_cell().end_cell()).store_ref(begin_cell().end_cell())
        body = body.end_cell()
    before, data = world.ledger.balance(account), world.ledger.account(account).data
    trace = world.ledger.send_internal(
        source=world.stranger.account, destination=account, value_nano=TON, body=body, bounce=bounce
    )
    assert trace.failed[0].account == account
    after = world.ledger.account(account).data
    assert data is not None and after is not None and after.hash == data.hash
    kept = world.ledger.balance(account) - before
    if bounce:
        assert kept == 0
        back = trace.transactions[-1].in_msg
        assert back is not None and trace.transactions[-1].account == world.stranger.account
        assert back.value_nano > TON - TON // 1000
    else:
        assert TON - TON // 1000 < kept < TON and len(trace.transactions) == 1


@pytest.mark.parametrize("op", [0, Op.TOP_UP])
def test_g10_a_stub_takes_nothing_but_init_from_its_registry(world: World, op: int) -> None:
    account = deploy_stub(world, world.client.account)
    terms = begin_cell().store_ref(code(Contract.ESCROW)).end_cell()
    body = begin_cell().store_uint(op, 32).store_ref(begin_cell().end_cell()).store_ref(terms).end_cell()
    trace = world.tell(world.registry, account, TON, body)
    assert trace.failed[0].exit_code == ContractError.UNKNOWN_OP
    init = begin_cell().store_uint(Op.INIT, 32).store_ref(begin_cell().end_cell()).store_ref(terms).end_cell()
    for trace in (
        world.tell(world.stranger.account, account, TON, init),
        from_masterchain(world, world.registry, account, init),
    ):
        assert trace.failed[0].exit_code == ContractError.NOT_ALLOWED


def test_a_stub_that_somebody_deployed_before_is_opened_all_the_same(world: World) -> None:
    account = deploy_stub(world, world.client.account)
    opened, trace = world.open_escrow(index=7, value_nano=world.fees.open_escrow(TON))
    assert opened == account and not trace.failed
    assert world.escrow(account).deposit_nano >= TON


def test_g10_init_from_anybody_but_the_registry_changes_nothing(world: World, pair: Pair) -> None:
    for account in (pair.node, pair.escrow):
        before = world.ledger.account(account).data
        body = begin_cell().store_uint(Op.INIT, 32).store_ref(begin_cell().end_cell())
        body.store_ref(begin_cell().end_cell())
        trace = world.send(world.stranger, account, TON, body.end_cell())
        assert trace.failed[0].exit_code == ContractError.NOT_ALLOWED
        after = world.ledger.account(account).data
        assert before is not None and after is not None and before.hash == after.hash


def test_g4_a_second_init_changes_nothing_and_returns_the_money(world: World, pair: Pair) -> None:
    before = world.node(pair.node), world.escrow(pair.escrow)
    for opened in (world.open_node, world.open_escrow):
        _, trace = opened(value_nano=20 * TON)
        assert not trace.failed
        back = trace.transactions[-1].in_msg
        assert back is not None and back.value_nano > 19 * TON
    assert (world.node(pair.node), world.escrow(pair.escrow)) == before


@pytest.mark.parametrize("config", [(False, True), (True, False)], ids=["no controller", "no payout address"])
def test_g3_a_stake_that_nobody_could_take_out_again_is_refused(world: World, config: tuple[bool, bool]) -> None:
    controller, payout = (world.operator.account if named else bytes(32) for named in config)
    body = registry.open_node(
        code_hash(Contract.NODE), 7, node.NodeConfig(controller, payout, public(world.release_key))
    )
    trace = world.send(world.operator, world.registry, world.fees.open_node(), body)
    assert trace.failed[0].exit_code == ContractError.BAD_TERMS


# ------------------------------------------------------------------------------------------------ verdicts


def test_a_verdict_gives_the_node_its_key(world: World) -> None:
    account, _ = world.open_node()
    assert not world.node(account).key_attested(public(world.enclave_key), world.ledger.now)
    assert not world.attest(account).failed
    state = world.node(account)
    assert state.signing_key == public(world.enclave_key)
    assert state.attested_until == world.ledger.now + 86_400
    assert (state.tier, state.measurement, state.platform) == (1, b"\x11" * 32, b"\x22" * 32)


def test_g10_only_the_attestation_contract_names_a_key(world: World, pair: Pair) -> None:
    verdict = verdicts.verdict(world.verdict(pair.node, key_of("thief")))
    for source in (world.stranger.account, world.governor.account, world.registry, world.operator.account, pair.node):
        trace = world.tell(source, pair.node, TON, verdict)
        assert trace.failed[0].exit_code == ContractError.NOT_ALLOWED
    assert world.node(pair.node).signing_key == public(world.enclave_key)


def test_g10_no_message_of_the_governor_makes_the_verifier_speak() -> None:
    """Whatever he sends to registry or verifier, no node hears of it."""
    world = built_world(verifier=True)
    account, _ = world.open_node()
    verdict = world.verdict(account, key_of("thief"))
    for op in (Op.VERDICT, 0x4FFEF240, 0x5D2CBDAC):  # the last two: how the governor once named keys
        body = begin_cell().store_uint(op, 32).store_bytes(account).store_ref(verdict.to_cell()).end_cell()
        for source, target in (
            (world.governor.account, world.registry),
            (world.governor.account, world.attestation),
            (world.registry, world.attestation),
        ):
            trace = world.tell(source, target, TON, body)
            assert trace.failed and not trace.of(account)
    assert world.node(account).signing_key is None


def test_g14_a_test_root_is_refused_on_the_main_network() -> None:
    world = bare_world(MAINNET)
    body = world.genesis_body(world.attestation, world.verifier_state)
    assert birth(world, body, Contract.ATTESTATION) == ContractError.MAIN_NETWORK
