"""The five TDX registers of an image that QEMU boots directly (kernel, initrd and command line through fw_cfg).

The events and their order are those of OVMF with measurement by RTMR up to edk2-stable202502 (OvmfPkg, SecurityPkg) and
of Linux' EFI stub since 6.9. What a guest of another kind measures differently is given as a list of events instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from attestation.measure import acpi
from attestation.measure.events import Event, event, replay
from attestation.measure.firmware import Kind, tdvf_sections
from attestation.measure.hob import hand_off_block
from attestation.measure.kernel import as_qemu_loads, authenticode
from attestation.measure.mrtd import Order, mrtd
from attestation.measure.uefi import SECURE_BOOT, ui_app_option, utf16, variable
from attestation.quote import measurement
from attestation.strict import Malformed

REGISTERS = ("rtmr0", "rtmr1", "rtmr2", "rtmr3")
_SEPARATOR = event("separator", bytes(4))


@dataclass(frozen=True, slots=True)
class Image:
    """The parts. Files as bytes; `memory_bytes` of the guest."""

    firmware: bytes
    kernel: bytes
    command_line: str
    memory_bytes: int
    acpi_files: acpi.Files | None
    initrd: bytes = b""
    order: Order = Order.PAGE_BY_PAGE
    kernel_as_is: bool = False
    """The firmware is given the untouched kernel (QEMU since 10.1 with OVMF since 2025.05)."""
    secure_boot: Mapping[str, bytes] = field(default_factory=dict)
    """Content of the variables of `uefi.SECURE_BOOT` that are set in the firmware."""
    events: Mapping[str, tuple[Event, ...]] = field(default_factory=dict)
    """By register: instead of what would be computed. RTMR3 belongs to the guest and is zero without."""


@dataclass(frozen=True, slots=True)
class Registers:
    """What a quote of this image holds, and why."""

    mrtd: bytes
    logs: Mapping[str, tuple[Event, ...]]

    @property
    def rtmrs(self) -> tuple[bytes, bytes, bytes, bytes]:
        found = [replay(self.logs[name]) for name in REGISTERS]
        return found[0], found[1], found[2], found[3]

    @property
    def measurement(self) -> bytes:
        return measurement(self.mrtd, self.rtmrs)


def measure(image: Image) -> Registers:
    """Raises Malformed, naming the part."""
    unknown = (set(image.secure_boot) - set(SECURE_BOOT)) | (set(image.events) - set(REGISTERS))
    if unknown:
        raise Malformed(f"unknown variable or register {', '.join(sorted(unknown))}")
    logs = {"rtmr0": _rtmr0, "rtmr1": _rtmr1, "rtmr2": _rtmr2}
    found = {name: image.events[name] if name in image.events else log(image) for name, log in logs.items()}
    return Registers(mrtd(image.firmware, image.order), {**found, "rtmr3": image.events.get("rtmr3", ())})


def _rtmr0(image: Image) -> tuple[Event, ...]:
    """The platform: memory, configuration, secure boot, ACPI, boot order."""
    if image.acpi_files is None:
        raise Malformed("RTMR0 covers QEMU's ACPI tables: give them, or the events of rtmr0 from a boot you trust")
    sections = tdvf_sections(image.firmware)
    configuration = next((each for each in sections if each.kind is Kind.CFV), None)
    if configuration is None:
        raise Malformed("firmware: it has no configuration volume (CFV section); give the whole OVMF.fd")
    start = configuration.data_offset
    return (
        event("memory map (TD HOB)", hand_off_block(sections, image.memory_bytes)),
        event("configuration volume", image.firmware[start : start + configuration.data_bytes]),
        *(event(f"variable {name}", variable(name, image.secure_boot.get(name, b""))) for name in SECURE_BOOT),
        _SEPARATOR,
        event("ACPI loader", image.acpi_files.loader),
        event("ACPI RSDP", image.acpi_files.rsdp),
        event("ACPI tables", image.acpi_files.tables),
        event("variable BootOrder", bytes(2)),
        event("variable Boot0000", ui_app_option()),
    )


def _rtmr1(image: Image) -> tuple[Event, ...]:
    """What the firmware starts."""
    kernel = image.kernel
    if not image.kernel_as_is:
        kernel = as_qemu_loads(kernel, len(image.initrd), image.memory_bytes)
    return (
        Event("kernel", authenticode(kernel)),
        event("boot attempt", b"Calling EFI Application from Boot Option"),
        _SEPARATOR,
        event("exit boot services", b"Exit Boot Services Invocation"),
        event("boot services exited", b"Exit Boot Services Returned with Success"),
    )


def _rtmr2(image: Image) -> tuple[Event, ...]:
    """What the kernel is told and given."""
    # The firmware appends this word where it serves an initrd to the kernel's EFI stub.
    line = f"{image.command_line} initrd=initrd" if image.initrd else image.command_line
    found = (event("command line", utf16(line)),)
    return (*found, event("initrd", image.initrd)) if image.initrd else found
