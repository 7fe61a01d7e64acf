"""The control routes of the HTTP listeners: faucet, time, blocks, snapshots and faults. For tests and demos only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from devnet.engine import DevnetError
from devnet.faults import Kind, read_fault
from devnet.messages import parse_account
from devnet.params import number, text

if TYPE_CHECKING:
    from devnet.node import Devnet

Command = Callable[["Devnet", Mapping[str, Any]], Any]
PREFIX = "/control"
MAX_MINED = 1_000


def routes(devnet: Devnet) -> list[web.RouteDef]:
    found = [web.post(f"{PREFIX}/{name}", _handler(devnet, command)) for name, command in COMMANDS.items()]
    found.append(web.get(f"{PREFIX}/status", _handler(devnet, _status)))
    found.append(web.get(f"{PREFIX}/global-config", _handler(devnet, _global_config)))
    return found


def _handler(devnet: Devnet, command: Command) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            params = {} if request.method == "GET" else await _params(request)
            return web.json_response({"ok": True, "result": command(devnet, params)})
        except DevnetError as error:
            return web.json_response({"ok": False, "error": str(error)}, status=422)

    return handle


async def _params(request: web.Request) -> dict[str, Any]:
    # Only application/json, which no foreign web page can post across origins without asking first.
    if request.content_type != "application/json":
        raise DevnetError("send the parameters as application/json")
    try:
        found = await request.json()
    except ValueError as error:
        raise DevnetError(f"the body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise DevnetError("the body must be a JSON object")
    return found


def _faucet(devnet: Devnet, params: Mapping[str, Any]) -> Any:
    devnet.chain.faucet(parse_account(text(params, "address")), number(params, "amount_nano"))
    return {"seqno": devnet.mine()}


def _advance(devnet: Devnet, params: Mapping[str, Any]) -> Any:
    devnet.chain.advance(number(params, "seconds"))
    devnet.mine()
    return {"now": devnet.chain.head.master.now}


def _mine(devnet: Devnet, params: Mapping[str, Any]) -> Any:
    rounds = number(params, "rounds", 1)
    if not 1 <= rounds <= MAX_MINED:
        raise DevnetError(f"'rounds' must be between 1 and {MAX_MINED}, not {rounds}")
    for _ in range(rounds):
        devnet.mine()
    return {"seqno": devnet.chain.head.master.seqno}


def _snapshot(devnet: Devnet, _: Mapping[str, Any]) -> Any:
    return {"id": devnet.take_snapshot()}


def _revert(devnet: Devnet, params: Mapping[str, Any]) -> Any:
    devnet.revert_to(number(params, "id"))
    return {"seqno": devnet.chain.head.master.seqno}


def _faults(devnet: Devnet, params: Mapping[str, Any]) -> Any:
    """`listener` and the list `faults`, which replaces the one before; an empty list makes the listener honest."""
    name, ordered = text(params, "listener"), params.get("faults")
    listeners = devnet.faults()
    if name not in listeners:
        raise DevnetError(f"no listener {name!r}: there are {', '.join(listeners)}")
    if not isinstance(ordered, list) or not all(isinstance(fields, dict) for fields in ordered):
        raise DevnetError("'faults' must be a list of objects")
    rules = []
    for fields in ordered:
        account = parse_account(str(fields["account"])) if fields.get("account") else None
        rules.append(read_fault(fields, account))
    if name == devnet.LITESERVER and any(rule.kind is Kind.LIE for rule in rules):
        raise DevnetError("the liteserver cannot lie: its proofs would show it; lie through a toncenter listener")
    listeners[name].set(rules)
    return {"faults": len(rules)}


def _status(devnet: Devnet, _: Mapping[str, Any]) -> Any:
    chain = devnet.chain
    return {
        "global_id": chain.ledger.global_id,
        "seqno": chain.head.master.seqno,
        "now": chain.now(),
        "offset_seconds": chain.offset_seconds,
        "accounts": len(chain.ledger.accounts),
        "listeners": list(devnet.faults()),
        "dropped": [{"hash": drop.message_hash.hex(), "reason": drop.reason} for drop in chain.dropped],
    }


def _global_config(devnet: Devnet, _: Mapping[str, Any]) -> Any:
    return devnet.endpoints.global_config


COMMANDS: dict[str, Command] = {
    "faucet": _faucet,
    "advance": _advance,
    "mine": _mine,
    "snapshot": _snapshot,
    "revert": _revert,
    "faults": _faults,
}
