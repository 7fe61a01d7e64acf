"""Functions that the contracts share, on their borders: blocks that the chain shows, terms of a row, cells."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from harness import Method, harness
from pytoniq_core import Cell, begin_cell

from attestation.onchain.errors import VerifierError
from chain.api import BlockId
from devnet.ledger import Ledger
from scripts.compile import CONTRACTS
from wrappers.errors import ContractError

CELL_UNDERFLOW = 9
LEAST, MOST = 600, 7 * 86_400


@pytest.fixture(scope="module")
def method() -> Method:
    return harness("common_harness.fc", CONTRACTS)


# ------------------------------------------------------------------------------------------------ blocks


def block(seqno: int) -> BlockId:
    return BlockId(seqno, sha256(b"root %d" % seqno).digest(), sha256(b"file %d" % seqno).digest())


@pytest.mark.parametrize("shown", [1, 2, 16])
def test_g12_a_block_is_one_of_the_hundreds_that_the_chain_shows(method: Method, shown: int) -> None:
    newest = 70_000
    blocks = replace(Ledger().prev_blocks, hundreds=tuple(block(newest - 100 * back) for back in range(shown)))
    assert method("of_newest", blocks=blocks).stack == [newest]
    for back in range(shown):
        seqno = newest - 100 * back
        found = method("of_block", seqno, blocks=blocks)
        assert found.stack == [int.from_bytes(block(seqno).root_hash, "big")]
    for seqno in (newest + 100, newest + 1, newest - 1, newest - 99, newest - 100 * shown, newest - 100 * shown - 1, 0):
        assert method("of_block", seqno, blocks=blocks).exit_code == VerifierError.OLD_BLOCK, seqno


def test_g12_a_block_that_is_not_where_it_should_be_is_refused(method: Method) -> None:
    """Should a hundredth ever be left out, no other one takes its place."""
    blocks = replace(Ledger().prev_blocks, hundreds=(block(900), block(700), block(600)))
    assert method("of_block", 900, blocks=blocks).exit_code in (0, 1)
    for seqno in (800, 700):
        assert method("of_block", seqno, blocks=blocks).exit_code == VerifierError.OLD_BLOCK
    odd = replace(Ledger().prev_blocks, hundreds=(block(900), block(750)))
    assert method("of_block", 750, blocks=odd).exit_code == VerifierError.OLD_BLOCK, "nor one between the hundreds"


# ------------------------------------------------------------------------------------------------ terms of a row


def fee_of(share: int | None) -> Cell:
    """What the escrow froze of the treasury's share: a bit, and where it is 1, share and account."""
    if share is None:
        return begin_cell().store_bit(0).end_cell()
    return begin_cell().store_bit(1).store_uint(share, 16).store_bytes(b"\x07" * 32).end_cell()


def shares(
    relayer: int = 0,
    royalty: int = 0,
    *,
    fee: Cell,
    relayer_account: bytes | None = None,
    royalty_account: bytes | None = None,
    paid: int = 0,
) -> Cell:
    """Accounts are named exactly where there is a share, unless given."""
    named = [b"\x05" * 32 if share else bytes(32) for share in (relayer, royalty)]
    cell = begin_cell().store_uint(relayer, 16).store_uint(royalty, 16)
    cell.store_bytes(relayer_account or named[0]).store_bytes(royalty_account or named[1])
    return cell.store_uint(paid, 64).store_cell(fee).end_cell()


def terms(timer: int = LEAST, of: Cell | None = None, more: str = "") -> Cell:
    return begin_cell().store_uint(1, 256).store_uint(timer, 32).store_maybe_ref(of).store_bits(more).end_cell()


def sum_of(method: Method, cell: Cell, fee: Cell) -> int:
    """Sum of the shares; minus the exit code where the terms are refused."""
    result = method("of_terms", cell, LEAST, MOST, fee)
    return int(result.stack[0]) if result.exit_code in (0, 1) else -int(result.exit_code or 0)


BAD = -ContractError.BAD_TERMS
NONE, TENTH = fee_of(None), fee_of(1000)


@pytest.mark.parametrize(
    ("timer", "expected"), [(0, BAD), (LEAST - 1, BAD), (LEAST, 0), (LEAST + 1, 0), (MOST, 0), (MOST + 1, BAD)]
)
def test_g6_a_close_timer_is_within_its_bounds(method: Method, timer: int, expected: int) -> None:
    assert sum_of(method, terms(timer), NONE) == expected
    assert sum_of(method, terms(timer, shares(100, fee=NONE)), NONE) == (expected or 100)
    plain = method("of_plain", terms(timer), LEAST, MOST, NONE).exit_code
    assert plain in ({0, 1} if expected == 0 else {ContractError.BAD_TERMS})


def test_g5_plain_terms_have_no_shares(method: Method) -> None:
    assert method("of_plain", terms(), LEAST, MOST, NONE).exit_code in (0, 1)
    assert method("of_plain", terms(), LEAST, MOST, TENTH).exit_code == ContractError.BAD_TERMS
    # With a reference behind the bit, and with the bit alone.
    with_shares = terms(of=shares(100, fee=NONE))
    assert method("of_plain", with_shares, LEAST, MOST, NONE).exit_code == ContractError.BAD_TERMS
    assert method("of_plain", terms(more="0"), LEAST, MOST, NONE).exit_code == CELL_UNDERFLOW


@pytest.mark.parametrize(
    ("relayer", "royalty", "treasury", "expected"),
    [
        (100, 0, None, 100), (0, 100, None, 100), (100, 200, None, 300), (1, 0, None, 1), (0, 0, None, BAD),
        (3000, 0, None, 3000), (3001, 0, None, BAD), (1500, 1500, None, 3000), (1500, 1501, None, BAD),
        (0, 0, 1000, 1000), (1000, 1000, 1000, 3000), (1000, 1001, 1000, BAD), (2000, 0, 1000, 3000),
        (2001, 0, 1000, BAD), (500, 700, 900, 2100), (0, 0, 0, BAD), (65_535, 65_535, None, BAD),
    ],
)  # fmt: skip
def test_g5_shares_are_some_and_at_most_three_tenths(
    method: Method, relayer: int, royalty: int, treasury: int | None, expected: int
) -> None:
    fee = fee_of(treasury)
    assert sum_of(method, terms(of=shares(relayer, royalty, fee=fee)), fee) == expected


def test_g5_a_share_is_somebodys_and_nobody_has_none(method: Method) -> None:
    for who in ("relayer", "royalty"):
        other = {"relayer": "royalty", "royalty": "relayer"}[who]
        kept = {other: 100}
        for share, account, expected in ((100, b"\x01" + bytes(31), 200), (100, None, 200), (0, b"\x01" * 32, BAD)):
            named = {} if account is None else {f"{who}_account": account}
            cell = shares(**kept, **{who: share}, **named, fee=NONE)  # type: ignore[arg-type]
            assert sum_of(method, terms(of=cell), NONE) == expected, (who, share)
    nobody = (
        begin_cell().store_uint(100, 16).store_uint(0, 16).store_bytes(bytes(64)).store_uint(0, 64).store_cell(NONE)
    )
    assert sum_of(method, terms(of=nobody.end_cell()), NONE) == BAD
    nobody = (
        begin_cell().store_uint(0, 16).store_uint(100, 16).store_bytes(bytes(64)).store_uint(0, 64).store_cell(NONE)
    )
    assert sum_of(method, terms(of=nobody.end_cell()), NONE) == BAD


def test_g5_a_row_begins_with_nothing_paid_and_the_treasurys_own_share(method: Method) -> None:
    assert sum_of(method, terms(of=shares(100, fee=TENTH, paid=1)), TENTH) == BAD
    assert sum_of(method, terms(of=shares(100, fee=TENTH)), TENTH) == 1100
    assert sum_of(method, terms(of=shares(100, fee=NONE)), TENTH) == BAD
    assert sum_of(method, terms(of=shares(100, fee=TENTH)), NONE) == BAD
    assert sum_of(method, terms(of=shares(100, fee=fee_of(999))), TENTH) == BAD
    assert sum_of(method, terms(), TENTH) == BAD, "where the treasury has a share, a row without shares is none"
    heavy = begin_cell().store_cell(shares(100, fee=NONE)).store_ref(Cell.empty()).end_cell()
    assert sum_of(method, terms(of=heavy), NONE) == BAD
    longer = begin_cell().store_cell(shares(100, fee=NONE)).store_bit(0).end_cell()
    assert sum_of(method, terms(of=longer), NONE) == BAD
    assert sum_of(method, terms(more="0"), NONE) == -CELL_UNDERFLOW


# ------------------------------------------------------------------------------------------------ cells


def test_g10_exotic_cells_are_refused(method: Method) -> None:
    ordinary = begin_cell().store_uint(5, 77).end_cell()
    assert method("of_ordinary", ordinary).stack == [77]
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(ordinary.hash).end_cell().bits, [], 2)
    assert method("of_ordinary", library).exit_code == ContractError.EXOTIC_CELL
