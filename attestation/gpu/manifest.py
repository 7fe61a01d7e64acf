"""Reference integrity manifests (RIM): NVIDIA's signed list of what a driver or a VBIOS measures to.

A SWID tag (ISO/IEC 19770-2, TCG RIM IM) with an enveloped XML signature. Only NVIDIA's form of it is accepted, so
nothing of XML Signature's generality is left to be abused: one reference, to the whole document, one algorithm each.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha384

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from attestation.gpu.canonical import Element, canonical, parse
from attestation.gpu.certificates import Chain, verify_chain
from attestation.strict import Malformed

_SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_TCG = "{https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/}"
_SHA384 = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_DS = "{http://www.w3.org/2000/09/xmldsig#}"
_C14N = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_ECDSA = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"
_DIGEST = "http://www.w3.org/2001/04/xmldsig-more#sha384"
_NVIDIA = "5703"
"""IANA private enterprise number."""
_DIGEST_BYTES = 48
_MAX_NUMBER = 255


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose signature ends in NVIDIA's root. Whether its certificates are valid now is `chain.ends_at`'s."""

    product: str
    version: str
    golden: dict[int, frozenset[bytes]]
    """Acceptable values by index; indices that NVIDIA does not want compared are not in it."""
    chain: Chain


@lru_cache(maxsize=64)
def read(raw: bytes, root: bytes) -> Manifest:
    """Verify and read one manifest; `root` is the pinned one in DER. Raises Malformed.

    Remembered: the same few are read for every node, every hour.
    """
    document = parse(raw)
    if document.name != f"{_SWID}SoftwareIdentity":
        raise Malformed("manifest: not a SWID tag")
    chain = _check_signature(document, root)
    meta = document.only(f"{_SWID}Meta")
    if meta.attributes.get(f"{_TCG}FirmwareManufacturerId") != _NVIDIA:
        raise Malformed("manifest: its firmware is not NVIDIA's")
    product, version = meta.attributes.get("product", ""), meta.attributes.get("colloquialVersion", "")
    if not product or not version:
        raise Malformed("manifest: it names no product or no version")
    return Manifest(product, version, _golden(document.only(f"{_SWID}Payload")), chain)


def _check_signature(document: Element, root: bytes) -> Chain:
    signature = document.only(f"{_DS}Signature")
    _shape(signature, "SignedInfo", "SignatureValue", "KeyInfo")
    signed = signature.only(f"{_DS}SignedInfo")
    _shape(signed, "CanonicalizationMethod", "SignatureMethod", "Reference")
    reference = signed.only(f"{_DS}Reference")
    _shape(reference, "Transforms", "DigestMethod", "DigestValue")
    transforms = reference.only(f"{_DS}Transforms").elements()
    found = (
        _algorithm(signed.only(f"{_DS}CanonicalizationMethod")),
        _algorithm(signed.only(f"{_DS}SignatureMethod")),
        tuple((each.name, _algorithm(each)) for each in transforms),
        _algorithm(reference.only(f"{_DS}DigestMethod")),
        reference.attributes,
    )
    if found != (
        _C14N,
        _ECDSA,
        ((f"{_DS}Transform", _ENVELOPED), (f"{_DS}Transform", _C14N)),
        _DIGEST,
        {"URI": ""},
    ):
        raise Malformed("manifest: signed in another way than NVIDIA's manifests are")
    digest = sha384(canonical(document, without=signature)).digest()
    if not hmac.compare_digest(digest, _base64(reference.only(f"{_DS}DigestValue"), limit=_DIGEST_BYTES)):
        raise Malformed("manifest: it was altered after it was signed")
    holder = signature.only(f"{_DS}KeyInfo").only(f"{_DS}X509Data")
    ders = [_base64(each, limit=1 << 16) for each in holder.elements(f"{_DS}X509Certificate")]
    chain = verify_chain(ders[:8], root, "manifest's signer")
    value = _base64(signature.only(f"{_DS}SignatureValue"), limit=2 * _DIGEST_BYTES)
    if len(value) != 2 * _DIGEST_BYTES:
        raise Malformed("manifest: its signature is not one of ECDSA P-384")
    r, s = (int.from_bytes(value[at : at + _DIGEST_BYTES], "big") for at in (0, _DIGEST_BYTES))
    try:
        chain.leaf_key.verify(encode_dss_signature(r, s), canonical(signed), ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise Malformed("manifest: its signature is not by the signer that it names") from None
    return chain


def _shape(element: Element, *names: str) -> None:
    if [each.name for each in element.elements()] != [_DS + name for name in names]:
        raise Malformed(f"manifest: {element.written} does not hold {', '.join(names)} and nothing else")


def _algorithm(element: Element) -> str:
    if element.elements() or set(element.attributes) != {"Algorithm"}:
        raise Malformed(f"manifest: {element.written} has parameters, which NVIDIA's manifests have not")
    return element.attributes["Algorithm"]


def _base64(element: Element, *, limit: int) -> bytes:
    try:
        found = base64.b64decode("".join(element.text().split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Malformed(f"manifest: {element.written} is not base64") from error
    if len(found) > limit:
        raise Malformed(f"manifest: {element.written} is longer than {limit} bytes")
    return found


def _golden(payload: Element) -> dict[int, frozenset[bytes]]:
    seen: set[int] = set()
    golden: dict[int, frozenset[bytes]] = {}
    for resource in payload.elements():
        found = resource.attributes
        # Newer kinds (least security versions of opaque data, for one) restrict what is acceptable: not to be skipped.
        if resource.name != f"{_SWID}Resource" or found.get("type") != "Measurement":
            raise Malformed(
                f"manifest: it holds {found.get('type', resource.written)!r}, which is not known here; upgrade"
            )
        index, count = _number(found, "index", 0), _number(found, "alternatives", 1)
        names = {name for name in found if name.startswith(_SHA384)}
        if index in seen or names != {f"{_SHA384}Hash{each}" for each in range(count)}:
            raise Malformed(f"manifest: measurement {index} appears twice or has other values than it counts")
        if found.get("size") != str(_DIGEST_BYTES) or found.get("active") not in ("True", "False"):
            raise Malformed(f"manifest: measurement {index} is no SHA-384 digest, or neither active nor inactive")
        seen.add(index)
        if found["active"] == "True":
            golden[index] = frozenset(_digest(found[name], index) for name in names)
    if not golden:
        raise Malformed("manifest: it has no active measurement, so it vouches for nothing")
    return golden


def _number(found: dict[str, str], name: str, low: int) -> int:
    text = found.get(name, "")
    # isdigit alone takes other scripts' digits, and int() takes signs and spaces.
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 3 else -1
    if not low <= number <= _MAX_NUMBER:
        raise Malformed(f"manifest: {name} is {text!r}, expected a number from {low} to {_MAX_NUMBER}")
    return number


def _digest(text: str, index: int) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != _DIGEST_BYTES or len(text) != 2 * _DIGEST_BYTES:
        raise Malformed(f"manifest: a value of measurement {index} is not {_DIGEST_BYTES} bytes in hex")
    return found
