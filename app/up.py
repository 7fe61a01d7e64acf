"""`cocoon up`: the embedded network, kept running. Its state is on disk; stopping and starting loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

from app.demo import EXPECTED, Progress
from app.home import Home, Ports
from app.network import Network, check_ports, lock_home
from app.processes import Supervisor
from chain.wait import until
from client.config import load as load_client
from client.errors import NoEscrow
from client.sdk import Client, TrustedNode
from wrappers.cells import address_of

DEPOSIT_NANO = 5_000_000_000
ALLOTTED_NANO = 1_000_000_000


async def _open_escrow_once(network: Network, progress: Progress) -> None:
    config = load_client(network.home.client, {})
    async with Client.open(config.settings, network.wallet("client")) as client:
        try:
            balance = await client.balance()
        except NoEscrow:
            balance = None
        if balance is not None and not balance.closing:
            return

        async def trusted() -> TrustedNode | None:
            return next((node for node in await client.nodes() if isinstance(node, TrustedNode)), None)

        node = await until(trusted, what="a node that this client trusts", timeout_seconds=60)
        if balance is None:
            progress("opening the client's escrow and allotting a part of it to the node")
            await client.open_escrow(DEPOSIT_NANO, first=(node.account, ALLOTTED_NANO))


async def run(home: Home, console: Console) -> None:
    """Until SIGINT or SIGTERM. Raises one of `demo.EXPECTED`; ProcessFailed when a service dies."""
    progress = Progress(console)
    supervisor = Supervisor(home.logs)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        network = await Network.start(home, supervisor, progress)
        try:
            await network.start_relayer()
            await network.open_node()
            async with progress.slow("loading the model and having its key attested"):
                worker = await network.start_worker()
            home.write_client_config(network.registry)
            await _open_escrow_once(network, progress)
            progress("starting the client's local endpoint")
            sidecar = await supervisor.start(
                "client", [sys.executable, "-m", "app.cli", "client", "--home", str(home.client), "serve"]
            )
            _say(console, home, network, str(sidecar.ready["url"]), str(worker.ready["model"]))
            watching, stopping = asyncio.create_task(supervisor.watch()), asyncio.create_task(stop.wait())
            await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            for task in (watching, stopping):
                task.cancel()
            if not stop.is_set():
                await watching
            progress("stopping; everything is kept")
        finally:
            await network.chain.close()
    finally:
        await supervisor.stop()


def _say(console: Console, home: Home, network: Network, endpoint: str, model: str) -> None:
    client = address_of(network.wallet("client").account).to_str()
    lines = f"""
[bold]Cocoon is up[/bold] in {home.path}. Evidence is [bold]SIMULATED[/bold]: it proves no hardware.

OpenAI endpoint   {endpoint}
                  curl {endpoint}/chat/completions -H 'Content-Type: application/json' \\
                    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
                  curl {endpoint}/models
Money, receipts   cocoon client balance | receipts | close
Operator          cocoon node status | settle | collect
Machine           cocoon doctor

Chain             {home.toncenter_url} (toncenter v2), and a second endpoint on port {home.ports.second_toncenter}
Liteserver        global config: {home.devnet / "global.config.json"}
Faucet            curl -X POST {home.control_url}/faucet -d '{{"address": "{client}", "amount_nano": 1000000000}}'
Logs              {home.logs}
Stop              Ctrl-C; start again with the same command
"""
    console.print(lines, highlight=False, soft_wrap=True)


def main(path: Path) -> int:
    """Exit status: 0 when it was asked to stop."""
    console = Console()
    home = Home(path.resolve(), Ports())
    try:
        lock = lock_home(home.path)
        check_ports(home)
        asyncio.run(run(home, console))
    except EXPECTED as error:
        console.print(
            f"\n[red]cocoon up failed:[/red] {error or type(error).__name__}", highlight=False, soft_wrap=True
        )
        console.print(f"logs of every party: {home.logs}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        return 130
    os.close(lock)
    return 0
