"""What the hardware vouches for: one TDX quote, checked from the pinned root down to the TD report.

Signatures, revocation and TCB matching are `dcap_qvl.verify_with_root_ca`'s, the same call for real and simulated
quotes. Around it stand three checks that it lacks: the signer of TCB info must be Intel's TCB signer (the library takes
any certificate under the root, so that an extracted platform key could sign itself a clean bill of health), the PCE id
must match, and what no signature covers has one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestation.collateral import Collateral, Statement
from attestation.collateral import read as read_collateral
from attestation.evidence import Kind
from attestation.quote import TdQuote, certificates
from attestation.quote import parse as parse_quote
from attestation.strict import Malformed
from attestation.trust_roots import root

_PCK_SUBJECT = "Intel SGX PCK Certificate"
_PCK_ISSUERS = ("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA")
_TCB_SIGNER = "Intel SGX TCB Signing"


@dataclass(frozen=True, slots=True)
class Hardware:
    """A quote that verified. It says what ran and where, not whether that is wanted: that is a policy's to say."""

    quote: TdQuote
    tcb_status: str
    advisory_ids: tuple[str, ...]
    platform: bytes
    """SHA-256 of the PPID in the PCK certificate: one machine."""
    fmspc: str
    evaluation_number: int
    expires_at: int
    """Unix seconds, exclusive: earliest nextUpdate and certificate end of all that was relied on."""


def check(quote_bytes: bytes, collateral: Collateral, kind: Kind, now: int) -> Hardware:
    """Verify a quote at `now` (unix seconds) under the root of its kind. Raises ValueError (Malformed among them)."""
    trusted_root = root(kind).der
    quote = parse_quote(quote_bytes)
    statement = read_collateral(collateral)
    ends = [statement.expires_at, *_check_chains(quote, collateral, trusted_root)]
    report = dcap_qvl.verify_with_root_ca(quote_bytes, _library_form(collateral), trusted_root, now)
    _check_pck(quote, statement)
    if not report.ppid.strip(b"\0"):
        raise Malformed("the platform has no PPID, so it cannot be told apart from others")
    return Hardware(
        quote=quote,
        tcb_status=report.status,
        advisory_ids=tuple(report.advisory_ids),
        platform=sha256(report.ppid).digest(),
        fmspc=statement.fmspc,
        evaluation_number=statement.evaluation_number,
        expires_at=min(ends),
    )


def _check_chains(quote: TdQuote, collateral: Collateral, trusted_root: bytes) -> list[int]:
    """Who signed, by name and by place; the library checks that they signed. Ends of the certificates, unix seconds."""
    chains = [quote.pck_chain]
    if len(quote.pck_chain) != 3:
        raise Malformed(f"PCK chain has {len(quote.pck_chain)} certificates, expected leaf, intermediate and root")
    leaf, intermediate, _ = quote.pck_chain
    if _common_name(leaf) != _PCK_SUBJECT or _common_name(intermediate) not in _PCK_ISSUERS:
        raise Malformed("the quote is not certified by a PCK certificate of a PCK certification authority")
    for what, pem in (
        ("TCB info", collateral.tcb_info_issuer_chain),
        ("QE identity", collateral.qe_identity_issuer_chain),
    ):
        chain = certificates(pem.encode(), f"{what} issuer chain", canonical=False)
        if len(chain) != 2 or _common_name(chain[0]) != _TCB_SIGNER:
            raise Malformed(f"{what} is not signed by {_TCB_SIGNER!r} directly under the root; fetch it from Intel")
        chains.append(chain)
    for chain in chains:
        if chain[-1].public_bytes(Encoding.DER) != trusted_root:
            raise Malformed("a certificate chain does not end in the pinned root")
    return [int(each.not_valid_after_utc.timestamp()) for chain in chains for each in chain]


def _check_pck(quote: TdQuote, statement: Statement) -> None:
    extension = dcap_qvl.parse_pck_extension_from_pem(quote.pck_chain_pem.rstrip(b"\0"))
    found = (extension.fmspc.hex(), extension.pce_id.hex())
    if found != (statement.fmspc, statement.pce_id):
        raise Malformed(
            f"TCB info is for FMSPC {statement.fmspc}, PCE {statement.pce_id}, the platform has {found[0]}, {found[1]}"
        )


def _common_name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 else ""


def _library_form(collateral: Collateral) -> dcap_qvl.QuoteCollateralV3:
    return dcap_qvl.QuoteCollateralV3(
        collateral.pck_crl_issuer_chain,
        collateral.root_ca_crl,
        collateral.pck_crl,
        collateral.tcb_info_issuer_chain,
        collateral.tcb_info,
        collateral.tcb_info_signature,
        collateral.qe_identity_issuer_chain,
        collateral.qe_identity,
        collateral.qe_identity_signature,
    )
