"""Opened terms as they travel: model | prompt, cached, completion, reasoning price u64 | minimum u64: 72 bytes."""

from __future__ import annotations

from protocol.codec import Reader, fixed, uint
from wrappers.receipts import Terms

TERMS_BYTES = 72


def terms_to_bytes(terms: Terms) -> bytes:
    prices = (
        terms.prompt_price,
        terms.cached_price,
        terms.completion_price,
        terms.reasoning_price,
        terms.minimum_nano,
    )
    return fixed(terms.model, 32, "the terms' model") + b"".join(uint(price, 64, "a price") for price in prices)


def read_terms(s: Reader) -> Terms:
    return Terms(s.take(32), *(s.uint(64) for _ in range(5)))
