"""Where quotes and test evidence come from: configfs-tsm, the simulated TEE, pinned files."""

from __future__ import annotations

import errno
import os
import struct
from hashlib import sha256
from pathlib import Path
from uuid import UUID

import pytest

from attestation import vectors
from attestation.evidence import Kind
from attestation.provider import ConfigfsTsm, QuoteProvider, QuoteUnavailable, Simulated, detect
from attestation.snp.table import CertificateTable, parse_table
from attestation.strict import Malformed

REPORT_DATA = bytes(range(64))


class Kernel:
    """Stands for configfs: a made directory has the attributes of a TSM report, and goes away with them."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, provider: str = "tdx_guest", interloper: bool = False
    ) -> None:
        self.entries: list[Path] = []
        self.quote = b"quote over "
        self.table = b""
        self.written: dict[str, str] = {}
        self.fault: OSError | None = None
        mkdir, rmdir, read_bytes, inner = Path.mkdir, Path.rmdir, Path.read_bytes, Path.write_text
        writes = 2 if provider == "sev_guest" else 1

        def make(path: Path, *args: object, **kwargs: object) -> None:
            mkdir(path)
            self.entries.append(path)
            inner(path / "provider", provider + "\n")
            inner(path / "generation", "0\n")

        def remove(path: Path) -> None:
            for attribute in path.iterdir():
                attribute.unlink()
            rmdir(path)

        def read(path: Path) -> bytes:
            if path.name == "auxblob":
                return self.table
            if path.name != "outblob":
                return read_bytes(path)
            if self.fault is not None:
                raise self.fault
            inner(path.parent / "generation", f"{writes + interloper}\n")
            return self.quote + read_bytes(path.parent / "inblob") if self.quote else b""

        def write(path: Path, text: str) -> int:
            self.written[path.name] = text
            return inner(path, text)

        monkeypatch.setattr(Path, "write_text", write)
        monkeypatch.setattr(Path, "mkdir", make)
        monkeypatch.setattr(Path, "rmdir", remove)
        monkeypatch.setattr(Path, "read_bytes", read)


def test_configfs_quote_and_cleanup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(monkeypatch)
    assert ConfigfsTsm(tmp_path).quote(REPORT_DATA) == b"quote over " + REPORT_DATA
    assert len(kernel.entries) == 1 and list(tmp_path.iterdir()) == []


def test_configfs_of_another_tee_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, provider="sev_guest")
    with pytest.raises(QuoteUnavailable, match=r"sev_guest.*TDX guest"):
        ConfigfsTsm(tmp_path).quote(REPORT_DATA)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", [Kind.TDX, Kind.SEV_SNP])
def test_configfs_serves_both_makers_and_tells_which(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = Kernel(monkeypatch, provider={Kind.TDX: "tdx_guest", Kind.SEV_SNP: "sev_guest"}[kind])
    kernel.table = table_of((VCEK, b"vcek"), (ASK, b"ask"), (bytes(range(16)), b"other"))
    provider = ConfigfsTsm(tmp_path, kind)
    report = provider.report(REPORT_DATA)
    assert report.quote == b"quote over " + REPORT_DATA and provider.kind is detect(tmp_path) is kind
    if kind is Kind.SEV_SNP:
        assert report.certificates == CertificateTable(vcek=b"vcek", ask=b"ask")
        assert kernel.written["privlevel"] == "0"
    else:
        assert report.certificates is None and "privlevel" not in kernel.written
    other = Kind.SEV_SNP if kind is Kind.TDX else Kind.TDX
    with pytest.raises(QuoteUnavailable, match="start this worker in"):
        ConfigfsTsm(tmp_path, other).quote(REPORT_DATA)
    assert list(tmp_path.iterdir()) == []


def test_configfs_makes_no_simulated_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="simulated"):
        ConfigfsTsm(tmp_path, Kind.SIMULATED)
    Kernel(monkeypatch, provider="arm_cca_guest")
    with pytest.raises(QuoteUnavailable, match="known are tdx_guest, sev_guest"):
        detect(tmp_path)
    with pytest.raises(QuoteUnavailable, match="modprobe tdx_guest` or `modprobe sev-guest"):
        detect(tmp_path / "none")


@pytest.mark.parametrize("table", [b"x", bytes(23), b"\xff" * 24, bytes(65 * 1024)])
def test_a_host_cannot_keep_the_report_back_by_a_bad_table(
    table: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Kernel(monkeypatch, provider="sev_guest").table = table
    report = ConfigfsTsm(tmp_path, Kind.SEV_SNP).report(REPORT_DATA)
    assert report.quote and report.certificates is None
    assert "certificate table" in caplog.text


VCEK = UUID("63da758d-e664-4564-adc5-f4b93be8accd").bytes
ASK = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782").bytes


def table_of(*rows: tuple[bytes, bytes]) -> bytes:
    at = 24 * (len(rows) + 1)
    head, body = b"", b""
    for guid, content in rows:
        head += struct.pack("<16sII", guid, at + len(body), len(content))
        body += content
    return head + bytes(24) + body


def test_certificate_tables_are_read_strictly() -> None:
    assert parse_table(bytes(24)) == CertificateTable()
    for bad, words in (
        (table_of((VCEK, b"a"), (VCEK, b"b")), "two rows"),
        (table_of((VCEK, b"a"))[:-1], "outside"),
        (struct.pack("<16sII", VCEK, 0, 24) + bytes(24), "outside"),
        (struct.pack("<16sII", bytes(range(16)), 2**32 - 1, 2**32 - 1) + bytes(24), "outside"),
        (table_of(*((bytes([i]) * 16, b"") for i in range(1, 40))), "more than 32"),
    ):
        with pytest.raises(Malformed, match=words):
            parse_table(bad)


@pytest.mark.parametrize(
    ("number", "cure"),
    [(errno.ENXIO, "modprobe sev-guest"), (errno.EBUSY, "try again"), (errno.EIO, "SEV firmware")],
)
def test_g18_errors_of_the_kernel_name_the_cure(
    number: int, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernel(monkeypatch, provider="sev_guest").fault = OSError(number, os.strerror(number), "outblob")
    with pytest.raises(QuoteUnavailable, match=cure):
        ConfigfsTsm(tmp_path, Kind.SEV_SNP).quote(REPORT_DATA)
    assert list(tmp_path.iterdir()) == []


def test_configfs_entry_touched_by_another_process_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch, interloper=True)
    with pytest.raises(QuoteUnavailable, match="try again"):
        ConfigfsTsm(tmp_path).quote(REPORT_DATA)


def test_configfs_empty_quote_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(monkeypatch).quote = b""
    with pytest.raises(QuoteUnavailable, match="0 bytes"):
        ConfigfsTsm(tmp_path).quote(REPORT_DATA)


def test_g18_absent_configfs_names_cause_and_cure(tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    for root, cure in (
        (tmp_path / "none" / "tsm" / "report", "mount"),
        (tmp_path / "config" / "tsm" / "report", "modprobe"),
    ):
        provider = ConfigfsTsm(root)
        probe = provider.probe()
        assert not probe.available and cure in probe.lacks[0]
        with pytest.raises(QuoteUnavailable, match=cure):
            provider.quote(REPORT_DATA)


def test_g18_kernel_errors_name_the_cure(tmp_path: Path) -> None:
    """A plain directory is no configfs: the attributes are missing."""
    with pytest.raises(QuoteUnavailable, match="modprobe tdx_guest"):
        ConfigfsTsm(tmp_path).quote(REPORT_DATA)
    assert ConfigfsTsm(tmp_path).probe().available or os.geteuid() != 0


@pytest.mark.parametrize("provider", [ConfigfsTsm(Path("/nowhere")), Simulated(b"secret")])
def test_providers_want_64_bytes(provider: QuoteProvider) -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        provider.quote(bytes(32))


def test_simulated_provider_says_what_it_is() -> None:
    assert Simulated(b"secret").kind is Kind.SIMULATED
    assert Simulated(b"secret").probe().available


def test_evidence_files_are_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vectors.ENVIRONMENT, str(tmp_path))
    (tmp_path / "cocoon").mkdir()
    (tmp_path / "cocoon" / "quote.dat").write_bytes(b"another file")
    with pytest.raises(ValueError, match="not the pinned file"):
        vectors.read("cocoon/quote.dat")


def test_evidence_that_no_package_carries_is_unobtainable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(vectors.ENVIRONMENT, str(tmp_path))
    with pytest.raises(vectors.Unobtainable, match=vectors.ENVIRONMENT):
        vectors.read("cocoon/quote.dat")


def test_failed_fetch_is_unobtainable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setenv(vectors.ENVIRONMENT, str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(vectors.subprocess, "run", no_network)
    with pytest.raises(vectors.Unobtainable, match="no route to host"):
        vectors.read("phala/tdx_quote")


@pytest.mark.parametrize("name", ["phala/tdx_quote", "nvidia/hopperAttestationReport.txt"])
def test_evidence_is_fetched_from_the_package_that_ships_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(vectors.ENVIRONMENT, str(tmp_path / "empty"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        content = vectors.read(name)
    except vectors.Unobtainable as error:
        pytest.skip(f"the package cannot be fetched: {error}")
    assert sha256(content).hexdigest() == vectors.CATALOGUE[name][0]
    assert (tmp_path / "cocoon" / "evidence" / name).read_bytes() == content
