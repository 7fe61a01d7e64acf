"""Settings and policy as a governor chooses them: read, changed by name, compared, and held to the bounds in words.

The bounds that count are the contracts' own (contracts/registry/bounds.fc, contracts/attestation/policy_bounds.fc): a
rehearsal runs them. These words only say which one a refusal meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pytoniq_core import Cell

from attestation.onchain.state import ChainPolicy
from attestation.onchain.statements import DEFECTS
from wrappers.cells import CellError, account_of
from wrappers.code import Contract, code, code_hash, living_code
from wrappers.ops import Op
from wrappers.registry import DAY_SECONDS, STOP_ESCROWS, STOP_JOBS, STOP_NODES, Parameters, Settings
from wrappers.rows import NOBODY, load_fee

NANO = 1_000_000_000
HOUR_SECONDS = 3600
MAX_AMOUNT_NANO = 10**15
MAX_WINDOW_SECONDS = 60 * DAY_SECONDS
MAX_FEE = 500
STOPPABLE = {"nodes": STOP_NODES, "escrows": STOP_ESCROWS, "jobs": STOP_JOBS}
PROGRAMS = {"node": Contract.NODE, "escrow": Contract.ESCROW}
_SECONDS = ("unbonding", "claim_window", "challenge_window", "min_close_timer", "max_close_timer")
_MEANS = {
    "min_stake_nano": "least stake of a new node",
    "min_deposit_nano": "least deposit of a new escrow",
    "gas_level_nano": "what a new node keeps for gas",
    "payout_threshold_nano": "what a new node pays out from",
    "unbonding": "how long a stake stays after unbonding",
    "claim_window": "how long a key's claims are paid after its end",
    "challenge_window": "how long a stake answers after that",
    "min_close_timer": "shortest close timer of a row",
    "max_close_timer": "longest close timer of a row",
    "fee": "the treasury's share of each payment, in 1/10000",
    "treasury": "who gets fees of new escrows",
    "time_lock": "how long the next proposals wait",
    "stopped": "what may not be opened",
}


class NotUnderstood(ValueError):
    """What was asked for cannot be made. Cause and cure."""


@dataclass(frozen=True, slots=True)
class _Field:
    shown: Callable[[Any], str]
    read: Callable[[str], Any]


def ton(nano: int) -> str:
    return f"{nano // NANO}.{nano % NANO:09d} TON"


def span(seconds: int) -> str:
    """Whole days, hours or minutes where they are whole."""
    for unit, length in (("d", DAY_SECONDS), ("h", HOUR_SECONDS), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def account(text: str) -> bytes:
    """64 hex digits, or a TON address in workchain 0. Raises NotUnderstood."""
    try:
        return bytes.fromhex(text) if len(text) == 64 else account_of(text)
    except Exception as error:  # pytoniq-core raises many unrelated types on a malformed address
        raise NotUnderstood(f"{text!r} is neither 64 hex digits nor a TON address in workchain 0") from error


def stopped_words(stopped: int) -> str:
    return ", ".join(name for name, bit in STOPPABLE.items() if stopped & bit) or "nothing"


def stopped_of(names: Sequence[str]) -> int:
    """Raises NotUnderstood."""
    unknown = set(names) - {*STOPPABLE, "nothing"}
    if unknown or not names:
        raise NotUnderstood(f"{', '.join(sorted(unknown)) or 'no kind'}: name nodes, escrows, jobs, or some of them")
    return sum({STOPPABLE[name] for name in names if name != "nothing"})


def _whole(text: str) -> int:
    if not (text.isascii() and text.replace("_", "").isdigit()):
        raise NotUnderstood(f"{text!r} is no whole number")
    return int(text)


def _statuses(text: str) -> frozenset[str]:
    found = frozenset(text.split(","))
    if not found <= set(DEFECTS) - {"Revoked"}:
        raise NotUnderstood(f"{text!r}: statuses are {', '.join(name for name in DEFECTS if name != 'Revoked')}")
    return found


_AMOUNT, _SPAN, _NUMBER = _Field(ton, _whole), _Field(span, _whole), _Field(str, _whole)
_ACCOUNT = _Field(lambda value: "nobody" if value == NOBODY else value.hex(), account)
_STOPPED = _Field(stopped_words, lambda text: stopped_of(text.split(",")))
_FLAGS = _Field(lambda value: f"0x{value:016x}", lambda text: int(text, 16))
_STATUSES = _Field(lambda value: ", ".join(sorted(value)), _statuses)


def _parameter(name: str) -> _Field:
    return _AMOUNT if name.endswith("_nano") else _SPAN if name in _SECONDS else _NUMBER


_PARAMETERS: Mapping[str, _Field] = {field.name: _parameter(field.name) for field in fields(Parameters)}
_CHOICES: Mapping[str, _Field] = {"treasury": _ACCOUNT, "time_lock": _SPAN, "stopped": _STOPPED}
_POLICY: Mapping[str, _Field] = {
    "floor": _NUMBER,
    "ceiling": _NUMBER,
    "accepted_statuses": _STATUSES,
    "longest_seconds": _SPAN,
    **dict.fromkeys(("attributes_required", "attributes_allowed", "xfam_required", "xfam_allowed"), _FLAGS),
}


def load_settings(cell: Cell) -> Settings:
    """Of an action or a proposal. TL-B: Settings. Raises CellError, also for terms that misstate a program's size."""
    s = cell.begin_parse()
    if s.load_uint(32) != Op.SETTINGS:
        raise CellError("not settings")
    stopped, stake, deposit = s.load_uint(8), s.load_coins() or 0, s.load_coins() or 0
    treasury, time_lock = s.load_bytes(32), s.load_uint(32)
    node, escrow, job = (s.load_ref().begin_parse() for _ in range(3))
    prefix, gas_level, threshold = node.load_bytes(39), node.load_coins() or 0, node.load_coins() or 0
    unbonding, claim_window, challenge_window = (node.load_uint(32) for _ in range(3))
    node_code, trusted = node.load_ref(), node.load_ref().begin_parse()
    shortest, longest = escrow.load_uint(32), escrow.load_uint(32)
    escrow.skip_bits(16 + 32)
    escrow_code, fee = escrow.load_ref(), load_fee(escrow)
    parameters = Parameters(
        min_stake_nano=stake,
        min_deposit_nano=deposit,
        gas_level_nano=gas_level,
        payout_threshold_nano=threshold,
        unbonding=unbonding,
        claim_window=claim_window,
        challenge_window=challenge_window,
        min_close_timer=shortest,
        max_close_timer=longest,
        fee=fee.share if fee is not None else 0,
    )
    attestation, court = trusted.load_bytes(32), trusted.load_bytes(32)
    found = Settings(
        parameters, attestation, prefix, court, node_code, escrow_code, job.load_ref(), treasury, time_lock, stopped
    )
    if found.to_cell().hash != cell.hash:
        raise CellError("these settings do not agree with themselves")
    return found


def _split(change: str, known: Mapping[str, _Field]) -> tuple[str, Any]:
    name, equals, text = change.partition("=")
    name = name.strip().removesuffix("_seconds") if name.strip() not in known else name.strip()
    if not equals or name not in known:
        raise NotUnderstood(f"{change!r}: write NAME=VALUE, NAME is one of {', '.join(known)}")
    try:
        return name, known[name].read(text.strip())
    except ValueError as error:
        raise NotUnderstood(f"{name}: {error}; amounts are in nanoTON, times in seconds") from error


def altered(present: Settings, asked: Sequence[str], programs: Sequence[str] = ()) -> Settings:
    """`asked`: NAME=VALUE each. `programs`: births that get this release's. Raises NotUnderstood."""
    found = dict(_split(change, {**_PARAMETERS, **_CHOICES}) for change in asked)
    parameters = {name: value for name, value in found.items() if name in _PARAMETERS}
    unknown = set(programs) - set(PROGRAMS)
    if unknown:
        raise NotUnderstood(f"{', '.join(sorted(unknown))}: programs are of {', '.join(PROGRAMS)}")
    choices = {name: value for name, value in found.items() if name in _CHOICES}
    choices |= {f"{name}_code": code(PROGRAMS[name]) for name in programs}
    return replace(present, parameters=replace(present.parameters, **parameters), **choices)


def altered_policy(present: ChainPolicy, asked: Sequence[str]) -> ChainPolicy:
    """Raises NotUnderstood."""
    return replace(present, **dict(_split(change, _POLICY) for change in asked))


def changes(present: Settings, wanted: Settings) -> Iterator[str]:
    """What differs, each with its meaning."""
    for known, old, new in ((_PARAMETERS, present.parameters, wanted.parameters), (_CHOICES, present, wanted)):
        for name, field in known.items():
            was, will = getattr(old, name), getattr(new, name)
            if was != will:
                yield f"{name}: {field.shown(was)} -> {field.shown(will)} ({_MEANS[name]})"
    for name, contract in PROGRAMS.items():
        was, will = (getattr(each, f"{name}_code") for each in (present, wanted))
        if was.hash != will.hash:
            whose = "this release's" if will.hash == code_hash(contract) else "NOT THIS RELEASE'S: find its sources"
            yield f"code of new accounts of kind {name}: {living_code(will).hash.hex()} ({whose})"
    for name in ("attestation", "court", "stub_prefix"):
        if getattr(present, name) != getattr(wanted, name):
            yield f"{name}: another; the registry refuses that"
    if present.job_code.hash != wanted.job_code.hash:
        yield "code of jobs: another; the registry refuses that, for the court believes a job by its address"


def policy_changes(present: ChainPolicy | None, wanted: ChainPolicy) -> Iterator[str]:
    """None: what holds is not known."""
    for name, field in _POLICY.items():
        will = field.shown(getattr(wanted, name))
        was = None if present is None else field.shown(getattr(present, name))
        if was != will:
            yield f"{name}: {will}" if was is None else f"{name}: {was} -> {will}"


def outside(settings: Settings) -> Iterator[str]:
    """Bounds that these settings break, in words."""
    p = settings.parameters
    for name in ("min_stake_nano", "min_deposit_nano", "gas_level_nano", "payout_threshold_nano"):
        if getattr(p, name) > MAX_AMOUNT_NANO:
            yield f"{name} is at most {ton(MAX_AMOUNT_NANO)}"
    for name in ("unbonding", "challenge_window"):
        if not HOUR_SECONDS <= getattr(p, name) <= MAX_WINDOW_SECONDS:
            yield f"{name} is between {span(HOUR_SECONDS)} and {span(MAX_WINDOW_SECONDS)}"
    if not p.max_close_timer <= p.claim_window <= MAX_WINDOW_SECONDS:
        yield f"claim_window is between max_close_timer and {span(MAX_WINDOW_SECONDS)}"
    if not HOUR_SECONDS <= p.min_close_timer <= p.max_close_timer <= 7 * DAY_SECONDS:
        yield "close timers are between 1 h and 7 d, the shortest not above the longest"
    if p.fee > MAX_FEE:
        yield f"fee is at most {MAX_FEE} (5 %)"
    if p.fee and settings.treasury == NOBODY:
        yield "a fee needs a treasury"
    if not DAY_SECONDS <= settings.time_lock <= 30 * DAY_SECONDS:
        yield "time_lock is between 1 d and 30 d"
