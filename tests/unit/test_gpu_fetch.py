"""NVIDIA's manifests out of its service: kept only when NVIDIA signed them, for this version, valid now."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import gpu_mirror as m
import pytest

from attestation.fetch import Answer, CollateralUnavailable, Get
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import GpuEvidence
from attestation.gpu.fetch import fetch_manifest, keep
from attestation.gpu.verify import manifests_of

HOPPER, BLACKWELL = m.mirror().device(), m.mirror().device("GB202")
SERVED = m.mirror().collateral(HOPPER).manifests
DRIVER, VBIOS = "NV_GPU_DRIVER_GH100_570.10.02", "NV_GPU_VBIOS_G520_0200_882_96009F0001"


def answering(body: bytes, status: int = 200, asked: list[str] | None = None) -> Get:
    async def get(url: str) -> Answer:
        if asked is not None:
            asked.append(url)
        return Answer(status, {}, body)

    return get


def rim(raw: bytes) -> bytes:
    return json.dumps({"id": "x", "rim": base64.b64encode(raw).decode(), "sha256": "not looked at"}).encode()


async def fetched(name: str, get: Get, **changes: Any) -> bytes:
    return await fetch_manifest(name, **{"now": m.NOW, "get": get, "roots": m.mirror().roots, **changes})


def test_which_manifests_a_machine_needs_follows_from_its_reports() -> None:
    evidence = GpuEvidence((HOPPER.evidence(), HOPPER.evidence(), BLACKWELL.evidence()))
    assert manifests_of(evidence) == (DRIVER, VBIOS, "NV_GPU_CC_DRIVER_GB202_570.10.02")


@pytest.mark.parametrize("name", [DRIVER, VBIOS])
async def test_what_is_fetched_is_what_the_verifier_reads(name: str, tmp_path: Path) -> None:
    asked: list[str] = []
    raw = await fetched(name, answering(rim(SERVED[name]), asked=asked), base="https://mirror.example/rim/")
    assert asked == [f"https://mirror.example/rim/{name}"]
    assert keep(tmp_path, name, raw).name == f"{name}.swidtag"
    assert GpuCollateral.from_folder(tmp_path).manifest(name) == SERVED[name]
    assert os.listdir(tmp_path) == [f"{name}.swidtag"]


@pytest.mark.parametrize(
    ("get", "changes", "word"),
    [
        (answering(b"", 404), {}, "answered 404"),
        (answering(b"<html>"), {}, "not JSON"),
        (answering(b"{}"), {}, "no `rim`"),
        (answering(b'{"rim": "?"}'), {}, "base64"),
        (answering(rim(SERVED[VBIOS])), {}, "of version 96.00.9F.00.01"),
        (answering(rim(SERVED[DRIVER].replace(b"570", b"571"))), {}, "altered"),
        (answering(rim(SERVED[DRIVER])), {"now": m.NOW + 60 * m.DAY}, "is valid from"),
        (answering(rim(SERVED[DRIVER])), {"roots": None}, "pinned root"),
    ],
)
async def test_g12_what_is_not_nvidias_or_not_asked_for_is_not_kept(
    get: Get, changes: dict[str, Any], word: str
) -> None:
    with pytest.raises(CollateralUnavailable, match=word):
        await fetched(DRIVER, get, **changes)
