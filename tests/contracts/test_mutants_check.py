"""The mutation check breaks what it says, replaces the code that the tests run, and takes no old explanation."""

from __future__ import annotations

from multiprocessing import get_context
from pathlib import Path

import pytest

from scripts.mutants import trial
from scripts.mutants.explained import Explanation, ExplanationError, match, read
from scripts.mutants.func import Source, SyntaxSurprise
from scripts.mutants.operators import Mutant, mutants_of
from scripts.mutate import EXPLAINED, all_mutants, read_sources
from wrappers.code import Contract, code

HANDLER = """
const int max_rows = 16;
const int op::pay = 0x10;
() pay(int value, slice body) impure inline {  ;; a comment; with a semicolon
  int node = body~load_uint(256);
  throw_unless(error::bad, (body~load_uint(32) == 7) & (value >= need()));
  body.end_parse();
  if (value > 1) { count -= 1; }
  value -= gas_fee(gas::pay) + rent();
  set_data(begin_cell().store_uint(min(node, 3), 8)
    .end_cell());
  pay_out(node, 0, mode::carry_value + mode::bounce_on_failure);
}
int after() method_id(7) { return flag ? 1 : 2; }
"""


@pytest.fixture
def mutants() -> list[Mutant]:
    return list(mutants_of(Source("pay.fc", HANDLER)))


@pytest.mark.parametrize(
    ("operator", "after"),
    [
        ("drop check", "(body~load_uint(32) == 7) & (value >= need());"),
        ("drop operand", "throw_unless(error::bad, (body~load_uint(32) == 7));"),
        (
            "drop operand",
            "throw_unless(error::bad, (((body~load_uint(32) == 7)) | true) & (value >= need()));",
        ),
        ("other comparison", "throw_unless(error::bad, (body~load_uint(32) == 7) & (value > need()));"),
        ("other comparison", "throw_unless(error::bad, (body~load_uint(32) != 7) & (value >= need()));"),
        ("drop end of parsing", ";"),
        ("never branch", "if ((value > 1) & false) { count -= 1; }"),
        ("always branch", "if ((value > 1) | true) { count -= 1; }"),
        ("skip statement", "if (value > 1) { ; }"),
        ("other arithmetic", "if (value > 1) { count += 1; }"),
        ("drop operand", "value -= gas_fee(gas::pay);"),
        ("drop operand", "value -= rent();"),
        ("other arithmetic", "value -= gas_fee(gas::pay) - rent();"),
        ("other call", "set_data(begin_cell().store_uint(max(node, 3), 8)"),
        ("other mode", "pay_out(node, 0, mode::carry_balance + mode::bounce_on_failure);"),
        ("no mode", "pay_out(node, 0, mode::carry_value + 0);"),
        ("drop operand", "pay_out(node, 0, mode::carry_value);"),
        ("first choice", "int after() method_id(7) { return ((flag) | true) ? 1 : 2; }"),
        ("second choice", "int after() method_id(7) { return ((flag) & false) ? 1 : 2; }"),
        ("other constant", "const int max_rows = 17;"),
        ("other constant", "const int max_rows = 15;"),
    ],
)
def test_a_handler_is_broken_in_this_way(mutants: list[Mutant], operator: str, after: str) -> None:
    assert (operator, after) in {(mutant.operator, " ".join(mutant.after.split())) for mutant in mutants}


def test_a_mutant_changes_one_place_and_names_it(mutants: list[Mutant]) -> None:
    assert len(set(mutants)) == len(mutants) > 25
    for mutant in mutants:
        assert mutant.apply(HANDLER) != HANDLER
        assert mutant.before != mutant.after
        first_word = mutant.before.split("(")[0]
        assert first_word in HANDLER.splitlines()[mutant.line - 1]
    assert {mutant.function for mutant in mutants} == {"pay", "after", "max_rows"}


def test_reads_of_a_message_and_ops_of_the_schema_are_left_alone(mutants: list[Mutant]) -> None:
    assert all("0x10" not in mutant.before for mutant in mutants)
    assert all(not mutant.before.startswith("int node") for mutant in mutants)


def test_source_that_is_not_understood_is_refused() -> None:
    with pytest.raises(SyntaxSurprise, match=r"odd.fc:2"):
        Source("odd.fc", "() f() {\n  a @ b; }")
    with pytest.raises(SyntaxSurprise, match="never closed"):
        Source("odd.fc", "() f() { a(;")


def test_every_committed_explanation_fits_a_mutant_and_says_why() -> None:
    explanations = read(EXPLAINED)
    assert len(match(all_mutants(read_sources()), explanations)) == len(explanations)


def test_an_explanation_of_a_changed_line_is_refused(mutants: list[Mutant], tmp_path: Path) -> None:
    mutant = mutants[3]
    good = Explanation(mutant.file, mutant.before, mutant.after, "reason")
    assert match(mutants, [good]) == {mutant: good}
    with pytest.raises(ExplanationError, match="the code has changed"):
        match(mutants, [Explanation(mutant.file, mutant.before + " ", mutant.after, "reason")])
    with pytest.raises(ExplanationError, match="the code has changed"):
        match(mutants, [Explanation(mutant.file, mutant.before, mutant.after, "reason", nth=2)])
    path = tmp_path / "explained.toml"
    path.write_text('[[mutant]]\nfile = "a"\nbefore = "b"\nafter = "c"\nreason = " "\n')
    with pytest.raises(ExplanationError, match="has no reason"):
        read(path)


def _tried(operator: str, text: str) -> trial.Verdict:
    sources = read_sources()
    original = {contract: trial.compiled(sources, [contract])[contract] for contract in Contract}
    [mutant] = [m for m in all_mutants(sources) if m.operator == operator and text in m.before and m.file == "node.fc"]
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=trial.run_in_child, args=(theirs, mutant, sources, original, {}, True))
    process.start()
    theirs.close()
    assert ours.poll(120)
    verdict: trial.Verdict = ours.recv()
    process.join()
    return verdict


def test_a_dropped_signature_check_is_killed_and_the_code_here_is_as_before() -> None:
    before = code(Contract.NODE).hash
    verdict = _tried("drop check", "check_signature(hash, signature, key.preload_uint(size::key))")
    assert verdict.status == "killed" and verdict.by.startswith("test_node.py::")
    assert code(Contract.NODE).hash == before
