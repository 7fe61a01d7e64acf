"""A TON liteserver as a Chain, over pytoniq's ADNL client, with the account's Merkle proof checked here.

Limits: an account is proved against the masterchain block that the liteserver names as the last one. At trust level 1
that block itself is the liteserver's word, so a quorum with another endpoint decides; at trust level 0 pytoniq follows
key blocks and validator signatures from the configuration's init block (minutes at the first start).
One connection to one server: it is opened again after every failure, because pytoniq's client neither reconnects nor
says so. A liteserver gives at most 16 transactions at a time.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pytoniq.liteclient.client import LiteClient, LiteServerError
from pytoniq_core import Cell
from pytoniq_core.tl.block import BlockIdExt

from chain.api import AccountState, BlockId, ChainError, Head, Refused, Status, Transaction, Unreachable
from chain.decode import DecodeError, decode_account, decode_transaction
from chain.history import Cursor, check_links
from chain.http import JsonEndpoint, Retry, Throttle
from chain.proof import prove_account
from chain.reader import Reader
from chain.refusal import refuses_message
from wrappers.cells import MAX_STATE_BYTES, CellError, address_of, from_boc, to_boc

PAGE_LIMIT = 16
_NOT_READY = frozenset({-400, -503, 228, 429, 502, 503, 651, 652})
T = TypeVar("T")


class LiteServer:
    """One liteserver of a global configuration.

    `config`: the configuration's JSON, a path of it, or its URL (read at the first connection). `index`: which
    liteserver of it. `global_id`: when given, the proved state must be of that network. Raises ValueError, OSError.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Path | str,
        *,
        index: int = 0,
        trust_level: int = 1,
        timeout_seconds: float = 10,
        name: str | None = None,
        global_id: int | None = None,
    ) -> None:
        if trust_level not in (0, 1):
            raise ValueError(f"trust_level is {trust_level}; 0 follows validator signatures, 1 only checks proofs")
        if isinstance(config, Path):
            config = json.loads(config.read_text(encoding="utf-8"))
        self._config: object = config
        self._index = index
        self._trust_level = trust_level
        self._timeout_seconds = timeout_seconds
        self._name = name or f"liteserver {index}"
        self._global_id = global_id
        self._client: Any = None
        self._connecting = asyncio.Lock()

    @property
    def name(self) -> str:
        return self._name

    async def head(self) -> Head:
        async def ask(client: Any) -> Head:
            block = await client.get_trusted_last_mc_block()
            answer = await client.liteserver_request("getBlockHeader", {"id": block.to_dict(), "mode": 0})
            global_id, seqno, now = _header(answer["header_proof"], block.root_hash)
            if seqno != block.seqno:
                raise DecodeError(f"masterchain block {block.seqno} has a header of block {seqno}")
            self._check_network(global_id)
            return Head(BlockId(block.seqno, bytes(block.root_hash), bytes(block.file_hash)), now)

        return await self._ask("head", ask)

    async def block(self, seqno: int) -> Head:
        """The header's own hash is checked; that the block is part of the chain is the liteserver's word."""

        async def ask(client: Any) -> Head:
            answer = await client.liteserver_request(
                "lookupBlock", {"mode": 1, "id": {"workchain": -1, "shard": -(1 << 63), "seqno": seqno}}
            )
            root_hash, file_hash = (bytes.fromhex(answer["id"][name]) for name in ("root_hash", "file_hash"))
            global_id, found, now = _header(answer["header_proof"], root_hash)
            if found != seqno:
                raise DecodeError(f"masterchain block {found} came when {seqno} was asked for")
            self._check_network(global_id)
            return Head(BlockId(seqno, root_hash, file_hash), now)

        return await self._ask("block", ask)

    async def account(self, account: bytes) -> AccountState:
        async def ask(client: Any) -> AccountState:
            block = await client.get_trusted_last_mc_block()
            answer = await client.liteserver_request(
                "getAccountState", {"id": block.to_dict(), "account": address_of(account).to_tl_account_id()}
            )
            return self._proved_state(block, answer, account)

        return await self._ask("account", ask)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        async def ask(client: Any) -> tuple[Transaction, ...]:
            answer = await client.liteserver_request(
                "getTransactions",
                {
                    "count": max(1, min(limit, PAGE_LIMIT)),
                    "account": address_of(account).to_tl_account_id(),
                    "lt": lt,
                    "hash": hash.hex(),
                },
            )
            found = tuple(decode_transaction(cell, account) for cell in _cells(answer["transactions"]))
            check_links(found, Cursor(lt, hash), account=account, endpoint=self._name)
            return found

        return await self._ask("transactions", ask)

    async def send(self, message: Cell) -> bytes:
        async def ask(client: Any) -> bytes:
            await client.liteserver_request("sendMessage", {"body": to_boc(message)})
            return bytes(message.hash)

        return await self._ask("send", ask)

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ask(self, what: str, ask: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await asyncio.wait_for(ask(await self._connected()), self._timeout_seconds)
        except DecodeError as error:
            raise ChainError(f"{self._name} gave a false proof ({error}); use another liteserver") from error
        except ChainError:
            raise
        except LiteServerError as error:
            if error.code in _NOT_READY and not refuses_message(error.message):
                raise Unreachable(f"{self._name} cannot answer {what} now: {error.message}; try again") from error
            raise Refused(f"{self._name} refused {what} (code {error.code}): {error.message}") from error
        except Exception as error:
            # pytoniq raises whatever a dead connection happens to hit (AttributeError on None, KeyError, ...): none of
            # these is an answer, and the connection cannot be trusted to match replies to questions any more
            await self.close()
            raise Unreachable(
                f"{self._name} did not answer {what} ({type(error).__name__}: {error}); "
                "it is connected again at the next question: check the configuration if this stays"
            ) from error

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                config = await self._read_config()
                try:
                    client = LiteClient.from_config(
                        dict(config), self._index, trust_level=self._trust_level, timeout=int(self._timeout_seconds)
                    )
                except (KeyError, IndexError, TypeError, ValueError) as error:
                    raise ChainError(
                        f"{self._name}: the global configuration has no usable liteserver {self._index} ({error!r}); "
                        "give the network's global-config.json"
                    ) from error
                try:
                    await client.connect()
                except BaseException:
                    await client.close()
                    raise
                self._client = client
            return self._client

    async def _read_config(self) -> Mapping[str, Any]:
        if isinstance(self._config, str):
            base, _, file = self._config.rpartition("/")
            source = JsonEndpoint(
                base,
                name=self._name,
                headers={},
                timeout_seconds=self._timeout_seconds,
                retry=Retry(),
                throttle=Throttle(None),
            )
            try:
                self._config = (await source.get(file, {})).body
            finally:
                await source.close()
        if not isinstance(self._config, Mapping):
            raise ChainError(f"{self._name}: the global configuration is no JSON object; give a global-config.json")
        return self._config

    def _proved_state(self, block: BlockIdExt, answer: Mapping[str, Any], account: bytes) -> AccountState:
        if BlockIdExt.from_dict(answer["id"]) != block:
            raise DecodeError("the state is for another block than the one asked for")
        proved = prove_account(
            block_hash=bytes(block.root_hash),
            shard_proof=answer["shard_proof"],
            account_proof=answer["proof"],
            account=account,
        )
        self._check_network(proved.global_id)
        if proved.state_hash is None:
            return AccountState(account, Status.ABSENT, 0, None, None, 0, proved.last_hash)
        try:
            cell = from_boc(answer["state"], MAX_STATE_BYTES)
        except CellError as error:
            raise DecodeError(f"the state of an existing account is {error}") from error
        if cell.hash != proved.state_hash:
            raise DecodeError("the state does not hash to the proved one")
        return decode_account(cell, account, last_lt=proved.last_lt, last_hash=proved.last_hash)

    def _check_network(self, global_id: int) -> None:
        if self._global_id is not None and global_id != self._global_id:
            raise ChainError(
                f"{self._name} serves network {global_id}, the profile says {self._global_id}; "
                "give the global configuration of the right network"
            )


def _cells(boc: bytes) -> list[Cell]:
    try:
        return list(Cell.from_boc(boc))
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise DecodeError(f"no bag of cells: {error}") from error


def _header(proof: bytes, block_hash: bytes) -> tuple[int, int, int]:
    """(global id, seqno, unix seconds) of the block with that hash. TL-B: `block#11ef55aa`, `block_info#9bc7a987`."""
    roots = _cells(proof)
    if len(roots) != 1 or len(roots[0].refs) != 1 or roots[0].refs[0].get_hash(0) != block_hash:
        raise DecodeError("the header proof is about another block")
    r = Reader(roots[0].refs[0])
    if r.uint(32) != 0x11EF55AA:
        raise DecodeError("the header proof holds no block")
    global_id = r.sint(32)
    info = Reader(r.ref())
    if info.uint(32) != 0x9BC7A987:
        raise DecodeError("the header proof holds no block info")
    info.uint(32)  # version
    info.uint(8 + 8)  # not_master .. vert_seqno_incr, flags
    seqno = info.uint(32)
    info.uint(32)  # vert_seq_no
    info.uint(2 + 6 + 32 + 64)  # shard
    return global_id, seqno, info.uint(32)
