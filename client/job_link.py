"""A job's ciphertexts to and from the relayer, in pieces, signed with the escrow's voucher key."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import RelayerUnreachable
from client.relayer_link import RelayerLink
from protocol import strict_json
from protocol.job_link import PATH, PIECE_BYTES, Entry, post_request
from protocol.jobs import MAX_RESULT_BYTES
from protocol.link import BadMessage, octets

_CURE = "do it again: nothing is lost, and nothing is paid twice; or use another relayer"
_MAX_DOCUMENT_BYTES = 64 << 10


class JobLink:
    """Raises RelayerUnreachable, RelayerRefused."""

    def __init__(self, link: RelayerLink, network: bytes, escrow: bytes, voucher_key: Ed25519PrivateKey) -> None:
        self._link = link
        self._network = network
        self._escrow = escrow
        self._voucher_key = voucher_key

    async def leave(self, entry: Entry, sealed: bytes) -> None:
        """The job and all of its input, from where the relayer has it."""
        body = json.dumps(entry.to_json()).encode()
        signed = hashlib.sha256(body).digest()
        at = await self._number("POST", f"{PATH}/{entry.job.hex()}", entry.job, "input_bytes", body, signed)
        while at < len(sealed):
            piece = sealed[at : at + PIECE_BYTES]
            path = f"{PATH}/{entry.job.hex()}/input?offset={at}"
            have = await self._number("PUT", path, entry.job, "bytes", piece)
            if not at < have <= len(sealed):
                raise RelayerUnreachable(f"{self._link.url} takes no more of the input than {have} bytes", _CURE)
            at = have

    async def results(self, job: bytes) -> dict[bytes, int]:
        """Bytes of the result by node that left one."""
        found = (await self._document("GET", f"{PATH}/{job.hex()}", job)).get("results")
        try:
            if isinstance(found, dict):
                return {octets({"node": node}, "node"): size for node, size in found.items() if isinstance(size, int)}
        except BadMessage:
            found = None
        raise RelayerUnreachable(f"{self._link.url} does not say what it has of the job", _CURE)

    async def result(self, job: bytes, node: bytes) -> bytes:
        """What this node left, whole. Its hash is the caller's to check."""
        data = bytearray()
        while len(data) <= MAX_RESULT_BYTES:
            path = f"{PATH}/{job.hex()}/result?node={node.hex()}&offset={len(data)}"
            piece = await self._link.bytes_of("GET", path, headers=self._headers(job), most=PIECE_BYTES)
            if not piece:
                return bytes(data)
            data += piece
        raise RelayerUnreachable(f"{self._link.url} sends more than a result can have", _CURE)

    def _headers(self, job: bytes, entry: bytes = bytes(32)) -> Mapping[str, str]:
        at = int(time.time())
        message = post_request(network=self._network, escrow=self._escrow, job=job, entry=entry, at=at)
        return {"Cocoon-Time": str(at), "Cocoon-Signature": self._voucher_key.sign(message).hex()}

    async def _number(
        self, method: str, path: str, job: bytes, name: str, data: bytes, entry: bytes = bytes(32)
    ) -> int:
        value = (await self._document(method, path, job, data, entry)).get(name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise RelayerUnreachable(f"{self._link.url} does not say what it has of the job", _CURE)
        return value

    async def _document(
        self, method: str, path: str, job: bytes, data: bytes | None = None, entry: bytes = bytes(32)
    ) -> dict[str, Any]:
        headers = self._headers(job, entry)
        answer = await self._link.bytes_of(method, path, headers=headers, data=data, most=_MAX_DOCUMENT_BYTES)
        try:
            body = strict_json.parse(answer)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            raise RelayerUnreachable(f"{self._link.url} answers no JSON object", _CURE)
        return body
