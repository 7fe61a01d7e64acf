"""Nothing that one message, file, relayer or chain answer comes to ends the agent, or its enclave: the next round looks
again. Each test injects a failure that no code expects."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from worker.agent import keeper as keeper_module
from worker.agent import relayer_link
from worker.agent.attest import Attesting
from worker.agent.claims import Claims
from worker.agent.console import Console
from worker.agent.direct import RETRY_SECONDS, Direct
from worker.agent.duty import Duty
from worker.agent.enclave_process import Enclave, EnclaveGone
from worker.agent.keeper import Keeper
from worker.agent.relayer_link import NodeIdentity, RelayerLink
from worker.agent.release_keys import KeyFileError
from worker.agent.rounds import attempt, over_and_over
from worker.agent.service import Service
from worker.agent.store import StoreError
from worker.fields import LinkError
from worker.link import LinkClosed
from worker.messages import Answer, Ready, SealingKeys


class Enough(BaseException):
    """Ends a loop that would run for ever; no `except Exception` takes it."""


def rounds_of(count: int) -> Callable[[], object]:
    """A pause after which, the count-th time, the test is over."""
    left = [count]

    async def pause(*_: object) -> None:
        left[0] -= 1
        if not left[0]:
            raise Enough

    return pause


def failing(*errors: Exception) -> tuple[Callable[[], object], list[int]]:
    """Work that fails with each of these in turn and then goes well; and a list that grows with every round."""
    waiting, done = list(errors), []

    async def work(*_: object) -> None:
        done.append(len(done))
        if waiting:
            raise waiting.pop(0)

    return work, done


async def test_g18_a_round_that_fails_is_told_and_followed_by_the_next(caplog: pytest.LogCaptureFixture) -> None:
    work, done = failing(StoreError("disk full"), KeyError("surprise"))
    with pytest.raises(Enough):
        await over_and_over("it waits", work, (StoreError,), rounds_of(4))
    assert len(done) == 4
    expected, surprise = caplog.records
    assert (expected.levelno, expected.getMessage(), expected.exc_info) == (
        logging.WARNING,
        "it waits: disk full",
        None,
    )
    assert surprise.levelno == logging.ERROR and "report this" in surprise.getMessage() and surprise.exc_info


async def test_being_stopped_is_no_failure() -> None:
    async def stopped() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await attempt("it waits", stopped(), ())


@pytest.mark.parametrize("error", [KeyError("row"), ValueError("not a bag of cells"), RuntimeError("?")])
async def test_g18_claiming_and_forgetting_outlive_what_they_come_to(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service.__new__(Service)
    claiming, claims = failing(error)
    forgetting, forgets = failing(error)
    service.claims = cast(Claims, SimpleNamespace(step=claiming))
    service.desk = SimpleNamespace(forget_old_answers=forgetting)  # type: ignore[assignment]
    service.config = SimpleNamespace(poll_seconds=0.0)  # type: ignore[assignment]
    service._work = asyncio.Event()
    monkeypatch.setattr("worker.agent.service.FORGET_SECONDS", 0.0)
    for loop, done in ((service._claiming(), claims), (service._forgetting(), forgets)):
        task = asyncio.ensure_future(loop)
        for _ in range(50):
            await asyncio.sleep(0)
        assert len(done) >= 3 and not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_g18_a_committees_member_outlives_what_strangers_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    work, done = failing(RecursionError("deep"))
    duty = Duty.__new__(Duty)
    monkeypatch.setattr(Duty, "step", work)
    monkeypatch.setattr("worker.agent.duty.LOOK_SECONDS", 0.0)
    monkeypatch.setattr("worker.agent.rounds.asyncio.sleep", rounds_of(3))
    with pytest.raises(Enough):
        await duty.run()
    assert len(done) == 3


async def test_g18_a_claim_for_a_release_that_fails_is_told(caplog: pytest.LogCaptureFixture) -> None:
    service = Service.__new__(Service)
    service._spawned = set()

    async def settle(_: Console) -> None:
        raise KeyError("row")

    service.console = SimpleNamespace(settle=lambda: settle(None))  # type: ignore[assignment]
    await service._claim_soon()
    await asyncio.gather(*service._spawned)
    assert "claiming for a release failed" in caplog.text and not service._spawned


# ---- relayers


def link_to(url: str = "ws://relayer:1") -> RelayerLink:
    identity = NodeIdentity(bytes(32), bytes(32), 4)
    return RelayerLink(url, identity, Ed25519PrivateKey.generate(), SimpleNamespace())  # type: ignore[arg-type]


async def test_g18_a_link_that_breaks_in_a_new_way_is_dialled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_to()
    work, done = failing(KeyError("offer"), UnicodeError("text"), aiohttp.ClientError("down"))
    monkeypatch.setattr(link, "_connection", work)
    monkeypatch.setattr(relayer_link.asyncio, "sleep", rounds_of(4))
    with pytest.raises(Enough):
        await link.run()
    assert len(done) == 4


async def test_g18_a_link_that_can_write_no_more_ends_instead_of_falling_silent() -> None:
    link, closed = link_to(), []

    class Socket:
        async def send_bytes(self, message: bytes) -> None:
            raise RuntimeError("writer in a bad state")

        async def close(self) -> None:
            closed.append(True)

    link.post(b"message")
    await link._sender(Socket())  # type: ignore[arg-type]
    assert closed


async def test_g18_an_offer_that_one_relayer_cannot_hear_is_heard_by_the_others() -> None:
    service, heard = Service.__new__(Service), []

    def broken() -> None:
        raise ValueError("not JSON")

    service.links = (  # type: ignore[assignment]
        SimpleNamespace(origin="ws://a", offer_changed=broken),
        SimpleNamespace(origin="ws://b", offer_changed=lambda: heard.append(True)),
    )
    service._offer_changed()
    assert heard


# ---- the enclave


class ScriptedLink:
    """An enclave's link that says these messages, and then ends."""

    def __init__(self, *messages: object) -> None:
        self.messages = list(messages)

    async def receive(self) -> object:
        if not self.messages:
            raise LinkClosed("the end")
        return self.messages.pop(0)


def enclave_that_says(*messages: object, on_answer: Callable[[Answer], None]) -> Enclave:
    async def wait() -> int:
        return 0

    return Enclave(
        SimpleNamespace(wait=wait),  # type: ignore[arg-type]
        ScriptedLink(*messages),  # type: ignore[arg-type]
        Ready(bytes(32), True, False, ()),
        on_answer=on_answer,
        on_issued=lambda _: None,
        on_sealing=lambda: None,
        on_job=lambda _: None,
    )


async def test_g18_one_answer_that_cannot_be_handled_does_not_end_the_enclaves_key() -> None:
    handled: list[bytes] = []

    def on_answer(message: Answer) -> None:
        if message.request_id == b"1" * 32:
            raise KeyError("frames")
        handled.append(message.request_id)

    answers = [Answer(bytes([each]) * 32, True, b"") for each in b"123"]
    with pytest.raises(EnclaveGone, match="code 0"):
        await enclave_that_says(*answers, on_answer=on_answer).serve()
    assert handled == [b"2" * 32, b"3" * 32]


async def test_an_enclave_that_breaks_the_protocol_is_replaced_all_the_same() -> None:
    misplaced = Ready(bytes(32), True, False, ())
    with pytest.raises(EnclaveGone, match="protocol"):
        await enclave_that_says(misplaced, SealingKeys(()), on_answer=lambda _: None).serve()


def keeper_with(attesting: object = None, ran: bool = True) -> Keeper:
    keeper = Keeper.__new__(Keeper)
    keeper._attesting = attesting  # type: ignore[assignment]
    keeper._ran = ran
    keeper.ready = asyncio.Event()
    keeper._offer_changed = keeper._admitted = lambda: None
    return keeper


async def test_g18_a_key_goes_on_being_renewed_after_a_failure_of_any_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    attest, tries = failing(ValueError("evidence"), KeyError("gpu"))
    enclave = SimpleNamespace(key=bytes(32))

    async def attested(_: object) -> tuple[bytes, int]:
        await attest()
        return b"{}", 5

    async def term(_: int) -> None:
        if len(tries) == 4:
            raise Enough

    async def sleep(_: float) -> None:
        return None

    monkeypatch.setattr(keeper_module.asyncio, "sleep", sleep)
    keeper = keeper_with(SimpleNamespace(attest=attested, term=term))
    with pytest.raises(Enough):
        await keeper._keep_attested(enclave, None)  # type: ignore[arg-type]
    assert len(tries) == 4 and keeper.ready.is_set()


async def test_g18_the_end_of_a_term_is_waited_for_whatever_the_chains_clock_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read, done = failing(TypeError("time"), OSError("down"))

    async def head() -> object:
        await read()
        return SimpleNamespace(now=len(done) * 1000)

    async def sleep(_: float) -> None:
        return None

    monkeypatch.setattr("worker.agent.attest.asyncio.sleep", sleep)
    attesting = Attesting(SimpleNamespace(head=head), None, Ed25519PrivateKey.generate(), None)  # type: ignore[arg-type]
    await attesting.term(5000)
    assert len(done) > 3


@pytest.mark.parametrize("error", [RuntimeError("?"), StoreError("full"), KeyFileError("changed"), EnclaveGone("x")])
async def test_g18_an_enclave_is_started_anew_whatever_ended_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = keeper_with()
    work, done = failing(error, error)
    monkeypatch.setattr(keeper, "_one", work)
    monkeypatch.setattr(keeper_module.asyncio, "sleep", rounds_of(3))
    with pytest.raises(Enough):
        await keeper.run(SimpleNamespace(), None)  # type: ignore[arg-type]
    assert len(done) == 3


@pytest.mark.parametrize("error", [KeyFileError("another file"), EnclaveGone("no model")])
async def test_what_is_set_up_wrongly_from_the_start_ends_the_agent(error: Exception, monkeypatch) -> None:
    keeper = keeper_with(ran=False)
    monkeypatch.setattr(keeper, "_one", failing(error)[0])
    with pytest.raises(type(error)):
        await keeper.run(SimpleNamespace(), None)  # type: ignore[arg-type]


async def test_g18_direct_connections_are_tried_again_after_a_certificate_that_failed_in_a_new_way(tmp_path) -> None:
    async def certify(_: object) -> int:
        raise LinkError("over the limit")

    direct = Direct(("127.0.0.1", 0), SimpleNamespace())  # type: ignore[arg-type]
    for evidence in (b'{"evidence": {}, "collateral": {}}', b"{}"):
        enclave = SimpleNamespace(certify=certify)
        assert await direct._certify(enclave, evidence, tmp_path) == RETRY_SECONDS  # type: ignore[arg-type]
