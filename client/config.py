"""The client's settings: `client.toml` in its home, and what the command line puts above it.

network             name or path of a network profile (`devnet`)
registry            account of the network's registry, 64 hex digits; may stand in the network profile instead
relayer             URL of a relayer
direct              host:port of a node that takes direct connections: dialled over RA-TLS instead of the relayer (none)
policy              attestation policy: a bundled name or the path of a TOML file (the network's name)
wallet              file with the wallet's 24 words, mode 0600 (`wallet.mnemonic`)
allow_simulated     accept evidence that proves no hardware, where the policy knows it (false)
keep_texts          store prompts and answers beside their receipts (false)
max_auto_allot_nano what may be allotted without asking, in total per start (0)
max_request_nano    the most that one request may cost (500000000)
follow_up           while the local endpoint runs, end by itself what was begun: refunds, rows, voucher keys (true)
host, port          where the local endpoint listens (127.0.0.1, 10000)
token_file          file with a bearer token that the local endpoint demands (none)
padding             false: neither pad nor delay answers; their token lengths then show on the wire (true)

Relative paths are relative to the home.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attestation import policy as policies
from attestation.policy import Policy
from attestation.strict import Malformed
from chain.config import NETWORKS, ConfigError, Network, load_network
from client.errors import HomeError
from client.settings import DEFAULT_MAX_REQUEST_NANO, Settings
from protocol.link import host_and_port
from protocol.opening import Shape

FILE = "client.toml"
DEFAULT_HOME = Path(os.environ.get("COCOON_HOME", ".cocoon")) / "client"
"""Where `cocoon up` keeps its client."""
DEFAULT_RELAYER = "http://127.0.0.1:10200"
_KINDS: dict[str, type] = {
    "network": str,
    "registry": str,
    "relayer": str,
    "direct": str,
    "policy": str,
    "wallet": str,
    "allow_simulated": bool,
    "keep_texts": bool,
    "max_auto_allot_nano": int,
    "max_request_nano": int,
    "follow_up": bool,
    "host": str,
    "port": int,
    "token_file": str,
    "padding": bool,
}


@dataclass(frozen=True, slots=True)
class Config:
    settings: Settings
    wallet_file: Path
    host: str = "127.0.0.1"
    port: int = 10_000
    token_file: Path | None = None
    follow_up: bool = True


def load(home: Path, overrides: Mapping[str, Any]) -> Config:
    """`overrides`: the same keys; None means not given. Raises HomeError."""
    path = home / FILE
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise HomeError(f"{path} cannot be read: {error}", "correct it") from error
    values = {**_checked(raw, str(path)), **{key: value for key, value in overrides.items() if value is not None}}
    profile = values.get("network", "devnet")
    profile_path = _under(home, profile) if profile.endswith(".toml") else NETWORKS / f"{profile}.toml"
    try:
        network = load_network(profile_path)
    except ConfigError as error:
        raise HomeError(str(error), "name an existing network profile") from error
    token = values.get("token_file")
    return Config(
        settings=Settings(
            home=home,
            network=network,
            registry=_registry(values.get("registry"), profile_path),
            relayer_url=values.get("relayer", DEFAULT_RELAYER),
            direct=_direct(values.get("direct")),
            policy=_policy(home, values.get("policy"), network),
            allow_simulated=values.get("allow_simulated", False),
            keep_texts=values.get("keep_texts", False),
            max_auto_allot_nano=values.get("max_auto_allot_nano", 0),
            max_request_nano=values.get("max_request_nano", DEFAULT_MAX_REQUEST_NANO),
            shape=Shape() if values.get("padding", True) else Shape.plain(),
        ),
        wallet_file=_under(home, values.get("wallet", "wallet.mnemonic")),
        host=values.get("host", "127.0.0.1"),
        port=values.get("port", 10_000),
        token_file=None if token is None else _under(home, token),
        follow_up=values.get("follow_up", True),
    )


def _checked(raw: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, value in raw.items():
        kind = _KINDS.get(key)
        if kind is None:
            raise HomeError(f"{where}: unknown key {key!r}", f"known are {', '.join(_KINDS)}")
        if not isinstance(value, kind) or (kind is int and not _is_amount(value)):
            raise HomeError(f"{where}: {key} must be of type {kind.__name__}, and not negative", "correct it")
    return dict(raw)


def _is_amount(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _under(home: Path, name: str) -> Path:
    return home / Path(name).expanduser()


def _registry(value: str | None, profile: Path) -> bytes:
    """Whoever names the registry names all contracts: it comes from the profile or the user, never from a relayer."""
    if value is None:
        found = tomllib.loads(profile.read_text(encoding="utf-8")).get("registry")
        value = found if isinstance(found, str) else None
    try:
        registry = bytes.fromhex(value or "")
    except ValueError:
        registry = b""
    if len(registry) != 32:
        raise HomeError(
            "the network's registry is not known (64 hex digits)",
            f"set registry in {FILE} or in {profile}, or give --registry; `cocoon deploy verify` prints it",
        )
    return registry


def _direct(value: str | None) -> str | None:
    if value is not None:
        try:
            host_and_port(value)
        except ValueError as error:
            raise HomeError(f"direct: {error}", "give the node's host and port") from error
    return value


def _policy(home: Path, name: str | None, network: Network) -> Policy:
    try:
        if name is not None and name.endswith(".toml"):
            return policies.load(_under(home, name))
        return policies.bundled(name or network.name)
    except Malformed as error:
        raise HomeError(str(error), "name the attestation policy to trust: --policy FILE.toml") from error
