"""Actions of governance beyond settings: images and their rebuilders, models, platforms; what the verifier refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of

from attestation.onchain.state import NO_LAUNCH, ChainPolicy, ImageStatus, VerifierState
from attestation.simulated.tee import Registers
from devnet.ledger import Ledger, Snapshot
from devnet.trace import Trace
from scripts.stage import DAY, TON, World, account_of_name, built_world
from wrappers import addresses, governance, registry
from wrappers.addresses import Kind
from wrappers.code import Contract, code_hash
from wrappers.errors import ContractError
from wrappers.job import JobConfig, JobState
from wrappers.registry import PROPOSAL_LIFE, STOP_JOBS, Rebuilders, RegistryState

LOCK = 2 * DAY
IMAGE = b"\x51" * 32
RELEASE = governance.allow_image(IMAGE, 1, NO_LAUNCH)
REBUILDER = account_of_name("rebuilder")
PLATFORM = b"\x61" * 32


@pytest.fixture(scope="module")
def _built() -> tuple[World, Snapshot]:
    world = built_world(verifier=True)
    return world, world.ledger.snapshot()


@pytest.fixture
def world(_built: tuple[World, Snapshot]) -> World:
    _built[0].ledger.revert(_built[1])
    return _built[0]


def state_of(world: World) -> RegistryState:
    data = world.ledger.account(world.registry).data
    assert data is not None
    return RegistryState.from_cell(data)


def verifier_of(world: World) -> VerifierState:
    data = world.ledger.account(world.attestation).data
    assert data is not None
    return VerifierState.from_cell(data)


def govern(world: World, body: Cell, value: int = TON) -> Trace:
    return world.send(world.governor, world.registry, value, body)


def endorse(world: World, action: Cell, who: bytes = REBUILDER) -> Trace:
    return world.tell(who, world.registry, TON // 10, governance.endorse(bytes(action.hash)))


def done(world: World, action: Cell) -> Trace:
    """Proposed, endorsed, waited for, executed."""
    assert not govern(world, governance.propose(action)).failed
    assert not endorse(world, action).failed
    world.ledger.now += LOCK
    return govern(world, governance.execute(action))


# ------------------------------------------------------------------------------------------------ images


def test_g20_an_image_serves_after_time_lock_and_endorsement_and_neither_alone(world: World) -> None:
    assert not govern(world, governance.propose(RELEASE)).failed
    assert not endorse(world, RELEASE).failed
    world.ledger.now += LOCK - 1
    assert code_of(govern(world, governance.execute(RELEASE))) == ContractError.NOT_READY
    world.ledger.now += 1
    assert not govern(world, governance.execute(RELEASE)).failed
    assert verifier_of(world).images[IMAGE].status is ImageStatus.ALLOWED
    other = governance.allow_image(b"\x52" * 32, 2, NO_LAUNCH)
    govern(world, governance.propose(other))
    world.ledger.now += LOCK
    assert code_of(govern(world, governance.execute(other))) == ContractError.NOT_ENDORSED
    assert not endorse(world, other).failed
    assert not govern(world, governance.execute(other)).failed
    assert verifier_of(world).images[b"\x52" * 32].tier == 2


def test_g20_rebuilders_cannot_widen_alone_and_each_counts_once(world: World) -> None:
    pair = Rebuilders(2, frozenset({REBUILDER, account_of_name("second")}))
    assert not done(world, governance.set_rebuilders(pair)).failed
    assert state_of(world).rebuilders == pair
    for body in (governance.propose(RELEASE), governance.execute(RELEASE), governance.cancel(bytes(RELEASE.hash))):
        assert code_of(world.tell(REBUILDER, world.registry, TON, body)) == ContractError.NOT_ALLOWED
    assert code_of(endorse(world, RELEASE)) == ContractError.NO_PROPOSAL
    govern(world, governance.propose(RELEASE))
    assert code_of(endorse(world, RELEASE, world.governor.account)) == ContractError.NOT_ALLOWED
    for _ in range(3):
        assert not endorse(world, RELEASE).failed
    assert world.ledger.run_get(world.registry, "get_proposal", int.from_bytes(RELEASE.hash, "big"))[1] == 1
    world.ledger.now += LOCK
    assert code_of(govern(world, governance.execute(RELEASE))) == ContractError.NOT_ENDORSED
    assert not endorse(world, RELEASE, account_of_name("second")).failed
    assert not govern(world, governance.execute(RELEASE)).failed


def test_g20_who_is_no_rebuilder_any_more_counts_no_more(world: World) -> None:
    govern(world, governance.propose(RELEASE))
    endorse(world, RELEASE)
    assert not done(world, governance.set_rebuilders(Rebuilders(1, frozenset({account_of_name("heir")})))).failed
    assert code_of(govern(world, governance.execute(RELEASE))) == ContractError.NOT_ENDORSED
    assert not endorse(world, RELEASE, account_of_name("heir")).failed
    assert not govern(world, governance.execute(RELEASE)).failed


@pytest.mark.parametrize(
    "rebuilders",
    [
        Rebuilders(0, frozenset({REBUILDER})),
        Rebuilders(0),
        Rebuilders(2, frozenset({REBUILDER})),
        Rebuilders(1, frozenset(index.to_bytes(32, "big") for index in range(1, 18))),
    ],
)
def test_g20_a_network_never_drops_its_rebuilders(world: World, rebuilders: Rebuilders) -> None:
    body = governance.propose(governance.set_rebuilders(rebuilders))
    assert code_of(govern(world, body)) == ContractError.BAD_PARAMETERS


def test_sixteen_rebuilders_are_taken(world: World) -> None:
    many = Rebuilders(16, frozenset(index.to_bytes(32, "big") for index in range(1, 17)))
    assert not govern(world, governance.propose(governance.set_rebuilders(many))).failed


def test_g20_without_rebuilders_only_where_genesis_says_so_and_never_on_the_main_network() -> None:
    world = World(Ledger(), rebuilders=Rebuilders(), verifier=True)
    world.deploy()
    world.fund_wallets(world.governor)
    govern(world, governance.propose(RELEASE))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(RELEASE)).failed
    main = World(Ledger(global_id=-239), rebuilders=Rebuilders())
    with pytest.raises(AssertionError):
        main.deploy()
    World(Ledger(global_id=-239)).deploy()


def test_g20_images_are_revoked_at_once(world: World) -> None:
    image = Registers.of_image().measurement
    account, _ = world.open_node()
    assert not govern(world, governance.revoke_image(image, compromised=False)).failed
    assert verifier_of(world).images[image].status is ImageStatus.RETIRED
    assert not govern(world, governance.revoke_image(image, compromised=True)).failed
    assert world.attest(account).failed and world.node(account).signing_key is None


# ------------------------------------------------------------------------------------------------ others


def test_g20_models_are_listed_after_the_time_lock_and_revoked_at_once(world: World) -> None:
    model = b"\x71" * 32
    number = int.from_bytes(model, "big")
    assert world.ledger.run_get(world.registry, "get_model", number) == [-1]
    assert not done(world, governance.allow_model(model)).failed
    assert state_of(world).models == {model: False}
    assert not govern(world, governance.revoke_model(model)).failed
    assert world.ledger.run_get(world.registry, "get_model", number) == [1]
    assert not done(world, governance.allow_model(model)).failed
    assert state_of(world).models == {model: False}


def test_g20_platforms_and_their_types_are_barred_at_once_and_freed_by_time_lock(world: World) -> None:
    assert not govern(world, governance.deny_platform(PLATFORM)).failed
    assert not govern(world, governance.drop_tcb(b"\x01" * 6)).failed
    assert verifier_of(world).platforms[PLATFORM].denied and verifier_of(world).barred == {b"\x01" * 6}
    for action in (governance.free_platform(PLATFORM), governance.restore_tcb(b"\x01" * 6)):
        govern(world, governance.propose(action))
        assert code_of(govern(world, governance.execute(action))) == ContractError.NOT_READY
    world.ledger.now += LOCK
    for action in (governance.free_platform(PLATFORM), governance.restore_tcb(b"\x01" * 6)):
        assert not govern(world, governance.execute(action)).failed
    assert not verifier_of(world).platforms[PLATFORM].denied and not verifier_of(world).barred


def test_g20_the_tcb_policy_changes_by_time_lock_within_bounds_known_before(world: World) -> None:
    wide = ChainPolicy(accepted_statuses=frozenset({"UpToDate", "SWHardeningNeeded"}))
    assert not done(world, governance.set_policy(wide.to_cell())).failed
    assert verifier_of(world).policy == wide
    for bad in (ChainPolicy(longest_seconds=3599), ChainPolicy(accepted_statuses=frozenset({"Revoked"}))):
        body = governance.propose(governance.set_policy(bad.to_cell()))
        assert code_of(govern(world, body)) == ContractError.BAD_PARAMETERS


def malformed() -> list[Cell]:
    longer = begin_cell().store_cell(RELEASE).store_bit(0).end_cell()
    return [
        longer,
        governance.allow_image(IMAGE, 0, NO_LAUNCH),
        governance.allow_image(IMAGE, 4, NO_LAUNCH),
        governance.revoke_image(IMAGE, compromised=True),
        governance.deny_platform(PLATFORM),
        governance.revoke_model(IMAGE),
        governance.stop_opening(1),
        begin_cell().store_cell(governance.allow_model(IMAGE)).store_bit(0).end_cell(),
        begin_cell().store_cell(governance.free_platform(IMAGE)).store_bit(0).end_cell(),
        begin_cell().store_cell(governance.restore_tcb(bytes(6))).store_bit(0).end_cell(),
        begin_cell().store_cell(governance.set_policy(ChainPolicy().to_cell())).store_bit(0).end_cell(),
        begin_cell().store_cell(governance.set_rebuilders(Rebuilders(1, frozenset({IMAGE})))).store_bit(0).end_cell(),
        begin_cell().store_uint(0x12345678, 32).end_cell(),
        Cell.empty(),
    ]


def test_g20_what_no_execution_could_take_is_not_proposed(world: World) -> None:
    before = state_of(world)
    for action in malformed():
        assert govern(world, governance.propose(action)).failed
    assert state_of(world) == before


def test_g10_nobody_but_the_governor_acts(world: World) -> None:
    govern(world, governance.propose(RELEASE))
    endorse(world, RELEASE)
    world.ledger.now += LOCK
    for body in (
        governance.execute(RELEASE),
        governance.revoke_image(IMAGE, compromised=True),
        governance.deny_platform(PLATFORM),
        governance.drop_tcb(b"\x01" * 6),
        governance.revoke_model(IMAGE),
        governance.propose(governance.allow_model(IMAGE)),
    ):
        for who in (world.stranger.account, REBUILDER, world.attestation):
            assert code_of(world.tell(who, world.registry, TON, body)) == ContractError.NOT_ALLOWED


def test_proposals_of_other_kinds_outlive_executed_settings(world: World) -> None:
    settings = replace(state_of(world).settings, treasury=b"\x07" * 32)
    later = replace(state_of(world).settings, treasury=b"\x08" * 32)
    for action in (settings.to_cell(), later.to_cell(), RELEASE):
        govern(world, governance.propose(action))
    world.ledger.now += LOCK
    assert not govern(world, governance.execute(settings.to_cell())).failed
    assert set(state_of(world).proposals) == {bytes(RELEASE.hash)}
    endorse(world, RELEASE)
    world.ledger.now += PROPOSAL_LIFE + 1
    assert code_of(govern(world, governance.execute(RELEASE))) == ContractError.PROPOSAL_OVER


def test_g20_fees_are_bounded_and_need_a_treasury(world: World) -> None:
    settings = state_of(world).settings
    with_fee = replace(settings, parameters=replace(settings.parameters, fee=500), treasury=b"\x07" * 32)
    assert not done(world, with_fee.to_cell()).failed
    assert state_of(world).parameters.fee == 500
    for bad in (
        replace(with_fee, parameters=replace(settings.parameters, fee=501)),
        replace(with_fee, treasury=bytes(32)),
    ):
        assert code_of(govern(world, governance.propose(bad.to_cell()))) == ContractError.BAD_PARAMETERS


def test_g20_the_court_is_chosen_at_genesis_and_never_again(world: World) -> None:
    settings = replace(state_of(world).settings, court=b"\x09" * 32)
    assert code_of(govern(world, governance.propose(settings.to_cell()))) == ContractError.BAD_PARAMETERS
    assert world.ledger.run_get(world.registry, "get_trusted") == [
        int.from_bytes(world.attestation, "big"),
        int.from_bytes(world.court, "big"),
    ]


# ------------------------------------------------------------------------------------------------ money


def test_g2_g7_what_the_verifier_refuses_comes_back_to_the_governor(world: World) -> None:
    before = world.ledger.balance(world.registry), world.ledger.balance(world.attestation)
    trace = govern(world, governance.revoke_image(IMAGE, compromised=True))
    assert trace.of(world.attestation)[0].aborted
    last = trace.transactions[-1]
    assert last.account == world.governor.account and last.in_msg is not None and last.in_msg.value_nano > TON * 9 // 10
    after = world.ledger.balance(world.registry), world.ledger.balance(world.attestation)
    assert all(abs(new - old) < 100_000 for new, old in zip(after, before, strict=True))


def test_g8_an_action_below_its_need_is_refused_before_it_leaves(world: World) -> None:
    need = world.fees.governed()
    body = governance.deny_platform(PLATFORM)
    low = world.tell(world.governor.account, world.registry, need - 1, body)
    assert code_of(low) == ContractError.LOW_VALUE and not low.of(world.attestation)
    assert not world.tell(world.governor.account, world.registry, need, body).failed
    assert verifier_of(world).platforms[PLATFORM].denied


def test_g9_models_leave_their_rent(world: World) -> None:
    before = world.ledger.balance(world.registry)
    assert not govern(world, governance.revoke_model(IMAGE)).failed
    kept = world.ledger.balance(world.registry) - before
    assert world.fees.governed_rent() - 100_000 <= kept <= world.fees.governed_rent()


# ------------------------------------------------------------------------------------------------ births of jobs


def job_config(world: World, **changes: object) -> JobConfig:
    config = JobConfig(
        b"\x01" * 32, b"\x02" * 32, TON, world.ledger.now + DAY, 3600, 600, frozenset({b"\x03" * 32, b"\x04" * 32})
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def open_job(world: World, config: JobConfig, value: int | None = None, index: int = 0) -> tuple[bytes, Trace]:
    body = registry.open_job(code_hash(Contract.JOB), index, config)
    need = world.fees.open_job(config.to_cell(), config.maximum_nano) if value is None else value
    account = addresses.child_address(world.registry, Kind.JOB, world.client.account, index)
    return account, world.tell(world.client.account, world.registry, need, body)


def test_a_job_is_born_with_all_that_it_may_cost_and_its_rent(world: World) -> None:
    many = frozenset(index.to_bytes(32, "big") for index in range(1, 17))
    for index, config in enumerate((job_config(world), job_config(world, nodes=many))):
        need = world.fees.open_job(config.to_cell(), TON)
        account, trace = open_job(world, config, need - 1, index)
        assert code_of(trace) == ContractError.LOW_VALUE and not world.alive(account)
        account, trace = open_job(world, config, need, index)
        assert not trace.failed
        data = world.ledger.account(account).data
        assert data is not None
        state = JobState.from_cell(data)
        assert (state.owner, state.index, state.court) == (world.client.account, index, world.court)
        assert world.ledger.balance(account) >= TON + world.fees.job_rent(config.to_cell())


@pytest.mark.parametrize(
    "change",
    [
        {"maximum_nano": 0},
        {"maximum_nano": 10**15 + 1},
        {"grace": 3599},
        {"grace": 2 * DAY + 1},
        {"delivery_window": 599},
        {"delivery_window": 7 * DAY + 1},
        {"nodes": frozenset()},
    ],
)
def test_g3_a_job_outside_the_bounds_is_refused_by_the_registry(world: World, change: dict[str, object]) -> None:
    account, trace = open_job(world, job_config(world, **change), 10 * TON)
    assert code_of(trace) == ContractError.BAD_TERMS and not world.alive(account)


def test_g3_a_job_has_at_most_sixteen_nodes_and_a_deadline_ahead(world: World) -> None:
    many = frozenset(index.to_bytes(32, "big") for index in range(1, 18))
    assert code_of(open_job(world, job_config(world, nodes=many), 10 * TON)[1]) == ContractError.BAD_PARAMETERS
    for deadline in (world.ledger.now, world.ledger.now + 30 * DAY + 1):
        config = job_config(world, deadline=deadline)
        assert code_of(open_job(world, config, 10 * TON)[1]) == ContractError.BAD_TERMS
    assert not open_job(world, job_config(world, deadline=world.ledger.now + 30 * DAY))[1].failed


def test_g20_jobs_stop_at_once_and_alone(world: World) -> None:
    assert not govern(world, governance.stop_opening(STOP_JOBS)).failed
    assert code_of(open_job(world, job_config(world))[1]) == ContractError.OPENING_STOPPED
    assert not world.open_escrow(index=3)[1].failed and not world.open_node(index=3)[1].failed
