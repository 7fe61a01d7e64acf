"""The node's release keys: the one that the chain shows, one that is to replace it, and those before.

The present one consents to enclave keys and speaks for the node. A row is released with the key that it froze when it
was allotted, so earlier ones are kept: without them their clients would wait for the close timer.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_SEED_BYTES = 32
_NAME_DIGITS = 16


class KeyFileError(Exception):
    """A release key's file is missing, readable by others, or damaged. Names the file and the cure."""


class Signer(Protocol):
    """Whatever signs with the present release key."""

    def sign(self, data: bytes, /) -> bytes: ...


def load_release_key(path: Path) -> Ed25519PrivateKey:
    """From a file of 64 hex digits with mode 0600. Raises KeyFileError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
        seed = bytes.fromhex(text)
    except OSError as error:
        raise KeyFileError(
            f"cannot read the release key {path}: {error.strerror}. `cocoon node open` makes it"
        ) from error
    except ValueError:
        seed = b""
        mode = 0
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others; run: chmod 600 {path}")
    if len(seed) != _SEED_BYTES:
        raise KeyFileError(f"{path} is not a release key (64 hex digits); restore it from your copy")
    return Ed25519PrivateKey.from_private_bytes(seed)


def create_release_key(path: Path) -> Ed25519PrivateKey:
    """A new key in a new file. Never overwrites: rows name the key, and only it can release them."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyFileError(f"cannot make the release key {path}: {error.strerror}") from error
    with os.fdopen(handle, "w") as file:
        file.write(key.private_bytes_raw().hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


class ReleaseKeys:
    """`path`: the present key's file. Beside it `NAME.next`, and `NAME.DIGITS` for each key before. KeyFileError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.current = load_release_key(path)

    @property
    def public(self) -> bytes:
        return public_bytes(self.current)

    def sign(self, data: bytes, /) -> bytes:
        """With the present key."""
        return self.current.sign(data)

    def holding(self, public: bytes) -> Ed25519PrivateKey | None:
        """The key, if it is the present one or one before it."""
        if public == self.public:
            return self.current
        path = self._earlier(public)
        return load_release_key(path) if path.exists() else None

    def following(self) -> bytes:
        """Public half of the key that is to be the next; born, and on disk, before the chain hears of it."""
        path = self._next
        return public_bytes(load_release_key(path) if path.exists() else create_release_key(path))

    def adopt(self, public: bytes) -> bool:
        """Whether the chain's release key is ours: the present one, or the next, which then takes its place.

        Safe to repeat, wherever a process died, and by two processes: files are renamed, never written again.
        """
        if public == self.public:
            return True
        if public_of(self.path) != public:
            if not self._next.exists() or public_of(self._next) != public:
                return False
            earlier = self._earlier(public_of(self.path))
            if not earlier.exists():
                os.link(self.path, earlier)
            os.replace(self._next, self.path)
        self.current = load_release_key(self.path)
        return True

    @property
    def _next(self) -> Path:
        return self.path.with_name(self.path.name + ".next")

    def _earlier(self, public: bytes) -> Path:
        return self.path.with_name(f"{self.path.name}.{public.hex()[:_NAME_DIGITS]}")


def public_of(path: Path) -> bytes:
    return public_bytes(load_release_key(path))
