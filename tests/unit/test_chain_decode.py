"""Decoding, against pytoniq-core's own TL-B classes as the oracle, on transactions that the real emulator made."""

from __future__ import annotations

import pytest
from pytoniq_core import Address, Cell, begin_cell
from pytoniq_core.tlb.account import Account
from pytoniq_core.tlb.transaction import MessageAny
from pytoniq_core.tlb.transaction import Transaction as OracleTransaction

from chain.api import Transaction
from chain.decode import DecodeError, decode_account, decode_message, decode_transaction
from chain.outgoing import Outgoing, internal_message
from chain.wallet import Wallet, external_message
from devnet.ledger import Ledger

TON = 10**9
WORDS_SEED = bytes(range(32))


@pytest.fixture(scope="module")
def wallet() -> Wallet:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Wallet(Ed25519PrivateKey.from_private_bytes(WORDS_SEED))


@pytest.fixture(scope="module")
def history(wallet: Wallet) -> list[Transaction]:
    """Deploy with four messages, a bounce, a plain transfer, one message that the balance cannot pay."""
    ledger = Ledger()
    ledger.faucet(wallet.account, 10 * TON)
    other = b"\x11" * 32
    comment = begin_cell().store_uint(0, 32).store_string("hello " * 15).end_cell()
    first = [Outgoing(other, TON, comment, bounce=True), Outgoing(other, TON, bounce=False)]
    first += [Outgoing(wallet.account, 5, comment), Outgoing(b"\x22" * 32, 3, bounce=False)]
    batches = [first, [Outgoing(other, 1, bounce=False)], [Outgoing(other, 100 * TON, bounce=False)]]
    for seqno, messages in enumerate(batches):
        ledger.send_external(external_message(wallet, messages, seqno, ledger.now + 60, seqno == 0))
    return [transaction for rows in ledger.transactions.values() for transaction in rows]


def test_transactions_agree_with_the_oracle(history: list[Transaction]) -> None:
    assert len(history) >= 8
    for transaction in history:
        ours = decode_transaction(transaction.cell, transaction.account)
        oracle = OracleTransaction.deserialize(transaction.cell.begin_parse())
        assert (ours.lt, ours.now, ours.prev_lt, ours.prev_hash) == (
            oracle.lt,
            oracle.now,
            oracle.prev_trans_lt,
            oracle.prev_trans_hash,
        )
        assert ours.hash == transaction.cell.hash
        assert ours.total_fees_nano == oracle.total_fees.grams
        assert ours.aborted == bool(oracle.description.aborted)
        compute = oracle.description.compute_ph
        skipped = compute.type_ == "skipped"
        assert ours.exit_code == (None if skipped else compute.exit_code)
        assert ours.gas_used == (0 if skipped else compute.gas_used)
        action = oracle.description.action
        assert ours.action_code == (None if action is None else action.result_code)
        messages = [(ours.in_msg, oracle.in_msg), *zip(ours.out_msgs, oracle.out_msgs, strict=True)]
        for mine, theirs in messages:
            assert mine is not None
            assert mine.body.hash == theirs.body.hash
            assert mine.external == theirs.is_external
            if theirs.is_internal:
                assert mine.source == theirs.info.src.hash_part and mine.destination == theirs.info.dest.hash_part
                assert (mine.value_nano, mine.bounced) == (theirs.info.value.grams, bool(theirs.info.bounced))
                assert (mine.created_lt, mine.forward_fee_nano) == (theirs.info.created_lt, theirs.info.fwd_fee)


def test_the_history_holds_a_bounce_and_a_skipped_action(history: list[Transaction]) -> None:
    assert any(tx.in_msg is not None and tx.in_msg.bounced for tx in history)
    assert any(tx.aborted for tx in history)
    assert any(tx.in_msg is not None and tx.in_msg.external and not tx.out_msgs for tx in history)


def test_a_transaction_of_another_account_is_refused(history: list[Transaction]) -> None:
    with pytest.raises(DecodeError, match="belongs to account"):
        decode_transaction(history[0].cell, b"\x99" * 32)


def test_g18_cut_cells_are_errors_never_crashes(history: list[Transaction]) -> None:
    cell = history[0].cell
    for length in range(0, len(cell.bits), 7):
        with pytest.raises(DecodeError):
            decode_transaction(Cell(cell.bits[:length], cell.refs), history[0].account)
    for refs in range(len(cell.refs)):
        with pytest.raises(DecodeError):
            decode_transaction(Cell(cell.bits, cell.refs[:refs]), history[0].account)


def test_a_wrong_message_count_is_refused(history: list[Transaction]) -> None:
    cell = next(tx for tx in history if tx.out_msgs).cell
    bits = cell.bits.copy()
    offset = 4 + 256 + 64 + 256 + 64 + 32 + 14
    bits[offset] = not bits[offset]
    with pytest.raises(DecodeError, match="outbound messages"):
        decode_transaction(Cell(bits, cell.refs), next(tx for tx in history if tx.out_msgs).account)


@pytest.mark.parametrize("workchain", [-1, 1])
def test_g17_an_account_of_another_workchain_never_passes_for_ours(workchain: int) -> None:
    foreign = Address((workchain, b"\x07" * 32))
    header = begin_cell().store_bits("0110").store_address(foreign).store_address(Address((0, b"\x08" * 32)))
    header.store_coins(5).store_bit(0).store_coins(0).store_coins(0).store_uint(1, 64).store_uint(1, 32).store_bits(
        "00"
    )
    message = decode_message(header.end_cell())
    assert message.source is None and not message.external
    assert message.destination == b"\x08" * 32


@pytest.mark.parametrize("body_bits", [0, 100, 700, 1023])
@pytest.mark.parametrize("with_init", [False, True])
def test_messages_round_trip_inline_or_by_reference(wallet: Wallet, body_bits: int, with_init: bool) -> None:
    body = begin_cell().store_bits("1" * body_bits).end_cell()
    init = wallet.state_init if with_init else None
    cell = internal_message(Outgoing(b"\x01" * 32, 7, body, init, bounce=False))
    mine, theirs = decode_message(cell), MessageAny.deserialize(cell.begin_parse())
    assert mine.body.hash == body.hash == theirs.body.hash
    assert mine.destination == b"\x01" * 32 and mine.value_nano == 7
    assert (theirs.init is not None) == with_init
    assert len(cell.refs) <= (2 if with_init else 0) + (body_bits > 600)


def test_account_states(wallet: Wallet) -> None:
    ledger = Ledger()
    ledger.faucet(wallet.account, TON)
    ledger.send_external(external_message(wallet, [Outgoing(b"\x01" * 32, 5)], 0, ledger.now + 9, True))
    state = ledger.account(wallet.account)
    assert state.code is not None and state.data is not None and 0 < state.balance_nano < TON
    absent = decode_account(begin_cell().store_bit(0).end_cell(), wallet.account, last_lt=0, last_hash=bytes(32))
    assert absent.status == "absent" and absent.code is None
    with pytest.raises(DecodeError):
        decode_account(begin_cell().store_bit(1).end_cell(), wallet.account, last_lt=0, last_hash=bytes(32))
    frozen = begin_cell().store_bit(1).store_address(wallet.address).store_uint(0, 9).store_uint(1, 32).store_bit(0)
    frozen.store_uint(5, 64).store_coins(8).store_bit(0).store_bits("01").store_bytes(b"\x05" * 32)
    oracle = Account.deserialize(frozen.end_cell().begin_parse())
    mine = decode_account(frozen.end_cell(), wallet.account, last_lt=4, last_hash=b"\x01" * 32)
    assert mine.status == "frozen" and oracle.storage.state.type_ == "account_frozen"
    assert mine.balance_nano == 8 == oracle.storage.balance.grams
