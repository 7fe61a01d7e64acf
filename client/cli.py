"""`cocoon client`: money, receipts, trust, and the local endpoint.

A command that finds the home taken by a running `serve` hands itself to it; nothing else differs.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from chain.api import ChainError
from chain.config import ConfigError
from chain.mnemonic import MnemonicError
from chain.wallet import Wallet
from client import control
from client.answer import text_of
from client.config import DEFAULT_HOME, Config, load
from client.errors import ClientError, HomeError, Locked, showable
from client.events import Receipted, Text
from client.sdk import Client
from client.sidecar import CONTROL_FILE, Sidecar

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Ask, pay, and check: the client's side.")
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
NANO = 1_000_000_000

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


def _ton(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d} TON"


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
    out.print(f"wallet  {found['wallet']}  {_ton(found['wallet_nano'])}")
    out.print(
        f"escrow  {found['escrow']}  deposit {_ton(found['deposit_nano'])}, free {_ton(found['free_nano'])}"
        + (", CLOSING" if found["closing"] else "")
    )
    table = Table("node", "allotted", "paid", "owed", "promised", "room", "ends")
    for row in found["rows"]:
        amounts = (row[f"{name}_nano"] for name in ("allotted", "paid", "owed", "promised", "room"))
        table.add_row(row["node"], *map(_ton, amounts), str(row["closing_at"] or "-"))
    if found["rows"]:
        out.print(table)


@app.command()
def close(patience: Annotated[float, typer.Option(help="seconds to wait for the nodes' releases")] = 60.0) -> None:
    """End the escrow: at once where the nodes agree, else by the close timers (then `finish`)."""

    async def work() -> None:
        _show_closed(await _command("close", {"patience_seconds": patience}))

    _main(work())


@app.command()
def finish() -> None:
    """After the close timers: free the rows and end the escrow."""

    async def work() -> None:
        _show_closed(await _command("finish"))

    _main(work())


def _show_closed(found: dict[str, Any]) -> None:
    for node, why in found["refusals"].items():
        out.print(f"node {node} gave no release: {why}", markup=False)
    for node, at in found["waiting"].items():
        out.print(f"node {node}: its row ends at {at} (unix seconds); then run `cocoon client finish`")
    state = "ended" if found["ended"] else "is closing"
    out.print(f"escrow {found['escrow']} {state}; {_ton(found['refunded_nano'])} came back")


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
            _show_receipts(found, verify)
        return 0 if found.get("holds", True) else 1

    _main(work())


def _show_receipts(found: dict[str, Any], verify: bool) -> None:
    table = Table("receipt", "model", "tokens", "amount", "total", "stop", *(["holds"] if verify else []))
    for one in found["receipts"]:
        flags = (" SIMULATED" if one["simulated"] else "") + ("" if one["answered"] else " (answer lost)")
        table.add_row(
            one["hash"],
            one["model"] + flags,
            f"{one['prompt_tokens']} + {one['completion_tokens']}",
            _ton(one["amount_nano"]),
            _ton(one["cumulative_nano"]),
            one["stop"],
            *(["yes" if one["holds"] else "NO"] if verify else []),
        )
    out.print(table)
    for one in found["receipts"] if verify else []:
        for check in one["checks"]:
            if not check["holds"]:
                out.print(f"{one['hash']}: NOT {check['name']}: {check['said']}", style="bold red", markup=False)
    for chain in found.get("chains", []):
        word = "unbroken" if chain["holds"] else "BROKEN"
        out.print(f"key {chain['key'][:16]}: chain {word}: {chain['said']}", markup=False)


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
    """Verify a node's evidence from its roots and print the chain of trust."""

    async def work() -> None:
        found = await _command("verify", {"node": node})
        root = "the SIMULATED test root: proves no hardware" if found["simulated"] else "Intel's pinned root"
        block = "looked up" if found["block_checked"] else "not looked up (the policy does not ask for it)"
        for line in (
            f"1. root        {root}",
            f"2. platform    {found['platform']}, TCB {found['tcb_status']} {' '.join(found['advisories'])}",
            f"3. image       {found['image']}, measurement {found['measurement']} (on this client's allow-list)",
            f"4. freshness   bound to masterchain block {found['block_seqno']}, {block}",
            f"5. key         {found['signing_key']}, the same on chain (two endpoints agree)",
            f"6. node        {found['node']}, epoch {found['epoch']}, attested until {found['attested_until']}",
            f"7. sealing key signed by that key, until {found['sealing_key_until']}",
            f"trusted: tier {found['tier']}" + (", SIMULATED" if found["simulated"] else ""),
        ):
            out.print(line, markup=False)

    _main(work())


@app.command()
def recover() -> None:
    """Fetch the receipts of requests that a killed process left behind."""

    async def work() -> None:
        found = (await _command("recover"))["recovered"]
        for one in found:
            out.print(f"{one['request']}: {one['receipt'] or one['trouble'] or 'never ran'}", markup=False)
        out.print(f"{len(found)} requests were in flight")

    _main(work())


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
                        out.print(_terminal(event.text), end="", markup=False)
                    elif isinstance(event, Receipted):
                        out.print()
                        _show_receipt(event)
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
                out.print(_terminal(text_of(raw)), end="", markup=False)
                if "cocoon" in raw:
                    said = raw["cocoon"]
                    flags = " SIMULATED: proves no hardware." if said["simulated"] else ""
                    out.print()
                    err.print(f"receipt {said['receipt']}: {_ton(said['amount_nano'])}.{flags}", markup=False)
    except (OSError, ValueError, aiohttp.ClientError):
        raise locked from None


def _terminal(text: str) -> str:
    """A model's words may hold control sequences that rewrite the screen or set its title."""
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text)


def _show_receipt(event: Receipted) -> None:
    usage = event.usage
    flags = (" SIMULATED: proves no hardware." if event.simulated else "") + ("" if event.measured else " UNMEASURED.")
    err.print(
        f"receipt {event.hash.hex()}: {usage.prompt_tokens} + {usage.completion_tokens} tokens, "
        f"{_ton(event.amount_nano)}.{flags}",
        markup=False,
    )


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
