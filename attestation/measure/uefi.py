"""UEFI variables and boot options as OVMF measures them.

Sources: TCG PC Client Platform Firmware Profile (UEFI_VARIABLE_DATA), UEFI Specification 2.10, 3.1.3 and 10.2 (load
option, device path).
"""

from __future__ import annotations

import struct
from uuid import UUID

_GLOBAL = UUID("8be4df61-93ca-11d2-aa0d-00e098032b8c").bytes_le
_SECURITY_DATABASE = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f").bytes_le
SECURE_BOOT = {
    "SecureBoot": _GLOBAL,
    "PK": _GLOBAL,
    "KEK": _GLOBAL,
    "db": _SECURITY_DATABASE,
    "dbx": _SECURITY_DATABASE,
}
"""The variables that decide about secure boot, with their vendors, in the order of measurement."""
_FIRMWARE_VOLUME = UUID("7cb8bdc9-f8eb-4f34-aaea-3ee4af6516a1").bytes_le
_UI_APP = UUID("462caa21-7614-4503-836e-8ab6f4662331").bytes_le
_MEDIA, _FIRMWARE_FILE, _VOLUME, _END = 4, 6, 7, b"\x7f\xff\x04\x00"
_ACTIVE, _HIDDEN, _CATEGORY_APP = 0x001, 0x008, 0x100


def variable(name: str, data: bytes) -> bytes:
    """UEFI_VARIABLE_DATA of a secure boot variable. `data` is empty where it is not set."""
    text = name.encode("utf-16-le")
    return SECURE_BOOT[name] + struct.pack("<QQ", len(text) // 2, len(data)) + text + data


def ui_app_option() -> bytes:
    """The load option that OVMF registers for its own setup screen: the only one of a guest that boots from fw_cfg."""
    path = _node(_VOLUME, _FIRMWARE_VOLUME) + _node(_FIRMWARE_FILE, _UI_APP) + _END
    head = struct.pack("<IH", _ACTIVE | _HIDDEN | _CATEGORY_APP, len(path))
    return head + utf16("UiApp") + path


def utf16(text: str) -> bytes:
    """Little-endian, with its terminator."""
    return text.encode("utf-16-le") + b"\0\0"


def _node(subtype: int, guid: bytes) -> bytes:
    return struct.pack("<BBH", _MEDIA, subtype, 4 + len(guid)) + guid
