"""Signed structures and the ids they are bound to: pure mirrors of `contracts/schema.tlb`, section by section.

Every structure is the representation hash of a cell; a signature is Ed25519 over those 32 bytes. Amounts are uint64
nanoTON, times unix seconds, accounts 32-byte ids in workchain 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pytoniq_core import Cell, begin_cell

from wrappers.ops import Tag

MAX_AMOUNT_NANO = (1 << 64) - 1


class Signed(Protocol):
    def to_cell(self) -> Cell: ...


def sign(structure: Signed, key: Ed25519PrivateKey) -> bytes:
    """64-byte Ed25519 signature over the structure's cell hash (RFC 8032)."""
    return key.sign(structure.to_cell().hash)


def verify(structure: Signed, signature: bytes, public_key: bytes) -> bool:
    """Whether `signature` is the holder of `public_key` (32 bytes) signing `structure`. Never raises on bad input."""
    if len(signature) != 64 or len(public_key) != 32:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, structure.to_cell().hash)
    except (InvalidSignature, ValueError):
        return False
    return True


def network_id(global_id: int, registry: bytes) -> bytes:
    """TL-B: Network."""
    cell = begin_cell().store_uint(Tag.NETWORK, 32).store_int(global_id, 32).store_bytes(registry).end_cell()
    return bytes(cell.hash)


def node_id(network: bytes, node: bytes, epoch: int) -> bytes:
    """TL-B: NodeBirth. `epoch` is the logical time of the node's init."""
    cell = begin_cell().store_uint(Tag.NODE_BIRTH, 32).store_bytes(network).store_bytes(node).store_uint(epoch, 64)
    return bytes(cell.end_cell().hash)


def allotment_id(network: bytes, escrow: bytes, epoch: int, node: bytes) -> bytes:
    """TL-B: AllotmentBirth. `epoch` is the logical time at which the row was made."""
    cell = begin_cell().store_uint(Tag.ALLOTMENT_BIRTH, 32).store_bytes(network).store_bytes(escrow)
    return bytes(cell.store_uint(epoch, 64).store_bytes(node).end_cell().hash)


def job_id(network: bytes, job: bytes, epoch: int, spec: bytes) -> bytes:
    """TL-B: JobBirth. `epoch`: logical time of the job's init; `spec`: hash of `wrappers.job.JobSpec`, the input."""
    cell = begin_cell().store_uint(Tag.JOB_BIRTH, 32).store_bytes(network).store_bytes(job).store_uint(epoch, 64)
    return bytes(cell.store_bytes(spec).end_cell().hash)


@dataclass(frozen=True, slots=True)
class Claim:
    """Header of a batch claim, bound to its entries and receipt roots by hash. TL-B: Claim."""

    node: bytes
    """Node id."""
    seqno: int
    valid_until: int
    count: int
    tokens: int
    """All tokens the enclave ever reported under this node; labelled enclave-reported wherever shown."""
    entries: bytes
    roots: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.CLAIM, 32).store_bytes(self.node).store_bytes(self.roots)
        cell.store_bytes(self.entries).store_uint(self.valid_until, 32).store_uint(self.count, 8)
        return cell.store_uint(self.tokens, 64).store_uint(self.seqno, 32).end_cell()


@dataclass(frozen=True, slots=True)
class Release:
    """The node's consent to lower a row to `allotted_nano`. TL-B: Release."""

    allotment: bytes
    seqno: int
    allotted_nano: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.RELEASE, 32).store_bytes(self.allotment).store_uint(self.seqno, 32)
        return cell.store_uint(self.allotted_nano, 64).end_cell()


@dataclass(frozen=True, slots=True)
class KeyConsent:
    """The operator's consent to an enclave key of his node, by its release key. TL-B: KeyConsent."""

    node: bytes
    """Node id."""
    key: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.KEY_CONSENT, 32).store_bytes(self.node)
        return cell.store_bytes(self.key).end_cell()


@dataclass(frozen=True, slots=True)
class Acceptance:
    """The enclave's word that it opened a job's whole input and will deliver. TL-B: Acceptance."""

    job: bytes
    """Job id."""
    node: bytes
    """Node id."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.ACCEPTANCE, 32).store_bytes(self.job)
        return cell.store_bytes(self.node).end_cell()


@dataclass(frozen=True, slots=True)
class Notary:
    """A hash that an enclave key puts into the chain's history. TL-B: Notary."""

    node: bytes
    """Node id."""
    hash: bytes

    def to_cell(self) -> Cell:
        return begin_cell().store_uint(Tag.NOTARY, 32).store_bytes(self.node).store_bytes(self.hash).end_cell()


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A short-lived key that requests are sealed to, vouched for by the attested enclave key. TL-B: SealingKey."""

    node: bytes
    """Node id."""
    public_key_hash: bytes
    expires_at: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.SEALING_KEY, 32).store_bytes(self.node)
        return cell.store_bytes(self.public_key_hash).store_uint(self.expires_at, 32).end_cell()


@dataclass(frozen=True, slots=True)
class TlsKey:
    """A short-lived TLS key that lives in the enclave, vouched for by the attested enclave key. TL-B: TlsKey."""

    node: bytes
    """Node id."""
    spki_hash: bytes
    """SHA-256 of the key's SubjectPublicKeyInfo in DER."""
    expires_at: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.TLS_KEY, 32).store_bytes(self.node)
        return cell.store_bytes(self.spki_hash).store_uint(self.expires_at, 32).end_cell()


@dataclass(frozen=True, slots=True)
class JobResult:
    """The accepting enclave's word on its job: what came out, and what it costs. TL-B: JobResult."""

    job: bytes
    """Job id."""
    result: bytes
    """SHA-256 of the result's ciphertext."""
    amount_nano: int
    inner: bytes
    """Hash of the cell of its usage."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.JOB_RESULT, 32).store_bytes(self.job).store_bytes(self.result)
        return cell.store_uint(self.amount_nano, 64).store_bytes(self.inner).end_cell()


@dataclass(frozen=True, slots=True)
class Delivery:
    """The client's word that he holds the ciphertext that hashes to `result`. TL-B: Delivery."""

    job: bytes
    """Job id."""
    result: bytes

    def to_cell(self) -> Cell:
        return begin_cell().store_uint(Tag.DELIVERY, 32).store_bytes(self.job).store_bytes(self.result).end_cell()


@dataclass(frozen=True, slots=True)
class GenesisState:
    """What a singleton's genesis key signs. TL-B: GenesisState."""

    global_id: int
    account: bytes
    state: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.GENESIS_STATE, 32).store_int(self.global_id, 32)
        return cell.store_bytes(self.account).store_bytes(self.state).end_cell()
