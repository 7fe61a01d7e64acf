"""RA-TLS: who is at the other end is judged before a byte of payload, and nothing but evidence convinces."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import ssl
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from attestation import ratls
from attestation.collateral import AnyCollateral
from attestation.evidence import Evidence, Kind
from attestation.policy import MAINNET_GLOBAL_ID, AllowedImage, Policy, Tier
from attestation.ratls import EXTENSION, MAX_LIFE_SECONDS, Identity, Judge, PeerRefused, check_certificate, issue
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.strict import Malformed
from attestation.tls import RatlsContext, client_context, peer_of, server_context
from attestation.verify import Expected, Verdict, verify
from wrappers.signed import SealingKey, TlsKey, node_id, sign
from wrappers.signed import verify as verify_signed

NOW = int(time.time())
DEVNET = -7001
KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
TEE = SimulatedTee(b"a test machine")
POLICY = Policy(
    images=(AllowedImage("test image", TEE.registers.measurement),),
    max_age_seconds=3_600,
    tiers=frozenset({Tier.SIMULATED}),
    allow_simulated=True,
    block_required=False,
)
COLLATERAL = mint(NOW)


def binding_of(key: Ed25519PrivateKey = KEY, **changes: Any) -> Binding:
    public = key.public_key().public_bytes_raw()
    binding = Binding(b"n" * 32, b"o" * 32, 41, public, bytes(32), 1_000, b"r" * 32)
    return dataclasses.replace(binding, **changes)


def evidence_of(binding: Binding | None = None, tee: SimulatedTee = TEE) -> Evidence:
    bound = binding or binding_of()
    return Evidence(Kind.SIMULATED, tee.quote(bound.report_data()), bound)


def judge_for(policy: Policy = POLICY, global_id: int = DEVNET, node: bytes = b"o" * 32) -> Judge:
    def judge(evidence: Evidence, collateral: AnyCollateral) -> Verdict:
        return verify(evidence, collateral, policy, NOW, expected=Expected(global_id, b"n" * 32, node, 41))

    return judge


JUDGE = judge_for()
IDENTITY = issue(evidence_of(), COLLATERAL, KEY, NOW)


def der(identity: Identity) -> bytes:
    return x509.load_pem_x509_certificate(identity.certificate).public_bytes(Encoding.DER)


def refused(certificate: bytes, word: str, judge: Judge = JUDGE, now: int = NOW) -> None:
    with pytest.raises(PeerRefused, match=word):
        check_certificate(certificate, now, judge)


# ---------------------------------------------------------------------------------------------------- certificates


def test_a_machines_certificate_names_it() -> None:
    peer = check_certificate(der(IDENTITY), NOW, JUDGE)
    assert (peer.node, peer.node_epoch) == (b"o" * 32, 41)
    assert peer.signing_key == KEY.public_key().public_bytes_raw() == peer.verdict.signing_key
    assert peer.node_id == node_id(b"n" * 32, b"o" * 32, 41) and peer.expires_at == NOW + MAX_LIFE_SECONDS


def test_g10_the_tls_key_has_a_tag_of_its_own() -> None:
    """Else a signature over a sealing key, whose bytes a stranger can choose, would vouch for a TLS key."""
    fields = (b"\x01" * 32, b"\x02" * 32, NOW)
    signature = sign(SealingKey(*fields), KEY)
    assert not verify_signed(TlsKey(*fields), signature, KEY.public_key().public_bytes_raw())


def test_g12_a_key_that_the_attested_one_did_not_sign_is_refused() -> None:
    refused(der(issue(evidence_of(), COLLATERAL, OTHER_KEY, NOW)), "vouched")


def test_g12_a_stolen_extension_over_another_tls_key_is_refused() -> None:
    """Evidence is public; who copies it into a certificate of his own has no statement over his key."""
    stolen = x509.load_pem_x509_certificate(IDENTITY.certificate).extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(stolen, x509.UnrecognizedExtension)
    key = ratls.ec.generate_private_key(ratls.ec.SECP256R1()).public_key()
    forged = ratls._certificate(key, stolen.value, NOW, NOW + 3600)
    refused(forged.public_bytes(Encoding.DER), "vouched")


@pytest.mark.parametrize(
    ("evidence", "word"),
    [
        (evidence_of(tee=SimulatedTee(b"a test machine", Registers.of_image("another"))), "allow-list"),
        (evidence_of(binding_of(network_id=b"x" * 32)), "network"),
        (evidence_of(binding_of(node=b"x" * 32)), "node"),
        (evidence_of(binding_of(node_epoch=42)), "epoch"),
        (dataclasses.replace(evidence_of(), quote=TEE.quote(bytes(64))), "REPORTDATA"),
        (dataclasses.replace(evidence_of(), kind=Kind.TDX), "pinned root"),
    ],
)
def test_g12_wrong_evidence_is_refused(evidence: Evidence, word: str) -> None:
    refused(der(issue(evidence, COLLATERAL, KEY, NOW)), word)


def test_g12_old_and_long_lived_keys_are_refused() -> None:
    old = der(issue(evidence_of(), COLLATERAL, KEY, NOW - 7200, 3600))
    refused(old, "ends at")
    check_certificate(der(issue(evidence_of(), COLLATERAL, KEY, NOW, 10)), NOW + 9, JUDGE)
    refused(der(issue(evidence_of(), COLLATERAL, KEY, NOW, 10)), "ends at", now=NOW + 10)
    refused(der(issue(evidence_of(), COLLATERAL, KEY, NOW + 2 * MAX_LIFE_SECONDS)), "within a day")
    with pytest.raises(ValueError, match="at most"):
        issue(evidence_of(), COLLATERAL, KEY, NOW, MAX_LIFE_SECONDS + 1)


def test_g14_simulated_machines_are_refused_on_mainnet() -> None:
    refused(der(IDENTITY), "mainnet refuses simulated", judge_for(global_id=MAINNET_GLOBAL_ID))


def with_document(change: Any) -> bytes:
    found = x509.load_pem_x509_certificate(IDENTITY.certificate)
    extension = found.extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    packed = change(json.loads(zlib.decompress(extension.value)))
    if not isinstance(packed, bytes):
        packed = zlib.compress(json.dumps(packed).encode())
    key = found.public_key()
    assert isinstance(key, ratls.ec.EllipticCurvePublicKey)
    return ratls._certificate(key, packed, NOW, NOW + 3600).public_bytes(Encoding.DER)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda document: {**document, "expires_at": document["expires_at"] - 1}, "vouched"),
        (lambda document: {**document, "version": 2}, "version"),
        (lambda document: {**document, "more": 1}, "unknown"),
        (lambda document: {**document, "collateral": {}}, "missing"),
        (lambda document: {**document, "evidence": []}, "object"),
        (lambda document: {**document, "signature": "00"}, "64 bytes"),
        (lambda document: [document], "object"),
        (lambda _: b"", "cut off"),
        (lambda _: b"junk", "unpacked"),
        (lambda document: zlib.compress(json.dumps(document).encode()) + b"x", "followed"),
        (lambda document: zlib.compress(json.dumps(document).encode())[:-9], "cut off"),
        (lambda _: zlib.compress(b" " * (64 << 20)), "over"),
    ],
)
def test_g18_a_damaged_extension_is_refused(change: Any, word: str) -> None:
    refused(with_document(change), word)


def test_g18_what_is_no_certificate_of_ours_is_refused() -> None:
    anchor = x509.load_pem_x509_certificate(ratls.anchor_pem().encode()).public_bytes(Encoding.DER)
    refused(anchor, "no evidence")
    refused(b"\x30\x00", "cannot be read")
    refused(bytes(ratls.MAX_CERTIFICATE_BYTES + 1), "bytes")


def test_evidence_that_does_not_fit_is_refused_where_it_is_made() -> None:
    binding = binding_of()
    big = Evidence(Kind.SIMULATED, TEE.quote(binding.report_data()), binding, os.urandom(110_000))
    with pytest.raises(Malformed, match="certificate of"):
        issue(big, COLLATERAL, KEY, NOW)


def test_g19_an_identity_does_not_print_its_key() -> None:
    assert "PRIVATE" not in repr(IDENTITY) and "BEGIN" not in f"{IDENTITY}"


# ---------------------------------------------------------------------------------------------------- connections


class Heard:
    """What a server read, and which peer it saw."""

    def __init__(self) -> None:
        self.data = b""
        self.peer: object = None
        self.connections = 0


@asynccontextmanager
async def server(context: ssl.SSLContext | None) -> AsyncIterator[tuple[int, Heard]]:
    heard = Heard()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.connections += 1
        heard.peer = getattr(writer.get_extra_info("ssl_object"), "peer", None)
        try:
            heard.data += await reader.read(100)
            writer.write(b"answer")
            await writer.drain()
        except OSError:
            pass
        writer.close()

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    try:
        yield listening.sockets[0].getsockname()[1], heard
    finally:
        listening.close()


async def talk(port: int, context: ssl.SSLContext | None, payload: bytes = b"payload") -> bytes:
    async with asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        try:
            if context is not None and isinstance(context, RatlsContext):
                assert peer_of(writer.get_extra_info("ssl_object")).node == b"o" * 32
            writer.write(payload)
            await writer.drain()
            return await reader.read(100)
        finally:
            writer.close()


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0.005)


async def test_an_attested_server_is_talked_to() -> None:
    async with server(server_context(IDENTITY)) as (port, heard):
        assert await talk(port, client_context(JUDGE)) == b"answer"
        assert heard.data == b"payload" and heard.peer is None


@pytest.mark.parametrize(
    "identity",
    [
        issue(evidence_of(), COLLATERAL, OTHER_KEY, NOW),
        issue(evidence_of(binding_of(node=b"x" * 32)), COLLATERAL, KEY, NOW),
        issue(evidence_of(tee=SimulatedTee(b"a test machine", Registers.of_image("another"))), COLLATERAL, KEY, NOW),
        issue(evidence_of(), COLLATERAL, KEY, NOW - 7200, 3600),
    ],
    ids=["wrong key", "other node", "wrong image", "expired"],
)
async def test_g12_nothing_is_sent_to_a_server_whose_evidence_is_refused(identity: Identity) -> None:
    async with server(server_context(identity)) as (port, heard):
        with pytest.raises(ssl.SSLCertVerificationError):
            await talk(port, client_context(JUDGE))
        await settled()
        assert heard.data == b""


async def test_g12_a_replayed_certificate_without_its_key_is_of_no_use() -> None:
    """The thief has certificate and extension, and can only present them with a key of his own."""
    thief = Identity(IDENTITY.certificate, issue(evidence_of(), COLLATERAL, KEY, NOW).key, IDENTITY.expires_at)
    with pytest.raises(ssl.SSLError, match="KEY_VALUES_MISMATCH"):
        server_context(thief)


async def test_g12_a_machine_of_another_authority_is_refused() -> None:
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    foreign = _self_signed()
    from attestation.tls import _load

    _load(plain, foreign)
    async with server(plain) as (port, heard):
        with pytest.raises(ssl.SSLCertVerificationError):
            await talk(port, client_context(JUDGE))
        assert heard.data == b""


def _self_signed() -> Identity:
    import datetime

    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import NoEncryption, PrivateFormat

    key = ratls.ec.generate_private_key(ratls.ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "anybody")])
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + datetime.timedelta(hours=1))
    pem = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    return Identity(pem, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), NOW + 3600)


async def test_plain_tcp_is_no_way_in() -> None:
    async with server(None) as (port, heard):
        with pytest.raises(OSError):
            await talk(port, client_context(JUDGE))
        await settled()
        assert b"payload" not in heard.data
    async with server(server_context(IDENTITY)) as (port, heard):
        assert await talk(port, None) != b"answer"
        await settled()
        assert heard.data == b"" and heard.connections == 0


async def test_tls_1_2_is_refused_by_both_sides() -> None:
    old_client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old_client.check_hostname, old_client.verify_mode = False, ssl.CERT_NONE
    old_client.maximum_version = ssl.TLSVersion.TLSv1_2
    async with server(server_context(IDENTITY)) as (port, heard):
        with pytest.raises(OSError):  # SSLError, or a reset where the server was faster
            await talk(port, old_client)
        assert heard.connections == 0
    old_server = server_context(IDENTITY)
    assert old_server.minimum_version == client_context(JUDGE).minimum_version == ssl.TLSVersion.TLSv1_3
    old_server.minimum_version = ssl.TLSVersion.TLSv1_2
    old_server.maximum_version = ssl.TLSVersion.TLSv1_2
    async with server(old_server) as (port, heard):
        with pytest.raises(OSError):
            await talk(port, client_context(JUDGE))
        await settled()
        assert heard.data == b""


async def test_mutual_both_machines_know_each_other() -> None:
    async with server(server_context(IDENTITY, JUDGE)) as (port, heard):
        assert await talk(port, client_context(JUDGE, IDENTITY)) == b"answer"
        assert heard.peer == check_certificate(der(IDENTITY), NOW, JUDGE)


@pytest.mark.parametrize(
    "own",
    [
        None,
        issue(evidence_of(), COLLATERAL, OTHER_KEY, NOW),
        issue(evidence_of(binding_of(node=b"x" * 32)), COLLATERAL, KEY, NOW),
    ],
    ids=["no certificate", "wrong key", "other node"],
)
async def test_g12_mutual_a_client_that_does_not_pass_is_never_read(own: Identity | None) -> None:
    async with server(server_context(IDENTITY, JUDGE)) as (port, heard):
        # In TLS 1.3 the client's side of the handshake ends first: it hears of the refusal when it reads.
        with pytest.raises((OSError, AssertionError)):
            assert await talk(port, client_context(JUDGE, own)) == b"answer"
        await settled()
        assert heard.connections == 0 and heard.data == b""


async def test_sessions_are_not_resumed() -> None:
    """A resumed session proves no key: the server gives out no tickets, and a resumed handshake would be refused."""
    context = client_context(JUDGE)
    server_side = server_context(IDENTITY)
    assert server_side.num_tickets == 0 and server_side.options & ssl.OP_NO_TICKET
    async with server(server_side) as (port, _):
        for _ in range(2):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
            writer.write(b"x")
            await reader.read(10)
            ssl_object = writer.get_extra_info("ssl_object")
            assert ssl_object.version() == "TLSv1.3" and not ssl_object.session_reused
            assert ssl_object.session is None or not ssl_object.session.has_ticket
            writer.close()


def test_blocking_sockets_are_refused() -> None:
    with pytest.raises(TypeError, match="asyncio"):
        client_context(JUDGE).wrap_socket(None)


def test_a_connection_without_judgement_has_no_peer() -> None:
    with pytest.raises(PeerRefused):
        peer_of(None)
    assert server_context(IDENTITY).judged(None) is None
    with pytest.raises(ssl.SSLCertVerificationError):
        client_context(JUDGE).judged(None)


def test_g19_the_private_key_is_on_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = ssl.SSLContext.load_cert_chain

    def load(self: ssl.SSLContext, path: str, *rest: Any) -> None:
        opened.append(os.readlink(path))
        real(self, path, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", load)
    server_context(IDENTITY)
    assert opened == ["/memfd:ratls (deleted)"]
