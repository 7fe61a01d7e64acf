"""Unix sockets of the enclave."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def listen(path: Path, *, backlog: int = 1) -> socket.socket:
    """A listening unix socket that only this user may connect to."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {path}: {error.strerror}. Give a path that is short and writable") from error
    finally:
        os.umask(old_mask)
    listener.listen(backlog)
    return listener
