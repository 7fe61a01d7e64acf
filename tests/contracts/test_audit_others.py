"""`cocoon audit` of jobs, courts and committees: every nanoTON has an owner, and a changed number is found."""

from __future__ import annotations

from dataclasses import replace

import committee_stage
import job_stage
import pytest
import test_slashing

from app.audit.core.audit import audit
from app.audit.core.between import check_between
from app.audit.core.facts import Kind
from scripts.stage import HOUR, TON, Pair, World
from tests.support.audit_world import facts_of
from wrappers import job
from wrappers.code import Contract, rare_program
from wrappers.job import Phase
from wrappers.prices import PRICES


@pytest.mark.parametrize("phase", list(Phase))
def test_g1_a_job_in_each_of_its_phases(phase: Phase) -> None:
    stage = job_stage.Stage()
    found = facts_of(stage, stage.brought_to(phase))
    report = audit(found, PRICES)
    assert report.kind is Kind.JOB and report.holds, [one for one in report.findings if not one.holds]
    assert sum(line.nano for line in report.lines) == report.balance_nano
    assert report.lines[0].whose == (stage.node if phase is Phase.POSTED else stage.escrow).hex()
    poor = replace(found, state=replace(found.state, balance_nano=stage.config.maximum_nano - 1))
    assert not audit(replace(poor, history=None), PRICES).holds


def test_g1_a_court_keeps_what_it_was_given() -> None:
    stage = job_stage.Stage()
    assert not stage.genesis().failed
    report = audit(facts_of(stage, stage.court), PRICES)
    assert report.kind is Kind.COURT and report.holds, [one for one in report.findings if not one.holds]
    assert [line.whose for line in report.lines] == ["nobody"]


def test_g1_a_committee_holds_its_members_bonds() -> None:
    stage = committee_stage.Stage()
    assert not stage.genesis().failed
    stage.join(3)
    report = audit(facts_of(stage, stage.account), PRICES)
    assert report.kind is Kind.COMMITTEE and report.holds, [one for one in report.findings if not one.holds]
    assert sum("bond of member" in line.what for line in report.lines) == 3
    assert sum(line.nano for line in report.lines) == report.balance_nano
    found = facts_of(stage, stage.account)
    bonds = sum(one.bond_nano for one in stage.state.members.values())
    poor = replace(found, state=replace(found.state, balance_nano=bonds - 1), history=None)
    assert not audit(poor, PRICES).holds


def test_g1_g2_a_market_with_a_delivered_and_a_missed_job_is_explained_to_the_nanoton(world: World, pair: Pair) -> None:
    """Funds of an escrow, through jobs, to a node's earnings; and its stake, through the court, to the others."""
    case = test_slashing.Case(world, pair)
    stranger = world.stranger.account
    account = test_slashing.accepted(case)
    assert not world.tell(stranger, account, TON, test_slashing.posted(case, account)).failed
    world.ledger.now += HOUR
    assert not world.tell(stranger, account, world.fees.finish_job(), job.finish_job()).failed
    missed = test_slashing.opened(case, 1)
    accepting = test_slashing.accepting(case, missed)
    assert not world.tell(stranger, pair.node, world.fees.accept_job(), accepting).failed
    pending = test_slashing.opened(case, 2)
    world.ledger.now += 2 * HOUR + 1
    program = rare_program(Contract.NODE)
    assert not world.tell(stranger, missed, world.fees.refund(program), job.refund(program)).failed

    everyone = [facts_of(world, one) for one in (world.registry, world.court, pair.node, pair.escrow, pending)]
    for found in everyone:
        report = audit(found, PRICES)
        assert report.holds, (report.kind, [one for one in report.findings if not one.holds])
    assert all(one.holds for one in check_between(everyone)), check_between(everyone)
    assert audit(everyone[2], PRICES).counters["requests"] >= 1
