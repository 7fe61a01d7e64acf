"""Revocation lists of any length (G12): a long one comes in parts, from anyone, and holds as a whole or not at all."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from attestation_mirror import ROOT_KEY, Mirror, crl_of, lists, serials_of, tee
from cryptography.hazmat.primitives.serialization import Encoding
from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import LIST_PART, list_parts, revocation_list, serial_set
from attestation.onchain.collateral import authority_message, crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import ROOT, Authority, Op, continue_crl, update_crl
from attestation.onchain.needed import needed_messages
from attestation.onchain.pieces import chain
from attestation.onchain.state import AuthorityState, VerifierState
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from scripts.attest_stage import TON, Outcome
from scripts.compile import CONTRACTS
from wrappers.code import size_of

KEY = pki.raw_public_key(pki.platform_ca().key)
DAY = 86_400
PARTS_3 = 2 * LIST_PART + 7


def messages(mirror: Mirror, serials: Sequence[int], **options: int) -> tuple[Cell, ...]:
    return crl_messages(Authority.PLATFORM, crl_of(mirror.ledger.now, serials, **options), KEY)


def authority(mirror: Mirror) -> AuthorityState:
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    return VerifierState.from_cell(data).platform_authority


def serial(machine: bytes) -> int:
    return int(tee(machine).platform.pck.certificate.serial_number)


def told(mirror: Mirror, bodies: Sequence[Cell]) -> list[Outcome]:
    return [mirror.stage.tell(body) for body in bodies]


@pytest.mark.parametrize("count", [0, 1, 60, LIST_PART, LIST_PART + 1, 300, 800])
def test_g12_a_serial_anywhere_on_a_list_of_any_length_is_refused(mirror: Mirror, count: int) -> None:
    places = sorted({0, count // 2, count - 1, LIST_PART - 1, LIST_PART, 3 * LIST_PART} & set(range(count)))
    serials = serials_of(count)
    for place in places:
        serials[place] = serial(b"place %d" % place)
    bodies = messages(mirror, serials)
    assert len(bodies) == max(1, -(-count // LIST_PART))
    assert all(each.accepted for each in told(mirror, bodies))
    for place in places:
        assert mirror.attest(tee(b"place %d" % place)).exit_code == Error.REVOKED
    assert mirror.attest(tee(b"honest")).exit_code == 0
    held = authority(mirror)
    assert held.pending is None and held.crl_issued == mirror.ledger.now - 5
    assert len(held.revoked) == -(-count // LIST_PART)


def test_g12_a_long_list_holds_with_its_last_part_and_not_before(mirror: Mirror) -> None:
    old = messages(mirror, [serial(b"old")])
    assert told(mirror, old)[0].accepted
    mirror.ledger.now += 10
    serials = serials_of(PARTS_3)
    serials[0] = serial(b"new")
    *bodies, last = messages(mirror, serials)
    before = authority(mirror)
    for body in bodies:
        assert mirror.stage.tell(body).accepted
        assert dataclasses.replace(authority(mirror), pending=None) == before
        assert mirror.attest(tee(b"old")).exit_code == Error.REVOKED
        assert mirror.attest(tee(b"new")).exit_code == 0
    assert mirror.stage.tell(last).accepted
    assert mirror.attest(tee(b"new")).exit_code == Error.REVOKED
    assert mirror.attest(tee(b"old")).exit_code == 0, "the newer list does not name it"


def test_g12_parts_come_once_in_order_and_unchanged(mirror: Mirror) -> None:
    first, last_part, second_part = messages(mirror, serials_of(PARTS_3))
    foreign = messages(mirror, serials_of(PARTS_3, seed=2))
    assert mirror.stage.tell(second_part).exit_code == Error.WRONG_PART, "no list waits"
    assert mirror.stage.tell(first).accepted
    assert mirror.stage.tell(first).exit_code == Error.NOT_NEWER, "nobody sets it back to its beginning"
    assert mirror.stage.tell(second_part).exit_code == Error.WRONG_PART, "out of order"
    assert mirror.stage.tell(foreign[1]).exit_code == Error.WRONG_PART, "another list's"
    assert mirror.stage.tell(last_part).accepted
    assert mirror.stage.tell(last_part).exit_code == Error.WRONG_PART, "taken already"
    assert mirror.stage.tell(second_part).accepted
    assert mirror.stage.tell(second_part).exit_code == Error.WRONG_PART, "the list holds, none waits"
    assert mirror.stage.tell(first).exit_code == Error.NOT_NEWER


def test_g12_a_part_waits_for_its_own_issuer(mirror: Mirror) -> None:
    first, other = messages(mirror, serials_of(LIST_PART + 1))
    assert mirror.stage.tell(first).accepted
    for issuer in (Authority.PROCESSOR, ROOT, 3):
        body = begin_cell().store_uint(Op.CONTINUE_CRL, 32).store_uint(issuer, 8).store_bit(1)
        for ref in other.refs:
            body.store_ref(ref)
        expected = Error.WRONG_PART if issuer == ROOT else Error.NO_AUTHORITY
        assert mirror.stage.tell(body.end_cell()).exit_code == expected
    assert mirror.stage.tell(other).accepted


def test_g12_set_of_a_later_part_is_exactly_that_of_its_entries(mirror: Mirror) -> None:
    """Neither may a serial be left out, nor may a sender revoke a machine that Intel did not."""
    serials = serials_of(LIST_PART + 5)
    first, other = messages(mirror, serials)
    assert mirror.stage.tell(first).accepted
    entries = other.refs[-1]
    listed = serials[LIST_PART:]
    for brought in (listed[:-1], [*listed, 7], [], [*listed[:-1], 7]):
        body = continue_crl(Authority.PLATFORM, serial_set(brought), entries)
        assert mirror.stage.tell(body).exit_code == Error.WRONG_SERIALS
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(other.refs[0].refs[1].hash).end_cell().bits, [], 2)
    fork = begin_cell().store_bits(other.refs[0].bits).store_ref(other.refs[0].refs[0]).store_ref(library).end_cell()
    assert mirror.stage.tell(continue_crl(Authority.PLATFORM, fork, entries)).exit_code != 0
    assert mirror.stage.tell(other).accepted


def pieces_of(cell: Cell) -> list[bytes]:
    """Undoes `chain`."""
    pieces = []
    while True:
        slice_ = cell.begin_parse()
        pieces.append(slice_.load_bytes(slice_.remaining_bits // 8))
        if not slice_.remaining_refs:
            return pieces
        cell = slice_.load_ref()


def one_by_one(pieces: Sequence[bytes]) -> list[bytes]:
    """The same entries, each in a cell of its own."""
    data, cells = b"".join(pieces), []
    while data:
        cells.append(data[: 2 + data[1]])
        data = data[2 + data[1] :]
    return cells


def test_g12_who_cuts_the_list_oddly_keeps_nobody_from_going_on(mirror: Mirror) -> None:
    """Its parts are known by their bytes, not by the cells in which the first sender had them."""
    der = crl_of(mirror.ledger.now, serials_of(LIST_PART + 5))
    signed = revocation_list(der)
    first, second = list_parts(signed)
    genuine, other = crl_messages(Authority.PLATFORM, der, KEY)
    pieces = pieces_of(genuine.refs[1])
    at = pieces.index(second.pieces[0])
    odd = chain([*pieces[:at], *one_by_one(second.pieces), *pieces[at + len(second.pieces) :]])
    assert mirror.stage.tell(update_crl(Authority.PLATFORM, first.serials, odd, signed.hints(KEY))).accepted
    assert mirror.stage.tell(genuine).exit_code == Error.NOT_NEWER
    assert mirror.stage.tell(other).accepted
    assert authority(mirror).pending is None


def test_g12_parts_begin_where_the_contract_says(mirror: Mirror) -> None:
    """A part of fewer serials would be one that nobody else makes; one of more could outgrow a message."""
    serials = serials_of(2 * LIST_PART + 5)
    der = crl_of(mirror.ledger.now, serials)
    signed = revocation_list(der)
    first, second, third = list_parts(signed)
    pieces = pieces_of(crl_messages(Authority.PLATFORM, der, KEY)[0].refs[1])
    for part in (second, third):
        # Around the end of a part, a cell that holds the last entry of one and the first of the next.
        at = pieces.index(part.pieces[0])
        entries = one_by_one(pieces[at - 1 : at + 1])
        joined = [b"".join(entries[:-3]), b"".join(entries[-3:-1]), entries[-1]]
        body = chain([*pieces[: at - 1], *joined, *pieces[at + 1 :]])
        brought = serial_set(serials[: LIST_PART + 1]) if part is second else first.serials
        outcome = mirror.stage.tell(update_crl(Authority.PLATFORM, brought, body, signed.hints(KEY)))
        assert outcome.exit_code == Error.BAD_LIST
        assert authority(mirror).pending is None


def test_g12_a_forged_list_leaves_nothing_waiting(mirror: Mirror) -> None:
    genuine = messages(mirror, serials_of(PARTS_3))[0]
    serials, crl, signature = genuine.refs
    # In the head and in the entries of each part.
    for depth in (0, 20, 100, 150, 164):
        altered = update_crl(Authority.PLATFORM, serials, flipped(crl, depth), signature)
        assert mirror.stage.tell(altered).exit_code in (Error.FORGED, Error.BAD_HINT, Error.BAD_LIST)
        assert authority(mirror).pending is None
    assert mirror.stage.tell(genuine).accepted


def flipped(cell: Cell, depth: int) -> Cell:
    """The chain with the last bit of one of its cells changed."""
    bits = cell.bits.copy()
    if depth == 0:
        bits[-1] = not bits[-1]
        return begin_cell().store_bits(bits).store_ref(cell.refs[0]).end_cell()
    return begin_cell().store_bits(bits).store_ref(flipped(cell.refs[0], depth - 1)).end_cell()


def test_g12_a_newer_list_replaces_one_that_waits_and_an_older_is_refused(mirror: Mirror) -> None:
    older = messages(mirror, serials_of(3))
    mirror.ledger.now += 10
    waiting = messages(mirror, serials_of(PARTS_3))
    mirror.ledger.now += 10
    newer = messages(mirror, serials_of(PARTS_3, seed=2))
    assert mirror.stage.tell(waiting[0]).accepted and mirror.stage.tell(waiting[1]).accepted
    assert mirror.stage.tell(older[0]).exit_code == Error.NOT_NEWER
    assert mirror.stage.tell(newer[0]).accepted
    assert mirror.stage.tell(waiting[2]).exit_code == Error.WRONG_PART
    assert mirror.stage.tell(waiting[0]).exit_code == Error.NOT_NEWER
    assert [each.exit_code for each in told(mirror, newer[1:])] == [0, 0]
    # A short one ends a waiting one too.
    mirror.ledger.now += 10
    again = messages(mirror, serials_of(PARTS_3, seed=3))
    assert mirror.stage.tell(again[0]).accepted
    mirror.ledger.now += 10
    assert mirror.stage.tell(messages(mirror, [serial(b"short")])[0]).accepted
    assert authority(mirror).pending is None
    assert mirror.stage.tell(again[1]).exit_code == Error.WRONG_PART
    assert mirror.attest(tee(b"short")).exit_code == Error.REVOKED


def test_g12_a_list_that_ran_out_while_it_waited_is_forgotten(mirror: Mirror) -> None:
    (older,) = messages(mirror, serials_of(3))
    mirror.ledger.now += 10
    first, *others = messages(mirror, serials_of(PARTS_3), ends_after=DAY)
    assert mirror.stage.tell(first).accepted and mirror.stage.tell(others[0]).accepted
    mirror.ledger.now += DAY
    assert mirror.stage.tell(others[1]).exit_code == Error.EXPIRED
    assert mirror.attest().exit_code == 0, "the list before still holds"
    assert mirror.stage.tell(older).accepted, "what ran out stands in nobody's way"
    bodies = messages(mirror, serials_of(LIST_PART + 1, seed=2))
    assert all(each.accepted for each in told(mirror, bodies))
    assert authority(mirror).pending is None


def test_g12_another_key_of_the_authority_ends_what_the_old_one_signed(mirror: Mirror) -> None:
    first, other = messages(mirror, serials_of(LIST_PART + 1))
    assert mirror.stage.tell(first).accepted
    validity = (pki._BORN + (pki._ENDS - pki._BORN) / 10, pki._ENDS)
    fresh = pki.renewed(pki.platform_ca(), validity, pki.derive_key("another authority"))
    body = authority_message(fresh.certificate.public_bytes(Encoding.DER), ROOT_KEY)
    assert mirror.stage.tell(body).accepted
    assert mirror.stage.tell(other).exit_code == Error.WRONG_PART
    assert authority(mirror).crl_until == 0


def test_g12_a_long_root_list_removes_an_authority_with_its_last_part(mirror: Mirror) -> None:
    serials = serials_of(LIST_PART + 3)
    serials[LIST_PART + 1] = int(pki.platform_ca().certificate.serial_number)
    first, other = crl_messages(ROOT, crl_of(mirror.ledger.now, serials, issuer=pki.root()), ROOT_KEY)
    assert mirror.stage.tell(first).accepted
    assert mirror.attest().exit_code == 0
    assert mirror.stage.tell(other).accepted
    assert mirror.attest().exit_code == Error.NO_AUTHORITY


def test_whoever_brings_a_list_leaves_its_rent(mirror: Mirror) -> None:
    bodies = messages(mirror, serials_of(LIST_PART + 40))
    prices = mirror.ledger.config
    for body, count in zip(bodies, (LIST_PART, 40), strict=True):
        balance = mirror.ledger.balance(mirror.stage.account)
        assert mirror.stage.tell(body).accepted
        left = mirror.ledger.balance(mirror.stage.account) - balance
        rent = count * (2 * 500 + 250) * (30 * DAY) / 65_536
        assert abs(left - rent) < 20_000, prices
    text = (CONTRACTS / "attestation" / "gas.fc").read_text()
    assert "size::serial_cells = 2;" in text and "size::serial_bits = 250;" in text
    for count in (1, 2, 40, LIST_PART):
        cells, bits = size_of(serial_set(serials_of(count)))
        assert cells <= 2 * count and bits <= 250 * count


def test_what_pays_the_gas_of_a_list_but_not_its_rent_is_refused(mirror: Mirror) -> None:
    (body,) = messages(mirror, serials_of(LIST_PART))
    before = mirror.stage.tell(body)
    assert before.accepted
    spent = before.gas * 400
    mirror.ledger.now += 10
    (body,) = messages(mirror, serials_of(LIST_PART))
    assert not mirror.stage.tell(body, spent + 1_000_000).accepted
    assert mirror.stage.tell(body, spent + TON // 50).accepted


def test_whoever_finds_a_waiting_list_goes_on_where_it_stands(mirror: Mirror) -> None:
    collateral = dataclasses.replace(
        lists(simulated.mint(mirror.ledger.now), mirror.ledger.now),
        pck_crl=crl_of(mirror.ledger.now, serials_of(PARTS_3)),
    )

    def lacking() -> list[tuple[str, Cell]]:
        data = mirror.ledger.account(mirror.stage.account).data
        assert data is not None
        return list(needed_messages(collateral, ROOT_KEY, VerifierState.from_cell(data), mirror.ledger.now))

    names = [name for name, _ in lacking()]
    assert names == ["update_crl PCK CA", "update_crl PCK CA 2/3", "update_crl PCK CA 3/3"]
    for left in (2, 1, 0):
        assert mirror.stage.tell(lacking()[0][1]).accepted
        assert [name for name, _ in lacking()] == names[3 - left :]
    # One that has an older list than the one that waits lets it be.
    mirror.ledger.now += 10
    newer = messages(mirror, serials_of(PARTS_3, seed=2))
    assert mirror.stage.tell(newer[0]).accepted
    assert lacking() == []
