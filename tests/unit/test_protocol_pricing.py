"""Pricing: one rounding up, a minimum, zero only for what the node broke before the first token."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import OurFault
from protocol.pricing import MAX_TOKENS, Stop, Usage, charge, completion_budget, maximum
from wrappers.receipts import Terms

PRICES = st.integers(0, 1 << 40)
TERMS = st.builds(Terms, st.just(bytes(32)), PRICES, PRICES, PRICES, PRICES, st.integers(0, 1 << 40))
STOPS = st.sampled_from(list(Stop))


@st.composite
def usages(draw: st.DrawFn, limit: int = 1 << 20) -> Usage:
    prompt, completion = draw(st.integers(0, limit)), draw(st.integers(0, limit))
    return Usage(prompt, draw(st.integers(0, prompt)), completion, draw(st.integers(0, completion)))


def exact(terms: Terms, usage: Usage) -> Fraction:
    return Fraction(
        terms.prompt_price * (usage.prompt_tokens - usage.cached_tokens)
        + terms.cached_price * usage.cached_tokens
        + terms.completion_price * (usage.completion_tokens - usage.reasoning_tokens)
        + terms.reasoning_price * usage.reasoning_tokens,
        1 << 20,
    )


@given(TERMS, usages(), STOPS)
def test_charge_rounds_up_once_and_never_below_the_minimum(terms: Terms, usage: Usage, stop: Stop) -> None:
    due = charge(terms, usage, stop)
    if stop is Stop.FAILED and usage.completion_tokens == 0:
        assert due == 0
    else:
        assert due == max(terms.minimum_nano, math.ceil(exact(terms, usage)))


@given(TERMS, usages(), STOPS, usages())
def test_more_tokens_never_cost_less(terms: Terms, usage: Usage, stop: Stop, more: Usage) -> None:
    both = Usage(
        usage.prompt_tokens + more.prompt_tokens,
        usage.cached_tokens + more.cached_tokens,
        usage.completion_tokens + more.completion_tokens,
        usage.reasoning_tokens + more.reasoning_tokens,
    )
    assert charge(terms, both, stop) >= charge(terms, usage, stop)


@given(TERMS, usages(), STOPS)
def test_no_charge_is_above_the_maximum_for_its_bounds(terms: Terms, usage: Usage, stop: Stop) -> None:
    assert charge(terms, usage, stop) <= maximum(terms, usage.prompt_tokens, usage.completion_tokens)


@given(TERMS, usages(), st.integers(0, 1 << 50))
def test_completion_budget_is_the_border_of_the_maximum(terms: Terms, usage: Usage, maximum_nano: int) -> None:
    budget = completion_budget(terms, maximum_nano, usage.prompt_tokens)
    if budget < 0:
        assert maximum(terms, usage.prompt_tokens, 0) > maximum_nano
        return
    assert maximum(terms, usage.prompt_tokens, budget) <= maximum_nano
    if budget < MAX_TOKENS:
        assert maximum(terms, usage.prompt_tokens, budget + 1) > maximum_nano


def test_charge_known_values() -> None:
    terms = Terms(bytes(32), 1 << 20, 1 << 18, 1 << 21, 1 << 22, 7)
    assert charge(terms, Usage(100, 40, 10, 4), Stop.END) == 60 + 10 + 12 + 16
    assert charge(terms, Usage(1, 1, 0, 0), Stop.CANCELLED) == 7, "below the minimum"
    assert charge(terms, Usage(), Stop.INVALID) == 7, "opening garbage was work"
    assert charge(terms, Usage(100, 0, 0, 0), Stop.FAILED) == 0
    assert charge(terms, Usage(100, 0, 1, 0), Stop.FAILED) == 102
    one_token_each = Terms(bytes(32), 1, 1, 1, 1, 0)
    assert charge(one_token_each, Usage(2, 1, 2, 1), Stop.END) == 1, "four parts, one rounding"


@pytest.mark.parametrize("counts", [(1, 2, 0, 0), (0, 0, 1, 2), (-1, -1, 0, 0), (1 << 32, 0, 0, 0)])
def test_impossible_usage_is_refused(counts: tuple[int, int, int, int]) -> None:
    with pytest.raises(OurFault):
        Usage(*counts)


def test_a_charge_over_64_bits_is_refused_not_wrapped() -> None:
    terms = Terms(bytes(32), (1 << 64) - 1, 0, 0, 0, 0)
    with pytest.raises(OurFault, match="64 bits"):
        charge(terms, Usage(prompt_tokens=1 << 21), Stop.END)
