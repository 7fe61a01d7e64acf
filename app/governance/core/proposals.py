"""Proposals that wait, with what each would do and when. Unix seconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pytoniq_core import Cell

from app.governance.core.actions import Action, measurement_of, read
from attestation.onchain.state import VerifierState
from wrappers.cells import CellError
from wrappers.registry import PROPOSAL_LIFE, Proposal, RegistryState


@dataclass(frozen=True, slots=True)
class Pending:
    """One proposal. `action`: None where nobody shows what its hash is of."""

    hash: bytes
    proposal: Proposal
    action: Action | None
    now: int
    lacking: int
    """Endorsements that it still needs."""

    @property
    def expires_at(self) -> int:
        return self.proposal.ready_at + PROPOSAL_LIFE

    @property
    def phase(self) -> str:
        if self.now < self.proposal.ready_at:
            return "waiting"
        if self.now > self.expires_at:
            return "over"
        return "ripe, lacks endorsements" if self.lacking else "ripe"


def endorsements(proposal: Proposal, state: RegistryState) -> int:
    """Those that count: of accounts that are rebuilders still."""
    return len(proposal.endorsed & state.rebuilders.accounts)


def pending(
    state: RegistryState, verifier: VerifierState | None, known: Mapping[bytes, Cell], now: int
) -> Iterator[Pending]:
    """In the order in which they ripen. `known`: cells of actions by their hashes."""
    for hash_, proposal in sorted(state.proposals.items(), key=lambda item: (item[1].ready_at, item[0])):
        cell = known.get(hash_)
        action = None
        if cell is not None:
            try:
                action = read(cell, state, verifier)
            except CellError as error:
                action = Action(cell, "unreadable", (str(error),))
        image = cell is not None and measurement_of(cell) is not None
        lacking = max(0, state.rebuilders.needed - endorsements(proposal, state)) if image else 0
        yield Pending(hash_, proposal, action, now, lacking)
