"""The contract tests, collected once: every trial is a fork of the process that did it and runs what it is told to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import hypothesis
import pytest

import wrappers.code

ROOT = Path(wrappers.code.__file__).parent.parent
TESTS = ROOT / "tests" / "contracts"
# These hold the code or its gas fast, whatever it does, or do not run it: they would kill every mutant for no reason.
PINS = ("test_compile.py", "test_gas.py", "test_two_engines.py", "test_mutants_check.py")
PINNING_TEST = "test_g8_gas_constant_is_at_least_the_worst_case_and_at_most_a_tenth_above"
PINNING_TESTS = (f"test_fees.py::{PINNING_TEST}", f"test_committee_gas.py::{PINNING_TEST}")
# Random and slow: asked last, always with the same seed.
LAST = ("test_audit_market.py", "test_machine.py")
# No rewriting of assertions, no cache: nobody reads what the tests say here. No capture: a trial prints to nowhere.
# No time limit: on a busy machine it would pass for a kill.
_PYTEST = ("-s", "-qq", "-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:xdist", "--assert=plain", "--tb=no")
_MORE = ("-W", "ignore", "--timeout=0", "--hypothesis-seed=0", "--no-header", "--no-summary")


class SuiteError(Exception):
    """The tests cannot be asked. Says why."""


def file_of(test: str) -> str:
    return test.partition("::")[0]


class Suite:
    """Tests by name (`test_node.py::test_x[1]`), in the order in which they stand."""

    def __init__(self, session: pytest.Session) -> None:
        self.items = {_name(item.nodeid): item for item in session.items}
        self.failures: list[str] = []
        self.register = session.config.pluginmanager.register
        self.register(self)

    @pytest.hookimpl
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failures.append(_name(report.nodeid))

    def failed(self, tests: Iterable[str], *, all_of_them: bool = False) -> list[str]:
        """Runs the tests in that order, up to the first that fails or all; those that failed. Once in a process."""
        items = [self.items[test] for test in tests]
        for item, following in zip(items, [*items[1:], None], strict=True):
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.failures and not all_of_them:
                break
        return self.failures

    def move_paths(self, old: Path, new: Path) -> None:
        """Lets what the test modules found in one folder when they were imported stand in another."""
        for module in {getattr(item, "module", None) for item in self.items.values()}:
            for name, value in list(vars(module).items()):
                if isinstance(value, Path) and value.is_relative_to(old):
                    setattr(module, name, new / value.relative_to(old))


def _name(nodeid: str) -> str:
    head, mark, parameters = nodeid.partition("[")
    return head.rpartition("/")[2] + mark + parameters


class _Instead:
    """Takes the place of pytest's own loop over the tests."""

    def __init__(self, act: Callable[[Suite], int]) -> None:
        self.act = act
        self.result = 1
        self.error: BaseException | None = None
        self.loads_code = ""
        """Module that would show every mutant the code of the original."""

    @pytest.hookimpl
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if wrappers.code.code.cache_info().currsize and not self.loads_code:
            self.loads_code = report.nodeid

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        try:
            if session.testsfailed:
                raise SuiteError("the contract tests cannot be collected: run `make test`")
            if self.loads_code:
                raise SuiteError(f"{self.loads_code} loads a contract's code when it is imported: make it a function")
            self.result = self.act(Suite(session))
        except BaseException as error:  # pytest would turn it into a status
            self.error = error
        return True


def with_suite(act: Callable[[Suite], int], files: Iterable[str] = ()) -> int:
    """Collects `files` of tests/contracts (all but PINS when empty) and returns what `act` does."""
    names = list(files) or sorted(path.name for path in TESTS.glob("test_*.py") if path.name not in PINS)
    # Failing examples of one mutant are nothing to the next.
    hypothesis.settings.register_profile("mutants", database=None)
    hypothesis.settings.load_profile("mutants")
    deselected = [f"--deselect=tests/contracts/{test}" for test in PINNING_TESTS]
    loop = _Instead(act)
    paths = [str(TESTS / name) for name in names]
    status = pytest.main([*_PYTEST, *_MORE, f"--rootdir={ROOT}", *deselected, *paths], plugins=[loop])
    sys.stdout.flush()
    if loop.error is not None:
        raise loop.error
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        raise SuiteError(f"pytest ended with {status!r}: run `make test`")
    return loop.result
