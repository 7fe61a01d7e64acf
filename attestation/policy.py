"""What a verifier accepts, as data. A policy can be strict or lax; it can never make simulated evidence hardware."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

from attestation import strict
from attestation.strict import Malformed

MAINNET_GLOBAL_ID = -239
DAY_SECONDS = 86_400
_FILE_LIMIT_BYTES = 256 * 1024
_ZERO_REGISTER = bytes(48)

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


@dataclass(frozen=True, slots=True)
class AllowedImage:
    """One image that may run. The host chooses the three owner registers at launch, so they are pinned as well."""

    name: str
    measurement: bytes
    """32 bytes, see `attestation.quote.measurement`."""
    verifies_gpu: bool = False
    """Whether this image refuses to start on GPU evidence that does not verify; only then may it earn tier GPU."""
    mr_config_id: bytes = _ZERO_REGISTER
    mr_owner: bytes = _ZERO_REGISTER
    mr_owner_config: bytes = _ZERO_REGISTER


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
    denied_advisories: frozenset[str] = frozenset()
    allow_simulated: bool = False
    """Accept the test root. Never has any effect on mainnet."""
    block_required: bool = True
    """False: accept evidence whose block the verifier could not look up; its age is then unknown."""

    def image(self, measurement: bytes) -> AllowedImage | None:
        return next((image for image in self.images if image.measurement == measurement), None)

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
            "denied_advisories",
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
        **document,
    }
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
        denied_platforms=frozenset(
            strict.hex_field({"denied_platforms": each}, "denied_platforms", what, length=32)
            for each in _list(full, "denied_platforms", what, str)
        ),
        denied_advisories=frozenset(_list(full, "denied_advisories", what, str)),
        allow_simulated=strict.boolean_field(full, "allow_simulated", what),
        block_required=strict.boolean_field(full, "block_required", what),
    )


def _image(document: Mapping[str, Any], what: str) -> AllowedImage:
    what = f"{what}, images"
    registers = ("mr_config_id", "mr_owner", "mr_owner_config")
    strict.only_keys(document, what, required=("name", "measurement"), optional=("verifies_gpu", *registers))
    return AllowedImage(
        name=strict.text_field(document, "name", what, limit=200),
        measurement=strict.hex_field(document, "measurement", what, length=32),
        verifies_gpu=strict.boolean_field({"verifies_gpu": False, **document}, "verifies_gpu", what),
        **{name: strict.hex_field(document, name, what, length=48) for name in registers if name in document},
    )


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
