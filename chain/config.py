"""Which network, through which endpoints: one TOML per network (`scripts/deploy/networks/`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from chain.quorum import Quorum
from chain.toncenter import Toncenter

NETWORKS = Path(__file__).resolve().parent.parent / "scripts" / "deploy" / "networks"


class ConfigError(ValueError):
    """A network profile is missing or wrong. Names the file, the key and the cure."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network profile. `toncenter`: base URLs, two or more, of independent operators where money is real."""

    name: str
    global_id: int
    toncenter: tuple[str, ...]
    api_key_file: Path | None = None
    requests_per_second: float | None = None


def load_network(profile: str | Path) -> Network:
    """By name (`devnet`, `testnet`, `mainnet`) or by path of a TOML file. Keys that it does not know are left to others."""
    path = Path(profile)
    if isinstance(profile, str) and path.suffix != ".toml":
        path = NETWORKS / f"{profile}.toml"
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in NETWORKS.glob("*.toml"))) or "none are installed"
        raise ConfigError(f"cannot read network profile {path} ({error.strerror}); known names: {known}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return parse_network(raw, name=path.stem, where=str(path), base=path.parent)


def parse_network(raw: Mapping[str, object], *, name: str, where: str, base: Path) -> Network:
    """`base`: the folder against which a relative `api_key_file` is read."""
    global_id = raw.get("global_id")
    if not isinstance(global_id, int) or isinstance(global_id, bool) or not -(2**31) <= global_id < 2**31:
        raise ConfigError(f"{where}: global_id must be a 32-bit integer, e.g. -239 for mainnet")
    urls = raw.get("toncenter")
    if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
        raise ConfigError(f'{where}: toncenter must be a list of URLs, e.g. ["https://toncenter.com/api/v2", ...]')
    key_file = raw.get("api_key_file")
    if key_file is not None and (not isinstance(key_file, str) or not key_file):
        raise ConfigError(f"{where}: api_key_file must be the path of a file with the key; leave it out for none")
    rate = raw.get("requests_per_second")
    if rate is not None and (isinstance(rate, bool) or not isinstance(rate, (int, float)) or rate <= 0):
        raise ConfigError(f"{where}: requests_per_second must be a positive number; leave it out for no limit")
    return Network(
        name=name,
        global_id=global_id,
        toncenter=tuple(urls),
        api_key_file=None if key_file is None else base / Path(key_file).expanduser(),
        requests_per_second=None if rate is None else float(rate),
    )


def connect(network: Network) -> Quorum:
    """Endpoints of the network behind a quorum; each must serve `global_id`. Raises ConfigError; opens no connection yet."""
    try:
        return Quorum(
            [
                Toncenter(
                    url,
                    api_key_file=network.api_key_file,
                    requests_per_second=network.requests_per_second,
                    global_id=network.global_id,
                )
                for url in network.toncenter
            ]
        )
    except (ValueError, OSError) as error:
        raise ConfigError(f"network {network.name}: {error}") from error
