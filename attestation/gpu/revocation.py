"""Whether a certificate was revoked, from lists and responses that the caller brings: nothing is fetched here.

An answer counts for a certificate only if that certificate's issuer signed it (or, OCSP, a responder that the issuer
named), and only until its own end. A revocation found in an old answer still counts; "good" in an old one does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha1, sha256, sha384

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from attestation.gpu.certificates import Chain, name_of
from attestation.gpu.collateral import GpuCollateral
from attestation.strict import Malformed

_MAX_RESPONDERS = 4
"""Certificates in one OCSP response: each costs a verification, for every certificate that is looked up."""
_HASHES = {"sha1": sha1, "sha256": sha256, "sha384": sha384}


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known about the revocation of a chain's certificates."""

    good_until: int | None
    """Unix seconds, exclusive: the earliest end of the answers used; None where none was."""
    unchecked: tuple[str, ...]
    """Names of certificates about which there was no current answer."""


def standing(chain: Chain, first: int, collateral: GpuCollateral, now: int) -> Standing:
    """Look at the certificates from index `first` up to below the root. Raises Malformed for a revoked one."""
    ends, unchecked = [], []
    for certificate, issuer in zip(chain.certificates[first:-1], chain.certificates[first + 1 :], strict=True):
        found = [
            *_by_lists(certificate, issuer, collateral.crls, now),
            *_by_responses(certificate, issuer, collateral.ocsp, now),
        ]
        if any(revoked for revoked, _ in found):
            raise Malformed(f"{chain.what}: certificate {name_of(certificate)!r} was revoked by NVIDIA")
        current = [end for _, end in found if end > now]
        if current:
            ends.append(max(current))
        else:
            unchecked.append(name_of(certificate))
    return Standing(min(ends) if ends else None, tuple(unchecked))


Answers = Iterator[tuple[bool, int]]
"""(revoked, end in unix seconds; 0 where the answer is not to be believed as good)."""


def _by_lists(certificate: x509.Certificate, issuer: x509.Certificate, crls: tuple[bytes, ...], now: int) -> Answers:
    for der in crls:
        try:
            crl = x509.load_der_x509_crl(der)
            # Delta and indirect lists are partial; both carry critical extensions.
            if crl.issuer != certificate.issuer or any(each.critical for each in crl.extensions):
                continue
            if not crl.is_signature_valid(_key(issuer)):
                continue
        except (ValueError, TypeError, x509.InvalidVersion) as error:
            raise Malformed(f"a certificate revocation list cannot be read ({error}); fetch it again") from error
        revoked = crl.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
        after = crl.next_update_utc
        current = after is not None and crl.last_update_utc.timestamp() <= now
        yield revoked, int(after.timestamp()) if after is not None and current else 0


def _by_responses(
    certificate: x509.Certificate, issuer: x509.Certificate, ders: tuple[bytes, ...], now: int
) -> Answers:
    for der in ders:
        try:
            response = ocsp.load_der_ocsp_response(der)
            if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
                continue
            if len(response.certificates) > _MAX_RESPONDERS:
                raise Malformed(f"an OCSP response with {len(response.certificates)} certificates is none of NVIDIA's")
            answers = [each for each in response.responses if _is_about(each, certificate, issuer)]
            if not answers or not _signed(response, issuer, now):
                continue
        except (ValueError, TypeError, x509.InvalidVersion) as error:
            raise Malformed(f"an OCSP response cannot be read ({error}); fetch it again") from error
        for each in answers:
            after = each.next_update_utc
            good = each.certificate_status is ocsp.OCSPCertStatus.GOOD and each.this_update_utc.timestamp() <= now
            yield (
                each.certificate_status is ocsp.OCSPCertStatus.REVOKED,
                int(after.timestamp()) if after is not None and good else 0,
            )


def _is_about(answer: ocsp.OCSPSingleResponse, certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    hashed = _HASHES.get(answer.hash_algorithm.name)
    if hashed is None or answer.serial_number != certificate.serial_number:
        return False
    key = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = certificate.issuer.public_bytes()
    return (answer.issuer_name_hash, answer.issuer_key_hash) == (hashed(name).digest(), hashed(key).digest())


def _signed(response: ocsp.OCSPResponse, issuer: x509.Certificate, now: int) -> bool:
    """RFC 6960, 4.2.2.2: by the issuer itself, or by a responder that it certified for this."""
    for signer in (issuer, *(each for each in response.certificates if _may_answer(each, issuer, now))):
        algorithm = response.signature_hash_algorithm
        try:
            if algorithm is not None:
                _key(signer).verify(response.signature, response.tbs_response_bytes, ec.ECDSA(algorithm))
                return True
        except InvalidSignature:
            continue
    return False


def _may_answer(responder: x509.Certificate, issuer: x509.Certificate, now: int) -> bool:
    try:
        responder.verify_directly_issued_by(issuer)
        usage = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    valid = responder.not_valid_before_utc.timestamp() <= now <= responder.not_valid_after_utc.timestamp()
    return valid and ExtendedKeyUsageOID.OCSP_SIGNING in usage


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed(f"certificate {name_of(certificate)!r} has no key on an elliptic curve")
    return key
