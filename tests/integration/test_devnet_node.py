"""Unmodified clients against the whole devnet, and what survives faults, restarts and time."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pytoniq import LiteClient
from pytoniq import WalletV4R2 as LiteWallet
from pytoniq_core import Address
from ton_core import ContractState, NetworkGlobalID
from tonutils.clients import ToncenterClient
from tonutils.contracts import WalletV4R2, WalletV5R1

from devnet.control import Control
from devnet.engine import DevnetError
from devnet.node import Devnet

TON = 10**9
RECEIVER = bytes([0x77]) * 32


@pytest.fixture
async def devnet() -> AsyncIterator[Devnet]:
    async with Devnet(block_seconds=0.02, idle_seconds=0.1) as node:
        yield node


@pytest.fixture
async def control(devnet: Devnet) -> AsyncIterator[Control]:
    async with Control(devnet.endpoints.control) as client:
        yield client


@pytest.fixture
async def toncenter(devnet: Devnet) -> AsyncIterator[ToncenterClient]:
    client = ToncenterClient(NetworkGlobalID.TESTNET, base_url=devnet.endpoints.toncenter[0], rps_limit=1000)
    await client.connect()
    yield client
    await client.close()


def account_of(wallet: Any) -> bytes:
    return bytes(wallet.address.hash_part)


async def until(condition: Any, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 the condition is a remote chain
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kind", [WalletV4R2, WalletV5R1])
async def test_tonutils_deploys_a_wallet_and_transfers(
    devnet: Devnet, control: Control, toncenter: ToncenterClient, kind: Any
) -> None:
    wallet, *_ = kind.create(toncenter)
    await control.faucet(account_of(wallet), 5 * TON)
    await wallet.refresh()
    assert wallet.balance == 5 * TON
    await wallet.transfer(destination=f"0:{RECEIVER.hex()}", amount=TON // 10, body="hello", bounce=False)

    async def landed() -> bool:
        return (await toncenter.get_info(f"0:{RECEIVER.hex()}")).balance > 0

    await until(landed)
    await wallet.refresh()
    assert wallet.state == ContractState.ACTIVE
    assert await wallet.seqno() == 1
    history = await toncenter.get_transactions(wallet.address, limit=10)
    assert len(history) == 2
    assert history[0].prev_trans_lt == history[1].lt
    received = devnet.chain.history(RECEIVER)[0]
    fees = sum(tx.total_fees_nano for tx in devnet.chain.history(account_of(wallet))) + received.total_fees_nano
    fees += received.in_msg.forward_fee_nano if received.in_msg else 0
    assert wallet.balance + devnet.chain.ledger.balance(RECEIVER) + fees == 5 * TON


@pytest.mark.parametrize("trust_level", [2, 1])
async def test_pytoniq_deploys_transfers_and_checks_proofs(devnet: Devnet, control: Control, trust_level: int) -> None:
    client = LiteClient.from_config(devnet.endpoints.global_config, 0, trust_level=trust_level)
    await client.connect()
    try:
        wallet = await LiteWallet.from_private_key(client, _private_key(trust_level))
        account = bytes(wallet.address.hash_part)
        await control.faucet(account, 5 * TON)
        await _follow(client, devnet)
        # raw_get_account_state always runs check_account_proof; below trust level 2 also check_shard_proof.
        state, shard_account = await client.raw_get_account_state(wallet.address)
        assert state.storage.balance.grams == devnet.chain.ledger.balance(account) == 5 * TON
        assert shard_account.last_trans_hash == devnet.chain.ledger.account(account).last_hash
        assert await client.raw_get_account_state(Address((0, b"\x01" * 32))) == (None, None)
        await wallet.send_init_external()
        await until(lambda: _active(devnet, account))
        await _follow(client, devnet)
        wallet = await LiteWallet.from_private_key(client, _private_key(trust_level))
        assert await wallet.get_seqno() == 1
        await wallet.transfer(destination=Address((0, RECEIVER)), amount=TON, body="hello")
        await until(lambda: _credited(devnet))
        await _follow(client, devnet)
        transactions = await client.get_transactions(wallet.address, 10)
        assert [tx.lt for tx in transactions] == [tx.lt for tx in reversed(devnet.chain.history(account))]
        seqno = devnet.chain.located[transactions[0].cell.hash].seqno
        block, _ = await client.lookup_block(0, -(1 << 63), seqno)
        listed = await client.raw_get_block_transactions(block)
        assert transactions[0].lt in {entry["lt"] for entry in listed}
        assert len(await client.raw_get_block_transactions_ext(block)) == len(listed)
        assert (await client.get_one_transaction(wallet.address, transactions[0].lt, block)).lt == transactions[0].lt
        assert (await client.get_all_shards_info())[0].workchain == 0
        assert 19 in await client.get_config_all()
    finally:
        await client.close()


async def _active(devnet: Devnet, account: bytes) -> bool:
    return devnet.chain.ledger.account(account).code is not None


async def _credited(devnet: Devnet) -> bool:
    return devnet.chain.ledger.balance(RECEIVER) > 0


async def _follow(client: LiteClient, devnet: Devnet) -> None:
    head = devnet.chain.head.master.seqno

    async def there() -> bool:
        return bool(client.last_mc_block.seqno >= head)

    await until(there)


def _private_key(number: int) -> bytes:
    from nacl.signing import SigningKey

    key = SigningKey(bytes([number]) * 32)
    return key.encode() + key.verify_key.encode()


async def test_a_proof_of_another_account_is_refused_by_pytoniq(devnet: Devnet, control: Control) -> None:
    from pytoniq_core.proof.check_proof import ProofError

    await control.faucet(RECEIVER, TON)
    await control.faucet(bytes([0x78]) * 32, 2 * TON)
    client = LiteClient.from_config(devnet.endpoints.global_config, 0, trust_level=1)
    await client.connect()
    try:
        request = client.liteserver_request

        async def swapped(name: str, data: dict[str, Any]) -> Any:
            answer = await request(name, data)
            if name == "getAccountState":
                other = {**data, "account": {"workchain": 0, "id": (bytes([0x78]) * 32).hex()}}
                answer["state"] = (await request(name, other))["state"]
            return answer

        client.liteserver_request = swapped
        with pytest.raises(ProofError):
            await client.raw_get_account_state(Address((0, RECEIVER)))
    finally:
        await client.close()


async def _ask(url: str, method: str, **params: Any) -> tuple[int, dict[str, Any]]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/{method}", params=params) as response:
        return response.status, await response.json()


async def test_json_rpc_and_rest_answer_alike(devnet: Devnet, control: Control) -> None:
    await control.faucet(RECEIVER, TON)
    url = devnet.endpoints.toncenter[0]
    address = f"0:{RECEIVER.hex()}"
    async with aiohttp.ClientSession() as session:
        query = {"id": 7, "jsonrpc": "2.0", "method": "getTransactions", "params": {"address": address, "limit": 5}}
        async with session.post(f"{url}/jsonRPC", json=query) as response:
            rpc = await response.json()
    status, rest = await _ask(url, "getTransactions", address=address, limit=5)
    assert (status, rpc["id"], rpc["ok"]) == (200, 7, True)
    assert rest["result"] == rpc["result"]
    assert rest["result"][0]["in_msg"]["value"] == str(TON)


async def test_every_read_method_answers(devnet: Devnet) -> None:
    address = f"0:{RECEIVER.hex()}"
    questions: list[tuple[str, dict[str, Any]]] = [
        ("getMasterchainInfo", {}),
        ("getConsensusBlock", {}),
        ("getAddressInformation", {"address": address}),
        ("getExtendedAddressInformation", {"address": address}),
        ("getWalletInformation", {"address": address}),
        ("getAddressBalance", {"address": address}),
        ("getAddressState", {"address": address}),
        ("getTransactions", {"address": address}),
        ("shards", {"seqno": 50}),
        ("lookupBlock", {"workchain": -1, "seqno": 100}),
        ("lookupBlock", {"workchain": 0, "unixtime": 1}),
        ("lookupBlock", {"workchain": 0, "lt": 1}),
        ("getBlockHeader", {"workchain": -1, "seqno": 100}),
        ("getBlockTransactions", {"workchain": 0, "seqno": 50}),
        ("getBlockTransactionsExt", {"workchain": 0, "seqno": 50}),
        ("getConfigAll", {}),
        ("getConfigParam", {"config_id": 19}),
        ("getLibraries", {}),
        ("packAddress", {"address": address}),
        ("unpackAddress", {"address": address}),
    ]
    for method, params in questions:
        status, answer = await _ask(devnet.endpoints.toncenter[1], method, **params)
        assert (status, answer["ok"]) == (200, True), (method, answer)


async def test_g18_bad_questions_get_an_error_that_names_the_cause(devnet: Devnet) -> None:
    questions: list[tuple[str, dict[str, Any], str]] = [
        ("getAddressInformation", {}, "address"),
        ("getAddressInformation", {"address": "nonsense"}, "nonsense"),
        ("getAddressInformation", {"address": "-1:" + "00" * 32}, "workchain 0 only"),
        ("getTransactions", {"address": "0:" + "00" * 32, "limit": "many"}, "limit"),
        ("getTransactions", {"address": "0:" + "00" * 32, "lt": 5}, "cannot locate"),
        ("sendBoc", {"boc": "AAAA"}, "bag of cells"),
        ("sendBoc", {"boc": "?"}, "neither hex nor base64"),
        ("getBlockHeader", {"workchain": 0, "seqno": 10**9}, "does not exist"),
        ("inventMoney", {}, "unknown method"),
    ]
    for method, params, named in questions:
        status, answer = await _ask(devnet.endpoints.toncenter[0], method, **params)
        assert status >= 400, method
        assert not answer["ok"]
        assert named in answer["error"]


async def test_faults_belong_to_one_listener_and_end(devnet: Devnet, control: Control) -> None:
    await control.faucet(RECEIVER, TON)
    first, second = devnet.endpoints.toncenter
    address = f"0:{RECEIVER.hex()}"
    absent = {"state": "uninitialized", "balance": "0", "code": "", "data": ""}
    await control.faults(
        "toncenter", [{"kind": "lie", "method": "getAddressInformation", "account": address, "patch": absent}]
    )
    assert (await _ask(first, "getAddressInformation", address=address))[1]["result"]["balance"] == "0"
    assert (await _ask(first, "getAddressInformation", address="0:" + "00" * 32))[1]["result"]["balance"] == "0"
    assert (await _ask(second, "getAddressInformation", address=address))[1]["result"]["balance"] == str(TON)
    await control.faults("toncenter", [{"kind": "error", "status": 503, "error": "busy", "times": 1}])
    assert (await _ask(first, "getMasterchainInfo"))[0] == 503
    assert (await _ask(first, "getMasterchainInfo"))[0] == 200
    await control.faults("toncenter", [{"kind": "drop"}])
    with pytest.raises(aiohttp.ClientError):
        await _ask(first, "getMasterchainInfo")
    await control.faults("toncenter", [{"kind": "delay", "seconds": 0.3}])
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(_ask(first, "getMasterchainInfo"), 0.1)
    await control.faults("toncenter", [])
    assert (await _ask(first, "getMasterchainInfo"))[0] == 200
    with pytest.raises(DevnetError, match="cannot lie"):
        await control.faults("liteserver", [{"kind": "lie"}])
    with pytest.raises(DevnetError, match="no listener"):
        await control.faults("toncenter-3", [])
    with pytest.raises(DevnetError, match="kind is one of"):
        await control.faults("toncenter", [{"kind": "sulk"}])


async def test_liteserver_faults(devnet: Devnet, control: Control) -> None:
    client = LiteClient.from_config(devnet.endpoints.global_config, 0, trust_level=2)
    await client.connect()
    try:
        await control.faults("liteserver", [{"kind": "error", "method": "getTime", "error": "out of order"}])
        with pytest.raises(Exception, match="out of order"):
            await client.get_time()
    finally:
        await client.close()


async def test_time_travel_and_revert(devnet: Devnet, control: Control) -> None:
    await control.faucet(RECEIVER, TON)
    before = devnet.chain.head.master.now
    snapshot = await control.snapshot()
    assert await control.advance(86_400) >= before + 86_400
    await control.faucet(RECEIVER, TON)
    for _ in range(2):
        await control.revert(snapshot)
        assert devnet.chain.ledger.balance(RECEIVER) == TON
        assert len(devnet.chain.history(RECEIVER)) == 1
        assert devnet.chain.now() < before + 86_400
        await control.faucet(RECEIVER, 3 * TON)
        assert devnet.chain.ledger.balance(RECEIVER) == 4 * TON
    with pytest.raises(DevnetError, match="no snapshot"):
        await control.revert(9)


async def test_accounts_transactions_and_blocks_survive_a_restart(tmp_path: Path) -> None:
    async with Devnet(tmp_path, block_seconds=0.02, idle_seconds=0.05) as node:
        async with Control(node.endpoints.control) as control:
            await control.faucet(RECEIVER, TON)
            await control.advance(1000)
        saved = node.chain.ledger.account(RECEIVER)
        history = node.chain.history(RECEIVER)
        located = node.chain.located[history[0].hash]
        key = node.endpoints.global_config["liteservers"][0]["id"]
        hundred = node.chain.sparse_id(100)
    head = node.chain.head.master
    async with Devnet(tmp_path, block_seconds=0.02, idle_seconds=0.05) as node:
        assert node.chain.block(-1, head.seqno).id == head.id
        assert node.chain.ledger.account(RECEIVER) == saved
        assert node.chain.history(RECEIVER) == history
        assert node.chain.located[history[0].hash] == located
        assert node.chain.sparse_id(100) == hundred
        assert node.chain.offset_seconds == 1000
        assert node.endpoints.global_config["liteservers"][0]["id"] == key
        async with Control(node.endpoints.control) as control:
            await control.faucet(RECEIVER, TON)
        assert node.chain.history(RECEIVER)[1].prev_hash == history[0].hash
        client = LiteClient.from_config(node.endpoints.global_config, 0, trust_level=1)
        await client.connect()
        try:
            state, _ = await client.raw_get_account_state(Address((0, RECEIVER)))
            assert state.storage.balance.grams == node.chain.ledger.balance(RECEIVER)
        finally:
            await client.close()


async def test_a_revert_survives_a_restart(tmp_path: Path) -> None:
    async with Devnet(tmp_path, block_seconds=5, kept_rounds=20) as node:
        async with Control(node.endpoints.control) as control:
            await control.faucet(RECEIVER, TON)
            await control.mine(30)
            snapshot = await control.snapshot()
            await control.faucet(RECEIVER, TON)
            await control.revert(snapshot)
        head = node.chain.head.master.id
    async with Devnet(tmp_path, block_seconds=5, kept_rounds=20) as node:
        assert node.chain.head.master.id == head
        assert node.chain.ledger.balance(RECEIVER) == TON
        assert len(node.chain.history(RECEIVER)) == 1
        assert len(node.chain.rounds) == 20
        assert node.chain.sparse_id(100) is not None


async def test_kill_loses_nothing_that_was_in_a_block(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "devnet", "--state", str(tmp_path), "--block-seconds", "0.02"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    ready = json.loads(await asyncio.wait_for(process.stdout.readline(), 20))
    async with Control(ready["control"]) as control:
        await control.faucet(RECEIVER, 7 * TON)
    process.kill()
    await process.wait()
    async with Devnet(tmp_path) as node:
        assert node.chain.ledger.balance(RECEIVER) == 7 * TON


def test_a_state_directory_serves_one_devnet_and_one_network(tmp_path: Path) -> None:
    node = Devnet(tmp_path)
    with pytest.raises(DevnetError, match="another devnet"):
        Devnet(tmp_path)
    asyncio.run(node.close())
    with pytest.raises(DevnetError, match="another state directory"):
        Devnet(tmp_path, global_id=-3)


async def test_a_taken_port_is_an_error_and_leaves_the_state_free(devnet: Devnet, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        async with Devnet(tmp_path, lite_port=devnet.endpoints.lite_port):
            pass
    async with Devnet(tmp_path) as node:
        assert node.chain.head.master.seqno > 100


async def test_a_message_that_fails_is_refused_at_once(devnet: Devnet, toncenter: ToncenterClient) -> None:
    wallet, *_ = WalletV4R2.create(toncenter)
    with pytest.raises(Exception, match="cannot apply external message"):
        await wallet.transfer(destination=f"0:{RECEIVER.hex()}", amount=1, body="nobody pays for this")
    assert devnet.chain.history(account_of(wallet)) == []


async def test_transactions_can_be_located_by_their_messages(
    devnet: Devnet, control: Control, toncenter: ToncenterClient
) -> None:
    wallet, *_ = WalletV4R2.create(toncenter)
    await control.faucet(account_of(wallet), 5 * TON)
    await wallet.transfer(destination=f"0:{RECEIVER.hex()}", amount=TON, bounce=False)
    await until(lambda: _credited(devnet))
    message = devnet.chain.history(account_of(wallet))[-1].out_msgs[0]
    route = {
        "source": wallet.address.to_str(),
        "destination": f"0:{RECEIVER.hex()}",
        "created_lt": message.created_lt,
    }
    url = devnet.endpoints.toncenter[0]
    found = (await _ask(url, "tryLocateResultTx", **route))[1]["result"]["transaction_id"]["hash"]
    assert base64.b64decode(found) == devnet.chain.history(RECEIVER)[0].hash
    found = (await _ask(url, "tryLocateSourceTx", **route))[1]["result"]["transaction_id"]["hash"]
    assert base64.b64decode(found) == devnet.chain.history(account_of(wallet))[-1].hash
