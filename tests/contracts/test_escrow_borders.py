"""Escrow, where a rare configuration or the last nanoTON decides: no fee, small shares, what rent ate, whole orders."""

from __future__ import annotations

import pytest
from pytoniq_core import Cell, begin_cell
from shares_stage import RELAYER, ROYALTY, Shared
from test_escrow import code_of
from test_governance_actions import job_config

from scripts.stage import DAY, TON, Pair, World, account_of_name
from wrappers import escrow, escrow_rare
from wrappers.code import Contract, code_hash, size_of
from wrappers.errors import ContractError

CELL_OVERFLOW = 8
MAX_CONFIG_CELLS = 64
OTHER = account_of_name("x")
SHARED_OF = 10_000
"""A relayer's share is a tenth of what a row paid, a royalty a twentieth: scripts.stage.World.shares."""


# ------------------------------------------------------------------------------------------------ without a fee


def test_g3_where_the_network_takes_nothing_relayer_and_royalty_have_their_shares_all_the_same(world: World) -> None:
    assert world.shares.fee is None
    node, _ = world.open_node()
    first = escrow.FirstAllotment(node, TON, world.row_terms(shares=world.shares))
    account, trace = world.open_escrow(first=first)
    assert not trace.failed
    without_fee = Shared(world, account, node)
    row = without_fee.state().rows[node]
    assert row.terms.share == 1500 and row.allotted_nano == TON
    assert not without_fee.settle(TON // 2).failed
    assert without_fee.state().accrued_nano == TON // 2 * 1500 // SHARED_OF
    trace = without_fee.stranger(escrow_rare.pay_shares(node))
    assert not trace.failed and without_fee.received(trace) == {"relayer": TON // 20, "royalty": TON // 40}
    assert without_fee.state().accrued_nano == 0


def test_g9_a_row_without_shares_needs_no_rent_for_them(world: World, pair: Pair) -> None:
    """Whoever allots by the program means shares: plain terms are refused, not kept as a dearer plain row."""
    body = escrow_rare.allot_shared(OTHER, 1, world.row_terms())
    assert code_of(world.send(world.client, pair.escrow, TON, body)) == ContractError.BAD_TERMS
    body = escrow_rare.allot_shared(OTHER, 1, world.row_terms(shares=world.shares))
    assert not world.send(world.client, pair.escrow, TON, body).failed


# ------------------------------------------------------------------------------------------------ small amounts


@pytest.mark.parametrize("of_fee", [0, 1])
def test_the_owner_has_what_he_withdraws_whatever_it_is_worth_and_in_one_message(
    world: World, pair: Pair, of_fee: int
) -> None:
    amount = of_fee * world.fees.prices.forward(0, 0) or 1
    before, held = world.escrow(pair.escrow).deposit_nano, world.ledger.balance(pair.escrow)
    trace = world.send(world.client, pair.escrow, TON, escrow.withdraw(amount))
    assert not trace.failed and len(trace.of(pair.escrow)[0].out_msgs) == 1
    assert world.escrow(pair.escrow).deposit_nano == before - amount
    assert world.ledger.balance(pair.escrow) == held - amount


def ended(shared: Shared, paid: int) -> None:
    """The row has paid so much and ends by its node's consent."""
    assert not shared.settle(paid).failed
    assert not shared.client(escrow_rare.lower(shared.node, paid, shared.release(paid))).failed


def test_g2_a_row_that_ended_pays_each_share_that_is_worth_its_message(shared: Shared) -> None:
    """Less than what shares of a living row wait for; what is worth less than its own way is the owner's."""
    message = shared.world.fees.prices.forward(0, 0)
    paid = 20 * message
    ended(shared, paid)
    before = shared.state()
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed
    assert shared.received(trace) == {"relayer": 2 * message, "royalty": message}
    treasury = before.accrued_nano - 3 * message
    assert 0 < treasury < message
    assert shared.state().deposit_nano - before.deposit_nano == treasury


def test_g2_a_nanoton_below_its_message_a_share_of_an_ended_row_is_the_owners(shared: Shared) -> None:
    message = shared.world.fees.prices.forward(0, 0)
    ended(shared, 20 * message - 1)
    before = shared.state()
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert shared.received(trace) == {"relayer": 2 * message - 1}
    assert shared.state().deposit_nano - before.deposit_nano == before.accrued_nano - 2 * message + 1


def test_g1_shares_that_rent_ate_are_not_paid_out_of_the_senders_value(shared: Shared) -> None:
    world, account = shared.world, shared.account
    assert not shared.settle(2 * TON).failed
    assert not shared.client(escrow.withdraw()).failed
    while world.ledger.balance(account) > shared.state().accrued_nano // 2:
        world.ledger.now += 5 * 365 * DAY
        shared.stranger(escrow.finish(), TON // 1000)
    assert not shared.client(escrow_rare.reclaim(shared.node)).failed
    left = world.ledger.balance(account)
    assert 0 < left < 2 * TON // 10, "less than the first share alone"
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed and shared.received(trace) == {"relayer": left}
    state = shared.state()
    assert (state.rows, state.accrued_nano, state.deposit_nano) == ({}, 0, 0)
    assert world.ledger.balance(account) == 0 and world.ledger.balance(RELAYER) == left
    assert world.ledger.balance(ROYALTY) == 0


# ------------------------------------------------------------------------------------------------ orders


def test_g2_an_order_takes_its_amount_out_of_the_deposit_and_nothing_else(world: World, pair: Pair) -> None:
    config = job_config(world, maximum_nano=TON // 4).to_cell()
    before, held = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    body = escrow_rare.order_job(TON // 2, code_hash(Contract.JOB), 0, config)
    trace = world.send(world.client, pair.escrow, TON, body)
    assert not trace.failed
    after = world.escrow(pair.escrow)
    assert before.deposit_nano - after.deposit_nano == held - world.ledger.balance(pair.escrow) == TON // 2
    assert (after.reserved_nano, after.rows) == (before.reserved_nano, before.rows)


def test_g8_a_configuration_is_weighed_up_to_its_bound(world: World, pair: Pair) -> None:
    """No job has as many cells; the registry says so, and what was sent is credited again."""

    def config(cells: int) -> Cell:
        cell = begin_cell().end_cell()
        for number in range(cells - 1):
            cell = begin_cell().store_uint(number, 16).store_ref(cell).end_cell()
        assert size_of(cell)[0] == cells
        return cell

    for cells, error in ((MAX_CONFIG_CELLS, 0), (MAX_CONFIG_CELLS + 1, CELL_OVERFLOW)):
        body = escrow_rare.order_job(1, bytes(32), 0, config(cells))
        trace = world.send(world.client, pair.escrow, TON, body)
        assert trace.of(pair.escrow)[0].exit_code == error
        assert trace.of(world.registry) if error == 0 else not trace.of(world.registry)
