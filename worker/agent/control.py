"""The running agent's ear for its own operator: a unix socket in the data directory, one JSON line each way."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from worker.agent.rounds import tell

MAX_LINE_BYTES = 1 << 16
Handler = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]


class NotRunning(Exception):
    """No agent runs on this data directory."""


class AlreadyRunning(Exception):
    """Another agent runs on this data directory; two would sign over the same receipts."""


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for `path` that fits a socket address, whatever the folder's is."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def hold(folder: Path) -> int:
    """Descriptor of a lock that keeps other agents off `folder` while it is open. Raises AlreadyRunning.

    The socket alone would not do: two that start at once find nobody there, and one that hangs does not answer.
    """
    descriptor = os.open(folder / "agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise AlreadyRunning(f"an agent already runs on {folder}; stop it first") from error
    return descriptor


async def serve(path: Path, handler: Handler) -> asyncio.Server:
    """Listen; raises AlreadyRunning when somebody answers there."""
    with contextlib.suppress(NotRunning):
        await ask(path, {"do": "ping"})
        raise AlreadyRunning(f"an agent already runs on {path.parent}; stop it first")

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            answer = await handler(json.loads(line))
        except (ValueError, TypeError, AttributeError, ConnectionError) as error:
            answer = {"error": f"not understood: {error}"}
        except Exception as error:
            tell("what the operator asked for failed", error, ())
            answer = {"error": f"the agent failed at it ({type(error).__name__}); its log says where: report it"}
        writer.write(json.dumps(answer).encode() + b"\n")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()

    listener = _bind(path)
    return await asyncio.start_unix_server(connected, sock=listener, limit=MAX_LINE_BYTES)


def _bind(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        with _short(path) as name:
            listener.bind(name)
    finally:
        os.umask(old_mask)
    listener.listen(8)
    return listener


async def ask(path: Path, request: Mapping[str, Any], *, timeout_seconds: float = 120.0) -> dict[str, Any]:
    """The running agent's answer. Raises NotRunning, TimeoutError."""
    try:
        with _short(path) as name:
            reader, writer = await asyncio.open_unix_connection(name, limit=MAX_LINE_BYTES)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise NotRunning(f"no agent runs on {path.parent}") from error
    try:
        writer.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(timeout_seconds):
            line = await reader.readline()
    finally:
        writer.close()
    if not line:
        raise NotRunning(f"the agent on {path.parent} went away")
    answer = json.loads(line)
    return answer if isinstance(answer, dict) else {"error": "the agent's answer is not understood"}
