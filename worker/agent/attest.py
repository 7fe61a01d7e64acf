"""From a new key to a live node: evidence over a fresh block, admission, and the key shown by the chain.

Until the chain verifies quotes by itself, an admission process does it off chain and the governor's message carries the
verdict. Collateral is public data that any verifier needs; it is sent along and trusted by nobody for coming from here.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from attestation.collateral import Collateral
from attestation.strict import Malformed
from chain.api import ChainError
from chain.wait import until
from worker.agent.enclave_process import Enclave
from worker.agent.view import ChainView

log = logging.getLogger(__name__)

POST_SECONDS = 120.0
SHOWN_SECONDS = 90.0
NEXT_BLOCK_SECONDS = 30.0
LOOK_SECONDS = 30.0
RENEW_SHARE = 4
"""The key is attested anew when less than this part (one quarter) of its term is left."""


class NotAdmitted(Exception):
    """The key was not admitted. In the words of who refused it, with the cure."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Where a key's evidence goes. `collateral_file` may be None only with simulated evidence."""

    view: ChainView
    url: str | None
    collateral_file: Path | None

    async def admit(self, enclave: Enclave) -> tuple[bytes, int]:
        """(JSON of evidence and collateral as offers carry it, attested_until), once the chain shows the key.

        Raises NotAdmitted, ChainError, NodeMissing, EnclaveRefused, EnclaveGone, WaitTimeout.
        """
        if self.url is None:
            raise NotAdmitted("no admission_url is configured; set it to this network's admission process")
        last = (await self.view.node(fresh=True)).state.block_seqno
        head = await until(
            lambda: self._newer(last), what="a block newer than the node's last", timeout_seconds=NEXT_BLOCK_SECONDS
        )
        evidence = await enclave.attest(head[0], head[1])
        collateral = await asyncio.to_thread(self._collateral, enclave.ready.simulated)
        document = {"evidence": json.loads(evidence), "collateral": json.loads(collateral)}
        await self._post(document)
        attested_until = await until(
            lambda: self._shown(enclave.key, head[0]),
            what="the node to show its new key",
            timeout_seconds=SHOWN_SECONDS,
        )
        return json.dumps(document).encode(), attested_until

    async def term(self, attested_until: int) -> None:
        """Returns when a key that is attested until then should be attested anew: by the chain's clock, which ends it.

        Looked at again and again: a machine that slept, or whose own clock is wrong, must not oversleep.
        """
        due = 0.0
        while True:
            try:
                now = (await self.view.head()).now
            except ChainError as error:
                log.warning("the chain's time cannot be read: %s", error)
            else:
                due = due or now + renew_after(now, attested_until)
                if now >= due:
                    return
            await asyncio.sleep(LOOK_SECONDS)

    async def _newer(self, last: int) -> tuple[int, bytes] | None:
        block = (await self.view.head()).block
        return (block.seqno, block.root_hash) if block.seqno > last else None

    async def _shown(self, key: bytes, block_seqno: int) -> int | None:
        state = (await self.view.node(fresh=True)).state
        return state.attested_until if state.signing_key == key and state.block_seqno >= block_seqno else None

    def _collateral(self, simulated: bool) -> str:
        if self.collateral_file is not None:
            try:
                return Collateral.from_json(self.collateral_file.read_text(encoding="utf-8")).to_json()
            except (OSError, Malformed) as error:
                raise NotAdmitted(f"collateral_file {self.collateral_file} is of no use: {error}") from error
        if not simulated:
            raise NotAdmitted(
                "collateral_file is not configured; fetch the collateral of this platform (dcap-qvl's JSON form) and "
                "name its file"
            )
        from attestation.simulated.collateral import mint  # the simulated hierarchy, only where it is asked for

        return mint(int(time.time())).to_json()

    async def _post(self, document: dict[str, Any]) -> None:
        timeout = aiohttp.ClientTimeout(total=POST_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(str(self.url), json=document) as response,
            ):
                answer = await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise NotAdmitted(
                f"{self.url} cannot be reached ({error or type(error).__name__}); is it running?"
            ) from error
        if not isinstance(answer, dict) or answer.get("admitted") is not True:
            said = answer if isinstance(answer, dict) else {}
            raise NotAdmitted(f"{self.url} refused: {said.get('cause', 'no reason given')}; {said.get('cure', '')}")


def renew_after(now: int, attested_until: int) -> float:
    """Seconds until the key should be attested anew."""
    return max(30.0, (attested_until - now) * (1 - 1 / RENEW_SHARE))
