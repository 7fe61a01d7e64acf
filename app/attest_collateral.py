"""`cocoon attest collateral`: what the chain holds of Intel's collateral, and bringing what is due."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

from attestation.fetch import CollateralUnavailable
from attestation.keeper import Keeper, collateral_ends
from attestation.verifier import NotAttested, Verifier
from chain.api import Chain, ChainError
from chain.config import connect, load_network
from chain.wait import WaitTimeout
from chain.wallet import Wallet
from wrappers.cells import CellError
from wrappers.registry import RegistryState

RETRY_SECONDS = 60.0
TROUBLE = (NotAttested, CollateralUnavailable, ChainError, WaitTimeout)


async def keep(
    network: str,
    registry: bytes,
    *,
    wallet_file: Path | None,
    url: str | None,
    platforms: frozenset[bytes],
    every_seconds: float | None,
    tell: Callable[[str], None],
    note: Callable[[str], None],
) -> bool:
    """One round, or one every `every_seconds` until cancelled; a JSON line each. False: the one round failed.

    Raises ConfigError, MnemonicError, ValueError.
    """
    wallet = Wallet.from_mnemonic_file(wallet_file) if wallet_file is not None else None
    chain = connect(load_network(network))
    try:
        while True:
            pause = every_seconds
            try:
                verifier = Verifier(chain, await _attestation(chain, registry))
                sent = await Keeper(verifier, wallet, url, platforms).round()
                state, now = await verifier.state(), (await chain.head()).now
                ends = collateral_ends(state)
                said = {
                    "sent" if wallet is not None else "due": list(sent),
                    "simulated": state.simulated,
                    "ended": [name for name, end in ends.items() if end <= now],
                    "ends": dict(ends),
                }
                tell(json.dumps(said))
            except TROUBLE as error:
                note(f"error: {error}")
                if pause is None:
                    return False
                pause = min(pause, RETRY_SECONDS)
            if pause is None:
                return True
            await asyncio.sleep(pause)
    finally:
        await chain.close()


async def _attestation(chain: Chain, registry: bytes) -> bytes:
    state = await chain.account(registry)
    try:
        if state.data is None:
            raise CellError("there is nothing")
        return RegistryState.from_cell(state.data).attestation
    except CellError as error:
        raise NotAttested(f"{registry.hex()} is no registry of this network: {error}; correct --registry") from error
