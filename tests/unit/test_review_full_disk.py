"""A disk that is full: a clear error, nothing lost, and work goes on when there is room again."""

import asyncio
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from client.errors import HomeError
from client.records import Escrow
from client.store import Store as ClientStore


@contextmanager
def full_disk(*databases: Path) -> Iterator[None]:
    """No file of this process can grow past the write-ahead logs as they are."""
    size = max(path.with_name(path.name + "-wal").stat().st_size for path in databases)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_g18_a_client_with_a_full_disk_says_so_and_goes_on_later(tmp_path: Path) -> None:
    store = ClientStore.open(tmp_path, network_id=b"n" * 32, registry=b"r" * 32, owner=b"o" * 32)
    first, second = (Escrow(number, bytes([number]) * 32, b"k" * 32, "open") for number in (1, 2))
    store.put_escrow(first)
    with full_disk(tmp_path / "client.db"):
        with pytest.raises(HomeError, match="make room on the disk"):
            store.put_escrow(second)
        assert store.escrow() == first
    store.put_escrow(second)
    assert store.escrow() == second
    store.close()
