"""What messages to the verifier must carry: the formulas of contracts/attestation/gas.fc at a chain's prices."""

from __future__ import annotations

from typing import Final

from wrappers.gas import TEN_YEARS, Gas, Size
from wrappers.prices import Prices

ATTEST_GAS: Final = 117_500
PLATFORM_CELLS: Final = 3
PLATFORM_BITS: Final = 1300
COLLATERAL_CELLS: Final = 500
COLLATERAL_BITS: Final = 200_000
LIST_GAS: Final = 970_000
"""`update_crl` with the longest list that an external message carries."""
LIST_PART_GAS: Final = 390_000
"""`update_crl` with a list of one part; `continue_crl`."""


def platform_rent(prices: Prices) -> int:
    """NanoTON that the first quote of a platform leaves in the contract."""
    return prices.storage(PLATFORM_CELLS, PLATFORM_BITS, TEN_YEARS)


def attest(prices: Prices) -> int:
    """NanoTON that `attest` needs; what it does not use goes to the node's reserve."""
    verdict = prices.forward(Size.VERDICT_CELLS, Size.VERDICT_BITS)
    return prices.gas(ATTEST_GAS + Gas.VERDICT) + verdict + platform_rent(prices)
