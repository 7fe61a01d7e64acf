"""The agent's configuration: TOML, every key a field below; paths are relative to the file. Secrets only in files."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from protocol.link import host_and_port, origin_of
from wrappers.cells import account_of


class ConfigError(ValueError):
    """A configuration file is missing, unreadable or wrong. Names the file, the key and the cure."""


@dataclass(frozen=True, slots=True)
class AgentConfig:
    network: str
    """Network profile: `devnet`, `testnet`, `mainnet`, or the path of a TOML file."""
    registry: bytes
    """Account of the network's registry, 64 hex digits or an address."""
    data_dir: Path
    """Receipts, the enclave's socket and log; keep it: unclaimed receipts are money."""
    enclave_config: Path
    """Configuration of the enclave, which is measured; see worker.enclave.config."""
    node: bytes | None = None
    """Account of the node; by default the one that the wallet opened with `index`."""
    index: int = 0
    """Which of the wallet's nodes this machine is."""
    wallet_file: Path | None = None
    """24 words of the operator's wallet, mode 0600. It pays for attestation, open, unbond, withdraw, and for claims of
    what an enclave that is gone had signed; batch claims need none."""
    release_key_file: Path | None = None
    """Key that releases are signed with, mode 0600; default `release.key` in data_dir, made by `cocoon node open`."""
    relayers: tuple[str, ...] = ()
    """ws:// or wss:// URLs of relayers to serve through."""
    direct: tuple[str, int] | None = None
    """`[direct] listen = "host:port"`: clients may dial this node without a relayer, over RA-TLS. Off by default."""
    collateral_file: Path | None = None
    """Attestation collateral for real quotes (JSON in dcap-qvl's form, or AMD's), renewed by the operator."""
    collateral_url: str | None = None
    """Instead of the file: base of a PCCS or of Intel's service (API v4), with SEV-SNP of AMD's. Kept in data_dir."""
    gpu_manifests: Path | None = None
    """Folder of NVIDIA's manifests and revocation data, shown to verifiers beside GPU evidence; the same files as the
    enclave's `[gpu]` manifests."""
    committee: bytes | None = None
    """Account of the network's committee, where this node answers what it is drawn for once it has joined."""
    max_in_flight: int = 32
    """Requests at once, over all relayers."""
    min_close_timer_seconds: int = 3600
    """Rows with a shorter close timer are not served: there must be time to claim."""
    max_share: int = 0
    """Rows that give more than this (1/10000 of each payment) to a relayer or as a royalty are not served: it leaves
    the node's pay. The network's fee is not counted."""
    claim_amount_nano: int = 1_000_000_000
    """A batch claim is signed when this much is owed ..."""
    claim_age_seconds: int = 3600
    """... or when the oldest unclaimed receipt is this old, whatever relayers ask for."""
    receipt_claim_nano: int = 10_000_000
    """What an enclave that is gone had signed is claimed singly, at the wallet's gas, from this amount on; and for less
    than this in all no relayer's ask for a batch is followed."""
    max_job_nano: int = 0
    """The most that one batch job may put at stake: a job's maximum is slashed when it was accepted and no result came,
    as when the enclave dies in between. 0: this node takes no jobs."""
    poll_seconds: float = 3.0
    """How often the node's account is read; escrows are read at most this old before they are trusted."""
    enclave_command: tuple[str, ...] = ()
    """Instead of `python -m worker.enclave`; `--socket PATH --config FILE` are appended."""
    enclave_start_seconds: float = 900.0
    """How long the enclave may take to load its model."""

    @property
    def store(self) -> Path:
        return self.data_dir / "receipts.db"

    @property
    def control_socket(self) -> Path:
        return self.data_dir / "agent.sock"

    @property
    def release_key(self) -> Path:
        return self.release_key_file or self.data_dir / "release.key"


def parse_account(text: str) -> bytes:
    """64 hex digits, or any form of a workchain-0 address. Raises ValueError."""
    if len(text) == 64:
        return bytes.fromhex(text)
    try:
        return account_of(text)
    except Exception as error:  # pytoniq-core raises many unrelated types on a malformed address
        raise ValueError(f"{text!r} is neither 64 hex digits nor a TON address in workchain 0") from error


def load(path: Path) -> AgentConfig:
    """Raises ConfigError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the agent's configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse(raw, where=str(path), base=path.resolve().parent)


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a text")
    return value


def _network(value: Any, base: Path) -> str:
    text = _text(value, base)
    return str(base / Path(text).expanduser()) if text.endswith(".toml") else text


def _path(value: Any, base: Path) -> Path:
    return base / Path(_text(value, base)).expanduser()


def _account(value: Any, base: Path) -> bytes:
    return parse_account(_text(value, base))


def _whole(value: Any, base: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        raise ValueError("must be a whole number, at least 0")
    return value


def _seconds(value: Any, base: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 86_400:
        raise ValueError("must be a number of seconds, above 0 and at most a day")
    return float(value)


def _texts(value: Any, base: Path) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("must be a list of texts")
    return tuple(_text(item, base) for item in value)


def _relayers(value: Any, base: Path) -> tuple[str, ...]:
    urls = _texts(value, base)
    for url in urls:
        origin_of(url)
    return urls


def _direct(value: Any, base: Path) -> tuple[str, int]:
    if not isinstance(value, dict) or set(value) != {"listen"}:
        raise ValueError("must be a table with listen and nothing else")
    return host_and_port(_text(value["listen"], base))


_PARSERS: dict[str, Callable[[Any, Path], Any]] = {
    "network": _network,
    "registry": _account,
    "data_dir": _path,
    "enclave_config": _path,
    "node": _account,
    "index": _whole,
    "wallet_file": _path,
    "release_key_file": _path,
    "relayers": _relayers,
    "direct": _direct,
    "collateral_file": _path,
    "collateral_url": _text,
    "gpu_manifests": _path,
    "committee": _account,
    "max_in_flight": _whole,
    "min_close_timer_seconds": _whole,
    "max_share": _whole,
    "claim_amount_nano": _whole,
    "claim_age_seconds": _whole,
    "receipt_claim_nano": _whole,
    "max_job_nano": _whole,
    "poll_seconds": _seconds,
    "enclave_command": _texts,
    "enclave_start_seconds": _seconds,
}


def parse(raw: Mapping[str, Any], *, where: str, base: Path) -> AgentConfig:
    """Raises ConfigError on a missing, unknown or ill-typed key."""
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in _PARSERS:
            raise ConfigError(f"{where}: unknown key {name!r}; known are {', '.join(_PARSERS)}")
        try:
            values[name] = _PARSERS[name](value, base)
        except ValueError as error:
            raise ConfigError(f"{where}: {name}: {error}") from error
    missing = [f.name for f in fields(AgentConfig) if f.default is MISSING and f.name not in values]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}; see worker.agent.config")
    if "collateral_file" in values and "collateral_url" in values:
        raise ConfigError(f"{where}: set collateral_file or collateral_url, not both")
    if "node" not in values and "wallet_file" not in values:
        raise ConfigError(f"{where}: set node, or wallet_file to find the node that this wallet opened")
    return AgentConfig(**values)
