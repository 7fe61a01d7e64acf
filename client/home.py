"""The client's folder: one process at a time, and key files that only their owner can read."""

from __future__ import annotations

import fcntl
import os
import secrets
import stat
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import HomeError, Locked

_SEED_BYTES = 32


class Home:
    """A locked client folder. Raises Locked while another process holds it, HomeError when it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise HomeError(f"the client's folder {path} cannot be used ({error.strerror})", "name another") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise Locked(
                f"another process (pid {holder}) works with {path}",
                "end it, or use its local endpoint; two processes would sign contradicting vouchers",
            ) from error
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, str(os.getpid()).encode(), 0)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def voucher_key(self, number: int) -> Ed25519PrivateKey:
        """Key of the escrow with this number; born, and on disk, before anything names it. Raises HomeError."""
        return Ed25519PrivateKey.from_private_bytes(_seed(self.path / f"voucher-{number}.key"))

    def known_voucher_key(self, number: int) -> Ed25519PrivateKey:
        """The same, but never a new one: a new key in place of a lost one would only hide the loss."""
        path = self.path / f"voucher-{number}.key"
        if not path.exists():
            raise HomeError(
                f"the voucher key {path} is gone", "restore it from a backup, or close the escrow with the wallet"
            )
        return self.voucher_key(number)

    def next_voucher_key(self, number: int) -> Ed25519PrivateKey:
        """The key that is to replace that one; born, and on disk, before the chain hears of it. Raises HomeError."""
        return Ed25519PrivateKey.from_private_bytes(_seed(self._next(number)))

    def holds_next_voucher_key(self, number: int, public_key: bytes) -> bool:
        """Whether that is the key which this client proposed, and has."""
        path = self._next(number)
        return path.exists() and self.next_voucher_key(number).public_key().public_bytes_raw() == public_key

    def adopt_voucher_key(self, number: int, public_key: bytes) -> bool:
        """Whether the chain's voucher key is ours: the present one, or the next, which then takes its place."""
        current, following = self.path / f"voucher-{number}.key", self._next(number)
        for path in (following, current):
            if path.exists() and Ed25519PrivateKey.from_private_bytes(_seed(path)).public_key().public_bytes_raw() == (
                public_key
            ):
                os.replace(path, current)
                return True
        return False

    def _next(self, number: int) -> Path:
        return self.path / f"voucher-{number}.next.key"


def _seed(path: Path) -> bytes:
    try:
        if not path.exists():
            write_private(path, secrets.token_bytes(_SEED_BYTES).hex() + "\n")
        if path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise HomeError(f"others can read the voucher key {path}", f"run `chmod 600 {path}`")
        seed = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        raise HomeError(f"the voucher key {path} cannot be used ({error.strerror})", "check the folder") from error
    except ValueError:
        raise HomeError(f"the voucher key {path} is damaged", "restore it from a backup") from None
    if len(seed) != _SEED_BYTES:
        raise HomeError(f"the voucher key {path} is damaged", "restore it from a backup")
    return seed


def write_private(path: Path, text: str, *, replace: bool = False) -> None:
    """Mode 0600 from the first byte, whole or not at all. Never over another file unless told."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(part, path)
        else:
            os.link(part, path)
            part.unlink()
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
