"""A batch job between client and enclave: what is sealed, for whom, and what comes back.

The input is sealed once to a random content key, which is wrapped to the sealing key of every allowed node. The order
on chain names the hash of the JobSpec, and with it ciphertext, wrapped keys, terms and count of lines. A job is priced
like one request over the sum of its lines' tokens, so that its usage cell is an inner receipt.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from protocol import commitments
from protocol.codec import Reader, fixed, uint
from protocol.errors import Malformed, NotAuthentic, OurFault, Peer, ReceiptFault
from protocol.job_blob import open_blob, padded_size, seal_blob, sealed_size
from protocol.pricing import Stop, Usage, charge
from protocol.receipts import inner_from_bytes, inner_to_bytes, usage_of
from protocol.sealing import WRAP_OVERHEAD, SealingKeyPair, public_key_hash, wrap
from protocol.terms import TERMS_BYTES, read_terms, terms_to_bytes
from wrappers.job import MAX_NODES, JobSpec, Outcome
from wrappers.receipts import InnerReceipt, Terms

MAX_BODY_BYTES = 16 << 20
"""Of the JSONL that a client may seal."""
_FIXED_BYTES = 1 + 32 + 8 + TERMS_BYTES + 4
MAX_INPUT_BYTES = sealed_size(padded_size(MAX_BODY_BYTES + _FIXED_BYTES))
MAX_ANSWERS_BYTES = 64 << 20
"""Of the JSONL that comes back; lines beyond it become errors."""
_INNER_BYTES = 177
_NONCE_BYTES = 32
MAX_RESULT_BYTES = 4 + _NONCE_BYTES + sealed_size(padded_size(MAX_ANSWERS_BYTES + _INNER_BYTES + 4))
_WRAPS_MAGIC, _RESULT_MAGIC = b"CJW1", b"CJR1"
_KEY_BYTES = 32
_WRAP_BYTES = 32 + 32 + _KEY_BYTES + WRAP_OVERHEAD
MAX_WRAPS_BYTES = 5 + MAX_NODES * _WRAP_BYTES
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Wrap:
    """The content key for one node (its account), sealed to the sealing key with this hash."""

    node: bytes
    sealing_key_hash: bytes
    ciphertext: bytes = field(repr=False)


def wraps_to_bytes(wraps: Iterable[Wrap]) -> bytes:
    """magic | count u8 | for each node in order: account | sealing key hash | HPKE ciphertext (1,168 bytes)."""
    rows = [
        fixed(one.node, 32, "a node") + fixed(one.sealing_key_hash, 32, "a key's hash") + one.ciphertext
        for one in sorted(wraps, key=lambda one: one.node)
    ]
    return _WRAPS_MAGIC + uint(len(rows), 8, "the count of nodes") + b"".join(rows)


def wraps_from_bytes(data: bytes) -> tuple[Wrap, ...]:
    """Raises Malformed."""
    s = Reader(data, "the wrapped keys")
    if s.take(4) != _WRAPS_MAGIC:
        raise Malformed("not wrapped keys of this version")
    wraps = tuple(Wrap(s.take(32), s.take(32), s.take(_KEY_BYTES + WRAP_OVERHEAD)) for _ in range(s.uint(8)))
    s.end()
    if not 1 <= len(wraps) <= MAX_NODES or [one.node for one in wraps] != sorted({one.node for one in wraps}):
        raise Malformed(f"wrapped keys are for 1 to {MAX_NODES} nodes, each once and in order")
    return wraps


@dataclass(frozen=True, slots=True)
class JobInput:
    """What is inside the seal."""

    response_secret: bytes = field(repr=False)
    maximum_nano: int
    """The client's own: the enclave need not believe what it is told of the chain."""
    terms: Terms
    body: bytes = field(repr=False)
    """JSONL, UTF-8."""

    def to_bytes(self) -> bytes:
        """version u8 | secret | maximum u64 | terms | body's length u32 | body | zeros."""
        if not 1 <= len(self.body) <= MAX_BODY_BYTES:
            raise OurFault(f"a job's lines have {len(self.body)} bytes", f"keep them within {MAX_BODY_BYTES}")
        content = b"".join(
            (
                bytes((_VERSION,)),
                fixed(self.response_secret, commitments.SECRET_BYTES, "the response secret"),
                uint(self.maximum_nano, 64, "the maximum"),
                terms_to_bytes(self.terms),
                uint(len(self.body), 32, "the body's length"),
                self.body,
            )
        )
        return content.ljust(padded_size(len(content)), b"\0")

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises Malformed (blaming the client: the seal held)."""
        try:
            s = Reader(data, "the job's input")
            if s.take(1)[0] != _VERSION:
                raise Malformed("the job's input has an unknown version", Peer.CLIENT)
            job = cls(s.take(commitments.SECRET_BYTES), s.uint(64), read_terms(s), s.take(s.uint(32)))
            s.zeros()
            if not 1 <= len(job.body) <= MAX_BODY_BYTES:
                raise Malformed(f"the job's lines have {len(job.body)} bytes, not 1 to {MAX_BODY_BYTES}", Peer.CLIENT)
        except Malformed as error:
            raise Malformed(error.cause, Peer.CLIENT) from error
        return job


@dataclass(frozen=True, slots=True)
class SealedJob:
    spec: JobSpec
    wraps: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def _info(network: bytes, job: bytes, spec: JobSpec, node: bytes, key_hash: bytes) -> bytes:
    """HPKE `info`: all that the spec says but the hash of the wrapped keys, which these are."""
    ids = b"".join(fixed(one, 32, "an id") for one in (network, job, node, key_hash, spec.input, spec.terms))
    return b"cocoon.job.wrap.v1|" + ids + uint(spec.size, 32, "the size") + uint(spec.lines, 32, "the lines")


def _input_key(content_key: bytes, job: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=b"cocoon.job.input.v1|" + job).derive(content_key)


def seal_job(job_input: JobInput, *, lines: int, network: bytes, job: bytes, nodes: Mapping[bytes, bytes]) -> SealedJob:
    """Seal one job once. `job` is its account, `nodes` the verified sealing key (1,216 bytes) of each allowed node.

    Raises OurFault out of bounds, Malformed for a bad sealing key.
    """
    if not 1 <= len(nodes) <= MAX_NODES:
        raise OurFault(f"a job for {len(nodes)} nodes", f"name 1 to {MAX_NODES}")
    content_key = secrets.token_bytes(_KEY_BYTES)
    ciphertext = seal_blob(_input_key(content_key, job), job_input.to_bytes())
    bare = JobSpec(hashlib.sha256(ciphertext).digest(), len(ciphertext), bytes(32), job_input.terms.hash, lines)
    wraps = []
    for node, public_key in nodes.items():
        key_hash = public_key_hash(public_key)
        wraps.append(Wrap(node, key_hash, wrap(content_key, public_key, _info(network, job, bare, node, key_hash))))
    packed = wraps_to_bytes(wraps)
    spec = JobSpec(bare.input, bare.size, hashlib.sha256(packed).digest(), bare.terms, lines)
    return SealedJob(spec, packed, ciphertext)


def wrap_for(spec: JobSpec, wraps: bytes, node: bytes) -> Wrap:
    """Raises Malformed for other wrapped keys than the spec's, NotAuthentic when none is for this node."""
    if hashlib.sha256(wraps).digest() != spec.wraps:
        raise Malformed("the wrapped keys are not those that the job names")
    found = next((one for one in wraps_from_bytes(wraps) if one.node == node), None)
    if found is None:
        raise NotAuthentic(Peer.CLIENT, "the job is not sealed to this node", "submit it for this node too")
    return found


def is_input(spec: JobSpec, ciphertext: bytes) -> bool:
    return len(ciphertext) == spec.size and hashlib.sha256(ciphertext).digest() == spec.input


def open_job(
    pair: SealingKeyPair, wrapped: Wrap, *, spec: JobSpec, ciphertext: bytes, network: bytes, job: bytes
) -> JobInput:
    """Raises NotAuthentic when anything is not what the client sealed for this job, Malformed for a bad content."""
    if spec.size > MAX_INPUT_BYTES:
        raise Malformed(f"the job's input has {spec.size} bytes, over the limit of {MAX_INPUT_BYTES}", Peer.CLIENT)
    if not is_input(spec, ciphertext):
        raise NotAuthentic(Peer.PATH, "the input is not the one that the job names", "fetch it again")
    info = _info(network, job, spec, wrapped.node, wrapped.sealing_key_hash)
    content_key = pair.unwrap(wrapped.ciphertext, info)
    opened = JobInput.from_bytes(open_blob(_input_key(content_key, job), ciphertext))
    if opened.terms.hash != spec.terms:
        raise Malformed("the opened terms are not those that the job names", Peer.CLIENT)
    return opened


# ---- the result


def _result_key(secret: bytes, spec: JobSpec, job_id: bytes, nonce: bytes) -> bytes:
    info = b"cocoon.job.result.v1|" + fixed(job_id, 32, "the job id") + fixed(nonce, _NONCE_BYTES, "the nonce")
    return HKDF(SHA256(), 32, salt=spec.input, info=info).derive(secret)


def usage_cell(
    secret: bytes, job_id: bytes, spec: JobSpec, model: bytes, usage: Usage, stop: Stop, answers: bytes
) -> InnerReceipt:
    """What JobResult.inner is the hash of: an inner receipt whose request is the spec, its response the answers."""
    response = commitments.ResponseCommitment(secret)
    response.update(answers)
    return InnerReceipt(
        commitments.inner_salt(secret),
        model,
        usage.prompt_tokens,
        usage.cached_tokens,
        usage.completion_tokens,
        usage.reasoning_tokens,
        stop,
        commitments.request_commitment(secret, job_id, spec.hash),
        response.digest(),
        commitments.NOTHING,
    )


def seal_result(secret: bytes, job_id: bytes, spec: JobSpec, inner: InnerReceipt, answers: bytes) -> bytes:
    """magic | worker nonce | sealed: inner receipt | answers' length u32 | answers | zeros."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    content = inner_to_bytes(inner) + uint(len(answers), 32, "the answers' length") + answers
    content = content.ljust(padded_size(len(content)), b"\0")
    return _RESULT_MAGIC + nonce + seal_blob(_result_key(secret, spec, job_id, nonce), content)


@dataclass(frozen=True, slots=True)
class Result:
    inner: InnerReceipt
    usage: Usage
    stop: Stop
    answers: bytes = field(repr=False)
    """JSONL."""


def open_result(
    secret: bytes, job_id: bytes, spec: JobSpec, terms: Terms, outcome: Outcome | None, sealed: bytes
) -> Result:
    """The result, when it is whole and all that the chain shows of it follows from it.

    `outcome` None: the job has ended and the chain shows nothing more; then only the seal speaks for the answers.
    Raises NotAuthentic for other bytes than the chain names (somebody on the path), ReceiptFault where the enclave
    signed what does not follow: its usage cell, its commitments, its price.
    """
    if outcome is not None and hashlib.sha256(sealed).digest() != outcome.result:
        raise NotAuthentic(Peer.PATH, "the result is not the one that the chain names", "fetch it again")
    s = Reader(sealed, "a job's result")
    try:
        if s.take(4) != _RESULT_MAGIC:
            raise Malformed("not a result of this version")
        key = _result_key(secret, spec, job_id, s.take(_NONCE_BYTES))
        s = Reader(open_blob(key, s.take(s.left)), "a job's result")
        inner = inner_from_bytes(s.take(_INNER_BYTES))
        answers = s.take(s.uint(32))
        s.zeros()
    except (Malformed, NotAuthentic) as error:
        if outcome is None:
            raise NotAuthentic(Peer.PATH, f"the result does not open: {error.cause}", "fetch it again") from error
        raise ReceiptFault(f"the result does not open: {error.cause}") from error
    usage, stop = usage_of(inner)
    if usage_cell(secret, job_id, spec, terms.model, usage, stop, answers) != inner:
        raise ReceiptFault("the result's usage is not bound to this job and these answers")
    if outcome is not None:
        if inner.hash != outcome.inner:
            raise ReceiptFault("the result was sealed with another usage than the chain shows")
        due = charge(terms, usage, stop)
        if due != outcome.amount_nano:
            raise ReceiptFault(f"the result costs {outcome.amount_nano} nanoTON, its usage gives {due}")
    return Result(inner, usage, stop, answers)
