"""Whatever parties do in whatever order: an audit of the chain then explains every nanoTON of every account."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from test_invariants import Market

from app.audit.core.audit import audit
from tests.support.audit_world import facts_of


class AuditedMarket(Market):
    """G1, G2: `cocoon audit` finds nothing false in an honest chain, after any sequence of messages."""

    def teardown(self) -> None:
        for account in (self.escrow, *self.nodes, self.world.registry):
            if self.world.alive(account):
                report = audit(facts_of(self.world, account), self.world.fees.prices)
                assert report.holds, [finding for finding in report.findings if not finding.holds]
        super().teardown()


TestAuditedMarket = AuditedMarket.TestCase
TestAuditedMarket.settings = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
