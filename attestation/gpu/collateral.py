"""What GPU evidence is judged by: NVIDIA's manifests and revocation data. NVIDIA signed it, so anyone may serve it."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from attestation import strict
from attestation.gpu.canonical import LIMIT_BYTES as MANIFEST_LIMIT_BYTES
from attestation.strict import Malformed

MANIFEST_SERVICE = "https://rim.attestation.nvidia.com/v1/rim/"
JSON_LIMIT_BYTES = 1024 * 1024
_MAX_FILES = 64
_REVOCATION_LIMIT_BYTES = 256 * 1024
_WHAT = "GPU collateral"


@dataclass(frozen=True, slots=True)
class GpuCollateral:
    """Unverified until used. A manifest's id is only where it is looked up; what it is, its signed content says."""

    manifests: Mapping[str, bytes] = field(default_factory=dict)
    """By NVIDIA's id, `NV_GPU_DRIVER_GH100_550.90.07` for example: the SWID tag as it was fetched."""
    crls: tuple[bytes, ...] = ()
    """Certificate revocation lists in DER (RFC 5280)."""
    ocsp: tuple[bytes, ...] = ()
    """OCSP responses in DER (RFC 6960)."""

    def manifest(self, name: str) -> bytes:
        """Raises Malformed, with the cure, where it is missing."""
        if name not in self.manifests:
            raise Malformed(
                f"manifest {name} is missing; `cocoon attest manifests FOLDER` fetches it from {MANIFEST_SERVICE}{name}"
            )
        return self.manifests[name]

    def to_json(self) -> str:
        return json.dumps(
            {
                "manifests": {name: base64.b64encode(raw).decode() for name, raw in sorted(self.manifests.items())},
                "crls": [base64.b64encode(each).decode() for each in self.crls],
                "ocsp": [base64.b64encode(each).decode() for each in self.ocsp],
            }
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> GpuCollateral:
        """Raises Malformed."""
        document = strict.json_object(text, _WHAT, limit_bytes=JSON_LIMIT_BYTES)
        strict.only_keys(document, _WHAT, required=("manifests", "crls", "ocsp"))
        manifests = document["manifests"]
        if not isinstance(manifests, dict) or len(manifests) > _MAX_FILES:
            raise Malformed(f"{_WHAT}: manifests must be an object of at most {_MAX_FILES} fields")
        return cls(
            {name: strict.base64_field(manifests, name, _WHAT, limit=MANIFEST_LIMIT_BYTES) for name in manifests},
            _blobs(document, "crls"),
            _blobs(document, "ocsp"),
        )

    @classmethod
    def from_folder(cls, folder: Path) -> GpuCollateral:
        """`<id>.swidtag`, `*.crl` and `*.ocsp` in a folder. Raises Malformed."""
        found: dict[str, dict[str, bytes]] = {".swidtag": {}, ".crl": {}, ".ocsp": {}}
        try:
            for path in sorted(folder.iterdir()):
                if path.suffix in found:
                    limit = MANIFEST_LIMIT_BYTES if path.suffix == ".swidtag" else _REVOCATION_LIMIT_BYTES
                    if path.stat().st_size > limit:
                        raise Malformed(f"{path}: larger than {limit} bytes; it is not one of NVIDIA's")
                    found[path.suffix][path.stem] = path.read_bytes()
        except OSError as error:
            raise Malformed(
                f"GPU manifests cannot be read from {folder} ({error.strerror}); make the folder and fetch them into it"
            ) from error
        if any(len(each) > _MAX_FILES for each in found.values()):
            raise Malformed(f"{folder}: more than {_MAX_FILES} files of one kind; keep those of the installed versions")
        return cls(found[".swidtag"], tuple(found[".crl"].values()), tuple(found[".ocsp"].values()))


def _blobs(document: Mapping[str, Any], key: str) -> tuple[bytes, ...]:
    value = document[key]
    if not isinstance(value, list) or len(value) > _MAX_FILES:
        raise Malformed(f"{_WHAT}: {key} must be a list of at most {_MAX_FILES}")
    return tuple(strict.base64_field({key: each}, key, _WHAT, limit=_REVOCATION_LIMIT_BYTES) for each in value)
