"""Hints for the P-256 check of contracts/attestation/p256.fc: the group operations that the TVM cannot do by itself.

The contract checks every hint, so nothing here is trusted: a wrong hint makes a genuine signature fail, never a forged
one pass. Formulas and proofs: docs/attestation.md.
"""

from __future__ import annotations

from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric import ec
from pytoniq_core import Cell, begin_cell

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Z0 = int.from_bytes(sha256(bytes(32)).digest(), "big")
"""What P256_CHKSIGNU verifies when its argument is 0: it hashes the 32 zero bytes."""

Point = tuple[int, int]


class NoHints(ValueError):
    """The numbers meet a case that the shifted check leaves out. For a genuine signature: less likely than 2^-120."""


def signature_cell(digest: int, signature: bytes, key: bytes) -> Cell:
    """TL-B P256Signature for `signature` (64 bytes r||s) over `digest` (a SHA-256, as an integer) under `key` (x||y).

    The signature need not be valid. Raises NoHints.
    """
    r, s = _pair(signature)
    q = _pair(key)
    if r % N == 0 or (digest - Z0) % N == 0:
        raise NoHints("r is 0, or the hash is the one that the opcode makes by itself")
    t = (digest - Z0) * pow(r, -1, N) % N
    shift = multiple_of_g(t)
    sum_g, _ = _chord(shift, G)
    shifted, slope = _chord(q, shift)
    if max(shift[0], sum_g[0]) >= N or (t + 1) % N == 0:
        raise NoHints("an x coordinate is no residue of the group order")
    s2 = (Z0 + shift[0]) * pow(t, -1, N) % N
    s3 = (Z0 + sum_g[0]) * pow(t + 1, -1, N) % N
    last = begin_cell().store_uint(sum_g[0], 256).store_uint(s3, 256).end_cell()
    middle = begin_cell().store_uint(shift[0], 256).store_uint(s2, 256)
    middle.store_uint(2 + (shifted[1] & 1), 8).store_uint(shifted[0], 256).store_ref(last)
    first = begin_cell().store_uint(r, 256).store_uint(s, 256).store_uint(slope, 256)
    return first.store_ref(middle.end_cell()).end_cell()


def multiple_of_g(scalar: int) -> Point:
    """`scalar` times the base point, 0 < scalar < N."""
    numbers = ec.derive_private_key(scalar, ec.SECP256R1()).public_key().public_numbers()
    return numbers.x, numbers.y


def _pair(raw: bytes) -> Point:
    if len(raw) != 64:
        raise ValueError(f"a P-256 key or signature has 64 bytes, got {len(raw)}")
    return int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big")


def _chord(a: Point, b: Point) -> tuple[Point, int]:
    """a + b and the slope of the line through both. Raises NoHints where they share an x."""
    if (a[0] - b[0]) % P == 0:
        raise NoHints("two points share an x coordinate")
    slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x = (slope * slope - a[0] - b[0]) % P
    return (x, (slope * (a[0] - x) - a[1]) % P), slope
