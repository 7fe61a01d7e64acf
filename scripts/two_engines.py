"""`make engines`: the contract tests on tonpy's engine (TVM v11), then all they executed on @ton/sandbox's (v12).

Both must give the same transactions (gas, fees, messages, exit codes), state and refusals, to the bit.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.engines.replay import ROOT, Comparison, ReplayError, replay, why_not_here

TESTS = "tests/contracts"
# They compile, or run the second engine themselves: nothing of theirs is left to compare.
# The random machines make tens of thousands of transactions of the same kinds: too long for every landing.
NOT_RECORDED = ("test_compile.py", "test_two_engines.py", "test_machine.py", "test_audit_market.py")
# Below this the comparison would be of nearly nothing, whatever it says.
FEWEST = 3_000
# Messages too deep for the second engine's stack (replay.js): those of the longest revocation lists.
MOST_TOO_DEEP = 16
SHOWN = 20


def record(path: Path) -> bool:
    """Whether the contract tests passed while they were recorded."""
    ignored = [f"--ignore={TESTS}/{name}" for name in NOT_RECORDED]
    command = [sys.executable, "-m", "pytest", "-p", "scripts.engines.recorder", f"--record={path}", *ignored, TESTS]
    return subprocess.run(command, cwd=ROOT).returncode == 0


def report(comparison: Comparison) -> bool:
    """Prints the outcome; whether the engines agree."""
    counts = comparison.compared
    print(
        f"compared with the emulator of @ton/sandbox ({comparison.engine}): {counts['transaction']} transactions, "
        f"{counts['refused']} refused external messages, {counts['get']} get methods; "
        f"not compared, too deep for that engine: {counts['too_deep']}"
    )
    for difference in comparison.differences[:SHOWN]:
        print(f"  {difference}")
    if comparison.differences:
        print(f"the engines differ in {len(comparison.differences)} runs ({SHOWN} at most are shown)")
        return False
    if counts["too_deep"] > MOST_TOO_DEEP:
        print(f"more than {MOST_TOO_DEEP} messages were not compared: make them flatter, or compare them elsewhere")
        return False
    compared = counts.total() - counts["too_deep"]
    if compared < FEWEST:
        print(f"only {compared} runs were compared, at least {FEWEST} are expected: were the tests selected?")
        return False
    print("gas, hashes and state are identical")
    return True


def main() -> int:
    missing = why_not_here()
    if missing is not None:
        print(f"SKIPPED, the engines were not compared: {missing}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        started = time.monotonic()
        passed = record(path)
        recorded = time.monotonic()
        try:
            agree = report(replay(path))
        except ReplayError as error:
            print(f"the engines were not compared: {error}")
            return 1
        print(f"{recorded - started:.0f} s of tests, {time.monotonic() - recorded:.0f} s of replay")
    if not passed:
        print("the contract tests themselves fail: see above")
    return 0 if agree and passed else 1


if __name__ == "__main__":
    sys.exit(main())
