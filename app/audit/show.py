"""What `cocoon audit` prints: for people, one fact per line; for programs, one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console

from app.audit.core.facts import Finding, Kind, Report

NANO = 1_000_000_000
out = Console(highlight=False, soft_wrap=True)


def ton(nano: int) -> str:
    sign = "-" if nano < 0 else ""
    return f"{sign}{abs(nano) // NANO}.{abs(nano) % NANO:09d}"


def document(reports: Sequence[Report], between: Sequence[Finding], receipts: Sequence[Finding]) -> dict[str, Any]:
    """Everything, as JSON."""
    groups = [report.findings for report in reports] + [tuple(between), tuple(receipts)]
    return {
        "holds": all(finding.holds for group in groups for finding in group),
        "accounts": [
            {
                "account": report.account.hex(),
                "kind": str(report.kind),
                "holds": report.holds,
                "balance_nano": report.balance_nano,
                "balance": [asdict(line) for line in report.lines],
                "findings": [asdict(finding) for finding in report.findings],
                "flows": [asdict(flow) for flow in report.flows],
                "fees_nano": report.fees_nano,
                "counters": dict(report.counters),
            }
            for report in reports
        ],
        "between": [asdict(finding) for finding in between],
        "receipts": [asdict(finding) for finding in receipts],
    }


def report(found: Report, *, flows: bool) -> None:
    word = "" if found.holds else "  DOES NOT HOLD"
    out.print(f"{found.kind} {found.account.hex()}: {ton(found.balance_nano)} TON{word}", style="bold", markup=False)
    for line in found.lines:
        out.print(f"  {ton(line.nano):>20}  {line.what}; whose: {line.whose}", markup=False)
    if flows and found.kind is not Kind.ABSENT:
        for flow in found.flows:
            came, left = (f"{ton(nano)}" if nano else "-" for nano in (flow.in_nano, flow.out_nano))
            party = flow.counterparty
            out.print(f"  in {came:>16}  out {left:>16}  {flow.count} x {flow.purpose}, {party}", markup=False)
        out.print(f"  fees of the chain {ton(found.fees_nano)}", markup=False)
    for name, value in found.counters.items():
        out.print(f"  {name.removesuffix('_nano')}: {ton(value) if name.endswith('_nano') else value}", markup=False)
    findings(found.findings, "  ")


def findings(found: Sequence[Finding], indent: str = "") -> None:
    for one in found:
        if one.holds:
            out.print(f"{indent}holds  {one.rule}" + (f": {one.said}" if one.said else ""), markup=False)
        else:
            out.print(f"{indent}FALSE  {one.rule}: {one.said}", style="bold red", markup=False)
