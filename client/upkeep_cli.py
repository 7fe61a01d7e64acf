"""`cocoon client`: what an owner seldom does with his escrow. Each says what it will do and costs, and asks."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any

import typer

from client import show
from client.errors import BadRequest, HomeError
from client.show import err

Yes = Annotated[bool, typer.Option("--yes", help="do it without asking")]
Node = Annotated[str, typer.Argument(help="the node's account, 64 hex digits (see `balance`)")]
Command = Callable[[str, dict[str, Any] | None], Awaitable[dict[str, Any]]]
Main = Callable[[Coroutine[Any, Any, int | None]], None]


async def agreed(command: Command, arguments: dict[str, Any], yes: bool) -> None:
    """Say what will be done. Raises HomeError where nobody is there to agree, BadRequest where he does not."""
    for line in (await command("plan", arguments))["says"]:
        err.print(line, markup=False)
    if yes:
        return
    if not sys.stdin.isatty():
        raise HomeError("this asks before it is done, and nobody is here to answer", "add --yes")
    if not typer.confirm("Do it?", err=True):
        raise BadRequest("nothing was done", "")


def app_of(main: Main, command: Command) -> typer.Typer:
    """`main` runs a command's work, `command` runs it where the client's books are."""
    app = typer.Typer()

    def ask_and_do(arguments: dict[str, Any], yes: bool) -> None:
        async def work() -> None:
            await agreed(command, arguments, yes)
            show.balance(await command("upkeep", arguments))

        main(work())

    @app.command("rotate-voucher-key")
    def rotate(yes: Yes = False) -> None:
        """Propose another voucher key; once more, when the longest close timer has run, put it in place."""
        ask_and_do({"what": "rotate-voucher-key"}, yes)

    @app.command("give-up-key")
    def give_up_key(
        node: Node,
        key: Annotated[str, typer.Argument(help="an enclave key that the node no longer has, 64 hex digits")],
        yes: Yes = False,
    ) -> None:
        """Make room in a row that has seen too many enclave keys."""
        ask_and_do({"what": "give-up-key", "node": node, "key": key}, yes)

    @app.command("shares")
    def shares(node: Node, yes: Yes = False) -> None:
        """Send the shares (relayer's, royalty, the network's fee) that wait in a node's row."""
        ask_and_do({"what": "shares", "node": node}, yes)

    @app.command("reclaim")
    def reclaim(node: Node, yes: Yes = False) -> None:
        """Start the close timer of one node's row; `finish` frees what is left at its end."""
        ask_and_do({"what": "reclaim", "node": node}, yes)

    @app.command("return-rent")
    def return_rent(yes: Yes = False) -> None:
        """Turn what is kept for rent of rows that ended into deposit."""
        ask_and_do({"what": "return-rent"}, yes)

    return app
