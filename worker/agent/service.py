"""The agent: keeps an enclave running and attested, carries sealed requests to it, keeps its receipts, claims them.

It is not measured and need not be: it sees ciphertext, amounts and signatures, and can harm nobody but its operator.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.source import CollateralSource
from attestation.verifier import EvidenceRefused, NotAttested
from chain.api import Chain, ChainError
from chain.wait import WaitTimeout
from chain.wallet import Wallet
from worker.agent import enclave_process
from worker.agent.attest import Attesting
from worker.agent.claims import Claims, NoEnclave, NothingToClaim, Policy, SignedClaim
from worker.agent.config import AgentConfig
from worker.agent.desk import Desk
from worker.agent.direct import Direct
from worker.agent.direct_api import DirectApi
from worker.agent.duty import Duty
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.front import Front, offer_of, outgoing
from worker.agent.job_records import JobRecords
from worker.agent.job_relay import JobRelay, http_origin
from worker.agent.jobs import JobDesk, JobPolicy
from worker.agent.journal import Journal
from worker.agent.relayer_link import NodeIdentity, RelayerLink
from worker.agent.releases import KeyFileError, Releases, public_bytes
from worker.agent.store import StoreError
from worker.agent.view import ChainView, NodeMissing
from worker.messages import Introduce
from wrappers.signed import node_id

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
REFUSED_SECONDS = (60.0, 600.0, 3600.0, 14_400.0)
"""After the chain judged and refused: each try costs gas, and nobody may be looking."""
FORGET_SECONDS = 3600.0
ANSWERS_SECONDS = 90.0
"""What an enclave that is to be replaced gets for the answers that it began."""
TROUBLE = (StoreError, ChainError, NodeMissing, NotAttested, EnclaveRefused, WaitTimeout, TimeoutError)


class Service:
    """One node's agent. `chain` is a quorum; `wallet` may be None."""

    def __init__(
        self,
        config: AgentConfig,
        chain: Chain,
        network: bytes,
        node: bytes,
        release_key: Ed25519PrivateKey,
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
        )
        policy = Policy(config.claim_amount_nano, config.claim_age_seconds, config.receipt_claim_nano)
        self.claims = Claims(self.journal, self.view, policy, wallet, lambda: self.enclave, self._announce)
        self.releases = Releases(self.journal, self.view, self.desk, release_key, self._claim_soon)
        url = config.collateral_url
        source = CollateralSource(url, config.data_dir / "collateral") if url else None
        self.attesting = Attesting(
            self.view, wallet, release_key, config.collateral_file, source, config.gpu_manifests, config.committee
        )
        self._duty: Duty | None = None
        if config.committee is not None and wallet is not None:
            self._duty = Duty(self.view, config.committee, wallet, lambda: self.enclave)
        self.enclave: Enclave | None = None
        self.ready = asyncio.Event()
        """Set while the chain shows the running enclave's key."""
        self._ran = False
        """Whether an enclave ever came up."""
        self._evidence: bytes | None = None
        self._release_key = release_key
        self._node_epoch = 0
        self._work = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        identity = NodeIdentity(network, node, config.max_in_flight)
        front = Front(self._offer, self.desk, self.journal, self.claims, self.releases)
        self.links = tuple(RelayerLink(url, identity, release_key, front) for url in config.relayers)
        relays = [
            JobRelay(http_origin(url), network=network, node=node, release_key=release_key) for url in config.relayers
        ]
        self.jobs = JobDesk(
            JobRecords(config.data_dir / "jobs"),
            self.view,
            wallet,
            relays,
            JobPolicy(config.max_job_nano, config.receipt_claim_nano),
            lambda: self.enclave if self.ready.is_set() else None,
        )
        self.direct = None if config.direct is None else Direct(config.direct, DirectApi(front, self.view))

    async def run(self) -> None:
        """Until cancelled. Raises KeyFileError, StoreError before anything started, EnclaveGone where none ever ran."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._enclaves())
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
            for job in self._jobs:
                job.cancel()
            await asyncio.gather(*self._jobs, return_exceptions=True)
            if self.enclave is not None:
                self.desk.enclave_gone()
                await self.enclave.stop()
            await self.desk.close()
            await self.journal.close()

    # ---- the enclave's life

    async def _enclaves(self) -> None:
        attempt = 0
        while True:
            started = time.monotonic()
            try:
                await self._one_enclave()
            except EnclaveGone as error:
                if not self._ran:
                    raise  # it is set up wrongly: trying again would only hide why
                log.error("%s", error)
            except (ChainError, NodeMissing, OSError) as error:
                log.error("%s", error)
            attempt = 0 if time.monotonic() - started > RETRY_SECONDS[-1] else attempt + 1
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])

    async def _one_enclave(self) -> None:
        """One enclave from start to death; always ends with an error."""
        state = (await self.view.node(fresh=True)).state
        if state.release_key != public_bytes(self._release_key):
            raise KeyFileError(
                f"{self.config.release_key} is not the release key that node {self.view.account.hex()} was opened with;"
                " restore that file"
            )
        if state.node_id != node_id(self.view.network, self.view.account, state.epoch):
            # Whatever would be signed under our idea of the node's id, the chain would not pay.
            raise NodeMissing("the node's id on chain is not the one that receipts name; use a release of this network")
        enclave = await enclave_process.start(
            self.config.enclave_command,
            self.config.enclave_config,
            self.config.data_dir / "enclave.log",
            start_seconds=self.config.enclave_start_seconds,
            on_answer=self.desk.on_answer,
            on_issued=self.desk.on_issued,
            on_sealing=self._offer_changed,
            on_job=self.jobs.on_message,
        )
        self._ran = True
        log.info("enclave %d runs with key %s", enclave.pid, enclave.key.hex())
        self.enclave, self._node_epoch = enclave, state.epoch
        enclave.introduce(Introduce(self.view.network, self.view.account, state.epoch, state.tokens))
        attesting = asyncio.create_task(self._keep_attested(enclave))
        try:
            self.desk.enclave_came(enclave)
            await enclave.serve()
        finally:
            attesting.cancel()
            await asyncio.gather(attesting, return_exceptions=True)
            self.ready.clear()
            self.enclave = self._evidence = None
            self.desk.enclave_gone()
            self.jobs.enclave_gone()
            if self.direct is not None:
                self.direct.gone()
            self._offer_changed()
            await enclave.stop()

    async def _keep_attested(self, enclave: Enclave) -> None:
        attempt = refused = 0
        while True:
            try:
                evidence, attested_until = await self.attesting.attest(enclave)
            except EnclaveGone:
                return
            except TROUBLE as error:
                log.warning("the node's key is not attested: %s", error)
                if isinstance(error, EvidenceRefused):
                    pause = REFUSED_SECONDS[min(refused, len(REFUSED_SECONDS) - 1)]
                    refused += 1
                else:
                    pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                    attempt += 1
            else:
                attempt = refused = 0
                self._evidence = evidence
                if self.direct is not None:
                    self.direct.admitted(enclave, evidence)
                self.ready.set()
                log.info("the chain shows key %s, attested until %d", enclave.key.hex(), attested_until)
                self._offer_changed()
                # What an earlier key signed is retired now and can be claimed singly.
                self._work.set()
                await self.attesting.term(attested_until)
                continue
            await asyncio.sleep(pause)

    def _offer(self) -> dict[str, Any] | None:
        if self.enclave is None or self._evidence is None or not self.enclave.sealing:
            return None
        return offer_of(self.view, self.enclave, self._node_epoch, self._evidence)

    # ---- what the operator asks

    async def control(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`ping`; `status`, `prices`: what only the running agent knows; `settle`: claim everything now; `rotate`."""
        match request.get("do"):
            case "ping":
                return {"running": True}
            case "status":
                return {
                    "running": True,
                    "key": self.enclave.key.hex() if self.enclave is not None else None,
                    "serving": self.ready.is_set(),
                    "in_flight": self.desk.in_flight,
                    "jobs": self.jobs.stages,
                    "relayers": [
                        {
                            "url": link.origin,
                            "connected": link.connected,
                            "problem": link.problem.to_json() if link.problem is not None else None,
                        }
                        for link in self.links
                    ],
                }
            case "settle":
                return await self._settle()
            case "prices":
                models = self.enclave.ready.models if self.enclave is not None else ()
                return {"prices": [{"name": one.name, "terms": one.terms.hex()} for one in models]}
            case "rotate":
                return await self._rotate()
        return {"error": "unknown request; known are ping, status, prices, settle, rotate"}

    async def _rotate(self) -> dict[str, Any]:
        """Ends the enclave when it has answered what it began. The next one, started at once, has a key of its own."""
        enclave = self.enclave
        if enclave is None:
            return {"error": "no enclave runs; the next one has a new key anyway"}
        self.desk.paused = True
        try:
            async with asyncio.timeout(ANSWERS_SECONDS):
                await self.desk.idle()
            # While the key can still sign: one batch is cheaper than a message for each receipt.
            settled = await self._settle()
            await enclave.stop()
        except TimeoutError:
            return {"error": f"{self.desk.in_flight} answers still run; `cocoon node drain` first, or try again"}
        finally:
            self.desk.paused = False
        return {"old_key": enclave.key.hex(), "settled": settled}

    async def _settle(self) -> dict[str, Any]:
        result: dict[str, Any] = {"batch": None, "receipts": 0}
        try:
            claim = await self.claims.batch()
            result["batch"] = {"seqno": claim.seqno, "escrows": len(claim.entries)}
        except (NothingToClaim, NoEnclave):
            log.debug("no batch to claim")
        except (*TROUBLE, EnclaveGone) as error:
            return {**result, "error": str(error)}
        try:
            result["receipts"] = await self.claims.claim_receipts()
        except TROUBLE as error:
            result["error"] = str(error)
        return result

    # ---- what happens by itself

    async def _claiming(self) -> None:
        while True:
            try:
                await self.claims.step()
            except (*TROUBLE, EnclaveGone) as error:
                log.warning("claiming waits: %s", error)
            self._work.clear()
            try:
                async with asyncio.timeout(self.config.poll_seconds):
                    await self._work.wait()
            except TimeoutError:
                continue

    async def _claim_soon(self) -> None:
        self._spawn(self._settle_quietly())

    async def _settle_quietly(self) -> None:
        result = await self._settle()
        if "error" in result:
            log.warning("claiming for a release failed: %s", result["error"])

    def _spawn(self, work: Awaitable[None]) -> None:
        job = asyncio.ensure_future(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _forgetting(self) -> None:
        while True:
            try:
                await self.desk.forget_old_answers()
            except StoreError as error:
                log.warning("old answers are kept: %s", error)
            await asyncio.sleep(FORGET_SECONDS)

    def _offer_changed(self) -> None:
        for link in self.links:
            link.offer_changed()

    def _announce(self, claim: SignedClaim) -> None:
        for link in self.links:
            link.push_claim(outgoing(claim))
