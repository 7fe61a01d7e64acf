"""toncenter v2 HTTP as a Chain.

An own thin client instead of a library: tonutils' `refresh()` answers balance 0 and "nonexist" while the endpoint is
down, which is exactly what may never happen here (G17). What one toncenter says is a hint: `chain.quorum` makes it
a fact.
"""

from __future__ import annotations

import base64
import binascii
import stat
from collections.abc import Mapping
from pathlib import Path

from pytoniq_core import Cell
from yarl import URL

from chain.api import AccountState, BlockId, ChainError, Head, Refused, Status, Transaction, Unreachable
from chain.decode import decode_transaction
from chain.history import ZERO_HASH, Cursor, check_links
from chain.http import JsonEndpoint, Retry, Throttle
from chain.refusal import refuses_message
from wrappers.cells import MAX_STATE_BYTES, CellError, from_boc, to_boc

PAGE_LIMIT = 100
"""toncenter's own limit of transactions in one answer."""
_MASTERCHAIN_SHARD = "-9223372036854775808"
_STATUS = {
    "active": Status.ACTIVE,
    "frozen": Status.FROZEN,
    "uninitialized": Status.UNINIT,
    "uninit": Status.UNINIT,
    "nonexist": Status.ABSENT,
}
_TRANSIENT = ("LITE_SERVER_NETWORK", "LITE_SERVER_NOTREADY", "TIMEOUT", "TIMED OUT", "NOT APPLIED", "OVERLOADED")


class Toncenter:
    """One toncenter v2 endpoint. Every answer is checked field by field; every transaction against its hash.

    `url`: with or without the `/api/v2` tail. `api_key_file`: a file that only its owner can read; the key is sent as a
    header and appears nowhere else. `global_id`: when given, the endpoint must serve that network, or nothing is
    believed.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key_file: Path | None = None,
        requests_per_second: float | None = None,
        timeout_seconds: float = 10,
        name: str | None = None,
        global_id: int | None = None,
        retry: Retry | None = None,
    ) -> None:
        base = _base_url(url)
        self._name = name or f"toncenter {base.host}:{base.port}"
        self._global_id = global_id
        self._network_checked = global_id is None
        self._http = JsonEndpoint(
            str(base),
            name=self._name,
            headers={} if api_key_file is None else {"X-API-Key": _read_key(api_key_file)},
            timeout_seconds=timeout_seconds,
            retry=retry or Retry(),
            throttle=Throttle(requests_per_second),
        )

    @property
    def name(self) -> str:
        return self._name

    async def head(self) -> Head:
        info = self._mapping(await self._get("getMasterchainInfo", {}), "masterchain info")
        block = self._block(info.get("last"))
        found = await self.block(block.seqno)
        if found.block != block:
            raise self._lie(f"two block ids for masterchain block {block.seqno}")
        return found

    async def block(self, seqno: int) -> Head:
        header = self._mapping(
            await self._get(
                "getBlockHeader",
                {"workchain": "-1", "shard": _MASTERCHAIN_SHARD, "seqno": str(seqno)},
            ),
            "block header",
        )
        block = self._block(header.get("id"))
        if block.seqno != seqno:
            raise self._lie(f"block {block.seqno} when asked for {seqno}")
        self._check_network(self._integer(header, "global_id"))
        return Head(block, self._integer(header, "gen_utime"))

    async def account(self, account: bytes) -> AccountState:
        await self._ensure_network()
        state = self._mapping(await self._get("getAddressInformation", {"address": _raw(account)}), "account state")
        last = self._mapping(state.get("last_transaction_id"), "last_transaction_id")
        last_lt = self._integer(last, "lt")
        last_hash = ZERO_HASH if last_lt == 0 and last.get("hash") == "" else self._hash(last, "hash")
        if (last_lt == 0) != (last_hash == ZERO_HASH):
            raise self._lie(f"last transaction lt {last_lt} with hash {last_hash.hex()}")
        balance_nano = max(0, self._integer(state, "balance"))  # tonlib spells "no account" as -1
        word = state.get("state")
        status = _STATUS.get(word) if isinstance(word, str) else None
        if status is None:
            raise self._lie(f"unknown account state {str(word)[:40]!r}")
        code, data = self._maybe_cell(state, "code"), self._maybe_cell(state, "data")
        if status is Status.ACTIVE:
            if code is None or data is None:
                raise self._lie("an active account without code or data")
        else:
            code = data = None
            if last_lt == 0 and balance_nano == 0 and status is Status.UNINIT:
                status = Status.ABSENT  # v2 has no word for it
        return AccountState(account, status, balance_nano, code, data, last_lt, last_hash)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        await self._ensure_network()
        query = {
            "address": _raw(account),
            "lt": str(lt),
            "hash": base64.b64encode(hash).decode(),
            "limit": str(max(1, min(limit, PAGE_LIMIT))),
            "archival": "true",
        }
        rows = await self._get("getTransactions", query)
        if not isinstance(rows, list):
            raise self._lie("transactions that are no list")
        found = tuple(self._transaction(row, account) for row in rows[:limit])
        check_links(found, Cursor(lt, hash), account=account, endpoint=self._name)
        return found

    async def send(self, message: Cell) -> bytes:
        await self._ensure_network()
        boc = base64.b64encode(to_boc(message)).decode()
        answer = await self._http.post("sendBocReturnHash", {"boc": boc})
        self._result(answer.status, answer.body, "sendBocReturnHash")
        return bytes(message.hash)

    async def close(self) -> None:
        await self._http.close()

    async def _ensure_network(self) -> None:
        if not self._network_checked:
            await self.head()

    def _check_network(self, global_id: int) -> None:
        if self._global_id is not None and global_id != self._global_id:
            raise ChainError(
                f"{self._name} serves network {global_id}, the profile says {self._global_id}; "
                "point the profile's toncenter list to the right network"
            )
        self._network_checked = True

    async def _get(self, method: str, query: Mapping[str, str]) -> object:
        answer = await self._http.get(method, query)
        return self._result(answer.status, answer.body, method)

    def _result(self, status: int, body: object, method: str) -> object:
        envelope = self._mapping(body, f"answer to {method}")
        if envelope.get("ok") is True and status == 200:
            if "result" not in envelope:
                raise self._lie(f"no result of {method}")
            return envelope["result"]
        reason = str(envelope.get("error", envelope.get("result", "no reason given")))[:500]
        if any(word in reason.upper() for word in _TRANSIENT) and not refuses_message(reason):
            raise Unreachable(f"{self._name} could not serve {method} now: {reason}; try again in a moment")
        raise Refused(f"{self._name} refused {method} (HTTP {status}): {reason}")

    def _transaction(self, row: object, account: bytes) -> Transaction:
        fields = self._mapping(row, "transaction")
        cell = self._maybe_cell(fields, "data")
        if cell is None:
            raise self._lie("a transaction without data")
        identity = self._mapping(fields.get("transaction_id"), "transaction_id")
        if cell.hash != self._hash(identity, "hash"):
            raise self._lie("a transaction whose data does not hash to its id")
        transaction = decode_transaction(cell, account)
        if transaction.lt != self._integer(identity, "lt"):
            raise self._lie("a transaction whose lt is not its id's")
        return transaction

    def _block(self, value: object) -> BlockId:
        fields = self._mapping(value, "block id")
        if self._integer(fields, "workchain") != -1:
            raise self._lie("a masterchain block in another workchain")
        return BlockId(self._integer(fields, "seqno"), self._hash(fields, "root_hash"), self._hash(fields, "file_hash"))

    def _mapping(self, value: object, what: str) -> Mapping[str, object]:
        if not isinstance(value, dict):
            raise self._lie(f"{what} that is no object")
        return value

    def _integer(self, fields: Mapping[str, object], key: str) -> int:
        value = fields.get(key)
        if isinstance(value, str) and len(value) <= 40 and value.removeprefix("-").isdecimal():
            return int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        raise self._lie(f"{key} = {str(value)[:40]!r} where a number belongs")

    def _octets(self, fields: Mapping[str, object], key: str) -> bytes:
        value = fields.get(key)
        if not isinstance(value, str):
            raise self._lie(f"no {key}")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._lie(f"{key} that is no base64") from error

    def _hash(self, fields: Mapping[str, object], key: str) -> bytes:
        value = self._octets(fields, key)
        if len(value) != 32:
            raise self._lie(f"{key} of {len(value)} bytes where a hash belongs")
        return value

    def _maybe_cell(self, fields: Mapping[str, object], key: str) -> Cell | None:
        raw = self._octets(fields, key)
        if not raw:
            return None
        try:
            return from_boc(raw, MAX_STATE_BYTES)
        except CellError as error:
            raise self._lie(f"{key} that is no cell ({error})") from error

    def _lie(self, what: str) -> ChainError:
        return ChainError(f"{self._name} answered with {what}; it is broken or lies: use another endpoint")


def _raw(account: bytes) -> str:
    if len(account) != 32:
        raise ValueError(f"an account id has 32 bytes, got {len(account)}")
    return f"0:{account.hex()}"


def _base_url(url: str) -> URL:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"toncenter URL {url!r} must begin with http:// or https:// and name a host")
    if parsed.user or parsed.password or parsed.query_string:
        raise ValueError(f"the toncenter URL for {parsed.host} holds a secret or a query; keys belong in api_key_file")
    path = parsed.path.rstrip("/").removesuffix("/jsonRPC")
    return parsed.with_path(path if path.endswith("/api/v2") else f"{path}/api/v2")


def _read_key(path: Path) -> str:
    mode = path.stat().st_mode
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(f"others can read the API key file {path}: run `chmod 600 {path}`")
    key = path.read_text(encoding="ascii").strip()
    if not key or not key.isprintable() or " " in key:
        raise ValueError(f"the API key file {path} must hold one line with the key")
    return key
