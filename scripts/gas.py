"""Prints what each operation costs beside the original's cost and the target; writes contracts/build/fees.json.

All-in = everything that leaves any balance as fees, the wallet's own transaction (v4r2) included; every row is checked
against the sum of balance changes to the nanoTON. Same emulator and prices as the original's column.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import HOUR, NO_HASH, TON, Pair, World, account_of_name, built_world, make_pair
from wrappers import claims, escrow
from wrappers.code import Contract, code, living_code, size_of
from wrappers.prices import Prices

FEES_JSON = Path(__file__).parent.parent / "contracts" / "build" / "fees.json"
YEAR = 31_536_000
SMALL = TON // 10_000


@dataclass(frozen=True, slots=True)
class Row:
    """None: not measured yet, or the original has no such operation."""

    operation: str
    gas: int | None
    all_in_nano: int | None
    messages: int | None
    target_nano: int
    original_nano: int | None


# Design targets; the original's better figure of its two versions.
TARGETS: dict[str, tuple[int, int | None]] = {
    "open_and_fund": (14_500_000, 30_400_000),
    "top_up": (3_400_000, 11_700_000),
    "allot": (4_500_000, None),
    "settle_one": (7_000_000, 22_900_000),
    "settle_each_of_100": (5_200_000, None),
    "close_cooperative": (7_600_000, 15_200_000),
    "exit_forced": (9_800_000, 27_500_000),
    "register_machine": (10_500_000, 16_800_000),
    "register_attested": (76_000_000, None),
    "rent_client_year": (12_500_000, 16_300_000),
}


@dataclass(frozen=True, slots=True)
class Cost:
    gas: int
    all_in_nano: int
    messages: int

    @classmethod
    def of(cls, *traces: Trace) -> Cost:
        for trace in traces:
            if trace.failed:
                raise RuntimeError(f"the measured operation failed: {[tx.exit_code for tx in trace.failed]}")
            if trace.total_fees_nano != trace.balance_delta_nano:
                raise RuntimeError(f"fees {trace.total_fees_nano} do not explain {trace.balance_delta_nano} that left")
        return cls(
            sum(tx.gas_used for trace in traces for tx in trace.transactions),
            sum(trace.total_fees_nano for trace in traces),
            sum(len(trace.transactions) for trace in traces),
        )

    def each_of(self, count: int) -> Cost:
        return Cost(-(-self.gas // count), -(-self.all_in_nano // count), -(-self.messages // count))


def open_and_fund(world: World, pair: Pair) -> Cost:
    first = escrow.FirstAllotment(pair.node, 2 * TON, world.row_terms())
    return Cost.of(world.open_escrow(index=1, value_nano=world.fees.open_escrow(3 * TON, 2 * TON), first=first)[1])


def top_up(world: World, pair: Pair) -> Cost:
    return Cost.of(world.send(world.client, pair.escrow, TON, None))


def allot(world: World, pair: Pair) -> Cost:
    body = escrow.allot(account_of_name("second node"), TON // 2, world.row_terms())
    return Cost.of(world.send(world.client, pair.escrow, TON, body))


def settle_one(world: World, pair: Pair) -> Cost:
    """The key's second settlement; the operator's node is paid and keeps the money below its threshold."""
    world.settle_one(pair.escrow, pair.node, SMALL)
    return Cost.of(world.settle_one(pair.escrow, pair.node, 2 * SMALL, seq=2))


def settle_each_of_100(world: World, pair: Pair) -> Cost:
    accounts = []
    first = escrow.FirstAllotment(pair.node, TON // 10, world.row_terms())
    for index in range(1, 101):
        accounts.append(world.open_escrow(index=index, first=first)[0])
    world.send(world.operator, pair.node, 3 * TON, None)
    for turn in (1, 2):
        entries = [
            claims.ClaimEntry(account, world.entry(account, pair.node, turn * 1_000, seq=turn), NO_HASH)
            for account in accounts
        ]
        # The reserve for a hundred settlements is above the forwarding threshold: the first turn sends it on.
        world.send(world.operator, pair.node, 3 * TON, None)
        trace = world.claim(pair.node, entries)
    return Cost.of(trace).each_of(100)


def close_cooperative(world: World, pair: Pair) -> Cost:
    world.settle_one(pair.escrow, pair.node, TON)
    release = escrow.CloseRelease(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    return Cost.of(world.send(world.client, pair.escrow, TON, escrow.close([release])))


def exit_forced(world: World, pair: Pair) -> Cost:
    world.send(world.client, pair.escrow, TON, escrow.withdraw())
    world.settle_one(pair.escrow, pair.node, TON)
    started = world.send(world.client, pair.escrow, TON, escrow.close())
    world.ledger.now += HOUR
    return Cost.of(started, world.send(world.client, pair.escrow, TON, escrow.finish()))


def register_machine(world: World, pair: Pair) -> Cost:
    return Cost.of(world.open_node(index=1)[1])


def register_attested(world: World, pair: Pair) -> Cost:
    """On a network whose verifier holds collateral: the node's birth, and the first quote of its platform."""
    attested = built_world(verifier=True)
    account, opened = attested.open_node()
    return Cost.of(opened, attested.attest(account))


def rent_client_year(world: World, pair: Pair) -> Cost:
    """One year of an account with one row whose key has settled: the same top-up, now and a year later."""
    world.settle_one(pair.escrow, pair.node, SMALL)
    snapshot = world.ledger.snapshot()
    now = world.tell(world.client.account, pair.escrow, TON, None)
    world.ledger.revert(snapshot)
    world.ledger.now += YEAR
    later = world.tell(world.client.account, pair.escrow, TON, None)
    return Cost(0, later.total_fees_nano - now.total_fees_nano, 0)


MEASURES: tuple[Callable[[World, Pair], Cost], ...] = (
    open_and_fund,
    top_up,
    allot,
    settle_one,
    settle_each_of_100,
    close_cooperative,
    exit_forced,
    register_machine,
    register_attested,
    rent_client_year,
)


def measure() -> list[Row]:
    world = built_world()
    pair = make_pair(world)
    snapshot = world.ledger.snapshot()
    costs: dict[str, Cost] = {}
    for operation in MEASURES:
        world.ledger.revert(snapshot)
        costs[operation.__name__] = operation(world, pair)
    rows = []
    for name, (target, original) in TARGETS.items():
        cost = costs.get(name)
        if cost is None:
            rows.append(Row(name, None, None, None, target, original))
        else:
            rows.append(Row(name, cost.gas, cost.all_in_nano, cost.messages, target, original))
    return rows


def _ton(nano: int | None) -> str:
    return "-" if nano is None else f"{nano / TON:.6f}"


def main() -> int:
    rows = measure()
    prices = Prices.from_config(Ledger().config)
    header = ("original", "target", "measured", "of it gas", "messages", "gas")
    print(f"{'operation':20}" + "".join(f" {name:>10}" for name in header) + f" {'transactions':>13}")
    for row in rows:
        gas_nano, rest_nano = None, None
        if row.gas is not None and row.all_in_nano is not None:
            gas_nano = row.gas * prices.gas_price >> 16
            rest_nano = row.all_in_nano - gas_nano
        met = "" if row.all_in_nano is None else "met" if row.all_in_nano <= row.target_nano else "above the target"
        print(
            f"{row.operation:20} {_ton(row.original_nano):>10} {_ton(row.target_nano):>10} "
            f"{_ton(row.all_in_nano):>10} {_ton(gas_nano):>10} {_ton(rest_nano):>10} "
            f"{row.gas if row.gas is not None else '-':>10} "
            f"{row.messages if row.messages is not None else '-':>13}  {met}"
        )
    for contract, living in ((Contract.ESCROW, 20), (Contract.NODE, 14)):
        program = code(contract)
        (cells, bits), (kept_cells, kept_bits) = size_of(program), size_of(living_code(program))
        print(f"{contract}: {kept_cells} cells (budget {living}), {kept_bits} bits stay; {cells} and {bits} travel")
    FEES_JSON.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    print(f"TON, all-in, mainnet prices, wallet v4r2; written to {FEES_JSON.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
