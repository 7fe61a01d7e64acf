"""From a new key to a live node: evidence over a fresh block, verified by the chain itself, renewed before its end.

The agent sends the quote to the network's verifier and pays for it; with it whatever collateral the chain lacks. Anyone
else could send the same: quote and collateral are public, and the verifier believes nobody.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from attestation.collateral import AnyCollateral, Collateral
from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence
from attestation.fetch import CollateralUnavailable
from attestation.gpu.collateral import GpuCollateral
from attestation.onchain.state import ImageStatus, VerifierState
from attestation.quote import parse as parse_quote
from attestation.snp.collateral import AmdCollateral
from attestation.source import CollateralSource
from attestation.strict import Malformed
from attestation.verifier import NotAttested, Verifier, block_to_bind
from chain.api import ChainError
from chain.wait import until
from chain.wallet import Wallet
from worker.agent.enclave_process import Enclave
from worker.agent.release_keys import ReleaseKeys
from worker.agent.rounds import tell
from worker.agent.view import ChainView
from worker.agent.vouching import Vouching
from wrappers.signed import KeyConsent, sign

log = logging.getLogger(__name__)

SHOWN_SECONDS = 90.0
NEXT_BLOCK_SECONDS = 600.0
"""A block whose number is divisible by 100 comes every few minutes on a network whose blocks take seconds."""
AHEAD_SECONDS = 2 * 86_400
"""Collateral that ends sooner is renewed with the key: a keeper that still works would have done it long before."""
LOOK_SECONDS = 30.0
RENEW_SHARE = 4
"""The key is attested anew when less than this part (one quarter) of its term is left."""


@dataclass(frozen=True, slots=True)
class Attesting:
    """Without `collateral_file` and `source` only simulated evidence is attested, whose collateral anyone can make."""

    view: ChainView
    wallet: Wallet | None
    keys: ReleaseKeys
    """Consents to the enclave's key: a node takes none that its operator did not sign for."""
    collateral_file: Path | None
    source: CollateralSource | None = None
    gpu_manifests: Path | None = None
    """Needed where the evidence holds GPUs'."""
    committee: bytes | None = None
    """Account of the network's committee, for SEV-SNP evidence."""

    async def attest(self, enclave: Enclave) -> tuple[bytes, int]:
        """(JSON of evidence and collateral as offers carry it, attested_until), once the chain shows the key.

        Raises NotAttested, ChainError, NodeMissing, EnclaveRefused, EnclaveGone, WaitTimeout.
        """
        if self.wallet is None:
            raise NotAttested(
                "attestation is paid by the operator's wallet; set wallet_file in the agent's configuration"
            )
        node = (await self.view.node(fresh=True)).state
        verifier = Verifier(self.view.chain, node.attestation)
        state = await verifier.state()
        if state.simulated != enclave.ready.simulated:
            raise NotAttested(_wrong_root(state.simulated))
        collateral = await self._collateral(enclave)
        if isinstance(collateral, Collateral) and (
            taken := await verifier.bring(self.wallet, collateral, ahead_seconds=AHEAD_SECONDS)
        ):
            log.info("brought collateral to the chain: %s", ", ".join(taken))
        seqno, root_hash = await until(
            lambda: block_to_bind(self.view.chain, node.block_seqno),
            what=f"a masterchain block divisible by 100 after {node.block_seqno}, the node's last",
            timeout_seconds=NEXT_BLOCK_SECONDS,
        )
        evidence = Evidence.from_json(await enclave.attest(seqno, root_hash))
        document = {"evidence": json.loads(evidence.to_json()), "collateral": json.loads(collateral.to_json())}
        if evidence.gpu_evidence:
            document["gpu_collateral"] = json.loads(await asyncio.to_thread(self._gpu_collateral))
        consent = sign(KeyConsent(node.node_id, enclave.key), self.keys.current)
        if isinstance(collateral, AmdCollateral):
            index = node.index if node.owner == self.wallet.account else None
            await self._vouching(self.wallet, index).vouched(evidence, collateral, consent)
        else:
            _check_image(state, evidence.quote)
            await verifier.attest(self.wallet, evidence.quote, evidence.binding, consent=consent)
        attested_until = await until(
            lambda: self._shown(enclave.key, seqno),
            what="the node to show its new key",
            timeout_seconds=SHOWN_SECONDS,
        )
        return json.dumps(document).encode(), attested_until

    async def term(self, attested_until: int) -> None:
        """Returns when a key that is attested until then should be attested anew: by the chain's clock, which ends it.

        Looked at again and again: a machine that slept, or whose own clock is wrong, must not oversleep.
        """
        due = 0.0
        while True:
            try:
                now = (await self.view.head()).now
            except Exception as error:
                tell("the chain's time cannot be read", error, (ChainError,))
            else:
                due = due or now + renew_after(now, attested_until)
                if now >= due:
                    return
            await asyncio.sleep(LOOK_SECONDS)

    async def _shown(self, key: bytes, block_seqno: int) -> int | None:
        state = (await self.view.node(fresh=True)).state
        return state.attested_until if state.signing_key == key and state.block_seqno >= block_seqno else None

    def _vouching(self, wallet: Wallet, index: int | None) -> Vouching:
        if self.committee is None:
            raise NotAttested(
                "the chain cannot verify SEV-SNP evidence by itself; set committee to the account of the network's "
                "committee, where it has one, or serve from a TDX guest"
            )
        return Vouching.bundled(self.view.chain, wallet, self.committee, index)

    async def _collateral(self, enclave: Enclave) -> AnyCollateral:
        if self.source is not None and not enclave.ready.simulated:
            return await self._fetched(self.source, enclave)
        if self.collateral_file is not None:
            try:
                return parse_collateral(await asyncio.to_thread(self.collateral_file.read_text, encoding="utf-8"))
            except (OSError, Malformed, UnicodeDecodeError) as error:
                raise NotAttested(f"collateral_file {self.collateral_file} is of no use: {error}") from error
        if not enclave.ready.simulated:
            raise NotAttested(
                "neither collateral_url nor collateral_file is configured; name a PCCS, or Intel's service, as "
                "collateral_url"
            )
        from attestation.simulated.collateral import mint  # the simulated hierarchy, only where it is asked for

        return mint((await self.view.head()).now)

    async def _fetched(self, source: CollateralSource, enclave: Enclave) -> AnyCollateral:
        # Only a quote tells which platform this is. The one that is attested comes later, over a younger block.
        head = await self.view.head()
        evidence = Evidence.from_json(await enclave.attest(head.block.seqno, head.block.root_hash))
        try:
            return await source.collateral(evidence, head.now)
        except CollateralUnavailable as error:
            raise NotAttested(f"collateral cannot be had: {error}") from error

    def _gpu_collateral(self) -> str:
        if self.gpu_manifests is None:
            raise NotAttested("gpu_manifests is not configured; name the folder that the enclave's [gpu] table names")
        try:
            return GpuCollateral.from_folder(self.gpu_manifests).to_json()
        except Malformed as error:
            raise NotAttested(f"gpu_manifests is of no use: {error}") from error


def _check_image(state: VerifierState, quote: bytes) -> None:
    """What can be told for free is not asked for gas."""
    measurement = parse_quote(quote).measurement
    image = state.images.get(measurement)
    if image is None or image.status is not ImageStatus.ALLOWED:
        word = "is not on this network's allow-list" if image is None else f"is {image.status.name.lower()} there"
        raise NotAttested(f"image {measurement.hex()} {word}; run a released image")


def _wrong_root(simulated: bool) -> str:
    if simulated:
        return (
            "this network's verifier stands on the test root and takes no hardware's evidence; set evidence = "
            "\"simulated\" in the enclave's configuration, or serve a network whose verifier stands on Intel's root"
        )
    return (
        "this network's verifier stands on Intel's root: simulated evidence never passes it; set evidence = \"tdx\" in "
        "the enclave's configuration, on a machine with TDX"
    )


def renew_after(now: int, attested_until: int) -> float:
    """Seconds until the key should be attested anew."""
    return max(30.0, (attested_until - now) * (1 - 1 / RENEW_SHARE))
