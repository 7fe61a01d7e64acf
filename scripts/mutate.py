"""`make mutants`: breaks the contracts in every obvious way, one at a time, and tells which breaks no test notices.

A mutant is killed when a contract test fails on it. Tests that pin the code or its gas are not asked: they say that
something changed, not that it is wrong. Mutants that cannot be told from the original are explained in
tests/contracts/equivalent_mutants.toml. Exit code 1 when a mutant survives that is not explained there.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess

from scripts.compile import CONTRACTS
from scripts.mutants.explained import ExplanationError, match, read
from scripts.mutants.func import Source
from scripts.mutants.operators import Mutant, mutants_of
from scripts.mutants.trial import ROOT, TESTS, Code, Verdict, affected, ask_tests, compiled, fingerprint, run_in_child
from wrappers.code import Contract

EXPLAINED = TESTS / "equivalent_mutants.toml"
SURVIVORS = ROOT / "build" / "surviving_mutants.txt"
# Words of the TVM and names: the first are the machine's, the second are compared with schema.tlb by a test.
LEFT_ALONE = ("common/stdlib.fc", "common/op.fc", "common/errors.fc", "attestation/op.fc", "attestation/errors.fc")
# Far above any trial: each test has its own limit, and a mutant that loops runs out of gas.
TRIAL_SECONDS = 1_800


def read_sources() -> dict[str, str]:
    return {str(path.relative_to(CONTRACTS)): path.read_text() for path in sorted(CONTRACTS.rglob("*.fc"))}


def all_mutants(sources: Mapping[str, str]) -> list[Mutant]:
    names = [name for name in sources if name not in LEFT_ALONE and affected(sources, name)]
    return [mutant for name in names for mutant in mutants_of(Source(name, sources[name]))]


@dataclass
class Trial:
    mutant: Mutant
    process: ForkProcess
    verdict: Connection
    started: float


@dataclass
class Campaign:
    sources: Mapping[str, str]
    original: Code
    quick: bool
    known: dict[str, str] = field(default_factory=dict)
    """What stands for each code that was tried, by fingerprint."""
    verdicts: dict[Mutant, Verdict] = field(default_factory=dict)

    def run(self, mutants: Sequence[Mutant], processes: int) -> None:
        waiting = list(reversed(mutants))
        running: list[Trial] = []
        self.known[fingerprint(self.original)] = "the original"
        while waiting or running:
            while waiting and len(running) < processes:
                running.append(self.start(waiting.pop()))
            wait([trial.verdict for trial in running], timeout=1.0)
            for trial in list(running):
                verdict = self.outcome(trial)
                if verdict is not None:
                    running.remove(trial)
                    self.note(trial.mutant, verdict, len(mutants))

    def start(self, mutant: Mutant) -> Trial:
        context = get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        args = (theirs, mutant, self.sources, self.original, self.known, self.quick)
        process = context.Process(target=run_in_child, args=args)
        process.start()
        theirs.close()
        return Trial(mutant, process, ours, time.monotonic())

    def outcome(self, trial: Trial) -> Verdict | None:
        """None while it is running."""
        verdict: Verdict | None = None
        if trial.verdict.poll():
            try:
                verdict = trial.verdict.recv()
            except EOFError:
                trial.process.join()
                verdict = Verdict("broken", f"the test process ended with {trial.process.exitcode}")
        elif time.monotonic() - trial.started > TRIAL_SECONDS:
            verdict = Verdict("broken", f"no end within {TRIAL_SECONDS} s")
            os.killpg(trial.process.ident or 0, signal.SIGKILL)
        if verdict is not None:
            trial.process.join()
            trial.verdict.close()
        return verdict

    def note(self, mutant: Mutant, verdict: Verdict, total: int) -> None:
        self.verdicts[mutant] = verdict
        if verdict.code and verdict.status != "same code":
            self.known[verdict.code] = f"{mutant.place} ({verdict.status})"
        print(f"{len(self.verdicts):5}/{total} {mutant.place:28} {mutant.operator:20} {verdict.status} {verdict.by}")
        sys.stdout.flush()


def told(mutant: Mutant) -> str:
    head = f"{mutant.place} in {mutant.function}, {mutant.operator}"
    return f"{head}\n  - {mutant.before}\n  + {mutant.after}\n"


def report(verdicts: Mapping[Mutant, Verdict], explained: int) -> bool:
    """Whether nothing survived unexplained. Writes the survivors to a file besides."""
    counts = Counter(verdict.status for verdict in verdicts.values())
    survivors = [mutant for mutant, verdict in verdicts.items() if verdict.status == "survived"]
    survivors.sort(key=lambda mutant: (mutant.file, mutant.start))
    SURVIVORS.parent.mkdir(exist_ok=True)
    SURVIVORS.write_text("\n".join(map(told, survivors)))
    print()
    for mutant in survivors:
        print(told(mutant))
    for mutant, verdict in verdicts.items():
        if verdict.status == "broken":
            print(f"not tried, {verdict.by}:\n{told(mutant)}")
    print(
        f"{len(verdicts)} mutants: {counts['killed']} killed, {counts['survived']} survived, {counts['same code']} "
        f"compile to code that was tried already, {counts['does not compile']} do not compile; {explained} more are "
        "explained"
    )
    if survivors:
        print(f"write a test for each survivor ({SURVIVORS}), or explain it in {EXPLAINED.relative_to(ROOT)}")
    return not survivors and not counts["broken"]


def check_explained(verdicts: Mapping[Mutant, Verdict]) -> bool:
    wrong = {mutant: verdict for mutant, verdict in verdicts.items() if verdict.status == "killed"}
    for mutant, verdict in wrong.items():
        print(f"\nexplained as equivalent, but {verdict.by} kills it:\n{told(mutant)}")
    print(f"{len(verdicts)} explained mutants were tried, {len(wrong)} of them are killed")
    return not wrong


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants chosen at random")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--only", default="", metavar="TEXT", help="places that begin so: escrow, node.fc:120:")
    parser.add_argument("--operator", action="append", metavar="NAME", help="only this kind of break; may be repeated")
    parser.add_argument("--quick", action="store_true", help="do not ask the random state machine (it takes longest)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print the mutants, try none")
    parser.add_argument("--explained", action="store_true", help="try the explained mutants: none may be killed")
    return parser.parse_args()


def chosen(mutants: Sequence[Mutant], args: argparse.Namespace) -> list[Mutant]:
    wanted = [mutant for mutant in mutants if f"{mutant.place}:".startswith(args.only)]
    if args.operator:
        wanted = [mutant for mutant in wanted if mutant.operator in args.operator]
    if args.sample is not None and args.sample < len(wanted):
        wanted = random.Random(args.seed).sample(wanted, args.sample)
    return wanted


def main() -> int:
    args = options()
    sources = read_sources()
    mutants = all_mutants(sources)
    try:
        explained = match(mutants, read(EXPLAINED))
    except ExplanationError as error:
        print(error)
        return 1
    wanted = chosen([mutant for mutant in mutants if (mutant in explained) == args.explained], args)
    if args.list:
        print("\n".join(map(told, wanted)))
        return 0
    campaign = Campaign(sources, compiled(sources, list(Contract)), args.quick)
    if not passes_unbroken(campaign.original, sources):
        print("the contract tests fail on the unbroken code: nothing can be told from mutants; run `make test`")
        return 1
    campaign.run(wanted, args.processes)
    if args.explained:
        return 0 if check_explained(campaign.verdicts) else 1
    return 0 if report(campaign.verdicts, len(explained)) else 1


def _passes(original: Code, sources: Mapping[str, str]) -> None:
    sys.exit(1 if ask_tests(original, sources, "", quick=True) else 0)


def passes_unbroken(original: Code, sources: Mapping[str, str]) -> bool:
    process = get_context("fork").Process(target=_passes, args=(original, sources))
    process.start()
    process.join()
    return process.exitcode == 0


if __name__ == "__main__":
    sys.exit(main())
