"""The agent's receipt store: what is on disk when a call returns, and what one account adds up to."""

import asyncio
import multiprocessing
import os
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from worker.agent.journal import Journal
from worker.agent.store import KeptReceipt, ReceiptRow, SignedRelease, Store, StoreError


def receipt(seq: int, amount: int = 10, *, cap: int = 1000, key: int = 1) -> ReceiptRow:
    return ReceiptRow(
        request_id=bytes([key, seq]) * 16,
        key=bytes([key]) * 32,
        escrow=b"e" * 32,
        allotment=b"a" * 32,
        allotment_epoch=77,
        seq=seq,
        receipt=b"boc%d" % seq,
        signature=bytes([seq]) * 64,
        amount_nano=amount,
        cumulative_nano=amount * seq,
        cap_nano=cap,
        acked_nano=cap // 2,
        terms=b"t" * 32,
        voucher_signature=cap.to_bytes(64, "big"),
        frame=b"frame%d" % seq,
    )


@pytest.fixture
def store(tmp_path: Path):
    store = Store(tmp_path / "agent" / "receipts.db")
    yield store
    store.close()


def test_account_shows_latest_receipt_and_best_voucher(store: Store) -> None:
    with store.batch():
        store.add_receipt(receipt(1, cap=100), b"one", 1000)
        store.add_receipt(receipt(2, cap=500), b"two", 1001)
        store.add_receipt(receipt(3, cap=300), b"three", 1002)
    (account,) = store.accounts()
    assert (account.seq, account.cumulative_nano, account.receipt) == (3, 30, b"boc3")
    assert (account.cap_nano, account.acked_nano, account.voucher_signature) == (500, 250, (500).to_bytes(64, "big"))
    assert account.owed_nano == 30 and account.unlanded_since == 1000


def test_landing_never_goes_back(store: Store) -> None:
    with store.batch():
        store.add_receipt(receipt(1), b"", 1000)
        store.add_receipt(receipt(2), b"", 1005)
        store.mark_landed(b"\x01" * 32, b"a" * 32, seq=1, paid_nano=10, closed=False)
        store.mark_landed(b"\x01" * 32, b"a" * 32, seq=0, paid_nano=0, closed=False)
    (account,) = store.accounts()
    assert (account.landed_seq, account.landed_nano, account.owed_nano) == (1, 10, 10)
    assert account.unlanded_since == 1005
    with store.batch():
        store.mark_landed(b"\x01" * 32, b"a" * 32, seq=2, paid_nano=20, closed=True)
    assert store.accounts() == ()
    assert store.accounts(all=True)[0].owed_nano == 0
    assert (store.totals().receipts, store.totals().earned_nano, store.totals().landed_nano) == (2, 20, 20)


def test_owed_never_exceeds_the_voucher(store: Store) -> None:
    with store.batch():
        store.add_receipt(receipt(3, cap=25), b"", 1)
    assert store.accounts()[0].owed_nano == 25


def test_g6_owed_elsewhere_is_what_other_keys_are_owed_under_the_allotment(store: Store) -> None:
    """The gate takes it off what a row can still pay: its own key's debt must not count twice."""
    allotment = b"a" * 32
    with store.batch():
        store.add_receipt(receipt(3), b"", 1)
        store.add_receipt(receipt(4, key=2), b"", 1)
        store.add_receipt(receipt(9, cap=70, key=3), b"", 1)
        store.mark_landed(b"\x02" * 32, allotment, seq=1, paid_nano=10, closed=False)
    owed = {key: store.owed_elsewhere(allotment, bytes([key]) * 32) for key in (1, 2, 3, 4)}
    assert owed == {1: 30 + 70, 2: 30 + 70, 3: 30 + 30, 4: 30 + 30 + 70}
    assert store.owed_elsewhere(b"z" * 32, bytes(32)) == 0
    with store.batch():
        store.mark_landed(b"\x03" * 32, allotment, seq=0, paid_nano=0, closed=True)
    assert store.owed_elsewhere(allotment, b"\x01" * 32) == 30, "what is given up is not owed"


def test_g4_a_request_id_or_seq_is_stored_once(store: Store) -> None:
    with store.batch():
        store.add_receipt(receipt(1), b"first", 1)
    for again in (receipt(1), replace(receipt(2), request_id=receipt(1).request_id)):
        with pytest.raises(sqlite3.IntegrityError), store.batch():
            store.add_receipt(again, b"second", 2)
    known = store.request(receipt(1).request_id)
    assert known is not None and known.frames == b"first" and not known.whole
    assert store.accounts()[0].seq == 1


def test_answer_grows_by_its_last_frame_and_is_forgotten_later(store: Store) -> None:
    with store.batch():
        store.add_receipt(receipt(1), b"head data receipt", 100)
    with store.batch():
        store.end_answer(receipt(1).request_id, b" last")
    known = store.request(receipt(1).request_id)
    assert known is not None and known.whole and known.frames == b"head data receipt last"
    with store.batch():
        store.drop_answers(101)
    known = store.request(receipt(1).request_id)
    assert known is not None and known.frames is None and known.seq == 1
    assert store.receipts_after(b"\x01" * 32, b"a" * 32, 0, 10) == (KeptReceipt(b"e" * 32, 77, b"frame1"),)


def test_release_is_remembered_per_row_state(store: Store) -> None:
    with store.batch():
        store.add_release(b"a" * 32, 4, SignedRelease(500, b"s" * 64))
        store.add_release(b"a" * 32, 4, SignedRelease(1, b"x" * 64))
    assert store.release(b"a" * 32, 4) == SignedRelease(500, b"s" * 64)
    assert store.release(b"a" * 32, 5) is None


def test_newer_schema_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "r.db").close()
    with sqlite3.connect(tmp_path / "r.db") as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(StoreError, match="newer release"):
        Store(tmp_path / "r.db")


def test_junk_file_is_refused_with_a_cure(tmp_path: Path) -> None:
    (tmp_path / "r.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match="restored from a copy"):
        Store(tmp_path / "r.db")


async def test_journal_commits_together_and_fails_alone(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path / "r.db")
    rows = [receipt(seq) for seq in range(1, 101)]
    rows[50] = replace(rows[50], request_id=rows[0].request_id)

    def write(row: ReceiptRow):
        return lambda store: store.add_receipt(row, b"", 1)

    results = await asyncio.gather(*(journal.write(write(row)) for row in rows), return_exceptions=True)
    assert [index for index, result in enumerate(results) if result is not None] == [50]
    assert isinstance(results[50], sqlite3.IntegrityError)
    assert (await journal.read(lambda store: store.totals())).receipts == 99
    await journal.close()


def _write_until_killed(path: str, pipe) -> None:
    async def run() -> None:
        journal = Journal.open(Path(path))
        for seq in range(1, 200):
            await journal.write(lambda store, seq=seq: store.add_receipt(receipt(seq, 1), b"x", 1))
            os.write(pipe, bytes([seq]))

    asyncio.run(run())


def test_g16_killed_writer_keeps_every_acknowledged_receipt(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    read, write = os.pipe()
    child = multiprocessing.get_context("fork").Process(target=_write_until_killed, args=(str(path), write))
    child.start()
    os.close(write)
    acknowledged = 0
    while acknowledged < 20:
        acknowledged = os.read(read, 1)[0]
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    while rest := os.read(read, 1):
        acknowledged = rest[0]
    os.close(read)
    store = Store(path)
    assert store.accounts()[0].seq >= acknowledged
    assert store.totals().receipts == store.accounts()[0].seq
    store.close()
