"""Collateral for one's own evidence, kept on disk so that an outage of its publisher stops nobody.

What is kept only ever gets newer: a server that serves an older set (to hide a revocation, or a firmware found broken)
is not believed over what was seen before, not even after that ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from attestation import strict, trust_roots
from attestation.collateral import JSON_LIMIT_BYTES, AnyCollateral, Collateral
from attestation.collateral import parse as parse_collateral
from attestation.evidence import Evidence, Kind
from attestation.fetch import CollateralUnavailable, Get, http_get
from attestation.genuine import Ages, check_genuine, crl_numbers, older
from attestation.kds import fetch_amd
from attestation.pccs import fetch_intel, platform_of
from attestation.snp import hardware as snp_hardware
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import parse as parse_report
from attestation.strict import Malformed
from attestation.trust_roots import Root

log = logging.getLogger(__name__)

REFRESH_SECONDS = 86_400
"""A day: how long a set is used before a newer one is asked for. Intel issues monthly, and sooner when need be."""
AHEAD_SECONDS = 7 * 86_400
"""A set that ends sooner than this is renewed at every chance."""
RETRY_SECONDS = 600
"""After a failure; the set at hand is used meanwhile."""


@dataclass(frozen=True, slots=True)
class _Kept:
    collateral: AnyCollateral
    ages: Ages
    expires_at: int
    fetched_at: int


@dataclass(frozen=True, slots=True)
class _Want:
    """One entry of the cache: its name, how it is fetched, how it is judged."""

    name: str
    fetch: Callable[[AnyCollateral | None], Awaitable[AnyCollateral]]
    judge: Callable[[AnyCollateral, int], tuple[Ages, int]]
    """(ages, end) of a set at a time. Raises ValueError for one that is not genuine or has ended."""


@dataclass(slots=True)
class CollateralSource:
    """`url` is the base of a PCCS (TDX) or of AMD's service (SEV-SNP); `folder` is made when needed."""

    url: str
    folder: Path
    get: Get = http_get
    intel_root: Root = field(default_factory=lambda: trust_roots.root(Kind.TDX))
    _tried: dict[str, int] = field(default_factory=dict)

    async def collateral(self, evidence: Evidence, now: int) -> AnyCollateral:
        """Genuine collateral for this evidence that is valid at `now` (unix seconds), the newest that was ever seen.

        Raises CollateralUnavailable.
        """
        try:
            want = self._want(evidence)
        except ValueError as error:
            raise CollateralUnavailable(f"no collateral can be asked for: {error}") from error
        kept = await asyncio.to_thread(self._read, want, now)
        usable = kept is not None and kept.expires_at > now
        if kept is not None and usable and not self._is_due(want, kept, now):
            return kept.collateral
        self._tried[want.name] = now
        try:
            return await self._renew(want, kept, now)
        except CollateralUnavailable as error:
            if kept is None or not usable:
                raise
            log.warning("collateral was not renewed, the set at hand is valid until %d: %s", kept.expires_at, error)
            return kept.collateral

    def _is_due(self, want: _Want, kept: _Kept, now: int) -> bool:
        if now < self._tried.get(want.name, 0) + RETRY_SECONDS:
            return False
        return now >= min(kept.fetched_at + REFRESH_SECONDS, kept.expires_at - AHEAD_SECONDS)

    async def _renew(self, want: _Want, kept: _Kept | None, now: int) -> AnyCollateral:
        try:
            found = await want.fetch(kept.collateral if kept else None)
            ages, expires_at = want.judge(found, now)
        except CollateralUnavailable:
            raise
        except Exception as error:  # certificate parsers raise many unrelated types on hostile input
            raise CollateralUnavailable(
                f"{self.url} served collateral that is of no use: {error or type(error).__name__}; refresh the service "
                "or name another"
            ) from error
        gone_back = older(ages, kept.ages) if kept else []
        if gone_back:
            raise CollateralUnavailable(
                f"{self.url} served older collateral than was seen before ({', '.join(gone_back)}); refresh the "
                f"service or name another. If it is right, delete {self._path(want)}"
            )
        await asyncio.to_thread(self._write, want, _Kept(found, ages, expires_at, now))
        return found

    def _want(self, evidence: Evidence) -> _Want:
        if evidence.kind is Kind.SEV_SNP:
            return self._want_amd(evidence.quote)
        platform = platform_of(evidence.quote)

        async def fetch(known: AnyCollateral | None) -> AnyCollateral:
            return await fetch_intel(self.get, self.url, platform)

        def judge(found: AnyCollateral, now: int) -> tuple[Ages, int]:
            if not isinstance(found, Collateral):
                raise Malformed("it is not Intel's")
            return check_genuine(found, self.intel_root, platform.fmspc, platform.authority, now)

        return _Want(f"intel-{platform.fmspc}-{platform.authority}", fetch, judge)

    def _want_amd(self, raw: bytes) -> _Want:
        report = parse_report(raw)

        async def fetch(known: AnyCollateral | None) -> AnyCollateral:
            amd = known if isinstance(known, AmdCollateral) else None
            return await fetch_amd(self.get, self.url, report, amd)

        def judge(found: AnyCollateral, now: int) -> tuple[Ages, int]:
            if not isinstance(found, AmdCollateral) or found.crl is None:
                raise Malformed("it is not AMD's, or lacks the revocation list")
            checked = snp_hardware.check(raw, found, now)
            return crl_numbers(x509.load_der_x509_crl(found.crl), "AMD CRL"), checked.endorsement.expires_at

        return _Want(f"amd-{report.chip_id.hex()[:16]}-{report.reported_tcb.hex()}", fetch, judge)

    def _path(self, want: _Want) -> Path:
        return self.folder / f"{want.name}.json"

    def _read(self, want: _Want, now: int) -> _Kept | None:
        """What is kept, ended or not: what ended still says how new the next one must be. It is judged again as of the
        time it was fetched, since the file may have been changed."""
        path = self._path(want)
        try:
            document = strict.json_object(path.read_bytes(), "kept collateral", limit_bytes=2 * JSON_LIMIT_BYTES)
            strict.only_keys(document, "kept collateral", required=("fetched_at", "collateral"))
            fetched_at = strict.integer_field(document, "fetched_at", "kept collateral", low=0, high=2**40)
            found = parse_collateral(json.dumps(document["collateral"]))
            ages, expires_at = want.judge(found, fetched_at)
        except FileNotFoundError:
            return None
        except Exception as error:  # certificate parsers raise many unrelated types on what was altered
            log.warning("%s is of no use and is fetched anew: %s", path, error or type(error).__name__)
            return None
        # A clock that was set back makes what was fetched "later" due at once.
        return _Kept(found, ages, expires_at, fetched_at if fetched_at <= now else 0)

    def _write(self, want: _Want, kept: _Kept) -> None:
        text = json.dumps({"fetched_at": kept.fetched_at, "collateral": json.loads(kept.collateral.to_json())})
        path = self._path(want)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix=".", delete=False, encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(file.name, path)
        except OSError as error:
            # A full disk must not keep the machine from serving; only the next outage is then not survived.
            log.warning("collateral cannot be kept in %s (%s); free space or name another folder", path, error.strerror)
