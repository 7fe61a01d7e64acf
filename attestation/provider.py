"""Where a worker gets its quote from: the kernel's TSM interface, or the simulated TEE."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from attestation.evidence import Kind
from attestation.quote import LIMIT_BYTES
from attestation.report_data import REPORT_DATA_BYTES

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
_TDX_PROVIDER = "tdx_guest"


class QuoteUnavailable(Exception):
    """No quote can be had here. The text names the cause and the cure."""


class QuoteProvider(Protocol):
    @property
    def kind(self) -> Kind: ...

    def quote(self, report_data: bytes) -> bytes:
        """A quote over 64 bytes of REPORTDATA. Raises QuoteUnavailable, or ValueError on another size. Blocks: a real
        quote takes tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a host can do. `lacks` holds a sentence per missing thing, each with its cure; empty when none is."""

    kind: Kind
    lacks: tuple[str, ...]

    @property
    def available(self) -> bool:
        return not self.lacks


class ConfigfsTsm:
    """Quotes through configfs-tsm (Linux 6.7 and later, Documentation/ABI/testing/configfs-tsm-report)."""

    kind = Kind.TDX

    def __init__(self, reports: Path = TSM_REPORTS) -> None:
        self._reports = reports

    def quote(self, report_data: bytes) -> bytes:
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"REPORTDATA must be {REPORT_DATA_BYTES} bytes, got {len(report_data)}")
        missing = self.probe().lacks
        if missing:
            raise QuoteUnavailable("; ".join(missing))
        try:
            with self._entry() as entry:
                return self._read_quote(entry, report_data)
        except OSError as error:
            raise QuoteUnavailable(
                f"the kernel made no quote ({error.strerror}: {error.filename}); check that the host runs the quote "
                "generation service (qgsd) and that the guest may reach it over vsock"
            ) from error

    def probe(self) -> Probe:
        """What this host lacks. Changes nothing."""
        return Probe(self.kind, tuple(_tsm_lacks(self._reports)))

    def _read_quote(self, entry: Path, report_data: bytes) -> bytes:
        before = _generation(entry)
        (entry / "inblob").write_bytes(report_data)
        provider = (entry / "provider").read_text().strip()
        if provider != _TDX_PROVIDER:
            raise QuoteUnavailable(
                f"the TSM provider is {provider!r}, not {_TDX_PROVIDER!r}; start this worker in a TDX guest"
            )
        quote = (entry / "outblob").read_bytes()
        # The kernel counts every write, so any other number means that somebody else wrote into our entry.
        if _generation(entry) != before + 1:
            raise QuoteUnavailable("another process changed the TSM report while it was made; try again")
        if not 0 < len(quote) <= LIMIT_BYTES:
            raise QuoteUnavailable(f"the kernel returned {len(quote)} bytes, which is no quote; update the host's qgsd")
        return quote

    @contextmanager
    def _entry(self) -> Iterator[Path]:
        # A directory of our own: entries are shared state, and two workers must not write into one.
        entry = self._reports / f"cocoon-{os.getpid()}-{secrets.token_hex(4)}"
        entry.mkdir()
        try:
            yield entry
        finally:
            entry.rmdir()


class Simulated:
    """Quotes from the simulated TEE. They prove nothing, and say so wherever they are shown."""

    kind = Kind.SIMULATED

    def __init__(self, platform_secret: bytes) -> None:
        # Imported late: a production worker's measured image need not hold the simulated hierarchy.
        from attestation.simulated.tee import SimulatedTee

        self._tee = SimulatedTee(platform_secret)

    def quote(self, report_data: bytes) -> bytes:
        return self._tee.quote(report_data)

    def probe(self) -> Probe:
        return Probe(self.kind, ())


def _tsm_lacks(reports: Path) -> Iterator[str]:
    configfs = reports.parent.parent
    if not configfs.is_dir():
        yield f"{configfs} is absent: mount it with `mount -t configfs none /sys/kernel/config`"
    elif not reports.is_dir():
        yield (
            f"{reports} is absent: this is no TDX guest, or its kernel is older than 6.7 or lacks the module; try "
            "`modprobe tdx_guest` inside a TDX virtual machine"
        )
    elif not os.access(reports, os.W_OK):
        yield f"{reports} is not writable: run the worker as root or give its user that directory"


def _generation(entry: Path) -> int:
    return int((entry / "generation").read_text())
