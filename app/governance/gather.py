"""What governance needs to know of a network: registry, verifier, and the actions that proposals are hashes of."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from pytoniq_core import Cell

from attestation.onchain.state import VerifierState
from chain.api import AccountState, Chain, Status
from chain.follower import head_of
from chain.history import check_links, previous
from wrappers.cells import CellError
from wrappers.code import Contract, code_hash
from wrappers.ops import Op
from wrappers.registry import DAY_SECONDS, RegistryState

PAGE = 100
LONGEST_LOCK_SECONDS = 30 * DAY_SECONDS


class NotGoverned(Exception):
    """There is nothing to govern, or it cannot be read. Cause and cure."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One network as two endpoints agree on it."""

    registry: AccountState
    state: RegistryState
    verifier: AccountState
    verifier_state: VerifierState | None
    """None where no verifier stands that this release knows."""
    now: int


async def scene_of(chain: Chain, registry: bytes) -> Scene:
    """Raises NotGoverned, ChainError."""
    found = await chain.account(registry)
    if found.status is not Status.ACTIVE or found.data is None or found.code is None:
        raise NotGoverned(f"there is no contract at {registry.hex()} ({found.status}); correct --registry or --network")
    if found.code.hash != code_hash(Contract.REGISTRY):
        raise NotGoverned(f"{registry.hex()} is no registry of this release; correct --registry, or use its release")
    try:
        state = RegistryState.from_cell(found.data)
    except CellError as error:
        raise NotGoverned(f"{registry.hex()} is no registry before its genesis ({error}); deploy it first") from error
    verifier = await chain.account(state.attestation)
    try:
        judged = VerifierState.from_cell(verifier.data) if verifier.data is not None else None
    except CellError:
        judged = None
    return Scene(found, state, verifier, judged, (await chain.head()).now)


async def actions_of(chain: Chain, scene: Scene, wanted: Collection[bytes]) -> dict[bytes, Cell]:
    """Cells with these hashes out of the registry's own history, in which every `propose` brought one.

    Walks back no further than the oldest of them can have been proposed. Raises ChainError.
    """
    found: dict[bytes, Cell] = {}
    times = [scene.state.proposals[hash_].ready_at for hash_ in wanted if hash_ in scene.state.proposals]
    oldest = min(times, default=scene.now) - LONGEST_LOCK_SECONDS
    position = head_of(scene.registry)
    while position is not None and len(found) < len(set(wanted)):
        page = await chain.transactions(scene.registry.account, lt=position.lt, hash=position.hash, limit=PAGE)
        check_links(page, position, account=scene.registry.account, endpoint=chain.name)
        for transaction in page:
            action = _proposed(transaction.in_msg.body) if transaction.in_msg is not None else None
            if action is not None and bytes(action.hash) in wanted:
                found[bytes(action.hash)] = action
        if page[-1].now < oldest:
            break
        position = previous(page[-1])
    return found


def _proposed(body: Cell) -> Cell | None:
    if len(body.bits) != 32 or len(body.refs) != 1 or body.begin_parse().load_uint(32) != Op.PROPOSE:
        return None
    action: Cell = body.refs[0]
    return action
