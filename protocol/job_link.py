"""How the ciphertexts of batch jobs travel by way of a relayer: HTTP paths, what is signed, and JSON bodies.

Clients put a job's sealed input there and get its result; the agents of its nodes get the input and put the result.
Blobs move in pieces at an offset, so that either side resumes where it broke off. Whoever reads checks the hash: the
relayer is trusted with nothing but keeping bytes for a while.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from protocol.codec import fixed, uint
from protocol.jobs import MAX_WRAPS_BYTES, wraps_from_bytes
from protocol.link import BadMessage, number, octets
from wrappers.cells import CellError, from_boc
from wrappers.job import JobSpec

PATH = "/v1/jobs"
PIECE_BYTES = 1 << 20
"""Of one PUT or GET."""
MAX_KEPT_SECONDS = 45 * 86_400
"""Longest deadline, grace and delivery window together."""
MAX_ENTRY_BYTES = 64 << 10
LISTED = 32
"""Entries in one page of a node's list."""
_SPEC_BYTES = 1024


def post_request(*, network: bytes, escrow: bytes, job: bytes, entry: bytes, at: int) -> bytes:
    """180 bytes that the escrow's voucher key signs to leave a job at a relayer, or to read what became of it.

    "cocoon.job.v1" and a zero byte | network id | escrow | job | SHA-256 of the entry's JSON (zeros where only reading)
    | unix time u64 | 30 zero bytes.
    """
    ids = b"".join(fixed(one, 32, "an id") for one in (network, escrow, job, entry))
    return b"cocoon.job.v1\0" + ids + uint(at, 64, "the time") + bytes(30)


def node_request(*, network: bytes, node: bytes, at: int, job: bytes = bytes(32), result: bytes = bytes(32)) -> bytes:
    """182 bytes that the node's release key signs to get the jobs that are sealed to it, and to put their results.

    "cocoon.node-jobs.v1" and a zero byte | network id | node's account | job | SHA-256 of its result | unix time u64 |
    26 zero bytes. Job and result are zeros where something is only read: what one relayer is shown lets it put nothing
    in this node's name at another.
    """
    ids = b"".join(fixed(one, 32, "an id") for one in (network, node, job, result))
    return b"cocoon.node-jobs.v1\0" + ids + uint(at, 64, "the time") + bytes(26)


@dataclass(frozen=True, slots=True)
class Entry:
    """A job as the client leaves it. Its account follows from escrow and index."""

    job: bytes
    escrow: bytes
    index: int
    spec: bytes = field(repr=False)
    """Bag of cells of JobSpec."""
    wraps: bytes = field(repr=False)
    keep_until: int
    """Unix seconds."""

    @property
    def parsed(self) -> JobSpec:
        return JobSpec.from_cell(from_boc(self.spec))

    @property
    def nodes(self) -> frozenset[bytes]:
        return frozenset(one.node for one in wraps_from_bytes(self.wraps))

    def to_json(self) -> dict[str, Any]:
        return {
            "job": self.job.hex(),
            "escrow": self.escrow.hex(),
            "index": self.index,
            "spec": base64.b64encode(self.spec).decode(),
            "wraps": base64.b64encode(self.wraps).decode(),
            "keep_until": self.keep_until,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Raises BadMessage, Malformed."""
        spec, wraps = _base64(body, "spec", _SPEC_BYTES), _base64(body, "wraps", MAX_WRAPS_BYTES)
        ids = octets(body, "job"), octets(body, "escrow"), number(body, "index", 32)
        entry = cls(*ids, spec, wraps, number(body, "keep_until", 40))
        try:
            parsed = entry.parsed
        except CellError as error:
            raise BadMessage(str(error)) from error
        if hashlib.sha256(wraps).digest() != parsed.wraps:
            raise BadMessage("the wrapped keys are not those that the spec names")
        wraps_from_bytes(wraps)
        return entry


def _base64(body: Mapping[str, Any], name: str, most: int) -> bytes:
    raw = body.get(name)
    try:
        value = base64.b64decode(raw, validate=True) if isinstance(raw, str) else b""
    except (binascii.Error, ValueError):
        value = b""
    if not 1 <= len(value) <= most:
        raise BadMessage(f"{name} is not 1 to {most} bytes in base64")
    return value
