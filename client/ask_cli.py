"""`cocoon client chat | serve`: asking once, and the local endpoint."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Annotated, Any

import aiohttp
import typer

from client import command, show
from client.answer import text_of
from client.control import account_of
from client.errors import HomeError, Locked, showable
from client.events import Receipted, Text
from client.follow_up import FollowUp
from client.show import err, out
from client.sidecar import NODE_HEADER, Sidecar

app = typer.Typer()


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
        config = command.load_config()
        account = None if node is None else account_of(node)
        try:
            async with command.opened(config) as client:
                async for event in client.chat(body, node=account):
                    if isinstance(event, Text):
                        out.print(show.terminal(event.text), end="", markup=False)
                    elif isinstance(event, Receipted):
                        out.print()
                        show.receipt(event)
        except Locked as locked:
            url, headers = command.running(config, locked)
            if account is not None:
                headers[NODE_HEADER] = account.hex()
            await _chat_through(url, headers, body, locked)

    command.main(work())


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
        config = command.load_config(host=host, port=port)
        token = None if config.token_file is None else config.token_file.read_text(encoding="ascii").strip()
        if config.host not in ("127.0.0.1", "::1", "localhost") and not token:
            raise HomeError(f"{config.host} is reached from other machines", "set token_file, or listen on 127.0.0.1")
        async with command.opened(config) as client:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, stop.set)
            sidecar = Sidecar(client, token=token)
            try:
                url = await sidecar.start(config.host, config.port)
                sys.stdout.write(json.dumps({"ready": "client", "url": url}) + "\n")
                sys.stdout.flush()
                beside: list[asyncio.Task[Any]] = [asyncio.create_task(client.recover())]
                if config.follow_up:
                    beside.append(asyncio.create_task(FollowUp(client).run()))
                await stop.wait()
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
            finally:
                await sidecar.close()

    command.main(work())
