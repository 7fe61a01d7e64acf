"""Evidence and collateral on their way to the verifier of a running devnet: what is taken, what is refused in words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app import attest_collateral, attest_sync
from attestation.evidence import Kind as EvidenceKind
from attestation.fetch import CollateralUnavailable
from attestation.keeper import Keeper, collateral_ends
from attestation.onchain.collateral import collateral_messages
from attestation.onchain.errors import VerifierError
from attestation.onchain.state import ChainImage, VerifierState
from attestation.report_data import NO_GPU, Binding
from attestation.simulated import pki
from attestation.simulated.collateral import mint
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.verifier import NotAttested, Verifier, block_to_bind
from chain.api import Disagreement
from chain.config import Network, connect
from chain.outgoing import Outgoing
from chain.quorum import Quorum
from chain.wait import until
from chain.wallet import Wallet
from devnet.control import Control
from devnet.node import Devnet
from scripts.deploy import apply as deploy
from scripts.deploy import cli
from scripts.deploy.plan import Desired
from scripts.deploy.verifier import VerifierTerms
from scripts.stage import built_world, public
from wrappers.addresses import Kind, child_address
from wrappers.cells import address_of
from wrappers.code import Contract, code_hash
from wrappers.fees import Fees
from wrappers.governance import revoke_image
from wrappers.node import NodeConfig, NodeState
from wrappers.prices import Prices
from wrappers.registry import Parameters, open_node
from wrappers.signed import KeyConsent, network_id, sign

TON = 10**9
GLOBAL_ID = -7001
PARAMETERS = Parameters(5 * TON, TON // 5, TON // 2, TON // 10, 604_800, 604_800, 259_200, 3_600, 604_800)
IMAGES = {Registers.of_image().measurement: ChainImage()}
MONTH = 31 * 86_400
RELEASE_KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)


@dataclass
class Ground:
    """A devnet with contracts, a node without a key, and its operator's wallet."""

    devnet: Devnet
    control: Control
    chain: Quorum
    desired: Desired
    operator: Wallet
    node: bytes
    governor: Wallet

    @property
    def verifier(self) -> Verifier:
        return Verifier(self.chain, self.desired.attestation)

    async def state(self) -> NodeState:
        data = (await self.chain.account(self.node)).data
        assert data is not None
        state = NodeState.from_cell(data)
        assert state is not None
        return state

    async def binding(self, key: bytes = b"\x51" * 32, **changes: object) -> Binding:
        state = await self.state()
        found = await until(
            lambda: block_to_bind(self.chain, state.block_seqno),
            what="a block",
            timeout_seconds=20,
            interval_seconds=0.1,
        )
        fields = {
            "network_id": network_id(GLOBAL_ID, self.desired.registry),
            "node": self.node,
            "node_epoch": state.epoch,
            "signing_key": key,
            "gpu_evidence_hash": NO_GPU,
            "block_seqno": found[0],
            "block_root_hash": found[1],
        }
        return Binding(**(fields | changes))  # type: ignore[arg-type]

    async def attest(self, binding: Binding, machine: SimulatedTee | None = None) -> None:
        quote = (machine or SimulatedTee(b"machine")).quote(binding.report_data())
        consent = sign(KeyConsent((await self.state()).node_id, binding.signing_key), RELEASE_KEY)
        await self.verifier.attest(self.operator, quote, binding, consent=consent)


@contextlib.asynccontextmanager
async def grounds(images: dict[bytes, ChainImage]) -> AsyncIterator[Ground]:
    async with Devnet(block_seconds=0.02, idle_seconds=0.2) as devnet, Control(devnet.endpoints.control) as control:
        chain = connect(Network("devnet", GLOBAL_ID, devnet.endpoints.toncenter))
        try:
            deployer, operator = (Wallet(Ed25519PrivateKey.generate()) for _ in range(2))
            for one in (deployer, operator):
                await control.faucet(one.account, 40 * TON)
            terms = VerifierTerms(EvidenceKind.SIMULATED, images=images)
            desired = Desired(GLOBAL_ID, deployer.public_key, 0, deployer.account, PARAMETERS, terms)
            await deploy.apply(chain, desired, deployer, on_step=lambda step: None)
            config = NodeConfig(operator.account, operator.account, public(RELEASE_KEY))
            value = Fees(Prices.from_config(devnet.chain.ledger.config), PARAMETERS).open_node() + TON // 10
            message = Outgoing(desired.registry, value, open_node(code_hash(Contract.NODE), 0, config))
            await (await operator.send(chain, [message])).landed(chain)
            node = child_address(desired.registry, Kind.NODE, operator.account, 0)
            ground = Ground(devnet, control, chain, desired, operator, node, deployer)

            async def born() -> bool | None:
                return True if (await chain.account(node)).data is not None else None

            await until(born, what="the node", timeout_seconds=20)
            yield ground
        finally:
            await chain.close()


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with grounds(IMAGES) as made:
        yield made


async def test_g12_a_quote_gives_the_node_its_key_and_a_later_one_renews_it(ground: Ground) -> None:
    first = await ground.binding()
    await ground.attest(first)
    state = await ground.state()
    assert (state.signing_key, state.block_seqno, state.tier) == (first.signing_key, first.block_seqno, 0)
    with pytest.raises(NotAttested, match=r"the node refused the verdict: .*old_verdict"):
        await ground.attest(first)
    # The chain makes the next block that can be bound because it is asked for.
    second = await ground.binding()
    assert second.block_seqno > first.block_seqno and second.block_seqno % 100 == 0
    await ground.attest(second)
    assert (await ground.state()).block_seqno == second.block_seqno


async def test_g12_a_refusal_says_what_is_wrong_and_what_helps(ground: Ground) -> None:
    other = await ground.binding(node_epoch=5)
    with pytest.raises(NotAttested, match="the node refused the verdict"):
        await ground.attest(other)
    foreign = await ground.binding(network_id=b"\x09" * 32)
    with pytest.raises(NotAttested, match=r"the verifier refused the evidence: .*wrong_report_data"):
        await ground.attest(foreign)
    unknown = SimulatedTee(b"machine", Registers.of_image("something else"))
    with pytest.raises(NotAttested, match=r"allow-list.*released image"):
        await ground.attest(await ground.binding(), unknown)
    broken = bytearray(SimulatedTee(b"machine").quote((await ground.binding()).report_data()))
    broken[700] ^= 1
    with pytest.raises(NotAttested):
        await ground.verifier.attest(ground.operator, bytes(broken), await ground.binding(), consent=None)
    with pytest.raises(NotAttested, match="no verifier"):
        await Verifier(ground.chain, b"\x01" * 32).state()
    with pytest.raises(NotAttested, match="no verifier that this release knows"):
        await Verifier(ground.chain, ground.desired.registry).state()
    assert (await ground.state()).signing_key is None


async def test_collateral_that_ended_is_brought_and_what_is_there_is_not(ground: Ground) -> None:
    now = (await ground.chain.head()).now
    assert await ground.verifier.bring(ground.operator, mint(now)) == ()
    await ground.control.advance(MONTH)
    await ground.control.mine()
    later = (await ground.chain.head()).now
    with pytest.raises(NotAttested, match=r"expired.*"):
        await ground.attest(await ground.binding())
    sent = await ground.verifier.bring(ground.operator, mint(later))
    assert set(sent) == {"update_crl root", "update_crl PCK CA", "update_tcb", "update_qe"}
    await ground.attest(await ground.binding())
    assert (await ground.state()).signing_key is not None


async def test_g12_a_list_of_many_parts_is_brought_in_stages_and_goes_on_after_an_interruption(ground: Ground) -> None:
    await ground.control.advance(3600)
    await ground.control.mine()
    now = (await ground.chain.head()).now
    machine = SimulatedTee(b"machine").platform.pck.certificate
    crl = pki.revocation_list(pki.platform_ca(), now - 5, now + MONTH, (machine,), serials=range(1, 800))
    collateral = replace(mint(now), pck_crl=crl)
    names = await ground.verifier.lacks(collateral)
    assert names == ("update_crl PCK CA", *(f"update_crl PCK CA {part}/5" for part in range(2, 6)))
    needed = await ground.verifier._needed(collateral, 0)
    # The sender of the first two was stopped then; others go on, two at once.
    for _, body in needed[:2]:
        assert not (await ground.verifier._outcomes(ground.operator, [body], [TON]))[0].aborted
    assert (await ground.verifier.state()).platform_authority.pending is not None
    assert await ground.verifier.bring(ground.operator, collateral) == names[2:]
    held = (await ground.verifier.state()).platform_authority
    assert held.pending is None and held.crl_issued == now - 5 and len(held.revoked) == 5
    assert await ground.verifier.lacks(collateral) == ()
    late = await ground.verifier._outcomes(ground.operator, [needed[-1][1]], [TON])
    assert late[0].exit_code == VerifierError.WRONG_PART
    with pytest.raises(NotAttested, match="revocation list"):
        await ground.attest(await ground.binding())


async def test_verifying_a_deployment_shows_root_policy_and_when_collateral_ends(
    ground: Ground, capsys: pytest.CaptureFixture[str]
) -> None:
    cli._report(ground.desired, await deploy.observe(ground.chain, ground.desired))
    said = capsys.readouterr().out
    assert "test root" in said and "root CRL" in said
    told = json.loads(said.strip().splitlines()[-1])
    assert told["verified"] and told["simulated"] and told["collateral_ended"] == []
    other = replace(ground.desired, verifier=replace(ground.desired.verifier, images={}))
    with pytest.raises(typer.Exit):
        cli._report(other, await deploy.observe(ground.chain, ground.desired))
    assert json.loads(capsys.readouterr().out.strip().splitlines()[-1])["differs"] == ["images"]


async def test_keepers_do_not_get_in_each_others_way(ground: Ground) -> None:
    other = Wallet(Ed25519PrivateKey.generate())
    await ground.control.faucet(other.account, 40 * TON)
    for wallet in (ground.operator, other):
        assert await Keeper(ground.verifier, wallet, None).round() == ()
    await ground.control.advance(MONTH - 5 * 86_400)
    await ground.control.mine()
    due = await Keeper(ground.verifier, None, None).round()
    assert due == await Keeper(ground.verifier, ground.operator, None).round()
    # Another keeper that had read the chain before: what it sends is refused as not newer, which is no failure.
    now = (await ground.chain.head()).now
    late = mint(now - 3600)
    bodies = [body for _, body in collateral_messages(late, pki.raw_public_key(pki.root().key))]
    outcomes = await ground.verifier._outcomes(other, bodies[-2:], [TON // 5, TON // 5])
    assert [each.exit_code for each in outcomes] == [635, 635]
    assert min(collateral_ends(await ground.verifier.state()).values()) > now + 8 * 86_400


async def test_g17_an_endpoint_that_lies_about_the_verifier_makes_nobody_pay(ground: Ground) -> None:
    before = (await ground.chain.account(ground.operator.account)).balance_nano
    address = address_of(ground.desired.attestation).to_str(is_user_friendly=False)
    lie = {"kind": "lie", "account": address, "patch": {"state": "uninitialized", "code": "", "data": ""}}
    await ground.control.faults("toncenter-2", [lie])
    with pytest.raises(Disagreement):
        await Keeper(ground.verifier, ground.operator, None).round()
    await ground.control.faults("toncenter-2", [])
    assert (await ground.chain.account(ground.operator.account)).balance_nano == before


async def test_the_command_shows_and_brings_collateral_and_says_what_fails(ground: Ground, tmp_path: Path) -> None:
    words = tmp_path / "payer.mnemonic"
    await ground.control.faucet(Wallet.create(words).account, 10 * TON)
    endpoints = json.dumps(list(ground.devnet.endpoints.toncenter))
    profile = tmp_path / "network.toml"
    profile.write_text(f'name = "here"\nglobal_id = {GLOBAL_ID}\ntoncenter = {endpoints}\n')
    told: list[str] = []
    noted: list[str] = []

    async def keep(registry: bytes, wallet_file: Path | None) -> bool:
        return await attest_collateral.keep(
            str(profile),
            registry,
            wallet_file=wallet_file,
            url=None,
            platforms=frozenset(),
            every_seconds=None,
            tell=told.append,
            note=noted.append,
        )

    await ground.control.advance(MONTH)
    await ground.control.mine()
    assert await keep(ground.desired.registry, None)
    shown = json.loads(told[-1])
    assert shown["simulated"] and "root CRL" in shown["ended"] and "update_qe" in shown["due"]
    assert await keep(ground.desired.registry, words)
    brought = json.loads(told[-1])
    assert brought["sent"] == shown["due"] and brought["ended"] == []
    assert not await keep(ground.node, words)
    assert "no registry" in noted[-1] and len(told) == 2


async def test_g20_anyone_tells_a_node_that_its_image_was_revoked(ground: Ground, tmp_path: Path) -> None:
    await ground.attest(await ground.binding())
    words = tmp_path / "payer.mnemonic"
    await ground.control.faucet(Wallet.create(words).account, 2 * TON)
    profile = tmp_path / "network.toml"
    endpoints = json.dumps(list(ground.devnet.endpoints.toncenter))
    profile.write_text(f'name = "here"\nglobal_id = {GLOBAL_ID}\ntoncenter = {endpoints}\n')
    told: list[str] = []
    noted: list[str] = []

    async def tell(node: bytes | None, wallet_file: Path | None) -> bool:
        registry = ground.desired.registry
        return await attest_sync.tell_nodes(
            str(profile), registry, node, wallet_file=wallet_file, tell=told.append, note=noted.append
        )

    assert await tell(ground.node, words)
    assert json.loads(told[-1]) | {"attested_until": 0} == {
        "node": ground.node.hex(),
        "faults": [],
        "sent": False,
        "attested_until": 0,
        "acked_only": False,
    }
    before = await ground.state()
    assert before.measurement is not None
    revoked = Outgoing(ground.desired.registry, TON, revoke_image(before.measurement, compromised=True))
    await (await ground.governor.send(ground.chain, [revoked])).landed(ground.chain)

    async def known() -> bool | None:
        assert await tell(ground.node, None)
        return True if json.loads(told[-1])["due"] else None

    await until(known, what="the revocation", timeout_seconds=20)
    count = len(told)
    assert await tell(None, None) and [json.loads(line)["node"] for line in told[count:]] == [ground.node.hex()]
    assert json.loads(told[-1])["due"]
    assert await tell(None, words)
    said, after = json.loads(told[-1]), await ground.state()
    assert said["sent"] and said["acked_only"] and "compromised" in said["faults"][0]
    for _ in range(2):
        assert await tell(ground.node, words) and not json.loads(told[-1])["sent"], "it was told, once is enough"
    assert after.acked_only and after.attested_until < before.attested_until
    assert not await tell(ground.operator.account, words)
    assert "no node of this registry" in noted[-1]


async def test_g18_a_keeper_of_a_hardware_network_says_what_it_needs() -> None:
    world = built_world(verifier=True)
    data = world.ledger.account(world.attestation).data
    assert data is not None
    state = replace(VerifierState.from_cell(data), simulated=False)
    keeper = Keeper(Verifier(None, b""), None, None)  # type: ignore[arg-type]
    with pytest.raises(CollateralUnavailable, match="--url"):
        await keeper._gathered(state, 0)
    with pytest.raises(CollateralUnavailable, match="--fmspc"):
        await keeper._gathered(replace(state, tcb={}), 0)
