"""Batch jobs from the client's side: seal once for several nodes, order on chain, fetch, check, pay.

A job pays from what is not allotted. Nothing here trusts the relayer or the node that ran it: the result must hash to
what the chain shows, and its price must follow from the usage that the enclave sealed with it.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.api import ChainError
from chain.outgoing import Outgoing
from client.chain_view import ChainView
from client.errors import BadRequest, PaymentFailed, RelayerRefused, RelayerUnreachable, TooExpensive
from client.home import Home
from client.job_link import JobLink
from client.job_plan import Times, plan
from client.job_records import JobRecord, JobRecords, Made, packed, packed_outcome
from client.job_results import Fetched, Results
from client.job_view import JobView, view_of
from client.money import Money
from client.payments import MARGIN_NANO, Paid, Payments, fees
from client.relayer_link import RelayerLink
from client.store import Store
from client.trust import NetworkFacts, TrustedNode
from protocol.jobs import JobInput, seal_job
from wrappers import escrow_rare
from wrappers import job as messages
from wrappers.addresses import Kind, child_address
from wrappers.cells import to_boc
from wrappers.code import Contract, code_hash, rare_program
from wrappers.escrow import EscrowState
from wrappers.job import JobConfig, JobState
from wrappers.signed import Delivery, job_id, sign

SHOWN_SECONDS = 60.0
AFTER_SECONDS = 3 * 86_400
"""How long after its last possible end the relayer is asked to keep a job's ciphertexts."""


class Jobs:
    """Raises ClientErrors."""

    def __init__(
        self,
        home: Home,
        store: Store,
        view: ChainView,
        money: Money,
        payments: Payments,
        link: RelayerLink,
        network: NetworkFacts,
        node: Callable[[bytes], Awaitable[TrustedNode]],
        max_request_nano: int | None,
    ) -> None:
        """`node` judges a node anew: a job sealed to a key that is gone would wait for nobody until its deadline.

        `max_request_nano`: what a job may cost that comes without a maximum of its own; None: whatever its terms say.
        """
        self._home = home
        self._store = store
        self._view = view
        self._money = money
        self._payments = payments
        self._link = link
        self._network = network
        self._node = node
        self._max_request_nano = max_request_nano
        self._records = JobRecords(home.path)
        self._over: set[bytes] = set()

    async def submit(
        self, data: bytes, nodes: Sequence[bytes], *, maximum_nano: int | None = None, times: Times | None = None
    ) -> JobView:
        """Check, seal, leave at the relayer, order. `data`: JSONL in OpenAI's batch form."""
        times = times or Times()
        times.check()
        trusted = [await self._node(node) for node in dict.fromkeys(nodes)]
        # A node may ask other prices today than when it was chosen: a job is bounded as a request is.
        planned = plan(data, trusted, self._max_request_nano if maximum_nano is None else maximum_nano)
        known, state = await self._money.escrow()
        if state.closing:
            raise BadRequest("the escrow is closing", "wait for its end, then open a new one")
        _check_free(planned.maximum_nano, state)
        now = (await self._view.head()).now
        index = secrets.randbits(32)  # never used before, also after a loss of this home
        job = child_address(self._network.registry, Kind.JOB, known.account, index)
        secret, delivery_key = secrets.token_bytes(32), Ed25519PrivateKey.generate()
        terms = planned.model.terms
        sealed = seal_job(
            JobInput(secret, planned.maximum_nano, terms, planned.body),
            lines=len(planned.asked),
            network=self._network.network_id,
            job=job,
            nodes={node.account: node.sealing_key.public_key for node in trusted},
        )
        deadline = now + times.deadline
        config = JobConfig(
            sealed.spec.hash,
            delivery_key.public_key().public_bytes_raw(),
            planned.maximum_nano,
            deadline,
            times.grace,
            times.delivery_window,
            frozenset(node.account for node in trusted),
        )
        record = JobRecord(
            job,
            known.number,
            known.account,
            index,
            Made.SEALED,
            to_boc(config.to_cell()),
            to_boc(sealed.spec.to_cell()),
            sealed.wraps,
            packed(terms),
            secret,
            delivery_key.private_bytes_raw(),
            planned.model.name,
            planned.asked,
            any(node.simulated for node in trusted),
            deadline + times.grace + times.delivery_window + AFTER_SECONDS,
        )
        self._records.put_input(job, sealed.ciphertext)
        self._records.put(record)
        return await self.resume(job)

    async def resume(self, job: bytes) -> JobView:
        """Go on with a submission that broke off. Ordering twice is harmless: the second order's money comes back."""
        record = self._records.get(job)
        if record.made is not Made.SEALED:
            return await self.status(job)
        if await self._view.job(job) is None:
            config = record.job_config
            if config.deadline <= (await self._view.head()).now:
                raise BadRequest(f"the deadline of job {job.hex()} is over and it was never ordered", "submit it anew")
            await self._linked(record).leave(record.entry, self._records.input(job))
            await self._order(record, config)
        state = await self._shown(job)
        self._records.put(replace(record, made=Made.ORDERED, epoch=state.epoch))
        self._records.drop_input(job)
        return await self.status(job)

    async def _order(self, record: JobRecord, config: JobConfig) -> None:
        await self._payments.finish_open()
        if await self._view.job(record.job) is not None:
            return
        registry = await self._view.registry()
        expected = code_hash(Contract.JOB)
        if registry.settings.job_code.hash != expected:
            raise PaymentFailed("the registry opens jobs with other code than this release knows", "update cocoon")
        need, cell = fees(registry.parameters), config.to_cell()
        _, state = await self._money.escrow()
        maximum = config.maximum_nano
        _check_free(maximum, state)
        # What the job needs beside its maximum comes from the wallet, and what is left goes to the escrow in the end.
        value = need.order_job(cell) + need.open_job(cell, maximum) - maximum + MARGIN_NANO
        body = escrow_rare.order_job(maximum, expected, record.index, cell)
        await self._pay("order", Outgoing(record.escrow, value, body))

    async def _shown(self, job: bytes) -> JobState:
        deadline = time.monotonic() + SHOWN_SECONDS
        while (state := await self._view.job(job)) is None:
            if time.monotonic() > deadline:
                raise PaymentFailed(
                    f"the chain shows no job {job.hex()}: if the registry refused it, the money is in the escrow again",
                    "look at `cocoon client balance`, then run `cocoon client recover`, which tries again",
                )
            await asyncio.sleep(0.5)
        return state

    def all(self) -> list[bytes]:
        """Newest first."""
        return [record.job for record in self._records.all()]

    async def status(self, job: bytes) -> JobView:
        record, state = await self._seen(job)
        return view_of(record, state, (await self._view.head()).now)

    async def refundable(self) -> list[bytes]:
        """Jobs that nobody accepted, or delivered, in time, and that still hold their money."""
        found, now = [], (await self._view.head()).now
        for record in self._records.readable():
            # A job whose deadline is over and that the chain does not show has ended, or can never be born.
            if record.job in self._over or record.seen is not None or now <= record.job_config.deadline:
                continue
            state = await self._view.job(record.job)
            if state is None:
                self._over.add(record.job)
            elif state.refundable_at is not None and now >= state.refundable_at:
                found.append(record.job)
        return found

    async def _seen(self, job: bytes) -> tuple[JobRecord, JobState | None]:
        """The record, with what the chain shows kept in it: after the job's end the chain shows nothing more."""
        record, state = self._records.get(job), await self._view.job(job)
        if state is not None:
            node = b"" if state.acceptance is None else state.acceptance.node
            outcome = b"" if state.outcome is None else packed_outcome(state.outcome)
            fresh = replace(record, epoch=state.epoch, node=node, outcome=outcome)
            if fresh != record:
                record = self._records.put(fresh)
        return record, state

    async def fetch(self, job: bytes, keep: Callable[[bytes], None] = lambda answers: None) -> Fetched:
        """The answers, opened and checked; then the node is paid at once. Safe to repeat.

        `keep` is given the JSONL before the payment: what it raises leaves the node unpaid.
        """
        record, state = await self._seen(job)
        if state is not None and state.outcome is None:
            raise BadRequest(f"job {job.hex()} has no result yet", "see `cocoon client job status`")
        id_ = job_id(self._network.network_id, job, record.epoch, record.parsed.hash)
        results = Results(self._linked(record), self._store, record, id_)
        if state is not None:
            result, answers = await results.opened(record.node, state.acceptance.key if state.acceptance else b"")
        else:
            result, answers = await results.left()
        outcome = record.seen
        await asyncio.to_thread(keep, result.answers)
        paid = await self._deliver(record, state, id_)
        self._records.put(replace(record, made=Made.FETCHED))
        return Fetched(job, answers, result, None if outcome is None else outcome.amount_nano, paid)

    async def _deliver(self, record: JobRecord, state: JobState | None, id_: bytes) -> bool:
        if state is None or state.outcome is None:
            return False
        key = Ed25519PrivateKey.from_private_bytes(record.delivery_key)
        body = messages.deliver(sign(Delivery(id_, state.outcome.result), key))
        need = fees((await self._view.registry()).parameters).finish_job()
        await self._pay("deliver", Outgoing(record.job, need + MARGIN_NANO, body))
        return True

    async def refund(self, job: bytes) -> Paid:
        """Everything back to the escrow, once nobody accepted or delivered in time; who accepted is slashed."""
        _, state = await self._seen(job)
        if state is None:
            raise BadRequest(f"the chain shows no job {job.hex()}: it ended, or was never ordered", "nothing is due")
        due, now = state.refundable_at, (await self._view.head()).now
        if due is None:
            raise BadRequest(f"job {job.hex()} has a result", "fetch it with `cocoon client job fetch`")
        if now < due:
            raise BadRequest(f"job {job.hex()} may be refunded at {due} (unix seconds), it is {now} now", "wait")
        program = None
        if state.acceptance is not None:
            program = rare_program(Contract.NODE)
            if program.hash != state.acceptance.program:
                raise PaymentFailed("the node runs another release's program", "refund with that release of cocoon")
        value = fees((await self._view.registry()).parameters).refund(program) + MARGIN_NANO
        return await self._pay("refund", Outgoing(job, value, messages.refund(program)))

    def _linked(self, record: JobRecord) -> JobLink:
        key = self._home.known_voucher_key(record.number)
        return JobLink(self._link, self._network.network_id, record.escrow, key)

    async def recover(self) -> list[tuple[bytes, str]]:
        """Submissions that broke off, gone on with; what is wrong with those that cannot be."""
        found = []
        for record in self._records.all():
            if record.made is Made.SEALED:
                try:
                    found.append((record.job, (await self.resume(record.job)).phase))
                except (BadRequest, PaymentFailed, RelayerRefused, RelayerUnreachable, TooExpensive) as error:
                    found.append((record.job, str(error)))
        return found

    async def _pay(self, kind: str, message: Outgoing) -> Paid:
        try:
            return await self._payments.pay(kind, message)
        except ChainError as error:
            raise PaymentFailed(f"{kind}: {error}", "mend the cause and do it again; nothing is paid twice") from error


def _check_free(maximum_nano: int, state: EscrowState) -> None:
    """A job is paid from what is not allotted; the wallet gives nothing but gas and rent. Raises TooExpensive."""
    if maximum_nano > state.free_nano:
        raise TooExpensive(
            f"the job may cost {maximum_nano} nanoTON, and {state.free_nano} of the deposit are not allotted",
            "run `cocoon client topup TON`, set lower max_tokens, or split the job",
        )
