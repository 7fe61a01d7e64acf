"""The enclave's configuration: part of what is measured, since it decides where plaintext goes and what clients pay.

TOML; every key is a field below, `[engine]` is read by worker.engine, `[gpu]` by attestation.gpu.policy but for
`manifests`. Nothing in it is secret.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from attestation.evidence import Kind
from attestation.gpu import policy as gpu_policy
from attestation.gpu.policy import GpuPolicy
from attestation.strict import Malformed

MAX_SEALING_SECONDS = 24 * 3600
MAINNET_GLOBAL_ID = -239


class ConfigError(ValueError):
    """A configuration file is missing, unreadable or wrong. Names the file, the key and the cure."""


@dataclass(frozen=True, slots=True)
class Prices:
    """`[prices]`: nanoTON per 2^20 tokens, and the minimum charge of one request. With the model they are the terms."""

    prompt: int
    cached: int
    completion: int
    reasoning: int
    minimum_nano: int


@dataclass(frozen=True, slots=True)
class GpuConfig:
    """`[gpu]`: this machine's GPUs must verify. Without the table none is verified, and tier gpu cannot be had."""

    manifests: Path
    """Absolute folder of NVIDIA's manifests (`<id>.swidtag`), CRLs (`*.crl`) and OCSP responses (`*.ocsp`). What is in
    it is signed by NVIDIA, so its content need not be measured; which versions are too old is in the policy."""
    policy: GpuPolicy


@dataclass(frozen=True, slots=True)
class EnclaveConfig:
    global_id: int
    """Of the network: simulated evidence is refused on mainnet's (-239), whatever else is set."""
    prices: Prices
    evidence: Kind = Kind.TDX
    """`tdx`: quotes from this machine's hardware. `simulated`: quotes that prove nothing, for development."""
    simulated_platform: str = "cocoon"
    """Name of the pretended machine; only with simulated evidence. Two nodes need two names."""
    sealing_seconds: int = 6 * 3600
    """Life of a sealing key; at most a day. A new one is born when half of it is over."""
    max_in_flight: int = 64
    """Requests that are answered at once; more are turned away as busy."""
    max_unacked: int = 64
    """Receipts that one client may leave unaccepted before it is asked to catch up."""
    job_lines: int = 2
    """Lines of batch jobs that run at once, all jobs together: what is left of the engine stays with requests. 0: this
    node takes no jobs."""
    engine: Mapping[str, Any] = field(default_factory=dict)
    gpu: GpuConfig | None = None

    @property
    def simulated(self) -> bool:
        return self.evidence is Kind.SIMULATED


def load(path: Path) -> EnclaveConfig:
    """Raises ConfigError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the enclave's configuration {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse(raw, where=str(path))


def parse(raw: Mapping[str, Any], *, where: str) -> EnclaveConfig:
    """Raises ConfigError on a missing, unknown or ill-typed key."""
    values = dict(raw)
    prices, engine, gpu = values.pop("prices", None), values.pop("engine", {}), values.pop("gpu", None)
    if not isinstance(prices, dict) or not isinstance(engine, dict):
        raise ConfigError(f"{where}: [prices] is missing, or [prices] or [engine] is not a table; see {__name__}")
    kind = values.pop("evidence", Kind.TDX.value)
    if kind not in list(Kind):
        raise ConfigError(f"{where}: evidence must be one of {', '.join(Kind)}, not {kind!r}")
    config = EnclaveConfig(
        **_typed(EnclaveConfig, values, where),
        prices=Prices(**_typed(Prices, prices, f"{where} [prices]")),
        evidence=Kind(kind),
        engine=engine,
        gpu=_gpu(gpu, where) if gpu is not None else None,
    )
    _check(config, where)
    return config


def _gpu(table: object, where: str) -> GpuConfig:
    if not isinstance(table, dict) or not isinstance(table.get("manifests"), str):
        raise ConfigError(f"{where}: [gpu] must be a table that names the folder `manifests`; see {__name__}")
    rest = {name: value for name, value in table.items() if name != "manifests"}
    folder = Path(table["manifests"])
    if not folder.is_absolute():
        raise ConfigError(f"{where} [gpu]: manifests must be an absolute path, not {table['manifests']!r}")
    try:
        return GpuConfig(folder, gpu_policy.from_document(rest, f"{where} [gpu]"))
    except Malformed as error:
        raise ConfigError(str(error)) from error


def _typed(shape: type[Any], values: Mapping[str, Any], where: str) -> dict[str, Any]:
    kinds = {name: kind for name, kind in get_type_hints(shape).items() if kind in (int, str)}
    for name, value in values.items():
        if name not in kinds:
            raise ConfigError(f"{where}: unknown key {name!r}; known are {', '.join(sorted(kinds))}")
        if not isinstance(value, kinds[name]) or isinstance(value, bool):
            raise ConfigError(f"{where}: {name} must be of type {kinds[name].__name__}")
    needed = {name for name in kinds if shape is Prices or name == "global_id"}
    if missing := needed - set(values):
        raise ConfigError(f"{where}: missing {', '.join(sorted(missing))}")
    return dict(values)


def _check(config: EnclaveConfig, where: str) -> None:
    if config.simulated and config.global_id == MAINNET_GLOBAL_ID:
        raise ConfigError(
            f"{where}: simulated evidence is never served on mainnet; use a TDX machine or a test network"
        )
    prices = config.prices
    for name in ("prompt", "cached", "completion", "reasoning", "minimum_nano"):
        if not 0 <= getattr(prices, name) < 1 << 63:
            raise ConfigError(f"{where}: prices.{name} must be at least 0 and below 2^63 nanoTON")
    bounds = {"sealing_seconds": (60, MAX_SEALING_SECONDS), "max_in_flight": (1, 4096), "max_unacked": (1, 65536)}
    bounds["job_lines"] = (0, 4096)
    for name, (low, high) in bounds.items():
        if not low <= getattr(config, name) <= high:
            raise ConfigError(f"{where}: {name} must be from {low} to {high}")
