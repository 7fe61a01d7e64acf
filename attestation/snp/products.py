"""AMD's processor lines: the root key of each, pinned, and how each writes its TCB version.

Provenance of the roots: Milan's as published with google/go-sev-guest; Genoa's and Turin's compared between two
independent publications of AMD's key distribution service. All three are self-signed certificates, so that a changed
bit would not verify, and the pins are the digests that other projects publish for them. A line whose root could not be
had in this way (Venice) is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from hashlib import sha256
from importlib.resources import files

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.strict import Malformed

TCB_BYTES = 8


class Product(StrEnum):
    """The name that AMD's key distribution service uses for a line; Genoa includes Bergamo and Siena."""

    MILAN = "Milan"
    GENOA = "Genoa"
    TURIN = "Turin"


_ROOT_PINS = {
    Product.MILAN: "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
    Product.GENOA: "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
    Product.TURIN: "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
}

BROKEN = {
    Product.MILAN: "software alone reads the seed of its keys, whatever its firmware (arXiv 2605.12990, May 2026), so "
    "whoever owns such a machine can sign any report",
}
"""Lines whose signatures are genuine and prove nothing against the machine's owner, with the reason."""

# Byte of each component in TCB_VERSION (SEV-SNP ABI 56860, 2.2); bytes that are not named are reserved.
_OLDER_LAYOUT = {"bootloader": 0, "tee": 1, "snp": 6, "microcode": 7}
_TURIN_LAYOUT = {"fmc": 0, "bootloader": 1, "tee": 2, "snp": 3, "microcode": 7}
_LAYOUTS = {Product.MILAN: _OLDER_LAYOUT, Product.GENOA: _OLDER_LAYOUT, Product.TURIN: _TURIN_LAYOUT}

# (family, first model, last model) as CPUID tells them.
_MODELS = {
    Product.MILAN: ((0x19, 0x00, 0x0F),),
    Product.GENOA: ((0x19, 0x10, 0x1F), (0x19, 0xA0, 0xAF)),
    Product.TURIN: ((0x1A, 0x00, 0x11),),
}


@dataclass(frozen=True, slots=True)
class TcbVersion:
    """Security patch levels. Compared component by component: a newer microcode does not excuse an old bootloader."""

    bootloader: int
    tee: int
    snp: int
    microcode: int
    fmc: int = 0
    """Turin and later; 0 before."""

    def reaches(self, floor: TcbVersion) -> bool:
        return not self.below(floor)

    def below(self, floor: TcbVersion) -> tuple[str, ...]:
        """Names of the components that are lower than the floor's."""
        return tuple(name for name in _TURIN_LAYOUT if getattr(self, name) < getattr(floor, name))

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name)}" for name in _TURIN_LAYOUT if name != "fmc" or self.fmc)


def parse_tcb(raw: bytes, product: Product, what: str) -> TcbVersion:
    """Read the 8 bytes of a TCB_VERSION. Raises Malformed on a set reserved byte."""
    layout = _LAYOUTS[product]
    if len(raw) != TCB_BYTES or any(raw[at] for at in range(TCB_BYTES) if at not in layout.values()):
        raise Malformed(f"SEV-SNP report: reserved bytes of {what} are set, which no {product} firmware does")
    return TcbVersion(**{name: raw[at] for name, at in layout.items()})


def tcb_bytes(tcb: TcbVersion, product: Product) -> bytes:
    """The inverse of `parse_tcb`."""
    raw = bytearray(TCB_BYTES)
    for name, at in _LAYOUTS[product].items():
        raw[at] = getattr(tcb, name)
    return bytes(raw)


def tcb_components(product: Product) -> tuple[str, ...]:
    """Names of the components that this line has."""
    return tuple(_LAYOUTS[product])


def hardware_id_bytes(product: Product) -> int:
    """Bytes of CHIP_ID that identify the chip; the rest of its 64 is zero."""
    return 8 if product is Product.TURIN else 64


def is_model_of(product: Product, family: int, model: int) -> bool:
    return any(family == at and first <= model <= last for at, first, last in _MODELS[product])


def of_model(family: int, model: int) -> Product | None:
    """The line that a processor of this CPUID belongs to; None for one whose root is not pinned here."""
    return next((product for product in Product if is_model_of(product, family, model)), None)


class RootMismatch(Exception):
    """A root certificate file is not the pinned one."""


@cache
def root(product: Product) -> x509.Certificate:
    """AMD's root key (ARK) of this line. Raises RootMismatch when the installed file was changed."""
    name = f"amd_ark_{product.value.lower()}.pem"
    certificate = x509.load_pem_x509_certificate(files("attestation").joinpath("roots", name).read_bytes())
    if sha256(certificate.public_bytes(Encoding.DER)).hexdigest() != _ROOT_PINS[product]:
        raise RootMismatch(f"attestation/roots/{name} is not the pinned root; reinstall from a trusted source")
    return certificate
