"""The shifted P-256 check agrees with `cryptography`, odd signatures included. COCOON_P256_KEYS sets how many keys."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from hashlib import sha256

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from harness import harness
from pytoniq_core import Cell, begin_cell

from attestation.onchain.hints import Z0, G, N, NoHints, P, multiple_of_g, signature_cell
from scripts.compile import CONTRACTS

BAD_HINT, FORGED = 600, 601
KEYS = int(os.environ.get("COCOON_P256_KEYS", "24"))
EDGE_KEYS = (1, 2, 3, N - 1, N - 2, N // 2, N // 2 + 1)
EDGE_HASHES = (0, 1, N - 1, N, N + 1, 2**256 - 1, 2**256 - 2, Z0 + 1, Z0 - 1, (2 * Z0) % N, N - Z0, P % 2**256)


def raw(a: int, b: int) -> bytes:
    return a.to_bytes(32, "big") + b.to_bytes(32, "big")


@pytest.fixture(scope="module")
def check() -> object:
    method = harness("p256_harness.fc", CONTRACTS)

    def run(digest: int, cell: Cell, key: bytes) -> int:
        x, y = int.from_bytes(key[:32], "big"), int.from_bytes(key[32:], "big")
        result = method("check", digest, cell, x, y)
        run.gas = result.gas_used  # type: ignore[attr-defined]
        return result.exit_code

    return run


def genuine(digest: int, r: int, s: int, key: tuple[int, int]) -> bool:
    public = ec.EllipticCurvePublicNumbers(*key, ec.SECP256R1()).public_key()
    try:
        public.verify(encode_dss_signature(r, s), digest.to_bytes(32, "big"), ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


def sign(digest: int, secret: int, rng: random.Random) -> tuple[int, int]:
    while True:
        k = rng.randrange(1, N)
        r = multiple_of_g(k)[0] % N
        s = pow(k, -1, N) * (digest + r * secret) % N
        if r and s:
            return r, s


def cases() -> Iterator[tuple[str, int, int, int, tuple[int, int]]]:
    rng = random.Random(1)
    for index in range(KEYS):
        secret = EDGE_KEYS[index] if index < len(EDGE_KEYS) else rng.randrange(1, N)
        digest = EDGE_HASHES[index] if index < len(EDGE_HASHES) else rng.getrandbits(256)
        key = multiple_of_g(secret)
        r, s = sign(digest, secret, rng)
        yield "valid", digest, r, s, key
        yield "high s", digest, r, N - s, key
        yield "another hash", digest ^ 1, r, s, key
        yield "raw signature on 2 z0 - hash", (2 * Z0 - digest) % N, r, s, key
        yield "negated key", digest, r, s, (key[0], P - key[1])
        yield "another key", digest, r, s, multiple_of_g(secret % (N - 1) + 1)
        yield "r + 1", digest, (r + 1) % 2**256, s, key
        yield "s + 1", digest, r, (s + 1) % 2**256, key
        yield "swapped", digest, s, r, key
        yield "s = 0", digest, r, 0, key
        yield "s = n", digest, r, N, key
        yield "r = n - r", digest, N - r, s, key
        if r + N < 2**256:
            yield "r + n", digest, r + N, s, key
        if s + N < 2**256:
            yield "s + n", digest, r, s + N, key


def test_g12_shifted_check_agrees_with_cryptography(check) -> None:  # type: ignore[no-untyped-def]
    seen: dict[bool, int] = {True: 0, False: 0}
    parities = set()
    for label, digest, r, s, key in cases():
        try:
            cell = signature_cell(digest, raw(r, s), raw(*key))
        except NoHints:
            continue
        expected = 0 < r < N and 0 < s < N and genuine(digest, r, s, key)
        exit_code = check(digest, cell, raw(*key))
        assert (exit_code in (0, 1)) == expected, (label, exit_code)
        seen[expected] += 1
        parities.add(key[1] & 1)
    assert seen[True] >= 2 * KEYS - 4 and seen[False] >= 9 * KEYS - 4
    assert parities == {0, 1}
    assert check.gas < 16_900


def chord(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int, int]:
    slope = (b[1] - a[1]) * pow(b[0] - a[0], -1, P) % P
    x3 = (slope * slope - a[0] - b[0]) % P
    return x3, (slope * (a[0] - x3) - a[1]) % P, slope


@pytest.mark.parametrize(
    ("multiple", "first", "second"),
    [
        # T = -tG: only U = T + G tells it from tG, by the opcode or by the equation for s3.
        (lambda t: -t, lambda t: t, lambda t: t + 1),
        (lambda t: -t, lambda t: t, lambda t: 1 - t),
        # T = -(t + 2)G: U is as it should be, and T itself tells, by the opcode or by the equation for s2.
        (lambda t: -t - 2, lambda t: t, lambda t: t + 1),
        (lambda t: -t - 2, lambda t: t + 2, lambda t: t + 1),
    ],
)
def test_g12_another_shift_point_is_refused(check, multiple, first, second) -> None:  # type: ignore[no-untyped-def]
    """With T = mG instead of tG, a signature on z0 + r m passes for a hash that was never signed, but for the hints."""
    rng = random.Random(2)
    secret = rng.randrange(1, N)
    key = multiple_of_g(secret)
    digest = int.from_bytes(sha256(b"never signed").digest(), "big")
    k = rng.randrange(1, N)
    r = multiple_of_g(k)[0] % N
    t = (digest - Z0) * pow(r, -1, N) % N
    m = multiple(t) % N
    signed = (Z0 + r * m) % N
    s = pow(k, -1, N) * (signed + r * secret) % N
    shift = multiple_of_g(m)
    x3, y3, slope = chord(key, shift)
    ux, _, _ = chord(shift, G)
    s2 = (Z0 + shift[0]) * pow(first(t), -1, N) % N
    s3 = (Z0 + ux) * pow(second(t), -1, N) % N
    last = begin_cell().store_uint(ux, 256).store_uint(s3, 256).end_cell()
    middle = begin_cell().store_uint(shift[0], 256).store_uint(s2, 256).store_uint(2 + (y3 & 1), 8).store_uint(x3, 256)
    head = begin_cell().store_uint(r, 256).store_uint(s, 256).store_uint(slope, 256)
    cell = head.store_ref(middle.store_ref(last).end_cell()).end_cell()
    assert genuine(signed, r, s, key) and not genuine(digest, r, s, key)
    assert check(digest, cell, raw(*key)) == BAD_HINT
    assert check(signed, signature_cell(signed, raw(r, s), raw(*key)), raw(*key)) in (0, 1)


def witness(r: int, s: int, slope: int, tx: int, s2: int, shifted: tuple[int, int], last: tuple[int, int]) -> Cell:
    end = begin_cell().store_uint(last[0], 256).store_uint(last[1], 256).end_cell()
    middle = begin_cell().store_uint(tx, 256).store_uint(s2, 256).store_uint(shifted[0], 8).store_uint(shifted[1], 256)
    head = begin_cell().store_uint(r, 256).store_uint(s, 256).store_uint(slope, 256)
    return head.store_ref(middle.store_ref(end).end_cell()).end_cell()


@pytest.mark.parametrize("lie", ["none", "another shifted key", "negated shifted key", "x of U"])
def test_g12_every_group_operation_is_checked(check, lie) -> None:  # type: ignore[no-untyped-def]
    """Signatures that the last opcode call accepts, under a shifted key that is not Q + tG."""
    rng = random.Random(6)
    secret, k, other = (rng.randrange(1, N) for _ in range(3))
    key = multiple_of_g(secret)
    digest = int.from_bytes(sha256(b"never signed").digest(), "big")
    r = multiple_of_g(k)[0] % N
    t = (digest - Z0) * pow(r, -1, N) % N
    straight, bent = multiple_of_g(t), multiple_of_g(N - t)
    shift = bent if lie == "x of U" else straight
    x3, y3, slope = chord(key, shift)
    prefix, shifted_secret = 2 + (y3 & 1), (secret + (t if shift == straight else -t)) % N
    if lie == "another shifted key":
        x3, y3 = multiple_of_g(other)
        prefix, shifted_secret = 2 + (y3 & 1), other
    if lie == "negated shifted key":
        prefix, shifted_secret = prefix ^ 1, N - shifted_secret
    ux, _, _ = chord(straight, G)
    s = pow(k, -1, N) * (Z0 + r * shifted_secret) % N
    s2, s3 = (Z0 + shift[0]) * pow(t, -1, N) % N, (Z0 + ux) * pow(t + 1, -1, N) % N
    cell = witness(r, s, slope, shift[0], s2, (prefix, x3), (ux, s3))
    assert genuine(digest, r, s, key) == (lie == "none")
    assert (check(digest, cell, raw(*key)) == BAD_HINT) == (lie != "none")


Polynomial = list[int]
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B


def trimmed(a: Polynomial) -> Polynomial:
    while a and a[-1] % P == 0:
        a = a[:-1]
    return a


def remainder(a: Polynomial, m: Polynomial) -> Polynomial:
    """Coefficients from the lowest, over the field of P-256."""
    a = [each % P for each in a]
    inverse = pow(m[-1], -1, P)
    while len(a := trimmed(a)) >= len(m):
        factor, shift = a[-1] * inverse % P, len(a) - len(m)
        a = [(each - factor * m[at - shift]) % P if at >= shift else each for at, each in enumerate(a)]
    return a


def product(a: Polynomial, b: Polynomial) -> Polynomial:
    out = [0] * (len(a) + len(b) - 1) if a and b else []
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] = (out[i + j] + x * y) % P
    return out


def power(base: Polynomial, exponent: int, m: Polynomial) -> Polynomial:
    out: Polynomial = [1]
    for bit in bin(exponent)[2:]:
        out = remainder(product(out, out), m)
        out = remainder(product(out, base), m) if bit == "1" else out
    return out


def common_factor(a: Polynomial, b: Polynomial) -> Polynomial:
    while b := trimmed(b):
        a, b = b, remainder(a, b)
    return a


def minus(a: Polynomial, b: Polynomial) -> Polynomial:
    size = max(len(a), len(b))
    pairs = zip(a + [0] * (size - len(a)), b + [0] * (size - len(b)), strict=True)
    return trimmed([(x - y) % P for x, y in pairs])


def some_root(polynomial: Polynomial, rng: random.Random) -> int | None:
    found = common_factor(polynomial, minus(power([0, 1], P, polynomial), [0, 1]))
    while len(found) > 2:
        half = common_factor(found, minus(power([rng.randrange(P), 1], (P - 1) // 2, found), [1]))
        if 2 <= len(half) < len(found):
            found = half
    return -found[0] * pow(found[1], -1, P) % P if len(found) == 2 else None


def test_g12_shift_point_off_the_curve_is_refused(check) -> None:  # type: ignore[no-untyped-def]
    """(x(tG), 2 y(G) - y(tG)) fits every equation for T but the curve's: U keeps its x. There are keys Q for which
    the "sum" then has an x of known secret, so that anyone can sign for Q."""
    rng = random.Random(5)
    digest = int.from_bytes(sha256(b"never signed").digest(), "big")
    while True:
        k, secret = rng.randrange(1, N), rng.randrange(1, N)
        r = multiple_of_g(k)[0] % N
        t = (digest - Z0) * pow(r, -1, N) % N
        tx, ty = multiple_of_g(t)
        off = (2 * G[1] - ty) % P
        x3, known_y = multiple_of_g(secret)
        c = x3 + tx
        line = [off * off + B - c * tx * tx, 2 * c * tx - tx * tx - 3, 2 * tx - c]
        curve = [4 * off * off * each for each in (B, -3, 0, 1)]
        qx = some_root(minus(product(line, line), [each % P for each in curve]), rng)
        if qx is not None:
            break
    qy = sum(each * pow(qx, at, P) for at, each in enumerate(line)) * pow(2 * off, -1, P) % P
    slope = (off - qy) * pow(tx - qx, -1, P) % P
    y3 = (slope * (qx - x3) - qy) % P
    assert (qy * qy - qx**3 + 3 * qx - B) % P == 0 and (slope * slope - qx - tx - x3) % P == 0
    secret = secret if known_y & 1 == y3 & 1 else N - secret
    s = pow(k, -1, N) * (Z0 + r * secret) % N
    ux, _, _ = chord((tx, ty), G)
    s2, s3 = (Z0 + tx) * pow(t, -1, N) % N, (Z0 + ux) * pow(t + 1, -1, N) % N
    last = begin_cell().store_uint(ux, 256).store_uint(s3, 256).end_cell()
    middle = begin_cell().store_uint(tx, 256).store_uint(s2, 256).store_uint(2 + (y3 & 1), 8).store_uint(x3, 256)
    head = begin_cell().store_uint(r, 256).store_uint(s, 256).store_uint(slope, 256)
    cell = head.store_ref(middle.store_ref(last).end_cell()).end_cell()
    assert not genuine(digest, r, s, (qx, qy))
    assert check(digest, cell, raw(qx, qy)) == BAD_HINT


def square_root(value: int) -> int | None:
    root = pow(value % P, (P + 1) // 4, P)
    return root if root * root % P == value % P else None


def test_g12_shift_by_the_key_itself_is_refused(check) -> None:  # type: ignore[no-untyped-def]
    """Where T = Q no line goes through both: any slope fits, and with it a shifted key whose secret is known."""
    rng = random.Random(7)
    secret, k = rng.randrange(1, N), rng.randrange(1, N)
    key, r = multiple_of_g(secret), multiple_of_g(k)[0] % N
    digest = (Z0 + r * secret) % N
    while True:
        known = rng.randrange(1, N)
        x3, y3 = multiple_of_g(known)
        slope = square_root(x3 + 2 * key[0])
        if slope is not None:
            break
    straight = (slope * (key[0] - x3) - key[1]) % P & 1 == y3 & 1
    known = known if straight else N - known
    s = pow(k, -1, N) * (Z0 + r * known) % N
    ux, _, _ = chord(key, G)
    s2, s3 = (Z0 + key[0]) * pow(secret, -1, N) % N, (Z0 + ux) * pow(secret + 1, -1, N) % N
    prefix = 2 + ((slope * (key[0] - x3) - key[1]) % P & 1)
    assert not genuine(digest, r, s, key)
    assert check(digest, witness(r, s, slope, key[0], s2, (prefix, x3), (ux, s3)), raw(*key)) == BAD_HINT


def test_g12_shift_by_the_generator_is_refused(check) -> None:  # type: ignore[no-untyped-def]
    """t = 1: the check of U divides by nothing, so it would say nothing; docs/attestation.md leaves such hashes out."""
    rng = random.Random(8)
    secret = rng.randrange(2, N)
    key, (ux, _) = multiple_of_g(secret), multiple_of_g(2)
    while True:
        k = rng.randrange(1, N)
        r = multiple_of_g(k)[0] % N
        digest = (Z0 + r) % N
        s = pow(k, -1, N) * (digest + r * secret) % N
        if s:
            break
    x3, y3, slope = chord(key, G)
    s2, s3 = (Z0 + G[0]) % N, (Z0 + ux) * pow(2, -1, N) % N
    assert genuine(digest, r, s, key)
    assert check(digest, witness(r, s, slope, G[0], s2, (2 + (y3 & 1), x3), (ux, s3)), raw(*key)) == BAD_HINT


def test_g12_every_hint_bit_matters(check) -> None:  # type: ignore[no-untyped-def]
    """One wrong bit in any number of a genuine signature, hints included, is refused."""
    rng = random.Random(3)
    secret = rng.randrange(1, N)
    key = raw(*multiple_of_g(secret))
    digest = rng.getrandbits(256)
    good = signature_cell(digest, raw(*sign(digest, secret, rng)), key)
    assert check(digest, good, key) in (0, 1)
    chain = [good, good.refs[0], good.refs[0].refs[0]]
    for depth, cell in enumerate(chain):
        for at in range(0, len(cell.bits), 11):
            bits = cell.bits.copy()
            bits[at] ^= 1
            changed = None
            for level in range(2, -1, -1):
                builder = begin_cell().store_bits(bits if level == depth else chain[level].bits)
                if changed is not None:
                    builder.store_ref(changed)
                changed = builder.end_cell()
            assert changed is not None
            assert check(digest, changed, key) not in (0, 1), (depth, at)


def test_g12_key_off_the_curve_is_refused(check) -> None:  # type: ignore[no-untyped-def]
    x, y = multiple_of_g(7)
    key = raw(x, y ^ 1)
    assert check(5, signature_cell(5, raw(*sign(5, 7, random.Random(4))), key), key) == 602
