"""Where a worker gets its GPUs' evidence from: the driver, through NVML.

The binding (`nvidia-ml-py`, module `pynvml`) is imported when it is needed: a machine without GPUs need not have it.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.gpu.envelope import MAX_DEVICES, NONCE_BYTES, DeviceEvidence, GpuEvidence
from attestation.strict import Malformed


class GpuUnavailable(Exception):
    """No GPU evidence can be had here. The text names the cause and the cure."""


@dataclass(frozen=True, slots=True)
class DriverState:
    """What the driver says of itself. A hint for people and an early refusal: only a signed report proves anything."""

    driver_version: str
    gpus: int
    confidential: bool
    production: bool
    developer_tools: bool
    accepting: bool
    """The driver takes work for the GPUs: off at boot in confidential-computing mode, until somebody vouches."""

    def lacks(self) -> tuple[str, ...]:
        """A sentence with its cure per thing that is not as a confidential machine needs it."""
        return tuple(self._lacks())

    def _lacks(self) -> Iterator[str]:
        if not self.gpus:
            yield "the driver sees no GPU: pass one through to this guest and check `nvidia-smi`"
        if not self.confidential:
            yield (
                "confidential-computing mode is off: on the host set it with nvtrust's `nvidia_gpu_tools.py "
                "--set-cc-mode=on --reset-after-cc-mode-switch`, then start the guest again"
            )
        elif not self.production:
            yield "confidential computing runs in a simulated environment: use production hardware and firmware"
        if self.developer_tools:
            yield (
                "developer-tools mode is on, which opens the GPU to its host: on the host set "
                "`nvidia_gpu_tools.py --set-cc-mode=on` (not `devtools`)"
            )


class GpuSource(Protocol):
    """All calls block, for seconds at worst. All raise GpuUnavailable."""

    def state(self) -> DriverState: ...

    def evidence(self, nonce: bytes) -> GpuEvidence:
        """Reports of all GPUs of this machine over 32 bytes of nonce, with their certificates."""

    def accept_work(self, ready: bool) -> None:
        """Tell the driver whether the GPUs may work. Nothing happens where it is so already."""


class Nvml:
    """The driver's own library, `libnvidia-ml.so.1`."""

    def __init__(self, library: ModuleType | None = None) -> None:
        self._library = library

    def state(self) -> DriverState:
        with self._session() as nvml:
            state = nvml.nvmlSystemGetConfComputeState()
            version = nvml.nvmlSystemGetDriverVersion()
            confidential = state.ccFeature == nvml.NVML_CC_SYSTEM_FEATURE_ENABLED
            return DriverState(
                driver_version=version.decode() if isinstance(version, bytes) else str(version),
                gpus=int(nvml.nvmlDeviceGetCount()),
                confidential=confidential,
                production=state.environment == nvml.NVML_CC_SYSTEM_ENVIRONMENT_PROD,
                developer_tools=state.devToolsMode != nvml.NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF,
                accepting=not confidential or bool(nvml.nvmlSystemGetConfComputeGpusReadyState()),
            )

    def evidence(self, nonce: bytes) -> GpuEvidence:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a GPU's nonce must be {NONCE_BYTES} bytes, got {len(nonce)}")
        with self._session() as nvml:
            count = int(nvml.nvmlDeviceGetCount())
            if not 1 <= count <= MAX_DEVICES:
                raise GpuUnavailable(f"{count} GPUs; evidence is of 1 to {MAX_DEVICES}: pass through as many")
            return GpuEvidence(tuple(_device(nvml, index, nonce) for index in range(count)))

    def accept_work(self, ready: bool) -> None:
        with self._session() as nvml:
            if bool(nvml.nvmlSystemGetConfComputeGpusReadyState()) is not ready:
                nvml.nvmlSystemSetConfComputeGpusReadyState(
                    nvml.NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE
                    if ready
                    else nvml.NVML_CC_ACCEPTING_CLIENT_REQUESTS_FALSE
                )

    @contextmanager
    def _session(self) -> Iterator[Any]:
        try:
            nvml = self._library or importlib.import_module("pynvml")
        except ImportError as error:
            raise GpuUnavailable(
                "the package nvidia-ml-py is not installed: `pip install 'cocoon[gpu]'` into the worker's image"
            ) from error
        try:
            nvml.nvmlInit()
            try:
                yield nvml
            finally:
                nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            raise GpuUnavailable(_in_words(nvml, error)) from error
        except AttributeError as error:
            raise GpuUnavailable(f"nvidia-ml-py is too old ({error}): install the one that the image pins") from error
        except Malformed as error:
            raise GpuUnavailable(f"the driver's evidence cannot be used ({error}): update the driver") from error


def _device(nvml: Any, index: int, nonce: bytes) -> DeviceEvidence:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    chain = nvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
    pem = bytes(chain.attestationCertChain[: chain.attestationCertChainSize])
    answer = nvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise Malformed(f"GPU {index}: its certificates are not in PEM ({error})") from error
    return DeviceEvidence(
        tuple(each.public_bytes(Encoding.DER) for each in certificates),
        bytes(answer.attestationReport[: answer.attestationReportSize]),
    )


def _in_words(nvml: Any, error: Exception) -> str:
    value = getattr(error, "value", None)
    cures = {
        "NVML_ERROR_LIBRARY_NOT_FOUND": "install NVIDIA's driver, which brings libnvidia-ml.so.1",
        "NVML_ERROR_DRIVER_NOT_LOADED": "load it with `modprobe nvidia`",
        "NVML_ERROR_NO_PERMISSION": "run the enclave as a user who may administer the GPUs (root)",
        "NVML_ERROR_NOT_SUPPORTED": "confidential computing needs a Hopper or Blackwell GPU with its mode on",
        "NVML_ERROR_FUNCTION_NOT_FOUND": "update the driver: it is older than confidential computing",
    }
    cure = next((text for name, text in cures.items() if getattr(nvml, name, object()) == value), "see `nvidia-smi -q`")
    return f"the NVIDIA driver says: {error}; {cure}"
