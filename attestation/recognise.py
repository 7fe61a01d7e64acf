"""What an unknown file of evidence is. Pure and bounded; what it says is as unverified as before."""

from __future__ import annotations

from dataclasses import dataclass

from attestation import strict
from attestation.collateral import Collateral
from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence, Kind
from attestation.gpu.envelope import TAG as GPU_TAG
from attestation.presented import Presented
from attestation.quote import parse
from attestation.snp.collateral import KIND as AMD
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import REPORT_BYTES
from attestation.strict import Malformed
from attestation.trust_roots import root

LIMIT_BYTES = 2 * 1024 * 1024
_QUOTE_HEADS = (b"\x04\x00", b"\x05\x00")
_QUOTE_FIELDS = {"version", "kind", "quote", "binding"}


@dataclass(frozen=True, slots=True)
class RawQuote:
    """A TDX quote by itself, its structure not yet read."""

    quote: bytes


@dataclass(frozen=True, slots=True)
class RawReport:
    """An SEV-SNP report by itself."""

    report: bytes


@dataclass(frozen=True, slots=True)
class RawGpu:
    """GPU evidence by itself, in the envelope of `attestation.gpu`."""

    evidence: bytes


Document = RawQuote | RawReport | RawGpu | Evidence | Presented | Collateral | AmdCollateral


def recognise(data: bytes) -> Document:
    """Raises Malformed, naming what is accepted."""
    if len(data) > LIMIT_BYTES:
        raise Malformed(f"{len(data)} bytes, more than the limit of {LIMIT_BYTES}: no evidence is that large")
    if data.lstrip()[:1] == b"{":
        return _from_json(data)
    return _from_binary(data) or _from_binary(_from_hex(data)) or _unknown()


def claimed_kind(quote: bytes) -> Kind:
    """The root that a quote's certificate chain names: what it must verify under, no more. Raises Malformed."""
    chain = parse(quote).pck_chain
    return Kind.SIMULATED if chain and chain[-1] == root(Kind.SIMULATED).der else Kind.TDX


def quote_of(document: Document) -> bytes | None:
    """The TDX quote in it, where there is one."""
    match document:
        case RawQuote(quote):
            return quote
        case Evidence() if document.kind is not Kind.SEV_SNP:
            return document.quote
        case Presented() if document.evidence.kind is not Kind.SEV_SNP:
            return document.evidence.quote
        case _:
            return None


def _from_json(data: bytes) -> Document:
    document = strict.json_object(data, "JSON", limit_bytes=LIMIT_BYTES)
    if document.keys() >= {"evidence", "collateral"}:
        return Presented.from_document(document)
    if document.keys() >= _QUOTE_FIELDS:
        return Evidence.from_json(data)
    if "tcb_info" in document or document.get("kind") == AMD:
        return parse_collateral(data)
    raise Malformed(
        "JSON that is neither evidence (version, kind, quote, binding), nor collateral (tcb_info, qe_identity, ...), "
        "nor an object of both (evidence, collateral)"
    )


def _from_binary(data: bytes) -> RawQuote | RawReport | RawGpu | None:
    # A report's version has 32 bits; a quote has its key type in the upper half, which is not zero.
    if len(data) == REPORT_BYTES and data[1:4] == bytes(3):
        return RawReport(data)
    if data[:2] in _QUOTE_HEADS:
        return RawQuote(data)
    return RawGpu(data) if data[:4] == GPU_TAG else None


def _from_hex(data: bytes) -> bytes:
    try:
        text = data.decode("ascii").strip()
        return bytes.fromhex(text[2:] if text[:2] in ("0x", "0X") else text)
    except ValueError:
        return b""


def _unknown() -> Document:
    raise Malformed(
        "neither a TDX quote of version 4 or 5, an SEV-SNP report nor GPU evidence (binary or hex), nor JSON; give the "
        "file of evidence itself"
    )
