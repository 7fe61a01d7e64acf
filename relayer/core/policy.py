"""When a node's receipts are worth a claim: thresholds as data, one pure decision."""

from __future__ import annotations

from dataclasses import dataclass

from relayer.core.settlement import Phase, Settlement


@dataclass(frozen=True, slots=True)
class SettlePolicy:
    amount_nano: int = 1_000_000_000
    """Ask when a node has this much unclaimed. One claim costs the node about 0.005 TON for each client in it."""
    age_seconds: int = 3_600
    """Ask when the oldest unclaimed receipt is this old, ..."""
    floor_nano: int = 10_000_000
    """... but not for less than this in all: the claim would cost more than it brings."""
    exposure_nano: int = 500_000_000
    """Ask when one client alone owes this much: the most that one client's exit can put in a hurry."""
    hurry_seconds: int = 7_200
    """What may stop being payable within this time is claimed at once, ..."""
    closing_seconds: int = 1_800
    """... and the pauses below are cut when it does within this one."""
    ask_seconds: int = 30
    """An agent that has not answered by then is asked again later."""
    settle_seconds: int = 30
    """Pause after a landed claim: its payments reach the escrows in the next blocks."""
    retry_seconds: int = 300
    """Pause after a refusal, an expiry or silence."""


@dataclass(frozen=True, slots=True)
class Owed:
    """What one node has unclaimed, summed over its tallies."""

    unclaimed_nano: int = 0
    oldest_at: int = 0
    """When the oldest of the unclaimed receipts came; 0 when there is none."""
    largest_nano: int = 0
    """The most that one (allotment, key) owes."""
    closing_nano: int = 0
    """Owed under rows that are closing, or whose voucher key is about to be replaced."""
    closing_at: int = 0
    """When the first of those ends; 0 when there is none."""


def due(policy: SettlePolicy, settlement: Settlement, owed: Owed, now: int) -> str | None:
    """Why to ask the agent for a claim now, or None."""
    if settlement.phase is not Phase.IDLE or owed.unclaimed_nano <= 0:
        return None
    hurry = owed.closing_nano > 0 and owed.closing_at - now <= policy.hurry_seconds
    urgent = hurry and owed.closing_at - now <= policy.closing_seconds
    if now < settlement.not_before and not (urgent and now >= settlement.asked_at + policy.ask_seconds):
        return None
    if hurry:
        return "exposure"
    if owed.unclaimed_nano >= policy.amount_nano:
        return "amount"
    if owed.largest_nano >= policy.exposure_nano:
        return "exposure"
    if owed.unclaimed_nano >= policy.floor_nano and now - owed.oldest_at >= policy.age_seconds:
        return "age"
    return None


def overdue(policy: SettlePolicy, settlement: Settlement, now: int) -> bool:
    """Whether the agent has let the open ask pass."""
    return settlement.phase is Phase.ASKED and now >= settlement.asked_at + policy.ask_seconds
