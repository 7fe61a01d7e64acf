"""What the client does by itself with money, and what it never does; equivocation; nothing in clear on the wire."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from client import delivery
from client.errors import NodeFault, NoNode, TooLittleAllotted
from protocol.receipts import SignedReceipt
from wrappers.signed import sign, verify

BODY = {"messages": [{"role": "user", "content": "a very secret question"}], "stream": True, "max_tokens": 50}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.Delivery, "_wait", lambda self, trouble: 0.01)


async def ask(client: Any) -> None:
    async with aclosing(client.chat(BODY)) as events:
        async for _ in events:
            pass


@pytest.fixture
def allotted(world: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Amounts that the client allots; the chain follows."""
    amounts: list[int] = []

    async def allot(self: Any, node: Any, amount_nano: int, close_timer: int | None = None) -> None:
        amounts.append(amount_nano)
        world.show_escrow(world.row(allotted_nano=500 + sum(amounts)))

    monkeypatch.setattr("client.money.Money.allot", allot)
    return amounts


async def test_nothing_is_allotted_without_being_asked(world: Any, allotted: list[int]) -> None:
    world.show_escrow(world.row(allotted_nano=500))
    async with world.client() as client:
        with pytest.raises(TooLittleAllotted):
            await ask(client)
    assert not allotted


async def test_what_is_missing_is_allotted_within_the_configured_budget(world: Any, allotted: list[int]) -> None:
    world.show_escrow(world.row(allotted_nano=500))
    async with world.client(max_auto_allot_nano=10_000) as client:
        for _ in range(9):
            await ask(client)
        with pytest.raises(TooLittleAllotted):
            for _ in range(20):
                await ask(client)
    assert 2_500 <= sum(allotted) <= 10_000


async def test_a_first_row_is_made_within_the_budget(world: Any, allotted: list[int]) -> None:
    world.show_escrow()
    async with world.client(max_auto_allot_nano=40_000) as client:
        await ask(client)
    assert allotted == [10_000]


async def test_g4_a_second_receipt_under_one_number_is_no_receipt(world: Any) -> None:
    async with world.client() as client:
        await ask(client)
        world.enclave.break_receipt = lambda receipt: replace(receipt, seq=1, previous=bytes(32), cumulative_nano=1000)
        with pytest.raises(NodeFault, match="another receipt number 1 before"):
            await ask(client)
        assert len(client.receipts()) == 1 and client.store.fault(world.node)


async def test_g11_no_prompt_or_answer_is_on_the_wire_or_in_the_books(world: Any) -> None:
    async with world.client() as client:
        await ask(client)
        for post in world.posts:
            assert b"secret" not in post
        for frames in world.enclave.frames.values():
            assert b"answer" not in b"".join(frames)
        for file in world.home.iterdir():
            assert b"secret question" not in file.read_bytes() and b"The answer" not in file.read_bytes()


async def test_receipts_that_came_without_their_proof_are_told(world: Any, behave: Any) -> None:
    async with world.client() as client:
        world.on_post = [behave.end_after(7)] * delivery.MAX_ATTEMPTS
        with pytest.raises(Exception, match="last frame"):
            await ask(client)
        (signed,) = await client.unaccepted()
        assert verify(signed.receipt, signed.signature, world.enclave.key) and signed.receipt.amount_nano == 1000
        (request,) = client.store.requests()
        assert request.outer is not None and SignedReceipt.from_bytes(request.outer) == signed
        await client.recover()
        assert not await client.unaccepted()
    assert sign(signed.receipt, world.enclave.signing) == signed.signature


async def test_g5_a_row_under_an_earlier_release_key_gets_no_voucher(world: Any, behave: Any) -> None:
    row = world.row()
    world.show_escrow(replace(row, terms=replace(row.terms, release_key=b"\x06" * 32)))
    async with world.client() as client:
        with pytest.raises(NoNode, match="another release key") as refused:
            await ask(client)
        assert "allot anew" in refused.value.cure and not client.store.accounts()
