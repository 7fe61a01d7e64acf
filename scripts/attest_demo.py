"""Runs TDX quotes through the attestation contract on the emulated chain: `make attest-demo`.

Without arguments: the genuine quotes that tests use, at the time of their collateral, and a simulated machine from its
quote to a verdict. With arguments: QUOTE [COLLATERAL] ..., one JSON line per quote (verdict, reason, gas, all_in_nano).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attestation import vectors
from attestation.collateral import Collateral
from attestation.collateral import read as read_collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.errors import explain
from attestation.onchain.hints import NoHints
from attestation.onchain.messages import appraise
from attestation.onchain.pieces import BadWitness
from attestation.onchain.state import ChainImage
from attestation.report_data import NO_GPU, Binding
from attestation.simulated import collateral as simulated
from attestation.simulated.tee import SimulatedTee
from attestation.strict import Malformed
from attestation.trust_roots import root
from attestation.witness import QuoteParts, attest_message
from devnet.ledger import Ledger
from scripts.attest_stage import Outcome, Stage

# Quotes without collateral of their own are judged by that of another machine of the same platform type.
REAL = (
    ("phala/tdx_quote", "phala/tdx_quote_collateral.json"),
    ("phala/quote-from-tappd.hex", "phala/tdx_quote_collateral.json"),
    ("phala/tdx-quote.hex", "phala/tdx_quote_collateral.json"),
    ("phala/tdx_quote_outdated", "phala/tdx_quote_outdated_collateral.json"),
    ("cocoon/quote.dat", "phala/tdx_quote_outdated_collateral.json"),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One quote's outcome. None: it did not come to the chain."""

    quote: str
    verdict: str
    reason: str
    gas: int | None
    all_in_nano: int | None


def quote_bytes(raw: bytes) -> bytes:
    """A quote, binary or as hex text."""
    if raw[:2] in (b"\x04\x00", b"\x05\x00"):
        return raw
    try:
        return bytes.fromhex(raw.decode().strip().removeprefix("0x"))
    except ValueError as error:
        raise Malformed("neither a TDX quote of version 4 or 5 nor one in hex; give the quote itself") from error


def midst(collateral: Collateral) -> int:
    """A moment at which all of it is valid, unix seconds: an hour before its end."""
    return read_collateral(collateral).expires_at - 3600


def judge(stage: Stage, name: str, quote: bytes) -> Line:
    try:
        parts = QuoteParts.of(quote)
        body = appraise(parts.authority, *parts.cells())
    except (Malformed, BadWitness, NoHints) as error:
        return Line(name, "rejected", f"not sent: {error}", None, None)
    return line(name, stage.tell(body))


def line(name: str, outcome: Outcome) -> Line:
    code = outcome.exit_code
    if code == 0:
        return Line(name, "accepted", "", outcome.gas, outcome.all_in_nano)
    reason = "no code ran" if code is None else explain(code)
    return Line(name, "rejected", reason, outcome.gas, outcome.all_in_nano)


def stage_with(collateral: Collateral) -> tuple[Stage, dict[str, Outcome]]:
    """A verifier under Intel's root that was told this collateral, at a time when it is valid."""
    stage = Stage(Ledger(now=midst(collateral)), public_key(root(Kind.TDX).der))
    stage.deploy()
    return stage, stage.load(collateral)


def judge_files(paths: list[Path]) -> list[Line]:
    """Quotes, each with the collateral that follows it."""
    lines = []
    for index, path in enumerate(paths):
        if path.suffix == ".json":
            continue
        following = paths[index + 1] if index + 1 < len(paths) else None
        if following is None or following.suffix != ".json":
            beside = path.with_name(path.name + "_collateral.json")
            following = beside if beside.exists() else None
        if following is None:
            reason = "not sent: no collateral; name a JSON file of it after the quote"
            lines.append(Line(str(path), "rejected", reason, None, None))
            continue
        try:
            stage, _ = stage_with(Collateral.from_json(following.read_bytes()))
            lines.append(judge(stage, str(path), quote_bytes(path.read_bytes())))
        except (OSError, ValueError) as error:
            lines.append(Line(str(path), "rejected", f"not sent: {error}", None, None))
    return lines


def show(console: Console, title: str, lines: list[Line]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("", "verdict", "gas", "TON all-in", "reason"):
        table.add_column(heading, justify="right" if heading in ("gas", "TON all-in") else "left")
    for each in lines:
        gas = "-" if each.gas is None else f"{each.gas:,}"
        all_in = "-" if each.all_in_nano is None else f"{each.all_in_nano / 1e9:.4f}"
        table.add_row(each.quote, each.verdict, gas, all_in, each.reason)
    console.print(table)


def demo_real(console: Console) -> None:
    staged: dict[str, Stage] = {}
    lines: list[Line] = []
    for name, collateral_name in REAL:
        try:
            if collateral_name not in staged:
                collateral = Collateral.from_json(vectors.read(collateral_name))
                staged[collateral_name], outcomes = stage_with(collateral)
                told = [line(message, outcome) for message, outcome in outcomes.items()]
                show(console, f"Intel's collateral, told to the chain: {collateral_name}", told)
            lines.append(judge(staged[collateral_name], name, quote_bytes(vectors.read(name))))
        except vectors.Unobtainable as error:
            console.print(f"{name}: skipped, {error}")
    genuine = quote_bytes(vectors.read(REAL[0][0]))
    altered = bytearray(genuine)
    altered[48 + 136] ^= 1
    lines.append(judge(staged[REAL[0][1]], f"{REAL[0][0]}, one bit of MRTD changed", bytes(altered)))
    show(console, "Real quotes: everything but REPORTDATA and image, which are for other networks", lines)


def demo_simulated(console: Console) -> None:
    tee = SimulatedTee(b"demonstration machine")
    image = {tee.registers.measurement: ChainImage()}
    stage = Stage(Ledger(), public_key(root(Kind.SIMULATED).der), images=image)
    stage.deploy()
    lines = [line(name, outcome) for name, outcome in stage.load(simulated.mint(stage.ledger.now)).items()]

    def binding(node: bytes) -> Binding:
        block = stage.ledger.prev_blocks.hundreds[0]
        return Binding(stage.network, node, 1, b"\x22" * 32, NO_GPU, block.seqno, block.root_hash)

    first = binding(b"\x11" * 32)
    message = attest_message(tee.quote(first.report_data()), first)
    lines.append(line("attest: verdict to its node", stage.tell(message)))
    stage.ledger.now += 100
    second = binding(b"\x11" * 32)
    lines.append(line("renewal", stage.tell(attest_message(tee.quote(second.report_data()), second))))
    stolen = binding(b"\x12" * 32)
    quote = tee.quote(second.report_data())
    lines.append(line("the same quote, sent for another node", stage.tell(attest_message(quote, stolen))))
    quote = tee.quote(stolen.report_data())
    lines.append(line("a second node on the same platform", stage.tell(attest_message(quote, stolen))))
    stage.ledger.now += 1600
    lines.append(line("the first quote again, 28 minutes later", stage.tell(message)))
    show(console, "A SIMULATED machine (test root, no hardware), from collateral to verdict; mainnet refuses it", lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, help="QUOTE [COLLATERAL.json] ...")
    files = parser.parse_args(arguments).files
    if files:
        for each in judge_files(files):
            fields = {name: getattr(each, name) for name in Line.__slots__}
            print(json.dumps(fields))
        return 0
    console = Console(width=150)
    demo_real(console)
    demo_simulated(console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
