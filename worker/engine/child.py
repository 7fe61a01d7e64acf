"""An engine server as a child of the enclave: started, measured, reached over loopback and ended by it.

The hash is of the files at start. The child opens them by itself, so they must lie where nobody can change them
afterwards: in memory, or on a dm-verity volume of the measured image.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import secrets
import signal
import socket
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from worker.engine.api import Delta, Done, EngineError, ModelInfo
from worker.engine.listener import is_listening
from worker.engine.openai_http import OpenAIConfig, OpenAIEngine
from worker.engine.weights import hash_directory, hash_file

_PR_SET_PDEATHSIG = 1
_POLL_S = 0.2
_STOP_LIMIT_S = 10.0
_TAIL_BYTES = 2048
# What a server needs to find its libraries and GPUs. Not LD_PRELOAD and its like: they decide which code runs.
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "CUDA_HOME")
# No look-ups and no telemetry from the place where the plaintext is.
_QUIET = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True, slots=True)
class ChildConfig:
    """`command` may hold {port}, {model} and {name}. The API key goes to the child in the environment, as VLLM_API_KEY
    and LLAMA_API_KEY, never on the command line. `model` is a folder or one file."""

    command: tuple[str, ...]
    model: Path
    name: str | None = None
    context_tokens: int | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    start_limit_s: float = 900.0
    silence_limit_s: float = 300.0


class ChildEngine:
    """See `Engine`."""

    def __init__(self, config: ChildConfig) -> None:
        self._config = config
        self._process: asyncio.subprocess.Process | None = None
        self._drain: asyncio.Task[None] | None = None
        self._http: OpenAIEngine | None = None
        self._tail = b""

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> ModelInfo:
        config = self._config
        hasher = hash_file if config.model.is_file() else hash_directory
        digest = await asyncio.get_running_loop().run_in_executor(None, hasher, config.model)
        key = secrets.token_hex(32)
        port = _free_port()
        try:
            await self._spawn(port, key)
            async with asyncio.timeout(config.start_limit_s):
                await self._ready(port, key)
            self._http = OpenAIEngine(
                OpenAIConfig(
                    base_url=f"http://127.0.0.1:{port}/v1",
                    api_key=key,
                    name=config.name,
                    context_tokens=config.context_tokens,
                    model_hash=digest,
                    silence_limit_s=config.silence_limit_s,
                )
            )
            info = await self._http.start()
        except TimeoutError as error:
            await self.close()
            raise EngineError(
                f"The engine was not ready after {config.start_limit_s:g} s: {self._last_words(key)}",
                "Check its command, or raise `start_limit_s`",
            ) from error
        except BaseException:
            await self.close()
            raise
        # From here on its output may quote prompts: none of it is kept.
        self._tail = b""
        return info

    async def chat(self, request: Mapping[str, Any], *, cache_salt: str = "") -> AsyncGenerator[Delta | Done, None]:
        # A dead child's port may belong to somebody else by now, so the plaintext must not go there.
        self._require_alive()
        assert self._http is not None
        try:
            async with aclosing(self._http.chat(request, cache_salt=cache_salt)) as pieces:
                async for piece in pieces:
                    yield piece
        except EngineError:
            with suppress(TimeoutError):
                # The connection breaks a moment before the exit can be read.
                await asyncio.wait_for(self._exit(), 0.3)
            self._require_alive()
            raise

    async def close(self) -> None:
        http, self._http = self._http, None
        if http is not None:
            await http.close()
        process, self._process = self._process, None
        if process is not None:
            await _end_group(process)
        drain, self._drain = self._drain, None
        if drain is not None:
            drain.cancel()
            await asyncio.wait([drain])

    async def _exit(self) -> None:
        if self._process is not None:
            await self._process.wait()

    def _require_alive(self) -> None:
        if self._process is None or self._http is None:
            raise EngineError("The engine is not running", "Call start() first, and do not use it after close()")
        if self._process.returncode is not None:
            raise EngineError(
                f"The engine's process ended {_exit_words(self._process.returncode)}",
                "Restart the worker; if it happens again, check the memory limits of machine and GPU",
            )

    async def _spawn(self, port: int, key: str) -> None:
        config = self._config
        values = {"{port}": str(port), "{model}": str(config.model), "{name}": config.name or ""}
        command = [_filled(part, values) for part in config.command]
        if not command:
            raise EngineError("The engine's command is empty", "Set `command` in the engine's configuration")
        environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
        environment |= _QUIET | dict(config.env) | {"VLLM_API_KEY": key, "LLAMA_API_KEY": key}
        try:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_dies_with(os.getpid()),
            )
        except OSError as error:
            raise EngineError(
                f"The engine's command cannot be run: {error.strerror}", "Check `command` in the engine's configuration"
            ) from error
        self._drain = asyncio.create_task(self._read_output(self._process))

    async def _read_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while data := await process.stdout.read(_TAIL_BYTES):
            # A host reads our own output: the child's is held for the start's error message and then dropped.
            self._tail = b"" if self._http is not None else (self._tail + data)[-_TAIL_BYTES:]

    def _last_words(self, key: str) -> str:
        lines = self._tail.decode(errors="replace").replace(key, "[key]").strip().splitlines()
        return ascii(lines[-1][-300:]) if lines else "it wrote nothing"

    async def _ready(self, port: int, key: str) -> None:
        assert self._process is not None
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
            while not await _answers(session, port, key):
                if self._process.returncode is not None:
                    code = _exit_words(self._process.returncode)
                    if self._drain is not None:
                        await asyncio.wait([self._drain], timeout=1.0)
                    raise EngineError(
                        f"The engine ended at its start {code}: {self._last_words(key)}",
                        "Check `command`, the model and the memory; run the command by hand to see all it says",
                    )
                await asyncio.sleep(_POLL_S)
            # The port was free a moment ago; another process may have been quicker and would get the plaintext.
            if not is_listening(port, session_id=self._process.pid):
                raise EngineError(
                    f"Port {port} is held by a process that the enclave did not start", "Start the worker again"
                )
            async with session.post(f"http://127.0.0.1:{port}/v1/chat/completions", json={}) as response:
                if response.status not in (401, 403):
                    raise EngineError(
                        f"The engine answers without its key (HTTP {response.status})",
                        "Use a server that reads VLLM_API_KEY or LLAMA_API_KEY, so that only the enclave can use it",
                    )


async def _answers(session: aiohttp.ClientSession, port: int, key: str) -> bool:
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with session.get(f"http://127.0.0.1:{port}/v1/models", headers=headers) as response:
            return response.status == 200
    except (aiohttp.ClientError, ConnectionError, TimeoutError):
        return False


async def _end_group(process: asyncio.subprocess.Process) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _STOP_LIMIT_S)
            break
    # Its own children (vLLM starts several) may outlive it.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _filled(part: str, values: Mapping[str, str]) -> str:
    for placeholder, value in values.items():
        part = part.replace(placeholder, value)
    return part


def _exit_words(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _dies_with(parent: int) -> Any:
    prctl = ctypes.CDLL(None).prctl

    def prepare() -> None:
        # An engine that outlives its enclave would go on holding prompts in memory that nobody guards.
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        # A core dump is plaintext on the host's disk.
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    return prepare
