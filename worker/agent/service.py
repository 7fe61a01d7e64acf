"""The agent: keeps an enclave running and attested, carries sealed requests to it, keeps its receipts, claims them.

It is not measured and need not be: it sees ciphertext, amounts and signatures, and can harm nobody but its operator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from attestation.source import CollateralSource
from chain.api import Chain
from chain.wallet import Wallet
from worker.agent.attest import Attesting
from worker.agent.claims import Claims, Policy, SignedClaim
from worker.agent.config import AgentConfig
from worker.agent.console import Console
from worker.agent.desk import Desk
from worker.agent.direct import Direct
from worker.agent.direct_api import DirectApi
from worker.agent.duty import Duty
from worker.agent.enclave_process import EnclaveGone
from worker.agent.front import Front, outgoing
from worker.agent.job_records import JobRecords
from worker.agent.job_relay import JobRelay, http_origin
from worker.agent.jobs import JobDesk, JobPolicy
from worker.agent.journal import Journal
from worker.agent.keeper import TROUBLE, Keeper
from worker.agent.relayer_link import NodeIdentity, RelayerLink
from worker.agent.release_keys import ReleaseKeys
from worker.agent.releases import Releases
from worker.agent.rounds import attempt, every, over_and_over, tell
from worker.agent.store import StoreError
from worker.agent.view import ChainView

log = logging.getLogger(__name__)

FORGET_SECONDS = 3600.0


class Service:
    """One node's agent. `chain` is a quorum; `wallet` may be None."""

    def __init__(
        self,
        config: AgentConfig,
        chain: Chain,
        network: bytes,
        node: bytes,
        keys: ReleaseKeys,
        wallet: Wallet | None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config = config
        self.view = ChainView(chain, config.registry, node, network, config.poll_seconds)
        self.journal = Journal.open(config.store)
        self.desk = Desk(
            self.journal,
            self.view,
            max_in_flight=config.max_in_flight,
            min_close_timer=config.min_close_timer_seconds,
            clock=clock,
            max_share=config.max_share,
        )
        url = config.collateral_url
        source = CollateralSource(url, config.data_dir / "collateral") if url else None
        attesting = Attesting(
            self.view, wallet, keys, config.collateral_file, source, config.gpu_manifests, config.committee
        )
        self._work = asyncio.Event()
        self._spawned: set[asyncio.Task[None]] = set()
        # What an earlier key signed is retired when a new one is admitted, and can be claimed singly then.
        self.keeper = Keeper(
            config,
            self.view,
            keys,
            attesting,
            self.desk,
            offer_changed=self._offer_changed,
            admitted=self._work.set,
        )
        policy = Policy(config.claim_amount_nano, config.claim_age_seconds, config.receipt_claim_nano)
        self.claims = Claims(self.journal, self.view, policy, wallet, lambda: self.keeper.enclave, self._announce)
        self.releases = Releases(self.journal, self.view, self.desk, keys, self._claim_soon)
        self._duty: Duty | None = None
        if config.committee is not None and wallet is not None:
            self._duty = Duty(self.view, config.committee, wallet, lambda: self.keeper.enclave)
        identity = NodeIdentity(network, node, config.max_in_flight)
        front = Front(self.keeper.offer, self.desk, self.journal, self.claims, self.releases)
        self.links = tuple(RelayerLink(url, identity, keys, front) for url in config.relayers)
        relays = [JobRelay(http_origin(url), network=network, node=node, signer=keys) for url in config.relayers]
        self.jobs = JobDesk(
            JobRecords(config.data_dir / "jobs"),
            self.view,
            wallet,
            relays,
            JobPolicy(config.max_job_nano, config.receipt_claim_nano),
            self.keeper.serving,
        )
        self.direct = None if config.direct is None else Direct(config.direct, DirectApi(front, self.view))
        self.console = Console(self.keeper, self.desk, self.jobs, self.claims, self.links)

    async def run(self) -> None:
        """Until cancelled.

        Raises KeyFileError, EnclaveGone where no enclave ever ran; OSError where `[direct]` cannot listen.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.keeper.run(self.jobs.enclave_jobs, self.direct))
                tasks.create_task(self._claiming())
                tasks.create_task(self._forgetting())
                tasks.create_task(self.jobs.run(self.config.poll_seconds))
                for link in self.links:
                    tasks.create_task(link.run())
                if self.direct is not None:
                    tasks.create_task(self.direct.run())
                if self._duty is not None:
                    tasks.create_task(self._duty.run())
        except ExceptionGroup as group:
            raise group.exceptions[0] from group
        finally:
            for task in self._spawned:
                task.cancel()
            await asyncio.gather(*self._spawned, return_exceptions=True)
            if self.keeper.enclave is not None:
                self.desk.enclave_gone()
                await self.keeper.enclave.stop()
            await self.desk.close()
            await self.journal.close()

    # ---- what happens by itself

    async def _claiming(self) -> None:
        async def pause() -> None:
            self._work.clear()
            try:
                async with asyncio.timeout(self.config.poll_seconds):
                    await self._work.wait()
            except TimeoutError:
                return

        await over_and_over("claiming waits", self.claims.step, (*TROUBLE, EnclaveGone), pause)

    async def _forgetting(self) -> None:
        forget, pause = self.desk.forget_old_answers, every(FORGET_SECONDS)
        await over_and_over("old answers are kept", forget, (StoreError,), pause)

    async def _claim_soon(self) -> None:
        self._spawn(self._settle_quietly())

    async def _settle_quietly(self) -> None:
        result = await self.console.settle()
        if "error" in result:
            log.warning("claiming for a release failed: %s", result["error"])

    def _spawn(self, work: Awaitable[None]) -> None:
        async def guarded() -> None:
            await attempt("claiming for a release failed", work, ())

        task = asyncio.ensure_future(guarded())
        self._spawned.add(task)
        task.add_done_callback(self._spawned.discard)

    def _offer_changed(self) -> None:
        for link in self.links:
            try:
                link.offer_changed()
            except Exception as error:
                # The enclave's life does not hang on what one relayer hears.
                tell(f"relayer {link.origin} does not hear of the offer", error, ())

    def _announce(self, claim: SignedClaim) -> None:
        for link in self.links:
            link.push_claim(outgoing(claim))
