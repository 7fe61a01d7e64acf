"""What an unknown file of evidence is. Pure and bounded; what it says is as unverified as before."""

from __future__ import annotations

import json
from dataclasses import dataclass

from attestation import strict
from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind
from attestation.quote import parse
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
class Bundle:
    """Evidence with the collateral that its worker served beside it: what an offer carries and a client keeps."""

    evidence: Evidence
    collateral: Collateral


Document = RawQuote | Evidence | Bundle | Collateral


def recognise(data: bytes) -> Document:
    """Raises Malformed, naming what is accepted."""
    if len(data) > LIMIT_BYTES:
        raise Malformed(f"{len(data)} bytes, more than the limit of {LIMIT_BYTES}: no evidence is that large")
    if data[:2] in _QUOTE_HEADS:
        return RawQuote(data)
    if data.lstrip()[:1] == b"{":
        return _from_json(data)
    return RawQuote(_from_hex(data))


def claimed_kind(quote: bytes) -> Kind:
    """The root that a quote's certificate chain names: what it must verify under, no more. Raises Malformed."""
    chain = parse(quote).pck_chain
    return Kind.SIMULATED if chain and chain[-1] == root(Kind.SIMULATED).der else Kind.TDX


def quote_of(document: Document) -> bytes | None:
    """The quote in it, where there is one."""
    match document:
        case RawQuote(quote):
            return quote
        case Evidence():
            return document.quote
        case Bundle():
            return document.evidence.quote
        case _:
            return None


def _from_json(data: bytes) -> Document:
    document = strict.json_object(data, "JSON", limit_bytes=LIMIT_BYTES)
    if set(document) == {"evidence", "collateral"}:
        evidence, collateral = (json.dumps(document[name]) for name in ("evidence", "collateral"))
        return Bundle(Evidence.from_json(evidence), Collateral.from_json(collateral))
    if document.keys() >= _QUOTE_FIELDS:
        return Evidence.from_json(data)
    if "tcb_info" in document:
        return Collateral.from_json(data)
    raise Malformed(
        "JSON that is neither evidence (version, kind, quote, binding), nor collateral (tcb_info, qe_identity, ...), "
        "nor an object of both (evidence, collateral)"
    )


def _from_hex(data: bytes) -> bytes:
    try:
        text = data.decode("ascii").strip()
        found = bytes.fromhex(text[2:] if text[:2] in ("0x", "0X") else text)
    except ValueError:
        found = b""
    if found[:2] not in _QUOTE_HEADS:
        raise Malformed(
            "neither a TDX quote of version 4 or 5 (binary or hex) nor JSON; give the file of evidence itself"
        )
    return found
