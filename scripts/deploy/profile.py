"""Deployment part of a network profile: who deploys, who governs, and the parameters that children freeze at birth."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from chain.config import NETWORKS, ConfigError, Network, load_network
from scripts.deploy.verifier import VerifierTerms, verifier_terms
from wrappers.cells import CellError, account_of
from wrappers.registry import Parameters, Rebuilders

MAX_REBUILDERS = 16
_SECONDS = ("unbonding", "claim_window", "challenge_window", "min_close_timer", "max_close_timer")


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything that a deployment is decided by. The deployer's key is also the genesis key of the singletons."""

    network: Network
    path: Path
    parameters: Parameters
    verifier: VerifierTerms
    deployer_mnemonic_file: Path
    deployer_public_key: bytes | None
    """Enough to find and verify a deployment; deploying needs the words."""
    governor: bytes | None
    """Account named in the profile; None: the wallet of `governor_mnemonic_file`."""
    governor_mnemonic_file: Path | None
    salt: int = 0
    treasury: bytes | None = None
    """None: the governor."""
    rebuilders: Rebuilders = field(default_factory=Rebuilders)


def load_profile(name_or_path: str | Path) -> Profile:
    """Raises ConfigError naming file, key and cure."""
    network = load_network(name_or_path)
    path = Path(name_or_path)
    if isinstance(name_or_path, str) and path.suffix != ".toml":
        path = NETWORKS / f"{name_or_path}.toml"
    deploy = tomllib.loads(path.read_text(encoding="utf-8")).get("deploy")
    if not isinstance(deploy, dict):
        raise ConfigError(f"{path}: section [deploy] is missing; see scripts/deploy/networks/devnet.toml")
    governor = _account(path, "governor", deploy.get("governor"))
    treasury = _account(path, "treasury", deploy.get("treasury"))
    governor_file = _file(path, deploy, "governor_mnemonic_file")
    deployer_file = _file(path, deploy, "deployer_mnemonic_file")
    if deployer_file is None:
        raise ConfigError(f"{path}: deploy.deployer_mnemonic_file must name the file with the deployer's 24 words")
    public_key = _public_key(path, deploy.get("deployer_public_key"))
    salt = deploy.get("salt", 0)
    if not isinstance(salt, int) or not 0 <= salt < 2**32:
        raise ConfigError(f"{path}: deploy.salt must be an unsigned 32-bit integer")
    parameters = _parameters(path, deploy)
    verifier = verifier_terms(path, deploy, network.global_id)
    rebuilders = _rebuilders(path, deploy.get("rebuilders"))
    return Profile(
        network,
        path,
        parameters,
        verifier,
        deployer_file,
        public_key,
        governor,
        governor_file,
        salt,
        treasury,
        rebuilders,
    )


def _public_key(path: Path, value: object) -> bytes | None:
    if value is None:
        return None
    try:
        key = bytes.fromhex(str(value))
    except ValueError:
        key = b""
    if len(key) != 32:
        raise ConfigError(f"{path}: deploy.deployer_public_key must be 64 hex digits, an Ed25519 public key")
    return key


def _rebuilders(path: Path, value: object) -> Rebuilders:
    """Who must have rebuilt an image before it may serve."""
    raw = value if isinstance(value, dict) else {}
    needed, names = raw.get("needed", 0), raw.get("accounts", [])
    if not isinstance(needed, int) or not isinstance(names, list) or not 0 <= needed <= len(names) <= MAX_REBUILDERS:
        raise ConfigError(
            f"{path}: deploy.rebuilders takes `accounts`, at most {MAX_REBUILDERS} addresses, and how many are `needed`"
        )
    accounts = {account for name in names if (account := _account(path, "rebuilders", name)) is not None}
    return Rebuilders(needed, frozenset(accounts))


def _account(path: Path, key: str, value: object) -> bytes | None:
    if value is None:
        return None
    try:
        return account_of(str(value))
    except Exception as error:  # pytoniq-core raises many unrelated types on a malformed address
        cause = error if isinstance(error, CellError) else f"{value!r} is no TON address"
        raise ConfigError(f"{path}: deploy.{key}: {cause}") from error


def _file(path: Path, deploy: Mapping[str, object], key: str) -> Path | None:
    value = deploy.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{path}: deploy.{key} must be the path of a file")
    return path.parent / Path(value).expanduser()


def _parameters(path: Path, deploy: Mapping[str, object]) -> Parameters:
    raw = deploy.get("parameters")
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: section [deploy.parameters] is missing; see scripts/deploy/networks/devnet.toml")
    keys = {
        field.name: f"{field.name}_seconds" if field.name in _SECONDS else field.name
        for field in fields(Parameters)
        if field.name != "fee"  # a network begins without one: governance names the treasury first
    }
    unknown = sorted(set(raw) - set(keys.values()))
    if unknown:
        raise ConfigError(f"{path}: deploy.parameters has unknown keys {unknown}; known are {sorted(keys.values())}")
    values: dict[str, int] = {}
    for name, key in keys.items():
        value = raw.get(key, 0 if name == "fee" else None)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ConfigError(f"{path}: deploy.parameters.{key} must be a whole number, at least 0")
        values[name] = value
    parameters = Parameters(**values)
    if parameters.claim_window < parameters.max_close_timer:
        raise ConfigError(
            f"{path}: claim_window_seconds ({parameters.claim_window}) is shorter than max_close_timer_seconds "
            f"({parameters.max_close_timer}): a key's earnings could expire before a client's row closes"
        )
    return parameters
