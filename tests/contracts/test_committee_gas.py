"""G8: gas of the committee in its deepest trees, and the formulas on both sides."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from committee_stage import Stage, Verifier
from pytoniq_core import HashMap, begin_cell

import contracts
from devnet.trace import Trace
from scripts.stage import TON, public
from wrappers import committee_messages
from wrappers.code import Contract, code, size_of
from wrappers.committee import LEAVE_SECONDS, MAX_MEMBERS, MAX_OLDER_KEYS, MAX_REQUESTS, CommitteeVerdict
from wrappers.gas import CommitteeGas, CommitteeSize
from wrappers.signed import sign

ROOT = Path(contracts.__file__).parent
BASE = b"\x5a" * 32


def neighbours(account: bytes, count: int) -> list[bytes]:
    """`account` last, and ids that share ever longer prefixes with it: the deepest tree, whose deepest leaf it is."""
    number = int.from_bytes(account, "big")
    return [*((number ^ (1 << (255 - i))).to_bytes(32, "big") for i in range(count - 1)), account]


def worst() -> Stage:
    """Fifteen seats, 64 owners, 32 nodes that were asked about, each in the deepest tree that there is."""
    stage = Stage(seats=15, quorum=8, owners=neighbours(BASE, MAX_MEMBERS + 1))
    assert not stage.genesis().failed
    platforms = neighbours(b"\xa5" * 32, MAX_MEMBERS + 1)
    for index in range(MAX_MEMBERS - 1):
        assert not stage.present(stage.verifier(index), 20 * TON, platform=platforms[index]).failed
    for node in neighbours(BASE, MAX_REQUESTS)[:-1]:
        assert not (trace := stage.ask(2 * TON, node=node)).failed, trace.failed[0].exit_code
    crowd(stage)
    return stage


def crowd(stage: Stage) -> None:
    """The same committee, the places of its requests moved around that of the stranger's node. Places are hashes, so
    that nobody could lay them so."""
    data = stage.ledger.account(stage.account).data
    assert data is not None
    s = data.begin_parse()
    open_, terms, requests, pool = s.load_bits(8), s.load_ref(), s.load_dict(256), s.load_ref()
    moved = HashMap(256, value_serializer=lambda value, builder: builder.store_cell(value.to_cell()))
    for place, request in zip(neighbours(stage.node, MAX_REQUESTS), requests.values(), strict=False):
        moved.set_int_key(int.from_bytes(place, "big"), request)
    state = begin_cell().store_bits(open_).store_ref(terms).store_dict(moved.serialize()).store_ref(pool).end_cell()
    init = begin_cell().store_uint(0b00110, 5).store_ref(code(Contract.COMMITTEE)).store_ref(state).end_cell()
    stage.account = bytes(init.hash)
    value = MAX_MEMBERS * 20 * TON
    stage.ledger.send_internal(source=stage.stranger, destination=stage.account, value_nano=value, state_init=init)


def worn(stage: Stage, who: Verifier, platform: bytes) -> None:
    """A member that changed its key as often as it may: `who.key` lies deepest among the older ones."""
    for key in neighbours(public(who.key), MAX_OLDER_KEYS + 2)[:-1]:
        if len(stage.state.members[who.owner].older_keys) < MAX_OLDER_KEYS:
            assert not stage.present(who, 20 * TON, platform=platform, key=key).failed
    member = stage.state.members[who.owner]
    assert len(member.older_keys) == MAX_OLDER_KEYS and public(who.key) in member.older_keys


def gas(stage: Stage, trace: Trace) -> int:
    tx = trace.of(stage.account)[0]
    assert (tx.exit_code, tx.action_code) == (0, 0)
    return int(tx.gas_used)


def measure() -> dict[str, int]:
    stage = worst()
    ledger, used = stage.ledger, dict.fromkeys(
        (name for name in vars(CommitteeGas) if name.isupper() and name != "VOUCHED"), 0
    )  # fmt: skip

    def at(name: str, trace: Trace) -> None:
        used[name] = max(used[name], gas(stage, trace))

    last = stage.verifier(MAX_MEMBERS)
    platform = b"\xa5" * 32
    at("PRESENTED", stage.present(last, 20 * TON, platform=platform))
    at("PRESENTED", stage.present(last, 20 * TON, platform=platform, key=b"\x01" * 32))
    at("PRESENTED", stage.present(last, 20 * TON, platform=platform))
    at("ASK", stage.ask(2 * TON, consent=b"\x01" * 64))
    stage.wait_for_block()
    at("DRAW", stage.draw(value_nano=TON))
    snapshot = ledger.snapshot()
    worn(stage, last, platform)
    tired = ledger.snapshot()
    question = b"\x07" * 32
    yes, no = (sign(CommitteeVerdict(question, answer), last.key) for answer in (True, False))
    body = committee_messages.contradiction(last.owner, question, public(last.key), yes, no)
    at("CONTRADICTION", stage.tell(body, TON))
    ledger.revert(tired)
    at("LEAVE", stage.tell(committee_messages.leave(last.owner), TON, last.owner))
    ledger.revert(tired)
    ledger.now += LEAVE_SECONDS
    at("PRESENTED", stage.present(last, 20 * TON, platform=platform, key=b"\x03" * 32))
    ledger.revert(snapshot)
    owners = {each.owner: each for each in map(stage.verifier, range(MAX_MEMBERS + 1))}
    seats = [owners[owner] for owner in stage.request().seats]
    for number, who in enumerate(reversed(seats)):
        at("ANSWER", stage.answer(who, True, TON))
        if number >= 8:
            at("ANSWER", stage.answer(who, False, TON))
    stage.past_deadline()
    at("CONCLUDE", stage.conclude(TON))
    ledger.revert(snapshot)
    for who in seats[-9:]:
        at("ANSWER", stage.answer(who, True, TON))
    stage.past_deadline()
    at("CONCLUDE", stage.conclude(TON))
    ledger.revert(snapshot)
    # The member to leave and the one that moves into its slot lie deepest.
    deepest = stage.verifier(MAX_MEMBERS - 2)
    for who in (deepest, last):
        ledger.revert(snapshot)
        at("LEAVE", stage.tell(committee_messages.leave(who.owner), TON, who.owner))
        ledger.now += LEAVE_SECONDS
        at("WITHDRAW_BOND", stage.tell(committee_messages.withdraw_bond(who.owner), TON))
    for who in (deepest, last):
        ledger.revert(snapshot)
        question = b"\x07" * 32
        yes, no = (sign(CommitteeVerdict(question, answer), who.key) for answer in (True, False))
        at(
            "CONTRADICTION",
            stage.tell(committee_messages.contradiction(who.owner, question, public(who.key), yes, no), TON),
        )
    return used


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return measure()


@pytest.mark.parametrize(
    "operation", sorted(name for name in vars(CommitteeGas) if name.isupper() and name != "VOUCHED")
)
def test_g8_gas_constant_is_at_least_the_worst_case_and_at_most_a_tenth_above(
    measured: dict[str, int], operation: str
) -> None:
    constant, used = getattr(CommitteeGas, operation), measured[operation]
    assert used <= constant <= used * 1.1 + 1, f"{operation}: {constant} against {used} measured"


def test_both_sides_have_the_same_constants() -> None:
    text = (ROOT / "committee" / "gas.fc").read_text() + (ROOT / "attestation" / "gas.fc").read_text()
    for kind, mirror in (("gas", CommitteeGas), ("size", CommitteeSize)):
        there = {name.upper(): int(value) for name, value in re.findall(rf"const int {kind}::(\w+) = (\d+);", text)}
        for name, value in vars(mirror).items():
            if name.isupper():
                assert there[name] == value, name


def test_rent_covers_the_largest_member_and_request() -> None:
    stage = worst()
    before = size_of(stage.ledger.account(stage.account).data)
    assert not stage.present(stage.verifier(MAX_MEMBERS), platform=b"\xa5" * 32).failed
    worn(stage, stage.verifier(MAX_MEMBERS), b"\xa5" * 32)
    joined = size_of(stage.ledger.account(stage.account).data)
    assert joined[0] - before[0] <= CommitteeSize.MEMBER_CELLS
    assert joined[1] - before[1] <= CommitteeSize.MEMBER_BITS
    assert not stage.ask(2 * TON, consent=b"\x01" * 64).failed
    # Then the pool changes wholly, and the request alone keeps what it was.
    request = stage.request()
    cells, bits = size_of(request.pool, request.question.to_cell())
    assert cells + 3 <= CommitteeSize.REQUEST_CELLS and bits + 2 * 1023 + 512 <= CommitteeSize.REQUEST_BITS
    # Once it is drawn, that is forgotten, and the seats are less.
    stage.wait_for_block()
    assert not stage.draw(value_nano=TON).failed
    assert stage.request().pool is None and 3 * len(stage.request().seats) < cells
