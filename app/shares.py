"""`cocoon relayer shares`: what waits in escrows for relayers, royalties and the treasury, and sending it to them.

Anyone may send it and pays for it, so whoever gets a share has the reason to: a relayer for itself, the treasury's
keeper for the network. A row that ends sends them by itself when its owner finishes it. The relayer's own process holds
no wallet and sends nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from app.children import children
from app.governance.core.settings import account
from app.home import Home, Ports
from chain.api import AccountState, Chain, ChainError
from chain.config import connect, load_network
from chain.mnemonic import MnemonicError
from chain.outgoing import Outgoing
from chain.wait import until
from chain.wallet import Wallet
from scripts.deploy.apply import desired_of
from scripts.deploy.plan import PlanError
from scripts.deploy.profile import load_profile
from wrappers.addresses import Kind
from wrappers.cells import CellError
from wrappers.escrow import EscrowState
from wrappers.escrow_rare import pay_shares
from wrappers.fees import Fees
from wrappers.prices import PRICES
from wrappers.registry import Parameters, RegistryState
from wrappers.rows import ENDED, Row, part

THRESHOLD = 10
"""A share of a row that goes on leaves when it is worth this many messages (contracts/escrow/shares.fc)."""
MARGIN_NANO = 5_000_000
SHOWN_SECONDS = 60.0
TROUBLE = (ChainError, MnemonicError, OSError, PlanError, TimeoutError, ValueError)


class NothingKnown(ValueError):
    """There is no network where the command looks. Cause and cure."""


@dataclass(frozen=True, slots=True)
class Due:
    """What waits in one row. `parts`: nanoTON by who gets it."""

    escrow: bytes
    node: bytes
    parts: dict[bytes, int]
    payable: bool
    """Whether the escrow would send it now."""

    def worth(self, to: bytes | None) -> int:
        """nanoTON for `to`; None: for everybody."""
        return sum(self.parts.values()) if to is None else self.parts.get(to, 0)


def dues(escrow: bytes, state: EscrowState) -> Iterator[Due]:
    """One for each row in which something waits."""
    for node, row in state.rows.items():
        parts = list(_parts(row))
        if any(amount for _, amount in parts):
            least = (1 if row.closing_at == ENDED else THRESHOLD) * PRICES.forward(0, 0)
            payable = row.closing_at == ENDED or all(amount >= least for _, amount in parts)
            summed: dict[bytes, int] = {}
            for whose, amount in parts:
                summed[whose] = summed.get(whose, 0) + amount
            yield Due(escrow, node, summed, payable)


def _parts(row: Row) -> Iterator[tuple[bytes, int]]:
    shares = row.terms.shares
    if shares is None:
        return
    named = [(shares.relayer, shares.relayer_share), (shares.royalty, shares.royalty_share)]
    if shares.fee is not None:
        named.append((shares.fee.treasury, shares.fee.share))
    for whose, share in named:
        if share:
            yield whose, part(row.paid_nano, share) - part(shares.paid_out_nano, share)


async def send_shares(
    network: str | Path,
    registry: bytes,
    *,
    to: bytes | None,
    wallet_file: Path | None,
    at_least_nano: int | None,
    tell: Callable[[str], None],
) -> int:
    """A JSON line for each row with something for `to` (default: the wallet; without one, anybody); how many were sent.

    Sends with a wallet, where it is worth `at_least_nano` (default: what sending may cost). Raises ConfigError,
    ChainError, MnemonicError, NothingKnown.
    """
    wallet = Wallet.from_mnemonic_file(wallet_file) if wallet_file is not None else None
    profile = load_network(network)
    chain = connect(profile)
    sent = 0
    try:
        need = Fees(PRICES, await _parameters(chain, registry)).pay_shares() + MARGIN_NANO
        whose = to if to is not None else wallet.account if wallet is not None else None
        least = need if at_least_nano is None else at_least_nano
        async for found in children(chain, registry, profile.global_id, Kind.ESCROW):
            state = _rows(found)
            for due in dues(found.account, state) if state is not None else ():
                if not due.worth(whose):
                    continue
                sends = wallet is not None and due.payable and due.worth(whose) >= least
                if sends and wallet is not None:
                    message = Outgoing(due.escrow, need, pay_shares(due.node))
                    await (await wallet.send(chain, [message])).landed(chain)
                    await _left(chain, due)
                    sent += 1
                tell(json.dumps(_said(due, sends)))
    finally:
        await chain.close()
    return sent


def _said(due: Due, sent: bool) -> dict[str, object]:
    return {
        "escrow": due.escrow.hex(),
        "node": due.node.hex(),
        "shares_nano": {account.hex(): amount for account, amount in due.parts.items()},
        "payable": due.payable,
        "sent": sent,
    }


async def _left(chain: Chain, before: Due) -> None:
    async def read() -> bool | None:
        state = _rows(await chain.account(before.escrow))
        row = None if state is None else state.rows.get(before.node)
        return True if row is None or sum(amount for _, amount in _parts(row)) < before.worth(None) else None

    await until(read, what="the shares to leave", timeout_seconds=SHOWN_SECONDS)


def _rows(account: AccountState) -> EscrowState | None:
    """None where there is no escrow (any more), or none that this release reads."""
    try:
        return EscrowState.from_cell(account.data, account.account) if account.data is not None else None
    except CellError:
        return None


async def _parameters(chain: Chain, registry: bytes) -> Parameters:
    account = await chain.account(registry)
    if account.data is None:
        raise NothingKnown(f"there is no registry at {registry.hex()}; correct --registry or --network")
    try:
        return RegistryState.from_cell(account.data).parameters
    except CellError as error:
        raise NothingKnown(f"{registry.hex()} is no registry: {error}; correct --registry") from error


def command(
    home: Annotated[Path, typer.Option(help="folder of the embedded network", envvar="COCOON_HOME")] = Path(".cocoon"),
    network: Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")] = None,
    registry: Annotated[str | None, typer.Option(help="the network's registry: 64 hex digits, or an address")] = None,
    to: Annotated[str | None, typer.Option(help="whose shares: an account; the wallet's by default")] = None,
    wallet: Annotated[
        Path | None, typer.Option(help="24 words of the wallet that pays for sending; without it nothing is sent")
    ] = None,
    at_least: Annotated[
        int | None, typer.Option(metavar="NANO", help="send what is worth this much; what sending costs by default")
    ] = None,
) -> None:
    """Show what waits in escrows for whoever shares in payments, and have it sent. Anyone may; a JSON line each."""
    try:
        profile: str | Path = network if network is not None else Home(home.absolute(), Ports()).profile
        named = account(registry) if registry is not None else desired_of(load_profile(profile)).registry
        whose = account(to) if to is not None else None
        asyncio.run(send_shares(profile, named, to=whose, wallet_file=wallet, at_least_nano=at_least, tell=typer.echo))
    except TROUBLE as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
