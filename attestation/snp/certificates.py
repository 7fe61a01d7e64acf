"""From AMD's pinned root to the key that signed a report (AMD document 57230, VCEK certificate and KDS interface).

ARK -> ASK -> VCEK for a chip's own key, ARK -> ASVK -> VLEK for a cloud provider's. The VCEK's extensions say which
chip it is for and under which TCB, so that a report can be held against them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, NameOID

from attestation.snp import products
from attestation.snp.products import Product, TcbVersion, hardware_id_bytes, tcb_components
from attestation.snp.report import SigningKey
from attestation.strict import Malformed

# AMD gives every VCEK the serial number 0, which RFC 5280 does not allow.
warnings.filterwarnings("ignore", "Parsed a serial number which wasn't positive", CryptographyDeprecationWarning)

_ARC = "1.3.6.1.4.1.3704.1."
_STRUCT_VERSION, _PRODUCT_NAME, _HARDWARE_ID, _PROVIDER_ID = (_ARC + each for each in ("1", "2", "4", "5"))
_LEVELS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_LEVEL_ARCS = tuple(f"3.{number}" for number in range(1, 10))
_KNOWN = {_STRUCT_VERSION, _PRODUCT_NAME, _HARDWARE_ID, _PROVIDER_ID, *(_ARC + each for each in _LEVEL_ARCS)}
_CRITICAL_PERMITTED = {ExtensionOID.BASIC_CONSTRAINTS.dotted_string, ExtensionOID.KEY_USAGE.dotted_string}
_ORGANIZATION = "Advanced Micro Devices"
_FAMILY_NAMES = {
    Product.MILAN: ("Milan",),
    Product.GENOA: ("Genoa", "Bergamo", "Siena"),
    Product.TURIN: ("Turin",),
}
_INTEGER, _IA5_STRING = 0x02, 0x16


@dataclass(frozen=True, slots=True)
class Endorsement:
    """A verified key of a report, and what AMD says of it."""

    product: Product
    key: ec.EllipticCurvePublicKey
    tcb: TcbVersion
    hardware_id: bytes
    """Of the chip; empty for a VLEK."""
    provider: str
    """The cloud provider that a VLEK was issued to; empty for a VCEK."""
    expires_at: int
    """Unix seconds, exclusive: earliest end of the three certificates and of the revocation list."""
    revocation_checked: bool


def endorse(leaf: bytes, authority: bytes, crl: bytes | None, signing_key: SigningKey, now: int) -> Endorsement:
    """Verify the chain at `now` (unix seconds). Raises Malformed (a ValueError) with the reason."""
    vek, signer = _load(leaf, signing_key.name), _load(authority, _authority_name(signing_key))
    product = _product(signer)
    root = products.root(product)
    ends = [_valid(root, f"ARK of {product}", now)]
    _signed(signer, root, f"{_authority_name(signing_key)} certificate", f"AMD's pinned root of {product}")
    ends.append(_valid(signer, f"{_authority_name(signing_key)} certificate", now))
    _office(signer, f"SEV-VLEK-{product}" if signing_key is SigningKey.VLEK else f"SEV-{product}", authority=True)
    _signed(vek, signer, f"{signing_key.name} certificate", f"the {_authority_name(signing_key)} given with it")
    ends.append(_valid(vek, f"{signing_key.name} certificate", now))
    _office(vek, f"SEV-{signing_key.name}", authority=False)
    if crl is not None:
        ends.append(_not_revoked(crl, signer, root, now))
    key = vek.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise Malformed(f"the {signing_key.name} certificate holds no P-384 key")
    said = _extensions(vek, product, signing_key)
    return Endorsement(
        product=product,
        key=key,
        tcb=TcbVersion(**{name: _small_integer(said, _LEVELS[name]) for name in tcb_components(product)}),
        hardware_id=said.get(_HARDWARE_ID, b""),
        provider=_ia5(said[_PROVIDER_ID], "provider id") if _PROVIDER_ID in said else "",
        expires_at=min(ends),
        revocation_checked=crl is not None,
    )


def product_of_authority(authority: bytes) -> Product:
    """The line that an ASK or ASVK certificate is for, unverified. Raises Malformed."""
    return _product(_load(authority, "ASK or ASVK"))


def _authority_name(signing_key: SigningKey) -> str:
    return "ASVK" if signing_key is SigningKey.VLEK else "ASK"


def _load(der: bytes, what: str) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"the {what} certificate is not X.509 in DER ({error}); fetch it again") from error


def _product(authority: x509.Certificate) -> Product:
    name = _common_name(authority.issuer)
    found = next((product for product in Product if name == f"ARK-{product}"), None)
    if found is None:
        raise Malformed(
            f"the certificates end in {name!r}; roots are known for {', '.join(Product)} only, so this cannot be judged"
        )
    return found


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def _signed(certificate: x509.Certificate, signer: x509.Certificate, what: str, by: str) -> None:
    """RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes: the only form that AMD signs with."""
    key = signer.public_key()
    scheme = certificate.signature_algorithm_parameters
    if not isinstance(scheme, padding.PSS) or not isinstance(certificate.signature_hash_algorithm, SHA384):
        raise Malformed(f"the {what} is not signed with RSASSA-PSS and SHA-384")
    if not isinstance(key, rsa.RSAPublicKey) or certificate.issuer != signer.subject:
        raise Malformed(f"the {what} is not issued by {by}")
    try:
        key.verify(certificate.signature, certificate.tbs_certificate_bytes, _pss(), SHA384())
    except InvalidSignature as error:
        raise Malformed(f"the {what} is not signed by {by}") from error


def _pss() -> padding.PSS:
    return padding.PSS(padding.MGF1(SHA384()), SHA384.digest_size)


def _valid(certificate: x509.Certificate, what: str, now: int) -> int:
    """The certificate's end, unix seconds, exclusive."""
    begin, end = (int(each.timestamp()) for each in (certificate.not_valid_before_utc, certificate.not_valid_after_utc))
    if not begin <= now < end:
        raise Malformed(f"the {what} is valid from {begin} to {end}, now is {now}; fetch the current one from AMD")
    return end


def _office(certificate: x509.Certificate, name: str, *, authority: bool) -> None:
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if _common_name(certificate.subject) != name or [each.value for each in organizations] != [_ORGANIZATION]:
        raise Malformed(f"a certificate stands where {name!r} of AMD belongs: {certificate.subject.rfc4514_string()}")
    try:
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if is_authority != authority:
        raise Malformed(f"the certificate of {name!r} is {'no' if authority else 'an'} issuing authority")


def _not_revoked(der: bytes, authority: x509.Certificate, root: x509.Certificate, now: int) -> int:
    """The end of the list, unix seconds. The root's list names authorities; AMD ends a VCEK by a TCB floor."""
    try:
        crl = x509.load_der_x509_crl(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"AMD's revocation list is not a CRL in DER ({error}); fetch it again") from error
    key = root.public_key()
    scheme = crl.signature_algorithm_parameters
    if not isinstance(key, rsa.RSAPublicKey) or not isinstance(scheme, padding.PSS) or crl.issuer != root.subject:
        raise Malformed("the revocation list is not issued by AMD's pinned root")
    try:
        key.verify(crl.signature, crl.tbs_certlist_bytes, _pss(), SHA384())
    except InvalidSignature as error:
        raise Malformed("the revocation list is not signed by AMD's pinned root") from error
    if crl.next_update_utc is None:
        raise Malformed("the revocation list has no nextUpdate: an old one could be served for ever")
    begin, end = int(crl.last_update_utc.timestamp()), int(crl.next_update_utc.timestamp())
    if not begin <= now < end:
        raise Malformed(f"the revocation list is valid from {begin} to {end}, now is {now}; fetch the current one")
    if crl.get_revoked_certificate_by_serial_number(authority.serial_number) is not None:
        raise Malformed(f"AMD revoked {_common_name(authority.subject)!r}; no key below it is believed")
    return end


def _extensions(vek: x509.Certificate, product: Product, signing_key: SigningKey) -> dict[str, bytes]:
    """AMD's own extensions by OID, raw. Raises Malformed unless all that the key's kind needs are there, and no other
    that this program does not know."""
    found: dict[str, bytes] = {}
    for each in vek.extensions:
        oid = each.oid.dotted_string
        if oid in _KNOWN and isinstance(each.value, x509.UnrecognizedExtension):
            found[oid] = each.value.value
        elif oid.startswith(_ARC) or (each.critical and oid not in _CRITICAL_PERMITTED):
            raise Malformed(f"the {signing_key.name} certificate has extension {oid}, which this program does not know")
    wanted = {_PRODUCT_NAME, *(_ARC + _LEVELS[name] for name in tcb_components(product))}
    own, other = (_PROVIDER_ID, _HARDWARE_ID) if signing_key is SigningKey.VLEK else (_HARDWARE_ID, _PROVIDER_ID)
    missing = sorted({*wanted, own} - found.keys())
    if missing or other in found:
        raise Malformed(
            f"the {signing_key.name} certificate lacks {', '.join(missing)}"
            if missing
            else f"the {signing_key.name} certificate has extension {other} of the other kind of key"
        )
    name = _ia5(found[_PRODUCT_NAME], "product name")
    if name.partition("-")[0] not in _FAMILY_NAMES[product]:
        raise Malformed(f"the {signing_key.name} certificate is for product {name!r} under the root of {product}")
    if own == _HARDWARE_ID and len(found[own]) != hardware_id_bytes(product):
        raise Malformed(f"the hardware id has {len(found[own])} bytes, {product} has {hardware_id_bytes(product)}")
    return found


def _small_integer(said: dict[str, bytes], arc: str) -> int:
    """A DER INTEGER from 0 to 255."""
    raw = said[_ARC + arc]
    if raw[:1] != bytes((_INTEGER,)) or raw[1:2] not in (b"\x01", b"\x02") or len(raw) != 2 + raw[1]:
        raise Malformed(f"extension {_ARC}{arc} is no patch level")
    value = int.from_bytes(raw[2:], "big", signed=True)
    if not 0 <= value <= 255 or (raw[1] == 2 and value < 128):
        raise Malformed(f"extension {_ARC}{arc} is no patch level")
    return value


def _ia5(raw: bytes, what: str) -> str:
    if len(raw) < 3 or raw[0] != _IA5_STRING or raw[1] != len(raw) - 2 or raw[1] > 127 or not raw[2:].isascii():
        raise Malformed(f"the {what} in the certificate is no IA5String")
    return raw[2:].decode("ascii")
