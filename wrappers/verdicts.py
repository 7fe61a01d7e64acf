"""The verdict of the attestation contract on a node's key, and its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pytoniq_core import Cell, begin_cell

from wrappers.ops import Op


def identity_cell(measurement: bytes, platform: bytes) -> Cell:
    """TL-B: Identity."""
    return begin_cell().store_bytes(measurement).store_bytes(platform).end_cell()


@dataclass(frozen=True, slots=True)
class VerdictBody:
    """What attestation tells a node. TL-B: VerdictBody."""

    epoch: int
    key: bytes
    attested_until: int
    block_seqno: int
    """Masterchain block that the evidence names; newer than in the verdict before."""
    tier: int
    measurement: bytes
    platform: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(self.epoch, 64).store_bytes(self.key).store_uint(self.attested_until, 32)
        cell.store_uint(self.block_seqno, 32).store_uint(self.tier, 8)
        return cell.store_ref(identity_cell(self.measurement, self.platform)).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        epoch, key, until, block, tier = (
            s.load_uint(64),
            s.load_bytes(32),
            s.load_uint(32),
            s.load_uint(32),
            s.load_uint(8),
        )
        identity = s.load_ref().begin_parse()
        return cls(epoch, key, until, block, tier, identity.load_bytes(32), identity.load_bytes(32))


def verdict(body: VerdictBody, consent: bytes | None = None) -> Cell:
    """Body from the attestation contract alone: what it found about the node's key.

    `consent`: the release key over `signed.KeyConsent`, without which a node takes no key that is not its active one.
    """
    message = begin_cell().store_uint(Op.VERDICT, 32).store_bytes(body.platform[:24]).store_uint(body.block_seqno, 32)
    message.store_ref(body.to_cell())
    return message.store_maybe_ref(None if consent is None else begin_cell().store_bytes(consent).end_cell()).end_cell()
