"""Starting the enclave's process: a socket of its own, its log, and the first message that it must say."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from worker.agent.enclave_process import Enclave, EnclaveGone, kill
from worker.fields import LinkError
from worker.job_messages import JobAccepted, JobFinished, JobPiece, JobRefused
from worker.link import FROM_ENCLAVE, Link, LinkClosed
from worker.messages import Answer, Issued, Ready

CONNECT_INTERVAL_SECONDS = 0.05
MAX_QUOTED_CHARACTERS = 1000
_PR_SET_PDEATHSIG = 1


def _die_with_parent() -> None:
    # An enclave whose agent is gone can store no receipt: it must not go on answering.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def start(
    command: tuple[str, ...],
    config: Path,
    log_file: Path,
    *,
    start_seconds: float,
    on_answer: Callable[[Answer], None],
    on_issued: Callable[[Issued], None],
    on_sealing: Callable[[], None],
    on_job: Callable[[JobAccepted | JobRefused | JobPiece | JobFinished], None],
) -> Enclave:
    """A new enclave process that has loaded its model. Raises EnclaveGone."""
    # A folder of its own: nobody else can be there first, and the path is short enough for a socket's name.
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix="cocoon-")
    try:
        socket = Path(folder) / "enclave.sock"
        process = await _spawn(command, socket, config, log_file)
        link, ready = await _meet(process, socket, log_file, start_seconds)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
    return Enclave(process, link, ready, on_answer=on_answer, on_issued=on_issued, on_sealing=on_sealing, on_job=on_job)


async def _spawn(command: tuple[str, ...], socket: Path, config: Path, log_file: Path) -> asyncio.subprocess.Process:
    argv = (*(command or (sys.executable, "-m", "worker.enclave")), "--socket", str(socket), "--config", str(config))
    output = await asyncio.to_thread(os.open, log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=_die_with_parent
        )
    finally:
        os.close(output)


async def _meet(
    process: asyncio.subprocess.Process, socket: Path, log_file: Path, start_seconds: float
) -> tuple[Link, Ready]:
    try:
        async with asyncio.timeout(start_seconds):
            link = await _connect(process, socket, log_file)
            ready = await link.receive()
    except (LinkError, TimeoutError, OSError) as error:
        await kill(process)
        cause = error if str(error) else f"it was not ready within {start_seconds:.0f} s"
        said = await asyncio.to_thread(_last_line, log_file)
        raise EnclaveGone(f"the enclave did not start: {cause}. Its log is {log_file} and ends: {said}") from error
    except BaseException:
        await kill(process)
        raise
    if not isinstance(ready, Ready):
        await kill(process)
        raise EnclaveGone("the enclave began with another message than Ready; use one release for both processes")
    return link, ready


def _last_line(log_file: Path) -> str:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1][:MAX_QUOTED_CHARACTERS] if lines else "(empty)"


async def _connect(process: asyncio.subprocess.Process, socket: Path, log_file: Path) -> Link:
    while True:
        if process.returncode is not None:
            raise LinkClosed(f"it exited with {process.returncode}")
        try:
            return Link(*await asyncio.open_unix_connection(str(socket), limit=1 << 20), FROM_ENCLAVE)
        except (FileNotFoundError, ConnectionRefusedError):
            await asyncio.sleep(CONNECT_INTERVAL_SECONDS)
