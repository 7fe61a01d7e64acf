"""A client's batch jobs on disk: `jobs/ACCOUNT.json` in its home, beside it what is still to be sent.

On disk before anything names the job: the secret that opens the result and the key that pays it exist nowhere else.
"""

from __future__ import annotations

import base64
import json
import logging
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum, unique
from pathlib import Path
from typing import Any, Self

from client.errors import BadRequest, HomeError
from client.home import write_private
from protocol.codec import Reader
from protocol.job_link import Entry
from protocol.terms import read_terms, terms_to_bytes
from wrappers.cells import CellError, from_boc, to_boc
from wrappers.job import JobConfig, JobSpec, Outcome
from wrappers.receipts import Terms

_NAME = re.compile("[0-9a-f]{64}")
log = logging.getLogger("cocoon.client")


@unique
class Made(StrEnum):
    """How far this client has come. What the nodes and the chain did is read from the chain."""

    SEALED = "sealed"
    ORDERED = "ordered"
    FETCHED = "fetched"


@dataclass(frozen=True, slots=True)
class JobRecord:
    job: bytes
    """Account."""
    number: int
    """Of the escrow that pays."""
    escrow: bytes
    index: int
    made: Made
    config: bytes = field(repr=False)
    spec: bytes = field(repr=False)
    wraps: bytes = field(repr=False)
    terms: bytes
    secret: bytes = field(repr=False)
    delivery_key: bytes = field(repr=False)
    """Private."""
    model: str
    asked: tuple[str, ...]
    """custom_id of every line."""
    simulated: bool
    keep_until: int
    epoch: int = 0
    outcome: bytes = b""
    """As the chain last showed it."""
    node: bytes = b""
    """Which has accepted."""

    @property
    def parsed(self) -> JobSpec:
        return JobSpec.from_cell(from_boc(self.spec))

    @property
    def job_config(self) -> JobConfig:
        return JobConfig.from_cell(from_boc(self.config))

    @property
    def opened_terms(self) -> Terms:
        return read_terms(Reader(self.terms, "stored terms"))

    @property
    def seen(self) -> Outcome | None:
        return Outcome.from_slice(from_boc(self.outcome).begin_parse()) if self.outcome else None

    @property
    def entry(self) -> Entry:
        return Entry(self.job, self.escrow, self.index, self.spec, self.wraps, self.keep_until)

    def to_json(self) -> dict[str, Any]:
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: base64.b64encode(v).decode() if isinstance(v, bytes) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        kinds = {one.name: str(one.type) for one in fields(cls)}
        values: dict[str, Any] = {
            name: base64.b64decode(raw[name]) if kinds[name] == "bytes" else raw[name] for name in raw
        }
        return cls(**{**values, "made": Made(raw["made"]), "asked": tuple(raw["asked"])})


def packed(terms: Terms) -> bytes:
    return terms_to_bytes(terms)


def packed_outcome(outcome: Outcome) -> bytes:
    return to_boc(outcome.to_cell())


class JobRecords:
    """Raises HomeError when the disk takes nothing or a record is damaged."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "jobs"
        self._damaged: set[bytes] = set()

    def put(self, record: JobRecord) -> JobRecord:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_private(self._file(record.job), json.dumps(record.to_json()), replace=True)
        except OSError as error:
            raise HomeError(f"the job cannot be written down ({error.strerror})", "make room on the disk") from error
        return record

    def put_input(self, job: bytes, sealed: bytes) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            write_private(self._input(job), base64.b64encode(sealed).decode(), replace=True)
        except OSError as error:
            raise HomeError(f"the job cannot be written down ({error.strerror})", "make room on the disk") from error

    def input(self, job: bytes) -> bytes:
        try:
            return base64.b64decode(self._input(job).read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise HomeError(f"the input of job {job.hex()} is gone from the home", "submit it anew") from error

    def drop_input(self, job: bytes) -> None:
        self._input(job).unlink(missing_ok=True)

    def get(self, job: bytes) -> JobRecord:
        """Raises BadRequest for one that this client did not submit."""
        path = self._file(job)
        if not path.exists():
            raise BadRequest(f"no job {job.hex()} was submitted from this home", "see `cocoon client job list`")
        try:
            record = JobRecord.from_json(json.loads(path.read_text(encoding="utf-8")))
            _ = record.job_config, record.parsed  # both are opened at every look
            return record
        except (OSError, ValueError, TypeError, KeyError, CellError) as error:
            raise HomeError(f"{path} is damaged", "restore it from a backup") from error

    def all(self) -> list[JobRecord]:
        """Newest first. Raises HomeError where one is damaged."""
        return [self.get(job) for job in self._jobs()]

    def readable(self) -> list[JobRecord]:
        """Newest first, without those that are damaged: the log names each of them once."""
        found = []
        for job in self._jobs():
            try:
                found.append(self.get(job))
            except HomeError as error:
                if job not in self._damaged:
                    self._damaged.add(job)
                    log.warning("%s", error)
        return found

    def _jobs(self) -> list[bytes]:
        if not self._folder.is_dir():
            return []
        mine = [path for path in self._folder.glob("*.json") if _NAME.fullmatch(path.stem)]
        files = sorted(mine, key=lambda path: path.stat().st_mtime, reverse=True)
        return [bytes.fromhex(path.stem) for path in files]

    def _file(self, job: bytes) -> Path:
        return self._folder / f"{job.hex()}.json"

    def _input(self, job: bytes) -> Path:
        return self._folder / f"{job.hex()}.input"
