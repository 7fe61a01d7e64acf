"""Salted commitments to what was asked and answered.

A receipt travels in clear, and prompts are guessable ("yes"): every hash in it is salted from the response secret,
which only client and enclave hold. The three salts differ, so that opening a receipt's numbers in a dispute does
not open its texts.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol.codec import fixed

SECRET_BYTES = 32
NOTHING = bytes(32)
"""Stands where nothing is committed to (no logprobs were recorded)."""


def _salt(secret: bytes, purpose: bytes) -> bytes:
    fixed(secret, SECRET_BYTES, "the response secret")
    return HKDF(SHA256(), 32, salt=None, info=b"cocoon.salt.v1|" + purpose).derive(secret)


def inner_salt(secret: bytes) -> bytes:
    """32 bytes that begin the inner receipt; they also tie a receipt to the request that it is for."""
    return _salt(secret, b"inner")


def request_commitment(secret: bytes, request_id: bytes, body: bytes) -> bytes:
    """32-byte commitment to the request: its id (32 bytes) and its body as it was sealed."""
    return hashlib.sha256(_salt(secret, b"request") + fixed(request_id, 32, "the request id") + body).digest()


def logprobs_commitment(secret: bytes, fingerprint: bytes) -> bytes:
    """32-byte commitment to the logprob fingerprint of the answer."""
    return hashlib.sha256(_salt(secret, b"logprobs") + fingerprint).digest()


class ResponseCommitment:
    """Running commitment to the answer's bytes, padding excluded."""

    __slots__ = ("_hash",)

    def __init__(self, secret: bytes) -> None:
        self._hash = hashlib.sha256(_salt(secret, b"response"))

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def digest(self) -> bytes:
        return self._hash.digest()
