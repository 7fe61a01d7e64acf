"""Which masterchain blocks the TVM sees. Without a block builder they are made up, the same ones in every run."""

from __future__ import annotations

from hashlib import sha256
from typing import Protocol

from chain.api import BlockId
from devnet.engine import PrevBlocks

SEEN_BLOCKS = 16
SPARSE_STEP = 100


class McBlocks(Protocol):
    def at(self, now: int) -> PrevBlocks:
        """What a transaction at `now` (unix seconds) sees, newest first."""


class SyntheticBlocks:
    """One masterchain block a second since BIRTH, with hashes that are a function of the seqno."""

    BIRTH = 1_600_000_000

    def __init__(self) -> None:
        self._newest: PrevBlocks | None = None

    def block(self, seqno: int) -> BlockId:
        tail = seqno.to_bytes(4, "big")
        return BlockId(seqno, sha256(b"synthetic root" + tail).digest(), sha256(b"synthetic file" + tail).digest())

    def at(self, now: int) -> PrevBlocks:
        """Raises ValueError for a time before the first 16 sparse blocks."""
        newest = now - self.BIRTH
        if newest < SEEN_BLOCKS * SPARSE_STEP:
            raise ValueError(f"no blocks yet at {now}: use a time after {self.BIRTH + SEEN_BLOCKS * SPARSE_STEP}")
        if self._newest is not None and self._newest.last[0].seqno == newest:
            return self._newest
        sparse = newest - newest % SPARSE_STEP
        self._newest = PrevBlocks(
            last=tuple(self.block(newest - back) for back in range(SEEN_BLOCKS)),
            key=self.block(0),
            hundreds=tuple(self.block(sparse - back * SPARSE_STEP) for back in range(SEEN_BLOCKS)),
        )
        return self._newest
