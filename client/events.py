"""What a chat yields, in order: Text*, then Receipted, then Done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from protocol.pricing import Stop, Usage
from protocol.receipts import UNMEASURED, IssuedReceipt, usage_of


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer. `raw`: the OpenAI object, a chunk when streaming, else the whole; `text`: what it adds."""

    text: str
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Receipted:
    """The answer's receipt: checked, and on disk. Amounts nanoTON."""

    issued: IssuedReceipt
    node: bytes
    model: str
    tier: int
    simulated: bool

    @property
    def hash(self) -> bytes:
        return self.issued.signed.receipt.hash

    @property
    def amount_nano(self) -> int:
        return self.issued.signed.receipt.amount_nano

    @property
    def usage(self) -> Usage:
        return usage_of(self.issued.inner)[0]

    @property
    def stop(self) -> Stop:
        return usage_of(self.issued.inner)[1]

    @property
    def measured(self) -> bool:
        """False: the enclave did not load the weights itself, so nothing proves which model answered."""
        return self.issued.inner.model != UNMEASURED


@dataclass(frozen=True, slots=True)
class Done:
    """The answer is whole. `attempts` counts how often the request was posted."""

    receipt: Receipted
    attempts: int


Event = Text | Receipted | Done
