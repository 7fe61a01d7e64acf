"""The references of a job, and of the registry's governance."""

from __future__ import annotations

from dataclasses import replace

from market_model import BAD_SIGNATURE, LOW_VALUE, NOT_ALLOWED, UNKNOWN_OP, Arrival, Outcome, Refusal, require
from pytoniq_core import Cell, Slice

from wrappers.court import Accused, missed
from wrappers.job import Acceptance, JobConfig, JobState
from wrappers.job import Outcome as Result
from wrappers.node import paid
from wrappers.ops import Op
from wrappers.registry import MAX_PROPOSALS, PROPOSAL_LIFE, Proposal, Rebuilders, RegistryState
from wrappers.rows import NOBODY
from wrappers.signed import Delivery, JobResult, job_id, verify

JOB_ACCEPTED, NOT_ACCEPTED, HAS_RESULT, NO_RESULT, TOO_LATE, NOT_DUE, OVER_MAXIMUM, WRONG_PROGRAM = range(800, 808)
NO_PROPOSAL, NOT_READY, PROPOSAL_OVER, TOO_MANY_PROPOSALS, NOT_ENDORSED = range(206, 211)
BAD_PARAMETERS, NOT_COVERED, OTHER_JOB = 204, 808, 809
NARROWING = (Op.REVOKE_IMAGE, Op.DENY_PLATFORM, Op.DROP_TCB)
OWN_ACTIONS = (Op.SETTINGS, Op.ALLOW_MODEL, Op.SET_REBUILDERS)
OPENINGS = (Op.OPEN_NODE, Op.OPEN_ESCROW, Op.OPEN_JOB)


def born(a: Arrival, state: JobState) -> JobState:
    _, s = a.parse()
    config = JobConfig.from_cell(s.load_ref())
    id_ = job_id(a.network, a.account, a.lt, config.spec)
    return replace(state, job_id=id_, epoch=a.lt, acceptance=None, outcome=None, config=config)


def step(state: JobState, a: Arrival) -> Outcome:
    op, s = a.parse()
    if op == 0:
        return Outcome(state, a.all_kept)
    if op == Op.ACCEPTED:
        return _accepted(state, a, s)
    if op == Op.JOB_POSTED:
        return _posted(state, a, s)
    if op == Op.REFUND:
        return _refund(state, a, s.load_maybe_ref())
    if op == Op.INIT:
        require(a.sender == state.registry, NOT_ALLOWED)
        return Outcome(state, a.base)
    require(op in (Op.DELIVER, Op.FINISH_JOB), UNKNOWN_OP)
    require(state.outcome is not None, NO_RESULT)
    assert state.outcome is not None and state.acceptance is not None and state.payable_at is not None
    if op == Op.DELIVER:
        signed = Delivery(state.job_id, state.outcome.result)
        require(verify(signed, s.load_bytes(64), state.config.delivery_key), BAD_SIGNATURE)
    else:
        require(a.now >= state.payable_at, NOT_DUE)
    require(a.value >= a.fees.finish_job(), LOW_VALUE)
    amount = min(state.outcome.amount_nano, a.base)
    return Outcome(None, 0, (bytes(paid(3, state.owner, state.index, amount, 1).hash),))


def _accepted(state: JobState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.job_accepted(), LOW_VALUE)
    id_ = s.load_bytes(32)
    epoch, key, program, stake_until = s.load_uint(64), s.load_bytes(32), s.load_bytes(32), s.load_uint(32)
    require(a.sender in state.config.nodes, NOT_ALLOWED)
    require(id_ == state.job_id, OTHER_JOB)
    require(state.acceptance is None, JOB_ACCEPTED)
    require(a.now <= state.config.deadline, TOO_LATE)
    require(stake_until >= state.config.deadline + state.config.grace + 3600, NOT_COVERED)
    assert a.sender is not None
    return Outcome(replace(state, acceptance=Acceptance(a.sender, epoch, key, program)), a.base)


def _posted(state: JobState, a: Arrival, s: Slice) -> Outcome:
    require(a.value >= a.fees.job_posted(), LOW_VALUE)
    result, amount, inner = s.load_bytes(32), s.load_uint(64), s.load_bytes(32)
    signature = s.load_ref().begin_parse().load_bytes(64)
    require(state.acceptance is not None, NOT_ACCEPTED)
    require(state.outcome is None, HAS_RESULT)
    require(a.now <= state.config.deadline + state.config.grace, TOO_LATE)
    require(amount <= state.config.maximum_nano, OVER_MAXIMUM)
    assert state.acceptance is not None
    signed = JobResult(state.job_id, result, amount, inner)
    require(verify(signed, signature, state.acceptance.key), BAD_SIGNATURE)
    return Outcome(replace(state, outcome=Result(result, amount, inner, a.now)), a.base)


def _refund(state: JobState, a: Arrival, program: Cell | None) -> Outcome:
    require(state.outcome is None, HAS_RESULT)
    assert state.refundable_at is not None and a.sender is not None
    require(a.now >= state.refundable_at, NOT_DUE)
    if state.acceptance is None:
        require(a.value >= a.fees.refund(None), LOW_VALUE)
        return Outcome(None, 0)
    require(program is not None and bytes(program.hash) == state.acceptance.program, WRONG_PROGRAM)
    assert program is not None
    require(a.value >= a.fees.refund(program), LOW_VALUE)
    accused = Accused(state.acceptance.node, state.acceptance.node_epoch, state.acceptance.key)
    body = missed(state.owner, state.index, state.config.maximum_nano, a.sender, accused, program)
    return Outcome(None, 0, (bytes(body.hash),))


# ------------------------------------------------------------------------------------------ the registry


def registry_step(state: RegistryState, a: Arrival) -> Outcome:
    """Governance; of an opening, only that it changes nothing here: the child's birth says the rest."""
    op, s = a.parse()
    if a.bounced or op in (0, *OPENINGS):
        return Outcome(state, None)
    if op == Op.ENDORSE:
        hash_ = s.load_bytes(32)
        require(a.sender in state.rebuilders.accounts, NOT_ALLOWED)
        proposal = _proposal(state, hash_)
        assert a.sender is not None
        after = replace(proposal, endorsed=proposal.endorsed | {a.sender})
        return Outcome(replace(state, proposals={**state.proposals, hash_: after}), a.base)
    if op == Op.ACCEPT_GOVERNOR:
        require(a.sender == (state.candidate or NOBODY), NOT_ALLOWED)
        assert a.sender is not None
        return Outcome(replace(state, governor=a.sender, candidate=None), a.base)
    known = (Op.PROPOSE, Op.EXECUTE, Op.CANCEL, Op.OFFER_GOVERNOR, Op.STOP_OPENING, Op.REVOKE_MODEL, *NARROWING)
    require(op in known, UNKNOWN_OP)
    require(a.sender == state.governor, NOT_ALLOWED)
    if op in NARROWING:
        require(a.value >= a.fees.governed(), LOW_VALUE)
        return Outcome(state, a.base)
    if op == Op.PROPOSE:
        return Outcome(_proposed(state, a, s.load_ref()), a.base)
    if op == Op.EXECUTE:
        return _executed(state, a, s.load_ref())
    if op == Op.CANCEL:
        hash_ = s.load_bytes(32)
        _proposal(state, hash_)
        return Outcome(replace(state, proposals=_without(state, hash_)), a.base)
    if op == Op.OFFER_GOVERNOR:
        offered = s.load_bytes(32)
        return Outcome(replace(state, candidate=None if offered == NOBODY else offered), a.base)
    if op == Op.STOP_OPENING:
        stopped = state.stopped | s.load_uint(8)
        require(stopped <= 7, BAD_PARAMETERS)
        return Outcome(replace(state, stopped=stopped), a.base)
    return _model(state, a, s.load_bytes(32), True)


def _proposal(state: RegistryState, hash_: bytes) -> Proposal:
    require(hash_ in state.proposals, NO_PROPOSAL)
    return state.proposals[hash_]


def _without(state: RegistryState, hash_: bytes) -> dict[bytes, Proposal]:
    return {key: proposal for key, proposal in state.proposals.items() if key != hash_}


def _proposed(state: RegistryState, a: Arrival, action: Cell) -> RegistryState:
    tag = action.begin_parse().load_uint(32)
    others = {k: p for k, p in _without(state, bytes(action.hash)).items() if a.now <= p.ready_at + PROPOSAL_LIFE}
    require(len(others) < MAX_PROPOSALS, TOO_MANY_PROPOSALS)
    proposal = Proposal(a.now + state.time_lock, tag == Op.SETTINGS)
    return replace(state, proposals={**others, bytes(action.hash): proposal})


def _executed(state: RegistryState, a: Arrival, action: Cell) -> Outcome:
    s = action.begin_parse()
    tag = s.load_uint(32)
    proposal = _proposal(state, bytes(action.hash))
    require(a.now >= proposal.ready_at, NOT_READY)
    require(a.now <= proposal.ready_at + PROPOSAL_LIFE, PROPOSAL_OVER)
    rest = _without(state, bytes(action.hash))
    if tag == Op.SETTINGS:
        stopped, min_stake, min_deposit = s.load_uint(8), s.load_coins() or 0, s.load_coins() or 0
        treasury, time_lock = s.load_bytes(32), s.load_uint(32)
        rest = {key: other for key, other in rest.items() if not other.settings}
        parameters = replace(state.parameters, min_stake_nano=min_stake, min_deposit_nano=min_deposit)
        state = replace(state, stopped=stopped, treasury=treasury, time_lock=time_lock, parameters=parameters)
    if tag == Op.SET_REBUILDERS:
        state = replace(state, rebuilders=Rebuilders.from_cell(s.load_ref()))
    if tag == Op.ALLOW_IMAGE:
        require(len(proposal.endorsed & state.rebuilders.accounts) >= state.rebuilders.needed, NOT_ENDORSED)
    state = replace(state, proposals=rest)
    if tag == Op.ALLOW_MODEL:
        return _model(state, a, s.load_bytes(32), False)
    if tag not in OWN_ACTIONS:
        require(a.value >= a.fees.governed(), LOW_VALUE)
    return Outcome(state, a.base)


def _model(state: RegistryState, a: Arrival, model: bytes, revoked: bool) -> Outcome:
    rent = 0 if model in state.models else a.fees.governed_rent()
    if a.value - a.gas_fee < rent:
        raise Refusal(37)  # the reserve fails: not enough
    return Outcome(replace(state, models={**state.models, model: revoked}), max(a.base, 0) + rent)
