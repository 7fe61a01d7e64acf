"""TON mnemonics: 24 words to an Ed25519 key, and the file that holds them."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core.crypto.keys import words as _WORDS

COUNT = 24
_ITERATIONS = 100_000
_KNOWN = frozenset(_WORDS)


class MnemonicError(ValueError):
    """The words or their file are not usable. Never quotes the words."""


def new_words() -> tuple[str, ...]:
    """24 fresh words that pass TON's version check; takes about 256 tries."""
    while True:
        words = tuple(secrets.choice(_WORDS) for _ in range(COUNT))
        if _is_basic(words):
            return words


def private_key(words: Sequence[str]) -> Ed25519PrivateKey:
    """The wallet key of 24 words without a password. Raises MnemonicError."""
    if len(words) != COUNT:
        raise MnemonicError(f"a mnemonic has {COUNT} words, got {len(words)}")
    if any(word not in _KNOWN for word in words):
        position = next(i for i, word in enumerate(words, 1) if word not in _KNOWN)
        raise MnemonicError(f"word {position} of the mnemonic is not in TON's list; check the spelling (lower case)")
    if not _is_basic(words):
        raise MnemonicError("the words are no TON mnemonic without a password; check their order")
    seed = hashlib.pbkdf2_hmac("sha512", _entropy(words), b"TON default seed", _ITERATIONS)
    return Ed25519PrivateKey.from_private_bytes(seed[:32])


def read_words(path: Path) -> tuple[str, ...]:
    """Words of a file that only its owner can read. Raises MnemonicError."""
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise MnemonicError(f"{path} is no regular file; give the file with the 24 words")
        if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise MnemonicError(f"others can read the mnemonic file {path}: run `chmod 600 {path}`")
        return tuple(path.read_text(encoding="ascii").split())
    except OSError as error:
        raise MnemonicError(f"cannot read the mnemonic file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise MnemonicError(f"the mnemonic file {path} holds other things than words") from error


def write_words(path: Path, words: Sequence[str]) -> None:
    """Mode 0600 from the first byte, whole or not at all, never over another file. Raises MnemonicError."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(" ".join(words) + "\n")
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)  # unlike rename, fails where a wallet already is
        finally:
            part.unlink()
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise MnemonicError(f"{path} exists already; a wallet is never overwritten: choose another name") from error
    except OSError as error:
        raise MnemonicError(f"cannot write the mnemonic file {path}: {error.strerror}") from error


def _entropy(words: Sequence[str]) -> bytes:
    return hmac.new(" ".join(words).encode("ascii"), b"", hashlib.sha512).digest()


def _is_basic(words: Sequence[str]) -> bool:
    return hashlib.pbkdf2_hmac("sha512", _entropy(words), b"TON seed version", _ITERATIONS // 256)[0] == 0
