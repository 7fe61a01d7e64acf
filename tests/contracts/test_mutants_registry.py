"""What governance may choose, bit by bit: cells that no builder writes, and the last value that each bound takes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of
from test_governance import govern, state_of
from test_governance_actions import job_config, open_job
from test_mutants_singletons import genesis_with

from devnet.ledger import Ledger
from scripts.stage import DAY, TON, World, account_of_name, built_world, public
from tests.support.altered import flipped, with_bits, with_number, with_ref
from wrappers import governance, registry
from wrappers.code import Contract, code_hash
from wrappers.dicts import ids_cell
from wrappers.errors import ContractError
from wrappers.escrow import FirstAllotment
from wrappers.node import NodeConfig
from wrappers.ops import Op
from wrappers.registry import STOP_ESCROWS, STOP_JOBS, STOP_NODES, Proposal, Rebuilders, Settings

CELL_UNDERFLOW = 9
NODE_TERMS, ESCROW_TERMS, JOB_TERMS = range(3)
TREASURY = account_of_name("treasury")
FEE_BIT = 32 + 32 + 16 + 32
"""Where terms of escrows say that there is a fee: timers and the code's size stand before."""
COURT_BIT = 256


def proposed(world: World, settings: Cell) -> int | None:
    """Exit code."""
    trace = govern(world, governance.propose(settings))
    return code_of(trace) if trace.failed else 0


def with_fee(world: World) -> Settings:
    settings = state_of(world).settings
    return replace(settings, parameters=replace(settings.parameters, fee=1), treasury=TREASURY)


def test_g20_a_fee_is_of_something_and_goes_to_the_networks_own_treasury(world: World) -> None:
    settings = with_fee(world).to_cell()
    assert proposed(world, settings) == 0
    terms = settings.refs[ESCROW_TERMS]
    bits = terms.bits.to01()
    assert bits[FEE_BIT] == "1" and int(bits[FEE_BIT + 1 :][:16], 2) == 1 and len(bits) == FEE_BIT + 1 + 16 + 256
    nothing = with_bits(terms, with_number(bits, FEE_BIT + 1, 16, 0))
    for altered in (nothing, flipped(terms, FEE_BIT + 17), flipped(terms, len(bits) - 1)):
        assert proposed(world, with_ref(settings, ESCROW_TERMS, altered)) == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize("part", [NODE_TERMS, ESCROW_TERMS, JOB_TERMS])
def test_g10_settings_and_each_of_their_terms_are_read_to_the_end(world: World, part: int) -> None:
    settings = state_of(world).settings.to_cell()
    assert proposed(world, flipped(settings, -1)) == CELL_UNDERFLOW
    assert proposed(world, with_ref(settings, part, flipped(settings.refs[part], -1))) == CELL_UNDERFLOW


def test_g20_neither_nodes_nor_jobs_alone_get_another_court(world: World) -> None:
    settings = state_of(world).settings.to_cell()
    nodes, jobs = settings.refs[NODE_TERMS], settings.refs[JOB_TERMS]
    trusted = len(nodes.refs) - 1
    elsewhere = with_ref(nodes, trusted, flipped(nodes.refs[trusted], COURT_BIT))
    assert proposed(world, with_ref(settings, NODE_TERMS, elsewhere)) == ContractError.BAD_PARAMETERS
    assert proposed(world, with_ref(settings, JOB_TERMS, flipped(jobs, 0))) == ContractError.BAD_PARAMETERS


def set_with_values(ids: Collection[bytes]) -> Cell:
    """A set of ids, each of which has a bit where nothing may be: rent of a job's nodes is kept for ids alone."""
    cell = ids_cell(dict.fromkeys(sorted(ids)), lambda _: begin_cell().store_bit(1))
    assert cell is not None
    return cell


def test_g10_a_set_of_rebuilders_holds_ids_and_nothing_else(world: World) -> None:
    ids = frozenset({account_of_name("rebuilder")})
    action = governance.set_rebuilders(Rebuilders(1, ids))
    assert proposed(world, action) == 0
    genuine = action.refs[0]
    for altered in (with_ref(genuine, 0, set_with_values(ids)), flipped(genuine, -1)):
        assert proposed(world, with_ref(action, 0, altered)) == CELL_UNDERFLOW


def test_g10_a_jobs_configuration_holds_what_it_says_and_nothing_else(world: World) -> None:
    config = job_config(world)
    genuine = config.to_cell()

    def opened(cell: Cell) -> int | None:
        body = begin_cell().store_bits(registry.open_job(code_hash(Contract.JOB), 0, config).bits).store_ref(cell)
        trace = world.tell(world.client.account, world.registry, 10 * TON, body.end_cell())
        return code_of(trace) if trace.failed else 0

    assert opened(with_ref(genuine, 0, set_with_values(config.nodes))) == CELL_UNDERFLOW
    assert opened(flipped(genuine, -1)) == CELL_UNDERFLOW
    assert opened(genuine) == 0


def test_g3_a_job_at_each_of_its_bounds_is_opened(world: World) -> None:
    for index, change in enumerate(
        (
            {"grace": 2 * DAY},
            {"delivery_window": 7 * DAY},
            {"deadline": world.ledger.now + 1},
            {"nodes": frozenset([b"\x03" * 32])},
            {"maximum_nano": 1},
        )
    ):
        assert not open_job(world, job_config(world, **change), 10 * TON, index)[1].failed, change


def test_g20_all_openings_can_be_stopped(world: World) -> None:
    assert not govern(world, governance.stop_opening(STOP_NODES | STOP_ESCROWS | STOP_JOBS)).failed
    assert state_of(world).stopped == STOP_NODES | STOP_ESCROWS | STOP_JOBS


def test_g20_an_action_of_no_known_kind_is_not_proposed_whatever_it_holds(world: World) -> None:
    for width in (8, 48, 256):
        action = begin_cell().store_uint(0x12345678, 32).store_uint(0, width).end_cell()
        assert proposed(world, action) == ContractError.UNKNOWN_OP


def test_g10_endorsements_and_acceptances_are_read_to_the_end(world: World) -> None:
    action = governance.allow_model(b"\x71" * 32)
    assert proposed(world, action) == 0
    assert not govern(world, governance.offer_governor(world.stranger.account)).failed
    for who, body in (
        (account_of_name("rebuilder"), governance.endorse(bytes(action.hash))),
        (world.stranger.account, governance.accept_governor()),
    ):
        assert code_of(world.tell(who, world.registry, TON, flipped(body, -1))) == CELL_UNDERFLOW
        assert not world.tell(who, world.registry, TON, body).failed


def test_g20_a_network_is_not_born_with_something_proposed() -> None:
    world = World(Ledger(), verifier=True)
    proposal = {b"\x01" * 32: Proposal(world.ledger.now, False)}
    assert genesis_with(world, replace(world.registry_state, proposals=proposal).to_cell()) == (
        ContractError.BAD_PARAMETERS
    )


def test_g3_a_node_opens_with_no_extras_and_nothing_more(world: World) -> None:
    """What init could not read would strand the stake: the registry refuses it while it can still go back."""
    plain = NodeConfig(world.operator.account, world.payout, public(world.release_key)).to_cell()
    bits = plain.bits.to01()
    promised = with_bits(plain, with_number(bits, len(bits) - 1, 1, 1))
    extras = begin_cell().store_cell(promised).store_ref(Cell.empty()).end_cell()
    longer = begin_cell().store_cell(plain).store_ref(Cell.empty()).end_cell()
    for config, error in (
        (promised, ContractError.BAD_TERMS),
        (extras, ContractError.BAD_TERMS),
        (longer, CELL_UNDERFLOW),
        (flipped(plain, -1), CELL_UNDERFLOW),
    ):
        body = begin_cell().store_uint(Op.OPEN_NODE, 32).store_bytes(code_hash(Contract.NODE)).store_uint(0, 32)
        trace = world.send(world.operator, world.registry, 100 * TON, body.store_ref(config).end_cell())
        assert code_of(trace) == error


def test_g8_g9_a_first_row_with_shares_brings_their_rent() -> None:
    world = built_world(fee=300)
    node, _ = world.open_node()
    first = FirstAllotment(node, TON, world.row_terms(shares=world.shares))
    need = world.fees.open_escrow(TON, TON, shared=True)
    assert need - world.fees.open_escrow(TON, TON) == world.fees.shares_rent() > 0
    _, trace = world.open_escrow(first=first, value_nano=need - 1)
    assert code_of(trace) == ContractError.LOW_VALUE
    account, trace = world.open_escrow(first=first, value_nano=need)
    assert not trace.failed
    state = world.escrow(account)
    assert state.deposit_nano >= state.reserved_nano == TON, "the way of the shares' cell is paid for, too"
