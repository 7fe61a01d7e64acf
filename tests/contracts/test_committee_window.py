"""The time for doubt begins when the quorum is there, whenever that is."""

from __future__ import annotations

from committee_stage import Stage
from test_committee import conserved, refused

from scripts.stage import HOUR
from wrappers.errors import ContractError


def test_g12_doubt_has_the_whole_window_after_the_yes_that_makes_the_quorum() -> None:
    stage = Stage()
    assert not stage.genesis().failed
    seats = stage.drawn()
    drawn_until, window = stage.request().deadline, stage.terms.window
    assert drawn_until == stage.ledger.now + window
    for who in seats[: stage.quorum - 1]:
        stage.ledger.now += HOUR // 2
        conserved(stage.answer(who))
        assert stage.request().deadline == drawn_until, "a yes before the quorum prolongs nothing"
    stage.ledger.now = drawn_until
    conserved(stage.answer(seats[stage.quorum - 1]))
    ends = drawn_until + window
    assert stage.request().deadline == ends
    stage.ledger.now += HOUR
    conserved(stage.answer(seats[stage.quorum]))
    assert stage.request().deadline == ends, "nor does one after it"
    stage.ledger.now = ends
    refused(stage.conclude(), ContractError.NOT_DUE)
    conserved(stage.answer(seats[-1], False))
    stage.ledger.now += 1
    trace = stage.conclude()
    conserved(trace)
    assert all(message.destination != stage.attestation for message in trace.of(stage.account)[0].out_msgs)
