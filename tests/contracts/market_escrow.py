"""The reference of an escrow. Read beside DESIGN, not beside the FunC: it says what is promised."""

from __future__ import annotations

from dataclasses import replace

from market_model import BAD_SIGNATURE, LOW_VALUE, NOT_ALLOWED, UNKNOWN_OP, Arrival, Outcome, require
from pytoniq_core import Slice, begin_cell

from wrappers import claims
from wrappers import node as node_wrapper
from wrappers.code import Contract, rare_program
from wrappers.escrow import EscrowConfig, EscrowState, FirstAllotment, NextKey
from wrappers.gas import Gas
from wrappers.ops import Op
from wrappers.receipts import Voucher
from wrappers.rows import ENDED, MAX_SHARES, NOBODY, KeyRow, Row, RowTerms, part
from wrappers.signed import Release, allotment_id, verify

NO_ROW, ROW_EXISTS, TOO_MANY_ROWS, TOO_MANY_KEYS, NOTHING_DUE = 500, 501, 502, 503, 504
NOT_FREE, CLOSING, WRONG_AMOUNT, NOT_RIPE, NO_KEY, NO_NEXT_KEY, SMALL_SHARES = 505, 506, 507, 508, 509, 510, 511
BAD_TERMS = 203
RARE = frozenset(
    (
        Op.PAY_SHARES,
        Op.LOWER,
        Op.APPLY_VOUCHER_KEY,
        Op.ORDER_JOB,
        Op.ALLOT_SHARED,
        Op.ROTATE_VOUCHER_KEY,
        Op.RETURN_RENT,
        Op.RECLAIM,
        Op.GIVE_UP_KEY,
    )
)


def born(a: Arrival, state: EscrowState) -> EscrowState:
    """`state`: what the chain says of who it is; its money and its rows are said here."""
    _, s = a.parse()
    config = s.load_ref().begin_parse()
    voucher_key, first_cell = config.load_bytes(32), config.load_maybe_ref()
    deposit = a.value - a.fees.escrow_rent() - a.fees.prices.gas(Gas.ESCROW_INIT)
    rows, reserved = {}, 0
    if first_cell is not None:
        f = first_cell.begin_parse()
        first = FirstAllotment(f.load_bytes(32), f.load_coins() or 0, RowTerms.from_cell(f.load_ref()))
        assert EscrowConfig(voucher_key, first).to_cell().hash == a.body.refs[0].hash
        reserved = first.amount_nano
        deposit -= a.fees.row_rent() + (a.fees.shares_rent() if first.terms.share else 0)
        rows[first.node] = _new_row(state, a, first.node, reserved, first.terms)
    return replace(
        state,
        voucher_key=voucher_key,
        network_id=a.network,
        closing=False,
        deposit_nano=deposit,
        reserved_nano=reserved,
        accrued_nano=0,
        rows=rows,
        next_key=None,
    )


def _new_row(state: EscrowState, a: Arrival, node: bytes, amount: int, terms: RowTerms) -> Row:
    return Row(a.lt, amount, 0, 0, 0, terms, allotment=allotment_id(state.network_id, a.account, a.lt, node))


def step(state: EscrowState, a: Arrival) -> Outcome:
    op, s = a.parse()
    if op == Op.SETTLE:
        return _settle(state, a, s)
    deposit = min(state.deposit_nano, a.base - state.accrued_nano)
    if op in (0, Op.TOP_UP):
        added = a.value - a.fees.top_up()
        require(added > 0, LOW_VALUE)
        return Outcome(replace(state, deposit_nano=deposit + added), a.all_kept)
    state = replace(state, deposit_nano=max(deposit, 0))
    if op in RARE:
        require(bool(a.body.refs) and a.body.refs[-1].hash == rare_program(Contract.ESCROW).hash, UNKNOWN_OP)
        return _rare(state, a, op, s)
    if op in (Op.ALLOT, Op.RAISE):
        _owned(state, a)
        return _reserve(state, a, op == Op.ALLOT, s)
    if op == Op.CLOSE:
        _owned(state, a)
        return _close(state, a, s)
    if op == Op.FINISH:
        return _finish(state, a)
    if op == Op.WITHDRAW:
        _owned(state, a)
        free = s.load_coins() or 0 or state.free_nano
        require(0 < free <= state.free_nano, NOT_FREE)
        return _complete(state, a, state.owner, free, a.fees.withdraw())
    if op == Op.INIT:
        require(a.sender == state.registry, NOT_ALLOWED)
        return _complete(state, a, state.owner, 0, a.fees.withdraw())
    require(False, UNKNOWN_OP)
    raise AssertionError


def _owned(state: EscrowState, a: Arrival) -> None:
    require(a.sender == state.owner, NOT_ALLOWED)


def _row(state: EscrowState, node: bytes) -> Row:
    require(node in state.rows, NO_ROW)
    return state.rows[node]


# ------------------------------------------------------------------------------------------ settle


def _settle(state: EscrowState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.settle_need(), LOW_VALUE)
    deposit = min(state.deposit_nano, a.base - state.accrued_nano)
    assert a.sender is not None
    row = _row(state, a.sender)
    key, acked_only = s.load_bytes(32), bool(s.load_bit())
    entry = claims.Entry.from_cell(s.load_ref())
    voucher = Voucher(row.allotment, key, entry.cap_nano, entry.acked_nano, entry.terms)
    require(verify(voucher, entry.voucher_signature, state.voucher_key), BAD_SIGNATURE)
    require(key != NOBODY, NO_KEY)
    known = row.keys.get(key, KeyRow())
    outdated, rent = row.outdated, 0
    if row.current_key is not None and row.current_key != key:
        if row.outdated is None:
            rent = a.fees.key_row_rent()
            require(key in row.keys or len(row.keys) <= 15, TOO_MANY_KEYS)
        outdated = row.keys.get(key)
    cap, acked = max(known.cap_nano, entry.cap_nano), max(known.acked_nano, entry.acked_nano)
    due = min(entry.cumulative_nano, acked if acked_only else cap) - known.paid_nano
    pay = min(due, row.allotted_nano - row.paid_nano, deposit)
    require(pay > 0, NOTHING_DUE)
    kept = part(row.paid_nano + pay, row.terms.share) - part(row.paid_nano, row.terms.share)
    counters = KeyRow(known.paid_nano + pay, cap, acked, max(known.seq, entry.seq))
    after = replace(
        row, paid_nano=row.paid_nano + pay, keys={**row.keys, key: counters}, current_key=key, outdated=outdated
    )
    body = node_wrapper.paid(2, state.owner, state.index, pay - kept, max(entry.seq - known.seq, 0))
    result = replace(
        state,
        rows={**state.rows, a.sender: after},
        deposit_nano=deposit - pay,
        reserved_nano=state.reserved_nano - pay,
        accrued_nano=state.accrued_nano + kept,
    )
    return Outcome(result, a.base - max(pay - kept - rent, 0), (bytes(body.hash),))


# ------------------------------------------------------------------------------------------ rows


def _saved(state: EscrowState, node: bytes, row: Row) -> EscrowState:
    rows = dict(state.rows)
    if row.allotted_nano == row.paid_nano:
        row = replace(row, closing_at=ENDED)
        if row.terms.share * row.paid_nano == 0:
            del rows[node]
            return replace(state, rows=rows)
    rows[node] = row
    return replace(state, rows=rows)


def _released(state: EscrowState, s: Slice) -> EscrowState:
    node, allotted = s.load_bytes(32), s.load_uint(64)
    row = _row(state, node)
    signed = Release(row.allotment, row.seqno, allotted)
    require(verify(signed, s.load_bytes(64), row.terms.release_key), BAD_SIGNATURE)
    require(row.paid_nano <= allotted <= row.allotted_nano, WRONG_AMOUNT)
    state = replace(state, reserved_nano=state.reserved_nano + allotted - row.allotted_nano)
    return _saved(state, node, replace(row, seqno=row.seqno + 1, allotted_nano=allotted))


def _timed(state: EscrowState, a: Arrival, node: bytes) -> EscrowState:
    row = _row(state, node)
    if row.closing_at:
        return state
    return _saved(state, node, replace(row, closing_at=a.now + row.terms.close_timer))


def _reserve(state: EscrowState, a: Arrival, fresh: bool, s: Slice) -> Outcome:
    node, amount = s.load_bytes(32), s.load_coins() or 0
    require(amount > 0, WRONG_AMOUNT)
    require(not state.closing, CLOSING)
    if fresh:
        terms = RowTerms.from_cell(s.load_ref())
        timer_fits = state.min_close_timer <= terms.close_timer <= state.max_close_timer
        require(timer_fits and terms.shares is None and state.fee is None, BAD_TERMS)
        return _allotted(state, a, node, amount, terms, a.fees.allot())
    row = _row(state, node)
    require(row.closing_at == 0, CLOSING)
    after = replace(row, seqno=row.seqno + 1, allotted_nano=row.allotted_nano + amount)
    return _reserved(_saved(state, node, after), a, amount, a.fees.raise_allotment())


def _allotted(state: EscrowState, a: Arrival, node: bytes, amount: int, terms: RowTerms, cost: int) -> Outcome:
    require(node not in state.rows, ROW_EXISTS)
    require(len(state.rows) < 16, TOO_MANY_ROWS)
    rows = {**state.rows, node: _new_row(state, a, node, amount, terms)}
    return _reserved(replace(state, rows=rows), a, amount, cost)


def _reserved(state: EscrowState, a: Arrival, amount: int, cost: int) -> Outcome:
    require(a.value >= cost, LOW_VALUE)
    deposit, reserved = state.deposit_nano + a.value - cost, state.reserved_nano + amount
    require(reserved <= deposit, NOT_FREE)
    return Outcome(replace(state, deposit_nano=deposit, reserved_nano=reserved), a.all_kept)


# ------------------------------------------------------------------------------------------ ends


def _close(state: EscrowState, a: Arrival, s: Slice) -> Outcome:
    need = a.fees.close(len(state.rows))
    cell = s.load_maybe_ref()
    while cell is not None:
        s = cell.begin_parse()
        state = _released(state, s)
        cell = s.load_maybe_ref()
    for node in sorted(state.rows):
        state = _timed(state, a, node)
    state = replace(state, closing=True)
    return _complete(state, a, state.owner, state.free_nano, need)


def _finish(state: EscrowState, a: Arrival) -> Outcome:
    need, ripe = a.fees.finish(len(state.rows)), False
    for node in sorted(state.rows):
        row = state.rows[node]
        if ENDED < row.closing_at <= a.now:
            ripe = True
            state = replace(state, reserved_nano=state.reserved_nano - row.allotted_nano + row.paid_nano)
            state = _saved(state, node, replace(row, allotted_nano=row.paid_nano))
    ended = state.closing and not state.rows
    require(ripe or ended, NOT_RIPE)
    return _complete(state, a, a.sender, state.free_nano if state.closing else 0, need)


def _complete(state: EscrowState, a: Arrival, receiver: bytes | None, free: int, need: int, kept: int = 0) -> Outcome:
    """`kept`: what the message brings that stays, or, below 0, what left before."""
    require(a.value >= need, LOW_VALUE)
    if state.closing and not state.rows:
        return Outcome(None, 0)
    if free < 0 or (receiver != state.owner and free <= a.fees.prices.forward(0, 0)):
        free = 0
    return Outcome(replace(state, deposit_nano=state.deposit_nano - free), a.base + kept - free)


# ------------------------------------------------------------------------------------------ rare


def _rare(state: EscrowState, a: Arrival, op: int, s: Slice) -> Outcome:
    if op == Op.PAY_SHARES:
        return _pay_shares(state, a, s.load_bytes(32))
    if op == Op.LOWER:
        return _complete(_released(state, s), a, a.sender, 0, a.fees.lower())
    if op == Op.APPLY_VOUCHER_KEY:
        require(state.next_key is not None, NO_NEXT_KEY)
        assert state.next_key is not None
        require(a.now >= state.next_key.ready_at, NOT_RIPE)
        state = replace(state, voucher_key=state.next_key.key, next_key=None)
        return _complete(state, a, a.sender, 0, a.fees.apply_voucher_key())
    _owned(state, a)
    if op == Op.ORDER_JOB:
        return _order(state, a, s)
    if op == Op.ALLOT_SHARED:
        node, amount, terms = s.load_bytes(32), s.load_coins() or 0, RowTerms.from_cell(s.load_ref())
        require(amount > 0, WRONG_AMOUNT)
        require(not state.closing, CLOSING)
        require(_shares_fit(state, terms), BAD_TERMS)
        return _allotted(state, a, node, amount, terms, a.fees.allot_shared())
    if op == Op.ROTATE_VOUCHER_KEY:
        key = s.load_bytes(32)
        require(key != NOBODY, NO_KEY)
        state = replace(state, next_key=NextKey(key, a.now + state.max_close_timer))
        need, kept = a.fees.rotate_voucher_key(), a.fees.next_key_rent()
        return _complete(state, a, a.sender, 0, need, kept)
    if op == Op.RETURN_RENT:
        spare = a.base - state.accrued_nano - state.deposit_nano - rent_needed(state, a)
        require(spare > 0, NOTHING_DUE)
        state = replace(state, deposit_nano=state.deposit_nano + spare)
        return _complete(state, a, a.sender, 0, a.fees.return_rent())
    node = s.load_bytes(32)
    row = _row(state, node)
    if op == Op.RECLAIM:
        require(row.closing_at == 0, CLOSING)
        return _complete(_timed(state, a, node), a, a.sender, 0, a.fees.reclaim())
    assert op == Op.GIVE_UP_KEY
    key = s.load_bytes(32)
    require(key != (row.current_key or NOBODY) and key in row.keys, NO_KEY)
    keys = {known: counters for known, counters in row.keys.items() if known != key}
    state = replace(state, rows={**state.rows, node: replace(row, keys=keys)})
    return _complete(state, a, a.sender, 0, a.fees.give_up_key())


def _shares_fit(state: EscrowState, terms: RowTerms) -> bool:
    shares = terms.shares
    if shares is None or not 0 < shares.total <= MAX_SHARES or shares.fee != state.fee or shares.paid_out_nano:
        return False
    named = (shares.relayer_share > 0) == (shares.relayer != NOBODY)
    named = named and (shares.royalty_share > 0) == (shares.royalty != NOBODY)
    return named and state.min_close_timer <= terms.close_timer <= state.max_close_timer


def rent_needed(state: EscrowState, a: Arrival) -> int:
    """Ten years of everything that is here, at the prices of this moment."""
    needed = a.fees.escrow_rent() + (a.fees.next_key_rent() if state.next_key else 0)
    for row in state.rows.values():
        old = len(row.keys) - (row.current_key is not None) + (row.outdated is not None)
        needed += a.fees.row_rent() + (a.fees.shares_rent() if row.terms.share else 0) + old * a.fees.key_row_rent()
    return needed


def _order(state: EscrowState, a: Arrival, s: Slice) -> Outcome:
    amount, code_and_index, config = s.load_coins() or 0, s.load_bits(288), s.load_ref()
    require(amount > 0, WRONG_AMOUNT)
    require(not state.closing, CLOSING)
    require(amount <= state.free_nano, NOT_FREE)
    require(a.value >= a.fees.order_job(config), LOW_VALUE)
    body = begin_cell().store_uint(Op.OPEN_JOB, 32).store_bits(code_and_index).store_ref(config).end_cell()
    return Outcome(replace(state, deposit_nano=state.deposit_nano - amount), a.base - amount, (bytes(body.hash),))


def _pay_shares(state: EscrowState, a: Arrival, node: bytes) -> Outcome:
    require(a.value >= a.fees.pay_shares(), LOW_VALUE)
    row = _row(state, node)
    shares = row.terms.shares
    require(shares is not None and shares.total > 0, NOTHING_DUE)
    assert shares is not None
    ended = row.closing_at == ENDED
    way = a.fees.prices.forward(0, 0)
    due = min(row.accrued_nano, a.base)
    left = due
    treasury = shares.fee.share if shares.fee else 0
    for share in (shares.relayer_share, shares.royalty_share, treasury):
        if share:
            amount = min(part(row.paid_nano, share) - part(shares.paid_out_nano, share), left)
            if amount >= (1 if ended else 10) * way:
                left -= amount
            else:
                require(ended, SMALL_SHARES)
    rows = dict(state.rows)
    if ended:
        del rows[node]
    else:
        terms = replace(row.terms, shares=replace(shares, paid_out_nano=row.paid_nano))
        rows[node] = replace(row, terms=terms)
    state = replace(
        state,
        rows=rows,
        accrued_nano=state.accrued_nano - row.accrued_nano,
        deposit_nano=state.deposit_nano + left,
    )
    need = a.fees.prices.gas(Gas.PAY_SHARES) + 2 * way
    return _complete(state, a, a.sender, 0, need, left - due)
