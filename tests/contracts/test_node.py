"""Node: claims, keys and their windows, earnings, the stake."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of
from test_fees import claim_receipt_body

from devnet.ledger import Ledger, Rejected
from scripts.stage import (
    DAY,
    NO_HASH,
    PARAMETERS,
    TON,
    Pair,
    World,
    account_of_name,
    key_of,
    make_pair,
    public,
)
from wrappers import claims, node, node_rare, verdicts
from wrappers.cells import address_of
from wrappers.errors import ContractError
from wrappers.signed import Claim, sign


def one(world: World, pair: Pair, cumulative: int = TON) -> list[claims.ClaimEntry]:
    return [claims.ClaimEntry(pair.escrow, world.entry(pair.escrow, pair.node, cumulative), NO_HASH)]


def refused(world: World, message: Cell) -> int | None:
    """Exit code with which an external is refused; the ledger says that nothing was charged."""
    account = node_of(message)
    before = world.ledger.account(account)
    with pytest.raises(Rejected) as rejected:
        world.ledger.send_external(message)
    after = world.ledger.account(account)
    assert (after.balance_nano, after.last_hash) == (before.balance_nano, before.last_hash)
    return rejected.value.exit_code


def node_of(message: Cell) -> bytes:
    slice_ = message.begin_parse()
    slice_.skip_bits(4)
    address = slice_.load_address()
    assert address is not None
    return bytes(address.hash_part)


# ------------------------------------------------------------------------------------------------ batch claims


def test_claim_spends_its_seqno_and_stores_tokens(world: World, pair: Pair) -> None:
    assert not world.claim(pair.node, one(world, pair), tokens=777).failed
    state = world.node(pair.node)
    assert (state.seqno, state.tokens, state.requests, state.earned_nano) == (1, 777, 1, TON)


def test_g4_g10_a_claim_cannot_be_replayed(world: World, pair: Pair) -> None:
    message = world.claim_external(pair.node, one(world, pair))
    assert not world.ledger.send_external(message).failed
    assert refused(world, message) == ContractError.WRONG_SEQNO


def test_g10_claim_of_another_key_node_network_or_with_anything_altered_is_refused(world: World, pair: Pair) -> None:
    entries = one(world, pair)
    assert refused(world, world.claim_external(pair.node, entries, key=key_of("thief"))) == ContractError.BAD_SIGNATURE
    cells = claims.batch(entries)
    until = world.ledger.now + 60
    good = Claim(world.node(pair.node).node_id, 0, until, 1, 5, bytes(cells[0].hash), bytes(cells[1].hash))
    changes = [
        {"node": account_of_name("node id")},
        {"seqno": 1},
        {"valid_until": until - 1},
        {"tokens": 6},
        {"entries": NO_HASH},
        {"roots": NO_HASH},
        {"count": 2},
    ]
    for change in changes:
        signature = sign(replace(good, **change), world.enclave_key)  # type: ignore[arg-type]
        message = claims.claim_message(pair.node, signature, 0, until, 5, entries)
        assert refused(world, message) == ContractError.BAD_SIGNATURE, change
    message = claims.claim_message(pair.node, sign(good, world.enclave_key), 0, until, 5, entries)
    assert not world.ledger.send_external(message).failed


@pytest.mark.parametrize(("ahead", "error"), [(0, True), (-1, True), (121, True), (1, False), (120, False)])
def test_g10_claim_is_valid_for_two_minutes_at_most(world: World, pair: Pair, ahead: int, error: bool) -> None:
    message = world.claim_external(pair.node, one(world, pair), valid_until=world.ledger.now + ahead)
    if error:
        assert refused(world, message) == ContractError.WRONG_TIME
    else:
        assert not world.ledger.send_external(message).failed


def raw_claim(world: World, pair: Pair, entries: Cell, roots: Cell, count: int) -> Cell:
    """A claim that the enclave signed over whatever it is given."""
    state, until = world.node(pair.node), world.ledger.now + 60
    claim = Claim(state.node_id, state.seqno, until, count, 0, bytes(entries.hash), bytes(roots.hash))
    body = begin_cell().store_bytes(sign(claim, world.enclave_key)).store_uint(until, 32).store_uint(count, 8)
    body.store_uint(0, 64).store_uint(state.seqno, 32).store_ref(entries).store_ref(roots)
    message = begin_cell().store_uint(0b1000, 4).store_address(address_of(pair.node)).store_coins(0)
    return message.store_bit(0).store_bit(1).store_ref(body.end_cell()).end_cell()


def test_a_claim_of_nothing_spends_its_seqno_and_sends_nothing(world: World, pair: Pair) -> None:
    entries, roots = claims.batch(one(world, pair))
    trace = world.ledger.send_external(raw_claim(world, pair, entries, roots, 0))
    assert not trace.failed and [len(tx.out_msgs) for tx in trace.transactions] == [0]
    assert world.node(pair.node).seqno == 1


def test_g8_an_accepted_claim_with_a_broken_spine_cannot_be_replayed(world: World, pair: Pair) -> None:
    message = raw_claim(world, pair, begin_cell().end_cell(), begin_cell().end_cell(), 1)
    trace = world.ledger.send_external(message)
    assert code_of(trace) == 9, "the spine is missing: the enclave's own fault"
    assert world.node(pair.node).seqno == 1, "committed before the spine is read"
    assert refused(world, message) == ContractError.WRONG_SEQNO


def test_g8_before_accept_less_than_8000_gas(world: World, pair: Pair) -> None:
    trace = world.ledger.send_external(world.claim_external(pair.node, one(world, pair)))
    assert trace.of(pair.node)[0].gas_used < 8_000, "the whole claim of one entry is below the bound"


def test_g8_as_many_entries_as_a_count_can_say_move_all_their_actions(world: World, pair: Pair) -> None:
    world.ledger.faucet(pair.node, 10 * TON)
    entries, roots = claims.spines(one(world, pair) * 255)
    trace = world.ledger.send_external(raw_claim(world, pair, entries, roots, 255), run=False)
    (tx,) = trace.transactions
    assert (tx.exit_code, tx.action_code, len(tx.out_msgs)) == (0, 0, 255)
    trace = world.ledger.run()
    assert world.node(pair.node).earned_nano == TON


def test_g7_g1_refused_settlements_come_back_into_the_reserve(world: World, pair: Pair) -> None:
    locked = world.node(pair.node).stake_nano + world.node(pair.node).rent_reserve_nano
    nowhere = [replace(one(world, pair)[0], escrow=account_of_name(f"nowhere {i}")) for i in range(5)]
    before, state = world.ledger.balance(pair.node), world.node(pair.node)
    trace = world.claim(pair.node, nowhere)
    assert trace.total_fees_nano == trace.balance_delta_nano
    assert world.ledger.balance(pair.node) == before - trace.total_fees_nano >= locked
    after = world.node(pair.node)
    assert (after.earned_nano, after.stake_nano) == (state.earned_nano, state.stake_nano)


# ------------------------------------------------------------------------------------------------ single receipts


def test_a_receipt_is_a_claim_at_the_senders_gas(world: World, pair: Pair) -> None:
    body = claim_receipt_body(world, pair)
    before = world.ledger.balance(pair.node)
    assert not world.send(world.stranger, pair.node, TON // 10, body).failed
    assert world.node(pair.node).earned_nano == TON
    assert world.ledger.balance(pair.node) + world.ledger.balance(world.payout) > before + TON
    trace = world.send(world.stranger, pair.node, TON // 10, body)
    assert code_of(trace) == ContractError.NOTHING_DUE


def test_g10_receipt_altered_or_for_anything_else_is_refused(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON)
    good = world.receipt(pair.escrow, pair.node, entry)
    epoch = world.escrow(pair.escrow).rows[pair.node].epoch
    key = public(world.enclave_key)
    forged = sign(good, key_of("thief"))
    trace = world.send(
        world.stranger, pair.node, TON, claims.claim_receipt(key, pair.escrow, epoch, good, forged, entry)
    )
    assert code_of(trace) == ContractError.BAD_SIGNATURE
    changes = [{"allotment": NO_HASH}, {"node": NO_HASH}, {"seq": 2}, {"terms": NO_HASH}, {"cumulative_nano": 2 * TON}]
    for change in changes:
        receipt = replace(good, **change)  # type: ignore[arg-type]
        body = claims.claim_receipt(key, pair.escrow, epoch, receipt, sign(receipt, world.enclave_key), entry)
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.WRONG_RECEIPT, change
    for wrong_epoch, wrong_escrow in ((epoch + 1, pair.escrow), (epoch, account_of_name("escrow"))):
        body = claims.claim_receipt(key, wrong_escrow, wrong_epoch, good, sign(good, world.enclave_key), entry)
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.WRONG_RECEIPT
    stranger_key = public(key_of("thief"))
    body = claims.claim_receipt(stranger_key, pair.escrow, epoch, good, forged, entry)
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.KEY_ENDED


# ------------------------------------------------------------------------------------------------ keys and windows


def test_g3_claims_of_a_rotated_key_are_paid_in_the_window_and_not_after(world: World, pair: Pair) -> None:
    body = claim_receipt_body(world, pair)
    assert not world.attest(pair.node, key_of("second")).failed
    state, old = world.node(pair.node), public(world.enclave_key)
    assert state.retired == {old: node.RetiredKey(world.ledger.now + 7 * DAY, False, b"\x11" * 32)}
    message = world.claim_external(pair.node, one(world, pair))
    assert refused(world, message) == ContractError.BAD_SIGNATURE, "batches are for the active key only"
    snapshot = world.ledger.snapshot()
    world.ledger.now += 7 * DAY
    assert state.key_claimable(old, world.ledger.now)
    assert not world.send(world.stranger, pair.node, TON, body).failed
    world.ledger.revert(snapshot)
    world.ledger.now += 7 * DAY + 1
    assert not state.key_claimable(old, world.ledger.now)
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.KEY_ENDED


def test_g3_claims_after_expiry_are_paid_in_the_window_and_not_after(world: World, pair: Pair) -> None:
    assert world.node(pair.node).attested_until == world.ledger.now + DAY
    world.ledger.now += 8 * DAY
    assert not world.settle_one(pair.escrow, pair.node, TON // 2).failed
    world.ledger.now += 1
    assert refused(world, world.claim_external(pair.node, one(world, pair))) == ContractError.KEY_ENDED
    body = claim_receipt_body(world, pair)
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.KEY_ENDED


def test_the_first_verdict_retires_nothing(pair: Pair, world: World) -> None:
    state = world.node(pair.node)
    assert state.signing_key == public(world.enclave_key) and state.retired == {}


def test_the_same_key_is_extended_and_an_old_one_can_come_back(world: World, pair: Pair) -> None:
    world.ledger.now += DAY // 2
    world.attest(pair.node)
    assert world.node(pair.node).retired == {}
    assert world.node(pair.node).attested_until == world.ledger.now + DAY
    world.attest(pair.node, key_of("second"))
    world.attest(pair.node)
    state = world.node(pair.node)
    assert state.signing_key == public(world.enclave_key) and set(state.retired) == {public(key_of("second"))}


def test_retired_keys_are_forgotten_after_their_window(world: World, pair: Pair) -> None:
    for i in range(3):
        world.attest(pair.node, key_of(f"key {i}"))
    # The last of them had a day of attestation, a week of window, and two days in which it could still be accused.
    world.ledger.now += 10 * DAY + 1
    for i in range(3, 5):
        assert not world.attest(pair.node, key_of(f"key {i}")).failed
    assert set(world.node(pair.node).retired) == {public(key_of("key 3"))}


def test_a_thirty_third_live_retired_key_is_refused(world: World, pair: Pair) -> None:
    for i in range(32):
        assert not world.attest(pair.node, key_of(f"key {i}")).failed
    assert len(world.node(pair.node).retired) == 32
    assert code_of(world.attest(pair.node, key_of("key 33"))) == ContractError.TOO_MANY_KEYS


def test_g10_old_stale_or_foreign_verdicts_are_refused(world: World, pair: Pair) -> None:
    state = world.node(pair.node)
    cases = [
        ({"epoch": state.epoch + 1}, ContractError.WRONG_EPOCH),
        ({"block_seqno": state.block_seqno}, ContractError.OLD_VERDICT),
        ({"attested_until": world.ledger.now}, ContractError.OLD_VERDICT),
    ]
    for change, error in cases:
        assert code_of(world.attest(pair.node, key_of("second"), **change)) == error
    assert world.node(pair.node) == state


# ------------------------------------------------------------------------------------------------ earnings and stake


def test_g10_paid_from_anybody_but_a_genuine_escrow_is_refused(world: World, pair: Pair) -> None:
    def paid(owner: bytes, index: int) -> Cell:
        return node.paid(2, owner, index, TON, 1)

    cases = [
        (world.stranger.account, world.client.account, 0),
        (world.client.account, world.client.account, 0),
        (pair.escrow, world.client.account, 1),
        (pair.escrow, world.stranger.account, 0),
        (pair.node, world.operator.account, 0),
    ]
    before = world.node(pair.node)
    for source, owner, index in cases:
        trace = world.tell(source, pair.node, TON, paid(owner, index))
        assert trace.transactions[0].exit_code == ContractError.NOT_GENUINE
    assert world.node(pair.node) == before
    assert not world.tell(pair.escrow, pair.node, TON, paid(world.client.account, 0)).failed


def test_earnings_above_the_threshold_are_forwarded_down_to_the_gas_level(world: World, pair: Pair) -> None:
    before = world.ledger.balance(world.payout)
    world.settle_one(pair.escrow, pair.node, TON)
    state = world.node(pair.node)
    keep = state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    assert world.ledger.balance(pair.node) == keep
    assert world.ledger.balance(world.payout) > before + TON - TON // 20


FEES_OF_A_CLAIM = 6_000_000  # roughly: what a node's balance falls by in a small claim, without the payment's own gas


def test_g4_a_payment_that_cannot_be_forwarded_stays_the_nodes() -> None:
    """With a threshold of 0 the surplus can be less than what forwarding costs: that must not send the payment back."""
    world = World(Ledger(), parameters=replace(PARAMETERS, payout_threshold_nano=0))
    world.deploy()
    world.fund_wallets(world.governor, world.operator, world.client)
    pair = make_pair(world)
    state = world.node(pair.node)
    keep = state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    for turn in range(1, 6):  # spends some of the reserve, so that the payment of the last claim just fills it
        world.claim(pair.node, one(world, pair, turn))
    entries = one(world, pair, 1005)
    snapshot = world.ledger.snapshot()
    for surplus in range(0, 3_000_000, 100_000):
        world.ledger.revert(snapshot)
        world.ledger.faucet(pair.node, keep + surplus - world.ledger.balance(pair.node) + FEES_OF_A_CLAIM)
        trace = world.claim(pair.node, entries)
        assert not trace.failed, surplus
        assert world.node(pair.node).earned_nano == 1005, surplus
        assert world.escrow(pair.escrow).rows[pair.node].paid_nano == 1005
        assert not any(message.bounced for tx in trace.transactions for message in tx.out_msgs)


def test_earnings_below_the_threshold_wait_for_collect(world: World, pair: Pair) -> None:
    world.settle_one(pair.escrow, pair.node, TON // 10)
    state = world.node(pair.node)
    keep = state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    assert world.ledger.balance(pair.node) > keep
    assert not world.send(world.stranger, pair.node, TON // 10, node_rare.collect()).failed
    assert world.ledger.balance(pair.node) == keep
    trace = world.send(world.stranger, pair.node, TON // 10, node_rare.collect())
    assert code_of(trace) == ContractError.NOTHING_TO_COLLECT


def test_money_without_a_message_is_gas_reserve(world: World, pair: Pair) -> None:
    comment = begin_cell().store_uint(0, 32).store_string("gas").end_cell()
    for body in (None, comment):
        before, state = world.ledger.balance(pair.node), world.node(pair.node)
        assert not world.send(world.stranger, pair.node, TON, body).failed
        assert before + TON - TON // 1000 < world.ledger.balance(pair.node) <= before + TON
        assert world.node(pair.node) == state


def test_stake_added_by_anyone_is_locked_like_the_rest_and_not_while_unbonding(world: World, pair: Pair) -> None:
    before = world.node(pair.node)
    trace = world.send(world.stranger, pair.node, 3 * TON, node_rare.top_up_stake())
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    state = world.node(pair.node)
    assert state.stake_nano == before.stake_nano + 3 * TON - world.fees.top_up_stake()
    assert replace(state, stake_nano=before.stake_nano) == before
    world.send(world.stranger, pair.node, TON, node_rare.collect())
    assert world.ledger.balance(pair.node) >= state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    trace = world.send(world.stranger, pair.node, TON, node_rare.top_up_stake())
    assert code_of(trace) == ContractError.UNBONDING


def test_g3_the_stake_leaves_when_its_windows_are_over_and_not_a_second_before(world: World, pair: Pair) -> None:
    for source in (world.stranger, world.client, world.governor):
        for body in (node_rare.unbond(), node_rare.withdraw_stake()):
            assert code_of(world.send(source, pair.node, TON, body)) == ContractError.NOT_ALLOWED
    assert code_of(world.send(world.operator, pair.node, TON, node_rare.withdraw_stake())) == ContractError.TOO_EARLY
    assert not world.send(world.operator, pair.node, TON, node_rare.unbond()).failed
    state = world.node(pair.node)
    assert state.withdrawable_at == world.ledger.now + 7 * DAY + 2 * DAY
    assert not state.key_attested(public(world.enclave_key), world.ledger.now)
    assert code_of(world.send(world.operator, pair.node, TON, node_rare.unbond())) == ContractError.UNBONDING
    assert code_of(world.attest(pair.node)) == ContractError.UNBONDING
    world.ledger.now = state.withdrawable_at - 1
    assert code_of(world.send(world.operator, pair.node, TON, node_rare.withdraw_stake())) == ContractError.TOO_EARLY
    world.ledger.now += 1
    held, before = world.ledger.balance(pair.node), world.ledger.balance(world.payout)
    assert not world.send(world.operator, pair.node, TON, node_rare.withdraw_stake()).failed
    assert not world.alive(pair.node) and world.ledger.balance(pair.node) == 0
    assert world.ledger.balance(world.payout) > before + held - TON // 100


def test_g3_work_is_paid_while_the_node_unbonds(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    world.ledger.now += 7 * DAY
    assert not world.settle_one(pair.escrow, pair.node, TON // 2).failed
    body = claim_receipt_body(world, pair)
    assert not world.send(world.stranger, pair.node, TON, body).failed
    world.ledger.now += 1
    assert refused(world, world.claim_external(pair.node, one(world, pair, 2 * TON))) == ContractError.KEY_ENDED


def test_g4_a_node_opened_again_at_its_address_is_another_node(world: World, pair: Pair) -> None:
    old = world.node(pair.node)
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    world.ledger.now += 9 * DAY
    world.send(world.operator, pair.node, TON, node_rare.withdraw_stake())
    account, trace = world.open_node()
    assert account == pair.node and not trace.failed
    assert world.node(account).epoch > old.epoch and world.node(account).node_id != old.node_id
    verdict = replace(world.verdict(account), epoch=old.epoch)
    body = verdicts.verdict(verdict, world.consent(account))
    trace = world.tell(world.attestation, account, TON, body)
    assert code_of(trace) == ContractError.WRONG_EPOCH


def test_unknown_ops_return_the_money(world: World, pair: Pair) -> None:
    body = begin_cell().store_uint(0x12345678, 32).end_cell()
    for account in (pair.node, pair.escrow, world.registry, world.attestation):
        trace = world.send(world.stranger, account, TON, body)
        assert trace.failed[0].out_msgs[0].bounced
