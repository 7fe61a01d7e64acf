"""The relayer as a client sees it: ciphertext through, hints back. Whatever it tells is checked elsewhere.

Client API version 1; what is signed in it is `protocol.link`'s.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.errors import NotConnected, RelayerRefused, RelayerUnreachable, showable
from protocol import strict_json
from protocol.errors import Malformed
from protocol.link import MAX_RECEIPTS, BadMessage, octets, receipts_request
from protocol.link_messages import ReleaseAnswer, ReleaseRequest
from protocol.receipts import SignedReceipt

REQUEST_TYPE = "application/vnd.cocoon.request"
FRAMES_TYPE = "application/vnd.cocoon.frames"
MAX_DOCUMENT_BYTES = 64 << 20
"""A list of offers; each is at most 4 MiB."""
MAX_ERROR_BYTES = 16 << 10
MAX_RETRY_SECONDS = 60.0
_CURE = "check the relayer's URL and that it runs, or use another relayer"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds. `silence`: between two parts of an answer; the first one has longer, since a model may be loading."""

    connect: float = 10.0
    document: float = 30.0
    first_frame: float = 150.0
    silence: float = 90.0


class RelayerLink:
    """One relayer, or a node that is dialled directly: then `context` is of RA-TLS and judges who answers.

    Raises RelayerUnreachable, RelayerRefused.
    """

    def __init__(self, url: str, timeouts: Timeouts | None = None, context: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self._context = context
        self._timeouts = timeouts or Timeouts()
        self._session: aiohttp.ClientSession | None = None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # Answers are ciphertext: nothing to compress, no cookies, no limit on requests at once.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, ssl=self._context or True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                timeout=aiohttp.ClientTimeout(sock_connect=self._timeouts.connect),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    # ---- documents

    async def status(self) -> dict[str, Any]:
        return await self._document("GET", "/v1/status")

    async def offers(self) -> list[tuple[bytes, str]]:
        """(account, offer as JSON text) of every node that has one. Entries that are not even that are left out."""
        nodes = (await self._document("GET", "/v1/nodes")).get("nodes")
        if not isinstance(nodes, list):
            raise RelayerUnreachable(f"{self.url} answers no list of nodes", _CURE)
        return [found for view in nodes if (found := _offer_of(view)) is not None]

    async def offer(self, node: bytes) -> str | None:
        """One node's offer as JSON text; None where it is connected without one."""
        view = await self._document("GET", f"/v1/nodes/{node.hex()}")
        found = _offer_of(view)
        return None if found is None or found[0] != node else found[1]

    async def release(self, request: ReleaseRequest) -> bytes:
        """The node's signature over the release as asked for. Not checked here."""
        document = await self._document("POST", "/v1/release", request.to_json())
        try:
            answer = ReleaseAnswer.from_json(document)
        except BadMessage as error:
            raise RelayerUnreachable(f"{self.url} answers no release: {error.cause}", _CURE) from error
        asked = (request.allotment, request.row_seqno, request.allotted_nano)
        if (answer.allotment, answer.row_seqno, answer.allotted_nano) != asked:
            raise RelayerUnreachable(f"{self.url} answers with another release than was asked for", _CURE)
        return answer.signature

    async def receipts(
        self,
        voucher_key: Ed25519PrivateKey,
        *,
        network: bytes,
        escrow: bytes,
        now: int,
        allotment: bytes,
        key: bytes,
        after: int = 0,
    ) -> list[SignedReceipt]:
        """Outer receipts after seq `after`, as the relayer kept them; their signatures are the caller's to check."""
        headers = {
            "Cocoon-Time": str(now),
            "Cocoon-Signature": voucher_key.sign(receipts_request(network=network, escrow=escrow, at=now)).hex(),
        }
        found: list[SignedReceipt] = []
        while True:
            path = f"/v1/receipts?escrow={escrow.hex()}&allotment={allotment.hex()}&key={key.hex()}&after={after}"
            answer = await self._document("GET", f"{path}&limit={MAX_RECEIPTS}", headers=headers)
            page = answer.get("receipts")
            if not isinstance(page, list):
                raise RelayerUnreachable(f"{self.url} answers no list of receipts", _CURE)
            new = [_receipt_of(one, self.url) for one in page]
            found += new
            if not answer.get("more") or not new or new[-1].receipt.seq <= after:
                return found
            after = new[-1].receipt.seq

    async def _document(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._timeouts.document):
                async with self._open().request(
                    method, self.url + path, json=body, headers=headers, allow_redirects=False
                ) as response:
                    if response.status != 200:
                        raise await _refusal(response)
                    return _object(await _read(response, MAX_DOCUMENT_BYTES), self.url)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RelayerUnreachable(f"{self.url} does not answer ({_why(error)})", _CURE) from error

    async def bytes_of(
        self, method: str, path: str, *, headers: Mapping[str, str], data: bytes | None = None, most: int
    ) -> bytes:
        """The answer's body, of at most `most` bytes."""
        try:
            async with asyncio.timeout(self._timeouts.document):
                async with self._open().request(
                    method, self.url + path, data=data, headers=headers, allow_redirects=False
                ) as response:
                    if response.status != 200:
                        raise await _refusal(response)
                    return await _read(response, most)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RelayerUnreachable(f"{self.url} does not answer ({_why(error)})", _CURE) from error

    # ---- requests

    @asynccontextmanager
    async def post(self, sealed: bytes) -> AsyncGenerator[AsyncIterator[bytes], None]:
        """Post a sealed request; yields the answer's bytes as they come. The same bytes may be posted any number of
        times: the enclave opens them once. Raises NotConnected where not even a part of them can have left."""
        headers = {"Content-Type": REQUEST_TYPE, "Accept": FRAMES_TYPE}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect, sock_read=None)
        try:
            async with asyncio.timeout(self._timeouts.first_frame):
                response = await self._open().post(
                    self.url + "/v1/requests", data=sealed, headers=headers, timeout=timeout, allow_redirects=False
                )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotConnected(f"{self.url} does not take the request ({_why(error)})", _CURE) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RelayerUnreachable(f"{self.url} does not take the request ({type(error).__name__})", _CURE) from error
        try:
            if response.status != 200:
                raise await _refusal(response)
            yield self._parts(response)
        finally:
            # Dropped, not drained: the relayer must see that nobody reads any more.
            response.close()

    async def _parts(self, response: aiohttp.ClientResponse) -> AsyncGenerator[bytes, None]:
        silence = self._timeouts.first_frame
        while True:
            try:
                async with asyncio.timeout(silence):
                    part = await response.content.readany()
            except TimeoutError as error:
                raise RelayerUnreachable(f"{self.url} was silent for {silence:g} s", _CURE) from error
            except (aiohttp.ClientError, OSError) as error:
                raise RelayerUnreachable(
                    f"the connection to {self.url} broke ({type(error).__name__})", _CURE
                ) from error
            if not part:
                return
            silence = self._timeouts.silence
            yield part


def _why(error: Exception) -> str:
    """A refused certificate says what was wrong with it; the texts of other errors hold nothing but addresses."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return showable(error.certificate_error)
    return type(error).__name__


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    data = bytearray()
    async for part in response.content.iter_chunked(1 << 16):
        data += part
        if len(data) > limit:
            raise RelayerUnreachable(f"{response.url.origin()} answers more than {limit} bytes", _CURE)
    return bytes(data)


def _object(data: bytes, url: str) -> dict[str, Any]:
    try:
        parsed = strict_json.parse(data)
    except ValueError as error:
        raise RelayerUnreachable(f"{url} answers no JSON", _CURE) from error
    if not isinstance(parsed, dict):
        raise RelayerUnreachable(f"{url} answers no JSON object", _CURE)
    return parsed


async def _refusal(response: aiohttp.ClientResponse) -> RelayerRefused | RelayerUnreachable:
    url = str(response.url.origin())
    try:
        raw = _object(await _read(response, MAX_ERROR_BYTES), url)
        code, cause, cure = (showable(raw[name]) for name in ("code", "cause", "cure"))
    except (RelayerUnreachable, KeyError):
        return RelayerUnreachable(f"{url} answers HTTP {response.status} without a reason", _CURE)
    return RelayerRefused(code, cause, cure, response.status, _retry_after(response))


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), MAX_RETRY_SECONDS) if text.isascii() and text.isdigit() else None


def _offer_of(view: object) -> tuple[bytes, str] | None:
    if not isinstance(view, dict) or not isinstance(view.get("offer"), dict):
        return None
    try:
        return octets(view, "node"), json.dumps(view["offer"])
    except BadMessage:
        return None


def _receipt_of(raw: object, url: str) -> SignedReceipt:
    try:
        if not isinstance(raw, dict):
            raise TypeError
        return SignedReceipt.from_bytes(base64.b64decode(raw["frame"], validate=True))
    except (KeyError, TypeError, binascii.Error, ValueError, Malformed) as error:
        raise RelayerUnreachable(f"{url} answers something that is no receipt", _CURE) from error
