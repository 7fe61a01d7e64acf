"""What the singletons do with messages that are not for them: borders that a mutation had moved unnoticed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from pytoniq_core.boc.address import Address

from chain.decode import decode_transaction
from devnet.accounts import NO_SHARD_ACCOUNT
from devnet.engine import Accepted, Engine
from devnet.ledger import Ledger, Snapshot
from scripts.stage import DAY, GENESIS_NANO, HOUR, TON, World, built_world, public
from tests.support.altered import flipped, with_ref
from wrappers import addresses, registry
from wrappers.cells import address_of
from wrappers.code import Contract, code
from wrappers.errors import ContractError
from wrappers.signed import GenesisState, sign

CELL_UNDERFLOW = 9
BOTH = (Contract.REGISTRY, Contract.ATTESTATION)
MASTERCHAIN_PRICE = 100 * TON


@pytest.fixture(scope="module")
def _built() -> tuple[World, Snapshot]:
    world = built_world(verifier=True)
    return world, world.ledger.snapshot()


@pytest.fixture
def world(_built: tuple[World, Snapshot]) -> World:
    """A network with the real verifier; every test finds it fresh."""
    _built[0].ledger.revert(_built[1])
    return _built[0]


def account_of(world: World, contract: Contract) -> bytes:
    return world.registry if contract is Contract.REGISTRY else world.attestation


def state_of(world: World, contract: Contract) -> Cell:
    if contract is Contract.REGISTRY:
        return world.registry_state.to_cell()
    return world.verifier_state


@pytest.mark.parametrize("contract", BOTH)
@pytest.mark.parametrize("content", ["nothing", "comment", "bounced"])
def test_money_that_says_nothing_is_kept_and_changes_nothing(world: World, contract: Contract, content: str) -> None:
    account = account_of(world, contract)
    body = None
    if content != "nothing":
        body = begin_cell().store_uint(0 if content == "comment" else 0xFFFFFFFF, 32).store_uint(7, 32).end_cell()
    before = world.ledger.account(account)
    trace = world.ledger.send_internal(
        source=world.stranger.account, destination=account, value_nano=TON, body=body, bounced=content == "bounced"
    )
    assert not trace.failed and len(trace.transactions) == 1
    after = world.ledger.account(account)
    assert after.data is not None and before.data is not None and after.data.hash == before.data.hash
    assert after.balance_nano > before.balance_nano + TON - TON // 100


@pytest.mark.parametrize("contract", BOTH)
def test_an_unknown_message_is_refused_as_that(world: World, contract: Contract) -> None:
    body = begin_cell().store_uint(0x12345678, 32).store_bytes(bytes(32)).end_cell()
    trace = world.tell(world.registry, account_of(world, contract), TON, body)
    assert trace.failed[0].exit_code == ContractError.UNKNOWN_OP


def born(
    contract: Contract, *, data: Cell | None = None, op: int | None = None, extra: str = ""
) -> tuple[World, int | None]:
    """Exit code of genesis with `extra` bits after the state, or of the first message `op`, at StateInit `data`."""
    world = World(Ledger(), verifier=True)
    init = addresses.singleton_state_init(code(contract), public(world.genesis_key), 0)
    if data is not None:
        init = begin_cell().store_uint(0b00110, 5).store_ref(code(contract)).store_ref(data).end_cell()
    account = bytes(init.hash)
    state = state_of(world, contract)
    signature = sign(GenesisState(world.ledger.global_id, account, bytes(state.hash)), world.genesis_key)
    body = begin_cell().store_cell(registry.genesis(signature, state)).store_bits(extra).end_cell()
    if op is not None:
        body = begin_cell().store_uint(op, 32).end_cell()
    trace = world.ledger.send_internal(
        source=world.governor.account, destination=account, value_nano=GENESIS_NANO, body=body, state_init=init
    )
    return world, trace.transactions[0].exit_code


@pytest.mark.parametrize("contract", BOTH)
def test_genesis_is_read_to_its_end(contract: Contract) -> None:
    assert born(contract)[1] == 0
    assert born(contract, extra="0")[1] == CELL_UNDERFLOW


@pytest.mark.parametrize("contract", BOTH)
def test_before_genesis_nothing_else_is_known(contract: Contract) -> None:
    assert born(contract, op=0x12345678)[1] == ContractError.NOT_BORN


def test_a_registry_is_born_of_a_key_and_a_salt_only() -> None:
    key = public(World(Ledger(), verifier=True).genesis_key)
    data = begin_cell().store_bytes(key).store_uint(0, 33).end_cell()
    assert born(Contract.REGISTRY, data=data)[1] == ContractError.NOT_BORN


@pytest.mark.parametrize("contract", BOTH)
def test_a_state_with_anything_more_is_refused(contract: Contract) -> None:
    world = World(Ledger(), verifier=True)
    init = addresses.singleton_state_init(code(contract), public(world.genesis_key), 0)
    account = account_of(world, contract)
    state = begin_cell().store_cell(state_of(world, contract)).store_bit(0).end_cell()
    trace = world.ledger.send_internal(
        source=world.governor.account,
        destination=account,
        value_nano=GENESIS_NANO,
        body=world.genesis_body(account, state),
        state_init=init,
    )
    assert trace.transactions[0].exit_code == CELL_UNDERFLOW


@pytest.mark.parametrize("contract", BOTH)
@pytest.mark.parametrize("workchain", [0, -1])
def test_g10_a_twin_in_the_masterchain_is_never_born(contract: Contract, workchain: int) -> None:
    """The same StateInit has the same id there, and the signed state names the id alone."""
    world = World(Ledger(), verifier=True)
    account = account_of(world, contract)
    init = addresses.singleton_state_init(code(contract), public(world.genesis_key), 0)
    body = world.genesis_body(account, state_of(world, contract))
    message = begin_cell().store_uint(0b0110, 4).store_address(address_of(world.governor.account))
    message.store_address(Address((workchain, account))).store_coins(MASTERCHAIN_PRICE).store_bit(0)
    message.store_coins(0).store_coins(0).store_uint(world.ledger.lt, 64).store_uint(world.ledger.now, 32)
    message.store_bit(1).store_bit(1).store_ref(init).store_bit(1).store_ref(body)
    outcome = Engine(world.ledger.config).transact(
        NO_SHARD_ACCOUNT,
        message.end_cell(),
        now=world.ledger.now,
        lt=world.ledger.lt + 1,
        prev_blocks=world.ledger.prev_blocks,
    )
    assert isinstance(outcome, Accepted)
    assert exit_code_of(outcome.transaction) == (ContractError.WORKCHAIN if workchain else 0)


def exit_code_of(transaction: Cell) -> int | None:
    return decode_transaction(transaction, transaction.begin_parse().skip_bits(4).load_bytes(32)).exit_code


# ------------------------------------------------------------------------------------------------ the registry's state


def genesis_with(world: World, state: Cell) -> int | None:
    init = addresses.singleton_state_init(code(Contract.REGISTRY), public(world.genesis_key), 0)
    body = world.genesis_body(world.registry, state)
    trace = world.ledger.send_internal(
        source=world.governor.account, destination=world.registry, value_nano=TON, body=body, state_init=init
    )
    return trace.transactions[0].exit_code


STUB, NODE_TERMS, ESCROW_TERMS, MORE = range(4)
PREFIX_BIT, ATTESTATION_BIT, COURT_BIT = 40, 0, 256


@pytest.mark.parametrize("part", [NODE_TERMS, ESCROW_TERMS, MORE])
def test_each_part_of_the_registrys_state_is_read_to_its_end(part: int) -> None:
    world = World(Ledger(), verifier=True)
    state = world.registry_state.to_cell()
    assert genesis_with(world, with_ref(state, part, flipped(state.refs[part], -1))) == CELL_UNDERFLOW
    assert genesis_with(world, state) == 0


def test_g10_terms_of_nodes_and_jobs_must_name_the_networks_own_stub_verifier_and_court() -> None:
    world = World(Ledger(), verifier=True)
    state = world.registry_state.to_cell()
    terms = state.refs[NODE_TERMS]
    for altered in (
        flipped(terms, PREFIX_BIT),
        *(with_ref(terms, 1, flipped(terms.refs[1], bit)) for bit in (ATTESTATION_BIT, COURT_BIT)),
    ):
        assert genesis_with(world, with_ref(state, NODE_TERMS, altered)) == ContractError.BAD_PARAMETERS
    longer = with_ref(terms, 1, flipped(terms.refs[1], -1))
    assert genesis_with(world, with_ref(state, NODE_TERMS, longer)) == CELL_UNDERFLOW


@pytest.mark.parametrize("field", [0, 8, 23, 24 + 15, 40 + 15, 56, 56 + 255])
def test_g10_the_stub_prefix_is_that_of_the_stub(field: int) -> None:
    """Flipped alike in both places that hold it."""
    world = World(Ledger(), verifier=True)
    state = flipped(world.registry_state.to_cell(), 512 + field)
    state = with_ref(state, NODE_TERMS, flipped(state.refs[NODE_TERMS], field))
    assert genesis_with(world, state) == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"unbonding": HOUR}, 0),
        ({"challenge_window": HOUR}, 0),
        ({"max_close_timer": HOUR}, 0),
        ({"max_close_timer": HOUR, "claim_window": HOUR}, 0),
        ({"min_close_timer": 7 * DAY}, 0),
        ({"max_close_timer": 7 * DAY + 1, "claim_window": 8 * DAY}, ContractError.BAD_PARAMETERS),
        ({"min_close_timer": 2 * HOUR, "max_close_timer": 2 * HOUR - 1}, ContractError.BAD_PARAMETERS),
    ],
)
def test_g20_parameters_at_their_bounds(change: dict[str, int], error: int) -> None:
    world = World(Ledger(), verifier=True)
    state = replace(world.registry_state, parameters=replace(world.parameters, **change))
    assert genesis_with(world, state.to_cell()) == error


@pytest.mark.parametrize("contract", BOTH)
def test_g9_a_singleton_is_born_with_ten_years_of_its_rent(contract: Contract) -> None:
    """What a deployment plans is enough; a third of it is not."""
    world = World(Ledger(), verifier=True)
    account = account_of(world, contract)
    low = TON // 10 if contract is Contract.REGISTRY else TON
    init = addresses.singleton_state_init(code(contract), public(world.genesis_key), 0)
    body = world.genesis_body(account, state_of(world, contract))
    trace = world.ledger.send_internal(
        source=world.governor.account, destination=account, value_nano=low, body=body, state_init=init
    )
    assert trace.transactions[0].exit_code == ContractError.LOW_VALUE
    trace = world.ledger.send_internal(
        source=world.governor.account, destination=account, value_nano=4 * TON, body=body, state_init=init
    )
    assert trace.transactions[0].exit_code == 0
