"""The verdict on a machine's GPUs: pure, and closed to every doubt. All GPUs must pass, each must be another one."""

from __future__ import annotations

from dataclasses import dataclass

from attestation.gpu import certificates, opaque, spdm
from attestation.gpu import manifest as manifests
from attestation.gpu.collateral import GpuCollateral
from attestation.gpu.envelope import DeviceEvidence, GpuEvidence
from attestation.gpu.manifest import Manifest
from attestation.gpu.opaque import DeviceClaims, Mode
from attestation.gpu.policy import Architecture, GpuPolicy
from attestation.gpu.revocation import Standing, standing
from attestation.gpu.roots import Roots, nvidia
from attestation.strict import Malformed

_VIDEO_DECODER_INDEX = 35


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU that passed, as its signed report and NVIDIA's certificates describe it."""

    device: bytes
    """SHA-256 of the key burnt into it."""
    serial: str
    """`NVIDIA:GH100:<serial>`, or empty where its certificate does not say."""
    chip: str
    architecture: Architecture
    driver_version: str
    vbios_version: str
    mode: Mode
    compared: int
    """Measurements that equalled NVIDIA's."""
    standing: Standing
    """Of the GPU's certificates and the manifests' signers together."""
    expires_at: int

    def words(self) -> str:
        """One sentence for people; what was not checked is in it."""
        name = self.serial or f"{self.chip} {self.device.hex()[:16]}"
        unchecked = ", ".join(self.standing.unchecked)
        revocation = f"revocation NOT CHECKED for: {unchecked}" if unchecked else "no certificate of it is revoked"
        return (
            f"{name}: {self.architecture}, driver {self.driver_version}, VBIOS {self.vbios_version}, mode {self.mode}, "
            f"{self.compared} measurements as NVIDIA published them; {revocation}"
        )


@dataclass(frozen=True, slots=True)
class GpuVerdict:
    """When rejected, `gpus` is empty and `expires_at` 0, so that nothing of it can be used."""

    accepted: bool
    reasons: tuple[str, ...]
    gpus: tuple[Gpu, ...] = ()
    expires_at: int = 0
    """Unix seconds, exclusive: earliest end of anything relied on."""


def verify_gpu(
    evidence: bytes,
    collateral: GpuCollateral,
    policy: GpuPolicy,
    now: int,
    nonce: bytes,
    roots: Roots | None = None,
) -> GpuVerdict:
    """Judge the raw evidence of all GPUs at `now` (unix seconds). Never raises.

    `nonce`: the 32 bytes that the verifier expects each GPU to have signed. `roots`: NVIDIA's pinned ones; others only
    in tests.
    """
    try:
        devices = GpuEvidence.from_bytes(evidence).devices
        trusted = roots or nvidia()
    except Exception as error:
        return GpuVerdict(False, (str(error) or type(error).__name__,))
    if len({each.chain for each in devices}) != len(devices):
        # Before the costly part: one genuine report sixteen times would be verified sixteen times.
        return GpuVerdict(False, ("one GPU appears twice: it would be counted as two",))
    reasons: list[str] = []
    gpus: list[Gpu] = []
    for number, device in enumerate(devices):
        try:
            gpus.append(_verify_one(device, collateral, policy, now, nonce, trusted))
        except Exception as error:
            # Whatever goes wrong is a rejection: Malformed for what was foreseen, its text else.
            reasons.append(f"GPU {number}: {str(error) or type(error).__name__}")
    reasons += _faults_together(gpus)
    if reasons:
        return GpuVerdict(False, tuple(reasons))
    return GpuVerdict(True, (), tuple(gpus), min(each.expires_at for each in gpus))


def manifests_of(evidence: GpuEvidence) -> tuple[str, ...]:
    """Ids of the manifests that these GPUs are judged by, as their reports claim: unverified. Raises Malformed."""
    names: dict[str, None] = {}
    for device in evidence.devices:
        claims = opaque.parse(spdm.parse(device.report).opaque)
        chip, architecture = _chip(certificates.chip_of(device.chain), claims)
        names |= dict.fromkeys((_driver_id(architecture, chip, claims), _vbios_id(claims)))
    return tuple(names)


def _verify_one(
    device: DeviceEvidence, collateral: GpuCollateral, policy: GpuPolicy, now: int, nonce: bytes, roots: Roots
) -> Gpu:
    chain = certificates.verify_chain(device.chain, roots.device, "GPU")
    ends = [chain.ends_at(now)]
    report = spdm.parse(device.report)
    report.verify(chain.leaf_key)
    # From here on the report is the GPU's own word.
    if report.nonce != nonce:
        raise Malformed("its report answers another nonce: it is old, or made for another key")
    claims = opaque.parse(report.opaque)
    certified = certificates.firmware_id(chain)
    if claims.firmware_id is not None and claims.firmware_id != certified:
        raise Malformed("its report names other firmware than its certificate was issued to")
    chip, architecture = _chip(certificates.chip_of(device.chain), claims)
    _require(_policy_faults(policy, claims, chip, architecture))
    driver = _manifest(collateral, _driver_id(architecture, chip, claims), claims.driver_version, architecture, roots)
    vbios = _manifest(collateral, _vbios_id(claims), claims.vbios_version, architecture, roots)
    compared = _compare(report.measurements, claims, driver, vbios)
    # The attestation key is issued by the GPU itself, which publishes no revocation: looking starts above it.
    found = [standing(chain, 1, collateral, now)]
    for each in (driver, vbios):
        ends.append(each.chain.ends_at(now))
        found.append(standing(each.chain, 0, collateral, now))
    whole = _together(found)
    if policy.revocation_required and whole.unchecked:
        raise Malformed(
            f"revocation is not checked for {', '.join(whole.unchecked)}, and the policy requires it; bring current "
            "CRLs or OCSP responses"
        )
    ends += [whole.good_until] if whole.good_until is not None else []
    return Gpu(
        device=certificates.device_id(chain),
        serial=certificates.serial_of(chain),
        chip=chip,
        architecture=architecture,
        driver_version=claims.driver_version,
        vbios_version=claims.vbios_version,
        mode=claims.mode,
        compared=compared,
        standing=whole,
        expires_at=min(ends),
    )


def _chip(certified: str, claims: DeviceClaims) -> tuple[str, Architecture]:
    chip = claims.chip or certified
    architecture = Architecture.of(certified)
    if architecture is None or Architecture.of(chip) is not architecture:
        raise Malformed(f"chip {certified} (its report says {chip}) is not one that is known here; upgrade")
    return chip, architecture


def _policy_faults(policy: GpuPolicy, claims: DeviceClaims, chip: str, architecture: Architecture) -> list[str]:
    faults = [*policy.driver_faults(claims.driver_version), *policy.vbios_faults(chip, claims.vbios_version)]
    if architecture not in policy.architectures:
        faults.append(
            f"architecture {architecture} is not accepted; the policy accepts: {_listed(policy.architectures)}"
        )
    if claims.mode not in policy.modes:
        faults.append(f"mode {claims.mode} is not accepted; the policy accepts: {_listed(policy.modes)}")
    return faults


def _listed(names: frozenset[Architecture] | frozenset[Mode]) -> str:
    return ", ".join(sorted(names)) or "none"


def _require(faults: list[str]) -> None:
    if faults:
        raise Malformed("; ".join(faults))


def _driver_id(architecture: Architecture, chip: str, claims: DeviceClaims) -> str:
    kind = "DRIVER" if architecture is Architecture.HOPPER else "CC_DRIVER"
    return f"NV_GPU_{kind}_{chip}_{claims.driver_version}"


def _vbios_id(claims: DeviceClaims) -> str:
    board = "_".join(each.upper() for each in claims.board)
    return f"NV_GPU_VBIOS_{board}_{claims.vbios_version.replace('.', '')}"


def _manifest(collateral: GpuCollateral, name: str, version: str, architecture: Architecture, roots: Roots) -> Manifest:
    found = manifests.read(collateral.manifest(name), roots.manifest)
    if found.version.upper() != version.upper():
        raise Malformed(f"manifest {name} is for version {found.version}, the GPU reports {version}")
    if Architecture.of(found.product) is not architecture:
        raise Malformed(f"manifest {name} is for {found.product}, which is no {architecture} chip")
    return found


def _compare(measured: dict[int, bytes], claims: DeviceClaims, driver: Manifest, vbios: Manifest) -> int:
    """Every active golden measurement must be met. Returns how many were compared. Raises Malformed."""
    both = sorted(driver.golden.keys() & vbios.golden.keys())
    if both:
        raise Malformed(f"both manifests claim measurement {both[0]}; they do not belong together")
    golden = {**driver.golden, **vbios.golden}
    if claims.video_decoder_off:
        # NVIDIA's rule: with the decoder off its firmware is not loaded, and what stands there is not compared.
        golden.pop(_VIDEO_DECODER_INDEX, None)
    differing = [index for index, values in sorted(golden.items()) if measured.get(index) not in values]
    if differing:
        shown = ", ".join(str(index) for index in differing)
        raise Malformed(
            f"measurements {shown} are not those of driver {driver.version} and VBIOS {vbios.version}: other firmware, "
            "or a mode (developer tools) that NVIDIA does not vouch for"
        )
    return len(golden)


def _together(found: list[Standing]) -> Standing:
    ends = [each.good_until for each in found if each.good_until is not None]
    names = dict.fromkeys(name for each in found for name in each.unchecked)
    return Standing(min(ends) if ends else None, tuple(names))


def _faults_together(gpus: list[Gpu]) -> list[str]:
    faults = []
    if len({each.device for each in gpus}) != len(gpus):
        faults.append("one GPU appears twice: it would be counted as two")
    if len({each.mode for each in gpus}) > 1:
        faults.append(f"GPUs in different modes ({_listed(frozenset(each.mode for each in gpus))}) do not go together")
    return faults
