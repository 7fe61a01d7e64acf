"""Who listens on a loopback port, by the kernel's own tables (proc(5): net/tcp, pid/fd, pid/stat)."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LISTEN = "0A"


def is_listening(port: int, *, session_id: int) -> bool:
    """True when every IPv4 or IPv6 listener on `port` belongs to a process of that session, and there is one."""
    inodes = _listeners(port)
    return bool(inodes) and inodes <= _sockets_of_session(session_id)


def _listeners(port: int) -> set[str]:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(FileNotFoundError):
            for row in Path(table).read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(fields[9])
    return inodes


def _sockets_of_session(session_id: int) -> set[str]:
    inodes = set()
    for process in Path("/proc").iterdir():
        # Processes come and go while we look; those of other users are not ours.
        with suppress(OSError):
            if process.name.isdigit() and os.getsid(int(process.name)) == session_id:
                for descriptor in (process / "fd").iterdir():
                    with suppress(OSError):
                        target = os.readlink(descriptor)
                        if target.startswith("socket:["):
                            inodes.add(target[8:-1])
    return inodes
