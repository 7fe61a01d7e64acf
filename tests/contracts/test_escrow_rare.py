"""Rare messages of an escrow: jobs ordered from what is free, another voucher key, keys given up; and their program."""

from __future__ import annotations

import pytest
from job_gas import deepest
from pytoniq_core import Cell, begin_cell
from test_escrow import assert_unchanged, code_of
from test_fees import settle_body

from devnet.trace import Trace
from scripts.stage import DAY, HOUR, TON, Pair, World, account_of_name, built_world, key_of, public
from wrappers import escrow, escrow_rare
from wrappers.code import Contract, code, rare_program
from wrappers.errors import ContractError
from wrappers.job import JobConfig
from wrappers.ops import Op
from wrappers.signed import Release, sign

NEW = key_of("new voucher key")
CONFIG = begin_cell().store_uint(7, 64).store_ref(begin_cell().store_uint(8, 64).end_cell()).end_cell()
CODE_HASH = b"\x0c" * 32


def owned(world: World, pair: Pair, body: Cell, value: int = TON) -> int | None:
    trace = world.send(world.client, pair.escrow, value, body)
    return code_of(trace) if trace.failed else 0


def settle(world: World, pair: Pair, cumulative: int, **names: str) -> Trace:
    key = key_of(names.get("key", "enclave"))
    voucher_key = key_of(names["voucher_key"]) if "voucher_key" in names else None
    entry = world.entry(pair.escrow, pair.node, cumulative, key=key, voucher_key=voucher_key)
    return world.tell(pair.node, pair.escrow, TON // 10, settle_body(entry, public(key)))


# ------------------------------------------------------------------------------------------------ the program


def programs(pair: Pair) -> list[Cell]:
    good = rare_program(Contract.ESCROW)
    return [
        begin_cell().end_cell(),
        code(Contract.ESCROW),
        rare_program(Contract.NODE),
        begin_cell().store_bits(good.bits).end_cell(),
        Cell(begin_cell().store_uint(2, 8).store_bytes(good.hash).end_cell().bits, [], 2),
    ]


@pytest.mark.parametrize("which", range(5))
def test_g10_only_the_program_of_this_code_runs(world: World, pair: Pair, which: int) -> None:
    before, balance = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    body = begin_cell().store_uint(Op.ROTATE_VOUCHER_KEY, 32).store_bytes(public(NEW))
    assert owned(world, pair, body.store_ref(programs(pair)[which]).end_cell()) == ContractError.UNKNOWN_OP
    assert owned(world, pair, begin_cell().store_cell(body.end_cell()).end_cell()) == ContractError.UNKNOWN_OP
    assert_unchanged(world, pair, before, balance)


def test_g10_the_program_runs_no_op_that_it_does_not_know(world: World, pair: Pair) -> None:
    for op in (Op.PAID, Op.SETTLE + 1, 1):
        body = begin_cell().store_uint(op, 32).store_ref(rare_program(Contract.ESCROW)).end_cell()
        assert owned(world, pair, body) == ContractError.UNKNOWN_OP


def bodies(pair: Pair, world: World) -> list[Cell]:
    return [
        escrow_rare.allot_shared(account_of_name("x"), 1, world.row_terms(shares=world.shares)),
        escrow_rare.order_job(TON // 10, CODE_HASH, 0, CONFIG),
        escrow_rare.rotate_voucher_key(public(NEW)),
        escrow_rare.give_up_key(pair.node, public(world.enclave_key)),
        escrow_rare.reclaim(pair.node),
        escrow_rare.return_rent(),
    ]


def test_g10_rare_messages_of_the_owner_are_refused_from_others(world: World, pair: Pair) -> None:
    for body in bodies(pair, world):
        for source in (world.stranger.account, pair.node, world.registry, world.governor.account):
            assert code_of(world.tell(source, pair.escrow, TON, body)) == ContractError.NOT_ALLOWED


def test_every_rare_message_is_read_to_its_end(world: World, pair: Pair) -> None:
    assert not settle(world, pair, TON // 100).failed
    assert not settle(world, pair, TON // 100, key="second").failed
    for _ in range(2):  # the first waiting key leaves its rent behind
        assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    snapshot = world.ledger.snapshot()
    for body in bodies(pair, world):
        bits = begin_cell().store_bits(body.bits).store_bit(0)
        for ref in body.refs:
            bits.store_ref(ref)
        more = begin_cell().store_bits(body.bits)
        for ref in [*body.refs[:-1], CONFIG, body.refs[-1]]:
            more.store_ref(ref)
        for longer in (bits, more):
            trace = world.send(world.client, pair.escrow, TON, longer.end_cell())
            assert trace.of(pair.escrow)[0].exit_code == 9, "here, and not where it is sent on to"
        assert world.send(world.client, pair.escrow, TON, body).of(pair.escrow)[0].exit_code == 0
        world.ledger.revert(snapshot)


# ------------------------------------------------------------------------------------------------ jobs


def order(world: World, pair: Pair, amount: int, value: int = TON) -> Trace:
    return world.tell(world.client.account, pair.escrow, value, escrow_rare.order_job(amount, CODE_HASH, 3, CONFIG))


def test_an_ordered_job_carries_amount_and_value_to_the_registry(world: World, pair: Pair) -> None:
    before = world.escrow(pair.escrow)
    trace = order(world, pair, TON // 2)
    sent = trace.of(pair.escrow)[0].out_msgs
    assert len(sent) == 1 and sent[0].destination == world.registry
    assert TON // 2 + TON * 9 // 10 < sent[0].value_nano < TON // 2 + TON
    body = begin_cell().store_uint(Op.OPEN_JOB, 32).store_bytes(CODE_HASH).store_uint(3, 32).store_ref(CONFIG)
    assert sent[0].body.hash == body.end_cell().hash
    assert before.deposit_nano - TON // 2 <= world.escrow(pair.escrow).deposit_nano


def test_g7_a_job_that_the_registry_refuses_is_deposit_again(world: World, pair: Pair) -> None:
    before = world.escrow(pair.escrow)
    trace = order(world, pair, TON // 2)
    if not trace.failed:
        pytest.fail("the registry is expected to refuse this code hash")
    assert trace.total_fees_nano == trace.balance_delta_nano
    after = world.escrow(pair.escrow)
    assert after.reserved_nano == before.reserved_nano and after.rows == before.rows
    assert after.deposit_nano - before.deposit_nano > TON * 9 // 10, "the value too is credited, less its gas"


@pytest.mark.parametrize("amount", [1, TON // 2])
def test_g8_what_an_order_brings_suffices_for_its_own_refusal(world: World, pair: Pair, amount: int) -> None:
    before = world.escrow(pair.escrow)
    need = world.fees.order_job(CONFIG)
    assert code_of(order(world, pair, amount, need - 1)) == ContractError.LOW_VALUE
    assert world.escrow(pair.escrow) == before
    trace = order(world, pair, amount, need)
    assert [tx.account for tx in trace.failed] == [world.registry]
    assert world.escrow(pair.escrow).deposit_nano >= before.deposit_nano
    assert world.ledger.balance(pair.escrow) >= world.escrow(pair.escrow).deposit_nano


@pytest.mark.parametrize("amount", [1, TON // 2])
def test_g8_an_order_brings_enough_for_the_dearest_refusal_too(world: World, pair: Pair, amount: int) -> None:
    """Sixteen nodes in the deepest tree, looked at to the end, and then too little money."""
    now = world.ledger.now
    nodes = deepest(pair.node)  # from job_gas
    config = JobConfig(b"\x61" * 32, b"\x62" * 32, 100 * TON, now + HOUR, HOUR, HOUR, nodes).to_cell()
    before, need = world.escrow(pair.escrow), world.fees.order_job(config)
    trace = world.send(world.client, pair.escrow, need, escrow_rare.order_job(amount, CODE_HASH, 0, config))
    assert [(tx.account, tx.exit_code) for tx in trace.failed] == [(world.registry, ContractError.WRONG_CODE)]
    assert world.escrow(pair.escrow).deposit_nano >= before.deposit_nano


def test_g1_a_job_takes_what_is_free_and_no_more(world: World, pair: Pair) -> None:
    free = world.escrow(pair.escrow).free_nano
    assert code_of(order(world, pair, free + 1)) == ContractError.NOT_FREE
    assert code_of(order(world, pair, 0)) == ContractError.WRONG_AMOUNT
    trace = order(world, pair, free)
    assert trace.of(pair.escrow)[0].exit_code == 0
    assert not world.send(world.client, pair.escrow, TON, escrow.close()).failed
    assert code_of(order(world, pair, 1)) == ContractError.CLOSING


def test_g8_a_configuration_of_more_cells_than_any_job_has_is_refused(world: World, pair: Pair) -> None:
    config = CONFIG
    for i in range(64):
        config = begin_cell().store_uint(i, 64).store_ref(config).end_cell()
    assert owned(world, pair, escrow_rare.order_job(1, CODE_HASH, 0, config)) == 8


# ------------------------------------------------------------------------------------------------ voucher keys


def test_g5_another_voucher_key_waits_for_the_longest_close_timer_and_then_holds(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow_rare.apply_voucher_key()) == ContractError.NO_NEXT_KEY
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    state = world.escrow(pair.escrow)
    assert state.next_key == escrow.NextKey(public(NEW), world.ledger.now + 7 * DAY)
    assert not settle(world, pair, TON // 100).failed, "the present key holds until then"
    assert code_of(settle(world, pair, TON // 50, voucher_key="new voucher key")) == ContractError.BAD_SIGNATURE
    world.ledger.now += 7 * DAY - 1
    assert owned(world, pair, escrow_rare.apply_voucher_key()) == ContractError.NOT_RIPE
    world.ledger.now += 1
    assert not world.send(world.stranger, pair.escrow, TON, escrow_rare.apply_voucher_key()).failed
    state = world.escrow(pair.escrow)
    assert (state.voucher_key, state.next_key) == (public(NEW), None)
    assert code_of(settle(world, pair, TON // 50)) == ContractError.BAD_SIGNATURE
    assert not settle(world, pair, TON // 50, voucher_key="new voucher key").failed
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON // 50, "what was paid stays counted"
    assert owned(world, pair, escrow_rare.apply_voucher_key()) == ContractError.NO_NEXT_KEY


def test_a_second_rotation_replaces_the_first_and_waits_anew(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(key_of("lost")))) == 0
    world.ledger.now += 7 * DAY
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    assert owned(world, pair, escrow_rare.apply_voucher_key()) == ContractError.NOT_RIPE
    assert world.escrow(pair.escrow).next_key == escrow.NextKey(public(NEW), world.ledger.now + 7 * DAY)
    assert owned(world, pair, escrow_rare.rotate_voucher_key(bytes(32))) == ContractError.NO_KEY


def test_g3_a_waiting_key_holds_no_exit_and_changes_no_allotment(world: World, pair: Pair) -> None:
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    assert owned(world, pair, escrow.allot(account_of_name("x"), 1, world.row_terms())) == 0
    assert owned(world, pair, escrow.close()) == 0
    world.ledger.now += HOUR
    assert not world.send(world.stranger, pair.escrow, TON, escrow.finish()).failed
    assert not world.alive(pair.escrow)


def test_g9_the_rent_of_a_waiting_key_is_kept_for(world: World, pair: Pair) -> None:
    before = world.ledger.balance(pair.escrow)
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    rent = world.fees.prices.storage(1, 288, 315_360_000)
    assert world.ledger.balance(pair.escrow) >= before + rent - TON // 1_000_000


# ------------------------------------------------------------------------------------------------ keys given up


def fill(world: World, pair: Pair, count: int = 16) -> list[str]:
    names = [f"enclave {i}" for i in range(count)]
    for name in names:
        assert not settle(world, pair, TON // 100, key=name).failed
    return names


def test_a_key_given_up_makes_room_for_another(world: World, pair: Pair) -> None:
    names = fill(world, pair)
    assert code_of(settle(world, pair, 1, key="another")) == ContractError.TOO_MANY_ROW_KEYS
    before = world.escrow(pair.escrow).rows[pair.node]
    assert owned(world, pair, escrow_rare.give_up_key(pair.node, public(key_of(names[3])))) == 0
    after = world.escrow(pair.escrow).rows[pair.node]
    assert set(before.keys) - set(after.keys) == {public(key_of(names[3]))}
    assert {key: after.keys[key] for key in after.keys} == {key: before.keys[key] for key in after.keys}
    assert (after.paid_nano, after.allotted_nano, after.seqno) == (before.paid_nano, before.allotted_nano, before.seqno)
    assert not settle(world, pair, TON // 100, key="another").failed
    assert code_of(settle(world, pair, 1, key="one more")) == ContractError.TOO_MANY_ROW_KEYS


def test_g4_the_current_key_and_unknown_ones_cannot_be_given_up(world: World, pair: Pair) -> None:
    names = fill(world, pair, 3)
    assert not settle(world, pair, TON // 50, key=names[0]).failed  # it has an outdated entry among the old keys now
    for name in (names[0], "unknown"):
        assert owned(world, pair, escrow_rare.give_up_key(pair.node, public(key_of(name)))) == ContractError.NO_KEY
    other = escrow_rare.give_up_key(account_of_name("x"), public(key_of(names[1])))
    assert owned(world, pair, other) == ContractError.NO_ROW


def test_g5_what_a_given_up_key_claims_anew_is_within_voucher_and_allotment(world: World, pair: Pair) -> None:
    """The owner's own risk, and bounded: never beyond what he allotted."""
    names = fill(world, pair, 2)
    assert owned(world, pair, escrow_rare.give_up_key(pair.node, public(key_of(names[0])))) == 0
    assert not settle(world, pair, TON // 100, key=names[0]).failed
    row = world.escrow(pair.escrow).rows[pair.node]
    assert row.paid_nano == 3 * TON // 100 <= row.allotted_nano
    assert sum(key.paid_nano for key in row.keys.values()) < row.paid_nano


def test_g8_the_needs_of_apply_and_give_up_are_exact(world: World, pair: Pair) -> None:
    names = fill(world, pair, 2)
    assert owned(world, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    world.ledger.now += 7 * DAY
    cases = [
        (world.stranger.account, world.fees.apply_voucher_key(), escrow_rare.apply_voucher_key()),
        (
            world.client.account,
            world.fees.give_up_key(),
            escrow_rare.give_up_key(pair.node, public(key_of(names[0]))),
        ),
    ]
    for source, need, body in cases:
        assert code_of(world.tell(source, pair.escrow, need - 1, body)) == ContractError.LOW_VALUE
        assert not world.tell(source, pair.escrow, need, body).failed


# ------------------------------------------------------------------------------------------------ rent


def kept_for_rent(world: World, pair: Pair) -> int:
    state = world.escrow(pair.escrow)
    return world.ledger.balance(pair.escrow) - state.deposit_nano - state.accrued_nano


def test_g9_the_rent_of_rows_that_ended_comes_back_and_ten_years_stay_paid(world: World, pair: Pair) -> None:
    assert not settle(world, pair, TON // 100).failed
    for i in range(3):
        node = account_of_name(f"x{i}")
        assert owned(world, pair, escrow.allot(node, 1, world.row_terms())) == 0
        signature = sign(Release(world.escrow(pair.escrow).rows[node].allotment, 0, 0), world.release_key)
        assert owned(world, pair, escrow_rare.lower(node, 0, signature)) == 0
    needed = world.fees.escrow_rent() + world.fees.row_rent()
    before, kept = world.escrow(pair.escrow), kept_for_rent(world, pair)
    assert kept > needed + 2 * world.fees.row_rent()
    assert owned(world, pair, escrow_rare.return_rent()) == 0
    after = world.escrow(pair.escrow)
    assert kept_for_rent(world, pair) == needed
    assert 0 <= kept - needed - (after.deposit_nano - before.deposit_nano) < TON // 100_000, "less the rent of the day"
    assert owned(world, pair, escrow_rare.return_rent()) == ContractError.NOTHING_DUE


def test_g9_every_row_that_stands_keeps_its_rent(world: World, pair: Pair) -> None:
    for name in ("second", "gone"):
        assert owned(world, pair, escrow.allot(account_of_name(name), 1, world.row_terms())) == 0
    gone = account_of_name("gone")
    signature = sign(Release(world.escrow(pair.escrow).rows[gone].allotment, 0, 0), world.release_key)
    assert owned(world, pair, escrow_rare.lower(gone, 0, signature)) == 0
    assert owned(world, pair, escrow_rare.return_rent()) == 0
    assert len(world.escrow(pair.escrow).rows) == 2
    assert kept_for_rent(world, pair) == world.fees.escrow_rent() + 2 * world.fees.row_rent()


def test_g9_nothing_of_what_still_needs_rent_comes_back() -> None:
    """Shares, further keys and a waiting voucher key count; an account that is a year old has less to give back."""
    shared = built_world(fee=300)
    node, _ = shared.open_node()
    first = escrow.FirstAllotment(node, TON, shared.row_terms(shares=shared.shares))
    account, _ = shared.open_escrow(first=first, value_nano=shared.fees.open_escrow(3 * TON, TON, shared=True))
    pair = Pair(node, account)
    fill(shared, pair, 3)
    assert owned(shared, pair, escrow_rare.rotate_voucher_key(public(NEW))) == 0
    fees = shared.fees
    needed = fees.escrow_rent() + fees.row_rent() + fees.shares_rent() + fees.next_key_rent() + 2 * fees.key_row_rent()
    snapshot = shared.ledger.snapshot()
    other = account_of_name("x")
    assert owned(shared, pair, escrow_rare.allot_shared(other, 1, shared.row_terms(shares=shared.shares))) == 0
    signature = sign(Release(shared.escrow(account).rows[other].allotment, 0, 0), shared.release_key)
    assert owned(shared, pair, escrow_rare.lower(other, 0, signature)) == 0
    assert shared.escrow(account).accrued_nano and owned(shared, pair, escrow_rare.return_rent()) == 0
    assert kept_for_rent(shared, pair) == needed, "to the nanoTON"
    shared.ledger.revert(snapshot)
    shared.ledger.now += 365 * DAY
    assert owned(shared, pair, escrow_rare.return_rent()) == ContractError.NOTHING_DUE
    assert 0 < needed - kept_for_rent(shared, pair) < TON // 50, "a year's rent of it is gone"
