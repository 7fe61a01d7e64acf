"""Between the desk, which owns answers, and whoever carries them away."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """Takes the frames of one answer, in order. Must not block: what it cannot carry it drops, answers are stored."""

    def send(self, frames: bytes, *, ends: bool, receipt: bool) -> None:
        """Whole frames. `ends`: nothing follows. `receipt`: this is the RECEIPT frame."""


class Answering(Protocol):
    """An answer that is being made."""

    def cancel(self, sink: Sink) -> None:
        """Nobody waits at this sink any more; the receipt is still sent to it."""

    def leave(self, sink: Sink) -> None:
        """The sink is gone. The answer is made to its end and kept."""
