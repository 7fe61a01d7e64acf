"""A part of a revocation list holds what one message may take in, and no serial more (G12)."""

from __future__ import annotations

from attestation_mirror import PLATFORM_KEY, Mirror, crl_of, serials_of
from test_attestation_crl import one_by_one, pieces_of

from attestation.onchain.certificates import LIST_PART, list_parts, revocation_list, serial_set
from attestation.onchain.collateral import crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import Authority, update_crl
from attestation.onchain.pieces import chain


def test_g12_the_last_cell_of_a_part_brings_no_serial_more_than_it_holds(mirror: Mirror) -> None:
    """The list's last two entries in one cell: with the other 159 it would be taken whole, as one part."""
    serials = serials_of(LIST_PART + 1)
    der = crl_of(mirror.ledger.now, serials)
    signed = revocation_list(der)
    _, second = list_parts(signed)
    genuine = crl_messages(Authority.PLATFORM, der, PLATFORM_KEY)
    pieces = pieces_of(genuine[0].refs[1])
    at = pieces.index(second.pieces[0])
    *before, last = one_by_one([pieces[at - 1]])
    joined = chain([*pieces[: at - 1], *before, last + second.pieces[0], *pieces[at + 1 :]])
    body = update_crl(Authority.PLATFORM, serial_set(serials), joined, signed.hints(PLATFORM_KEY))
    assert mirror.stage.tell(body).exit_code == Error.BAD_LIST
    assert all(mirror.stage.tell(each).accepted for each in genuine)
