"""Which tests a mutant is shown, and in which order: those first that killed its neighbours, then cheap before dear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from scripts.mutants.journal import Entry
from scripts.mutants.operators import Mutant
from scripts.mutants.recording import Recording
from scripts.mutants.suite import LAST, file_of

# Single tests asked before whole files.
LIKELIEST = 8
# A test that takes longer waits for all that take less.
SLOW_SECONDS = 1.5


def chosen(recording: Recording, contracts: Iterable[str]) -> list[str]:
    """Tests that depend on one of the contracts, in the order in which they stand."""
    wanted = frozenset(map(str, contracts))
    return [test for test, needs in recording.items() if needs.contracts & wanted]


def likeliest(mutant: Mutant, kills: Sequence[Entry], tests: Iterable[str]) -> list[str]:
    """Of those tests: the latest killers in the mutant's function, then the most frequent ones in its file."""
    among = set(tests)
    here = [kill for kill in kills if kill.place.startswith(f"{mutant.file}:")]
    near = [kill.by for kill in reversed(here) if kill.function == mutant.function]
    near = list(dict.fromkeys(near))[: LIKELIEST // 2]
    often = [test for test, _ in Counter(kill.by for kill in here).most_common()]
    found = [test for test in dict.fromkeys([*near, *often]) if test in among and file_of(test) not in LAST]
    return found[:LIKELIEST]


def ordered(mutant: Mutant, kills: Sequence[Entry], recording: Recording, tests: Sequence[str]) -> list[str]:
    """All of `tests`. Those of one file stay together (their fixtures live as long), but for slow and likely ones."""
    first = likeliest(mutant, kills, tests)
    rest = [test for test in tests if test not in set(first)]
    slow = [test for test in rest if recording[test].seconds > SLOW_SECONDS and file_of(test) not in LAST]
    quick = [test for test in rest if test not in set(slow) and file_of(test) not in LAST]
    killers = Counter(file_of(kill.by) for kill in kills if kill.place.startswith(f"{mutant.file}:"))
    cost: Counter[str] = Counter()
    for test in quick:
        cost[file_of(test)] += recording[test].seconds  # type: ignore[assignment]
    quick.sort(key=lambda test: (-killers[file_of(test)], cost[file_of(test)], file_of(test)))
    slow.sort(key=lambda test: recording[test].seconds)
    last = [test for name in LAST for test in rest if file_of(test) == name]
    return [*first, *quick, *slow, *last]


def within(seconds: float, recording: Recording, tests: Iterable[str]) -> list[str]:
    """The first of `tests` that fit into this time, each that is too long passed over."""
    found = list[str]()
    for test in tests:
        if recording[test].seconds <= seconds:
            found.append(test)
            seconds -= recording[test].seconds
    return found
