"""What an enclave has when it is up."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.provider import QuoteProvider
from worker.enclave.config import EnclaveConfig
from worker.enclave.gpu import GpuGuard
from worker.enclave.keys import Keys
from worker.engine.api import Engine, ModelInfo
from wrappers.receipts import Terms


@dataclass(frozen=True, slots=True)
class Loaded:
    """Its configuration, keys, model and source of quotes."""

    config: EnclaveConfig
    keys: Keys
    engine: Engine
    model: ModelInfo
    quotes: QuoteProvider
    guard: GpuGuard | None = None
    """None: this machine's configuration names no GPU to verify."""

    def gpu_fault(self) -> str | None:
        """Why this machine may open nothing at present, if so."""
        return self.guard.fault() if self.guard is not None else None

    @property
    def terms(self) -> Terms:
        prices = self.config.prices
        return Terms(
            self.model.model_hash,
            prices.prompt,
            prices.cached,
            prices.completion,
            prices.reasoning,
            prices.minimum_nano,
        )
