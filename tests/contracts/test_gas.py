"""The gas table: adds up to the nanoTON, and does not drift unnoticed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from scripts.gas import FEES_JSON, TARGETS, Row, measure

SNAPSHOT = Path(__file__).with_name("gas.json")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Every row was checked against the sum of balance changes when it was measured."""
    return measure()


def test_gas_does_not_drift_unnoticed(rows: list[Row], request: pytest.FixtureRequest) -> None:
    ours = {row.operation: [row.gas, row.all_in_nano, row.messages] for row in rows}
    if request.config.getoption("--update-gas", default=False):
        SNAPSHOT.write_text(json.dumps(ours, indent=2) + "\n")
    assert ours == json.loads(SNAPSHOT.read_text()), "run pytest with --update-gas, `make gas`, and review the change"


def test_committed_table_is_what_is_measured(rows: list[Row]) -> None:
    assert json.loads(FEES_JSON.read_text()) == [asdict(row) for row in rows], "run `make gas`"


def test_everything_measured_is_cheaper_than_the_original(rows: list[Row]) -> None:
    assert [row.operation for row in rows] == list(TARGETS)
    for row in rows:
        if row.original_nano is not None and row.all_in_nano is not None:
            assert row.all_in_nano < row.original_nano, row.operation
