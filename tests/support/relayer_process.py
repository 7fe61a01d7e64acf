"""A relayer process for crash tests: the real one, over a chain that lives in the test and outlives it.

usage: relayer_process.py CHAIN_URL CONFIG_TOML
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import aiohttp
from aiohttp import web
from pytoniq_core import Cell, begin_cell

from chain.api import AccountState, BlockId, Chain, Head, Refused, Status, Transaction, Unreachable
from relayer.config import load_config
from relayer.main import ready_line, serve
from wrappers.cells import from_boc, to_boc

GLOBAL_ID = -7001


def chain_server(chain: Chain) -> web.Application:
    """Serves any Chain to RemoteChain."""

    async def head(request: web.Request) -> web.Response:
        head = await chain.head()
        return web.json_response({"seqno": head.block.seqno, "now": head.now})

    async def account(request: web.Request) -> web.Response:
        state = await chain.account(bytes.fromhex(request.query["account"]))
        return web.json_response(
            {
                "status": state.status,
                "data": None if state.data is None else to_boc(state.data).hex(),
                "last_lt": state.last_lt,
                "last_hash": state.last_hash.hex(),
            }
        )

    async def transactions(request: web.Request) -> web.Response:
        query = request.query
        found = await chain.transactions(
            bytes.fromhex(query["account"]),
            lt=int(query["lt"]),
            hash=bytes.fromhex(query["hash"]),
            limit=int(query["limit"]),
        )
        rows = [[one.lt, one.hash.hex(), one.prev_lt, one.prev_hash.hex(), one.now] for one in found]
        return web.json_response(rows)

    async def send(request: web.Request) -> web.Response:
        try:
            return web.json_response({"hash": (await chain.send(from_boc(await request.read()))).hex()})
        except Refused as error:
            return web.json_response({"refused": str(error)})

    app = web.Application()
    app.add_routes(
        [
            web.get("/head", head),
            web.get("/account", account),
            web.get("/transactions", transactions),
            web.post("/send", send),
        ]
    )
    return app


class RemoteChain:
    name = "remote a + remote b"

    def __init__(self, url: str) -> None:
        self._url = url
        self._http: aiohttp.ClientSession | None = None

    async def _get(self, path: str, **query: object):
        self._http = self._http or aiohttp.ClientSession()
        try:
            async with self._http.get(f"{self._url}/{path}", params={k: str(v) for k, v in query.items()}) as response:
                return await response.json()
        except aiohttp.ClientError as error:
            raise Unreachable(f"{self._url}: {error}") from error

    async def head(self) -> Head:
        raw = await self._get("head")
        return Head(BlockId(raw["seqno"], bytes(32), bytes(32)), raw["now"])

    async def account(self, account: bytes) -> AccountState:
        raw = await self._get("account", account=account.hex())
        data = None if raw["data"] is None else from_boc(bytes.fromhex(raw["data"]))
        last_hash = bytes.fromhex(raw["last_hash"])
        return AccountState(account, Status(raw["status"]), 1, None, data, raw["last_lt"], last_hash)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        rows = await self._get("transactions", account=account.hex(), lt=lt, hash=hash.hex(), limit=limit)
        empty = begin_cell().end_cell()
        return tuple(
            Transaction(
                account, lt, bytes.fromhex(own), prev, bytes.fromhex(prev_hash), now, None, (), 0, False, 0, 0, 0, empty
            )
            for lt, own, prev, prev_hash, now in rows
        )

    async def send(self, message: Cell) -> bytes:
        self._http = self._http or aiohttp.ClientSession()
        async with self._http.post(f"{self._url}/send", data=to_boc(message)) as response:
            raw = await response.json()
        if "refused" in raw:
            raise Refused(raw["refused"])
        return bytes.fromhex(raw["hash"])

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()


async def main() -> None:
    chain = RemoteChain(sys.argv[1])
    config = load_config(Path(sys.argv[2]), os.environ)
    try:
        await serve(config, chain, GLOBAL_ID, lambda addresses: print(ready_line(addresses), flush=True))
    finally:
        await chain.close()


if __name__ == "__main__":
    asyncio.run(main())
