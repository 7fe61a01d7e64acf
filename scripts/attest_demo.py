"""`make attest-demo`: real quotes and a simulated machine through the attestation contract on the emulated chain.

Quotes of your own: `cocoon attest onchain QUOTE [COLLATERAL]`.
"""

from __future__ import annotations

from pytoniq_core import begin_cell
from rich.console import Console
from rich.table import Table

from app.attest_onchain import Judge, Judgement, judgement
from attestation import vectors
from attestation.collateral import Collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.state import ChainImage
from attestation.recognise import quote_of, recognise
from attestation.report_data import NO_GPU, Binding
from attestation.simulated import collateral as simulated
from attestation.simulated.tee import SimulatedTee
from attestation.trust_roots import root
from attestation.witness import attest_message
from devnet.ledger import Ledger
from scripts.attest_stage import Stage
from scripts.stage import TON

# Quotes without collateral of their own are judged by that of another machine of the same platform type.
REAL = (
    ("phala/tdx_quote", "phala/tdx_quote_collateral.json"),
    ("phala/quote-from-tappd.hex", "phala/tdx_quote_collateral.json"),
    ("phala/tdx-quote.hex", "phala/tdx_quote_collateral.json"),
    ("phala/tdx_quote_outdated", "phala/tdx_quote_outdated_collateral.json"),
    ("cocoon/quote.dat", "phala/tdx_quote_outdated_collateral.json"),
)


def quote_named(name: str) -> bytes:
    quote = quote_of(recognise(vectors.read(name)))
    assert quote is not None, name
    return quote


def show(console: Console, title: str, lines: list[Judgement]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("", "verdict", "gas", "TON all-in", "reason"):
        table.add_column(heading, justify="right" if heading in ("gas", "TON all-in") else "left")
    for each in lines:
        gas = "-" if each.gas is None else f"{each.gas:,}"
        all_in = "-" if each.all_in_nano is None else f"{each.all_in_nano / 1e9:.4f}"
        table.add_row(each.quote, each.verdict, gas, all_in, each.reason)
    console.print(table)


def demo_real(console: Console) -> None:
    judges: dict[str, Judge] = {}
    lines: list[Judgement] = []
    for name, collateral_name in REAL:
        try:
            if collateral_name not in judges:
                collateral = Collateral.from_json(vectors.read(collateral_name))
                judges[collateral_name] = Judge.under(Kind.TDX, collateral)
                told = [judgement(message, outcome) for message, outcome in judges[collateral_name].told.items()]
                show(console, f"Intel's collateral, told to the chain: {collateral_name}", told)
            lines.append(judges[collateral_name].judge(name, quote_named(name)))
        except vectors.Unobtainable as error:
            console.print(f"{name}: skipped, {error}")
    altered = bytearray(quote_named(REAL[0][0]))
    altered[48 + 136] ^= 1
    lines.append(judges[REAL[0][1]].judge(f"{REAL[0][0]}, one bit of MRTD changed", bytes(altered)))
    show(console, "Real quotes: everything but REPORTDATA and image, which are for other networks", lines)


def standing_node(stage: Stage, number: int) -> bytes:
    """An account that takes every verdict, as a node does that its evidence names: one that bounced is no claim."""
    accepts = begin_cell().store_uint(0xFF00, 16).end_cell()
    data = begin_cell().store_uint(number, 8).end_cell()
    init = begin_cell().store_uint(0b00110, 5).store_ref(accepts).store_ref(data).end_cell()
    account = bytes(init.hash)
    stage.ledger.send_internal(source=stage.registry, destination=account, value_nano=TON, state_init=init)
    return account


def demo_simulated(console: Console) -> None:
    tee = SimulatedTee(b"demonstration machine")
    image = {tee.registers.measurement: ChainImage()}
    stage = Stage(Ledger(), public_key(root(Kind.SIMULATED).der), images=image)
    stage.deploy()
    lines = [judgement(name, outcome) for name, outcome in stage.load(simulated.mint(stage.ledger.now)).items()]

    def binding(node: bytes) -> Binding:
        block = stage.ledger.prev_blocks.hundreds[0]
        return Binding(stage.network, node, 1, b"\x22" * 32, NO_GPU, block.seqno, block.root_hash)

    node, other = standing_node(stage, 1), standing_node(stage, 2)
    first = binding(node)
    message = attest_message(tee.quote(first.report_data()), first)
    lines.append(judgement("attest: verdict to its node", stage.tell(message)))
    stage.ledger.now += 100
    second = binding(node)
    lines.append(judgement("renewal", stage.tell(attest_message(tee.quote(second.report_data()), second))))
    stolen = binding(other)
    quote = tee.quote(second.report_data())
    lines.append(judgement("the same quote, sent for another node", stage.tell(attest_message(quote, stolen))))
    quote = tee.quote(stolen.report_data())
    lines.append(judgement("a second node on the same platform", stage.tell(attest_message(quote, stolen))))
    stage.ledger.now += 1600
    lines.append(judgement("the first quote again, 28 minutes later", stage.tell(message)))
    show(console, "A SIMULATED machine (test root, no hardware), from collateral to verdict; mainnet refuses it", lines)


def main() -> None:
    console = Console(width=150)
    demo_real(console)
    demo_simulated(console)


if __name__ == "__main__":
    main()
