"""Commands of `cocoon client`, as functions from JSON to JSON: run in the process, or by the endpoint that runs beside.

One process owns the books. A command line that finds them taken hands its command to that process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from client import job_control
from client.audit import verify_chain, verify_held
from client.errors import BadRequest, NoEscrow
from client.follow_up import FollowUp
from client.inspect import Inspection
from client.money import Closed
from client.records import AccountOf, Held
from client.sdk import Client
from client.trust import TrustedNode
from protocol.pricing import dearer, table
from protocol.receipts import usage_of
from wrappers.cells import to_boc
from wrappers.receipts import Terms

_Arguments = Mapping[str, Any]


async def run(client: Client, command: str, arguments: _Arguments) -> dict[str, Any]:
    """Raises BadRequest for an unknown command or argument, else what the command raises."""
    found = COMMANDS.get(command)
    if found is None:
        raise BadRequest(f"unknown command {ascii(command)[:40]}", f"known are {', '.join(COMMANDS)}")
    return await found(client, arguments)


async def _open(client: Client, arguments: _Arguments) -> dict[str, Any]:
    node = arguments.get("node")
    first = None if node is None else (account_of(node), _amount(arguments, "allot_nano"))
    escrow = await client.open_escrow(_amount(arguments, "deposit_nano"), first, arguments.get("close_timer"))
    return {"escrow": escrow.account.hex(), **await _balance(client, {})}


async def _allot(client: Client, arguments: _Arguments) -> dict[str, Any]:
    node, amount = account_of(arguments.get("node")), _amount(arguments, "amount_nano")
    await client.allot(node, amount, arguments.get("close_timer"))
    return await _balance(client, {})


async def _top_up(client: Client, arguments: _Arguments) -> dict[str, Any]:
    await client.top_up(_amount(arguments, "amount_nano"))
    return await _balance(client, {})


async def _withdraw(client: Client, arguments: _Arguments) -> dict[str, Any]:
    await client.withdraw(_amount(arguments, "amount_nano"))
    return await _balance(client, {})


async def _balance(client: Client, arguments: _Arguments) -> dict[str, Any]:
    wallet = client.wallet.address.to_str(is_bounceable=False)
    try:
        balance = await client.balance()
    except NoEscrow as error:
        said: dict[str, Any] = {"escrow": None, "reason": f"{error.cause}; {error.cure}", "rows": []}
        return {**said, "wallet": wallet, "wallet_nano": await client.wallet_nano()}
    return {
        "escrow": balance.escrow.hex(),
        "deposit_nano": balance.deposit_nano,
        "free_nano": balance.free_nano,
        "closing": balance.closing,
        "wallet": wallet,
        "wallet_nano": balance.wallet_nano,
        "rows": [
            {
                "node": row.node.hex(),
                "allotted_nano": row.allotted_nano,
                "paid_nano": row.paid_nano,
                "owed_nano": row.owed_nano,
                "promised_nano": row.promised_nano,
                "room_nano": row.room_nano,
                "closing_at": row.closing_at,
            }
            for row in balance.rows
        ],
    }


async def _receipts(client: Client, arguments: _Arguments) -> dict[str, Any]:
    held = client.receipts()
    accounts = {(of.allotment, of.key): of for of, _ in client.store.accounts()}
    shown = [_receipt(one, accounts[one.allotment, one.key]) for one in held]
    if not arguments.get("verify"):
        return {"receipts": shown}
    settings = client.settings
    for one, view in zip(held, shown, strict=True):
        audit = verify_held(
            one,
            of=accounts[one.allotment, one.key],
            network=settings.facts,
            evidence=client.store.evidence(one.key),
            policy=settings.policy,
            allow_simulated=settings.allow_simulated,
        )
        view["holds"] = audit.holds
        view["checks"] = [{"name": each.name, "holds": each.holds, "said": each.said} for each in audit.checks]
    chains = []
    for place in accounts:
        mine = sorted((one for one in held if (one.allotment, one.key) == place), key=lambda one: _seq(one))
        if mine:
            check = verify_chain([one.issued for one in mine])
            chains.append({"key": place[1].hex(), "holds": check.holds, "said": check.said})
    holds = all(view["holds"] for view in shown) and all(chain["holds"] for chain in chains)
    return {"receipts": shown, "chains": chains, "holds": holds}


def _seq(held: Held) -> int:
    return held.issued.signed.receipt.seq


def _receipt(held: Held, of: AccountOf) -> dict[str, Any]:
    receipt = held.issued.signed.receipt
    usage, stop = usage_of(held.issued.inner)
    return {
        "hash": held.hash.hex(),
        "seq": receipt.seq,
        "key": held.key.hex(),
        "model": held.model,
        "amount_nano": receipt.amount_nano,
        "cumulative_nano": receipt.cumulative_nano,
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "stop": stop.name.lower(),
        "answered": held.answered,
        "simulated": held.simulated,
        "received_at": held.received_at,
        # What opens it before others, who need nothing else of this client: `cocoon audit --receipt`.
        "escrow": of.escrow.hex(),
        "allotment_epoch": of.epoch,
        "node": of.node.hex(),
        "node_epoch": of.node_epoch,
        "issued": held.issued.to_bytes().hex(),
        "terms": to_boc(held.terms.to_cell()).hex(),
    }


async def _close(client: Client, arguments: _Arguments) -> dict[str, Any]:
    patience = arguments.get("patience_seconds", 60)
    if not isinstance(patience, int | float):
        raise BadRequest("patience_seconds is no number", "give seconds")
    return _closed(await client.close(patience_seconds=float(patience)))


async def _finish(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return _closed(await client.finish())


def _closed(closed: Closed) -> dict[str, Any]:
    return {
        "escrow": closed.escrow.hex(),
        "ended": closed.ended,
        "refunded_nano": closed.refunded_nano,
        "waiting": {node.hex(): at for node, at in closed.waiting.items()},
        "refusals": {node.hex(): why for node, why in closed.refusals.items()},
    }


async def _nodes(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return {
        "nodes": [
            trust_view(node)
            if isinstance(node, TrustedNode)
            else {"node": node.account.hex(), "trusted": False, "reasons": list(node.reasons)}
            for node in await client.nodes()
        ]
    }


async def _verify(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return trust_view(await client.verify(account_of(arguments.get("node"))))


def trust_view(node: TrustedNode) -> dict[str, Any]:
    verdict = node.verdict
    return {
        "node": node.account.hex(),
        "trusted": True,
        "simulated": verdict.simulated,
        "tier": verdict.tier.name.lower(),
        "image": verdict.image_name,
        "measurement": verdict.measurement.hex(),
        "platform": verdict.platform.hex(),
        "tcb_status": verdict.tcb_status,
        "advisories": list(verdict.advisory_ids),
        "gpus": [gpu.words() for gpu in verdict.gpus],
        "block_seqno": verdict.block_seqno,
        "block_checked": verdict.block_checked,
        "signing_key": node.signing_key.hex(),
        "attested_until": node.attested_until,
        "sealing_key_until": node.sealing_key.expires_at,
        "epoch": node.epoch,
        "models": {one.name: one.context_tokens for one in node.models},
        "prices": [
            {
                "name": one.name,
                **table(one.terms),
                "on_chain": _on_chain(one.terms, node.published.get(one.terms.model)),
            }
            for one in node.models
        ],
    }


def _on_chain(asked: Terms, published: Terms | None) -> str | None:
    """How what is asked stands to what the node's controller published; dearer is refused before."""
    if published is None:
        return None
    return "cheaper" if dearer(published, asked) else "the same"


def chain_view(found: Inspection) -> dict[str, Any]:
    return {
        "verifier": found.verifier.hex(),
        "chain_simulated": found.chain_simulated,
        "collateral_ends": dict(found.collateral_ends),
    }


async def _recover(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return {
        "recovered": [
            {
                "request": one.request_id.hex(),
                "receipt": None if one.receipt is None else one.receipt.hash.hex(),
                "trouble": one.trouble,
            }
            for one in await client.recover()
        ],
        "jobs": [{"job": job.hex(), "said": said} for job, said in await client.jobs.recover()],
        "unaccepted": [
            {"hash": one.receipt.hash.hex(), "seq": one.receipt.seq, "amount_nano": one.receipt.amount_nano}
            for one in await client.unaccepted()
        ],
    }


async def _follow_up(client: Client, arguments: _Arguments) -> dict[str, Any]:
    done = await FollowUp(client).round()
    return {"done": list(done.done), "failed": list(done.failed)}


def account_of(value: object) -> bytes:
    try:
        account = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        account = b""
    if len(account) != 32:
        raise BadRequest("a node is named by its account, 64 hex digits", "see `cocoon client nodes`")
    return account


def _amount(arguments: _Arguments, name: str) -> int:
    value = arguments.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"{name} is no amount in nanoTON", "give a whole number")
    return value


async def _plan(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return {"says": list(await client.plan(*_upkeep_of(arguments)))}


async def _upkeep(client: Client, arguments: _Arguments) -> dict[str, Any]:
    await client.upkeep(*_upkeep_of(arguments))
    return await _balance(client, {})


def _upkeep_of(arguments: _Arguments) -> tuple[str, bytes | None, bytes | None]:
    node, key = (None if arguments.get(name) is None else account_of(arguments[name]) for name in ("node", "key"))
    return str(arguments.get("what")), node, key


COMMANDS: dict[str, Callable[[Client, _Arguments], Awaitable[dict[str, Any]]]] = {
    "open": _open,
    "allot": _allot,
    "topup": _top_up,
    "withdraw": _withdraw,
    "balance": _balance,
    "receipts": _receipts,
    "close": _close,
    "finish": _finish,
    "plan": _plan,
    "upkeep": _upkeep,
    "nodes": _nodes,
    "verify": _verify,
    "recover": _recover,
    "follow-up": _follow_up,
    **job_control.COMMANDS,
}
