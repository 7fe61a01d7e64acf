"""`python -m devnet`: run the emulated chain until interrupted. The first line of output is one JSON object."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from pathlib import Path

from devnet.engine import DevnetError
from devnet.network import DEVNET_GLOBAL_ID
from devnet.node import Devnet


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m devnet", description="An emulated TON chain for Cocoon.")
    parser.add_argument("--state", type=Path, help="directory to keep the chain in (default: in memory)")
    parser.add_argument("--host", default="127.0.0.1", help="IPv4 address to listen on")
    parser.add_argument("--port", type=int, default=0, help="toncenter v2 port (0: chosen by the system)")
    parser.add_argument("--second-port", type=int, default=0, help="port of the second toncenter listener")
    parser.add_argument("--lite-port", type=int, default=0, help="liteserver port")
    parser.add_argument("--global-id", type=int, default=DEVNET_GLOBAL_ID)
    parser.add_argument("--block-seconds", type=float, default=0.2)
    parser.add_argument("--idle-seconds", type=float, default=1.0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_run(options))
    except (DevnetError, OSError) as error:
        sys.stderr.write(f"devnet: {error}\n")
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    devnet = Devnet(
        options.state,
        host=options.host,
        port=options.port,
        second_port=options.second_port,
        lite_port=options.lite_port,
        global_id=options.global_id,
        block_seconds=options.block_seconds,
        idle_seconds=options.idle_seconds,
    )
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with devnet:
        endpoints = devnet.endpoints
        ready = {
            "toncenter": endpoints.toncenter,
            "control": endpoints.control,
            "liteserver": {"host": endpoints.lite_host, "port": endpoints.lite_port},
            "global_config": endpoints.global_config,
            "global_id": devnet.chain.ledger.global_id,
        }
        sys.stdout.write(json.dumps(ready) + "\n")
        sys.stdout.flush()
        production, stopped = asyncio.ensure_future(devnet.wait()), asyncio.ensure_future(stop.wait())
        await asyncio.wait({production, stopped}, return_when=asyncio.FIRST_COMPLETED)
        for waiting in (production, stopped):
            waiting.cancel()


if __name__ == "__main__":
    sys.exit(main())
