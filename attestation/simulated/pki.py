"""The simulated certificate hierarchy: Intel's, shape for shape, under a root that anyone can sign with.

Every private key is derived from a phrase printed here. That is deliberate: nobody can mistake these keys for secrets,
and nothing that ends in them can be mistaken for hardware.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha512

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

ROOT_NAME = "COCOON SIMULATED ROOT - NOT HARDWARE"
ORGANIZATION = "SIMULATED, NOT INTEL"
_PHRASE = "COCOON SIMULATED ROOT - NOT HARDWARE - this key is public on purpose and protects nothing"
_CURVE_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_BORN = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_ENDS = datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
Validity = tuple[datetime.datetime, datetime.datetime]
_VALIDITY: Validity = (_BORN, _ENDS)
_CRL_URL = "https://simulated.invalid/root.der"


def derive_key(*parts: str | bytes) -> ec.EllipticCurvePrivateKey:
    """A P-256 key determined by `parts`."""
    digest = sha512(b"\0".join(part.encode() if isinstance(part, str) else part for part in parts)).digest()
    return ec.derive_private_key(int.from_bytes(digest, "big") % (_CURVE_ORDER - 1) + 1, ec.SECP256R1())


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """64 bytes r||s over SHA-256 of the message, deterministic (RFC 6979): the form that quotes and collateral use."""
    der = key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    return b"".join(part.to_bytes(32, "big") for part in decode_dss_signature(der))


def raw_public_key(key: ec.EllipticCurvePrivateKey) -> bytes:
    """64 bytes x||y."""
    numbers = key.public_key().public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate with the key behind it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


@cache
def root() -> Authority:
    key = derive_key(_PHRASE, "root")
    return Authority(_issue(ROOT_NAME, key, None, path_length=1), key)


@cache
def platform_ca() -> Authority:
    return _below_root("Intel SGX PCK Platform CA", path_length=0)


@cache
def processor_ca() -> Authority:
    return _below_root("Intel SGX PCK Processor CA", path_length=0)


@cache
def tcb_signer() -> Authority:
    return _below_root("Intel SGX TCB Signing", path_length=None)


def renewed(authority: Authority, validity: Validity, key: ec.EllipticCurvePrivateKey | None = None) -> Authority:
    """Another certificate of an authority below the root, for the same key unless one is given."""
    names = authority.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    constraints = authority.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    key = key or authority.key
    certificate = _issue(
        str(names[0].value), key, root(), path_length=constraints.path_length, validity=validity, salt=b"renewed"
    )
    return Authority(certificate, key)


def pck_certificate(
    key: ec.EllipticCurvePrivateKey,
    sgx_extension: bytes,
    issuer: Authority | None = None,
    validity: Validity | None = None,
) -> Authority:
    """A platform's PCK certificate. `sgx_extension` is the DER of extension 1.2.840.113741.1.13.1."""
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.840.113741.1.13.1"), sgx_extension)
    name = "Intel SGX PCK Certificate"
    certificate = _issue(
        name, key, issuer or platform_ca(), path_length=None, extra=extension, validity=validity or _VALIDITY
    )
    return Authority(certificate, key)


def revocation_list(
    issuer: Authority,
    issued_at: int,
    expires_at: int,
    revoked: tuple[x509.Certificate, ...] = (),
    *,
    serials: Iterable[int] = (),
) -> bytes:
    """DER of a CRL. Times in unix seconds. `serials`: of others beside the certificates `revoked`."""
    begin, end = (datetime.datetime.fromtimestamp(each, datetime.UTC) for each in (issued_at, expires_at))
    builder = x509.CertificateRevocationListBuilder(issuer.certificate.subject, begin, end)
    builder = builder.add_extension(x509.CRLNumber(1), critical=False)
    builder = builder.add_extension(_authority_key(issuer.key), critical=False)
    for serial in (*(certificate.serial_number for certificate in revoked), *serials):
        entry = x509.RevokedCertificateBuilder(serial, begin)
        builder = builder.add_revoked_certificate(entry.build())
    crl = builder.sign(issuer.key, hashes.SHA256(), ecdsa_deterministic=True)
    return crl.public_bytes(Encoding.DER)


def _below_root(name: str, path_length: int | None) -> Authority:
    key = derive_key(_PHRASE, name)
    return Authority(_issue(name, key, root(), path_length=path_length), key)


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: Authority | None,
    *,
    path_length: int | None,
    extra: x509.UnrecognizedExtension | None = None,
    validity: Validity = _VALIDITY,
    salt: bytes = b"",
) -> x509.Certificate:
    """Order of names and extensions as in Intel's certificates, so that a strict reader meets the same layout."""
    signer = key if issuer is None else issuer.key
    subject = _subject(name)
    authority = path_length is not None
    # Positive and 20 bytes long, determined by the key.
    serial = int.from_bytes(b"\x5c" + sha512(raw_public_key(key) + salt).digest()[:19], "big")
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(validity[0])
        .not_valid_after(validity[1])
        .add_extension(_authority_key(signer), critical=False)
        .add_extension(_distribution_point(), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_usage(authority), critical=True)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=path_length), critical=True)
    )
    if extra is not None:
        builder = builder.add_extension(extra, critical=False)
    return builder.sign(signer, hashes.SHA256(), ecdsa_deterministic=True)


def _subject(name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Nowhere"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "NA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "ZZ"),
        ]
    )


def _authority_key(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _distribution_point() -> x509.CRLDistributionPoints:
    name = x509.UniformResourceIdentifier(_CRL_URL)
    return x509.CRLDistributionPoints([x509.DistributionPoint([name], None, None, None)])


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=not authority,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
