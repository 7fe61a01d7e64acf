"""Faults that tests order from one listener: no answer, a late one, an error, or a lie."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from devnet.engine import DevnetError

ANY_METHOD = "*"
DEFAULT_ERROR = "LITE_SERVER_UNKNOWN: fault ordered by a test"
DEFAULT_STATUS = 500


class Kind(StrEnum):
    DROP = "drop"
    """Close the connection without an answer."""
    DELAY = "delay"
    ERROR = "error"
    LIE = "lie"


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    method: str = ANY_METHOD
    account: bytes | None = None
    """Only questions about this account."""
    seconds: float = 0.0
    """DELAY: how late."""
    error: str = DEFAULT_ERROR
    status: int = DEFAULT_STATUS
    """ERROR: the HTTP status."""
    patch: Any = None
    """LIE: merged into the true result (objects key by key; anything else replaces it)."""
    times: int | None = None
    """How often before the fault is over; None: until it is cleared."""


class Faults:
    """The faults of one listener, first match first."""

    def __init__(self) -> None:
        self._rules: list[Fault] = []
        self._left: list[int | None] = []

    def set(self, rules: list[Fault]) -> None:
        """Replaces all; an empty list clears."""
        self._rules = list(rules)
        self._left = [rule.times for rule in rules]

    def take(self, method: str, account: bytes | None) -> Fault | None:
        """The fault for this question, counted as used; None for an honest answer."""
        for index, rule in enumerate(self._rules):
            left = self._left[index]
            if left == 0 or rule.method not in (ANY_METHOD, method):
                continue
            if rule.account is not None and rule.account != account:
                continue
            if left is not None:
                self._left[index] = left - 1
            return rule
        return None


def lie(truth: Any, patch: Any) -> Any:
    if not isinstance(truth, dict) or not isinstance(patch, dict):
        return patch
    return {**truth, **{key: lie(truth.get(key), value) for key, value in patch.items()}}


def read_fault(fields: dict[str, Any], account: bytes | None) -> Fault:
    """Raises DevnetError naming the field that is wrong."""
    known = {"kind", "method", "account", "seconds", "error", "status", "patch", "times"}
    unknown = set(fields) - known
    if unknown:
        raise DevnetError(f"unknown fault fields {sorted(unknown)}: use {sorted(known)}")
    try:
        kind = Kind(fields.get("kind", ""))
        times = fields.get("times")
        return Fault(
            kind=kind,
            method=str(fields.get("method", ANY_METHOD)),
            account=account,
            seconds=float(fields.get("seconds", 0.0)),
            error=str(fields.get("error", DEFAULT_ERROR)),
            status=int(fields.get("status", DEFAULT_STATUS)),
            patch=fields.get("patch"),
            times=None if times is None else int(times),
        )
    except (TypeError, ValueError) as error:
        raise DevnetError(f"not a fault: {error}; kind is one of {[kind.value for kind in Kind]}") from error
