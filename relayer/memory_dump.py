"""Test hook: dumps this process's own memory, so that a test can look for plaintext in it (G11).

Off unless COCOON_TEST_MEMORY_DUMP names a file; then SIGUSR1 writes every private readable and writable mapping there.
It shows nothing that the account running the relayer could not read anyway through /proc.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "COCOON_TEST_MEMORY_DUMP"
BLOCK_BYTES = 1 << 20


def install() -> None:
    """Call once at start, in the main thread."""
    target = os.environ.get(VARIABLE)
    if target:
        signal.signal(signal.SIGUSR1, lambda number, frame: dump(Path(target)))


def dump(target: Path) -> None:
    """Writes the memory to `target`, or `barred: <reason>` to `target`.barred where the system forbids it."""
    partial = target.with_suffix(".partial")
    try:
        with partial.open("wb") as out, open("/proc/self/mem", "rb", buffering=0) as memory:
            for start, end in _mappings():
                _copy(memory.fileno(), out.fileno(), start, end)
    except OSError as error:
        target.with_suffix(".barred").write_text(f"barred: {error}\n")
        partial.unlink(missing_ok=True)
        return
    partial.rename(target)


def _mappings() -> list[tuple[int, int]]:
    """Private readable and writable mappings: heap, stacks, arenas."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, permissions = line.split(maxsplit=2)[:2]
        if permissions.startswith("rw") and permissions.endswith("p"):
            start, end = span.split("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def _copy(source: int, out: int, start: int, end: int) -> None:
    for at in range(start, end, BLOCK_BYTES):
        try:
            block = os.pread(source, min(BLOCK_BYTES, end - at), at)
        except OSError:
            return  # a guard page, or a mapping that went away while we walked
        os.write(out, block)
