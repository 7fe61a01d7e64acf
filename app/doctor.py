"""`cocoon doctor`: what this machine and the network around it have, what they lack, and how to mend it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import packages_distributions
from pathlib import Path

import aiohttp
from rich.console import Console

from app.home import Home, Ports
from attestation.gpu.source import GpuSource, GpuUnavailable, Nvml
from attestation.provider import QuoteUnavailable, detect
from chain.api import ChainError
from chain.config import ConfigError, connect, load_network
from worker.engine.api import EngineError
from worker.engine.weights import packaged_smollm2
from wrappers.cells import CellError
from wrappers.code import Contract, code

OUR_PACKAGES = ("wrappers", "protocol", "chain", "attestation", "relayer", "worker", "client", "devnet", "app")
MIN_FREE_BYTES = 2 << 30


class Mark(StrEnum):
    OK = "ok"
    LACKS = "lacks"
    """Something for this machine's role is missing; the embedded network runs all the same."""
    BROKEN = "BROKEN"


@dataclass(frozen=True, slots=True)
class Finding:
    subject: str
    mark: Mark
    text: str


def _python() -> Iterator[Finding]:
    version = sys.version.split()[0]
    good = sys.version_info >= (3, 11)
    yield Finding("python", Mark.OK if good else Mark.BROKEN, version if good else f"{version}: install 3.11 or newer")


def _packages() -> Iterator[Finding]:
    found = packages_distributions()
    foreign = [name for name in OUR_PACKAGES if set(found.get(name, ["cocoon"])) != {"cocoon"}]
    if foreign:
        yield Finding(
            "packages", Mark.BROKEN, f"{', '.join(foreign)} belong to other distributions: use a venv of its own"
        )
    else:
        yield Finding("packages", Mark.OK, "ours")


def _contracts() -> Iterator[Finding]:
    try:
        for contract in Contract:
            code(contract)
    except (CellError, OSError) as error:
        yield Finding("contracts", Mark.BROKEN, str(error))
    else:
        yield Finding("contracts", Mark.OK, "compiled code has its pinned hashes")


def _weights() -> Iterator[Finding]:
    try:
        path = packaged_smollm2()
    except EngineError as error:
        yield Finding("embedded model", Mark.BROKEN, str(error))
    else:
        yield Finding("embedded model", Mark.OK, path.name)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    if free < MIN_FREE_BYTES:
        yield Finding("disk", Mark.BROKEN, f"{free >> 20} MiB free: make room for {MIN_FREE_BYTES >> 20}")
    else:
        yield Finding("disk", Mark.OK, f"{free >> 30} GiB free")


def _tee() -> Iterator[Finding]:
    """Which maker's confidential guest this is, if any: the kernel has one interface for both."""
    try:
        kind = detect()
    except QuoteUnavailable as error:
        yield Finding("TDX or SEV-SNP", Mark.LACKS, str(error))
        yield Finding("evidence", Mark.LACKS, "only SIMULATED evidence can be made here; it proves no hardware")
    else:
        yield Finding(kind.value, Mark.OK, f'quotes through configfs-tsm; evidence = "{kind}" in enclave.toml')


def _gpu() -> Iterator[Finding]:
    devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
    if not devices:
        yield Finding("GPU", Mark.LACKS, "no NVIDIA device: models run on the CPU; on a GPU machine install its driver")
        return
    yield Finding("GPU", Mark.OK, ", ".join(device.name for device in devices))
    yield from gpu_driver(Nvml())


def gpu_driver(source: GpuSource) -> Iterator[Finding]:
    """What the driver says about confidential computing. Its word only: evidence is verified by the enclave."""
    try:
        state = source.state()
    except GpuUnavailable as error:
        yield Finding("GPU driver", Mark.LACKS, str(error))
        return
    yield Finding("GPU driver", Mark.OK, f"{state.driver_version}, {state.gpus} reachable through NVML")
    lacks = state.lacks()
    for sentence in lacks:
        yield Finding("GPU evidence", Mark.LACKS, sentence)
    if not lacks:
        waits = "" if state.accepting else "; it takes work once the enclave has verified the GPUs"
        yield Finding("GPU evidence", Mark.OK, f"confidential-computing mode on, developer tools off{waits}")


def _memory() -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    mark = Mark.OK if total >= 2 << 30 else Mark.LACKS
    yield Finding(
        "memory", mark, f"{total >> 30} GiB, {os.cpu_count()} cores; the embedded network takes about 1.5 GiB"
    )


MACHINE: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _packages,
    _contracts,
    _weights,
    _disk,
    _memory,
    _tee,
    _gpu,
)


async def _network(home: Home) -> list[Finding]:
    try:
        network = load_network(home.profile)
        chain = connect(network)
    except ConfigError as error:
        return [Finding("network profile", Mark.BROKEN, str(error))]
    findings = []
    try:
        head = await chain.head()
        findings.append(Finding("chain", Mark.OK, f"{chain.name} agree on block {head.block.seqno}"))
    except ChainError as error:
        findings.append(Finding("chain", Mark.BROKEN, str(error)))
    finally:
        await chain.close()
    findings.append(await _relayer(home))
    return findings


async def _relayer(home: Home) -> Finding:
    url = f"{home.relayer_url}/v1/status"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session,
            session.get(url) as response,
        ):
            status = await response.json()
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        return Finding("relayer", Mark.BROKEN, f"{url} does not answer ({error or 'time out'}): see {home.logs}")
    trouble = status.get("chain", {}).get("error")
    if trouble:
        text = f"it cannot read the chain: {trouble.get('cause')}; {trouble.get('cure')}"
        return Finding("relayer", Mark.BROKEN, text)
    nodes = status.get("nodes", 0)
    simulated = ", SIMULATED evidence" if status.get("simulated") else ""
    if not nodes:
        return Finding("relayer", Mark.BROKEN, f"no node is linked: see {home.logs / 'worker.log'}")
    return Finding("relayer", Mark.OK, f"{nodes} node linked{simulated}")


def main(path: Path) -> int:
    """Print every finding; 1 when something is broken."""
    console = Console()
    findings = [finding for check in MACHINE for finding in check()]
    home = Home(path.resolve(), Ports())
    if home.profile.exists():
        findings += asyncio.run(_network(home))
    else:
        findings.append(Finding("network", Mark.LACKS, f"no network in {home.path}: `cocoon up` makes one"))
    colours = {Mark.OK: "green", Mark.LACKS: "yellow", Mark.BROKEN: "red"}
    for one in findings:
        console.print(
            f"[{colours[one.mark]}]{one.mark:>6}[/]  {one.subject:<16} {one.text}", highlight=False, soft_wrap=True
        )
    broken = sum(one.mark is Mark.BROKEN for one in findings)
    console.print("nothing is broken" if not broken else f"{broken} broken")
    return 1 if broken else 0
