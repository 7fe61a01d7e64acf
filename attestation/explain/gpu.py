"""NVIDIA's evidence of each GPU (attestation.gpu): claims, certificates, the nonce."""

from __future__ import annotations

from attestation.explain.words import Row, Section, certificate_row, shown
from attestation.gpu import opaque, spdm
from attestation.gpu.envelope import DeviceEvidence, GpuEvidence
from attestation.strict import Malformed


def sections(raw: bytes, expected_nonce: bytes | None) -> list[Section]:
    """`expected_nonce`: what each GPU must have signed for this key and block; None: not known. Raises Malformed."""
    devices = GpuEvidence.from_bytes(raw).devices
    return [
        Section(f"GPU {number} of {len(devices)} (not checked by reading)", tuple(_rows(device, expected_nonce)))
        for number, device in enumerate(devices)
    ]


def _rows(device: DeviceEvidence, expected: bytes | None) -> list[Row]:
    rows = [certificate_row("GPU's key (signs the report)", device.chain[0])]
    rows += [certificate_row(f"its authority {index}", der) for index, der in enumerate(device.chain[1:], 1)]
    try:
        report = spdm.parse(device.report)
        claims = opaque.parse(report.opaque)
    except Malformed as error:
        return [*rows, Row("report", "cannot be read", str(error))]
    fits = (
        "" if expected is None else "as expected" if report.nonce == expected else "NOT the one for this key and block"
    )
    return [
        *rows,
        Row("driver, VBIOS", f"{claims.driver_version}, {claims.vbios_version}", "which of NVIDIA's manifests apply"),
        Row("board", " ".join(claims.board)),
        Row("mode", claims.mode.value, "how the machine's GPUs are joined"),
        Row("measurements", str(len(report.measurements)), "compared with NVIDIA's signed manifests by a verifier"),
        Row("nonce", shown(report.nonce), fits),
    ]
