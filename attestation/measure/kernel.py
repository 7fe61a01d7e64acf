"""A Linux kernel as the firmware measures it: its PE image, after QEMU wrote the boot parameters into it.

Sources: QEMU hw/i386/x86-common.c (x86_load_linux), Linux Documentation/arch/x86/boot.rst, Microsoft's "Windows
Authenticode Portable Executable Signature Format".
"""

from __future__ import annotations

import hashlib
import struct

from attestation.measure.hob import below_four_gib
from attestation.strict import Malformed

LIMIT_BYTES = 512 * 1024 * 1024
_MAX_SECTIONS = 96
_ACPI_BYTES = 0x28000
"""What QEMU's pc machines keep free for ACPI data at the end of low memory."""
_HIGH_REAL, _HIGH_COMMAND_LINE, _LOW_REAL, _LOW_COMMAND_LINE = 0x10000, 0x20000, 0x90000, 0x9A000
_DEFAULT_INITRD_MAX = 0x37FFFFFF
_QEMU, _LOADED_HIGH, _CAN_USE_HEAP, _ABOVE_4G = 0xB0, 0x01, 0x80, 0x40


def as_qemu_loads(kernel: bytes, initrd_bytes: int, memory_bytes: int) -> bytes:
    """The image with QEMU's boot parameters. Only protocols since 2.2 (Linux 2.4) are read. Raises Malformed."""
    if not 0x1000 <= len(kernel) <= LIMIT_BYTES or kernel[0x202:0x206] != b"HdrS":
        raise Malformed("kernel: no Linux boot image (bzImage); give the file that QEMU gets with -kernel")
    protocol = int.from_bytes(kernel[0x206:0x208], "little")
    if protocol < 0x202:
        raise Malformed(f"kernel: boot protocol {protocol:#x} is older than 2.2; use a current kernel")
    high = kernel[0x211] & _LOADED_HIGH
    real, command_line = (_HIGH_REAL, _HIGH_COMMAND_LINE) if high else (_LOW_REAL, _LOW_COMMAND_LINE)
    image = bytearray(kernel)
    image[0x210] = _QEMU
    image[0x211] |= _CAN_USE_HEAP
    struct.pack_into("<H", image, 0x224, command_line - real - 0x200)
    struct.pack_into("<I", image, 0x228, command_line)
    if initrd_bytes:
        limit = min(_initrd_max(kernel, protocol), below_four_gib(memory_bytes) - _ACPI_BYTES - 1)
        if initrd_bytes >= limit:
            raise Malformed(
                f"initrd: {initrd_bytes} bytes do not fit below {max(limit, 0)}; give the guest more memory"
            )
        struct.pack_into("<II", image, 0x218, (limit - initrd_bytes) & ~0xFFF, initrd_bytes)
    return bytes(image)


def _initrd_max(kernel: bytes, protocol: int) -> int:
    if protocol >= 0x20C and kernel[0x236] & _ABOVE_4G:
        return 0xFFFFFFFF
    return int.from_bytes(kernel[0x22C:0x230], "little") if protocol >= 0x203 else _DEFAULT_INITRD_MAX


def authenticode(image: bytes, algorithm: str = "sha384") -> bytes:
    """Digest of a PE image without its checksum and signatures. Raises Malformed."""
    try:
        return _authenticode(image, algorithm)
    except struct.error as error:
        raise Malformed("kernel: its PE headers are cut off; give the whole file") from error


def _authenticode(image: bytes, algorithm: str) -> bytes:
    (pe,) = struct.unpack_from("<I", image, 0x3C)
    if image[:2] != b"MZ" or image[pe : pe + 4] != b"PE\0\0":
        raise Malformed("kernel: no PE image; it needs an EFI stub (CONFIG_EFI_STUB)")
    count, optional_bytes = struct.unpack_from("<H", image, pe + 6)[0], struct.unpack_from("<H", image, pe + 20)[0]
    optional = pe + 24
    (magic,) = struct.unpack_from("<H", image, optional)
    directories = optional + (112 if magic == 0x20B else 96)
    security = directories + 4 * 8
    (headers,) = struct.unpack_from("<I", image, optional + 60)
    (entries,) = struct.unpack_from("<I", image, directories - 4)
    if magic not in (0x10B, 0x20B) or count > _MAX_SECTIONS or entries < 5 or not security + 8 <= headers <= len(image):
        raise Malformed("kernel: its PE headers are not those of an EFI image")
    running = hashlib.new(algorithm, image[: optional + 64])
    running.update(image[optional + 68 : security] + image[security + 8 : headers])
    table = optional + optional_bytes
    sections = [struct.unpack_from("<II", image, table + 40 * index + 16) for index in range(count)]
    hashed = headers
    for size, start in sorted((each for each in sections if each[0]), key=lambda each: each[1]):
        if start + size > len(image):
            raise Malformed("kernel: a section lies outside the file; give the whole file")
        running.update(image[start : start + size])
        hashed += size
    _, signature_bytes = struct.unpack_from("<II", image, security)
    running.update(image[hashed : len(image) - signature_bytes])
    # As the specification pads a file whose length is no multiple of eight; a signed one already is.
    running.update(bytes(-len(image) % 8))
    return running.digest()
