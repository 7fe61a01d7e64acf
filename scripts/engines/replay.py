"""Judges what the second engine answers for recorded runs, bit by bit."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tonpy.types import Cell as NativeCell

from chain.api import Transaction
from chain.decode import decode_transaction
from wrappers.cells import from_boc

ROOT = Path(__file__).parent.parent.parent
SANDBOX = ROOT / "node_modules" / "@ton" / "sandbox"
SCRIPT = Path(__file__).with_name("replay.js")
REPLAY_SECONDS = 600


class ReplayError(Exception):
    """The second engine did not answer every run. Says what it said."""


@dataclass
class Comparison:
    engine: str
    """Commit of the second emulator, as it says itself."""
    compared: Counter[str] = field(default_factory=Counter)
    """By kind: `transaction`, `refused` (external message not accepted), `get`; `too_deep` were not compared."""
    differences: list[str] = field(default_factory=list)


def why_not_here() -> str | None:
    """What is missing to run the second engine here, with the cure; None if nothing is."""
    if shutil.which("node") is None:
        return "Node is missing: install Node 20 or newer, then run `npm ci --ignore-scripts`"
    if not SANDBOX.exists():
        return "@ton/sandbox is missing: run `npm ci --ignore-scripts`"
    return None


def replay(recording: Path) -> Comparison:
    """Run every recorded run on @ton/sandbox's emulator. Raises ReplayError when any of them has no answer."""
    with recording.open() as lines:
        node = subprocess.run(
            ["node", str(SCRIPT)], cwd=ROOT, stdin=lines, capture_output=True, text=True, timeout=REPLAY_SECONDS
        )
    if node.returncode:
        raise ReplayError(f"the second engine stopped: {node.stderr.strip()[-2000:]}")
    first, *answers = (json.loads(line) for line in node.stdout.splitlines())
    version = first["version"]
    comparison = Comparison(f"{version['commitHash'][:10]} of {version['commitDate'][:10]}")
    with recording.open() as lines:
        runs = [run for run in map(json.loads, lines) if run["kind"] in ("transaction", "get")]
    if len(runs) != len(answers):
        raise ReplayError(f"{len(runs)} runs were recorded, the second engine answered {len(answers)}")
    for number, (run, answer) in enumerate(zip(runs, answers, strict=True)):
        kind, difference = judge(run, answer)
        comparison.compared[kind] += 1
        if difference is not None:
            comparison.differences.append(f"run {number} ({kind}): {difference}")
    return comparison


def judge(run: dict[str, Any], answer: dict[str, Any]) -> tuple[str, str | None]:
    """Kind of the run, and how the two engines differ (None: they do not)."""
    expected = run["expected"]
    if run["kind"] == "get":
        ours = (expected["exit_code"], expected["gas"], comparable(expected["stack"]))
        # What a failed method leaves on its stack is nobody's answer: our engine does not read it.
        left = answer.get("stack", []) if answer.get("exit_code") in (0, 1) else []
        theirs = (answer.get("exit_code"), answer.get("gas"), comparable(left))
        return "get", None if ours == theirs else f"{ours} here, {theirs} there {answer.get('error', '')}".rstrip()
    if "too_deep" in answer:
        return "too_deep", None
    if "refused_with" in expected:
        if "transaction" in answer:
            return "refused", f"not accepted here ({expected['refused_with']}), accepted there"
        if answer.get("exit_code") != expected["refused_with"]:
            return "refused", f"exit code {expected['refused_with']} here, {answer} there"
        return "refused", None
    if "transaction" not in answer:
        return "transaction", f"executed here, there: {answer}"
    same_transaction = bag_hash(answer["transaction"]) == expected["transaction_hash"]
    same_state = bag_hash(answer["account"]) == expected["account_hash"]
    if same_transaction and same_state:
        return "transaction", None
    ours_said, theirs_said = (said(boc) for boc in (expected["transaction"], answer["transaction"]))
    return "transaction", f"{ours_said} here, {theirs_said} there; same state: {same_state}"


def bag_hash(boc: str) -> str:
    """Representation hash of the root, in hex; the native codec is 50 times faster than ours."""
    return str(NativeCell(boc).get_hash()).lower()


def comparable(value: Any) -> Any:
    if isinstance(value, list):
        return [comparable(item) for item in value]
    return {kind: bag_hash(boc) for kind, boc in value.items()} if isinstance(value, dict) else value


def said(boc: str) -> str:
    cell = from_boc(base64.b64decode(boc))
    account: bytes = cell.begin_parse().skip_bits(4).load_bytes(32)
    tx: Transaction = decode_transaction(cell, account)
    return (
        f"transaction {tx.cell.hash.hex()[:16]} of 0:{account.hex()[:16]} lt {tx.lt}: "
        f"exit code {tx.exit_code}, gas {tx.gas_used}, fees {tx.total_fees_nano}, {len(tx.out_msgs)} messages"
    )
