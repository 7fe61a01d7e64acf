"""Bringing a quote to the chain: which of the node's transactions is the answer to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from pytoniq_core import Cell

from attestation import verifier
from attestation.report_data import NO_GPU, Binding
from attestation.verifier import EvidenceRefused, Verifier
from chain.api import AccountState, Message, Status, Transaction

VERIFIER, NODE, OTHERS, OURS = b"v" * 32, b"n" * 32, b"o" * 32, b"u" * 32
BINDING = Binding(b"N" * 32, NODE, 1, b"k" * 32, NO_GPU, 900, b"r" * 32)
MESSAGE = Message(VERIFIER, NODE, 0, Cell.empty(), False, 1, 0, hash=OURS)
SENT = Transaction(VERIFIER, 1, b"1" * 32, 0, bytes(32), 0, None, (MESSAGE,), 0, False, 0, 0, 0, Cell.empty())


class Chain:
    """The node's history: what others had the verifier write comes first."""

    name = "chain"

    def __init__(self, *arrived: tuple[bytes, bool]) -> None:
        self.history: list[Transaction] = []
        for number, (hash_, aborted) in enumerate(arrived, 2):
            last = (number - 1, bytes([number - 1]) * 32) if self.history else (1, b"1" * 32)
            one = replace(SENT, account=NODE, lt=number, hash=bytes([number]) * 32, prev_lt=last[0], prev_hash=last[1])
            message = replace(MESSAGE, hash=hash_)
            self.history.append(replace(one, in_msg=message, out_msgs=(), aborted=aborted, exit_code=aborted * 777))
        self.begun = False

    async def account(self, account: bytes) -> AccountState:
        head = (1, b"1" * 32) if not self.begun else (self.history[-1].lt, self.history[-1].hash)
        self.begun = True
        return AccountState(account, Status.ACTIVE, 1, None, None, *head)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        return tuple(reversed([one for one in self.history if one.lt <= lt]))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> None:
    async def outcomes(self: Verifier, wallet: Any, bodies: Any, values: Any) -> tuple[Transaction, ...]:
        return (SENT,)

    monkeypatch.setattr(Verifier, "_outcomes", outcomes)
    monkeypatch.setattr(verifier, "attest_message", lambda *_, **__: Cell.empty())


async def test_g8_what_others_had_the_verifier_say_is_not_taken_for_the_verdict(sent: None) -> None:
    """A `sync` with a program that the node refuses costs its sender gas: it must not cost the node its service."""
    wallet: Any = None
    await Verifier(Chain((OTHERS, True), (OURS, False)), VERIFIER).attest(wallet, b"", BINDING, consent=None)
    with pytest.raises(EvidenceRefused, match="the node refused"):
        await Verifier(Chain((OTHERS, False), (OURS, True)), VERIFIER).attest(wallet, b"", BINDING, consent=None)
