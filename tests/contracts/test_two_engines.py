"""The comparison of engines finds differences, and finds none in a market's day. `make engines` compares everything."""

from __future__ import annotations

import base64
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import begin_cell

from devnet.ledger import Ledger, Rejected
from scripts.compile import assemble
from scripts.engines.recorder import Recording, recording
from scripts.engines.replay import Comparison, judge, replay, why_not_here
from scripts.stage import HOUR, NO_HASH, TON, Pair, World
from scripts.two_engines import FEWEST, MOST_TOO_DEEP, report
from wrappers.cells import EMPTY, from_boc
from wrappers.claims import ClaimEntry

with_both = pytest.mark.skipif(why_not_here() is not None, reason=str(why_not_here()))

Runs = list[dict[str, Any]]


def runs_of(path: Path) -> Runs:
    return [json.loads(line) for line in path.read_text().splitlines()]


def a_day(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON // 10)
    claim = world.claim_external(pair.node, [ClaimEntry(pair.escrow, entry, NO_HASH)], key=None)
    world.ledger.send_external(claim)
    with pytest.raises(Rejected):
        world.ledger.send_external(claim)
    world.send(world.stranger, pair.escrow, TON, None)
    world.ledger.now += HOUR
    world.send(world.stranger, pair.node, TON, begin_cell().store_uint(0xDEADBEEF, 32).end_cell())
    world.ledger.run_get(world.registry, "get_registry")


@pytest.fixture
def day(world: World, pair: Pair, tmp_path: Path) -> Path:
    path = tmp_path / "runs.jsonl"
    with recording(path):
        a_day(world, pair)
    return path


@with_both
def test_engines_agree_on_a_day(day: Path) -> None:
    comparison = replay(day)
    assert comparison.differences == []
    assert comparison.compared["transaction"] >= 8
    assert comparison.compared["refused"] == 1
    assert comparison.compared["get"] == 1


@with_both
def test_an_opcode_of_tvm_12_tells_the_engines_apart(tmp_path: Path) -> None:
    """BTOS came with version 12: the second engine is the newer one, and a difference of engines does not go unseen."""
    code = assemble("<{ SETCP0 NEWC x{CF50} @addop DROP }>c")
    init = begin_cell().store_uint(0b00110, 5).store_ref(code).store_ref(EMPTY).end_cell()
    ledger = Ledger()
    path = tmp_path / "runs.jsonl"
    with recording(path):
        trace = ledger.send_internal(source=bytes(32), destination=bytes(init.hash), value_nano=TON, state_init=init)
    assert trace.transactions[0].exit_code == 6
    comparison = replay(path)
    assert len(comparison.differences) >= 1
    assert "exit code 6" in comparison.differences[0] and "exit code 0" in comparison.differences[0]


@with_both
def test_a_message_too_deep_for_the_second_engine_is_counted_and_spoils_nothing(tmp_path: Path) -> None:
    ledger, path, deep = Ledger(), tmp_path / "runs.jsonl", EMPTY
    for _ in range(400):
        deep = begin_cell().store_ref(deep).end_cell()
    with recording(path):
        for body in (deep, None):
            ledger.send_internal(source=bytes(32), destination=b"\x11" * 32, value_nano=TON, body=body)
    comparison = replay(path)
    assert comparison.differences == []
    assert comparison.compared["too_deep"] == 1 and comparison.compared["transaction"] >= 1


def test_too_many_uncompared_messages_fail() -> None:
    assert report(Comparison("one", Counter(transaction=FEWEST, too_deep=MOST_TOO_DEEP)))
    assert not report(Comparison("one", Counter(transaction=FEWEST, too_deep=MOST_TOO_DEEP + 1)))
    assert not report(Comparison("one", Counter(transaction=FEWEST - 1, too_deep=1)))


def test_a_run_is_recorded_once(world: World, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    snapshot = world.ledger.snapshot()
    with recording(path) as record:
        for _ in range(3):
            world.ledger.revert(snapshot)
            world.send(world.client, world.stranger.account, TON, None)
    assert isinstance(record, Recording) and record.seen == 3 * 2
    assert len([run for run in runs_of(path) if run["kind"] == "transaction"]) == 2


def test_the_engine_is_as_before_after_a_recording(world: World, tmp_path: Path) -> None:
    path = tmp_path / "runs.jsonl"
    with recording(path):
        pass
    world.send(world.client, world.stranger.account, TON, None)
    assert path.read_text() == ""


def test_every_kind_of_difference_is_told(day: Path) -> None:
    runs = runs_of(day)
    transaction = next(run for run in runs if run["kind"] == "transaction" and "transaction" in run["expected"])
    refused = next(run for run in runs if "refused_with" in run.get("expected", ()))
    get = next(run for run in runs if run["kind"] == "get")

    same = {"transaction": transaction["expected"]["transaction"], "account": transaction["account"]}
    state = transaction | {"expected": transaction["expected"] | {"account_hash": account_hash(transaction)}}
    assert judge(state, same) == ("transaction", None)
    assert "same state: False" in str(judge(transaction, same)[1])
    assert judge(state, same | {"transaction": runs[-2]["expected"]["transaction"]})[1] is not None
    assert judge(transaction, {"error": "none", "exit_code": None})[1] is not None

    code = refused["expected"]["refused_with"]
    assert judge(refused, {"error": "no", "exit_code": code}) == ("refused", None)
    assert judge(refused, {"error": "no", "exit_code": code + 1})[1] is not None
    assert judge(refused, same)[1] is not None

    answer = {"exit_code": 0, "gas": get["expected"]["gas"], "stack": get["expected"]["stack"]}
    assert judge(get, answer) == ("get", None)
    assert judge(get, answer | {"gas": answer["gas"] + 1})[1] is not None
    assert judge(get, answer | {"stack": answer["stack"][1:]})[1] is not None
    assert judge(get, {"error": "broken"})[1] is not None


def account_hash(run: dict[str, Any]) -> str:
    return from_boc(base64.b64decode(run["account"])).hash.hex()
