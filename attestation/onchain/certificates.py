"""Certificates and revocation lists as witnesses of contracts/attestation/{certificate,pck,crl}.fc."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from pytoniq_core import Cell, HashMap

from attestation.onchain.hints import signature_cell
from attestation.onchain.pieces import BadWitness, chain, cut, der_elements, der_end, der_header, even, pack

_SGX_EXTENSION = bytes.fromhex("06092a864886f84d010d01")
_FIRST_BYTES = 100
LIST_PART = 160
"""Serials that one message takes in: list_part of contracts/attestation/serials.fc."""
MOST_LIST_PIECES = 490
MOST_LIST_BYTES = 52_000
"""An external message has at most 65,535 bytes and a depth of 512 cells; the wallet and the first part need some."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signature covers, and the signature as 64 bytes r||s. What a verifier reads is `body` alone."""

    body: bytes
    signature: bytes

    def hints(self, key: bytes) -> Cell:
        """P256Signature under `key` (64 bytes x||y). Raises NoHints."""
        return signature_cell(int.from_bytes(sha256(self.body).digest(), "big"), self.signature, key)


def raw_signature(der: bytes) -> bytes:
    return b"".join(number.to_bytes(32, "big") for number in decode_dss_signature(der))


def public_key(certificate: bytes) -> bytes:
    """64 bytes x||y of a DER certificate. Raises BadWitness unless the key is on P-256."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadWitness("the certificate's key is not on P-256")
    numbers = key.public_numbers()
    return numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")


def certificate_parts(der: bytes) -> Signed:
    certificate = x509.load_der_x509_certificate(der)
    return Signed(certificate.tbs_certificate_bytes, raw_signature(certificate.signature))


def _head(tbs: bytes) -> tuple[list[int], int]:
    """Lengths of a0 .. a4, and where the extensions begin. TBSCertificate: [0], serial, algorithm, issuer, validity,
    subject, key, [3]."""
    header, _ = der_header(tbs, 0)
    elements = list(der_elements(tbs, header, len(tbs)))
    if len(elements) != 8:
        raise BadWitness(f"a certificate with {len(elements)} fields; Intel's have 8")
    validity, subject, key, extensions = (start for start, _ in elements[4:])
    return [_FIRST_BYTES, validity - _FIRST_BYTES, subject - validity, key - subject, extensions - key], extensions


def authority_certificate(signed: Signed, root_key: bytes) -> Cell:
    """TL-B Certificate of a CA or of the TCB signer, for `set_authority`."""
    lengths, extensions = _head(signed.body)
    rest = even(signed.body[extensions:], 2)
    pieces = cut(signed.body[:extensions], lengths) + rest
    return chain(pieces, {0: signed.hints(root_key)})


def pck_certificate(signed: Signed, authority_key: bytes) -> Cell:
    """TL-B Certificate of a platform, for `attest`."""
    tbs = signed.body
    lengths, extensions = _head(tbs)
    outer, _ = der_header(tbs, extensions)
    inner, _ = der_header(tbs, extensions + outer)
    first = extensions + outer + inner
    spans = list(der_elements(tbs, first, len(tbs)))
    index = next((i for i, (start, _) in enumerate(spans) if _SGX_EXTENSION in tbs[start : start + 15]), None)
    if index is None:
        raise BadWitness("the certificate has no SGX extension: it is not a PCK certificate")
    sgx = spans[index][0]
    found = _platform_tcb(tbs, sgx, spans[index][1])
    ppid_end, fmspc_end = found.ppid_end, found.fmspc_end
    values = found.components + found.cpu_svn + found.pce_id + found.fmspc + found.pce_svn
    middle = pack(tbs, [(extensions, spans[0][1]), *spans[1:index], (sgx, ppid_end)])
    if len(middle) not in (2, 3):
        raise BadWitness("the extensions before the SGX extension do not fit their cells")
    head = cut(tbs[:extensions], lengths)
    head[2] = values + head[2]
    more = {0: signed.hints(authority_key)}
    if len(middle) > 2:
        more[len(head)] = chain([middle[1]])
    return chain([*head, middle[0], middle[-1], tbs[fmspc_end:]], more)


@dataclass(frozen=True, slots=True)
class PlatformTcb:
    """The SGX extension of a PCK certificate, as bytes of the sizes that Intel gives them."""

    components: bytes
    cpu_svn: bytes
    pce_id: bytes
    fmspc: bytes
    pce_svn: bytes
    ppid_end: int
    fmspc_end: int


def platform_tcb(tbs: bytes) -> PlatformTcb:
    """Of a PCK certificate, from what is signed of it. Raises BadWitness."""
    at = tbs.find(_SGX_EXTENSION)
    if at < 0:
        raise BadWitness("the certificate has no SGX extension: it is not a PCK certificate")
    sgx = at - (2 if tbs[at - 2] == 0x30 else 4)
    return _platform_tcb(tbs, sgx, der_end(tbs, sgx))


def _platform_tcb(tbs: bytes, sgx: int, end: int) -> PlatformTcb:
    # SEQUENCE { OID, OCTET STRING { SEQUENCE { entries } } }: PPID, TCB, PCEID, FMSPC, ...
    value = sgx + der_header(tbs, sgx)[0] + len(_SGX_EXTENSION)
    content = value + der_header(tbs, value)[0]
    entries = list(der_elements(tbs, content + der_header(tbs, content)[0], end))
    tcb = entries[1][0]
    sequence = der_end(tbs, tcb + der_header(tbs, tcb)[0])
    svns = [
        _value(tbs, start) for start, _ in der_elements(tbs, sequence + der_header(tbs, sequence)[0], entries[1][1])
    ]
    if len(svns) != 18:
        raise BadWitness(f"{len(svns)} entries in the TCB of the PCK certificate, expected 18")
    return PlatformTcb(
        components=bytes(int.from_bytes(svn, "big") & 0xFF for svn in svns[:16]),
        cpu_svn=svns[17],
        pce_id=_value(tbs, entries[2][0]),
        fmspc=_value(tbs, entries[3][0]),
        pce_svn=int.from_bytes(svns[16], "big").to_bytes(2, "big"),
        ppid_end=entries[0][1],
        fmspc_end=entries[3][1],
    )


def _value(data: bytes, start: int) -> bytes:
    """Content of the second element of SEQUENCE { OID, value }."""
    at = der_end(data, start + der_header(data, start)[0])
    header, length = der_header(data, at)
    return data[at + header : at + header + length]


def revocation_list(der: bytes) -> Signed:
    crl = x509.load_der_x509_crl(der)
    return Signed(crl.tbs_certlist_bytes, raw_signature(crl.signature))


@dataclass(frozen=True, slots=True)
class ListPart:
    """What one message takes in of a list: whole entries, as many to a piece as fit."""

    pieces: tuple[bytes, ...]
    serials: Cell | None
    """HashmapE 168 True."""

    @property
    def digest(self) -> bytes:
        """By which the contract knows a part that is still to come."""
        return sha256(b"".join(self.pieces)).digest()


def list_parts(signed: Signed) -> tuple[ListPart, ...]:
    """At least one: of a list without entries, an empty one."""
    tbs, (_, first, rest) = signed.body, _list_layout(signed.body)
    spans = list(der_elements(tbs, first, rest))
    return tuple(_list_part(tbs, spans[start : start + LIST_PART]) for start in range(0, max(len(spans), 1), LIST_PART))


def crl_cells(signed: Signed, issuer_key: bytes) -> tuple[Cell, Cell]:
    """(TL-B Crl, P256Signature) of `update_crl`. Raises NoHints, and BadWitness, also for what no wallet can send."""
    tbs, (this_update, first, rest) = signed.body, _list_layout(signed.body)
    pieces = [tbs[:_FIRST_BYTES], tbs[_FIRST_BYTES:this_update], tbs[this_update:first]]
    for part in list_parts(signed):
        pieces += part.pieces
    pieces += even(tbs[rest:])
    if len(pieces) > MOST_LIST_PIECES or len(tbs) > MOST_LIST_BYTES:
        raise BadWitness(
            f"the revocation list has {len(tbs)} bytes in {len(pieces)} cells, but its signature is verified in one "
            f"message, which carries {MOST_LIST_BYTES} bytes in {MOST_LIST_PIECES}"
        )
    return chain(pieces), signed.hints(issuer_key)


def _list_layout(tbs: bytes) -> tuple[int, int, int]:
    """Where thisUpdate, the entries and what follows them begin."""
    header, _ = der_header(tbs, 0)
    elements = list(der_elements(tbs, header, len(tbs)))
    after_times = elements[4][1]
    if tbs[after_times] != 0x30:
        return elements[3][0], after_times, after_times
    return elements[3][0], after_times + der_header(tbs, after_times)[0], der_end(tbs, after_times)


def _list_part(tbs: bytes, spans: list[tuple[int, int]]) -> ListPart:
    return ListPart(tuple(pack(tbs, spans)), serial_set([_serial(tbs, start) for start, _ in spans]))


def _serial(tbs: bytes, entry: int) -> int:
    at = entry + der_header(tbs, entry)[0]
    size, length = der_header(tbs, at)
    return int.from_bytes(tbs[at + size : at + size + length], "big")


def serial_set(serials: list[int]) -> Cell | None:
    """HashmapE 168 True."""
    dictionary = HashMap(168, value_serializer=lambda _value, builder: builder)
    for serial in serials:
        dictionary.set_int_key(serial, None)
    return dictionary.serialize() if serials else None
