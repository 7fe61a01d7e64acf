"""Every reading of states that more than one place needs."""

from __future__ import annotations

from collections.abc import Iterable

from relayer.core.policy import Owed
from relayer.core.tally import Tally


def owed_to(tallies: Iterable[Tally], key: bytes | None) -> Owed:
    """Sums one node's tallies under its present enclave key.

    What is owed under an earlier key cannot be in a batch claim: the agent brings those receipts one by one.
    """
    waiting = [tally for tally in tallies if tally.unclaimed_nano > 0 and tally.key == key]
    closing = [tally for tally in waiting if tally.closing_at]
    return Owed(
        unclaimed_nano=sum(tally.unclaimed_nano for tally in waiting),
        oldest_at=min((tally.receipt_at for tally in waiting), default=0),
        largest_nano=max((tally.unclaimed_nano for tally in waiting), default=0),
        closing_nano=sum(tally.unclaimed_nano for tally in closing),
        closing_at=min((tally.closing_at for tally in closing), default=0),
    )
