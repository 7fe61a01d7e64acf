"""Opening a request: everything that is checked before its seal is broken, and that it is broken once."""

from __future__ import annotations

from protocol.errors import Code, Malformed, PeerFault, VoucherFault, WireError
from protocol.opening import Opening
from protocol.sealing import SealedRequest
from worker.enclave.answer import Refused
from worker.enclave.books import Books
from worker.enclave.keys import Keys
from worker.messages import Introduce, Post


def open_request(keys: Keys, books: Books, node: Introduce, post: Post, now: int) -> tuple[SealedRequest, Opening]:
    """The request and what was sealed in it. Raises Refused; no promise was touched then."""
    try:
        request = SealedRequest.from_bytes(post.sealed)
    except Malformed as error:
        raise Refused(WireError.of(Code.BAD_REQUEST, error.cause)) from error
    if request.request_id != post.request_id or request.node != node.node:
        raise Refused(WireError.of(Code.NOT_OPENED, "it is addressed to another node"))
    if request.voucher.key != keys.public:
        raise Refused(WireError.of(Code.SEALING_KEY_UNKNOWN, "the voucher is for another enclave key"))
    try:
        request.check_authority(node.network, post.voucher_key, node=node.node, signing_key=keys.public)
    except VoucherFault as error:
        raise Refused(WireError.of(Code.VOUCHER_INVALID, error.cause)) from error
    if (refused := books.authority(request, post.voucher_key)) is not None:
        raise Refused(refused)
    pair = keys.sealing.find(request.sealing_key_hash, now)
    if pair is None:
        raise Refused(WireError.of(Code.SEALING_KEY_UNKNOWN))
    if keys.sealing.opened(pair.hash, request.request_id):
        raise Refused(WireError.of(Code.ALREADY_OPENED))
    # Marked whatever comes of it: a refusal under seal tells the client that this id will never be run.
    keys.sealing.mark_opened(pair.hash, request.request_id)
    try:
        return request, pair.open(request)
    except VoucherFault as error:
        raise Refused(WireError.of(Code.VOUCHER_INVALID, error.cause)) from error
    except PeerFault as error:
        raise Refused(WireError.of(Code.NOT_OPENED, error.cause)) from error
