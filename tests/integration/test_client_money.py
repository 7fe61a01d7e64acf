"""The client's money on real contracts and a running devnet: every TON that goes in comes out again."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.evidence import Kind as EvidenceKind
from attestation.policy import Policy
from attestation.verify import Verdict
from chain.config import Network, connect
from chain.outgoing import Outgoing
from chain.quorum import Quorum
from chain.wait import until
from chain.wallet import Wallet
from client import control
from client.errors import BadRequest, NoEscrow, PaymentFailed
from client.follow_up import FollowUp, Round
from client.sdk import Client, Settings
from client.store import Store
from client.trust import TrustedNode
from devnet.control import Control
from devnet.node import Devnet
from protocol.offer import AnnouncedKey
from scripts.deploy import apply as deploy
from scripts.deploy.plan import Desired
from scripts.deploy.verifier import VerifierTerms
from wrappers import escrow_rare
from wrappers.addresses import Kind, child_address
from wrappers.cells import to_boc
from wrappers.code import Contract, code_hash
from wrappers.fees import Fees
from wrappers.node import NodeConfig, NodeState
from wrappers.prices import PRICES
from wrappers.registry import Parameters, open_node
from wrappers.signed import Release, sign

TON = 10**9
GLOBAL_ID = -7001
PARAMETERS = Parameters(5 * TON, TON // 5, TON // 2, TON // 10, 604_800, 604_800, 259_200, 3_600, 604_800)
RELEASE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x55" * 32)


@dataclass
class Ground:
    """A devnet with contracts, one node, a client's wallet with 20 TON, and a relayer that passes releases on."""

    home: Path
    control: Control
    chain: Quorum
    network: Network
    desired: Desired
    node: TrustedNode
    wallet: Wallet
    url: str = ""
    refuse: list[str] = field(default_factory=list)
    """Codes to answer the next asks for a release with."""

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        settings = Settings(self.home, self.network, self.desired.registry, self.url, Policy((), 1))
        async with Client.open(settings, self.wallet, chain=self.chain) as client:
            yield client

    async def wallet_nano(self) -> int:
        return (await self.chain.account(self.wallet.account)).balance_nano

    async def release(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.refuse:
            code = self.refuse.pop(0)
            return web.json_response({"code": code, "cause": f"cause {code}", "cure": "wait"}, status=409)
        release = Release(bytes.fromhex(body["allotment"]), body["row_seqno"], body["allotted_nano"])
        fields = {name: body[name] for name in ("allotment", "row_seqno", "allotted_nano")}
        return web.json_response({**fields, "signature": sign(release, RELEASE_KEY).hex()})


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with Devnet(block_seconds=0.02, idle_seconds=0.2) as devnet, Control(devnet.endpoints.control) as control:
        network = Network("devnet", GLOBAL_ID, devnet.endpoints.toncenter)
        chain = connect(network)
        deployer, operator, wallet = (Wallet(Ed25519PrivateKey.generate()) for _ in range(3))
        for one in (deployer, operator, wallet):
            await control.faucet(one.account, 20 * TON)
        terms = VerifierTerms(EvidenceKind.SIMULATED)
        desired = Desired(GLOBAL_ID, deployer.public_key, 0, deployer.account, PARAMETERS, terms)
        await deploy.apply(chain, desired, deployer, on_step=lambda step: None)
        node = await _node(chain, desired, operator)
        made = Ground(tmp_path / "client", control, chain, network, desired, node, wallet)
        app = web.Application()
        app.router.add_post("/v1/release", made.release)
        server = TestServer(app)
        await server.start_server()
        made.url = str(server.make_url("")).rstrip("/")
        try:
            yield made
        finally:
            await server.close()
            await chain.close()


async def _node(chain: Quorum, desired: Desired, operator: Wallet) -> TrustedNode:
    config = NodeConfig(operator.account, operator.account, RELEASE_KEY.public_key().public_bytes_raw())
    body = open_node(code_hash(Contract.NODE), 0, config)
    value = Fees(PRICES, PARAMETERS).open_node() + TON // 10
    await (await operator.send(chain, [Outgoing(desired.registry, value, body)])).landed(chain)
    account = child_address(desired.registry, Kind.NODE, operator.account, 0)

    async def born() -> NodeState | None:
        state = await chain.account(account)
        return None if state.data is None else NodeState.from_cell(state.data)

    state = await until(born, what="the node", timeout_seconds=20)
    return TrustedNode(
        account=account,
        epoch=state.epoch,
        node_id=state.node_id,
        signing_key=b"\x01" * 32,
        sealing_key=AnnouncedKey(b"", 0, b""),
        models=(),
        verdict=Verdict(True, (), simulated=True),
        release_key=state.release_key,
        attested_until=0,
        evidence="{}",
    )


async def test_g3_open_allot_top_up_withdraw_and_close_by_release(ground: Ground) -> None:
    async with ground.client() as client:
        with pytest.raises(NoEscrow):
            await client.balance()
        before = await ground.wallet_nano()
        await client.money.open(3 * TON, (ground.node, TON), None)
        balance = await client.balance()
        assert 3 * TON <= balance.deposit_nano < 3 * TON + TON // 50
        assert [row.allotted_nano for row in balance.rows] == [TON]
        with pytest.raises(PaymentFailed, match="is open"):
            await client.money.open(3 * TON, None, None)

        await client.money.allot(ground.node, TON)
        await client.top_up(TON)
        balance = await client.balance()
        assert balance.rows[0].allotted_nano == 2 * TON and balance.deposit_nano >= 4 * TON
        await client.money.allot(ground.node, 5 * TON)  # more than is free: what lacks is paid in
        balance = await client.balance()
        assert balance.rows[0].allotted_nano == 7 * TON and balance.free_nano < TON // 50
        await client.withdraw()
        assert (await client.balance()).free_nano == 0

        ground.refuse = ["unclaimed", "in-flight"]
        said: list[str] = []
        closed = await client.close(progress=said.append)
        assert closed.ended and not closed.refusals and closed.refunded_nano >= 7 * TON
        assert said == [
            f"node {ground.node.account.hex()[:8]} is not ready to release: the relayer refuses: cause unclaimed",
            f"node {ground.node.account.hex()[:8]} is not ready to release: the relayer refuses: cause in-flight",
        ]
        with pytest.raises(NoEscrow):
            await client.balance()
        # The whole of it came back but for fees; rent reserves included.
        assert before - await ground.wallet_nano() < TON // 10

        again = await client.money.open(TON, None, None)
        assert again.number == 1


async def test_g3_a_node_that_gives_no_release_only_delays_the_exit(ground: Ground) -> None:
    async with ground.client() as client:
        before = await ground.wallet_nano()
        await client.money.open(3 * TON, (ground.node, TON), None)
        ground.refuse = ["not-authorised"]
        closed = await client.close(patience_seconds=1)
        assert not closed.ended and closed.refunded_nano >= 2 * TON
        assert closed.refusals == {ground.node.account: "the relayer refuses: cause not-authorised"}
        assert 3500 < closed.waiting[ground.node.account] - int(time.time()) <= 3700
        with pytest.raises(PaymentFailed, match="close timer"):
            await client.finish()
        await ground.control.advance(3700)
        finished = await client.finish()
        assert finished.ended and finished.refunded_nano >= TON
        assert before - await ground.wallet_nano() < TON // 10


async def test_a_forged_release_is_not_sent(ground: Ground) -> None:
    async with ground.client() as client:
        await client.money.open(TON, (replace(ground.node, release_key=b"\x01" * 32), TON // 2), None)
        closed = await client.close(patience_seconds=1)
        assert not closed.ended and "signature" in closed.refusals[ground.node.account]


async def test_g16_an_opening_that_was_cut_off_is_finished_and_not_paid_twice(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after the message was written down and broadcast, before anything was seen of it."""

    class Killed(BaseException):
        pass

    def die(*arguments: Any) -> None:
        raise Killed

    async with ground.client() as client:
        monkeypatch.setattr(client.money._payments, "_landed", die)
        with pytest.raises(Killed):
            await client.money.open(3 * TON, (ground.node, TON), None)
        assert len(client.store.open_payments()) == 1
    async with ground.client() as client:
        escrow = None
        with pytest.raises(PaymentFailed, match="is open"):
            escrow = await client.money.open(3 * TON, (ground.node, TON), None)
        assert escrow is None and not client.store.open_payments()
        balance = await client.balance()
        assert 3 * TON <= balance.deposit_nano < 3 * TON + TON // 50
        assert balance.wallet_nano > 16 * TON


async def test_g4_another_voucher_key_replaces_the_present_one_after_the_longest_timer(
    ground: Ground,
) -> None:
    async with ground.client() as client:
        first = await client.money.open(TON, None, None)
        says = await client.plan("rotate-voucher-key")
        assert any("604800 s" in line for line in says) and any("costs at most" in line for line in says)
        await client.upkeep("rotate-voucher-key")
        with pytest.raises(BadRequest, match="waits until"):
            await client.upkeep("rotate-voucher-key")
        assert client._home.known_voucher_key(0).public_key().public_bytes_raw() == first.voucher_key
        await ground.control.advance(604_900)
        await client.upkeep("rotate-voucher-key")
        known, state = await client.money.escrow()
        assert known.voucher_key == state.voucher_key != first.voucher_key
        assert client._home.known_voucher_key(0).public_key().public_bytes_raw() == known.voucher_key
        assert state.next_key is None and (await client.balance()).deposit_nano >= TON
    async with ground.client() as client:
        assert (await client.money.escrow())[0].voucher_key == known.voucher_key


async def test_g3_what_was_begun_is_ended_by_the_clients_own_follow_up(ground: Ground) -> None:
    async with ground.client() as client:
        assert await control.run(client, "follow-up", {}) == {"done": [], "failed": []}
        first = await client.money.open(2 * TON, (ground.node, TON), None)
        await client.upkeep("reclaim", ground.node.account)
        await client.upkeep("rotate-voucher-key")
        assert await client.due() == ()
        await ground.control.advance(3700)
        assert len((await control.run(client, "follow-up", {}))["done"]) == 1
        balance = await client.balance()
        assert not balance.rows and balance.free_nano == balance.deposit_nano
        await ground.control.advance(604_900)
        done = (await FollowUp(client).round()).done
        assert len(done) == 1 and "voucher key" in done[0]
        known, state = await client.money.escrow()
        assert known.voucher_key == state.voucher_key != first.voucher_key
        assert await FollowUp(client).round() == Round((), ())


async def test_g16_a_voucher_key_put_in_place_by_others_is_adopted_wherever_the_client_died(ground: Ground) -> None:
    async with ground.client() as client:
        escrow = await client.money.open(TON, None, None)
        await client.upkeep("rotate-voucher-key")
        await ground.control.advance(604_900)
        body = escrow_rare.apply_voucher_key()
        sent = await ground.wallet.send(ground.chain, [Outgoing(escrow.account, TON // 10, body)])
        await sent.landed(ground.chain)

        async def applied() -> bool | None:
            state = await client.view.escrow(escrow.account)
            return True if state is not None and state.next_key is None else None

        await until(applied, what="the new key", timeout_seconds=20)
        state = await client.view.escrow(escrow.account)
        assert state is not None
        # Killed between the file and the books.
        assert client._home.adopt_voucher_key(0, state.voucher_key)
    async with ground.client() as client:
        assert (await client.money.escrow())[0].voucher_key == state.voucher_key


async def test_g3_one_row_is_ended_and_its_rent_comes_back(ground: Ground) -> None:
    async with ground.client() as client:
        await client.money.open(3 * TON, (ground.node, TON), None)
        node = ground.node.account
        assert any("3600 s" in line for line in await client.plan("reclaim", node))
        await client.upkeep("reclaim", node)
        with pytest.raises(BadRequest, match="closing already"):
            await client.upkeep("reclaim", node)
        await ground.control.advance(3700)
        finished = await client.finish()
        assert not finished.ended
        before = await client.balance()
        assert not before.rows
        await client.upkeep("return-rent")
        rent = Fees(PRICES, PARAMETERS).row_rent()
        assert (await client.balance()).deposit_nano >= before.deposit_nano + rent
        with pytest.raises(BadRequest, match="nothing is allotted"):
            await client.plan("shares", node)


async def test_g18_what_ends_money_is_said_before_it_is_done(ground: Ground) -> None:
    async with ground.client() as client:
        await client.money.open(3 * TON, (ground.node, TON), None)
        says = " ".join(await client.plan("close"))
        assert "1.000000000 TON, less what it still claims" in says and "costs at most" in says
        found = await control.run(client, "plan", {"what": "close"})
        assert found["says"][0].startswith("Escrow ")


async def test_g16_a_top_up_that_never_left_is_not_believed(ground: Ground) -> None:
    async with ground.client() as client:
        await client.money.open(TON, None, None)
        payments = client.money._payments
        sent = await ground.wallet.prepare(
            ground.chain, [Outgoing((await client.balance()).escrow, TON)], valid_seconds=-200
        )
        assert sent.start is not None
        client.store.begin_payment("top up", to_boc(sent.message), sent.start.lt, sent.start.hash)
        await payments.finish_open()
        assert not client.store.open_payments()
        assert (await client.balance()).deposit_nano < 2 * TON
        await client.top_up(TON)
        assert (await client.balance()).deposit_nano >= 2 * TON


async def test_g18_a_refused_message_says_why_and_where_the_money_is(ground: Ground) -> None:
    async with ground.client() as client:
        await client.money.open(TON, None, None)
        with pytest.raises(PaymentFailed, match=r"free part of the deposit.*back to the wallet"):
            await client.withdraw(50 * TON)
        with pytest.raises(PaymentFailed, match="fund"):
            await client.top_up(500 * TON)


async def test_g17_a_lying_endpoint_hides_no_escrow_and_closes_none(ground: Ground) -> None:
    async with ground.client() as client:
        escrow = await client.money.open(TON, None, None)
        address = f"0:{escrow.account.hex()}"
        lie = {"kind": "lie", "account": address, "patch": {"state": "uninitialized", "code": "", "data": ""}}
        await ground.control.faults("toncenter-2", [lie])
        ground.chain._settle_seconds = 1.0
        with pytest.raises(Exception, match=r"differ|ask again"):
            await client.balance()
        known = client.store.escrow()
        assert known is not None and known.state == "open", "one liar must not make the client forget its deposit"
        await ground.control.faults("toncenter-2", [])
        assert (await client.balance()).deposit_nano >= TON
    assert isinstance(client.store, Store)
