"""Intel's signed statements that a quote is judged by: TCB info, QE identity, revocation lists.

Anyone may serve collateral: it is signed up to Intel's root, so a liar can only serve old or none, and both are seen
(validity times, evaluation number). The JSON form is that of Phala's `dcap-qvl`. AMD's certificates stand beside it in
a form of their own (`attestation.snp.collateral`); `parse` reads either.
"""

from __future__ import annotations

import datetime
import json
from dataclasses import dataclass, fields
from typing import Any

from cryptography import x509

from attestation import strict
from attestation.snp.collateral import KIND as AMD
from attestation.snp.collateral import AmdCollateral
from attestation.strict import Malformed

JSON_LIMIT_BYTES = 1024 * 1024
_CHAIN_LIMIT = 16 * 1024
_DOCUMENT_LIMIT = 128 * 1024
_CRL_LIMIT_BYTES = 256 * 1024
_TEXT = {
    "pck_crl_issuer_chain": _CHAIN_LIMIT,
    "tcb_info_issuer_chain": _CHAIN_LIMIT,
    "tcb_info": _DOCUMENT_LIMIT,
    "qe_identity_issuer_chain": _CHAIN_LIMIT,
    "qe_identity": _DOCUMENT_LIMIT,
}
_BINARY = {"root_ca_crl": _CRL_LIMIT_BYTES, "pck_crl": _CRL_LIMIT_BYTES}
_SIGNATURES = ("tcb_info_signature", "qe_identity_signature")


@dataclass(frozen=True, slots=True)
class Collateral:
    """Intel's. Chains are PEM text, CRLs are DER, signatures are 64 bytes r||s over the exact text beside them."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes

    def to_json(self) -> str:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return json.dumps({name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()})

    @classmethod
    def from_json(cls, text: str | bytes) -> Collateral:
        """Raises Malformed. A PCK chain beside the quote's own is refused: one quote, one chain."""
        what = "collateral"
        document = strict.json_object(text, what, limit_bytes=JSON_LIMIT_BYTES)
        strict.only_keys(document, what, required=(*_TEXT, *_BINARY, *_SIGNATURES))
        values: dict[str, Any] = {
            **{name: strict.text_field(document, name, what, limit=limit) for name, limit in _TEXT.items()},
            **{name: strict.hex_field(document, name, what, limit=limit) for name, limit in _BINARY.items()},
            **{name: strict.hex_field(document, name, what, length=64) for name in _SIGNATURES},
        }
        return cls(**values)


AnyCollateral = Collateral | AmdCollateral


def parse(text: str | bytes) -> AnyCollateral:
    """Collateral of either kind, as evidence carries it. Raises Malformed."""
    document = strict.json_object(text, "collateral", limit_bytes=JSON_LIMIT_BYTES)
    return AmdCollateral.from_document(document) if document.get("kind") == AMD else Collateral.from_json(text)


@dataclass(frozen=True, slots=True)
class Statement:
    """What is read from TCB info and QE identity beyond what the quote library reports. Unverified by itself."""

    fmspc: str
    pce_id: str
    evaluation_number: int
    """The lower one of both documents: the set that they were issued in."""
    expires_at: int
    """Earliest nextUpdate of both documents and both CRLs, unix seconds."""


def read(collateral: Collateral) -> Statement:
    """Raises Malformed."""
    tcb = strict.json_object(collateral.tcb_info, "TCB info", limit_bytes=_DOCUMENT_LIMIT)
    qe = strict.json_object(collateral.qe_identity, "QE identity", limit_bytes=_DOCUMENT_LIMIT)
    try:
        ends = [_unix_seconds(tcb["nextUpdate"]), _unix_seconds(qe["nextUpdate"])]
        numbers = [
            strict.integer_field(document, "tcbEvaluationDataNumber", what, low=0, high=2**31)
            for document, what in ((tcb, "TCB info"), (qe, "QE identity"))
        ]
        fmspc = strict.hex_field(tcb, "fmspc", "TCB info", length=6).hex()
        pce_id = strict.hex_field(tcb, "pceId", "TCB info", length=2).hex()
    except KeyError as error:
        raise Malformed(f"collateral: TCB info or QE identity lacks {error}; fetch it again") from error
    for what, der in (("root CA CRL", collateral.root_ca_crl), ("PCK CRL", collateral.pck_crl)):
        try:
            next_update = x509.load_der_x509_crl(der).next_update_utc
        except (ValueError, x509.InvalidVersion) as error:
            raise Malformed(f"collateral: the {what} is not a CRL in DER ({error}); fetch it again") from error
        if next_update is None:
            # A list without an end could be served for ever after a revocation.
            raise Malformed(f"collateral: the {what} has no nextUpdate")
        ends.append(int(next_update.timestamp()))
    return Statement(fmspc, pce_id, min(numbers), min(ends))


def issued_at(document: str, what: str) -> int:
    """issueDate of a TCB info or QE identity, unix seconds. Raises Malformed."""
    found = strict.json_object(document, what, limit_bytes=_DOCUMENT_LIMIT)
    return _unix_seconds(found.get("issueDate"))


def _unix_seconds(text: object) -> int:
    if not isinstance(text, str):
        raise Malformed(f"collateral: {text!r} is not a time")
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"collateral: {text!r} is not an RFC 3339 time") from error
    if moment.tzinfo is None:
        raise Malformed(f"collateral: {text!r} has no time zone")
    return int(moment.timestamp())
