"""The client ends by itself what its owner began: once, when it is due, and without paying twice for a refusal."""

from __future__ import annotations

import pytest

from client.errors import NoEscrow, PaymentFailed, Uncertain
from client.follow_up import AGAIN_SECONDS, FollowUp, Round

JOB = b"\x01" * 32


class Owner:
    """A client with one job and one escrow to end; what is sent is written down."""

    def __init__(self) -> None:
        self.jobs = self
        self.sent: list[str] = []
        self.open = ["finish", "rotate-voucher-key"]
        self.refundable_jobs = [JOB]
        self.trouble: Exception | None = None

    async def refundable(self) -> list[bytes]:
        return self.refundable_jobs

    async def refund(self, job: bytes) -> None:
        self._send("refund")

    async def due(self) -> tuple[str, ...]:
        if not self.open:
            raise NoEscrow("there is no escrow yet", "open one")
        return tuple(self.open)

    async def finish(self) -> None:
        self._send("finish")

    async def upkeep(self, command: str) -> None:
        self._send(command)

    def _send(self, what: str) -> None:
        self.sent.append(what)
        if self.trouble is not None:
            raise self.trouble


async def test_g3_all_that_is_due_is_done_and_said() -> None:
    owner = Owner()
    found = await FollowUp(owner).round()  # type: ignore[arg-type]
    assert owner.sent == ["refund", "finish", "rotate-voucher-key"]
    assert len(found.done) == 3 and JOB.hex() in found.done[0] and not found.failed
    owner.open, owner.refundable_jobs = [], []
    assert await FollowUp(owner).round() == Round((), ())  # type: ignore[arg-type]


async def test_g8_what_was_refused_is_tried_again_an_hour_later_and_stops_nothing_else() -> None:
    owner, now = Owner(), [5.0]
    follow_up = FollowUp(owner, clock=lambda: now[0])  # type: ignore[arg-type]
    owner.trouble = PaymentFailed("refund was refused", "wait")
    found = await follow_up.round()
    assert len(owner.sent) == 3 and len(found.failed) == 3 and not found.done
    now[0] += AGAIN_SECONDS - 1
    assert await follow_up.round() == Round((), ()) and len(owner.sent) == 3
    now[0] += 1
    owner.trouble = None
    assert len((await follow_up.round()).done) == 3


async def test_g17_a_chain_that_cannot_be_asked_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()

    async def refundable() -> list[bytes]:
        raise Uncertain("two endpoints disagree", "wait")

    owner.refundable = refundable  # type: ignore[method-assign]
    with pytest.raises(Uncertain):
        await FollowUp(owner).round()  # type: ignore[arg-type]
    assert not owner.sent
    rounds = []

    async def sleep(seconds: float) -> None:
        rounds.append(seconds)
        if len(rounds) == 3:
            raise StopAsyncIteration

    monkeypatch.setattr("client.follow_up.asyncio.sleep", sleep)
    with pytest.raises(StopAsyncIteration):
        await FollowUp(owner).run()  # type: ignore[arg-type]
    assert len(rounds) == 3, "an outage does not end it"
