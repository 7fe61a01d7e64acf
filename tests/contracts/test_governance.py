"""Governance: handover, time-lock, bounds, narrowing; what it cannot reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of

from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, Pair, World
from tests.support.altered import with_bits, with_number, with_ref
from wrappers import escrow, governance
from wrappers.cells import address_of
from wrappers.code import Contract, code
from wrappers.errors import ContractError
from wrappers.registry import PROPOSAL_LIFE, STOP_ESCROWS, STOP_JOBS, STOP_NODES, Proposal, RegistryState, Settings

LOCK = 2 * DAY


def state_of(world: World) -> RegistryState:
    data = world.ledger.account(world.registry).data
    assert data is not None
    return RegistryState.from_cell(data)


def govern(world: World, body: Cell, value: int = TON) -> Trace:
    return world.send(world.governor, world.registry, value, body)


def wanted(world: World, **change: int) -> Settings:
    settings = state_of(world).settings
    return replace(settings, parameters=replace(settings.parameters, **change))


def test_g20_settings_take_effect_after_the_time_lock_and_not_a_second_before(world: World) -> None:
    settings = wanted(world, min_stake_nano=7 * TON)
    assert not govern(world, governance.propose(settings.to_cell())).failed
    assert state_of(world).proposals == {settings.to_cell().hash: Proposal(world.ledger.now + LOCK, True)}
    world.ledger.now += LOCK - 1
    assert code_of(govern(world, governance.execute(settings.to_cell()))) == ContractError.NOT_READY
    assert state_of(world).parameters == world.parameters
    world.ledger.now += 1
    assert not govern(world, governance.execute(settings.to_cell())).failed
    assert state_of(world).parameters.min_stake_nano == 7 * TON and not state_of(world).proposals
    _, trace = world.open_node()
    assert trace.failed[0].exit_code == ContractError.LOW_VALUE
    assert code_of(govern(world, governance.execute(settings.to_cell()))) == ContractError.NO_PROPOSAL


@pytest.mark.parametrize("trusted", ["court", "attestation"])
def test_g20_who_takes_stakes_and_names_keys_is_never_chosen_again(world: World, trusted: str) -> None:
    settings = replace(state_of(world).settings, **{trusted: world.stranger.account})  # type: ignore[arg-type]
    assert code_of(govern(world, governance.propose(settings.to_cell()))) == ContractError.BAD_PARAMETERS


def test_g20_a_ripe_proposal_expires(world: World) -> None:
    settings = wanted(world, min_stake_nano=7 * TON)
    govern(world, governance.propose(settings.to_cell()))
    snapshot = world.ledger.snapshot()
    world.ledger.now += LOCK + PROPOSAL_LIFE + 1
    assert code_of(govern(world, governance.execute(settings.to_cell()))) == ContractError.PROPOSAL_OVER
    world.ledger.revert(snapshot)
    world.ledger.now += LOCK + PROPOSAL_LIFE
    assert not govern(world, governance.execute(settings.to_cell())).failed


def test_g20_proposed_again_waits_again_and_a_change_is_another_proposal(world: World) -> None:
    settings = wanted(world, min_stake_nano=7 * TON)
    govern(world, governance.propose(settings.to_cell()))
    world.ledger.now += LOCK - 1
    govern(world, governance.propose(settings.to_cell()))
    world.ledger.now += LOCK - 1
    assert code_of(govern(world, governance.execute(settings.to_cell()))) == ContractError.NOT_READY
    world.ledger.now += 1
    other = wanted(world, min_stake_nano=8 * TON)
    assert code_of(govern(world, governance.execute(other.to_cell()))) == ContractError.NO_PROPOSAL


def test_g20_cancelled_is_gone_and_executing_one_drops_the_others(world: World) -> None:
    first, second = wanted(world, min_stake_nano=7 * TON), wanted(world, min_stake_nano=8 * TON)
    for settings in (first, second):
        govern(world, governance.propose(settings.to_cell()))
    assert not govern(world, governance.cancel(bytes(second.to_cell().hash))).failed
    assert code_of(govern(world, governance.cancel(bytes(second.to_cell().hash)))) == ContractError.NO_PROPOSAL
    govern(world, governance.propose(second.to_cell()))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(first.to_cell())).failed
    assert code_of(govern(world, governance.execute(second.to_cell()))) == ContractError.NO_PROPOSAL


def test_eight_proposals_are_pending_and_expired_ones_make_room(world: World) -> None:
    many = [wanted(world, min_stake_nano=(10 + index) * TON) for index in range(9)]
    for settings in many[:8]:
        assert not govern(world, governance.propose(settings.to_cell())).failed
    assert code_of(govern(world, governance.propose(many[8].to_cell()))) == ContractError.TOO_MANY_PROPOSALS
    assert not govern(world, governance.propose(many[0].to_cell())).failed
    world.ledger.now += LOCK + PROPOSAL_LIFE + 1
    assert not govern(world, governance.propose(many[8].to_cell())).failed
    assert list(state_of(world).proposals) == [bytes(many[8].to_cell().hash)]


@pytest.mark.parametrize(
    "change",
    [
        {"min_stake_nano": 10**15 + 1},
        {"min_deposit_nano": 10**15 + 1},
        {"gas_level_nano": 10**15 + 1},
        {"payout_threshold_nano": 10**15 + 1},
        {"unbonding": HOUR - 1},
        {"unbonding": 60 * DAY + 1},
        {"claim_window": 7 * DAY - 1},
        {"claim_window": 60 * DAY + 1},
        {"challenge_window": HOUR - 1},
        {"challenge_window": 60 * DAY + 1},
        {"min_close_timer": HOUR - 1},
        {"max_close_timer": 7 * DAY + 1},
        {"min_close_timer": 2 * HOUR, "max_close_timer": HOUR},
    ],
)
def test_g20_settings_outside_the_bounds_in_code_are_refused(world: World, change: dict[str, int]) -> None:
    body = governance.propose(wanted(world, **change).to_cell())
    assert code_of(govern(world, body)) == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize(
    "alter",
    [
        lambda s: replace(s, parameters=replace(s.parameters, min_stake_nano=10**15, min_deposit_nano=10**15)),
        lambda s: replace(s, parameters=replace(s.parameters, gas_level_nano=10**15, payout_threshold_nano=10**15)),
        lambda s: replace(
            s,
            parameters=replace(s.parameters, unbonding=60 * DAY, claim_window=60 * DAY, challenge_window=60 * DAY),
        ),
        lambda s: replace(
            s,
            parameters=replace(s.parameters, unbonding=HOUR, challenge_window=HOUR, min_close_timer=HOUR),
        ),
        lambda s: replace(s, stopped=STOP_NODES | STOP_ESCROWS | STOP_JOBS),
        lambda s: replace(s, time_lock=DAY),
        lambda s: replace(s, time_lock=30 * DAY),
    ],
)
def test_g20_settings_at_the_bounds_are_taken(world: World, alter: Callable[[Settings], Settings]) -> None:
    assert not govern(world, governance.propose(alter(state_of(world).settings).to_cell())).failed


def test_a_ripe_proposal_is_not_forgotten_when_another_comes(world: World) -> None:
    first, second = wanted(world, min_stake_nano=7 * TON), wanted(world, min_stake_nano=8 * TON)
    govern(world, governance.propose(first.to_cell()))
    world.ledger.now += LOCK + PROPOSAL_LIFE
    govern(world, governance.propose(second.to_cell()))
    assert set(state_of(world).proposals) == {bytes(each.to_cell().hash) for each in (first, second)}
    world.ledger.now += 1
    govern(world, governance.propose(second.to_cell()))
    assert set(state_of(world).proposals) == {bytes(second.to_cell().hash)}


@pytest.mark.parametrize(
    "alter",
    [
        lambda s: replace(s, time_lock=DAY - 1),
        lambda s: replace(s, time_lock=30 * DAY + 1),
        lambda s: replace(s, stopped=8),
        lambda s: replace(s, attestation=b"\x01" * 32),
        lambda s: replace(s, stub_prefix=b"\x01" * 39),
    ],
)
def test_g20_neither_bounds_of_the_time_lock_nor_attestation_nor_stub_can_be_changed(
    world: World, alter: Callable[[Settings], Settings]
) -> None:
    body = governance.propose(alter(state_of(world).settings).to_cell())
    assert code_of(govern(world, body)) == ContractError.BAD_PARAMETERS


@pytest.mark.parametrize(("field", "width"), [(48, 16), (32, 32)], ids=["cells", "bits"])
def test_g9_terms_that_understate_the_codes_size_are_refused(world: World, field: int, width: int) -> None:
    settings = state_of(world).settings
    genuine = settings.to_cell()
    for terms, at, after in (("node", 0, 0), ("escrow", 1, 1), ("job", 2, 0)):
        bits = genuine.refs[at].bits.to01()
        begin = len(bits) - after - field
        less = with_number(bits, begin, width, int(bits[begin : begin + width], 2) - 1)
        body = governance.propose(with_ref(genuine, at, with_bits(genuine.refs[at], less)))
        assert code_of(govern(world, body)) == ContractError.BAD_PARAMETERS, terms


def test_g20_a_code_change_concerns_later_children_only(world: World, pair: Pair) -> None:
    # Any program whose first reference is the code to stay; here births of escrows made to look like those of nodes.
    settings = replace(state_of(world).settings, escrow_code=code(Contract.NODE))
    before = world.ledger.account(pair.escrow), world.ledger.account(pair.node)
    govern(world, governance.propose(settings.to_cell()))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(settings.to_cell())).failed
    assert (world.ledger.account(pair.escrow), world.ledger.account(pair.node)) == before
    _, trace = world.open_escrow(index=9)
    assert trace.failed[0].exit_code == ContractError.WRONG_CODE
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    world.ledger.now += HOUR
    assert not world.send(world.client, pair.escrow, TON, escrow.finish()).failed
    assert not world.alive(pair.escrow)


def test_g20_openings_stop_at_once_and_reopen_only_by_time_lock(world: World, pair: Pair) -> None:
    assert not govern(world, governance.stop_opening(STOP_ESCROWS)).failed
    _, trace = world.open_escrow(index=5)
    assert trace.failed[0].exit_code == ContractError.OPENING_STOPPED
    assert not world.open_node(index=5)[1].failed
    assert not govern(world, governance.stop_opening(STOP_NODES)).failed
    _, trace = world.open_node(index=6)
    assert trace.failed[0].exit_code == ContractError.OPENING_STOPPED
    assert not govern(world, governance.stop_opening(0)).failed and state_of(world).stopped == 3
    assert code_of(govern(world, governance.stop_opening(8))) == ContractError.BAD_PARAMETERS
    # Who is in still works and gets out.
    assert not world.settle_one(pair.escrow, pair.node, TON).failed
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    reopened = replace(state_of(world).settings, stopped=0)
    govern(world, governance.propose(reopened.to_cell()))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(reopened.to_cell())).failed
    assert not world.open_escrow(index=5)[1].failed


def test_handover_takes_two_steps_and_an_offer_can_be_withdrawn(world: World) -> None:
    heir = world.stranger
    assert not govern(world, governance.offer_governor(heir.account)).failed
    assert state_of(world).governor == world.governor.account and state_of(world).candidate == heir.account
    assert not govern(world, governance.offer_governor(None)).failed
    refused = world.send(heir, world.registry, TON, governance.accept_governor())
    assert refused.failed[0].exit_code == ContractError.NOT_ALLOWED
    govern(world, governance.offer_governor(heir.account))
    assert code_of(govern(world, governance.accept_governor())) == ContractError.NOT_ALLOWED
    assert not world.send(heir, world.registry, TON, governance.accept_governor()).failed
    assert (state_of(world).governor, state_of(world).candidate) == (heir.account, None)
    assert code_of(govern(world, governance.stop_opening(1))) == ContractError.NOT_ALLOWED
    assert not world.send(heir, world.registry, TON, governance.stop_opening(1)).failed


def test_g10_nobody_else_governs(world: World) -> None:
    settings = wanted(world, min_stake_nano=7 * TON)
    govern(world, governance.propose(settings.to_cell()))
    world.ledger.now += LOCK
    for body in (
        governance.offer_governor(world.stranger.account),
        governance.stop_opening(3),
        governance.propose(settings.to_cell()),
        governance.cancel(bytes(settings.to_cell().hash)),
        governance.execute(settings.to_cell()),
    ):
        trace = world.send(world.stranger, world.registry, TON, body)
        assert trace.failed[0].exit_code == ContractError.NOT_ALLOWED
    assert state_of(world).proposals and state_of(world).parameters == world.parameters


def test_g2_the_excess_of_governing_returns_and_the_registry_keeps_its_balance(world: World) -> None:
    before = world.ledger.balance(world.registry)
    trace = govern(world, governance.propose(wanted(world, min_stake_nano=7 * TON).to_cell()))
    assert trace.total_fees_nano == trace.balance_delta_nano
    assert world.ledger.balance(world.registry) == before
    assert trace.transactions[-1].account == world.governor.account
    low = govern(world, governance.stop_opening(1), value=TON // 1000)
    assert low.failed and state_of(world).stopped == 0


def test_g10_governing_with_anything_more_is_refused(world: World) -> None:
    body = begin_cell().store_cell(governance.stop_opening(1)).store_bit(1).end_cell()
    assert govern(world, body).failed and state_of(world).stopped == 0


def test_get_governance_tells_what_is_pending(world: World) -> None:
    settings = replace(state_of(world).settings, treasury=b"\x07" * 32)
    govern(world, governance.propose(settings.to_cell()))
    govern(world, governance.offer_governor(world.stranger.account))
    candidate, treasury, lock, stopped, proposals = world.ledger.run_get(world.registry, "get_governance")
    assert (candidate, treasury, lock, stopped) == (int.from_bytes(world.stranger.account, "big"), 0, LOCK, 0)
    assert isinstance(proposals, Cell)
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(settings.to_cell())).failed
    assert state_of(world).treasury == b"\x07" * 32


# A contract that does what its owner's internal messages say: forwards one message. Stands for a multisig.
RELAY = "SETCP0 11 THROWIF NIP NIP NIP LDREF DROP 64 PUSHINT SENDRAWMSG"


def test_g20_a_contract_can_govern(world: World) -> None:
    from scripts.compile import assemble

    program = assemble(f"<{{ {RELAY} }}>c")
    init = begin_cell().store_uint(0b00110, 5).store_ref(program).store_ref(Cell.empty()).end_cell()
    account = bytes(init.hash)
    govern(world, governance.offer_governor(account))

    def act(body: Cell) -> Trace:
        message = begin_cell().store_uint(0x18, 6).store_address(address_of(world.registry)).store_coins(0)
        message.store_uint(1, 107).store_ref(body)
        order = begin_cell().store_ref(message.end_cell()).end_cell()
        source = world.stranger.account
        return world.ledger.send_internal(
            source=source, destination=account, value_nano=TON, body=order, state_init=init
        )

    assert not act(governance.accept_governor()).of(world.registry)[0].aborted
    assert state_of(world).governor == account
    settings = wanted(world, min_deposit_nano=TON)
    act(governance.propose(settings.to_cell()))
    world.ledger.now += LOCK
    act(governance.execute(settings.to_cell()))
    assert state_of(world).parameters.min_deposit_nano == TON
