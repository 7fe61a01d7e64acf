"""Bad input at the local endpoint: an error with its cure, and nothing of it in a log."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from client.sidecar import Sidecar

GOOD = b'{"messages":[{"role":"user","content":"PROMPT"}]}'
DEEP = b'{"messages":[{"role":"user","content":"PROMPT"}],"user":' + b"[" * 900 + b"]" * 900 + b"}"


async def raw(url: str, path: str, body: bytes, *headers: bytes) -> tuple[int, dict[str, Any]]:
    host, _, port = url.removeprefix("http://").removesuffix("/v1").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [b"POST " + path.encode() + b" HTTP/1.1", b"Content-Type: application/json", b"Connection: close"]
    lines += [b"Content-Length: %d" % len(body), *(headers or (b"Host: localhost",))]
    writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(content)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/chat/completions", DEEP, ()),
        ("/v1/chat/completions", GOOD, (b"Host: [::1",)),
        ("/v1/chat/completions", GOOD, (b"Host: localhost", b"Origin: http://[::1")),
        ("/v1/chat/completions", GOOD, (b"Host: evil.example", b"Authorization: Bearer \xff\xfe")),
        ("/cocoon/control", b"{", (b"Host: localhost", b"Authorization: Bearer \xff")),
    ],
)
async def test_g18_bad_input_gets_a_clear_error(
    world: Any, caplog: pytest.LogCaptureFixture, path: str, body: bytes, headers: tuple[bytes, ...]
) -> None:
    async with world.client() as client:
        sidecar = Sidecar(client)
        url = await sidecar.start("127.0.0.1", 0)
        with caplog.at_level(logging.INFO):
            status, answer = await raw(url, path, body, *headers)
        await sidecar.close()
    assert 400 <= status < 500 and "Cure" in answer["error"]["message"]
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


@pytest.mark.parametrize("stream", [False, True])
async def test_g11_a_fault_of_ours_puts_no_prompt_into_a_log(
    world: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    async def broken(body: Any, **_: Any) -> Any:
        yield await asyncio.sleep(0, None)
        raise KeyError(str(body.fields["messages"]))

    async with world.client() as client:
        monkeypatch.setattr(client, "chat", broken)
        sidecar = Sidecar(client)
        url = await sidecar.start("127.0.0.1", 0)
        body = json.dumps({**json.loads(GOOD), "stream": stream}).encode()
        with caplog.at_level(logging.DEBUG):
            status, answer = await raw(url, "/v1/chat/completions", body, b"Host: localhost")
        await sidecar.close()
    assert status == 500 and answer["error"]["code"] == "internal"
    assert "KeyError" in caplog.text and "PROMPT" not in caplog.text
