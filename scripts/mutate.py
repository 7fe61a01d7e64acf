"""`make mutants`: breaks the contracts in every obvious way, one at a time, and tells which breaks no test notices.

A mutant is killed when a contract test fails on it. Tests that pin the code or its gas are not asked: they say that
something changed, not that it is wrong. Mutants that cannot be told from the original are explained in
tests/contracts/equivalent_mutants.toml. Exit code 1 when a mutant survives that is not explained there.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.compile import CONTRACTS
from scripts.mutants.campaign import Campaign
from scripts.mutants.explained import ExplanationError, match, read
from scripts.mutants.func import Source
from scripts.mutants.journal import Identities, Journal
from scripts.mutants.operators import Mutant, mutants_of
from scripts.mutants.recording import Memory, base_key
from scripts.mutants.suite import ROOT, TESTS, Suite, SuiteError, with_suite
from scripts.mutants.trial import Verdict, affected, compiled, fingerprint
from wrappers.code import Contract

EXPLAINED = TESTS / "equivalent_mutants.toml"
BUILD = ROOT / "build"
SURVIVORS = BUILD / "surviving_mutants.txt"
# Words of the TVM and names: the first are the machine's, the second are compared with schema.tlb by a test.
LEFT_ALONE = ("common/stdlib.fc", "common/op.fc", "common/errors.fc", "attestation/op.fc", "attestation/errors.fc")


def read_sources() -> dict[str, str]:
    return {str(path.relative_to(CONTRACTS)): path.read_text() for path in sorted(CONTRACTS.rglob("*.fc"))}


def all_mutants(sources: Mapping[str, str]) -> list[Mutant]:
    names = [name for name in sources if name not in LEFT_ALONE and affected(sources, name)]
    return [mutant for name in names for mutant in mutants_of(Source(name, sources[name]))]


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


def summary(mutants: Sequence[Mutant], journal: Journal, identities: Identities) -> None:
    """What is known of the mutants of these sources, a line for each file. Says nothing of tests changed since."""
    print(f"{'':28} mutants  tried  killed  same code  do not compile  survived")
    words = ("killed", "same code", "does not compile", "survived")
    total: Counter[str] = Counter()
    for name in dict.fromkeys(mutant.file for mutant in mutants):
        entries = [journal.entries.get(identities.of(mutant)) for mutant in mutants if mutant.file == name]
        counts = Counter(entry.status for entry in entries if entry is not None)
        counts["mutants"], counts["tried"] = len(entries), sum(counts[word] for word in words)
        total += counts
        print(_row(name, counts))
    print(_row("all", total))


def _row(name: str, counts: Mapping[str, int]) -> str:
    widths = {"mutants": 7, "tried": 6, "killed": 7, "same code": 10, "does not compile": 15, "survived": 9}
    return f"{name:28} " + " ".join(f"{counts[word]:{width}}" for word, width in widths.items())


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
    parser.add_argument(
        "--only", action="append", metavar="TEXT", help="places that begin so: escrow, node.fc:120:; may be repeated"
    )
    parser.add_argument("--operator", action="append", metavar="NAME", help="only this kind of break; may be repeated")
    parser.add_argument("--quick", action="store_true", help="do not ask the random machines (they take longest)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--list", action="store_true", help="print the mutants, try none")
    parser.add_argument("--summary", action="store_true", help="count what earlier runs found, file by file; try none")
    parser.add_argument("--explained", action="store_true", help="try the explained mutants: none may be killed")
    parser.add_argument("--survivors", action="store_true", help="only those that survived when they were last tried")
    parser.add_argument("--anew", action="store_true", help="try again what was tried with this code and these tests")
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="FILE", help="ask only these files of tests/contracts"
    )
    parser.add_argument(
        "--patience",
        type=float,
        metavar="SECONDS",
        help="of tests for each mutant, the likeliest killers first; what lives is printed, and tried again by others",
    )
    parser.add_argument("--ask-all", action="store_true", help="ask also tests that run nothing of what is mutated")
    parser.add_argument("--journal", type=Path, default=BUILD / "mutants.jsonl", help="where verdicts are kept")
    return parser.parse_args()


def chosen(mutants: Sequence[Mutant], args: argparse.Namespace) -> list[Mutant]:
    starts = tuple(args.only or [""])
    wanted = [mutant for mutant in mutants if f"{mutant.place}:".startswith(starts)]
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
    journal, identities = Journal.at(args.journal), Identities(sources)
    if args.summary:
        summary(wanted, journal, identities)
        return 0
    if args.survivors:
        survivors = {entry.mutant for entry in journal.entries.values() if entry.status == "survived"}
        wanted = [mutant for mutant in wanted if identities.of(mutant) in survivors]
    if args.list:
        print("\n".join(map(told, wanted)))
        return 0

    def act(suite: Suite) -> int:
        original = compiled(sources, list(Contract))
        memory = Memory.at(args.journal.with_name("mutants_recording.json"), base_key(fingerprint(original)))
        partial = bool(args.tests)
        campaign = Campaign(
            sources, original, suite, memory, journal, identities, args.quick, partial, args.ask_all, args.patience
        )
        campaign.record()
        campaign.run(wanted, args.processes, anew=args.anew)
        if args.explained:
            return 0 if check_explained(campaign.verdicts) else 1
        return 0 if report(campaign.verdicts, len(explained)) else 1

    try:
        return with_suite(act, args.tests)
    except SuiteError as error:
        print(error)
        return 1


if __name__ == "__main__":
    sys.exit(main())
