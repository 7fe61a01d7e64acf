"""Worst-case gas of jobs and of the court, for test_fees.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from court_stage import Court, least_value
from job_stage import Stage, node_program
from pytoniq_core import Cell, begin_cell

from devnet.trace import Trace
from scripts.stage import DAY, TON
from wrappers import job
from wrappers.code import size_of
from wrappers.gas import Gas


def deepest(account: bytes) -> frozenset[bytes]:
    """Sixteen ids, `account` among them, in the deepest dictionary that they can make."""
    number = int.from_bytes(account, "big")
    return frozenset([account, *((number ^ (1 << (255 - i))).to_bytes(32, "big") for i in range(15))])


def chain(cells: int) -> Cell:
    """A program of that size."""
    program = begin_cell().end_cell()
    for number in range(1, cells):
        program = begin_cell().store_uint(number, 900).store_ref(program).end_cell()
    return program


def gas_at(trace: Trace, account: bytes) -> int:
    first = trace.of(account)[0]
    assert (first.exit_code, first.action_code) == (0, 0)
    return int(first.gas_used)


def measure_jobs() -> dict[str, int]:
    stage = Stage()
    stage.config = replace(stage.config, nodes=deepest(stage.node), maximum_nano=(1 << 60) - 1, grace=2 * DAY)
    assert not stage.genesis().failed
    used: dict[str, int] = {}
    account, trace = stage.init()
    used["JOB_INIT"] = gas_at(trace, account)
    ledger = stage.ledger

    def at(act: Callable[[], Trace]) -> int:
        snapshot = ledger.snapshot()
        gas = gas_at(act(), account)
        ledger.revert(snapshot)
        return gas

    def tell(body: Cell) -> Callable[[], Trace]:
        return lambda: stage.tell(stage.stranger, account, TON, body)

    used["ACCEPTED"] = at(lambda: stage.accept(account, value_nano=TON))
    snapshot = ledger.snapshot()

    def refunded(program: Cell) -> Trace:
        """Of a job that a node accepted and missed; the ledger is as it was."""
        assert not stage.accept(account, value_nano=TON, program=program).failed
        ledger.now = stage.config.deadline + stage.config.grace + 1
        trace = tell(job.refund(program))()
        ledger.revert(snapshot)
        return trace

    least, most, real = (gas_at(refunded(program), account) for program in (chain(1), chain(64), node_program()))
    used["PROGRAM_CELL"] = (most - least) // 63
    used["REFUND"] = max(least - Gas.PROGRAM_CELL, real - size_of(node_program())[0] * Gas.PROGRAM_CELL)
    used["MISSED"] = gas_at(refunded(node_program()), stage.court)
    assert not stage.accept(account, value_nano=TON).failed
    used["JOB_POSTED"] = at(lambda: stage.post(account, value_nano=TON))
    assert not stage.post(account, value_nano=TON).failed
    delivered = at(tell(stage.delivery(account)))
    ledger.now += stage.config.delivery_window
    used["FINISH_JOB"] = max(delivered, at(tell(job.finish_job())))
    used["JUDGED"] = judged_after_the_check()
    return used


def judged_after_the_check() -> int:
    """What the court uses after it has compared the value with the need: found from the least value that passes."""
    bench = Court()
    body = bench.equivocation(bench.signed(bench.receipt()), bench.signed(bench.receipt(amount=1)))
    need = least_value(bench, body)
    prices = bench.prices
    gas_paid_for = (
        (need - bench.fees.slash_value(node_program()) - prices.flat_gas_price) * (1 << 16) // prices.gas_price
    )
    consumed = gas_paid_for + prices.flat_gas_limit - Gas.JUDGED
    return gas_at(bench.accuse(body, need), bench.court) - consumed
