"""`python -m worker.enclave --socket PATH --config FILE`: the measured process. Started by the agent."""

from __future__ import annotations

import argparse
import asyncio
import logging
import resource
import sys
from pathlib import Path

from worker.enclave.config import ConfigError, load
from worker.enclave.gpu import GpuFailed
from worker.enclave.server import run_until_stopped
from worker.engine.api import EngineError
from worker.fields import LinkError


def main() -> int:
    parser = argparse.ArgumentParser(prog="worker.enclave", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="unix socket to listen on for the agent")
    parser.add_argument("--config", type=Path, required=True, help="TOML, a part of the measurement")
    options = parser.parse_args()
    # A core dump is plaintext and keys on somebody's disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        asyncio.run(run_until_stopped(options.socket, load(options.config)))
    except (ConfigError, EngineError, GpuFailed, LinkError, OSError) as error:
        logging.getLogger("worker.enclave").error("%s", error or f"no agent came ({type(error).__name__})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
