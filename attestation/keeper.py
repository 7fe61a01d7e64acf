"""Keeps a network's collateral on chain ahead of its end, so that no node's renewal has to wait for it.

Anyone may run one, any number may run: the chain takes what Intel signed, newer only, and a keeper keeps nothing but
what the chain shows, so it may be stopped at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from attestation import trust_roots
from attestation.collateral import Collateral
from attestation.evidence import Kind
from attestation.fetch import CollateralUnavailable, Get, http_get
from attestation.genuine import check_genuine
from attestation.onchain.messages import Authority
from attestation.onchain.state import VerifierState
from attestation.pccs import IntelPlatform, fetch_intel
from attestation.simulated.collateral import mint
from attestation.trust_roots import Root
from attestation.verifier import Verifier
from chain.wallet import Wallet

log = logging.getLogger(__name__)

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
    intel_root: Root = field(default_factory=lambda: trust_roots.root(Kind.TDX))

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
        found: list[Collateral] = []
        failed: list[CollateralUnavailable] = []
        for platform in (IntelPlatform(each.hex(), name) for name in _authorities(state) for each in wanted):
            try:
                found.append(await self._fetched(self.url, platform, now))
            except CollateralUnavailable as error:
                # Anyone may have brought a platform type that this server does not know: the others do not wait for it.
                log.warning("collateral of platform type %s cannot be had: %s", platform.fmspc, error)
                failed.append(error)
        if failed and not found:
            raise failed[0]
        return found

    async def _fetched(self, url: str, platform: IntelPlatform, now: int) -> Collateral:
        """Checked before it is paid for: what the chain refuses costs gas, at every round and at the server's will."""
        try:
            found = await fetch_intel(self.get, url, platform)
            check_genuine(found, self.intel_root, platform.fmspc, platform.authority, now)
        except CollateralUnavailable:
            raise
        except Exception as error:  # certificate parsers raise many unrelated types on hostile input
            raise CollateralUnavailable(
                f"{url} served collateral that is of no use: {error or type(error).__name__}; refresh the service or "
                "name another"
            ) from error
        return found


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
