"""Batch jobs on the running network, with the real small model: from a file to its answers and their payment.

Every end a job can have: paid at the client's word, refunded because nobody came, refunded because who came died. The
chain's books add up to the nanoTON after each.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from chain.wait import until
from client import control
from client.errors import BadRequest, NoNode, RelayerUnreachable, TooExpensive
from client.follow_up import FollowUp, Round
from client.job_plan import Times
from client.sdk import Client
from protocol.pricing import charge
from protocol.sealing import SealingKeyPair
from wrappers.job import JobState

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

JOBS: list[bytes] = []
SECRET = "the secret word is xylophone"


def line(number: int, content: str = SECRET, tokens: int = 8) -> dict[str, Any]:
    body = {"messages": [{"role": "user", "content": content}], "max_tokens": tokens, "temperature": 0.0, "seed": 1}
    return {"custom_id": f"line {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def batch(*lines: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(one) for one in lines).encode()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(net: Any) -> Any:
    async with net.client("jobs", allotted_nano=0) as client:
        JOBS.clear()
        yield client


async def until_phase(client: Client, job: bytes, *phases: str, seconds: float = 60) -> Any:
    async def read() -> Any:
        view = await client.jobs.status(job)
        return view if view.phase in phases else None

    return await until(read, what=f"job to be {' or '.join(phases)}", timeout_seconds=seconds)


async def balances(net: Any, client: Client) -> int:
    return (await client.balance()).deposit_nano


async def until_fetched(client: Client, job: bytes) -> Any:
    """The agent leaves the result at the relayer a moment after the chain shows it."""

    async def fetch() -> Any:
        try:
            return await client.jobs.fetch(job)
        except Exception as error:
            if "not here yet" in str(error):
                return None
            raise

    return await until(fetch, what="the result to be delivered", timeout_seconds=60)


async def test_a_job_is_run_fetched_opened_and_paid_to_the_nano(
    net: Any, client: Client, monkeypatch: Any, tmp_path: Path
) -> None:
    node, other = await net.trusted(client), b"\x77" * 32
    spare = dataclasses.replace(node.sealing_key, public_key=SealingKeyPair.generate().public_key)

    async def trusted(account: bytes) -> Any:
        if account == other:
            return dataclasses.replace(node, account=other, sealing_key=spare)
        return await client.verify(account)

    monkeypatch.setattr(client.jobs, "_node", trusted)
    earned, deposit = (await net.node_state()).earned_nano, await balances(net, client)
    lines = [line(1), line(2, "Count to three."), line(3, tokens=1)]
    view = await client.jobs.submit(batch(*lines), [other, net.node])
    JOBS.append(view.job)
    assert view.phase in ("open", "accepted", "posted") and set(view.nodes) == {net.node, other}
    view = await until_phase(client, view.job, "posted")
    assert view.accepted_by == net.node
    # The process that posted it dies; the one after it has the result on disk.
    await net.kill("worker")
    await net.start_worker()
    await net.serving()
    stored = await until_stored(net, view.job)
    whole = stored.read_bytes()
    stored.write_bytes(whole[:-1] + bytes((whole[-1] ^ 1,)))
    with pytest.raises(RelayerUnreachable, match="not the one that the chain names"):
        await client.jobs.fetch(view.job)
    assert (await net.node_state()).earned_nano == earned, "nothing is paid for it"
    stored.write_bytes(whole)

    found = await client.jobs.fetch(view.job)
    assert found.paid and [one.custom_id for one in found.answers] == [one["custom_id"] for one in lines]
    assert all(one.response is not None and one.response["choices"][0]["message"]["content"] for one in found.answers)
    assert found.answers[2].response["usage"]["completion_tokens"] == 1
    amount = charge(node.models[0].terms, found.result.usage, found.result.stop)
    assert found.amount_nano == amount == view.amount_nano <= view.maximum_nano
    await until_phase(client, view.job, "ended")

    async def paid() -> int | None:
        now = (await net.node_state()).earned_nano
        return now - earned or None

    assert await until(paid, what="the node to be paid", timeout_seconds=30) == amount
    assert deposit - amount < await balances(net, client) < deposit + 200_000_000, "the rest of all is the client's"
    again = await client.jobs.fetch(view.job)
    assert again.answers == found.answers and not again.paid, "paid once"
    said = await control.run(client, "job fetch", {"job": view.job.hex(), "out": str(tmp_path / "answers.jsonl")})
    assert said["amount_nano"] == amount and said["failed"] == 0
    written = [json.loads(row) for row in (tmp_path / "answers.jsonl").read_text().splitlines()]
    assert [row["custom_id"] for row in written] == [one["custom_id"] for one in lines]
    await only_fees_are_gone(net)
    for folder in (net.home.relayer, net.home.node):
        for path in folder.rglob("*"):
            assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path


async def only_fees_are_gone(net: Any) -> None:
    """The chain keeps no way to the transactions of an account that ended: what a job paid as fees is not counted."""
    net.parties |= set(JOBS)
    assert -20_000_000 * len(JOBS) < await net.unaccounted_nano() <= 0


async def until_stored(net: Any, job: bytes) -> Path:
    path = net.home.relayer / "jobs" / job.hex() / f"result-{net.node.hex()}"

    async def there() -> Path | None:
        return path if path.exists() else None

    return await until(there, what="the relayer to have the result", timeout_seconds=60)


async def test_what_would_fail_is_refused_before_anything_is_ordered(net: Any, client: Client) -> None:
    before = await balances(net, client)
    with pytest.raises(TooExpensive, match="may cost"):
        await client.jobs.submit(batch(line(1)), [net.node], maximum_nano=1)
    with pytest.raises(BadRequest, match="line 2"):
        await client.jobs.submit(batch(line(1), {**line(2), "url": "/v1/other"}), [net.node])
    with pytest.raises(BadRequest, match="custom_id"):
        await client.jobs.submit(batch(line(1), line(1)), [net.node])
    with pytest.raises(BadRequest, match="deadline"):
        await client.jobs.submit(batch(line(1)), [net.node], times=Times(deadline=10))
    with pytest.raises(NoNode):
        await client.jobs.submit(batch(line(1)), [b"\x01" * 32])
    with pytest.raises(BadRequest, match="no job"):
        await client.jobs.fetch(b"\x01" * 32)
    assert await balances(net, client) == before


async def test_g3_a_job_that_nobody_takes_is_refunded(net: Any, client: Client, monkeypatch: Any) -> None:
    node = await net.trusted(client)

    async def trusted(account: bytes) -> Any:
        return node

    monkeypatch.setattr(client.jobs, "_node", trusted)
    await net.kill("worker")
    try:
        deposit = await balances(net, client)
        view = await client.jobs.submit(batch(line(1)), [net.node], times=Times(deadline=300))
        JOBS.append(view.job)
        with pytest.raises(BadRequest, match="may be refunded at"):
            await client.jobs.refund(view.job)
        follow_up = FollowUp(client)
        assert await follow_up.round() == Round((), ()) and not view.refund_due
        async with net.control() as control:
            await control.advance(301)
        assert (await client.jobs.status(view.job)).refund_due
        assert view.job.hex() in (await follow_up.round()).done[0]
        await until_phase(client, view.job, "ended")
        assert await follow_up.round() == Round((), ())
        assert await balances(net, client) > deposit - 30_000_000
        with pytest.raises(BadRequest, match="without a result"):
            await client.jobs.fetch(view.job)
        await only_fees_are_gone(net)
    finally:
        await net.start_worker()
        await net.serving()


async def test_g16_an_agent_killed_before_the_result_pays_with_its_stake(net: Any, client: Client) -> None:
    """The accepting key died with its enclave: no other can sign, so the client is made whole after the grace."""
    stake, deposit = (await net.node_state()).stake_nano, await balances(net, client)
    long = [line(number, "Tell a very long story.", 120) for number in range(40)]
    view = await client.jobs.submit(batch(*long), [net.node], times=Times(deadline=600))
    JOBS.append(view.job)
    view = await until_phase(client, view.job, "accepted")
    await net.kill("worker")
    state = await client.view.job(view.job)
    assert isinstance(state, JobState) and state.outcome is None
    async with net.control() as control:
        await control.advance(600 + 3600 + 1)
    await client.jobs.refund(view.job)
    await until_phase(client, view.job, "ended")
    assert await balances(net, client) > deposit - 30_000_000

    async def slashed() -> int | None:
        return stake - (await net.node_state()).stake_nano or None

    assert await until(slashed, what="the node to be slashed", timeout_seconds=30) == view.maximum_nano
    await net.start_worker()
    await net.serving()
