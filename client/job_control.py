"""Commands of `cocoon client job`, as functions from JSON to JSON (`client.control`).

Files are read and written by whoever runs the command: it may be the endpoint that holds the home, so paths are
absolute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from client.errors import BadRequest, HomeError
from client.home import write_private
from client.job_plan import DEFAULT_DEADLINE_SECONDS, DEFAULT_DELIVERY_SECONDS, DEFAULT_GRACE_SECONDS, Times
from client.job_view import JobView
from protocol.jobs import MAX_BODY_BYTES

if TYPE_CHECKING:
    from client.sdk import Client

_Arguments = Mapping[str, Any]


async def _submit(client: Client, arguments: _Arguments) -> dict[str, Any]:
    path, nodes = Path(str(arguments.get("file"))), arguments.get("nodes")
    if not isinstance(nodes, list):
        raise BadRequest("no node is named", "name at least one with --node")
    try:
        size = (await asyncio.to_thread(path.stat)).st_size
        if size > MAX_BODY_BYTES:
            raise BadRequest(f"{path} has {size} bytes", f"split it: at most {MAX_BODY_BYTES}")
        data = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise BadRequest(f"{path} cannot be read ({error.strerror})", "name a JSONL file") from error
    times = Times(
        _number(arguments, "deadline", DEFAULT_DEADLINE_SECONDS),
        _number(arguments, "grace", DEFAULT_GRACE_SECONDS),
        _number(arguments, "window", DEFAULT_DELIVERY_SECONDS),
    )
    accounts = [_id(node, "a node is named by its account", "see `cocoon client nodes`") for node in nodes]
    return view(
        await client.jobs.submit(data, accounts, maximum_nano=_number(arguments, "maximum_nano", None), times=times)
    )


async def _status(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return view(await client.jobs.status(_job(arguments)))


async def _list(client: Client, arguments: _Arguments) -> dict[str, Any]:
    return {"jobs": [view(await client.jobs.status(job)) for job in client.jobs.all()]}


async def _fetch(client: Client, arguments: _Arguments) -> dict[str, Any]:
    job, path = _job(arguments), Path(str(arguments.get("out")))
    found = await client.jobs.fetch(job, keep=lambda answers: write(path, answers))
    usage = found.result.usage
    return {
        "job": job.hex(),
        "file": str(path),
        "lines": len(found.answers),
        "failed": sum(one.error is not None for one in found.answers),
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "amount_nano": found.amount_nano,
        "paid": found.paid,
    }


def write(path: Path, answers: bytes) -> None:
    """Raises HomeError: then nothing was paid, and the job can be fetched again."""
    try:
        write_private(path, answers.decode(), replace=True)
    except (OSError, UnicodeDecodeError) as error:
        raise HomeError(f"the answers cannot be written to {path} ({error})", "name another file") from error


async def _refund(client: Client, arguments: _Arguments) -> dict[str, Any]:
    job = _job(arguments)
    paid = await client.jobs.refund(job)
    return {"job": job.hex(), "transaction": paid.wallet.hash.hex()}


def view(job: JobView) -> dict[str, Any]:
    return {
        "job": job.job.hex(),
        "phase": job.phase,
        "fetched": job.made == "fetched",
        "model": job.model,
        "lines": job.lines,
        "nodes": [node.hex() for node in job.nodes],
        "simulated": job.simulated,
        "maximum_nano": job.maximum_nano,
        "deadline": job.deadline,
        "accepted_by": None if job.accepted_by is None else job.accepted_by.hex(),
        "amount_nano": job.amount_nano,
        "refundable_at": job.refundable_at,
        "payable_at": job.payable_at,
        "refund_due": job.refund_due,
    }


def _job(arguments: _Arguments) -> bytes:
    return _id(arguments.get("job"), "a job is named by its account", "see `cocoon client job list`")


def _id(value: object, what: str, cure: str) -> bytes:
    try:
        account = bytes.fromhex(value) if isinstance(value, str) else b""
    except ValueError:
        account = b""
    if len(account) != 32:
        raise BadRequest(f"{what}, 64 hex digits", cure)
    return account


def _number(arguments: _Arguments, name: str, default: Any) -> Any:
    value = arguments.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise BadRequest(f"{name} is no whole number", "give 0 or more")
    return value


COMMANDS: dict[str, Callable[[Client, _Arguments], Awaitable[dict[str, Any]]]] = {
    "job submit": _submit,
    "job status": _status,
    "job list": _list,
    "job fetch": _fetch,
    "job refund": _refund,
}
