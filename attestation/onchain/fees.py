"""What messages to the verifier must carry: the formulas of contracts/attestation/gas.fc at a chain's prices."""

from __future__ import annotations

from typing import Final

from wrappers.fees import TEN_YEARS, Gas, Prices, Size

ATTEST_GAS: Final = 113_000
PLATFORM_CELLS: Final = 3
PLATFORM_BITS: Final = 1300
COLLATERAL_CELLS: Final = 500
COLLATERAL_BITS: Final = 200_000
UPDATE_GAS: Final = 1_000_000


def platform_rent(prices: Prices) -> int:
    """NanoTON that the first quote of a platform leaves in the contract."""
    return prices.storage(PLATFORM_CELLS, PLATFORM_BITS, TEN_YEARS)


def attest(prices: Prices) -> int:
    """NanoTON that `attest` needs; what it does not use goes to the node's reserve."""
    verdict = prices.forward(Size.VERDICT_CELLS, Size.VERDICT_BITS)
    return prices.gas(ATTEST_GAS + Gas.VERDICT) + verdict + platform_rent(prices)


def update(prices: Prices) -> int:
    """NanoTON that cover any collateral message or `appraise`; what is not used comes back."""
    return prices.gas(UPDATE_GAS)
