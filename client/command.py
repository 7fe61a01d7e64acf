"""How every command of `cocoon client` runs: its settings, the client's books, and one line for whatever goes wrong.

A command that finds the home taken by a running `serve` hands itself to it; nothing else differs.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import typer

from chain.api import ChainError
from chain.config import ConfigError
from chain.mnemonic import MnemonicError
from chain.wallet import Wallet
from client import control
from client.config import Config, load
from client.errors import ClientError, HomeError, Locked, showable
from client.sdk import Client
from client.show import NANO, err
from client.sidecar import CONTROL_FILE

chosen: dict[str, Any] = {}
"""The options before the command: `home`, and `overrides` of what stands in client.toml."""


def load_config(**more: Any) -> Config:
    return load(chosen["home"], {**chosen["overrides"], **more})


def wallet_of(config: Config, *, create: bool = False) -> Wallet:
    path = config.wallet_file
    if path.exists() or not create:
        return Wallet.from_mnemonic_file(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    wallet = Wallet.create(path)
    err.print(f"A new wallet was made: its 24 words are in {path}. Keep a copy; whoever has them has the money.")
    return wallet


def main(work: Coroutine[Any, Any, int | None]) -> None:
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
async def opened(config: Config) -> AsyncIterator[Client]:
    async with Client.open(config.settings, wallet_of(config)) as client:
        yield client


async def ask(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
    """Here, or where the home is already in use."""
    config = load_config()
    try:
        async with opened(config) as client:
            return await control.run(client, name, arguments or {})
    except Locked as locked:
        url, headers = running(config, locked)
        return await _forward(url, headers, {"command": name, "arguments": arguments or {}}, locked)


def running(config: Config, locked: Locked) -> tuple[str, dict[str, str]]:
    """Base URL of the endpoint that holds the home, and the header that it obeys. Raises `locked` without one.

    HomeError where its settings are not those that this command was given: it would judge nodes by its own.
    """
    try:
        contact = json.loads((config.settings.home / CONTROL_FILE).read_text(encoding="utf-8"))
        url, headers = str(contact["url"]), {"Authorization": f"Bearer {contact['token']}"}
        theirs = dict(contact["settings"])
    except (OSError, ValueError, KeyError, TypeError):
        raise locked from None
    other = [name for name, value in config.settings.said().items() if theirs.get(name) != value]
    if other:
        raise HomeError(
            f"the endpoint that holds {config.settings.home} runs with another {', '.join(other)}",
            "end it, or give the command the settings that it was started with",
        )
    return url, headers


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


def nano(text: str) -> int:
    """TON with up to nine decimals, exactly."""
    whole, _, part = text.partition(".")
    if not (whole + part).isascii() or not (whole + part).isdigit() or len(part) > 9:
        raise typer.BadParameter(f"{text!r} is no amount in TON, such as 2 or 0.25")
    return int(whole or "0") * NANO + int(part.ljust(9, "0"))
