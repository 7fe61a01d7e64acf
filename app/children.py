"""Every living account of a network of one kind, found from its registry's own history: what a keeper walks over."""

from __future__ import annotations

from collections.abc import AsyncIterator

from app.audit.gather import children_in, facts_of
from chain.api import AccountState, Chain, Status
from protocol.siblings import may_be_child
from wrappers.addresses import Kind


async def children(chain: Chain, registry: bytes, global_id: int, kind: Kind) -> AsyncIterator[AccountState]:
    """`chain`: a quorum. Raises ChainError."""
    born = children_in((await facts_of(chain, registry, global_id)).history or ())
    for account in dict.fromkeys(born):
        state = await chain.account(account)
        data = state.data if state.status is Status.ACTIVE else None
        if data is not None and data.refs and may_be_child(data, kind, account, registry):
            yield state
