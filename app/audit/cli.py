"""`cocoon audit`: reads a network through two endpoints and says, to the nanoTON, whether it holds what it owes."""

from __future__ import annotations

import asyncio
import base64
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.audit import show
from app.audit.core.audit import audit, check_registry_of, identify
from app.audit.core.between import check_between
from app.audit.core.facts import Facts, Finding, Kind, Report
from app.audit.core.receipts import Evidence, Shown, check_receipts, parse
from app.audit.gather import facts_of, network_of, node_of, singletons
from app.home import Home, Ports
from chain.api import Chain, ChainError
from chain.config import ConfigError, connect, load_network
from wrappers.cells import account_of, address_of, to_boc
from wrappers.fees import Fees
from wrappers.prices import PRICES
from wrappers.registry import RegistryState
from wrappers.signed import network_id


class AuditRefused(Exception):
    """What was asked cannot be audited. Cause and cure."""


@dataclass(frozen=True, slots=True)
class _Result:
    reports: tuple[Report, ...]
    between: tuple[Finding, ...] = ()
    receipts: tuple[Finding, ...] = ()
    evidence: tuple[Evidence, ...] = ()

    @property
    def holds(self) -> bool:
        findings = [one for report in self.reports for one in report.findings]
        return all(one.holds for one in (*findings, *self.between, *self.receipts))


def command(
    addresses: Annotated[
        list[str] | None,
        typer.Argument(metavar="ADDRESS...", help="64 hex digits, or TON addresses; none: the whole network"),
    ] = None,
    home: Annotated[Path, typer.Option(help="folder of the embedded network", envvar="COCOON_HOME")] = Path(".cocoon"),
    network: Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")] = None,
    registry: Annotated[str | None, typer.Option(help="the network's registry, 64 hex digits")] = None,
    receipt: Annotated[
        Path | None, typer.Option(help="receipts to open, as `cocoon client receipts --json` writes them")
    ] = None,
    state_only: Annotated[bool, typer.Option("--state-only", help="do not follow histories")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON document")] = False,
) -> None:
    """Check solvency and conservation of contracts from chain data alone; 1 where anything does not hold."""
    try:
        shown = parse(receipt.read_text(encoding="utf-8")) if receipt is not None else ()
        result = asyncio.run(_run(addresses or [], home.absolute(), network, registry, shown, not state_only))
    except (AuditRefused, ChainError, ConfigError, OSError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
    if as_json:
        found = show.document(result.reports, result.between, result.receipts)
        typer.echo(json.dumps({**found, "evidence": [_message(one) for one in result.evidence]}))
    else:
        _print(result)
    raise typer.Exit(0 if result.holds else 1)


async def _run(
    addresses: Sequence[str], home: Path, profile: str | None, registry: str | None, shown: Sequence[Shown], deep: bool
) -> _Result:
    network = load_network(profile if profile is not None else Home(home, Ports()).profile)
    chain = connect(network)
    try:
        known = _registry(registry, home if profile is None else None)
        if addresses or shown:
            accounts = [_account(text) for text in addresses]
            facts = [await facts_of(chain, one, network.global_id, history=deep) for one in dict.fromkeys(accounts)]
        elif known is None:
            raise AuditRefused("no ADDRESS and no registry: name contracts, or the network's registry by --registry")
        else:
            facts = list(await network_of(chain, known, network.global_id))
        reports = [audit(one, PRICES) for one in facts]
        if not addresses:
            # Of a whole network's accounts some have ended; whoever names an account wants it there.
            reports = [one for one in reports if one.kind is not Kind.ABSENT]
        between = check_between(facts) if len(facts) > 1 and deep else ()
        if addresses and registry is not None and known is not None:
            named = await facts_of(chain, known, network.global_id, history=False)
            those = {known, *singletons(named)}
            found = (check_registry_of(one, known, those) for one in facts)
            between = (*between, *(one for one in found if one is not None))
        findings, evidence = await _open(chain, shown, known, network.global_id) if shown else ((), ())
        return _Result(tuple(reports), between, findings, evidence)
    finally:
        await chain.close()


async def _open(
    chain: Chain, shown: Sequence[Shown], registry: bytes | None, global_id: int
) -> tuple[tuple[Finding, ...], tuple[Evidence, ...]]:
    if registry is None:
        raise AuditRefused("receipts are bound to a network: name its registry by --registry")
    state = (await facts_of(chain, registry, global_id, history=False)).state
    if identify(state) is not Kind.REGISTRY or state.data is None:
        raise AuditRefused(f"{registry.hex()} is no registry that this release knows; correct --registry")
    found = RegistryState.from_cell(state.data)
    nodes: dict[bytes, Facts] = {}
    for account in {one.node for one in shown}:
        facts = await node_of(chain, account, registry, global_id)
        if facts is not None:
            nodes[account] = facts
    fees = Fees(PRICES, found.parameters)
    return check_receipts(shown, network_id(global_id, registry), nodes, fees)


def _registry(given: str | None, home: Path | None) -> bytes | None:
    if given is not None:
        return _account(given)
    if home is None:
        return None
    try:
        raw = tomllib.loads((home / "relayer.toml").read_text(encoding="utf-8")).get("registry")
    except (OSError, ValueError):
        return None
    return _account(raw) if isinstance(raw, str) else None


def _account(text: str) -> bytes:
    try:
        return bytes.fromhex(text) if len(text) == 64 else account_of(text)
    except Exception as error:  # pytoniq-core raises many unrelated types on a malformed address
        raise AuditRefused(f"{text!r} is neither 64 hex digits nor a TON address in workchain 0") from error


def _message(one: Evidence) -> dict[str, object]:
    body = to_boc(one.body)
    return {
        "why": one.why,
        "to": address_of(one.court).to_str(),
        "value_nano": one.value_nano,
        "body": base64.b64encode(body).decode(),
    }


def _print(result: _Result) -> None:
    for report in result.reports:
        show.report(report, flows=True)
    if result.between:
        show.out.print("together", style="bold")
        show.findings(result.between, "  ")
    if result.receipts:
        show.out.print("receipts", style="bold")
        show.findings(result.receipts, "  ")
    for one in result.evidence:
        said = _message(one)
        show.out.print(f"evidence: {one.why}", style="bold red", markup=False)
        show.out.print(f"  send to {said['to']} with {show.ton(one.value_nano)} TON; body, base64:", markup=False)
        show.out.print(f"  {said['body']}", markup=False)
    word = "everything holds" if result.holds else "SOMETHING DOES NOT HOLD"
    show.out.print(f"{len(result.reports)} accounts: {word}", style="bold", markup=False)
