"""The enclave's guard over its GPUs, with a clock in the test's hand, and the driver behind a fake of NVML."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import enclave_house as houses
import gpu_mirror as m
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from app.doctor import Mark, gpu_driver
from attestation.evidence import Evidence, gpu_evidence_hash
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import GpuEvidence, nonce
from attestation.gpu.policy import GpuPolicy
from attestation.gpu.source import DriverState, GpuUnavailable, Nvml
from attestation.gpu.verify import verify_gpu
from attestation.verifier import NotAttested
from protocol.errors import Code
from protocol.pricing import Stop
from protocol.stream import Completed
from protocol.stream import Failed as StreamFailed
from worker.agent.attest import Attesting
from worker.enclave import config as enclave_config
from worker.enclave.gpu import CHECK_SECONDS, LATE_SECONDS, GpuFailed, GpuGuard
from worker.enclave.server import gpu_guard
from worker.messages import Attest, EvidenceReady, Failed

NOW = m.NOW
GOOD = DriverState("570.10.02", 2, True, True, False, True)


@cache
def devices() -> tuple[Any, ...]:
    return m.mirror().device(), m.mirror().device()


class FakeGpus:
    """GPUs that answer as long as nothing is put in their way."""

    def __init__(self) -> None:
        self.now = float(NOW)
        self.steady = 0.0
        self.devices = devices()
        self.driver = GOOD
        self.unavailable = ""
        self.accepting: list[bool] = []
        self.nonces: list[bytes] = []
        self.slept = asyncio.Event()
        self.wake = asyncio.Event()

    def state(self) -> DriverState:
        if self.unavailable:
            raise GpuUnavailable(self.unavailable)
        return self.driver

    def evidence(self, nonce: bytes) -> GpuEvidence:
        self.nonces.append(nonce)
        return GpuEvidence(tuple(each.evidence(nonce) for each in self.devices))

    def accept_work(self, ready: bool) -> None:
        self.accepting.append(ready)

    async def sleep(self, _: float) -> None:
        self.slept.set()
        await self.wake.wait()
        self.wake.clear()

    async def after(self, seconds: float) -> None:
        """Let the clock go on, and the guard look at it."""
        await self.slept.wait()
        self.now += seconds
        self.slept.clear()
        self.wake.set()

    def guard(self, policy: GpuPolicy | None = None, collateral: Callable[[], GpuCollateral] | None = None) -> GpuGuard:
        return GpuGuard(
            self,
            policy or GpuPolicy(),
            collateral or (lambda: m.mirror().collateral(*devices())),
            clock=lambda: self.now,
            steady=lambda: self.steady,
            sleep=self.sleep,
            roots=m.mirror().roots,
        )


def altered() -> tuple[Any, ...]:
    first, second = devices()
    return first, replace(second, measurements={**second.measurements, 5: bytes(48)})


async def test_g12_a_guard_vouches_only_for_what_it_verified() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    assert guard.fault() == "the GPUs were not verified yet" and gpus.accepting == []
    raw = await guard.check(m.NONCE)
    assert guard.fault() is None and gpus.accepting == [True]
    collateral = m.mirror().collateral(*devices())
    assert verify_gpu(raw, collateral, GpuPolicy(), NOW, m.NONCE, m.mirror().roots).accepted


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda gpus: setattr(gpus, "devices", altered()), "GPU 1: measurements 5"),
        (lambda gpus: setattr(gpus, "devices", (devices()[0], devices()[0])), "appears twice"),
        (lambda gpus: setattr(gpus, "driver", replace(GOOD, confidential=False)), "mode is off"),
        (lambda gpus: setattr(gpus, "driver", replace(GOOD, production=False)), "simulated environment"),
        (lambda gpus: setattr(gpus, "driver", replace(GOOD, developer_tools=True)), "developer-tools mode is on"),
        (lambda gpus: setattr(gpus, "driver", replace(GOOD, gpus=0)), "sees no GPU"),
        (lambda gpus: setattr(gpus, "unavailable", "the driver is gone"), "the driver is gone"),
        (lambda gpus: setattr(gpus, "now", NOW + 60 * m.DAY), "is valid from"),
    ],
)
async def test_g12_a_guard_that_failed_once_stays_failed(change: Callable[[FakeGpus], None], word: str) -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    change(gpus)
    with pytest.raises(GpuFailed, match=word):
        await guard.check(m.NONCE)
    assert word in str(guard.fault()) and gpus.accepting == [False]
    gpus.__init__()  # type: ignore[misc]
    with pytest.raises(GpuFailed, match=word):
        await guard.check(m.NONCE)
    assert gpus.nonces == [] and await guard.watch() == guard.fault()


async def test_g12_an_unforeseen_error_fails_the_guard_as_well() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    await guard.check(m.NONCE)
    gpus.devices = (None,)
    with pytest.raises(GpuFailed, match="the check itself failed"):
        await guard.check(m.NONCE)
    assert guard.fault() is not None


async def test_g12_a_driver_that_hangs_fails_the_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.enclave.gpu.CALL_SECONDS", 0.05)
    gpus, release = FakeGpus(), threading.Event()
    gpus.state = lambda: (release.wait(10), GOOD)[1]  # type: ignore[method-assign]
    with pytest.raises(GpuFailed, match="gave no GPU evidence within"):
        await gpus.guard().check(m.NONCE)
    assert any(each.daemon and each.name == "gpu" for each in threading.enumerate()), "the process would wait for it"
    release.set()


async def test_g12_missing_manifests_fail_with_their_cure() -> None:
    guard = FakeGpus().guard(collateral=lambda: GpuCollateral.from_folder(Path("/nowhere")))
    with pytest.raises(GpuFailed, match="cannot be read from /nowhere"):
        await guard.check(m.NONCE)


async def test_g12_an_answer_to_another_nonce_is_no_answer() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    old = gpus.evidence(m.NONCE)
    gpus.evidence = lambda nonce: old  # type: ignore[method-assign]
    with pytest.raises(GpuFailed, match="another nonce"):
        await guard.check(b"\x01" * 32)


async def test_the_check_is_repeated_every_hour_over_a_nonce_of_its_own() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    await guard.check(m.NONCE)
    watching = asyncio.create_task(guard.watch())
    await gpus.after(CHECK_SECONDS - 1)
    await gpus.slept.wait()
    assert len(gpus.nonces) == 1
    for _ in range(2):
        await gpus.after(CHECK_SECONDS)
        await gpus.slept.wait()
    assert len(gpus.nonces) == 3 == len(set(gpus.nonces)) and guard.fault() is None
    gpus.devices = altered()
    await gpus.after(CHECK_SECONDS)
    assert "measurements 5" in await watching and gpus.accepting[-1] is False


async def test_g12_a_clock_that_is_set_back_puts_off_no_check() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    await guard.check(m.NONCE)
    watching = asyncio.create_task(guard.watch())
    await gpus.slept.wait()
    gpus.steady += CHECK_SECONDS
    await gpus.after(-CHECK_SECONDS)
    await gpus.slept.wait()
    assert len(gpus.nonces) == 2 and guard.fault() is None
    watching.cancel()
    gpus.steady += CHECK_SECONDS + LATE_SECONDS + 1
    gpus.now -= 10 * m.DAY
    assert "overdue" in str(guard.fault())


async def test_g12_an_answer_that_comes_too_late_sets_no_gpu_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.enclave.gpu.CALL_SECONDS", 0.05)
    gpus, release = FakeGpus(), threading.Event()
    gpus.state = lambda: (release.wait(10), GOOD)[1]  # type: ignore[method-assign]
    guard = gpus.guard()
    with pytest.raises(GpuFailed):
        await guard.check(m.NONCE)
    late = [each for each in threading.enumerate() if each.name == "gpu"]
    release.set()
    for each in late:
        await asyncio.to_thread(each.join, 10)
    assert gpus.nonces == [m.NONCE] and gpus.accepting == [False]


async def test_g12_a_check_that_hangs_ends_in_a_refusal() -> None:
    gpus = FakeGpus()
    guard = gpus.guard()
    await guard.check(m.NONCE)
    gpus.now += CHECK_SECONDS + LATE_SECONDS
    assert guard.fault() is None
    gpus.now += 1
    assert "overdue" in str(guard.fault())


# ---- in the enclave


async def house_with(gpus: FakeGpus) -> Any:
    guard = gpus.guard()
    await guard.check(m.NONCE)
    return await houses.House().start(houses.ScriptedEngine(), guard=guard)


async def test_g12_evidence_binds_the_gpus_to_key_and_block() -> None:
    gpus = FakeGpus()
    house = await house_with(gpus)
    house.agent.link.post(Attest(7, b"b" * 32))
    evidence = Evidence.from_json((await house.agent.expect(EvidenceReady)).evidence)
    assert gpu_evidence_hash(evidence.gpu_evidence) == evidence.binding.gpu_evidence_hash != bytes(32)
    bound = nonce(house.ready.signing_key, b"b" * 32)
    collateral = m.mirror().collateral(*devices())
    verdict = verify_gpu(evidence.gpu_evidence, collateral, GpuPolicy(), NOW, bound, m.mirror().roots)
    assert verdict.accepted and len(verdict.gpus) == 2
    await house.stop()


async def test_g12_no_quote_is_asked_for_while_a_gpu_does_not_verify() -> None:
    gpus = FakeGpus()
    house = await house_with(gpus)
    asked = []
    house.loaded.quotes.quote = asked.append
    gpus.devices = altered()
    house.agent.link.post(Attest(7, b"b" * 32))
    failed = await house.agent.expect(Failed)
    assert failed.what == "attest" and "measurements 5" in failed.cause and not asked
    await house.stop()


async def test_g12_an_enclave_stops_serving_when_a_gpu_fails_after_an_hour() -> None:
    gpus = FakeGpus()
    house = await house_with(gpus)
    client = houses.Client(house)
    _, last = await client.ask()
    assert isinstance(last, Completed)
    # One more is being answered when the GPU fails: what it got so far is receipted, and no more comes.
    house.engine.gate, house.engine.gate_after = asyncio.Event(), 1
    cut, request = client.sealed()
    running = await house.post(request, client.voucher_key, wait=False)
    await house.engine.held.wait()
    gpus.devices = altered()
    await gpus.after(CHECK_SECONDS)
    failed = await house.agent.expect(Failed)
    assert failed.what == "gpu" and "GPU 1: measurements 5" in failed.cause and "new enclave" in failed.cure
    house.engine.gate.set()
    later, refused = client.sealed()
    answered = house.agent.answers[refused.request_id] = houses.Answered()
    house.agent.link.post(houses.Post(refused.request_id, client.voucher_key, refused.to_bytes()))
    async with asyncio.timeout(10):
        await running.ended.wait()
        with pytest.raises(GpuFailed, match="measurements 5"):
            await house.session
    lines, last = client.check(cut, request, running.frames)
    assert isinstance(last, Completed) and last.inner.stop == Stop.CANCELLED, (
        "what was generated is paid, no more comes"
    )
    assert len(lines) < 3
    if answered.ended.is_set():
        (event,) = client.read(later, refused, answered.frames)
        assert isinstance(event, StreamFailed) and event.error.code is Code.NODE_NOT_LIVE
    assert len(house.engine.requests) == 2
    await house.stop()


async def test_g12_requests_are_refused_in_clear_words_while_a_check_is_overdue() -> None:
    gpus = FakeGpus()
    house = await house_with(gpus)
    gpus.now += CHECK_SECONDS + LATE_SECONDS + 1
    client = houses.Client(house)
    opening, request = client.sealed()
    (event,) = client.read(opening, request, (await house.post(request, client.voucher_key)).frames)
    assert isinstance(event, StreamFailed) and event.error.code is Code.NODE_NOT_LIVE
    assert "GPUs do not verify" in event.error.cause and house.engine.requests == []
    await house.stop()


# ---- configuration

TABLE = {
    "global_id": -7001,
    "evidence": "simulated",
    "prices": {"prompt": 1, "cached": 1, "completion": 1, "reasoning": 1, "minimum_nano": 1},
}


def test_the_gpu_table_is_a_part_of_the_configuration(tmp_path: Path) -> None:
    assert gpu_guard(enclave_config.parse(TABLE, where="c"), FakeGpus.__new__(FakeGpus)) is None
    gpu = {"manifests": str(tmp_path), "min_driver": "570.10.02", "revocation_required": True}
    found = enclave_config.parse({**TABLE, "gpu": gpu}, where="c")
    assert found.gpu is not None and found.gpu.policy == GpuPolicy("570.10.02", revocation_required=True)
    assert isinstance(gpu_guard(found, Nvml()), GpuGuard)


def test_g12_an_enclave_whose_gpus_cannot_be_verified_does_not_start(tmp_path: Path) -> None:
    prices = "prompt = 1\ncached = 1\ncompletion = 1\nreasoning = 1\nminimum_nano = 1"
    (tmp_path / "enclave.toml").write_text(
        f'global_id = -7001\nevidence = "simulated"\n[prices]\n{prices}\n[gpu]\nmanifests = "{tmp_path}"\n'
    )
    command = [sys.executable, "-m", "worker.enclave", "--socket", str(tmp_path / "s"), "--config"]
    ended = subprocess.run([*command, str(tmp_path / "enclave.toml")], capture_output=True, text=True, timeout=60)
    # What is missing depends on the machine; a machine with genuine GPUs lacks the manifests.
    words = ("nvidia-ml-py", "NVIDIA driver", "confidential", "manifest", "GPU")
    assert ended.returncode == 1 and any(word in ended.stderr.splitlines()[-1] for word in words)
    assert not (tmp_path / "s").exists(), "it listened before it knew"


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ({}, "manifests"),
        ("x", "manifests"),
        ({"manifests": "relative"}, "absolute"),
        ({"manifests": "/m", "min_drivers": "1"}, "min_drivers"),
        ({"manifests": "/m", "min_driver": "x"}, "min_driver"),
    ],
)
def test_g18_gpu_tables_that_are_refused(table: object, word: str) -> None:
    with pytest.raises(enclave_config.ConfigError, match=word):
        enclave_config.parse({**TABLE, "gpu": table}, where="c")


# ---- the driver


class NvmlError(Exception):
    def __init__(self, value: int, text: str) -> None:
        super().__init__(text)
        self.value = value


def fake_nvml(**changes: Any) -> Any:
    """The calls of `pynvml` that are used, with structures as ctypes fills them: larger than their content."""
    ready = [0]
    chain = b"".join(x509.load_der_x509_certificate(each).public_bytes(Encoding.PEM) for each in devices()[0].chain)

    def report(handle: int, nonce: bytes) -> Any:
        raw = devices()[handle].report(nonce)
        return SimpleNamespace(attestationReport=list(raw) + [0] * 99, attestationReportSize=len(raw))

    return SimpleNamespace(
        **{
            "NVMLError": NvmlError,
            "NVML_ERROR_DRIVER_NOT_LOADED": 9,
            "NVML_ERROR_NOT_SUPPORTED": 3,
            "NVML_CC_SYSTEM_FEATURE_ENABLED": 1,
            "NVML_CC_SYSTEM_ENVIRONMENT_PROD": 2,
            "NVML_CC_SYSTEM_DEVTOOLS_MODE_OFF": 0,
            "NVML_CC_ACCEPTING_CLIENT_REQUESTS_TRUE": 1,
            "NVML_CC_ACCEPTING_CLIENT_REQUESTS_FALSE": 0,
            "nvmlInit": lambda: None,
            "nvmlShutdown": lambda: None,
            "nvmlSystemGetDriverVersion": lambda: "570.10.02",
            "nvmlSystemGetConfComputeState": lambda: SimpleNamespace(ccFeature=1, environment=2, devToolsMode=0),
            "nvmlSystemGetConfComputeGpusReadyState": lambda: ready[0],
            "nvmlSystemSetConfComputeGpusReadyState": lambda state: ready.__setitem__(0, state),
            "nvmlDeviceGetCount": lambda: 1,
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetConfComputeGpuCertificate": lambda handle: SimpleNamespace(
                attestationCertChain=list(chain) + [0] * 99, attestationCertChainSize=len(chain)
            ),
            "nvmlDeviceGetConfComputeGpuAttestationReport": report,
            **changes,
        }
    )


def test_evidence_of_the_driver_is_what_the_envelope_holds() -> None:
    driver = Nvml(fake_nvml())
    state = driver.state()
    assert state == DriverState("570.10.02", 1, True, True, False, False) and state.lacks() == ()
    raw = driver.evidence(m.NONCE).to_bytes()
    collateral = m.mirror().collateral(devices()[0])
    assert verify_gpu(raw, collateral, GpuPolicy(), NOW, m.NONCE, m.mirror().roots).accepted
    driver.accept_work(True)
    assert driver.state().accepting
    driver.accept_work(False)
    assert not driver.state().accepting
    with pytest.raises(ValueError, match="32 bytes"):
        driver.evidence(b"short")


def raising(value: int, text: str) -> Callable[..., None]:
    def call(*_: Any) -> None:
        raise NvmlError(value, text)

    return call


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"nvmlInit": raising(9, "Driver Not Loaded")}, "Driver Not Loaded; load it with `modprobe nvidia`"),
        (
            {"nvmlDeviceGetConfComputeGpuCertificate": raising(3, "Not Supported")},
            "Not Supported; confidential computing",
        ),
        ({"nvmlDeviceGetConfComputeGpuCertificate": raising(77, "odd")}, "odd; see `nvidia-smi -q`"),
        ({"nvmlDeviceGetCount": lambda: 0}, "0 GPUs"),
        ({"nvmlDeviceGetConfComputeGpuCertificate": lambda _: SimpleNamespace()}, "too old"),
        (
            {
                "nvmlDeviceGetConfComputeGpuCertificate": lambda _: SimpleNamespace(
                    attestationCertChain=[65] * 9, attestationCertChainSize=9
                )
            },
            "not in PEM",
        ),
    ],
)
def test_g18_what_the_driver_lacks_is_named_with_its_cure(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(GpuUnavailable, match=word):
        Nvml(fake_nvml(**changes)).evidence(m.NONCE)


def test_g18_a_machine_without_the_binding_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(GpuUnavailable, match=r"cocoon\[gpu\]"):
        Nvml().state()


def test_g18_an_agent_without_manifests_says_what_to_configure(tmp_path: Path) -> None:
    def shown(folder: Path | None) -> str:
        return Attesting(None, None, None, None, None, folder)._gpu_collateral()  # type: ignore[arg-type]

    with pytest.raises(NotAttested, match="gpu_manifests is not configured"):
        shown(None)
    with pytest.raises(NotAttested, match="of no use"):
        shown(tmp_path / "none")
    assert json.loads(shown(tmp_path))["manifests"] == {}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "developer tools off; it takes work once"),
        ({"nvmlInit": raising(9, "Driver Not Loaded")}, "modprobe nvidia"),
        (
            {"nvmlSystemGetConfComputeState": lambda: SimpleNamespace(ccFeature=0, environment=0, devToolsMode=0)},
            "--set-cc-mode=on --reset",
        ),
        (
            {"nvmlSystemGetConfComputeState": lambda: SimpleNamespace(ccFeature=1, environment=2, devToolsMode=1)},
            "developer-tools mode is on",
        ),
        (
            {"nvmlSystemGetConfComputeState": lambda: SimpleNamespace(ccFeature=1, environment=1, devToolsMode=0)},
            "production hardware",
        ),
    ],
)
def test_the_doctor_names_what_a_gpu_machine_lacks(changes: dict[str, Any], word: str) -> None:
    findings = list(gpu_driver(Nvml(fake_nvml(**changes))))
    assert any(word in one.text for one in findings)
    assert all(one.mark is Mark.OK for one in findings) is (not changes)
