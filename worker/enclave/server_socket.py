"""Unix sockets of the enclave."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path


def listen(path: Path, *, backlog: int = 1) -> socket.socket:
    """A listening unix socket that only this user may connect to. Raises OSError, also where something else is there.

    The agent names some of these paths: what it may have removed is a socket that was left behind, never a file, such
    as a revocation list beside the manifests.
    """
    if path.is_symlink() or (path.exists() and not path.is_socket()):
        raise OSError(errno.EEXIST, f"{path} is there and is no socket; name a path of its own", str(path))
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
