"""What the hardware vouches for: one TDX quote, checked from the pinned root down to the TD report.

Signatures, revocation and TCB matching are `dcap_qvl.verify_with_root_ca`'s, the same call for real and simulated
quotes. Around it stand three checks that it lacks: the signer of TCB info must be Intel's TCB signer (the library takes
any certificate under the root, so that an extracted platform key could sign itself a clean bill of health), the PCE id
must match, and what no signature covers has one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import dcap_qvl
from cryptography import x509
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
    prepared = _prepare(collateral)
    statement = prepared.statement
    chains = {"PCK certificate chain": quote.pck_chain, **prepared.chains}
    _check_ends(chains, trusted_root)
    report = dcap_qvl.verify_with_root_ca(quote_bytes, prepared.library_form, trusted_root, now)
    # Only now are the certificates known to be genuine, and looked into.
    ends = _check_offices(quote.pck_chain, *prepared.chains.values())
    _check_platform_type(quote, statement)
    if not report.ppid.strip(b"\0"):
        raise Malformed("the platform has no PPID, so it cannot be told apart from others")
    return Hardware(
        quote=quote,
        tcb_status=report.status,
        advisory_ids=tuple(report.advisory_ids),
        platform=sha256(report.ppid).digest(),
        fmspc=statement.fmspc,
        evaluation_number=statement.evaluation_number,
        expires_at=min(statement.expires_at, *ends),
    )


@dataclass(frozen=True, slots=True)
class _Prepared:
    statement: Statement
    chains: dict[str, tuple[bytes, ...]]
    library_form: dcap_qvl.QuoteCollateralV3


# The caches below hold pure functions of their argument: one set of collateral judges every machine of a platform type,
# and a client meets the same machine again and again.
@lru_cache(maxsize=16)
def _prepare(collateral: Collateral) -> _Prepared:
    chains = {
        "TCB info issuer chain": collateral.tcb_info_issuer_chain,
        "QE identity issuer chain": collateral.qe_identity_issuer_chain,
    }
    return _Prepared(
        read_collateral(collateral),
        {what: certificates(pem.encode(), what) for what, pem in chains.items()},
        _library_form(collateral),
    )


def _check_ends(chains: dict[str, tuple[bytes, ...]], trusted_root: bytes) -> None:
    """The root stands at the end of each chain, and only the PCK chain has a certificate between."""
    for what, chain in chains.items():
        length = 3 if what.startswith("PCK") else 2
        if len(chain) != length:
            raise Malformed(f"{what}: {len(chain)} certificates, expected {length}; fetch it from Intel")
        if chain[-1] != trusted_root:
            raise Malformed(f"{what}: does not end in the pinned root")


def _check_offices(pck: tuple[bytes, ...], *statement_chains: tuple[bytes, ...]) -> list[int]:
    """Who may sign what, by name; that they did sign is verified before. Ends of the certificates, unix seconds."""
    leaf, intermediate, *_ = own_chain = [_certificate(der) for der in pck]
    if leaf.common_name != _PCK_SUBJECT or intermediate.common_name not in _PCK_ISSUERS:
        raise Malformed("the quote is not certified by a PCK certificate of a PCK certification authority")
    signers = [_certificate(chain[0]) for chain in statement_chains]
    if any(signer.common_name != _TCB_SIGNER for signer in signers):
        raise Malformed(f"TCB info or QE identity is not signed by {_TCB_SIGNER!r}; fetch it from Intel")
    return [each.ends_at for each in (*own_chain, *signers)]


def _check_platform_type(quote: TdQuote, statement: Statement) -> None:
    found = _platform_type(quote.pck_chain_pem)
    if found != (statement.fmspc, statement.pce_id):
        raise Malformed(
            f"TCB info is for FMSPC {statement.fmspc}, PCE {statement.pce_id}, the platform has {found[0]}, {found[1]}"
        )


@lru_cache(maxsize=256)
def _platform_type(pck_chain_pem: bytes) -> tuple[str, str]:
    extension = dcap_qvl.parse_pck_extension_from_pem(pck_chain_pem.rstrip(b"\0"))
    return extension.fmspc.hex(), extension.pce_id.hex()


@dataclass(frozen=True, slots=True)
class _Certificate:
    common_name: str
    ends_at: int


@lru_cache(maxsize=256)
def _certificate(der: bytes) -> _Certificate:
    certificate = x509.load_der_x509_certificate(der)
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if len(names) == 1 else ""
    return _Certificate(name, int(certificate.not_valid_after_utc.timestamp()))


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
