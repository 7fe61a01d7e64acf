"""What a quote's REPORTDATA says: whose key this is, on which network, for which node, and how fresh.

A quote proves "this code ran on genuine hardware and chose these 64 bytes". Everything that ties it to Cocoon is in
those bytes, so a verifier recomputes them from the claimed binding and compares; it never trusts the claim.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from hashlib import sha256

from attestation.strict import Malformed

REPORT_DATA_BYTES = 64
TAG = zlib.crc32(b"cocoon.reportdata.v1").to_bytes(4, "big")
NO_GPU = bytes(32)
"""`gpu_evidence_hash` of a machine that shows no GPU evidence."""


@dataclass(frozen=True, slots=True)
class Binding:
    """The preimage of REPORTDATA. All hashes, keys and ids are 32 bytes; numbers are unsigned.

    The masterchain block (its seqno and root hash) is what makes a quote fresh: nobody knows a block's hash before it
    exists, so the quote is younger than the block.
    """

    network_id: bytes
    node: bytes
    """Account id of the node contract, workchain 0."""
    node_epoch: int
    """Logical time of the node's birth: a quote dies with the contract that it was made for."""
    signing_key: bytes
    """Ed25519 public key that was born in the enclave."""
    gpu_evidence_hash: bytes
    """SHA-256 of the raw GPU evidence; NO_GPU where there is none."""
    block_seqno: int
    block_root_hash: bytes

    def __post_init__(self) -> None:
        for name in ("network_id", "node", "signing_key", "gpu_evidence_hash", "block_root_hash"):
            value = getattr(self, name)
            if not isinstance(value, bytes) or len(value) != 32:
                raise Malformed(f"binding: {name} must be 32 bytes; give the raw bytes, not hex")
        for name, bits in (("node_epoch", 64), ("block_seqno", 32)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << bits:
                raise Malformed(f"binding: {name} must be an unsigned {bits}-bit integer, got {value!r}")

    def preimage(self) -> bytes:
        """The 176 bytes that are hashed; the on-chain verifier hashes the same ones."""
        return b"".join(
            (
                TAG,
                self.network_id,
                self.node,
                self.node_epoch.to_bytes(8, "big"),
                self.signing_key,
                self.gpu_evidence_hash,
                self.block_seqno.to_bytes(4, "big"),
                self.block_root_hash,
            )
        )

    def report_data(self) -> bytes:
        """64 bytes: SHA-256 of the preimage, then 32 zero bytes."""
        return sha256(self.preimage()).digest() + bytes(32)
