"""A member's judgement: the same for everybody, and no to everything that the evidence does not prove."""

from __future__ import annotations

import time
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest
from pytoniq_core import Cell

from attestation.committee import NotAnswerable, Opinion, bundled_policy, judge
from attestation.evidence import Evidence, Kind
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee
from attestation.snp import products
from attestation.snp.products import Product, tcb_components
from attestation.snp.report import measurement
from tests.support.snp_mirror import CHIP, NOW, TCB, Mirror
from worker.enclave.judge import answer_to
from worker.enclave.keys import Keys
from worker.messages import Failed, Judge, Judged
from wrappers.cells import to_boc
from wrappers.committee import CommitteeVerdict, Question
from wrappers.documents import document_cell
from wrappers.signed import verify

MIRROR = Mirror(Product.GENOA)
BINDING = Binding(b"n" * 32, b"o" * 32, 41, b"k" * 32, bytes(32), 1_000, b"r" * 32)
FLOORS = "\n".join(f"{name} = {getattr(TCB[Product.GENOA], name)}" for name in tcb_components(Product.GENOA))
POLICY = bundled_policy() + f"\n[snp.floors.genoa]\n{FLOORS}\n".encode()
PLATFORM = sha256(CHIP[Product.GENOA]).digest()


@pytest.fixture(autouse=True)
def mirror_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's roots are replaced by the mirror's for these tests only."""
    roots = {product: Mirror(product).root for product in Product}
    monkeypatch.setattr(products, "root", roots.__getitem__)


def evidence_of(binding: Binding = BINDING, **report: Any) -> bytes:
    raw = MIRROR.report(report_data=binding.report_data(), **report)
    return Evidence(Kind.SEV_SNP, raw, binding).to_json().encode()


def asked(evidence: Cell, collateral: Cell, policy: bytes) -> Question:
    return Question(
        network=BINDING.network_id,
        node=BINDING.node,
        epoch=BINDING.node_epoch,
        key=BINDING.signing_key,
        attested_until=NOW + 86_400,
        measurement=measurement(b"\x11" * 48),
        platform=PLATFORM,
        evidence=bytes(evidence.hash),
        collateral=bytes(collateral.hash),
        policy=sha256(policy).digest(),
        asked_at=NOW,
        block_seqno=BINDING.block_seqno,
        block_root_hash=BINDING.block_root_hash,
    )


def opinion(
    shown: bytes | None = None, collateral: bytes | None = None, policy: bytes = POLICY,
    names: dict[str, bytes] | None = None, **changes: Any,
) -> Opinion:  # fmt: skip
    """`changes`: what the question says instead."""
    evidence = document_cell(shown if shown is not None else evidence_of())
    amd = document_cell(collateral if collateral is not None else MIRROR.collateral().to_json().encode())
    return judge(replace(asked(evidence, amd, policy), **(names or {}), **changes), evidence, amd, policy)


def test_a_genuine_machine_is_accepted() -> None:
    assert opinion() == Opinion(True)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"node": b"\x01" * 32}, "node"),
        ({"epoch": 42}, "epoch"),
        ({"key": b"\x01" * 32}, "signing key"),
        ({"network": b"\x01" * 32}, "network"),
        ({"platform": b"\x01" * 32}, "platform"),
        ({"measurement": b"\x01" * 32}, "measurement"),
        ({"attested_until": NOW + 8 * 86_400}, "holds until"),
        ({"block_root_hash": b"\x01" * 32}, "block"),
        ({"block_seqno": 1_100}, "block"),
        ({"asked_at": NOW + 30 * 365 * 86_400}, ""),
    ],
)
def test_g12_whatever_the_evidence_does_not_say_is_a_no(change: dict[str, Any], word: str) -> None:
    found = opinion(**change)
    assert not found.accepted and any(word in reason for reason in found.reasons), found


@pytest.mark.parametrize(
    "report",
    [{"guest_policy": 0x3_00_00 | 55 | 1 << 8 | 1 << 19}, {"host_data": b"\x01" * 32}, {"vmpl": 1},
     {"launch_digest": b"\x12" * 48}, {"key": "another chip"}, {"id_key_digest": b"\x01" * 48}],
)  # fmt: skip
def test_g12_a_machine_that_is_not_as_it_should_be_is_a_no(report: dict[str, Any]) -> None:
    assert not opinion(evidence_of(**report)).accepted


def test_the_bundled_policy_vouches_for_no_line_without_a_floor() -> None:
    found = opinion(policy=bundled_policy())
    assert not found.accepted and any("floor" in reason for reason in found.reasons)


def test_g14_simulated_evidence_and_quotes_never_pass_here() -> None:
    quote = SimulatedTee(b"machine").quote(BINDING.report_data())
    simulated = mint(NOW).to_json().encode()
    for kind in (Kind.SIMULATED, Kind.TDX):
        shown = Evidence(kind, quote, BINDING).to_json().encode()
        for collateral in (simulated, None):
            found = opinion(
                shown, collateral, policy=POLICY.replace(b"allow_simulated = false", b"allow_simulated = true")
            )
            assert not found.accepted and any("sev-snp alone" in reason for reason in found.reasons)


@pytest.mark.parametrize("shown", [b"", b"{}", b"\xff" * 300, b"[" * 5000])
def test_g12_nonsense_is_a_no_and_not_silence(shown: bytes) -> None:
    assert not opinion(shown).accepted
    assert not opinion(collateral=shown).accepted


@pytest.mark.parametrize("what", ["evidence", "collateral", "policy"])
def test_who_lacks_what_the_question_names_says_nothing(what: str) -> None:
    with pytest.raises(NotAnswerable, match=what):
        opinion(names={what: b"\x01" * 32})


def test_the_answer_does_not_depend_on_when_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    before = opinion()
    monkeypatch.setattr(time, "time", lambda: NOW + 50 * 365 * 86_400.0)
    assert opinion() == before


# ------------------------------------------------------------------------------------------------ in the enclave


def order_of(question: Question, evidence: Cell, collateral: Cell) -> Judge:
    return Judge(7, *(to_boc(each) for each in (question.to_cell(), evidence, collateral)))


async def test_the_enclave_signs_its_own_answer_and_nothing_else() -> None:
    evidence, amd = document_cell(evidence_of()), document_cell(MIRROR.collateral().to_json().encode())
    question = asked(evidence, amd, POLICY)
    keys = Keys(3600)
    for named, accepted in ((question, True), (replace(question, platform=b"\x01" * 32), False)):
        answer = await answer_to(order_of(named, evidence, amd), BINDING.network_id, keys, POLICY)
        assert isinstance(answer, Judged) and answer.order == 7
        assert answer.accepted == accepted == (not answer.reasons)
        assert verify(CommitteeVerdict(named.hash, accepted), answer.signature, keys.public)


async def test_the_enclave_judges_by_the_policy_that_it_was_measured_with() -> None:
    evidence, amd = document_cell(evidence_of()), document_cell(MIRROR.collateral().to_json().encode())
    order = order_of(asked(evidence, amd, POLICY), evidence, amd)
    refused = await answer_to(order, BINDING.network_id, Keys(3600))
    assert isinstance(refused, Failed) and "policy" in refused.cause
    refused = await answer_to(order, b"\x01" * 32, Keys(3600), POLICY)
    assert isinstance(refused, Failed) and "network" in refused.cause
    refused = await answer_to(replace(order, question=to_boc(evidence)), BINDING.network_id, Keys(3600), POLICY)
    assert isinstance(refused, Failed) and "question" in refused.cause
