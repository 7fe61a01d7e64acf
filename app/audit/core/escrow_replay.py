"""An escrow's life told again from its messages alone: contracts/escrow.fc's rules, to compare with its state.

Only transactions that succeeded count; gas is priced as each of them paid for it, storage at the prices given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from app.audit.core.escrow_told import Event, Told, ToldRow, Unexplained
from app.audit.core.history import brought, phases, spent
from app.audit.core.messages import op_of, payment, succeeded
from chain.api import Transaction
from wrappers.claims import Entry
from wrappers.escrow import EscrowConfig, FirstAllotment
from wrappers.gas import Gas, Size
from wrappers.ops import Op
from wrappers.prices import Prices
from wrappers.rows import ENDED, KeyRow, RowTerms, part


def tell(history: Sequence[Transaction], owner: bytes, prices: Prices) -> Told | None:
    """None where no birth is in the history. Raises Unexplained."""
    told: Told | None = None
    balance = 0
    for one in history:
        if one.in_msg is not None and not one.in_msg.external and succeeded(one):
            op = 0 if one.in_msg.bounced else op_of(one.in_msg.body) or 0
            body = one.in_msg.body.begin_parse()
            if op:
                body.skip_bits(32)
            event = Event(one, body, brought(one), balance - phases(one).storage_nano + brought(one), prices)
            try:
                told = _born(event, owner) if told is None and op == Op.INIT else told
                if told is not None and op != Op.INIT:
                    _backed(told, event)
                    _RULES.get(op, _unknown)(told, event)
            except Unexplained:
                raise
            except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
                raise Unexplained(f"the message at lt {one.lt} was taken and cannot be read: {error}") from error
        balance += brought(one) - spent(one)
    return told


def _born(event: Event, owner: bytes) -> Told:
    assert event.transaction.in_msg is not None
    config_cell, terms = event.body.load_ref(), event.body.load_ref().begin_parse()
    terms.skip_bits(64)
    cells, bits = terms.load_uint(16), terms.load_uint(32)
    s = config_cell.begin_parse()
    config = EscrowConfig(s.load_bytes(32))
    first = s.load_maybe_ref()
    deposit = event.value_nano - _own_rent(event, cells, bits) - event.gas(Gas.ESCROW_INIT)
    told = Told(owner, deposit, (cells, bits), config.voucher_key)
    if first is not None:
        f = first.begin_parse()
        allotment = FirstAllotment(f.load_bytes(32), f.load_coins() or 0, RowTerms.from_cell(f.load_ref()))
        told.add_row(allotment.node, ToldRow(event.transaction.lt, allotment.amount_nano, allotment.terms))
        told.deposit_nano -= _row_rent(event, allotment.terms)
    return told


def _own_rent(event: Event, cells: int, bits: int) -> int:
    return event.rent(cells + Size.ESCROW_DATA_CELLS, bits + Size.ESCROW_DATA_BITS)


def _row_rent(event: Event, terms: RowTerms) -> int:
    rent = event.rent(Size.ROW_CELLS, Size.ROW_BITS)
    return rent + (event.rent(1, Size.SHARES_BITS) if terms.share else 0)


def _backed(told: Told, event: Event) -> None:
    """Rent that has used up its reserve is the owner's loss."""
    told.deposit_nano = min(told.deposit_nano, event.balance_nano - event.value_nano - told.accrued_nano)


def _top_up(told: Told, event: Event) -> None:
    told.deposit_nano += event.value_nano - event.gas(Gas.TOP_UP)


def _allot(told: Told, event: Event) -> None:
    node, amount, terms = event.body.load_bytes(32), event.body.load_coins() or 0, event.body.load_ref()
    row = ToldRow(event.transaction.lt, amount, RowTerms.from_cell(terms))
    gas = Gas.ALLOT_SHARED if row.terms.share else Gas.ALLOT
    told.add_row(node, row)
    told.deposit_nano += event.value_nano - event.gas(gas) - _row_rent(event, row.terms)


def _raise(told: Told, event: Event) -> None:
    node, amount = event.body.load_bytes(32), event.body.load_coins() or 0
    row = _row(told, node, event)
    row.allotted_nano += amount
    row.seqno += 1
    told.deposit_nano += event.value_nano - event.gas(Gas.RAISE)


def _row(told: Told, node: bytes, event: Event) -> ToldRow:
    row = told.rows.get(node)
    if row is None:
        raise Unexplained(f"the message at lt {event.transaction.lt} was taken for node {node.hex()}, which has no row")
    return row


def _saved(told: Told, node: bytes) -> None:
    row = told.rows[node]
    if row.allotted_nano == row.paid_nano:
        row.closing_at = ENDED
        if not row.terms.share or not row.paid_nano:
            del told.rows[node]


def _released(told: Told, event: Event, node: bytes, allotted: int) -> None:
    row = _row(told, node, event)
    row.allotted_nano = allotted
    row.seqno += 1
    _saved(told, node)


def _lower(told: Told, event: Event) -> None:
    _released(told, event, event.body.load_bytes(32), event.body.load_uint(64))


def _tick(told: Told, event: Event, node: bytes) -> None:
    row = _row(told, node, event)
    if not row.closing_at:
        row.closing_at = event.transaction.now + row.terms.close_timer
        _saved(told, node)


def _reclaim(told: Told, event: Event) -> None:
    _tick(told, event, event.body.load_bytes(32))


def _withdraw(told: Told, event: Event) -> None:
    told.deposit_nano -= (event.body.load_coins() or 0) or told.free_nano


def _close(told: Told, event: Event) -> None:
    following = event.body.load_maybe_ref()
    while following is not None:
        s = following.begin_parse()
        node, allotted = s.load_bytes(32), s.load_uint(64)
        s.skip_bits(512)
        following = s.load_maybe_ref()
        _released(told, event, node, allotted)
    for node in list(told.rows):
        _tick(told, event, node)
    told.closing = True
    told.deposit_nano -= max(told.free_nano, 0)


def _finish(told: Told, event: Event) -> None:
    for node, row in list(told.rows.items()):
        if row.closing_at and event.transaction.now >= row.closing_at:
            row.allotted_nano = row.paid_nano
            _saved(told, node)
    message = event.transaction.in_msg
    assert message is not None
    free = max(told.free_nano, 0) if told.closing else 0
    # A stranger's finish leaves what would not be worth a message of its own.
    if message.source == told.owner or free > event.prices.forward(0, 0):
        told.deposit_nano -= free


def _order_job(told: Told, event: Event) -> None:
    told.deposit_nano -= event.body.load_coins() or 0


def _pay_shares(told: Told, event: Event) -> None:
    node = event.body.load_bytes(32)
    row = _row(told, node, event)
    shares = row.terms.shares
    if shares is None:
        raise Unexplained(f"shares left at lt {event.transaction.lt} from a row that pays none")
    total = row.accrued_nano
    ended = row.closing_at == ENDED
    left = min(total, event.balance_nano - event.value_nano)
    least = event.prices.forward(0, 0) if ended else 0
    for share in (shares.relayer_share, shares.royalty_share, shares.fee.share if shares.fee else 0):
        amount = min(part(row.paid_nano, share) - part(row.paid_out_nano, share), left)
        left -= amount if amount >= least else 0
    told.deposit_nano += left
    if ended:
        del told.rows[node]
    else:
        row.paid_out_nano = row.paid_nano


def _settle(told: Told, event: Event) -> None:
    message = event.transaction.in_msg
    assert message is not None and message.source is not None
    row = _row(told, message.source, event)
    key, acked_only = event.body.load_bytes(32), bool(event.body.load_bit())
    entry = Entry.from_cell(event.body.load_ref())
    known = row.keys.get(key, KeyRow())
    cap, acked = max(known.cap_nano, entry.cap_nano), max(known.acked_nano, entry.acked_nano)
    target = min(entry.cumulative_nano, acked if acked_only else cap)
    pay = min(target - known.paid_nano, row.allotted_nano - row.paid_nano, told.deposit_nano)
    kept = part(row.paid_nano + pay, row.terms.share) - part(row.paid_nano, row.terms.share)
    sent = [found for one in event.transaction.out_msgs if (found := payment(one)) is not None]
    if len(sent) != 1 or sent[0].amount_nano != pay - kept:
        amounts = [one.amount_nano for one in sent]
        raise Unexplained(
            f"at lt {event.transaction.lt} node {message.source.hex()} was due {pay - kept}, sent {amounts}"
        )
    if row.current not in (None, key):
        row.old.add(row.current)
    row.current = key
    row.keys[key] = KeyRow(known.paid_nano + pay, cap, acked, max(known.seq, entry.seq))
    row.paid_nano += pay
    told.deposit_nano -= pay
    told.paid_nano[message.source] = told.paid_nano.get(message.source, 0) + pay - kept


def _rotate(told: Told, event: Event) -> None:
    told.next_key = event.body.load_bytes(32)


def _apply(told: Told, event: Event) -> None:
    told.voucher_key = told.next_key or told.voucher_key
    told.next_key = None


def _give_up(told: Told, event: Event) -> None:
    node, key = event.body.load_bytes(32), event.body.load_bytes(32)
    row = _row(told, node, event)
    row.keys.pop(key, None)
    row.old.discard(key)


def _return_rent(told: Told, event: Event) -> None:
    needed = _own_rent(event, *told.code_size)
    for row in told.rows.values():
        needed += _row_rent(event, row.terms) + len(row.old) * event.rent(Size.KEY_ROW_CELLS, Size.KEY_ROW_BITS)
    if told.next_key is not None:
        needed += event.rent(1, Size.NEXT_KEY_BITS)
    told.deposit_nano = event.balance_nano - event.value_nano - told.accrued_nano - needed


def _unknown(told: Told, event: Event) -> None:
    raise Unexplained(f"the escrow took a message at lt {event.transaction.lt} that no rule knows")


_RULES: Mapping[int, Callable[[Told, Event], None]] = {
    0: _top_up,
    Op.TOP_UP: _top_up,
    Op.SETTLE: _settle,
    Op.ALLOT: _allot,
    Op.ALLOT_SHARED: _allot,
    Op.RAISE: _raise,
    Op.LOWER: _lower,
    Op.RECLAIM: _reclaim,
    Op.WITHDRAW: _withdraw,
    Op.CLOSE: _close,
    Op.FINISH: _finish,
    Op.ORDER_JOB: _order_job,
    Op.PAY_SHARES: _pay_shares,
    Op.ROTATE_VOUCHER_KEY: _rotate,
    Op.APPLY_VOUCHER_KEY: _apply,
    Op.GIVE_UP_KEY: _give_up,
    Op.RETURN_RENT: _return_rent,
}
