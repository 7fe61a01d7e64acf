"""`cocoon governance propose`: what widens. It waits for the time-lock in public before anyone can execute it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pytoniq_core import Cell

from app.governance.core import orders
from app.governance.core.actions import read
from app.governance.core.settings import NotUnderstood, account, altered, altered_policy
from app.governance.run import Desk, act, cell_in
from app.governance.words import digest
from attestation.onchain.state import NO_LAUNCH
from wrappers import governance
from wrappers.registry import Rebuilders

COMMITTEE_TIER = 3
propose_app = typer.Typer(no_args_is_help=True, help="What widens: it waits for the time-lock, in public.")
Changes = Annotated[
    list[str], typer.Option("--set", metavar="NAME=VALUE", help="again for each; nanoTON, seconds; see `status`")
]


def _order(desk: Desk, action: Cell) -> orders.Order:
    scene = desk.scene
    return orders.propose(scene.state, read(action, scene.state, scene.verifier_state))


@propose_app.command()
def settings(
    ctx: typer.Context,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="again for each; in nanoTON and seconds")
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(metavar="node|escrow", help="accounts of this kind are born with this release's code"),
    ] = None,
) -> None:
    """Parameters, treasury, fee, time-lock, openings and codes of accounts that are born later."""

    async def make(desk: Desk) -> orders.Order:
        if not changes and not code:
            raise NotUnderstood("nothing to change: name it with --set NAME=VALUE, or --code KIND")
        return _order(desk, altered(desk.scene.state.settings, changes or (), code or ()).to_cell())

    act(ctx.obj, make)


@propose_app.command("set-policy")
def set_policy(ctx: typer.Context, changes: Changes) -> None:
    """Which collateral, TCB statuses and attributes the verifier takes, and for how long."""

    async def make(desk: Desk) -> orders.Order:
        verifier = desk.scene.verifier_state
        if verifier is None:
            raise NotUnderstood("there is no verifier that this release knows: use the release of this network")
        return _order(desk, governance.set_policy(altered_policy(verifier.policy, changes).to_cell()))

    act(ctx.obj, make)


@propose_app.command("allow-image")
def allow_image(
    ctx: typer.Context,
    measurement: Annotated[str, typer.Argument(help="64 hex digits, as `cocoon attest measure` prints it")],
    tier: Annotated[int, typer.Option(min=1, max=3, help="1: CPU; 2: it verifies its GPU; 3: committee")] = 1,
    launch: Annotated[
        str | None, typer.Option(help="SHA-256 of MRCONFIGID, MROWNER, MROWNERCONFIG; all zero when not given")
    ] = None,
) -> None:
    """An image may serve, once rebuilders have endorsed it. Tier 3 allows a committee, and what it vouches for."""

    async def make(desk: Desk) -> orders.Order:
        if tier == COMMITTEE_TIER and launch is not None:
            raise NotUnderstood(
                "what a committee vouches for, and a committee, has no launch values: leave --launch out"
            )
        # The verifier takes an image of this tier only with a zero there: no quote is ever compared with it.
        nothing = bytes(32) if tier == COMMITTEE_TIER else NO_LAUNCH
        chosen = nothing if launch is None else digest(launch)
        return _order(desk, governance.allow_image(digest(measurement), tier, chosen))

    act(ctx.obj, make)


@propose_app.command("allow-model")
def allow_model(
    ctx: typer.Context, model: Annotated[str, typer.Argument(help="the hash that receipts name, 64 hex digits")]
) -> None:
    """List a model."""

    async def make(desk: Desk) -> orders.Order:
        return _order(desk, governance.allow_model(digest(model)))

    act(ctx.obj, make)


@propose_app.command("set-rebuilders")
def set_rebuilders(
    ctx: typer.Context,
    accounts: Annotated[list[str], typer.Argument(metavar="ACCOUNT...", help="64 hex digits, or addresses")],
    needed: Annotated[int, typer.Option(min=1, max=16, help="how many of them must endorse an image")],
) -> None:
    """Who must have rebuilt an image before it may serve: these accounts, and no others."""

    async def make(desk: Desk) -> orders.Order:
        named = frozenset(account(one) for one in accounts)
        return _order(desk, governance.set_rebuilders(Rebuilders(needed, named)))

    act(ctx.obj, make)


@propose_app.command("free-platform")
def free_platform(ctx: typer.Context, platform: Annotated[str, typer.Argument(help="64 hex digits")]) -> None:
    """Lift a denial, and let another node have the platform."""

    async def make(desk: Desk) -> orders.Order:
        return _order(desk, governance.free_platform(digest(platform)))

    act(ctx.obj, make)


@propose_app.command("restore-tcb")
def restore_tcb(ctx: typer.Context, fmspc: Annotated[str, typer.Argument(help="platform type, 12 hex digits")]) -> None:
    """Platforms of a type that was dropped may attest again."""

    async def make(desk: Desk) -> orders.Order:
        return _order(desk, governance.restore_tcb(digest(fmspc, 6)))

    act(ctx.obj, make)


@propose_app.command()
def action(
    ctx: typer.Context, file: Annotated[Path, typer.Argument(help="the action's cell, as a bag of cells")]
) -> None:
    """An action that was made elsewhere."""

    async def make(desk: Desk) -> orders.Order:
        return _order(desk, cell_in(file))

    act(ctx.obj, make)
