"""`cocoon attest onchain`: files and folders in, one JSON line per quote out, judged by the contract."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from attestation import vectors
from attestation.evidence import Evidence, Kind
from attestation.report_data import Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee

NOW = 1_790_000_000
BINDING = Binding(b"n" * 32, b"o" * 32, 41, b"k" * 32, bytes(32), 1_000, b"r" * 32)
QUOTE = SimulatedTee(b"a test machine").quote(BINDING.report_data())


def run(*arguments: Any) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, JSON lines, what it said beside them."""
    done = CliRunner().invoke(app, ["attest", "onchain", *map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "quote.bin").write_bytes(QUOTE)
    (tmp_path / "quote.hex").write_text("0x" + QUOTE.hex() + "\n")
    (tmp_path / "evidence.json").write_text(Evidence(Kind.SIMULATED, QUOTE, BINDING).to_json())
    (tmp_path / "collateral.json").write_text(mint(NOW).to_json())
    (tmp_path / "README").write_text("not evidence")
    return tmp_path


def test_every_quote_of_a_folder_gets_its_line(folder: Path) -> None:
    code, lines, said = run(folder)
    assert code == 0
    assert [Path(line["quote"]).name for line in lines] == ["evidence.json", "quote.bin", "quote.hex"]
    assert all(line["verdict"] == "accepted" and line["simulated"] for line in lines)
    assert all(line["gas"] > 70_000 and line["all_in_nano"] > line["gas"] * 400 for line in lines)
    assert "README" in said


def test_g12_a_changed_quote_is_refused_by_the_contract_with_its_reason(folder: Path) -> None:
    changed = bytearray(QUOTE)
    changed[48 + 136] ^= 1
    (folder / "quote.bin").write_bytes(changed)
    code, (line,), _ = run(folder / "quote.bin", folder / "collateral.json")
    assert code == 1 and line["verdict"] == "rejected"
    assert "601" in line["reason"] and line["gas"] > 50_000


def test_g12_collateral_that_is_over_at_the_given_time_is_refused_and_named(folder: Path) -> None:
    code, (line,), _ = run(folder / "quote.bin", folder / "collateral.json", "--at", NOW + 10**8)
    assert code == 1 and "of the collateral the contract refused" in line["reason"]


def test_what_is_no_quote_or_lacks_collateral_says_so(folder: Path) -> None:
    code, lines, _ = run(folder / "README", folder / "quote.bin", folder / "absent")
    assert code == 1 and all(line["gas"] is None for line in lines)
    for line, word in zip(lines, ("neither", "no collateral", "No such"), strict=True):
        assert word in line["reason"]
    for name in ("quote.bin", "quote.hex", "evidence.json"):
        (folder / name).unlink()
    code, lines, said = run(folder)
    assert code == 2 and not lines and "no quote in" in said


def test_intels_quotes_are_told_apart(tmp_path: Path) -> None:
    try:
        names = ("tdx_quote", "tdx_quote_collateral.json", "tdx_quote_outdated", "tdx_quote_outdated_collateral.json")
        for name in names:
            (tmp_path / name).write_bytes(vectors.read(f"phala/{name}"))
    except vectors.Unobtainable as error:
        pytest.skip(f"genuine evidence is not to be had: {error}")
    code, (genuine, outdated), _ = run(tmp_path)
    assert code == 1
    assert genuine["verdict"] == "accepted" and genuine["reason"] == "" and not genuine["simulated"]
    assert outdated["verdict"] == "rejected" and "old_platform" in outdated["reason"]
