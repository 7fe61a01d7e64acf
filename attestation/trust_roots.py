"""The two root certificates that a TDX quote may end in, pinned by hash in the code.

Intel's root is the only one that means hardware. The simulated root means nothing at all: its key is derived from a
phrase in this repository (`attestation.simulated.pki`), so that the whole path can be exercised without hardware.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.evidence import Kind

_FILES = {Kind.TDX: "intel_sgx_root_ca.pem", Kind.SIMULATED: "simulated_root_ca.pem"}
_PINS = {
    Kind.TDX: "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3",
    Kind.SIMULATED: "f749ffa0a945853f9767049a2cf9ccb1d324dd65fb053b3454e3f6c75a759eae",
}


class RootMismatch(Exception):
    """A root certificate file is not the pinned one."""


@dataclass(frozen=True, slots=True)
class Root:
    kind: Kind
    der: bytes


@cache
def root(kind: Kind) -> Root:
    """The pinned root of this kind. Raises RootMismatch when the installed file was changed."""
    name = _FILES[kind]
    certificate = x509.load_pem_x509_certificate(files("attestation").joinpath("roots", name).read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    if sha256(der).hexdigest() != _PINS[kind]:
        raise RootMismatch(f"attestation/roots/{name} is not the pinned root; reinstall from a trusted source")
    return Root(kind, der)
