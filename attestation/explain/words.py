"""The form of an explanation: sections of rows, as data, so that a terminal and a program read the same."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.x509.oid import NameOID


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    value: str
    meaning: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    rows: tuple[Row, ...]


def printable(text: str) -> str:
    """Strangers' text made harmless: a control sequence could rewrite what the screen says of it."""
    return "".join(char if char.isprintable() else "?" for char in text)


def shown(data: bytes) -> str:
    """Hex; a value that is zero throughout is easier to see as a word."""
    return data.hex() if data.strip(b"\0") else f"{len(data)} zero bytes"


def bits(value: int, names: dict[int, str]) -> str:
    """The names of the bits that are set."""
    found = [names.get(bit, f"bit {bit} (unknown)") for bit in range(value.bit_length()) if value >> bit & 1]
    return ", ".join(found) or "none"


def moment(seconds: int) -> str:
    """Unix seconds and the same in words."""
    try:
        text = datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} (no date)"
    return f"{seconds} ({text})"


def certificate_row(name: str, der: bytes) -> Row:
    """One line of a chain. A certificate that cannot be read is a row that says so."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        subject, issuer = _common_name(certificate.subject), _common_name(certificate.issuer)
        begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
        serial = f"{certificate.serial_number:x}"
    except Exception as error:  # the parser raises many unrelated types on hostile input
        return Row(name, f"unreadable certificate of {len(der)} bytes", type(error).__name__)
    return Row(name, subject, f"signed by {issuer!r}; {begin:%Y-%m-%d} to {end:%Y-%m-%d}; serial {serial}")


def _common_name(name: x509.Name) -> str:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else name.rfc4514_string()
