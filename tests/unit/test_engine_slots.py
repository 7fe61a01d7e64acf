"""Slots: fairness, no loss on cancellation, and who may reuse whose cache."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest

from worker.engine.bridge import Bridge
from worker.engine.slots import Lease, SlotPool


async def test_g15_reuse_only_of_what_the_same_salt_filled() -> None:
    pool = SlotPool(1)
    assert await pool.acquire("a") == Lease(0, reuse=False)
    pool.release(0, "a")
    assert await pool.acquire("a") == Lease(0, reuse=True)
    pool.release(0, "a")
    assert await pool.acquire("b") == Lease(0, reuse=False)
    # b was refused before its prompt was read, so the slot still holds a's prefix.
    pool.release(0, "")
    assert await pool.acquire("b") == Lease(0, reuse=False)
    pool.release(0, "")
    assert await pool.acquire("") == Lease(0, reuse=False)
    pool.release(0, "")
    assert await pool.acquire("") == Lease(0, reuse=False)


async def test_a_salt_returns_to_its_slot_and_strangers_take_the_oldest() -> None:
    pool = SlotPool(3)
    for salt in "abc":
        await pool.acquire(salt)
    for slot, salt in enumerate("abc"):
        pool.release(slot, salt)
    assert await pool.acquire("c") == Lease(2, reuse=True)
    assert await pool.acquire("stranger") == Lease(0, reuse=False)


async def test_waiters_are_served_in_order_and_cancelled_ones_lose_nothing() -> None:
    pool = SlotPool(1)
    await pool.acquire("x")
    waiting = [asyncio.create_task(pool.acquire(str(index))) for index in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    pool.release(0, "x")
    assert (await waiting[1]).slot == 0
    assert not waiting[2].done()
    pool.release(0, "")
    # Cancelled after it was given the slot, before it could run.
    waiting[2].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[2]
    assert pool.free == 1


async def test_g15_random_traffic_never_reuses_across_salts() -> None:
    pool, filled, rng = SlotPool(3), {}, random.Random(5)

    async def request(salt: str) -> None:
        lease = await pool.acquire(salt)
        started = False
        try:
            if lease.reuse:
                assert filled[lease.slot] == salt
            await asyncio.sleep(0)
            if rng.random() < 0.7:
                filled[lease.slot], started = salt, True
        finally:
            pool.release(lease.slot, salt if started else "")

    tasks = [asyncio.create_task(request(rng.choice("abcd"))) for _ in range(300)]
    for task in rng.sample(tasks, 60):
        await asyncio.sleep(0)
        task.cancel()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(end) for end in ends} == {type(None), asyncio.CancelledError}
    assert pool.free == 3


async def test_bridge_bounds_the_producer_and_stops_it_on_close() -> None:
    bridge = Bridge(2)
    pushed: list[int] = []

    def produce() -> None:
        for index in range(100):
            if bridge.push(index):
                return
            pushed.append(index)

    thread = threading.Thread(target=produce)
    thread.start()
    assert await bridge.pull() == 0
    await asyncio.sleep(0.05)
    assert len(pushed) <= 4
    bridge.close()
    await asyncio.to_thread(thread.join, 5)
    assert not thread.is_alive() and len(pushed) <= 5
