"""The enclave's end of direct connections: only its own evidence, only RA-TLS, bytes passed unread."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from attestation.evidence import Evidence, Kind
from attestation.policy import AllowedImage, Policy, Tier
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee
from attestation.tls import RatlsContext, client_context, peer_of
from attestation.verify import Expected, verify
from protocol.link import host_and_port
from worker.agent.config import ConfigError, parse
from worker.enclave.direct import Direct
from worker.enclave.keys import Keys
from worker.messages import Certified, Certify, Failed
from worker.pump import join

NOW = int(time.time())
TEE = SimulatedTee(b"a test machine")
COLLATERAL = mint(NOW)
POLICY = Policy(
    images=(AllowedImage("test image", TEE.registers.measurement),),
    max_age_seconds=3_600,
    tiers=frozenset({Tier.SIMULATED}),
    allow_simulated=True,
    block_required=False,
)


def order_for(key: bytes, folder: Path) -> Certify:
    binding = Binding(b"n" * 32, b"o" * 32, 41, key, bytes(32), 1_000, b"r" * 32)
    evidence = Evidence(Kind.SIMULATED, TEE.quote(binding.report_data()), binding)
    paths = (str(folder / name) for name in ("tls", "inner"))
    return Certify(evidence.to_json().encode(), COLLATERAL.to_json().encode(), *paths)


def context() -> RatlsContext:
    expected = Expected(-7001, b"n" * 32, b"o" * 32, 41)
    return client_context(lambda evidence, found: verify(evidence, found, POLICY, NOW, expected=expected))


@asynccontextmanager
async def echo(path: Path) -> AsyncIterator[None]:
    """The agent: answers what it hears."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(b"echo " + data)
        writer.close()

    server = await asyncio.start_unix_server(connected, str(path))
    try:
        yield
    finally:
        server.close()


async def dial(
    path: Path, ssl_context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_unix_connection(str(path), ssl=ssl_context, server_hostname="" if ssl_context else None)


async def test_what_comes_over_ra_tls_reaches_the_agent_and_its_answer_the_client(tmp_path: Path) -> None:
    keys = Keys(3600)
    direct = Direct(keys)
    async with echo(tmp_path / "inner"):
        certified = await direct.certify(order_for(keys.public, tmp_path), NOW)
        assert certified == Certified(NOW + 24 * 3600)
        reader, writer = await dial(tmp_path / "tls", context())
        assert peer_of(writer.get_extra_info("ssl_object")).signing_key == keys.public
        writer.write(b"sealed")
        assert await reader.readexactly(11) == b"echo sealed"
        writer.close()
        await direct.close()


async def test_certified_anew_new_connections_meet_a_new_key_and_old_ones_go_on(tmp_path: Path) -> None:
    keys = Keys(3600)
    direct = Direct(keys)
    async with echo(tmp_path / "inner"):
        seen = []
        streams = []
        for _ in range(2):
            await direct.certify(order_for(keys.public, tmp_path), NOW)
            reader, writer = await dial(tmp_path / "tls", context())
            seen.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
            streams.append((reader, writer))
        assert seen[0] != seen[1]
        for reader, writer in streams:
            writer.write(b"x")
            assert await reader.readexactly(6) == b"echo x"
            writer.close()
        await direct.close()


async def test_g12_evidence_of_another_enclave_is_not_served(tmp_path: Path) -> None:
    direct = Direct(Keys(3600))
    refused = await direct.certify(order_for(b"\x05" * 32, tmp_path), NOW)
    assert isinstance(refused, Failed) and refused.what == "certify" and "another enclave" in refused.cause
    assert not (tmp_path / "tls").exists()


@pytest.mark.parametrize(("field", "value"), [("evidence", b"{}"), ("collateral", b"["), ("listen", "/nowhere/x")])
async def test_g18_an_order_that_cannot_be_carried_out_says_why(tmp_path: Path, field: str, value: object) -> None:
    keys = Keys(3600)
    order = order_for(keys.public, tmp_path)
    fields = {name: getattr(order, name) for name in ("evidence", "collateral", "listen", "forward")}
    refused = await Direct(keys).certify(Certify(**{**fields, field: value}), NOW)
    assert isinstance(refused, Failed) and refused.cause and refused.cure


async def test_plain_bytes_never_reach_the_agent(tmp_path: Path) -> None:
    keys = Keys(3600)
    direct = Direct(keys)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with echo(tmp_path / "inner"):
        await direct.certify(order_for(keys.public, tmp_path), NOW)
        reader, writer = await dial(tmp_path / "tls")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"echo" not in await reader.read(1000)
        writer.close()
        await direct.close()


async def test_an_agent_that_does_not_listen_ends_the_connection(tmp_path: Path) -> None:
    keys = Keys(3600)
    direct = Direct(keys)
    await direct.certify(order_for(keys.public, tmp_path), NOW)
    reader, writer = await dial(tmp_path / "tls", context())
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()
    await direct.close()


async def test_joined_streams_end_together(tmp_path: Path) -> None:
    joined: list[asyncio.Task[None]] = []
    async with echo(tmp_path / "far"):

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far = await asyncio.open_unix_connection(str(tmp_path / "far"))
            joined.append(asyncio.ensure_future(join((reader, writer), far)))

        server = await asyncio.start_unix_server(connected, str(tmp_path / "near"))
        reader, writer = await dial(tmp_path / "near")
        big = bytes(range(256)) * 4096
        writer.write(big)
        answered = await reader.readexactly(len(big))
        assert answered.startswith(b"echo ")
        writer.close()
        async with asyncio.timeout(5):
            await joined[0]
        server.close()


async def test_a_connection_that_nobody_uses_is_ended_and_one_in_use_is_not(tmp_path: Path) -> None:
    async with echo(tmp_path / "far"):

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await join((reader, writer), await asyncio.open_unix_connection(str(tmp_path / "far")), 0.3)

        server = await asyncio.start_unix_server(connected, str(tmp_path / "near"))
        reader, writer = await dial(tmp_path / "near")
        for _ in range(4):
            await asyncio.sleep(0.15)
            writer.write(b"x")
            assert await reader.readexactly(6) == b"echo x"
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        server.close()


@pytest.mark.parametrize(
    ("text", "found"),
    [("127.0.0.1:8443", ("127.0.0.1", 8443)), ("[::1]:1", ("::1", 1)), ("node.example:443", ("node.example", 443))],
)
def test_host_and_port(text: str, found: tuple[str, int]) -> None:
    assert host_and_port(text) == found


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":1", "host:x", "host:70000", "http://host:1", "host:1/x", "a@host:1"]
)
def test_g18_what_is_no_host_and_port_is_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="host:port"):
        host_and_port(text)
    raw = {"network": "devnet", "registry": "11" * 32, "data_dir": "x", "enclave_config": "y", "node": "22" * 32}
    for direct in ({"listen": text}, {"listen": "a:1", "more": 1}, {}, "a:1"):
        with pytest.raises(ConfigError, match="direct"):
            parse({**raw, "direct": direct}, where="agent.toml", base=tmp_path)
    assert parse(raw, where="agent.toml", base=tmp_path).direct is None
