"""Which offers a relayer passes on: only what the chain says of the node counts, each of it alone."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import relayer_world as world

from protocol.errors import Code
from protocol.link import LinkCode
from protocol.pricing import dearer, table
from relayer.api.client import _chain_view
from relayer.api.hub import judge_offer, judge_standing
from relayer.chain.mirror import Seen
from wrappers.node import NodeExtras


def judged(offer: dict[str, Any] | None = None, state: dict[str, Any] | None = None, now: int | None = None) -> Any:
    machine = world.Machine()
    shown = machine.state(**(state or {}))
    made = replace(machine.offer(), **(offer or {}))
    found = judge_offer(made, machine.account, world.NETWORK, shown, int(time.time()) if now is None else now)
    return None if found is None else found.code


def test_an_offer_that_the_chain_confirms_is_passed_on() -> None:
    assert judged() is None


@pytest.mark.parametrize(
    ("offer", "state", "code"),
    [
        ({"network": b"\x01" * 32}, {}, LinkCode.BAD_OFFER),
        ({"node": b"\x01" * 32}, {}, LinkCode.BAD_OFFER),
        ({"node_epoch": 1}, {}, LinkCode.WRONG_EPOCH),
        ({}, {"unbond_at": 1}, LinkCode.NODE_UNBONDING),
        ({}, {"extras": NodeExtras(draining=True)}, Code.NODE_DRAINING),
        ({"signing_key": b"\x01" * 32}, {}, LinkCode.KEY_NOT_ON_CHAIN),
        ({}, {"signing_key": None}, LinkCode.KEY_NOT_ON_CHAIN),
    ],
)
def test_g17_each_fault_that_the_chain_shows_refuses_the_offer(
    offer: dict[str, Any], state: dict[str, Any], code: str
) -> None:
    assert judged(offer, state) == code


def test_a_node_that_may_be_drained_and_is_not_is_passed_on() -> None:
    assert judged(state={"extras": NodeExtras(draining=False)}) is None


def test_an_offer_dies_with_its_attestation() -> None:
    until = world.Machine().state().attested_until
    assert judged(now=until) is None and judged(now=until + 1) == LinkCode.ATTESTATION_OVER


def test_no_node_and_bad_standing_refuse_it() -> None:
    machine = world.Machine()
    refused = judge_offer(machine.offer(), machine.account, world.NETWORK, None, 0)
    assert refused is not None and refused.code == LinkCode.NODE_REFUSED
    assert judge_standing(()) is None
    standing = judge_standing(("its image is retired",))
    assert standing is not None and standing.code == LinkCode.NOT_IN_STANDING and "retired" in standing.cause


def test_the_view_of_a_node_shows_the_prices_that_it_published() -> None:
    terms = world.TERMS
    state = world.Machine().state(extras=NodeExtras(draining=True, offers={terms.model: terms}))
    shown = _chain_view(Seen(b"", state, "", 1, b"", time.monotonic()), state)
    assert shown["draining"] is True and shown["prices"] == [table(terms)]
    assert table(terms)["completion"] == terms.completion_price and table(terms)["terms"] == terms.hash.hex()
    state = world.Machine().state()
    assert _chain_view(Seen(b"", state, "", 1, b"", time.monotonic()), state)["prices"] == []


@pytest.mark.parametrize(
    "name", ["prompt_price", "cached_price", "completion_price", "reasoning_price", "minimum_nano"]
)
def test_g5_dearer_in_any_part_is_dearer(name: str) -> None:
    terms = world.TERMS
    more = replace(terms, **{name: getattr(terms, name) + 1})
    assert dearer(more, terms) and not dearer(terms, more) and not dearer(terms, terms)
