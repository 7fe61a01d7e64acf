"""Where nodes stand with their network's verifier, read from its state and remembered for a moment.

Revocations reach a node itself only when somebody sends `sync`; who serves or seals to a node looks here first.
"""

from __future__ import annotations

import asyncio
import time

from pytoniq_core import Cell

from attestation.onchain.standing import standing, words
from chain.api import Chain, ChainError, Status
from wrappers.cells import CellError
from wrappers.node import NodeState

MAX_AGE_SECONDS = 5.0


class Standings:
    """`chain`: a quorum. All nodes of a network name one verifier: one account is read for all of them."""

    def __init__(self, chain: Chain, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._chain = chain
        self._max_age = max_age_seconds
        self._read: dict[bytes, tuple[float, Cell | None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def faults(self, account: bytes, node: NodeState) -> tuple[str, ...]:
        """Why the node at `account` should not be served by its present key, one sentence each. Raises ChainError."""
        if node.measurement is None or node.platform is None:
            return ()  # it has no verdict yet, which its state says
        state = await self._state(node.attestation)
        if state is None:
            return (f"the chain shows no verifier at {node.attestation.hex()}",)
        try:
            return words(standing(state, account, node.measurement, node.platform))
        except CellError as error:
            raise ChainError(
                f"the verifier {node.attestation.hex()} cannot be read: {error}; use a release of this network"
            ) from error

    async def _state(self, verifier: bytes) -> Cell | None:
        async with self._one_at_a_time:
            known = self._read.get(verifier)
            if known is not None and time.monotonic() - known[0] < self._max_age:
                return known[1]
            found = await self._chain.account(verifier)
            state = found.data if found.status is Status.ACTIVE else None
            # One verifier per network; a node that names another was not born here, which is checked before.
            self._read = {verifier: (time.monotonic(), state)}
            return state
