"""State and policy of the verifier, as cells. TL-B: contracts/attestation/attestation.tlb."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from pytoniq_core import Cell, HashMap, begin_cell

from attestation.onchain.statements import DEFECTS

NO_LAUNCH = sha256(bytes(144)).digest()
"""`launch` of an image that runs with MRCONFIGID, MROWNER and MROWNERCONFIG all zero."""
_SEPT_VE_DISABLE = 0x0000001000000000
_XFAM_REQUIRED = 0x0300000000000000
_XFAM_ALLOWED = 0xE7DB060000000000
"""x87 and SSE always; what the TDX module can virtualize (XFAM_FIXED0 0x6DBE7)."""


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """What the network accepts. Attributes and XFAM as 64 bits in the byte order of the TD report."""

    floor: int = 0
    """Evaluation numbers of Intel's collateral that are taken: from `floor` to `ceiling`."""
    ceiling: int = 2**32 - 1
    accepted_statuses: frozenset[str] = frozenset({"UpToDate"})
    longest_seconds: int = 7 * 86_400
    attributes_required: int = _SEPT_VE_DISABLE
    attributes_allowed: int = _SEPT_VE_DISABLE
    xfam_required: int = _XFAM_REQUIRED
    xfam_allowed: int = _XFAM_ALLOWED

    def to_cell(self) -> Cell:
        defects = 0
        for status in self.accepted_statuses:
            defects |= DEFECTS[status]
        cell = begin_cell().store_uint(self.floor, 32).store_uint(self.ceiling, 32)
        cell.store_uint(defects, 8).store_uint(self.longest_seconds, 32)
        for flags in (self.attributes_required, self.attributes_allowed, self.xfam_required, self.xfam_allowed):
            cell.store_uint(flags, 64)
        return cell.end_cell()


@dataclass(frozen=True, slots=True)
class ChainImage:
    """One image that may run. Tier 1: CPU; 2: it verifies its GPU's evidence before it asks for a quote."""

    tier: int = 1
    launch: bytes = NO_LAUNCH
    """SHA-256 of MRCONFIGID, MROWNER, MROWNERCONFIG (144 bytes)."""

    def to_cell(self) -> Cell:
        return begin_cell().store_uint(self.tier, 8).store_bytes(self.launch).end_cell()


def genesis_state(
    registry: bytes, network_id: bytes, root_key: bytes, policy: ChainPolicy, images: Mapping[bytes, ChainImage]
) -> Cell:
    """TL-B AttestationGenesis. `root_key`: 64 bytes x||y; any but Intel's is a test root, which mainnet refuses."""
    dictionary = HashMap(256, value_serializer=lambda image, builder: builder.store_cell(image.to_cell()))
    for measurement, image in images.items():
        dictionary.set_int_key(int.from_bytes(measurement, "big"), image)
    more = begin_cell().store_bytes(root_key[32:]).store_maybe_ref(dictionary.serialize() if images else None)
    cell = begin_cell().store_bytes(registry).store_bytes(network_id).store_bytes(root_key[:32])
    return cell.store_ref(policy.to_cell()).store_ref(more.end_cell()).end_cell()
