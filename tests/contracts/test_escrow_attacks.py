"""What an attacker may try against an escrow: other accounts' exits, borders of numbers, signatures of lives before."""

from __future__ import annotations

import pytest
from test_escrow import code_of
from test_fees import settle_body

from chain.api import Status
from scripts.stage import NO_HASH, TON, Pair, World, account_of_name, public
from wrappers import claims, escrow, escrow_rare
from wrappers.errors import ContractError
from wrappers.receipts import Receipt, Voucher
from wrappers.signed import sign

MOST = (1 << 64) - 1


def test_g6_one_clients_close_touches_no_other_clients_deposit(world: World, pair: Pair) -> None:
    first = escrow.FirstAllotment(pair.node, TON, world.row_terms())
    other, _ = world.open_escrow(wallet=world.stranger, first=first)
    before, held = world.escrow(other), world.ledger.balance(other)
    release = escrow.CloseRelease(pair.node, 0, world.release(pair.escrow, pair.node, 0))
    assert not world.send(world.client, pair.escrow, TON, escrow.close([release])).failed
    assert not world.alive(pair.escrow)
    assert (world.escrow(other), world.ledger.balance(other)) == (before, held)
    stolen = escrow.close([release])
    assert code_of(world.send(world.stranger, other, TON, stolen)) == ContractError.BAD_SIGNATURE


def settle_with(world: World, pair: Pair, voucher: Voucher, cumulative: int, seq: int) -> int | None:
    signature = sign(voucher, world.voucher_key)
    entry = claims.Entry(cumulative, seq, voucher.cap_nano, voucher.acked_nano, NO_HASH, signature)
    trace = world.tell(pair.node, pair.escrow, TON // 10, settle_body(entry, public(world.enclave_key)))
    return code_of(trace) if trace.failed else 0


def test_g5_counters_at_the_end_of_their_range_pay_what_is_allotted_and_no_more(world: World, pair: Pair) -> None:
    row = world.escrow(pair.escrow).rows[pair.node]
    voucher = Voucher(row.allotment, public(world.enclave_key), MOST, MOST, NO_HASH)
    assert settle_with(world, pair, voucher, MOST, (1 << 32) - 1) == 0
    after = world.escrow(pair.escrow).rows[pair.node]
    assert after.paid_nano == row.allotted_nano
    assert settle_with(world, pair, voucher, MOST, 1) == ContractError.NOTHING_DUE
    assert (
        settle_with(world, pair, Voucher(row.allotment, voucher.key, 0, 0, NO_HASH), 0, 0) == ContractError.NOTHING_DUE
    )
    assert not world.send(world.client, pair.escrow, 2 * TON, escrow.raise_allotment(pair.node, TON)).failed
    assert settle_with(world, pair, voucher, MOST, 1) == 0
    assert world.escrow(pair.escrow).rows[pair.node].paid_nano == row.allotted_nano + TON


@pytest.mark.parametrize("amount", [MOST, MOST + 1, (1 << 100)])
def test_g1_amounts_beyond_what_is_there_are_refused_whatever_their_size(world: World, pair: Pair, amount: int) -> None:
    before = world.escrow(pair.escrow)
    bodies = [
        escrow.allot(b"\x07" * 32, amount, world.row_terms()),
        escrow.raise_allotment(pair.node, amount),
        escrow.withdraw(amount),
        escrow_rare.order_job(amount, NO_HASH, 0, escrow.top_up()),
    ]
    for body in bodies:
        assert world.send(world.client, pair.escrow, TON, body).failed
        assert world.escrow(pair.escrow) == before


def test_g4_nothing_signed_before_an_account_was_deleted_for_rent_is_worth_anything_after(world: World) -> None:
    node_account, _ = world.open_node()
    world.attest(node_account)
    first = escrow.FirstAllotment(node_account, TON // 10, world.row_terms())
    account, _ = world.open_escrow(first=first)
    pair = Pair(node_account, account)
    for i in range(15):
        world.send(world.client, account, TON // 20, escrow.allot(account_of_name(f"x{i}"), 1, world.row_terms()))
    world.send(world.client, account, TON, escrow.withdraw())
    entry = world.entry(account, node_account, TON // 10)
    receipt: Receipt = world.receipt(account, node_account, entry)
    epoch, key = world.escrow(account).rows[node_account].epoch, world.enclave_key
    claim = claims.claim_receipt(public(key), account, epoch, receipt, sign(receipt, key), entry)
    release = escrow_rare.lower(node_account, 0, world.release(account, node_account, 0))
    world.ledger.now += 75 * 31_536_000
    world.tell(world.stranger.account, account, 1, None)
    assert world.ledger.account(account).status is Status.FROZEN, "rent took all of it"
    world.open_escrow(first=first)
    assert world.ledger.account(account).status is Status.ABSENT, (
        "the chain wants its rent first, and forgets the account"
    )
    assert not world.attest(node_account).failed, "under the same key"
    again, trace = world.open_escrow(first=first)
    assert again == account and not trace.failed
    assert code_of(world.send(world.stranger, node_account, TON, claim)) == ContractError.BAD_SIGNATURE
    body = settle_body(entry, public(key))
    assert code_of(world.tell(node_account, account, TON, body)) == ContractError.BAD_SIGNATURE
    assert code_of(world.send(world.operator, account, TON, release)) == ContractError.BAD_SIGNATURE
    assert world.escrow(account).rows[pair.node].paid_nano == 0


def test_g4_the_submitter_of_a_release_or_a_claim_gains_nothing(world: World, pair: Pair) -> None:
    """Whoever brings what others signed gets the rest of his own value back, and nothing else."""
    entry = world.entry(pair.escrow, pair.node, TON)
    receipt: Receipt = world.receipt(pair.escrow, pair.node, entry)
    epoch, key = world.escrow(pair.escrow).rows[pair.node].epoch, world.enclave_key
    claim = claims.claim_receipt(public(key), pair.escrow, epoch, receipt, sign(receipt, key), entry)
    lower = escrow_rare.lower(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    for target, body in ((pair.node, claim), (pair.escrow, lower)):
        before = world.ledger.balance(world.stranger.account)
        trace = world.send(world.stranger, target, TON, body)
        assert not trace.failed
        assert world.ledger.balance(world.stranger.account) < before


def test_g10_settlements_for_an_allotment_that_ended_are_refused_also_under_a_new_one(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, TON)
    body = settle_body(entry, public(world.enclave_key))
    lower = escrow_rare.lower(pair.node, 0, world.release(pair.escrow, pair.node, 0))
    assert not world.send(world.operator, pair.escrow, TON, lower).failed
    assert code_of(world.tell(pair.node, pair.escrow, TON, body)) == ContractError.NO_ROW
    assert not world.send(world.client, pair.escrow, TON, escrow.allot(pair.node, TON, world.row_terms())).failed
    assert code_of(world.tell(pair.node, pair.escrow, TON, body)) == ContractError.BAD_SIGNATURE
    assert code_of(world.send(world.operator, pair.escrow, TON, lower)) == ContractError.BAD_SIGNATURE
