"""The court keeps nothing and gives nothing of its own: what it holds is rent."""

from __future__ import annotations

import pytest
from court_stage import Court
from test_court import missed_body, tell_court

from scripts.stage import TON
from wrappers.addresses import Kind, child_address


@pytest.mark.parametrize("amount", [0, 1, 3 * TON])
def test_g1_a_miss_moves_the_value_of_its_message_and_none_of_the_courts_own(amount: int) -> None:
    bench = Court()
    account = child_address(bench.registry, Kind.JOB, bench.escrow, 4)
    held = bench.ledger.balance(bench.court)
    trace = tell_court(bench, account, missed_body(bench, amount))
    assert not trace.failed and bench.ledger.balance(bench.court) == held
    (tx,) = trace.transactions
    (out,) = tx.out_msgs
    assert out.destination == (bench.node if amount else bench.stranger)
    assert TON - TON // 20 < out.value_nano < TON
