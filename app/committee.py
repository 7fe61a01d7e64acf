"""`cocoon committee`: deploy one, and see who is in it, what is asked, and whether its network lets it vouch."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from app.governance.core.settings import NotUnderstood, account, span, ton
from app.governance.gather import NotGoverned, Scene, scene_of
from app.home import Home, Ports
from chain.api import AccountState, Chain, ChainError
from chain.config import ConfigError, connect
from chain.mnemonic import MnemonicError
from chain.wait import WaitTimeout, until
from scripts.deploy.apply import deployer_of, desired_of
from scripts.deploy.committee import (
    admission,
    choice_of,
    committee_account,
    committee_in,
    plan_committee,
    policy_hash,
    terms_of,
    verify_committee,
)
from scripts.deploy.plan import PlanError
from scripts.deploy.profile import Profile, load_profile
from wrappers.cells import address_of
from wrappers.committee import LEAVE_SECONDS, CommitteeState, Vote

app = typer.Typer(no_args_is_help=True, help="Committees that vouch for machines which the chain cannot verify.")
TROUBLE = (ChainError, ConfigError, MnemonicError, NotGoverned, NotUnderstood, OSError, PlanError, WaitTimeout)
SHOWN_SECONDS = 60.0
HomeOption = Annotated[Path, typer.Option(help="folder of the embedded network", envvar="COCOON_HOME")]
NetworkOption = Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")]


def _profile(home: Path, network: str | None) -> Profile:
    return load_profile(network if network is not None else Home(home.absolute(), Ports()).profile)


@app.command()
def deploy(
    home: HomeOption = Path(".cocoon"),
    network: NetworkOption = None,
    plan_only: Annotated[bool, typer.Option("--plan", help="send nothing: say what would be sent")] = False,
) -> None:
    """Deploy the committee of the profile's [deploy.committee], and verify it. Safe to repeat.

    Members judge by the policy document of this release. It vouches for nothing before governance allows its account.
    """

    async def work() -> None:
        profile = _profile(home, network)
        choice, desired = choice_of(profile.path), desired_of(profile)
        deployer = None if plan_only else deployer_of(profile)
        chain = connect(profile.network)
        try:
            scene = await scene_of(chain, desired.registry)
            terms = terms_of(choice, desired.registry, scene.state)
            found = await chain.account(committee_account(desired.genesis_key, choice.salt))
            sign = deployer.sign if deployer is not None else None
            step = plan_committee(desired, choice, terms, found, sign)
            said: dict[str, Any] = {"committee": found.account.hex(), "policy": terms.policy.hex()}
            if step is not None:
                said |= {"sent" if deployer is not None else "to_send": step.title}
                said |= {"value_nano": step.message.value_nano, "fees_nano": step.fees_nano}
            if step is not None and deployer is not None:
                await (await deployer.send(chain, [step.message])).landed(chain)
                found = await until(
                    lambda: _born(chain, found.account), what="the committee", timeout_seconds=SHOWN_SECONDS
                )
            if step is None or deployer is not None:
                wrong = [check.name for check in verify_committee(terms, found) if not check.holds]
                said |= {"verified": not wrong, "differs": wrong}
            said["network"] = admission(scene.verifier_state, found.account)
            typer.echo(json.dumps(said))
            if "not allowed" in said["network"]:
                typer.echo(
                    f"to let it vouch: cocoon governance propose allow-image {found.account.hex()} --tier 3", err=True
                )
        finally:
            await chain.close()

    _run(work())


async def _born(chain: Chain, account: bytes) -> AccountState | None:
    found = await chain.account(account)
    return found if committee_in(found) is not None else None


@app.command()
def status(
    committee: Annotated[
        str | None, typer.Argument(metavar="ACCOUNT", help="64 hex digits, or an address; else the profile's own")
    ] = None,
    home: HomeOption = Path(".cocoon"),
    network: NetworkOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Its terms, members and open questions, and whether its network lets it vouch. Anyone may look."""

    async def work() -> None:
        profile = _profile(home, network)
        if committee is not None:
            named = account(committee)
        else:
            named = committee_account(desired_of(profile).genesis_key, choice_of(profile.path).salt)
        chain = connect(profile.network)
        try:
            found = await chain.account(named)
            state = committee_in(found)
            if state is None:
                raise NotUnderstood(
                    f"there is no committee of this release at {named.hex()} ({found.status}); name another "
                    "ACCOUNT, or run `cocoon committee deploy`"
                )
            scene = await scene_of(chain, state.terms.registry)
        finally:
            await chain.close()
        if as_json:
            typer.echo(json.dumps(document(found, state, scene)))
        else:
            for line in lines(found, state, scene):
                typer.echo(line)

    _run(work())


def document(found: AccountState, state: CommitteeState, scene: Scene) -> dict[str, Any]:
    """Amounts nanoTON, times unix seconds."""
    terms = state.terms
    return {
        "committee": found.account.hex(),
        "balance_nano": found.balance_nano,
        "network": admission(scene.verifier_state, found.account),
        "registry": terms.registry.hex(),
        "policy": terms.policy.hex(),
        "policy_of_this_release": terms.policy == policy_hash(),
        "seats": terms.seats,
        "quorum": terms.quorum,
        "window": terms.window,
        "bond_nano": terms.bond_nano,
        "fee_nano": terms.fee_nano,
        "drawable": state.size,
        "members": [
            {
                "owner": owner.hex(),
                "node": member.node.hex(),
                "attested_until": member.attested_until,
                "bond_nano": member.bond_nano,
                "bond_free_at": member.leaving_at + LEAVE_SECONDS if member.leaving_at else None,
            }
            for owner, member in state.members.items()
        ],
        "requests": [
            {
                "node": node.hex(),
                "drawn": request.drawn,
                "draw_at_block": None if request.drawn else request.draw_at,
                "deadline": request.deadline,
                "yes": request.yes,
                "no": request.no,
                "silent": sum(vote is Vote.NONE for vote in request.seats.values()),
            }
            for node, request in state.requests.items()
        ],
    }


def lines(found: AccountState, state: CommitteeState, scene: Scene) -> Iterator[str]:
    said = document(found, state, scene)
    yield f"committee    {address_of(found.account).to_str()}  ({found.account.hex()})"
    yield f"network      {said['network']}"
    judges = "this release's" if said["policy_of_this_release"] else "NOT this release's: members need the one it names"
    yield f"policy       {said['policy']}, {judges}"
    yield f"terms        {state.terms.quorum} yes of {state.terms.seats} seats, window {span(state.terms.window)}"
    yield f"             bond {ton(state.terms.bond_nano)}, {ton(state.terms.fee_nano)} for each answer"
    enough = "" if state.size >= state.terms.seats else f": too few, a question needs {state.terms.seats}"
    yield f"members      {len(state.members)}, of whom {state.size} can be drawn{enough}"
    for one in said["members"]:
        bond = "slashed" if not one["bond_nano"] else ton(one["bond_nano"])
        leaves = f", leaving: its bond is free at {one['bond_free_at']}" if one["bond_free_at"] else ""
        ended = " (over)" if one["attested_until"] <= scene.now else ""
        until_ = f"attested until {one['attested_until']}{ended}"
        yield f"  owner {one['owner']}: node {one['node']}, {until_}, {bond}{leaves}"
    for one in said["requests"]:
        if one["drawn"]:
            what = f"{one['yes']} yes, {one['no']} no, {one['silent']} silent"
        else:
            what = f"drawn by block {one['draw_at_block']}"
        when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(one["deadline"]))
        yield f"  question about node {one['node']}: {what}, until {one['deadline']} ({when})"
    if not said["requests"]:
        yield "no question is open"


def _run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    try:
        asyncio.run(main())
    except TROUBLE as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
