"""The client's account as it is stored between runs: fixed binary, so that nothing is forgotten or guessed.

version u8 | allotment | node | key | seq u32 | previous | acked u64 | count u16 | promises; a promise is
request id | maximum u64 | terms | salt | request | expires_at u32 | standing u8 | issued receipt if held.
"""

from __future__ import annotations

from protocol.account import ClientAccount, Promise, Standing
from protocol.codec import Reader, fixed, uint
from protocol.errors import Malformed, Peer
from protocol.receipts import IssuedReceipt
from protocol.terms import read_terms, terms_to_bytes

_VERSION = 1
_STANDINGS = {Standing.PROMISED: 1, Standing.EXPIRED: 2, Standing.HELD: 3}
_FROM = {number: standing for standing, number in _STANDINGS.items()}


def account_to_bytes(account: ClientAccount) -> bytes:
    return b"".join(
        (
            bytes((_VERSION,)),
            fixed(account.allotment, 32, "the allotment id"),
            fixed(account.node, 32, "the node id"),
            fixed(account.key, 32, "the enclave key"),
            uint(account.seq, 32, "the seq"),
            fixed(account.previous, 32, "the last receipt's hash"),
            uint(account.acked_nano, 64, "the acked amount"),
            uint(len(account.promises), 16, "the number of promises"),
            *(_promise_to_bytes(promise) for promise in account.promises),
        )
    )


def account_from_bytes(data: bytes) -> ClientAccount:
    """Raises Malformed on anything that `account_to_bytes` would not have made: better no account than a wrong cap."""
    s = Reader(data, "the stored account")
    if s.uint(8) != _VERSION:
        raise Malformed("the stored account has an unknown version", Peer.CLIENT)
    allotment, node, key, seq, previous, acked = (
        s.take(32),
        s.take(32),
        s.take(32),
        s.uint(32),
        s.take(32),
        s.uint(64),
    )
    promises = tuple(_read_promise(s) for _ in range(s.uint(16)))
    s.end()
    return ClientAccount(allotment, node, key, seq, previous, acked, promises)


def _promise_to_bytes(promise: Promise) -> bytes:
    return b"".join(
        (
            fixed(promise.request_id, 32, "the request id"),
            uint(promise.maximum_nano, 64, "the maximum"),
            terms_to_bytes(promise.terms),
            fixed(promise.salt, 32, "the salt"),
            fixed(promise.request, 32, "the request commitment"),
            uint(promise.expires_at, 32, "the sealing key's end"),
            bytes((_STANDINGS[promise.standing],)),
            b"" if promise.receipt is None else promise.receipt.to_bytes(),
        )
    )


def _read_promise(s: Reader) -> Promise:
    request_id, maximum, terms = s.take(32), s.uint(64), read_terms(s)
    salt, request, expires_at, standing = s.take(32), s.take(32), s.uint(32), _FROM.get(s.uint(8))
    if standing is None:
        raise Malformed("a stored promise has an unknown standing", Peer.CLIENT)
    receipt = IssuedReceipt.from_bytes(s.take(IssuedReceipt.SIZE)) if standing is Standing.HELD else None
    return Promise(request_id, maximum, terms, salt, request, expires_at, standing, receipt)
