"""Jobs at the client, without a network: what a file may be, what it may cost, and what the disk keeps."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import stat
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from client import control
from client.body import Body
from client.command import nano
from client.errors import BadRequest, HomeError, TooExpensive, Untrusted
from client.job_cli import job_app, seconds
from client.job_plan import Times, plan
from client.job_records import JobRecord, JobRecords, Made, packed, packed_outcome
from protocol.job_lines import read_lines
from protocol.offer import ModelOffer
from protocol.pricing import maximum
from worker.enclave.job_run import plan as enclave_plan
from worker.enclave.job_run import worst_case
from worker.engine.api import ModelInfo
from wrappers.cells import to_boc
from wrappers.job import JobConfig, JobSpec, Outcome
from wrappers.receipts import Terms

TERMS = Terms(b"m" * 32, 1 << 20, 1 << 19, 3 << 20, 3 << 20, 5)
MODEL = ModelOffer("tiny", 1000, TERMS)


@dataclasses.dataclass(frozen=True)
class Node:
    account: bytes
    models: tuple[ModelOffer, ...] = (MODEL,)

    def model(self, name: str) -> ModelOffer | None:
        return next((one for one in self.models if one.name == name), None)


ONE, TWO = Node(b"1" * 32), Node(b"2" * 32)


def line(number: int, **body: Any) -> dict[str, Any]:
    whole = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 10, **body}
    return {"custom_id": f"c{number}", "method": "POST", "url": "/v1/chat/completions", "body": whole}


def batch(*lines: dict[str, Any]) -> bytes:
    return "\n".join(json.dumps(one) for one in lines).encode()


def test_the_enclave_accepts_at_exactly_the_maximum_that_the_client_computes() -> None:
    prompt = {"prompt": "once upon a time", "max_tokens": 7}
    lines = [line(1), line(2, max_tokens=20, stream=True), {**line(3), "url": "/v1/completions", "body": prompt}]
    lines.append(line(4, max_tokens=None))
    planned = plan(batch(*lines), [ONE, TWO], None)  # type: ignore[list-item]
    steps = enclave_plan(read_lines(planned.body), ModelInfo("tiny", b"m" * 32, 1000, True))
    assert all(step.fault is None for step in steps)
    assert worst_case(TERMS, steps) == planned.maximum_nano
    assert planned.asked == ("c1", "c2", "c3", "c4") and planned.model == MODEL


def test_g5_a_job_over_the_clients_own_maximum_is_not_sealed() -> None:
    data = batch(line(1), line(2))
    worst = plan(data, [ONE], None).maximum_nano  # type: ignore[list-item]
    bounds = Body.of(line(1)["body"]).bounds(1000)
    assert worst == maximum(TERMS, 2 * bounds[0], 2 * bounds[1])
    assert plan(data, [ONE], worst + 9).maximum_nano == worst, "no more is locked than needed"  # type: ignore[list-item]
    with pytest.raises(TooExpensive, match=str(worst)):
        plan(data, [ONE], worst - 1)  # type: ignore[list-item]


def test_g18_bad_files_are_refused_with_their_line() -> None:
    for match, data in (
        ("1 to", b""),
        ("line 1", b"no json"),
        ("line 2", batch(line(1), line(2, messages=[]))),
        ("line 2", batch(line(1), line(2, secret_option=1))),
        ("line 1", batch(line(1, max_tokens=-1))),
        ("several models", batch(line(1, model="tiny"), line(2, model="large"))),
        ("does not serve", batch(line(1, model="large"))),
    ):
        with pytest.raises(BadRequest, match=match):
            plan(data, [ONE], None)  # type: ignore[list-item]
    with pytest.raises(BadRequest, match="nodes"):
        plan(batch(line(1)), [], None)


def test_all_nodes_serve_the_model_on_the_same_terms() -> None:
    dearer = Node(b"3" * 32, (ModelOffer("tiny", 1000, dataclasses.replace(TERMS, minimum_nano=6)),))
    with pytest.raises(Untrusted, match="other terms"):
        plan(batch(line(1)), [ONE, dearer], None)  # type: ignore[list-item]
    with pytest.raises(BadRequest, match="does not serve"):
        plan(batch(line(1)), [ONE, Node(b"4" * 32, ())], None)  # type: ignore[list-item]


def test_times_are_those_that_the_registry_takes() -> None:
    Times().check()
    for bad in (Times(deadline=1), Times(deadline=40 * 86_400), Times(grace=60), Times(delivery_window=1)):
        with pytest.raises(BadRequest, match="choose"):
            bad.check()
    assert [seconds(text) for text in ("90", "90s", "30m", "2h", "1d")] == [90, 90, 1800, 7200, 86_400]
    for text in ("", "h", "1w", "-1", "1.5h"):
        with pytest.raises(typer.BadParameter):
            seconds(text)


def record() -> JobRecord:
    config = JobConfig(b"s" * 32, b"d" * 32, 100, 1, 2, 3, frozenset({b"1" * 32}))
    spec = JobSpec(b"i" * 32, 10, b"w" * 32, TERMS.hash, 1)
    made = (to_boc(config.to_cell()), to_boc(spec.to_cell()), b"wraps", packed(TERMS), b"s" * 32, b"k" * 32)
    return JobRecord(b"j" * 32, 0, b"e" * 32, 7, Made.SEALED, *made, "tiny", ("c1", "c2"), True, 99)


def test_g16_records_keep_what_opens_a_result_and_are_private(tmp_path: Path) -> None:
    records, made = JobRecords(tmp_path), record()
    assert records.all() == []
    records.put_input(made.job, b"sealed")
    records.put(made)
    outcome = Outcome(b"r" * 32, 42, b"n" * 32, 5)
    later = dataclasses.replace(made, made=Made.ORDERED, epoch=9, node=b"1" * 32, outcome=packed_outcome(outcome))
    records.put(later)
    found = JobRecords(tmp_path).get(made.job)
    assert found == later and found.seen == outcome and found.opened_terms == TERMS
    assert (found.job_config.maximum_nano, found.parsed.lines, found.entry.index) == (100, 1, 7)
    assert JobRecords(tmp_path).all() == [later] and records.input(made.job) == b"sealed"
    for path in (tmp_path / "jobs").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    records.drop_input(made.job)
    with pytest.raises(HomeError, match="submit it anew"):
        records.input(made.job)
    with pytest.raises(BadRequest, match="no job"):
        records.get(b"x" * 32)
    (tmp_path / "jobs" / f"{made.job.hex()}.json").write_text("{}")
    with pytest.raises(HomeError, match="damaged"):
        records.get(made.job)


def test_g16_a_damaged_record_and_a_foreign_file_hide_no_other_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What looks after jobs by itself goes on to the others, and to what else is due."""
    records, made = JobRecords(tmp_path), record()
    records.put(made)
    (tmp_path / "jobs" / "notes.json").write_text("my own")
    assert records.all() == [made]
    torn = dataclasses.replace(made, job=b"t" * 32, config=made.config[:-3])
    records.put(torn)
    (tmp_path / "jobs" / f"{(b'u' * 32).hex()}.json").write_text("{")
    assert records.readable() == [made] == records.readable()
    assert len(caplog.records) == 2 and torn.job.hex() in caplog.text
    with pytest.raises(HomeError, match="damaged"):
        records.all()


# ---- the command line

VIEW = {
    "job": "ab" * 32,
    "phase": "posted",
    "fetched": False,
    "model": "tiny",
    "lines": 2,
    "nodes": ["11" * 32],
    "simulated": True,
    "maximum_nano": 500_000_000,
    "deadline": 1000,
    "accepted_by": "11" * 32,
    "amount_nano": 20_000_000,
    "refundable_at": None,
    "payable_at": 2000,
    "refund_due": False,
}
FETCHED = {"job": "ab" * 32, "file": "a.jsonl", "lines": 2, "failed": 1, "prompt_tokens": 3, "completion_tokens": 4}
ANSWERS = {
    "job submit": VIEW,
    "job status": VIEW,
    "job list": {"jobs": [VIEW, VIEW]},
    "job fetch": {**FETCHED, "amount_nano": 20_000_000, "paid": True},
    "job refund": {"job": "ab" * 32, "transaction": "00"},
}


def told(*arguments: str) -> tuple[str, dict[str, Any], str]:
    """(command, its arguments, what was printed)."""
    seen: list[tuple[str, dict[str, Any]]] = []

    async def command(name: str, given: dict[str, Any]) -> dict[str, Any]:
        seen.append((name, given))
        return ANSWERS[name]

    app = job_app(command, lambda work: asyncio.run(work), nano)  # type: ignore[arg-type]
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return *seen[0], result.output


def test_the_commands_say_what_was_asked_and_show_what_came() -> None:
    name, given, shown = told(
        "submit", "p.jsonl", "--node", "aa", "--node", "bb", "--maximum", "0.5", "--deadline", "2h"
    )
    assert name == "job submit" and given["nodes"] == ["aa", "bb"] and Path(given["file"]).is_absolute()
    assert (given["maximum_nano"], given["deadline"], given["grace"]) == (500_000_000, 7200, None)
    assert "SIMULATED" in shown and "0.500000000 TON" in shown and "ab" * 32 in shown
    assert told("submit", "p.jsonl", "--node", "aa")[1]["maximum_nano"] is None
    assert told("status", "ab" * 32)[1] == {"job": "ab" * 32}
    assert told("list")[2].count("posted") == 2
    _, given, shown = told("fetch", "ab" * 32, "--out", "x.jsonl")
    assert given["out"].endswith("/x.jsonl") and "1 of them errors" in shown and "paid now" in shown
    assert told("fetch", "ab" * 32)[1]["out"].endswith("ab.jsonl")
    assert "refunded" in told("refund", "ab" * 32)[2] and "REFUND DUE" not in told("status", "ab" * 32)[2]


def test_g3_a_refund_that_is_due_is_said_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, "job status", {**VIEW, "phase": "open", "refundable_at": 1001, "refund_due": True})
    shown = told("status", "ab" * 32)[2]
    assert "REFUND DUE" in shown and f"cocoon client job refund {'ab' * 32}" in shown


async def test_job_commands_refuse_what_is_no_job_or_file(world: Any, tmp_path: Path) -> None:
    async with world.client() as client:
        for name, arguments, match in (
            ("job status", {"job": "zz"}, "64 hex"),
            ("job fetch", {"job": "00" * 32, "out": str(tmp_path / "o")}, "no job"),
            ("job refund", {"job": "00" * 32}, "no job"),
            ("job submit", {"file": str(tmp_path / "none"), "nodes": ["11" * 32]}, "cannot be read"),
            ("job submit", {"file": "x"}, "no node"),
            ("job submit", {"file": __file__, "nodes": ["11"]}, "64 hex"),
            ("job submit", {"file": __file__, "nodes": ["11" * 32], "deadline": -1}, "whole number"),
        ):
            with pytest.raises(BadRequest, match=match):
                await control.run(client, name, arguments)
        assert await control.run(client, "job list", {}) == {"jobs": []}
