"""Whatever parties do in whatever order: an audit of the chain then explains every nanoTON of every account."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from test_machine import QUIET, Machine

from app.audit.core.audit import audit
from tests.support.audit_world import facts_of


class AuditedMachine(Machine):
    """G1, G2: `cocoon audit` finds nothing false in an honest chain, after any sequence of messages."""

    # What no honest chain shows: contracts that say what they did not say, accounts that vanish, other prices.
    left_out = frozenset(
        (
            "astray",
            "replay",
            "standing",
            "verdict",
            "forgotten_by_the_chain",
            "change_prices",
            "starve",
            "outlive_a_key",
            "deliver_a_job",
        )
    )

    def teardown(self) -> None:
        if hasattr(self, "m"):
            for account in (*self.m.escrows, *self.m.nodes, self.world.registry):
                if self.world.alive(account):
                    report = audit(facts_of(self.world, account), self.world.fees.prices)
                    assert report.holds, [finding for finding in report.findings if not finding.holds]
        super().teardown()


TestAuditedMarket = pytest.mark.timeout(600)(AuditedMachine.TestCase)
TestAuditedMarket.settings = settings(
    max_examples=12,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=QUIET,
)
