"""What a request costs. The same arithmetic decides a dispute on chain, so it has one rounding and no options.

Counts are as engines report them: cached tokens are part of the prompt tokens, reasoning tokens part of the
completion.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, unique

from protocol.errors import OurFault
from wrappers.receipts import Terms
from wrappers.signed import MAX_AMOUNT_NANO

TOKENS_PER_PRICE = 1 << 20
MAX_TOKENS = (1 << 32) - 1


@unique
class Stop(IntEnum):
    """Why a request ended: the inner receipt's `stop`."""

    END = 0
    """The model finished: end of turn, stop string, tool call."""
    LENGTH = 1
    CANCELLED = 2
    """The client, or who stands for him on the wire, went away: what was done is billed."""
    FAILED = 3
    """The node's own failure: nothing is billed before the first token."""
    INVALID = 4
    """Opened but not a request that the engine takes: the minimum is billed, since opening it was work."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request. Raises OurFault when they contradict each other."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.cached_tokens <= self.prompt_tokens <= MAX_TOKENS:
            raise OurFault(
                f"usage of {self.cached_tokens} cached in {self.prompt_tokens} prompt tokens is impossible",
                "count cached tokens as part of the prompt",
            )
        if not 0 <= self.reasoning_tokens <= self.completion_tokens <= MAX_TOKENS:
            raise OurFault(
                f"usage of {self.reasoning_tokens} reasoning in {self.completion_tokens} completion tokens cannot be",
                "count reasoning tokens as part of the completion",
            )


def _amount(nano: int) -> int:
    if nano > MAX_AMOUNT_NANO:
        raise OurFault(f"a charge of {nano} nanoTON is over the 64 bits of a receipt", "lower the prices or the tokens")
    return nano


def _rounded_up(weighted: int) -> int:
    return -(-weighted // TOKENS_PER_PRICE)


def charge(terms: Terms, usage: Usage, stop: Stop) -> int:
    """nanoTON for one request: ceil(sum(price * tokens) / 2^20), at least `terms.minimum_nano`.

    Zero only for a request that the node broke before its first token. Raises OurFault over 64 bits.
    """
    if stop is Stop.FAILED and usage.completion_tokens == 0:
        return 0
    weighted = (
        terms.prompt_price * (usage.prompt_tokens - usage.cached_tokens)
        + terms.cached_price * usage.cached_tokens
        + terms.completion_price * (usage.completion_tokens - usage.reasoning_tokens)
        + terms.reasoning_price * usage.reasoning_tokens
    )
    return _amount(max(terms.minimum_nano, _rounded_up(weighted)))


def maximum(terms: Terms, max_prompt_tokens: int, max_completion_tokens: int) -> int:
    """nanoTON that no request within these token bounds can exceed, whatever is cached or reasoned."""
    if max_prompt_tokens < 0 or max_completion_tokens < 0:
        raise OurFault("a negative bound of tokens", "bound prompt and completion by zero or more")
    prompt = max(terms.prompt_price, terms.cached_price) * max_prompt_tokens
    completion = max(terms.completion_price, terms.reasoning_price) * max_completion_tokens
    return _amount(max(terms.minimum_nano, _rounded_up(prompt + completion)))


def completion_budget(terms: Terms, maximum_nano: int, prompt_tokens: int) -> int:
    """Most completion tokens that keep a request of `prompt_tokens` within `maximum_nano`; -1: not even the prompt.

    An amount is never cut to the maximum (it would no longer be usage x terms): the enclave stops generating instead.
    """
    if maximum_nano < terms.minimum_nano:
        return -1
    left = maximum_nano * TOKENS_PER_PRICE - max(terms.prompt_price, terms.cached_price) * prompt_tokens
    if left < 0:
        return -1
    price = max(terms.completion_price, terms.reasoning_price)
    return MAX_TOKENS if price == 0 else min(MAX_TOKENS, left // price)


def table(terms: Terms) -> dict[str, int | str]:
    """Terms for programs: hashes in hex, nanoTON per TOKENS_PER_PRICE tokens and, `minimum_nano`, per request."""
    return {
        "model": terms.model.hex(),
        "terms": terms.hash.hex(),
        "prompt": terms.prompt_price,
        "cached": terms.cached_price,
        "completion": terms.completion_price,
        "reasoning": terms.reasoning_price,
        "minimum_nano": terms.minimum_nano,
    }


def dearer(asked: Terms, published: Terms) -> bool:
    """Whether `asked` costs more than `published` in any part."""
    prices = ("prompt_price", "cached_price", "completion_price", "reasoning_price", "minimum_nano")
    return any(getattr(asked, name) > getattr(published, name) for name in prices)
