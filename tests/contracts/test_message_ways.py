"""G8: what a message brings pays its way: a body without room beside the addresses travels as a cell of its own."""

from __future__ import annotations

from dataclasses import replace

from pytoniq_core import Cell
from test_fees import claim_receipt_body, settle_body

from scripts.stage import DAY, NO_HASH, TON, Pair, World, public
from wrappers import escrow_rare, verdicts
from wrappers.code import Contract, rare_program, size_of
from wrappers.gas import Gas, Size
from wrappers.job import JobConfig


def arrived(world: World, source: bytes, destination: bytes, value: int, body: Cell, gas: int, onward: bytes) -> int:
    """Value that a message's one message onward brings, had the first used all of its `gas`."""
    trace = world.tell(source, destination, value, body)
    first = trace.of(destination)[0]
    assert (first.exit_code, first.action_code) == (0, 0)
    used = int(first.gas_used)
    assert used <= gas
    (value_on,) = (out.value_nano for out in first.out_msgs if out.destination == onward)
    return int(value_on) - world.fees.prices.gas(gas) + world.fees.prices.gas(used)


def test_g8_a_settlement_leaves_the_node_the_gas_for_its_payment(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, 1)
    body = settle_body(entry, public(world.enclave_key))
    brought = arrived(world, pair.node, pair.escrow, world.fees.settle_need(), body, Gas.SETTLE, pair.node)
    assert brought - 1 >= world.fees.prices.gas(Gas.PAID)


def test_g8_a_single_claim_brings_the_escrow_what_settle_needs(world: World, pair: Pair) -> None:
    body = claim_receipt_body(world, pair)
    brought = arrived(
        world, world.client.account, pair.node, world.fees.claim_receipt(), body, Gas.CLAIM_RECEIPT, pair.escrow
    )
    assert brought >= world.fees.settle_need()


def test_g8_a_refused_order_comes_back_with_what_crediting_it_takes(world: World, pair: Pair) -> None:
    nodes = frozenset((pair.node,))
    config = JobConfig(NO_HASH, NO_HASH, TON // 4, world.ledger.now + DAY, 3600, 3600, nodes).to_cell()
    body = escrow_rare.order_job(TON // 4, NO_HASH, 0, config)
    value = world.fees.order_job(config)
    brought = arrived(world, world.client.account, pair.escrow, value, body, Gas.ORDER_JOB, world.registry)
    prices = world.fees.prices
    assert brought - TON // 4 >= prices.gas(Gas.OPEN) + prices.forward(0, 0) + prices.gas(Gas.TOP_UP)


def test_g8_a_verdict_is_as_large_as_its_need_says(world: World, pair: Pair) -> None:
    body = verdicts.verdict(replace(world.verdict(pair.node)), world.consent(pair.node))
    cells, bits = size_of(body)
    assert (cells - 1, bits - len(body.bits)) == (Size.VERDICT_CELLS, Size.VERDICT_BITS)


def test_programs_are_within_what_their_messages_are_measured_for() -> None:
    assert size_of(rare_program(Contract.NODE))[0] <= Size.PROGRAM_CELLS
