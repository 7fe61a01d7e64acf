"""Evidence for one masterchain block: the GPUs first, then the quote that binds what they said."""

from __future__ import annotations

import asyncio

from attestation.evidence import Evidence, gpu_evidence_hash
from attestation.gpu import envelope
from attestation.provider import QuoteProvider, QuoteUnavailable
from attestation.report_data import Binding
from worker.enclave.gpu import GpuFailed, GpuGuard
from worker.messages import Attest, EvidenceReady, Failed, Introduce

GPU_CURE = "See the enclave's log, mend the GPU and its manifests; a new enclave with new keys tries again"


async def evidence_for(
    facts: Introduce, order: Attest, signing_key: bytes, quotes: QuoteProvider, guard: GpuGuard | None
) -> EvidenceReady | Failed:
    """What to tell the agent. No quote is asked for unless the GPUs, where the configuration names them, verify."""
    gpus = b""
    try:
        if guard is not None:
            gpus = await guard.check(envelope.nonce(signing_key, order.block_root_hash))
        binding = Binding(
            facts.network,
            facts.node,
            facts.node_epoch,
            signing_key,
            gpu_evidence_hash(gpus),
            order.block_seqno,
            order.block_root_hash,
        )
        quote = await asyncio.to_thread(quotes.quote, binding.report_data())
    except GpuFailed as error:
        return Failed("attest", 0, str(error), GPU_CURE)
    except QuoteUnavailable as error:
        return Failed("attest", 0, str(error), "Run the worker on a machine that can attest")
    return EvidenceReady(Evidence(quotes.kind, quote, binding, gpus).to_json().encode())
