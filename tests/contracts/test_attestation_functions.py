"""Functions of the verifier against plain ones in Python, on borders and at random (G12)."""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import pytest
from harness import Method, harness
from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import serial_set
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.pieces import chain
from scripts.compile import CONTRACTS

HARDENING, CONFIGURATION, OUT_OF_DATE, REVOKED, NO_LEVEL, NO_MODULE, NO_ENCLAVE_LEVEL = (1 << bit for bit in range(7))
Ask = Callable[..., Any]


@pytest.fixture(scope="module")
def method() -> Method:
    return harness("attestation_harness.fc", CONTRACTS)


@pytest.fixture
def ask(method: Method) -> Ask:
    def run(name: str, *stack: Any) -> Any:
        result = method(f"of_{name}", *stack)
        assert result.exit_code in (0, 1), (name, stack, result.exit_code)
        return result.stack[0] if result.stack else None

    return run


def number(values: Sequence[int]) -> int:
    return int.from_bytes(bytes(values), "big")


def bits(text: bytes) -> Cell:
    return begin_cell().store_bytes(text).end_cell()


# ------------------------------------------------------------------------------------------------ TCB


def test_g12_one_component_below_is_below_wherever_it_stands(ask: Ask) -> None:
    rng = random.Random(1)
    for at in range(32):
        for have, want in ((0, 1), (127, 128), (254, 255), (0, 255)):
            rest = [rng.choice((0, 1, 127, 128, 255)) for _ in range(32)]
            a, b = list(rest), list(rest)
            a[at], b[at] = have, want
            assert ask("at_least", number(a), number(b)) == 0, (at, have, want)
            assert ask("at_least", number(b), number(a)) == -1, (at, have, want)
            assert ask("at_least", number(b), number(b)) == -1


def test_g12_components_are_compared_each_by_itself(ask: Ask) -> None:
    rng = random.Random(2)
    for _ in range(60):
        a = [rng.choice((0, 1, 2, 127, 128, 254, 255)) for _ in range(32)]
        b = [max(0, each - rng.choice((0, 0, 0, 0, 0, 0, 0, 0, -1, 1))) % 256 for each in a]
        assert ask("at_least", number(a), number(b)) == -all(x >= y for x, y in zip(a, b, strict=True)), (a, b)


def modules(*identities: tuple[int, Sequence[tuple[int, int]]]) -> Cell:
    cell = begin_cell()
    for version, levels in identities:
        cell.store_uint(version, 8).store_uint(len(levels), 8)
        for svn, defects in levels:
            cell.store_uint(svn, 8).store_uint(defects, 8)
    return cell.end_cell()


def test_g12_a_module_is_judged_by_its_own_versions_first_level_that_it_reaches(ask: Ask) -> None:
    known = modules((1, [(9, 0), (5, OUT_OF_DATE), (2, REVOKED)]), (3, [(7, 0), (6, HARDENING)]), (4, [(0, 0)]))
    for version, svn, expected in (
        (1, 10, 0), (1, 9, 0), (1, 8, OUT_OF_DATE), (1, 5, OUT_OF_DATE), (1, 4, REVOKED), (1, 1, NO_MODULE),
        (3, 7, 0), (3, 6, HARDENING), (3, 5, NO_MODULE), (4, 0, 0), (2, 255, NO_MODULE), (5, 255, NO_MODULE),
    ):  # fmt: skip
        assert ask("module", known, version, svn) == expected, (version, svn)


def levels(*rows: tuple[Sequence[int], Sequence[int], int, int]) -> Cell:
    """KeptLevel: components of SGX and TDX, PCESVN, defects."""
    following: Cell | None = None
    for sgx, tdx, pce_svn, defects in reversed(rows):
        cell = begin_cell().store_bytes(bytes(sgx)).store_bytes(bytes(tdx)).store_uint(pce_svn, 16)
        following = cell.store_uint(defects, 8).store_maybe_ref(following).end_cell()
    assert following is not None
    return following


def sixteen(*first: int) -> list[int]:
    return [*first, *[0] * (16 - len(first))]


def test_g12_a_platform_gets_the_first_level_that_it_reaches(ask: Ask) -> None:
    none = modules()
    rows = levels(
        (sixteen(5), sixteen(3, 0, 2), 13, 0), (sixteen(4), sixteen(3, 0, 2), 13, OUT_OF_DATE),
        (sixteen(4), sixteen(3, 0, 2), 12, HARDENING), (sixteen(1), sixteen(1, 0, 1), 1, REVOKED),
    )  # fmt: skip
    for sgx, tdx, pce_svn, expected in (
        ((5,), (3, 0, 2), 13, 0), ((5,), (3, 0, 2), 14, 0), ((5,), (3, 0, 2), 12, HARDENING),
        ((4,), (3, 0, 2), 13, OUT_OF_DATE), ((5,), (2, 0, 2), 13, REVOKED), ((5,), (3, 0, 1), 13, REVOKED),
        ((1,), (1, 0, 1), 1, REVOKED), ((0,), (9, 0, 9), 99, NO_LEVEL), ((9,), (9, 0, 9), 0, NO_LEVEL),
    ):  # fmt: skip
        got = ask("platform", rows, none, number(sixteen(*sgx)), pce_svn, number(sixteen(*tdx)))
        assert got == expected, (sgx, tdx, pce_svn)


def test_g12_under_a_module_version_its_identity_counts_beside_the_other_components(ask: Ask) -> None:
    """Bytes 0 and 1 of TEE_TCB_SVN are the module's ISVSVN and version; both are no components then."""
    rows = levels((sixteen(5), sixteen(9, 9, 2), 13, HARDENING))
    known = modules((1, [(6, 0), (4, CONFIGURATION)]), (255, [(0, 0)]))
    for svn, version, third, expected in (
        (6, 1, 2, HARDENING), (4, 1, 2, HARDENING | CONFIGURATION), (3, 1, 2, HARDENING | NO_MODULE),
        (9, 2, 2, HARDENING | NO_MODULE), (6, 1, 1, NO_LEVEL), (0, 255, 2, HARDENING), (9, 0, 9, NO_LEVEL),
    ):  # fmt: skip
        tdx = number(sixteen(svn, version, third))
        assert ask("platform", rows, known, number(sixteen(5)), 13, tdx) == expected, (svn, version, third)


def test_g12_an_enclave_gets_the_first_level_that_it_reaches(ask: Ask) -> None:
    cell = begin_cell()
    for svn, defects in ((300, 0), (6, OUT_OF_DATE), (2, REVOKED)):
        cell.store_uint(svn, 16).store_uint(defects, 8)
    known = cell.end_cell()
    for svn, expected in (
        (301, 0), (300, 0), (299, OUT_OF_DATE), (6, OUT_OF_DATE), (5, REVOKED), (2, REVOKED), (1, NO_ENCLAVE_LEVEL),
    ):  # fmt: skip
        assert ask("enclave", known, svn) == expected, svn


def test_g12_defects_beyond_the_policys_are_refused_by_their_name(method: Method) -> None:
    for defects, accepted, expected in (
        (0, 0, 0), (HARDENING, 0, Error.REFUSED_STATUS), (HARDENING, HARDENING, 0), (OUT_OF_DATE, 3, 633),
        (HARDENING | CONFIGURATION, HARDENING, Error.REFUSED_STATUS), (REVOKED, 7, Error.REFUSED_STATUS),
        (NO_LEVEL | HARDENING, 7, Error.OLD_PLATFORM), (NO_MODULE, 7, Error.OLD_MODULE),
        (NO_ENCLAVE_LEVEL, 7, Error.OLD_ENCLAVE), (7, 7, 0),
    ):  # fmt: skip
        assert method("of_accept", defects, accepted).exit_code % 1000 in ({0, 1} if expected == 0 else {expected})


# ------------------------------------------------------------------------------------------------ texts and times


def test_numbers_are_written_as_in_json(ask: Ask) -> None:
    rng = random.Random(3)
    for value in (
        0,
        1,
        9,
        10,
        11,
        99,
        100,
        101,
        255,
        1000,
        65_535,
        2**32 - 1,
        *(rng.getrandbits(32) for _ in range(20)),
    ):
        assert ask("decimal", value).hash == bits(str(value).encode()).hash, value


def test_hex_digits_of_either_case_are_read(ask: Ask) -> None:
    rng = random.Random(4)
    for text in ("0123456789abcdef" * 2, "0123456789ABCDEF" * 2, "f" * 32, "9" * 32, "a" * 32):
        assert ask("hex", int.from_bytes(text.encode(), "big")) == int(text, 16)
    for _ in range(20):
        value = rng.getrandbits(128)
        for text in (f"{value:032x}", f"{value:032X}"):
            assert ask("hex", int.from_bytes(text.encode(), "big")) == value


MOMENTS = [
    (2000, 2, 29, 12, 34, 56), (2000, 3, 1, 0, 0, 0), (2019, 12, 31, 23, 59, 59), (2020, 1, 1, 0, 0, 0),
    (2020, 2, 28, 1, 2, 3), (2020, 2, 29, 4, 5, 6), (2020, 3, 1, 7, 8, 9), (2021, 2, 28, 10, 11, 12),
    (2021, 3, 1, 13, 14, 15), (2023, 4, 30, 16, 17, 18), (2023, 5, 31, 19, 20, 21), (2024, 6, 30, 22, 23, 24),
    (2024, 7, 31, 0, 25, 26), (2024, 8, 31, 0, 27, 28), (2024, 9, 30, 0, 29, 30), (2024, 10, 31, 0, 31, 32),
    (2024, 11, 30, 0, 33, 34), (2024, 12, 31, 0, 35, 36), (2049, 12, 31, 23, 59, 59),
]  # fmt: skip


def unix(moment: Sequence[int]) -> int:
    year, month, day, hour, minute, second = moment
    return int(datetime.datetime(year, month, day, hour, minute, second, tzinfo=datetime.UTC).timestamp())


@pytest.mark.parametrize("moment", [*MOMENTS, (2100, 2, 28, 0, 0, 0), (2100, 3, 1, 0, 0, 0), (2400, 2, 29, 0, 0, 0)])
def test_g12_times_of_statements_are_read_to_the_second(ask: Ask, moment: Sequence[int]) -> None:
    text = "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z".format(*moment)
    assert ask("iso", bits(text.encode())) == unix(moment)


@pytest.mark.parametrize("moment", MOMENTS)
def test_g12_times_of_certificates_are_read_to_the_second(ask: Ask, moment: Sequence[int]) -> None:
    text = "{:02}{:02}{:02}{:02}{:02}{:02}Z".format(moment[0] % 100, *moment[1:])
    assert ask("utc", bits(b"\x17\x0d" + text.encode())) == unix(moment)


def test_g12_other_forms_of_time_are_refused(method: Method) -> None:
    for text in (
        b"\x18\x0d240101000000Z",
        b"\x17\x0f240101000000Z",
        b"\x17\x0d240101000000+",
        b"\x17\x0d240101000000z",
    ):
        assert method("of_utc", bits(text)).exit_code == Error.BAD_TIME, text
    for text in (b"2024-01-01T00:00:00", b"2024-01-01T00:00:00.0Z"):
        assert method("of_iso", bits(text)).exit_code == Error.BAD_TIME, text


def test_g12_a_closing_brace_is_found_wherever_it_stands(method: Method) -> None:
    for length in (1, 30, 31, 32, 62, 63, 127):
        assert method("of_inside", bits(b"," * length)).exit_code in (0, 1)
        for at in {0, 1, 29, 30, 31, 32, 61, 62, 63, length - 1} & set(range(length)):
            text = bytearray(b"," * length)
            text[at] = ord("}")
            assert method("of_inside", bits(bytes(text))).exit_code == Error.BAD_STATEMENT, (length, at)
    # No other byte is taken for one, whatever stands beside it.
    every = bytes(each for each in range(256) if each != ord("}"))
    for part in (every[:127], every[127:254], every[-127:], b"\xfd\x7c\x7e\x5d\x3d\x6d\x75\x79\x7f" * 13):
        assert method("of_inside", bits(part)).exit_code in (0, 1), part
    assert method("of_inside", begin_cell().store_uint(0, 7).end_cell()).exit_code == Error.BAD_STATEMENT
    assert method("of_inside", begin_cell().end_cell()).exit_code in (0, 1)


@pytest.mark.parametrize("count", [1, 2, 99, 100, 101, 200, 201, 250])
def test_g12_a_text_of_any_number_of_parts_is_hashed_in_order(ask: Ask, count: int) -> None:
    pieces = [b"%d," % index for index in range(count)]
    digest = int.from_bytes(sha256(b"".join(pieces)).digest(), "big")
    assert ask("text", chain(pieces), 0) == digest
    for at_once in (1, min(count, 7), min(count, 100)):
        assert ask("text", chain(pieces), at_once) == digest, at_once


# ------------------------------------------------------------------------------------------------ serials and SVNs


def test_g12_a_serial_is_found_in_whichever_part_it_stands(ask: Ask) -> None:
    parts = ([1, 2, 3], [4], [], [2**167, 5])
    cell: Cell | None = None
    for part in reversed(parts):
        cell = begin_cell().store_maybe_ref(serial_set(part)).store_maybe_ref(cell).end_cell()
    for serial in (1, 2, 3, 4, 5, 2**167):
        assert ask("is_listed", cell, serial) == -1, serial
    for serial in (0, 6, 2**167 + 1):
        assert ask("is_listed", cell, serial) == 0, serial
    assert ask("is_listed", begin_cell().store_uint(0, 2).end_cell(), 0) == 0


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_g12_leaves_are_counted(method: Method, count: int) -> None:
    rng = random.Random(count)
    for _ in range(5):
        serials = serial_set([rng.getrandbits(168) for _ in range(count)])
        for claimed in range(1, count + 3):
            assert (method("of_leaves", serials, claimed).exit_code in (0, 1)) == (claimed == count), claimed


def test_g12_component_svns_are_written_as_der_integers(ask: Ask) -> None:
    def entry(header: int, index: int, svn: int) -> bytes:
        body = bytearray(header.to_bytes(17, "big"))
        body[-3] += index
        value = svn.to_bytes(svn.bit_length() // 8 + 1, "big")
        body[1] += len(value) - 1
        body[-1] = len(value)
        return bytes(body) + value

    header = 0x3010060B2A864886F84D010D0102010201
    for values in ((0, 1, 2, 3, 127), (128, 127, 255, 0, 129), (1, 2, 3, 4, 128), (200, 0, 0, 0, 0)):
        expected = b"".join(entry(header, index, svn) for index, svn in enumerate(values))
        assert ask("svns", bits(bytes(values)), header << 8, len(values)).hash == bits(expected).hash, values
