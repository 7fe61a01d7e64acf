"""Where nodes stand with their network's verifier, read from its state and remembered for a moment.

Revocations reach a node itself only when somebody sends `sync`; who serves or seals to a node looks here first.
"""

from __future__ import annotations

import asyncio
import time

from pytoniq_core import Cell

from attestation.evidence import Evidence, Kind
from attestation.onchain.facts import SERIAL_BITS, facts_of
from attestation.onchain.standing import standing, still_passes, words
from chain.api import Chain, ChainError, Status
from wrappers.cells import CellError
from wrappers.node import NodeState

MAX_AGE_SECONDS = 5.0
ON_CHAIN = (Kind.TDX, Kind.SIMULATED)
"""What the chain can judge by itself."""


def _passes(state: Cell, quote: bytes) -> bool:
    try:
        facts = facts_of(quote)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        # Nothing of the quote is verified yet, and its parsers raise many unrelated types: whoever sent one that breaks
        # them must not keep this reader from judging others.
        return False
    return facts.serial.bit_length() <= SERIAL_BITS and still_passes(state, facts)


class Standings:
    """`chain`: a quorum. All nodes of a network name one verifier: one account is read for all of them."""

    def __init__(self, chain: Chain, max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._chain = chain
        self._max_age = max_age_seconds
        self._read: dict[bytes, tuple[float, Cell | None]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def faults(self, account: bytes, node: NodeState, evidence: Evidence | None = None) -> tuple[str, ...]:
        """Why the node at `account` should not be served by its present key, one sentence each. Raises ChainError.

        With `evidence` its platform's certificate and TCB are also judged by the collateral that the chain holds, which
        may be newer than what the node presents.
        """
        if node.measurement is None or node.platform is None:
            return ()  # it has no verdict yet, which its state says
        state = await self._state(node.attestation)
        if state is None:
            return (f"the chain shows no verifier at {node.attestation.hex()}",)
        try:
            found = words(standing(state, account, node.measurement, node.platform))
            if evidence is not None and evidence.kind in ON_CHAIN and not _passes(state, evidence.quote):
                found += ("its evidence does not pass the collateral and the policy that the chain holds today",)
            return found
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
