"""Collateral as the messages that bring it to the chain. Anyone may send them: each is signed by Intel."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509
from cryptography.x509.oid import NameOID
from pytoniq_core import Cell

from attestation.collateral import Collateral
from attestation.onchain.certificates import (
    authority_certificate,
    certificate_parts,
    crl_cells,
    public_key,
    revocation_list,
)
from attestation.onchain.messages import ROOT, TCB_SIGNER, Authority, set_authority, update_crl
from attestation.onchain.pieces import BadWitness
from attestation.onchain.statements import qe_message, tcb_message
from attestation.quote import certificates

_KINDS = {
    "Intel SGX PCK Platform CA": int(Authority.PLATFORM),
    "Intel SGX PCK Processor CA": int(Authority.PROCESSOR),
    "Intel SGX TCB Signing": TCB_SIGNER,
}


def collateral_messages(collateral: Collateral, root_key: bytes) -> Iterator[tuple[str, Cell]]:
    """(name, body) of every message, in an order that the contract accepts on an empty state.

    `root_key` is 64 bytes x||y. Raises BadWitness, NoHints, Malformed.
    """
    authority = certificates(collateral.pck_crl_issuer_chain.encode(), "PCK CRL issuer chain")[0]
    signer = certificates(collateral.tcb_info_issuer_chain.encode(), "TCB info issuer chain")[0]
    yield "update_crl root", crl_message(ROOT, collateral.root_ca_crl, root_key)
    yield "set_authority PCK CA", authority_message(authority, root_key)
    yield "set_authority TCB signer", authority_message(signer, root_key)
    yield "update_crl PCK CA", crl_message(authority_kind(authority), collateral.pck_crl, public_key(authority))
    key = public_key(signer)
    yield "update_tcb", tcb_message(collateral.tcb_info, collateral.tcb_info_signature, key)
    yield "update_qe", qe_message(collateral.qe_identity, collateral.qe_identity_signature, key)


def authority_kind(certificate: bytes) -> int:
    """What `set_authority` calls it. Raises BadWitness for any other certificate."""
    names = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    kind = _KINDS.get(str(names[0].value)) if len(names) == 1 else None
    if kind is None:
        raise BadWitness("the certificate is neither a PCK authority's nor the TCB signer's")
    return kind


def authority_message(certificate: bytes, root_key: bytes) -> Cell:
    return set_authority(authority_kind(certificate), authority_certificate(certificate_parts(certificate), root_key))


def crl_message(issuer: int, der: bytes, issuer_key: bytes) -> Cell:
    return update_crl(issuer, *crl_cells(revocation_list(der), issuer_key))
