"""RA-TLS certificates: an attested machine's TLS key, with the evidence inside the certificate. Pure.

The chain of trust is: hardware root -> quote -> signing key (REPORTDATA) -> TLS key (TL-B TlsKey) -> this connection
(CertificateVerify, RFC 8446 4.4.3). X.509 itself proves nothing here: certificates are issued by an anchor whose key is
public, so that an unchanged TLS library asks for one from either side and checks form and dates; everything that counts
is in one extension and is checked by `check_certificate`.
"""

from __future__ import annotations

import datetime
import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from attestation import strict
from attestation.collateral import AnyCollateral
from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence
from attestation.strict import Malformed
from attestation.verify import Verdict
from wrappers.signed import TlsKey, node_id, sign, verify

EXTENSION = x509.ObjectIdentifier("2.25.115142270883812119421020524215843963910")
"""Under the arc of UUIDs (ITU-T X.667), of 569f9840-9e22-5a28-993d-5bb18a804406: needs no registration."""
MAX_LIFE_SECONDS = 24 * 3600
CLOCK_SKEW_SECONDS = 300
MAX_CERTIFICATE_BYTES = 96 * 1024
"""OpenSSL takes chains of 100 KiB unless told otherwise. Evidence of about eight GPUs fits."""
_MAX_DOCUMENT_BYTES = 2 * 1024 * 1024
_VERSION = 1
_ANCHOR_NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "COCOON RA-TLS ANCHOR - PUBLIC KEY, PROVES NOTHING")])
_ANCHOR_PHRASE = b"cocoon ra-tls anchor: this key is public on purpose and protects nothing"
_ANCHOR_BORN, _ANCHOR_ENDS = (datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) for year in (2020, 2049))

Judge = Callable[[Evidence, AnyCollateral], Verdict]
"""The verifier's own judgement of evidence: policy, time and what it expects are inside."""


class PeerRefused(Exception):
    """The other side is not who it must be. The text names the reason."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, both PEM; what `attestation.tls` is given."""

    certificate: bytes
    key: bytes
    expires_at: int

    def __repr__(self) -> str:
        return f"Identity(expires_at={self.expires_at})"


@dataclass(frozen=True, slots=True)
class Peer:
    """The attested machine at the other end of a connection. `node` is an account, `expires_at` unix seconds."""

    node: bytes
    node_epoch: int
    node_id: bytes
    signing_key: bytes
    expires_at: int
    verdict: Verdict


def issue(
    evidence: Evidence,
    collateral: AnyCollateral,
    signing_key: Ed25519PrivateKey,
    now: int,
    life_seconds: int = MAX_LIFE_SECONDS,
) -> Identity:
    """A new TLS key, certified until now + life. Raises Malformed where the evidence does not fit into it."""
    if not 0 < life_seconds <= MAX_LIFE_SECONDS:
        raise ValueError(f"a TLS key lives for at most {MAX_LIFE_SECONDS} s")
    binding, expires_at = evidence.binding, now + life_seconds
    key = ec.generate_private_key(ec.SECP256R1())
    statement = TlsKey(
        node_id(binding.network_id, binding.node, binding.node_epoch), _spki_hash(key.public_key()), expires_at
    )
    document = {
        "version": _VERSION,
        "evidence": json.loads(evidence.to_json()),
        "collateral": json.loads(collateral.to_json()),
        "expires_at": expires_at,
        "signature": sign(statement, signing_key).hex(),
    }
    packed = zlib.compress(json.dumps(document, sort_keys=True).encode(), 9)
    certificate = _certificate(key.public_key(), packed, now, expires_at)
    size = len(certificate.public_bytes(Encoding.DER))
    if size > MAX_CERTIFICATE_BYTES:
        raise Malformed(f"the evidence makes a certificate of {size} bytes, more than {MAX_CERTIFICATE_BYTES}")
    return Identity(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        expires_at,
    )


def check_certificate(der: bytes, now: int, judge: Judge) -> Peer:
    """Who holds the key of this certificate, at `now` (unix seconds). Raises PeerRefused.

    That the other side does hold it is TLS' part: without that, a certificate is only a copy of a public thing.
    """
    try:
        document, public_key = _read(der)
        return _peer(document, public_key, now, judge)
    except Malformed as error:
        raise PeerRefused(str(error)) from error


@cache
def anchor_pem() -> str:
    """The certificate that TLS libraries are told to trust as an authority. Anyone can issue under it."""
    key = _anchor_key()
    builder = x509.CertificateBuilder(_ANCHOR_NAME, _ANCHOR_NAME, key.public_key(), 1, _ANCHOR_BORN, _ANCHOR_ENDS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


@cache
def _anchor_key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(sha256(_ANCHOR_PHRASE).digest()[:31], "big"), ec.SECP256R1())


def _certificate(key: ec.EllipticCurvePublicKey, packed: bytes, now: int, expires_at: int) -> x509.Certificate:
    begin, end = (datetime.datetime.fromtimestamp(at, datetime.UTC) for at in (now - CLOCK_SKEW_SECONDS, expires_at))
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "cocoon attested machine")])
    builder = x509.CertificateBuilder(_ANCHOR_NAME, name, key, x509.random_serial_number(), begin, end)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(_anchor_key().public_key())
    builder = builder.add_extension(authority, critical=False)
    # Not critical: TLS libraries refuse critical extensions that they do not know, and do not have to know this one.
    builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, packed), critical=False)
    return builder.sign(_anchor_key(), hashes.SHA256())


def _spki_hash(key: ec.EllipticCurvePublicKey) -> bytes:
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _read(der: bytes) -> tuple[dict[str, Any], ec.EllipticCurvePublicKey]:
    if len(der) > MAX_CERTIFICATE_BYTES:
        raise Malformed(f"certificate: {len(der)} bytes, more than {MAX_CERTIFICATE_BYTES}")
    try:
        certificate = x509.load_der_x509_certificate(der)
        extension = certificate.extensions.get_extension_for_oid(EXTENSION).value
        key = certificate.public_key()
    except x509.ExtensionNotFound as error:
        raise Malformed("certificate: it carries no evidence; this is no attested machine") from error
    except Exception as error:  # the parser raises many unrelated types on hostile input
        raise Malformed(f"certificate: it cannot be read ({type(error).__name__})") from error
    if not isinstance(extension, x509.UnrecognizedExtension) or not isinstance(key, ec.EllipticCurvePublicKey):
        raise Malformed("certificate: not an RA-TLS certificate over an elliptic curve key")
    return strict.json_object(_unpacked(extension.value), "certificate", limit_bytes=_MAX_DOCUMENT_BYTES), key


def _unpacked(packed: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(packed, _MAX_DOCUMENT_BYTES)
    except zlib.error as error:
        raise Malformed("certificate: its evidence cannot be unpacked") from error
    if not stream.eof or stream.unused_data:
        raise Malformed(
            f"certificate: its evidence is cut off, followed by something, or over {_MAX_DOCUMENT_BYTES} bytes"
        )
    return found


def _peer(document: dict[str, Any], key: ec.EllipticCurvePublicKey, now: int, judge: Judge) -> Peer:
    what = "certificate"
    strict.only_keys(document, what, required=("version", "evidence", "collateral", "expires_at", "signature"))
    if document["version"] != _VERSION:
        raise Malformed(
            f"certificate: version {document['version']!r}, this program reads {_VERSION}; upgrade the older side"
        )
    expires_at = strict.integer_field(document, "expires_at", what, low=0, high=2**32 - 1)
    if not now < expires_at <= now + MAX_LIFE_SECONDS + CLOCK_SKEW_SECONDS:
        raise Malformed(f"certificate: its key ends at {expires_at}, now is {now}; it must end within a day from now")
    evidence = Evidence.from_json(json.dumps(document["evidence"]))
    collateral = parse_collateral(json.dumps(document["collateral"]))
    binding = evidence.binding
    identity = node_id(binding.network_id, binding.node, binding.node_epoch)
    signature = strict.hex_field(document, "signature", what, length=64)
    if not verify(TlsKey(identity, _spki_hash(key), expires_at), signature, binding.signing_key):
        raise Malformed(
            "certificate: its key is not vouched for by the attested signing key; it was made by somebody else"
        )
    verdict = judge(evidence, collateral)
    if not verdict.accepted:
        raise PeerRefused("; ".join(verdict.reasons))
    if verdict.signing_key != binding.signing_key:
        raise Malformed("certificate: the verdict is about another key")
    return Peer(binding.node, binding.node_epoch, identity, binding.signing_key, expires_at, verdict)
