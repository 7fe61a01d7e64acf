"""What a verifier accepts, as data. A policy can be strict or lax; it can never make simulated evidence hardware."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from pathlib import Path
from typing import Any

from attestation import strict
from attestation.gpu import policy as gpu_policy
from attestation.gpu.policy import GpuPolicy
from attestation.snp import policy as snp_policy
from attestation.snp.policy import SnpPolicy
from attestation.strict import Malformed

MAINNET_GLOBAL_ID = -239
DAY_SECONDS = 86_400
_FILE_LIMIT_BYTES = 256 * 1024
_ZERO_REGISTER = bytes(48)
_ZERO_HOST_DATA = bytes(32)

# Statuses a policy may name (Intel PCS API v4). "Revoked" is not among them: no policy may accept it.
TCB_STATUSES = frozenset(
    {
        "UpToDate",
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
        "TDRelaunchAdvised",
        "TDRelaunchAdvisedConfigurationNeeded",
    }
)


class Tier(IntEnum):
    """What the hardware evidence covers; the `tier` byte of the on-chain verdict."""

    SIMULATED = 0
    """Nothing: the quote ends in the test root."""
    CPU = 1
    """A TDX guest."""
    GPU = 2
    """A TDX guest whose measured worker verified the GPU's own evidence and bound its hash."""
    COMMITTEE = 3
    """An SEV-SNP guest. The chain cannot verify its evidence: a committee of verifiers vouches for it there."""


class Technology(StrEnum):
    """What an image was measured for. Simulated quotes are TDX in form."""

    TDX = "tdx"
    SEV_SNP = "sev-snp"


@dataclass(frozen=True, slots=True)
class AllowedImage:
    """One image that may run. What the host chooses at launch beside the image is pinned as well: three registers of a
    TD; HOST_DATA and the keys of the ID block of an SEV-SNP guest."""

    name: str
    measurement: bytes
    """32 bytes, see `attestation.quote.measurement` and `attestation.snp.report.measurement`."""
    kind: Technology = Technology.TDX
    verifies_gpu: bool = False
    """Whether this image refuses to start on GPU evidence that does not verify; only then may it earn tier GPU."""
    mr_config_id: bytes = _ZERO_REGISTER
    mr_owner: bytes = _ZERO_REGISTER
    mr_owner_config: bytes = _ZERO_REGISTER
    host_data: bytes = _ZERO_HOST_DATA
    id_key_digest: bytes = _ZERO_REGISTER
    author_key_digest: bytes = _ZERO_REGISTER
    min_guest_svn: int = 0


@dataclass(frozen=True, slots=True)
class Policy:
    """Times in seconds. An empty list of images accepts nothing."""

    images: tuple[AllowedImage, ...]
    max_age_seconds: int
    """Oldest acceptable evidence, by the time of the masterchain block that it binds."""
    tcb_statuses: frozenset[str] = frozenset({"UpToDate"})
    tiers: frozenset[Tier] = frozenset({Tier.CPU, Tier.GPU})
    max_validity_seconds: int = 7 * DAY_SECONDS
    """Cap on attested_until, counted from the block."""
    min_evaluation_number: int = 0
    """Oldest set of Intel's collateral (`tcbEvaluationDataNumber`) that is believed."""
    denied_platforms: frozenset[bytes] = frozenset()
    allowed_platforms: frozenset[bytes] | None = None
    """The only machines that are believed; None: any that is not denied."""
    denied_advisories: frozenset[str] = frozenset()
    allow_simulated: bool = False
    """Accept the test root. Never has any effect on mainnet."""
    block_required: bool = True
    """False: accept evidence whose block the verifier could not look up; its age is then unknown."""
    snp: SnpPolicy = field(default_factory=SnpPolicy)
    gpu: GpuPolicy | None = None
    """Verify raw GPU evidence again, by this. None: take the word of a measured image that verifies it."""

    def image(self, measurement: bytes, kind: Technology) -> AllowedImage | None:
        return next((each for each in self.images if (each.measurement, each.kind) == (measurement, kind)), None)

    def simulated_allowed(self, global_id: int) -> bool:
        """The one place that decides it (G14): mainnet's id wins over every flag."""
        return self.allow_simulated and global_id != MAINNET_GLOBAL_ID


def bundled(name: str) -> Policy:
    """A policy that ships with the package, "devnet" for example. Raises Malformed for an unknown name."""
    return load(Path(__file__).parent / "policies" / f"{name}.toml")


def load(path: Path) -> Policy:
    """Read a policy file in TOML. Raises Malformed with the file's name."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise Malformed(
            f"attestation policy {path}: cannot be read ({error.strerror}); name an existing file"
        ) from error
    if len(raw) > _FILE_LIMIT_BYTES:
        raise Malformed(f"attestation policy {path}: larger than {_FILE_LIMIT_BYTES} bytes")
    try:
        return from_document(tomllib.loads(raw.decode()), f"attestation policy {path}")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"attestation policy {path}: not TOML ({error})") from error


def from_json(text: str | bytes) -> Policy:
    """The same fields as JSON. Raises Malformed."""
    what = "attestation policy"
    return from_document(strict.json_object(text, what, limit_bytes=_FILE_LIMIT_BYTES), what)


def from_document(document: Mapping[str, Any], what: str = "attestation policy") -> Policy:
    """Raises Malformed on an unknown key: a misspelt restriction must not be silently absent."""
    strict.only_keys(
        document,
        what,
        required=("images", "max_age_seconds", "tcb_statuses", "tiers"),
        optional=(
            "max_validity_seconds",
            "min_evaluation_number",
            "denied_platforms",
            "allowed_platforms",
            "denied_advisories",
            "snp",
            "gpu",
            "allow_simulated",
            "block_required",
        ),
    )
    full = {
        "max_validity_seconds": 7 * DAY_SECONDS,
        "min_evaluation_number": 0,
        "denied_platforms": [],
        "denied_advisories": [],
        "allow_simulated": False,
        "block_required": True,
        "snp": {},
        "gpu": "image",
        **document,
    }
    if not isinstance(full["snp"], dict):
        raise Malformed(f"{what}: snp must be a table")
    images = tuple(_image(each, what) for each in _list(full, "images", what, dict))
    if len({image.measurement for image in images}) != len(images):
        raise Malformed(f"{what}: a measurement appears twice in images; keep one entry for it")
    return Policy(
        images=images,
        max_age_seconds=strict.integer_field(full, "max_age_seconds", what, low=1, high=365 * DAY_SECONDS),
        tcb_statuses=_statuses(_list(full, "tcb_statuses", what, str), what),
        tiers=frozenset(_tier(each, what) for each in _list(full, "tiers", what, str)),
        max_validity_seconds=strict.integer_field(full, "max_validity_seconds", what, low=1, high=90 * DAY_SECONDS),
        min_evaluation_number=strict.integer_field(full, "min_evaluation_number", what, low=0, high=2**31),
        denied_platforms=_platforms(full, "denied_platforms", what),
        allowed_platforms=_platforms(full, "allowed_platforms", what) if "allowed_platforms" in full else None,
        denied_advisories=frozenset(_list(full, "denied_advisories", what, str)),
        allow_simulated=strict.boolean_field(full, "allow_simulated", what),
        block_required=strict.boolean_field(full, "block_required", what),
        snp=snp_policy.from_document(full["snp"], what),
        gpu=_gpu(full["gpu"], what),
    )


# Bytes of each field that only images of one technology have.
_LAUNCH_FIELDS = {
    Technology.TDX: {"mr_config_id": 48, "mr_owner": 48, "mr_owner_config": 48},
    Technology.SEV_SNP: {"host_data": 32, "id_key_digest": 48, "author_key_digest": 48},
}


def _image(document: Mapping[str, Any], what: str) -> AllowedImage:
    what = f"{what}, images"
    kind = document.get("kind", Technology.TDX.value)
    if kind not in list(Technology):
        raise Malformed(f"{what}: kind must be one of {', '.join(Technology)}, got {kind!r}")
    fields = _LAUNCH_FIELDS[Technology(kind)]
    extra = ("min_guest_svn",) if kind == Technology.SEV_SNP else ("verifies_gpu",)
    strict.only_keys(document, what, required=("name", "measurement"), optional=("kind", *extra, *fields))
    full = {"verifies_gpu": False, "min_guest_svn": 0, **document}
    return AllowedImage(
        name=strict.text_field(document, "name", what, limit=200),
        measurement=strict.hex_field(document, "measurement", what, length=32),
        kind=Technology(kind),
        verifies_gpu=strict.boolean_field(full, "verifies_gpu", what),
        min_guest_svn=strict.integer_field(full, "min_guest_svn", what, low=0, high=2**32 - 1),
        **{
            name: strict.hex_field(document, name, what, length=length)
            for name, length in fields.items()
            if name in document
        },
    )


def _gpu(value: object, what: str) -> GpuPolicy | None:
    if value == "image":
        return None
    if value == "verify":
        return GpuPolicy()
    if not isinstance(value, dict):
        raise Malformed(f'{what}: gpu must be "image", "verify" or a table of what is accepted')
    return gpu_policy.from_document(value, f"{what}, gpu")


def _platforms(document: Mapping[str, Any], key: str, what: str) -> frozenset[bytes]:
    return frozenset(strict.hex_field({key: each}, key, what, length=32) for each in _list(document, key, what, str))


def _statuses(names: list[str], what: str) -> frozenset[str]:
    unknown = sorted(set(names) - TCB_STATUSES)
    if unknown:
        raise Malformed(
            f"{what}: tcb_statuses may not hold {', '.join(unknown)}; known: {', '.join(sorted(TCB_STATUSES))}"
        )
    return frozenset(names)


def _tier(name: str, what: str) -> Tier:
    found = {tier.name.lower(): tier for tier in Tier}.get(name)
    if found is None:
        raise Malformed(f"{what}: unknown tier {name!r}; known: {', '.join(tier.name.lower() for tier in Tier)}")
    return found


def _list(document: Mapping[str, Any], key: str, what: str, item: type) -> list[Any]:
    value = document[key]
    if not isinstance(value, list) or not all(isinstance(each, item) for each in value):
        raise Malformed(f"{what}: {key} must be a list of {item.__name__}")
    return value
