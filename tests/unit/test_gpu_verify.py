"""Verdicts on GPUs of a mirror hierarchy: every form that no genuine sample shows, and every refusal."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import gpu_mirror as m
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from attestation.gpu import canonical, roots
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import LIMIT_BYTES, DeviceEvidence, GpuEvidence, nonce
from attestation.gpu.opaque import Mode
from attestation.gpu.policy import Architecture, GpuPolicy, from_document
from attestation.gpu.verify import GpuVerdict, verify_gpu
from attestation.strict import Malformed

NOW, NONCE = m.NOW, m.NONCE
MIRROR = m.mirror()


@cache
def hopper() -> Any:
    return MIRROR.device()


@cache
def collateral() -> GpuCollateral:
    return MIRROR.collateral(hopper())


def judge(*devices: Any, **changes: Any) -> GpuVerdict:
    given_ = {
        "evidence": m.envelope(*(devices or (hopper(),))),
        "collateral": collateral(),
        "policy": GpuPolicy(),
        "now": NOW,
        "nonce": NONCE,
        "roots": MIRROR.roots,
        **changes,
    }
    return verify_gpu(**given_)


def refused(verdict: GpuVerdict, *words: str) -> None:
    assert not verdict.accepted and not verdict.gpus and not verdict.expires_at
    assert all(word in "; ".join(verdict.reasons) for word in words), verdict.reasons


def test_g12_a_hopper_gpu_passes_and_says_what_was_not_checked() -> None:
    verdict = judge()
    assert verdict.accepted, verdict.reasons
    (gpu,) = verdict.gpus
    assert (gpu.chip, gpu.architecture, gpu.driver_version) == ("GH100", Architecture.HOPPER, "570.10.02")
    assert (gpu.vbios_version, gpu.mode, gpu.compared) == ("96.00.9F.00.01", Mode.UNSTATED, 40)
    # The signer of the manifests ends first.
    assert verdict.expires_at == NOW + 50 * m.DAY + 1
    assert "revocation NOT CHECKED for" in gpu.words() and "Mirror RIM Signer" in gpu.words()


@pytest.mark.parametrize("chip", ["GB100", "GB202"])
def test_g12_a_blackwell_gpu_passes_with_its_own_forms(chip: str) -> None:
    device = MIRROR.device(chip)
    verdict = judge(device, collateral=MIRROR.collateral(device))
    assert verdict.accepted, verdict.reasons
    assert (verdict.gpus[0].architecture, verdict.gpus[0].mode) == (Architecture.BLACKWELL, Mode.SINGLE)
    refused(judge(device), f"NV_GPU_CC_DRIVER_{chip}_570.10.02 is missing", "rim.attestation.nvidia.com")


def test_g12_every_gpu_must_pass_and_be_another_one() -> None:
    other = MIRROR.device()
    assert len(judge(hopper(), other).gpus) == 2
    refused(judge(hopper(), hopper()), "one GPU appears twice")
    altered = replace(other, measurements={**other.measurements, 3: bytes(48)})
    refused(judge(hopper(), altered), "GPU 1: measurements 3 are not those")


def test_g12_another_attestation_key_does_not_make_another_gpu() -> None:
    again = (
        hopper()
        .authorities[1]
        .issue(
            "GH100 A01 GSP FMC LF", ca=False, extensions=((m.composite_id(hopper().firmware, _key(hopper())), False),)
        )
    )
    twin = replace(hopper(), authorities=(again, *hopper().authorities[1:]))
    assert judge(twin).accepted
    refused(judge(hopper(), twin), "one GPU appears twice")


def _key(device: Any) -> Any:
    return device.authorities[1].key.public_key()


def test_g12_the_nonce_is_this_keys_and_this_blocks() -> None:
    mine = nonce(b"k" * 32, b"b" * 32)
    evidence = m.envelope(hopper(), nonce=mine)
    assert judge(evidence=evidence, nonce=mine).accepted
    for other in (nonce(b"K" * 32, b"b" * 32), nonce(b"k" * 32, b"B" * 32), bytes(32)):
        refused(judge(evidence=evidence, nonce=other), "another nonce")
    with pytest.raises(ValueError, match="32 bytes"):
        nonce(b"k", b"b" * 32)


def test_g12_only_nvidias_roots_count_by_default() -> None:
    refused(judge(roots=None), "pinned root")
    swapped = roots.Roots(MIRROR.roots.manifest, MIRROR.roots.device)
    refused(judge(roots=swapped), "pinned root")
    refused(judge(roots=replace(MIRROR.roots, manifest=MIRROR.roots.device)), "manifest's signer", "pinned root")


def test_g12_a_manifest_signer_cannot_make_a_gpu() -> None:
    rogue = MIRROR.signer_authority.issue("GH100 A01 GSP BROM")
    leaf = rogue.issue("GH100 A01 GSP FMC LF", ca=False)
    device = replace(hopper(), authorities=(leaf, rogue, MIRROR.signer_authority, MIRROR.manifest_root))
    refused(judge(device), "pinned root")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"end": NOW - 1}, "is valid from"),
        ({"start": NOW + 1}, "is valid from"),
        ({"ca": True}, "may not sign reports"),
        ({"ca": True, "every_usage": True}, "may not sign reports"),
        ({"signs": False}, "may not sign reports"),
        ({"curve": ec.SECP256R1()}, "no P-384 key"),
        ({"extensions": ((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\x05\0"), True),)}, "critical"),
        ({"extensions": ()}, "other firmware"),
        ({"extensions": ((m.tcb_info(bytes(48)), False),)}, "other firmware"),
        ({"extensions": ((m.tcb_info(bytes(32)), False),)}, "not one SHA-384 digest"),
    ],
)
def test_g12_leaf_certificates_that_are_refused(options: dict[str, Any], word: str) -> None:
    refused(judge(MIRROR.device(leaf_options=options)), word)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"end": NOW - 1}, "is valid from"),
        ({"ca": False}, "may not sign certificates"),
        ({"ca": False, "every_usage": True}, "may not sign certificates"),
        ({"signs": False}, "may not sign certificates"),
        ({"path_length": 0}, "allows fewer"),
    ],
)
def test_g12_authorities_that_are_refused(options: dict[str, Any], word: str) -> None:
    identity = MIRROR.root.issue("NVIDIA Mirror Identity", **options)
    burnt = identity.issue("GH100 A01 GSP BROM")
    leaf = burnt.issue("GH100 A01 GSP FMC LF", ca=False)
    refused(judge(replace(hopper(), authorities=(leaf, burnt, identity, MIRROR.root)).with_opaque(_20=None)), word)


def test_g12_a_chain_with_a_gap_is_refused() -> None:
    leaf, burnt, identity, root = hopper().authorities
    refused(judge(replace(hopper(), authorities=(leaf, burnt, root))), "issuer is another")
    namesake = MIRROR.root.issue("NVIDIA Mirror Identity")
    refused(judge(replace(hopper(), authorities=(leaf, burnt, namesake, root))), "not signed by the next one")
    refused(judge(replace(hopper(), authorities=(leaf, burnt, identity))), "pinned root")


def test_g12_a_report_signed_by_another_key_is_refused() -> None:
    stranger = MIRROR.device()
    evidence = GpuEvidence((DeviceEvidence(hopper().chain, stranger.report()),)).to_bytes()
    refused(judge(evidence=evidence), "not by the key")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"_3": None}, "does not state its driver version"),
        ({"_3": b"570; rm\0"}, "is no driver version"),
        ({"_6": b"\0" * 7}, "VBIOS version of 7 bytes"),
        ({"_11": b"\x01"}, "neither on nor off"),
        ({"_20": bytes(48)}, "other firmware"),
        ({"_21": b"\xaa"}, "mode protected-pcie is not accepted"),
        ({"_34": b"\x01"}, "does not state its mode"),
        ({"_34": b"\x01", "_36": b"\x03"}, "mode 3 is unknown"),
        ({"_34": b"\x01", "_36": b"\x00", "_21": b"\xaa"}, "contradicts"),
        ({"_34": b"\x01", "_36": b"\x02"}, "mode protected-pcie is not accepted"),
        ({"_35": b"GB100\0"}, "not one that is known here"),
    ],
)
def test_g12_signed_statements_that_are_refused(changes: dict[str, Any], word: str) -> None:
    refused(judge(hopper().with_opaque(**changes)), word)


def test_g12_unknown_chips_are_refused() -> None:
    device = MIRROR.device("GR100")
    refused(judge(device), "chip GR100", "not one that is known")
    assert [Architecture.of(each) for each in ("GH200", "GB1000", "GB", "")] == [None] * 4


def test_g12_gpus_in_different_modes_do_not_go_together() -> None:
    multi = MIRROR.device().with_opaque(_34=b"\x01", _36=b"\x01")
    assert judge(multi).gpus[0].mode is Mode.MULTI
    refused(judge(hopper(), multi), "different modes (multi, unstated)")


def test_g12_protected_pcie_only_where_the_policy_says_so() -> None:
    device = hopper().with_opaque(_21=b"\xaa")
    assert judge(device, policy=GpuPolicy(modes=frozenset({Mode.PROTECTED_PCIE}))).accepted


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ({"min_driver": "570.10.03"}, "driver 570.10.02 is older than 570.10.03"),
        ({"min_driver": "1000.1"}, "older"),
        ({"min_vbios": {"GH100": "96.00.A0.00.00"}}, "VBIOS 96.00.9F.00.01 is older than 96.00.A0.00.00"),
        ({"architectures": ["blackwell"]}, "architecture hopper is not accepted; the policy accepts: blackwell"),
        ({"modes": ["single"]}, "mode unstated is not accepted"),
        ({"revocation_required": True}, "the policy requires it"),
    ],
)
def test_g12_what_a_policy_refuses(policy: dict[str, Any], word: str) -> None:
    refused(judge(policy=from_document(policy, "p")), word)


def test_policies_at_the_border_accept() -> None:
    same = from_document({"min_driver": "570.10.02", "min_vbios": {"GH100": "96.00.9F.00.01", "GB100": "99"}}, "p")
    assert judge(policy=same).accepted
    # Numbers, not texts: 570.9 is older than 570.10, and 9F is more than 9.
    older = from_document({"min_driver": "570.9.99", "min_vbios": {"GH100": "96.00.9.FF.FF"}}, "p")
    assert judge(policy=older).accepted


@pytest.mark.parametrize(
    "document",
    [
        {"min_drivers": "1"},
        {"min_driver": "x"},
        {"min_driver": 5},
        {"min_vbios": "96"},
        {"min_vbios": {"H100": "96"}},
        {"min_vbios": {"GH100": "9G"}},
        {"architectures": []},
        {"architectures": ["ampere"]},
        {"modes": "single"},
        {"revocation_required": "yes"},
    ],
)
def test_g18_policies_that_are_refused_name_the_key(document: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=next(iter(document))):
        from_document(document, "policy gpu")


# ---- measurements and manifests


def manifests(driver: bytes | None = None, vbios: bytes | None = None) -> GpuCollateral:
    names = sorted(collateral().manifests)
    changed = dict(collateral().manifests)
    changed[names[0]] = driver or changed[names[0]]
    changed[names[1]] = vbios or changed[names[1]]
    return GpuCollateral(changed)


def golden(half: int) -> dict[int, tuple[bytes, ...]]:
    return {index: (value,) for index, value in hopper().measurements.items() if index % 2 == half}


def driver_manifest(values: dict[int, tuple[bytes, ...]] | None = None, **options: Any) -> bytes:
    return MIRROR.manifest(values or golden(0), **{"version": "570.10.02", **options})


def test_g12_each_measurement_counts() -> None:
    for index in (0, 7, 39):
        changed = replace(hopper(), measurements={**hopper().measurements, index: b"\xff" * 48})
        refused(judge(changed), f"measurements {index} are not those of driver 570.10.02 and VBIOS 96.00.9F.00.01")
        absent = {each: value for each, value in hopper().measurements.items() if each != index}
        refused(judge(replace(hopper(), measurements=absent)), f"measurements {index} are not")


def test_g12_alternatives_and_inactive_entries() -> None:
    values = {**golden(0), 4: (b"\x01" * 48, hopper().measurements[4], b"\x02" * 48)}
    assert judge(collateral=manifests(driver_manifest(values))).accepted
    values[4] = (b"\x01" * 48, b"\x02" * 48)
    refused(judge(collateral=manifests(driver_manifest(values))), "measurements 4 ")
    inactive = judge(collateral=manifests(driver_manifest(values, inactive=(4,))))
    assert inactive.accepted and inactive.gpus[0].compared == 39
    everything = driver_manifest(inactive=tuple(golden(0)))
    refused(judge(collateral=manifests(everything)), "vouches for nothing")


def test_g12_the_video_decoders_measurement_counts_while_it_is_on() -> None:
    changed = replace(hopper(), measurements={**hopper().measurements, 35: b"\xff" * 48})
    refused(judge(changed), "measurements 35 ")
    off = judge(changed.with_opaque(_11=b"\x55"))
    assert off.accepted and off.gpus[0].compared == 39


def test_g12_both_manifests_may_not_claim_one_measurement() -> None:
    refused(judge(collateral=manifests(driver_manifest({**golden(0), 7: golden(1)[7]}))), "both manifests claim")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"version": "570.10.03"}, "is for version 570.10.03, the GPU reports 570.10.02"),
        ({"product": "GB100"}, "is for GB100"),
        ({"product": ""}, "names no product"),
        ({"version": ""}, "no version"),
    ],
)
def test_g12_manifests_of_something_else(options: dict[str, Any], word: str) -> None:
    refused(judge(collateral=manifests(driver_manifest(**options))), word)


def test_g12_signers_of_manifests_that_are_refused() -> None:
    def by(*chain: Any) -> GpuVerdict:
        return judge(collateral=manifests(driver_manifest(signer=(*chain, MIRROR.manifest_root))))

    authority = MIRROR.signer_authority
    refused(by(authority.issue("late", ca=False, end=NOW - 1), authority), "is valid from")
    refused(by(authority), "may not sign reports or manifests")
    deep = authority.issue("deep")
    refused(by(deep.issue("deeper", ca=False), deep, authority), "allows fewer")
    gpu = hopper().authorities[0]
    refused(
        judge(collateral=manifests(driver_manifest(signer=hopper().authorities))), "manifest's signer", "pinned root"
    )
    refused(by(gpu, MIRROR.identity), "issuer is another")


def test_g12_the_manifests_signature_is_the_named_signers() -> None:
    imposter = replace(MIRROR.signer, key=ec.generate_private_key(ec.SECP384R1()))
    raw = driver_manifest(signer=(imposter, MIRROR.signer_authority, MIRROR.manifest_root))
    refused(judge(collateral=manifests(raw)), "not by the signer that it names")


def test_g12_any_change_of_a_manifest_breaks_it() -> None:
    raw = driver_manifest()
    payload = raw.index(b"<ns0:Payload>")
    for at in [*range(0, 700, 7), *range(payload, len(raw), 331)]:
        changed = bytearray(raw)
        changed[at] ^= 0x01
        if bytes(changed) != raw and not _only_base64_padding(raw, at):
            assert not judge(collateral=manifests(bytes(changed))).accepted, at


def _only_base64_padding(raw: bytes, at: int) -> bool:
    """A newline inside base64, which no signature covers and which decodes to the same."""
    return raw[at : at + 1] in (b"\n", b"=")


WRAP = b"</SoftwareIdentity>"


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda raw: b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + raw, "document type"),
        (lambda raw: raw.replace(WRAP, b"<!-- c -->" + WRAP), "comment"),
        (lambda raw: raw.replace(WRAP, b"<?p?>" + WRAP), "processing instruction"),
        (lambda raw: raw.replace(WRAP, b"<![CDATA[x]]>" + WRAP), "CDATA"),
        (lambda raw: raw.replace(b"<ns0:Payload>", b'<ns0:Payload xml:lang="a">'), "no place in it"),
        (lambda raw: raw.replace(b"<ns0:Payload>", b'<ns0:Payload q:a="a">'), "not declared"),
        (lambda raw: raw.replace(b"<ns0:Payload>", b'<ns0:Payload x="1" x="2">'), "not XML"),
        (lambda raw: raw.replace(WRAP, b"<a>" * 20 + b"</a>" * 20 + WRAP), "too deep"),
        (lambda raw: raw.replace(WRAP, b"<a></a>" * 5000 + WRAP), "too many"),
        (lambda raw: raw + b" " * canonical.LIMIT_BYTES, "more than the limit"),
        (lambda raw: raw.replace(WRAP, raw[raw.index(b"<ds:Signature") :]), "2 of"),
        (lambda raw: raw.replace(b"ecdsa-sha384", b"ecdsa-sha256"), "in another way"),
        (lambda raw: raw.replace(b'URI=""', b'URI="#a"'), "in another way"),
        (lambda raw: raw.replace(b"<ds:DigestValue>", b"<ds:DigestValue>AAAA"), "longer than"),
        (
            lambda raw: raw.replace(b"</ds:SignedInfo>", b"<ds:Reference></ds:Reference></ds:SignedInfo>"),
            "does not hold",
        ),
        (lambda raw: b" ", "not XML"),
        (lambda raw: b"\xff\xfe" + raw.decode().encode("utf-16-le"), "not XML"),
    ],
)
def test_g12_xml_that_manifests_never_are(change: Any, word: str) -> None:
    refused(judge(collateral=manifests(change(driver_manifest()))), word)


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("", "0 of"),
        ('<ns0:Meta ns1:FirmwareManufacturerId="1"></ns0:Meta>', "not NVIDIA's"),
    ],
)
def test_g12_signed_manifests_without_what_is_needed(body: str, word: str) -> None:
    refused(judge(collateral=manifests(driver_manifest(body=body))), word)


@pytest.mark.parametrize(
    ("resource", "word"),
    [
        ('name="a" type="MinSvn"', "upgrade"),
        ('active="True" alternatives="0" index="1" size="48" type="Measurement"', "alternatives"),
        ('active="True" alternatives="1" index="-1" size="48" type="Measurement"', "index"),
        ('active="True" alternatives="1" index="1" size="48" type="Measurement"', "other values than it counts"),
        ('active="True" alternatives="1" index="1" size="32" type="Measurement" ns2:Hash0="00"', "no SHA-384"),
        ('active="true" alternatives="1" index="1" size="48" type="Measurement" ns2:Hash0="00"', "neither active"),
        ('active="True" alternatives="1" index="1" size="48" type="Measurement" ns2:Hash0="00"', "48 bytes in hex"),
    ],
)
def test_g12_signed_entries_that_are_not_understood_are_not_skipped(resource: str, word: str) -> None:
    body = (
        '<ns0:Meta colloquialVersion="570.10.02" product="GH100" ns1:FirmwareManufacturerId="5703"></ns0:Meta>'
        f"<ns0:Payload><ns0:Resource {resource}></ns0:Resource></ns0:Payload>"
    )
    refused(judge(collateral=manifests(driver_manifest(body=body))), word)


# ---- revocation


def all_lists(**options: Any) -> tuple[bytes, ...]:
    issuers = (MIRROR.root, MIRROR.identity, MIRROR.manifest_root, MIRROR.signer_authority)
    return tuple(m.crl(each, **options) for each in issuers)


def with_lists(*crls: bytes, ocsp_: tuple[bytes, ...] = ()) -> GpuCollateral:
    return replace(collateral(), crls=crls, ocsp=ocsp_)


STRICT = GpuPolicy(revocation_required=True)


def test_g12_current_lists_satisfy_and_bound_the_verdict() -> None:
    verdict = judge(collateral=with_lists(*all_lists()), policy=STRICT)
    assert verdict.accepted and verdict.expires_at == NOW + m.DAY
    assert "no certificate of it is revoked" in verdict.gpus[0].words()
    for left_out in range(4):
        some = [each for number, each in enumerate(all_lists()) if number != left_out]
        refused(judge(collateral=with_lists(*some), policy=STRICT), "revocation is not checked for")


def test_g12_old_early_and_foreign_lists_are_as_none() -> None:
    for crls in (
        all_lists(start=NOW - 9, end=NOW - 1),
        all_lists(start=NOW + 1),
        tuple(m.crl(m.issue("NVIDIA Mirror Identity", None)) for _ in range(4)),
    ):
        refused(judge(collateral=with_lists(*crls), policy=STRICT), "revocation is not checked for")


def test_g12_a_revoked_certificate_is_refused_whatever_the_policy() -> None:
    for issuer, revoked in (
        (MIRROR.root, MIRROR.identity),
        (MIRROR.identity, hopper().authorities[1]),
        (MIRROR.signer_authority, MIRROR.signer),
    ):
        refused(judge(collateral=with_lists(m.crl(issuer, revoked))), "was revoked")
        # Also by a list that is over: nothing is ever taken back.
        refused(judge(collateral=with_lists(m.crl(issuer, revoked, start=NOW - 9, end=NOW - 1))), "was revoked")
    forged = m.crl(m.issue("NVIDIA Mirror Identity", None), hopper().authorities[1])
    assert judge(collateral=with_lists(forged)).accepted


def answer(
    about: Any, issuer: Any, signer: Any, status: ocsp.OCSPCertStatus, *, end: int = NOW + m.DAY, certified: Any = None
) -> bytes:
    revoked = status is ocsp.OCSPCertStatus.REVOKED
    builder = (
        ocsp.OCSPResponseBuilder()
        .add_response(
            cert=about.certificate,
            issuer=issuer.certificate,
            algorithm=SHA256(),
            cert_status=status,
            this_update=m.utc(NOW - m.DAY),
            next_update=m.utc(end),
            revocation_time=m.utc(NOW - m.DAY) if revoked else None,
            revocation_reason=x509.ReasonFlags.key_compromise if revoked else None,
        )
        .responder_id(ocsp.OCSPResponderEncoding.HASH, signer.certificate)
    )
    if certified is not None:
        builder = builder.certificates([certified.certificate])
    return builder.sign(signer.key, SHA384()).public_bytes(Encoding.DER)


def test_g12_ocsp_by_the_issuer_or_its_responder() -> None:
    lists = all_lists()
    missing = [lists[0], lists[2], lists[3]]
    burnt, issuer = hopper().authorities[1], MIRROR.identity
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    responder = issuer.issue("OCSP", ca=False, extensions=((usage, False),))
    good = ocsp.OCSPCertStatus.GOOD

    def with_answer(raw: bytes, policy: GpuPolicy = STRICT) -> GpuVerdict:
        return judge(collateral=with_lists(*missing, ocsp_=(raw,)), policy=policy)

    assert with_answer(answer(burnt, issuer, issuer, good)).accepted
    assert with_answer(answer(burnt, issuer, responder, good, certified=responder)).accepted
    mere = issuer.issue("no responder", ca=False)
    stranger = MIRROR.manifest_root.issue("OCSP", ca=False, extensions=((usage, False),))
    old = issuer.issue("OCSP", ca=False, end=NOW - 1, extensions=((usage, False),))
    serving = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    other = issuer.issue("OCSP", ca=False, extensions=((serving, False),))
    for signer in (mere, stranger, old, other):
        refused(with_answer(answer(burnt, issuer, signer, good, certified=signer)), "revocation is not checked")
    refused(with_answer(answer(burnt, issuer, issuer, good, end=NOW)), "revocation is not checked")
    refused(with_answer(answer(issuer, issuer, issuer, good)), "revocation is not checked")
    refused(with_answer(answer(burnt, issuer, issuer, ocsp.OCSPCertStatus.UNKNOWN)), "revocation is not checked")
    refused(with_answer(answer(burnt, issuer, issuer, ocsp.OCSPCertStatus.REVOKED), GpuPolicy()), "was revoked")


def test_g18_unreadable_revocation_data_is_an_error_and_not_nothing() -> None:
    refused(judge(collateral=with_lists(b"junk")), "revocation list cannot be read")
    refused(judge(collateral=with_lists(ocsp_=(b"junk",))), "OCSP response cannot be read")


# ---- documents


def test_g12_the_envelope_has_one_encoding() -> None:
    evidence = GpuEvidence((hopper().evidence(), MIRROR.device().evidence()))
    raw = evidence.to_bytes()
    assert GpuEvidence.from_bytes(raw) == evidence and len(raw) < LIMIT_BYTES
    for broken in (raw[:-1], raw + b"\0", b"\0" + raw[1:], raw[:4] + b"\0", b"", raw + bytes(LIMIT_BYTES)):
        refused(judge(evidence=broken), "GPU evidence")


@given(st.binary(max_size=400), st.integers(0, 5000), st.integers(0, 200))
@settings(max_examples=60, deadline=None)
def test_g18_any_bytes_are_a_refusal_and_no_crash(junk: bytes, at: int, cut: int) -> None:
    raw = m.envelope(hopper())
    changed = raw[: at % len(raw)] + junk + raw[at % len(raw) + cut :]
    if changed != raw:
        verdict = judge(evidence=changed)
        assert not verdict.accepted and verdict.reasons


@pytest.mark.parametrize(
    ("at", "value", "word"),
    [
        (1, 0x60, "not SPDM 1.1 GET_MEASUREMENTS"),
        (2, 0, "not SPDM 1.1 GET_MEASUREMENTS"),
        (3, 1, "not SPDM 1.1 GET_MEASUREMENTS"),
        (36, 8, "slot 8"),
        (36, 1, "another certificate slot"),
        (37, 0x10, "not SPDM 1.1 MEASUREMENTS"),
        (41, 1, "bytes after its end"),
        (45, 2, "appears twice"),
        (45, 0, "reserved"),
        (46, 2, "not DMTF's"),
    ],
)
def test_g12_reports_of_another_shape(at: int, value: int, word: str) -> None:
    report = bytearray(hopper().report())
    report[at] = value
    refused(judge(evidence=GpuEvidence((DeviceEvidence(hopper().chain, bytes(report)),)).to_bytes()), word)


def test_collateral_survives_json_and_is_read_from_a_folder(tmp_path: Path) -> None:
    whole = with_lists(*all_lists(), ocsp_=(b"o",))
    assert GpuCollateral.from_json(whole.to_json()) == whole
    for name, raw in whole.manifests.items():
        (tmp_path / f"{name}.swidtag").write_bytes(raw)
    for number, raw in enumerate(whole.crls):
        (tmp_path / f"{number}.crl").write_bytes(raw)
    (tmp_path / "a.ocsp").write_bytes(b"o")
    (tmp_path / "README").write_text("not read")
    assert GpuCollateral.from_folder(tmp_path) == whole
    with pytest.raises(Malformed, match="cannot be read from"):
        GpuCollateral.from_folder(tmp_path / "absent")
    (tmp_path / "big.crl").write_bytes(bytes(300 * 1024))
    with pytest.raises(Malformed, match="larger than"):
        GpuCollateral.from_folder(tmp_path)
    for text in ("{}", '{"manifests": [], "crls": [], "ocsp": []}', '{"manifests": {}, "crls": {}, "ocsp": []}'):
        with pytest.raises(Malformed):
            GpuCollateral.from_json(text)


def test_g12_the_installed_roots_are_the_pinned_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(roots.nvidia().device) > 400
    monkeypatch.setitem(roots._PINS, "nvidia_rim_root.pem", "00" * 32)
    roots.nvidia.cache_clear()
    with pytest.raises(roots.RootMismatch, match="reinstall"):
        roots.nvidia()
    refused(judge(roots=None), "not the pinned root")
    roots.nvidia.cache_clear()


def test_g18_what_costs_much_and_cannot_pass_is_refused_before_it_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    monkeypatch.setattr("attestation.gpu.verify._verify_one", lambda *each: looked.append(each))
    refused(judge(*[hopper()] * 16), "appears twice")
    assert not looked


def test_g18_an_ocsp_response_full_of_certificates_is_refused() -> None:
    burnt, issuer = hopper().authorities[1], MIRROR.identity
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    responder = issuer.issue("OCSP", ca=False, extensions=((usage, False),))

    def response(count: int) -> GpuCollateral:
        builder = ocsp.OCSPResponseBuilder().add_response(
            burnt.certificate, issuer.certificate, SHA256(), ocsp.OCSPCertStatus.GOOD, m.utc(NOW), m.utc(NOW + 9), None,
            None,
        )  # fmt: skip
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        signed = builder.certificates([responder.certificate] * count).sign(responder.key, SHA384())
        return with_lists(ocsp_=(signed.public_bytes(Encoding.DER),))

    assert judge(collateral=response(4)).accepted
    refused(judge(collateral=response(5)), "5 certificates")
