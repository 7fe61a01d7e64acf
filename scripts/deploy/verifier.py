"""What a network's verifier starts with: the root that evidence must end in, the policy, the images. Section
[deploy.attestation] of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.state import NO_LAUNCH, ChainImage, ChainPolicy
from attestation.onchain.statements import DEFECTS
from attestation.trust_roots import root
from chain.config import ConfigError

MAINNET_GLOBAL_ID = -239
ROOTS = {"intel": Kind.TDX, "simulated": Kind.SIMULATED}
_POLICY = {
    "evaluation_floor": "floor",
    "evaluation_ceiling": "ceiling",
    "longest_seconds": "longest_seconds",
}
_KEYS = {"root", "accepted_statuses", "images", *_POLICY}
_IMAGE_KEYS = {"name", "measurement", "tier", "launch"}


@dataclass(frozen=True, slots=True)
class VerifierTerms:
    """Everything of the verifier's genesis that a profile decides. Images by measurement."""

    root: Kind = Kind.TDX
    policy: ChainPolicy = field(default_factory=ChainPolicy)
    images: Mapping[bytes, ChainImage] = field(default_factory=dict)

    @property
    def root_key(self) -> bytes:
        """64 bytes x||y."""
        return public_key(root(self.root).der)

    @property
    def simulated(self) -> bool:
        """Whether the root is the test root, whose key is public: its evidence proves no hardware."""
        return self.root is Kind.SIMULATED


def verifier_terms(path: Path, deploy: Mapping[str, Any], global_id: int) -> VerifierTerms:
    """Raises ConfigError naming file, key and cure."""
    raw = deploy.get("attestation")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: section [deploy.attestation] is missing; see scripts/deploy/networks/devnet.toml")
    unknown = sorted(set(raw) - _KEYS)
    if unknown:
        raise ConfigError(f"{path}: deploy.attestation has unknown keys {unknown}; known are {sorted(_KEYS)}")
    name = raw.get("root")
    if not isinstance(name, str) or name not in ROOTS:
        raise ConfigError(f"{path}: deploy.attestation.root must be {' or '.join(ROOTS)}")
    if ROOTS[name] is Kind.SIMULATED and global_id == MAINNET_GLOBAL_ID:
        raise ConfigError(f"{path}: deploy.attestation.root: the main network refuses a test root; name intel")
    return VerifierTerms(ROOTS[name], _policy(path, raw), _images(path, raw.get("images", [])))


def _policy(path: Path, raw: Mapping[str, Any]) -> ChainPolicy:
    statuses = raw.get("accepted_statuses", ["UpToDate"])
    if not isinstance(statuses, list) or not statuses or not set(statuses) <= set(DEFECTS) - {"Revoked"}:
        known = ", ".join(status for status in DEFECTS if status != "Revoked")
        raise ConfigError(f"{path}: deploy.attestation.accepted_statuses must be a list of {known}")
    numbers = {}
    for key, field_name in _POLICY.items():
        value = raw.get(key, getattr(ChainPolicy(), field_name))
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
            raise ConfigError(f"{path}: deploy.attestation.{key} must be a whole number below 2^32")
        numbers[field_name] = value
    if numbers["floor"] > numbers["ceiling"] or not 3_600 <= numbers["longest_seconds"] <= 7_776_000:
        raise ConfigError(
            f"{path}: deploy.attestation: evaluation_floor may not exceed evaluation_ceiling, and longest_seconds lies "
            "between 3600 and 7776000"
        )
    return ChainPolicy(accepted_statuses=frozenset(statuses), **numbers)


def _images(path: Path, raw: object) -> dict[bytes, ChainImage]:
    if not isinstance(raw, list) or not all(isinstance(each, dict) and set(each) <= _IMAGE_KEYS for each in raw):
        raise ConfigError(f"{path}: deploy.attestation.images must be tables of {sorted(_IMAGE_KEYS)}")
    images = {}
    for each in raw:
        tier = each.get("tier", 1)
        if tier not in (1, 2):
            raise ConfigError(
                f"{path}: deploy.attestation.images: tier is 1 (CPU) or 2 (verifies its GPU), not {tier!r}"
            )
        launch = _digest(path, each["launch"]) if "launch" in each else NO_LAUNCH
        images[_digest(path, each.get("measurement"))] = ChainImage(tier, launch)
    return images


def _digest(path: Path, value: object) -> bytes:
    try:
        digest = bytes.fromhex(str(value))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise ConfigError(f"{path}: deploy.attestation.images: {value!r} is no SHA-256 of 64 hex digits")
    return digest
