"""Child processes of one Cocoon network on this machine: start, wait until ready, watch, stop.

A service says that it is ready with one JSON object on its standard output; all else that it prints goes to its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOG_TAIL_LINES = 12
_PR_SET_PDEATHSIG = 1


class ProcessFailed(Exception):
    """A service did not start or died. Says which, how, where its log is, and shows the log's end."""


def _die_with_parent() -> None:
    # A supervisor killed with -9 must not leave services behind that hold ports and a chain's database.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(slots=True)
class Service:
    """One running child. `ready` is the object it announced itself with."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    ready: dict[str, Any]
    _drain: asyncio.Task[None]

    async def kill(self, sig: signal.Signals = signal.SIGTERM, grace_seconds: float = 10.0) -> None:
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sig)
            try:
                await asyncio.wait_for(self.process.wait(), grace_seconds)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                await self.process.wait()
        self._drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._drain


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (empty)"


async def _drain(stream: asyncio.StreamReader, log: Path) -> None:
    with log.open("ab") as sink:
        while chunk := await stream.read(1 << 16):
            sink.write(chunk)
            sink.flush()


@dataclass(slots=True)
class Supervisor:
    """Starts services one after another and stops them in reverse order."""

    log_folder: Path
    services: list[Service] = field(default_factory=list)

    async def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        ready_within_seconds: float = 60.0,
    ) -> Service:
        self.log_folder.mkdir(parents=True, exist_ok=True)
        log = self.log_folder / f"{name}.log"
        with log.open("ab") as errors:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                preexec_fn=_die_with_parent,
                limit=1 << 20,
            )
        assert process.stdout is not None
        try:
            ready = await asyncio.wait_for(self._ready(process.stdout, log), ready_within_seconds)
        except (TimeoutError, EOFError) as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = await process.wait()
            how = (
                f"exited with {code}" if isinstance(error, EOFError) else f"was silent for {ready_within_seconds:.0f} s"
            )
            raise ProcessFailed(f"{name} {how} before it was ready; its log is {log}:\n{_tail(log)}") from None
        service = Service(name, process, log, ready, asyncio.create_task(_drain(process.stdout, log)))
        self.services.append(service)
        return service

    @staticmethod
    async def _ready(stdout: asyncio.StreamReader, log: Path) -> dict[str, Any]:
        while line := await stdout.readline():
            try:
                announced = json.loads(line)
            except ValueError:
                announced = None
            if isinstance(announced, dict):
                return announced
            with log.open("ab") as sink:
                sink.write(line)
        raise EOFError

    async def watch(self) -> None:
        """Return never; raise ProcessFailed as soon as any service dies."""
        waits = {asyncio.create_task(service.process.wait()): service for service in self.services}
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
        service = waits[done.pop()]
        raise ProcessFailed(
            f"{service.name} died with {service.process.returncode}; its log is {service.log}:\n{_tail(service.log)}"
        )

    async def stop(self) -> None:
        while self.services:
            await self.services.pop().kill()
