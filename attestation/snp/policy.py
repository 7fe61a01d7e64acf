"""What is demanded of an SEV-SNP machine beyond genuine signatures, as data; the `[snp]` table of a policy file.

AMD publishes no signed verdict on TCB versions as Intel does: the floors are the verifier's own, taken from AMD's
security bulletins. A product without a floor is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from attestation import strict
from attestation.snp.hardware import SnpHardware
from attestation.snp.products import BROKEN, Product, TcbVersion, tcb_components
from attestation.snp.report import GuestPolicy, SigningKey
from attestation.strict import Malformed

_FLAGS = {
    "require_crl": True,
    "allow_smt": True,
    "require_single_socket": False,
    "require_alias_check": True,
    "allow_cxl": False,
    "allow_vlek": False,
    "allow_masked_chip_id": False,
}
_MOST_PRIVILEGED_VMPL, _LEAST_PRIVILEGED_VMPL = 0, 3


@dataclass(frozen=True, slots=True)
class SnpPolicy:
    """The defaults are the strict ones."""

    floors: Mapping[Product, TcbVersion] = field(default_factory=dict)
    """Lowest TCB per product. Committed, reported and launch TCB must all reach it: what is not committed can be rolled
    back, and a guest keeps what it was launched under."""
    vmpl: int = 0
    """The privilege level that the report must have been asked from; 0 is the guest's most privileged."""
    min_abi: tuple[int, int] = (1, 55)
    """Lowest firmware interface (major, minor) that the platform has committed to."""
    require_crl: bool = True
    allow_smt: bool = True
    """False: the guest must forbid that another thread runs on its core."""
    require_single_socket: bool = False
    require_alias_check: bool = True
    """The firmware must have looked for memory modules that answer to two addresses (AMD-SB-3015, BadRAM)."""
    allow_cxl: bool = False
    allow_vlek: bool = False
    """Believe keys that AMD issued to a cloud provider for its whole fleet."""
    accept_broken: frozenset[Product] = frozenset()
    """Lines that are believed although their keys can be extracted (`products.BROKEN`): where the owner is trusted."""
    allow_masked_chip_id: bool = False
    """Believe a report that does not name its chip. With a VLEK all machines of one provider are then one platform."""


def faults(found: SnpHardware, policy: SnpPolicy) -> Iterator[str]:
    """A sentence for everything that the policy does not accept."""
    report = found.report
    yield from _guest_faults(report.policy, policy)
    if policy.require_alias_check and not report.alias_check_complete:
        yield "the firmware has not checked memory for aliases (AMD-SB-3015); update the host's firmware"
    if report.vmpl != policy.vmpl:
        yield f"the report was asked from privilege level (VMPL) {report.vmpl}, the policy wants {policy.vmpl}"
    if report.committed_abi < policy.min_abi:
        have, want = (".".join(map(str, each)) for each in (report.committed_abi, policy.min_abi))
        yield f"the platform's committed firmware interface is {have}, the policy wants {want}; update and commit it"
    if report.signing_key is SigningKey.VLEK and not policy.allow_vlek:
        yield f"the report is signed by a key of provider {found.endorsement.provider!r} (VLEK), not by the chip's own"
    if report.chip_id_masked and not policy.allow_masked_chip_id:
        yield "the host masked the chip's id, so the machine cannot be told apart; unset MaskChipId on the host"
    if policy.require_crl and not found.endorsement.revocation_checked:
        yield "AMD's revocation list was not given; fetch it from AMD's key distribution service"
    product = found.endorsement.product
    if product in BROKEN and product not in policy.accept_broken:
        yield f"{product} machines prove nothing: {BROKEN[product]}"
    yield from _floor_faults(found, policy)


def _guest_faults(guest: GuestPolicy, policy: SnpPolicy) -> Iterator[str]:
    if guest.debug:
        yield "the guest runs in debug mode: its host can read its memory"
    if guest.migration_agent:
        yield "the guest may be migrated by an agent, which could carry its memory elsewhere"
    if guest.cxl and not policy.allow_cxl:
        yield "the guest may be given CXL memory, which the policy does not allow"
    if not policy.allow_smt and guest.smt:
        yield "the guest allows other threads on its core (SMT), the policy does not; launch it with SMT forbidden"
    if policy.require_single_socket and not guest.single_socket:
        yield "the guest may run on several sockets; launch it with SINGLE_SOCKET"


def _floor_faults(found: SnpHardware, policy: SnpPolicy) -> Iterator[str]:
    product = found.endorsement.product
    floor = policy.floors.get(product)
    if floor is None:
        known = ", ".join(sorted(policy.floors)) or "none"
        yield f"the policy names no TCB floor for {product}; it has floors for: {known}"
        return
    for name in ("committed", "reported", "launch"):
        tcb: TcbVersion = getattr(found.tcb, name)
        below = tcb.below(floor)
        if below:
            levels = ", ".join(f"{each} {getattr(tcb, each)} below {getattr(floor, each)}" for each in below)
            yield f"the {name} TCB is below the policy's floor for {product}: {levels}; update the host's firmware"


def from_document(document: Mapping[str, Any], what: str) -> SnpPolicy:
    """Read a `[snp]` table. Raises Malformed on an unknown key."""
    what = f"{what}, snp"
    strict.only_keys(document, what, required=(), optional=("floors", "accept_broken", "vmpl", "min_abi", *_FLAGS))
    full = {"floors": {}, "accept_broken": [], "vmpl": 0, "min_abi": "1.55", **_FLAGS, **document}
    return SnpPolicy(
        floors=_floors(full["floors"], what),
        accept_broken=_lines(full["accept_broken"], what),
        vmpl=strict.integer_field(full, "vmpl", what, low=_MOST_PRIVILEGED_VMPL, high=_LEAST_PRIVILEGED_VMPL),
        min_abi=_abi(full["min_abi"], what),
        **{name: strict.boolean_field(full, name, what) for name in _FLAGS},
    )


def _floors(document: object, what: str) -> dict[Product, TcbVersion]:
    if not isinstance(document, dict):
        raise Malformed(f"{what}: floors must be a table per product")
    found = {}
    for name, levels in document.items():
        product = _product(name, what)
        if not isinstance(levels, dict):
            raise Malformed(f"{what}: the floor of {name} must be a table")
        components = tcb_components(product)
        strict.only_keys(levels, f"{what}, floor of {name}", required=components)
        found[product] = TcbVersion(
            **{
                each: strict.integer_field(levels, each, f"{what}, floor of {name}", low=0, high=255)
                for each in components
            }
        )
    return found


def _lines(names: object, what: str) -> frozenset[Product]:
    if not isinstance(names, list):
        raise Malformed(f"{what}: accept_broken must be a list of products")
    return frozenset(_product(name, what) for name in names)


def _product(name: object, what: str) -> Product:
    product = next((each for each in Product if each.value.lower() == name), None)
    if product is None:
        raise Malformed(f"{what}: no root is known for product {name!r}; known: {', '.join(Product).lower()}")
    return product


def _abi(value: object, what: str) -> tuple[int, int]:
    parts = value.split(".") if isinstance(value, str) else []
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and int(part) < 256 for part in parts):
        raise Malformed(f'{what}: min_abi must be text such as "1.55", got {value!r}')
    return int(parts[0]), int(parts[1])
