"""Deployment as a pure plan: what is missing is sent, what stands is not, what differs is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from chain.api import AccountState, Status
from chain.config import NETWORKS, ConfigError
from chain.wallet import Wallet
from scripts.deploy.apply import deployer_of, desired_of
from scripts.deploy.plan import Desired, Observed, PlanError, plan, verify
from scripts.deploy.profile import load_profile
from wrappers.cells import EMPTY
from wrappers.code import Contract, code
from wrappers.registry import singleton_state_init

KEY, GOVERNOR = b"\x07" * 32, b"\x08" * 32


def desired(network: str = "devnet") -> Desired:
    profile = load_profile(network)
    return Desired(profile.network.global_id, KEY, profile.salt, GOVERNOR, profile.parameters)


def absent(account: bytes) -> AccountState:
    return AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))


def active(account: bytes, contract: Contract, data: object) -> AccountState:
    return AccountState(account, Status.ACTIVE, 10**9, code(contract), data, 5, b"\x05" * 32)  # type: ignore[arg-type]


def deployed(want: Desired) -> Observed:
    return Observed(
        active(want.registry, Contract.REGISTRY, want.registry_state.to_cell()),
        active(want.attestation, Contract.ATTESTATION, want.attestation_state.to_cell()),
    )


@pytest.mark.parametrize("network", ["devnet", "testnet", "mainnet"])
def test_a_fresh_network_is_two_priced_messages(network: str) -> None:
    want = desired(network)
    steps = plan(want, Observed(absent(want.registry), absent(want.attestation)), None)
    assert [step.message.destination for step in steps] == [want.attestation, want.registry]
    for step in steps:
        assert step.message.value_nano > 0 and step.fees_nano > 0
        assert step.message.state_init is not None
        assert step.message.state_init.hash == step.message.destination


def test_networks_never_share_an_address_or_an_id() -> None:
    ids = {desired(network).registry_state.network_id for network in ("devnet", "testnet", "mainnet")}
    assert len(ids) == 3


def test_what_stands_is_not_sent_again() -> None:
    want = desired()
    assert plan(want, deployed(want), None) == ()


def test_an_interrupted_deployment_sends_only_the_rest() -> None:
    want = desired()
    seed = singleton_state_init(code(Contract.REGISTRY), KEY, 0).refs[1]
    half = replace(deployed(want), registry=active(want.registry, Contract.REGISTRY, seed))
    (step,) = plan(want, half, None)
    assert step.message.destination == want.registry


def test_another_state_or_code_is_refused_and_named() -> None:
    want = desired()
    other = replace(want, governor=b"\x09" * 32)
    with pytest.raises(PlanError, match="another state"):
        plan(want, deployed(other), None)
    foreign = replace(deployed(want), registry=replace(deployed(want).registry, code=EMPTY))
    with pytest.raises(PlanError, match="other code"):
        plan(want, foreign, None)
    frozen = replace(deployed(want), registry=replace(absent(want.registry), status=Status.FROZEN))
    with pytest.raises(PlanError, match="frozen"):
        plan(want, frozen, None)


def test_verify_names_every_difference() -> None:
    want = desired()
    assert all(check.holds for check in verify(want, deployed(want)))
    other = replace(want, governor=b"\x09" * 32, parameters=replace(want.parameters, min_stake_nano=1))
    wrong = {check.name for check in verify(want, deployed(other)) if not check.holds}
    assert wrong == {"governor", "min_stake_nano"}
    nothing = verify(want, Observed(absent(want.registry), absent(want.attestation)))
    assert not any(check.holds for check in nothing)


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ("min_stake_nano = 5_000_000_000", "", "min_stake_nano"),
        ("min_stake_nano = 5_000_000_000", "min_stake_nano = -1", "min_stake_nano"),
        ("min_stake_nano = 5_000_000_000", "min_steak_nano = 5", "unknown keys"),
        ("claim_window_seconds = 604_800", "claim_window_seconds = 3600", "shorter than max_close_timer"),
        ('governor_mnemonic_file = "governor.mnemonic"', 'governor = "nobody"', "no TON address"),
        ("[deploy]", "[deploi]", "deploy"),
    ],
)
def test_g18_a_bad_profile_names_file_and_key(tmp_path: Path, line: str, instead: str, complaint: str) -> None:
    text = (NETWORKS / "devnet.toml").read_text()
    assert line in text
    path = tmp_path / "bad.toml"
    path.write_text(text.replace(line, instead, 1))
    with pytest.raises(ConfigError, match=complaint) as error:
        load_profile(path)
    assert "bad.toml" in str(error.value)


def test_a_deployment_is_found_from_public_keys_alone(tmp_path: Path) -> None:
    text = (NETWORKS / "testnet.toml").read_text()
    named = text.replace(
        "[deploy]\n", f'[deploy]\ndeployer_public_key = "{KEY.hex()}"\ngovernor = "0:{GOVERNOR.hex()}"\n', 1
    )
    path = tmp_path / "testnet.toml"
    path.write_text(named)
    assert desired_of(load_profile(path)) == desired("testnet")
    path.write_text(text)
    with pytest.raises(PlanError, match="deployer_public_key"):
        desired_of(load_profile(path))
    Wallet.create(tmp_path / "deployer.mnemonic")
    path.write_text(named)
    with pytest.raises(PlanError, match="not the wallet"):
        deployer_of(load_profile(path))
