"""Keeps one enclave running, its key attested and its offer made: a dead one is followed by another, with a new key."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from attestation.verifier import EvidenceRefused, NotAttested
from chain.api import ChainError
from chain.wait import WaitTimeout
from worker.agent import enclave_start
from worker.agent.attest import Attesting
from worker.agent.config import AgentConfig
from worker.agent.desk import Desk
from worker.agent.direct import Direct
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.front import offer_of
from worker.agent.job_enclave import EnclaveJobs
from worker.agent.release_keys import KeyFileError, ReleaseKeys
from worker.agent.rounds import tell
from worker.agent.store import StoreError
from worker.agent.view import ChainView, NodeMissing
from worker.messages import Introduce
from wrappers.signed import node_id

log = logging.getLogger(__name__)

RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
REFUSED_SECONDS = (60.0, 600.0, 3600.0, 14_400.0)
"""After the chain judged and refused: each try costs gas, and nobody may be looking."""
TROUBLE = (StoreError, ChainError, NodeMissing, NotAttested, EnclaveRefused, WaitTimeout, TimeoutError)


class Keeper:
    """`offer_changed`: relayers should hear of it. `admitted`: the chain shows a new key, or a new term of the same."""

    def __init__(
        self,
        config: AgentConfig,
        view: ChainView,
        keys: ReleaseKeys,
        attesting: Attesting,
        desk: Desk,
        *,
        offer_changed: Callable[[], None],
        admitted: Callable[[], None],
    ) -> None:
        self.enclave: Enclave | None = None
        self.ready = asyncio.Event()
        """Set while the chain shows the running enclave's key."""
        self._config = config
        self._view = view
        self._keys = keys
        self._attesting = attesting
        self._desk = desk
        self._offer_changed = offer_changed
        self._admitted = admitted
        self._ran = False
        """Whether an enclave ever came up."""
        self._evidence: bytes | None = None
        self._node_epoch = 0

    def serving(self) -> Enclave | None:
        """The enclave whose key the chain shows as attested."""
        return self.enclave if self.ready.is_set() else None

    def offer(self) -> dict[str, Any] | None:
        """The NodeOffer as JSON; None while there is nothing to offer."""
        if self.enclave is None or self._evidence is None or not self.enclave.sealing:
            return None
        return offer_of(self._view, self.enclave, self._node_epoch, self._evidence)

    async def adopt_release_key(self) -> bytes:
        """The release key on chain; this agent signs with it now. Raises KeyFileError, NodeMissing, ChainError."""
        state = (await self._view.node(fresh=True)).state
        if not await asyncio.to_thread(self._keys.adopt, state.release_key):
            raise KeyFileError(f"{self._config.release_key} is not the node's release key, nor is its `.next` file")
        return state.release_key

    async def run(self, jobs: EnclaveJobs, direct: Direct | None) -> None:
        """Until cancelled. Raises KeyFileError, EnclaveGone where none ever ran: trying again would only hide why."""
        attempt = 0
        while True:
            started = time.monotonic()
            try:
                await self._one(jobs, direct)
            except (EnclaveGone, KeyFileError) as error:
                if not self._ran:
                    raise
                log.error("%s", error)
            except (ChainError, NodeMissing, OSError) as error:
                log.error("%s", error)
            except Exception as error:
                tell("the enclave is started anew", error, ())
            attempt = 0 if time.monotonic() - started > RETRY_SECONDS[-1] else attempt + 1
            await asyncio.sleep(RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)])

    async def _one(self, jobs: EnclaveJobs, direct: Direct | None) -> None:
        """One enclave from start to death; always ends with an error."""
        epoch, tokens = await self._node()
        enclave = await enclave_start.start(
            self._config.enclave_command,
            self._config.enclave_config,
            self._config.data_dir / "enclave.log",
            start_seconds=self._config.enclave_start_seconds,
            on_answer=self._desk.on_answer,
            on_issued=self._desk.on_issued,
            on_sealing=self._offer_changed,
            on_job=jobs.on_message,
        )
        self._ran = True
        log.info("enclave %d runs with key %s", enclave.pid, enclave.key.hex())
        self.enclave, self._node_epoch = enclave, epoch
        enclave.introduce(Introduce(self._view.network, self._view.account, epoch, tokens))
        attesting = asyncio.create_task(self._keep_attested(enclave, direct))
        try:
            self._desk.enclave_came(enclave)
            await enclave.serve()
        finally:
            attesting.cancel()
            await asyncio.gather(attesting, return_exceptions=True)
            self.ready.clear()
            self.enclave = self._evidence = None
            self._desk.enclave_gone()
            jobs.enclave_gone()
            if direct is not None:
                direct.gone()
            self._offer_changed()
            await enclave.stop()

    async def _node(self) -> tuple[int, int]:
        """(epoch, tokens) of the node that the enclave is to serve. Raises KeyFileError, NodeMissing, ChainError."""
        state = (await self._view.node(fresh=True)).state
        if not await asyncio.to_thread(self._keys.adopt, state.release_key):
            raise KeyFileError(
                f"{self._config.release_key} is not the release key of node {self._view.account.hex()};"
                " restore that file"
            )
        if state.node_id != node_id(self._view.network, self._view.account, state.epoch):
            # Whatever would be signed under our idea of the node's id, the chain would not pay.
            raise NodeMissing("the node's id on chain is not the one that receipts name; use a release of this network")
        return state.epoch, state.tokens

    async def _keep_attested(self, enclave: Enclave, direct: Direct | None) -> None:
        attempt = refused = 0
        while True:
            try:
                evidence, attested_until = await self._attesting.attest(enclave)
            except EnclaveGone:
                return
            except Exception as error:
                tell("the node's key is not attested", error, TROUBLE)
                if isinstance(error, EvidenceRefused):
                    pause = REFUSED_SECONDS[min(refused, len(REFUSED_SECONDS) - 1)]
                    refused += 1
                else:
                    pause = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
                    attempt += 1
                await asyncio.sleep(pause)
                continue
            attempt = refused = 0
            self._evidence = evidence
            if direct is not None:
                direct.admitted(enclave, evidence)
            self.ready.set()
            log.info("the chain shows key %s, attested until %d", enclave.key.hex(), attested_until)
            self._offer_changed()
            self._admitted()
            await self._attesting.term(attested_until)
