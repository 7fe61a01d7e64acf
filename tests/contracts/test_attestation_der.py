"""DER is read strictly (G12): certificates and lists that an authority signed, but not in the one form that Intel uses.

The test authorities sign here what no authority would. What the contract took of it, it would have understood otherwise
than the rest of the world.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from attestation_mirror import PLATFORM_KEY, ROOT_KEY, Mirror, crl_of, der_of, moment, serials_of, tee
from cryptography.hazmat.primitives.asymmetric import ec
from pytoniq_core import Cell

from attestation.onchain.certificates import (
    LIST_PART,
    Signed,
    certificate_parts,
    list_parts,
    pck_certificate,
    revocation_list,
    serial_set,
)
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import Authority, appraise, continue_crl, set_authority, update_crl
from attestation.onchain.pieces import chain, der_elements, der_header, even
from attestation.simulated import pki
from attestation.witness import QuoteParts

DAY = 86_400
CELL_UNDERFLOW = 9


def signed(body: bytes, key: ec.EllipticCurvePrivateKey) -> Signed:
    return Signed(body, pki.raw_signature(key, body))


def replaced(data: bytes, at: int, new: bytes) -> bytes:
    assert data[at : at + len(new)] != new
    return data[:at] + new + data[at + len(new) :]


# ------------------------------------------------------------------------------------------------ certificates


def fields_of(tbs: bytes) -> list[bytes]:
    """Up to the issuer, validity, subject, key, extensions."""
    header, _ = der_header(tbs, 0)
    ends = [end for _, end in der_elements(tbs, header, len(tbs))]
    cuts = [0, *ends[3:7], len(tbs)]
    return [tbs[a:b] for a, b in pairwise(cuts)]


def authority_cell(fields: Sequence[bytes]) -> Cell:
    plain, validity, subject, key, extensions = fields
    pieces = [plain[:100], plain[100:], validity, subject, key, *even(extensions, 2)]
    return chain(pieces, {0: signed(b"".join(pieces), pki.root().key).hints(ROOT_KEY)})


@pytest.fixture
def fields(mirror: Mirror) -> list[bytes]:
    validity = (moment(mirror.ledger.now - DAY), moment(mirror.ledger.now + DAY))
    return fields_of(certificate_parts(der_of(pki.renewed(pki.platform_ca(), validity))).body)


def taken(mirror: Mirror, fields: Sequence[bytes]) -> int | None:
    return mirror.stage.tell(set_authority(Authority.PLATFORM, authority_cell(fields))).exit_code


PLAIN, VALIDITY, SUBJECT, KEY = range(4)
ISSUER = 43
"""Where the issuer begins, after a serial of 20 bytes."""


@pytest.mark.parametrize(
    ("field", "at", "new", "error"),
    [
        (PLAIN, 0, b"\x31", Error.BAD_CERTIFICATE),
        (PLAIN, 1, b"\x81", Error.BAD_CERTIFICATE),
        (PLAIN, 4, b"\xa1", Error.BAD_CERTIFICATE),
        (PLAIN, 8, b"\x01", Error.BAD_CERTIFICATE),
        (PLAIN, 9, b"\x04", Error.BAD_CERTIFICATE),
        (PLAIN, 31, b"\x31", Error.BAD_CERTIFICATE),
        (PLAIN, 42, b"\x03", Error.BAD_CERTIFICATE),
        (PLAIN, ISSUER, b"\x31", Error.BAD_CERTIFICATE),
        (PLAIN, ISSUER + 1, b"\x10", Error.BAD_CERTIFICATE),
        (VALIDITY, 0, b"\x31", Error.BAD_CERTIFICATE),
        (VALIDITY, 1, b"\x1f", Error.BAD_CERTIFICATE),
        (VALIDITY, 2, b"\x18", Error.BAD_TIME),
        (VALIDITY, 16, b"z", Error.BAD_TIME),
        (VALIDITY, 17, b"\x18", Error.BAD_TIME),
        (VALIDITY, 31, b"+", Error.BAD_TIME),
        (SUBJECT, 0, b"\x31", Error.BAD_CERTIFICATE),
        (SUBJECT, 1, b"\x10", Error.BAD_CERTIFICATE),
        (SUBJECT, 2, b"\x30", Error.NO_AUTHORITY),
        (SUBJECT, 4, b"\x31", Error.NO_AUTHORITY),
        (SUBJECT, 6, b"\x05", Error.NO_AUTHORITY),
        (SUBJECT, 10, b"\x04", Error.NO_AUTHORITY),
        (SUBJECT, 11, b"\x13", Error.NO_AUTHORITY),
        (SUBJECT, 12, b"\x18", Error.NO_AUTHORITY),
        (SUBJECT, 20, b"x", Error.NO_AUTHORITY),
        (KEY, 0, b"\x31", Error.BAD_CERTIFICATE),
        (KEY, 22, b"\x01", Error.BAD_CERTIFICATE),
        (KEY, 26, b"\x02", Error.BAD_CERTIFICATE),
        (KEY, 30, b"\x00\x01", Error.BAD_POINT),
    ],
)
def test_g12_a_certificate_in_another_form_is_refused(
    mirror: Mirror, fields: list[bytes], field: int, at: int, new: bytes, error: Error
) -> None:
    changed = [*fields]
    changed[field] = replaced(fields[field], at, new)
    assert taken(mirror, changed) == error
    assert taken(mirror, fields) == 0


@pytest.mark.parametrize("field", [VALIDITY, SUBJECT, KEY])
def test_g12_nothing_stands_between_the_fields_of_a_certificate(
    mirror: Mirror, fields: list[bytes], field: int
) -> None:
    for more in (b"\x05\x00", b"\x00"):
        changed = [*fields]
        changed[field] += more
        assert taken(mirror, changed) == Error.BAD_CERTIFICATE
    assert taken(mirror, fields) == 0


@pytest.mark.parametrize(("zeros", "error"), [(1, 0), (2, Error.BAD_CERTIFICATE)])
def test_g12_a_serial_has_at_most_21_bytes(mirror: Mirror, fields: list[bytes], zeros: int, error: int) -> None:
    """As many as a key of the revoked serials holds."""
    plain = fields[PLAIN]
    longer = plain[:10] + bytes([20 + zeros]) + bytes(zeros) + plain[11:]
    assert taken(mirror, [longer, *fields[1:]]) == error


@pytest.mark.parametrize("issuer", [b"\x30\x80" + bytes(128), b"\x30\x81\x80" + bytes(128)])
def test_g12_an_issuer_in_a_long_form_is_refused(mirror: Mirror, fields: list[bytes], issuer: bytes) -> None:
    assert taken(mirror, [fields[PLAIN][:ISSUER] + issuer, *fields[1:]]) == Error.BAD_CERTIFICATE
    assert taken(mirror, [fields[PLAIN][:ISSUER] + b"\x30\x7f" + bytes(127), *fields[1:]]) == 0


# ------------------------------------------------------------------------------------------------ PCK certificates


def leaf_pieces(parts: QuoteParts) -> tuple[list[bytes], bytes, bytes]:
    """Pieces of a PCK certificate's witness (a5 a6 a7 at 5, 6, 7), its values, what is made again before the rest."""
    cell = pck_certificate(parts.pck, parts.authority_key)
    pieces: list[bytes] = []
    while True:
        slice_ = cell.begin_parse()
        pieces.append(slice_.load_bytes(slice_.remaining_bits // 8))
        if len(pieces) == 6:
            other = cell.refs[1].begin_parse() if len(cell.refs) > 1 else None
            pieces.append(b"" if other is None else other.load_bytes(other.remaining_bits // 8))
        if not cell.refs:
            break
        cell = cell.refs[0]
    values, pieces[2] = pieces[2][:-32], pieces[2][-32:]
    start = sum(map(len, pieces[:-1]))
    made = parts.pck.body[start : len(parts.pck.body) - len(pieces[-1])]
    assert b"".join([*pieces[:-1], made, pieces[-1]]) == parts.pck.body
    return pieces, values, made


def leaf_cell(pieces: Sequence[bytes], values: bytes, made: bytes) -> Cell:
    body = b"".join([*pieces[:-1], made, pieces[-1]])
    hints = signed(body, pki.platform_ca().key).hints(PLATFORM_KEY)
    cells = [pieces[0], pieces[1], values + pieces[2], *pieces[3:6], *pieces[7:]]
    return chain(cells, {0: hints, 5: chain([pieces[6]])} if pieces[6] else {0: hints})


FIRST, EXTRA, LAST = 5, 6, 7


@pytest.fixture
def leaf(monkeypatch: pytest.MonkeyPatch) -> tuple[QuoteParts, list[bytes], bytes, bytes]:
    """With extensions in three cells."""
    monkeypatch.setattr(pki, "_CRL_URL", "https://crl.example/".ljust(70, "x"))
    parts = QuoteParts.of(tee().quote(bytes(64)))
    pieces, values, made = leaf_pieces(parts)
    assert pieces[EXTRA]
    return parts, pieces, values, made


def appraised(mirror: Mirror, parts: QuoteParts, certificate: Cell) -> int | None:
    td, qe, _ = parts.cells()
    return mirror.stage.tell(appraise(parts.authority, td, qe, certificate)).exit_code


def test_g12_extensions_are_walked_to_the_sgx_extension(
    mirror: Mirror, leaf: tuple[QuoteParts, list[bytes], bytes, bytes]
) -> None:
    parts, pieces, values, made = leaf
    assert appraised(mirror, parts, leaf_cell(pieces, values, made)) == 0
    sgx = pieces[LAST].index(bytes.fromhex("06092a864886f84d010d01")) - 4
    cases: list[tuple[int, bytes]] = [
        # [3] and the list of extensions, both in the form for long contents.
        (FIRST, replaced(pieces[FIRST], 0, b"\xa2")),
        (FIRST, replaced(pieces[FIRST], 1, b"\x81")),
        (FIRST, replaced(pieces[FIRST], 4, b"\x31")),
        (FIRST, replaced(pieces[FIRST], 5, b"\x81")),
        # An extension that is none, or that begins elsewhere.
        (FIRST, replaced(pieces[FIRST], 8, b"\x31")),
        (FIRST, replaced(pieces[FIRST], 9, b"\x81")),
        (EXTRA, replaced(pieces[EXTRA], 0, b"\x31")),
        # A long one before: it could be another SGX extension.
        (FIRST, pieces[FIRST][:8] + b"\x30\x82\x00\x01\x00"),
        (EXTRA, b"\x30\x82" + pieces[EXTRA][2:]),
        (EXTRA, pieces[EXTRA] + b"\x30\x82\x00\x00"),
        # The SGX extension itself, its value, and its first entry, the PPID.
        (LAST, replaced(pieces[LAST], sgx + 5, b"\x08")),
        (LAST, replaced(pieces[LAST], sgx + 14, b"\x02")),
        (LAST, replaced(pieces[LAST], sgx + 15, b"\x05")),
        (LAST, replaced(pieces[LAST], sgx + 19, b"\x31")),
        (LAST, replaced(pieces[LAST], sgx + 23, b"\x31")),
        (LAST, replaced(pieces[LAST], sgx + 36, b"\x02")),
        (LAST, pieces[LAST] + b"\x00"),
        (LAST, pieces[LAST][:-16] + bytes(16)),
    ]
    for index, (at, piece) in enumerate(cases):
        changed = [*pieces]
        changed[at] = piece
        assert appraised(mirror, parts, leaf_cell(changed, values, made)) == Error.BAD_CERTIFICATE, index


def test_g12_the_extensions_before_fit_one_cell_or_two(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pki, "_CRL_URL", "https://crl.example/".ljust(40, "x"))
    parts = QuoteParts.of(tee().quote(bytes(64)))
    pieces, values, made = leaf_pieces(parts)
    assert not pieces[EXTRA]
    assert appraised(mirror, parts, leaf_cell(pieces, values, made)) == 0


# ------------------------------------------------------------------------------------------------ lists


def list_pieces(der: bytes) -> tuple[list[bytes], list[bytes], bytes]:
    """(up to the issuer; times and the head of the entries), entries, the rest."""
    tbs = revocation_list(der).body
    header, _ = der_header(tbs, 0)
    spans = list(der_elements(tbs, header, len(tbs)))
    times, after = spans[3][0], spans[4][1]
    if tbs[after] != 0x30:
        return [tbs[:times], tbs[times:after]], [], tbs[after:]
    first = after + der_header(tbs, after)[0]
    entries = [tbs[a:b] for a, b in der_elements(tbs, first, spans[5][1])]
    return [tbs[:times], tbs[times:first]], entries, tbs[spans[5][1] :]


def list_message(head: Sequence[bytes], entries: Sequence[bytes], rest: Sequence[bytes], serials: list[int]) -> Cell:
    pieces = [head[0][:100], head[0][100:], head[1], *entries, *rest]
    hints = signed(b"".join(pieces), pki.platform_ca().key).hints(PLATFORM_KEY)
    return update_crl(Authority.PLATFORM, serial_set(serials), chain(pieces), hints)


@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    ("piece", "at", "new", "error"),
    [
        (0, 0, b"\x31", Error.BAD_LIST),
        (0, 1, b"\x83", Error.BAD_LIST),
        (0, 1, b"\x80", Error.BAD_LIST),
        ("version", 2, b"\x00", Error.BAD_LIST),
        ("version", 14, b"\x03", Error.BAD_LIST),
        ("issuer", 0, b"\x31", Error.BAD_LIST),
        ("issuer", 1, b"\x10", Error.BAD_LIST),
        (1, 0, b"\x18", Error.BAD_TIME),
        (1, 15, b"\x18", Error.BAD_TIME),
    ],
)
def test_g12_a_list_in_another_form_is_refused(
    mirror: Mirror, piece: int | str, at: int, new: bytes, error: Error, count: int
) -> None:
    serials = serials_of(count)
    head, entries, rest = list_pieces(crl_of(mirror.ledger.now, serials))
    header, _ = der_header(head[0], 0)
    start = {"version": header, "issuer": header + 15}.get(str(piece), 0)
    changed, number = [*head], piece if isinstance(piece, int) else 0
    changed[number] = replaced(head[number], start + at, new)
    assert mirror.stage.tell(list_message(changed, entries, [rest], serials)).exit_code == error
    assert mirror.stage.tell(list_message(head, entries, [rest], serials)).accepted


def test_g12_a_lists_lengths_take_one_two_or_three_bytes(mirror: Mirror) -> None:
    """Everything else fits: nothing but the form of the length is another."""
    serials = serials_of(3)
    head, entries, rest = list_pieces(crl_of(mirror.ledger.now, serials))
    size, length = der_header(head[0], 0)
    content, sequence = head[0][size:], head[1][30:]
    assert (size, len(sequence)) == (4, 3)
    count = sum(map(len, entries))
    for form in (b"\x80", b"\x83\x00" + length.to_bytes(2, "big"), b"\x84\x00\x00" + length.to_bytes(2, "big")):
        message = list_message([b"\x30" + form + content, head[1]], entries, [rest], serials)
        assert mirror.stage.tell(message).exit_code == Error.BAD_LIST, form
    for form in (b"\x83\x00" + count.to_bytes(2, "big"), b"\x84\x00\x00" + count.to_bytes(2, "big")):
        changed = head[1][:30] + b"\x30" + form
        message = list_message([head[0], changed], entries, [rest], serials)
        assert mirror.stage.tell(message).exit_code == Error.BAD_LIST, form
    other = list_message([head[0], head[1][:30] + b"\x31" + sequence[1:]], entries, [rest], serials)
    assert mirror.stage.tell(other).exit_code == Error.BAD_LIST
    assert mirror.stage.tell(list_message(head, entries, [rest], serials)).accepted


@pytest.mark.parametrize("issuer", [b"\x30\x80" + bytes(128), b"\x30\x81\x80" + bytes(128)])
def test_g12_a_lists_issuer_in_a_long_form_is_refused(mirror: Mirror, issuer: bytes) -> None:
    head, _, rest = list_pieces(crl_of(mirror.ledger.now, []))
    start = der_header(head[0], 0)[0] + 15
    for name, expected in ((issuer, Error.BAD_LIST), (b"\x30\x7f" + bytes(127), 0)):
        message = list_message([head[0][:start] + name, head[1]], [], [rest], [])
        assert mirror.stage.tell(message).exit_code == expected


def test_g12_entries_cannot_pass_for_something_else(mirror: Mirror) -> None:
    serials = serials_of(3)
    head, entries, rest = list_pieces(crl_of(mirror.ledger.now, serials))
    after_times, sequence = head[1][:30], head[1][30:]
    assert sequence[0] == 0x30
    tell = mirror.stage.tell
    # The list without entries, these as what follows it.
    hidden = list_message([head[0], after_times], [], [sequence, *entries, rest], [])
    assert tell(hidden).exit_code == Error.BAD_LIST
    # The first entry as part of the head, and something like an entry behind the others in its stead.
    short = list_message([head[0], head[1] + entries[0]], [*entries[1:], entries[0]], [], serials)
    assert tell(short).exit_code == Error.BAD_LIST
    # Entries that are no SEQUENCE, in the long form, or that do not begin with an INTEGER.
    for at, new in ((0, b"\x31"), (1, b"\xb1"), (2, b"\x04")):
        changed = [replaced(entries[0], at, new), *entries[1:]]
        assert not tell(list_message(head, changed, [rest], serials)).accepted, at
    # What follows the entries, as one of them.
    assert tell(list_message(head, [*entries[:-1], entries[-1] + entries[0]], [rest], serials)).exit_code == 625
    assert tell(list_message(head, entries, [rest], serials)).accepted


def test_g12_a_part_to_come_ends_where_the_entries_do(mirror: Mirror) -> None:
    """A part with what follows the list in its last cell would be one that nobody else makes."""
    serials = serials_of(LIST_PART + 2)
    head, entries, rest = list_pieces(crl_of(mirror.ledger.now, serials))
    joined = [*entries[:-1], entries[-1] + rest[:20]]
    assert len(joined[-1]) < 128
    message = list_message(head, joined, [rest[20:]], serials[:LIST_PART])
    assert mirror.stage.tell(message).exit_code == Error.BAD_LIST
    assert mirror.stage.tell(list_message(head, entries, [rest], serials[:LIST_PART])).accepted
    other = continue_crl(Authority.PLATFORM, serial_set(serials[LIST_PART:]), chain(entries[LIST_PART:]))
    assert mirror.stage.tell(other).accepted


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, LIST_PART])
def test_g12_entries_of_any_length_are_read(mirror: Mirror, count: int) -> None:
    """The length of all of them takes one, two or three bytes."""
    serials = [1 + each for each in range(count)] if count < 8 else serials_of(count)
    (part,) = list_parts(revocation_list(crl_of(mirror.ledger.now, serials, reasons=count > 3)))
    head, entries, rest = list_pieces(crl_of(mirror.ledger.now, serials, reasons=count > 3))
    assert b"".join(part.pieces) == b"".join(entries)
    assert mirror.stage.tell(list_message(head, entries, [rest], serials)).accepted
    assert serial_set(serials) is not None
    assert mirror.state.platform_authority.revoked == (bytes(serial_set(serials).hash),)
