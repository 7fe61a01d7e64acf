"""A mirror of NVIDIA's hierarchy, for what no genuine sample shows: own roots, GPUs that sign, a signer of manifests.

It writes canonical XML by hand, so that it shares no code with what it tests. Tests load this file by path.
"""

from __future__ import annotations

import base64
import datetime
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import sha384
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import DeviceEvidence, GpuEvidence
from attestation.gpu.roots import Roots

NOW = 1_760_000_000
DAY = 86_400
NONCE = bytes(range(32))
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)
COMPOSITE, TCB_INFO = "2.23.133.5.4.1", "2.23.133.5.4.1.1"


def utc(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def raw_signature(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA384())))
    return r.to_bytes(48, "big") + s.to_bytes(48, "big")


@dataclass(frozen=True)
class Authority:
    """A certificate with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def issue(self, name: str, **options: Any) -> Authority:
        return issue(name, self, **options)


def issue(
    name: str,
    issuer: Authority | None,
    *,
    ca: bool = True,
    path_length: int | None = None,
    start: int = NOW - 100 * DAY,
    end: int = NOW + 100 * DAY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    curve: ec.EllipticCurve | None = None,
    signs: bool = True,
    every_usage: bool = False,
) -> Authority:
    key = ec.generate_private_key(curve or ec.SECP384R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    usage = dict.fromkeys(_USAGES, False)
    if every_usage:
        usage |= {"digital_signature": True, "key_cert_sign": True}
    usage |= {"key_cert_sign": signs, "crl_sign": signs} if ca else {"digital_signature": signs}
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(utc(start))
        .not_valid_after(utc(end))
        .add_extension(x509.KeyUsage(**usage), critical=True)
    )
    if ca:
        builder = builder.add_extension(x509.BasicConstraints(True, path_length), critical=True)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return Authority(builder.sign(issuer.key if issuer else key, SHA384()), key)


def tlv(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else b"\x82" + len(body).to_bytes(2, "big")
    return bytes([tag]) + size + body


def fwid(digest: bytes) -> bytes:
    return tlv(0x30, bytes.fromhex("0609608648016503040202"), tlv(0x04, digest))


def composite_id(digest: bytes, device: ec.EllipticCurvePublicKey) -> x509.UnrecognizedExtension:
    key = device.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    value = tlv(0x30, b"\x02\x01\x01", key, fwid(digest))
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(COMPOSITE), value)


def tcb_info(digest: bytes) -> x509.UnrecognizedExtension:
    value = tlv(
        0x30, tlv(0x80, b"NVIDIA"), tlv(0x81, b"GB100"), tlv(0xA6, fwid(digest), fwid(bytes(48))), tlv(0x87, b"\0\0")
    )
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(TCB_INFO), value)


@dataclass(frozen=True)
class Device:
    """A GPU as it would answer."""

    chip: str
    authorities: tuple[Authority, ...]
    """Leaf first."""
    measurements: dict[int, bytes]
    opaque: dict[int, bytes]
    firmware: bytes

    @property
    def chain(self) -> tuple[bytes, ...]:
        return tuple(der(each.certificate) for each in self.authorities)

    def with_opaque(self, **fields: bytes | None) -> Device:
        changed = {int(name[1:]): value for name, value in fields.items()}
        return replace(self, opaque={k: v for k, v in {**self.opaque, **changed}.items() if v is not None})

    def report(self, nonce: bytes = NONCE) -> bytes:
        request = bytes([0x11, 0xE0, 0x01, 0xFF]) + nonce + b"\0"
        blocks = b"".join(
            bytes([index + 1, 1])
            + (len(value) + 3).to_bytes(2, "little")
            + b"\x01"
            + len(value).to_bytes(2, "little")
            + value
            for index, value in self.measurements.items()
        )
        opaque = b"".join(
            kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value for kind, value in self.opaque.items()
        )
        response = (
            bytes([0x11, 0x60, 0, 0, len(self.measurements)])
            + len(blocks).to_bytes(3, "little")
            + blocks
            + b"R" * 32
            + len(opaque).to_bytes(2, "little")
            + opaque
        )
        return request + response + raw_signature(self.authorities[0].key, request + response)

    def evidence(self, nonce: bytes = NONCE) -> DeviceEvidence:
        return DeviceEvidence(self.chain, self.report(nonce))


def vbios_field(version: str) -> bytes:
    a, b, c, d, e = (int(each, 16) for each in version.split("."))
    return bytes([d, c, b, a, e, 0, 0, 0])


@dataclass
class Mirror:
    """Roots and their offices; `now` is when everything is valid."""

    root: Authority = field(default_factory=lambda: issue("Mirror Device Identity CA", None, end=NOW + 4000 * DAY))
    manifest_root: Authority = field(
        default_factory=lambda: issue("Mirror CoRIM signing Root CA", None, end=NOW + 4000 * DAY)
    )

    def __post_init__(self) -> None:
        self.identity = self.root.issue("NVIDIA Mirror Identity")
        self.signer_authority = self.manifest_root.issue("Mirror Reference Value CA", path_length=0)
        self.signer = self.signer_authority.issue("Mirror RIM Signer", ca=False, end=NOW + 50 * DAY)

    @property
    def roots(self) -> Roots:
        return Roots(der(self.root.certificate), der(self.manifest_root.certificate))

    def device(self, chip: str = "GH100", *, leaf_options: dict[str, Any] | None = None) -> Device:
        firmware = sha384(b"firmware of " + chip.encode()).digest()
        burnt = self.identity.issue(f"{chip} A01 GSP BROM")
        if chip == "GH100":
            extension: x509.ExtensionType = composite_id(firmware, burnt.key.public_key())
        else:
            extension = tcb_info(firmware)
        options = {"ca": False, "end": NOW + 9000 * DAY, "extensions": ((extension, False),), **(leaf_options or {})}
        leaf = burnt.issue(f"{chip} A01 GSP FMC LF", **options)
        opaque = {
            3: b"570.10.02\0",
            6: vbios_field("96.00.9F.00.01"),
            11: b"\xaa",
            15: b"882\0",
            17: b"g520\0",
            18: b"0200\0",
            20: firmware,
        }
        if chip != "GH100":
            opaque |= {34: b"\x01\0\0\0", 35: chip.encode() + b"\0", 36: b"\0\0\0\0"}
        measurements = {index: sha384(f"{chip} {index}".encode()).digest() for index in range(40)}
        return Device(chip, (leaf, burnt, self.identity, self.root), measurements, opaque, firmware)

    def manifest(
        self,
        golden: dict[int, tuple[bytes, ...]],
        *,
        version: str,
        product: str = "GH100",
        inactive: tuple[int, ...] = (),
        signer: tuple[Authority, ...] | None = None,
        body: str | None = None,
    ) -> bytes:
        iso = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
        tcg = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
        scope = f'xmlns="{iso}" xmlns:ns0="{iso}" xmlns:ns1="{tcg}" xmlns:ns2="http://www.w3.org/2001/04/xmlenc#sha384"'
        resources = "".join(
            f'<ns0:Resource active="{index not in inactive}" alternatives="{len(values)}" index="{index}" size="48" '
            'type="Measurement" '
            + " ".join(f'ns2:Hash{number}="{value.hex()}"' for number, value in enumerate(values))
            + "></ns0:Resource>\n"
            for index, values in golden.items()
        )
        content = (
            f'<ns0:Meta colloquialVersion="{version}" product="{product}" ns1:FirmwareManufacturerId="5703"></ns0:Meta>'
            f"<ns0:Payload>{resources}</ns0:Payload>"
            if body is None
            else body
        )
        whole = f'<SoftwareIdentity {scope} name="{product}">{content}</SoftwareIdentity>'
        return self.sign(whole, scope, signer)

    def sign(self, whole: str, scope: str, signer: tuple[Authority, ...] | None = None) -> bytes:
        """`whole` must already be canonical; the signature becomes the root's last child."""
        chain = signer or (self.signer, self.signer_authority, self.manifest_root)
        ds, c14n = "http://www.w3.org/2000/09/xmldsig#", "http://www.w3.org/2006/12/xml-c14n11"
        inner = (
            f'<ds:CanonicalizationMethod Algorithm="{c14n}"></ds:CanonicalizationMethod>'
            '<ds:SignatureMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"></ds:SignatureMethod>'
            f'<ds:Reference URI=""><ds:Transforms><ds:Transform Algorithm="{ds}enveloped-signature"></ds:Transform>'
            f'<ds:Transform Algorithm="{c14n}"></ds:Transform></ds:Transforms>'
            '<ds:DigestMethod Algorithm="http://www.w3.org/2001/04/xmldsig-more#sha384"></ds:DigestMethod>'
            f"<ds:DigestValue>{base64.b64encode(sha384(whole.encode()).digest()).decode()}</ds:DigestValue></ds:Reference>"
        )
        # In Canonical XML the apex shows every namespace in scope, by prefix.
        default, others = scope.split(" xmlns:", 1)
        signed = f'<ds:SignedInfo {default} xmlns:ds="{ds}" xmlns:{others}>{inner}</ds:SignedInfo>'
        value = base64.b64encode(raw_signature(chain[0].key, signed.encode())).decode()
        certificates = "".join(
            f"<ds:X509Certificate>{base64.b64encode(der(each.certificate)).decode()}\n</ds:X509Certificate>"
            for each in chain
        )
        signature = (
            f'<ds:Signature xmlns:ds="{ds}"><ds:SignedInfo>{inner}</ds:SignedInfo><ds:SignatureValue>{value}'
            f"</ds:SignatureValue><ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        )
        end = "</SoftwareIdentity>"
        return (whole.removesuffix(end) + signature + end).encode()

    def collateral(self, *devices: Device, **revocation: tuple[bytes, ...]) -> GpuCollateral:
        """Manifests that fit these devices: the driver's of even measurements, the VBIOS's of odd ones."""
        manifests = {}
        for device in devices:
            driver = device.opaque[3].rstrip(b"\0").decode()
            kind = "DRIVER" if device.chip == "GH100" else "CC_DRIVER"
            halves = [
                {index: (value,) for index, value in device.measurements.items() if index % 2 == half}
                for half in (0, 1)
            ]
            manifests[f"NV_GPU_{kind}_{device.chip}_{driver}"] = self.manifest(
                halves[0], version=driver, product=device.chip
            )
            manifests["NV_GPU_VBIOS_G520_0200_882_96009F0001"] = self.manifest(
                halves[1], version="96.00.9F.00.01", product=device.chip
            )
        return GpuCollateral(manifests, **revocation)


@cache
def mirror() -> Mirror:
    return Mirror()


def envelope(*devices: Device, nonce: bytes = NONCE) -> bytes:
    return GpuEvidence(tuple(each.evidence(nonce) for each in devices)).to_bytes()


def crl(issuer: Authority, *revoked: Authority, start: int = NOW - DAY, end: int = NOW + DAY) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(utc(start))
        .next_update(utc(end))
    )
    for each in revoked:
        entry = (
            x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number).revocation_date(utc(start))
        )
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(issuer.key, SHA384()).public_bytes(Encoding.DER)
