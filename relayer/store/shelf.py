"""Ciphertexts of batch jobs on disk, bounded in number, size and time: kept for clients and agents that come and go.

One folder per job: `entry.json`, `input` and one `result-NODE` per node; `.part` while pieces are missing. A process
that died leaves what was written, and whoever sent it goes on from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import ProtocolError
from protocol.job_link import LISTED, PIECE_BYTES, Entry
from protocol.jobs import MAX_INPUT_BYTES, MAX_RESULT_BYTES
from wrappers.cells import CellError

INPUT = "input"
UPLOAD_SECONDS = 3600
"""Longest wait for the next piece of an input."""


class ShelfRefuses(Exception):
    """`status` is the HTTP status; the text names cause and cure."""

    def __init__(self, status: int, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.status = status
        self.cause = cause
        self.cure = cure


@dataclass(frozen=True, slots=True)
class Blob:
    """Announced before its first byte: `digest` is its SHA-256."""

    name: str
    size: int
    digest: bytes


def result_name(node: bytes) -> str:
    return f"result-{node.hex()}"


class Shelf:
    """Thread-safe; every call blocks on the disk. Raises ShelfRefuses, OSError."""

    def __init__(self, folder: Path, *, jobs_per_escrow: int, total_bytes: int) -> None:
        self._folder = folder
        self._per_escrow = jobs_per_escrow
        self._total = total_bytes
        self._lock = threading.RLock()
        self._entries: dict[bytes, Entry] = {}
        self._nodes: dict[bytes, frozenset[bytes]] = {}
        self._reserved: dict[tuple[bytes, str], int] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in folder.iterdir():
            self._load(path)

    def _load(self, path: Path) -> None:
        try:
            entry = Entry.from_json(json.loads((path / "entry.json").read_text(encoding="utf-8")))
        except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError, ProtocolError, CellError):
            # Any other error of the disk may pass: it is told to the operator, and deletes nothing.
            shutil.rmtree(path, ignore_errors=True)  # it died before the entry was whole: the client begins anew
            return
        self._keep(entry)
        self._reserved[entry.job, INPUT] = entry.parsed.size
        for part in path.glob("result-*"):
            self._reserved[entry.job, part.name.removesuffix(".part")] = part.stat().st_size

    def put(self, entry: Entry, now: int) -> None:
        """Make room for a job; again for the same one changes nothing."""
        with self._lock:
            held = self._entries.get(entry.job)
            if held is not None:
                if held.spec != entry.spec:
                    raise ShelfRefuses(409, "another job is kept for this account", "submit under a new index")
                return
            if sum(one.escrow == entry.escrow for one in self._entries.values()) >= self._per_escrow:
                raise ShelfRefuses(429, f"{self._per_escrow} jobs of this escrow are kept", "wait until one ends")
            if entry.keep_until <= now:
                raise ShelfRefuses(400, "the job is over already", "choose a later deadline")
            self._reserve(entry.job, INPUT, entry.parsed.size, MAX_INPUT_BYTES)
            path = self._path(entry.job)
            path.mkdir(mode=0o700, exist_ok=True)
            part = path / "entry.part"
            with part.open("w", encoding="utf-8") as file:
                json.dump(entry.to_json(), file)
                file.flush()
                os.fsync(file.fileno())
            part.rename(path / "entry.json")
            self._keep(entry)

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.job], self._nodes[entry.job] = entry, entry.nodes

    def entry(self, job: bytes) -> Entry:
        with self._lock:
            found = self._entries.get(job)
        if found is None:
            raise ShelfRefuses(404, "no such job is kept here", "submit it, or ask the relayer that has it")
        return found

    def for_node(self, node: bytes, after: bytes = b"", most: int = LISTED) -> tuple[tuple[Entry, ...], bool]:
        """Jobs sealed to it whose input is whole, in order of their accounts; whether there are more than `most`."""
        with self._lock:
            jobs = sorted(job for job, nodes in self._nodes.items() if node in nodes and job > after)
            found = itertools.islice((job for job in jobs if self.is_whole(job, INPUT)), most + 1)
            page = [self._entries[job] for job in found]
        return tuple(page[:most]), len(page) > most

    def is_whole(self, job: bytes, name: str) -> bool:
        return (self._path(job) / name).exists()

    def size(self, job: bytes, name: str) -> int:
        """Bytes that are here, of a part as of a whole."""
        for path in (self._path(job) / name, self._path(job) / f"{name}.part"):
            with contextlib.suppress(FileNotFoundError):
                return path.stat().st_size
        return 0

    def append(self, job: bytes, blob: Blob, offset: int, data: bytes) -> int:
        """The next piece; how many bytes are here now. A piece for another offset changes nothing."""
        with self._lock:
            self.entry(job)
            have = self.size(job, blob.name)
            if self.is_whole(job, blob.name) or offset != have:
                return have
            if blob.name != INPUT:
                self._reserve(job, blob.name, blob.size, MAX_RESULT_BYTES)
            if len(data) > PIECE_BYTES or offset + len(data) > blob.size:
                raise ShelfRefuses(413, "the piece reaches beyond the blob", f"send {PIECE_BYTES} bytes at most")
            part = self._path(job) / f"{blob.name}.part"
            with part.open("ab") as file:
                file.write(data)
                if offset + len(data) == blob.size:
                    file.flush()
                    os.fsync(file.fileno())
            if offset + len(data) == blob.size:
                self._complete(job, blob, part)
            return self.size(job, blob.name)

    def _complete(self, job: bytes, blob: Blob, part: Path) -> None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
        if digest != blob.digest:
            part.unlink()
            raise ShelfRefuses(400, "the blob is not the one that was announced", "send it again from the beginning")
        part.rename(self._path(job) / blob.name)

    def read(self, job: bytes, name: str, offset: int) -> bytes:
        """A piece from `offset` on; empty at the end. Raises ShelfRefuses where it is not whole."""
        self.entry(job)
        try:
            with (self._path(job) / name).open("rb") as file:
                file.seek(offset)
                return file.read(PIECE_BYTES)
        except FileNotFoundError as error:
            raise ShelfRefuses(404, "it is not here yet", "ask again later") from error

    def expire(self, now: int) -> int:
        """Forget what nobody needs any more; how many jobs that were."""
        with self._lock:
            over = [job for job, one in self._entries.items() if one.keep_until <= now or self._abandoned(job, now)]
            for job in over:
                shutil.rmtree(self._path(job), ignore_errors=True)
                del self._entries[job], self._nodes[job]
                self._reserved = {place: size for place, size in self._reserved.items() if place[0] != job}
            return len(over)

    def _abandoned(self, job: bytes, now: int) -> bool:
        """Room that somebody asked for and does not fill; whoever comes back leaves his job anew."""
        if self.is_whole(job, INPUT):
            return False
        times = [path.stat().st_mtime for path in self._path(job).glob("*")]
        return now - max(times, default=0.0) > UPLOAD_SECONDS

    def _reserve(self, job: bytes, name: str, size: int, most: int) -> None:
        if not 0 < size <= most:
            raise ShelfRefuses(413, f"a blob of {size} bytes", f"keep it within {most}")
        others = sum(one for place, one in self._reserved.items() if place != (job, name))
        if others + size > self._total:
            raise ShelfRefuses(503, "the relayer's room for jobs is full", "use another relayer, or try later")
        self._reserved[job, name] = size

    def _path(self, job: bytes) -> Path:
        return self._folder / job.hex()
