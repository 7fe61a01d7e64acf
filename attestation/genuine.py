"""Whether Intel's collateral is Intel's, by itself: before it is kept, and without a quote to judge.

A cache that believed what it is sent could be filled with statements dated far ahead, and would then refuse the true
ones as older. So nothing is kept that is not signed up to the pinned root, in time, and by the right office.
"""

from __future__ import annotations

from contextlib import suppress

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from attestation.collateral import Collateral, issued_at, read
from attestation.quote import certificates
from attestation.strict import Malformed
from attestation.trust_roots import Root

_TCB_SIGNER = "Intel SGX TCB Signing"
_PCK_AUTHORITIES = {"platform": "Intel SGX PCK Platform CA", "processor": "Intel SGX PCK Processor CA"}
AUTHORITIES = tuple(_PCK_AUTHORITIES)
CLOCK_SKEW_SECONDS = 300

Ages = dict[str, int]
"""What may only grow from one set of collateral to the next, by its name."""


def check_genuine(collateral: Collateral, root: Root, fmspc: str, authority: str, now: int) -> tuple[Ages, int]:
    """(ages, end in unix seconds). `authority` is one of AUTHORITIES. Raises Malformed."""
    statement = read(collateral)
    if statement.fmspc != fmspc:
        raise Malformed(f"the TCB info is for FMSPC {statement.fmspc}, asked for was {fmspc}")
    if statement.expires_at <= now:
        raise Malformed(f"it ended at {statement.expires_at}, now is {now}")
    trusted = x509.load_der_x509_certificate(root.der)
    ends = [statement.expires_at]
    for what, chain, text, signature in (
        ("TCB info", collateral.tcb_info_issuer_chain, collateral.tcb_info, collateral.tcb_info_signature),
        ("QE identity", collateral.qe_identity_issuer_chain, collateral.qe_identity, collateral.qe_identity_signature),
    ):
        signer = _below_root(chain, trusted, _TCB_SIGNER, f"{what} issuer chain", now)
        ends.append(int(signer.not_valid_after_utc.timestamp()))
        _check_signature(signer, signature, text.encode(), what)
    chain = collateral.pck_crl_issuer_chain
    pck_authority = _below_root(chain, trusted, _PCK_AUTHORITIES[authority], "PCK CRL issuer chain", now)
    ages = {
        "TCB info issue date": issued_at(collateral.tcb_info, "TCB info"),
        "QE identity issue date": issued_at(collateral.qe_identity, "QE identity"),
        "evaluation number": statement.evaluation_number,
        **crl_ages(collateral.root_ca_crl, trusted, "root CRL"),
        **crl_ages(collateral.pck_crl, pck_authority, "PCK CRL"),
    }
    ahead = [name for name, value in ages.items() if name.endswith("date") and value > now + CLOCK_SKEW_SECONDS]
    if ahead:
        raise Malformed(f"{ahead[0]} lies in the future; set the clock right")
    return ages, min(ends)


def crl_ages(der: bytes, issuer: x509.Certificate, what: str) -> Ages:
    """Raises Malformed unless the list is signed by the issuer (Intel's form: ECDSA)."""
    crl = x509.load_der_x509_crl(der)
    key = issuer.public_key()
    if crl.issuer != issuer.subject or not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed(f"the {what} is not issued by {issuer.subject.rfc4514_string()}")
    if not crl.is_signature_valid(key):
        raise Malformed(f"the {what} is not signed by {issuer.subject.rfc4514_string()}")
    return crl_numbers(crl, what)


def crl_numbers(crl: x509.CertificateRevocationList, what: str) -> Ages:
    ages = {f"{what} date": int(crl.last_update_utc.timestamp())}
    with suppress(x509.ExtensionNotFound):
        ages[f"{what} number"] = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return ages


def older(found: Ages, than: Ages) -> list[str]:
    """Names of what went backwards. A number that disappeared counts as gone back."""
    return [name for name, value in than.items() if found.get(name, -1) < value]


def _below_root(pem: str, root: x509.Certificate, name: str, what: str, now: int) -> x509.Certificate:
    chain = [x509.load_der_x509_certificate(der) for der in certificates(pem.encode(), what)]
    if len(chain) != 2 or chain[1] != root:
        raise Malformed(f"{what}: it is not one certificate and the pinned root")
    names = chain[0].subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if [each.value for each in names] != [name]:
        raise Malformed(f"{what}: the signer is not {name!r}")
    try:
        chain[0].verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise Malformed(f"{what}: not signed by the pinned root") from error
    begin, end = chain[0].not_valid_before_utc.timestamp(), chain[0].not_valid_after_utc.timestamp()
    if not begin <= now < end:
        raise Malformed(f"{what}: {name!r} is valid from {int(begin)} to {int(end)}, now is {now}")
    return chain[0]


def _check_signature(signer: x509.Certificate, signature: bytes, text: bytes, what: str) -> None:
    key = signer.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed(f"{what}: its signer has no elliptic-curve key")
    r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:]))
    try:
        key.verify(encode_dss_signature(r, s), text, ec.ECDSA(SHA256()))
    except InvalidSignature as error:
        raise Malformed(f"{what}: not signed by {_TCB_SIGNER!r}; it was altered on the way") from error
