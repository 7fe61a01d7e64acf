"""Bodies of the link's JSON messages that more than one party reads or writes; `protocol.link` is their envelope.

`from_json` takes what the other side sent and raises BadMessage; keys that it does not know are ignored.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.link import (
    DEFAULT_MESSAGE_BYTES,
    MAX_RECEIPTS,
    MIN_MESSAGE_BYTES,
    VERSION,
    BadMessage,
    Reason,
    link_challenge,
    number,
    octets,
    release_request,
    signed_by,
)

MAX_SOFTWARE_CHARACTERS = 80
MAX_IN_FLIGHT = 10_000


def _check_version(body: Mapping[str, Any]) -> None:
    if body.get("version") != VERSION or isinstance(body["version"], bool):
        raise BadMessage(f"the other side speaks version {body.get('version')!r} of the link, this one {VERSION}")


@dataclass(frozen=True, slots=True)
class Challenge:
    """CHALLENGE, the first message of a connection. `nonce` is 32 random bytes, good for this connection only."""

    network: bytes
    nonce: bytes
    issued_at: int
    relayer: str
    """The relayer's name, for people."""

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "nonce": self.nonce.hex(),
            "issued_at": self.issued_at,
            "network_id": self.network.hex(),
            "relayer": self.relayer,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        _check_version(body)
        return cls(
            octets(body, "network_id"), octets(body, "nonce"), number(body, "issued_at", 63), str(body.get("relayer"))
        )

    def signed_bytes(self, node: bytes, origin: str) -> bytes:
        """What the node's release key signs to answer it, at the relayer of this origin."""
        return link_challenge(
            network=self.network, node=node, nonce=self.nonce, issued_at=self.issued_at, origin=origin
        )


@dataclass(frozen=True, slots=True)
class Hello:
    """HELLO, the answer to the challenge. `signature`: over `Challenge.signed_bytes`, by the node's release key."""

    node: bytes
    signature: bytes
    max_in_flight: int
    software: str
    offer: dict[str, Any] | None = field(repr=False)
    """`NodeOffer` as JSON; None while there is none."""
    max_message_bytes: int = DEFAULT_MESSAGE_BYTES
    """The longest message that the agent takes: longer requests are refused with `too-large` instead of sent."""

    def to_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "node": self.node.hex(),
            "signature": self.signature.hex(),
            "max_in_flight": self.max_in_flight,
            "software": self.software,
            "offer": self.offer,
            "max_message_bytes": self.max_message_bytes,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        _check_version(body)
        most, longest = number(body, "max_in_flight", 32), DEFAULT_MESSAGE_BYTES
        if not 1 <= most <= MAX_IN_FLIGHT:
            raise BadMessage(f"max_in_flight is not within 1 to {MAX_IN_FLIGHT}")
        software, offer = body.get("software"), body.get("offer")
        if not isinstance(software, str) or len(software) > MAX_SOFTWARE_CHARACTERS or not software.isprintable():
            raise BadMessage(f"software is not a text of at most {MAX_SOFTWARE_CHARACTERS} printable characters")
        if offer is not None and not isinstance(offer, dict):
            raise BadMessage("offer is neither an object nor null")
        if "max_message_bytes" in body:
            longest = number(body, "max_message_bytes", 63)
        if longest < MIN_MESSAGE_BYTES:
            raise BadMessage(f"max_message_bytes is below {MIN_MESSAGE_BYTES}")
        return cls(octets(body, "node"), octets(body, "signature", 64), most, software, offer, longest)


@dataclass(frozen=True, slots=True)
class OfferAnswer:
    """OFFER_ANSWER: whether the relayer lists the node; `error` says why not, None when it does."""

    key: bytes
    """The enclave key of the offer that was judged; empty when the offer could not be read."""
    error: Reason | None

    def to_json(self) -> dict[str, Any]:
        error = None if self.error is None else self.error.to_json()
        return {"accepted": self.error is None, "key": self.key.hex(), "error": error}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        key = b"" if body.get("key") == "" else octets(body, "key")
        if body.get("accepted") is True:
            return cls(key, None)
        error = Reason.from_json(body.get("error"))
        if error is None:
            raise BadMessage("an offer is not accepted, and no error says why")
        return cls(key, error)


@dataclass(frozen=True, slots=True)
class OutgoingClaim:
    """CLAIM: a signed batch claim, ready to broadcast. What it covers is told for bookkeeping; its bytes decide."""

    message: bytes
    """The whole external message as a bag of cells."""
    seqno: int
    valid_until: int
    entries: tuple[tuple[bytes, int, int], ...]
    """(escrow, cumulative_nano, seq) of each."""

    def to_json(self) -> dict[str, Any]:
        return {
            "message": base64.b64encode(self.message).decode(),
            "seqno": self.seqno,
            "valid_until": self.valid_until,
            "entries": [
                {"escrow": escrow.hex(), "cumulative_nano": cumulative, "seq": seq}
                for escrow, cumulative, seq in self.entries
            ],
        }


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """A client's wish to have its row at a node lowered to `allotted_nano`, signed with the escrow's voucher key."""

    escrow: bytes
    node: bytes
    allotment: bytes
    row_seqno: int
    allotted_nano: int
    expires_at: int
    signature: bytes

    @classmethod
    def sign(
        cls,
        key: Ed25519PrivateKey,
        *,
        network: bytes,
        escrow: bytes,
        node: bytes,
        allotment: bytes,
        row_seqno: int,
        allotted_nano: int,
        expires_at: int,
    ) -> Self:
        unsigned = cls(escrow, node, allotment, row_seqno, allotted_nano, expires_at, b"")
        signature = key.sign(unsigned.signed_bytes(network))
        return cls(escrow, node, allotment, row_seqno, allotted_nano, expires_at, signature)

    def signed_bytes(self, network: bytes) -> bytes:
        return release_request(
            network=network,
            escrow=self.escrow,
            node=self.node,
            allotment=self.allotment,
            row_seqno=self.row_seqno,
            allotted_nano=self.allotted_nano,
            expires_at=self.expires_at,
        )

    def signed_by(self, voucher_key: bytes, network: bytes) -> bool:
        return signed_by(voucher_key, self.signature, self.signed_bytes(network))

    def to_json(self) -> dict[str, Any]:
        return {
            "escrow": self.escrow.hex(),
            "node": self.node.hex(),
            "allotment": self.allotment.hex(),
            "row_seqno": self.row_seqno,
            "allotted_nano": self.allotted_nano,
            "expires_at": self.expires_at,
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, raw: object) -> Self:
        if not isinstance(raw, dict):
            raise BadMessage("a release request is not a JSON object")
        return cls(
            octets(raw, "escrow"),
            octets(raw, "node"),
            octets(raw, "allotment"),
            number(raw, "row_seqno", 32),
            number(raw, "allotted_nano", 63),
            number(raw, "expires_at", 63),
            octets(raw, "signature", 64),
        )


@dataclass(frozen=True, slots=True)
class ReleaseAnswer:
    """RELEASE, and the answer to POST /v1/release. `signature`: over `wrappers.signed.Release`, by the release key."""

    allotment: bytes
    row_seqno: int
    allotted_nano: int
    signature: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "allotment": self.allotment.hex(),
            "row_seqno": self.row_seqno,
            "allotted_nano": self.allotted_nano,
            "signature": self.signature.hex(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        return cls(
            octets(body, "allotment"),
            number(body, "row_seqno", 32),
            number(body, "allotted_nano", 63),
            octets(body, "signature", 64),
        )


@dataclass(frozen=True, slots=True)
class ReceiptsQuery:
    """ASK_RECEIPTS: receipts of one (allotment, enclave key) after a seq, at most `limit`, ascending."""

    allotment: bytes
    key: bytes
    after_seq: int
    limit: int

    def to_json(self) -> dict[str, Any]:
        return {
            "allotment": self.allotment.hex(),
            "key": self.key.hex(),
            "after_seq": self.after_seq,
            "limit": self.limit,
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        limit = min(number(body, "limit", 32), MAX_RECEIPTS)
        return cls(octets(body, "allotment"), octets(body, "key"), number(body, "after_seq", 63), limit)


@dataclass(frozen=True, slots=True)
class ReceiptFrame:
    """One receipt in RECEIPTS; `payload` is the RECEIPT frame without its header (`SignedReceipt.to_bytes`)."""

    escrow: bytes
    allotment_epoch: int
    key: bytes
    payload: bytes

    def to_json(self) -> dict[str, Any]:
        return {
            "escrow": self.escrow.hex(),
            "allotment_epoch": self.allotment_epoch,
            "key": self.key.hex(),
            "frame": base64.b64encode(self.payload).decode(),
        }

    @classmethod
    def from_json(cls, raw: object) -> Self:
        if not isinstance(raw, dict):
            raise BadMessage("a receipt is not a JSON object")
        frame = raw.get("frame")
        try:
            payload = base64.b64decode(frame, validate=True) if isinstance(frame, str) else b""
        except (binascii.Error, ValueError):
            payload = b""
        if not payload:
            raise BadMessage("a receipt's frame is not base64")
        return cls(octets(raw, "escrow"), number(raw, "allotment_epoch", 64), octets(raw, "key"), payload)


def receipts_of(body: Mapping[str, Any]) -> tuple[ReceiptFrame, ...]:
    """The receipts in RECEIPTS. Raises BadMessage."""
    raw = body.get("receipts")
    if not isinstance(raw, list) or len(raw) > MAX_RECEIPTS:
        raise BadMessage(f"receipts is not a list of at most {MAX_RECEIPTS}")
    return tuple(ReceiptFrame.from_json(one) for one in raw)
