"""Verdicts on simulated evidence: the format and code are the real ones, so these refusals hold for real quotes."""

from __future__ import annotations

import base64
import dataclasses
from hashlib import sha256
from typing import Any

import dcap_qvl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation import hardware, machine, trust_roots
from attestation import verify as verify_module
from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind, gpu_evidence_hash
from attestation.policy import MAINNET_GLOBAL_ID, AllowedImage, Policy, Tier
from attestation.quote import parse
from attestation.report_data import Binding
from attestation.simulated import pki
from attestation.simulated.collateral import ISSUED_BEFORE_SECONDS, VALIDITY_SECONDS, Findings, mint
from attestation.simulated.platform import Platform, sgx_extension
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.trust_roots import root
from attestation.verify import Block, EvidenceRejected, Expected, Verdict, verify

NOW = 1_790_000_000
DEVNET = -7001
BINDING = Binding(
    network_id=b"n" * 32,
    node=b"o" * 32,
    node_epoch=41,
    signing_key=b"k" * 32,
    gpu_evidence_hash=bytes(32),
    block_seqno=1_000,
    block_root_hash=b"r" * 32,
)
TEE = SimulatedTee(b"a test machine")
EXPECTED = Expected(DEVNET, BINDING.network_id, BINDING.node, BINDING.node_epoch, BINDING.signing_key)
BLOCK = Block(BINDING.block_seqno, BINDING.block_root_hash, NOW - 100)
POLICY = Policy(
    images=(AllowedImage("test image", TEE.registers.measurement),),
    max_age_seconds=3_600,
    tiers=frozenset({Tier.SIMULATED}),
    allow_simulated=True,
)
COLLATERAL = mint(NOW)
OTHER = b"\xee" * 32


def evidence_of(tee: SimulatedTee = TEE, binding: Binding = BINDING, **changes: Any) -> Evidence:
    return Evidence(
        **{"kind": Kind.SIMULATED, "quote": tee.quote(binding.report_data()), "binding": binding, **changes}
    )


EVIDENCE = evidence_of()


def judge(evidence: Evidence = EVIDENCE, **changes: Any) -> Verdict:
    arguments: dict[str, Any] = {"collateral": COLLATERAL, "policy": POLICY, "now": NOW}
    keywords: dict[str, Any] = {"expected": EXPECTED, "block": BLOCK}
    for name, value in changes.items():
        (keywords if name in keywords else arguments)[name] = value
    return verify(evidence, **arguments, **keywords)


def refused(verdict: Verdict, word: str) -> None:
    assert not verdict.accepted
    assert any(word in reason for reason in verdict.reasons), verdict.reasons
    # Nothing of a rejected verdict may be usable by a caller that forgets to look.
    assert verdict == Verdict(False, verdict.reasons)
    with pytest.raises(EvidenceRejected, match=r"\w"):
        verdict.require()


def test_genuine_simulated_evidence_is_accepted_and_named() -> None:
    verdict = judge()
    assert verdict.accepted and verdict.reasons == () and verdict.require() is verdict
    assert verdict.simulated and verdict.tier is Tier.SIMULATED
    assert verdict.signing_key == BINDING.signing_key
    assert verdict.measurement == TEE.registers.measurement
    assert verdict.platform == sha256(TEE.platform.ppid).digest() == TEE.platform_id
    assert verdict.attested_until == BLOCK.time + POLICY.max_validity_seconds
    assert verdict.tcb_status == "UpToDate" and verdict.block_checked


def test_attested_until_is_the_earliest_end() -> None:
    assert judge(collateral=mint(NOW, validity_seconds=500)).attested_until == NOW + 500


def test_verdict_is_a_function_of_its_inputs() -> None:
    assert judge() == judge(evidence_of())


# ---------------------------------------------------------------------------------------------------------------- G14


def test_g14_simulated_is_refused_without_the_flag() -> None:
    refused(judge(policy=dataclasses.replace(POLICY, allow_simulated=False)), "allow_simulated")


@given(
    allow=st.booleans(),
    tiers=st.frozensets(st.sampled_from(list(Tier))),
    age=st.integers(1, 10**9),
    required=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_g14_simulated_is_refused_on_mainnet_whatever_the_policy(
    allow: bool, tiers: frozenset[Tier], age: int, required: bool
) -> None:
    policy = dataclasses.replace(
        POLICY, allow_simulated=allow, tiers=tiers, max_age_seconds=age, block_required=required
    )
    expected = dataclasses.replace(EXPECTED, global_id=MAINNET_GLOBAL_ID)
    verdict = judge(policy=policy, expected=expected)
    refused(verdict, "simulated")


def test_g14_simulated_quote_does_not_pass_as_hardware() -> None:
    refused(judge(evidence_of(kind=Kind.TDX)), "pinned root")


def test_g14_the_flag_does_not_make_the_test_root_hardware() -> None:
    policy = dataclasses.replace(POLICY, tiers=frozenset({Tier.CPU, Tier.GPU}))
    refused(judge(policy=policy), "tier simulated")


# ---------------------------------------------------------------------------------------------------------------- G12


@pytest.mark.parametrize(
    "field", ["network_id", "node", "node_epoch", "signing_key", "gpu_evidence_hash", "block_seqno", "block_root_hash"]
)
def test_g12_a_changed_binding_field_does_not_match_the_quote(field: str) -> None:
    other = 7 if isinstance(getattr(BINDING, field), int) else OTHER
    forged = dataclasses.replace(EVIDENCE, binding=dataclasses.replace(BINDING, **{field: other}))
    refused(judge(forged), "REPORTDATA")


@pytest.mark.parametrize("field", ["network_id", "node", "node_epoch", "signing_key"])
def test_g12_evidence_for_something_else_is_refused(field: str) -> None:
    other = 7 if isinstance(getattr(BINDING, field), int) else OTHER
    honest = evidence_of(binding=dataclasses.replace(BINDING, **{field: other}))
    verdict = judge(honest)
    refused(verdict, f"evidence is for {field.replace('_', ' ')}")
    assert len(verdict.reasons) == 1


def test_g12_evidence_that_introduces_a_key_is_accepted_where_none_is_expected() -> None:
    assert judge(expected=dataclasses.replace(EXPECTED, signing_key=None)).accepted


@pytest.mark.parametrize(
    ("block", "word"),
    [
        (dataclasses.replace(BLOCK, root_hash=OTHER), "no masterchain block"),
        (dataclasses.replace(BLOCK, seqno=999), "no masterchain block"),
        (dataclasses.replace(BLOCK, time=NOW - 3_601), "stale"),
        (dataclasses.replace(BLOCK, time=NOW + 61), "future"),
        (None, "not looked up"),
    ],
)
def test_g12_stale_or_unknown_block_is_refused(block: Block | None, word: str) -> None:
    refused(judge(block=block), word)


def test_g12_block_age_border() -> None:
    assert judge(block=dataclasses.replace(BLOCK, time=NOW - 3_600)).accepted
    assert judge(block=dataclasses.replace(BLOCK, time=NOW + 60)).accepted


def test_a_policy_may_do_without_the_block_and_the_verdict_says_so() -> None:
    verdict = judge(policy=dataclasses.replace(POLICY, block_required=False), block=None)
    assert verdict.accepted and not verdict.block_checked


def test_g12_debug_guest_is_refused() -> None:
    debug = dataclasses.replace(TEE.registers, td_attributes=bytes.fromhex("0100001000000000"))
    refused(judge(evidence_of(SimulatedTee(b"a test machine", debug))), "ebug")


@pytest.mark.parametrize("attributes", ["0200001000000000", "0000003000000000", "0000000000000000", "8000001000000000"])
def test_g12_dangerous_td_attributes_are_refused(attributes: str) -> None:
    registers = dataclasses.replace(TEE.registers, td_attributes=bytes.fromhex(attributes))
    assert not judge(evidence_of(SimulatedTee(b"a test machine", registers))).accepted


def test_g12_wrong_measurement_is_refused() -> None:
    refused(judge(evidence_of(SimulatedTee(b"a test machine", Registers.of_image("another")))), "allow-list")
    refused(judge(policy=dataclasses.replace(POLICY, images=())), "allow-list")


@pytest.mark.parametrize("register", range(5))
def test_g12_every_measured_register_counts(register: int) -> None:
    registers = [TEE.registers.mrtd, *TEE.registers.rtmrs]
    registers[register] = b"\x01" * 48
    changed = Registers(registers[0], (registers[1], registers[2], registers[3], registers[4]))
    refused(judge(evidence_of(SimulatedTee(b"a test machine", changed))), "allow-list")


@pytest.mark.parametrize("register", ["mr_config_id", "mr_owner", "mr_owner_config"])
def test_g12_launch_configuration_is_pinned(register: str) -> None:
    changed = dataclasses.replace(TEE.registers, **{register: b"\x01" * 48})
    evidence = evidence_of(SimulatedTee(b"a test machine", changed))
    refused(judge(evidence), register)
    image = dataclasses.replace(POLICY.images[0], **{register: b"\x01" * 48})
    assert judge(evidence, policy=dataclasses.replace(POLICY, images=(image,))).accepted
    refused(judge(policy=dataclasses.replace(POLICY, images=(image,))), register)


def test_g12_revoked_platform_is_refused() -> None:
    revoked = mint(NOW, findings=Findings(revoked=(TEE.platform.pck.certificate,)))
    refused(judge(collateral=revoked), "Revoked")
    another = mint(NOW, findings=Findings(revoked=(SimulatedTee(b"another").platform.pck.certificate,)))
    assert judge(collateral=another).accepted


def test_g12_denied_platform_is_refused() -> None:
    refused(judge(policy=dataclasses.replace(POLICY, denied_platforms=frozenset({TEE.platform_id}))), "deny-list")


@pytest.mark.parametrize("status", ["OutOfDate", "SWHardeningNeeded", "ConfigurationNeeded"])
def test_g12_tcb_status_outside_the_policy_is_refused(status: str) -> None:
    collateral = mint(NOW, findings=Findings(tcb_status=status, advisory_ids=("INTEL-SA-00001",)))
    refused(judge(collateral=collateral), status)
    lax = dataclasses.replace(POLICY, tcb_statuses=frozenset({"UpToDate", status}))
    verdict = judge(collateral=collateral, policy=lax)
    assert verdict.accepted and verdict.tcb_status == status and verdict.advisory_ids == ("INTEL-SA-00001",)
    denying = dataclasses.replace(lax, denied_advisories=frozenset({"INTEL-SA-00001"}))
    refused(judge(collateral=collateral, policy=denying), "INTEL-SA-00001")


def test_g12_revoked_tcb_is_refused_whatever_the_policy() -> None:
    lax = dataclasses.replace(POLICY, tcb_statuses=frozenset({"UpToDate", "Revoked"}))
    refused(judge(collateral=mint(NOW, findings=Findings(tcb_status="Revoked")), policy=lax), "Revoked")


def test_g12_platform_below_every_tcb_level_is_refused() -> None:
    refused(judge(collateral=mint(NOW, findings=Findings(required_pce_svn=14))), "No matching TCB level")


def test_g12_old_collateral_set_is_refused() -> None:
    refused(judge(policy=dataclasses.replace(POLICY, min_evaluation_number=19)), "evaluation number")


def test_g12_collateral_time_borders() -> None:
    begin, end = NOW - ISSUED_BEFORE_SECONDS, NOW + VALIDITY_SECONDS
    wide = dataclasses.replace(POLICY, max_age_seconds=10**8, max_validity_seconds=10**8)
    for moment, accepted in ((begin - 1, False), (begin, True), (end - 1, True), (end, False), (end + 1, False)):
        verdict = judge(policy=wide, now=moment, block=dataclasses.replace(BLOCK, time=begin))
        assert verdict.accepted is accepted, (moment - begin, verdict.reasons)
        if accepted:
            assert verdict.attested_until == end


def test_g12_verdict_ends_with_the_cap_of_the_policy() -> None:
    short = dataclasses.replace(POLICY, max_validity_seconds=100)
    refused(judge(policy=short), "it ended at")
    assert judge(policy=dataclasses.replace(POLICY, max_validity_seconds=101)).attested_until == NOW + 1


def test_g12_an_extracted_platform_key_cannot_sign_its_own_tcb_info() -> None:
    chain = TEE.platform.pck.pem + pki.platform_ca().pem + pki.root().pem
    forged = mint(NOW, signer=TEE.platform.pck, signer_chain=chain)
    # The library alone lets it pass: the chain is genuine, only the office is wrong. This is why offices are checked.
    library = hardware._library_form(forged)
    assert dcap_qvl.verify_with_root_ca(EVIDENCE.quote, library, root(Kind.SIMULATED).der, NOW).status == "UpToDate"
    refused(judge(collateral=forged), "3 certificates, expected 2")


def test_g12_only_the_tcb_signer_signs_tcb_info() -> None:
    other = pki._below_root("Intel SGX Another Office", path_length=None)
    for field in ("tcb_info", "qe_identity"):
        signature = pki.raw_signature(other.key, getattr(COLLATERAL, field).encode())
        changes = {f"{field}_signature": signature, f"{field}_issuer_chain": other.pem + pki.root().pem}
        refused(judge(collateral=dataclasses.replace(COLLATERAL, **changes)), "TCB Signing")


def test_g12_only_a_pck_certificate_certifies_a_quote(monkeypatch: pytest.MonkeyPatch) -> None:
    issue = pki._issue
    monkeypatch.setattr(pki, "_issue", lambda name, *rest, **options: issue("Not a PCK", *rest, **options))
    refused(judge(evidence_of(SimulatedTee(b"a test machine"))), "PCK certificate")


def test_g12_collateral_for_another_pce_is_refused() -> None:
    tcb_info = COLLATERAL.tcb_info.replace('"pceId":"0000"', '"pceId":"0001"')
    signature = pki.raw_signature(pki.tcb_signer().key, tcb_info.encode())
    refused(judge(collateral=dataclasses.replace(COLLATERAL, tcb_info=tcb_info, tcb_info_signature=signature)), "PCE")


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Collateral)])
def test_g12_missing_collateral_is_refused(field: str) -> None:
    empty = type(getattr(COLLATERAL, field))()
    verdict = judge(collateral=dataclasses.replace(COLLATERAL, **{field: empty}))
    # The PCK CRL issuer's chain is inside the quote as well; the library takes it from there.
    assert verdict.accepted is (field == "pck_crl_issuer_chain")


@pytest.mark.parametrize("field", ["tcb_info", "qe_identity"])
def test_g12_altered_collateral_is_refused(field: str) -> None:
    text = getattr(COLLATERAL, field).replace('"tcbStatus":"UpToDate"', '"tcbStatus": "UpToDate"', 1)
    assert text != getattr(COLLATERAL, field)
    refused(judge(collateral=dataclasses.replace(COLLATERAL, **{field: text})), "ignature")


def test_g12_another_attestation_key_is_refused() -> None:
    """A forger re-signs a changed report with his own key and puts that key into the quote."""
    quote = bytearray(EVIDENCE.quote)
    forger = pki.derive_key("forger")
    body_end = 48 + 584
    quote[body_end - 64 : body_end] = dataclasses.replace(BINDING, signing_key=OTHER).report_data()
    quote[body_end + 4 : body_end + 132] = pki.raw_signature(forger, bytes(quote[:body_end])) + pki.raw_public_key(
        forger
    )
    evidence = Evidence(Kind.SIMULATED, bytes(quote), dataclasses.replace(BINDING, signing_key=OTHER))
    refused(judge(evidence, expected=dataclasses.replace(EXPECTED, signing_key=OTHER)), "QE report hash mismatch")


def test_g12_every_flipped_byte_of_a_quote_is_refused() -> None:
    for place in range(len(EVIDENCE.quote)):
        quote = bytearray(EVIDENCE.quote)
        quote[place] ^= 1 << place % 8
        verdict = judge(dataclasses.replace(EVIDENCE, quote=bytes(quote)))
        assert not verdict.accepted, f"byte {place} may be changed"


@given(st.binary(max_size=700))
@settings(max_examples=60, deadline=None)
def test_g12_junk_is_refused_with_words(junk: bytes) -> None:
    for quote in (junk or b"\0", EVIDENCE.quote[: len(junk)] or b"\0", EVIDENCE.quote + junk + b"\1"):
        verdict = judge(dataclasses.replace(EVIDENCE, quote=quote))
        assert not verdict.accepted and verdict.reasons[0]


def test_padding_after_the_quote_is_tolerated_when_zero() -> None:
    assert judge(dataclasses.replace(EVIDENCE, quote=EVIDENCE.quote + bytes(70))).accepted
    refused(judge(dataclasses.replace(EVIDENCE, quote=EVIDENCE.quote + bytes(69) + b"\1")), "padding")


@pytest.mark.parametrize("now", [-1, 2**64, 0])
def test_absurd_times_are_refused(now: int) -> None:
    assert not judge(now=now).accepted


def test_a_panic_in_the_quote_library_is_a_rejection(monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def burst(*_: object) -> None:
        raise Panic("called `Option::unwrap()` on a `None` value")

    monkeypatch.setattr(hardware.dcap_qvl, "verify_with_root_ca", burst)
    refused(judge(), "unwrap")


# --------------------------------------------------------------------------------------------------------------- tiers


def test_gpu_evidence_must_be_the_bound_one() -> None:
    raw = b"gpu evidence"
    binding = dataclasses.replace(BINDING, gpu_evidence_hash=gpu_evidence_hash(raw))
    assert judge(evidence_of(binding=binding, gpu_evidence=raw)).accepted
    refused(judge(evidence_of(binding=binding)), "GPU evidence")
    refused(judge(evidence_of(binding=binding, gpu_evidence=raw + b"!")), "GPU evidence")
    refused(judge(evidence_of(gpu_evidence=raw)), "GPU evidence")


def test_tier_gpu_needs_an_image_that_verifies_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b"gpu evidence"
    binding = dataclasses.replace(BINDING, gpu_evidence_hash=gpu_evidence_hash(raw))
    evidence = evidence_of(binding=binding, gpu_evidence=raw, kind=Kind.TDX)
    plain = POLICY.images[0]
    careful = dataclasses.replace(plain, verifies_gpu=True)
    assert verify_module._tier(evidence, plain) is Tier.CPU
    assert verify_module._tier(evidence, careful) is Tier.GPU
    assert verify_module._tier(dataclasses.replace(EVIDENCE, kind=Kind.TDX), careful) is Tier.CPU
    assert verify_module._tier(dataclasses.replace(evidence, kind=Kind.SIMULATED), careful) is Tier.SIMULATED


# ----------------------------------------------------------------------------------------------------- simulated TEE


def test_simulated_tee_is_determined_by_its_secret() -> None:
    assert SimulatedTee(b"one").quote(bytes(64)) == SimulatedTee(b"one").quote(bytes(64))
    assert SimulatedTee(b"one").platform_id != SimulatedTee(b"two").platform_id
    with pytest.raises(ValueError, match="64 bytes"):
        TEE.quote(bytes(63))
    with pytest.raises(ValueError, match="secret"):
        Platform.from_secret(b"")


def test_simulated_quote_has_the_real_layout() -> None:
    library = dcap_qvl.parse_quote(EVIDENCE.quote)
    ours = parse(EVIDENCE.quote)
    assert library.is_tdx() and library.header.version == ours.version == 4
    assert library.ca() == "platform"
    assert library.report.mr_td == ours.mrtd
    assert library.report.report_data == ours.report_data == BINDING.report_data()
    assert (library.report.rt_mr0, library.report.rt_mr3) == (ours.rtmrs[0], ours.rtmrs[3])
    assert library.pck_extension().ppid == TEE.platform.ppid


def test_committed_simulated_root_is_the_one_derived_from_the_phrase() -> None:
    from cryptography.hazmat.primitives.serialization import Encoding

    assert pki.root().certificate.public_bytes(Encoding.DER) == root(Kind.SIMULATED).der
    assert base64.b64encode(root(Kind.TDX).der) != base64.b64encode(root(Kind.SIMULATED).der)


def test_g12_a_platform_without_identity_is_refused() -> None:
    tee = SimulatedTee(b"a test machine")
    nobody = pki.pck_certificate(tee.platform.pck.key, sgx_extension(bytes(16)))
    tee.platform = dataclasses.replace(tee.platform, ppid=bytes(16), pck=nobody)
    refused(judge(evidence_of(tee)), "no PPID")


def test_g12_debug_is_refused_even_if_the_library_let_it_pass() -> None:
    """Second line of defence, reached only if the quote library changes its mind about the debug group."""
    quote = dataclasses.replace(parse(EVIDENCE.quote), td_attributes=bytes.fromhex("0100001000000000"))
    assert any("debug" in fault for fault in machine._image_faults(quote, POLICY.images[0], POLICY))
    assert machine._image_faults(parse(EVIDENCE.quote), POLICY.images[0], POLICY) == []


def test_g12_a_changed_root_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    root.cache_clear()
    monkeypatch.setitem(trust_roots._PINS, Kind.SIMULATED, trust_roots._PINS[Kind.TDX])
    refused(judge(), "not the pinned root")
    root.cache_clear()
