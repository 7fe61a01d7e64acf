"""What a governor is told before he sends, and that what he is told is what the contracts then do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import begin_cell

from app.governance.core import orders
from app.governance.core.actions import read
from app.governance.core.orders import Order, Who
from app.governance.core.proposals import pending
from app.governance.core.settings import (
    NotUnderstood,
    altered,
    altered_policy,
    changes,
    load_settings,
    policy_changes,
    stopped_of,
)
from app.governance.gather import Scene
from app.governance.rehearse import refusal
from app.governance.show import document, lines
from attestation.onchain.state import NO_LAUNCH, ChainPolicy, VerifierState
from attestation.simulated.tee import Registers
from devnet.ledger import Snapshot
from scripts.stage import DAY, TON, World, account_of_name, built_world
from wrappers import governance
from wrappers.cells import CellError, address_of
from wrappers.registry import PROPOSAL_LIFE, Rebuilders, RegistryState

LOCK = 2 * DAY
IMAGE = b"\x21" * 32
REBUILDER = account_of_name("rebuilder")


@pytest.fixture(scope="module")
def _built() -> tuple[World, Snapshot]:
    world = built_world(verifier=True)
    return world, world.ledger.snapshot()


@pytest.fixture
def world(_built: tuple[World, Snapshot]) -> World:
    _built[0].ledger.revert(_built[1])
    return _built[0]


def scene(world: World) -> Scene:
    registry, verifier = world.ledger.account(world.registry), world.ledger.account(world.attestation)
    assert registry.data is not None and verifier.data is not None
    found = RegistryState.from_cell(registry.data), VerifierState.from_cell(verifier.data)
    return Scene(registry, found[0], verifier, found[1], world.ledger.now)


def refused(world: World, order: Order, sender: bytes | None = None) -> str | None:
    """What the rehearsal says; the chain must then do just that, and on refusal change nothing."""
    at = scene(world)
    source = sender or world.governor.account
    said = refusal(at, world.ledger.global_id, source, order)
    before = world.ledger.account(world.registry).data, world.ledger.account(world.attestation).data
    trace = world.tell(source, world.registry, order.value_nano, order.body)
    assert bool(trace.failed) is (said is not None), said
    if said is not None:
        after = world.ledger.account(world.registry).data, world.ledger.account(world.attestation).data
        assert [one.hash for one in after if one] == [one.hash for one in before if one]
    return said


def proposal(world: World, *asked: str) -> Order:
    at = scene(world).state
    return orders.propose(at, read(altered(at.settings, asked).to_cell(), at, None))


def test_g20_a_change_is_said_in_words_proposed_and_executed(world: World) -> None:
    order = proposal(world, "min_stake_nano=7_000_000_000", "unbonding_seconds=86400", "stopped=jobs")
    assert any("min_stake_nano: 5.000000000 TON -> 7.000000000 TON" in line for line in order.says)
    assert any("unbonding: 3 d -> 1 d" in line for line in order.says)
    assert any("stopped: nothing -> jobs" in line for line in order.says)
    assert refused(world, order) is None
    assert order.action is not None and order.about == order.action.hash
    at = scene(world)
    (waiting,) = pending(at.state, at.verifier_state, {order.about: order.action}, at.now)
    assert waiting.phase == "waiting" and waiting.expires_at == at.now + LOCK + PROPOSAL_LIFE
    assert waiting.action is not None and waiting.action.says == read(order.action, at.state, None).says
    execution = orders.execute(at.state, waiting.action)
    early = refused(world, execution)
    assert early is not None and str(waiting.proposal.ready_at) in early and str(at.now) in early
    world.ledger.now += LOCK
    assert next(pending(scene(world).state, None, {}, world.ledger.now)).phase == "ripe"
    assert refused(world, execution) is None
    assert scene(world).state.parameters.min_stake_nano == 7 * TON and scene(world).state.stopped == 4
    assert "not proposed" not in str(refused(world, execution)) and scene(world).state.proposals == {}


def test_a_proposal_that_is_over_says_when_it_was(world: World) -> None:
    order = proposal(world, "fee=0", "min_stake_nano=1")
    assert refused(world, order) is None
    world.ledger.now += LOCK + PROPOSAL_LIFE + 1
    at = scene(world)
    (waiting,) = pending(at.state, None, {order.about: order.action}, at.now)  # type: ignore[dict-item]
    assert waiting.phase == "over" and waiting.action is not None
    late = refused(world, orders.execute(at.state, waiting.action))
    assert late is not None and str(waiting.expires_at) in late and "propose it again" in late


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("min_stake_nano=1_000_000_000_000_001", "min_stake_nano is at most"),
        ("gas_level_nano=1_000_000_000_000_001", "gas_level_nano is at most"),
        ("unbonding=3599", "unbonding is between 1 h and 60 d"),
        ("challenge_window=5184001", "challenge_window is between"),
        ("claim_window=604799", "claim_window is between max_close_timer"),
        ("max_close_timer=604801", "close timers are between"),
        ("min_close_timer=604801", "close timers are between"),
        ("time_lock=86399", "time_lock is between 1 d and 30 d"),
        ("time_lock=2592001", "time_lock is between"),
        ("fee=100", "a fee needs a treasury"),
    ],
)
def test_g20_what_the_bounds_in_code_refuse_is_not_sent_and_the_bound_is_named(
    world: World, asked: str, says: str
) -> None:
    said = refused(world, proposal(world, asked))
    assert said is not None and says in said, said
    edge = asked.split("=")
    at_the_edge = {"3599": "3600", "604799": "604800", "86399": "86400", "2592001": "2592000", "5184001": "5184000"}
    if edge[1] in at_the_edge:
        assert refused(world, proposal(world, f"{edge[0]}={at_the_edge[edge[1]]}")) is None


def test_a_fee_above_the_bound_is_named(world: World) -> None:
    said = refused(world, proposal(world, "fee=501", f"treasury={world.treasury.hex()}"))
    assert said is not None and "fee is at most 500" in said
    assert refused(world, proposal(world, "fee=500", f"treasury={address_of(world.treasury).to_str()}")) is None


def test_g10_who_may_not_is_told_who_may(world: World) -> None:
    stranger = world.stranger.account
    said = refused(world, proposal(world, "min_stake_nano=1"), stranger)
    assert said is not None and world.governor.account.hex() in said and "--print" in said
    at = scene(world)
    assert "offered to govern" in str(refused(world, orders.accept_handover(at.state), stranger))
    action = read(governance.allow_image(IMAGE, 1, NO_LAUNCH), at.state, at.verifier_state)
    assert refused(world, orders.propose(at.state, action)) is None
    assert "a rebuilder" in str(refused(world, orders.endorse(action, IMAGE), stranger))


def test_g20_an_image_needs_its_endorsement_and_a_rebuilder_his_own_measurement(world: World) -> None:
    at = scene(world)
    action = read(governance.allow_image(IMAGE, 2, NO_LAUNCH), at.state, at.verifier_state)
    assert any("tier 2 (gpu)" in line for line in action.says)
    assert refused(world, orders.propose(at.state, action)) is None
    with pytest.raises(NotUnderstood, match="another image"):
        orders.endorse(action, b"\x22" * 32)
    other = read(governance.allow_model(IMAGE), at.state, at.verifier_state)
    with pytest.raises(NotUnderstood, match="only images"):
        orders.endorse(other, IMAGE)
    world.ledger.now += LOCK
    at = scene(world)
    (waiting,) = pending(at.state, at.verifier_state, {action.hash: action.cell}, at.now)
    assert (waiting.phase, waiting.lacking) == ("ripe, lacks endorsements", 1)
    assert "endorse" in str(refused(world, orders.execute(at.state, action)))
    assert refused(world, orders.endorse(action, IMAGE), REBUILDER) is None
    at = scene(world)
    (waiting,) = pending(at.state, at.verifier_state, {action.hash: action.cell}, at.now)
    assert (waiting.phase, waiting.lacking) == ("ripe", 0)
    assert refused(world, orders.execute(at.state, action)) is None
    found = scene(world).verifier_state
    assert found is not None and found.images[IMAGE].tier == 2


def test_g20_narrowing_says_what_it_ends_and_holds_at_once(world: World) -> None:
    at, image = scene(world), Registers.of_image().measurement
    assert any("acknowledged" in line for line in orders.revoke_image(at.state, None, image, True).says)
    unknown = orders.revoke_image(at.state, at.verifier_state, IMAGE, False)
    assert "does not know it" in unknown.says[-1] and "the verifier would refuse" in str(refused(world, unknown))
    for order in (
        orders.revoke_image(at.state, at.verifier_state, image, False),
        orders.deny_platform(at.state, at.verifier_state, IMAGE),
        orders.drop_tcb(at.state, b"\x01" * 6),
        orders.revoke_model(at.state, IMAGE),
        orders.stop_opening(at.state, stopped_of(["nodes", "jobs"])),
    ):
        assert refused(world, order) is None, order.says
    after = scene(world)
    assert after.verifier_state is not None and after.verifier_state.images[image].status.name == "RETIRED"
    assert after.verifier_state.platforms[IMAGE].denied and after.verifier_state.barred == {b"\x01" * 6}
    assert after.state.models == {IMAGE: True} and after.state.stopped == 5
    shown = "\n".join(lines(after, ()))
    assert "stopped: nodes, jobs" in shown and f"{IMAGE.hex()}: revoked" in shown and "retired" in shown
    assert "010101010101" in shown and "nothing is proposed" in shown


def test_every_kind_of_action_is_read_proposed_and_executed(world: World) -> None:
    at = scene(world)
    assert at.verifier_state is not None
    for narrow in (orders.deny_platform(at.state, None, IMAGE), orders.drop_tcb(at.state, b"\x01" * 6)):
        assert refused(world, narrow) is None
    policy = altered_policy(at.verifier_state.policy, ["longest_seconds=86400", "accepted_statuses=UpToDate,OutOfDate"])
    cells = {
        "settings": altered(at.state.settings, ["min_deposit_nano=1"]).to_cell(),
        "set-policy": governance.set_policy(policy.to_cell()),
        "set-rebuilders": governance.set_rebuilders(Rebuilders(1, frozenset({REBUILDER, IMAGE}))),
        "allow-model": governance.allow_model(IMAGE),
        "free-platform": governance.free_platform(IMAGE),
        "restore-tcb": governance.restore_tcb(b"\x01" * 6),
    }
    for name, cell in cells.items():
        action = read(cell, at.state, at.verifier_state)
        assert action.name == name and action.says
        assert refused(world, orders.propose(at.state, action)) is None, name
    world.ledger.now += LOCK
    for cell in cells.values():
        action = read(cell, at.state, at.verifier_state)
        assert refused(world, orders.execute(scene(world).state, action)) is None, action.name
    after = scene(world)
    assert after.verifier_state is not None and after.verifier_state.policy == policy
    assert after.verifier_state.barred == frozenset() and not after.verifier_state.platforms[IMAGE].denied
    assert after.state.models == {IMAGE: False} and IMAGE in after.state.rebuilders.accounts
    assert after.state.parameters.min_deposit_nano == 1


def test_handover_in_two_steps(world: World) -> None:
    at, heir = scene(world), world.stranger.account
    assert refused(world, orders.offer_handover(at.state, heir)) is None
    assert orders.senders(scene(world).state, orders.accept_handover(at.state)) == (heir,)
    assert refused(world, orders.offer_handover(scene(world).state, None)) is None
    assert refused(world, orders.accept_handover(at.state), heir) is not None
    assert refused(world, orders.offer_handover(at.state, heir)) is None
    assert refused(world, orders.accept_handover(at.state), heir) is None
    assert scene(world).state.governor == heir


def test_cancelling_says_what_is_dropped_and_what_is_not_there_is_refused(world: World) -> None:
    order = proposal(world, "min_stake_nano=1")
    assert refused(world, order) is None and order.about is not None
    again = proposal(world, "min_stake_nano=1")
    assert any("anew" in line for line in again.says)
    assert refused(world, orders.cancel(order.about, None)) is None
    assert "no such action is proposed" in str(refused(world, orders.cancel(order.about, None)))


def test_the_ninth_proposal_is_refused_before_it_is_sent(world: World) -> None:
    for index in range(8):
        assert refused(world, proposal(world, f"min_stake_nano={index + 1}")) is None
    assert "eight" in str(refused(world, proposal(world, "min_stake_nano=9")))


def test_the_document_for_programs_names_every_proposal(world: World) -> None:
    order = proposal(world, "min_stake_nano=1")
    assert refused(world, order) is None
    at = scene(world)
    for known in ({}, {order.about: order.action}):
        waiting = tuple(pending(at.state, at.verifier_state, known, at.now))  # type: ignore[arg-type]
        (said,) = document(at, waiting)["proposals"]
        assert said["hash"] == order.action.hash.hex()  # type: ignore[union-attr]
        assert said["action"] == ("settings" if known else None)
        assert ("no history" in "\n".join(lines(at, waiting))) is not bool(known)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda at: altered(at.settings, ["min_stake=1"]),
        lambda at: altered(at.settings, ["min_stake_nano"]),
        lambda at: altered(at.settings, ["min_stake_nano=-1"]),
        lambda at: altered(at.settings, ["min_stake_nano=1.5"]),
        lambda at: altered(at.settings, ["treasury=EQx"]),
        lambda at: altered(at.settings, ["stopped=courts"]),
        lambda at: altered(at.settings, [], ["court"]),
        lambda at: altered_policy(ChainPolicy(), ["accepted_statuses=Revoked"]),
        lambda at: altered_policy(ChainPolicy(), ["xfam_allowed=many"]),
        lambda at: stopped_of([]),
    ],
)
def test_g18_what_cannot_be_understood_is_said(world: World, wrong: Callable[[RegistryState], object]) -> None:
    with pytest.raises(NotUnderstood):
        wrong(scene(world).state)


def test_settings_are_read_back_whole_and_nothing_else_is(world: World) -> None:
    present = scene(world).state.settings
    treasury = replace(present, treasury=IMAGE, parameters=replace(present.parameters, fee=77))
    assert load_settings(treasury.to_cell()) == treasury
    assert list(changes(present, present)) == [] and len(list(changes(present, treasury))) == 2
    foreign = replace(present, node_code=present.job_code)
    assert any("NOT THIS RELEASE'S" in line for line in changes(present, foreign))
    assert [line for line in changes(foreign, altered(foreign, [], ["node"])) if "this release's" in line]
    assert list(policy_changes(None, ChainPolicy())) and not list(policy_changes(ChainPolicy(), ChainPolicy()))
    state = scene(world).state
    for cell in (begin_cell().end_cell(), governance.propose(IMAGE_CELL), begin_cell().store_uint(1, 32).end_cell()):
        with pytest.raises(CellError):
            read(cell, state, None)


IMAGE_CELL = governance.allow_image(IMAGE, 1, NO_LAUNCH)


def test_only_who_may_send_is_named_as_sender(world: World) -> None:
    state = scene(world).state
    assert orders.senders(state, orders.accept_handover(state)) == ()
    assert orders.senders(state, orders.revoke_model(state, IMAGE)) == (world.governor.account,)
    order = orders.endorse(read(IMAGE_CELL, state, None), IMAGE)
    assert order.who is Who.REBUILDER and orders.senders(state, order) == (REBUILDER,)
