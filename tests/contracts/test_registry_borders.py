"""Registry: what it keeps to the nanoTON, the sizes that it measures to the cell, and what may happen only once."""

from __future__ import annotations

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of
from test_governance import LOCK, govern, state_of
from test_governance_actions import job_config, open_job
from test_mutants_node import bounces

from devnet.ledger import Ledger
from scripts.stage import TON, World, account_of_name, public
from tests.support.altered import flipped, with_bits, with_number, with_ref
from wrappers import addresses, escrow, governance, registry
from wrappers.code import Contract, code, code_hash, size_of
from wrappers.errors import ContractError
from wrappers.gas import TEN_YEARS, Gas
from wrappers.node import NodeConfig

CELL_OVERFLOW, CELL_UNDERFLOW = 8, 9
MODEL = b"\x71" * 32
REBUILDER = account_of_name("rebuilder")
MAX_AMOUNT = 10**15
MAX_SINGLETON_CELLS, MAX_CODE_CELLS, MAX_CONFIG_CELLS = 2000, 64, 40


def distinct(count: int) -> Cell:
    """`count` cells, each under the one before, no two alike."""
    cell = begin_cell().store_uint(1, 16).end_cell()
    for number in range(2, count + 1):
        cell = begin_cell().store_uint(number, 16).store_ref(cell).end_cell()
    return cell


def wide(count: int) -> Cell:
    """`count` distinct cells that lie no deeper than a message's may."""
    chains, rest = divmod(count - 1, 4)
    root = begin_cell()
    for chain in range(4):
        cells = chains + (chain < rest)
        cell = begin_cell().store_uint(chain, 16).end_cell() if cells else None
        for number in range(1, cells):
            assert cell is not None
            cell = begin_cell().store_uint(4 * number + chain, 16).store_ref(cell).end_cell()
        if cell is not None:
            root.store_ref(cell)
    return root.end_cell()


# ------------------------------------------------------------------------------------------------ genesis


def genesis(state: Cell | None, value: int) -> int | None:
    """Exit code of the genesis with that state (default: the network's) and value."""
    world = World(Ledger(), verifier=True)
    trace = world.ledger.send_internal(
        source=world.governor.account,
        destination=world.registry,
        value_nano=value,
        body=world.genesis_body(world.registry, state or world.registry_state.to_cell()),
        state_init=addresses.singleton_state_init(code(Contract.REGISTRY), public(world.genesis_key), 0),
    )
    return trace.transactions[0].exit_code


def test_g9_a_registry_is_born_with_ten_years_of_its_rent_to_the_nanoton() -> None:
    world = World(Ledger(), verifier=True)
    born = begin_cell().store_ref(code(Contract.REGISTRY)).store_ref(world.registry_state.to_cell()).end_cell()
    prices = world.fees.prices
    need = prices.gas(Gas.GENESIS) + prices.storage(*size_of(born), TEN_YEARS)
    assert genesis(None, need - 1) == ContractError.LOW_VALUE
    assert genesis(None, need) == 0


def test_g9_a_singleton_is_born_with_as_many_cells_as_are_counted_and_no_more() -> None:
    """What is not counted would pay no rent. Within the count the state is read, and is none of a registry."""
    room = MAX_SINGLETON_CELLS - 1 - size_of(code(Contract.REGISTRY))[0]
    assert genesis(wide(room), 100 * TON) == CELL_UNDERFLOW
    assert genesis(wide(room + 1), 100 * TON) == CELL_OVERFLOW


# ------------------------------------------------------------------------------------------------ births


def test_g1_births_take_nothing_of_what_the_registry_holds(world: World) -> None:
    """Its ten years of rent stand in its balance."""
    before = world.ledger.balance(world.registry)
    assert not world.open_node()[1].failed
    assert world.ledger.balance(world.registry) == before
    assert not world.open_escrow()[1].failed
    assert world.ledger.balance(world.registry) == before
    assert not open_job(world, job_config(world))[1].failed
    assert world.ledger.balance(world.registry) == before


@pytest.mark.parametrize("contract", [Contract.NODE, Contract.ESCROW, Contract.JOB])
def test_g10_an_opening_with_anything_more_is_refused(world: World, contract: Contract) -> None:
    hash_ = code_hash(contract)
    node = NodeConfig(world.operator.account, world.payout, public(world.release_key))
    body = {
        Contract.NODE: registry.open_node(hash_, 5, node),
        Contract.ESCROW: registry.open_escrow(hash_, 5, escrow.EscrowConfig(public(world.voucher_key))),
        Contract.JOB: registry.open_job(hash_, 5, job_config(world)),
    }[contract]
    longer = begin_cell().store_cell(body).store_ref(Cell.empty()).end_cell()
    for altered in (flipped(body, -1), longer):
        assert code_of(world.tell(world.client.account, world.registry, 20 * TON, altered)) == CELL_UNDERFLOW
    assert not world.tell(world.client.account, world.registry, 20 * TON, body).failed


def test_g3_a_first_allotment_with_anything_more_is_refused(world: World) -> None:
    first = escrow.FirstAllotment(account_of_name("node"), TON, world.row_terms())
    config = escrow.EscrowConfig(public(world.voucher_key), first).to_cell()
    genuine = config.refs[0]
    body = registry.open_escrow(code_hash(Contract.ESCROW), 5, escrow.EscrowConfig(public(world.voucher_key), first))
    for altered in (flipped(genuine, -1), begin_cell().store_cell(genuine).store_ref(Cell.empty()).end_cell()):
        opening = with_ref(body, 0, with_ref(config, 0, altered))
        assert code_of(world.tell(world.client.account, world.registry, 20 * TON, opening)) == CELL_UNDERFLOW
    assert not world.tell(world.client.account, world.registry, 20 * TON, body).failed


def test_g3_a_job_may_cost_as_much_as_any_amount_may_be(world: World) -> None:
    config = job_config(world, maximum_nano=MAX_AMOUNT)
    account, trace = open_job(world, config)
    assert not trace.failed and world.ledger.balance(account) >= MAX_AMOUNT


def test_g9_a_jobs_configuration_is_weighed_up_to_its_bound(world: World) -> None:
    """Above it nothing is read; below it what does not belong there is refused as that."""
    config = job_config(world)
    genuine = config.to_cell()
    body = registry.open_job(code_hash(Contract.JOB), 0, config)
    room = MAX_CONFIG_CELLS - size_of(genuine)[0]
    for count, error in ((room, CELL_UNDERFLOW), (room + 1, CELL_OVERFLOW)):
        heavy = begin_cell().store_cell(genuine).store_ref(distinct(count)).end_cell()
        assert size_of(heavy)[0] == MAX_CONFIG_CELLS - room + count
        assert code_of(world.tell(world.client.account, world.registry, 20 * TON, with_ref(body, 0, heavy))) == error


# ------------------------------------------------------------------------------------------------ governance


@pytest.mark.parametrize(("part", "after"), [(0, 0), (1, 1)], ids=["node", "escrow"])
def test_g9_code_is_weighed_up_to_its_bound(world: World, part: int, after: int) -> None:
    """`after`: bits of the terms behind the size."""
    settings = state_of(world).settings.to_cell()
    terms = settings.refs[part]
    bits = terms.bits.to01()
    for count, error in ((MAX_CODE_CELLS, 0), (MAX_CODE_CELLS + 1, CELL_OVERFLOW)):
        living = distinct(count)
        at = len(bits) - after - 48
        sized = with_number(with_number(bits, at, 16, count), at + 16, 32, size_of(living)[1])
        program = begin_cell().store_ref(living).end_cell()
        altered = with_ref(settings, part, with_ref(with_bits(terms, sized), 0, program))
        trace = govern(world, governance.propose(altered))
        assert (code_of(trace) if trace.failed else 0) == error


def test_g20_a_proposal_is_carried_out_once(world: World) -> None:
    """Else what was narrowed meanwhile would be wide again without waiting."""
    action = governance.allow_model(MODEL)
    assert not govern(world, governance.propose(action)).failed
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(action)).failed
    assert not govern(world, governance.revoke_model(MODEL)).failed
    assert code_of(govern(world, governance.execute(action))) == ContractError.NO_PROPOSAL
    assert state_of(world).models == {MODEL: True} and not state_of(world).proposals


def test_g9_a_model_leaves_its_rent_when_it_is_new_and_never_again(world: World) -> None:
    def left(body: Cell) -> int:
        before = world.ledger.balance(world.registry)
        assert not govern(world, body).failed
        return world.ledger.balance(world.registry) - before

    action = governance.allow_model(MODEL)
    assert left(governance.propose(action)) == 0
    world.ledger.now += LOCK
    assert not world.tell(world.stranger.account, world.registry, TON, None).failed  # the rent of these days is paid
    assert left(governance.execute(action)) == world.fees.governed_rent() > 0
    assert left(governance.revoke_model(MODEL)) == 0
    assert left(governance.revoke_model(b"\x72" * 32)) == world.fees.governed_rent()


def test_g7_what_governing_leaves_goes_back_and_stays_there(world: World) -> None:
    """No bounce flag: a wallet that cannot take it now has it all the same."""
    assert bounces(govern(world, governance.stop_opening(0)), world.registry) == [False]
    trace = govern(world, governance.drop_tcb(b"\x01" * 6))
    assert bounces(trace, world.registry)[0], "what the verifier refuses comes back"


def test_get_methods_tell_what_waits_and_who_must_endorse_it(world: World) -> None:
    action = governance.allow_model(MODEL)
    number = int.from_bytes(action.hash, "big")
    assert world.ledger.run_get(world.registry, "get_proposal", number) == [0, 0]
    assert not govern(world, governance.propose(action)).failed
    assert world.ledger.run_get(world.registry, "get_proposal", number) == [world.ledger.now + LOCK, 0]
    needed, accounts = world.ledger.run_get(world.registry, "get_rebuilders")
    assert needed == 1 and isinstance(accounts, Cell)
    stored = world.registry_state.rebuilders.to_cell()
    assert accounts.hash == stored.refs[0].hash and world.registry_state.rebuilders.accounts == {REBUILDER}
