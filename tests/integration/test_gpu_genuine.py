"""A real H100's evidence and NVIDIA's real manifests. Skipped, never passed, where they cannot be had."""

from __future__ import annotations

from functools import cache
from typing import Any

import gpu_mirror as m
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation import vectors
from attestation.gpu import certificates, manifest, roots, spdm
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import DeviceEvidence, GpuEvidence
from attestation.gpu.opaque import Mode
from attestation.gpu.policy import Architecture, GpuPolicy
from attestation.gpu.verify import GpuVerdict, verify_gpu
from attestation.strict import Malformed

NONCE = bytes.fromhex("931d8dd0add203ac3d8b4fbde75e115278eefcdceac5b87671a748f32364dfcb")
"""Of the sample report."""
NOW = 1_720_000_000
"""July 2024: the manifests' signers are valid until June 2025."""


def genuine(name: str) -> bytes:
    try:
        return vectors.read(f"nvidia/{name}")
    except vectors.Unobtainable as error:
        pytest.skip(f"genuine evidence is not to be had: {error}")


@cache
def device() -> DeviceEvidence:
    chain = x509.load_pem_x509_certificates(genuine("hopperCertChain.txt"))
    report = bytes.fromhex(genuine("hopperAttestationReport.txt").decode().strip())
    return DeviceEvidence(tuple(each.public_bytes(Encoding.DER) for each in chain), report)


@cache
def signer() -> Any:
    """NVIDIA publishes no manifests for the sample's versions with it: these are signed by a mirror."""
    start, end = NOW - 9, NOW + 9
    root = m.issue("Mirror CoRIM signing Root CA", None, start=start, end=end)
    return root.issue("Mirror RIM Signer", ca=False, start=start, end=end), root


@cache
def collateral() -> GpuCollateral:
    measured = spdm.parse(device().report).measurements
    halves = [{index: (value,) for index, value in measured.items() if index % 2 == half} for half in (0, 1)]
    mirror = m.mirror()
    return GpuCollateral(
        {
            "NV_GPU_DRIVER_GH100_550.90.07": mirror.manifest(halves[0], version="550.90.07", signer=signer()),
            "NV_GPU_VBIOS_1010_0200_882_96009F0001": mirror.manifest(
                halves[1], version="96.00.9F.00.01", signer=signer()
            ),
        }
    )


def judge(evidence: DeviceEvidence | None = None, **changes: Any) -> GpuVerdict:
    given = {
        "evidence": GpuEvidence((evidence or device(),)).to_bytes(),
        "collateral": collateral(),
        "policy": GpuPolicy(),
        "now": NOW,
        "nonce": NONCE,
        "roots": roots.Roots(roots.nvidia().device, m.der(signer()[1].certificate)),
        **changes,
    }
    return verify_gpu(**given)


def test_g12_a_real_h100_verifies_up_to_nvidias_root() -> None:
    verdict = judge()
    assert verdict.accepted, verdict.reasons
    (gpu,) = verdict.gpus
    assert (gpu.serial, gpu.chip, gpu.architecture) == ("NVIDIA:GH100:48B02D92494BADF4", "GH100", Architecture.HOPPER)
    assert (gpu.driver_version, gpu.vbios_version) == ("550.90.07", "96.00.9F.00.01")
    # Its video decoder is off, as NVIDIA wants it in confidential-computing mode: that one measurement is not compared.
    assert (gpu.mode, gpu.compared) == (Mode.UNSTATED, 63)
    assert "NVIDIA GH100 Provisioner ICA 1" in gpu.words()


def test_g12_every_byte_that_the_h100_signed_counts() -> None:
    chain = certificates.verify_chain(device().chain, roots.nvidia().device, "GPU")
    raw = device().report
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1 << at % 8
        with pytest.raises(Malformed):
            spdm.parse(bytes(changed)).verify(chain.leaf_key)
    for length in (0, 36, 37, 1000, len(raw) - 1):
        assert not judge(DeviceEvidence(device().chain, raw[:length] or b"\0")).accepted
    assert not judge(DeviceEvidence(device().chain, raw + b"\0")).accepted


def test_g12_every_certificate_of_the_h100_counts() -> None:
    for number, certificate in enumerate(device().chain):
        for at in range(0, len(certificate), 53):
            changed = bytearray(certificate)
            changed[at] ^= 1 << at % 8
            chain = (*device().chain[:number], bytes(changed), *device().chain[number + 1 :])
            assert not judge(DeviceEvidence(chain, device().report)).accepted, (number, at)


def test_g12_the_h100_answers_its_own_nonce_only() -> None:
    verdict = judge(nonce=bytes(32))
    assert not verdict.accepted and "another nonce" in verdict.reasons[0]


def test_g12_the_h100_does_not_pass_under_another_root() -> None:
    verdict = judge(roots=roots.Roots(roots.nvidia().manifest, roots.nvidia().manifest))
    assert not verdict.accepted and "pinned root" in verdict.reasons[0]


def test_g12_nvidias_manifests_verify_and_end() -> None:
    for name, version, count in (
        ("Driver_RIM_test_no_gpu.swidtag", "545.00", 21),
        ("1010_0200_882_96005E0001_test_no_gpu.swidtag", "96.00.5E.00.01", 12),
    ):
        found = manifest.read(genuine(name), roots.nvidia().manifest)
        assert (found.product, found.version, len(found.golden)) == ("GH100", version, count)
        assert found.chain.ends_at(NOW) < 1_751_000_000
        with pytest.raises(Malformed, match="HCC RIM L4 Signer"):
            found.chain.ends_at(1_760_000_000)


def test_g12_an_altered_genuine_manifest_is_refused() -> None:
    raw = genuine("Driver_RIM_test_no_gpu.swidtag")
    for old, new in (
        (b'active="True"', b'active="False"'),
        (b'colloquialVersion="545.00"', b'colloquialVersion="550.90.07"'),
        (b"    <ns0:Payload", b"   <ns0:Payload"),
        (b'ns2:Hash0="0', b'ns2:Hash0="1'),
    ):
        assert old in raw
        with pytest.raises(Malformed, match="altered"):
            manifest.read(raw.replace(old, new, 1), roots.nvidia().manifest)


def test_g12_genuine_manifests_of_other_versions_do_not_fit() -> None:
    driver, vbios = (
        genuine(name) for name in ("Driver_RIM_test_no_gpu.swidtag", "1010_0200_882_96005E0001_test_no_gpu.swidtag")
    )
    names = sorted(collateral().manifests)
    verdict = judge(collateral=GpuCollateral(dict(zip(names, (driver, vbios), strict=True))), roots=roots.nvidia())
    assert not verdict.accepted and "is for version 545.00, the GPU reports 550.90.07" in verdict.reasons[0]
    measured = spdm.parse(device().report).measurements
    differing = [
        index
        for raw in (driver, vbios)
        for index, values in manifest.read(raw, roots.nvidia().manifest).golden.items()
        if measured[index] not in values
    ]
    assert len(differing) > 10
