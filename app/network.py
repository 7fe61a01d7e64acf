"""Bringing one whole network up on this machine, in the order strangers would: chain, contracts, relayer, node.

Each party is a process of its own that is configured by files and reached over the loopback interface; nothing is
passed behind their backs.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from app.home import Home
from app.processes import Service, Supervisor
from chain.config import connect
from chain.quorum import Quorum
from chain.wallet import Wallet
from devnet.control import Control
from scripts.deploy import apply as deploy
from scripts.deploy.plan import Desired
from scripts.deploy.profile import load_profile
from worker.agent.config import load as load_agent_config
from worker.agent.operations import Operator
from worker.agent.run import ground
from worker.agent.view import NodeMissing, NodeView

FAUCET_NANO = {
    "deployer": 10_000_000_000,
    "governor": 10_000_000_000,
    "operator": 20_000_000_000,
    "payout": 0,
    "client": 10_000_000_000,
}
ENCLAVE_READY_SECONDS = 300.0
STAKE_NANO = 10_000_000_000

Progress = Callable[[str], None]


class NetworkError(Exception):
    """The network on this machine could not be brought up. Names cause and cure."""


@dataclass(slots=True)
class Network:
    """A running chain with its contracts; the parties join it through `start_*`."""

    home: Home
    supervisor: Supervisor
    chain: Quorum
    desired: Desired
    global_id: int
    progress: Progress

    @property
    def registry(self) -> bytes:
        return self.desired.registry

    @classmethod
    async def start(cls, home: Home, supervisor: Supervisor, progress: Progress) -> Network:
        """The chain and, on it, the contracts. Raises ProcessFailed, ChainError, PlanError, NetworkError."""
        home.prepare()
        progress("starting the emulated TON chain")
        ports = home.ports
        await supervisor.start(
            "devnet",
            _python(
                "devnet",
                *("--state", str(home.devnet), "--port", str(ports.toncenter)),
                *("--second-port", str(ports.second_toncenter), "--lite-port", str(ports.liteserver)),
            ),
        )
        profile = load_profile(home.profile)
        chain = connect(profile.network)
        try:
            wallets = {name: _wallet(home, name) for name in FAUCET_NANO}
            async with Control(home.control_url) as control:
                for name, amount_nano in FAUCET_NANO.items():
                    account = wallets[name].account
                    if amount_nano and (await chain.account(account)).last_lt == 0:
                        await control.faucet(account, amount_nano)
            desired, deployer = deploy.desired_of(profile), deploy.deployer_of(profile)
            await deploy.apply(chain, desired, deployer, on_step=lambda step: progress(step.title))
        except BaseException:
            await chain.close()
            raise
        return cls(home, supervisor, chain, desired, profile.network.global_id, progress)

    def wallet(self, name: str) -> Wallet:
        return Wallet.from_mnemonic_file(self.home.wallet_file(name))

    async def start_relayer(self) -> Service:
        self.progress("starting the relayer")
        self.home.write_relayer_config(self.registry)
        return await self.supervisor.start(
            "relayer", _python("relayer", "run", "--config", str(self.home.relayer_config))
        )

    @asynccontextmanager
    async def _operator(self) -> AsyncIterator[Operator]:
        config = load_agent_config(self.home.agent_config)
        base = ground(config)
        try:
            yield Operator(config, base)
        finally:
            await base.chain.close()

    async def open_node(self) -> NodeView:
        """The operator's node with its stake; opened once, then read. Raises ChainError, OperationRefused."""
        self.home.write_enclave_config(self.global_id)
        self.home.write_agent_config(self.registry)
        async with self._operator() as operator:
            try:
                return await operator.view.node()
            except NodeMissing:
                self.progress(f"the operator opens his node with a stake of {STAKE_NANO // 10**9} TON")
                return await operator.open(STAKE_NANO, self.wallet("payout").account)

    async def collect(self) -> None:
        """What birth and attestation left above the node's reserves goes to the payout address now.

        Otherwise it would leave with the first earnings and look like one of them.
        """
        async with self._operator() as operator:
            self.progress("the operator collects what attestation left over")
            await operator.collect()

    async def start_worker(self) -> Service:
        """Agent and enclave; returns when the model is loaded and the chain has verified the node's evidence."""
        self.progress("starting the worker: the enclave loads its model, the chain verifies its evidence")
        return await self.supervisor.start(
            "worker",
            _python("worker", "run", "--config", str(self.home.agent_config)),
            ready_within_seconds=ENCLAVE_READY_SECONDS,
        )

    async def stop(self) -> None:
        await self.supervisor.stop()
        await self.chain.close()


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _wallet(home: Home, name: str) -> Wallet:
    path = home.wallet_file(name)
    return Wallet.from_mnemonic_file(path) if path.exists() else Wallet.create(path)


def check_ports(home: Home) -> None:
    """Raises NetworkError where a port is held, most likely by another `cocoon up`."""
    taken = home.ports.taken()
    if taken:
        raise NetworkError(
            f"ports {', '.join(map(str, taken))} are in use: is `cocoon up` running already? Stop what holds them"
        )


def lock_home(path: Path) -> int:
    """A file descriptor that keeps other supervisors out of `path` while it is open. Raises NetworkError."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise NetworkError(f"another process runs the network in {path}; stop it or give another --home") from error
    return descriptor
