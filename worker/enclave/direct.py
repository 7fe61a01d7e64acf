"""The enclave's end of direct connections: TLS begins and ends here, under a key that never leaves this process.

What comes out of TLS goes to the agent, which carries it on like anything that a relayer hands over: requests inside
are sealed to this enclave, whatever carried them. So the agent learns no text from here, and the client knows before it
sends a byte that this enclave answers at that address.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence
from attestation.ratls import issue
from attestation.strict import Malformed
from attestation.tls import server_context
from worker.enclave.keys import Keys
from worker.enclave.server_socket import listen
from worker.messages import Certified, Certify, Failed
from worker.pump import close, join

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 256
HANDSHAKE_SECONDS = 10.0


class Direct:
    """Listens once it is certified; certified anew, new connections meet the new key."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def certify(self, order: Certify, now: int) -> Certified | Failed:
        """What the agent is answered. Its evidence is public and checked by peers; checked here is only what would make
        it useless to them."""
        try:
            return Certified(await self._serve(order, now))
        except (Malformed, OSError) as error:
            return Failed("certify", 0, str(error), "Attest the enclave, then certify it with that evidence")

    async def _serve(self, order: Certify, now: int) -> int:
        """When the new TLS key ends, unix seconds."""
        evidence = Evidence.from_json(order.evidence)
        if evidence.binding.signing_key != self._keys.public:
            raise Malformed("the evidence is of another enclave")
        identity = issue(evidence, parse_collateral(order.collateral), self._keys.signing, now)
        forward = Path(order.forward)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._carry(reader, writer, forward)

        self._stop_listening()
        self._server = await asyncio.start_unix_server(
            connected,
            sock=listen(Path(order.listen), backlog=MAX_CONNECTIONS),
            ssl=server_context(identity),
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
        return identity.expires_at

    async def close(self) -> None:
        self._stop_listening()
        for connection in tuple(self._connections):
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, forward: Path) -> None:
        me = asyncio.current_task()
        if len(self._connections) >= MAX_CONNECTIONS or me is None:
            writer.transport.abort()
            return
        self._connections.add(me)
        try:
            inner = await asyncio.open_unix_connection(str(forward))
            await join((reader, writer), inner)
        except OSError as error:
            log.warning("the agent takes no direct connection: %s", error.strerror)
            await close(writer)
        finally:
            self._connections.discard(me)
