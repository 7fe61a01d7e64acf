"""The operator's choices on chain, on a running network: more stake, prices, drain, new keys, hand-overs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.outgoing import Outgoing
from chain.wait import until
from chain.wallet import Wallet
from client import control as client_control
from client.errors import ClientError
from client.sdk import RefusedNode
from protocol.link_messages import ReleaseRequest
from worker.agent import control
from worker.agent.config import load
from worker.agent.operations import OperationRefused, Operator
from worker.agent.run import ground
from worker.agent.settings import Role, Settings, offered
from wrappers import node_rare
from wrappers.rows import KeyRow
from wrappers.signed import Release, verify

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

TON = 1_000_000_000
Ask = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture(loop_scope="session")
async def operator(net: Any) -> AsyncIterator[Operator]:
    await net.serving()
    config = load(net.home.agent_config)
    base = ground(config)
    try:
        yield Operator(config, base)
    finally:
        await base.chain.close()


async def test_the_stake_grows_by_what_is_added(net: Any, operator: Operator) -> None:
    before = (await net.node_state()).stake_nano
    assert await Settings(operator).stake(TON) >= before + TON
    assert (await operator.status())["stake_nano"] >= before + TON


async def test_g5_prices_on_chain_are_what_the_enclave_asks_and_clients_hold_it_to_them(
    net: Any, operator: Operator, ask_node: Ask
) -> None:
    settings = Settings(operator)
    served = await settings.served()
    assert await settings.publish() == [name for name, _ in served] and await settings.publish() == []
    said = await settings.prices()
    assert [one["terms"] for one in said["published"]] == [terms.hash.hex() for _, terms in served]
    async with net.client("priced") as client:
        await ask_node(client, "What does it cost?")
        (_, terms) = served[0]
        client.directory.forget()
        (shown,) = (await client_control.run(client, "nodes", {}))["nodes"]
        assert [one["on_chain"] for one in shown["prices"]] == ["the same"]
        assert shown["prices"][0]["completion"] == terms.completion_price

        async def relayed() -> bool | None:
            async with aiohttp.ClientSession() as http, http.get(f"{net.home.relayer_url}/v1/nodes") as response:
                (view,) = (await response.json())["nodes"]
            return True if [one["terms"] for one in view["chain"]["prices"]] == [terms.hash.hex()] else None

        assert await until(relayed, what="the relayer to show the prices", timeout_seconds=20)
        # Published cheaper than it asks: whoever comes is refused to be billed more.
        cheaper = replace(terms, completion_price=terms.completion_price - 1)
        await operator.send(10**8, node_rare.set_offer(cheaper))

        async def refused() -> RefusedNode | None:
            client.directory.forget()
            return next((one for one in await client.nodes() if isinstance(one, RefusedNode)), None)

        found = await until(refused, what="a client that refuses it", timeout_seconds=20)
        assert any("asks more for" in reason for reason in found.reasons)
        await settings.unpublish(terms.model)
        assert not (await settings.prices())["published"]
        with pytest.raises(OperationRefused, match="no price"):
            await settings.unpublish(terms.model)
        await ask_node(client, "And now?")


async def test_g3_a_draining_node_begins_nothing_and_everyone_obeys(
    net: Any, operator: Operator, ask_node: Ask
) -> None:
    settings = Settings(operator)
    async with net.client("drained") as client:
        await ask_node(client, "Before?")
        assert await settings.drain(True) is not None and await settings.drain(True) is None
        assert (await operator.status())["draining"]

        async def told() -> str | None:
            try:
                await ask_node(client, "Now?")
            except ClientError as error:
                return str(error)
            return None

        said = await until(told, what="a clear refusal", timeout_seconds=20)
        assert "drain" in said or "no new requests" in said, said
        client.directory.forget()
        nodes = await client.nodes()
        assert all(isinstance(one, RefusedNode) for one in nodes)
        await settings.drain(False)

        async def again() -> bool | None:
            try:
                await ask_node(client, "After?")
            except ClientError:
                client.directory.forget()
                return None
            return True

        await until(again, what="the node to serve again", timeout_seconds=60)


async def test_g13_a_clients_latest_receipt_is_notarised_by_the_key_that_issued_it(
    net: Any, operator: Operator, ask_node: Ask
) -> None:
    async with net.client("notarised") as client:
        for question in ("First?", "Second?"):
            await ask_node(client, question)
        escrow = (await client.balance()).escrow
        said = await Settings(operator).notarise(escrow)
        newest = client.receipts()[0]
        assert (
            (said["receipt"], said["seq"])
            == (newest.hash.hex(), newest.issued.signed.receipt.seq)
            == (said["receipt"], 2)
        )
        page = await net.chain.transactions(net.node, lt=said["lt"], hash=bytes.fromhex(said["transaction"]), limit=1)
        (notice,) = [message for message in page[0].out_msgs if message.external]
        assert notice.body.begin_parse().skip_bits(32 + 512).load_bytes(32) == newest.hash
        with pytest.raises(OperationRefused, match="no receipt"):
            await Settings(operator).notarise(bytes(32))


async def test_g4_rotated_keys_lose_no_receipt(net: Any, operator: Operator, ask_node: Ask) -> None:
    async with net.client("rotated") as client:
        await ask_node(client, "Under the old key?")
        before = await net.serving()
        said: list[str] = []
        done = await Settings(operator).rotate(said.append)
        assert done["old_key"] == before.hex() != done["new_key"] and said
        assert (await net.node_state()).signing_key == bytes.fromhex(done["new_key"])
        assert done["old_claims_until"] is not None
        await net.serving(before)
        escrow = (await client.balance()).escrow

        async def paid() -> KeyRow | None:
            row = (await net.row(escrow)).keys.get(before)
            return row if row is not None and row.paid_nano else None

        assert (await until(paid, what="the old key's receipt to be paid", timeout_seconds=40)).paid_nano > 0
        client.directory.forget()
        await ask_node(client, "Under the new key?")
    assert "unknown request" in (await control.ask(operator.config.control_socket, {"do": "nonsense"}))["error"]


async def test_g3_another_release_key_serves_new_rows_and_still_releases_old_ones(
    net: Any, operator: Operator, ask_node: Ask
) -> None:
    settings = Settings(operator)
    async with net.client("early") as early, net.client("late", allotted_nano=0) as late:
        await ask_node(early, "Under the old release key?")
        held = await settings.release_key()
        done = await settings.new_release_key()
        assert held["held"] and done["old_key"] == held["release_key"] != done["release_key"]
        assert (await net.node_state()).release_key.hex() == done["release_key"]
        assert await settings.release_key() == {**held, "release_key": done["release_key"]}
        # The agent that runs signs with it: relayers that come back know it, and so does the next enclave.
        await net.kill("relayer")
        await net.start_relayer()
        before = await net.serving()
        with pytest.raises(ClientError, match="another release key"):
            await ask_node(early, "Served still?")
        escrow = (await early.balance()).escrow
        await net.settle()
        owed = early.store.accounts()[0][1].acked_nano
        row = await net.wait_paid(escrow, owed)
        release = ReleaseRequest.sign(
            early._home.known_voucher_key(0),
            network=early.settings.facts.network_id,
            escrow=escrow,
            node=net.node,
            allotment=row.allotment,
            row_seqno=row.seqno,
            allotted_nano=row.paid_nano,
            expires_at=(await early.view.head()).now + 300,
        )
        signature = await early.link.release(release)
        assert verify(Release(row.allotment, row.seqno, row.paid_nano), signature, bytes.fromhex(held["release_key"]))
        late.directory.forget()
        await late.allot(net.node, TON)
        await ask_node(late, "Under the new release key?")
        await settings.rotate(lambda text: None)
        await net.serving(before)
        late.directory.forget()
        await ask_node(late, "Under a new enclave key that the new release key consented to?")


async def test_g10_control_is_handed_over_in_two_steps_and_back(net: Any, operator: Operator) -> None:
    heir = Wallet(Ed25519PrivateKey.generate())
    net.parties.add(heir.account)
    async with net.control() as faucet:
        await faucet.faucet(heir.account, 2 * TON)
    theirs = Operator(operator.config, replace(operator.ground, wallet=heir))
    owner = operator.wallet().account
    with pytest.raises(OperationRefused, match="controller is"):
        await Settings(theirs).drain(True)
    with pytest.raises(OperationRefused, match="not offered"):
        await Settings(theirs).accept(Role.CONTROLLER)
    await Settings(operator).offer(Role.CONTROLLER, heir.account)
    assert offered(await net.node_state(), Role.CONTROLLER) == heir.account
    assert (await net.node_state()).controller == owner
    await Settings(theirs).accept(Role.CONTROLLER)
    assert (await net.node_state()).controller == heir.account
    with pytest.raises(OperationRefused, match="controller is"):
        await Settings(operator).offer(Role.PAYOUT, owner)
    await Settings(theirs).offer(Role.CONTROLLER, owner)
    await Settings(operator).accept(Role.CONTROLLER)

    await Settings(operator).offer(Role.PAYOUT, heir.account)
    await Settings(operator).offer(Role.PAYOUT, None)
    with pytest.raises(OperationRefused, match="not offered"):
        await Settings(theirs).accept(Role.PAYOUT)
    state = await net.node_state()
    assert state.controller == owner and offered(state, Role.PAYOUT) is None


async def test_g1_the_audit_still_holds_after_all_of_it(net: Any, operator: Operator) -> None:
    from app.audit.core.audit import audit
    from app.audit.gather import facts_of
    from wrappers.prices import PRICES

    await (await operator.wallet().send(net.chain, [Outgoing(net.node, TON // 10, node_rare.collect())])).landed(
        net.chain
    )
    report = audit(await facts_of(net.chain, net.node, net.network.global_id), PRICES)
    assert report.holds, [one for one in report.findings if not one.holds]
