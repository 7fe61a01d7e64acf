"""Processes that hang, start twice or die: the others go on, and nothing is left on disk."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from worker.agent import control
from worker.link import FROM_ENCLAVE, Link
from worker.messages import Post

ENCLAVE = """
import resource, sys
import worker.enclave.__main__ as main
main.load = lambda path: None
async def pretend(socket, config): print(resource.getrlimit(resource.RLIMIT_CORE))
main.run_until_stopped = pretend
sys.argv = ["enclave", "--socket", "s", "--config", "c"]
main.main()
"""


async def test_g18_a_link_to_a_process_that_hangs_can_be_closed() -> None:
    """Neither side reads a byte: what is queued for it must not keep the agent from stopping."""
    left, right = socket.socketpair()
    link = Link(*await asyncio.open_connection(sock=left), FROM_ENCLAVE)
    link.post(Post(b"q" * 32, b"k" * 32, bytes(4 << 20)))
    started = time.monotonic()
    await asyncio.wait_for(link.close(), 10)
    assert time.monotonic() - started < 5
    right.close()


def test_two_agents_that_start_at_once_are_one(tmp_path: Path) -> None:
    lock = control.hold(tmp_path)
    with pytest.raises(control.AlreadyRunning, match="stop it first"):
        control.hold(tmp_path)
    os.close(lock)
    os.close(control.hold(tmp_path))


def test_g11_an_enclave_leaves_no_core_dump() -> None:
    shown = subprocess.run([sys.executable, "-c", ENCLAVE], capture_output=True, text=True, timeout=60, check=True)
    assert shown.stdout.strip() == "(0, 0)"
