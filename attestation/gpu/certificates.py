"""Chains of GPUs and of manifest signers: P-384 throughout, leaf first, the pinned root last (RFC 5280, 6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID, SignatureAlgorithmOID

from attestation.gpu.envelope import Reader
from attestation.strict import Malformed

_DICE_TCB_INFO = x509.ObjectIdentifier("2.23.133.5.4.1.1")
_DICE_COMPOSITE_ID = x509.ObjectIdentifier("2.23.133.5.4.1")
_DMTF_DEVICE_INFO = x509.ObjectIdentifier("1.3.6.1.4.1.412.274.1")
_SHA384_DER = bytes.fromhex("0609608648016503040202")
_UNDERSTOOD = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE, _DICE_TCB_INFO, _DICE_COMPOSITE_ID}
_Extension = TypeVar("_Extension", bound=x509.ExtensionType)
_MODEL = re.compile(r"[A-Z]{2}[0-9]{3}")


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain that ends in the pinned root, every signature and office checked. Times are checked by `ends_at`."""

    certificates: tuple[x509.Certificate, ...]
    what: str

    @property
    def leaf(self) -> x509.Certificate:
        return self.certificates[0]

    @property
    def leaf_key(self) -> ec.EllipticCurvePublicKey:
        return _p384(self.leaf, self.what)

    def ends_at(self, now: int) -> int:
        """Unix seconds, exclusive, at which the first certificate ends. Raises Malformed where one is not valid now."""
        for each in self.certificates:
            if not each.not_valid_before_utc.timestamp() <= now <= each.not_valid_after_utc.timestamp():
                raise Malformed(
                    f"{self.what}: certificate {name_of(each)!r} is valid from {each.not_valid_before_utc:%Y-%m-%d} to "
                    f"{each.not_valid_after_utc:%Y-%m-%d}; fetch the current one, or set the clock right"
                )
        return int(min(each.not_valid_after_utc.timestamp() for each in self.certificates)) + 1


def name_of(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()


def verify_chain(ders: Sequence[bytes], root: bytes, what: str) -> Chain:
    """Raises Malformed. `root` is the pinned certificate in DER, which the chain must end in, to the byte."""
    if len(ders) < 2 or ders[-1] != root:
        raise Malformed(f"{what}: the certificate chain does not end in NVIDIA's pinned root")
    try:
        certificates = tuple(x509.load_der_x509_certificate(each) for each in ders)
        for depth, certificate in enumerate(certificates):
            issuer = certificates[min(depth + 1, len(certificates) - 1)]
            _check_office(certificate, depth, what)
            _p384(certificate, what)
            if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
                raise Malformed(f"{what}: certificate {name_of(certificate)!r} is not signed with ECDSA and SHA-384")
            certificate.verify_directly_issued_by(issuer)
    except InvalidSignature:
        raise Malformed(f"{what}: a certificate in the chain is not signed by the next one") from None
    except Malformed:
        raise
    except (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension) as error:
        raise Malformed(f"{what}: a certificate cannot be read, or its issuer is another ({error})") from error
    return Chain(certificates, what)


def _check_office(certificate: x509.Certificate, depth: int, what: str) -> None:
    unknown = [
        each.oid.dotted_string for each in certificate.extensions if each.critical and each.oid not in _UNDERSTOOD
    ]
    if unknown:
        raise Malformed(f"{what}: critical extension {unknown[0]} in {name_of(certificate)!r} is not understood")
    constraints = _extension(certificate, x509.BasicConstraints)
    usage = _extension(certificate, x509.KeyUsage)
    authority = constraints is not None and constraints.ca
    if (
        usage is None
        or authority is (depth == 0)
        or not (usage.digital_signature if depth == 0 else usage.key_cert_sign)
    ):
        office = "sign reports or manifests" if depth == 0 else "sign certificates"
        raise Malformed(f"{what}: certificate {name_of(certificate)!r} may not {office}")
    below = depth - 1
    if constraints is not None and constraints.path_length is not None and below > constraints.path_length:
        raise Malformed(f"{what}: {below} authorities below {name_of(certificate)!r}, which allows fewer")


def _extension(certificate: x509.Certificate, kind: type[_Extension]) -> _Extension | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _p384(certificate: x509.Certificate, what: str) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Malformed(f"{what}: certificate {name_of(certificate)!r} has no P-384 key")
    return key


def device_id(chain: Chain) -> bytes:
    """SHA-256 of the key burnt into the GPU: the issuer of its attestation key, the same for its whole life."""
    key = chain.certificates[1].public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def chip_of(ders: Sequence[bytes]) -> str:
    """`GH100` and the like: the name in the second certificate, worth what the chain is. Raises Malformed."""
    try:
        name = name_of(x509.load_der_x509_certificate(ders[1]))
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"GPU: its second certificate cannot be read ({error})") from error
    word = name.split(" ")[0]
    if not _MODEL.fullmatch(word):
        raise Malformed(f"GPU: {name!r} does not begin with a chip's name")
    return word


def serial_of(chain: Chain) -> str:
    """`NVIDIA:GH100:<serial>` for people, where the leaf says it (DSP0274, id-DMTF-device-info); else empty."""
    names = _extension(chain.leaf, x509.SubjectAlternativeName)
    for each in names.get_values_for_type(x509.OtherName) if names else ():
        if each.type_id == _DMTF_DEVICE_INFO and each.value[:1] == b"\x0c" and len(each.value) == each.value[1] + 2:
            return each.value[2:].decode("ascii", "replace")
    return ""


def firmware_id(chain: Chain) -> bytes | None:
    """SHA-384 of the firmware that holds the attestation key, as the leaf certifies it (DICE). Raises Malformed."""
    for oid in (_DICE_TCB_INFO, _DICE_COMPOSITE_ID):
        try:
            extension = chain.leaf.extensions.get_extension_for_oid(oid).value
        except x509.ExtensionNotFound:
            continue
        if not isinstance(extension, x509.UnrecognizedExtension):
            continue
        (whole,) = (value for tag, value in _elements(extension.value) if tag == 0x30)
        # DiceTcbInfo: fwids [6] IMPLICIT SEQUENCE OF FWID. Before it, in Hopper: version, device key, one FWID.
        parts = list(_elements(whole))
        if oid == _DICE_TCB_INFO:
            lists = [value for tag, value in parts if tag == 0xA6]
            first = next(_elements(lists[0]), (0, b"")) if lists else (0, b"")
        else:
            first = parts[2] if len(parts) == 3 else (0, b"")
        if first[0] == 0x30 and first[1][:11] == _SHA384_DER and first[1][11:13] == b"\x04\x30" and len(first[1]) == 61:
            return first[1][13:]
        raise Malformed(f"{chain.what}: the firmware id in the certificate is not one SHA-384 digest")
    return None


def _elements(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of DER elements side by side; short tags, definite lengths."""
    reader = Reader(raw, "GPU certificate's extension")
    while reader.left:
        tag, length = reader.take(2)
        if length > 0x82 or length == 0x80:
            raise Malformed("GPU certificate's extension: a length that DER does not have here")
        yield tag, reader.take(length if length < 0x80 else reader.number(length - 0x80))
