"""Putting an agent together from its configuration, and running it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from chain.config import connect, load_network
from chain.quorum import Quorum
from chain.wallet import Wallet
from worker.agent import control
from worker.agent.config import AgentConfig
from worker.agent.release_keys import ReleaseKeys
from worker.agent.service import Service
from wrappers.addresses import Kind, child_address
from wrappers.signed import network_id


@dataclass(frozen=True, slots=True)
class Ground:
    """Where an agent stands: its chain, the network's id, its node's account, and the wallet if there is one."""

    chain: Quorum
    network: bytes
    global_id: int
    node: bytes
    wallet: Wallet | None


def ground(config: AgentConfig) -> Ground:
    """Raises chain.config.ConfigError, MnemonicError."""
    profile = load_network(config.network)
    wallet = Wallet.from_mnemonic_file(config.wallet_file) if config.wallet_file is not None else None
    node = config.node
    if node is None:
        if wallet is None:
            raise ValueError("set node, or wallet_file to find the node that this wallet opened")
        node = child_address(config.registry, Kind.NODE, wallet.account, config.index)
    network = network_id(profile.global_id, config.registry)
    return Ground(connect(profile), network, profile.global_id, node, wallet)


async def run(config: AgentConfig, announce: Callable[[str], None]) -> None:
    """Run until SIGTERM or SIGINT; `announce` gets one JSON line when the node serves.

    Raises ConfigError, MnemonicError, KeyFileError, StoreError, AlreadyRunning, EnclaveGone.
    """
    await asyncio.to_thread(os.makedirs, config.data_dir, 0o700, True)
    lock = control.hold(config.data_dir)
    try:
        await _run(config, announce)
    finally:
        os.close(lock)


async def _run(config: AgentConfig, announce: Callable[[str], None]) -> None:
    base = ground(config)
    keys = await asyncio.to_thread(ReleaseKeys, config.release_key)
    service = Service(config, base.chain, base.network, base.node, keys, base.wallet)
    try:
        server = await control.serve(config.control_socket, service.console.control)
    except BaseException:
        await service.journal.close()
        await base.chain.close()
        raise
    work = asyncio.create_task(service.run())
    leaving: list[asyncio.Task[None]] = []

    async def leave() -> None:
        await service.jobs.enclave_jobs.stop()
        work.cancel()

    def stop() -> None:
        if leaving:
            work.cancel()  # whoever asks twice does not want to wait
        else:
            leaving.append(asyncio.create_task(leave()))

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    announcing = asyncio.create_task(_announce(service, announce))
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await work
    finally:
        for task in (announcing, *leaving):
            task.cancel()
        server.close()
        await base.chain.close()


async def _announce(service: Service, announce: Callable[[str], None]) -> None:
    await service.keeper.ready.wait()
    enclave = service.keeper.enclave
    announce(
        json.dumps(
            {
                "ready": "worker",
                "node": service.view.account.hex(),
                "key": enclave.key.hex() if enclave is not None else None,
                "simulated": enclave.ready.simulated if enclave is not None else None,
                "model": enclave.ready.models[0].name if enclave is not None else None,
            }
        )
    )
