"""Trials of many mutants, some at a time, each in a fork that is shown the tests that depend on what it changed."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any

from scripts.mutants.journal import Identities, Journal
from scripts.mutants.operators import Mutant
from scripts.mutants.order import chosen, ordered, within
from scripts.mutants.recording import Memory, Needs, Recorder, Recording, text_key, watch
from scripts.mutants.suite import LAST, TESTS, Suite, SuiteError, file_of
from scripts.mutants.trial import Code, Verdict, affected, attempt, fingerprint, in_place, quietly, seconds_used

# Far above any trial: each test has its own limit, and a mutant that loops runs out of gas.
TRIAL_SECONDS = 1_800


@dataclass
class Trial:
    mutant: Mutant
    process: ForkProcess
    answer: Connection
    started: float
    after: Verdict | None = None
    """The kill that stands if the killer passes alone on the unbroken code, which this trial finds out."""


def _forked(body: Callable[[], object]) -> tuple[ForkProcess, Connection]:
    """A process that sends what `body` returns, or the exception."""
    context = get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run(out: Connection) -> None:
        quietly()
        try:
            out.send(body())
        except Exception as error:  # a fault of the trial must not pass for a kill
            out.send(error)

    process = context.Process(target=run, args=(theirs,))
    process.start()
    theirs.close()
    return process, ours


@dataclass
class Campaign:
    sources: Mapping[str, str]
    original: Code
    suite: Suite
    memory: Memory
    journal: Journal
    identities: Identities
    quick: bool
    partial: bool
    """Some test files were left out by name: a survivor of the others is none."""
    ask_all: bool = False
    """Also tests that run nothing of what is mutated: shows that the choice loses no killer."""
    patience_seconds: float | None = None
    """Each mutant is shown the likeliest tests that fit into this time; what lives then is a survivor of those only."""
    recording: Recording = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)
    """What stands for each code that was tried, by fingerprint."""
    verdicts: dict[Mutant, Verdict] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        names = dict.fromkeys(map(file_of, self.suite.items))
        return [name for name in names if not (self.quick and name in LAST)]

    def record(self) -> None:
        """Runs the tests whose needs are not known on the unbroken code. Raises SuiteError when all fail there."""
        stale = self.memory.stale(self.files)
        for number, name in enumerate(stale, 1):
            print(f"recording what the tests depend on, on the unbroken code: {name}, {number} of {len(stale)}")
            sys.stdout.flush()
            tests = [test for test in self.suite.items if file_of(test) == name]
            result = _received(*_forked(partial(self._recorded, tests)))
            if not isinstance(result, dict):
                raise SuiteError(f"{name} cannot be run on the unbroken code: {result}; run `make test`")
            self.memory.take(name, result)
        self.recording = self.memory.recording(test for test in self.suite.items if file_of(test) in self.files)
        for test in self.suite.items:
            if file_of(test) in self.files and test not in self.recording:
                print(f"{test} fails on the unbroken code and is not asked: mend it, whatever survives now")
        if not self.recording:
            raise SuiteError("no test passes on the unbroken code: nothing can be told from mutants; run `make test`")

    def _recorded(self, tests: list[str]) -> dict[str, Needs]:
        recorder = Recorder()
        with in_place(self.original, self.sources, self.suite):
            watch(recorder)
            self.suite.register(recorder)
            failed = self.suite.failed(tests, all_of_them=True)
        return {test: recorder.needs(self.suite.items[test]) for test in tests if test not in failed}

    def run(self, mutants: Sequence[Mutant], processes: int, *, anew: bool) -> None:
        waiting: list[Mutant] = []
        self.known[fingerprint(self.original)] = "the original"
        for mutant in mutants:
            verdict = None if anew else self.journal.standing(self.identities.of(mutant), self.files)
            if verdict is None:
                waiting.append(mutant)
            else:
                self.verdicts[mutant] = verdict
                self._know(mutant, verdict)
        if self.verdicts:
            print(f"{len(self.verdicts)} of {len(mutants)} mutants were tried before, with this code and these tests")
        total, running = len(mutants), list[Trial]()
        waiting.reverse()
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(self._start(waiting.pop()))
            wait([trial.answer for trial in running], timeout=1.0)
            for trial in list(running):
                verdict = self._outcome(trial)
                if verdict is None:
                    continue
                running.remove(trial)
                if trial.after is None and verdict.status == "killed" and self._must_stand_alone(verdict.by):
                    running.append(self._start_alone(trial.mutant, verdict))
                else:
                    self._note(trial.mutant, verdict, total)

    def tests_for(self, mutant: Mutant, *, again: bool = False) -> list[str]:
        """`again`: it has survived all but the random machines."""
        tests = list(self.recording)
        if not self.ask_all:
            tests = chosen(self.recording, affected(self.sources, mutant.file))
        if again:
            tests = [test for test in tests if file_of(test) in LAST]
        tests = ordered(mutant, self.journal.kills, self.recording, tests)
        return tests if self.patience_seconds is None else within(self.patience_seconds, self.recording, tests)

    def _start(self, mutant: Mutant) -> Trial:
        again = self.journal.survived_all_but_last(self.identities.of(mutant), self.files)
        tests = self.tests_for(mutant, again=again)

        def body() -> Verdict:
            verdict = attempt(mutant, self.sources, self.original, self.known, self.suite, tests)
            return replace(verdict, seconds=seconds_used())

        return Trial(mutant, *_forked(body), time.monotonic())

    def _start_alone(self, mutant: Mutant, verdict: Verdict) -> Trial:
        """A test that leans on those before it may fail for having been asked first: that is no kill."""

        def body() -> Verdict:
            with in_place(self.original, self.sources, self.suite):
                if self.suite.failed([verdict.by]):
                    return Verdict(
                        "broken", f"{verdict.by} fails on the unbroken code when it runs alone: mend the test"
                    )
            return verdict

        return Trial(mutant, *_forked(body), time.monotonic(), verdict)

    def _must_stand_alone(self, test: str) -> bool:
        name = file_of(test)
        return name not in LAST and self.memory.alone.get(test) != text_key(TESTS / name)

    def _outcome(self, trial: Trial) -> Verdict | None:
        """None while it is running."""
        if not trial.answer.poll():
            if time.monotonic() - trial.started <= TRIAL_SECONDS:
                return None
            os.killpg(trial.process.ident or 0, signal.SIGKILL)
            return Verdict("broken", f"no end within {TRIAL_SECONDS} s")
        answer = _received(trial.process, trial.answer)
        return answer if isinstance(answer, Verdict) else Verdict("broken", repr(answer))

    def _know(self, mutant: Mutant, verdict: Verdict) -> None:
        if verdict.code and verdict.status != "same code":
            self.known[verdict.code] = f"{mutant.place} ({verdict.status})"

    def _note(self, mutant: Mutant, verdict: Verdict, total: int) -> None:
        self.verdicts[mutant] = verdict
        self._know(mutant, verdict)
        if verdict.status == "killed" and self._must_stand_alone(verdict.by):
            self.memory.alone[verdict.by] = text_key(TESTS / file_of(verdict.by))
            self.memory.save()
        some_only = self.partial or self.patience_seconds is not None
        if not (some_only and verdict.status == "survived"):
            self.journal.note(mutant, self.identities.of(mutant), verdict, self.files, quick=self.quick)
        print(
            f"{len(self.verdicts):5}/{total} {verdict.seconds:5.1f} s {mutant.place:28} {mutant.operator:20} "
            f"{verdict.status} {verdict.by}"
        )
        if verdict.status == "survived":
            print(f"      - {mutant.before}\n      + {mutant.after}")
        sys.stdout.flush()


def _received(process: ForkProcess, answer: Connection) -> Any:
    try:
        result = answer.recv()
    except EOFError:
        result = None
    process.join()
    answer.close()
    return f"the process, which ended with {process.exitcode}," if result is None else result
