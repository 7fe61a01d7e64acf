"""The enclave process: loads the model, bears its keys, serves one agent over a unix socket, and ends with it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
from pathlib import Path

from attestation.evidence import Kind
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import NONCE_BYTES
from attestation.gpu.source import GpuSource, Nvml
from attestation.provider import ConfigfsTsm, QuoteProvider, Simulated
from worker.enclave.config import EnclaveConfig
from worker.enclave.gpu import GpuGuard
from worker.enclave.keys import Keys
from worker.enclave.loaded import Loaded
from worker.enclave.server_socket import listen
from worker.enclave.session import Session
from worker.engine.choose import engine_from_config
from worker.fields import LinkError
from worker.link import FROM_AGENT, Link

log = logging.getLogger(__name__)

AGENT_SECONDS = 120.0


def quote_provider(config: EnclaveConfig) -> QuoteProvider:
    if config.evidence is Kind.SIMULATED:
        return Simulated(b"cocoon simulated platform: " + config.simulated_platform.encode())
    return ConfigfsTsm(kind=config.evidence)


def gpu_guard(config: EnclaveConfig, source: GpuSource) -> GpuGuard | None:
    gpu = config.gpu
    if gpu is None:
        return None
    return GpuGuard(source, gpu.policy, lambda: GpuCollateral.from_folder(gpu.manifests))


async def first_agent(listener: socket.socket) -> Link:
    """The first connection; later ones are turned away. Raises TimeoutError."""
    arrived: asyncio.Future[Link] = asyncio.get_running_loop().create_future()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if arrived.done():
            writer.close()
        else:
            arrived.set_result(Link(reader, writer, FROM_AGENT))

    server = await asyncio.start_unix_server(connected, sock=listener, limit=1 << 20)
    try:
        async with asyncio.timeout(AGENT_SECONDS):
            return await arrived
    finally:
        server.close()


async def serve(path: Path, config: EnclaveConfig) -> None:
    """Serve the first agent that connects, until it leaves. Raises EngineError, LinkError, TimeoutError, GpuFailed.

    There is no second connection: keys and accounts belong to one session, and an agent that was restarted has lost its
    place in it, so it starts a new enclave.
    """
    guard = gpu_guard(config, Nvml())
    if guard is not None:
        await guard.check(secrets.token_bytes(NONCE_BYTES))
    engine = engine_from_config(config.engine, simulated=config.simulated)
    listener = listen(path)
    link: Link | None = None
    try:
        model = await engine.start()
        log.info("model %s is loaded, %s", model.name, "measured" if model.measured else "unmeasured")
        link = await first_agent(listener)
        loaded = Loaded(config, Keys(config.sealing_seconds), engine, model, quote_provider(config), guard)
        await Session(loaded, link).run()
    except LinkError as error:
        log.error("the agent broke the protocol: %s", error)
        raise
    finally:
        if link is not None:
            await link.close()
        await engine.close()


async def run_until_stopped(path: Path, config: EnclaveConfig) -> None:
    """`serve`, ended early by SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    work = asyncio.create_task(serve(path, config))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await work
