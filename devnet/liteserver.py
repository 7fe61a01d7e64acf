"""The liteserver listener: TL queries in, answers or ordered faults out."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from typing import Any

from chain.api import BlockId
from devnet.adnl import AdnlServer, ProtocolError, read_tl_bytes, schemas, tag, tl_bytes
from devnet.blocks import MASTERCHAIN
from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.faults import Faults, Kind
from devnet.litequeries import QUERIES
from devnet.render import FULL_SHARD
from wrappers.cells import CellError

log = logging.getLogger(__name__)

_ERROR_CODE = 651
_POLL_SECONDS = 0.02


class LiteServer:
    """`name` is what the control API calls this listener. Lies are not served: a proof would give them away."""

    def __init__(self, name: str, chain: DevnetChain, seed: bytes) -> None:
        self.name = name
        self.faults = Faults()
        self._chain = chain
        self._server = AdnlServer(seed, self._answer)

    async def start(self, host: str, port: int) -> int:
        return await self._server.start(host, port)

    async def close(self) -> None:
        await self._server.close()

    def global_config(self, host: str, port: int) -> dict[str, Any]:
        """What lite clients call global.config.json."""
        genesis = _config_block(self._chain.genesis_id)
        ip = int.from_bytes(bytes(int(part) for part in host.split(".")), "big", signed=True)
        key = {"@type": "pub.ed25519", "key": base64.b64encode(self._server.public_key).decode()}
        return {
            "@type": "config.global",
            "liteservers": [{"ip": ip, "port": port, "id": key}],
            "validator": {"@type": "validator.config.global", "zero_state": genesis, "init_block": genesis},
        }

    async def _answer(self, message: bytes) -> bytes | None:
        method = "?"
        try:
            if message[:4] != tag("liteServer.query"):
                raise ProtocolError("not a liteServer.query")
            query = await self._after_wait(read_tl_bytes(message, 4))
            request, _ = schemas().deserialize(query)
            method = str(request["@type"]).removeprefix("liteServer.")
            fault = self.faults.take(method, _account(request))
            if fault is not None and fault.kind is Kind.DROP:
                return None
            if fault is not None and fault.kind is Kind.DELAY:
                await asyncio.sleep(fault.seconds)
            if fault is not None and fault.kind is Kind.ERROR:
                return _error(fault.error)
            if method not in QUERIES:
                return _error(f"the devnet does not serve {method}")
            kind, fields = QUERIES[method](self._chain, request)
            answer: bytes = schemas().serialize(schemas().get_by_name(f"liteServer.{kind}"), fields)
            return answer
        except (DevnetError, CellError, ProtocolError) as error:
            return _error(str(error))
        except Exception as error:  # a bug of the devnet must reach the client as an answer, not as silence
            log.exception("liteserver query %s failed", method)
            return _error(f"the devnet failed: {type(error).__name__}: {error}")

    async def _after_wait(self, query: bytes) -> bytes:
        """`liteServer.waitMasterchainSeqno` before the query proper."""
        if query[:4] != tag("liteServer.waitMasterchainSeqno"):
            return query
        seqno, timeout_ms = int.from_bytes(query[4:8], "little"), int.from_bytes(query[8:12], "little")
        waited = 0.0
        while self._chain.head.master.seqno < seqno:
            if waited * 1000 >= timeout_ms:
                raise DevnetError(f"timeout: no block {seqno} within {timeout_ms} ms")
            await asyncio.sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
        return query[12:]


def _error(text: str) -> bytes:
    return tag("liteServer.error") + _ERROR_CODE.to_bytes(4, "little") + tl_bytes(text.encode()[:1000])


def _config_block(block: BlockId) -> dict[str, Any]:
    return {
        "workchain": MASTERCHAIN,
        "shard": FULL_SHARD,
        "seqno": block.seqno,
        "root_hash": base64.b64encode(block.root_hash).decode(),
        "file_hash": base64.b64encode(block.file_hash).decode(),
    }


def _account(query: Mapping[str, Any]) -> bytes | None:
    account = query.get("account")
    return bytes.fromhex(account["id"]) if isinstance(account, dict) else None
