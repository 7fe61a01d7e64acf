"""`cocoon relayer`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
import uvloop

from relayer.config import load_config
from relayer.errors import ConfigError
from relayer.main import ready_line, run
from relayer.store.store import StoreError

app = typer.Typer(
    name="relayer", help="Pass sealed requests to workers and get their receipts paid.", no_args_is_help=True
)


@app.callback()
def relayer() -> None:
    """Pass sealed requests to workers and get their receipts paid."""


@app.command("run")
def run_command(
    config: Annotated[
        Path, typer.Option(help="The relayer's TOML file; every key is documented in relayer/config.py.")
    ],
) -> None:
    """Serve clients and workers until stopped. Prints one JSON line when ready."""
    try:
        settings = load_config(config, os.environ)
        uvloop.run(run(settings, lambda addresses: typer.echo(ready_line(addresses))))
    except (ConfigError, StoreError) as error:
        typer.echo(f"cocoon relayer: {error}", err=True)
        raise typer.Exit(2) from error
