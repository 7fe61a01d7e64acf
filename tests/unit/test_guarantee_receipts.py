"""G13: receipts of one account are one chain; each of its three links breaks by itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.audit import verify_chain
from protocol.receipts import IssuedReceipt, SignedReceipt
from wrappers.receipts import InnerReceipt, Receipt

INNER = InnerReceipt(bytes(32), bytes(32), 1, 0, 1, 0, 0, bytes(32), bytes(32), bytes(32))


def chain_of(*amounts: int) -> list[IssuedReceipt]:
    issued: list[IssuedReceipt] = []
    previous, total = bytes(32), 0
    for seq, amount in enumerate(amounts, 1):
        total += amount
        receipt = Receipt(b"\x01" * 32, b"\x02" * 32, seq, b"\x03" * 32, amount, total, previous, INNER.hash)
        issued.append(IssuedReceipt(bytes([seq]) * 32, SignedReceipt(receipt, bytes(64)), INNER))
        previous = receipt.hash
    return issued


def changed(issued: IssuedReceipt, **changes: object) -> IssuedReceipt:
    receipt = replace(issued.signed.receipt, **changes)  # type: ignore[arg-type]
    return replace(issued, signed=replace(issued.signed, receipt=receipt))


def test_g13_a_whole_chain_holds_receipts_of_zero_included() -> None:
    assert verify_chain([]).holds
    check = verify_chain(chain_of(5, 0, 7))
    assert check.holds and "3 receipts, 12 nanoTON" in check.said


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("change", [{"seq": 9}, {"previous": b"\x09" * 32}, {"cumulative_nano": 13}])
def test_g13_each_link_is_checked_by_itself(at: int, change: dict[str, object]) -> None:
    chain = chain_of(5, 0, 7)
    chain[at] = changed(chain[at], **change)
    check = verify_chain(chain)
    assert not check.holds and f"number {at + 1}" in check.said


def test_g13_a_receipt_of_equal_number_and_totals_does_not_fit_another_chain() -> None:
    chain = chain_of(5, 0, 7)
    chain[1] = changed(chain[1], inner=b"\x08" * 32)
    check = verify_chain(chain)
    assert not check.holds and "number 3" in check.said, "the third names the second that was signed"
