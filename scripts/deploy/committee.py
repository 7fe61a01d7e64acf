"""A committee as a network deploys it: terms from profile and registry, its genesis, and what the chain shows.

Another policy, other seats or another bond are another committee: terms are fixed at genesis. It vouches for nothing
until the network's images name its account under tier 3, which governance decides.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from attestation.committee import bundled_policy
from attestation.onchain.state import ImageStatus, VerifierState
from chain.api import AccountState
from chain.config import ConfigError
from scripts.deploy.plan import Check, Desired, PlanError, Sign, Step, birth, born
from wrappers.addresses import singleton_address
from wrappers.cells import CellError
from wrappers.code import Contract, code
from wrappers.committee import CommitteeState, CommitteeTerms
from wrappers.registry import RegistryState

TIER = 3
_KEYS = {"seats": "seats", "quorum": "quorum", "window_seconds": "window", "bond_nano": "bond_nano"}
_KNOWN = {**_KEYS, "fee_nano": "fee_nano", "salt": "salt"}


@dataclass(frozen=True, slots=True)
class Choice:
    """Section [deploy.committee] of a profile."""

    seats: int
    quorum: int
    window: int
    """Seconds to answer, and again to contradict."""
    bond_nano: int
    fee_nano: int
    """For each answer."""
    salt: int = 0
    """Another number is another committee of the same deployer."""


def choice_of(path: Path) -> Choice:
    """Raises ConfigError naming file, key and cure; also for what the contract would refuse."""
    deploy = tomllib.loads(path.read_text(encoding="utf-8")).get("deploy")
    raw = deploy.get("committee") if isinstance(deploy, dict) else None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: section [deploy.committee] is missing; name {', '.join(_KNOWN)}")
    unknown = sorted(set(raw) - set(_KNOWN))
    if unknown:
        raise ConfigError(f"{path}: deploy.committee has unknown keys {unknown}; known are {sorted(_KNOWN)}")
    values = {name: _number(path, raw, key) for key, name in _KNOWN.items() if key != "salt" or key in raw}
    choice = Choice(**values)
    for holds, bound in (
        (3 <= choice.quorum <= choice.seats <= 15, "quorum is at least 3 and at most seats, seats at most 15"),
        (2 * choice.quorum > choice.seats, "quorum is more than half of seats"),
        (3600 <= choice.window <= 172_800, "window_seconds is between 3600 and 172800"),
        (10**9 <= choice.bond_nano <= 10**15, "bond_nano is between 10^9 and 10^15"),
        (10**7 <= choice.fee_nano <= 10**12, "fee_nano is between 10^7 and 10^12"),
        (choice.salt < 1 << 32, "salt has 32 bits"),
    ):
        if not holds:
            raise ConfigError(f"{path}: deploy.committee: {bound}")
    return choice


def _number(path: Path, raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ConfigError(f"{path}: deploy.committee.{key} must be a whole number, at least 0")
    return value


def committee_account(genesis_key: bytes, salt: int) -> bytes:
    return singleton_address(code(Contract.COMMITTEE), genesis_key, salt)


def policy_hash() -> bytes:
    """Of the document that members of this release judge by; it is measured with them."""
    return sha256(bundled_policy()).digest()


def terms_of(choice: Choice, registry: bytes, state: RegistryState) -> CommitteeTerms:
    """For the network of that registry."""
    return CommitteeTerms(
        registry,
        state.stub_prefix,
        policy_hash(),
        choice.seats,
        choice.quorum,
        choice.window,
        state.attestation,
        state.treasury,
        choice.bond_nano,
        choice.fee_nano,
    )


def plan_committee(
    desired: Desired, choice: Choice, terms: CommitteeTerms, observed: AccountState, sign: Sign | None
) -> Step | None:
    """The message that is still to be sent; None where it stands. Raises PlanError."""
    if not any(terms.treasury):
        raise PlanError("the network has no treasury, which a committee pays what nobody earned: govern one first")
    if not born("committee", observed, code(Contract.COMMITTEE)):
        origin = replace(desired, salt=choice.salt)
        return birth(origin, "committee", code(Contract.COMMITTEE), terms.to_cell(), sign)
    checks = verify_committee(terms, observed)
    wrong = [check.name for check in checks if not check.holds]
    if wrong:
        raise PlanError(
            f"the committee stands with other terms ({', '.join(wrong)}): they are fixed; deploy another by another "
            "deploy.committee.salt"
        )
    return None


def verify_committee(terms: CommitteeTerms, observed: AccountState) -> tuple[Check, ...]:
    state = committee_in(observed)
    if state is None:
        return (Check("committee", "genesis done", "no readable state"),)
    found = state.terms
    hexed = ("registry", "stub_prefix", "policy", "attestation", "treasury")
    return tuple(
        Check(name, _shown(getattr(terms, name)), _shown(getattr(found, name)))
        for name in (*hexed, "seats", "quorum", "window", "bond_nano", "fee_nano")
    )


def _shown(value: bytes | int) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def committee_in(account: AccountState) -> CommitteeState | None:
    """None before the genesis, or where no committee stands."""
    if account.data is None or account.code is None or account.code.hash != code(Contract.COMMITTEE).hash:
        return None
    try:
        return CommitteeState.from_cell(account.data)
    except CellError:
        return None


def admission(verifier: VerifierState | None, account: bytes) -> str:
    """Whether the network lets it vouch, in words."""
    image = verifier.images.get(account) if verifier is not None else None
    if image is None:
        return "not allowed: the verifier's images do not name it"
    if image.tier != TIER or any(image.launch):
        return "not allowed: it stands among the images, but not as a committee"
    return "allowed" if image.status is ImageStatus.ALLOWED else f"revoked: {image.status.name.lower()}"
