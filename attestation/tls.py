"""TLS contexts for attested machines: the peer's evidence is judged inside the handshake.

The judgement is part of `do_handshake`, so whoever uses the context - asyncio, aiohttp, any protocol above - gets a
connection only after it, and no byte of payload is written or read before. It is sound there: with TLS 1.3 the end of
the handshake means that CertificateVerify and Finished held, so the other side has the private key of the certificate
that is judged, in this very connection. A session that is resumed would skip that and is refused; early data does not
exist without resumption.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable
from typing import Any

from attestation.ratls import Identity, Judge, Peer, PeerRefused, anchor_pem, check_certificate


class _Judging(ssl.SSLObject):
    """What `wrap_bio` makes. `peer`: the attested machine, once the handshake is over."""

    peer: Peer | None = None

    def do_handshake(self) -> None:
        super().do_handshake()
        context = self.context
        if not isinstance(context, RatlsContext) or self.version() != "TLSv1.3" or self.session_reused:
            raise ssl.SSLCertVerificationError("not a fresh TLS 1.3 handshake of an attested machine")
        self.peer = context.judged(self.getpeercert(binary_form=True))


class RatlsContext(ssl.SSLContext):
    """`judge` None: the other side shows no certificate (a worker's view of clients)."""

    judge: Judge | None = None
    clock: Callable[[], float] = time.time

    def judged(self, certificate: bytes | None) -> Peer | None:
        """Raises SSLCertVerificationError, which fails the handshake."""
        if self.judge is None:
            return None
        if certificate is None:
            raise ssl.SSLCertVerificationError("the other side showed no certificate")
        try:
            return check_certificate(certificate, int(self.clock()), self.judge)
        except PeerRefused as error:
            raise ssl.SSLCertVerificationError(f"the peer's evidence is refused: {error}") from error

    def wrap_socket(self, *_: Any, **__: Any) -> ssl.SSLSocket:
        """Blocking sockets have a handshake of their own, which would judge nothing."""
        raise TypeError("an RA-TLS context is for asyncio (wrap_bio) alone")


def server_context(identity: Identity, judge: Judge | None = None) -> RatlsContext:
    """For a listening machine. With `judge` the other side must be an attested machine too (mutual RA-TLS)."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, judge)
    context.num_tickets = 0
    _load(context, identity)
    return context


def client_context(judge: Judge, identity: Identity | None = None) -> RatlsContext:
    """For dialling an attested machine. `identity`: this machine's own, where it is one."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, judge)
    if identity is not None:
        _load(context, identity)
    return context


def peer_of(ssl_object: object) -> Peer:
    """The machine at the other end of a transport's `ssl_object`. Raises PeerRefused where none was judged."""
    peer = getattr(ssl_object, "peer", None)
    if not isinstance(peer, Peer):
        raise PeerRefused("the connection is not with an attested machine")
    return peer


def _context(protocol: int, judge: Judge | None) -> RatlsContext:
    context = RatlsContext(protocol)
    context.sslobject_class = _Judging
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET
    # Names mean nothing here: machines are known by evidence. The authority is the public anchor of attestation.ratls.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE if judge is None else ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=anchor_pem())
    context.judge = judge
    return context


def _load(context: ssl.SSLContext, identity: Identity) -> None:
    # The ssl module takes keys from files only. This one has no name and no disk behind it.
    descriptor = os.memfd_create("ratls", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, identity.key + identity.certificate)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
