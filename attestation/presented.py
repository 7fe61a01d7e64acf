"""What a node shows to whoever wants to verify it: its evidence, and what that is judged by, as one JSON object.

    {"evidence": {...}, "collateral": {...}, "gpu_collateral": {...}}

The last is there where the machine has GPUs. The same object goes into offers and into a client's store.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from attestation import strict
from attestation.collateral import AnyCollateral
from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence
from attestation.gpu.collateral import GpuCollateral

_WHAT = "what the node presents"


@dataclass(frozen=True, slots=True)
class Presented:
    evidence: Evidence
    collateral: AnyCollateral
    gpu: GpuCollateral | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Presented:
        """Raises Malformed."""
        strict.only_keys(document, _WHAT, required=("evidence", "collateral"), optional=("gpu_collateral",))
        gpu = document.get("gpu_collateral")
        return cls(
            Evidence.from_json(json.dumps(document["evidence"])),
            parse_collateral(json.dumps(document["collateral"])),
            GpuCollateral.from_json(json.dumps(gpu)) if gpu is not None else None,
        )
