"""The court's sum against the protocol's: a difference would slash an honest node, or let a false amount pass."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import harness
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from protocol.errors import OurFault
from protocol.pricing import MAX_TOKENS, Stop, Usage, charge
from scripts.compile import CONTRACTS
from wrappers.errors import ContractError
from wrappers.receipts import InnerReceipt, Terms
from wrappers.signed import MAX_AMOUNT_NANO

NO_PRICE = -1
PRICES = st.integers(0, MAX_AMOUNT_NANO) | st.sampled_from(
    [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, MAX_AMOUNT_NANO]
)
COUNTS = st.integers(0, MAX_TOKENS) | st.integers(0, 3) | st.just(MAX_TOKENS)
terms_ = st.builds(Terms, st.just(b"\x01" * 32), PRICES, PRICES, PRICES, PRICES, PRICES)
CodeOf = Callable[[Cell, Cell], tuple[int, int | None]]


@pytest.fixture(scope="module")
def court_price() -> CodeOf:
    method = harness("price_harness.fc", CONTRACTS)

    def run(inner: Cell, terms: Cell) -> tuple[int, int | None]:
        """(exit code, price)"""
        result = method("price_of", inner, terms)
        value = result.stack[0] if result.exit_code == 0 else None
        assert value is None or isinstance(value, int)
        return result.exit_code, value

    return run


def inner_of(prompt: int, cached: int, completion: int, reasoning: int, stop: int) -> InnerReceipt:
    ids = (bytes([i]) * 32 for i in range(2, 7))
    return InnerReceipt(next(ids), next(ids), prompt, cached, completion, reasoning, stop, *ids)


def protocol_price(terms: Terms, inner: InnerReceipt) -> int | None:
    """None where the protocol has no amount that fits a receipt."""
    stop = Stop(inner.stop) if inner.stop in set(Stop) else Stop.END
    counts = inner.prompt_tokens, inner.cached_tokens, inner.completion_tokens, inner.reasoning_tokens
    try:
        return charge(terms, Usage(*counts), stop)
    except OurFault:
        return None


@settings(max_examples=300, deadline=None)
@given(terms_, COUNTS, COUNTS, COUNTS, COUNTS, st.integers(0, 4) | st.integers(0, 255))
@example(Terms(bytes(32), *[MAX_AMOUNT_NANO] * 5), MAX_TOKENS, 0, MAX_TOKENS, 0, 0)
@example(Terms(bytes(32), 1, 1, 1, 1, 0), 0, 0, 0, 0, 0)
@example(Terms(bytes(32), 1, 1, 1, 1, 0), 1, 0, 0, 0, 0)
@example(Terms(bytes(32), 1, 1, 1, 1, 0), 1 << 20, 0, 0, 0, 0)
@example(Terms(bytes(32), 1, 1, 1, 1, 0), (1 << 20) + 1, 0, 0, 0, 0)
@example(Terms(bytes(32), 1, 1, 1, 1, 9), 5, 2, 0, 0, 3)
@example(Terms(bytes(32), 1, 1, 1, 1, 9), 5, 2, 1, 0, 3)
@example(Terms(bytes(32), 0, 1, 0, 1 << 20, 9), 5, 5, 100, 100, 1)
def test_the_court_and_the_protocol_agree_on_every_price(
    court_price: CodeOf, terms: Terms, prompt: int, cached: int, completion: int, reasoning: int, stop: int
) -> None:
    inner = inner_of(prompt, cached, completion, reasoning, stop)
    exit_code, price = court_price(inner.to_cell(), terms.to_cell())
    expected = protocol_price(terms, inner)
    assert exit_code == 0 and price is not None
    if cached > prompt or reasoning > completion:
        assert price == NO_PRICE and expected is None
    elif expected is None:
        assert price > MAX_AMOUNT_NANO, "no amount that a receipt can hold"
    else:
        assert price == expected


@pytest.mark.parametrize("over", [0, 1])
def test_prices_at_the_border_of_64_bits(court_price: CodeOf, over: int) -> None:
    """2^64 - 1 is the last amount; one token more and no receipt can bill it."""
    terms = Terms(bytes(32), MAX_AMOUNT_NANO, 0, 1 << 20, 0, 0)
    inner = inner_of(1 << 20, 0, over, 0, 0)
    assert court_price(inner.to_cell(), terms.to_cell()) == (0, MAX_AMOUNT_NANO + over)
    assert protocol_price(terms, inner) == (None if over else MAX_AMOUNT_NANO)


def test_g10_cells_that_are_not_what_they_stand_for_are_refused(court_price: CodeOf) -> None:
    terms, inner = Terms(b"\x01" * 32, 1, 1, 1, 1, 1).to_cell(), inner_of(1, 0, 1, 0, 0).to_cell()
    longer = begin_cell().store_cell(inner).store_bit(1).end_cell()
    without = begin_cell().store_bits(inner.bits).end_cell()
    odd = begin_cell().store_bits(inner.bits).store_ref(begin_cell().store_uint(0, 511).end_cell()).end_cell()
    for wrong in (longer, without, odd):
        assert court_price(wrong, terms)[0] == 9
    tag = begin_cell().store_uint(1, 32).store_bits(terms.bits[32:]).end_cell()
    assert court_price(inner, tag)[0] == ContractError.WRONG_OPENING
    assert court_price(inner, begin_cell().store_cell(terms).store_bit(0).end_cell())[0] == 9
