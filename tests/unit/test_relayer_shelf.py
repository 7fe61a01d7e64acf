"""The relayer's shelf for job ciphertexts: bounded, resumed after any break, and whole only with the right hash."""

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from protocol import jobs
from protocol.job_link import Entry, node_request, post_request
from protocol.jobs import Wrap, wraps_to_bytes
from protocol.link import BadMessage
from protocol.sealing import WRAP_OVERHEAD
from relayer.store.shelf import INPUT, UPLOAD_SECONDS, Blob, Shelf, ShelfRefuses, result_name
from wrappers.cells import to_boc
from wrappers.job import JobSpec

ESCROW, NODE, NOW = b"e" * 32, b"n" * 32, 1000
DATA = bytes(range(256)) * 10
WRAPS = wraps_to_bytes([Wrap(NODE, b"h" * 32, bytes(32 + WRAP_OVERHEAD))])
SPEC = JobSpec(hashlib.sha256(DATA).digest(), len(DATA), hashlib.sha256(WRAPS).digest(), b"t" * 32, 2)
BLOB = Blob(INPUT, SPEC.size, SPEC.input)


def entry(number: int = 1, **changes) -> Entry:
    made = Entry(bytes([number]) * 32, ESCROW, number, to_boc(SPEC.to_cell()), WRAPS, NOW + 100)
    return replace(made, **changes)


def shelf(tmp_path: Path, **limits) -> Shelf:
    return Shelf(tmp_path / "jobs", **({"jobs_per_escrow": 2, "total_bytes": 10_000} | limits))


def fill(shelf: Shelf, job: bytes) -> None:
    for at in range(0, len(DATA), 1000):
        shelf.append(job, BLOB, at, DATA[at : at + 1000])


def test_g16_pieces_are_taken_in_order_and_resumed_after_a_restart(tmp_path: Path) -> None:
    one = entry()
    kept = shelf(tmp_path)
    kept.put(one, NOW)
    assert kept.append(one.job, BLOB, 0, DATA[:1000]) == 1000
    assert kept.append(one.job, BLOB, 0, DATA[:1000]) == 1000, "a repeated piece changes nothing"
    assert kept.append(one.job, BLOB, 2000, DATA[2000:]) == 1000, "nor does one that comes too early"
    assert kept.for_node(NODE) == ((), False)
    kept = shelf(tmp_path)
    assert kept.size(one.job, INPUT) == 1000
    with pytest.raises(ShelfRefuses, match="not here yet"):
        kept.read(one.job, INPUT, 0)
    kept.append(one.job, BLOB, 1000, DATA[1000:])
    assert kept.for_node(NODE) == ((one,), False) and kept.for_node(b"x" * 32) == ((), False)
    assert kept.read(one.job, INPUT, 1000) == DATA[1000:] and kept.read(one.job, INPUT, len(DATA)) == b""


def test_a_blob_with_another_hash_is_not_kept(tmp_path: Path) -> None:
    one, kept = entry(), shelf(tmp_path)
    kept.put(one, NOW)
    with pytest.raises(ShelfRefuses, match="not the one"):
        kept.append(one.job, BLOB, 0, bytes(len(DATA)))
    assert kept.size(one.job, INPUT) == 0
    fill(kept, one.job)
    assert kept.is_whole(one.job, INPUT)
    with pytest.raises(ShelfRefuses, match="beyond"):
        kept.append(one.job, Blob(result_name(NODE), 10, b""), 0, bytes(11))


def test_number_size_and_time_are_bounded(tmp_path: Path) -> None:
    kept = shelf(tmp_path, total_bytes=2 * len(DATA) + 100)
    kept.put(entry(1), NOW)
    kept.put(entry(2), NOW)
    kept.put(entry(2), NOW)
    with pytest.raises(ShelfRefuses, match="2 jobs"):
        kept.put(entry(3), NOW)
    with pytest.raises(ShelfRefuses, match="full"):
        kept.put(entry(3, escrow=b"f" * 32), NOW)
    with pytest.raises(ShelfRefuses, match="another job"):
        kept.put(entry(1, spec=to_boc(replace(SPEC, lines=3).to_cell())), NOW)
    with pytest.raises(ShelfRefuses, match="full"):
        kept.append(entry(1).job, Blob(result_name(NODE), 200, b""), 0, bytes(200))
    with pytest.raises(ShelfRefuses, match="within"):
        kept.append(entry(1).job, Blob(result_name(NODE), jobs.MAX_RESULT_BYTES + 1, b""), 0, b"x")
    assert kept.expire(NOW + 100) == 2
    with pytest.raises(ShelfRefuses, match="no such job"):
        kept.entry(entry(1).job)
    with pytest.raises(ShelfRefuses, match="over already"):
        kept.put(entry(1), NOW + 100)
    kept.put(entry(3, escrow=b"f" * 32), NOW)


def test_a_restart_drops_what_is_no_entry_and_counts_the_rest(tmp_path: Path) -> None:
    kept = shelf(tmp_path)
    kept.put(entry(1), NOW)
    (tmp_path / "jobs" / "half").mkdir()
    kept = shelf(tmp_path)
    assert not (tmp_path / "jobs" / "half").exists() and kept.entry(entry(1).job) == entry(1)
    assert shelf(tmp_path, total_bytes=len(DATA)).for_node(NODE) == ((), False)


def test_entries_are_strict() -> None:
    body = json.loads(json.dumps(entry().to_json()))
    assert Entry.from_json(body) == entry()
    for change in (
        {"job": "00"},
        {"spec": "!"},
        {"spec": "AA=="},
        {"wraps": "AA=="},
        {"index": -1},
        {"keep_until": "1"},
    ):
        with pytest.raises(BadMessage):
            Entry.from_json({**body, **change})


def test_what_is_signed_is_never_32_bytes_and_never_alike() -> None:
    ids = {"network": b"N" * 32, "at": 1}
    one = post_request(escrow=ESCROW, job=b"j" * 32, entry=bytes(32), **ids)
    two = node_request(node=NODE, **ids)
    assert (len(one), len(two)) == (180, 182) and one[:13] != two[:13]
    puts = {node_request(node=NODE, job=job, result=data, **ids) for job in (ESCROW, NODE) for data in (ESCROW, NODE)}
    assert len(puts | {two}) == 5, "leave to read is none to put, and one result's is no other's"


def test_g16_a_disk_that_fails_for_a_moment_deletes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = entry()
    kept = shelf(tmp_path)
    kept.put(one, NOW)
    fill(kept, one.job)

    def fails(*_: object, **__: object) -> str:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", fails)
        with pytest.raises(OSError, match="Too many"):
            shelf(tmp_path)
    assert shelf(tmp_path).for_node(NODE) == ((one,), False)


def test_g3_however_many_jobs_are_left_a_node_comes_to_each_of_them(tmp_path: Path) -> None:
    """Who leaves many hides none of the others, for all that jobs are kept for weeks."""
    kept = shelf(tmp_path, jobs_per_escrow=100, total_bytes=1 << 20)
    made = [entry(number) for number in range(9, 0, -1)]
    for one in made:
        kept.put(one, NOW)
        if one.index != 5:
            fill(kept, one.job)
    pages, after, more = [], b"", True
    while more:
        page, more = kept.for_node(NODE, after, most=3)
        pages.append([one.index for one in page])
        after = page[-1].job
    assert pages == [[1, 2, 3], [4, 6, 7], [8, 9]]
    assert kept.for_node(NODE, made[0].job) == ((), False)
    assert kept.expire(NOW + 100) == 9 and kept.for_node(NODE) == ((), False)


def test_room_that_nobody_fills_is_free_again(tmp_path: Path) -> None:
    """Else a few clients who send nothing hold all of it, for as long as jobs are kept."""
    kept, now = shelf(tmp_path, jobs_per_escrow=3), int(time.time())
    for number in (1, 2, 3):
        kept.put(entry(number, keep_until=now + 10**6), now)
    fill(kept, entry(2).job)
    kept.append(entry(3).job, BLOB, 0, DATA[:1000])
    for path in (tmp_path / "jobs").glob("*/*"):
        if path.name != "input.part":
            os.utime(path, (now - UPLOAD_SECONDS - 60,) * 2)
    assert kept.expire(now) == 1
    with pytest.raises(ShelfRefuses, match="no such job"):
        kept.entry(entry(1).job)
    assert kept.is_whole(entry(2).job, INPUT) and kept.append(entry(3).job, BLOB, 1000, DATA[1000:]) == len(DATA)
    kept.put(entry(1, keep_until=now + 10**6), now)
    assert kept.expire(now + UPLOAD_SECONDS + 60) == 1
