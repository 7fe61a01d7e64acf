"""`cocoon worker`: run a worker, which is the agent and the enclave that it starts."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from chain.api import ChainError
from chain.mnemonic import MnemonicError
from worker.agent.config import load
from worker.agent.control import AlreadyRunning
from worker.agent.enclave_process import EnclaveGone
from worker.agent.release_keys import KeyFileError
from worker.agent.run import run as run_agent
from worker.agent.store import StoreError

FAILURES = (
    AlreadyRunning,
    ChainError,
    EnclaveGone,
    KeyFileError,
    MnemonicError,
    OSError,
    StoreError,
    ValueError,
)
app = typer.Typer(help="Serve a model from an attested enclave.", no_args_is_help=True)


@app.callback()
def main() -> None:
    """Serve a model from an attested enclave."""


@app.command()
def run(
    config: Annotated[Path, typer.Option("--config", help="The agent's configuration (TOML).", exists=True)],
) -> None:
    """Run until stopped. Prints one JSON line on standard output when the node serves; logs go to standard error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        asyncio.run(run_agent(load(config), lambda line: typer.echo(line)))
    except FAILURES as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
