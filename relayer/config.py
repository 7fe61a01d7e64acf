"""The relayer's settings: one TOML file, each key also as environment variable COCOON_RELAYER_<KEY>.

The environment wins. There are no secrets among them: the relayer holds no key.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from protocol.link import MAX_MESSAGE_BYTES, STREAM_HEADER_BYTES, origin_of
from relayer.core.policy import SettlePolicy
from relayer.errors import ConfigError

PREFIX = "COCOON_RELAYER_"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client, one worker and one request may take of this relayer."""

    max_request_bytes: int = (2 << 20) + 4096
    """Body of POST /v1/requests: a padding bucket of 2 MiB and its header. At most 4195820, the largest there is."""
    in_flight_per_escrow: int = 32
    """One client's requests under way at once."""
    requests_per_second_per_escrow: float = 50.0
    """Sustained; bursts of twice as many are let through."""
    in_flight: int = 4_000
    """Requests in all; above it new ones are told to wait."""
    first_frame_seconds: float = 120.0
    """A worker must begin its answer by then: queueing in the engine counts."""
    idle_seconds: float = 60.0
    """... and may not be silent for longer than this later."""
    request_seconds: float = 3_600.0
    """No answer lasts longer."""
    stream_buffer_bytes: int = 1 << 20
    """Held for a client that reads slowly; then it is dropped. Memory is bounded by in_flight times this."""
    mirror_seconds: float = 5.0
    """A node or escrow read from the chain is believed this long when it speaks for the client."""
    body_seconds: float = 30.0
    """A client must have sent its request by then."""
    jobs_per_escrow: int = 8
    """Batch jobs of one client that are kept at once."""
    job_bytes: int = 4 << 30
    """Of disk for the ciphertexts of batch jobs. 0: none are taken."""


@dataclass(frozen=True, slots=True)
class RelayerConfig:
    network: str
    """Network profile: a name (devnet, testnet, mainnet) or the path of its TOML file."""
    registry: bytes
    """Account id of the network's registry, 64 hex digits."""
    data_dir: Path
    """Where the database lives."""
    name: str = "cocoon relayer"
    """For people, in /v1/status and in the agents' logs."""
    client_listen: str = "127.0.0.1:8780"
    """host:port of the API for clients; port 0 takes a free one."""
    worker_listen: str = "127.0.0.1:8781"
    """host:port that worker agents dial."""
    worker_urls: tuple[str, ...] = ()
    """Origins under which agents reach `worker_listen` (ws://host:port, wss://host); their handshake is bound to it.
    Empty: ws:// and the listening address."""
    log_level: str = "info"
    """debug, info, warning or error."""
    poll_seconds: float = 2.0
    """How often followed accounts are read."""
    keep_days: int = 90
    """Ended requests, receipts of settled tallies and old facts are forgotten after this."""
    web_dir: Path | None = None
    """Folder of the dashboard's files, served under /; none by default."""
    limits: Limits = field(default_factory=Limits)
    """Table [limits]."""
    settle: SettlePolicy = field(default_factory=SettlePolicy)
    """Table [settle]."""


def load_config(path: Path, environment: Mapping[str, str]) -> RelayerConfig:
    """Raises ConfigError naming file, key and cure."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {path} ({error.strerror}); give the relayer's TOML file with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse_config(raw, environment, where=str(path), base=path.parent)


def parse_config(
    raw: Mapping[str, Any], environment: Mapping[str, str], *, where: str, base: Path = Path()
) -> RelayerConfig:
    """`base`: the folder against which relative paths are read."""
    values = dict(raw)
    tables = {"limits": Limits, "settle": SettlePolicy}
    for name, kind in tables.items():
        table = values.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{where}: {name} must be a table, [{name}]")
        values[name] = _build(kind, {**table, **_from_environment(kind, environment, f"{name.upper()}_")}, where, base)
    values |= _from_environment(RelayerConfig, environment, "")
    config = _build(RelayerConfig, values, where, base)
    most = MAX_MESSAGE_BYTES - STREAM_HEADER_BYTES
    if config.limits.max_request_bytes > most:
        raise ConfigError(f"{where}: limits.max_request_bytes is over {most}, what one message of the link can carry")
    for url in config.worker_urls:
        try:
            origin_of(url)
        except ValueError as error:
            raise ConfigError(f"{where}: worker_urls: {error}") from error
    return config


def _from_environment(kind: type[Any], environment: Mapping[str, str], prefix: str) -> dict[str, str]:
    names = {entry.name: f"{PREFIX}{prefix}{entry.name.upper()}" for entry in dataclasses.fields(kind)}
    return {name: environment[key] for name, key in names.items() if key in environment}


def _build(kind: type[Any], values: Mapping[str, Any], where: str, base: Path) -> Any:
    hints = get_type_hints(kind)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise ConfigError(f"{where}: unknown keys {', '.join(unknown)}; known are {', '.join(sorted(hints))}")
    required = [
        entry.name
        for entry in dataclasses.fields(kind)
        if entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING
    ]
    missing = sorted(set(required) - set(values))
    if missing:
        raise ConfigError(f"{where}: {', '.join(missing)} missing; add them or set {PREFIX}{missing[0].upper()}")
    return kind(**{name: _convert(hints[name], value, f"{where}: {name}", base) for name, value in values.items()})


def _convert(hint: Any, value: Any, what: str, base: Path) -> Any:
    if dataclasses.is_dataclass(value):
        return value
    try:
        return _CONVERTERS[hint](value, base)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{what} cannot be {value!r}: {error}") from error


def _integer(value: Any, base: Path) -> int:
    if isinstance(value, bool) or int(value) < 0 or (isinstance(value, float) and int(value) != value):
        raise ValueError("it must be a whole number, 0 or more")
    return int(value)


def _seconds(value: Any, base: Path) -> float:
    if isinstance(value, bool) or not 0 < float(value) < 1e9:
        raise ValueError("it must be a number over 0")
    return float(value)


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("it must be a text")
    return value


def _account(value: Any, base: Path) -> bytes:
    if not isinstance(value, str) or len(value) != 64:
        raise ValueError("it must be 64 hex digits")
    return bytes.fromhex(value)


def _path(value: Any, base: Path) -> Path:
    return base / Path(_text(value, base)).expanduser()


def _texts(value: Any, base: Path) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ValueError("it must be a list of texts")
    return tuple(_text(part, base) for part in parts if part)


_CONVERTERS: dict[Any, Any] = {
    int: _integer,
    float: _seconds,
    str: _text,
    bytes: _account,
    Path: _path,
    Path | None: _path,
    tuple[str, ...]: _texts,
}
