"""The reference of a node."""

from __future__ import annotations

from dataclasses import replace

from market_model import BAD_SIGNATURE, LOW_VALUE, NOT_ALLOWED, UNKNOWN_OP, Arrival, Outcome, require
from pytoniq_core import Slice, begin_cell

from wrappers.addresses import Kind, child_address
from wrappers.claims import ClaimMessage, Entry, spines
from wrappers.code import Contract, rare_program
from wrappers.gas import TEN_YEARS, Gas, Size
from wrappers.job import accepted
from wrappers.node import NO_KEY, NodeConfig, NodeExtras, NodeState, RetiredKey
from wrappers.node_rare import MAX_OFFERS
from wrappers.ops import Op
from wrappers.receipts import Receipt, Terms
from wrappers.signed import Acceptance, Claim, KeyConsent, Notary, allotment_id, job_id, node_id, verify
from wrappers.verdicts import VerdictBody

WRONG_SEQNO, WRONG_TIME, KEY_ENDED, _, LOW_RESERVE, WRONG_EPOCH, OLD_VERDICT = range(400, 407)
UNBONDING, TOO_MANY_KEYS, WRONG_RECEIPT, NOT_GENUINE, NOTHING_TO_COLLECT, TOO_EARLY = range(407, 413)
NO_CONSENT, WRONG_PLATFORM, DEAD_KEY, NOT_SERVING, TOO_MANY_OFFERS, NO_OFFER = range(413, 419)
BAD_TERMS = 203
SETTINGS = frozenset(
    (
        Op.OFFER_CONTROLLER,
        Op.ACCEPT_CONTROLLER,
        Op.OFFER_PAYOUT,
        Op.ACCEPT_PAYOUT,
        Op.SET_RELEASE_KEY,
        Op.SET_OFFER,
        Op.DROP_OFFER,
        Op.DRAIN,
    )
)
RARE = SETTINGS | {
    Op.TOP_UP_STAKE,
    Op.COLLECT,
    Op.UNBOND,
    Op.WITHDRAW_STAKE,
    Op.ACCEPT_JOB,
    Op.NOTARISE,
    Op.STANDING,
    Op.SLASH,
}


def born(a: Arrival, state: NodeState) -> NodeState:
    _, s = a.parse()
    config = NodeConfig.from_cell(s.load_ref())
    return replace(
        state,
        seqno=0,
        tokens=0,
        node_id=node_id(a.network, a.account, a.lt),
        signing_key=None,
        acked_only=False,
        claims_until=0,
        stake_nano=a.value - state.gas_level_nano - a.fees.prices.gas(Gas.NODE_INIT) - a.fees.node_rent(),
        rent_reserve_nano=a.fees.node_rent(),
        requests=0,
        earned_nano=0,
        unbond_at=0,
        epoch=a.lt,
        retired={},
        measurement=None,
        platform=None,
        controller=config.controller,
        payout=config.payout,
        release_key=config.release_key,
        extras=None,
    )


def locked(state: NodeState) -> int:
    return state.stake_nano + state.rent_reserve_nano


def claim(state: NodeState, a: Arrival) -> Outcome:
    """A batch, which comes from outside."""
    message = ClaimMessage.from_cell(a.body)
    count = a.body.begin_parse().skip_bits(512 + 32).load_uint(8)
    require(message.seqno == state.seqno, WRONG_SEQNO)
    require(a.now <= state.claims_until, KEY_ENDED)
    require(a.now < message.valid_until <= a.now + 120, WRONG_TIME)
    entries, roots = spines(message.entries)
    signed = Claim(
        state.node_id,
        message.seqno,
        message.valid_until,
        count,
        message.tokens,
        bytes(entries.hash),
        bytes(roots.hash),
    )
    key = state.signing_key or NO_KEY
    require(verify(signed, message.signature, key), BAD_SIGNATURE)
    require(a.base >= locked(state) + a.fees.claim_need(count), LOW_RESERVE)
    bodies = tuple(settle_body(key, state.acked_only, item.entry) for item in message.entries)
    return Outcome(replace(state, seqno=state.seqno + 1, tokens=message.tokens), None, bodies)


def settle_body(key: bytes, acked_only: bool, entry: Entry) -> bytes:
    body = begin_cell().store_uint(Op.SETTLE, 32).store_bytes(key).store_bit(int(acked_only))
    return bytes(body.store_ref(entry.to_cell()).end_cell().hash)


def step(state: NodeState, a: Arrival) -> Outcome:
    if a.sender is None:
        return claim(state, a)
    op, s = a.parse()
    if op == 0:
        return Outcome(state, a.all_kept)
    if op == Op.PAID:
        return _paid(state, a, s)
    if op == Op.CLAIM_RECEIPT:
        return _claim_receipt(state, a, s)
    if op == Op.VERDICT:
        return _verdict(state, a, s)
    if op == Op.INIT:
        require(a.sender == state.registry, NOT_ALLOWED)
        return Outcome(state, a.base)
    require(bool(a.body.refs) and a.body.refs[-1].hash == rare_program(Contract.NODE).hash, UNKNOWN_OP)
    require(op in RARE, UNKNOWN_OP)
    return _rare(state, a, Op(op), s)


# ------------------------------------------------------------------------------------------ money and keys


def _paid(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    amount, requests = s.load_uint(64), s.load_uint(40)
    kind, owner, index = Kind.JOB if s.load_bit() else Kind.ESCROW, s.load_bytes(32), s.load_uint(32)
    require(a.sender == child_address(state.registry, kind, owner, index), NOT_GENUINE)
    after = replace(state, earned_nano=state.earned_nano + amount, requests=state.requests + requests)
    keep = locked(state) + state.gas_level_nano
    forwarded = a.base + a.value > keep + state.payout_threshold_nano and a.all_kept > keep
    return Outcome(after, keep if forwarded else a.all_kept)


def _deadline(state: NodeState, key: bytes) -> tuple[int, bool]:
    """(last second at which the key's claims are taken, whether only up to acked)"""
    if key == (state.signing_key or NO_KEY):
        return state.claims_until, state.acked_only
    require(key in state.retired, KEY_ENDED)
    return state.retired[key].ends_at, state.retired[key].acked_only


def _claim_receipt(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.claim_receipt(), LOW_VALUE)
    key, escrow, epoch = s.load_bytes(32), s.load_bytes(32), s.load_uint(64)
    receipt, signature, entry = (
        Receipt.from_cell(s.load_ref()),
        s.load_ref().begin_parse().load_bytes(64),
        Entry.from_cell(s.load_ref()),
    )
    deadline, acked_only = _deadline(state, key)
    require(a.now <= deadline and key != NO_KEY, KEY_ENDED)
    require(verify(receipt, signature, key), BAD_SIGNATURE)
    bound = receipt.allotment == allotment_id(a.network, escrow, epoch, a.account) and receipt.node == state.node_id
    same = (receipt.cumulative_nano, receipt.seq, receipt.terms) == (entry.cumulative_nano, entry.seq, entry.terms)
    require(bound and same, WRONG_RECEIPT)
    return Outcome(state, a.base, (settle_body(key, acked_only, entry),))


def _verdict(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(state.unbond_at == 0, UNBONDING)
    require(a.sender == state.attestation, NOT_ALLOWED)
    s.skip_bits(224)
    v, consent = VerdictBody.from_cell(s.load_ref()), s.load_maybe_ref()
    require(v.epoch == state.epoch, WRONG_EPOCH)
    fresh = v.block_seqno > state.block_seqno and v.attested_until > a.now and v.key != NO_KEY
    require(fresh, OLD_VERDICT)
    retired = dict(state.retired)
    if state.signing_key is not None:
        require(v.platform == state.platform, WRONG_PLATFORM)
        assert state.measurement is not None
        ends = min(state.claims_until, a.now + state.claim_window)
        retired[state.signing_key] = RetiredKey(ends, state.acked_only, state.measurement)
    known = retired.pop(v.key, None)
    if known is not None:
        require(not known.acked_only and known.measurement == v.measurement, DEAD_KEY)
    if v.key != state.signing_key:
        require(consent is not None, NO_CONSENT)
        assert consent is not None
        signature = consent.begin_parse().load_bytes(64)
        require(verify(KeyConsent(state.node_id, v.key), signature, state.release_key), NO_CONSENT)
    cursor = v.key
    for _ in range(2):  # two looks, in order of keys, from the new one on
        cursor = min((k for k in retired if k > cursor), default=min(retired, default=NO_KEY))
        if cursor in retired and retired[cursor].ends_at < a.now - state.challenge_window:
            del retired[cursor]
    require(len(retired) <= 32, TOO_MANY_KEYS)
    after = replace(
        state,
        signing_key=v.key,
        acked_only=False,
        claims_until=v.attested_until + state.claim_window,
        block_seqno=v.block_seqno,
        tier=v.tier,
        retired=retired,
        measurement=v.measurement,
        platform=v.platform,
    )
    return Outcome(after, a.all_kept)


def _end_term(state: NodeState, a: Arrival) -> NodeState:
    return replace(state, claims_until=min(state.claims_until, a.now + state.claim_window))


def _distrusted(state: NodeState, every: bool, image: bytes) -> NodeState:
    retired = {
        key: replace(term, acked_only=term.acked_only or every or term.measurement == image)
        for key, term in state.retired.items()
    }
    return replace(state, acked_only=state.acked_only or every or state.measurement == image, retired=retired)


# ------------------------------------------------------------------------------------------ rare


def _rare(state: NodeState, a: Arrival, op: Op, s: Slice) -> Outcome:
    if op in SETTINGS:
        return _setting(state, a, op, s)
    if op == Op.STANDING:
        return _standing(state, a, s)
    if op == Op.SLASH:
        return _slash(state, a, s)
    if op == Op.ACCEPT_JOB:
        return _accept_job(state, a, s)
    if op == Op.NOTARISE:
        return _notarise(state, a, s)
    if op == Op.COLLECT:
        require(a.value >= a.fees.collect(), LOW_VALUE)
        keep = locked(state) + state.gas_level_nano
        require(a.base > keep, NOTHING_TO_COLLECT)
        return Outcome(state, keep)
    if op == Op.TOP_UP_STAKE:
        require(state.unbond_at == 0, UNBONDING)
        added = a.value - a.fees.top_up_stake()
        require(added > 0, LOW_VALUE)
        return Outcome(replace(state, stake_nano=state.stake_nano + added), a.all_kept)
    require(a.sender == state.controller, NOT_ALLOWED)
    if op == Op.UNBOND:
        require(state.unbond_at == 0, UNBONDING)
        return Outcome(_end_term(replace(state, unbond_at=a.now), a), a.all_kept)
    assert op == Op.WITHDRAW_STAKE
    ripe = state.withdrawable_at is not None and a.now >= state.withdrawable_at
    require(ripe, TOO_EARLY)
    return Outcome(None, 0)


def _standing(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(a.sender == state.attestation, NOT_ALLOWED)
    image, machine, status = s.load_bytes(32), s.load_bytes(32), s.load_uint(8)
    if state.measurement is None:
        return Outcome(state, a.all_kept)
    platform_status = status & 12 if machine == state.platform else 0
    image_status = status & 3
    if image_status & 2:
        state = _distrusted(state, False, image)
    if platform_status & 4:
        state = _distrusted(state, True, image)
    if platform_status or (image_status and image == state.measurement):
        state = _end_term(state, a)
    return Outcome(state, a.all_kept)


def _slash(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(a.sender == state.court, NOT_ALLOWED)
    epoch, key, penalty = s.load_uint(64), s.load_bytes(32), s.load_coins() or 0
    stake = min(locked(state), a.base) - state.rent_reserve_nano
    known = key != NO_KEY and (key == state.signing_key or key in state.retired)
    if epoch != state.epoch or not known or stake <= 0:
        return Outcome(state, a.base)
    whole = penalty == 0
    taken = stake if whole else min(penalty, stake)
    after = replace(state, stake_nano=state.stake_nano - taken)
    if whole:
        after = _end_term(replace(after, unbond_at=after.unbond_at or a.now), a)
        after = _distrusted(after, True, b"")
    return Outcome(after, a.base - taken)


def _accept_job(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.accept_job(), LOW_VALUE)
    job, epoch, spec, key = s.load_bytes(32), s.load_uint(64), s.load_bytes(32), s.load_bytes(32)
    signature = s.load_ref().begin_parse().load_bytes(64)
    serving = key == state.signing_key and state.key_attested(key, a.now)
    require(serving, NOT_SERVING)
    id_ = job_id(a.network, job, epoch, spec)
    signed = Acceptance(id_, state.node_id)
    require(verify(signed, signature, key), BAD_SIGNATURE)
    stake_until = a.now + state.claim_window + state.challenge_window
    body = accepted(id_, state.epoch, key, bytes(rare_program(Contract.NODE).hash), stake_until)
    return Outcome(state, a.base, (bytes(body.hash),))


def _notarise(state: NodeState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.notarise(), LOW_VALUE)
    hash_, key = s.load_bytes(32), s.load_bytes(32)
    signature = s.load_ref().begin_parse().load_bytes(64)
    deadline, acked_only = _deadline(state, key)
    require(not acked_only, DEAD_KEY)
    require(a.now <= deadline and key != NO_KEY, KEY_ENDED)
    require(verify(Notary(state.node_id, hash_), signature, key), BAD_SIGNATURE)
    return Outcome(state, a.base)


def _setting(state: NodeState, a: Arrival, op: Op, s: Slice) -> Outcome:
    extras, rent = state.extras, 0
    if extras is None and op != Op.SET_RELEASE_KEY:
        rent = a.fees.prices.storage(Size.EXTRAS_CELLS, Size.EXTRAS_BITS, TEN_YEARS)
        extras = NodeExtras()
    allowed: bytes | None = state.controller
    if op == Op.ACCEPT_CONTROLLER:
        allowed = extras.new_controller if extras else None
    if op == Op.ACCEPT_PAYOUT:
        allowed = extras.new_payout if extras else None
    require(allowed is not None and a.sender == allowed, NOT_ALLOWED)
    assert a.sender is not None
    if op == Op.SET_RELEASE_KEY:
        state = replace(state, release_key=s.load_bytes(32))
    else:
        assert extras is not None
        offers = dict(extras.offers)
        if op == Op.OFFER_CONTROLLER:
            extras = replace(extras, new_controller=_named(s.load_bytes(32)))
        elif op == Op.ACCEPT_CONTROLLER:
            state, extras = replace(state, controller=a.sender), replace(extras, new_controller=None)
        elif op == Op.OFFER_PAYOUT:
            extras = replace(extras, new_payout=_named(s.load_bytes(32)))
        elif op == Op.ACCEPT_PAYOUT:
            state, extras = replace(state, payout=a.sender), replace(extras, new_payout=None)
        elif op == Op.SET_OFFER:
            model, terms = s.load_bytes(32), Terms.from_cell(s.load_ref())
            require(terms.model == model, BAD_TERMS)
            if model not in offers:
                rent += a.fees.prices.storage(Size.OFFER_CELLS, Size.OFFER_BITS, TEN_YEARS)
            offers[model] = terms
            require(len(offers) <= MAX_OFFERS, TOO_MANY_OFFERS)
        elif op == Op.DROP_OFFER:
            model = s.load_bytes(32)
            require(model in offers, NO_OFFER)
            del offers[model]
        else:
            extras = replace(extras, draining=bool(s.load_bit()))
        extras = replace(extras, offers=offers)
    require(a.value >= a.fees.change_setting() + rent, LOW_VALUE)
    after = replace(state, extras=extras, rent_reserve_nano=state.rent_reserve_nano + rent)
    return Outcome(after, a.base + rent)


def _named(account: bytes) -> bytes | None:
    return None if account == NO_KEY else account
