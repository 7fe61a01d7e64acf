"""Requests against a scripted enclave and relayer: what is paid, what is refused, what survives a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from client import delivery, session
from client.errors import (
    AnswerFailed,
    AnswerLost,
    NodeFault,
    NodeRefused,
    RelayerRefused,
    TooExpensive,
    TooLittleAllotted,
)
from client.events import Done, Receipted, Text
from client.relayer_link import RelayerLink
from protocol.errors import Code
from protocol.pricing import Stop
from protocol.sealing import SealedRequest

BODY = {"messages": [{"role": "user", "content": "what is the answer?"}], "stream": True, "max_tokens": 50}
ANSWER = "The answer is 42."


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.Delivery, "_wait", lambda self, trouble: 0.01)
    monkeypatch.setattr(session, "_ASK_AGAIN", dict.fromkeys(session._ASK_AGAIN, 0.0))
    monkeypatch.setattr("client.leftovers.COLLECT_DELAYS", (0.05, 0.05))


async def ask(client: Any, body: dict[str, Any] = BODY) -> tuple[str, Receipted]:
    text, receipt, done = "", None, None
    async with aclosing(client.chat(body)) as events:
        async for event in events:
            if isinstance(event, Text):
                assert receipt is None
                text += event.text
            elif isinstance(event, Receipted):
                receipt = event
            else:
                assert isinstance(event, Done)
                done = event
    assert receipt is not None and done is not None and done.receipt is receipt
    return text, receipt


async def test_an_answer_is_streamed_receipted_and_acknowledged_in_the_next_voucher(world: Any) -> None:
    async with world.client() as client:
        text, first = await ask(client)
        assert text == ANSWER and first.simulated and first.measured
        assert first.amount_nano == 1000  # the minimum: five tokens cost less
        await ask(client)
        second = SealedRequest.from_bytes(world.posts[1])
        assert second.voucher.acked_nano == first.amount_nano
        assert second.voucher.cap_nano == first.amount_nano + world.enclave.openings[1].maximum_nano
        assert world.enclave.openings[1].acked_seq == 1
        assert [held.issued.signed.receipt.seq for held in client.receipts()] == [2, 1]
        assert not client.store.requests()


async def test_g5_the_cap_is_what_was_accepted_plus_the_maxima_in_flight(world: Any) -> None:
    async with world.client() as client:
        await asyncio.gather(*(ask(client) for _ in range(8)))
        caps = [SealedRequest.from_bytes(post).voucher for post in world.posts]
        most = world.enclave.openings[0].maximum_nano
        assert all(voucher.cap_nano - voucher.acked_nano <= 8 * most for voucher in caps)
        ((_, account),) = client.store.accounts()
        assert account.cap_nano == account.acked_nano == 8 * 1000 and account.seq == 8
        assert len(client.receipts()) == 8


async def test_g5_no_voucher_is_signed_beyond_what_is_allotted(world: Any) -> None:
    world.show_escrow(world.row(allotted_nano=500))
    async with world.client() as client:
        with pytest.raises(TooLittleAllotted, match="cocoon client allot") as caught:
            await ask(client)
        assert caught.value.missing_nano > 0 and not world.posts and not client.store.requests()


async def test_g5_what_earlier_keys_are_owed_is_not_promised_again(world: Any) -> None:
    async with world.client() as client:
        _, receipt = await ask(client)
        maximum = world.enclave.openings[0].maximum_nano
        world.restart_enclave()
        world.show_escrow(world.row(allotted_nano=receipt.amount_nano + maximum - 1))
        client._seen = None
        client.directory.forget()
        with pytest.raises(TooLittleAllotted):
            await ask(client)
        world.show_escrow(world.row(allotted_nano=receipt.amount_nano + maximum))
        client._seen = None
        await ask(client)


async def test_a_limit_per_request_is_kept(world: Any) -> None:
    async with world.client(max_request_nano=900) as client:
        with pytest.raises(TooExpensive):
            await ask(client)
        assert not world.posts


@pytest.mark.parametrize("frames", [0, 1, 3, 6, 7])
async def test_g4_a_broken_connection_is_resumed_with_the_same_bytes_and_billed_once(
    world: Any, behave: Any, frames: int
) -> None:
    world.on_post = [behave.cut_after(frames), behave.cut_after(min(7, frames + 1))]
    async with world.client() as client:
        text, receipt = await ask(client)
        assert text == ANSWER
        assert len(set(world.posts)) == 1 and len(world.posts) >= 2
        assert len(world.enclave.opened) == 1
        assert [held.hash for held in client.receipts()] == [receipt.hash]


async def test_an_answer_that_ends_early_is_no_answer(world: Any, behave: Any) -> None:
    world.on_post = [behave.end_after(count) for count in (2, 3, 4, 5, 6, 7)]
    async with world.client() as client:
        with pytest.raises(AnswerLost, match="incomplete"):
            await ask(client)
        assert len(client.store.requests()) == 1 and not client.receipts()


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        ("flipped", lambda frames: [*frames[:2], frames[2][:-1] + bytes([frames[2][-1] ^ 1]), *frames[3:]]),
        ("swapped", lambda frames: [frames[0], frames[2], frames[1], *frames[3:]]),
        ("repeated", lambda frames: [*frames[:2], *frames[1:]]),
        ("dropped", lambda frames: [*frames[:2], *frames[3:]]),
        ("no receipt", lambda frames: [*frames[:-2], frames[-1]]),
    ],
)
async def test_a_tampered_answer_is_refused_and_fetched_again(world: Any, behave: Any, name: str, edit: Any) -> None:
    world.on_post = [behave.change(edit)] * delivery.MAX_ATTEMPTS
    async with world.client() as client:
        with pytest.raises(AnswerLost):
            await ask(client)
        assert not client.receipts()
        (recovered,) = await client.recover()
        assert recovered.receipt is not None and len(world.enclave.opened) == 1


async def test_a_relayer_that_says_wait_is_asked_again_with_the_same_bytes(world: Any, behave: Any) -> None:
    world.on_post = [
        behave.refuse("rate-limited", 429, 0),
        behave.refuse("node-busy", 503),
        behave.error_after(0, Code.NODE_GONE),
        behave.error_after(3, Code.TIMEOUT),
    ]
    async with world.client() as client:
        assert (await ask(client))[0] == ANSWER
        assert len(world.posts) == 5 and len(set(world.posts)) == 1


@pytest.mark.parametrize("frames", [0, 3, 7])
@pytest.mark.parametrize("code", ["node-unknown", "node-not-live"])
async def test_g16_a_restarted_relayer_that_has_not_met_the_node_yet_is_waited_for(
    world: Any, behave: Any, frames: int, code: str
) -> None:
    world.on_post = [behave.cut_after(frames), behave.refuse(code, 404), behave.refuse(code, 404)]
    async with world.client() as client:
        text, receipt = await ask(client)
        assert text == ANSWER
        assert len(world.posts) == 4 and len(set(world.posts)) == 1
        assert len(world.enclave.opened) == 1
        assert [held.hash for held in client.receipts()] == [receipt.hash]


@pytest.mark.parametrize("code", ["node-unknown", "node-not-live"])
async def test_g4_what_a_node_may_have_run_is_not_asked_anew_unasked(world: Any, behave: Any, code: str) -> None:
    world.on_post = [behave.cut_after(0)] + [behave.refuse(code, 404)] * (delivery.MAX_ATTEMPTS - 1)
    async with world.client() as client:
        with pytest.raises(AnswerLost, match=code):
            await ask(client)
        assert len(world.posts) == delivery.MAX_ATTEMPTS and len(set(world.posts)) == 1
        (recovered,) = await client.recover()
        assert recovered.receipt is not None and len(world.enclave.opened) == 1


async def test_an_unknown_node_is_final_for_a_request_that_never_left(
    world: Any, behave: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.on_post = [behave.refuse("node-unknown", 404)] * 2
    real, downs = RelayerLink.post, [True]

    @asynccontextmanager
    async def down_first(link: RelayerLink, sealed: bytes) -> AsyncIterator[Any]:
        url, link.url = link.url, "http://127.0.0.1:1" if downs and downs.pop() else link.url
        try:
            async with real(link, sealed) as parts:
                yield parts
        finally:
            link.url = url

    monkeypatch.setattr(RelayerLink, "post", down_first)
    async with world.client() as client:
        with pytest.raises(RelayerRefused, match="cause of node-unknown"):
            await ask(client)
        assert len({SealedRequest.from_bytes(post).request_id for post in world.posts}) == len(world.posts) == 2


async def test_a_relayers_no_keeps_the_promise_counted(world: Any, behave: Any) -> None:
    world.on_post = [behave.refuse("voucher-invalid", 402)]
    async with world.client() as client:
        with pytest.raises(RelayerRefused, match="cause of voucher-invalid"):
            await ask(client)
        ((_, account),) = client.store.accounts()
        assert account.cap_nano > 0 and len(client.store.requests()) == 1


async def test_behind_brings_missed_receipts_and_the_request_is_asked_again(world: Any, behave: Any) -> None:
    async with world.client() as client:
        world.on_post = [behave.end_after(0)] * delivery.MAX_ATTEMPTS
        with pytest.raises(AnswerLost):
            await ask(client)
        world.enclave.max_unacked = 1
        text, receipt = await ask(client)
        assert text == ANSWER and receipt.issued.signed.receipt.seq == 2
        assert [held.answered for held in client.receipts()] == [True, False]
        ((_, account),) = client.store.accounts()
        assert account.acked_nano == account.cap_nano == 2000 and not client.store.requests()


async def test_a_sealed_refusal_drops_the_promise_and_says_why(world: Any) -> None:
    world.enclave.refuse = [Code.MAXIMUM_TOO_LOW]
    async with world.client() as client:
        with pytest.raises(NodeRefused, match="maximum") as caught:
            await ask(client)
        assert caught.value.code == "maximum-too-low"
        ((_, account),) = client.store.accounts()
        assert account.cap_nano == 0 and not client.store.requests()


async def test_a_busy_node_is_asked_again_under_a_fresh_id(world: Any) -> None:
    world.enclave.refuse = [Code.NODE_BUSY, Code.NODE_BUSY]
    async with world.client() as client:
        assert (await ask(client))[0] == ANSWER
        assert len({SealedRequest.from_bytes(post).request_id for post in world.posts}) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_nano": 1001, "cumulative_nano": 1001},
        {"amount_nano": 999, "cumulative_nano": 999},
        {"terms": b"\x01" * 32},
        {"node": b"\x01" * 32},
        {"allotment": b"\x01" * 32},
        {"seq": 2, "previous": b"\x01" * 32},
        {"previous": b"\x01" * 32},
        {"cumulative_nano": 5000},
    ],
)
async def test_g5_a_wrong_receipt_is_refused_and_the_node_is_left(world: Any, wrong: dict[str, Any]) -> None:
    world.enclave.break_receipt = lambda receipt: replace(receipt, **wrong)
    async with world.client() as client:
        if "seq" in wrong:  # only an earlier receipt could tell; it waits for it, unacknowledged
            await ask(client)
            ((_, account),) = client.store.accounts()
            assert account.acked_nano == 0
            return
        with pytest.raises(NodeFault):
            await ask(client)
        assert not client.receipts()
        assert client.store.fault(world.node)
        client.directory.forget()
        with pytest.raises(Exception, match="broke the rules before"):
            await ask(client)


@pytest.mark.parametrize(
    "wrong",
    [{"request": b"\x01" * 32}, {"response": b"\x01" * 32}, {"model": b"\x01" * 32}, {"completion_tokens": 500_000}],
)
async def test_g13_a_receipt_for_another_request_answer_or_model_is_refused(world: Any, wrong: dict[str, Any]) -> None:
    world.enclave.break_inner = lambda inner: replace(inner, **wrong)
    if "completion_tokens" in wrong:
        # the enclave would not sign over the maximum by itself: the price below is for other usage
        world.enclave.break_inner = lambda inner: replace(inner, prompt_tokens=600)
        world.enclave.break_receipt = lambda receipt: replace(receipt, amount_nano=1000, cumulative_nano=1000)
    async with world.client() as client:
        with pytest.raises(NodeFault):
            await ask(client)
        assert not client.receipts()


async def test_an_unmeasured_model_is_said_to_be_one(world: Any) -> None:
    world.enclave.break_inner = lambda inner: replace(inner, model=bytes(32))
    async with world.client() as client:
        assert not (await ask(client))[1].measured


async def test_an_engine_error_is_told_with_its_receipt(world: Any) -> None:
    error = {"error": {"message": "bad temperature", "type": "invalid_request_error", "code": "bad-request"}}
    world.enclave.answer = lambda body: [error]
    world.enclave.stop, world.enclave.usage = Stop.INVALID, (0, 0, 0, 0)
    async with world.client() as client:
        with pytest.raises(AnswerFailed, match="bad temperature") as caught:
            await ask(client)
        assert caught.value.amount_nano == 1000
        assert [held.hash for held in client.receipts()] == [caught.value.receipt]


async def test_a_malformed_answer_still_leaves_its_receipt(world: Any) -> None:
    world.enclave.answer = lambda body: [[1, 2]]
    async with world.client() as client:
        with pytest.raises(Exception, match="JSON object"):
            await ask(client)
        assert len(client.receipts()) == 1


async def test_the_receipt_of_a_cancelled_request_is_fetched(world: Any) -> None:
    async with world.client() as client:
        async with aclosing(client.chat(BODY)) as events:
            async for event in events:
                assert isinstance(event, Text)
                break
        for _ in range(100):
            if client.receipts():
                break
            await asyncio.sleep(0.02)
        assert len(client.receipts()) == 1 and not client.store.requests()
        assert len(world.enclave.opened) == 1


async def test_a_new_enclave_key_is_verified_and_used_at_once(world: Any) -> None:
    async with world.client() as client:
        await ask(client)
        world.restart_enclave()
        text, receipt = await ask(client)
        assert text == ANSWER and receipt.issued.signed.receipt.seq == 1
        assert len(client.store.accounts()) == 2


async def test_an_answer_cut_by_a_restart_is_a_clear_error_and_stays_counted(world: Any, behave: Any) -> None:
    async def die(request: Any, frames: list[bytes]) -> Any:
        world.restart_enclave()
        return await behave.cut_after(3)(request, frames)

    world.on_post = [die]
    async with world.client() as client:
        with pytest.raises(AnswerLost, match="stays counted"):
            await ask(client)
        ((_, account),) = client.store.accounts()
        assert account.cap_nano == account.promises[0].maximum_nano


async def test_two_answers_to_one_request_are_told(world: Any, behave: Any) -> None:
    async def forget(request: Any, frames: list[bytes]) -> Any:
        response = await behave.cut_after(3)(request, frames)
        world.enclave.frames.clear()
        world.enclave.opened.clear()
        world.enclave.accounts.clear()
        world.enclave.answer = lambda body: [{"choices": [{"index": 0, "delta": {"content": "Something else"}}]}]
        return response

    world.on_post = [forget]
    async with world.client() as client:
        with pytest.raises(AnswerLost, match="two different answers"):
            await ask(client)


async def test_texts_are_kept_only_when_asked_for(world: Any) -> None:
    async with world.client() as client:
        await ask(client)
        (held,) = client.receipts()
        assert held.body is None and held.secret is None and held.answer is None
    assert b"what is the answer" not in (world.home / "client.db").read_bytes()
    async with world.client(keep_texts=True) as client:
        await ask(client)
        held = client.receipts()[0]
        assert held.body is not None and b"what is the answer" in held.body and held.answer
