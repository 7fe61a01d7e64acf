"""A committee's deployment: what the profile may say is what the contract takes, and what stands is not sent again."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attestation.onchain.state import NO_LAUNCH, ChainImage, ImageStatus, VerifierState
from chain.api import AccountState, Status
from chain.config import NETWORKS, ConfigError
from devnet.ledger import Ledger
from scripts.deploy.committee import (
    Choice,
    admission,
    choice_of,
    committee_account,
    committee_in,
    plan_committee,
    policy_hash,
    terms_of,
    verify_committee,
)
from scripts.deploy.plan import Desired, PlanError
from scripts.deploy.profile import load_profile
from scripts.stage import HOUR, TON, account_of_name, built_world, key_of, public
from wrappers.committee import CommitteeTerms

KEY = key_of("deployer")
GOOD = {"seats": 5, "quorum": 3, "window_seconds": 7200, "bond_nano": 10 * TON, "fee_nano": TON // 20}


def written(path: Path, **changes: Any) -> Path:
    values = {**GOOD, **changes}
    rows = [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    file = path / "network.toml"
    file.write_text("\n".join(["[deploy]", "[deploy.committee]", *rows]) + "\n")
    return file


def desired() -> Desired:
    profile = load_profile("devnet")
    governor = account_of_name("governor")
    return Desired(profile.network.global_id, public(KEY), 0, governor, profile.parameters, profile.verifier)


def terms(choice: Choice) -> CommitteeTerms:
    want = desired()
    return terms_of(choice, want.registry, want.registry_state)


def absent(account: bytes) -> AccountState:
    return AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))


def deployed(choice: Choice, chosen: CommitteeTerms) -> AccountState:
    """What the plan's message makes of an empty chain."""
    account = committee_account(public(KEY), choice.salt)
    step = plan_committee(desired(), choice, chosen, absent(account), KEY.sign)
    assert step is not None and step.message.destination == account
    ledger = Ledger(global_id=desired().global_id)
    ledger.send_internal(
        source=account_of_name("deployer"),
        destination=account,
        value_nano=step.message.value_nano,
        body=step.message.body,
        state_init=step.message.state_init,
    )
    return ledger.account(account)


CHOICE = Choice(5, 3, 7200, 10 * TON, TON // 20)


def test_a_committee_is_born_with_the_terms_of_profile_and_registry_and_not_sent_again() -> None:
    found = deployed(CHOICE, terms(CHOICE))
    state = committee_in(found)
    assert state is not None and state.terms == terms(CHOICE) and state.terms.policy == policy_hash()
    assert all(check.holds for check in verify_committee(terms(CHOICE), found))
    assert plan_committee(desired(), CHOICE, terms(CHOICE), found, KEY.sign) is None
    other = replace(CHOICE, bond_nano=11 * TON)
    assert [check.name for check in verify_committee(terms(other), found) if not check.holds] == ["bond_nano"]
    with pytest.raises(PlanError, match=r"bond_nano.*salt"):
        plan_committee(desired(), other, terms(other), found, KEY.sign)
    assert committee_account(public(KEY), 1) != committee_account(public(KEY), 0)


def test_g18_a_network_without_a_treasury_gets_no_committee() -> None:
    with pytest.raises(PlanError, match="treasury"):
        deployed(CHOICE, replace(terms(CHOICE), treasury=bytes(32)))


@pytest.mark.parametrize(
    ("key", "value", "near"),
    [
        ("quorum", 2, 3),
        ("seats", 16, 5),
        ("seats", 6, 5),
        ("quorum", 6, 5),
        ("window_seconds", HOUR - 1, HOUR),
        ("window_seconds", 172_801, 172_800),
        ("bond_nano", 10**9 - 1, 10**9),
        ("bond_nano", 10**15 + 1, 10**15),
        ("fee_nano", 10**7 - 1, 10**7),
        ("fee_nano", 10**12 + 1, 10**12),
    ],
)
def test_g18_what_the_profile_may_say_is_what_the_contract_takes(
    tmp_path: Path, key: str, value: int, near: int
) -> None:
    with pytest.raises(ConfigError, match=key):
        choice_of(written(tmp_path, **{key: value}))
    name = "window" if key == "window_seconds" else key
    out = replace(CHOICE, **{name: value})
    assert committee_in(deployed(out, terms(out))) is None, "the contract takes what the profile may not say"
    just = choice_of(written(tmp_path, **{key: near}))
    assert committee_in(deployed(just, terms(just))) is not None


@pytest.mark.parametrize(
    "changes", [{"seats": None}, {"seats": "five"}, {"colour": 1}, {"salt": -1}, {"fee_nano": True}]
)
def test_g18_a_wrong_profile_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(changes))):
        choice_of(written(tmp_path, **changes))


def test_profiles_that_name_a_committee_name_one_that_can_be() -> None:
    assert choice_of(NETWORKS / "devnet.toml").seats == 5
    assert choice_of(NETWORKS / "testnet.toml").quorum == 4
    with pytest.raises(ConfigError, match="section"):
        choice_of(NETWORKS / "mainnet.toml")


def test_g14_a_committee_vouches_only_where_the_verifier_names_it_as_one() -> None:
    world = built_world(verifier=True)
    data = world.ledger.account(world.attestation).data
    assert data is not None
    verifier, account = VerifierState.from_cell(data), account_of_name("committee")

    def said(image: ChainImage | None) -> str:
        return admission(replace(verifier, images={} if image is None else {account: image}), account)

    assert admission(None, account) == said(None) and said(None).startswith("not allowed")
    assert said(ChainImage(3, bytes(32))) == "allowed"
    assert said(ChainImage(3, NO_LAUNCH)).startswith("not allowed") and said(ChainImage(1, bytes(32))) != "allowed"
    assert said(ChainImage(3, bytes(32), ImageStatus.RETIRED)) == "revoked: retired"
