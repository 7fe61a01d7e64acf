"""G9: ten years of idleness, and what happens beyond."""

from __future__ import annotations

from dataclasses import replace

from test_escrow import code_of
from test_fees import crowd, settle_body

from devnet.ledger import Ledger
from scripts.stage import PARAMETERS, TON, Pair, World, make_pair, public
from wrappers import escrow, node_rare

YEAR = 31_536_000


def test_g9_ten_idle_years_cost_the_reserve_and_nothing_else(world: World, pair: Pair) -> None:
    before, node_before = world.escrow(pair.escrow), world.node(pair.node)
    world.ledger.now += 10 * YEAR
    assert not world.send(world.stranger, pair.escrow, TON, None).failed
    after = world.escrow(pair.escrow)
    assert after.deposit_nano == before.deposit_nano + TON - world.fees.top_up()
    assert world.ledger.balance(pair.escrow) >= after.deposit_nano + after.accrued_nano
    assert not world.send(world.stranger, pair.node, TON // 10, None).failed
    locked = node_before.stake_nano + node_before.gas_level_nano
    assert world.ledger.balance(pair.node) >= locked
    assert world.node(pair.node).stake_nano == node_before.stake_nano


def test_g9_beyond_the_reserve_the_owners_free_part_pays_first(world: World, pair: Pair) -> None:
    before = world.escrow(pair.escrow)
    world.ledger.now += 60 * YEAR
    world.send(world.stranger, pair.escrow, TON // 10, None)
    after = world.escrow(pair.escrow)
    assert after.reserved_nano == before.reserved_nano == 2 * TON
    assert after.free_nano < before.free_nano + TON // 10 - TON // 100
    assert world.ledger.balance(pair.escrow) == after.deposit_nano + world.fees.top_up() - gas_paid(world, pair)
    assert not world.send(world.client, pair.escrow, TON, escrow.withdraw()).failed
    assert world.escrow(pair.escrow).free_nano == 0


def gas_paid(world: World, pair: Pair) -> int:
    """Gas of the escrow's last transaction; its rent is in the fees too, so it is computed from the gas itself."""
    return world.fees.prices.gas(world.ledger.transactions[pair.escrow][-1].gas_used)


def test_g9_g5_when_rent_ate_into_the_rows_they_pay_what_is_there(world: World, pair: Pair) -> None:
    trace = world.send(world.client, pair.escrow, TON, escrow.withdraw())
    assert not trace.failed
    state = world.escrow(pair.escrow)
    assert state.deposit_nano == 2 * TON
    # Until rent has taken the reserve and a quarter of what is allotted.
    while world.ledger.balance(pair.escrow) > 3 * TON // 2:
        world.ledger.now += 5 * YEAR
        assert code_of(world.tell(world.stranger.account, pair.escrow, TON // 1000, escrow.finish())) is not None
    backed = world.ledger.balance(pair.escrow)
    # The node's verdict is long over; the row's node is what counts here, so the settlement is sent from its address.

    entry = world.entry(pair.escrow, pair.node, 2 * TON)
    assert not world.tell(pair.node, pair.escrow, TON // 10, settle_body(entry, public(world.enclave_key))).failed
    row = world.escrow(pair.escrow).rows[pair.node]
    assert backed - TON // 1000 <= row.paid_nano <= backed
    assert world.escrow(pair.escrow).deposit_nano == 0


def test_g3_an_account_whose_rent_ate_into_its_rows_closes_all_the_same(world: World, pair: Pair) -> None:
    """What is reserved is more than what is there: less than nothing is free, and nothing leaves for it."""
    assert not world.send(world.client, pair.escrow, TON, escrow.withdraw()).failed
    while world.ledger.balance(pair.escrow) > 3 * TON // 2:
        world.ledger.now += 5 * YEAR
        assert code_of(world.tell(world.stranger.account, pair.escrow, TON // 1000, escrow.finish())) is not None
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    state = world.escrow(pair.escrow)
    assert state.deposit_nano < state.reserved_nano == 2 * TON
    world.ledger.now += 8 * 86_400
    assert not world.send(world.client, pair.escrow, TON, escrow.finish()).failed
    assert world.ledger.balance(pair.escrow) == 0


def test_g9_the_node_pays_its_own_rent_and_its_stake_stands(world: World, pair: Pair) -> None:
    assert not world.send(world.operator, pair.node, TON, node_rare.unbond()).failed
    stake = world.node(pair.node).stake_nano
    world.ledger.now += 10 * YEAR
    before = world.ledger.balance(world.payout)
    assert not world.send(world.operator, pair.node, TON // 10, node_rare.withdraw_stake()).failed
    assert world.ledger.balance(world.payout) - before > stake


def test_g9_rent_beyond_the_reserve_leaves_the_stake_whole_while_gas_is_there(world: World, pair: Pair) -> None:
    """Thirty-two retired keys are not in the reserve: ten years of them come out of the gas reserve."""
    crowd(world, pair.node)
    before = world.node(pair.node)
    held = world.ledger.balance(pair.node)
    world.ledger.now += 10 * YEAR
    world.send(world.stranger, pair.node, 1, None)
    assert held - world.ledger.balance(pair.node) < before.rent_reserve_nano + 3 * TON // 10
    assert world.ledger.balance(pair.node) > before.stake_nano


def test_g1_a_slash_takes_no_more_than_rent_has_left() -> None:
    world = World(Ledger(), parameters=replace(PARAMETERS, min_stake_nano=TON // 5, gas_level_nano=TON // 10))
    world.deploy()
    world.fund_wallets(world.governor, world.operator, world.client, world.stranger)
    pair = make_pair(world)
    state = world.node(pair.node)
    while world.ledger.balance(pair.node) > state.rent_reserve_nano + state.stake_nano // 2:
        world.ledger.now += YEAR
        world.send(world.stranger, pair.node, 1, None)
    left = world.ledger.balance(pair.node)
    key = public(world.enclave_key)
    body = node_rare.slash(state.epoch, key, 0, TON, world.client.account, world.stranger.account, world.payout)
    assert not world.tell(world.court, pair.node, world.fees.slash_need(), body).failed
    assert state.rent_reserve_nano <= world.ledger.balance(pair.node) <= left
    assert not world.tell(world.court, pair.node, world.fees.slash_need(), body).failed
