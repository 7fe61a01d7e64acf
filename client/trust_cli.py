"""`cocoon client`: what can be checked: receipts, nodes, one node down to its root; and what a killed process left."""

from __future__ import annotations

from typing import Annotated

import typer

from client import command, control, show
from client.errors import showable
from client.inspect import inspect
from client.money_cli import Node
from client.show import err, out

app = typer.Typer()


@app.command()
def receipts(
    verify: Annotated[bool, typer.Option("--verify", help="check each again, offline, from what was kept")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Every receipt, newest first."""

    async def work() -> int:
        found = await command.ask("receipts", {"verify": verify})
        if as_json:
            out.print_json(data=found)
        else:
            show.receipts(found, verified=verify)
        return 0 if found.get("holds", True) else 1

    command.main(work())


@app.command()
def nodes() -> None:
    """The relayer's nodes, each judged by this client."""

    async def work() -> None:
        for node in (await command.ask("nodes"))["nodes"]:
            if node["trusted"]:
                word = f"tier {node['tier']}" + (", SIMULATED: proves no hardware" if node["simulated"] else "")
                out.print(f"{node['node']}  trusted, {word}; {', '.join(node['models'])}", markup=False)
                show.prices(node["prices"])
            else:
                out.print(f"{node['node']}  REFUSED: {showable('; '.join(node['reasons']))}", markup=False)

    command.main(work())


@app.command()
def verify(node: Node) -> None:
    """Verify a node's evidence from its roots and print the chain of trust, down to its last receipt if one is here.

    Needs no wallet and no account.
    """

    async def work() -> None:
        config = command.load_config()
        found = await inspect(config.settings, control.account_of(node))
        show.trust({**control.trust_view(found.node), **control.chain_view(found)})
        if config.wallet_file.exists():
            kept = await command.ask("receipts", {"verify": True})
            key = found.node.signing_key.hex()
            show.last_receipt(next((one for one in kept["receipts"] if one["key"] == key), None))

    command.main(work())


@app.command("follow-up")
def follow_up() -> None:
    """End what was begun and is due: refunds of jobs, rows whose timers have run, a voucher key that is ready.

    A running `serve` does it by itself every minute.
    """

    async def work() -> int:
        found = await command.ask("follow-up")
        for line in found["done"] or ([] if found["failed"] else ["nothing is due"]):
            out.print(line, markup=False)
        for line in found["failed"]:
            err.print(line, markup=False)
        return 1 if found["failed"] else 0

    command.main(work())


@app.command()
def recover() -> None:
    """Fetch the receipts of requests that a killed process left behind."""

    async def work() -> None:
        found = await command.ask("recover")
        for one in found["recovered"]:
            out.print(f"{one['request']}: {one['receipt'] or one['trouble'] or 'never ran'}", markup=False)
        out.print(f"{len(found['recovered'])} requests were in flight")
        for one in found["jobs"]:
            out.print(f"job {one['job']}: {one['said']}", markup=False)
        for one in found["unaccepted"]:
            out.print(f"receipt {one['hash']} over {show.ton(one['amount_nano'])} came without its proof", markup=False)

    command.main(work())
