"""Large ciphertexts: pieces of one AES-256-GCM key, of which none can be dropped, moved or added.

STREAM (Hoang, Reyhanitabar, Rogaway, Vizár 2015): the nonce counts the pieces, the associated data marks the last one.
A key must never seal two blobs: callers derive it from fresh randomness.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from protocol.errors import NotAuthentic, Peer

PIECE_BYTES = 64 << 10
_TAG_BYTES = 16


def padded_size(size: int) -> int:
    """At most an eighth more than `size`; sizes that are alike become equal (Padmé: Nikitin et al., PETS 2019)."""
    if size < 256:
        return 256
    exponent = size.bit_length() - 1
    mask = (1 << (exponent - exponent.bit_length())) - 1
    return (size + mask) & ~mask


def sealed_size(size: int) -> int:
    return size + _TAG_BYTES * max(1, -(-size // PIECE_BYTES))


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def _mark(last: bool) -> bytes:
    return b"\x01" if last else b"\x00"


def seal_blob(key: bytes, plaintext: bytes) -> bytes:
    aead = AESGCM(key)
    starts = range(0, max(1, len(plaintext)), PIECE_BYTES)
    return b"".join(
        aead.encrypt(_nonce(index), plaintext[at : at + PIECE_BYTES], _mark(at + PIECE_BYTES >= len(plaintext)))
        for index, at in enumerate(starts)
    )


def open_blob(key: bytes, sealed: bytes) -> bytes:
    """Raises NotAuthentic unless every byte is what was sealed."""
    aead, step = AESGCM(key), PIECE_BYTES + _TAG_BYTES
    try:
        return b"".join(
            aead.decrypt(_nonce(index), sealed[at : at + step], _mark(at + step >= len(sealed)))
            for index, at in enumerate(range(0, max(1, len(sealed)), step))
        )
    except (InvalidTag, ValueError) as error:
        raise NotAuthentic(Peer.PATH, "the sealed blob does not open", "fetch it again") from error
