"""`cocoon client`: what moves money: open, allot, top up, withdraw, close."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from client import command, show, upkeep_cli
from client.command import nano
from client.upkeep_cli import Yes

app = typer.Typer()
Amount = Annotated[int, typer.Argument(parser=nano, metavar="TON", help="such as 2 or 0.25")]
Node = Annotated[str, typer.Argument(help="the node's account, 64 hex digits (see `nodes`)")]
Timer = Annotated[int | None, typer.Option(help="seconds until a row ends that its node does not release")]


@app.command("open")
def open_(
    deposit: Amount,
    node: Annotated[str | None, typer.Option(help="reserve a part for this node at once")] = None,
    allot: Annotated[int | None, typer.Option(parser=nano, metavar="TON", help="that part (all of it)")] = None,
    close_timer: Timer = None,
) -> None:
    """Open an escrow with this deposit. Only you can ever take it out again; nodes are paid by receipts."""
    first = {} if node is None else {"node": node, "allot_nano": deposit if allot is None else allot}
    command.wallet_of(command.load_config(), create=True)
    command.main(_show_balance("open", {"deposit_nano": deposit, "close_timer": close_timer, **first}))


@app.command()
def allot(node: Node, amount: Amount, close_timer: Timer = None) -> None:
    """Reserve (more of) the deposit for a node."""
    command.main(_show_balance("allot", {"node": node, "amount_nano": amount, "close_timer": close_timer}))


@app.command()
def topup(amount: Amount) -> None:
    """Add to the deposit."""
    command.main(_show_balance("topup", {"amount_nano": amount}))


@app.command()
def withdraw(
    amount: Annotated[int | None, typer.Argument(parser=nano, metavar="TON", help="all that is free")] = None,
) -> None:
    """Take out what is not allotted."""
    command.main(_show_balance("withdraw", {"amount_nano": amount or 0}))


@app.command()
def balance() -> None:
    """What is where, read from the chain and from your own receipts."""
    command.main(_show_balance("balance", {}))


async def _show_balance(name: str, arguments: dict[str, Any]) -> None:
    found = await command.ask(name, arguments)
    show.balance(found)


@app.command()
def close(
    patience: Annotated[float, typer.Option(help="seconds to wait for the nodes' releases")] = 60.0,
    yes: Yes = False,
) -> None:
    """End the escrow: at once where the nodes agree, else by the close timers (then `finish`)."""

    async def work() -> None:
        await upkeep_cli.agreed(command.ask, {"what": "close"}, yes)
        show.closed(await command.ask("close", {"patience_seconds": patience}))

    command.main(work())


@app.command()
def finish() -> None:
    """After the close timers: free the rows and end the escrow."""

    async def work() -> None:
        show.closed(await command.ask("finish"))

    command.main(work())
