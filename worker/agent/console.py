"""What the running agent does for its own operator, who asks through `worker.agent.control`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from worker.agent.claims import Claims, NoEnclave, NothingToClaim
from worker.agent.desk import Desk
from worker.agent.enclave_process import EnclaveGone, EnclaveRefused
from worker.agent.jobs import JobDesk
from worker.agent.keeper import TROUBLE, Keeper
from worker.agent.relayer_link import RelayerLink
from worker.agent.release_keys import KeyFileError

log = logging.getLogger(__name__)

ANSWERS_SECONDS = 90.0
"""What an enclave that is to be replaced gets for the answers that it began."""


@dataclass(frozen=True, slots=True)
class Console:
    keeper: Keeper
    desk: Desk
    jobs: JobDesk
    claims: Claims
    links: Sequence[RelayerLink]

    async def control(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """`ping`; `status`, `prices`: what only the running agent knows; `settle`: claim everything now; `rotate`.

        `release-key`: sign with the one that the chain shows. `notarise`: an escrow's latest receipt's hash.
        """
        match request.get("do"):
            case "ping":
                return {"running": True}
            case "status":
                return self._status()
            case "settle":
                return await self.settle()
            case "prices":
                enclave = self.keeper.enclave
                models = enclave.ready.models if enclave is not None else ()
                return {"prices": [{"name": one.name, "terms": one.terms.hex()} for one in models]}
            case "rotate":
                return await self._rotate()
            case "release-key":
                return await self._release_key()
            case "notarise":
                return await self._notarise(request.get("escrow"))
        return {"error": "unknown request; known are ping, status, prices, settle, rotate, release-key, notarise"}

    def _status(self) -> dict[str, Any]:
        enclave = self.keeper.enclave
        return {
            "running": True,
            "key": enclave.key.hex() if enclave is not None else None,
            "serving": self.keeper.ready.is_set(),
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

    async def _release_key(self) -> dict[str, Any]:
        try:
            return {"release_key": (await self.keeper.adopt_release_key()).hex()}
        except (*TROUBLE, KeyFileError) as error:
            return {"error": str(error)}

    async def _notarise(self, escrow: object) -> dict[str, Any]:
        enclave = self.keeper.enclave
        if enclave is None:
            return {"error": "no enclave runs; only the key that signed a receipt can notarise it"}
        accounts = await self.claims.journal.read(lambda store: store.accounts(all=True))
        mine = [one for one in accounts if one.key == enclave.key and one.escrow.hex() == escrow]
        if not mine:
            return {"error": "the running enclave has signed no receipt for this escrow"}
        newest = max(mine, key=lambda one: one.allotment_epoch)
        try:
            signed = await enclave.notarise(newest.allotment)
        except (EnclaveGone, EnclaveRefused, TimeoutError) as error:
            return {"error": str(error) or "the enclave does not answer"}
        return {
            "key": enclave.key.hex(),
            "seq": signed.seq,
            "hash": signed.hash.hex(),
            "signature": signed.signature.hex(),
        }

    async def _rotate(self) -> dict[str, Any]:
        """Ends the enclave when it has answered what it began. The next one, started at once, has a key of its own."""
        enclave = self.keeper.enclave
        if enclave is None:
            return {"error": "no enclave runs; the next one has a new key anyway"}
        self.desk.paused = True
        try:
            async with asyncio.timeout(ANSWERS_SECONDS):
                await self.desk.idle()
            # While the key can still sign: one batch is cheaper than a message for each receipt.
            settled = await self.settle()
            await enclave.stop()
        except TimeoutError:
            return {"error": f"{self.desk.in_flight} answers still run; `cocoon node drain` first, or try again"}
        finally:
            self.desk.paused = False
        return {"old_key": enclave.key.hex(), "settled": settled}

    async def settle(self) -> dict[str, Any]:
        """Claims everything that is owed: `batch`, number of single `receipts`, and `error` where it broke off."""
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
