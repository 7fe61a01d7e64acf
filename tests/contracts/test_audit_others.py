"""`cocoon audit` of jobs, courts and committees: every nanoTON has an owner, and a changed number is found."""

from __future__ import annotations

from dataclasses import replace

import committee_stage
import job_stage
import pytest

from app.audit.core.audit import audit
from app.audit.core.facts import Facts, Kind
from devnet.ledger import Ledger
from wrappers.fees import PRICES
from wrappers.job import Phase


def facts(ledger: Ledger, account: bytes) -> Facts:
    return Facts(account, ledger.account(account), tuple(ledger.transactions[account]), ledger.global_id)


@pytest.mark.parametrize("phase", list(Phase))
def test_g1_a_job_in_each_of_its_phases(phase: Phase) -> None:
    stage = job_stage.Stage()
    found = facts(stage.ledger, stage.brought_to(phase))
    report = audit(found, PRICES)
    assert report.kind is Kind.JOB and report.holds, [one for one in report.findings if not one.holds]
    assert sum(line.nano for line in report.lines) == report.balance_nano
    assert report.lines[0].whose == (stage.node if phase is Phase.POSTED else stage.escrow).hex()
    poor = replace(found, state=replace(found.state, balance_nano=stage.config.maximum_nano - 1))
    assert not audit(replace(poor, history=None), PRICES).holds


def test_g1_a_court_keeps_what_it_was_given() -> None:
    stage = job_stage.Stage()
    assert not stage.genesis().failed
    report = audit(facts(stage.ledger, stage.court), PRICES)
    assert report.kind is Kind.COURT and report.holds, [one for one in report.findings if not one.holds]
    assert [line.whose for line in report.lines] == ["nobody"]


def test_g1_a_committee_holds_its_members_bonds() -> None:
    stage = committee_stage.Stage()
    assert not stage.genesis().failed
    stage.join(3)
    report = audit(facts(stage.ledger, stage.account), PRICES)
    assert report.kind is Kind.COMMITTEE and report.holds, [one for one in report.findings if not one.holds]
    assert sum("bond of member" in line.what for line in report.lines) == 3
    assert sum(line.nano for line in report.lines) == report.balance_nano
    found = facts(stage.ledger, stage.account)
    bonds = sum(one.bond_nano for one in stage.state.members.values())
    poor = replace(found, state=replace(found.state, balance_nano=bonds - 1), history=None)
    assert not audit(poor, PRICES).holds
