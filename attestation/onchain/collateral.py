"""Collateral as the messages that bring it to the chain. Anyone may send them: each is signed by Intel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID
from pytoniq_core import Cell

from attestation.collateral import Collateral
from attestation.onchain.certificates import (
    authority_certificate,
    certificate_parts,
    crl_cells,
    list_parts,
    public_key,
    revocation_list,
)
from attestation.onchain.messages import ROOT, TCB_SIGNER, Authority, continue_crl, set_authority, update_crl
from attestation.onchain.pieces import BadWitness, chain
from attestation.onchain.statements import qe_message, tcb_message
from attestation.quote import certificates

_KINDS = {
    "Intel SGX PCK Platform CA": int(Authority.PLATFORM),
    "Intel SGX PCK Processor CA": int(Authority.PROCESSOR),
    "Intel SGX TCB Signing": TCB_SIGNER,
}


@dataclass(frozen=True, slots=True)
class Piece:
    """What Intel signed as one, in the messages that bring it: one, but for a list of more than one part."""

    name: str
    bodies: tuple[Cell, ...]

    def messages(self, taken: int = 0) -> Iterator[tuple[str, Cell]]:
        """(name, body) of all but the first `taken`."""
        for index, body in enumerate(self.bodies[taken:], taken):
            yield f"{self.name} {index + 1}/{len(self.bodies)}" if index else self.name, body


def collateral_messages(collateral: Collateral, root_key: bytes) -> Iterator[tuple[str, Cell]]:
    """(name, body) of every message, in an order that the contract accepts on an empty state.

    `root_key` is 64 bytes x||y. Raises BadWitness, NoHints, Malformed.
    """
    for piece in collateral_pieces(collateral, root_key):
        yield from piece.messages()


def collateral_pieces(collateral: Collateral, root_key: bytes) -> Iterator[Piece]:
    """In the order of `collateral_messages`."""
    authority = certificates(collateral.pck_crl_issuer_chain.encode(), "PCK CRL issuer chain")[0]
    signer = certificates(collateral.tcb_info_issuer_chain.encode(), "TCB info issuer chain")[0]
    yield Piece("update_crl root", crl_messages(ROOT, collateral.root_ca_crl, root_key))
    yield Piece("set_authority PCK CA", (authority_message(authority, root_key),))
    yield Piece("set_authority TCB signer", (authority_message(signer, root_key),))
    key = public_key(authority)
    yield Piece("update_crl PCK CA", crl_messages(authority_kind(authority), collateral.pck_crl, key))
    key = public_key(signer)
    yield Piece("update_tcb", (tcb_message(collateral.tcb_info, collateral.tcb_info_signature, key),))
    yield Piece("update_qe", (qe_message(collateral.qe_identity, collateral.qe_identity_signature, key),))


def authority_kind(certificate: bytes) -> int:
    """What `set_authority` calls it. Raises BadWitness for any other certificate."""
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    kind = _KINDS.get(str(names[0].value)) if len(names) == 1 else None
    if kind is None:
        raise BadWitness("the certificate is neither a PCK authority's nor the TCB signer's")
    return kind


def authority_message(certificate: bytes, root_key: bytes) -> Cell:
    return set_authority(authority_kind(certificate), authority_certificate(certificate_parts(certificate), root_key))


def crl_messages(issuer: int, der: bytes, issuer_key: bytes) -> tuple[Cell, ...]:
    """`update_crl`, and `continue_crl` for each part beyond the first, in the order that the contract wants."""
    signed = revocation_list(der)
    first, *others = list_parts(signed)
    later = (continue_crl(issuer, part.serials, chain(part.pieces)) for part in reversed(others))
    return update_crl(issuer, first.serials, *crl_cells(signed, issuer_key)), *later
