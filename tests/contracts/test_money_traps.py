"""Where other payment contracts lost money: credits after a refusal, deposits while closing, the order of exits."""

from __future__ import annotations

from itertools import permutations

import pytest
from pytoniq_core import Cell
from test_fees import settle_body

from scripts.stage import DAY, HOUR, TON, Pair, World, public
from wrappers import escrow, escrow_rare, node_rare
from wrappers.addresses import Kind, child_address


def refused_deposits(world: World, pair: Pair) -> list[tuple[int, Cell]]:
    """Messages that would credit the deposit, and that an escrow refuses: (value, body)."""
    terms = world.row_terms()
    return [
        (world.fees.top_up(), escrow.top_up()),
        (world.fees.allot() - 1, escrow.allot(b"\x07" * 32, 1, terms)),
        (TON, escrow.allot(b"\x07" * 32, 100 * TON, terms)),
        (TON, escrow.allot(pair.node, 1, terms)),
        (TON, escrow.raise_allotment(pair.node, 100 * TON)),
        (TON, escrow.raise_allotment(b"\x07" * 32, 1)),
        (TON, escrow_rare.allot_shared(b"\x07" * 32, 1, terms)),
    ]


@pytest.mark.parametrize("which", range(7))
def test_g7_a_refused_deposit_leaves_no_credit(world: World, pair: Pair, which: int) -> None:
    before, held = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    value, body = refused_deposits(world, pair)[which]
    trace = world.send(world.client, pair.escrow, value, body)
    assert trace.failed
    assert world.escrow(pair.escrow) == before
    assert world.ledger.balance(pair.escrow) == held, "the money went back, all of it"


def test_g7_a_refused_opening_leaves_no_credit_anywhere(world: World) -> None:
    account = child_address(world.registry, Kind.ESCROW, world.client.account, 0)
    held = world.ledger.balance(world.registry)
    _, trace = world.open_escrow(value_nano=world.fees.open_escrow() - 1)
    assert trace.failed and not world.alive(account) and world.ledger.balance(account) == 0
    assert world.ledger.balance(world.registry) == held


def test_g7_a_credit_of_a_payment_that_came_back_is_made_once(world: World, pair: Pair) -> None:
    """The node is gone: what its row paid is deposit again, once, and nothing of it is still owed."""
    entry = world.entry(pair.escrow, pair.node, TON)
    world.ledger.restore(
        {name: stored for name, stored in world.ledger.accounts.items() if name != pair.node},
        [],
        now=world.ledger.now,
        lt=world.ledger.lt,
    )
    before = world.escrow(pair.escrow)
    body = settle_body(entry, public(world.enclave_key))
    world.tell(pair.node, pair.escrow, TON // 10, body)
    after, row = world.escrow(pair.escrow), world.escrow(pair.escrow).rows[pair.node]
    assert row.paid_nano == TON and after.reserved_nano == before.reserved_nano - TON
    assert before.deposit_nano < after.deposit_nano < before.deposit_nano + TON // 10, "back, with what the gas left"
    assert world.ledger.balance(pair.escrow) >= after.deposit_nano
    assert world.tell(pair.node, pair.escrow, TON // 10, body).failed, "and not a second time"


@pytest.mark.parametrize("body", [None, escrow.top_up()], ids=["plain", "top_up"])
def test_g4_a_deposit_into_a_closing_account_is_credited_once_and_leaves_with_it(
    world: World, pair: Pair, body: Cell | None
) -> None:
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    before = world.escrow(pair.escrow)
    assert before.closing
    assert not world.send(world.stranger, pair.escrow, TON, body).failed
    assert world.escrow(pair.escrow).deposit_nano == before.deposit_nano + TON - world.fees.top_up()
    held = world.ledger.balance(world.client.account)
    world.ledger.now += HOUR
    assert not world.send(world.client, pair.escrow, TON, escrow.finish()).failed
    assert not world.alive(pair.escrow) and world.ledger.balance(pair.escrow) == 0
    assert world.ledger.balance(world.client.account) > held + before.deposit_nano + TON - TON // 10


def test_g4_a_deposit_by_opening_a_closing_account_again_is_returned_once(world: World, pair: Pair) -> None:
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    before, held = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    wallet = world.ledger.balance(world.client.account)
    _, trace = world.open_escrow(value_nano=world.fees.open_escrow(3 * TON))
    assert not trace.failed
    assert (world.escrow(pair.escrow), world.ledger.balance(pair.escrow)) == (before, held)
    assert wallet - TON // 10 < world.ledger.balance(world.client.account) < wallet


def test_g4_what_the_owner_adds_to_rows_of_a_closing_account_is_refused_and_returned(world: World, pair: Pair) -> None:
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    before, held = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    for body in (escrow.allot(b"\x07" * 32, 1, world.row_terms()), escrow.raise_allotment(pair.node, 1)):
        assert world.send(world.client, pair.escrow, TON, body).failed
    assert (world.escrow(pair.escrow), world.ledger.balance(pair.escrow)) == (before, held)


def test_g6_whatever_the_order_of_exits_each_gets_the_same(world: World, pair: Pair) -> None:
    """Two clients and an operator, each of whom is done when it suits him: nobody's share depends on who went first."""
    first = escrow.FirstAllotment(pair.node, TON, world.row_terms())
    other, _ = world.open_escrow(wallet=world.stranger, first=first)
    assert not world.settle_one(pair.escrow, pair.node, TON).failed
    for wallet, account in ((world.client, pair.escrow), (world.stranger, other)):
        assert not world.send(wallet, account, TON, escrow_rare.reclaim(pair.node)).failed
    assert not world.send(world.operator, pair.node, TON, node_rare.unbond()).failed
    world.ledger.now += 60 * DAY
    ready = world.ledger.snapshot()

    def client() -> None:
        assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
        assert not world.alive(pair.escrow) or not world.send(world.client, pair.escrow, TON, escrow.finish()).failed

    def stranger() -> None:
        assert not world.send(world.stranger, other, TON, escrow.close()).failed
        assert not world.alive(other) or not world.send(world.stranger, other, TON, escrow.finish()).failed

    def operator() -> None:
        assert not world.send(world.operator, pair.node, TON, node_rare.withdraw_stake()).failed

    outcomes = set()
    for order in permutations((client, stranger, operator)):
        world.ledger.revert(ready)
        for leave in order:
            leave()
        accounts = (world.client.account, world.stranger.account, world.payout, pair.escrow, other, pair.node)
        outcomes.add(tuple(world.ledger.balance(account) for account in accounts))
    assert len(outcomes) == 1, outcomes
    assert next(iter(outcomes))[3:] == (0, 0, 0)
