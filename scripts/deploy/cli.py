"""`cocoon deploy plan | apply | verify`."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rich.console import Console
from rich.table import Table

from attestation.keeper import collateral_ends
from chain.api import AccountState, ChainError, Status
from chain.config import ConfigError, connect
from chain.wallet import Wallet
from scripts.deploy import apply as apply_
from scripts.deploy.plan import Desired, Observed, PlanError, Step, plan, verifier_state, verify
from scripts.deploy.profile import Profile, load_profile
from scripts.deploy.verifier import MAINNET_GLOBAL_ID
from wrappers.cells import address_of

app = typer.Typer(no_args_is_help=True, help="Deploy the contracts of a network, and check a deployment.")
console = Console(stderr=False)
NetworkOption = Annotated[str, typer.Option("--network", help="devnet, testnet, mainnet, or a profile's path")]


def nano(value: int) -> str:
    return f"{value // 10**9}.{value % 10**9:09d} TON"


def _fail(error: Exception) -> typer.Exit:
    console.print(f"[red]error:[/red] {error}", highlight=False)
    return typer.Exit(1)


def _show(desired: Desired, steps: tuple[Step, ...]) -> None:
    console.print(f"registry     {address_of(desired.registry).to_str()}")
    console.print(f"attestation  {address_of(desired.attestation).to_str()}")
    console.print(f"governor     {address_of(desired.governor).to_str()}")
    if not steps:
        console.print("nothing to send: the deployment stands")
        return
    table = Table("message", "to", "carries", "fees, about")
    for step in steps:
        table.add_row(
            step.title, step.message.destination.hex()[:16] + "...", nano(step.message.value_nano), nano(step.fees_nano)
        )
    total = sum(step.message.value_nano + step.fees_nano for step in steps)
    table.add_row("in all", "", "", nano(total))
    console.print(table)


async def _observe(profile: Profile, desired: Desired) -> Observed:
    chain = connect(profile.network)
    try:
        return await apply_.observe(chain, desired)
    finally:
        await chain.close()


def _absent(account: bytes) -> AccountState:
    return AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))


@app.command("plan")
def plan_command(
    network: NetworkOption = "devnet",
    offline: Annotated[bool, typer.Option(help="assume that nothing is deployed; ask no chain")] = False,
) -> None:
    """Print the messages that are still to be sent, with what they carry and cost."""
    try:
        profile = load_profile(network)
        if profile.deployer_public_key is None and not profile.deployer_mnemonic_file.exists():
            # Sizes and costs do not depend on the key; addresses do.
            console.print(
                f"[yellow]{profile.deployer_mnemonic_file} does not exist: addresses below are of a throw-away key. "
                f"Put the deployer's 24 words there (mode 0600) and plan again.[/yellow]"
            )
            key = Wallet(Ed25519PrivateKey.generate())
            desired = Desired(
                profile.network.global_id,
                key.public_key,
                profile.salt,
                profile.governor or key.account,
                profile.parameters,
                profile.verifier,
            )
            observed = Observed(*map(_absent, (desired.registry, desired.attestation, desired.court)))
        else:
            desired = apply_.desired_of(profile)
            if offline:
                observed = Observed(*map(_absent, (desired.registry, desired.attestation, desired.court)))
            else:
                observed = asyncio.run(_observe(profile, desired))
        if profile.network.global_id == MAINNET_GLOBAL_ID and profile.governor is None:
            console.print("[yellow]mainnet: name a multisig in deploy.governor before you apply[/yellow]")
        _show(desired, plan(desired, observed, None, int(time.time())))
    except (ChainError, ConfigError, PlanError, ValueError) as error:
        raise _fail(error) from error


@app.command("apply")
def apply_command(network: NetworkOption = "devnet") -> None:
    """Send what is missing, wait for it, and verify the result."""
    try:
        profile = load_profile(network)
        if profile.network.global_id == MAINNET_GLOBAL_ID and profile.governor is None:
            raise PlanError(f"{profile.path}: mainnet's governor must be a multisig: name it in deploy.governor")
        desired, deployer = apply_.desired_of(profile), apply_.deployer_of(profile)

        async def run() -> Observed:
            chain = connect(profile.network)
            try:
                await apply_.apply(
                    chain, desired, deployer, on_step=lambda step: console.print(f"sending: {step.title}")
                )
                return await apply_.observe(chain, desired)
            finally:
                await chain.close()

        _report(desired, asyncio.run(run()))
    except (ChainError, ConfigError, PlanError, ValueError) as error:
        raise _fail(error) from error


@app.command("verify")
def verify_command(network: NetworkOption = "devnet") -> None:
    """Read code hashes, parameters and ownership back from the chain; exit 1 where anything differs."""
    try:
        profile = load_profile(network)
        desired = apply_.desired_of(profile)
        _report(desired, asyncio.run(_observe(profile, desired)))
    except (ChainError, ConfigError, PlanError, ValueError) as error:
        raise _fail(error) from error


def _freshness(observed: Observed) -> dict[str, object]:
    """Prints when each piece of collateral on chain ends. No part of what is verified: anyone brings it."""
    state = verifier_state(observed.attestation)
    if state is None:
        return {}
    now, ends = int(time.time()), collateral_ends(state)
    table = Table("collateral on chain", "ends")
    for name, end in ends.items():
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(end))
        table.add_row(name, "[yellow]none[/yellow]" if not end else f"[red]ended {when}[/red]" if end <= now else when)
    console.print(table)
    if state.simulated:
        console.print("[yellow]this network's root is a test root: its evidence proves no hardware[/yellow]")
    return {"simulated": state.simulated, "collateral_ended": [name for name, end in ends.items() if end <= now]}


def _report(desired: Desired, observed: Observed) -> None:
    checks = verify(desired, observed)
    table = Table("checked", "expected", "on chain", "")
    for check in checks:
        table.add_row(check.name, check.expected, check.actual, "ok" if check.holds else "[red]DIFFERS[/red]")
    console.print(table)
    ended = _freshness(observed)
    wrong = [check.name for check in checks if not check.holds]
    console.print(
        json.dumps({"verified": not wrong, "differs": wrong, "registry": desired.registry.hex(), **ended}),
        soft_wrap=True,
    )
    if wrong:
        raise typer.Exit(1)
