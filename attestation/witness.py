"""The witness of one quote for the on-chain verifier: the quote in cells, with the hints of its three signatures."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cryptography import x509
from cryptography.x509.oid import NameOID
from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import Signed, certificate_parts, pck_certificate, public_key
from attestation.onchain.messages import Authority, attest
from attestation.onchain.pieces import BadWitness, chain
from attestation.quote import HEADER_BYTES, TD10_BYTES, TD15_BYTES, TD15EX_BYTES
from attestation.quote import parse as parse_quote
from attestation.report_data import Binding

_KINDS = {HEADER_BYTES + TD10_BYTES: 0, HEADER_BYTES + 6 + TD15_BYTES: 1, HEADER_BYTES + 6 + TD15EX_BYTES: 2}
_EXTENDED = 2
_AUTHENTICATION_BYTES = 32


@dataclass(frozen=True, slots=True)
class QuoteParts:
    """A quote as the signatures in it cover it. Keys are 64 bytes x||y."""

    td: Signed
    attestation_key: bytes
    qe: Signed
    authentication_data: bytes
    pck: Signed
    pck_key: bytes
    authority_key: bytes
    authority: Authority

    @classmethod
    def of(cls, quote: bytes) -> QuoteParts:
        """Raises Malformed or BadWitness."""
        parsed = parse_quote(quote)
        kind = int.from_bytes(quote[HEADER_BYTES : HEADER_BYTES + 2], "little")
        extended = {3: TD15_BYTES, 4: TD15EX_BYTES}
        signed_bytes = HEADER_BYTES + (TD10_BYTES if parsed.version == 4 else 6 + extended.get(kind, TD10_BYTES))
        at = signed_bytes + 4
        td = Signed(quote[:signed_bytes], quote[at : at + 64])
        key = quote[at + 64 : at + 128]
        at += 128 + 6
        qe = Signed(quote[at : at + 384], quote[at + 384 : at + 448])
        at += 448
        length = int.from_bytes(quote[at : at + 2], "little")
        if length != _AUTHENTICATION_BYTES:
            raise BadWitness(f"QE authentication data of {length} bytes, expected {_AUTHENTICATION_BYTES}")
        leaf, authority, *_ = parsed.pck_chain
        return cls(
            td,
            key,
            qe,
            quote[at + 2 : at + 2 + length],
            certificate_parts(leaf),
            public_key(leaf),
            public_key(authority),
            _authority(authority),
        )

    def changed(self, **parts: Signed | bytes | Authority) -> QuoteParts:
        """Another quote with some parts replaced, for tests of verifiers: hints follow the parts."""
        return replace(self, **parts)  # type: ignore[arg-type]

    def cells(self) -> tuple[Cell, Cell, Cell]:
        """TL-B TdReport, QeReport, Certificate. Raises BadWitness, NoHints."""
        signature = self.qe.hints(self.pck_key)
        body, vouched = self.qe.body, self.attestation_key + self.authentication_data
        first = body[:20] + body[48:96] + body[258:260]
        qe = begin_cell().store_bytes(first).store_ref(signature).store_ref(chain([vouched])).end_cell()
        return self._td(), qe, pck_certificate(self.pck, self.authority_key)

    def _td(self) -> Cell:
        body = self.td.body
        kind = _KINDS.get(len(body))
        if kind is None:
            raise BadWitness(f"a TD report of {len(body)} bytes with its header is none that the contract reads")
        report = body[HEADER_BYTES + (6 if kind else 0) :]
        launch = report[184:328]
        pieces = [report[120:184] + report[328:376], report[376:472], report[472:584]]
        if kind:
            pieces.append(report[584:600])
        if kind == _EXTENDED:
            pieces += [report[648:775], report[775:885]]
        cell = begin_cell().store_uint(kind, 8).store_bytes(body[8:12] + body[28:48] + report[:64])
        cell.store_ref(chain(pieces)).store_ref(self.td.hints(self.attestation_key))
        if launch.strip(b"\0"):
            cell.store_ref(chain([launch[:96], launch[96:]]))
        return cell.end_cell()


def attest_message(quote: bytes, binding: Binding, *, consent: bytes | None = None) -> Cell:
    """Body of `attest`: anyone may send it to the attestation contract. Raises Malformed, BadWitness, NoHints.

    `consent`: the node's release key over `signed.KeyConsent`, which a node asks for when the key is new to it.
    """
    parts = QuoteParts.of(quote)
    return attest(binding, parts.authority, *parts.cells(), consent=consent)


def _authority(certificate: bytes) -> Authority:
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return Authority.PROCESSOR if names and "Processor" in str(names[0].value) else Authority.PLATFORM
