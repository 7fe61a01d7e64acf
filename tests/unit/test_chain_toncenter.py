"""A toncenter that lies, dies, hangs and sends junk: never an invented answer (G17, G18)."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import begin_cell

from chain.api import ChainError, Refused, Status, Transaction, Unreachable
from chain.toncenter import Toncenter
from chain.wallet import Outgoing, Wallet, external_message
from devnet.ledger import Ledger
from wrappers.cells import to_boc

GLOBAL_ID = -7001
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@dataclass
class Fake:
    """Answers per method: a value is a result, a callable handles the request itself."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str], str | None]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.seen.append((method, dict(request.query), request.headers.get("X-API-Key")))
        answer = self.answers[method]
        if callable(answer):
            response: web.StreamResponse = await answer(request)
            return response
        return web.json_response({"ok": True, "result": answer})


BLOCK = {
    "@type": "ton.blockIdExt",
    "workchain": -1,
    "shard": "-9223372036854775808",
    "seqno": 7,
    "root_hash": b64(b"\x01" * 32),
    "file_hash": b64(b"\x02" * 32),
}
HEADER = {"id": BLOCK, "global_id": GLOBAL_ID, "gen_utime": 1_790_000_000}


@pytest.fixture
async def fake() -> AsyncIterator[Fake]:
    state = Fake()
    app = web.Application()
    app.router.add_route("*", "/api/v2/{method}", state.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    state.answers = {"getMasterchainInfo": {"last": BLOCK}, "getBlockHeader": HEADER}
    yield state
    await runner.cleanup()


@pytest.fixture
async def chain(fake: Fake) -> AsyncIterator[Toncenter]:
    client = Toncenter(fake.url, timeout_seconds=5, global_id=GLOBAL_ID, name="A")
    yield client
    await client.close()


@pytest.fixture
async def impatient(fake: Fake) -> AsyncIterator[Toncenter]:
    client = Toncenter(fake.url, timeout_seconds=0.7, global_id=GLOBAL_ID, name="A")
    yield client
    await client.close()


@pytest.fixture(scope="module")
def wallet() -> Wallet:
    return Wallet(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


@pytest.fixture(scope="module")
def history(wallet: Wallet) -> list[Transaction]:
    """Newest first."""
    ledger = Ledger()
    ledger.faucet(wallet.account, 10**10)
    for seqno in range(4):
        message = external_message(wallet, [Outgoing(b"\x01" * 32, 5)], seqno, ledger.now + 60, seqno == 0)
        ledger.send_external(message)
    return ledger.transactions[wallet.account][::-1]


def row(transaction: Transaction) -> dict[str, Any]:
    identity = {"lt": str(transaction.lt), "hash": b64(transaction.hash)}
    return {"data": b64(to_boc(transaction.cell)), "transaction_id": identity, "utime": transaction.now}


def state(**changes: Any) -> dict[str, Any]:
    good = {
        "balance": "5",
        "code": b64(to_boc(begin_cell().store_uint(1, 8).end_cell())),
        "data": b64(to_boc(begin_cell().store_uint(2, 8).end_cell())),
        "last_transaction_id": {"lt": "9", "hash": b64(b"\x03" * 32)},
        "state": "active",
    }
    return good | changes


async def test_head_gives_block_and_time(chain: Toncenter) -> None:
    head = await chain.head()
    assert (head.block.seqno, head.block.root_hash, head.now) == (7, b"\x01" * 32, 1_790_000_000)


async def test_account_states(chain: Toncenter, fake: Fake) -> None:
    fake.answers["getAddressInformation"] = state()
    found = await chain.account(b"\x05" * 32)
    assert (found.status, found.balance_nano, found.last_lt, found.last_hash) == (Status.ACTIVE, 5, 9, b"\x03" * 32)
    nobody = {"lt": "0", "hash": b64(bytes(32))}
    empty = state(state="uninitialized", code="", data="", balance="0", last_transaction_id=nobody)
    fake.answers["getAddressInformation"] = empty
    assert (await chain.account(b"\x05" * 32)).status is Status.ABSENT
    fake.answers["getAddressInformation"] = empty | {"balance": "7"}
    assert (await chain.account(b"\x05" * 32)).status is Status.UNINIT
    assert fake.seen[-1][1]["address"] == "0:" + "05" * 32


@pytest.mark.parametrize(
    "broken",
    [
        None,
        [],
        "text",
        {},
        state(balance=None),
        state(balance=True),
        state(balance="1e3"),
        state(balance="9" * 50),
        state(code="%%%"),
        state(code=b64(b"junk")),
        state(code=""),
        state(state="happy"),
        state(state=5),
        state(last_transaction_id=None),
        state(last_transaction_id={"lt": "9", "hash": b64(b"\x03" * 31)}),
        state(last_transaction_id={"lt": "0", "hash": b64(b"\x03" * 32)}),
        state(last_transaction_id={"lt": "9", "hash": b64(bytes(32))}),
    ],
)
async def test_g17_a_malformed_state_is_an_error_never_an_empty_account(
    chain: Toncenter, fake: Fake, broken: object
) -> None:
    fake.answers["getAddressInformation"] = broken
    with pytest.raises(ChainError, match=r"^A answered with"):
        await chain.account(b"\x05" * 32)


async def raw(body: bytes, status: int = 200, **headers: str) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("status", [200, 500, 404, 302])
async def test_g17_junk_is_an_error(impatient: Toncenter, fake: Fake, body: bytes, status: int) -> None:
    fake.answers["getMasterchainInfo"] = lambda _: raw(body, status)
    with pytest.raises(ChainError):
        await impatient.head()


async def test_g17_a_dead_endpoint_is_unreachable_never_absent(wallet: Wallet) -> None:
    chain = Toncenter("http://127.0.0.1:1", timeout_seconds=0.5)
    with pytest.raises(Unreachable, match="check the endpoint"):
        await chain.account(wallet.account)
    await chain.close()


async def test_g18_a_hanging_endpoint_ends_within_the_timeout(impatient: Toncenter, fake: Fake) -> None:
    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(30)
        return web.Response()

    fake.answers["getMasterchainInfo"] = hang
    started = time.monotonic()
    with pytest.raises(Unreachable):
        await impatient.head()
    assert time.monotonic() - started < 10.0


async def test_a_cut_answer_is_unreachable(impatient: Toncenter, fake: Fake) -> None:
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"ok": true')
        assert request.transport is not None
        request.transport.close()
        return response

    fake.answers["getMasterchainInfo"] = cut
    with pytest.raises(Unreachable):
        await impatient.head()


async def test_an_outage_shorter_than_the_timeout_is_waited_through(chain: Toncenter, fake: Fake) -> None:
    calls = 0

    async def flaky(_: web.Request) -> web.Response:
        nonlocal calls
        calls += 1
        if calls < 3:
            return await raw(b"busy", 503 if calls == 1 else 429, **{"Retry-After": "0"})
        return web.json_response({"ok": True, "result": {"last": BLOCK}})

    fake.answers["getMasterchainInfo"] = flaky
    assert (await chain.head()).block.seqno == 7
    assert calls == 3


async def test_another_network_is_refused_before_anything_is_believed(fake: Fake) -> None:
    fake.answers["getAddressInformation"] = state()
    chain = Toncenter(fake.url, global_id=-239, name="A")
    with pytest.raises(ChainError, match="serves network -7001, the profile says -239"):
        await chain.account(b"\x05" * 32)
    await chain.close()


async def test_a_header_of_another_block_is_a_lie(chain: Toncenter, fake: Fake) -> None:
    fake.answers["getBlockHeader"] = HEADER | {"id": BLOCK | {"root_hash": b64(b"\x09" * 32)}}
    with pytest.raises(ChainError, match="two block ids"):
        await chain.head()


async def test_transactions(chain: Toncenter, fake: Fake, wallet: Wallet, history: list[Transaction]) -> None:
    fake.answers["getTransactions"] = [row(tx) for tx in history]
    head = history[0]
    found = await chain.transactions(wallet.account, lt=head.lt, hash=head.hash, limit=3)
    assert [tx.hash for tx in found] == [tx.hash for tx in history[:3]]
    query = fake.seen[-1][1]
    assert (query["lt"], query["hash"], query["limit"]) == (str(head.lt), b64(head.hash), "3")


def without(rows: list[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    return rows[:index] + rows[index + 1 :]


async def test_g17_transactions_that_do_not_prove_themselves_are_refused(
    chain: Toncenter, fake: Fake, wallet: Wallet, history: list[Transaction]
) -> None:
    rows = [row(tx) for tx in history]
    swapped = [rows[0] | {"transaction_id": rows[1]["transaction_id"]}, *rows[1:]]
    wrong_lt = [rows[0] | {"transaction_id": rows[0]["transaction_id"] | {"lt": "5"}}, *rows[1:]]
    wrong_hash = [rows[0] | {"transaction_id": rows[0]["transaction_id"] | {"hash": b64(b"\x09" * 32)}}, *rows[1:]]
    lies: list[Any] = [
        wrong_hash,
        [],
        without(rows, 0),
        without(rows, 1),
        rows[::-1],
        [rows[0], rows[0]],
        swapped,
        wrong_lt,
    ]
    lies += [None, {}, [None], [{}], [rows[0] | {"data": ""}], [rows[0] | {"data": b64(b"junk")}]]
    for lie in lies:
        fake.answers["getTransactions"] = lie
        with pytest.raises(ChainError):
            await chain.transactions(wallet.account, lt=history[0].lt, hash=history[0].hash, limit=10)


async def test_send_reports_the_chains_own_refusal_once(chain: Toncenter, fake: Fake) -> None:
    async def refuse(_: web.Request) -> web.Response:
        text = "LITE_SERVER_UNKNOWN: cannot apply external message to current state : exitcode=33"
        return web.json_response({"ok": False, "error": text, "code": 500}, status=500)

    fake.answers["sendBocReturnHash"] = refuse
    with pytest.raises(Refused, match="exitcode=33"):
        await chain.send(begin_cell().end_cell())
    assert [seen[0] for seen in fake.seen].count("sendBocReturnHash") == 1


async def test_a_broadcast_whose_answer_is_lost_is_not_repeated(chain: Toncenter, fake: Fake) -> None:
    async def vanish(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    fake.answers["sendBocReturnHash"] = vanish
    with pytest.raises(Unreachable):
        await chain.send(begin_cell().end_cell())
    assert [seen[0] for seen in fake.seen].count("sendBocReturnHash") == 1


async def test_a_server_that_is_behind_is_unreachable_not_a_refusal(chain: Toncenter, fake: Fake) -> None:
    async def behind(_: web.Request) -> web.Response:
        error = "LITE_SERVER_NOTREADY: block is not applied"
        return web.json_response({"ok": False, "error": error, "code": 500}, status=500)

    fake.answers["getMasterchainInfo"] = behind
    with pytest.raises(Unreachable, match="try again"):
        await chain.head()


async def test_g19_the_api_key_is_sent_and_never_shown(fake: Fake, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("s3cret-key\n")
    key.chmod(0o600)
    chain = Toncenter(fake.url, api_key_file=key)
    await chain.head()
    assert fake.seen[-1][2] == "s3cret-key"
    fake.answers["getMasterchainInfo"] = None
    with pytest.raises(ChainError) as caught:
        await chain.head()
    assert "s3cret" not in str(caught.value) + repr(chain.__dict__)
    await chain.close()
    key.chmod(0o644)
    with pytest.raises(PermissionError, match="chmod 600"):
        Toncenter(fake.url, api_key_file=key)
    with pytest.raises(ValueError, match="api_key_file") as url_error:
        Toncenter("http://user:s3cret@host/api/v2")
    assert "s3cret" not in str(url_error.value)


async def test_requests_are_spaced_to_the_allowed_rate(fake: Fake) -> None:
    chain = Toncenter(fake.url, requests_per_second=20)
    started = time.monotonic()
    await asyncio.gather(chain.head(), chain.head())
    assert time.monotonic() - started >= 0.14
    await chain.close()
