"""Escrow: settlements, rows, exits. Guarantees G1 to G7 and G10 one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Address, Cell, begin_cell
from test_fees import settle_body

from chain.decode import decode_message
from devnet.ledger import Pending
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, NO_HASH, TON, Pair, World, account_of_name, key_of, public
from wrappers import claims, escrow, escrow_rare, node, node_rare, verdicts
from wrappers.cells import address_of
from wrappers.code import Contract, code, living_code
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.receipts import Receipt, Voucher
from wrappers.rows import KeyRow
from wrappers.signed import Release, allotment_id, network_id, sign


def code_of(trace: Trace) -> int | None:
    """Exit code of the first transaction that failed."""
    assert trace.failed, "nothing failed"
    return trace.failed[0].exit_code


def assert_unchanged(world: World, pair: Pair, before: escrow.EscrowState, balance: int) -> None:
    assert world.escrow(pair.escrow) == before
    assert world.ledger.balance(pair.escrow) == balance


# ------------------------------------------------------------------------------------------------ settle


def test_g2_settlement_moves_exactly_the_amount_and_fees(world: World, pair: Pair) -> None:
    before, node_before = world.escrow(pair.escrow), world.ledger.balance(pair.node)
    payout_before = world.ledger.balance(world.payout)
    trace = world.settle_one(pair.escrow, pair.node, TON)
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    after, row = world.escrow(pair.escrow), world.escrow(pair.escrow).rows[pair.node]
    assert before.deposit_nano - after.deposit_nano == TON
    assert before.reserved_nano - after.reserved_nano == TON
    assert (row.paid_nano, row.keys[public(world.enclave_key)].paid_nano) == (TON, TON)
    state = world.node(pair.node)
    assert (state.earned_nano, state.requests) == (TON, 1)
    moved = world.ledger.balance(pair.node) + world.ledger.balance(world.payout) - node_before - payout_before
    assert moved == TON - trace.total_fees_nano, "the operator bears the claim's fees, the client nothing"


def test_a_node_counts_each_request_once(world: World, pair: Pair) -> None:
    for seq, cumulative in ((2, TON // 4), (5, TON // 2)):
        assert not world.settle_one(pair.escrow, pair.node, cumulative, seq=seq).failed
        assert world.node(pair.node).requests == seq


def test_an_open_account_without_rows_has_nothing_to_finish(world: World, pair: Pair) -> None:
    account, _ = world.open_escrow(index=1)
    assert not world.escrow(account).rows
    assert code_of(world.tell(world.stranger.account, account, TON, escrow.finish())) == ContractError.NOT_RIPE


def test_g5_never_more_than_the_voucher(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON, cap=TON // 4)
    assert not world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)]).failed
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON // 4


def test_g5_never_more_than_the_allotment_and_the_rest_stays_claimable(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, 5 * TON, cap=6 * TON)
    assert not world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)]).failed
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == 2 * TON
    trace = world.send(world.client, pair.escrow, 2 * TON, escrow.raise_allotment(pair.node, TON))
    assert not trace.failed
    assert not world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)]).failed
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == 3 * TON


def test_g5_acked_only_pays_what_the_client_accepted(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON, cap=TON, acked=TON // 8)
    body = settle_body(entry, public(world.enclave_key), acked_only=True)
    assert not world.tell(pair.node, pair.escrow, TON, body).failed
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON // 8


def test_the_highest_cap_seen_counts_and_nothing_decreases(world: World, pair: Pair) -> None:
    for cumulative, cap, acked in ((TON // 8, TON, 7), (TON // 4, TON // 8, 3)):
        entry = world.entry(pair.escrow, pair.node, cumulative, cap=cap, acked=acked, seq=9)
        assert not world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)]).failed
    row = world.escrow(pair.escrow).rows[pair.node].keys[public(world.enclave_key)]
    assert row == KeyRow(TON // 4, TON, 7, 9)


def test_g4_the_same_claim_again_pays_nothing(world: World, pair: Pair) -> None:
    assert not world.settle_one(pair.escrow, pair.node, TON).failed
    before, balance = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    trace = world.settle_one(pair.escrow, pair.node, TON)
    assert code_of(trace) == ContractError.NOTHING_DUE
    assert_unchanged(world, pair, before, balance)


def test_g4_two_entries_for_one_escrow_in_one_claim_pay_the_difference_once(world: World, pair: Pair) -> None:
    entries = [
        claims.ClaimEntry(pair.escrow, world.entry(pair.escrow, pair.node, amount), NO_HASH)
        for amount in (TON // 4, TON // 2, TON // 4)
    ]
    world.claim(pair.node, entries)
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == TON // 2
    assert world.node(pair.node).earned_nano == TON // 2


def foreign_vouchers(world: World, pair: Pair) -> dict[str, Voucher]:
    row = world.escrow(pair.escrow).rows[pair.node]
    network, key = world.network, public(world.enclave_key)
    ids = {
        "another epoch": allotment_id(network, pair.escrow, row.epoch + 1, pair.node),
        "another network": allotment_id(network_id(-3, world.registry), pair.escrow, row.epoch, pair.node),
        "another escrow": allotment_id(network, account_of_name("escrow"), row.epoch, pair.node),
        "another node": allotment_id(network, pair.escrow, row.epoch, account_of_name("node")),
    }
    good = Voucher(row.allotment, key, TON, 0, NO_HASH)
    vouchers = {name: replace(good, allotment=allotment) for name, allotment in ids.items()}
    vouchers["another key"] = replace(good, key=public(key_of("other")))
    vouchers["a lower cap"] = replace(good, cap_nano=TON - 1)
    vouchers["another acked"] = replace(good, acked_nano=1)
    vouchers["other terms"] = replace(good, terms=b"\x01" * 32)
    return vouchers


VOUCHERS = [
    "another epoch",
    "another network",
    "another escrow",
    "another node",
    "another key",
    "a lower cap",
    "another acked",
    "other terms",
]


@pytest.mark.parametrize("change", VOUCHERS)
def test_g10_voucher_for_anything_else_is_refused(world: World, pair: Pair, change: str) -> None:
    signature = sign(foreign_vouchers(world, pair)[change], world.voucher_key)
    entry = claims.Entry(TON, 1, TON, 0, NO_HASH, signature)
    before, balance = world.escrow(pair.escrow), world.ledger.balance(pair.escrow)
    trace = world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)])
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    assert_unchanged(world, pair, before, balance)


def test_g10_voucher_of_another_signer_is_refused(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON, voucher_key=key_of("thief"))
    trace = world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)])
    assert code_of(trace) == ContractError.BAD_SIGNATURE


def test_g10_settle_from_anybody_without_a_row_is_refused(world: World, pair: Pair) -> None:
    body = settle_body(world.entry(pair.escrow, pair.node, TON), public(world.enclave_key))
    for source in (world.stranger.account, world.client.account, pair.escrow, world.registry):
        assert code_of(world.tell(source, pair.escrow, TON, body)) == ContractError.NO_ROW


def test_g10_settle_with_anything_more_is_refused(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON).to_cell()
    longer = begin_cell().store_cell(entry).store_bit(1).end_cell()
    for cell, extra in ((longer, 0), (entry, 1)):
        body = begin_cell().store_uint(Op.SETTLE, 32).store_bytes(public(world.enclave_key)).store_bit(0)
        body.store_ref(cell)
        if extra:
            body.store_bit(1)
        assert code_of(world.tell(pair.node, pair.escrow, TON, body.end_cell())) == 9


def test_g4_counters_of_one_key_survive_other_keys_and_each_key_counts_alone(world: World, pair: Pair) -> None:
    keys = [key_of(f"enclave {i}") for i in range(4)]
    spent = 0
    for turn, amount in ((1, TON // 16), (2, TON // 8)):
        for key in keys:
            entry = world.entry(pair.escrow, pair.node, amount, key=key, seq=turn)
            assert not world.tell(pair.node, pair.escrow, TON, settle_body(entry, public(key))).failed
            spent += amount // turn
            again = world.tell(pair.node, pair.escrow, TON, settle_body(entry, public(key)))
            assert code_of(again) == ContractError.NOTHING_DUE
    row = world.escrow(pair.escrow).rows[pair.node]
    assert row.paid_nano == spent
    assert {key: row.keys[key].paid_nano for key in row.keys} == {public(key): TON // 8 for key in keys}


def test_a_row_takes_sixteen_keys_and_no_seventeenth(world: World, pair: Pair) -> None:
    for i in range(17):
        key = key_of(f"enclave {i}")
        entry = world.entry(pair.escrow, pair.node, TON // 50, key=key)
        trace = world.tell(pair.node, pair.escrow, TON, settle_body(entry, public(key)))
        assert trace.failed if i == 16 else not trace.failed
    assert code_of(trace) == ContractError.TOO_MANY_ROW_KEYS
    for i in (0, 7, 15):
        key = key_of(f"enclave {i}")
        entry = world.entry(pair.escrow, pair.node, TON // 20, key=key)
        assert not world.tell(pair.node, pair.escrow, TON, settle_body(entry, public(key))).failed


def test_g3_g9_a_further_key_pays_its_rent_out_of_its_first_payment_and_no_amount_is_too_small(
    world: World, pair: Pair
) -> None:
    world.settle_one(pair.escrow, pair.node, TON // 20)
    rent = world.fees.key_row_rent()
    for name, amount in (("second", TON // 10), ("third", 1)):
        key = key_of(name)
        before, state = world.ledger.balance(pair.escrow), world.escrow(pair.escrow)
        entry = world.entry(pair.escrow, pair.node, amount, key=key)
        trace = world.tell(pair.node, pair.escrow, TON // 10, settle_body(entry, public(key)))
        assert not trace.failed
        kept = min(rent, amount)
        assert world.ledger.balance(pair.escrow) == before - amount + kept
        assert world.escrow(pair.escrow).deposit_nano == state.deposit_nano - amount
        assert world.escrow(pair.escrow).rows[pair.node].keys[public(key)].paid_nano == amount
    assert world.node(pair.node).earned_nano == TON // 20 + TON // 10 + 1


def test_no_key_is_no_key(world: World, pair: Pair) -> None:
    row = world.escrow(pair.escrow).rows[pair.node]
    signature = sign(Voucher(row.allotment, bytes(32), TON, 0, NO_HASH), world.voucher_key)
    body = settle_body(claims.Entry(TON, 1, TON, 0, NO_HASH, signature), bytes(32))
    assert code_of(world.tell(pair.node, pair.escrow, TON, body)) == ContractError.NO_KEY
    assert not world.settle_one(pair.escrow, pair.node, TON // 4).failed
    assert code_of(world.tell(pair.node, pair.escrow, TON, body)) == ContractError.NO_KEY


# ------------------------------------------------------------------------------------------------ owner


def test_g10_owner_messages_of_others_are_refused(world: World, pair: Pair) -> None:
    bodies = [
        escrow.allot(account_of_name("node"), 1, world.row_terms()),
        escrow.raise_allotment(pair.node, 1),
        escrow_rare.reclaim(pair.node),
        escrow.withdraw(),
        escrow.close(),
    ]
    for body in bodies:
        for source in (world.stranger.account, pair.node, world.registry, world.governor.account):
            assert code_of(world.tell(source, pair.escrow, TON, body)) == ContractError.NOT_ALLOWED
    assert code_of(world.tell(world.client.account, pair.escrow, TON, node_rare.collect())) == ContractError.UNKNOWN_OP


def test_top_up_by_message_comment_or_nothing_and_by_anyone(world: World, pair: Pair) -> None:
    comment = begin_cell().store_uint(0, 32).store_string("for you").end_cell()
    for body in (escrow.top_up(), None, comment):
        before = world.escrow(pair.escrow).deposit_nano
        assert not world.send(world.stranger, pair.escrow, TON, body).failed
        assert world.escrow(pair.escrow).deposit_nano == before + TON - world.fees.top_up()


def test_withdraw_takes_what_is_not_allotted_and_no_more(world: World, pair: Pair) -> None:
    free = world.escrow(pair.escrow).free_nano
    trace = world.send(world.client, pair.escrow, TON, escrow.withdraw(free + 1))
    assert code_of(trace) == ContractError.NOT_FREE
    assert not world.send(world.client, pair.escrow, TON, escrow.withdraw(free // 2)).failed
    assert world.escrow(pair.escrow).free_nano == free - free // 2
    before = world.ledger.balance(world.client.account)
    trace = world.send(world.client, pair.escrow, TON, escrow.withdraw())
    assert not trace.failed and world.escrow(pair.escrow).free_nano == 0
    assert world.ledger.balance(world.client.account) == before + free - free // 2 - trace.total_fees_nano
    trace = world.send(world.client, pair.escrow, TON, escrow.withdraw())
    assert code_of(trace) == ContractError.NOT_FREE
    assert not world.settle_one(pair.escrow, pair.node, 2 * TON).failed


def test_allot_freezes_epoch_and_terms_and_refuses_what_is_not_free(world: World, pair: Pair) -> None:
    other, terms = account_of_name("node"), world.row_terms(DAY)
    trace = world.send(world.client, pair.escrow, TON, escrow.allot(other, 5 * TON, terms))
    assert code_of(trace) == ContractError.NOT_FREE
    trace = world.send(world.client, pair.escrow, TON, escrow.allot(other, TON, terms))
    row = world.escrow(pair.escrow).rows[other]
    assert (row.allotted_nano, row.paid_nano, row.seqno, row.terms) == (TON, 0, 0, terms)
    assert row.epoch == trace.of(pair.escrow)[0].lt
    trace = world.send(world.client, pair.escrow, TON, escrow.allot(other, 1, terms))
    assert code_of(trace) == ContractError.ROW_EXISTS
    trace = world.send(world.client, pair.escrow, TON, escrow.allot(account_of_name("x"), 0, terms))
    assert code_of(trace) == ContractError.WRONG_AMOUNT
    short = replace(terms, close_timer=HOUR - 1)
    trace = world.send(world.client, pair.escrow, TON, escrow.allot(account_of_name("x"), 1, short))
    assert code_of(trace) == ContractError.BAD_TERMS


def test_g3_terms_in_a_library_cell_are_refused(world: World, pair: Pair) -> None:
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(bytes(32)).end_cell().bits, [], 2)
    body = begin_cell().store_uint(Op.ALLOT, 32).store_bytes(account_of_name("x")).store_coins(1).store_ref(library)
    trace = world.tell(world.client.account, pair.escrow, TON, body.end_cell())
    assert trace.failed


def test_sixteen_rows_and_no_seventeenth(world: World, pair: Pair) -> None:
    for i in range(15):
        body = escrow.allot(account_of_name(f"node {i}"), 1, world.row_terms())
        assert not world.send(world.client, pair.escrow, TON, body).failed
    body = escrow.allot(account_of_name("node 16"), 1, world.row_terms())
    assert code_of(world.send(world.client, pair.escrow, TON, body)) == ContractError.TOO_MANY_ROWS


# ------------------------------------------------------------------------------------------------ releases and exits


def test_release_lowers_a_row_once_and_dies_with_the_row_seqno(world: World, pair: Pair) -> None:
    world.settle_one(pair.escrow, pair.node, TON // 2)
    signature = world.release(pair.escrow, pair.node, TON)
    assert not world.send(world.stranger, pair.escrow, TON, escrow_rare.lower(pair.node, TON, signature)).failed
    state = world.escrow(pair.escrow)
    assert (state.rows[pair.node].allotted_nano, state.reserved_nano) == (TON, TON // 2)
    again = world.send(world.stranger, pair.escrow, TON, escrow_rare.lower(pair.node, TON, signature))
    assert code_of(again) == ContractError.BAD_SIGNATURE
    world.send(world.client, pair.escrow, TON, escrow.raise_allotment(pair.node, TON // 4))
    old = sign(Release(state.rows[pair.node].allotment, 1, TON // 2), world.release_key)
    again = world.send(world.stranger, pair.escrow, TON, escrow_rare.lower(pair.node, TON // 2, old))
    assert code_of(again) == ContractError.BAD_SIGNATURE


def test_g10_release_below_paid_above_allotted_or_of_another_key_is_refused(world: World, pair: Pair) -> None:
    world.settle_one(pair.escrow, pair.node, TON)
    for allotted in (TON - 1, 2 * TON + 1):
        signature = world.release(pair.escrow, pair.node, allotted)
        trace = world.send(world.client, pair.escrow, TON, escrow_rare.lower(pair.node, allotted, signature))
        assert code_of(trace) == ContractError.WRONG_AMOUNT
    row = world.escrow(pair.escrow).rows[pair.node]
    thief = sign(Release(row.allotment, row.seqno, TON), key_of("thief"))
    trace = world.send(world.client, pair.escrow, TON, escrow_rare.lower(pair.node, TON, thief))
    assert code_of(trace) == ContractError.BAD_SIGNATURE


def test_g3_cooperative_close_returns_everything_and_ends_the_account(world: World, pair: Pair) -> None:
    world.settle_one(pair.escrow, pair.node, TON)
    held = world.ledger.balance(pair.escrow)
    before = world.ledger.balance(world.client.account)
    release = escrow.CloseRelease(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    trace = world.send(world.client, pair.escrow, TON, escrow.close([release]))
    assert not trace.failed and not world.alive(pair.escrow)
    assert world.ledger.balance(world.client.account) == before + held - trace.total_fees_nano


def test_g3_forced_exit_needs_nobody_and_only_the_timer(world: World, pair: Pair) -> None:
    free = world.escrow(pair.escrow).free_nano
    before = world.ledger.balance(world.client.account)
    trace = world.send(world.client, pair.escrow, TON, escrow.close())
    assert not trace.failed
    state = world.escrow(pair.escrow)
    assert (state.closing, state.free_nano) == (True, 0)
    assert state.rows[pair.node].closing_at == world.ledger.now + HOUR
    assert world.ledger.balance(world.client.account) == before + free - trace.total_fees_nano
    world.ledger.now += HOUR - 1
    assert code_of(world.send(world.client, pair.escrow, TON, escrow.finish())) == ContractError.NOT_RIPE
    world.ledger.now += 1
    assert not world.send(world.client, pair.escrow, TON, escrow.finish()).failed
    assert not world.alive(pair.escrow)


def test_g6_work_done_is_paid_while_the_account_closes(world: World, pair: Pair) -> None:
    world.send(world.client, pair.escrow, TON, escrow.close())
    assert not world.settle_one(pair.escrow, pair.node, 2 * TON).failed
    assert world.node(pair.node).earned_nano == 2 * TON


def test_g6_rows_do_not_share_money(world: World, pair: Pair) -> None:
    other = account_of_name("node")
    assert not world.send(world.client, pair.escrow, 2 * TON, escrow.allot(other, TON, world.row_terms())).failed
    world.settle_one(pair.escrow, pair.node, 9 * TON)
    state = world.escrow(pair.escrow)
    assert state.rows[other].allotted_nano - state.rows[other].paid_nano == TON <= state.deposit_nano


def test_reclaim_frees_one_row_after_its_timer(world: World, pair: Pair) -> None:
    assert not world.send(world.client, pair.escrow, TON, escrow_rare.reclaim(pair.node)).failed
    trace = world.send(world.client, pair.escrow, TON, escrow_rare.reclaim(pair.node))
    assert code_of(trace) == ContractError.CLOSING
    trace = world.send(world.client, pair.escrow, TON, escrow.raise_allotment(pair.node, 1))
    assert code_of(trace) == ContractError.CLOSING
    assert not world.settle_one(pair.escrow, pair.node, TON // 2).failed
    late = claims.ClaimEntry(pair.escrow, world.entry(pair.escrow, pair.node, TON), NO_HASH)
    world.ledger.now += HOUR
    assert not world.send(world.stranger, pair.escrow, TON, escrow.finish()).failed
    state = world.escrow(pair.escrow)
    assert (state.rows, state.reserved_nano, state.closing) == ({}, 0, False)
    assert code_of(world.claim(pair.node, [late])) == ContractError.NO_ROW


def test_while_closing_nothing_is_reserved_and_a_late_top_up_leaves_at_the_end(world: World, pair: Pair) -> None:
    world.send(world.client, pair.escrow, TON, escrow.close())
    body = escrow.allot(account_of_name("x"), 1, world.row_terms())
    assert code_of(world.send(world.client, pair.escrow, TON, body)) == ContractError.CLOSING
    trace = world.send(world.client, pair.escrow, TON, escrow.raise_allotment(pair.node, 1))
    assert code_of(trace) == ContractError.CLOSING
    assert not world.send(world.stranger, pair.escrow, TON, None).failed
    assert world.escrow(pair.escrow).free_nano == TON - world.fees.top_up()
    world.ledger.now += HOUR
    before, held = world.ledger.balance(world.client.account), world.ledger.balance(pair.escrow)
    trace = world.send(world.stranger, pair.escrow, TON, escrow.finish())
    rent = sum(tx.total_fees_nano for tx in trace.of(pair.escrow))
    assert not trace.failed
    assert world.ledger.balance(world.client.account) > before + held - rent


def test_g3_finish_by_a_stranger_sends_the_freed_part_to_the_owner_and_the_rest_back(world: World, pair: Pair) -> None:
    other = account_of_name("node")
    assert not world.send(
        world.client, pair.escrow, 2 * TON, escrow.allot(other, TON, world.row_terms(3 * HOUR))
    ).failed
    world.send(world.client, pair.escrow, TON, escrow.close())
    world.ledger.now += HOUR
    owner, stranger = world.ledger.balance(world.client.account), world.ledger.balance(world.stranger.account)
    trace = world.send(world.stranger, pair.escrow, TON, escrow.finish())
    assert not trace.failed
    state = world.escrow(pair.escrow)
    assert set(state.rows) == {other} and state.deposit_nano == state.reserved_nano == TON
    received = world.ledger.balance(world.client.account) - owner
    assert 2 * TON - TON // 500 < received <= 2 * TON, "the owner gets what became free, less forwarding"
    assert world.ledger.balance(world.stranger.account) > stranger - TON // 50, "the sender gets his change"
    world.ledger.now += 2 * HOUR
    assert not world.send(world.stranger, pair.escrow, TON, escrow.finish()).failed
    assert not world.alive(pair.escrow)


def test_g4_one_release_cannot_lower_a_row_twice_inside_one_close(world: World, pair: Pair) -> None:
    release = escrow.CloseRelease(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    before = world.escrow(pair.escrow)
    trace = world.send(world.client, pair.escrow, TON, escrow.close([release, release]))
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    assert world.escrow(pair.escrow) == before


def test_g3_close_with_a_partial_release_waits_for_the_timer_of_the_rest(world: World, pair: Pair) -> None:
    release = escrow.CloseRelease(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    assert not world.send(world.client, pair.escrow, TON, escrow.close([release])).failed
    state = world.escrow(pair.escrow)
    assert (state.closing, state.deposit_nano, state.rows[pair.node].allotted_nano) == (True, TON, TON)
    assert not world.settle_one(pair.escrow, pair.node, 2 * TON).failed
    assert world.node(pair.node).earned_nano == TON


def test_a_release_that_drops_the_last_row_of_a_closing_account_ends_it(world: World, pair: Pair) -> None:
    world.send(world.client, pair.escrow, TON, escrow.close())
    signature = world.release(pair.escrow, pair.node, 0)
    assert not world.send(world.operator, pair.escrow, TON, escrow_rare.lower(pair.node, 0, signature)).failed
    assert not world.alive(pair.escrow)


def test_g4_nothing_signed_for_a_life_of_an_account_is_worth_anything_in_the_next(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON)
    receipt: Receipt = world.receipt(pair.escrow, pair.node, entry)
    old_row = world.escrow(pair.escrow).rows[pair.node]
    claim = claims.claim_receipt(
        public(world.enclave_key), pair.escrow, old_row.epoch, receipt, sign(receipt, world.enclave_key), entry
    )
    release = world.release(pair.escrow, pair.node, 0)
    closing = escrow.close([escrow.CloseRelease(pair.node, 0, release)])
    assert not world.send(world.client, pair.escrow, TON, closing).failed
    first = escrow.FirstAllotment(pair.node, 2 * TON, world.row_terms())
    again, trace = world.open_escrow(first=first)
    assert again == pair.escrow and not trace.failed
    trace = world.send(world.stranger, pair.node, TON, claim)
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    trace = world.claim(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)])
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    trace = world.send(world.client, pair.escrow, TON, closing)
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == 0


def test_g7_a_payment_that_finds_its_node_gone_is_the_clients_again(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    entry = world.entry(pair.escrow, pair.node, TON)
    # The claim is under way when, against all windows, the node ends.
    world.ledger.send_external(
        world.claim_external(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)]), run=False
    )
    world.ledger.now += 10 * DAY
    sent = tuple(world.ledger.queue)
    world.ledger.queue.clear()
    assert not world.send(world.operator, pair.node, TON, node_rare.withdraw_stake()).failed
    assert not world.alive(pair.node)
    before = world.escrow(pair.escrow)
    world.ledger.queue.extend(sent)
    trace = world.ledger.run()
    after = world.escrow(pair.escrow)
    assert trace.total_fees_nano == trace.balance_delta_nano
    assert world.ledger.balance(pair.node) == 0
    assert after.reserved_nano == before.reserved_nano - TON
    assert after.deposit_nano > before.deposit_nano - world.fees.top_up() - world.fees.prices.forward(0, 0) - 1
    assert after.free_nano > before.free_nano + TON - TON // 100


def test_a_child_keeps_the_code_inside_the_program_of_its_birth_and_not_the_program(world: World, pair: Pair) -> None:
    for contract, account in ((Contract.ESCROW, pair.escrow), (Contract.NODE, pair.node)):
        kept = world.ledger.account(account).code
        assert kept is not None and kept.hash == living_code(code(contract)).hash != code(contract).hash


def test_get_method_calls_find_none(world: World, pair: Pair) -> None:
    assert world.ledger.get_result(pair.escrow, 85143, []).exit_code == 11
    # A node takes it for an external message, and finds none: what a get method does is not kept in any case.
    assert world.ledger.get_result(pair.node, 85143, []).exit_code == 2


def from_masterchain(world: World, source: bytes, destination: bytes, body: Cell) -> Trace:
    """A message from the account of the masterchain that has the same id."""
    # int_msg_info$0, no instant routing, bounce, not bounced
    cell = begin_cell().store_uint(0b0110, 4).store_address(Address((-1, source)))
    cell.store_address(address_of(destination)).store_coins(TON).store_bit(0).store_coins(0).store_coins(0)
    cell.store_uint(world.ledger.lt + 1, 64).store_uint(world.ledger.now, 32).store_bit(0).store_bit(1).store_ref(body)
    message = cell.end_cell()
    world.ledger.queue.append(Pending(message, decode_message(message)))
    return world.ledger.run()


def test_g10_a_twin_in_the_masterchain_is_nobody(world: World, pair: Pair) -> None:
    settle = settle_body(world.entry(pair.escrow, pair.node, TON), public(world.enclave_key))
    payment = node.paid(2, world.client.account, 0, TON, 1)
    cases = [
        (pair.node, pair.escrow, settle),
        (world.client.account, pair.escrow, escrow.withdraw()),
        (pair.escrow, pair.node, payment),
        (world.operator.account, pair.node, node_rare.unbond()),
        (world.attestation, pair.node, verdicts.verdict(world.verdict(pair.node))),
    ]
    for source, destination, body in cases:
        before = world.ledger.account(destination).data
        trace = from_masterchain(world, source, destination, body)
        expected = ContractError.NOT_GENUINE if body is payment else ContractError.WORKCHAIN
        assert code_of(trace) == expected
        after = world.ledger.account(destination).data
        assert before is not None and after is not None and before.hash == after.hash
