"""AMD's certificates that a report is judged by. Anyone may serve them: they are signed up to AMD's pinned root."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from attestation import strict
from attestation.strict import Malformed

KIND = "amd"
CERTIFICATE_LIMIT_BYTES = 8 * 1024
CRL_LIMIT_BYTES = 64 * 1024
JSON_LIMIT_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class AmdCollateral:
    """All DER."""

    endorsement: bytes
    """Certificate of the key that signed the report: VCEK or VLEK."""
    authority: bytes
    """Certificate of the key that signed that one: ASK (for VCEK) or ASVK (for VLEK)."""
    crl: bytes | None = None
    """The root key's revocation list."""

    def __post_init__(self) -> None:
        for name, limit in (("endorsement", CERTIFICATE_LIMIT_BYTES), ("authority", CERTIFICATE_LIMIT_BYTES)):
            if not 0 < len(getattr(self, name)) <= limit:
                raise Malformed(f"AMD collateral: {name} must be 1 to {limit} bytes")
        if self.crl is not None and not 0 < len(self.crl) <= CRL_LIMIT_BYTES:
            raise Malformed(f"AMD collateral: crl must be 1 to {CRL_LIMIT_BYTES} bytes")

    def to_json(self) -> str:
        document = {"kind": KIND, "endorsement": self.endorsement.hex(), "authority": self.authority.hex()}
        if self.crl is not None:
            document["crl"] = self.crl.hex()
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str | bytes) -> AmdCollateral:
        """Raises Malformed."""
        what = "AMD collateral"
        document = strict.json_object(text, what, limit_bytes=JSON_LIMIT_BYTES)
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> AmdCollateral:
        """Raises Malformed."""
        what = "AMD collateral"
        strict.only_keys(document, what, required=("kind", "endorsement", "authority"), optional=("crl",))
        if document["kind"] != KIND:
            raise Malformed(f"{what}: kind must be {KIND!r}, got {document['kind']!r}")
        return cls(
            endorsement=strict.hex_field(document, "endorsement", what, limit=CERTIFICATE_LIMIT_BYTES),
            authority=strict.hex_field(document, "authority", what, limit=CERTIFICATE_LIMIT_BYTES),
            crl=strict.hex_field(document, "crl", what, limit=CRL_LIMIT_BYTES) if "crl" in document else None,
        )
