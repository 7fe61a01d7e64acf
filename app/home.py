"""Where one network on this machine keeps its files, which ports it uses, and the configuration files made for it.

Everything that a service needs is a file here, the same kind of file that an operator writes for testnet.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path

from chain.config import NETWORKS

SIMULATED_PLATFORM = "cocoon demo machine"
# nanoTON per 2^20 tokens, and per request: the minimum is what makes one short answer worth a claim of its own.
PRICES = {
    "prompt": 200_000_000,
    "cached": 50_000_000,
    "completion": 800_000_000,
    "reasoning": 800_000_000,
}
MAX_JOB_NANO = 1_000_000_000
MINIMUM_NANO = 20_000_000


@dataclass(frozen=True, slots=True)
class Ports:
    """All on the loopback interface. 0: a free one."""

    sidecar: int = 10_000
    toncenter: int = 10_100
    second_toncenter: int = 10_101
    liteserver: int = 10_102
    relayer_clients: int = 10_200
    relayer_workers: int = 10_201

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody holds now; for networks that live for minutes."""
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in cls.__slots__]
        try:
            return cls(*(one.getsockname()[1] for one in sockets))
        finally:
            for one in sockets:
                one.close()

    def taken(self) -> list[int]:
        busy = []
        for port in (getattr(self, name) for name in self.__slots__):
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                busy.append(port)
        return busy


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one network. Paths are derived, nothing is read."""

    path: Path
    ports: Ports

    @property
    def profile(self) -> Path:
        return self.path / "network.toml"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def devnet(self) -> Path:
        return self.path / "devnet"

    @property
    def relayer(self) -> Path:
        return self.path / "relayer"

    @property
    def node(self) -> Path:
        return self.path / "node"

    @property
    def client(self) -> Path:
        return self.path / "client"

    @property
    def relayer_config(self) -> Path:
        return self.path / "relayer.toml"

    @property
    def enclave_config(self) -> Path:
        return self.path / "enclave.toml"

    @property
    def agent_config(self) -> Path:
        return self.path / "agent.toml"

    def wallet_file(self, name: str) -> Path:
        return self.path / f"{name}.mnemonic"

    @property
    def toncenter_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.toncenter}/api/v2"

    @property
    def control_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.toncenter}/control"

    @property
    def relayer_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.relayer_clients}"

    @property
    def worker_url(self) -> str:
        return f"ws://127.0.0.1:{self.ports.relayer_workers}"

    def prepare(self) -> None:
        """Create folders and the network profile. Keys and databases that are there stay."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (self.logs, self.devnet, self.relayer, self.node, self.client):
            folder.mkdir(exist_ok=True, mode=0o700)
        template = (NETWORKS / "devnet.toml").read_text(encoding="utf-8")
        first, second = self.ports.toncenter, self.ports.second_toncenter
        self.profile.write_text(
            template.replace("127.0.0.1:10100/", f"127.0.0.1:{first}/").replace(
                "127.0.0.1:10101/", f"127.0.0.1:{second}/"
            ),
            encoding="utf-8",
        )

    def write_relayer_config(self, registry: bytes) -> None:
        self.relayer_config.write_text(
            f'network = "{self.profile}"\n'
            f'registry = "{registry.hex()}"\n'
            f'data_dir = "{self.relayer}"\n'
            f'name = "embedded relayer"\n'
            f'client_listen = "127.0.0.1:{self.ports.relayer_clients}"\n'
            f'worker_listen = "127.0.0.1:{self.ports.relayer_workers}"\n'
            f'worker_urls = ["{self.worker_url}"]\n'
            "poll_seconds = 0.5\n\n"
            "[settle]\n"
            "# The embedded network shows a settlement soon; a real one lets more earnings gather per claim.\n"
            "age_seconds = 5\n"
            "floor_nano = 1\n"
            "settle_seconds = 5\n",
            encoding="utf-8",
        )

    def write_enclave_config(self, global_id: int) -> None:
        prices = "".join(f"{name} = {value}\n" for name, value in PRICES.items())
        self.enclave_config.write_text(
            f"global_id = {global_id}\n"
            'evidence = "simulated"\n'
            f'simulated_platform = "{SIMULATED_PLATFORM}"\n\n'
            f"[prices]\n{prices}minimum_nano = {MINIMUM_NANO}\n\n"
            '[engine]\nkind = "llama"\n',
            encoding="utf-8",
        )

    def write_agent_config(self, registry: bytes) -> None:
        self.agent_config.write_text(
            f'network = "{self.profile}"\n'
            f'registry = "{registry.hex()}"\n'
            f'data_dir = "{self.node}"\n'
            f'enclave_config = "{self.enclave_config}"\n'
            f'wallet_file = "{self.wallet_file("operator")}"\n'
            f'relayers = ["{self.worker_url}"]\n'
            f"max_job_nano = {MAX_JOB_NANO}\n"
            "receipt_claim_nano = 1\n"
            "poll_seconds = 1.0\n",
            encoding="utf-8",
        )

    def write_client_config(self, registry: bytes) -> None:
        """Made once: what the user changes in it stays."""
        path = self.client / "client.toml"
        if path.exists():
            return
        path.write_text(
            f'network = "{self.profile}"\n'
            f'registry = "{registry.hex()}"\n'
            f'relayer = "{self.relayer_url}"\n'
            'policy = "devnet"\n'
            f'wallet = "{self.wallet_file("client")}"\n'
            "# The embedded network has no TEE. On a real one leave this out.\n"
            "allow_simulated = true\n"
            "max_auto_allot_nano = 3_000_000_000\n"
            f"port = {self.ports.sidecar}\n",
            encoding="utf-8",
        )
