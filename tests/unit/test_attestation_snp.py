"""SEV-SNP evidence from AMD's root to the verdict, on a mirror of AMD's hierarchy with keys of our own."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from attestation import collateral as collateral_form
from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind
from attestation.policy import AllowedImage, Policy, Technology, Tier
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.snp import hardware, products
from attestation.snp.collateral import AmdCollateral
from attestation.snp.hardware import SnpHardware
from attestation.snp.policy import SnpPolicy
from attestation.snp.products import Product, RootMismatch, TcbVersion, of_model, parse_tcb, tcb_bytes
from attestation.snp.report import SIGNED_BYTES, SigningKey, measurement, parse
from attestation.strict import Malformed
from attestation.verify import Block, Expected, Verdict, verify
from tests.support.snp_mirror import CHIP, NOW, TCB, Mirror, Report, ia5, integer

MIRROR = Mirror()
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
EXPECTED = Expected(DEVNET, BINDING.network_id, BINDING.node, BINDING.node_epoch, BINDING.signing_key)
BLOCK = Block(BINDING.block_seqno, BINDING.block_root_hash, NOW - 100)
IMAGE = AllowedImage("snp worker", measurement(b"\x11" * 48), Technology.SEV_SNP)
POLICY = Policy(
    images=(IMAGE,),
    max_age_seconds=3_600,
    tiers=frozenset({Tier.COMMITTEE}),
    snp=SnpPolicy(floors=TCB, accept_broken=frozenset({Product.MILAN})),
)


@pytest.fixture(autouse=True)
def mirror_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's roots are replaced by the mirror's for these tests only."""
    roots = {product: Mirror(product).root for product in Product}
    monkeypatch.setattr(products, "root", roots.__getitem__)


def report_of(mirror: Mirror = MIRROR, **changes: Any) -> bytes:
    return mirror.report(**{"report_data": BINDING.report_data(), **changes})


def check(raw: bytes | None = None, mirror: Mirror = MIRROR, now: int = NOW) -> SnpHardware:
    return hardware.check(report_of(mirror) if raw is None else raw, mirror.collateral(), now)


def judge(
    mirror: Mirror = MIRROR, *, policy: Policy = POLICY, now: int = NOW, block: Block | None = BLOCK,
    binding: Binding = BINDING, expected: Expected = EXPECTED, **changes: Any,
) -> Verdict:  # fmt: skip
    evidence = Evidence(Kind.SEV_SNP, report_of(mirror, **changes), binding)
    return verify(evidence, mirror.collateral(), policy, now, expected=expected, block=block)


def refused(verdict: Verdict, word: str) -> None:
    assert not verdict.accepted
    assert any(word in reason for reason in verdict.reasons), verdict.reasons
    assert verdict == Verdict(False, verdict.reasons)


def with_snp(**changes: Any) -> Policy:
    return dataclasses.replace(POLICY, snp=dataclasses.replace(POLICY.snp, **changes))


# ------------------------------------------------------------------------------------------------------------- accepted


@pytest.mark.parametrize("version", [2, 3, 5])
@pytest.mark.parametrize("product", list(Product))
def test_genuine_form_is_accepted(product: Product, version: int) -> None:
    verdict = judge(Mirror(product), version=version)
    assert verdict.accepted, verdict.reasons
    assert verdict.tier is Tier.COMMITTEE == 3 and not verdict.simulated
    assert verdict.product == product and verdict.image_name == IMAGE.name
    assert verdict.platform == sha256(CHIP[product]).digest()
    assert verdict.measurement == sha256(b"\x11" * 48).digest()
    assert verdict.tcb_status == str(TCB[product])
    assert verdict.attested_until == BLOCK.time + POLICY.max_validity_seconds


def test_attested_until_is_the_earliest_end() -> None:
    assert judge(Mirror(crl_ends=NOW + 500)).attested_until == NOW + 500
    for index in range(3):
        ends = tuple(NOW + 600 if at == index else NOW + 10**8 for at in range(3))
        mirror = Mirror(ends=ends)  # type: ignore[arg-type]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(products, "root", lambda _, root=mirror.root: root)
            assert judge(mirror).attested_until == NOW + 600


def test_g12_snp_is_in_no_tier_that_the_chain_verified() -> None:
    refused(judge(policy=dataclasses.replace(POLICY, tiers=frozenset({Tier.CPU, Tier.GPU}))), "tier committee")


# ----------------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize("bit", [0, 7])
def test_g12_a_flipped_bit_of_the_signed_part_is_refused(bit: int) -> None:
    for at in range(SIGNED_BYTES):
        raw = bytearray(HONEST)
        raw[at] ^= 1 << bit
        with pytest.raises(ValueError):
            hardware.check(bytes(raw), COLLATERAL, NOW)


HONEST = report_of()
COLLATERAL = MIRROR.collateral()


@pytest.mark.parametrize("at", [0x2A0, 0x2CF, 0x2D0, 0x2E7, 0x2E8, 0x330, 0x49F])
def test_g12_a_changed_signature_is_refused(at: int) -> None:
    raw = bytearray(HONEST)
    raw[at] ^= 1
    with pytest.raises(ValueError):
        check(bytes(raw))


@pytest.mark.parametrize("raw", [HONEST[:-1], HONEST + b"\0", b"", HONEST[:SIGNED_BYTES] + bytes(512)])
def test_g12_another_length_or_no_signature_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):
        check(raw)


def test_g12_another_chips_key_is_refused() -> None:
    with pytest.raises(Malformed, match="not signed by the VCEK"):
        check(report_of(key="another chip"))


def test_g12_pinned_roots_of_amd_do_not_end_the_mirror(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(Malformed, match="pinned root"):
        check()


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"authority_signer": "stranger"}, "not signed by AMD's pinned root"),
        ({"endorsement_signer": "stranger"}, "not signed by the ASK"),
        ({"authority_name": "SEV-VLEK-Milan"}, "'SEV-Milan'"),
        ({"authority_organization": "Advanced Macro Devices"}, "'SEV-Milan' of AMD"),
        ({"authority_is_ca": False}, "no issuing authority"),
        ({"endorsement_name": "SEV-VLEK"}, "'SEV-VCEK'"),
        ({"weak_signature": True}, "RSASSA-PSS"),
        ({"begins": NOW + 1}, "valid from"),
        ({"product_name": "Genoa-B1"}, "'Genoa-B1'"),
        ({"crl_signer": "stranger"}, "revocation list is not signed"),
        ({"crl_ends": NOW}, "revocation list is valid"),
        ({"revoked": True}, "revoked"),
        ({"hardware_id": bytes(64)}, "another chip"),
        ({"hardware_id": CHIP[Product.MILAN][:63]}, "63 bytes"),
        ({"tcb": dataclasses.replace(TCB[Product.MILAN], microcode=220)}, "certificate is for TCB"),
        ({"without": ("4",)}, "lacks"),
        ({"without": ("3.3",)}, "lacks"),
        ({"extra": (("5", ia5("cloud.example")),)}, "other kind"),
        ({"extra": (("6", b"\x05\0"),)}, "does not know"),
        ({"extra": (("3.1", b"\x02\x01\xff"),)}, "no patch level"),
        ({"extra": (("3.1", b"\x0c\x01\x04"),)}, "no patch level"),
        ({"crl_issuer": "ARK-Genoa"}, "revocation list is not issued"),
        ({"extra": (("3.1", b"\x02\x02\x00\x04"),)}, "no patch level"),
        ({"extra": (("3.1", integer(4) + b"\0"),)}, "no patch level"),
        ({"extra": (("2", b"\x0c\x05Milan"),)}, "IA5String"),
    ],
)
def test_g12_certificates_are_held_to_their_office(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Malformed, match=word):
        check(HONEST, Mirror(**changes))


@pytest.mark.parametrize("index", [0, 1, 2])
def test_g12_an_expired_certificate_is_refused(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = tuple(NOW if at == index else NOW + 10**8 for at in range(3))
    mirror = Mirror(ends=ends)  # type: ignore[arg-type]
    monkeypatch.setattr(products, "root", lambda _: mirror.root)
    assert check(HONEST, mirror, NOW - 1).platform
    with pytest.raises(Malformed, match="valid from"):
        check(HONEST, mirror, NOW)


def test_g12_a_product_whose_root_is_not_known_is_refused() -> None:
    unknown = dataclasses.replace(MIRROR.collateral(), authority=_venice())
    with pytest.raises(Malformed, match=r"ARK-Venice.*Milan, Genoa, Turin"):
        hardware.check(HONEST, unknown, NOW)


def _venice() -> bytes:
    certificate = Mirror()._issue("SEV-Venice", "ARK-Venice", "authority", "root", NOW + 10**8, ca=True, serial=7)
    return certificate.public_bytes(Encoding.DER)


def test_g12_garbage_for_certificates_is_refused() -> None:
    for name in ("endorsement", "authority", "crl"):
        broken = dataclasses.replace(COLLATERAL, **{name: b"\x30\x03abc"})
        with pytest.raises(Malformed, match="DER"):
            hardware.check(HONEST, broken, NOW)


def test_g12_certificates_of_another_product_do_not_fit() -> None:
    with pytest.raises(ValueError):
        check(HONEST, Mirror(Product.GENOA))
    with pytest.raises(Malformed, match="no Milan"):
        check(report_of(cpu=(0x19, 0x11)))


# --------------------------------------------------------------------------------------------------------------- report


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"version": 4}, "version 4"),
        ({"version": 1}, "version 1"),
        ({"algorithm": 2}, "algorithm 2"),
        ({"guest_policy": 0x1_00_00}, "reserved bits"),
        ({"guest_policy": 0x3_00_00 | 1 << 26}, "reserved bits"),
        ({"platform_info": 1 << 6}, "PLATFORM_INFO"),
        ({"platform_info": 1 << 8}, "PLATFORM_INFO"),
        ({"flags": 1 << 5}, "flags"),
        ({"flags": 2}, "masked the chip's key"),
        ({"flags": 7 << 2}, "signing key 7"),
        ({"author_key_digest": b"\1" * 48}, "author key"),
        ({"agent_id": b"\1" * 32}, "migration agent"),
        ({"patches": {0x4C: 1}}, "4C"),
        ({"patches": {0x18B: 1}}, "188"),
        ({"patches": {0x1EB: 1}}, "1EB"),
        ({"patches": {0x1EF: 1}}, "1EB"),
        ({"patches": {0x208: 1}}, "208"),
        ({"patches": {0x29F: 1}}, "208"),
        ({"version": 3, "patches": {0x1F8: 1}}, "1F8"),
        ({"version": 2, "patches": {0x188: 1}}, "188"),
        ({"patches": {0x182: 1}}, "reported TCB"),
    ],
)
def test_g12_a_signed_report_in_another_form_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Malformed, match=word):
        check(report_of(**changes))


@pytest.mark.parametrize(
    ("name", "word"),
    [("reported", "reported TCB is above"), ("committed", "committed TCB is above"), ("launch", "launched under")],
)
def test_g12_tcb_versions_that_contradict_each_other_are_refused(name: str, word: str) -> None:
    higher = dataclasses.replace(TCB[Product.MILAN], snp=25)
    mirror = Mirror(tcb=higher) if name == "reported" else MIRROR
    with pytest.raises(Malformed, match=word):
        check(report_of(mirror, **{name: higher}), mirror)


@given(st.builds(TcbVersion, *[st.integers(0, 255)] * 5))
def test_tcb_bytes_round_trip(tcb: TcbVersion) -> None:
    assert parse_tcb(tcb_bytes(tcb, Product.TURIN), Product.TURIN, "TCB") == tcb
    older = dataclasses.replace(tcb, fmc=0)
    assert parse_tcb(tcb_bytes(older, Product.GENOA), Product.GENOA, "TCB") == older


def test_tcb_is_compared_component_by_component() -> None:
    floor = TcbVersion(3, 0, 8, 200)
    assert TcbVersion(3, 0, 8, 200).reaches(floor)
    assert TcbVersion(2, 9, 9, 255).below(floor) == ("bootloader",)


def test_lines_by_cpu() -> None:
    assert of_model(0x19, 0xA0) is Product.GENOA and of_model(0x1A, 0x11) is Product.TURIN
    assert of_model(0x1A, 0x50) is None


# --------------------------------------------------------------------------------------------------------------- policy


@pytest.mark.parametrize(
    ("changes", "policy", "word"),
    [
        ({"guest_policy": 0x3_00_00 | 1 << 19}, {}, "debug mode"),
        ({"guest_policy": 0x3_00_00 | 1 << 18}, {}, "migrated"),
        ({"guest_policy": 0x3_00_00 | 1 << 21}, {}, "CXL"),
        ({}, {"allow_smt": False}, "SMT"),
        ({}, {"require_single_socket": True}, "SINGLE_SOCKET"),
        ({"platform_info": 1}, {}, "aliases"),
        ({"vmpl": 1}, {}, "VMPL"),
        ({}, {"vmpl": 2}, "VMPL"),
        ({"committed_abi": (1, 54)}, {}, "1.54"),
        ({"chip_id": bytes(64)}, {}, "masked"),
        ({}, {"floors": {}}, "no TCB floor for Milan"),
        ({}, {"accept_broken": frozenset()}, "Milan machines prove nothing"),
        ({}, {"accept_broken": frozenset({Product.GENOA})}, "Milan machines prove nothing"),
        ({}, {"floors": {Product.MILAN: TcbVersion(4, 0, 24, 220)}}, "microcode 219 below 220"),
        ({"launch": TcbVersion(4, 0, 23, 219)}, {}, "launch TCB is below"),
    ],
)
def test_g12_policy_is_enforced(changes: dict[str, Any], policy: dict[str, Any], word: str) -> None:
    refused(judge(policy=with_snp(**policy), **changes), word)


@pytest.mark.parametrize(
    ("changes", "policy"),
    [
        ({"guest_policy": 0x2_00_00}, {"allow_smt": False}),
        ({"guest_policy": 0x3_00_00 | 1 << 20}, {"require_single_socket": True}),
        ({"guest_policy": 0x3_00_00 | 1 << 21}, {"allow_cxl": True}),
        ({"platform_info": 0}, {"require_alias_check": False}),
        ({"vmpl": 2}, {"vmpl": 2}),
        ({"committed_abi": (1, 51)}, {"min_abi": (1, 51)}),
        ({"committed_abi": (2, 0)}, {}),
        ({"chip_id": bytes(64)}, {"allow_masked_chip_id": True}),
    ],
)
def test_policy_can_be_widened_or_met(changes: dict[str, Any], policy: dict[str, Any]) -> None:
    verdict = judge(policy=with_snp(**policy), **changes)
    assert verdict.accepted, verdict.reasons
    # A VCEK is one chip's whether or not the report says so.
    assert verdict.platform == sha256(CHIP[Product.MILAN]).digest()


def test_g12_the_revocation_list_may_not_be_left_out() -> None:
    without = Mirror(crl=False)
    refused(judge(without), "revocation list was not given")
    assert judge(without, policy=with_snp(require_crl=False)).accepted


def test_g12_a_providers_key_needs_leave_and_masked_machines_are_one() -> None:
    vlek = Mirror(signing_key=SigningKey.VLEK)
    refused(judge(vlek), "VLEK")
    allowed = with_snp(allow_vlek=True)
    named = judge(vlek, policy=allowed)
    assert named.accepted and named.platform == sha256(CHIP[Product.MILAN]).digest()
    refused(judge(vlek, policy=allowed, chip_id=bytes(64)), "masked")
    masked = judge(vlek, policy=with_snp(allow_vlek=True, allow_masked_chip_id=True), chip_id=bytes(64))
    assert masked.accepted and masked.platform not in (named.platform, sha256(bytes(64)).digest())


def test_g12_a_vlek_is_no_vcek() -> None:
    # The report says VCEK, the certificates are a provider's, and the other way round.
    vcek, vlek = Mirror(), Mirror(signing_key=SigningKey.VLEK)
    with pytest.raises(ValueError):
        hardware.check(report_of(vcek), vlek.collateral(), NOW)
    with pytest.raises(ValueError):
        hardware.check(report_of(vlek), vcek.collateral(), NOW)


@pytest.mark.parametrize("name", ["host_data", "id_key_digest", "author_key_digest"])
def test_g12_what_the_host_chose_at_launch_is_pinned(name: str) -> None:
    size = 32 if name == "host_data" else 48
    other = b"\x05" * size
    refused(judge(**{name: other}, flags=1), name)
    image = dataclasses.replace(IMAGE, **{name: other})
    policy = dataclasses.replace(POLICY, images=(image,))
    refused(judge(policy=policy), name)
    assert judge(policy=policy, **{name: other}, flags=1).accepted


def test_g12_images_are_of_one_kind_and_have_a_lowest_svn() -> None:
    for image in (dataclasses.replace(IMAGE, kind=Technology.TDX), dataclasses.replace(IMAGE, measurement=bytes(32))):
        refused(judge(policy=dataclasses.replace(POLICY, images=(image,))), "allow-list")
    refused(judge(policy=dataclasses.replace(POLICY, images=())), "is empty")
    careful = dataclasses.replace(POLICY, images=(dataclasses.replace(IMAGE, min_guest_svn=2),))
    assert judge(policy=careful).accepted
    refused(judge(policy=careful, guest_svn=1), "guest SVN")


def test_g12_platforms_may_be_listed() -> None:
    platform = sha256(CHIP[Product.MILAN]).digest()
    for allowed, accepted in ((None, True), (frozenset({platform}), True), (frozenset(), False)):
        assert judge(policy=dataclasses.replace(POLICY, allowed_platforms=allowed)).accepted is accepted
    refused(judge(policy=dataclasses.replace(POLICY, denied_platforms=frozenset({platform}))), "deny-list")


# -------------------------------------------------------------------------------------------------------------- binding


@pytest.mark.parametrize(
    "field", ["network_id", "node", "node_epoch", "signing_key", "gpu_evidence_hash", "block_seqno", "block_root_hash"]
)
def test_g12_a_changed_binding_field_does_not_match_the_report(field: str) -> None:
    other = 7 if isinstance(getattr(BINDING, field), int) else b"\xee" * 32
    refused(judge(binding=dataclasses.replace(BINDING, **{field: other})), "REPORTDATA")


def test_g12_stale_and_unknown_blocks_are_refused() -> None:
    refused(judge(now=BLOCK.time + 3_601), "stale")
    refused(judge(block=None), "not looked up")
    refused(judge(expected=dataclasses.replace(EXPECTED, node=b"x" * 32)), "expected")


def test_g12_kinds_do_not_pass_for_each_other() -> None:
    intels = mint(NOW)
    for kind, collateral in ((Kind.SEV_SNP, intels), (Kind.TDX, COLLATERAL)):
        evidence = Evidence(kind, HONEST, BINDING)
        refused(verify(evidence, collateral, POLICY, NOW, expected=EXPECTED, block=BLOCK), "collateral")
    refused(verify(Evidence(Kind.TDX, HONEST, BINDING), intels, POLICY, NOW, expected=EXPECTED, block=BLOCK), "TDX")


# ------------------------------------------------------------------------------------------------------------ documents


def test_collateral_round_trips_and_is_told_apart() -> None:
    for found in (COLLATERAL, dataclasses.replace(COLLATERAL, crl=None), mint(NOW)):
        assert collateral_form.parse(found.to_json()) == found
    assert AmdCollateral.from_json(COLLATERAL.to_json()) == COLLATERAL
    for text in ('{"kind": "amd"}', '{"kind": "amd", "endorsement": "00", "authority": ""}', "[]"):
        with pytest.raises(Malformed):
            collateral_form.parse(text)
    with pytest.raises(Malformed):
        Collateral.from_json(COLLATERAL.to_json())


def test_roots_are_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for product in Product:
        certificate = products.root(product)
        certificate.verify_directly_issued_by(certificate)
    monkeypatch.setitem(products._ROOT_PINS, Product.TURIN, "00" * 32)
    products.root.cache_clear()
    with pytest.raises(RootMismatch):
        products.root(Product.TURIN)
    products.root.cache_clear()


def test_parse_names_the_guest_policy() -> None:
    found = parse(Report(guest_policy=0x3_00_00 | 1 << 20 | 1 << 8 | 51).signed())
    assert found.policy.abi == (1, 51) and found.policy.single_socket and found.policy.smt and not found.policy.debug
