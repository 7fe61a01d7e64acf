"""Genuine Intel quotes through the same code as everything else. Skipped, never passed, where they cannot be had."""

from __future__ import annotations

import dataclasses
from hashlib import sha256
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation import hardware, vectors
from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind
from attestation.hardware import Hardware
from attestation.policy import MAINNET_GLOBAL_ID, AllowedImage, Policy, Technology, Tier
from attestation.quote import parse
from attestation.report_data import Binding
from attestation.snp import hardware as snp_hardware
from attestation.snp import products
from attestation.snp.collateral import AmdCollateral
from attestation.snp.policy import SnpPolicy
from attestation.snp.products import Product, TcbVersion
from attestation.snp.report import SIGNED_BYTES
from attestation.snp.report import parse as parse_report
from attestation.strict import Malformed
from attestation.verify import Block, Expected, Verdict, verify

# Collateral of phala/tdx_quote: from the QE identity's issueDate to the PCK CRL's nextUpdate.
ISSUED, EXPIRES = 1_750_329_147, 1_752_919_235
# Collateral of phala/tdx_quote_outdated, which also fits the platform type of cocoon/quote.dat.
LATER_ISSUED, LATER_EXPIRES = 1_771_412_331, 1_774_003_275


def genuine(name: str) -> bytes:
    try:
        return vectors.read(name)
    except vectors.Unobtainable as error:
        pytest.skip(f"genuine evidence is not to be had: {error}")


def quote_of(name: str) -> bytes:
    raw = genuine(name)
    return bytes.fromhex(raw.decode().strip().removeprefix("0x")) if name.endswith(".hex") else raw


def collateral_of(name: str) -> Collateral:
    return Collateral.from_json(genuine(name))


def check(quote: bytes, now: int = ISSUED) -> Hardware:
    return hardware.check(quote, collateral_of("phala/tdx_quote_collateral.json"), Kind.TDX, now)


class AlreadyBound(Binding):
    """Genuine quotes were not made for Cocoon; this stands for the binding that one of them would have."""

    def report_data(self) -> bytes:
        return parse(quote_of("phala/tdx_quote")).report_data


BINDING = AlreadyBound(b"n" * 32, b"o" * 32, 41, b"k" * 32, bytes(32), 1_000, b"r" * 32)
EXPECTED = Expected(MAINNET_GLOBAL_ID, BINDING.network_id, BINDING.node, BINDING.node_epoch, BINDING.signing_key)
BLOCK = Block(BINDING.block_seqno, BINDING.block_root_hash, ISSUED)


def judge(quote: bytes | None = None, **changes: Any) -> Verdict:
    original = quote_of("phala/tdx_quote")
    image = AllowedImage("genuine", parse(original).measurement)
    arguments: dict[str, Any] = {
        "policy": Policy(images=(image,), max_age_seconds=10**8, max_validity_seconds=10**8),
        "now": ISSUED,
        "binding": BINDING,
        "kind": Kind.TDX,
        **changes,
    }
    evidence = Evidence(arguments["kind"], original if quote is None else quote, arguments["binding"])
    collateral = collateral_of("phala/tdx_quote_collateral.json")
    return verify(evidence, collateral, arguments["policy"], arguments["now"], expected=EXPECTED, block=BLOCK)


def test_genuine_quote_is_accepted_even_on_mainnet() -> None:
    verdict = judge()
    assert verdict.accepted, verdict.reasons
    assert not verdict.simulated and verdict.tier is Tier.CPU
    assert verdict.tcb_status == "UpToDate" and verdict.advisory_ids == () and verdict.evaluation_number == 17
    assert verdict.product == "b0c06f000000"
    assert verdict.platform.hex().startswith("a97a2d0b")
    assert verdict.attested_until == EXPIRES


def test_g12_genuine_quote_that_binds_nothing_of_ours_is_refused() -> None:
    fields = {field.name: getattr(BINDING, field.name) for field in dataclasses.fields(Binding)}
    verdict = judge(binding=Binding(**fields))
    assert not verdict.accepted and len(verdict.reasons) == 1 and "REPORTDATA" in verdict.reasons[0]


def test_g12_genuine_quote_needs_an_allowed_image() -> None:
    verdict = judge(policy=Policy(images=(), max_age_seconds=10**8))
    assert any("allow-list" in reason for reason in verdict.reasons)


def test_g12_time_borders_of_genuine_collateral() -> None:
    for now, accepted in ((ISSUED - 1, False), (ISSUED, True), (EXPIRES - 1, True), (EXPIRES, False)):
        verdict = judge(now=now)
        assert verdict.accepted is accepted, (now, verdict.reasons)
    assert "future" in judge(now=ISSUED - 1).reasons[0]
    assert "CrlExpired" in judge(now=EXPIRES).reasons[0]


def test_g12_every_flipped_byte_of_a_genuine_quote_is_refused() -> None:
    quote = quote_of("phala/tdx_quote")
    collateral = collateral_of("phala/tdx_quote_collateral.json")
    for place in range(len(quote)):
        changed = bytearray(quote)
        changed[place] ^= 1 << place % 8
        with pytest.raises(ValueError, match=r"\w"):
            hardware.check(bytes(changed), collateral, Kind.TDX, ISSUED)
            pytest.fail(f"byte {place} may be changed")


def test_g14_a_genuine_quote_is_not_simulated_evidence() -> None:
    policy = Policy(images=(), max_age_seconds=1, tiers=frozenset(Tier), allow_simulated=True)
    expected = dataclasses.replace(EXPECTED, global_id=-7001)
    evidence = Evidence(Kind.SIMULATED, quote_of("phala/tdx_quote"), BINDING)
    collateral = collateral_of("phala/tdx_quote_collateral.json")
    verdict = verify(evidence, collateral, policy, ISSUED, expected=expected, block=BLOCK)
    assert "pinned root" in verdict.reasons[0]


def test_g12_genuine_platform_that_is_too_old_is_refused_for_that_reason() -> None:
    quote = quote_of("phala/tdx_quote_outdated")
    collateral = collateral_of("phala/tdx_quote_outdated_collateral.json")
    for now in (LATER_ISSUED, LATER_EXPIRES - 1):
        with pytest.raises(ValueError, match="No matching TCB level found"):
            hardware.check(quote, collateral, Kind.TDX, now)
    # Its signatures are genuine: with one byte changed the reason is another one.
    changed = bytearray(quote)
    changed[100] ^= 1
    with pytest.raises(ValueError, match="signature"):
        hardware.check(bytes(changed), collateral, Kind.TDX, LATER_ISSUED)


@pytest.mark.parametrize("name", ["phala/quote-from-tappd.hex", "phala/tdx-quote.hex"])
def test_g12_older_genuine_platforms_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="No matching TCB level found"):
        check(quote_of(name))


def test_genuine_quote_of_another_platform_type_is_accepted_with_its_own_collateral_only() -> None:
    quote = quote_of("cocoon/quote.dat")
    found = hardware.check(quote, collateral_of("phala/tdx_quote_outdated_collateral.json"), Kind.TDX, LATER_ISSUED)
    assert found.tcb_status == "UpToDate" and found.fmspc == "90c06f000000" and found.expires_at == LATER_EXPIRES
    with pytest.raises(ValueError, match=r"CertNotValidYet|Fmspc"):
        check(quote)


def test_every_genuine_quote_has_the_one_encoding() -> None:
    for name, version in (
        ("phala/tdx_quote", 4),
        ("phala/tdx_quote_outdated", 5),
        ("phala/quote-from-tappd.hex", 4),
        ("phala/tdx-quote.hex", 4),
        ("cocoon/quote.dat", 4),
    ):
        quote = parse(quote_of(name))
        assert quote.version == version and len(quote.pck_chain) == 3 and not quote.debug


def test_gpu_evidence_of_the_catalogue_is_the_pinned_one() -> None:
    for name in ("nvidia/hopperAttestationReport.txt", "nvidia/hopperCertChain.txt"):
        assert sha256(genuine(name)).hexdigest() == vectors.CATALOGUE[name][0]


# ------------------------------------------------------------------------------------------------------------- SEV-SNP

# Validity of the VCEK: 2022-09-24 to 2029-09-24.
VCEK_BEGINS, VCEK_ENDS = 1_663_980_928, 1_884_905_728


def amd_collateral() -> AmdCollateral:
    authority, root = x509.load_pem_x509_certificates(genuine("sev-snp/ask_ark_milan.pem"))
    assert root == products.root(Product.MILAN)
    return AmdCollateral(genuine("sev-snp/vcek.testcer"), authority.public_bytes(Encoding.DER))


def test_genuine_report_verifies_while_its_certificate_is_valid() -> None:
    raw, collateral = genuine("sev-snp/attestation.bin"), amd_collateral()
    for now in (VCEK_BEGINS, 1_790_000_000, VCEK_ENDS - 1):
        found = snp_hardware.check(raw, collateral, now)
        assert found.endorsement.product is Product.MILAN and found.endorsement.expires_at == VCEK_ENDS
        assert found.tcb.reported == found.tcb.committed == TcbVersion(2, 0, 5, 68)
        assert found.report.chip_id.hex().startswith("3ac3fe21e13f") and found.report.version == 2
    for now in (VCEK_BEGINS - 1, VCEK_ENDS):
        with pytest.raises(Malformed, match="valid from"):
            snp_hardware.check(raw, collateral, now)


def test_g12_every_byte_of_a_genuine_report_is_signed() -> None:
    raw, collateral = genuine("sev-snp/attestation.bin"), amd_collateral()
    for at in range(SIGNED_BYTES):
        altered = raw[:at] + bytes((raw[at] ^ 1,)) + raw[at + 1 :]
        with pytest.raises(ValueError):
            snp_hardware.check(altered, collateral, VCEK_BEGINS)


def test_g12_genuine_report_is_refused_by_a_strict_policy_with_every_reason() -> None:
    """The machine was a test machine: its guest may be debugged, its firmware is of 2022."""
    raw = genuine("sev-snp/attestation.bin")
    image = AllowedImage("test guest", parse_report(raw).measurement, Technology.SEV_SNP)
    floor = {Product.MILAN: TcbVersion(4, 0, 24, 219)}
    policy = Policy(
        images=(image,), max_age_seconds=10**9, tiers=frozenset({Tier.COMMITTEE}), snp=SnpPolicy(floors=floor)
    )
    verdict = verify(
        Evidence(Kind.SEV_SNP, raw, BINDING), amd_collateral(), policy, ISSUED, expected=EXPECTED, block=BLOCK
    )
    assert not verdict.accepted
    for word in (
        "REPORTDATA",
        "debug mode",
        "aliases",
        "1.49",
        "revocation list",
        "committed TCB",
        "launch TCB",
        "prove nothing",
    ):
        assert any(word in reason for reason in verdict.reasons), word
