"""Batch jobs at the agent: gets sealed inputs, has the enclave accept and run them, and keeps to what was accepted.

Every round reads the chain and takes one step per job (`worker.agent.job_core`), so that nothing depends on what an
earlier process meant to do. An enclave that dies between acceptance and result costs its operator the job's maximum:
what one job may put at stake is his setting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from chain.api import ChainError
from chain.outgoing import Outgoing
from chain.wallet import Wallet
from protocol.errors import Code
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.job_core import POST_MARGIN_SECONDS, Facts, Step, next_step
from worker.agent.job_enclave import EnclaveJobs, NotTaken
from worker.agent.job_records import JobRecord, JobRecords, Stage
from worker.agent.job_relay import JobRelay, RelayTrouble
from worker.agent.rounds import attempt, every, over_and_over
from worker.agent.view import ChainView, NodeMissing
from wrappers.job import JobState, covered, finish_job, job_posted
from wrappers.node_rare import accept_job

log = logging.getLogger(__name__)

MESSAGE_NANO = 50_000_000
"""Above the need of accept_job and job_posted; what is not used becomes the node's reserve or comes back."""
COLLECT_NANO = 15_000_000
"""Above the need of finish_job; what is not used goes to the client's escrow."""
AGAIN_SECONDS = 45.0
"""The chain must have had time to show a message before it is sent again."""
MAX_ACCEPTS = 5
"""Each try costs the operator gas; what the chain refused so often it will refuse again."""
MAX_JOBS = 16
"""Kept at once; a relayer that lists more has them wait."""
RELAYER_SECONDS = 1.0
"""So long a round waits for a relayer. What takes longer goes on beside it: results that are owed wait for nobody."""
TROUBLE = (ChainError, NodeMissing, OSError)
_RELAYERS = (*TROUBLE, RelayTrouble, TimeoutError)
_LATER = frozenset({Code.NODE_BUSY.value, Code.NODE_NOT_LIVE.value})


@dataclass(frozen=True, slots=True)
class JobPolicy:
    max_job_nano: int
    """The most that one accepted job may put at stake; 0: no jobs."""
    collect_nano: int
    """Least pay for which the agent itself ends a job that its client does not."""


class JobDesk:
    """`enclave`: the one whose key the chain shows as attested, None while there is none."""

    def __init__(
        self,
        records: JobRecords,
        view: ChainView,
        wallet: Wallet | None,
        relays: Sequence[JobRelay],
        policy: JobPolicy,
        enclave: Callable[[], Enclave | None],
    ) -> None:
        self._records = records
        self._view = view
        self._wallet = wallet
        self._relays = {relay.origin: relay for relay in relays}
        self._policy = policy
        self._enclave = enclave
        self.enclave_jobs = EnclaveJobs(records, enclave)
        self._accepts: Counter[bytes] = Counter()
        self._sent: dict[tuple[bytes, Step], float] = {}
        self._told: set[tuple[bytes, Step]] = set()
        self._beside: dict[object, asyncio.Task[bool]] = {}
        """What goes on with a relayer: by its origin the reading of its list, by job the moving of its bytes."""

    @property
    def stages(self) -> dict[str, str]:
        """By job account in hex: what `cocoon node status` shows."""
        return {
            one.job.hex(): "running" if one.job in self.enclave_jobs.running else one.stage.value
            for one in self._records.all()
        }

    async def run(self, seconds: float) -> None:
        """Until cancelled."""
        if self._wallet is None or not (self._policy.max_job_nano or self._records.all()):
            return
        try:
            await over_and_over("jobs wait", self.step, TROUBLE, every(seconds))
        finally:
            beside = tuple(self._beside.values())
            for task in beside:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            await self.enclave_jobs.storing()

    async def step(self) -> None:
        """One round over everything; one relayer, or one job, that is in a bad way holds up no other.

        Raises ChainError, NodeMissing, OSError.
        """
        if self._policy.max_job_nano:
            for relay in self._relays.values():
                what = f"jobs of relayer {relay.origin} wait"
                await self._with_relayer(relay.origin, what, partial(self._discover, relay))
        now = (await self._view.head()).now
        for record in self._records.all():
            await attempt(f"job {record.job.hex()} waits", self._advance(record, now), TROUBLE)

    async def _with_relayer(self, name: object, what: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin it unless it still goes on. A relayer takes as long as it likes over every piece, and a round that
        waited for it would have a result, owed by then, miss the end of its grace."""
        if name in self._beside:
            return
        task = self._beside[name] = asyncio.create_task(attempt(what, work(), _RELAYERS))
        task.add_done_callback(lambda _: self._beside.pop(name, None))
        await asyncio.wait({task}, timeout=RELAYER_SECONDS)

    async def _discover(self, relay: JobRelay) -> None:
        try:
            entries = await relay.entries()
        except RelayTrouble as trouble:
            log.debug("%s", trouble)
            return
        for entry in entries:
            if self._records.get(entry.job) is None and len(self._records.all()) < MAX_JOBS:
                facts = (entry.job, entry.escrow, entry.index, entry.spec, entry.wraps)
                if await self._worth(entry.job, entry.keep_until):
                    await asyncio.to_thread(self._records.put, JobRecord(*facts, relay.origin, entry.keep_until))

    async def _worth(self, job: bytes, keep_until: int) -> bool:
        """Only what the chain shows, open and for us, is fetched: nobody fills this disk for nothing."""
        state, now = await self._view.job(job), (await self._view.head()).now
        if state is None or now > keep_until or (job, Step.FORGET) in self._told:
            return False
        open_ = state.acceptance is None and now < state.config.deadline
        return open_ and self._view.account in state.config.nodes

    async def _advance(self, record: JobRecord, now: int) -> None:
        state = await self._view.job(record.job)
        known = self._records.get(record.job)
        if known is None:
            return
        record = known  # its bytes move beside the rounds, and may have come meanwhile
        if state is not None and record.epoch != state.epoch:
            # What was signed for another life of its account is worth nothing in this one.
            stage = Stage.HELD if record.stage is Stage.SIGNED else record.stage
            record = await self._change(record, epoch=state.epoch, stage=stage) or record
        node = (await self._view.node()).state
        enclave = self._enclave()
        facts = Facts(
            self._view.account,
            None if enclave is None else enclave.key,
            state,
            now,
            self._policy.max_job_nano,
            record.job in self.enclave_jobs.running,
            record.amount_nano >= self._policy.collect_nano,
            takes_new=not node.unbond_at and not node.draining and (state is None or covered(state, node, now)),
        )
        step = next_step(record, facts)
        try:
            await self._do(step, record, state, enclave, now)
        except (EnclaveGone, EnclaveRefused, TimeoutError, ChainError) as error:
            log.warning("job %s waits at %s: %s", record.job.hex(), step.name.lower(), error)

    async def _do(
        self, step: Step, record: JobRecord, state: JobState | None, enclave: Enclave | None, now: int
    ) -> None:
        name = f"job {record.job.hex()}"
        match step:
            case Step.WAIT:
                return
            case Step.FETCH:
                await self._with_relayer(record.job, f"{name} waits for its input", partial(self._fetch, record))
            case Step.DELIVER:
                await self._with_relayer(record.job, f"{name} waits to be delivered", partial(self._deliver, record))
            case Step.FORGET:
                self._forget(record)
            case Step.LOST:
                self._tell(
                    record,
                    step,
                    "job %s was accepted and its result cannot be made or posted any more: its maximum is at stake",
                )
            case Step.OFFER if enclave is not None and state is not None:
                await self._offer(record, state, enclave)
            case Step.RUN if enclave is not None and state is not None:
                end = state.config.deadline + state.config.grace - POST_MARGIN_SECONDS
                # The chain's clock rules, and this machine's may be another.
                await self.enclave_jobs.start(record.job, int(time.time()) + end - now, enclave)
                log.info("job %s runs", record.job.hex())
            case Step.ACCEPT if self._accepts[record.job] >= MAX_ACCEPTS:
                self._tell(record, step, "job %s: the chain does not take the acceptance; it is not sent again")
            case Step.ACCEPT:
                body = accept_job(record.job, record.epoch, record.parsed.hash, record.key, record.acceptance)
                await self._send(record, step, Outgoing(self._view.account, MESSAGE_NANO, body))
            case Step.POST:
                body = job_posted(record.result, record.amount_nano, record.inner, record.signature)
                await self._send(record, step, Outgoing(record.job, MESSAGE_NANO, body))
            case Step.COLLECT:
                await self._send(record, step, Outgoing(record.job, COLLECT_NANO, finish_job()))

    # ---- steps

    async def _fetch(self, record: JobRecord) -> None:
        relay = self._relays.get(record.relayer)
        if relay is None:
            raise RelayTrouble(f"{record.relayer} is not configured any more")
        whole, size = False, record.parsed.size
        while not whole:
            at = await asyncio.to_thread(self._records.input_size, record.job)
            piece = await relay.input_piece(record.job, at) if at < size else b""
            if at < size and not piece:
                raise RelayTrouble(f"{record.relayer} has only {at} of {size} bytes")
            whole = await asyncio.to_thread(self._records.add_input, record.job, piece)
            if not whole and not await asyncio.to_thread(self._records.input_size, record.job):
                raise RelayTrouble(f"{record.relayer} sent another input than the job names")
        await self._change(record, stage=Stage.HELD)

    async def _offer(self, record: JobRecord, state: JobState, enclave: Enclave) -> None:
        try:
            signature = await self.enclave_jobs.open(record, state, enclave)
        except NotTaken as refused:
            if refused.code in _LATER:
                raise EnclaveRefused(str(refused)) from refused
            log.warning("job %s is not taken: %s", record.job.hex(), refused)
            self._forget(record)
            return
        await self._change(record, stage=Stage.SIGNED, key=enclave.key, acceptance=signature)

    async def _deliver(self, record: JobRecord) -> None:
        relay = self._relays.get(record.relayer)
        if relay is None:
            raise RelayTrouble(f"{record.relayer} is not configured any more")
        data = await asyncio.to_thread(self._records.result, record.job)
        await relay.put_result(record.job, data, record.result)
        await self._change(record, delivered=True)
        log.info("job %s: result delivered", record.job.hex())

    async def _send(self, record: JobRecord, step: Step, message: Outgoing) -> None:
        place = (record.job, step)
        if self._wallet is None or time.monotonic() - self._sent.get(place, -AGAIN_SECONDS) < AGAIN_SECONDS:
            return
        self._accepts[record.job] += step is Step.ACCEPT
        sent = await self._wallet.send(self._view.chain, [message])
        self._sent[place] = time.monotonic()
        await sent.landed(self._view.chain)
        log.info("job %s: %s sent", record.job.hex(), step.name.lower())

    def _forget(self, record: JobRecord) -> None:
        self._told.add((record.job, Step.FORGET))
        if (moving := self._beside.get(record.job)) is not None:
            moving.cancel()
        self._records.forget(record.job)
        self.enclave_jobs.drop(record.job)
        log.info("job %s is over here", record.job.hex())

    def _tell(self, record: JobRecord, step: Step, text: str) -> None:
        if (record.job, step) not in self._told:
            self._told.add((record.job, step))
            log.error(text, record.job.hex())

    async def _change(self, record: JobRecord, **changes: object) -> JobRecord | None:
        return await asyncio.to_thread(self._records.change, record.job, **changes)
