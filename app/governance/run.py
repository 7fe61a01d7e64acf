"""How every command of `cocoon governance` runs: which network, the rehearsal, and who sends."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from pytoniq_core import Cell

from app.governance.carry import Refused, carry_out
from app.governance.core.actions import Action, read
from app.governance.core.orders import Order, senders
from app.governance.core.proposals import pending
from app.governance.core.settings import NotUnderstood, account
from app.governance.gather import NotGoverned, Scene, actions_of, scene_of
from app.governance.rehearse import refusal
from app.governance.show import document, lines
from app.home import Home, Ports
from chain.api import Chain, ChainError
from chain.config import ConfigError, connect, load_network
from chain.mnemonic import MnemonicError
from chain.wait import WaitTimeout
from chain.wallet import Wallet
from scripts.deploy.apply import desired_of
from scripts.deploy.plan import PlanError
from scripts.deploy.profile import load_profile
from wrappers.cells import CellError, address_of, from_boc, to_boc

TROUBLE = (
    NotGoverned,
    NotUnderstood,
    Refused,
    CellError,
    ChainError,
    ConfigError,
    MnemonicError,
    OSError,
    PlanError,
    WaitTimeout,
)


@dataclass(frozen=True, slots=True)
class Options:
    """Of the whole command, before any subcommand."""

    home: Path
    network: str | None
    registry: str | None
    wallet: Path | None
    print_only: bool
    boc: Path | None
    sender: str | None
    yes: bool

    @property
    def profile(self) -> str | Path:
        return self.network if self.network is not None else Home(self.home, Ports()).profile

    def registry_account(self) -> bytes:
        """As given, else where the profile's deployment stands. Raises NotUnderstood, ConfigError, PlanError."""
        if self.registry is not None:
            return account(self.registry)
        return desired_of(load_profile(self.profile)).registry


@dataclass(frozen=True, slots=True)
class Desk:
    """What a command looks at while it makes its message."""

    chain: Chain
    scene: Scene

    async def known(self, hash_: bytes) -> Action | None:
        """The action of a proposal, from the registry's history; None where no endpoint keeps it."""
        if hash_ not in self.scene.state.proposals:
            names = ", ".join(one.hex() for one in self.scene.state.proposals) or "none"
            raise NotUnderstood(f"{hash_.hex()} is not proposed; proposed are: {names}")
        cell = (await actions_of(self.chain, self.scene, {hash_})).get(hash_)
        return None if cell is None else read(cell, self.scene.state, self.scene.verifier_state)

    async def action(self, hash_: bytes, file: Path | None = None) -> Action:
        """The same, or from a file. Raises NotUnderstood where it is neither here nor there."""
        if file is not None:
            cell = cell_in(file)
            if cell.hash != hash_:
                raise NotUnderstood(f"{file} holds another action, {cell.hash.hex()}")
            return read(cell, self.scene.state, self.scene.verifier_state)
        found = await self.known(hash_)
        if found is None:
            raise NotUnderstood(
                f"the endpoints keep no history that shows action {hash_.hex()}: name an archival one, or --action FILE"
            )
        return found


def cell_in(file: Path) -> Cell:
    """A bag of cells, binary or hex. Raises CellError, OSError."""
    raw = file.read_bytes()
    try:
        return from_boc(bytes.fromhex(raw.decode("ascii").strip()))
    except ValueError:
        return from_boc(raw)


def status_of(options: Options, as_json: bool) -> None:
    async def work() -> None:
        chain = connect(load_network(options.profile))
        try:
            scene = await scene_of(chain, options.registry_account())
            known = await actions_of(chain, scene, set(scene.state.proposals))
        finally:
            await chain.close()
        waiting = tuple(pending(scene.state, scene.verifier_state, known, scene.now))
        if as_json:
            typer.echo(json.dumps(document(scene, waiting)))
        else:
            for line in lines(scene, waiting):
                typer.echo(line)

    _run(work())


def act(options: Options, make: Callable[[Desk], Awaitable[Order]]) -> None:
    """Make the message, see that it would be taken, ask, and send it; or print it for somebody else to send."""

    async def work() -> None:
        network = load_network(options.profile)
        chain = connect(network)
        try:
            desk = Desk(chain, await scene_of(chain, options.registry_account()))
            order = await make(desk)
            wallet = _wallet(options)
            sender = wallet.account if wallet is not None else _sender(options, senders(desk.scene.state, order))
            why_not = refusal(desk.scene, network.global_id, sender, order)
            if why_not is not None:
                raise NotUnderstood(why_not)
            for line in order.says:
                typer.echo(line, err=True)
            if wallet is None:
                _hand_out(options, desk.scene, order, sender)
                return
            _agreed(options.yes)
            done = await carry_out(chain, desk.scene, order, wallet)
            said = {"sent": done.sent.hex(), "registry_transaction": done.registry.hex()}
            typer.echo(json.dumps(said | ({"action": order.about.hex()} if order.about is not None else {})))
        finally:
            await chain.close()

    _run(work())


def _wallet(options: Options) -> Wallet | None:
    """None where the message is only to be printed."""
    if options.print_only or options.boc is not None:
        return None
    if options.wallet is None:
        raise NotUnderstood("who sends it? --wallet FILE with the governor's words, or --print for a contract to send")
    return Wallet.from_mnemonic_file(options.wallet)


def _sender(options: Options, may: Sequence[bytes]) -> bytes:
    if options.sender is not None:
        return account(options.sender)
    if len(may) != 1:
        names = ", ".join(one.hex() for one in may) or "nobody"
        raise NotUnderstood(f"who will send it? name the account by --sender; those who may: {names}")
    return may[0]


def _hand_out(options: Options, scene: Scene, order: Order, sender: bytes) -> None:
    raw = to_boc(order.body)
    said: dict[str, object] = {
        "from": address_of(sender).to_str(),
        "to": address_of(scene.registry.account).to_str(),
        "value_nano": order.value_nano,
        "bounce": True,
    }
    if order.about is not None:
        said["action"] = order.about.hex()
    if options.boc is not None:
        options.boc.write_bytes(raw)
        said["body_file"] = str(options.boc)
    else:
        said["body"] = base64.b64encode(raw).decode()
    typer.echo(json.dumps(said))


def _agreed(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise NotUnderstood("this asks before it is done, and nobody is here to answer; add --yes before the command")
    if not typer.confirm("Do it?", err=True):
        raise NotUnderstood("nothing was done")


def _run(work: Awaitable[None]) -> None:
    async def main() -> None:
        await work

    try:
        asyncio.run(main())
    except TROUBLE as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
