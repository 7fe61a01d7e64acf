"""Evaluation numbers of Intel's statements at the policy's floor and ceiling (G12), one there before or none."""

from __future__ import annotations

import pytest
from attestation_mirror import Mirror

from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.state import ChainPolicy
from attestation.simulated import collateral as simulated
from wrappers.governance import set_policy

NUMBER = simulated.EVALUATION_NUMBER


@pytest.mark.parametrize(
    ("floor", "ceiling", "expected"),
    [
        (NUMBER, NUMBER, 0),
        (NUMBER + 1, NUMBER + 1, Error.WRONG_NUMBER),
        (NUMBER - 1, NUMBER - 1, Error.WRONG_NUMBER),
    ],
)
def test_g12_a_statement_below_the_floor_or_above_the_ceiling_is_not_taken(
    mirror: Mirror, floor: int, ceiling: int, expected: int
) -> None:
    """Nor is the first of a platform type: else whoever comes first would choose what its machines are judged by."""
    assert mirror.stage.govern(set_policy(ChainPolicy(floor=floor, ceiling=ceiling).to_cell())).accepted
    for told in (mirror.bring_tcb(), mirror.bring_tcb(fmspc="5C0000000001"), mirror.bring_qe()):
        assert told.exit_code == expected
