"""What the chain keeps of a quote to judge its platform again (TL-B: TcbFacts), read from the quote itself."""

from __future__ import annotations

from cryptography import x509

from attestation.onchain.certificates import platform_tcb
from attestation.onchain.state import TcbFacts
from attestation.quote import HEADER_BYTES, TD10_BYTES
from attestation.quote import parse as parse_quote
from attestation.witness import QuoteParts

SERIAL_BITS = 168
"""Of a certificate's serial in the chain's dictionaries; Intel's have 160."""
_QE_SVN = 258
_RUNNING = 584
"""Of a TD 1.5 report: TEE_TCB_SVN2, the module that runs now."""


def facts_of(quote: bytes) -> TcbFacts:
    """Unverified: check the quote first. Raises Malformed, BadWitness."""
    parts = QuoteParts.of(quote)
    platform = platform_tcb(parts.pck.body)
    version4 = len(parts.td.body) == HEADER_BYTES + TD10_BYTES
    report = parts.td.body[HEADER_BYTES + (0 if version4 else 6) :]
    return TcbFacts(
        authority=int(parts.authority),
        serial=x509.load_der_x509_certificate(parse_quote(quote).pck_chain[0]).serial_number,
        pce_id=int.from_bytes(platform.pce_id, "big"),
        fmspc=platform.fmspc,
        sgx_svns=platform.components,
        pce_svn=int.from_bytes(platform.pce_svn, "big"),
        qe_svn=int.from_bytes(parts.qe.body[_QE_SVN : _QE_SVN + 2], "little"),
        tdx_svns=report[:16],
        running_svns=None if version4 else report[_RUNNING : _RUNNING + 16],
    )
