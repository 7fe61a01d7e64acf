"""Bodies of the messages to contracts/attestation/attestation.fc. TL-B: contracts/attestation/attestation.tlb."""

from __future__ import annotations

from enum import IntEnum

from pytoniq_core import Cell, begin_cell

from attestation.report_data import Binding
from wrappers.ops import Op as CommonOp


class Op(IntEnum):
    """crc32 of the row, top bit cleared."""

    ATTEST = 0x4F9F4064
    SYNC = 0x451F6CEB
    APPRAISE = 0x55D6F83D
    APPRAISAL = 0x73ACE5BA
    SET_AUTHORITY = 0x71A68E1A
    UPDATE_CRL = 0x4D1B1567
    CONTINUE_CRL = 0x437E89A9
    UPDATE_TCB = 0x724B8A4B
    UPDATE_QE = 0x4F1A012A


class Authority(IntEnum):
    """Who issued a PCK certificate; also `kind` of set_authority, where 2 is the TCB signer."""

    PLATFORM = 0
    PROCESSOR = 1


TCB_SIGNER = 2
ROOT = 2
"""`issuer` of update_crl."""


def attest(
    binding: Binding, authority: Authority, td: Cell, qe: Cell, pck: Cell, *, consent: bytes | None = None
) -> Cell:
    """`consent`: the node's release key over `signed.KeyConsent`, which a node asks for when the key is new to it."""
    body = begin_cell().store_uint(Op.ATTEST, 32).store_bytes(binding.node).store_uint(binding.node_epoch, 64)
    body.store_bytes(binding.signing_key).store_bytes(binding.gpu_evidence_hash).store_uint(binding.block_seqno, 32)
    body.store_maybe_ref(None if consent is None else begin_cell().store_bytes(consent).end_cell())
    return body.store_uint(authority, 8).store_ref(td).store_ref(qe).store_ref(pck).end_cell()


def sync(node: bytes, measurement: bytes, platform: bytes, program: Cell) -> Cell:
    """Tells `node` what holds today for its image and platform. `program`: the node's rare program."""
    body = begin_cell().store_uint(Op.SYNC, 32).store_bytes(node).store_bytes(measurement).store_bytes(platform)
    return body.store_ref(program).end_cell()


def appraise(authority: Authority, td: Cell, qe: Cell, pck: Cell) -> Cell:
    """All checks of `attest` but those of REPORTDATA and image; the answer goes to the sender."""
    body = begin_cell().store_uint(Op.APPRAISE, 32).store_uint(authority, 8)
    return body.store_ref(td).store_ref(qe).store_ref(pck).end_cell()


def set_authority(kind: int, certificate: Cell) -> Cell:
    return begin_cell().store_uint(Op.SET_AUTHORITY, 32).store_uint(kind, 8).store_ref(certificate).end_cell()


def update_crl(issuer: int, serials: Cell | None, crl: Cell, signature: Cell) -> Cell:
    body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(issuer, 8).store_maybe_ref(serials)
    return body.store_ref(crl).store_ref(signature).end_cell()


def continue_crl(issuer: int, serials: Cell | None, entries: Cell) -> Cell:
    """The next part of the list that waits."""
    body = begin_cell().store_uint(Op.CONTINUE_CRL, 32).store_uint(issuer, 8).store_maybe_ref(serials)
    return body.store_ref(entries).end_cell()


def update_tcb(head: Cell, modules: Cell, levels: Cell, signature: Cell) -> Cell:
    body = begin_cell().store_uint(Op.UPDATE_TCB, 32).store_ref(head).store_ref(modules)
    return body.store_ref(levels).store_ref(signature).end_cell()


def release_platform(platform: bytes) -> Cell:
    """From the platform's node."""
    return begin_cell().store_uint(CommonOp.RELEASE_PLATFORM, 32).store_bytes(platform).end_cell()


def governed(governor: bytes, action: Cell) -> Cell:
    """From the registry. The excess goes to `governor`; actions: wrappers.governance."""
    return begin_cell().store_uint(CommonOp.GOVERNED, 32).store_bytes(governor).store_ref(action).end_cell()
