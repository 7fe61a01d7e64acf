"""Collateral for simulated quotes: TCB info, QE identity and revocation lists in Intel's form, under the test root."""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass
from typing import Any

from cryptography import x509

from attestation.collateral import Collateral
from attestation.simulated import pki
from attestation.simulated.platform import CPU_SVN, FMSPC, PCE_ID, PCE_SVN, TEE_TCB_SVN
from attestation.simulated.tee import QE_MRSIGNER, QE_PRODUCT_ID

VALIDITY_SECONDS = 30 * 86_400
ISSUED_BEFORE_SECONDS = 3_600
"""Collateral is dated back, as Intel's always is when it arrives, so that clocks need not agree to the second."""
EVALUATION_NUMBER = 18
_TCB_DATE = "2024-11-13T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Findings:
    """What the simulated "Intel" says about simulated platforms."""

    tcb_status: str = "UpToDate"
    advisory_ids: tuple[str, ...] = ()
    revoked: tuple[x509.Certificate, ...] = ()
    """PCK certificates on the revocation list."""
    evaluation_number: int = EVALUATION_NUMBER
    required_pce_svn: int = PCE_SVN
    """Above the platforms' own: no TCB level matches."""


def mint(
    now: int,
    *,
    validity_seconds: int = VALIDITY_SECONDS,
    findings: Findings | None = None,
    signer: pki.Authority | None = None,
    signer_chain: str | None = None,
) -> Collateral:
    """Collateral for every simulated platform, valid from an hour before `now` (unix seconds) for `validity_seconds`.

    `signer` and `signer_chain` replace the TCB signer, for tests of verifiers.
    """
    findings = findings or Findings()
    signer = signer or pki.tcb_signer()
    chain = signer_chain or pki.tcb_signer().pem + pki.root().pem
    begin, end = now - ISSUED_BEFORE_SECONDS, now + validity_seconds
    times = {"issueDate": _rfc3339(begin), "nextUpdate": _rfc3339(end)}
    tcb_info = _compact(_tcb_info(times, findings))
    qe_identity = _compact(_qe_identity(times, findings))
    return Collateral(
        pck_crl_issuer_chain=pki.platform_ca().pem + pki.root().pem,
        root_ca_crl=pki.revocation_list(pki.root(), begin, end),
        pck_crl=pki.revocation_list(pki.platform_ca(), begin, end, findings.revoked),
        tcb_info_issuer_chain=chain,
        tcb_info=tcb_info,
        tcb_info_signature=pki.raw_signature(signer.key, tcb_info.encode()),
        qe_identity_issuer_chain=chain,
        qe_identity=qe_identity,
        qe_identity_signature=pki.raw_signature(signer.key, qe_identity.encode()),
    )


def _tcb_info(times: dict[str, str], findings: Findings) -> dict[str, Any]:
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return {
        "id": "TDX",
        "version": 3,
        **times,
        "fmspc": FMSPC.hex().upper(),
        "pceId": PCE_ID.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": findings.evaluation_number,
        "tdxModule": module,
        "tdxModuleIdentities": [
            {
                "id": f"TDX_{TEE_TCB_SVN[1]:02X}",
                **module,
                "tcbLevels": [_level({"isvsvn": TEE_TCB_SVN[0]}, Findings())],
            }
        ],
        "tcbLevels": [
            _level(
                {
                    "sgxtcbcomponents": [{"svn": svn} for svn in CPU_SVN],
                    "pcesvn": findings.required_pce_svn,
                    "tdxtcbcomponents": [{"svn": svn} for svn in (5, 0, *TEE_TCB_SVN[2:])],
                },
                findings,
            )
        ],
    }


def _qe_identity(times: dict[str, str], findings: Findings) -> dict[str, Any]:
    return {
        "id": "TD_QE",
        "version": 2,
        **times,
        "tcbEvaluationDataNumber": findings.evaluation_number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": QE_MRSIGNER.hex().upper(),
        "isvprodid": QE_PRODUCT_ID,
        "tcbLevels": [_level({"isvsvn": 4}, Findings())],
    }


def _level(tcb: dict[str, Any], findings: Findings) -> dict[str, Any]:
    level: dict[str, Any] = {"tcb": tcb, "tcbDate": _TCB_DATE, "tcbStatus": findings.tcb_status}
    if findings.advisory_ids:
        level["advisoryIDs"] = list(findings.advisory_ids)
    return level


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _rfc3339(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
