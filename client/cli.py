"""`cocoon client`: money, receipts, trust, and the local endpoint.

A command that finds the home taken by a running `serve` hands itself to it; nothing else differs.
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer

from chain.api import ChainError
from chain.config import ConfigError
from chain.mnemonic import MnemonicError
from chain.wallet import Wallet
from client import control, show, upkeep_cli
from client.answer import text_of
from client.config import DEFAULT_HOME, Config, load
from client.errors import ClientError, HomeError, Locked, showable
from client.events import Receipted, Text
from client.inspect import inspect
from client.job_cli import job_app
from client.sdk import Client
from client.show import NANO, err, out
from client.sidecar import CONTROL_FILE, Sidecar
from client.upkeep_cli import Yes

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Ask, pay, and check: the client's side.")

Overrides = dict[str, Any]
_state: dict[str, Any] = {}


@app.callback()
def _options(
    home: Annotated[Path, typer.Option(help="the client's folder", envvar="COCOON_CLIENT_HOME")] = DEFAULT_HOME,
    network: Annotated[str | None, typer.Option(help="network profile: a name, or the path of a TOML file")] = None,
    registry: Annotated[str | None, typer.Option(help="the network's registry, 64 hex digits")] = None,
    relayer: Annotated[str | None, typer.Option(help="URL of a relayer")] = None,
    policy: Annotated[str | None, typer.Option(help="attestation policy: a bundled name, or a TOML file")] = None,
    wallet: Annotated[str | None, typer.Option(help="file with the wallet's 24 words")] = None,
    allow_simulated: Annotated[
        bool | None, typer.Option("--allow-simulated", help="accept evidence that proves no hardware (tests)")
    ] = None,
) -> None:
    """Options stand before the command and above client.toml in the home."""

    def absolute(name: str | None) -> str | None:
        # On the command line paths are relative to where one stands, in client.toml to the home.
        return str(Path(name).expanduser().absolute()) if name is not None and name.endswith(".toml") else name

    _state["home"] = home.expanduser().absolute()
    _state["overrides"] = {
        "network": absolute(network),
        "registry": registry,
        "relayer": relayer,
        "policy": absolute(policy),
        "wallet": None if wallet is None else str(Path(wallet).expanduser().absolute()),
        "allow_simulated": allow_simulated,
    }


def _config(**more: Any) -> Config:
    return load(_state["home"], {**_state["overrides"], **more})


def _wallet(config: Config, *, create: bool = False) -> Wallet:
    path = config.wallet_file
    if path.exists() or not create:
        return Wallet.from_mnemonic_file(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    wallet = Wallet.create(path)
    err.print(f"A new wallet was made: its 24 words are in {path}. Keep a copy; whoever has them has the money.")
    return wallet


def _main(work: Coroutine[Any, Any, int | None]) -> None:
    """Run; every error in one line with its cure."""
    # A core dump would hold prompts, answers and the voucher key.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        raise typer.Exit(asyncio.run(work) or 0)
    except (ClientError, ChainError, ConfigError, MnemonicError) as error:
        err.print(f"error: {showable(error)}", style="bold red", markup=False)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


@asynccontextmanager
async def _client(config: Config) -> AsyncIterator[Client]:
    async with Client.open(config.settings, _wallet(config)) as client:
        yield client


async def _command(command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Here, or where the home is already in use."""
    config = _config()
    try:
        async with _client(config) as client:
            return await control.run(client, command, arguments or {})
    except Locked as locked:
        url, headers = _running(config, locked)
        return await _forward(url, headers, {"command": command, "arguments": arguments or {}}, locked)


def _running(config: Config, locked: Locked) -> tuple[str, dict[str, str]]:
    """Base URL of the endpoint that holds the home, and the header that it obeys. Raises `locked` without one."""
    try:
        contact = json.loads((config.settings.home / CONTROL_FILE).read_text(encoding="utf-8"))
        return str(contact["url"]), {"Authorization": f"Bearer {contact['token']}"}
    except (OSError, ValueError, KeyError):
        raise locked from None


async def _forward(url: str, headers: dict[str, str], message: dict[str, Any], locked: Locked) -> dict[str, Any]:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=900)) as session,
            session.post(f"{url}/cocoon/control", json=message, headers=headers) as response,
        ):
            answer = await response.json()
    except (OSError, ValueError, aiohttp.ClientError):
        raise locked from None
    if response.status != 200:
        raise HomeError(showable(answer["error"]["message"]), "see above")
    return dict(answer)


# ---- money


def _nano(text: str) -> int:
    """TON with up to nine decimals, exactly."""
    whole, _, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(part) > 9:
        raise typer.BadParameter(f"{text!r} is no amount in TON, such as 2 or 0.25")
    return int(whole or "0") * NANO + int(part.ljust(9, "0"))


Amount = Annotated[int, typer.Argument(parser=_nano, metavar="TON", help="such as 2 or 0.25")]
Node = Annotated[str, typer.Argument(help="the node's account, 64 hex digits (see `nodes`)")]
Timer = Annotated[int | None, typer.Option(help="seconds until a row ends that its node does not release")]


@app.command("open")
def open_(
    deposit: Amount,
    node: Annotated[str | None, typer.Option(help="reserve a part for this node at once")] = None,
    allot: Annotated[int | None, typer.Option(parser=_nano, metavar="TON", help="that part (all of it)")] = None,
    close_timer: Timer = None,
) -> None:
    """Open an escrow with this deposit. Only you can ever take it out again; nodes are paid by receipts."""
    first = {} if node is None else {"node": node, "allot_nano": deposit if allot is None else allot}
    _wallet(_config(), create=True)
    _main(_show_balance("open", {"deposit_nano": deposit, "close_timer": close_timer, **first}))


@app.command()
def allot(node: Node, amount: Amount, close_timer: Timer = None) -> None:
    """Reserve (more of) the deposit for a node."""
    _main(_show_balance("allot", {"node": node, "amount_nano": amount, "close_timer": close_timer}))


@app.command()
def topup(amount: Amount) -> None:
    """Add to the deposit."""
    _main(_show_balance("topup", {"amount_nano": amount}))


@app.command()
def withdraw(
    amount: Annotated[int | None, typer.Argument(parser=_nano, metavar="TON", help="all that is free")] = None,
) -> None:
    """Take out what is not allotted."""
    _main(_show_balance("withdraw", {"amount_nano": amount or 0}))


@app.command()
def balance() -> None:
    """What is where, read from the chain and from your own receipts."""
    _main(_show_balance("balance", {}))


async def _show_balance(command: str, arguments: dict[str, Any]) -> None:
    found = await _command(command, arguments)
    show.balance(found)


@app.command()
def close(
    patience: Annotated[float, typer.Option(help="seconds to wait for the nodes' releases")] = 60.0,
    yes: Yes = False,
) -> None:
    """End the escrow: at once where the nodes agree, else by the close timers (then `finish`)."""

    async def work() -> None:
        await upkeep_cli.agreed(_command, {"what": "close"}, yes)
        show.closed(await _command("close", {"patience_seconds": patience}))

    _main(work())


@app.command()
def finish() -> None:
    """After the close timers: free the rows and end the escrow."""

    async def work() -> None:
        show.closed(await _command("finish"))

    _main(work())


upkeep_cli.mount(app, _main, _command)


# ---- receipts and trust


@app.command()
def receipts(
    verify: Annotated[bool, typer.Option("--verify", help="check each again, offline, from what was kept")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="as JSON")] = False,
) -> None:
    """Every receipt, newest first."""

    async def work() -> int:
        found = await _command("receipts", {"verify": verify})
        if as_json:
            out.print_json(data=found)
        else:
            show.receipts(found, verified=verify)
        return 0 if found.get("holds", True) else 1

    _main(work())


@app.command()
def nodes() -> None:
    """The relayer's nodes, each judged by this client."""

    async def work() -> None:
        for node in (await _command("nodes"))["nodes"]:
            if node["trusted"]:
                word = f"tier {node['tier']}" + (", SIMULATED: proves no hardware" if node["simulated"] else "")
                out.print(f"{node['node']}  trusted, {word}; {', '.join(node['models'])}", markup=False)
            else:
                out.print(f"{node['node']}  REFUSED: {showable('; '.join(node['reasons']))}", markup=False)

    _main(work())


@app.command()
def verify(node: Node) -> None:
    """Verify a node's evidence from its roots and print the chain of trust, down to its last receipt if one is here.

    Needs no wallet and no account.
    """

    async def work() -> None:
        config = _config()
        found = await inspect(config.settings, control.account_of(node))
        show.trust({**control.trust_view(found.node), **control.chain_view(found)})
        if config.wallet_file.exists():
            kept = await _command("receipts", {"verify": True})
            key = found.node.signing_key.hex()
            show.last_receipt(next((one for one in kept["receipts"] if one["key"] == key), None))

    _main(work())


@app.command()
def recover() -> None:
    """Fetch the receipts of requests that a killed process left behind."""

    async def work() -> None:
        found = await _command("recover")
        for one in found["recovered"]:
            out.print(f"{one['request']}: {one['receipt'] or one['trouble'] or 'never ran'}", markup=False)
        out.print(f"{len(found['recovered'])} requests were in flight")
        for one in found["jobs"]:
            out.print(f"job {one['job']}: {one['said']}", markup=False)
        for one in found["unaccepted"]:
            out.print(f"receipt {one['hash']} over {show.ton(one['amount_nano'])} came without its proof", markup=False)

    _main(work())


app.add_typer(job_app(_command, _main, _nano), name="job")


# ---- asking


@app.command()
def chat(
    prompt: str,
    model: Annotated[str | None, typer.Option(help="which model (any that something is allotted to)")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="most tokens of the answer")] = None,
    node: Annotated[str | None, typer.Option(help="ask this node only")] = None,
) -> None:
    """Ask once; the answer streams to the terminal, its receipt to standard error."""
    body = {"messages": [{"role": "user", "content": prompt}], "stream": True, "model": model, "max_tokens": max_tokens}

    async def work() -> None:
        config = _config()
        try:
            async with _client(config) as client:
                account = None if node is None else bytes.fromhex(node)
                async for event in client.chat(body, node=account):
                    if isinstance(event, Text):
                        out.print(show.terminal(event.text), end="", markup=False)
                    elif isinstance(event, Receipted):
                        out.print()
                        show.receipt(event)
        except Locked as locked:
            await _chat_through(*_running(config, locked), body, locked)

    _main(work())


async def _chat_through(url: str, headers: dict[str, str], body: dict[str, Any], locked: Locked) -> None:
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session,
            session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response,
        ):
            async for line in response.content:
                raw = json.loads(line.removeprefix(b"data: ")) if line[:1] == b"{" or line[:7] == b"data: {" else {}
                if "error" in raw:
                    raise HomeError(showable(raw["error"]["message"]), "see above")
                out.print(show.terminal(text_of(raw)), end="", markup=False)
                if "cocoon" in raw:
                    said = raw["cocoon"]
                    flags = " SIMULATED: proves no hardware." if said["simulated"] else ""
                    out.print()
                    err.print(f"receipt {said['receipt']}: {show.ton(said['amount_nano'])}.{flags}", markup=False)
    except (OSError, ValueError, aiohttp.ClientError):
        raise locked from None


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="where to listen; everyone who reaches it can spend")] = None,
    port: Annotated[int | None, typer.Option(help="0: a free one")] = None,
) -> None:
    """The local OpenAI-compatible endpoint. Says `{"ready": "client", ...}` on standard output when it is up."""

    async def work() -> None:
        config = _config(host=host, port=port)
        token = None if config.token_file is None else config.token_file.read_text(encoding="ascii").strip()
        if config.host not in ("127.0.0.1", "::1", "localhost") and not token:
            raise HomeError(f"{config.host} is reached from other machines", "set token_file, or listen on 127.0.0.1")
        async with _client(config) as client:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            sidecar = Sidecar(client, token=token)
            try:
                url = await sidecar.start(config.host, config.port)
                sys.stdout.write(json.dumps({"ready": "client", "url": url}) + "\n")
                sys.stdout.flush()
                recovering = asyncio.create_task(client.recover())
                await stop.wait()
                recovering.cancel()
                await asyncio.gather(recovering, return_exceptions=True)
            finally:
                await sidecar.close()

    _main(work())
