"""`cocoon node`: what the operator chooses on chain. What hands over power says so and asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from chain.api import Transaction
from worker.agent.command import NANO, Config, Yes, agreed, run
from worker.agent.config import parse_account
from worker.agent.operations import Operator
from worker.agent.settings import Role, Settings

To = Annotated[str | None, typer.Argument(help="Who is offered the role: 64 hex digits or a TON address.")]
Accept = Annotated[bool, typer.Option("--accept", help="Take what this wallet was offered.")]
Withdraw = Annotated[bool, typer.Option("--withdraw-offer", help="Take the offer back.")]
_POWER = {
    Role.CONTROLLER: "may then unbond, drain, price and withdraw the stake",
    Role.PAYOUT: "then gets what is earned and, at the end, the stake",
}


def stake(amount: Annotated[float, typer.Argument(metavar="TON", min=0.0)], config: Config = None) -> None:
    """Add to the stake."""
    now = run(config, lambda operator: Settings(operator).stake(round(amount * NANO)))
    typer.echo(json.dumps({"stake_nano": now}))


def drain(
    off: Annotated[bool, typer.Option("--off", help="Take new requests again.")] = False, config: Config = None
) -> None:
    """Begin nothing new, told on chain to clients and relayers. What runs ends, what is owed is claimed."""

    async def work(operator: Operator) -> dict[str, Any]:
        changed = await Settings(operator).drain(not off) is not None
        settled = None if off else await operator.settle()
        return {"draining": not off, "changed": changed, "settled": settled}

    typer.echo(json.dumps(run(config, work)))


def rotate_keys(config: Config = None) -> None:
    """Replace the enclave by one with a new key, attested; what the old key earned is claimed."""

    def progress(text: str) -> None:
        typer.echo(text, err=True)

    typer.echo(json.dumps(run(config, lambda operator: Settings(operator).rotate(progress))))


def release_key(
    new: Annotated[bool, typer.Option("--new", help="Make another one and name it on chain.")] = False,
    yes: Yes = False,
    config: Config = None,
) -> None:
    """The key that consents to enclave keys and to lowered rows; --new replaces it, when it may have leaked."""

    async def work(operator: Operator) -> dict[str, Any]:
        settings = Settings(operator)
        if not new:
            return await settings.release_key()
        agreed(
            yes,
            "A new release key is made beside the old one, whose file is kept: back both up.",
            "Rows that clients allotted under the old key are served no more: whoever has that key could empty them.",
            "What they owe is claimed as ever; their clients get a release at once, and allot anew.",
        )
        return await settings.new_release_key()

    typer.echo(json.dumps(run(config, work)))


def notarise(
    escrow: Annotated[str, typer.Argument(help="The client's escrow: 64 hex digits or a TON address.")],
    config: Config = None,
) -> None:
    """Put the hash of a client's latest receipt into the chain's history: it stands for all receipts before it."""
    account = parse_account(escrow)
    typer.echo(json.dumps(run(config, lambda operator: Settings(operator).notarise(account))))


def price(
    publish: Annotated[bool, typer.Option("--publish", help="Put what the running enclave asks on chain.")] = False,
    drop: Annotated[str | None, typer.Option(metavar="MODEL", help="Take a model's price off the chain.")] = None,
    config: Config = None,
) -> None:
    """Prices on chain, and what the running enclave asks. Clients refuse to pay more than what is on chain."""

    async def work(operator: Operator) -> dict[str, Any]:
        settings = Settings(operator)
        changed = {"changed": await settings.publish()} if publish else {}
        if drop is not None:
            await settings.unpublish(parse_account(drop))
        return {**changed, **await settings.prices()}

    typer.echo(json.dumps(run(config, work), indent=2))


def controller(
    to: To = None, accept: Accept = False, withdraw_offer: Withdraw = False, yes: Yes = False, config: Config = None
) -> None:
    """Hand over control of the node, in two steps."""
    _hand_over(Role.CONTROLLER, to, accept, withdraw_offer, yes, config)


def payout(
    to: To = None, accept: Accept = False, withdraw_offer: Withdraw = False, yes: Yes = False, config: Config = None
) -> None:
    """Change where earnings and, at the end, the stake go, in two steps."""
    _hand_over(Role.PAYOUT, to, accept, withdraw_offer, yes, config)


def _hand_over(role: Role, account: str | None, accept: bool, withdraw: bool, yes: bool, config: Path | None) -> None:
    if [account is not None, accept, withdraw].count(True) != 1:
        raise typer.BadParameter("give the account to offer it to, or --accept, or --withdraw-offer")
    to = None if account is None else parse_account(account)

    async def work(operator: Operator) -> Transaction:
        settings = Settings(operator)
        if accept:
            agreed(yes, f"This wallet becomes the node's {role}: it {_POWER[role]}.")
            return await settings.accept(role)
        whom = "nobody" if to is None else to.hex()
        agreed(yes, f"The node's {role} is offered to {whom}, who {_POWER[role]}. Nothing changes before it accepts.")
        return await settings.offer(role, to)

    typer.echo(json.dumps({"sent": run(config, work).hash.hex()}))


COMMANDS: Mapping[str, Callable[..., None]] = {
    "stake": stake,
    "drain": drain,
    "rotate-keys": rotate_keys,
    "release-key": release_key,
    "notarise": notarise,
    "price": price,
    "controller": controller,
    "payout": payout,
}
