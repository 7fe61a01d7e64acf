"""Reads what an audit needs: states that two endpoints agree on, histories that prove themselves from there."""

from __future__ import annotations

from collections.abc import Iterable

from app.audit.core.audit import identify
from app.audit.core.facts import Facts, Kind
from app.audit.core.messages import op_of
from chain.api import Chain, Transaction
from chain.follower import AccountFollower
from protocol.siblings import may_be_child
from wrappers import addresses
from wrappers.node import NodeState
from wrappers.ops import Op
from wrappers.registry import RegistryState


async def facts_of(chain: Chain, account: bytes, global_id: int, *, history: bool = True) -> Facts:
    """`chain`: a quorum. Raises ChainError."""
    if not history:
        return Facts(account, await chain.account(account), None, global_id)
    follower = AccountFollower(chain, account)
    found: list[Transaction] = list(await follower.poll())
    while not follower.caught_up:
        found += await follower.poll()
    assert follower.state is not None
    return Facts(account, follower.state, tuple(found), global_id)


async def node_of(chain: Chain, account: bytes, registry: bytes, global_id: int) -> Facts | None:
    """The node of that registry at `account`, with its history; None for anything else. Raises ChainError.

    Whose child it is comes before what it says: anyone may give a node's code data of his own, with keys of his own.
    """
    state = await chain.account(account)
    if identify(state) is not Kind.NODE or state.data is None:
        return None
    if not may_be_child(state.data, addresses.Kind.NODE, account, registry) or not NodeState.from_cell(state.data):
        return None
    return await facts_of(chain, account, global_id)


async def network_of(chain: Chain, registry: bytes, global_id: int) -> tuple[Facts, ...]:
    """Registry, the other singletons, and every child that was ever born. Raises ChainError."""
    first = await facts_of(chain, registry, global_id)
    accounts = dict.fromkeys([*singletons(first), *children_in(first.history or ())])
    accounts.pop(registry, None)
    return (first, *[await facts_of(chain, account, global_id) for account in accounts])


def singletons(registry: Facts) -> Iterable[bytes]:
    """The others that it names."""
    if identify(registry.state) is not Kind.REGISTRY or registry.state.data is None:
        return ()
    state = RegistryState.from_cell(registry.state.data)
    return (state.attestation, *([state.court] if any(state.court) else []))


def children_in(history: Iterable[Transaction]) -> Iterable[bytes]:
    """Accounts that a registry with this history gave birth to, in order."""
    for one in history:
        for message in one.out_msgs:
            if op_of(message.body) == Op.INIT and message.destination is not None:
                yield message.destination
