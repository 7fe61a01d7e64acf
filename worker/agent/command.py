"""How every command of `cocoon node` runs: its configuration, the chain, and one line for whatever goes wrong."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.api import ChainError
from chain.mnemonic import MnemonicError
from worker.agent.config import ConfigError, load
from worker.agent.operations import OperationRefused, Operator
from worker.agent.release_keys import KeyFileError
from worker.agent.run import ground
from worker.agent.store import StoreError
from worker.agent.view import NodeMissing
from wrappers.cells import CellError

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The agent's configuration (TOML).",
        show_default="agent.toml in $COCOON_HOME, else in .cocoon",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
NANO = 1_000_000_000


def config_path(given: Path | None) -> Path:
    """`given`, or the configuration that `cocoon up` writes. Raises ConfigError where there is none."""
    if given is not None:
        return given
    path = Path(os.environ.get("COCOON_HOME", ".cocoon")) / "agent.toml"
    if not path.is_file():
        raise ConfigError(
            f"there is no agent configuration at {path}; `cocoon up` writes one for the embedded network,"
            " and --config names your own"
        )
    return path


def run(config: Path | None, work: Callable[[Operator], Awaitable[Any]]) -> Any:
    """Run one command against the chain; whatever goes wrong is told in one line."""

    async def main() -> Any:
        settings = load(config_path(config))
        base = ground(settings)
        try:
            return await work(Operator(settings, base))
        finally:
            await base.chain.close()

    try:
        return asyncio.run(main())
    except (
        ChainError,
        CellError,
        KeyFileError,
        MnemonicError,
        NodeMissing,
        OperationRefused,
        OSError,
        StoreError,
        TimeoutError,
        ValueError,
    ) as error:
        typer.echo(f"error: {error or type(error).__name__}", err=True)
        raise typer.Exit(1) from error


def ton(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d} TON"


def agreed(yes: bool, *says: str) -> None:
    """Say what will be done. Raises OperationRefused where nobody agrees."""
    for line in says:
        typer.echo(line, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise OperationRefused("this asks before it is done, and nobody is here to answer; add --yes")
    if not typer.confirm("Do it?", err=True):
        raise OperationRefused("nothing was done")
