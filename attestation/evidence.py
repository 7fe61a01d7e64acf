"""Evidence: a quote or report, and what its REPORTDATA is claimed to bind, as it travels from worker to verifier."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256

from attestation import strict
from attestation.quote import LIMIT_BYTES as QUOTE_LIMIT_BYTES
from attestation.report_data import NO_GPU, Binding
from attestation.strict import Malformed

GPU_EVIDENCE_LIMIT_BYTES = 128 * 1024
JSON_LIMIT_BYTES = 256 * 1024
_VERSION = 1
_BINDING_BYTES = ("network_id", "node", "signing_key", "gpu_evidence_hash", "block_root_hash")


class Kind(StrEnum):
    """Which root the evidence claims to come from. A claim only: it selects the root that must then verify it."""

    TDX = "tdx"
    SEV_SNP = "sev-snp"
    SIMULATED = "simulated"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a verifier needs beside collateral and policy. Unverified until `attestation.verify.verify` accepts it."""

    kind: Kind
    quote: bytes
    """The TDX quote, or the SEV-SNP attestation report."""
    binding: Binding
    gpu_evidence: bytes = b""
    """Raw GPU evidence, published so that every client can verify it again; empty where there is no GPU."""

    def __post_init__(self) -> None:
        if not isinstance(self.kind, Kind):
            raise Malformed(f"evidence: kind must be one of {', '.join(Kind)}, got {self.kind!r}")
        if not isinstance(self.quote, bytes) or not 0 < len(self.quote) <= QUOTE_LIMIT_BYTES:
            raise Malformed(f"evidence: the quote must be 1 to {QUOTE_LIMIT_BYTES} bytes")
        if len(self.gpu_evidence) > GPU_EVIDENCE_LIMIT_BYTES:
            raise Malformed(f"evidence: GPU evidence of more than {GPU_EVIDENCE_LIMIT_BYTES} bytes")

    def to_json(self) -> str:
        binding = self.binding
        document = {
            "version": _VERSION,
            "kind": self.kind.value,
            "quote": base64.b64encode(self.quote).decode(),
            "binding": {
                **{name: getattr(binding, name).hex() for name in _BINDING_BYTES},
                "node_epoch": binding.node_epoch,
                "block_seqno": binding.block_seqno,
            },
        }
        if self.gpu_evidence:
            document["gpu_evidence"] = base64.b64encode(self.gpu_evidence).decode()
        return json.dumps(document, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Evidence:
        """Raises Malformed."""
        what = "evidence"
        document = strict.json_object(text, what, limit_bytes=JSON_LIMIT_BYTES)
        strict.only_keys(document, what, required=("version", "kind", "quote", "binding"), optional=("gpu_evidence",))
        version = strict.integer_field(document, "version", what, low=0, high=255)
        if version != _VERSION:
            raise Malformed(f"evidence: version {version}, this program reads {_VERSION}; upgrade the older side")
        kind = strict.text_field(document, "kind", what, limit=16)
        if kind not in list(Kind):
            raise Malformed(f"evidence: kind must be one of {', '.join(Kind)}, got {kind!r}")
        gpu_evidence = b""
        if "gpu_evidence" in document:
            gpu_evidence = strict.base64_field(document, "gpu_evidence", what, limit=GPU_EVIDENCE_LIMIT_BYTES)
        return cls(
            kind=Kind(kind),
            quote=strict.base64_field(document, "quote", what, limit=QUOTE_LIMIT_BYTES),
            binding=_binding(document["binding"]),
            gpu_evidence=gpu_evidence,
        )


def gpu_evidence_hash(gpu_evidence: bytes) -> bytes:
    """The 32 bytes that a binding holds for this raw GPU evidence."""
    return sha256(gpu_evidence).digest() if gpu_evidence else NO_GPU


def _binding(document: object) -> Binding:
    what = "evidence binding"
    if not isinstance(document, dict):
        raise Malformed("evidence: binding must be an object")
    strict.only_keys(document, what, required=(*_BINDING_BYTES, "node_epoch", "block_seqno"))
    return Binding(
        **{name: strict.hex_field(document, name, what, length=32) for name in _BINDING_BYTES},
        node_epoch=strict.integer_field(document, "node_epoch", what, low=0, high=2**64 - 1),
        block_seqno=strict.integer_field(document, "block_seqno", what, low=0, high=2**32 - 1),
    )
