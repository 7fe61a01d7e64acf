"""The enclave's guard over its GPUs: no quote before they verify, and no answer after they do not.

What is verified is each GPU's own report under NVIDIA's pinned roots; the driver's word alone admits nothing. A guard
that failed once stays failed: what a GPU did in between nobody knows, so only a new process, with new keys, may try
again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import NONCE_BYTES
from attestation.gpu.policy import GpuPolicy
from attestation.gpu.roots import Roots
from attestation.gpu.source import GpuSource, GpuUnavailable
from attestation.gpu.verify import verify_gpu
from attestation.strict import Malformed

log = logging.getLogger(__name__)
_T = TypeVar("_T")

CHECK_SECONDS = 3600
LATE_SECONDS = 600
"""How far a check may be overdue, hung in the driver for example, before the GPUs count as failed."""
CALL_SECONDS = 120.0
LOOK_SECONDS = 30.0


class GpuFailed(Exception):
    """The GPUs do not verify. Holds every reason."""


class GpuGuard:
    """`collateral` is read anew for every check, so that manifests can be renewed without a restart.

    `clock` is unix seconds, `steady` counts seconds and cannot be set. `roots` only in tests: else NVIDIA's, pinned.
    """

    def __init__(
        self,
        source: GpuSource,
        policy: GpuPolicy,
        collateral: Callable[[], GpuCollateral],
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        roots: Roots | None = None,
    ) -> None:
        self._source = source
        self._policy = policy
        self._collateral = collateral
        self._clock = clock
        self._steady = steady
        self._sleep = sleep
        self._roots = roots
        self._checked_at: tuple[float, float] | None = None
        self._fault: str | None = None
        self._one_at_a_time = asyncio.Lock()

    def fault(self) -> str | None:
        """Why nothing may be served, or None. Asked before every request."""
        if self._fault is None:
            if self._checked_at is None:
                return "the GPUs were not verified yet"
            if self._age(self._checked_at) > CHECK_SECONDS + LATE_SECONDS:
                self._fault = "the hourly check of the GPUs is overdue; see whether the driver hangs (`nvidia-smi`)"
        return self._fault

    def _age(self, checked_at: tuple[float, float]) -> float:
        """Seconds since the last good check, by the clock that says more.

        A guest that was paused stops one clock; the other is set by whoever answers its time requests, and set back it
        would put off every later check.
        """
        return max(self._clock() - checked_at[0], self._steady() - checked_at[1])

    async def check(self, nonce: bytes) -> bytes:
        """Verify all GPUs over this nonce; returns their raw evidence. Raises GpuFailed, and then for ever."""
        async with self._one_at_a_time:
            if self._fault is not None:
                raise GpuFailed(self._fault)
            try:
                async with asyncio.timeout(CALL_SECONDS):
                    return await _apart(lambda: self._check(nonce))
            except TimeoutError:
                self._fault = f"the driver gave no GPU evidence within {CALL_SECONDS:.0f} s; see `nvidia-smi`"
            except (GpuFailed, GpuUnavailable, Malformed) as error:
                self._fault = str(error)
            except Exception as error:
                # Whatever was not foreseen must not leave the guard with its last good answer.
                self._fault = f"the check itself failed ({type(error).__name__}: {error}); report it"
            await self._stop_work()
            raise GpuFailed(self._fault)

    async def watch(self) -> str:
        """Check again every hour; returns, with the reason, when the GPUs must no longer be used."""
        while (fault := self.fault()) is None:
            await self._sleep(LOOK_SECONDS)
            if self._checked_at is not None and self._age(self._checked_at) >= CHECK_SECONDS:
                try:
                    # Nobody but this process sees the answer, so a random nonce is the freshest.
                    await self.check(secrets.token_bytes(NONCE_BYTES))
                except GpuFailed as error:
                    return str(error)
        return fault

    def _check(self, nonce: bytes) -> bytes:
        lacks = self._source.state().lacks()
        if lacks:
            raise GpuFailed("; ".join(lacks))
        raw = self._source.evidence(nonce).to_bytes()
        now, steady = self._clock(), self._steady()
        verdict = verify_gpu(raw, self._collateral(), self._policy, int(now), nonce, self._roots)
        if not verdict.accepted:
            raise GpuFailed("; ".join(verdict.reasons))
        for gpu in verdict.gpus:
            log.info("verified %s", gpu.words())
        if self._fault is not None:
            # The answer came when nobody waited for it any more, and the driver was told to stop.
            raise GpuFailed(self._fault)
        self._source.accept_work(True)
        self._checked_at = now, steady
        return raw

    async def _stop_work(self) -> None:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await _apart(lambda: self._source.accept_work(False))
        except Exception as error:
            # The enclave refuses by itself; this was a second lock.
            log.warning("the driver was not told to stop: %s", error or "no answer")


async def _apart(call: Callable[[], _T]) -> _T:
    """In a thread that the process does not wait for when it ends: a driver may hang for ever."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: Exception | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = call()
        except Exception as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=work, name="gpu", daemon=True).start()
    return await done
