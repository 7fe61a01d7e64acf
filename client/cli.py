"""`cocoon client`: its options; the commands live in modules by subject."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from client import ask_cli, command, money_cli, trust_cli, upkeep_cli
from client.config import DEFAULT_HOME
from client.job_cli import job_app

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Ask, pay, and check: the client's side.")


@app.callback()
def _options(
    home: Annotated[Path, typer.Option(help="the client's folder", envvar="COCOON_CLIENT_HOME")] = DEFAULT_HOME,
    network: Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")] = None,
    registry: Annotated[str | None, typer.Option(help="the network's registry, 64 hex digits")] = None,
    relayer: Annotated[str | None, typer.Option(help="URL of a relayer")] = None,
    policy: Annotated[str | None, typer.Option(help="attestation policy: a bundled name, or a TOML file")] = None,
    wallet: Annotated[str | None, typer.Option(help="file with the wallet's 24 words")] = None,
    allow_simulated: Annotated[
        bool | None, typer.Option("--allow-simulated", help="accept evidence that proves no hardware (tests)")
    ] = None,
) -> None:
    """Options stand before the command and above client.toml in the home."""

    def absolute(name: str | None) -> str | None:
        # On the command line paths are relative to where one stands, in client.toml to the home.
        return str(Path(name).expanduser().absolute()) if name is not None and name.endswith(".toml") else name

    command.chosen["home"] = home.expanduser().absolute()
    command.chosen["overrides"] = {
        "network": absolute(network),
        "registry": registry,
        "relayer": relayer,
        "policy": absolute(policy),
        "wallet": None if wallet is None else str(Path(wallet).expanduser().absolute()),
        "allow_simulated": allow_simulated,
    }


app.add_typer(money_cli.app)
app.add_typer(upkeep_cli.app_of(command.main, command.ask))
app.add_typer(trust_cli.app)
app.add_typer(job_app(command.ask, command.main, command.nano), name="job")
app.add_typer(ask_cli.app)
