"""GPU evidence as a part of a node's evidence: bound by the quote, verified again where the policy asks."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from types import SimpleNamespace
from typing import Any

import gpu_mirror as m
import pytest

from attestation import policy as policies
from attestation.evidence import Evidence, Kind, gpu_evidence_hash
from attestation.explain import checks
from attestation.gpu import envelope
from attestation.gpu import verify as gpu_verify
from attestation.gpu.policy import GpuPolicy
from attestation.machine import examine
from attestation.policy import AllowedImage, Policy, Tier
from attestation.presented import Presented
from attestation.report_data import NO_GPU, Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee
from attestation.strict import Malformed
from attestation.verify import Block, Expected, Verdict, verify
from client.direct import judge_of
from client.trust import NetworkFacts

NOW, KEY, ROOT_HASH = m.NOW, b"k" * 32, b"r" * 32
TEE = SimulatedTee(b"a machine with GPUs")
EXPECTED = Expected(-7001, b"n" * 32, b"o" * 32, 41, KEY)
BLOCK = Block(1_000, ROOT_HASH, NOW - 30)
IMAGE = AllowedImage("with GPU", TEE.registers.measurement, verifies_gpu=True)
POLICY = Policy(
    (IMAGE,), 3_600, tiers=frozenset({Tier.SIMULATED, Tier.GPU, Tier.CPU}), allow_simulated=True, gpu=GpuPolicy()
)


@pytest.fixture(autouse=True)
def _mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_verify, "nvidia", lambda: m.mirror().roots)


@cache
def devices() -> tuple[Any, Any]:
    return m.mirror().device(), m.mirror().device()


def raw_gpus(*some: Any, key: bytes = KEY, block: bytes = ROOT_HASH) -> bytes:
    return m.envelope(*(some or devices()), nonce=envelope.nonce(key, block))


def evidence_of(raw: bytes, **changes: Any) -> Evidence:
    binding = Binding(b"n" * 32, b"o" * 32, 41, KEY, gpu_evidence_hash(raw), 1_000, ROOT_HASH)
    binding = dataclasses.replace(binding, **changes)
    return Evidence(Kind.SIMULATED, TEE.quote(binding.report_data()), binding, raw)


def judge(evidence: Evidence, policy: Policy = POLICY, **changes: Any) -> Verdict:
    gpu = changes.pop("gpu_collateral", m.mirror().collateral(*devices()))
    return verify(evidence, mint(NOW), policy, NOW, expected=EXPECTED, block=BLOCK, gpu_collateral=gpu)


def refused(verdict: Verdict, word: str) -> None:
    assert verdict == Verdict(False, verdict.reasons)
    assert any(word in reason for reason in verdict.reasons), verdict.reasons


def test_g12_gpus_are_verified_again_and_shown_in_words() -> None:
    verdict = judge(evidence_of(raw_gpus()))
    assert verdict.accepted, verdict.reasons
    assert [gpu.chip for gpu in verdict.gpus] == ["GH100", "GH100"]
    assert all("driver 570.10.02" in gpu.words() for gpu in verdict.gpus)


def test_attested_until_is_not_later_than_what_the_gpus_rely_on() -> None:
    soon = NOW + 60
    lists = tuple(m.crl(each, end=soon) for each in (m.mirror().identity,))
    verdict = judge(evidence_of(raw_gpus()), gpu_collateral=m.mirror().collateral(*devices(), crls=lists))
    assert verdict.attested_until == soon


def test_g12_a_policy_that_asks_takes_no_gpu_on_trust() -> None:
    raw = raw_gpus()
    refused(judge(evidence_of(raw), gpu_collateral=None), "is missing; `cocoon attest manifests")
    refused(judge(evidence_of(raw_gpus(key=b"K" * 32))), "another nonce")
    refused(judge(evidence_of(raw_gpus(block=b"R" * 32))), "another nonce")
    refused(judge(evidence_of(raw_gpus(devices()[0], devices()[0]))), "appears twice")
    refused(judge(evidence_of(b"not what it should be")), "unknown version")
    other = evidence_of(raw)
    refused(judge(dataclasses.replace(other, gpu_evidence=raw_gpus(devices()[0]))), "not the one that REPORTDATA binds")
    # A hash alone, with the evidence withheld, is not a machine without GPUs.
    refused(judge(dataclasses.replace(other, gpu_evidence=b"")), "GPU evidence")
    strict = dataclasses.replace(POLICY, gpu=GpuPolicy(min_driver="999"))
    refused(judge(evidence_of(raw), strict), "older than 999")


def test_a_policy_that_does_not_ask_leaves_it_to_the_image() -> None:
    lax = dataclasses.replace(POLICY, gpu=None)
    verdict = judge(evidence_of(b"anything at all"), lax)
    assert verdict.accepted and verdict.gpus == ()


def test_g12_tier_gpu_needs_image_and_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    # Quotes of real hardware cannot be made here: the simulated root stands in for Intel's behind the kind.
    def as_tdx(evidence: Evidence, *arguments: Any) -> Any:
        return examine(dataclasses.replace(evidence, kind=Kind.SIMULATED), *arguments)

    monkeypatch.setattr("attestation.verify.examine", as_tdx)

    def tier(raw: bytes, policy: Policy = POLICY, **changes: Any) -> Verdict:
        return judge(dataclasses.replace(evidence_of(raw, **changes), kind=Kind.TDX), policy)

    assert tier(raw_gpus()).tier is Tier.GPU
    assert tier(b"", gpu_evidence_hash=NO_GPU).tier is Tier.CPU
    plain = dataclasses.replace(POLICY, images=(dataclasses.replace(IMAGE, verifies_gpu=False),))
    assert tier(raw_gpus(), plain).tier is Tier.CPU
    refused(tier(raw_gpus(key=b"K" * 32)), "another nonce")


def test_explaining_evidence_judges_its_gpus_by_the_same_rule() -> None:
    def told(raw: bytes, policy: Policy = POLICY) -> tuple[str, str]:
        evidence = evidence_of(raw)
        subject = checks.Subject(evidence.kind, evidence.quote, evidence.binding, raw)
        lax = dataclasses.replace(policy, block_required=False)
        gpu = m.mirror().collateral(*devices())
        judged = checks.judge(subject, mint(NOW), lax, NOW, global_id=-7001, gpu_collateral=gpu)
        return next((each.outcome, each.reason) for each in judged.checks if each.what.startswith("GPUs"))

    outcome, words = told(raw_gpus())
    assert outcome is checks.PASSED and words.count("driver 570.10.02") == 2
    outcome, words = told(raw_gpus(key=b"K" * 32))
    assert outcome is checks.FAILED and "another nonce" in words
    outcome, words = told(raw_gpus(), dataclasses.replace(POLICY, gpu=None))
    assert outcome is checks.OPEN and "measured image" in words


def test_a_handshake_leaves_the_gpus_to_the_offer_that_is_judged_before_anything_is_sealed() -> None:
    settings: Any = SimpleNamespace(
        policy=POLICY, allow_simulated=True, facts=NetworkFacts(-7001, b"n" * 32, b"registry")
    )
    evidence = evidence_of(raw_gpus())
    assert judge_of(settings, lambda: NOW)(evidence, mint(NOW)).accepted
    refused(judge(evidence, gpu_collateral=None), "is missing")


def test_policies_name_what_they_ask() -> None:
    document = {"images": [], "max_age_seconds": 60, "tcb_statuses": ["UpToDate"], "tiers": ["gpu"]}
    assert policies.from_document(document).gpu is None
    assert policies.from_document({**document, "gpu": "image"}).gpu is None
    assert policies.from_document({**document, "gpu": "verify"}).gpu == GpuPolicy()
    table = {"min_driver": "550.90.07", "revocation_required": True}
    assert policies.from_document({**document, "gpu": table}).gpu == GpuPolicy("550.90.07", revocation_required=True)
    for wrong in ("yes", 1, {"min": "1"}):
        with pytest.raises(Malformed, match="gpu"):
            policies.from_document({**document, "gpu": wrong})


def test_what_a_node_presents_is_one_document() -> None:
    evidence, gpu = evidence_of(raw_gpus()), m.mirror().collateral(*devices())
    document = {"evidence": json.loads(evidence.to_json()), "collateral": json.loads(mint(NOW).to_json())}
    assert Presented.from_document(document).gpu is None
    whole = Presented.from_document({**document, "gpu_collateral": json.loads(gpu.to_json())})
    assert (whole.evidence, whole.gpu) == (evidence, gpu)
    for wrong in ({}, {**document, "more": 1}, {**document, "gpu_collateral": {}}, {**document, "gpu_collateral": []}):
        with pytest.raises(Malformed):
            Presented.from_document(wrong)
