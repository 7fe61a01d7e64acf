"""NVIDIA's two roots, pinned by hash in the code: one for devices, one for reference manifests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.trust_roots import RootMismatch

_PINS = {
    "nvidia_device_root.pem": "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48",
    "nvidia_rim_root.pem": "12977b5115acb0381179279fffeb5a8c4d264971ebb32298023a465fa41df5d1",
}


@dataclass(frozen=True, slots=True)
class Roots:
    """DER of each. Neither vouches for the other's work: a manifest signer cannot make a GPU, nor a GPU a manifest."""

    device: bytes
    manifest: bytes


@cache
def nvidia() -> Roots:
    """Raises RootMismatch when an installed file was changed."""
    return Roots(*(_pinned(name) for name in _PINS))


def _pinned(name: str) -> bytes:
    certificate = x509.load_pem_x509_certificate(files("attestation").joinpath("roots", name).read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    if sha256(der).hexdigest() != _PINS[name]:
        raise RootMismatch(f"attestation/roots/{name} is not the pinned root; reinstall from a trusted source")
    return der
