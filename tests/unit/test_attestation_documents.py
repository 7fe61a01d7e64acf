"""Documents that strangers wrote: binding, evidence, collateral, policy."""

from __future__ import annotations

import dataclasses
import json
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attestation.collateral import Collateral, read
from attestation.evidence import Evidence, Kind
from attestation.policy import TCB_STATUSES, Policy, Technology, Tier, bundled, from_document, from_json, load
from attestation.report_data import Binding
from attestation.simulated.collateral import EVALUATION_NUMBER, VALIDITY_SECONDS, mint
from attestation.simulated.tee import Registers
from attestation.snp.policy import SnpPolicy
from attestation.snp.products import Product, TcbVersion
from attestation.strict import Malformed

NOW = 1_790_000_000
hashes = st.binary(min_size=32, max_size=32)
bindings = st.builds(
    Binding,
    network_id=hashes,
    node=hashes,
    node_epoch=st.integers(0, 2**64 - 1),
    signing_key=hashes,
    gpu_evidence_hash=hashes,
    block_seqno=st.integers(0, 2**32 - 1),
    block_root_hash=hashes,
)
evidences = st.builds(
    Evidence,
    kind=st.sampled_from(Kind),
    quote=st.binary(min_size=1, max_size=300),
    binding=bindings,
    gpu_evidence=st.binary(max_size=100),
)
BINDING = Binding(b"\1" * 32, b"\2" * 32, 3, b"\4" * 32, b"\5" * 32, 6, b"\7" * 32)
EVIDENCE = Evidence(Kind.TDX, b"quote", BINDING)
POLICY: dict[str, Any] = {
    "images": [{"name": "worker 1", "measurement": "aa" * 32}],
    "max_age_seconds": 3600,
    "tcb_statuses": ["UpToDate"],
    "tiers": ["cpu", "gpu"],
}


def test_report_data_bytes_are_fixed() -> None:
    """Recomputed by hand: the on-chain verifier hashes exactly this."""
    preimage = (
        zlib.crc32(b"cocoon.reportdata.v1").to_bytes(4, "big")
        + b"\1" * 32
        + b"\2" * 32
        + (3).to_bytes(8, "big")
        + b"\4" * 32
        + b"\5" * 32
        + (6).to_bytes(4, "big")
        + b"\7" * 32
    )
    assert len(preimage) == 176
    assert BINDING.report_data() == sha256(preimage).digest() + bytes(32)
    assert BINDING.report_data().hex().startswith("347851045f55532d")


@given(bindings, bindings)
def test_report_data_tells_bindings_apart(one: Binding, two: Binding) -> None:
    assert (one == two) is (one.report_data() == two.report_data())


@pytest.mark.parametrize(
    ("field", "value"),
    [("node", b"short"), ("node", "22" * 16), ("node_epoch", -1), ("node_epoch", 2**64), ("block_seqno", 2**32)],
)
def test_binding_refuses_values_out_of_range(field: str, value: object) -> None:
    with pytest.raises(Malformed, match=field):
        dataclasses.replace(BINDING, **{field: value})


@given(evidences)
def test_evidence_survives_json(evidence: Evidence) -> None:
    assert Evidence.from_json(evidence.to_json()) == evidence


def altered(**changes: Any) -> str:
    document = json.loads(EVIDENCE.to_json())
    for path, value in changes.items():
        *parents, last = path.split("__")
        target = document
        for parent in parents:
            target = target[parent]
        if value is None:
            del target[last]
        else:
            target[last] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "not JSON"),
        ("[]", "object"),
        ("{}", "missing"),
        ("[" * 100_000, "not JSON"),
        (" " * 300_000, "limit"),
        ('{"version": 1, "version": 1}', "twice"),
        ('{"version": NaN}', "NaN"),
        (altered(version=2), "version"),
        (altered(kind="sgx"), "kind"),
        (altered(kind=7), "kind"),
        (altered(extra=1), "extra"),
        (altered(quote="!"), "quote"),
        (altered(quote="AA"), "quote"),
        (altered(quote=""), "quote"),
        (altered(quote="A" * 40_000), "quote"),
        (altered(binding=[]), "binding"),
        (altered(binding__node="22"), "node"),
        (altered(binding__node="zz" * 32), "node"),
        (altered(binding__node_epoch=True), "node_epoch"),
        (altered(binding__node_epoch="1"), "node_epoch"),
        (altered(binding__node_epoch=None), "node_epoch"),
        (altered(binding__more=1), "more"),
    ],
)
def test_g18_bad_evidence_is_named(text: str, word: str) -> None:
    with pytest.raises(Malformed, match=word):
        Evidence.from_json(text)


def test_collateral_survives_json_and_is_read() -> None:
    collateral = mint(NOW)
    assert Collateral.from_json(collateral.to_json()) == collateral
    statement = read(collateral)
    assert statement.expires_at == NOW + VALIDITY_SECONDS
    assert statement.evaluation_number == EVALUATION_NUMBER


@pytest.mark.parametrize(
    ("field", "value", "word"),
    [
        ("pck_crl", "zz", "pck_crl"),
        ("tcb_info_signature", "00" * 63, "tcb_info_signature"),
        ("tcb_info", {"id": "TDX"}, "tcb_info"),
        ("pck_certificate_chain", "another chain", "unknown"),
        ("qe_identity", "x" * 200_000, "qe_identity"),
    ],
)
def test_g18_bad_collateral_is_named(field: str, value: object, word: str) -> None:
    document = {**json.loads(mint(NOW).to_json()), field: value}
    with pytest.raises(Malformed, match=word):
        Collateral.from_json(json.dumps(document))


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ('"nextUpdate":"2', '"nextUpdate":"x', "RFC 3339"),
        ('Z","fmspc"', '","fmspc"', "time zone"),
        ('"fmspc":"5C', '"fmspc":"', "fmspc"),
        ('"fmspc"', '"fmspx"', "fmspc"),
        ('"id":"TDX"', '"id":"TDX","id":"SGX"', "twice"),
    ],
)
def test_g18_unreadable_statements_are_named(old: str, new: str, word: str) -> None:
    collateral = mint(NOW)
    assert old in collateral.tcb_info
    with pytest.raises(Malformed, match=word):
        read(dataclasses.replace(collateral, tcb_info=collateral.tcb_info.replace(old, new, 1)))


def test_policy_defaults_are_the_strict_ones() -> None:
    policy = from_document(POLICY)
    assert not policy.allow_simulated and policy.block_required
    assert policy.tiers == {Tier.CPU, Tier.GPU} and policy.tcb_statuses == {"UpToDate"}
    assert policy.max_validity_seconds == 7 * 86_400
    assert policy == Policy(images=policy.images, max_age_seconds=3_600)
    assert policy == from_json(json.dumps(POLICY))


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"tcb_statuses": ["Revoked"]}, "Revoked"),
        ({"tcb_statuses": ["uptodate"]}, "uptodate"),
        ({"tcb_statuses": "UpToDate"}, "list"),
        ({"tiers": ["hardware"]}, "hardware"),
        ({"max_age_seconds": 0}, "max_age_seconds"),
        ({"max_age_seconds": "3600"}, "max_age_seconds"),
        ({"max_validity_seconds": 10**9}, "max_validity_seconds"),
        ({"allow_simulated": 1}, "allow_simulated"),
        ({"allow_simulatd": True}, "allow_simulatd"),
        ({"denied_platforms": ["00"]}, "denied_platforms"),
        ({"images": [{"name": "x"}]}, "measurement"),
        ({"images": [{"name": "x", "measurement": "00"}]}, "measurement"),
        ({"images": [{"name": "x", "measurement": "00" * 32, "rtmr9": ""}]}, "rtmr9"),
        ({"images": POLICY["images"] * 2}, "twice"),
        ({"images": ["aa" * 32]}, "list"),
    ],
)
def test_g18_bad_policies_are_named(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(Malformed, match=word):
        from_document({**POLICY, **changes})


@pytest.mark.parametrize("key", list(POLICY))
def test_g18_what_a_policy_must_say_is_named(key: str) -> None:
    with pytest.raises(Malformed, match=key):
        from_document({name: value for name, value in POLICY.items() if name != key})


def test_revoked_is_no_status_of_a_policy() -> None:
    assert "Revoked" not in TCB_STATUSES


def test_policy_files(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    with pytest.raises(Malformed, match="cannot be read"):
        load(path)
    path.write_text("allow_simulated = yes")
    with pytest.raises(Malformed, match="not TOML"):
        load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(Malformed, match="not TOML"):
        load(path)


def test_devnet_policy_names_the_simulated_worker() -> None:
    image = bundled("devnet").image(Registers.of_image().measurement, Technology.TDX)
    assert image is not None and image.name == "simulated worker"


@pytest.mark.parametrize("field", ["root_ca_crl", "pck_crl"])
def test_g12_a_revocation_list_must_be_one_and_must_end(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Malformed, match="CRL"):
        read(dataclasses.replace(mint(NOW), **{field: b"junk"}))

    class Endless:
        next_update_utc = None

    monkeypatch.setattr("attestation.collateral.x509.load_der_x509_crl", lambda _: Endless)
    with pytest.raises(Malformed, match="no nextUpdate"):
        read(mint(NOW))


@pytest.mark.parametrize("name", ["testnet", "mainnet"])
def test_g14_policies_of_public_networks_are_strict_and_empty(name: str) -> None:
    policy = bundled(name)
    assert policy.images == () and not policy.allow_simulated and policy.block_required
    assert policy.tiers == {Tier.CPU, Tier.GPU} and policy.tcb_statuses == {"UpToDate"}
    assert policy.snp == SnpPolicy() and policy.snp.floors == {}


SNP_IMAGE = {"name": "w", "measurement": "bb" * 32, "kind": "sev-snp", "host_data": "cc" * 32, "min_guest_svn": 3}


def test_policy_holds_floors_images_and_platforms_of_both_makers() -> None:
    document = {
        **POLICY,
        "tiers": ["committee"],
        "images": [*POLICY["images"], SNP_IMAGE],
        "allowed_platforms": ["dd" * 32],
        "snp": {
            "min_abi": "1.51",
            "allow_smt": False,
            "vmpl": 2,
            "accept_broken": ["milan"],
            "floors": {
                "milan": {"bootloader": 4, "tee": 0, "snp": 24, "microcode": 219},
                "turin": {"fmc": 1, "bootloader": 1, "tee": 1, "snp": 4, "microcode": 80},
            },
        },
    }
    policy = from_document(document)
    assert policy == from_json(json.dumps(document))
    image = policy.image(b"\xbb" * 32, Technology.SEV_SNP)
    assert image is not None and image.host_data == b"\xcc" * 32 and image.min_guest_svn == 3
    assert policy.image(b"\xbb" * 32, Technology.TDX) is None and policy.tiers == {Tier.COMMITTEE}
    assert policy.allowed_platforms == {b"\xdd" * 32}
    assert policy.snp == SnpPolicy(
        floors={Product.MILAN: TcbVersion(4, 0, 24, 219), Product.TURIN: TcbVersion(1, 1, 4, 80, fmc=1)},
        min_abi=(1, 51),
        allow_smt=False,
        vmpl=2,
        accept_broken=frozenset({Product.MILAN}),
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"snp": []}, "snp must be a table"),
        ({"snp": {"allow_smtt": True}}, "unknown allow_smtt"),
        ({"snp": {"allow_smt": 1}}, "true or false"),
        ({"snp": {"vmpl": 4}}, "vmpl"),
        ({"snp": {"min_abi": 1.55}}, "min_abi"),
        ({"snp": {"min_abi": "1.256"}}, "min_abi"),
        ({"snp": {"floors": []}}, "floors"),
        ({"snp": {"accept_broken": "milan"}}, "accept_broken"),
        ({"snp": {"accept_broken": ["rome"]}}, "no root is known"),
        ({"snp": {"floors": {"venice": {}}}}, "no root is known for product 'venice'"),
        ({"snp": {"floors": {"milan": 3}}}, "must be a table"),
        ({"snp": {"floors": {"milan": {"bootloader": 4}}}}, "missing microcode"),
        ({"snp": {"floors": {"milan": {"fmc": 1, "bootloader": 4, "tee": 0, "snp": 1, "microcode": 1}}}}, "fmc"),
        ({"snp": {"floors": {"milan": {"bootloader": 256, "tee": 0, "snp": 1, "microcode": 1}}}}, "0 to 255"),
        ({"allowed_platforms": ["dd"]}, "32 bytes"),
        ({"images": [{**SNP_IMAGE, "kind": "sgx"}]}, "kind must be one of tdx, sev-snp"),
        ({"images": [{**SNP_IMAGE, "mr_owner": "00" * 48}]}, "unknown mr_owner"),
        ({"images": [{**SNP_IMAGE, "kind": "tdx"}]}, "unknown host_data"),
        ({"images": [{**SNP_IMAGE, "verifies_gpu": True}]}, "unknown verifies_gpu"),
    ],
)
def test_policy_of_amd_machines_is_read_strictly(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        from_document({**POLICY, **changes})
