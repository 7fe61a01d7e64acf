"""Bodies of the messages to contracts/attestation/attestation.fc. TL-B: contracts/attestation/attestation.tlb."""

from __future__ import annotations

from enum import IntEnum

from pytoniq_core import Cell, begin_cell

from attestation.report_data import Binding


class Op(IntEnum):
    """crc32 of the row, top bit cleared."""

    ATTEST = 0x100C8A8D
    APPRAISE = 0x55D6F83D
    APPRAISAL = 0x73ACE5BA
    SET_AUTHORITY = 0x71A68E1A
    UPDATE_CRL = 0x4D1B1567
    UPDATE_TCB = 0x724B8A4B
    UPDATE_QE = 0x4F1A012A
    RELEASE_PLATFORM = 0x7CB22A6E
    POLICY_SET = 0x6013AEFB
    POLICY_ALLOW = 0x447B50D0
    POLICY_REVOKE = 0x6F7F56EB
    POLICY_DENY = 0x6BDEF3D3
    POLICY_FREE = 0x64D54708


class Authority(IntEnum):
    """Who issued a PCK certificate; also `kind` of set_authority, where 2 is the TCB signer."""

    PLATFORM = 0
    PROCESSOR = 1


TCB_SIGNER = 2
ROOT = 2
"""`issuer` of update_crl."""


def attest(binding: Binding, authority: Authority, td: Cell, qe: Cell, pck: Cell) -> Cell:
    body = begin_cell().store_uint(Op.ATTEST, 32).store_bytes(binding.node).store_uint(binding.node_epoch, 64)
    body.store_bytes(binding.signing_key).store_bytes(binding.gpu_evidence_hash).store_uint(binding.block_seqno, 32)
    return body.store_uint(authority, 8).store_ref(td).store_ref(qe).store_ref(pck).end_cell()


def appraise(authority: Authority, td: Cell, qe: Cell, pck: Cell) -> Cell:
    """All checks of `attest` but those of REPORTDATA and image; the answer goes to the sender."""
    body = begin_cell().store_uint(Op.APPRAISE, 32).store_uint(authority, 8)
    return body.store_ref(td).store_ref(qe).store_ref(pck).end_cell()


def set_authority(kind: int, certificate: Cell) -> Cell:
    return begin_cell().store_uint(Op.SET_AUTHORITY, 32).store_uint(kind, 8).store_ref(certificate).end_cell()


def update_crl(issuer: int, serials: Cell | None, crl: Cell, signature: Cell) -> Cell:
    body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(issuer, 8).store_maybe_ref(serials)
    return body.store_ref(crl).store_ref(signature).end_cell()


def update_tcb(head: Cell, modules: Cell, levels: Cell, signature: Cell) -> Cell:
    body = begin_cell().store_uint(Op.UPDATE_TCB, 32).store_ref(head).store_ref(modules)
    return body.store_ref(levels).store_ref(signature).end_cell()


def release_platform(platform: bytes) -> Cell:
    return begin_cell().store_uint(Op.RELEASE_PLATFORM, 32).store_bytes(platform).end_cell()


def policy_set(policy: Cell) -> Cell:
    return begin_cell().store_uint(Op.POLICY_SET, 32).store_ref(policy).end_cell()


def policy_allow(measurement: bytes, image: Cell) -> Cell:
    body = begin_cell().store_uint(Op.POLICY_ALLOW, 32).store_bytes(measurement)
    return body.store_cell(image).end_cell()


def policy_revoke(measurement: bytes) -> Cell:
    return begin_cell().store_uint(Op.POLICY_REVOKE, 32).store_bytes(measurement).end_cell()


def policy_deny(platform: bytes) -> Cell:
    return begin_cell().store_uint(Op.POLICY_DENY, 32).store_bytes(platform).end_cell()


def policy_free(platform: bytes) -> Cell:
    return begin_cell().store_uint(Op.POLICY_FREE, 32).store_bytes(platform).end_cell()
