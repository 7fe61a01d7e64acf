"""Which network, through which endpoints: one TOML per network (`scripts/deploy/networks/`)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yarl import URL

from chain.api import Chain
from chain.liteserver import LiteServer
from chain.quorum import NEEDED, Quorum
from chain.toncenter import Toncenter

NETWORKS = Path(__file__).resolve().parent.parent / "scripts" / "deploy" / "networks"


class ConfigError(ValueError):
    """A network profile is missing or wrong. Names the file, the key and the cure."""


@dataclass(frozen=True, slots=True)
class Network:
    """A network profile.

    `toncenter`: base URLs, of independent operators where money is real. `api_key_file` is for the first one's host and
    is sent to no other. `liteserver_config`: path or URL of a global-config.json, the second voice where there is only
    one toncenter.
    """

    name: str
    global_id: int
    toncenter: tuple[str, ...]
    api_key_file: Path | None = None
    requests_per_second: float | None = None
    liteserver_config: str | None = None


def load_network(profile: str | Path) -> Network:
    """By name (`devnet`, `testnet`, `mainnet`) or by path of a TOML file. Other keys are left to others."""
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
    """`base`: the folder against which relative paths are read."""
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
    lite = raw.get("liteserver_config")
    if lite is not None and (not isinstance(lite, str) or not lite):
        raise ConfigError(f"{where}: liteserver_config must be the path or URL of a global-config.json")
    if lite is not None and not _is_url(lite):
        lite = str(base / Path(lite).expanduser())
    return Network(
        name=name,
        global_id=global_id,
        toncenter=tuple(urls),
        api_key_file=None if key_file is None else base / Path(key_file).expanduser(),
        requests_per_second=None if rate is None else float(rate),
        liteserver_config=lite,
    )


def connect(network: Network) -> Quorum:
    """The endpoints behind a quorum; each must serve `global_id`. Opens no connection yet. Raises ConfigError."""
    try:
        endpoints: list[Chain] = [_toncenter(network, url) for url in network.toncenter]
        if len(endpoints) < NEEDED and network.liteserver_config is not None:
            lite = network.liteserver_config
            endpoints.append(LiteServer(lite if _is_url(lite) else Path(lite), global_id=network.global_id))
        return Quorum(endpoints)
    except (ValueError, OSError) as error:
        raise ConfigError(f"network {network.name}: {error}") from error


def _toncenter(network: Network, url: str) -> Toncenter:
    key_belongs_here = URL(url).host == URL(network.toncenter[0]).host
    return Toncenter(
        url,
        api_key_file=network.api_key_file if key_belongs_here else None,
        requests_per_second=network.requests_per_second,
        global_id=network.global_id,
    )


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://"))
