"""A server that the enclave starts: measured, key-guarded, watched, and gone when the enclave is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from worker.engine.api import Delta, Done, EngineError
from worker.engine.child import ChildConfig, ChildEngine
from worker.engine.listener import is_listening
from worker.engine.weights import SMOLLM2_SHA256, packaged_smollm2

LLAMA_SERVER = """
    import os, signal, sys
    os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="0")
    import xllamacpp
    params = xllamacpp.CommonParams()
    params.model.path, params.port = sys.argv[1], int(sys.argv[2])
    params.api_keys = [os.environ["LLAMA_API_KEY"]] if "open" not in sys.argv else []
    params.model_alias = {"smol"}
    params.n_parallel, params.n_ctx, params.cpuparams.n_threads = 2, 1024, 1
    params.cache_ram_mib, params.ui, params.kv_unified = 0, False, False
    server = xllamacpp.Server(params)
    signal.pause()
"""
STORY: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Tell a long story."}],
    "max_tokens": 300,
    "temperature": 0,
    "stream": True,
}


def config(folder: Path, script: str, *arguments: str, model: Path | None = None, **more: Any) -> ChildConfig:
    path = folder / "server.py"
    path.write_text(textwrap.dedent(script))
    command = (sys.executable, str(path), "{model}", "{port}", *arguments)
    return ChildConfig(command, model or packaged_smollm2(), context_tokens=512, **{"start_limit_s": 30} | more)


def proc(pid: int, name: str) -> str:
    return Path(f"/proc/{pid}/{name}").read_text()


def is_running(pid: int) -> bool:
    try:
        return proc(pid, "stat").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 5
    while is_running(pid):
        assert time.monotonic() < deadline, "the engine outlived its enclave"
        time.sleep(0.02)


@pytest_asyncio.fixture
async def child(tmp_path: Path) -> AsyncIterator[ChildEngine]:
    engine = ChildEngine(config(tmp_path, LLAMA_SERVER))
    yield engine
    await engine.close()


async def test_child_serves_the_measured_model_and_ends_with_the_engine(child: ChildEngine) -> None:
    info = await child.start()
    assert (info.name, info.measured, info.model_hash) == ("smol", True, SMOLLM2_SHA256)
    pid = child.pid
    assert pid is not None
    # The key travels in the environment: command lines are open to every process.
    environment = dict(row.split("=", 1) for row in proc(pid, "environ").split("\0") if row)
    key = environment["VLLM_API_KEY"]
    assert len(key) == 64 and key not in proc(pid, "cmdline")
    assert "LD_PRELOAD" not in environment
    async with aclosing(child.chat(STORY | {"max_tokens": 8})) as pieces:
        out = [piece async for piece in pieces]
    assert isinstance(out[-1], Done) and out[-1].usage.completion == 8
    counts = [piece.completion_tokens_so_far for piece in out if isinstance(piece, Delta)]
    assert counts == sorted(counts) and counts[-1] == 8
    await child.close()
    assert not is_running(pid)


async def test_g18_killing_the_engine_mid_stream_is_an_engine_error_with_the_count_kept(child: ChildEngine) -> None:
    await child.start()
    assert child.pid is not None
    last: Delta | Done | None = None
    with pytest.raises(EngineError, match="ended by signal 9") as caught:
        async with aclosing(child.chat(STORY)) as pieces:
            async for last in pieces:
                if isinstance(last, Delta) and last.completion_tokens_so_far == 5:
                    os.kill(child.pid, signal.SIGKILL)
    assert isinstance(last, Delta) and last.completion_tokens_so_far >= 5 and last.so_far.prompt > 5
    assert "Restart" in caught.value.cure
    with pytest.raises(EngineError, match="ended by signal 9"):
        async with aclosing(child.chat(STORY)) as pieces:
            await anext(pieces)


async def test_g11_a_server_that_answers_without_the_key_is_refused(tmp_path: Path) -> None:
    engine = ChildEngine(config(tmp_path, LLAMA_SERVER, "open"))
    with pytest.raises(EngineError, match="answers without its key"):
        await engine.start()
    assert engine.pid is None


async def test_g18_a_child_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="exit code 3: 'no GPU found'"):
        await ChildEngine(config(tmp_path, "print('no GPU found'); raise SystemExit(3)")).start()
    with pytest.raises(EngineError, match="not ready after 1 s: 'still loading'"):
        hang = "import time; print('still loading', flush=True); time.sleep(60)"
        await ChildEngine(config(tmp_path, hang, start_limit_s=1)).start()
    with pytest.raises(EngineError, match="cannot be run"):
        await ChildEngine(ChildConfig(("/nonexistent",), packaged_smollm2())).start()
    with pytest.raises(EngineError, match="missing or empty"):
        await ChildEngine(config(tmp_path, "", model=tmp_path / "absent")).start()


async def test_g19_the_key_is_not_repeated_from_the_childs_output(tmp_path: Path) -> None:
    talker = "import os; print('key is', os.environ['VLLM_API_KEY']); raise SystemExit(1)"
    with pytest.raises(EngineError, match=r"key is \[key\]"):
        await ChildEngine(config(tmp_path, talker)).start()


async def test_g11_only_the_childs_own_session_counts_as_the_listener() -> None:
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    assert is_listening(port, session_id=os.getsid(0))
    assert not is_listening(port, session_id=1 << 22)
    server.close()
    await server.wait_closed()
    assert not is_listening(port, session_id=os.getsid(0))


async def test_g16_a_killed_enclave_takes_its_engine_with_it(tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper.py"
    sleeper.write_text("import time; time.sleep(600)")
    enclave = f"""
        import asyncio, sys
        from pathlib import Path
        from worker.engine.child import ChildConfig, ChildEngine

        async def main():
            engine = ChildEngine(ChildConfig((sys.executable, {str(sleeper)!r}), Path({str(sleeper)!r})))
            starting = asyncio.create_task(engine.start())
            while engine.pid is None:
                await asyncio.sleep(0.01)
            print(engine.pid, flush=True)
            await starting

        asyncio.run(main())
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", textwrap.dedent(enclave), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    assert is_running(pid)
    process.kill()
    await process.wait()
    await asyncio.to_thread(wait_until_gone, pid)
