"""NVIDIA's manifests from its service into a folder. What comes is believed for its signature only."""

from __future__ import annotations

import os
from pathlib import Path

from attestation import strict
from attestation.fetch import BODY_LIMIT_BYTES, CollateralUnavailable, Get, http_get
from attestation.gpu import manifest
from attestation.gpu.canonical import LIMIT_BYTES
from attestation.gpu.collateral import MANIFEST_SERVICE
from attestation.gpu.roots import Roots, nvidia
from attestation.strict import Malformed


async def fetch_manifest(
    name: str, now: int, *, get: Get = http_get, base: str = MANIFEST_SERVICE, roots: Roots | None = None
) -> bytes:
    """The manifest with this id, signed by NVIDIA and valid at `now` (unix seconds). Raises CollateralUnavailable."""
    url = base + name
    answer = await get(url)
    if answer.status != 200:
        raise CollateralUnavailable(
            f"{url} answered {answer.status}; use a driver and VBIOS that NVIDIA publishes for confidential computing"
        )
    try:
        document = strict.json_object(answer.body, url, limit_bytes=BODY_LIMIT_BYTES)
        if "rim" not in document:
            raise Malformed(f"{url}: it answered no `rim`")
        raw = strict.base64_field(document, "rim", url, limit=LIMIT_BYTES)
        found = manifest.read(raw, (roots or nvidia()).manifest)
        found.chain.ends_at(now)
    except Exception as error:  # certificate parsers raise many unrelated types on hostile input
        raise CollateralUnavailable(f"manifest {name} is of no use: {error or type(error).__name__}") from error
    if not name.endswith(f"_{found.version}") and not name.endswith(f"_{found.version.replace('.', '').upper()}"):
        raise CollateralUnavailable(f"{url} answered with a manifest of version {found.version}")
    return raw


def keep(folder: Path, name: str, raw: bytes) -> Path:
    """Write it where `GpuCollateral.from_folder` reads it; a reader sees the old file or the new one, whole."""
    path = folder / f"{name}.swidtag"
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(raw)
    partial.replace(path)
    return path
