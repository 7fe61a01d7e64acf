"""Where a worker gets its quote or report from: the kernel's TSM interface, or the simulated TEE."""

from __future__ import annotations

import errno
import logging
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
from attestation.snp.table import CertificateTable, parse_table
from attestation.strict import Malformed

log = logging.getLogger(__name__)

TSM_REPORTS = Path("/sys/kernel/config/tsm/report")
_PROVIDERS = {Kind.TDX: "tdx_guest", Kind.SEV_SNP: "sev_guest"}
# None: where it is not known yet which maker's guest it should be.
_GUEST_NAMES = {Kind.TDX: "a TDX guest", Kind.SEV_SNP: "an SEV-SNP guest", None: "a TDX or SEV-SNP guest"}
_MODULES = {Kind.TDX: "tdx_guest", Kind.SEV_SNP: "sev-guest", None: "tdx_guest` or `modprobe sev-guest"}
_MAKERS = {
    None: "the host's firmware and kernel",
    Kind.TDX: "that the host runs the quote generation service (qgsd) and that the guest may reach it over vsock",
    Kind.SEV_SNP: "the host's SEV firmware and kernel",
}


class QuoteUnavailable(Exception):
    """No quote can be had here. The text names the cause and the cure."""


class QuoteProvider(Protocol):
    @property
    def kind(self) -> Kind: ...

    def quote(self, report_data: bytes) -> bytes:
        """A quote (SEV-SNP: a report) over 64 bytes of REPORTDATA. Blocks: a real one takes tens of milliseconds.

        Raises QuoteUnavailable, or ValueError on another size.
        """


@dataclass(frozen=True, slots=True)
class Probe:
    """What a host can do. `lacks` holds a sentence per missing thing, each with its cure; empty when none is."""

    kind: Kind
    lacks: tuple[str, ...]

    @property
    def available(self) -> bool:
        return not self.lacks


@dataclass(frozen=True, slots=True)
class TsmReport:
    """What the kernel returned for one report."""

    quote: bytes
    certificates: CertificateTable | None
    """The host's copies of AMD's certificates; None with TDX, or where the host provides none."""


class ConfigfsTsm:
    """Quotes through configfs-tsm (Linux 6.7 and later, Documentation/ABI/testing/configfs-tsm-report).

    One interface for both makers' guests: `kind` says which one this worker is configured for, the kernel which one it
    runs in, and they must agree, since an image is measured for one of them.
    """

    def __init__(self, reports: Path = TSM_REPORTS, kind: Kind = Kind.TDX) -> None:
        if kind not in _PROVIDERS:
            raise ValueError(f"configfs-tsm makes evidence of kind {' or '.join(_PROVIDERS)}, not {kind}")
        self._reports = reports
        self.kind = kind

    def quote(self, report_data: bytes) -> bytes:
        return self.report(report_data).quote

    def report(self, report_data: bytes) -> TsmReport:
        """A quote, with the certificates that the host gives beside it. Raises as `QuoteProvider.quote` does."""
        if len(report_data) != REPORT_DATA_BYTES:
            raise ValueError(f"REPORTDATA must be {REPORT_DATA_BYTES} bytes, got {len(report_data)}")
        missing = self.probe().lacks
        if missing:
            raise QuoteUnavailable("; ".join(missing))
        try:
            with _entry(self._reports) as entry:
                return self._read_report(entry, report_data)
        except OSError as error:
            raise QuoteUnavailable(_os_error(error, self.kind)) from error

    def probe(self) -> Probe:
        """What this host lacks. Changes nothing."""
        return Probe(self.kind, tuple(_tsm_lacks(self._reports, self.kind)))

    def _read_report(self, entry: Path, report_data: bytes) -> TsmReport:
        provider = (entry / "provider").read_text().strip()
        if provider != _PROVIDERS[self.kind]:
            raise QuoteUnavailable(
                f"the TSM provider is {provider!r}, not {_PROVIDERS[self.kind]!r}; start this worker in "
                f"{_GUEST_NAMES[self.kind]}"
            )
        before, writes = _generation(entry), 1
        (entry / "inblob").write_bytes(report_data)
        if self.kind is Kind.SEV_SNP:
            # Asked from the most privileged level: what runs below it in the guest could not claim to be the worker.
            (entry / "privlevel").write_text("0")
            writes += 1
        quote = (entry / "outblob").read_bytes()
        table = (entry / "auxblob").read_bytes() if self.kind is Kind.SEV_SNP else b""
        # The kernel counts every write, so any other number means that somebody else wrote into our entry.
        if _generation(entry) != before + writes:
            raise QuoteUnavailable("another process changed the TSM report while it was made; try again")
        if not 0 < len(quote) <= LIMIT_BYTES:
            raise QuoteUnavailable(
                f"the kernel returned {len(quote)} bytes, which is no quote; check {_MAKERS[self.kind]}"
            )
        return TsmReport(quote, _certificates(table))


def detect(reports: Path = TSM_REPORTS) -> Kind:
    """Which maker's guest this kernel runs in. Raises QuoteUnavailable where it is neither's."""
    missing = tuple(_tsm_lacks(reports, None))
    if missing:
        raise QuoteUnavailable("; ".join(missing))
    try:
        with _entry(reports) as entry:
            name = (entry / "provider").read_text().strip()
    except OSError as error:
        raise QuoteUnavailable(_os_error(error, None)) from error
    found = next((kind for kind, provider in _PROVIDERS.items() if provider == name), None)
    if found is None:
        raise QuoteUnavailable(f"the TSM provider is {name!r}; known are {', '.join(_PROVIDERS.values())}")
    return found


@contextmanager
def _entry(reports: Path) -> Iterator[Path]:
    # A directory of our own: entries are shared state, and two workers must not write into one.
    entry = reports / f"cocoon-{os.getpid()}-{secrets.token_hex(4)}"
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


def _tsm_lacks(reports: Path, kind: Kind | None) -> Iterator[str]:
    configfs = reports.parent.parent
    if not configfs.is_dir():
        yield f"{configfs} is absent: mount it with `mount -t configfs none /sys/kernel/config`"
    elif not reports.is_dir():
        module = _MODULES[kind]
        yield (
            f"{reports} is absent: this is not {_GUEST_NAMES[kind]}, or its kernel is older than 6.7 or lacks the "
            f"module; try `modprobe {module}` inside one"
        )
    elif not os.access(reports, os.W_OK):
        yield f"{reports} is not writable: run the worker as root or give its user that directory"


def _os_error(error: OSError, kind: Kind | None) -> str:
    cause = f"the kernel made no quote ({error.strerror}: {error.filename})"
    if error.errno in (errno.ENOENT, errno.ENXIO):
        return f"{cause}: the guest module registered no provider; try `modprobe {_MODULES[kind]}`"
    if error.errno in (errno.EBUSY, errno.EAGAIN):
        return f"{cause}: another report is being made; try again in a second"
    return f"{cause}; check {_MAKERS[kind]}"


def _certificates(table: bytes) -> CertificateTable | None:
    try:
        return parse_table(table) if table else None
    except Malformed as error:
        # The host wrote the table. The report stands without it: AMD's key distribution service has the same.
        log.warning("the host's certificate table is of no use and is left out: %s", error)
        return None


def _generation(entry: Path) -> int:
    return int((entry / "generation").read_text())
