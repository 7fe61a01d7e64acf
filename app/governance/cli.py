"""`cocoon governance`: see what is proposed, propose, endorse, execute; narrow at once; hand over.

A governor with a wallet sends; one that is a contract, such as a multisig, prints the message that it is to send.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.governance.core import orders
from app.governance.core.settings import account, stopped_of
from app.governance.propose import propose_app
from app.governance.run import Desk, Options, act, status_of
from app.governance.words import digest

app = typer.Typer(
    no_args_is_help=True, help="What governs a network: see it, propose, endorse, execute, narrow, hand over."
)
narrow_app = typer.Typer(no_args_is_help=True, help="What holds at once, and closes nobody's exit.")
app.add_typer(propose_app, name="propose")
app.add_typer(narrow_app, name="narrow")
Hash = Annotated[str, typer.Argument(metavar="HASH", help="of the proposal's action, see `status`")]


@app.callback()
def _options(
    ctx: typer.Context,
    home: Annotated[Path, typer.Option(help="folder of the embedded network", envvar="COCOON_HOME")] = Path(".cocoon"),
    network: Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")] = None,
    registry: Annotated[
        str | None, typer.Option(help="the network's registry: 64 hex digits, or an address; else the profile's")
    ] = None,
    wallet: Annotated[Path | None, typer.Option(help="24 words of the wallet that sends")] = None,
    print_: Annotated[
        bool, typer.Option("--print", help="send nothing: print the message for a contract to send")
    ] = False,
    boc: Annotated[Path | None, typer.Option(help="send nothing: write the message's body into this file")] = None,
    sender: Annotated[
        str | None, typer.Option(help="with --print or --boc: who will send it, where that is not the only one who may")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do it without asking")] = False,
) -> None:
    """Options stand before the command."""
    ctx.obj = Options(home.absolute(), network, registry, wallet, print_, boc, sender, yes)


@app.command()
def status(ctx: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False) -> None:
    """Who governs, what holds, and what is proposed: each change in words, with its times. Anyone may look."""
    status_of(ctx.obj, as_json)


@app.command()
def endorse(
    ctx: typer.Context,
    hash_: Hash,
    measurement: Annotated[str, typer.Option(help="what you measured after building the image yourself")],
) -> None:
    """A rebuilder's word that the proposed image comes out of its sources."""

    async def make(desk: Desk) -> orders.Order:
        return orders.endorse(await desk.action(digest(hash_)), digest(measurement))

    act(ctx.obj, make)


@app.command()
def execute(
    ctx: typer.Context,
    hash_: Hash,
    action: Annotated[
        Path | None, typer.Option(help="the action's cell in a file, where endpoints keep no history that old")
    ] = None,
) -> None:
    """Carry out a proposal whose time-lock has run."""

    async def make(desk: Desk) -> orders.Order:
        return orders.execute(desk.scene.state, await desk.action(digest(hash_), action))

    act(ctx.obj, make)


@app.command()
def cancel(ctx: typer.Context, hash_: Hash) -> None:
    """Drop a proposal."""

    async def make(desk: Desk) -> orders.Order:
        wanted = digest(hash_)
        return orders.cancel(wanted, await desk.known(wanted))

    act(ctx.obj, make)


@app.command("offer-handover")
def offer_handover(
    ctx: typer.Context,
    to: Annotated[str | None, typer.Argument(metavar="ACCOUNT", help="64 hex digits, or an address")] = None,
    withdraw_offer: Annotated[bool, typer.Option("--withdraw-offer", help="take the offer back")] = False,
) -> None:
    """Offer the office to another account; it changes hands when that account accepts."""
    if (to is None) != withdraw_offer:
        raise typer.BadParameter("give the account to offer it to, or --withdraw-offer")

    async def make(desk: Desk) -> orders.Order:
        return orders.offer_handover(desk.scene.state, None if to is None else account(to))

    act(ctx.obj, make)


@app.command("accept-handover")
def accept_handover(ctx: typer.Context) -> None:
    """Take the office that was offered to you."""

    async def make(desk: Desk) -> orders.Order:
        return orders.accept_handover(desk.scene.state)

    act(ctx.obj, make)


@narrow_app.command("revoke-image")
def revoke_image(
    ctx: typer.Context,
    measurement: Annotated[str, typer.Argument(help="64 hex digits")],
    compromised: Annotated[
        bool,
        typer.Option("--compromised/--retired", help="nothing that its keys say is believed / it only attests no more"),
    ],
) -> None:
    """An image attests no more."""

    async def make(desk: Desk) -> orders.Order:
        scene = desk.scene
        return orders.revoke_image(scene.state, scene.verifier_state, digest(measurement), compromised)

    act(ctx.obj, make)


@narrow_app.command("deny-platform")
def deny_platform(ctx: typer.Context, platform: Annotated[str, typer.Argument(help="64 hex digits")]) -> None:
    """A machine attests no more."""

    async def make(desk: Desk) -> orders.Order:
        return orders.deny_platform(desk.scene.state, desk.scene.verifier_state, digest(platform))

    act(ctx.obj, make)


@narrow_app.command("drop-tcb")
def drop_tcb(ctx: typer.Context, fmspc: Annotated[str, typer.Argument(help="platform type, 12 hex digits")]) -> None:
    """A type of platforms attests no more, until it is restored."""

    async def make(desk: Desk) -> orders.Order:
        return orders.drop_tcb(desk.scene.state, digest(fmspc, 6))

    act(ctx.obj, make)


@narrow_app.command("revoke-model")
def revoke_model(
    ctx: typer.Context, model: Annotated[str, typer.Argument(help="the hash that receipts name, 64 hex digits")]
) -> None:
    """A model is listed no more."""

    async def make(desk: Desk) -> orders.Order:
        return orders.revoke_model(desk.scene.state, digest(model))

    act(ctx.obj, make)


@narrow_app.command("stop-opening")
def stop_opening(
    ctx: typer.Context, kinds: Annotated[list[str], typer.Argument(metavar="nodes|escrows|jobs...")]
) -> None:
    """No new accounts of these kinds."""

    async def make(desk: Desk) -> orders.Order:
        return orders.stop_opening(desk.scene.state, stopped_of(kinds))

    act(ctx.obj, make)
