"""Signed structures and the ids they are bound to: pure mirrors of `contracts/schema.tlb`, section by section.

Every structure is the representation hash of a cell; a signature is Ed25519 over those 32 bytes. Amounts are uint64
nanoTON, times unix seconds, accounts 32-byte ids in workchain 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from pytoniq_core import Cell, Slice, begin_cell

from wrappers.cells import CellError
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


def _open(cell: Cell, tag: Tag) -> Slice:
    slice_ = cell.begin_parse()
    if cell.type_ != -1 or len(cell.bits) < 32 or slice_.load_uint(32) != tag:
        raise CellError(f"not a {tag.name.lower()}: wrong tag")
    return slice_


def _end(slice_: Slice, what: str) -> None:
    if slice_.remaining_bits or slice_.remaining_refs:
        raise CellError(f"{what} has {slice_.remaining_bits} bits and {slice_.remaining_refs} refs too many")


@dataclass(frozen=True, slots=True)
class Terms:
    """Model and prices, in nanoTON per 2^20 tokens, and the minimum charge of one request. TL-B: Terms."""

    model: bytes
    prompt_price: int
    cached_price: int
    completion_price: int
    reasoning_price: int
    minimum_nano: int

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.TERMS, 32).store_bytes(self.model).store_uint(self.prompt_price, 64)
        cell.store_uint(self.cached_price, 64).store_uint(self.completion_price, 64)
        return cell.store_uint(self.reasoning_price, 64).store_uint(self.minimum_nano, 64).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = _open(cell, Tag.TERMS)
        terms = cls(s.load_bytes(32), *(s.load_uint(64) for _ in range(5)))
        _end(s, "terms")
        return terms

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class Voucher:
    """The client's consent to pay up to `cap_nano` in all, of which `acked_nano` is already accepted. TL-B: Voucher."""

    allotment: bytes
    key: bytes
    """The enclave key that it is for."""
    cap_nano: int
    acked_nano: int
    terms: bytes

    def to_cell(self) -> Cell:
        cell = begin_cell().store_uint(Tag.VOUCHER, 32).store_bytes(self.allotment).store_bytes(self.key)
        return cell.store_uint(self.cap_nano, 64).store_uint(self.acked_nano, 64).store_bytes(self.terms).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = _open(cell, Tag.VOUCHER)
        voucher = cls(s.load_bytes(32), s.load_bytes(32), s.load_uint(64), s.load_uint(64), s.load_bytes(32))
        _end(s, "voucher")
        return voucher


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one request cost and the running total: the claimable, outer part. TL-B: Receipt."""

    allotment: bytes
    node: bytes
    """Node id."""
    seq: int
    terms: bytes
    amount_nano: int
    cumulative_nano: int
    previous: bytes
    """Hash of the receipt before; 32 zero bytes in the first."""
    inner: bytes

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.previous).store_bytes(self.inner).end_cell()
        cell = begin_cell().store_uint(Tag.RECEIPT, 32).store_bytes(self.allotment).store_bytes(self.node)
        cell.store_uint(self.seq, 32).store_bytes(self.terms).store_uint(self.amount_nano, 64)
        return cell.store_uint(self.cumulative_nano, 64).store_ref(more).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = _open(cell, Tag.RECEIPT)
        allotment, node, seq, terms = s.load_bytes(32), s.load_bytes(32), s.load_uint(32), s.load_bytes(32)
        amount, cumulative, more = s.load_uint(64), s.load_uint(64), s.load_ref().begin_parse()
        receipt = cls(allotment, node, seq, terms, amount, cumulative, more.load_bytes(32), more.load_bytes(32))
        _end(more, "receipt")
        _end(s, "receipt")
        return receipt

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


@dataclass(frozen=True, slots=True)
class InnerReceipt:
    """What only client and enclave know; opened by whoever disputes. TL-B: InnerReceipt."""

    salt: bytes
    model: bytes
    """Hash of the loaded weights; 32 zero bytes: unmeasured."""
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    stop: int
    request: bytes
    response: bytes
    logprobs: bytes

    def to_cell(self) -> Cell:
        more = begin_cell().store_bytes(self.response).store_bytes(self.logprobs).end_cell()
        cell = begin_cell().store_bytes(self.salt).store_bytes(self.model).store_uint(self.prompt_tokens, 32)
        cell.store_uint(self.cached_tokens, 32).store_uint(self.completion_tokens, 32)
        cell.store_uint(self.reasoning_tokens, 32).store_uint(self.stop, 8).store_bytes(self.request)
        return cell.store_ref(more).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        salt, model = s.load_bytes(32), s.load_bytes(32)
        prompt, cached, completion, reasoning = (s.load_uint(32) for _ in range(4))
        stop, request, more = s.load_uint(8), s.load_bytes(32), s.load_ref().begin_parse()
        inner = cls(
            salt,
            model,
            prompt,
            cached,
            completion,
            reasoning,
            stop,
            request,
            more.load_bytes(32),
            more.load_bytes(32),
        )
        _end(more, "inner receipt")
        _end(s, "inner receipt")
        return inner

    @property
    def hash(self) -> bytes:
        return bytes(self.to_cell().hash)


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
        cell = begin_cell().store_uint(Tag.CLAIM, 32).store_bytes(self.node).store_uint(self.seqno, 32)
        cell.store_uint(self.valid_until, 32).store_uint(self.count, 8).store_uint(self.tokens, 64)
        return cell.store_bytes(self.entries).store_bytes(self.roots).end_cell()


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
