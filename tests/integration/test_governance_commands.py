"""`cocoon governance` on a running chain: from a change in words to one that holds, by a wallet and by a contract."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import Result
from typer.testing import CliRunner

from app.cli import app
from app.governance.carry import Refused, carry_out
from app.governance.core import orders
from app.governance.gather import actions_of, scene_of
from chain.config import NETWORKS, connect, load_network
from chain.outgoing import Outgoing
from chain.quorum import Quorum
from chain.wallet import Wallet
from devnet.control import Control
from devnet.node import Devnet
from scripts.deploy import apply as deploy
from scripts.deploy.profile import load_profile
from wrappers import governance
from wrappers.cells import account_of, from_boc, to_boc
from wrappers.registry import DAY_SECONDS, RegistryState

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(170)]

TON = 10**9
DEVNET = (NETWORKS / "devnet.toml").read_text(encoding="utf-8").splitlines()
IMAGE, OTHER = "21" * 32, "22" * 32


@dataclass
class Land:
    """A chain with singletons, and files as a governor has them."""

    folder: Path
    chain: Quorum
    control: Control
    registry: bytes
    rebuilder: Wallet
    heir: Wallet

    async def run(self, *arguments: str, wallet: str | None = "governor") -> Result:
        words = [] if wallet is None else ["--wallet", str(self.folder / f"{wallet}.mnemonic"), "--yes"]
        named = ["governance", "--network", str(self.folder / "network.toml"), *words, *arguments]
        return await asyncio.to_thread(CliRunner().invoke, app, named)

    async def done(self, *arguments: str, wallet: str | None = "governor") -> dict[str, Any]:
        result = await self.run(*arguments, wallet=wallet)
        assert result.exit_code == 0, result.stderr
        said: dict[str, Any] = json.loads(result.stdout)
        return said

    async def refused(self, *arguments: str, wallet: str | None = "governor") -> str:
        before = (await self.chain.account(self.registry)).last_lt
        result = await self.run(*arguments, wallet=wallet)
        assert result.exit_code == 1 and (await self.chain.account(self.registry)).last_lt == before
        return result.stderr

    async def status(self) -> dict[str, Any]:
        return await self.done("status", "--json", wallet=None)

    async def state(self) -> RegistryState:
        data = (await self.chain.account(self.registry)).data
        assert data is not None
        return RegistryState.from_cell(data)

    async def wait_lock(self) -> None:
        await self.control.advance(2 * DAY_SECONDS)
        await self.control.mine()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def land(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Land]:
    folder = tmp_path_factory.mktemp("land")
    wallets = {
        name: Wallet.create(folder / f"{name}.mnemonic") for name in ("deployer", "governor", "rebuilder", "heir")
    }
    async with Devnet(block_seconds=0.02, idle_seconds=0.2) as devnet, Control(devnet.endpoints.control) as control:
        for wallet in wallets.values():
            await control.faucet(wallet.account, 20 * TON)
        lines = [line for line in DEVNET if not line.startswith(("toncenter", "liteserver_config"))]
        lines.insert(2, f"toncenter = {json.dumps(list(devnet.endpoints.toncenter))}")
        rebuilders = f'[deploy.rebuilders]\nneeded = 1\naccounts = ["{wallets["rebuilder"].address.to_str()}"]\n'
        (folder / "network.toml").write_text("\n".join(lines) + "\n" + rebuilders)
        profile = load_profile(folder / "network.toml")
        chain = connect(load_network(folder / "network.toml"))
        try:
            desired = deploy.desired_of(profile)
            await deploy.apply(chain, desired, wallets["deployer"], on_step=lambda step: None)
            yield Land(folder, chain, control, desired.registry, wallets["rebuilder"], wallets["heir"])
        finally:
            await chain.close()


async def test_g20_settings_from_words_to_effect(land: Land) -> None:
    said = await land.done("propose", "settings", "--set", "min_stake_nano=7_000_000_000")
    (waiting,) = (await land.status())["proposals"]
    assert waiting["hash"] == said["action"] and waiting["phase"] == "waiting"
    assert any("5.000000000 TON -> 7.000000000 TON" in line for line in waiting["says"])
    assert str(waiting["ready_at"]) in await land.refused("execute", said["action"])
    await land.wait_lock()
    assert "error" not in (shown := (await land.run("status", wallet=None)).stdout) and ": ripe" in shown
    await land.done("execute", said["action"])
    assert (await land.state()).parameters.min_stake_nano == 7 * TON
    assert (await land.status())["proposals"] == []


async def test_g10_only_the_governor_and_only_within_the_bounds(land: Land) -> None:
    assert "--print" in await land.refused("narrow", "stop-opening", "jobs", wallet="heir")
    assert "between 1 h and 60 d" in await land.refused("propose", "settings", "--set", "unbonding=60")
    assert "is not proposed" in await land.refused("execute", IMAGE)
    assert "64 hex digits" in await land.refused("narrow", "revoke-model", "abc")
    assert "nothing to change" in await land.refused("propose", "settings")
    assert "--wallet" in await land.refused("narrow", "stop-opening", "jobs", wallet=None)


async def test_g20_an_image_is_released_by_rebuilder_and_governor_together_and_revoked_at_once(land: Land) -> None:
    proposed = (await land.done("propose", "allow-image", IMAGE, "--tier", "2"))["action"]
    await land.wait_lock()
    assert "endorse" in await land.refused("execute", proposed)
    assert "another image" in await land.refused("endorse", proposed, "--measurement", OTHER, wallet="rebuilder")
    assert "a rebuilder" in await land.refused("endorse", proposed, "--measurement", IMAGE, wallet="governor")
    await land.done("endorse", proposed, "--measurement", IMAGE, wallet="rebuilder")
    await land.done("execute", proposed)
    assert (await land.status())["images"][IMAGE] == {"tier": 2, "status": "allowed"}
    await land.done("narrow", "revoke-image", IMAGE, "--compromised")
    assert (await land.status())["images"][IMAGE]["status"] == "compromised"
    assert "for good" in (await land.run("narrow", "revoke-image", IMAGE, "--compromised")).stderr


async def test_g20_a_governor_without_words_of_his_own_gets_the_message(land: Land) -> None:
    said = await land.done("--print", "propose", "allow-model", OTHER, wallet=None)
    governor = Wallet.from_mnemonic_file(land.folder / "governor.mnemonic")
    assert account_of(said["to"]) == land.registry and account_of(said["from"]) == governor.account
    assert not (await land.state()).proposals
    # What a multisig would do with it.
    body = from_boc(base64.b64decode(said["body"]))
    await (await governor.send(land.chain, [Outgoing(land.registry, said["value_nano"], body)])).landed(land.chain)
    for _ in range(100):
        if (await land.state()).proposals:
            break
        await asyncio.sleep(0.05)
    assert list((await land.state()).proposals) == [bytes.fromhex(said["action"])]
    file = land.folder / "cancel.boc"
    again = await land.done("--boc", str(file), "cancel", said["action"], wallet=None)
    assert again["body_file"] == str(file) and from_boc(file.read_bytes()).bits
    await land.done("cancel", said["action"])
    assert not (await land.state()).proposals


async def test_the_office_is_handed_over_in_two_steps_and_back(land: Land) -> None:
    governor = Wallet.from_mnemonic_file(land.folder / "governor.mnemonic")
    assert "offered to govern" in await land.refused("accept-handover", wallet="heir")
    await land.done("offer-handover", land.heir.account.hex())
    assert (await land.status())["offered_to"] == land.heir.account.hex()
    await land.done("accept-handover", wallet="heir")
    assert (await land.status())["governor"] == land.heir.account.hex()
    assert "may not send this" in await land.refused("narrow", "stop-opening", "jobs")
    await land.done("offer-handover", governor.account.hex(), wallet="heir")
    await land.done("accept-handover")
    assert (await land.state()).governor == governor.account


async def test_g18_what_the_chain_refuses_after_all_is_said(land: Land) -> None:
    """Others may act between rehearsal and block: the outcome is read from the chain, not assumed."""
    scene = await scene_of(land.chain, land.registry)
    governor = Wallet.from_mnemonic_file(land.folder / "governor.mnemonic")
    unknown = orders.revoke_image(scene.state, scene.verifier_state, bytes.fromhex("99" * 32), False)
    with pytest.raises(Refused, match="the verifier refused it"):
        await carry_out(land.chain, scene, unknown, governor)
    with pytest.raises(Refused, match="the registry refused it"):
        await carry_out(land.chain, scene, orders.stop_opening(scene.state, 1), land.heir)
    assert (await land.state()).stopped == 0


async def test_g20_an_action_is_found_in_the_registrys_history_or_given_in_a_file(
    land: Land, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = await land.done("propose", "settings", "--set", "min_deposit_nano=300_000_000")
    for _ in range(3):  # later transactions, page by page
        await land.done("narrow", "revoke-model", "33" * 32)
    monkeypatch.setattr("app.governance.gather.PAGE", 1)
    scene = await scene_of(land.chain, land.registry)
    hash_ = bytes.fromhex(said["action"])
    action = (await actions_of(land.chain, scene, {hash_}))[hash_]
    assert bytes(action.hash) == hash_ and await actions_of(land.chain, scene, {bytes(32)}) == {}
    whole, other = land.folder / "action.boc", land.folder / "other.boc"
    whole.write_text(to_boc(action).hex())
    other.write_bytes(to_boc(governance.allow_model(bytes(32))))
    await land.wait_lock()
    assert "holds another action" in await land.refused("execute", said["action"], "--action", str(other))
    # Endpoints that keep no history: only the file is left.
    monkeypatch.setattr("app.governance.run.actions_of", nothing_kept)
    assert "--action FILE" in await land.refused("execute", said["action"])
    assert "no history" in (await land.run("status", wallet=None)).stdout
    await land.done("execute", said["action"], "--action", str(whole))
    assert (await land.state()).parameters.min_deposit_nano == 300_000_000


async def nothing_kept(*_: object) -> dict[bytes, Any]:
    return {}


async def test_g14_a_committee_is_deployed_allowed_and_revoked(land: Land) -> None:
    async def committee(*arguments: str) -> dict[str, Any]:
        named = ["committee", *arguments, "--network", str(land.folder / "network.toml")]
        result = await asyncio.to_thread(CliRunner().invoke, app, named)
        assert result.exit_code == 0, result.stderr
        said: dict[str, Any] = json.loads(result.stdout)
        return said

    planned = await committee("deploy", "--plan")
    assert "to_send" in planned and (await land.chain.account(bytes.fromhex(planned["committee"]))).last_lt == 0
    said = await committee("deploy")
    assert said["verified"] and said["network"].startswith("not allowed") and "sent" in said
    again = await committee("deploy")
    assert again["verified"] and "sent" not in again and again["committee"] == said["committee"]
    assert "launch" in await land.refused("propose", "allow-image", said["committee"], "--tier", "3", "--launch", IMAGE)
    proposed = (await land.done("propose", "allow-image", said["committee"], "--tier", "3"))["action"]
    await land.wait_lock()
    await land.done("endorse", proposed, "--measurement", said["committee"], wallet="rebuilder")
    await land.done("execute", proposed)
    shown = await committee("status", "--json")
    assert shown["network"] == "allowed" and shown["policy_of_this_release"] and shown["members"] == []
    assert (shown["seats"], shown["quorum"], shown["requests"]) == (5, 3, [])
    await land.done("narrow", "revoke-image", said["committee"], "--retired")
    assert (await committee("status", said["committee"], "--json"))["network"] == "revoked: retired"
    words = ["committee", "status", IMAGE, "--network", str(land.folder / "network.toml")]
    missing = await asyncio.to_thread(CliRunner().invoke, app, words)
    assert missing.exit_code == 1 and "no committee of this release" in missing.stderr
    whole = await asyncio.to_thread(CliRunner().invoke, app, [*words[:2], *words[3:]])
    assert "too few" in whole.stdout and "no question is open" in whole.stdout
