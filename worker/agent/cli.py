"""`cocoon node`: the operator's commands."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from chain.api import Transaction
from worker.agent import settings_cli
from worker.agent.command import NANO, Config, Yes, agreed, run, ton
from worker.agent.config import parse_account
from worker.agent.operations import Operator
from wrappers.cells import address_of

app = typer.Typer(
    help="Operate a node: open it with its stake, see what it earned, settle, leave.", no_args_is_help=True
)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


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
def unbond(yes: Yes = False, config: Config = None) -> None:
    """End the service: the key retires at once, the stake leaves after the windows."""

    async def work(operator: Operator) -> Transaction:
        state = (await operator.view.node()).state
        windows = max(state.unbonding, state.claim_window) + state.challenge_window
        stake = f"The stake, {ton(state.stake_nano)}, may leave {windows} s from now; its gas comes back with it."
        agreed(yes, "The node takes no key and no request any more. This cannot be taken back.", stake)
        return await operator.unbond()

    _sent(run(config, work))


@app.command()
def withdraw(config: Config = None) -> None:
    """Take the stake when the windows are over."""
    _sent(run(config, lambda operator: operator.withdraw()))


for _name, _command in settings_cli.COMMANDS.items():
    app.command(_name)(_command)


@app.command()
def join(config: Config = None) -> None:
    """Join the network's committee with its bond: this node then judges SEV-SNP machines when the chain draws it."""
    _sent(run(config, lambda operator: operator.join()))


@app.command()
def leave(config: Config = None) -> None:
    """Leave the committee; its bond may be taken two weeks later."""
    _sent(run(config, lambda operator: operator.leave()))


@app.command("take-bond")
def take_bond(config: Config = None) -> None:
    """Take the bond to the payout address, two weeks after leaving the committee."""
    _sent(run(config, lambda operator: operator.take_bond()))


def _sent(transaction: Transaction) -> None:
    wallet = address_of(transaction.account).to_str()
    typer.echo(json.dumps({"sent": transaction.hash.hex(), "wallet": wallet}))
