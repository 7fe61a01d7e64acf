"""Which of a platform's collateral the chain lacks, or should have before what it holds ends."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography import x509
from pytoniq_core import Cell

from attestation import strict
from attestation.collateral import Collateral
from attestation.onchain.certificates import list_parts, public_key, revocation_list
from attestation.onchain.collateral import authority_kind, collateral_pieces
from attestation.onchain.messages import Authority
from attestation.onchain.state import AuthorityState, PendingList, StatementState, VerifierState
from attestation.quote import certificates

_NOTHING = StatementState(0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Compared:
    """One piece: issued and end (unix seconds) of what the chain has and of what is at hand."""

    chain_issued: int
    chain_until: int
    issued: int
    urgent: bool = False
    """It says more than what the chain has (another key, other serials, a higher evaluation number)."""
    pending: PendingList | None = None
    """A list that waits for its parts."""

    def needed(self, by: int, now: int) -> bool:
        if self.chain_until <= now:
            return True
        return self.issued > self.chain_issued and (self.urgent or self.chain_until <= by)

    def taken(self, messages: int, now: int) -> int:
        """How many of the `messages` that bring it the chain has already, or needs no more."""
        if self.pending is None or self.pending.until <= now or self.pending.issued < self.issued:
            return 0
        # Of a newer one the chain takes nothing but its own parts.
        return messages - len(self.pending.left) if self.pending.issued == self.issued else messages


def needed_messages(
    collateral: Collateral, root_key: bytes, state: VerifierState | None, now: int, *, ahead_seconds: int = 0
) -> Iterator[tuple[str, Cell]]:
    """Those of `collateral_messages` that the chain needs at `now` (unix seconds), in the same order; all on `None`.

    Needed is what is absent or has ended; and, where ours is newer, what ends within `ahead_seconds` or says less than
    ours does: revocations and raised evaluation numbers do not wait for an end. Raises BadWitness, NoHints, Malformed.
    """
    compared = None if state is None else _compared(collateral, state)
    for piece in collateral_pieces(collateral, root_key):
        held = None if compared is None else compared[piece.name]
        if held is None or held.needed(now + ahead_seconds, now):
            yield from piece.messages(0 if held is None else held.taken(len(piece.bodies), now))


def _compared(collateral: Collateral, state: VerifierState) -> dict[str, _Compared]:
    authority = certificates(collateral.pck_crl_issuer_chain.encode(), "PCK CRL issuer chain")[0]
    signer = certificates(collateral.tcb_info_issuer_chain.encode(), "TCB info issuer chain")[0]
    processor = authority_kind(authority) == Authority.PROCESSOR
    issuer = state.processor_authority if processor else state.platform_authority
    tcb = strict.json_object(collateral.tcb_info, "TCB info", limit_bytes=len(collateral.tcb_info))
    qe = strict.json_object(collateral.qe_identity, "QE identity", limit_bytes=len(collateral.qe_identity))
    fmspc = strict.hex_field(tcb, "fmspc", "TCB info", length=6)
    signer_changes = _replaces(signer, state.signer)
    return {
        "update_crl root": _list(collateral.root_ca_crl, state.root),
        "set_authority PCK CA": _certificate(authority, issuer),
        "set_authority TCB signer": _certificate(signer, state.signer),
        "update_crl PCK CA": _list(collateral.pck_crl, issuer, gone=_replaces(authority, issuer)),
        "update_tcb": _statement(tcb, state.tcb.get(fmspc, _NOTHING), state, gone=signer_changes),
        "update_qe": _statement(qe, state.qe, state, gone=signer_changes),
    }


def _replaces(certificate: bytes, held: AuthorityState) -> bool:
    """Whether the certificate brings another key; what the old one signed goes with it."""
    return held.end != 0 and public_key(certificate) != held.key and _begin(certificate) > held.begin


def _begin(certificate: bytes) -> int:
    return int(x509.load_der_x509_certificate(certificate).not_valid_before_utc.timestamp())


def _certificate(certificate: bytes, held: AuthorityState) -> _Compared:
    return _Compared(held.begin, held.end, _begin(certificate), urgent=public_key(certificate) != held.key)


def _list(der: bytes, held: AuthorityState, *, gone: bool = False) -> _Compared:
    crl = x509.load_der_x509_crl(der)
    _, *others = parts = list_parts(revocation_list(der))
    serials = tuple(bytes(part.serials.hash) for part in (*others, parts[0]) if part.serials is not None)
    issued = int(crl.last_update_utc.timestamp())
    until = 0 if gone else held.crl_until
    return _Compared(held.crl_issued, until, issued, serials != held.revoked, None if gone else held.pending)


def _statement(
    document: dict[str, object], held: StatementState, state: VerifierState, *, gone: bool = False
) -> _Compared:
    number = strict.integer_field(document, "tcbEvaluationDataNumber", "collateral", low=0, high=2**32 - 1)
    issued = _unix(strict.text_field(document, "issueDate", "collateral", limit=20))
    ended = gone or held.number < state.policy.floor
    return _Compared(held.issued, 0 if ended else held.until, issued, urgent=number > held.number)


def _unix(text: str) -> int:
    try:
        moment = datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ")
    except ValueError as error:
        raise strict.Malformed(f"collateral: {text!r} is no time in Intel's form") from error
    return int(moment.replace(tzinfo=datetime.UTC).timestamp())
