"""Keeps a network's collateral on chain ahead of its end, so that no node's renewal has to wait for it.

Anyone may run one, any number may run: the chain takes what Intel signed, newer only, and a keeper keeps nothing but
what the chain shows, so it may be stopped at any moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from attestation.collateral import Collateral
from attestation.fetch import CollateralUnavailable, Get, http_get
from attestation.onchain.messages import Authority
from attestation.onchain.state import VerifierState
from attestation.pccs import IntelPlatform, fetch_intel
from attestation.simulated.collateral import mint
from attestation.verifier import Verifier
from chain.wallet import Wallet

AHEAD_SECONDS = 8 * 86_400
"""Above the longest term of a verdict in the default policy: then collateral shortens no term."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """`url`: base of a PCCS or of Intel's service; None under the test root, whose collateral anyone makes.
    `platforms`: FMSPCs (6 bytes) to keep beside those that the chain has already."""

    verifier: Verifier
    wallet: Wallet | None
    url: str | None
    platforms: frozenset[bytes] = frozenset()
    get: Get = http_get
    ahead_seconds: int = AHEAD_SECONDS

    async def round(self) -> tuple[str, ...]:
        """Send what is due; its names. Raises NotAttested, CollateralUnavailable, ChainError, WaitTimeout."""
        state = await self.verifier.state()
        now = (await self.verifier.chain.head()).now
        sent: list[str] = []
        for collateral in await self._gathered(state, now):
            if self.wallet is None:
                sent += await self.verifier.lacks(collateral, ahead_seconds=self.ahead_seconds)
            else:
                sent += await self.verifier.bring(self.wallet, collateral, ahead_seconds=self.ahead_seconds)
        return tuple(dict.fromkeys(sent))

    async def _gathered(self, state: VerifierState, now: int) -> Sequence[Collateral]:
        if state.simulated:
            return [mint(now)]
        wanted = sorted(self.platforms | set(state.tcb))
        if not wanted:
            raise CollateralUnavailable("the chain knows no platform type yet; name one with --fmspc (12 hex digits)")
        if self.url is None:
            raise CollateralUnavailable(
                "collateral must come from somewhere: name a PCCS or Intel's service with --url"
            )
        return [
            await fetch_intel(self.get, self.url, IntelPlatform(fmspc.hex(), authority))
            for authority in _authorities(state)
            for fmspc in wanted
        ]


def _authorities(state: VerifierState) -> list[str]:
    """Which PCK authorities the chain's platforms have; server platforms are certified by the first."""
    known = {Authority.PLATFORM: state.platform_authority, Authority.PROCESSOR: state.processor_authority}
    return [authority.name.lower() for authority, held in known.items() if held.end] or ["platform"]


def collateral_ends(state: VerifierState) -> Mapping[str, int]:
    """When each piece that the chain holds ends (unix seconds); 0: it has none."""
    ends = {
        "root CRL": state.root.crl_until,
        "TCB signer": state.signer.end,
        "QE identity": state.qe.until,
        "PCK platform CA": state.platform_authority.end,
        "PCK platform CRL": state.platform_authority.crl_until,
    }
    if state.processor_authority.end:
        ends |= {
            "PCK processor CA": state.processor_authority.end,
            "PCK processor CRL": state.processor_authority.crl_until,
        }
    return ends | {f"TCB info of {fmspc.hex()}": held.until for fmspc, held in sorted(state.tcb.items())}
