"""What the state machine can do, and how often: registered by the modules of its actors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from market import Market
from pytoniq_core import Cell

from protocol.pricing import Usage
from scripts.stage import TON, World
from wrappers.receipts import Terms

Act = TypeVar("Act", bound=Callable[..., None])
AMOUNTS = [1, TON // 100, TON // 7, TON // 2, TON, 3 * TON]
VALUES = [TON, TON, TON, TON // 4, TON // 100, TON // 1000]
WHICH, KEYS = range(2), range(3)
HONEST = [True, True, True, False]
RESULT, INNER = b"\x31" * 32, b"\x32" * 32
PRICES = Terms(b"\x41" * 32, 3 << 20, 1 << 20, 7 << 20, 11 << 20, 1000)
USAGE = Usage(prompt_tokens=500, cached_tokens=100, completion_tokens=60, reasoning_tokens=20)

ACTIONS: dict[str, tuple[int, dict[str, Sequence[Any]]]] = {}


def action(weight: int, **choices: Sequence[Any]) -> Callable[[Act], Act]:
    """A method that the machine calls with one of each of `choices`, `weight` times as often as one of weight 1."""

    def register(method: Act) -> Act:
        ACTIONS[method.__name__] = weight, choices
        return method

    return register


class Actors:
    """What all parts of the machine stand on."""

    m: Market
    world: World
    governor: bytes
    operator: bytes
    proposed: list[Cell]

    def until(self, moment: int) -> None:
        self.world.ledger.now = max(self.m.now, moment)
