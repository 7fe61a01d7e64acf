"""`cocoon node`: the operator's commands."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.api import ChainError, Transaction
from chain.mnemonic import MnemonicError
from worker.agent.config import ConfigError, load, parse_account
from worker.agent.operations import OperationRefused, Operator
from worker.agent.releases import KeyFileError
from worker.agent.run import ground
from worker.agent.store import StoreError
from worker.agent.view import NodeMissing
from wrappers.cells import CellError, address_of

app = typer.Typer(
    help="Operate a node: open it with its stake, see what it earned, settle, leave.", no_args_is_help=True
)

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The agent's configuration (TOML).",
        show_default="agent.toml in $COCOON_HOME, else in .cocoon",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
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


@app.command()
def status(config: Config = None, as_json: AsJson = False) -> None:
    """What the node is, what it holds, and what it is still owed."""
    facts = run(config, lambda operator: operator.status())
    if as_json:
        typer.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ton(value) if name.endswith("_nano") and isinstance(value, int) else value
        shown = json.dumps(shown) if isinstance(shown, dict) else shown
        typer.echo(f"{name.removesuffix('_nano'):<24} {shown}")


@app.command()
def settle(config: Config = None) -> None:
    """Claim everything that is owed, without any relayer."""
    result = run(config, lambda operator: operator.settle())
    typer.echo(json.dumps(result))
    if "error" in result:
        raise typer.Exit(1)


@app.command("open")
def open_(
    stake: Annotated[float, typer.Option(help="Stake in TON.", min=0.0)],
    config: Config = None,
    payout: Annotated[str | None, typer.Option(help="Address that earnings go to; default: the wallet.")] = None,
) -> None:
    """Open the node through the registry; the wallet becomes its owner and controller."""
    to = parse_account(payout) if payout is not None else None

    async def work(operator: Operator) -> dict[str, Any]:
        view = await operator.open(round(stake * NANO), to)
        return {"node": operator.ground.node.hex(), "stake_nano": view.state.stake_nano}

    typer.echo(json.dumps(run(config, work)))


@app.command()
def collect(config: Config = None) -> None:
    """Send what the node earned to the payout address now."""
    _sent(run(config, lambda operator: operator.collect()))


@app.command()
def unbond(config: Config = None) -> None:
    """End the service: the key retires at once, the stake leaves after the windows."""
    _sent(run(config, lambda operator: operator.unbond()))


@app.command()
def withdraw(config: Config = None) -> None:
    """Take the stake when the windows are over."""
    _sent(run(config, lambda operator: operator.withdraw()))


def _sent(transaction: Transaction) -> None:
    wallet = address_of(transaction.account).to_str()
    typer.echo(json.dumps({"sent": transaction.hash.hex(), "wallet": wallet}))
