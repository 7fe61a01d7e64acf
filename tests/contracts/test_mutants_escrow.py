"""Borders of the escrow that a mutation had moved without any other test noticing."""

from __future__ import annotations

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of

from scripts.stage import DAY, HOUR, TON, Pair, World, account_of_name
from wrappers import escrow, escrow_rare
from wrappers.errors import ContractError
from wrappers.ops import Op

OTHER = account_of_name("node")
CELL_UNDERFLOW = 9


def merkle_proof() -> Cell:
    """The exotic cell that any message may carry: 280 bits and one reference."""
    inner = begin_cell().end_cell()
    data = begin_cell().store_uint(3, 8).store_bytes(inner.hash).store_uint(0, 16).store_ref(inner)
    return Cell(data.end_cell().bits, [inner], 3)


def owned(world: World, pair: Pair, body: Cell) -> int | None:
    """Exit code of the owner's message."""
    trace = world.send(world.client, pair.escrow, TON, body)
    return code_of(trace) if trace.failed else 0


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize("timer", [HOUR, 7 * DAY])
def test_close_timers_at_their_bounds_are_accepted(world: World, pair: Pair, timer: int) -> None:
    assert owned(world, pair, escrow.allot(OTHER, 1, world.row_terms(timer))) == 0
    assert world.escrow(pair.escrow).rows[OTHER].terms.close_timer == timer


def test_g3_row_terms_with_anything_more_or_exotic_are_refused(world: World, pair: Pair) -> None:
    terms = world.row_terms().to_cell()
    longer = begin_cell().store_cell(terms).store_bit(0).end_cell()
    for cell, error in ((longer, CELL_UNDERFLOW), (merkle_proof(), ContractError.EXOTIC_CELL)):
        body = begin_cell().store_uint(Op.ALLOT, 32).store_bytes(OTHER).store_coins(1).store_ref(cell).end_cell()
        assert owned(world, pair, body) == error


def test_rows_that_are_not_there_are_said_to_be_missing(world: World, pair: Pair) -> None:
    bodies = [escrow.raise_allotment(OTHER, 1), escrow_rare.reclaim(OTHER), escrow_rare.lower(OTHER, 0, bytes(64))]
    for body in bodies:
        assert owned(world, pair, body) == ContractError.NO_ROW


def test_a_release_may_leave_a_row_as_it_is_and_spends_its_seqno(world: World, pair: Pair) -> None:
    for seqno in (1, 2, 3):
        signature = world.release(pair.escrow, pair.node, 2 * TON)
        assert owned(world, pair, escrow_rare.lower(pair.node, 2 * TON, signature)) == 0
        row = world.escrow(pair.escrow).rows[pair.node]
        assert (row.seqno, row.allotted_nano) == (seqno, 2 * TON)


def test_g4_row_seqnos_only_grow_and_each_release_is_for_one_of_them(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow.raise_allotment(pair.node, 1)) == 0
    assert world.escrow(pair.escrow).rows[pair.node].seqno == 1
    assert owned(world, pair, escrow.raise_allotment(pair.node, 1)) == 0
    assert world.escrow(pair.escrow).rows[pair.node].seqno == 2
    signature = world.release(pair.escrow, pair.node, TON)
    assert owned(world, pair, escrow_rare.lower(pair.node, TON, signature)) == 0
    assert world.escrow(pair.escrow).rows[pair.node].seqno == 3
    assert owned(world, pair, escrow.raise_allotment(pair.node, TON // 2)) == 0
    assert owned(world, pair, escrow_rare.lower(pair.node, TON, signature)) == ContractError.BAD_SIGNATURE


def test_g3_finish_drops_no_row_whose_timer_was_not_started(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow.allot(OTHER, TON // 4, world.row_terms())) == 0
    assert owned(world, pair, escrow_rare.reclaim(OTHER)) == 0
    world.ledger.now += 2 * HOUR
    assert not world.send(world.stranger, pair.escrow, TON, escrow.finish()).failed
    state = world.escrow(pair.escrow)
    assert set(state.rows) == {pair.node} and state.rows[pair.node].closing_at == 0


def test_g3_closing_does_not_start_again_the_timer_of_a_row_that_is_closing(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow_rare.reclaim(pair.node)) == 0
    end = world.escrow(pair.escrow).rows[pair.node].closing_at
    assert end == world.ledger.now + HOUR
    world.ledger.now += HOUR // 2
    assert owned(world, pair, escrow.close()) == 0
    assert world.escrow(pair.escrow).rows[pair.node].closing_at == end


# ------------------------------------------------------------------------------------------------ money


def test_g9_the_rent_reserve_of_a_birth_is_there_beside_the_deposit(world: World) -> None:
    fees = world.fees
    for index, amount in enumerate((None, TON)):
        first = None if amount is None else escrow.FirstAllotment(OTHER, amount, world.row_terms())
        account, trace = world.open_escrow(index=index, first=first)
        assert not trace.failed
        state = world.escrow(account)
        reserve = fees.escrow_rent() + (0 if amount is None else fees.row_rent())
        kept = world.ledger.balance(account) - state.deposit_nano
        assert reserve <= kept <= reserve + fees.prices.gas(7_500)
        wanted = world.parameters.min_deposit_nano if amount is None else amount
        assert wanted <= state.deposit_nano <= wanted + TON // 100


def test_the_configuration_of_a_birth_may_not_be_exotic(world: World) -> None:
    from wrappers.code import Contract, code_hash

    for op, contract in ((Op.OPEN_ESCROW, Contract.ESCROW), (Op.OPEN_NODE, Contract.NODE)):
        body = begin_cell().store_uint(op, 32).store_bytes(code_hash(contract)).store_uint(9, 32)
        trace = world.send(world.client, world.registry, 9 * TON, body.store_ref(merkle_proof()).end_cell())
        assert trace.failed[0].exit_code == ContractError.EXOTIC_CELL


# ------------------------------------------------------------------------------------------------ messages to their end


def test_every_message_to_an_escrow_is_read_to_its_end(world: World, pair: Pair) -> None:
    release = escrow.CloseRelease(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    bodies = [
        escrow.top_up(),
        escrow.allot(OTHER, 1, world.row_terms()),
        escrow.raise_allotment(pair.node, 1),
        escrow_rare.lower(pair.node, TON, release.signature),
        escrow.withdraw(TON // 2),
        escrow_rare.reclaim(pair.node),
        escrow.close(),
        escrow.close([release]),
    ]
    snapshot = world.ledger.snapshot()
    for body in bodies:
        assert owned(world, pair, begin_cell().store_cell(body).store_bit(0).end_cell()) == CELL_UNDERFLOW
        world.ledger.revert(snapshot)
        assert owned(world, pair, body) == 0
        world.ledger.revert(snapshot)
    listed = escrow.close([release])
    inner = begin_cell().store_cell(listed.refs[0]).store_bit(0).end_cell()
    longer = begin_cell().store_bits(listed.bits).store_ref(inner).end_cell()
    assert owned(world, pair, longer) == CELL_UNDERFLOW
    assert owned(world, pair, escrow.close()) == 0
    world.ledger.now += 2 * HOUR
    finish = begin_cell().store_cell(escrow.finish()).store_bit(0).end_cell()
    assert owned(world, pair, finish) == CELL_UNDERFLOW


def test_all_that_is_free_can_be_allotted_and_not_a_nano_more(world: World, pair: Pair) -> None:
    free = world.escrow(pair.escrow).free_nano + TON - world.fees.allot()
    assert owned(world, pair, escrow.allot(OTHER, free + 1, world.row_terms())) == ContractError.NOT_FREE
    assert owned(world, pair, escrow.allot(OTHER, free, world.row_terms())) == 0
    assert world.escrow(pair.escrow).free_nano == 0


@pytest.mark.parametrize("above", [0, 1])
def test_what_a_stranger_frees_leaves_when_it_is_worth_a_message(world: World, pair: Pair, above: int) -> None:
    freed = world.fees.prices.forward(0, 0) + above
    assert owned(world, pair, escrow.allot(OTHER, freed, world.row_terms())) == 0
    signature = world.release(pair.escrow, pair.node, 2 * TON)
    assert owned(world, pair, escrow_rare.lower(pair.node, 2 * TON, signature)) == 0
    assert owned(world, pair, escrow_rare.reclaim(OTHER)) == 0
    world.ledger.now += HOUR // 2
    assert owned(world, pair, escrow.close()) == 0
    world.ledger.now += HOUR // 2
    trace = world.send(world.stranger, pair.escrow, TON, escrow.finish())
    # One nano more than the fee is too little for the owner's wallet to run on; it is credited all the same.
    assert not [tx for tx in trace.failed if tx.account == pair.escrow]
    state = world.escrow(pair.escrow)
    assert set(state.rows) == {pair.node}
    assert state.free_nano == (0 if above else freed)
    assert len(trace.of(pair.escrow)[0].out_msgs) == 1 + above
