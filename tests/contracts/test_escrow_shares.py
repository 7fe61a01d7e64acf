"""Shares of a row's payments: what is kept, what leaves to whom, and that no exit waits for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pytoniq_core import Cell, begin_cell
from shares_stage import FEE, RELAYER, ROYALTY, Shared
from test_escrow import code_of

from app import shares
from app.shares import dues
from chain.api import AccountState, BlockId, Head, Transaction
from chain.wallet import Wallet
from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, NO_HASH, TON, Pair, World, account_of_name, built_world, public
from wrappers import escrow, escrow_rare
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.rows import ENDED, Fee, Shares, part

# ------------------------------------------------------------------------------------------------ kept


def test_g2_a_settlement_keeps_the_shares_and_pays_the_node_the_rest(shared: Shared) -> None:
    before, node = shared.state(), shared.world.node(shared.node).earned_nano
    trace = shared.settle(TON)
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    after, kept = shared.state(), TON * (1000 + 500 + FEE) // 10_000
    assert (after.deposit_nano, after.accrued_nano) == (before.deposit_nano - TON, kept)
    assert after.reserved_nano == before.reserved_nano - TON
    assert TON - kept <= trace.of(shared.account)[0].out_msgs[0].value_nano < TON - kept + TON // 10
    assert shared.world.node(shared.node).earned_nano - node == TON - kept


def test_g2_rounding_is_over_all_that_was_paid_and_loses_nothing(shared: Shared) -> None:
    total = shared.world.shares.total
    for cumulative in (1, 2, 3, 5, 6, 7, 1000, 1001, 99_999, 100_000):
        assert not shared.settle(cumulative).failed
        assert shared.state().accrued_nano == part(cumulative, total)


def test_g5_a_row_never_pays_more_than_without_shares(shared: Shared) -> None:
    assert not shared.settle(5 * TON).failed
    row = shared.state().rows[shared.node]
    assert row.paid_nano == row.allotted_nano == 2 * TON
    assert code_of(shared.settle(6 * TON)) == ContractError.NOTHING_DUE


def test_g1_shares_are_not_the_owners(shared: Shared) -> None:
    shared.settle(TON)
    state = shared.state()
    assert not shared.client(escrow.withdraw()).failed
    assert shared.state().accrued_nano == state.accrued_nano > 0
    assert shared.world.ledger.balance(shared.account) >= shared.state().deposit_nano + state.accrued_nano
    assert code_of(shared.client(escrow.withdraw(1))) == ContractError.NOT_FREE


# ------------------------------------------------------------------------------------------------ leaving


def test_g2_shares_leave_to_the_nanoton_and_the_sender_pays_for_it(shared: Shared) -> None:
    shared.settle(TON)
    state, before = shared.state(), shared.world.ledger.balance(shared.account)
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    assert shared.world.ledger.balance(shared.account) <= before - state.accrued_nano, "less the rent of the day"
    assert shared.world.ledger.balance(shared.account) > before - state.accrued_nano - TON // 100_000
    assert shared.received(trace) == {"relayer": TON // 10, "royalty": TON // 20, "treasury": TON * FEE // 10_000}
    assert shared.state().accrued_nano == 0
    assert shared.state().deposit_nano == state.deposit_nano
    row = shared.state().rows[shared.node]
    assert row.terms.shares is not None and row.terms.shares.paid_out_nano == TON
    assert replace(row, terms=state.rows[shared.node].terms) == state.rows[shared.node]


def test_g4_shares_leave_once(shared: Shared) -> None:
    shared.settle(TON)
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert code_of(shared.stranger(escrow_rare.pay_shares(shared.node))) == ContractError.SMALL_SHARES
    shared.settle(TON + TON // 2)
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed and shared.received(trace)["relayer"] == TON // 20
    assert shared.state().accrued_nano == 0


def test_shares_leave_only_when_each_is_worth_its_message_and_exactly_then(shared: Shared) -> None:
    threshold = 10 * shared.world.fees.prices.forward(0, 0)
    enough = threshold * 10_000 // FEE  # the treasury's is the least of the three
    enough += 10_000 // FEE
    while part(enough - 1, FEE) >= threshold:
        enough -= 1
    shared.settle(enough - 1)
    assert code_of(shared.stranger(escrow_rare.pay_shares(shared.node))) == ContractError.SMALL_SHARES
    shared.settle(enough)
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed


def test_rounding_between_the_shares_is_the_owners(shared: Shared) -> None:
    paid = TON + 19
    shared.settle(paid)
    state = shared.state()
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed
    left = sum(shared.received(trace).values())
    assert state.accrued_nano - left == shared.state().deposit_nano - state.deposit_nano
    assert 0 < state.accrued_nano - left <= 2


def test_a_row_without_shares_has_none_to_pay(world: World, pair: Pair) -> None:
    body = escrow_rare.pay_shares(pair.node)
    assert code_of(world.send(world.stranger, pair.escrow, TON, body)) == ContractError.NOTHING_DUE


def test_paying_shares_is_read_to_its_end(shared: Shared) -> None:
    shared.settle(TON)
    body = escrow_rare.pay_shares(shared.node)
    longer = begin_cell().store_bits(body.bits).store_bit(0).store_ref(body.refs[0]).end_cell()
    assert len(body.refs) == 1 and code_of(shared.stranger(longer)) == 9
    assert not shared.stranger(body).failed


def test_a_row_that_paid_all_of_its_allotment_lives_on_when_its_shares_leave(shared: Shared) -> None:
    shared.settle(3 * TON)
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert shared.state().rows[shared.node].closing_at == 0
    assert not shared.client(escrow.raise_allotment(shared.node, TON)).failed
    assert not shared.settle(3 * TON).failed, "what the allotment refused stays claimable"


# ------------------------------------------------------------------------------------------------ ends


def ends(shared: Shared) -> dict[str, Callable[[], Trace]]:
    def timed(first: Cell) -> Trace:
        assert not shared.client(first).failed
        shared.world.ledger.now += HOUR
        return shared.stranger(escrow.finish())

    def paid() -> int:
        return shared.state().rows[shared.node].paid_nano

    return {
        "released": lambda: shared.stranger(escrow_rare.lower(shared.node, paid(), shared.release(paid()))),
        "reclaimed": lambda: timed(escrow_rare.reclaim(shared.node)),
        "closed": lambda: timed(escrow.close()),
        "closed with a release": lambda: shared.client(
            escrow.close([escrow.CloseRelease(shared.node, paid(), shared.release(paid()))])
        ),
    }


@pytest.mark.parametrize("how", ["released", "reclaimed", "closed", "closed with a release"])
def test_g3_g6_a_row_that_ends_keeps_nothing_but_its_shares_and_anyone_sends_them(shared: Shared, how: str) -> None:
    shared.settle(TON)
    assert not ends(shared)[how]().failed
    state = shared.state()
    row = state.rows[shared.node]
    assert (row.closing_at, row.allotted_nano, row.paid_nano) == (ENDED, TON, TON)
    assert state.reserved_nano == 0
    assert (state.free_nano == 0) == state.closing, "what was allotted is free, or has left"
    assert code_of(shared.settle(2 * TON)) == ContractError.NOTHING_DUE
    assert code_of(shared.client(escrow.raise_allotment(shared.node, 1))) == ContractError.CLOSING
    assert code_of(shared.client(escrow_rare.reclaim(shared.node))) == ContractError.CLOSING
    assert code_of(shared.stranger(escrow.finish())) == ContractError.NOT_RIPE
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed and shared.received(trace)["relayer"] == TON // 10
    assert shared.world.alive(shared.account) != state.closing
    if not state.closing:
        assert (shared.state().rows, shared.state().accrued_nano) == ({}, 0)


@pytest.mark.parametrize("deposit", [3, 5, 999_999, TON])
def test_g3_the_owner_alone_gets_out_whatever_the_shares_are_worth(shared: Shared, deposit: int) -> None:
    """Dust and all: shares that are not worth a message are his."""
    shared.settle(deposit)
    assert not shared.client(escrow.close()).failed
    shared.world.ledger.now += HOUR
    assert not shared.client(escrow.finish()).failed
    if shared.world.alive(shared.account):
        assert shared.kept() == shared.state().accrued_nano
        assert not shared.client(escrow_rare.pay_shares(shared.node)).failed
    assert not shared.world.alive(shared.account) and shared.world.ledger.balance(shared.account) == 0


def test_g3_a_row_that_paid_nothing_is_gone_at_once(shared: Shared) -> None:
    assert not shared.client(escrow.close([escrow.CloseRelease(shared.node, 0, shared.release(0))])).failed
    assert not shared.world.alive(shared.account)


def test_g3_a_closing_row_that_has_nothing_left_to_pay_ends_at_once(shared: Shared) -> None:
    shared.settle(3 * TON)
    assert not shared.client(escrow_rare.reclaim(shared.node)).failed
    assert shared.state().rows[shared.node].closing_at == ENDED


def test_g6_rows_with_shares_do_not_touch_each_other(shared: Shared) -> None:
    world, other = shared.world, world_node(shared)
    terms = world.row_terms(shares=world.shares)
    assert not shared.client(escrow_rare.allot_shared(other, TON // 2, terms), 2 * TON).failed
    shared.settle(TON)
    second = Shared(world, shared.account, other)
    assert not second.settle(TON // 4).failed
    row = shared.state().rows[other]
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert shared.state().rows[other] == row
    assert shared.state().accrued_nano == row.accrued_nano


def world_node(shared: Shared) -> bytes:
    return shared.world.open_node(index=1)[0]


def test_g9_shares_that_rent_ate_do_not_hold_the_exit(shared: Shared) -> None:
    shared.settle(2 * TON)
    assert not shared.client(escrow.withdraw()).failed
    while shared.world.ledger.balance(shared.account) > shared.state().accrued_nano // 2:
        shared.world.ledger.now += 5 * 365 * DAY
        shared.stranger(escrow.finish(), TON // 1000)
    assert not shared.client(escrow.close()).failed
    assert not shared.client(escrow_rare.pay_shares(shared.node)).failed
    assert not shared.world.alive(shared.account)


def test_g1_what_is_kept_for_shares_stands_before_the_deposit_when_rent_eats(shared: Shared) -> None:
    shared.settle(TON)
    assert not shared.client(escrow.withdraw()).failed
    kept = shared.state().accrued_nano
    while shared.world.ledger.balance(shared.account) >= kept + shared.state().deposit_nano:
        shared.world.ledger.now += 365 * DAY
        shared.stranger(escrow.finish(), TON // 1000)
    assert not shared.stranger(escrow.top_up(), TON // 10).failed
    state = shared.state()
    assert state.accrued_nano == kept > 0
    assert shared.world.ledger.balance(shared.account) >= state.deposit_nano + kept


def test_g1_a_settlement_takes_nothing_of_what_is_kept_for_shares_when_rent_ate(shared: Shared) -> None:
    shared.settle(TON)
    assert not shared.client(escrow.withdraw()).failed
    while shared.world.ledger.balance(shared.account) >= shared.state().accrued_nano + shared.state().deposit_nano:
        shared.world.ledger.now += 365 * DAY
        shared.stranger(escrow.finish(), TON // 1000)
    assert not shared.settle(2 * TON).failed
    state = shared.state()
    assert state.deposit_nano == 0 and shared.world.ledger.balance(shared.account) >= state.accrued_nano


def test_g6_shares_of_a_row_that_ended_take_no_other_row_with_them(shared: Shared) -> None:
    other = account_of_name("second node")
    terms = shared.world.row_terms(shares=shared.world.shares)
    assert not shared.client(escrow_rare.allot_shared(other, TON // 10, terms)).failed
    shared.settle(2 * TON)
    assert not shared.client(escrow.close()).failed
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert list(shared.state().rows) == [other]
    assert shared.world.ledger.balance(shared.account) >= shared.state().deposit_nano >= TON // 10


def test_g6_shares_of_the_last_row_end_no_account_that_is_open(shared: Shared) -> None:
    shared.settle(TON)
    assert not shared.client(escrow_rare.lower(shared.node, TON, shared.release(TON))).failed
    before = shared.state().deposit_nano
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert not shared.state().rows
    assert shared.world.ledger.balance(shared.account) >= shared.state().deposit_nano >= before > 0


def test_g1_dust_of_a_row_that_ended_is_the_owners_and_stays(shared: Shared) -> None:
    def beyond() -> int:
        state = shared.state()
        return shared.world.ledger.balance(shared.account) - state.deposit_nano - state.accrued_nano

    shared.settle(3_000_000)
    assert not shared.client(escrow_rare.lower(shared.node, 3_000_000, shared.release(3_000_000))).failed
    before, kept = shared.state(), beyond()
    trace = shared.stranger(escrow_rare.pay_shares(shared.node))
    assert not trace.failed and not shared.received(trace)
    assert shared.state().deposit_nano - before.deposit_nano == before.accrued_nano > 500_000
    assert kept - 100_000 < beyond() <= kept, "less the rent of the moment"


def test_who_has_no_share_holds_up_nobodys() -> None:
    world = built_world(fee=FEE)
    node, _ = world.open_node()
    shares = Shares(1000, 0, RELAYER, fee=Fee(FEE, world.treasury))
    first = escrow.FirstAllotment(node, 2 * TON, world.row_terms(shares=shares))
    account, _ = world.open_escrow(first=first, value_nano=world.fees.open_escrow(4 * TON, 2 * TON, shared=True))
    shared = Shared(world, account, node)
    assert not shared.settle(TON).failed
    trace = shared.stranger(escrow_rare.pay_shares(node))
    assert not trace.failed
    assert set(shared.received(trace)) == {"relayer", "treasury"}


# ------------------------------------------------------------------------------------------------ allotting


def owned(shared: Shared, body: Cell, value: int = TON) -> int | None:
    trace = shared.client(body, value)
    return code_of(trace) if trace.failed else 0


def refused() -> list[tuple[str, Shares | None]]:
    fee = Fee(FEE, account_of_name("treasury"))
    good = Shares(1000, 500, RELAYER, ROYALTY, fee)
    return [
        ("no fee", replace(good, fee=None)),
        ("a lower fee", replace(good, fee=replace(fee, share=FEE - 1))),
        ("another treasury", replace(good, fee=replace(fee, treasury=RELAYER))),
        ("a share for nobody", replace(good, relayer=NO_HASH)),
        ("a royalty for nobody", replace(good, royalty=NO_HASH)),
        ("somebody without a share", replace(good, relayer_share=0)),
        ("somebody without a royalty", replace(good, royalty_share=0)),
        ("too much", replace(good, relayer_share=3001 - 500 - FEE)),
        ("something paid out before", replace(good, paid_out_nano=1)),
        ("no shares", None),
    ]


@pytest.mark.parametrize(("name", "shares"), refused())
def test_g5_shares_other_than_who_gets_what_are_refused(shared: Shared, name: str, shares: Shares | None) -> None:
    terms = shared.world.row_terms(shares=shares)
    body = escrow_rare.allot_shared(account_of_name("x"), 1, terms)
    assert owned(shared, body) == ContractError.BAD_TERMS
    config = escrow.FirstAllotment(account_of_name("x"), TON, terms)
    value = shared.world.fees.open_escrow(2 * TON, TON, shared=True)
    _, trace = shared.world.open_escrow(index=7, first=config, value_nano=value)
    assert trace.failed[0].exit_code == ContractError.BAD_TERMS, "at birth too"


def test_shares_at_their_bound_are_accepted(shared: Shared) -> None:
    shares = replace(shared.world.shares, relayer_share=3000 - 500 - FEE)
    body = escrow_rare.allot_shared(account_of_name("x"), 1, shared.world.row_terms(shares=shares))
    assert owned(shared, body) == 0


def test_where_the_network_takes_a_fee_no_row_is_without_it(shared: Shared) -> None:
    body = escrow.allot(account_of_name("x"), 1, shared.world.row_terms())
    assert owned(shared, body) == ContractError.BAD_TERMS
    body = escrow.allot(account_of_name("x"), 1, shared.world.row_terms(shares=shared.world.shares))
    assert owned(shared, body) == ContractError.BAD_TERMS, "with shares it takes the program"


def test_g3_shares_with_anything_more_or_exotic_are_refused(shared: Shared) -> None:
    good = shared.world.shares.to_cell()
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(bytes(32)).end_cell().bits, [], 2)
    longer = begin_cell().store_cell(good).store_bit(0).end_cell()
    referring = begin_cell().store_cell(good).store_ref(begin_cell().end_cell()).end_cell()
    for cell in (library, longer, referring):
        terms = begin_cell().store_bytes(public(shared.world.release_key)).store_uint(HOUR, 32).store_maybe_ref(cell)
        whole = escrow_rare.allot_shared(account_of_name("x"), 1, shared.world.row_terms())
        body = begin_cell().store_bits(whole.bits).store_ref(terms.end_cell()).store_ref(whole.refs[1]).end_cell()
        assert owned(shared, body) not in (0, None)


def test_shared_rows_are_bound_by_the_same_limits(shared: Shared) -> None:
    terms = shared.world.row_terms(shares=shared.world.shares)
    assert owned(shared, escrow_rare.allot_shared(shared.node, 1, terms)) == ContractError.ROW_EXISTS
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 0, terms)) == ContractError.WRONG_AMOUNT
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 9 * TON, terms)) == ContractError.NOT_FREE
    short = replace(terms, close_timer=HOUR - 1)
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 1, short)) == ContractError.BAD_TERMS
    for i in range(15):
        assert owned(shared, escrow_rare.allot_shared(account_of_name(f"n{i}"), 1, terms)) == 0
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 1, terms)) == ContractError.TOO_MANY_ROWS
    assert not shared.client(escrow.close()).failed
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 1, terms)) == ContractError.CLOSING


def test_g4_the_submitter_of_anyones_messages_gains_nothing(shared: Shared) -> None:
    """Only the rest of his own value comes back to him."""
    shared.settle(TON)
    for body in (escrow_rare.pay_shares(shared.node), escrow_rare.lower(shared.node, TON, shared.release(TON))):
        trace = shared.stranger(body)
        assert not trace.failed
        sent = trace.of(shared.account)[0].out_msgs
        mine = sum(out.value_nano for out in sent if out.destination == shared.world.stranger.account)
        assert mine < TON - shared.world.fees.prices.gas(trace.of(shared.account)[0].gas_used)


def test_g8_the_need_of_pay_shares_is_exact(shared: Shared) -> None:
    shared.settle(TON)
    need, body = shared.world.fees.pay_shares(), escrow_rare.pay_shares(shared.node)
    source = shared.world.stranger.account
    refused = shared.world.tell(source, shared.account, need - 1, body)
    assert code_of(refused) == ContractError.LOW_VALUE
    assert not shared.world.tell(source, shared.account, need, body).failed
    assert shared.state().accrued_nano == 0


def test_g9_the_rent_of_a_shared_row_is_kept_for(shared: Shared) -> None:
    fees, state = shared.world.fees, shared.state()
    reserve = fees.escrow_rent() + fees.row_rent() + fees.shares_rent()
    kept = shared.world.ledger.balance(shared.account) - state.deposit_nano
    assert reserve <= kept <= reserve + fees.prices.gas(9_000)
    terms = shared.world.row_terms(shares=shared.world.shares)
    before = shared.world.ledger.balance(shared.account) - state.deposit_nano
    assert owned(shared, escrow_rare.allot_shared(RELAYER, 1, terms)) == 0
    after = shared.world.ledger.balance(shared.account) - shared.state().deposit_nano
    assert after - before >= fees.row_rent() + fees.shares_rent()


def test_the_op_of_a_rare_message_says_what_it_is() -> None:
    assert escrow_rare.pay_shares(RELAYER).begin_parse().load_uint(32) == Op.PAY_SHARES


def test_g3_a_row_that_was_paid_in_full_while_its_timer_ran_ends_without_its_node(shared: Shared) -> None:
    assert not shared.client(escrow_rare.reclaim(shared.node)).failed
    assert not shared.settle(2 * TON).failed
    row = shared.state().rows[shared.node]
    assert row.paid_nano == row.allotted_nano and row.closing_at > ENDED, (
        "claimed to the last nanoTON before the timer's end"
    )
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed, "which empties the row and does not end it"
    assert not shared.client(escrow.close()).failed
    assert code_of(shared.client(escrow.finish())) == ContractError.NOT_RIPE
    shared.world.ledger.now = row.closing_at
    assert not shared.client(escrow.finish()).failed
    assert shared.state().rows[shared.node].closing_at == ENDED
    assert code_of(shared.client(escrow.finish())) == ContractError.NOT_RIPE, "it ends once"
    assert not shared.stranger(escrow_rare.pay_shares(shared.node)).failed
    assert not shared.world.alive(shared.account), "the rent of row and account is the owner's again"


# ------------------------------------------------------------------------------------------------ who has them sent


def test_what_the_command_says_of_shares_is_what_leaves_and_when(shared: Shared) -> None:
    assert list(dues(shared.account, shared.state())) == []
    shared.settle(1000)
    (due,) = dues(shared.account, shared.state())
    assert not due.payable and due.worth(RELAYER) == 100 and due.worth(None) == 100 + 50 + 30
    assert code_of(shared.stranger(escrow_rare.pay_shares(shared.node))) == ContractError.SMALL_SHARES
    least = next(paid for paid in range(100_000_000, 200_000_000, 10_000) if part(paid, FEE) >= 4_000_000)
    shared.settle(least - 10_000)
    assert not next(dues(shared.account, shared.state())).payable
    assert code_of(shared.stranger(escrow_rare.pay_shares(shared.node))) == ContractError.SMALL_SHARES
    shared.settle(least)
    (due,) = dues(shared.account, shared.state())
    assert due.payable
    received = shared.received(shared.stranger(escrow_rare.pay_shares(shared.node)))
    assert received == {
        "relayer": due.worth(RELAYER),
        "royalty": due.worth(ROYALTY),
        "treasury": due.worth(shared.world.treasury),
    }
    assert list(dues(shared.account, shared.state())) == []


async def test_shares_are_sent_once_by_whom_they_are_worth_it(
    shared: Shared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world, told = shared.world, []  # type: World, list[dict[str, Any]]
    monkeypatch.setattr(shares, "connect", lambda network: LedgerChain(world.ledger))
    sender = Wallet.create(tmp_path / "sender.mnemonic")
    world.ledger.faucet(sender.account, 5 * TON)

    async def run(wallet: Path | None, to: bytes | None = None, at_least: int | None = None) -> int:
        told.clear()
        return await shares.send_shares(
            "devnet",
            world.registry,
            to=to,
            wallet_file=wallet,
            at_least_nano=at_least,
            tell=lambda line: told.append(json.loads(line)),
        )

    shared.settle(TON)
    words = tmp_path / "sender.mnemonic"
    assert await run(None) == 0 and [one["sent"] for one in told] == [False] and told[0]["payable"]
    assert await run(words) == 0 and told == [], "nothing here is this wallet's"
    assert await run(words, RELAYER, 10 * TON) == 0 and len(told) == 1, "it is not worth it"
    assert await run(words, RELAYER) == 1 and told[0]["sent"]
    assert told[0]["shares_nano"][RELAYER.hex()] == TON // 10 == world.ledger.balance(RELAYER)
    assert await run(words, RELAYER) == 0 and told == []
    with pytest.raises(shares.NothingKnown):
        await shares.send_shares("devnet", NO_HASH, to=None, wallet_file=None, at_least_nano=None, tell=print)


@dataclass
class LedgerChain:
    """The ledger as a chain that a command connects to."""

    ledger: Ledger
    name: str = "ledger"

    async def head(self) -> Head:
        return Head(BlockId(1, bytes(32), bytes(32)), self.ledger.now)

    async def account(self, account: bytes) -> AccountState:
        return self.ledger.account(account)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        rows = [row for row in self.ledger.transactions.get(account, []) if row.lt <= lt]
        return tuple(rows[::-1][:limit])

    async def send(self, message: Cell) -> bytes:
        self.ledger.send_external(message)
        return bytes(message.hash)

    async def close(self) -> None: ...
