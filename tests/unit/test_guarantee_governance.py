"""G20 as far as there is governance: after genesis nobody changes anything, and nobody's money is the governor's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytoniq_core import Cell, begin_cell

from scripts.stage import TON, Pair, World, account_of_name, built_world, key_of, make_pair
from wrappers import escrow, escrow_rare, node_rare, verdicts
from wrappers.ops import Op


@pytest.fixture(scope="module")
def world() -> World:
    return built_world(verifier=True)


@pytest.fixture(scope="module")
def pair(world: World) -> Pair:
    return make_pair(world)


def bodies(world: World, op: Op) -> Iterator[Cell]:
    """The op alone, with plausible fields, and with every cell that a governor might try to slip in."""
    state = world.registry_state.to_cell()
    plain = begin_cell().store_uint(op, 32)
    yield plain.end_cell()
    for cell in (state, state.refs[1], begin_cell().end_cell()):
        yield begin_cell().store_uint(op, 32).store_ref(cell).end_cell()
        yield begin_cell().store_uint(op, 32).store_bytes(account_of_name("x")).store_ref(cell).end_cell()
        yield begin_cell().store_uint(op, 32).store_ref(cell).store_ref(cell).end_cell()
    yield world.genesis_body(world.registry, state)


@pytest.mark.parametrize("op", list(Op), ids=lambda op: op.name.lower())
def test_g20_no_message_of_the_governor_changes_the_registry_or_attestation(world: World, pair: Pair, op: Op) -> None:
    snapshot = world.ledger.snapshot()
    for account in (world.registry, world.attestation):
        before = world.ledger.account(account)
        for body in bodies(world, op):
            world.tell(world.governor.account, account, TON, body)
            after = world.ledger.account(account)
            assert before.data is not None and after.data is not None and after.data.hash == before.data.hash
            assert before.code is not None and after.code is not None and after.code.hash == before.code.hash
    world.ledger.revert(snapshot)


def test_g20_the_governor_moves_no_deposit_and_no_stake(world: World, pair: Pair) -> None:
    snapshot = world.ledger.snapshot()
    tries = [
        (pair.escrow, escrow.withdraw()),
        (pair.escrow, escrow.close()),
        (pair.escrow, escrow_rare.reclaim(pair.node)),
        (pair.escrow, escrow.raise_allotment(pair.node, 1)),
        (pair.escrow, escrow.allot(account_of_name("his node"), 1, world.row_terms())),
        (pair.node, node_rare.unbond()),
        (pair.node, node_rare.withdraw_stake()),
    ]
    deposit, stake = world.escrow(pair.escrow), world.node(pair.node)
    for target, body in tries:
        for source in (world.governor.account, world.registry, world.attestation):
            trace = world.tell(source, target, TON, body)
            assert trace.failed, (target.hex(), body)
    assert (world.escrow(pair.escrow), world.node(pair.node)) == (deposit, stake)
    world.ledger.revert(snapshot)


def test_g20_the_governor_names_no_key(world: World, pair: Pair) -> None:
    snapshot = world.ledger.snapshot()
    before = world.node(pair.node)
    verdict = verdicts.verdict(world.verdict(pair.node, key_of("the governor's")))
    for source in (world.governor.account, world.registry):
        for target in (world.registry, world.attestation, pair.node):
            assert world.tell(source, target, TON, verdict).failed
    assert world.node(pair.node) == before
    world.ledger.revert(snapshot)
