"""`cocoon audit`'s pure core: a true market holds, and any number that is changed is found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell

from app.audit.core.audit import audit, check_registry_of
from app.audit.core.between import check_between
from app.audit.core.facts import Facts, Finding, Kind, Report
from app.audit.core.history import strangers_paid
from app.audit.gather import singletons
from chain.api import Status, Transaction
from scripts.stage import TON, World
from tests.support.audit_world import facts_of, market
from wrappers.addresses import Kind as ChildKind
from wrappers.addresses import child_address
from wrappers.code import Contract, code
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.prices import PRICES
from wrappers.rows import Row


@cache
def _market() -> tuple[World, Facts, Facts, Facts]:
    world, node, escrow = market()
    return world, facts_of(world, node), facts_of(world, escrow), facts_of(world, world.registry)


def false(report: Report) -> list[Finding]:
    return [finding for finding in report.findings if not finding.holds]


def test_g1_g2_a_true_market_holds_and_every_nanoton_has_an_owner() -> None:
    world, node, escrow, registry = _market()
    for facts, kind in ((node, Kind.NODE), (escrow, Kind.ESCROW), (registry, Kind.REGISTRY)):
        report = audit(facts, PRICES)
        assert report.kind is kind and report.holds, false(report)
        assert sum(line.nano for line in report.lines) == report.balance_nano == world.ledger.balance(facts.account)
        came, left = sum(flow.in_nano for flow in report.flows), sum(flow.out_nano for flow in report.flows)
        assert came - left - report.fees_nano == report.balance_nano
    assert all(finding.holds for finding in check_between([node, escrow, registry]))


def test_g10_an_account_of_another_registry_is_not_taken_for_one_of_the_named() -> None:
    """All else about it may hold: whoever deploys a registry has true nodes and escrows there."""
    world, node, escrow, registry = _market()
    those = {world.registry, *singletons(registry)}
    assert those == {world.registry, world.attestation, world.court}
    stub = child_address(world.registry, ChildKind.ESCROW, b"\x07" * 32, 0)
    empty = replace(escrow, account=stub, state=replace(escrow.state, code=code(Contract.STUB), data=_stub(world)))
    for facts in (node, escrow, empty, registry):
        found = check_registry_of(facts, world.registry, those)
        assert found is not None and found.holds
        other = check_registry_of(facts, b"\x01" * 32, {b"\x01" * 32})
        assert other is not None and not other.holds
    for facts in (node, escrow, registry):
        moved = check_registry_of(replace(facts, account=b"\x02" * 32), world.registry, those)
        assert moved is not None and not moved.holds
    nothing = replace(escrow, state=replace(escrow.state, status=Status.ABSENT, code=None, data=None))
    assert check_registry_of(nothing, world.registry, those) is None


def _stub(world: World) -> Cell:
    data = begin_cell().store_bytes(world.registry).store_uint(ChildKind.ESCROW, 8).store_bytes(b"\x07" * 32)
    return data.store_uint(0, 32).end_cell()


def test_the_market_has_all_that_the_audit_speaks_of() -> None:
    """Else the tests below would prove less than they say."""
    _, node, escrow, _ = _market()
    assert audit(node, PRICES).counters["earned_nano"] > 0 and audit(escrow, PRICES).counters["paid_to_nodes_nano"] > 0
    said = " ".join(line.what for line in audit(escrow, PRICES).lines)
    assert "reserved for" in said and "treasury's share" in said and "kept for" in said


def _escrow(change: Callable[[EscrowState], EscrowState]) -> Facts:
    facts = _market()[2]
    assert facts.state.data is not None
    state = EscrowState.from_cell(facts.state.data, facts.account)
    assert state is not None
    return replace(facts, state=replace(facts.state, data=change(state).to_cell()))


def _node(change: Callable[[NodeState], NodeState]) -> Facts:
    facts = _market()[1]
    assert facts.state.data is not None
    state = NodeState.from_cell(facts.state.data)
    assert state is not None
    return replace(facts, state=replace(facts.state, data=change(state).to_cell()))


BY = st.one_of(st.integers(1, 3), st.integers(1, TON))


@given(name=st.sampled_from(["deposit_nano", "reserved_nano", "accrued_nano"]), by=BY, up=st.booleans())
@settings(max_examples=40, deadline=None)
def test_g1_a_changed_number_of_an_escrow_is_found(name: str, by: int, up: bool) -> None:
    def change(state: EscrowState) -> EscrowState:
        return replace(state, **{name: max(0, getattr(state, name) + (by if up else -by))})

    report = audit(_escrow(change), PRICES)
    assert not report.holds


@given(data=st.data(), by=BY)
@settings(max_examples=40, deadline=None)
def test_g4_a_changed_number_of_a_row_is_found(data: st.DataObject, by: int) -> None:
    name = data.draw(st.sampled_from(["allotted_nano", "paid_nano", "seqno", "epoch", "closing_at", "key", "timer"]))

    def change(state: EscrowState) -> EscrowState:
        node = data.draw(st.sampled_from(sorted(state.rows)))
        row: Row = state.rows[node]
        if name == "key" and row.keys:
            key = data.draw(st.sampled_from(sorted(row.keys)))
            field = data.draw(st.sampled_from(["paid_nano", "cap_nano", "acked_nano", "seq"]))
            counters = replace(row.keys[key], **{field: getattr(row.keys[key], field) + by})
            row = replace(row, keys={**row.keys, key: counters})
        elif name == "timer" or name == "key":
            row = replace(row, terms=replace(row.terms, close_timer=row.terms.close_timer + by % 1000 + 1))
        else:
            row = replace(row, **{name: getattr(row, name) + by})
        return replace(state, rows={**state.rows, node: row})

    assert not audit(_escrow(change), PRICES).holds


@given(name=st.sampled_from(["stake_nano", "earned_nano", "requests", "seqno", "tokens"]), by=BY, up=st.booleans())
@settings(max_examples=40, deadline=None)
def test_g4_a_changed_number_of_a_node_is_found(name: str, by: int, up: bool) -> None:
    def change(state: NodeState) -> NodeState:
        found = getattr(state, name)
        return replace(state, **{name: found + (by % 10**6 + 1 if up or found < by else -by)})

    assert not audit(_node(change), PRICES).holds


@given(which=st.integers(1, 3), by=BY, up=st.booleans())
@settings(max_examples=30, deadline=None)
def test_g2_a_changed_balance_is_found(which: int, by: int, up: bool) -> None:
    facts = _market()[which]
    assert isinstance(facts, Facts)
    balance = facts.state.balance_nano + (by if up else -by)
    assert not audit(replace(facts, state=replace(facts.state, balance_nano=balance)), PRICES).holds


@given(data=st.data(), by=BY)
@settings(max_examples=40, deadline=None)
def test_g2_a_history_with_a_transaction_changed_or_left_out_is_found(data: st.DataObject, by: int) -> None:
    facts = _market()[data.draw(st.integers(1, 3))]
    assert isinstance(facts, Facts) and facts.history is not None
    at = data.draw(st.integers(0, len(facts.history) - 1))
    one = facts.history[at]
    what = data.draw(st.sampled_from(["drop", "fee", "in", "out"]))
    changed: tuple[Transaction, ...] = ()
    if what == "fee":
        changed = (replace(one, total_fees_nano=one.total_fees_nano + by),)
    elif what == "in" and one.in_msg is not None and not one.in_msg.external:
        changed = (replace(one, in_msg=replace(one.in_msg, value_nano=one.in_msg.value_nano + by)),)
    elif what == "out" and one.out_msgs:
        first, *rest = one.out_msgs
        changed = (replace(one, out_msgs=(replace(first, value_nano=first.value_nano + by), *rest)),)
    history = (*facts.history[:at], *changed, *facts.history[at + 1 :])
    assert not audit(replace(facts, history=history), PRICES).holds


def test_g4_a_payment_that_the_rules_do_not_give_is_named() -> None:
    """A claim's transaction that pays one nanoTON more, however well balances agree."""
    facts = _market()[2]
    assert facts.history is not None
    history = list(facts.history)
    at = next(
        i for i, one in enumerate(history) if one.in_msg is not None and one.in_msg.source == _market()[1].account
    )
    other = next(one for one in reversed(history) if one.in_msg and one.in_msg.source == _market()[1].account)
    history[at] = replace(history[at], out_msgs=other.out_msgs)
    said = [one.said for one in audit(replace(facts, history=tuple(history)), PRICES).findings if not one.holds]
    assert any("was due" in text for text in said), said


def test_g1_money_to_a_stranger_is_named() -> None:
    history = _market()[1].history
    assert history is not None
    paying = next(one for one in history if one.out_msgs and one.out_msgs[0].value_nano)
    thief = replace(paying, out_msgs=(replace(paying.out_msgs[0], destination=b"\x66" * 32),))
    (said,) = strangers_paid([thief], [paying.out_msgs[0].destination or b""])
    assert "66" * 32 in said


def test_g2_a_message_that_arrives_twice_is_found() -> None:
    _, node, escrow, registry = _market()
    assert escrow.history is not None
    twice = replace(escrow, history=(*escrow.history, escrow.history[-1], escrow.history[1]))
    assert not all(one.holds for one in check_between([node, twice, registry]))


def test_g12_other_code_proves_nothing() -> None:
    facts = _market()[1]
    assert facts.state.code is not None
    report = audit(replace(facts, state=replace(facts.state, code=facts.state.code.refs[0])), PRICES)
    assert report.kind is Kind.OTHER and not report.holds


def test_g10_a_true_state_at_another_address_is_found() -> None:
    for facts in _market()[1:3]:
        assert isinstance(facts, Facts)
        assert not audit(replace(facts, account=b"\x01" * 32, history=None), PRICES).holds
        assert not audit(replace(facts, global_id=-239, history=None), PRICES).holds


def test_g17_what_is_absent_is_said_to_be_and_does_not_hold() -> None:
    facts = _market()[1]
    gone = replace(facts.state, status=Status.ABSENT, balance_nano=0, code=None, data=None, last_lt=0)
    report = audit(replace(facts, state=gone, history=()), PRICES)
    assert report.kind is Kind.ABSENT and not report.holds


def test_a_state_alone_is_judged_without_its_history() -> None:
    for facts in _market()[1:]:
        assert isinstance(facts, Facts)
        assert audit(replace(facts, history=None), PRICES).holds


@pytest.mark.parametrize("bits", [0, 8, 552])
def test_g18_data_of_any_kind_are_judged_and_never_raise(bits: int) -> None:
    from pytoniq_core import begin_cell

    facts = _market()[1]
    data = begin_cell().store_uint(0, bits).end_cell() if bits else begin_cell().end_cell()
    assert not audit(replace(facts, state=replace(facts.state, data=data)), PRICES).holds
