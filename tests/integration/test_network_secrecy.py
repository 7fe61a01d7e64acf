"""Nobody between client and enclave ever holds a word of prompt or answer, in any form (G11); what they do hold, posted
again, is answered and billed once (G4)."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from chain.wait import until
from client.events import Done, Text
from client.sdk import Client
from protocol.sealing import SealedRequest
from protocol.stream import Completed, ResponseReader

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

WINDOW = 24
"""Characters of an answer that no log or library says by chance."""
Ask = Callable[..., Awaitable[Any]]


# ---------------------------------------------------------------------------------------------------------- the needles


def likely_forms(text: str) -> Iterator[bytes]:
    """The text as a process may hold it."""
    raw = text.encode()
    yield raw
    yield text.encode("utf-16-le")
    yield raw.hex().encode()
    yield from _base64(raw)


def forms(text: str) -> Iterator[bytes]:
    """The text as files and wires may hold it."""
    yield from likely_forms(text)
    for octets in (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be")):
        yield octets
        yield octets.hex().encode()
        yield octets.hex().upper().encode()
        yield from (one.translate(bytes.maketrans(b"+/", b"-_")) for one in _base64(octets))
    yield json.dumps(text).strip('"').encode()
    yield quote(text).encode()


def _base64(octets: bytes) -> Iterator[bytes]:
    """What is in the base64 of anything that has the octets somewhere inside."""
    for shift in range(3):
        yield base64.b64encode(octets[shift : len(octets) - (len(octets) - shift) % 3])


def texts_of(answer: str) -> list[str]:
    """Pieces of it, from its start to its end."""
    assert len(answer) >= 3 * WINDOW, "the answer is too short to look for"
    return [answer[at : at + WINDOW] for at in (0, len(answer) // 2 - WINDOW // 2, len(answer) - WINDOW)]


def found(wanted: Iterable[bytes], hay: bytes) -> list[bytes]:
    return [needle for needle in wanted if needle in hay]


# ----------------------------------------------------------------------------------------------------------- the places


def memory_of(pid: int) -> bytes:
    """Private writable memory of a process. Skips the test where the system bars it."""
    parts = []
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for span, permissions in (line.split(maxsplit=2)[:2] for line in maps):
                if permissions.startswith("rw") and permissions.endswith("p"):
                    start, end = (int(part, 16) for part in span.split("-"))
                    try:
                        memory.seek(start)
                        parts.append(memory.read(end - start))
                    except (OSError, ValueError, OverflowError):
                        continue  # a guard page
    except PermissionError as error:
        pytest.skip(f"this system bars reading another process's memory: {error}")
    return b"".join(parts)


def relayer_memory(net: Any) -> bytes:
    """By the relayer's own test hook. Skips the test where the system bars it."""
    target: Path = net.memory_dump
    barred = target.with_suffix(".barred")
    target.unlink(missing_ok=True)
    os.kill(net.service("relayer").process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 20
    while not target.exists():
        if barred.exists():
            pytest.skip(f"the relayer's memory cannot be read: {barred.read_text()}")
        assert time.monotonic() < deadline, "the relayer's memory hook did not answer"
        time.sleep(0.05)
    return target.read_bytes()


def files_in(*folders: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def unmasked(octets: bytes) -> bytes:
    """Payloads of the WebSocket frames that a client sent: they are masked on the wire, which hides nothing.

    Plain HTTP, which agents use for jobs, as it is.
    """
    head, _, rest = octets.partition(b"\r\n\r\n")
    if b"Upgrade: websocket" not in head:
        return octets
    found, at = [], 0
    while at + 6 <= len(rest):
        length, at = rest[at + 1] & 0x7F, at + 2
        if length >= 126:
            width = 2 if length == 126 else 8
            length, at = int.from_bytes(rest[at : at + width], "big"), at + width
        mask, at = rest[at : at + 4], at + 4
        payload, at = rest[at : at + length], at + length
        key = int.from_bytes((mask * (len(payload) // 4 + 1))[: len(payload)], "big")
        found.append((int.from_bytes(payload, "big") ^ key).to_bytes(len(payload), "big"))
    return b"".join(found)


def wires(net: Any) -> dict[str, bytes]:
    agent = b"".join(unmasked(bytes(up)) for up, _ in net.worker_wire.connections if up)
    return {
        "client to relayer": net.client_wire.up,
        "relayer to client": net.client_wire.down,
        "relayer to agent": net.worker_wire.down,
        "agent to relayer": agent,
    }


# ------------------------------------------------------------------------------------------------------------ the tests


async def test_g11_no_party_between_holds_prompt_or_answer(net: Any) -> None:
    key = await net.serving()
    word = secrets.token_hex(12)
    prompt = f"My secret word is {word}. Now describe a walk along the river in autumn."
    async with net.client("secrecy") as client:
        held: dict[str, bytes] = {}
        answer, done, sealed, secret, enclave = "", None, b"", b"", b""
        messages = [{"role": "user", "content": prompt}]
        async for event in client.chat({"messages": messages, "max_tokens": 250, "stream": True}):
            if isinstance(event, Text):
                answer += event.text
                if event.text and not held:
                    # In the middle of the answer, when whoever sees a text has it.
                    (request,) = client.store.requests()
                    sealed, secret = request.sealed, request.secret
                    held["agent's memory, answering"] = memory_of(net.service("worker").process.pid)
                    held["relayer's memory, answering"] = relayer_memory(net)
                    enclave = memory_of(net.enclave_pid())
            elif isinstance(event, Done):
                done = event
        assert done is not None
        held["relayer's memory, after"] = relayer_memory(net)
        held |= wires(net) | files_in(net.home.relayer, net.home.node, net.home.logs, net.home.devnet)
    # The client keeps no texts unless it is told to, and once it has ended nothing that opens recorded traffic.
    held |= files_in(net.client_home("secrecy"))

    texts = [word, *texts_of(answer)]
    keys = {secret, secret.hex().encode()}
    likely = {form for text in texts for form in likely_forms(text)} | keys
    every = {form for text in texts for form in forms(text)} | keys
    for place, hay in held.items():
        assert found(likely if "memory" in place else every, hay) == [], f"in clear: {place}"

    # The search can find: the one process that must have the prompt has it, and what must be there is.
    assert found(likely_forms(word), enclave), "the enclave itself does not hold the prompt: the search finds nothing"
    signed = done.receipt.issued.signed
    ciphertext, signature = sealed[2000:2064], signed.signature
    for place in ("relayer's memory, answering", "agent's memory, answering", "client to relayer", "relayer to agent"):
        assert ciphertext in held[place], f"no ciphertext: {place}"
    for place in ("agent to relayer", "relayer to client"):
        assert signature in held[place], f"no receipt: {place}"
    for folder, what in ((net.home.relayer, signed.receipt.hash), (net.home.node, signature)):
        assert any(what in hay for place, hay in held.items() if place.startswith(str(folder))), folder
    assert net.node.hex().encode() in held[str(net.home.logs / "relayer.log")]
    assert key.hex().encode() in held[str(net.home.logs / "worker.log")]


async def test_g11_the_search_knows_every_form() -> None:
    text = "a secret of some length: 0123456789"
    for hidden in (
        text.encode(),
        text.encode("utf-16-le"),
        text.encode("utf-16-be"),
        text.encode().hex().encode(),
        base64.b64encode(f"x{text}y".encode()),
        base64.b64encode(f"xy{text}".encode()),
        base64.urlsafe_b64encode(f"xyz{text}".encode()),
        json.dumps({"messages": [text]}).encode(),
        quote(f"prompt={text}").encode(),
    ):
        assert found(forms(text), b"\x00 noise " + hidden + b" noise"), hidden
    assert not found(forms(text), b"a secret of another length")


def posted_requests(wire: bytes) -> list[bytes]:
    """Bodies of the sealed requests on the clients' wire."""
    bodies = []
    for match in re.finditer(rb"POST /v1/requests HTTP/1\.1\r\n(.*?)\r\n\r\n", wire, re.DOTALL):
        length = re.search(rb"content-length: (\d+)", match[1], re.IGNORECASE)
        assert length is not None
        bodies.append(wire[match.end() : match.end() + int(length[1])])
    return bodies


async def post(net: Any, sealed: bytes) -> bytes:
    url = f"{net.home.relayer_url}/v1/requests"
    async with aiohttp.ClientSession() as http, http.post(url, data=sealed) as response:
        assert response.status == 200, await response.text()
        return await response.read()


async def all_landed(net: Any) -> None:
    """Nothing is owed any more: what the node counts from now on is this test's."""

    async def landed() -> bool | None:
        said = await net.settle()
        return True if (said["batch"], said["receipts"]) == (None, 0) and "error" not in said else None

    await until(landed, what="all claims to land", timeout_seconds=30)


async def test_g4_captured_bytes_posted_again_are_answered_and_billed_once(net: Any, ask_node: Ask) -> None:
    await net.serving()
    async with net.client("replay") as client:
        secrets_of: dict[bytes, bytes] = {}

        def remember() -> None:
            secrets_of.update({one.request_id: one.secret for one in client.store.requests()})

        await all_landed(net)
        counted = (await net.node_state()).requests
        _, done = await ask_node(client, "What is a bridge?", 24, remember)
        (sealed,) = [one for one in posted_requests(net.client_wire.up) if _id(one) in secrets_of]

        # By whoever saw them pass: one after the other, and many at once.
        first = await post(net, sealed)
        again = await asyncio.gather(*(post(net, sealed) for _ in range(4)))
        assert set(again) == {first}
        enc = SealedRequest.from_bytes(sealed).enc
        reader = ResponseReader(response_secret=secrets_of[_id(sealed)], enc=enc, request_id=_id(sealed))
        last = reader.feed(first)[-1]
        assert isinstance(last, Completed) and last.signed.receipt.hash == done.receipt.hash

        # At once from the start: two runs of one request would be two receipts.
        _, second = await ask_with_echo(net, client, secrets_of)
        assert second.receipt.issued.signed.receipt.seq == 2
        _, third = await ask_node(client, "And a tunnel?")
        assert third.receipt.issued.signed.receipt.seq == 3, "no receipt for a repeat lies between"

        billed = [one.issued.signed.receipt.amount_nano for one in client.receipts()]
        assert len(billed) == 3
        assert (await net.settle())["batch"] is not None
        escrow = client.store.escrow()
        assert escrow is not None
        row = await net.wait_paid(escrow.account, sum(billed))
        assert row.paid_nano == sum(billed)
        assert (await net.node_state()).requests == counted + 3


def _id(sealed: bytes) -> bytes:
    return SealedRequest.from_bytes(sealed).request_id


async def ask_with_echo(net: Any, client: Client, secrets_of: dict[bytes, bytes]) -> tuple[str, Done]:
    """An answer whose captured request somebody else posts three times while it is being answered."""
    text, done, echoes = "", None, None
    messages = [{"role": "user", "content": "Describe the sea at night."}]
    async for event in client.chat({"messages": messages, "max_tokens": 80, "stream": True}):
        if isinstance(event, Text):
            text += event.text
            if echoes is None:
                (request,) = client.store.requests()
                secrets_of[request.request_id] = request.secret
                (sealed,) = {one for one in posted_requests(net.client_wire.up) if _id(one) == request.request_id}
                echoes = asyncio.gather(*(post(net, sealed) for _ in range(3)))
        elif isinstance(event, Done):
            done = event
    assert done is not None and echoes is not None
    for frames in await echoes:
        assert done.receipt.issued.signed.signature in frames, "another answer than the client got"
    return text, done
