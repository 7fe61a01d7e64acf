"""Batch jobs on the agent's disk: one folder per job with `record.json`, the sealed `input` and the sealed `result`.

A record is replaced whole and is on disk when a call returns: after a kill -9 the agent goes on from the last step, and
what an enclave signed is never signed for nothing.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, Self

from protocol.jobs import is_input
from wrappers.cells import from_boc
from wrappers.job import JobSpec

log = logging.getLogger(__name__)


@unique
class Stage(StrEnum):
    """What the agent has of a job. What the chain has is read from the chain."""

    FETCHING = "fetching"
    """The input is on its way from a relayer."""
    HELD = "held"
    """The input is here."""
    SIGNED = "signed"
    """The enclave signed the acceptance."""
    FINISHED = "finished"
    """The result is here, signed."""


@dataclass(frozen=True, slots=True)
class JobRecord:
    job: bytes
    escrow: bytes
    index: int
    spec: bytes = field(repr=False)
    """Bag of cells of JobSpec."""
    wraps: bytes = field(repr=False)
    relayer: str
    """Where it came from and where the result goes: http:// URL."""
    keep_until: int
    stage: Stage = Stage.FETCHING
    epoch: int = 0
    """Of the job on chain; 0 until it was seen there."""
    key: bytes = b""
    """Enclave key that signed."""
    acceptance: bytes = b""
    result: bytes = b""
    amount_nano: int = 0
    inner: bytes = b""
    signature: bytes = b""
    delivered: bool = False
    """Whether the relayer has the result."""

    @property
    def parsed(self) -> JobSpec:
        return JobSpec.from_cell(from_boc(self.spec))

    def to_json(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        values = dict(raw)
        for name in ("job", "escrow", "spec", "wraps", "key", "acceptance", "result", "inner", "signature"):
            values[name] = base64.b64decode(values[name], validate=True)
        return cls(**{**values, "stage": Stage(values["stage"])})


class JobRecords:
    """All calls, and the constructor, block on the disk; those that write may come from several threads. OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._records: dict[bytes, JobRecord] = {}
        self._writing = threading.RLock()
        for path in folder.iterdir():
            try:
                record = JobRecord.from_json(json.loads((path / "record.json").read_text(encoding="utf-8")))
            except (FileNotFoundError, NotADirectoryError):
                shutil.rmtree(path, ignore_errors=True)  # a job that was not begun yet
            except (ValueError, TypeError, KeyError) as error:
                # Never thrown away: what is signed in there may be owed, and the operator may know a backup.
                log.error("the record of a job in %s is damaged (%s): restore it, or remove the folder", path, error)
            else:
                self._records[record.job] = record

    def all(self) -> tuple[JobRecord, ...]:
        return tuple(self._records.values())

    def get(self, job: bytes) -> JobRecord | None:
        return self._records.get(job)

    def put(self, record: JobRecord) -> JobRecord:
        path = self._path(record.job)
        with self._writing:
            path.mkdir(exist_ok=True, mode=0o700)
            _write(path / "record.json", json.dumps(record.to_json()).encode())
            self._records[record.job] = record
        return record

    def change(self, job: bytes, **changes: Any) -> JobRecord | None:
        """None when it is gone."""
        with self._writing:
            record = self._records.get(job)
            return None if record is None else self.put(replace(record, **changes))

    def forget(self, job: bytes) -> None:
        with self._writing:
            self._records.pop(job, None)
            shutil.rmtree(self._path(job), ignore_errors=True)

    def input_size(self, job: bytes) -> int:
        with contextlib.suppress(FileNotFoundError):
            return (self._path(job) / "input").stat().st_size
        return 0

    def add_input(self, job: bytes, data: bytes) -> bool:
        """Append; True when it is whole and the right one. The wrong one is dropped, to be fetched anew."""
        record, path = self._records[job], self._path(job) / "input"
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.stat().st_size < record.parsed.size:
            return False
        if is_input(record.parsed, path.read_bytes()):
            return True
        path.unlink()
        return False

    def input(self, job: bytes) -> bytes:
        return (self._path(job) / "input").read_bytes()

    def put_result(self, job: bytes, data: bytes) -> None:
        """Nothing where the job was forgotten: its folder must not come to life again."""
        with self._writing:
            if job in self._records:
                _write(self._path(job) / "result", data)

    def result(self, job: bytes) -> bytes:
        return (self._path(job) / "result").read_bytes()

    def has_result(self, record: JobRecord) -> bool:
        """Whether the result that was signed is really here."""
        with contextlib.suppress(OSError):
            return hashlib.sha256(self.result(record.job)).digest() == record.result
        return False

    def _path(self, job: bytes) -> Path:
        return self._folder / job.hex()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
