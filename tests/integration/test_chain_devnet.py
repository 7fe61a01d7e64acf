"""Chain backends, quorum, follower and wallet over real sockets against the devnet, whose endpoints lie and die."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Cell, begin_cell
from pytoniq_core.proof.check_proof import check_account_proof
from pytoniq_core.tl.block import BlockIdExt

from chain.api import ChainError, Disagreement, Refused, Status, Transaction, Unreachable
from chain.config import Network, connect
from chain.decode import DecodeError
from chain.follower import AccountFollower, AccountGone, Cursor, HistoryMismatch
from chain.history import cursor_of
from chain.liteserver import LiteServer
from chain.proof import ProvedAccount, prove_account
from chain.quorum import Quorum
from chain.sent import COMMIT_MARGIN_SECONDS
from chain.toncenter import Toncenter
from chain.wait import until, wait_for_transaction
from chain.wallet import Expired, Outgoing, Sent, Wallet
from devnet.control import Control
from devnet.network import DEVNET_GLOBAL_ID
from devnet.node import Devnet
from wrappers.cells import address_of, to_boc

TON = 10**9
OTHER = b"\x11" * 32
NOBODY = {"lt": "0", "hash": ""}
EMPTY = {"state": "uninitialized", "code": "", "data": "", "balance": "0", "last_transaction_id": NOBODY}


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    async with Devnet(block_seconds=0.05, idle_seconds=0.2) as node:
        yield node


@pytest.fixture
async def control(devnet: Devnet) -> AsyncIterator[Control]:
    async with Control(devnet.endpoints.control) as client:
        yield client


@pytest.fixture
async def chain(devnet: Devnet) -> AsyncIterator[Quorum]:
    quorum = connect(Network("devnet", DEVNET_GLOBAL_ID, devnet.endpoints.toncenter))
    yield quorum
    await quorum.close()


@pytest.fixture
async def lite(devnet: Devnet) -> AsyncIterator[LiteServer]:
    server = LiteServer(devnet.endpoints.global_config, global_id=DEVNET_GLOBAL_ID, timeout_seconds=5)
    yield server
    await server.close()


@pytest.fixture
async def wallet(control: Control) -> Wallet:
    owner = Wallet(Ed25519PrivateKey.generate())
    await control.faucet(owner.account, 100 * TON)
    return owner


async def pay(wallet: Wallet, chain: Quorum, *amounts_nano: int) -> Transaction:
    sent = await wallet.send(chain, [Outgoing(OTHER, amount, bounce=False) for amount in amounts_nano])
    return await sent.landed(chain, interval_seconds=0.05, timeout_seconds=20)


async def test_deploy_pay_and_follow(wallet: Wallet, chain: Quorum) -> None:
    follower = await AccountFollower.from_now(chain, OTHER)
    first = await pay(wallet, chain, TON, 2 * TON)
    second = await pay(wallet, chain, 5)
    assert second.lt > first.lt and len(first.out_msgs) == 2
    found = await wait_for_transaction(
        follower, lambda tx: tx.in_msg is not None and tx.in_msg.value_nano == 5, 10, interval_seconds=0.05
    )
    assert found.in_msg is not None and found.in_msg.source == wallet.account
    whole = AccountFollower(chain, wallet.account)
    rows = await whole.poll()
    assert [first.hash, second.hash] == [row.hash for row in rows if row.in_msg is not None and row.in_msg.external]
    assert (await chain.account(wallet.account)).status is Status.ACTIVE
    assert (await chain.account(b"\x77" * 32)).status is Status.ABSENT


@pytest.mark.parametrize(
    "patch",
    [
        {
            "state": "uninitialized",
            "code": "",
            "data": "",
            "balance": "0",
            "last_transaction_id": {"lt": "0", "hash": ""},
        },
        {"balance": "1"},
        {"state": "frozen"},
    ],
)
async def test_g17_a_lying_endpoint_is_a_disagreement_and_decides_nothing(
    wallet: Wallet, chain: Quorum, control: Control, devnet: Devnet, patch: dict[str, Any]
) -> None:
    await pay(wallet, chain, TON)
    impatient = Quorum([Toncenter(url) for url in devnet.endpoints.toncenter], settle_seconds=0.5)
    await control.faults("toncenter-2", [{"kind": "lie", "method": "getAddressInformation", "patch": patch}])
    with pytest.raises(Disagreement):
        await impatient.account(wallet.account)
    await control.faults("toncenter-2", [])
    assert (await impatient.account(wallet.account)).status is Status.ACTIVE
    await impatient.close()


@pytest.mark.parametrize("kind", ["drop", "error"])
async def test_g17_a_dead_endpoint_stops_decisions_but_not_reading_history(
    wallet: Wallet, chain: Quorum, control: Control, devnet: Devnet, kind: str
) -> None:
    done = await pay(wallet, chain, TON)
    short = Quorum([Toncenter(url, timeout_seconds=0.5) for url in devnet.endpoints.toncenter], settle_seconds=0.5)
    await control.faults("toncenter", [{"kind": kind}])
    with pytest.raises(Unreachable, match="only 1 of the 2"):
        await short.account(wallet.account)
    assert await short.transactions(wallet.account, lt=done.lt, hash=done.hash, limit=5)
    await control.faults("toncenter", [])
    assert (await short.account(wallet.account)).last_lt == done.lt
    await short.close()


async def test_g17_a_late_endpoint_is_waited_for(wallet: Wallet, chain: Quorum, control: Control) -> None:
    await control.faults("toncenter", [{"kind": "delay", "seconds": 0.4, "times": 3}])
    assert (await chain.account(wallet.account)).balance_nano == 100 * TON


async def test_g16_messages_lost_by_both_endpoints_expire_on_the_chains_clock(
    wallet: Wallet, chain: Quorum, control: Control
) -> None:
    fault = {"kind": "error", "method": "sendBocReturnHash", "error": "LITE_SERVER_NETWORK"}
    sent = await wallet.prepare(chain, [Outgoing(OTHER, TON, bounce=False)])
    for listener in ("toncenter", "toncenter-2"):
        await control.faults(listener, [fault])
    with pytest.raises(ChainError):
        await chain.send(sent.message)
    await control.advance(61 + COMMIT_MARGIN_SECONDS)
    with pytest.raises(Expired):
        await sent.landed(chain, interval_seconds=0.05, timeout_seconds=20)
    for listener in ("toncenter", "toncenter-2"):
        await control.faults(listener, [])
    with pytest.raises(Refused):
        await chain.send(sent.message)
    assert (await chain.account(OTHER)).status is Status.ABSENT


async def test_the_liteserver_proves_the_same_as_both_toncenters_say(
    wallet: Wallet, chain: Quorum, lite: LiteServer
) -> None:
    done = await pay(wallet, chain, TON)
    said = await chain.account(wallet.account)
    assert await lite.account(wallet.account) == said
    absent = await lite.account(b"\x77" * 32)
    assert absent.status is Status.ABSENT and absent == await chain.account(b"\x77" * 32)
    assert [tx.hash for tx in await lite.transactions(wallet.account, lt=done.lt, hash=done.hash, limit=50)] == [
        tx.hash for tx in await chain.transactions(wallet.account, lt=done.lt, hash=done.hash, limit=50)
    ]
    head, other = await lite.head(), await chain.head()
    assert abs(head.block.seqno - other.block.seqno) < 20 and abs(head.now - other.now) < 20
    with pytest.raises(ChainError):
        await lite.transactions(wallet.account, lt=done.lt, hash=b"\x09" * 32, limit=5)


async def test_a_toncenter_and_a_liteserver_make_a_quorum(wallet: Wallet, devnet: Devnet, lite: LiteServer) -> None:
    mixed = Quorum([Toncenter(devnet.endpoints.toncenter[0]), lite])
    done = await pay(wallet, mixed, TON, TON)
    assert (await mixed.account(wallet.account)).last_lt == done.lt
    sent = await wallet.prepare(mixed, [Outgoing(OTHER, 1, bounce=False)])
    await lite.send(sent.message)
    assert await sent.landed(mixed, interval_seconds=0.05, timeout_seconds=20)
    with pytest.raises(Refused):
        await lite.send(sent.message)
    await mixed.close()


async def test_a_liteserver_reads_its_configuration_from_a_url(devnet: Devnet, wallet: Wallet) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(devnet.endpoints.global_config if request.path == "/global.config.json" else [])

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    good, bad = LiteServer(url + "global.config.json"), LiteServer(url + "other")
    assert (await good.account(wallet.account)).balance_nano == 100 * TON
    with pytest.raises(ChainError, match=r"global-config\.json"):
        await bad.head()
    await asyncio.gather(good.close(), bad.close(), runner.cleanup())


async def test_another_networks_endpoints_are_refused(devnet: Devnet) -> None:
    with pytest.raises(ChainError, match="serves network"):
        await LiteServer(devnet.endpoints.global_config, global_id=-239).account(OTHER)
    wrong = connect(Network("mainnet", -239, devnet.endpoints.toncenter))
    with pytest.raises(ChainError, match="serves network"):
        await wrong.account(OTHER)
    await wrong.close()


class Listening(LiteServer):
    """Keeps the raw answers."""

    answers: list[tuple[Any, Any]]

    def _proved_state(self, block: Any, answer: Any, account: bytes) -> Any:
        self.answers.append((block, answer))
        return super()._proved_state(block, answer, account)


async def test_g17_a_proof_that_is_altered_anywhere_proves_nothing(
    devnet: Devnet, wallet: Wallet, chain: Quorum
) -> None:
    await pay(wallet, chain, TON)
    server = Listening(devnet.endpoints.global_config)
    server.answers = []
    state = await server.account(wallet.account)
    await server.account(b"\x77" * 32)
    await server.close()
    (block, present), (_, missing) = server.answers
    whole: dict[str, Any] = {
        "block_hash": bytes(block.root_hash),
        "shard_proof": present["shard_proof"],
        "account_proof": present["proof"],
        "account": wallet.account,
    }
    truth = prove_account(**whole)
    assert (truth.last_lt, truth.last_hash) == (state.last_lt, state.last_hash)
    dice = random.Random(7)
    refused = 0
    for part in ("shard_proof", "account_proof", "block_hash"):
        for _ in range(60):
            altered = bytearray(whole[part])
            altered[dice.randrange(len(altered))] ^= 1 << dice.randrange(8)
            told = proof_or_none(**{**whole, part: bytes(altered)})
            assert told in (truth, None), "an altered proof told something else"
            refused += told is None
        assert proof_or_none(**{**whole, part: b"" if part != "block_hash" else b"\x01" * 32}) is None
    assert refused > 150, "only bits of the bag's framing may be harmless"
    assert proof_or_none(**{**whole, "account_proof": missing["proof"][:-1]}) is None


async def test_g17_a_state_grafted_under_a_true_block_by_a_two_level_pruned_cell_is_refused(
    devnet: Devnet, wallet: Wallet, chain: Quorum
) -> None:
    """The block's hash covers the state update's references at level 1 only; pytoniq's own check falls for this."""
    server = Listening(devnet.endpoints.global_config)
    server.answers = []
    await server.account(wallet.account)
    await pay(wallet, chain, TON)
    await server.account(wallet.account)
    await server.close()
    (_, old), (block, new) = server.answers
    old_roots, new_roots = Cell.from_boc(old["proof"]), Cell.from_boc(new["proof"])
    header, false_state = new_roots[0].refs[0], old_roots[1].refs[0]
    update = header.refs[2]
    true_ref = update.refs[1]
    bits = begin_cell().store_uint(1, 8).store_uint(3, 8)
    bits.store_bytes(false_state.get_hash(0)).store_bytes(true_ref.get_hash(1))
    bits.store_uint(false_state.get_depth(0), 16).store_uint(true_ref.get_depth(1), 16)
    graft = Cell(bits.end_cell().bits, [], 1)
    forged_update = Cell(update.bits, [update.refs[0], graft], 4)
    forged_header = Cell(header.bits, [*header.refs[:2], forged_update, header.refs[3]])
    assert forged_header.get_hash(0) == header.get_hash(0), "the forgery keeps the block's hash"
    forged = to_boc(Cell(new_roots[0].bits, [forged_header], 3), old_roots[1])
    shard_block = BlockIdExt.from_dict(new["shardblk"])
    old_state = Cell.one_from_boc(old["state"])
    check_account_proof(forged, shard_block, address_of(wallet.account), old_state)  # no error: pytoniq believes it
    whole = {"block_hash": bytes(block.root_hash), "shard_proof": new["shard_proof"], "account": wallet.account}
    assert proof_or_none(**whole, account_proof=new["proof"]) is not None
    with pytest.raises(DecodeError, match="not the state after its block"):
        prove_account(**whole, account_proof=forged)


def proof_or_none(**proof: Any) -> ProvedAccount | None:
    try:
        return prove_account(**proof)
    except DecodeError:
        return None


async def test_g17_absence_without_a_proof_is_not_believed(devnet: Devnet, wallet: Wallet) -> None:
    class Liar(LiteServer):
        def _proved_state(self, block: Any, answer: Any, account: bytes) -> Any:
            return super()._proved_state(block, {**answer, "state": b"", "proof": b"", "shard_proof": b""}, account)

    liar = Liar(devnet.endpoints.global_config)
    with pytest.raises(ChainError, match="false proof"):
        await liar.account(wallet.account)
    await liar.close()


async def test_g16_everything_resumes_after_the_chain_was_restarted(tmp_path: Path) -> None:
    owner = Wallet(Ed25519PrivateKey.generate())
    async with Devnet(tmp_path, block_seconds=0.05) as node:
        ports = [int(url.split(":")[2].split("/")[0]) for url in node.endpoints.toncenter]
        lite_port = node.endpoints.lite_port
        chain = connect(Network("devnet", DEVNET_GLOBAL_ID, node.endpoints.toncenter))
        lite = LiteServer(tmp_path / "global.config.json", timeout_seconds=3)
        async with Control(node.endpoints.control) as control:
            await control.faucet(owner.account, 10 * TON)
        follower = AccountFollower(chain, owner.account)
        done = await pay(owner, chain, TON)
        await follower.poll()
        assert follower.cursor == cursor_of(done)
        assert (await lite.account(owner.account)).last_lt == done.lt
        sent: Sent = await owner.prepare(chain, [Outgoing(OTHER, TON, bounce=False)])
    with pytest.raises(Unreachable):
        await lite.account(owner.account)
    async with Devnet(tmp_path, port=ports[0], second_port=ports[1], lite_port=lite_port, block_seconds=0.05):

        async def again() -> bool | None:
            return (await lite.account(owner.account)).last_lt == done.lt or None

        assert await until(again, what="the liteserver", timeout_seconds=10)
        assert await follower.poll() == ()
        await chain.send(sent.message)
        await sent.landed(chain, interval_seconds=0.05, timeout_seconds=20)
        assert len(await AccountFollower(chain, owner.account, cursor_of(done)).poll()) == 1
    await asyncio.gather(chain.close(), lite.close())


async def test_g17_a_reset_chain_is_told_apart_from_an_idle_one(
    wallet: Wallet, chain: Quorum, control: Control
) -> None:
    await pay(wallet, chain, TON)
    follower = AccountFollower(chain, wallet.account)
    snapshot = await control.snapshot()
    await pay(wallet, chain, 1)
    await follower.poll()
    await control.revert(snapshot)
    await pay(Wallet(wallet._key), chain, 2)
    with pytest.raises(HistoryMismatch):
        await follower.poll()
    with pytest.raises(AccountGone):
        await AccountFollower(chain, b"\x77" * 32, Cursor(5, b"\x05" * 32)).poll()
