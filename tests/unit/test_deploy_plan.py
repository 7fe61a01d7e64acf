"""Deployment as a pure plan: what is missing is sent, what stands is not, what differs is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from attestation.evidence import Kind
from attestation.onchain.state import ChainImage, ImageStatus
from chain.api import AccountState, Status
from chain.config import NETWORKS, ConfigError
from chain.wallet import Wallet
from devnet.ledger import Ledger
from scripts.deploy.apply import deployer_of, desired_of
from scripts.deploy.plan import Desired, Observed, PlanError, plan, verify
from scripts.deploy.profile import load_profile
from scripts.stage import key_of, public
from wrappers.addresses import singleton_state_init
from wrappers.cells import EMPTY
from wrappers.code import Contract, code
from wrappers.registry import Proposal

DEPLOYER = key_of("deployer")
KEY, GOVERNOR = public(DEPLOYER), b"\x08" * 32
NOW = Ledger().now


def desired(network: str = "devnet") -> Desired:
    profile = load_profile(network)
    return Desired(profile.network.global_id, KEY, profile.salt, GOVERNOR, profile.parameters, profile.verifier)


def absent(account: bytes) -> AccountState:
    return AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))


def active(account: bytes, contract: Contract, data: object) -> AccountState:
    return AccountState(account, Status.ACTIVE, 10**9, code(contract), data, 5, b"\x05" * 32)  # type: ignore[arg-type]


def deployed(want: Desired) -> Observed:
    """What the plan's own messages make of an empty chain."""
    ledger = Ledger(global_id=want.global_id)
    absent_ = Observed(*map(absent, (want.registry, want.attestation, want.court)))
    for step in plan(want, absent_, DEPLOYER.sign, NOW):
        message = step.message
        trace = ledger.send_internal(
            source=GOVERNOR,
            destination=message.destination,
            value_nano=message.value_nano,
            body=message.body,
            state_init=message.state_init,
        )
        assert not trace.failed, step.title
    return Observed(*map(ledger.account, (want.registry, want.attestation, want.court)))


@pytest.mark.parametrize("network", ["devnet", "testnet", "mainnet"])
def test_a_fresh_network_is_three_priced_births_and_what_the_test_root_says(network: str) -> None:
    want = desired(network)
    steps = plan(want, Observed(*map(absent, (want.registry, want.attestation, want.court))), None, NOW)
    births, rest = steps[:3], steps[3:]
    assert [step.message.destination for step in births] == [want.attestation, want.court, want.registry]
    for step in births:
        assert step.message.state_init is not None
        assert step.message.state_init.hash == step.message.destination
    for step in steps:
        assert step.message.value_nano > 0 and step.fees_nano > 0
    # Intel's collateral is not ours to make.
    assert len(rest) == (0 if network == "mainnet" else 6)
    assert all(step.message.destination == want.attestation for step in rest)


def test_networks_never_share_an_address_or_an_id() -> None:
    ids = {desired(network).registry_state.network_id for network in ("devnet", "testnet", "mainnet")}
    assert len(ids) == 3


def test_what_stands_is_not_sent_again() -> None:
    want = desired()
    assert plan(want, deployed(want), None, NOW) == ()


def test_an_interrupted_deployment_sends_only_the_rest() -> None:
    want = desired()
    seed = singleton_state_init(code(Contract.REGISTRY), KEY, 0).refs[1]
    half = replace(deployed(want), registry=active(want.registry, Contract.REGISTRY, seed))
    (step,) = plan(want, half, None, NOW)
    assert step.message.destination == want.registry


def test_another_state_or_code_is_refused_and_named() -> None:
    want = desired()
    other = replace(want, governor=b"\x09" * 32)
    with pytest.raises(PlanError, match="another state"):
        plan(want, deployed(other), None, NOW)
    foreign = replace(deployed(want), registry=replace(deployed(want).registry, code=EMPTY))
    with pytest.raises(PlanError, match="other code"):
        plan(want, foreign, None, NOW)
    frozen = replace(deployed(want), registry=replace(absent(want.registry), status=Status.FROZEN))
    with pytest.raises(PlanError, match="frozen"):
        plan(want, frozen, None, NOW)


def test_verify_names_every_difference() -> None:
    want = desired()
    assert all(check.holds for check in verify(want, deployed(want)))
    terms = replace(want.verifier, policy=replace(want.verifier.policy, floor=3), images={})
    other = replace(want, governor=b"\x09" * 32, parameters=replace(want.parameters, min_stake_nano=1), verifier=terms)
    wrong = {check.name for check in verify(want, deployed(other)) if not check.holds}
    assert wrong == {
        "governor",
        "treasury",
        "court state",
        "min_stake_nano",
        "policy floor",
        "policy as a whole",
        "images",
    }
    nothing = verify(want, Observed(*map(absent, (want.registry, want.attestation, want.court))))
    assert not any(check.holds for check in nothing)


def test_g14_what_governance_holds_ready_or_has_taken_back_is_a_difference() -> None:
    want = desired()
    seen, state = deployed(want), want.registry_state
    waiting = {b"\x01" * 32: Proposal(NOW + 60, settings=False)}
    for name, changes in (
        ("time-lock", {"time_lock": 86_400}),
        ("births that are stopped", {"stopped": 2}),
        ("who is to govern next", {"candidate": b"\x09" * 32}),
        ("proposals", {"proposals": waiting}),
    ):
        other = replace(seen, registry=active(want.registry, Contract.REGISTRY, replace(state, **changes).to_cell()))
        assert [check.name for check in verify(want, other) if not check.holds] == [name]
    images = {b"\x02" * 32: ChainImage()}
    want = replace(want, verifier=replace(want.verifier, images=images))
    assert all(check.holds for check in verify(want, deployed(want)))
    for changed in (ChainImage(launch=b"\x03" * 32), ChainImage(status=ImageStatus.COMPROMISED)):
        other = deployed(replace(want, verifier=replace(want.verifier, images=dict.fromkeys(images, changed))))
        assert [check.name for check in verify(want, other) if not check.holds] == ["images"]


def test_g14_a_verifier_of_the_other_root_is_never_taken_for_the_profiles() -> None:
    want = desired()
    intel = replace(want, verifier=replace(want.verifier, root=Kind.TDX))
    with pytest.raises(PlanError, match="another state"):
        plan(intel, deployed(want), None, NOW)
    wrong = {check.name for check in verify(intel, deployed(want)) if not check.holds}
    assert wrong == {"root", "root key"}


def test_what_the_test_root_says_is_said_anew_when_it_has_ended() -> None:
    want = desired()
    later = plan(want, deployed(want), None, NOW + 40 * 86_400)
    assert {step.title for step in later} >= {"test root: update_tcb", "test root: update_qe"}


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ("min_stake_nano = 5_000_000_000", "", "min_stake_nano"),
        ("min_stake_nano = 5_000_000_000", "min_stake_nano = -1", "min_stake_nano"),
        ("min_stake_nano = 5_000_000_000", "min_steak_nano = 5", "unknown keys"),
        ("claim_window_seconds = 604_800", "claim_window_seconds = 3600", "shorter than max_close_timer"),
        ('governor_mnemonic_file = "governor.mnemonic"', 'governor = "nobody"', "no TON address"),
        ("[deploy]", "[deploi]", "deploy"),
        ('root = "simulated"', 'root = "amd"', "intel or simulated"),
        ('root = "simulated"', "", "intel or simulated"),
        ("global_id = -7001", "global_id = -239", "refuses a test root"),
        ('accepted_statuses = ["UpToDate"]', 'accepted_statuses = ["Revoked"]', "accepted_statuses"),
        ("evaluation_floor = 0", "evaluation_floor = 9_000_000_000", "evaluation_floor"),
        ("evaluation_ceiling = 4_294_967_295", "evaluation_cieling = 1", "unknown keys"),
        ("longest_seconds = 604_800", "longest_seconds = 60", "longest_seconds"),
        ('measurement = "7c', 'measurement = "7', "SHA-256"),
        ('name = "simulated worker"', "tier = 3", "tier"),
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
