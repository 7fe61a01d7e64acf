"""The mutation check breaks what it says, replaces the code that the tests run, and takes no old explanation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from scripts.mutants.campaign import Campaign
from scripts.mutants.explained import Explanation, ExplanationError, match, read
from scripts.mutants.func import Source, SyntaxSurprise
from scripts.mutants.journal import Entry, Identities, Journal
from scripts.mutants.operators import Mutant, mutants_of
from scripts.mutants.order import chosen, ordered, within
from scripts.mutants.recording import Memory, Needs
from scripts.mutants.suite import ROOT, Suite, SuiteError
from scripts.mutants.trial import Verdict, compiled
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


def _entry(place: str, function: str, by: str) -> Entry:
    return Entry(place, function, "drop check", place, "tests", "killed", by, "code", False, 1.0)


RECORDING = {
    "test_a.py::test_dear": Needs(frozenset(["node"]), 4.0),
    "test_a.py::test_one": Needs(frozenset(["node"]), 0.2),
    "test_b.py::test_other_contract": Needs(frozenset(["job"]), 0.1),
    "test_b.py::test_two": Needs(frozenset(["node", "job"]), 0.1),
    "test_c.py::test_three": Needs(frozenset(["node"]), 0.3),
    "test_machine.py::TestMachine::runTest": Needs(frozenset(["node"]), 40.0),
}
MACHINE = "test_machine.py::TestMachine::runTest"


def test_whoever_killed_in_the_function_then_in_the_file_is_asked_first_and_the_machines_last(
    mutants: list[Mutant],
) -> None:
    tests = chosen(RECORDING, [Contract.NODE])
    assert "test_b.py::test_other_contract" not in tests and len(tests) == 5
    mutant = mutants[0]
    cheap_first = [
        "test_b.py::test_two",
        "test_a.py::test_one",
        "test_c.py::test_three",
        "test_a.py::test_dear",
        MACHINE,
    ]
    assert ordered(mutant, [], RECORDING, tests) == cheap_first
    kills = [
        _entry("pay.fc:1", "other", "test_a.py::test_one"),
        _entry("pay.fc:1", "other", "test_a.py::test_one"),
        _entry("pay.fc:7", mutant.function, "test_c.py::test_three"),
        _entry("pay.fc:7", mutant.function, MACHINE),
        _entry("pay.fc:9", "other", "test_gone.py::test_gone"),
        _entry("else.fc:2", mutant.function, "test_b.py::test_two"),
    ]
    again = ordered(mutant, kills, RECORDING, tests)
    assert again[:2] == ["test_c.py::test_three", "test_a.py::test_one"] and again[-1] == MACHINE
    assert sorted(again) == sorted(tests), "the order leaves nobody out"
    assert within(1_000.0, RECORDING, tests) == tests
    dear = max(tests, key=lambda test: RECORDING[test].seconds)
    rest = [test for test in tests if test != dear]
    assert within(RECORDING[dear].seconds - 0.1, RECORDING, [dear, rest[0]]) == rest[:1]


def test_a_verdict_stands_while_its_sources_and_its_tests_do(tmp_path: Path) -> None:
    sources = read_sources()
    mutant, other = [each for each in all_mutants(sources) if each.file == "job.fc"][:2]
    identity = Identities(sources).of(mutant)
    assert identity != Identities(sources).of(other)
    assert identity == Identities(sources | {"node.fc": "() other() { }"}).of(mutant), "no part of the job's code"
    assert identity != Identities(sources | {"common/types.fc": sources["common/types.fc"] + "const int x = 1;"}).of(
        mutant
    )
    with_comment = ";; said\n" + sources["job.fc"]
    [moved] = [
        each
        for each in mutants_of(Source("job.fc", with_comment))
        if (each.start, each.replacement) == (mutant.start + 8, mutant.replacement)
    ]
    assert identity == Identities(sources | {"job.fc": with_comment}).of(moved)

    files = ["test_job.py", "test_machine.py"]
    journal = Journal.at(tmp_path / "journal.jsonl")
    assert journal.standing(identity, files) is None
    journal.note(mutant, identity, Verdict("killed", "test_job.py::test_x", "code"), files, quick=False)
    journal.note(other, "other", Verdict("survived", "", "code"), ["test_job.py"], quick=True)
    read_again = Journal.at(tmp_path / "journal.jsonl")
    killed = read_again.standing(identity, files)
    assert killed is not None and killed.by == "test_job.py::test_x"
    assert read_again.standing("other", ["test_job.py"]) is not None
    assert read_again.standing("other", files) is None, "the machine was not asked"
    assert read_again.survived_all_but_last("other", files)
    assert read_again.standing("other", ["test_job.py", "test_node.py"]) is None, "nor was another file"
    changed = replace(read_again.entries[identity], tests="of another text")
    assert Journal(journal.path, {identity: changed}).standing(identity, files) is None


def _mutate(journal: Path, *arguments: str) -> dict[str, tuple[str, str]]:
    """What became of each mutant: status and killer by fingerprint."""
    command = [sys.executable, "-m", "scripts.mutate", "--journal", str(journal), "--processes", "1", *arguments]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert "mutants: " in run.stdout, run.stdout + run.stderr
    return {key: (entry.status, entry.by) for key, entry in Journal.at(journal).entries.items()}


def test_a_dropped_check_is_killed_by_a_test_that_runs_it_whoever_else_is_asked(tmp_path: Path) -> None:
    """And what is tried once is not tried again; tests that run nothing of the stub kill nothing of it."""
    files = ["--tests", "test_registry.py", "test_job_wrappers.py", "--only", "stub.fc"]
    journal = tmp_path / "journal.jsonl"
    code_before = code(Contract.STUB).hash
    verdicts = _mutate(journal, *files, "--operator", "drop check", "--operator", "drop operand")
    killers = [by for said, by in verdicts.values() if said == "killed"]
    assert killers and all(by.startswith("test_registry.py::") for by in killers)
    lines = journal.read_text()
    _mutate(journal, *files, "--operator", "drop check")
    assert journal.read_text() == lines, "what was tried stands"
    everybody = tmp_path / "all.jsonl"
    asked_all = _mutate(everybody, *files, "--operator", "drop check", "--ask-all")
    assert {key: said for key, (said, _) in asked_all.items()} == {key: verdicts[key][0] for key in asked_all}
    assert code(Contract.STUB).hash == code_before


def test_no_contract_test_loads_a_code_when_it_is_imported() -> None:
    """It would show every mutant the code of the original."""
    program = "from scripts.mutants.suite import with_suite; with_suite(lambda suite: print(len(suite.items)) or 0)"
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert run.returncode == 0 and int(run.stdout) > 900, run.stderr


class _Failing:
    """A suite whose only test fails, whatever the code."""

    def __init__(self) -> None:
        self.items = {"test_job.py::test_x": None}

    def failed(self, tests: Iterable[str], *, all_of_them: bool = False) -> list[str]:
        return list(tests)

    def move_paths(self, old: Path, new: Path) -> None:
        pass

    def register(self, plugin: object) -> None:
        pass


def test_a_test_that_fails_on_the_unbroken_code_kills_nothing(tmp_path: Path) -> None:
    sources = read_sources()
    original = compiled(sources, list(Contract))
    memory, journal = Memory(tmp_path / "recording.json", ""), Journal(tmp_path / "journal.jsonl")
    suite = cast(Suite, _Failing())
    campaign = Campaign(sources, original, suite, memory, journal, Identities(sources), quick=False, partial=False)
    with pytest.raises(SuiteError, match="no test passes on the unbroken code"):
        campaign.record()
    campaign.recording = {"test_job.py::test_x": Needs(frozenset(["job"]), 1.0)}
    mutant = next(each for each in all_mutants(sources) if each.file == "job.fc" and each.operator == "never branch")
    campaign.run([mutant], 1, anew=False)
    assert campaign.verdicts[mutant].status == "broken" and "runs alone" in campaign.verdicts[mutant].by
