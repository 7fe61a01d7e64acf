"""The enclave's keys: born at start, held by this process alone, never written anywhere.

The signing key is what evidence attests; a restart is a new key and a new attestation. Sealing keys are short-lived, so
that a machine that falls opens hours of recorded traffic and not months. Dropping a key is all that Python can do to
erase it: its memory is freed, and the TEE's memory is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.sealing import SealingKeyPair


@dataclass(slots=True)
class _Live:
    pair: SealingKeyPair
    expires_at: int
    ends: float
    """The same end by the clock that cannot be set."""
    opened: set[bytes] = field(default_factory=set)
    """Request ids opened with it. They die with the key, which alone could open them again."""


class SealingRing:
    """The sealing keys that open requests now. `now` is unix seconds, by a clock that the host may set: back, and keys
    would outlive the day after which clients count on their end. So `steady` ends them too; it counts seconds.
    """

    def __init__(self, life_seconds: int, steady: Callable[[], float] = time.monotonic) -> None:
        self._life = life_seconds
        self._steady = steady
        self._keys: list[_Live] = []

    @property
    def keys(self) -> tuple[tuple[SealingKeyPair, int], ...]:
        """(pair, expires_at), newest first."""
        return tuple((live.pair, live.expires_at) for live in self._keys)

    def turn(self, now: int) -> bool:
        """Erase keys that are over, and bear a new one when the newest has lived half its life. True on a change."""
        steady = self._steady()
        kept = [live for live in self._keys if now < live.expires_at and steady < live.ends]
        born = not kept or now >= kept[0].expires_at - self._life // 2 or steady >= kept[0].ends - self._life / 2
        if born:
            kept.insert(0, _Live(SealingKeyPair.generate(), now + self._life, steady + self._life))
        changed = born or len(kept) != len(self._keys)
        self._keys = kept
        return changed

    def next_turn(self) -> int:
        """Unix seconds at which `turn` has something to do."""
        return min(self._keys[0].expires_at - self._life // 2, self._keys[-1].expires_at)

    def find(self, key_hash: bytes, now: int) -> SealingKeyPair | None:
        """The live pair with this public key hash."""
        live = self._live(key_hash)
        return live.pair if live is not None and now < live.expires_at and self._steady() < live.ends else None

    def opened(self, key_hash: bytes, request_id: bytes) -> bool:
        """Whether this request id was opened with that key."""
        live = self._live(key_hash)
        return live is not None and request_id in live.opened

    def mark_opened(self, key_hash: bytes, request_id: bytes) -> None:
        live = self._live(key_hash)
        if live is not None:
            live.opened.add(request_id)

    def _live(self, key_hash: bytes) -> _Live | None:
        return next((live for live in self._keys if live.pair.hash == key_hash), None)


class Keys:
    """All secrets of one enclave process."""

    def __init__(self, sealing_seconds: int) -> None:
        self.signing = Ed25519PrivateKey.generate()
        self.public = self.signing.public_key().public_bytes_raw()
        self.sealing = SealingRing(sealing_seconds)
        self._cache_secret = secrets.token_bytes(32)

    def cache_salt(self, escrow: bytes, voucher_key: bytes) -> str:
        """Name of a client's own KV-cache prefixes (G15).

        The voucher key is in it: the agent, which says whose key belongs to an escrow, could otherwise let a stranger
        in under that escrow and measure by cache hits what its client had asked.
        """
        return hmac.new(self._cache_secret, escrow + voucher_key, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return f"Keys({self.public.hex()})"
