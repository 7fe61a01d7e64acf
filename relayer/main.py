"""Runs one relayer process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Callable

from chain.api import Chain
from chain.config import ConfigError as NetworkError
from chain.config import connect, load_network
from relayer import memory_dump
from relayer.config import RelayerConfig
from relayer.errors import ConfigError
from relayer.log import start_logging
from relayer.shell import Shell

OnReady = Callable[[dict[str, str]], None]


async def run(config: RelayerConfig, on_ready: OnReady | None = None) -> None:
    """Serves over the network profile's endpoints until SIGTERM or SIGINT. Raises ConfigError for bad settings."""
    try:
        network = load_network(config.network)
        chain = connect(network)
    except NetworkError as error:
        raise ConfigError(str(error)) from error
    try:
        await serve(config, chain, network.global_id, on_ready)
    finally:
        await chain.close()


async def serve(config: RelayerConfig, chain: Chain, global_id: int, on_ready: OnReady | None = None) -> None:
    """The process over a `chain` that somebody made: a quorum of two endpoints at least.

    `on_ready` gets the addresses that clients and workers reach it at, when it listens.
    """
    start_logging(config.log_level)
    memory_dump.install()
    shell = Shell(config, chain, global_id=global_id)
    await shell.start()
    if on_ready is not None:
        on_ready({"client_url": f"http://{shell.client_address}", "worker_url": f"ws://{shell.worker_address}"})
    serving = asyncio.ensure_future(shell.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, serving.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await serving


def ready_line(addresses: dict[str, str]) -> str:
    """What the process prints, alone on a line, when it can be used."""
    return json.dumps({"ready": True, **addresses})
