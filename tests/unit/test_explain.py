"""`cocoon attest explain`: evidence in words, checks one by one, and nothing believed that was only read."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from app.attest_explain import Explained
from app.cli import app
from attestation import vectors
from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind
from attestation.explain.words import Row, Section, bits, certificate_row, moment, printable
from attestation.presented import Presented
from attestation.recognise import RawQuote, RawReport, recognise
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.strict import Malformed

NOW = 1_790_000_000
BINDING = Binding(b"n" * 32, b"o" * 32, 41, b"k" * 32, bytes(32), 1_000, b"r" * 32)
_OTHER_LIFE = dataclasses.replace(BINDING, node_epoch=42)
TEE = SimulatedTee(b"a test machine")
QUOTE = TEE.quote(BINDING.report_data())
EVIDENCE = Evidence(Kind.SIMULATED, QUOTE, BINDING)
COLLATERAL = mint(NOW)


def run(*arguments: Any) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["attest", "explain", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "quote").write_bytes(QUOTE)
    (tmp_path / "quote.hex").write_text(QUOTE.hex())
    (tmp_path / "evidence.json").write_text(EVIDENCE.to_json())
    (tmp_path / "collateral.json").write_text(COLLATERAL.to_json())
    bundle = {"evidence": json.loads(EVIDENCE.to_json()), "collateral": json.loads(COLLATERAL.to_json())}
    (tmp_path / "offer.json").write_text(json.dumps(bundle))
    (tmp_path / "policy.toml").write_text(
        'allow_simulated = true\ntiers = ["simulated"]\ntcb_statuses = ["UpToDate"]\nmax_age_seconds = 3600\n'
        f'block_required = false\n[[images]]\nname = "test"\nmeasurement = "{TEE.registers.measurement.hex()}"\n'
    )
    return tmp_path


def judged(folder: Path, file: str, *more: Any) -> tuple[int, dict[str, str], Any]:
    """Exit code, outcome by the first word of each check, verdict."""
    options = ("--policy", folder / "policy.toml", "--at", NOW, "--global-id", -7001, "--json")
    code, out, _ = run(folder / file, *options, *more)
    found = json.loads(out)["judged"]
    return code, {check["what"].split(" ")[0]: check["outcome"] for check in found["checks"]}, found["accepted"]


@pytest.mark.parametrize("file", ["quote", "quote.hex", "evidence.json", "offer.json"])
def test_every_field_of_a_quote_is_named_with_its_value(folder: Path, file: str) -> None:
    code, out, _ = run(folder / file, "--at", NOW)
    assert code == 0
    for value in (TEE.registers.mrtd, *TEE.registers.rtmrs, TEE.registers.measurement, BINDING.report_data()):
        assert value.hex() in out
    assert "SEPT_VE_DISABLE" in out and "TEST root" in out
    assert ("o" * 32).encode().hex() in out or "json" not in file


def test_reading_alone_gives_no_verdict(folder: Path) -> None:
    code, out, _ = run(folder / "quote")
    assert code == 0 and "Verdict: none" in out
    assert out.count("not checked:") == 3 and "passed" not in out


def test_the_verdict_lists_each_check(folder: Path) -> None:
    code, checks, accepted = judged(folder, "offer.json")
    assert (code, accepted) == (0, True)
    assert checks == {
        "signatures,": "passed",
        "image,": "passed",
        "REPORTDATA": "passed",
        "freshness": "not checked",
        "addressee": "not checked",
    }


def test_a_raw_quote_gets_no_verdict_even_where_all_passes(folder: Path) -> None:
    code, checks, accepted = judged(folder, "quote", "--collateral", folder / "collateral.json")
    assert (code, accepted) == (0, None)
    assert (checks["signatures,"], checks["REPORTDATA"]) == ("passed", "not checked")


def test_g14_simulated_evidence_is_rejected_unless_the_network_is_named(folder: Path) -> None:
    code, out, _ = run(folder / "offer.json", "--policy", folder / "policy.toml", "--at", NOW)
    assert code == 1 and "mainnet refuses simulated evidence" in out


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda evidence: dataclasses.replace(evidence, quote=_flipped(evidence.quote, 48 + 136)), "signatures,"),
        (lambda evidence: dataclasses.replace(evidence, binding=_OTHER_LIFE), "REPORTDATA"),
        (lambda _: _evidence_of(Registers.of_image("another")), "image,"),
        (lambda _: _evidence_of(dataclasses.replace(TEE.registers, mr_owner=b"\x01" * 48)), "image,"),
    ],
)  # fmt: skip
def test_g12_the_check_that_fails_is_the_one_that_is_named(folder: Path, change: Any, check: str) -> None:
    (folder / "evidence.json").write_text(change(EVIDENCE).to_json())
    code, checks, accepted = judged(folder, "evidence.json", "--collateral", folder / "collateral.json")
    assert (code, accepted) == (1, False)
    assert checks[check] == "FAILED"


def _flipped(quote: bytes, at: int) -> bytes:
    return quote[:at] + bytes([quote[at] ^ 1]) + quote[at + 1 :]


def _evidence_of(registers: Registers) -> Evidence:
    return dataclasses.replace(EVIDENCE, quote=SimulatedTee(b"a test machine", registers).quote(BINDING.report_data()))


def test_g12_a_raw_quote_that_fails_is_rejected_without_a_policy_too(folder: Path) -> None:
    (folder / "quote").write_bytes(_flipped(QUOTE, 48 + 136))
    code, out, _ = run(folder / "quote", "--collateral", folder / "collateral.json", "--at", NOW)
    assert code == 1 and "Verdict: REJECTED" in out


def test_collateral_that_ended_is_told_with_its_cure(folder: Path) -> None:
    code, out, _ = run(folder / "quote", "--collateral", folder / "collateral.json", "--at", NOW + 10**8)
    assert code == 1 and "--at" in out and "ended at" in out


def test_collateral_alone_is_explained(folder: Path) -> None:
    code, out, _ = run(folder / "collateral.json")
    assert code == 0 and "evaluation number" in out and "Verdict" not in out


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"{}", b"[1]", b"{" * 100_000, b"\x04\x00" + bytes(100), b"\x00" * 3_000_000, b"\x05" + bytes(1183),
     b'{"evidence": 1, "collateral": 2}', b'{"version": 1, "kind": "tdx", "quote": "", "binding": {}}', QUOTE[:-200]],
)  # fmt: skip
def test_g18_an_unknown_or_damaged_file_gets_a_clear_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    code, out, said = run(tmp_path / "file")
    assert code == 2 and out == "" and said.startswith("error: ")
    assert all(char.isprintable() for char in said.rstrip("\n"))


def test_g18_absent_files_and_policies_are_named(folder: Path) -> None:
    assert "No such file" in run(folder / "absent")[2]
    assert "nowhere" in run(folder / "quote", "--policy", "nowhere")[2]


@given(st.binary(max_size=300), st.integers(0, len(QUOTE) - 300))
@settings(max_examples=60, deadline=None)
def test_g18_any_damage_is_explained_or_refused(tmp_path_factory: pytest.TempPathFactory, part: bytes, at: int) -> None:
    path = tmp_path_factory.mktemp("damaged") / "quote"
    path.write_bytes(QUOTE[:at] + part + QUOTE[at + len(part) :])
    code, out, said = run(path)
    assert code in (0, 2) and bool(out) is (code == 0) and bool(said) is (code == 2)
    assert all(char.isprintable() or char == "\n" for char in out + said)


def test_strangers_texts_cannot_command_a_terminal() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\u202egnitset"
    assert "\x1b" not in printable(evil) and "\u202e" not in printable(evil)
    lines = list(Explained([Section("title", (Row("name", evil, evil),))], None).lines())
    assert all(char.isprintable() for line in lines for char in line)
    assert certificate_row("root", b"\x30\x82\xff\xff").value.startswith("unreadable")


def test_a_panic_of_the_quote_library_is_a_failed_check(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Panic(BaseException):
        pass

    def panics(*_: object) -> None:
        raise Panic("index out of range")

    monkeypatch.setattr("attestation.hardware.dcap_qvl.verify_with_root_ca", panics)
    code, checks, accepted = judged(folder, "offer.json")
    assert (code, accepted, checks["signatures,"]) == (1, False, "FAILED")


def test_words() -> None:
    assert bits(0b101, {0: "a"}) == "a, bit 2 (unknown)" and bits(0, {}) == "none"
    assert moment(0) == "0 (1970-01-01 00:00:00 UTC)" and "no date" in moment(10**18)


def test_what_a_file_is() -> None:
    assert (
        recognise(QUOTE)
        == recognise(QUOTE.hex().encode())
        == recognise(b"0x" + QUOTE.hex().encode())
        == RawQuote(QUOTE)
    )
    assert recognise(EVIDENCE.to_json().encode()) == EVIDENCE
    assert recognise(COLLATERAL.to_json().encode()) == COLLATERAL
    report = b"\x05" + bytes(1183)
    assert recognise(report) == RawReport(report)
    with pytest.raises(Malformed, match="neither"):
        recognise(b"\x06" * 1184)


def test_an_offers_evidence_is_one_document() -> None:
    text = json.dumps({"evidence": json.loads(EVIDENCE.to_json()), "collateral": json.loads(COLLATERAL.to_json())})
    assert recognise(text.encode()) == Presented(EVIDENCE, COLLATERAL)


def test_genuine_evidence_of_each_vendor_is_explained(tmp_path: Path) -> None:
    try:
        quote, collateral = vectors.read("phala/tdx_quote"), vectors.read("phala/tdx_quote_collateral.json")
    except vectors.Unobtainable as error:
        pytest.skip(f"genuine evidence is not to be had: {error}")
    (tmp_path / "quote").write_bytes(quote)
    (tmp_path / "collateral").write_bytes(collateral)
    assert isinstance(recognise(collateral), Collateral)
    code, out, _ = run(tmp_path / "quote", "--collateral", tmp_path / "collateral", "--at", 1_750_400_000)
    assert code == 0 and "Intel SGX PCK Platform CA" in out and "passed: signatures" in out and "TCB UpToDate" in out


def test_a_genuine_snp_report_is_explained(tmp_path: Path) -> None:
    try:
        (tmp_path / "report").write_bytes(vectors.read("sev-snp/attestation.bin"))
    except vectors.Unobtainable as error:
        pytest.skip(f"genuine evidence is not to be had: {error}")
    code, out, _ = run(tmp_path / "report")
    assert code == 0 and "CHIP_ID" in out and "Verdict: none" in out
