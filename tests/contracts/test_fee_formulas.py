"""G8, G9: the formulas of common/gas.fc, each to the nanoTON what wrappers/fees.py says."""

from __future__ import annotations

import pytest
from harness import Method, harness

from devnet.ledger import Ledger
from scripts.compile import CONTRACTS
from scripts.stage import PARAMETERS
from wrappers.fees import Fees
from wrappers.gas import TEN_YEARS, Gas, Size
from wrappers.prices import Prices

PRICES = Prices.from_config(Ledger().config)
FEES = Fees(PRICES, PARAMETERS)
# Large enough that one cell, one bit or one second more or less shows.
CELLS, BITS = 7_001, 3_000_017
NEEDS = {
    "governed_rent": FEES.governed_rent(),
    "governed_need": FEES.governed(),
    "row_rent": FEES.row_rent(),
    "shares_rent": FEES.shares_rent(),
    "next_key_rent": FEES.next_key_rent(),
    "key_row_rent": FEES.key_row_rent(),
    "paid_value": FEES.paid_value(),
    "settle_need": FEES.settle_need(),
    "settle_value": FEES.settle_value(),
    "accept_job_need": FEES.accept_job(),
    "notarise_need": FEES.notarise(),
    "extras_rent": PRICES.storage(Size.EXTRAS_CELLS, Size.EXTRAS_BITS, TEN_YEARS),
    "offer_rent": PRICES.storage(Size.OFFER_CELLS, Size.OFFER_BITS, TEN_YEARS),
    "slash_need": FEES.slash_need(),
}
SLASH_VALUE = FEES.slash_need() + PRICES.forward(CELLS + 2, BITS + Size.SLASH_BITS)
OF_A_SIZE = {
    "node_rent": PRICES.storage(CELLS + Size.NODE_DATA_CELLS, BITS + Size.NODE_DATA_BITS, TEN_YEARS),
    "escrow_rent": PRICES.storage(CELLS + Size.ESCROW_DATA_CELLS, BITS + Size.ESCROW_DATA_BITS, TEN_YEARS),
    "job_rent": PRICES.storage(CELLS + Size.JOB_DATA_CELLS, BITS + Size.JOB_DATA_BITS, TEN_YEARS),
    "slash_value": SLASH_VALUE,
    "missed_value": PRICES.gas(Gas.MISSED) + PRICES.forward(CELLS + 2, BITS + Size.MISSED_BITS) + SLASH_VALUE,
}


@pytest.fixture(scope="module")
def method() -> Method:
    return harness("fees_harness.fc", CONTRACTS)


def test_g8_what_a_message_must_bring_is_the_sum_of_all_that_it_pays_for(method: Method) -> None:
    assert {name: method(f"of_{name}").stack[0] for name in NEEDS} == NEEDS


def test_g8_g9_what_follows_a_size_follows_it_to_the_cell_the_bit_and_the_second(method: Method) -> None:
    assert {name: method(f"of_{name}", CELLS, BITS).stack[0] for name in OF_A_SIZE} == OF_A_SIZE
