"""`cocoon attest sync`: where a node stands with the verifier today, and telling the node so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from pathlib import Path

from app.children import children
from attestation.onchain.messages import sync
from attestation.onchain.standing import words
from attestation.onchain.state import Standing
from attestation.standings import Standings
from attestation.verifier import NotAttested
from chain.api import Chain, ChainError, Status
from chain.config import connect, load_network
from chain.outgoing import Outgoing
from chain.wait import WaitTimeout, until
from chain.wallet import Wallet
from protocol.siblings import may_be_child
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.code import Contract, rare_program
from wrappers.node import NodeState

SYNC_NANO = 250_000_000
"""Pays the verifier, the way and the node's worst case of 32 retired keys; the rest stays in the node's gas reserve."""
SHOWN_SECONDS = 60.0
_DISTRUSTED = frozenset(words(Standing.IMAGE_COMPROMISED | Standing.PLATFORM_DENIED))
TROUBLE = (NotAttested, ChainError, WaitTimeout)


async def tell_nodes(
    network: str,
    registry: bytes,
    node: bytes | None,
    *,
    wallet_file: Path | None,
    tell: Callable[[str], None],
    note: Callable[[str], None],
    every_seconds: float | None = None,
) -> bool:
    """Say in a JSON line where the node stands, None: every node of the network. With a wallet send `sync` to one that
    stands badly and was not told. One round, or one every `every_seconds` until cancelled. False: something failed.

    Raises ConfigError, MnemonicError, ValueError.
    """
    wallet = Wallet.from_mnemonic_file(wallet_file) if wallet_file is not None else None
    profile = load_network(network)
    chain = connect(profile)
    try:
        while True:
            done = True
            try:
                if node is not None:
                    named = [node]
                else:
                    born = children(chain, registry, profile.global_id, Kind.NODE)
                    named = [account.account async for account in born]
                for each in named:
                    done &= await _tell(chain, wallet, registry, each, tell, note)
            except TROUBLE as error:
                note(f"error: {error}")
                done = False
            if every_seconds is None:
                return done
            await asyncio.sleep(every_seconds)
    finally:
        await chain.close()


async def _tell(
    chain: Chain,
    wallet: Wallet | None,
    registry: bytes,
    node: bytes,
    tell: Callable[[str], None],
    note: Callable[[str], None],
) -> bool:
    try:
        state = await _node(chain, registry, node)
        faults = await Standings(chain).faults(node, state)
        now = (await chain.head()).now
        due = _untold(state, faults, now)
        sent = False
        if due and wallet is not None and state.measurement is not None and state.platform is not None:
            body = sync(node, state.measurement, state.platform, rare_program(Contract.NODE))
            landed = await wallet.send(chain, [Outgoing(state.attestation, SYNC_NANO, body)])
            await landed.landed(chain)

            async def heard() -> NodeState | None:
                found = await _node(chain, registry, node)
                ended = found.attested_until < state.attested_until or (found.acked_only and not state.acked_only)
                return found if ended else None

            state = await until(heard, what="the node to hear it", timeout_seconds=SHOWN_SECONDS)
            sent = True
        said = {
            "node": node.hex(),
            "faults": list(faults),
            "sent" if wallet is not None else "due": sent if wallet is not None else due,
            "attested_until": state.attested_until,
            "acked_only": state.acked_only,
        }
        tell(json.dumps(said))
        return True
    except TROUBLE as error:
        note(f"error: {error}")
        return False


def _untold(state: NodeState, faults: Collection[str], now: int) -> bool:
    """Whether `sync` would change the node: its term still runs, or its keys are still believed in full."""
    believed = not state.acked_only and not _DISTRUSTED.isdisjoint(faults)
    return bool(faults) and (now < state.attested_until or believed)


async def _node(chain: Chain, registry: bytes, account: bytes) -> NodeState:
    found = await chain.account(account)
    data = found.data
    try:
        if found.status is not Status.ACTIVE or data is None or not may_be_child(data, Kind.NODE, account, registry):
            raise CellError("it is none of this registry's accounts")
        state = NodeState.from_cell(data)
        if state is None or account != child_address(registry, Kind.NODE, state.owner, state.index):
            raise CellError("it was not born there")
    except CellError as error:
        raise NotAttested(
            f"{account.hex()} is no node of this registry: {error}; correct NODE or --registry"
        ) from error
    return state
