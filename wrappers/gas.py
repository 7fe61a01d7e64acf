"""Constants of contracts/common/gas.fc and contracts/committee/gas.fc; tests compare the files and measure the gas."""

from __future__ import annotations

from typing import Final

TEN_YEARS = 315_360_000


class Gas:
    """Of contracts/common/gas.fc; each is pinned between the measured worst case and a tenth above it."""

    OPEN: Final = 9100
    OPEN_JOB: Final = 22000
    GENESIS: Final = 36000
    GOVERNED: Final = 20000
    GOVERN: Final = 28500
    VERDICT: Final = 46500
    NODE_INIT: Final = 5800
    PAID: Final = 4300
    TOP_UP_STAKE: Final = 10400
    COLLECT: Final = 9300
    CLAIM: Final = 3600
    CLAIM_ENTRY: Final = 1550
    CLAIM_RECEIPT: Final = 10000
    ESCROW_INIT: Final = 7400
    SETTLE: Final = 31000
    OWN_PLATFORM: Final = 20000
    STANDING: Final = 395000
    SLASH: Final = 405000
    ACCEPT_JOB: Final = 10500
    PRESENT: Final = 10600
    NOTARISE: Final = 15400
    CHANGE_SETTING: Final = 37000
    TOP_UP: Final = 2100
    ALLOT: Final = 17000
    RAISE: Final = 15550
    ALLOT_SHARED: Final = 21400
    ORDER_JOB: Final = 12400
    PAY_SHARES: Final = 30650
    ROTATE_VOUCHER_KEY: Final = 12000
    APPLY_VOUCHER_KEY: Final = 11600
    RETURN_RENT: Final = 30800
    GIVE_UP_KEY: Final = 32000
    LOWER: Final = 22600
    RECLAIM: Final = 21300
    WITHDRAW: Final = 6450
    CLOSE: Final = 5450
    CLOSE_ROW: Final = 19200
    FINISH: Final = 5450
    FINISH_ROW: Final = 5350
    JOB_INIT: Final = 5300
    ACCEPTED: Final = 8000
    JOB_POSTED: Final = 7100
    FINISH_JOB: Final = 7600
    REFUND: Final = 9400
    PROGRAM_CELL: Final = 100
    MISSED: Final = 5450
    JUDGED: Final = 3550


class Size:
    """Sizes of gas.fc, in cells and bits."""

    NODE_DATA_CELLS: Final = 6
    NODE_DATA_BITS: Final = 4300
    ACCEPTED_BITS: Final = 896
    NOTARISED_BITS: Final = 800
    OPEN_JOB_BITS: Final = 320
    PRESENTED_BITS: Final = 1128
    EXTRAS_CELLS: Final = 1
    EXTRAS_BITS: Final = 514
    OFFER_CELLS: Final = 3
    OFFER_BITS: Final = 1200
    ESCROW_DATA_CELLS: Final = 3
    ESCROW_DATA_BITS: Final = 1700
    ROW_CELLS: Final = 3
    ROW_BITS: Final = 1500
    SHARES_BITS: Final = 881
    NEXT_KEY_BITS: Final = 288
    KEY_ROW_CELLS: Final = 2
    KEY_ROW_BITS: Final = 800
    OPEN_CELLS: Final = 11
    OPEN_BITS: Final = 5100
    VERDICT_CELLS: Final = 3
    VERDICT_BITS: Final = 1416
    JOB_DATA_CELLS: Final = 5
    JOB_DATA_BITS: Final = 3200
    PAID_BITS: Final = 425
    SLASH_BITS: Final = 1368
    MISSED_BITS: Final = 1276
    PROGRAM_CELLS: Final = 64
    GOVERNED_CELLS: Final = 2
    GOVERNED_BITS: Final = 1000
    ACTION_CELLS: Final = 3
    ACTION_BITS: Final = 1000
    ENTRY_BITS: Final = 992


YEAR = 31_536_000


class CommitteeGas:
    """Constants of contracts/committee/gas.fc, and `vouched` of attestation/gas.fc; a test compares them."""

    PRESENTED: Final = 98000
    LEAVE: Final = 105000
    WITHDRAW_BOND: Final = 91000
    CONTRADICTION: Final = 109000
    ASK: Final = 37000
    DRAW: Final = 180000
    ANSWER: Final = 52000
    CONCLUDE: Final = 34000
    VOUCHED: Final = 30000


class CommitteeSize:
    """Sizes of the same files, in cells and bits."""

    MEMBER_CELLS: Final = 40
    MEMBER_BITS: Final = 6300
    REQUEST_CELLS: Final = 180
    REQUEST_BITS: Final = 40000
    VOUCHED_BITS: Final = 1700
    PLATFORM_CELLS: Final = 3
    PLATFORM_BITS: Final = 1300
