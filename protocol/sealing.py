"""The sealed request: what a client sends through a relayer that it does not trust.

HPKE (RFC 9180) in base mode with ML-KEM-768 + X25519, HKDF-SHA256 and AES-256-GCM. The header is in clear so that a
relayer can check the voucher; HPKE's `info` is the header without its signatures, so a changed header refuses to
open. Base mode does not say who sealed, and a voucher names no request: without the client's signature over the
whole (`request_signature`) a relayer could put its own prompt under somebody else's voucher.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Self

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from protocol.codec import Reader, fixed, uint
from protocol.errors import Malformed, NotAuthentic, OurFault, Peer, VoucherFault
from protocol.opening import MAX_OPENING_BYTES, Opening
from wrappers.receipts import Voucher
from wrappers.signed import allotment_id, sign, verify

_MLKEM_BYTES = 1184
_X25519_BYTES = 32
PUBLIC_KEY_BYTES = _MLKEM_BYTES + _X25519_BYTES
ENC_BYTES = 1120
_TAG_BYTES = 16
WRAP_OVERHEAD = ENC_BYTES + _TAG_BYTES
_SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)

_MAGIC = b"CSR1"
_INFO = b"cocoon.seal.v1|"
_REQUEST = b"cocoon.request.v1|"
HEADER_BYTES = 252 + 2 * 64
"""What a relayer needs: parse these with `SealedRequest.from_bytes`, the rest is ciphertext."""
MAX_SEALED_BYTES = HEADER_BYTES + ENC_BYTES + MAX_OPENING_BYTES + _TAG_BYTES


def _public(public_key: bytes) -> hpke.MLKEM768X25519PublicKey:
    if len(public_key) != PUBLIC_KEY_BYTES:
        raise Malformed(f"a sealing key has {PUBLIC_KEY_BYTES} bytes, not {len(public_key)}", Peer.NODE)
    try:
        return hpke.MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public_key[:_MLKEM_BYTES]),
            X25519PublicKey.from_public_bytes(public_key[_MLKEM_BYTES:]),
        )
    except ValueError as error:
        raise Malformed("the sealing key is not an ML-KEM-768 + X25519 key", Peer.NODE) from error


def public_key_hash(public_key: bytes) -> bytes:
    """SHA-256 of the 1,216 bytes ML-KEM-768 | X25519: what the SealingKey announcement and requests name."""
    return hashlib.sha256(public_key).digest()


def wrap(secret: bytes, public_key: bytes, info: bytes) -> bytes:
    """A short secret sealed to a sealing key (1,216 bytes): WRAP_OVERHEAD longer. Raises Malformed for a bad key."""
    try:
        return _SUITE.encrypt(secret, _public(public_key), info=info)
    except ValueError as error:  # an X25519 point of low order
        raise Malformed("the sealing key is not usable", Peer.NODE) from error


class SealingKeyPair:
    """A short-lived key that requests are sealed to. It has no export: it dies with the object (at most 24 h)."""

    __slots__ = ("_private", "hash", "public_key")

    def __init__(self, mlkem: MLKEM768PrivateKey, x25519: X25519PrivateKey) -> None:
        self._private = hpke.MLKEM768X25519PrivateKey(mlkem, x25519)
        self.public_key = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.hash = public_key_hash(self.public_key)

    @classmethod
    def generate(cls) -> Self:
        return cls(MLKEM768PrivateKey.generate(), X25519PrivateKey.generate())

    def __repr__(self) -> str:
        return f"SealingKeyPair({self.hash.hex()})"

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """What `wrap` sealed to this key under exactly this `info`. Raises NotAuthentic."""
        try:
            return _SUITE.decrypt(wrapped, self._private, info=info)
        except (InvalidTag, ValueError) as error:
            raise NotAuthentic(Peer.PATH, "the wrapped key does not open", "wrap it for this node and job") from error

    def open(self, request: SealedRequest) -> Opening:
        """Open a request: once per request id, or one request is answered and billed twice (the caller's duty).

        Call `request.check_authority` first. Raises NotAuthentic when it was not sealed to this key under exactly this
        header, Malformed when its content breaks the layout, VoucherFault when the opened terms are not the voucher's.
        """
        if request.sealing_key_hash != self.hash:
            raise NotAuthentic(Peer.CLIENT, "the request is sealed to another key", "fetch the node's offer again")
        try:
            plaintext = _SUITE.decrypt(request.ciphertext, self._private, info=request.info())
        except (InvalidTag, ValueError) as error:
            raise NotAuthentic(
                Peer.PATH, "the sealed request does not open", "seal it for this node, escrow, voucher and request id"
            ) from error
        opening = Opening.from_bytes(plaintext)
        if opening.terms.hash != request.voucher.terms:
            raise VoucherFault(
                Peer.CLIENT,
                "the opened terms are not those of the voucher",
                "sign a voucher for the terms that you seal",
            )
        return opening


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """The clear header and the sealed rest. All ids have 32 bytes; `node` is the node's account, not its node id."""

    request_id: bytes
    escrow: bytes
    allotment_epoch: int
    node: bytes
    sealing_key_hash: bytes
    voucher: Voucher
    voucher_signature: bytes
    request_signature: bytes
    """By the voucher key, over header and ciphertext. Never leaves the off-chain world, so it is no cell."""
    ciphertext: bytes = field(repr=False)

    @property
    def enc(self) -> bytes:
        """HPKE's encapsulation (1,120 bytes): fresh in every request, it salts the response keys."""
        return self.ciphertext[:ENC_BYTES]

    def _unsigned(self) -> bytes:
        v = self.voucher
        return b"".join(
            (
                _MAGIC,
                fixed(self.request_id, 32, "the request id"),
                fixed(self.escrow, 32, "the escrow"),
                uint(self.allotment_epoch, 64, "the allotment epoch"),
                fixed(self.node, 32, "the node"),
                fixed(self.sealing_key_hash, 32, "the sealing key hash"),
                fixed(v.allotment, 32, "the allotment id"),
                fixed(v.key, 32, "the enclave key"),
                uint(v.cap_nano, 64, "the cap"),
                uint(v.acked_nano, 64, "the acked amount"),
                fixed(v.terms, 32, "the terms hash"),
            )
        )

    def info(self) -> bytes:
        """HPKE `info`: every header field but the signatures, in wire order."""
        return _INFO + self._unsigned()

    def signed_bytes(self) -> bytes:
        """What `request_signature` is over. Longer than a cell hash: neither it nor a voucher passes for the other."""
        head = hashlib.sha256(self._unsigned() + self.voucher_signature).digest()
        return _REQUEST + head + hashlib.sha256(self.ciphertext).digest()

    def to_bytes(self) -> bytes:
        signatures = fixed(self.voucher_signature, 64, "the voucher's signature") + fixed(
            self.request_signature, 64, "the request's signature"
        )
        return self._unsigned() + signatures + self.ciphertext

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Raises Malformed unless `data` is exactly one sealed request within the size limits."""
        if not HEADER_BYTES + ENC_BYTES + _TAG_BYTES <= len(data) <= MAX_SEALED_BYTES:
            raise Malformed(f"a sealed request cannot have {len(data)} bytes")
        s = Reader(data, "a sealed request")
        if s.take(4) != _MAGIC:
            raise Malformed("not a sealed request of this version")
        request_id, escrow, epoch, node, sealing = s.take(32), s.take(32), s.uint(64), s.take(32), s.take(32)
        voucher = Voucher(s.take(32), s.take(32), s.uint(64), s.uint(64), s.take(32))
        return cls(request_id, escrow, epoch, node, sealing, voucher, s.take(64), s.take(64), s.take(s.left))

    def check_voucher(self, network: bytes, voucher_key: bytes) -> None:
        """The relayer's check: the escrow's voucher key signed this voucher, for this allotment. Raises VoucherFault.

        `network` is the network id, `voucher_key` the escrow's 32-byte key as the chain shows it. Whether the allotment
        covers the cap is the caller's to compare with the chain.
        """
        if self.voucher.allotment != allotment_id(network, self.escrow, self.allotment_epoch, self.node):
            raise VoucherFault(
                Peer.PATH, "the voucher is not for this allotment", "refresh the allotment from the chain and sign anew"
            )
        if self.voucher.acked_nano > self.voucher.cap_nano:
            raise VoucherFault(Peer.CLIENT, "the voucher accepts more than its cap", "sign what the rules give")
        if not verify(self.voucher, self.voucher_signature, voucher_key):
            raise VoucherFault(
                Peer.PATH, "the voucher's signature does not hold", "sign it with the escrow's voucher key"
            )

    def check_authority(self, network: bytes, voucher_key: bytes, *, node: bytes, signing_key: bytes) -> None:
        """The enclave's: `check_voucher`; that all is for this `node` (account) and enclave `signing_key`; and that
        the client signed this very request. Raises VoucherFault.
        """
        if (self.node, self.voucher.key) != (node, signing_key):
            raise VoucherFault(
                Peer.PATH, "the request is for another node or enclave key", "fetch the offer again and seal anew"
            )
        self.check_voucher(network, voucher_key)
        try:
            Ed25519PublicKey.from_public_bytes(voucher_key).verify(self.request_signature, self.signed_bytes())
        except (InvalidSignature, ValueError) as error:
            raise VoucherFault(
                Peer.PATH, "the request's signature does not hold", "send the request as the client sealed it"
            ) from error


def seal(
    opening: Opening,
    *,
    request_id: bytes,
    escrow: bytes,
    allotment_epoch: int,
    node: bytes,
    sealing_key: bytes,
    voucher: Voucher,
    voucher_key: Ed25519PrivateKey,
) -> SealedRequest:
    """Seal and sign one request.

    `sealing_key` are the 1,216 public bytes whose announcement the caller verified; `request_id` 32 random bytes, never
    used before. Raises OurFault when voucher and opening do not belong together, Malformed for a bad sealing key.
    """
    if opening.terms.hash != voucher.terms:
        raise OurFault("the voucher names other terms than the request", "sign a voucher for the terms that you seal")
    if opening.maximum_nano > voucher.cap_nano - voucher.acked_nano:
        raise OurFault("the voucher's cap does not cover the request", "promise the request before you seal it")
    public = _public(sealing_key)
    bare = SealedRequest(
        request_id, escrow, allotment_epoch, node, public_key_hash(sealing_key), voucher, bytes(64), bytes(64), b""
    )
    try:
        ciphertext = _SUITE.encrypt(opening.to_bytes(), public, info=bare.info())
    except ValueError as error:  # an X25519 point of low order
        raise Malformed("the sealing key is not usable", Peer.NODE) from error
    unsigned = SealedRequest(
        request_id,
        escrow,
        allotment_epoch,
        node,
        bare.sealing_key_hash,
        voucher,
        sign(voucher, voucher_key),
        bytes(64),
        ciphertext,
    )
    return SealedRequest(
        request_id,
        escrow,
        allotment_epoch,
        node,
        bare.sealing_key_hash,
        voucher,
        unsigned.voucher_signature,
        voucher_key.sign(unsigned.signed_bytes()),
        ciphertext,
    )
