"""A mirror of AMD's hierarchy with keys of our own: for what genuine reports and certificates cannot show."""

from __future__ import annotations

import datetime
import struct
from dataclasses import dataclass, field, replace
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestation.snp.collateral import AmdCollateral
from attestation.snp.products import Product, TcbVersion, hardware_id_bytes, tcb_bytes, tcb_components
from attestation.snp.report import SIGNED_BYTES, SigningKey

NOW = 1_790_000_000
YEAR = 365 * 86_400
ARC = "1.3.6.1.4.1.3704.1."
LEVELS = {"bootloader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
CHIP = {
    Product.MILAN: bytes(range(1, 65)),
    Product.GENOA: bytes(range(65, 129)),
    Product.TURIN: bytes(range(1, 9)) + bytes(56),
}
CPU = {Product.MILAN: (0x19, 0x01), Product.GENOA: (0x19, 0x11), Product.TURIN: (0x1A, 0x02)}
TCB = {
    Product.MILAN: TcbVersion(4, 0, 24, 219),
    Product.GENOA: TcbVersion(10, 0, 24, 84),
    Product.TURIN: TcbVersion(1, 1, 4, 80, fmc=1),
}
PSS = padding.PSS(padding.MGF1(SHA384()), 48)


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def vek_key(name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def name_of(common_name: str, organization: str = "Advanced Micro Devices") -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


@dataclass(frozen=True)
class Mirror:
    """One product's hierarchy. Every field is a way in which it may differ from an honest one."""

    product: Product = Product.MILAN
    signing_key: SigningKey = SigningKey.VCEK
    tcb: TcbVersion | None = None
    hardware_id: bytes | None = None
    provider: str = "cloud.example"
    product_name: str = ""
    endorsement_name: str = ""
    authority_name: str = ""
    authority_organization: str = "Advanced Micro Devices"
    authority_is_ca: bool = True
    authority_key: str = "authority"
    authority_signer: str = "root"
    endorsement_signer: str = "authority"
    ends: tuple[int, int, int] = (NOW + 9 * YEAR, NOW + 8 * YEAR, NOW + 7 * YEAR)
    """Of root, authority, endorsement."""
    begins: int = NOW - YEAR
    weak_signature: bool = False
    extra: tuple[tuple[str, bytes], ...] = ()
    without: tuple[str, ...] = ()
    crl: bool = True
    crl_signer: str = "root"
    crl_issuer: str = ""
    crl_ends: int = NOW + 60 * 86_400
    revoked: bool = False

    @property
    def root(self) -> x509.Certificate:
        return self._issue(
            f"ARK-{self.product}", f"ARK-{self.product}", "root", "root", self.ends[0], ca=True, serial=1
        )

    def collateral(self) -> AmdCollateral:
        authority, endorsement = self.authority(), self.endorsement()
        crl = self.revocation_list() if self.crl else None
        return AmdCollateral(endorsement.public_bytes(Encoding.DER), authority.public_bytes(Encoding.DER), crl)

    def authority(self) -> x509.Certificate:
        vlek = "VLEK-" if self.signing_key is SigningKey.VLEK else ""
        return self._issue(
            self.authority_name or f"SEV-{vlek}{self.product}",
            f"ARK-{self.product}",
            self.authority_key,
            self.authority_signer,
            self.ends[1],
            ca=self.authority_is_ca,
            serial=7,
            organization=self.authority_organization,
        )

    def endorsement(self) -> x509.Certificate:
        authority = self.authority()
        tcb = self.tcb or TCB[self.product]
        vlek = self.signing_key is SigningKey.VLEK
        name = self.product_name or (self.product.value if vlek else f"{self.product}-B1")
        extensions = {
            "1": b"\x02\x01\x01",
            "2": ia5(name),
            **{LEVELS[each]: integer(getattr(tcb, each)) for each in tcb_components(self.product)},
        }
        if vlek:
            extensions["5"] = ia5(self.provider)
        else:
            chip = CHIP[self.product][: hardware_id_bytes(self.product)]
            extensions["4"] = chip if self.hardware_id is None else self.hardware_id
        extensions.update(self.extra)
        builder = self._builder(
            self.endorsement_name or f"SEV-{self.signing_key.name}", authority.subject, self.ends[2], serial=99
        ).public_key(vek_key("chip").public_key())
        for arc, value in extensions.items():
            if arc not in self.without:
                oid = x509.ObjectIdentifier(ARC + arc)
                builder = builder.add_extension(x509.UnrecognizedExtension(oid, value), critical=False)
        return self._sign(builder, self.endorsement_signer)

    def revocation_list(self) -> bytes:
        issuer = name_of(self.crl_issuer or f"ARK-{self.product}")
        builder = x509.CertificateRevocationListBuilder(issuer, moment(NOW - 100), moment(self.crl_ends))
        if self.revoked:
            entry = x509.RevokedCertificateBuilder(7, moment(NOW - 200)).build()
            builder = builder.add_revoked_certificate(entry)
        crl = builder.sign(rsa_key(self.crl_signer), SHA384(), rsa_padding=PSS)
        return crl.public_bytes(Encoding.DER)

    def report(self, **changes: object) -> bytes:
        return Report(product=self.product, signing_key=self.signing_key).changed(**changes).signed()

    def _builder(
        self, name: str, issuer: x509.Name, ends: int, serial: int, organization: str = "Advanced Micro Devices"
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name_of(name, organization))
            .issuer_name(issuer)
            .serial_number(serial)
            .not_valid_before(moment(self.begins))
            .not_valid_after(moment(ends))
        )

    def _issue(
        self, name: str, issuer: str, key: str, signer: str, ends: int, *, ca: bool, serial: int,
        organization: str = "Advanced Micro Devices",
    ) -> x509.Certificate:  # fmt: skip
        builder = self._builder(name, name_of(issuer), ends, serial, organization)
        builder = builder.public_key(rsa_key(key).public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=0 if ca else None), critical=True)
        return self._sign(builder, signer)

    def _sign(self, builder: x509.CertificateBuilder, signer: str) -> x509.Certificate:
        if self.weak_signature:
            return builder.sign(rsa_key(signer), SHA256(), rsa_padding=padding.PKCS1v15())
        return builder.sign(rsa_key(signer), SHA384(), rsa_padding=PSS)


@dataclass(frozen=True)
class Report:
    """The fields of a report, honest unless changed."""

    product: Product = Product.MILAN
    signing_key: SigningKey = SigningKey.VCEK
    version: int = 5
    guest_svn: int = 2
    guest_policy: int = 0x3_00_00 | 55 | 1 << 8
    vmpl: int = 0
    algorithm: int = 1
    platform_info: int = 0b10_0101
    flags: int | None = None
    report_data: bytes = bytes(64)
    launch_digest: bytes = b"\x11" * 48
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    agent_id: bytes = b"\xff" * 32
    chip_id: bytes | None = None
    current: TcbVersion | None = None
    committed: TcbVersion | None = None
    reported: TcbVersion | None = None
    launch: TcbVersion | None = None
    committed_abi: tuple[int, int] = (1, 55)
    cpu: tuple[int, int] | None = None
    key: str = "chip"
    patches: dict[int, int] = field(default_factory=dict)
    """Bytes set before signing: offset -> value."""

    def changed(self, **changes: object) -> Report:
        return replace(self, **changes)  # type: ignore[arg-type]

    def signed(self) -> bytes:
        body = bytearray(self._body())
        for at, value in self.patches.items():
            body[at] = value
        r, s = decode_dss_signature(vek_key(self.key).sign(bytes(body), ec.ECDSA(SHA384())))
        scalars = b"".join(each.to_bytes(72, "little") for each in (r, s))
        return bytes(body) + scalars.ljust(512, b"\0")

    def _body(self) -> bytes:
        def tcb(name: str) -> bytes:
            return tcb_bytes(getattr(self, name) or TCB[self.product], self.product)

        flags = int(self.signing_key) << 2 if self.flags is None else self.flags
        cpu = self.cpu or CPU[self.product]
        major, minor = self.committed_abi
        abi = bytes((7, minor, major, 0))
        parts = (
            struct.pack("<IIQ", self.version, self.guest_svn, self.guest_policy),
            bytes(32),
            struct.pack("<II", self.vmpl, self.algorithm),
            tcb("current"),
            struct.pack("<QII", self.platform_info, flags, 0),
            self.report_data,
            self.launch_digest,
            self.host_data,
            self.id_key_digest,
            self.author_key_digest,
            b"\x22" * 32,
            self.agent_id,
            tcb("reported"),
            (bytes((*cpu, 1)) if self.version >= 3 else b"").ljust(24, b"\0"),
            CHIP[self.product] if self.chip_id is None else self.chip_id,
            tcb("committed"),
            abi,
            abi,
            tcb("launch"),
        )
        return b"".join(parts).ljust(SIGNED_BYTES, b"\0")


def integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes((2, len(raw))) + raw


def ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode()
