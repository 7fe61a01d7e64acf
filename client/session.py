"""One request from promise to receipt: reserve, seal, persist, post, open, check, acknowledge.

Between two awaits nothing else runs, so reading an account, moving it on and storing it is one step however many
requests are in flight.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from client.answer import Lines
from client.body import Body
from client.delivery import Delivery
from client.errors import AnswerFailed, AnswerLost, NodeFault, NodeRefused, TooLittleAllotted
from client.events import Done, Event, Receipted
from client.records import AccountOf, Request
from client.relayer_link import RelayerLink
from client.store import Store
from client.trust import TrustedNode
from protocol.account import ClientAccount, Promise
from protocol.commitments import inner_salt, request_commitment
from protocol.errors import Code, Equivocation, NotAuthentic, OurFault, ReceiptFault
from protocol.frames import Refusal
from protocol.offer import ModelOffer
from protocol.opening import Opening, Shape
from protocol.receipts import IssuedReceipt
from protocol.sealing import seal
from protocol.stream import Completed, Refused
from wrappers.rows import Row

MAX_TICKETS = 4
"""Request ids that one call may use up: a refused one is burnt, and asking again takes a fresh one."""
_ASK_AGAIN = {Code.BEHIND: 0.0, Code.CAP_TOO_LOW: 0.0, Code.NODE_BUSY: 1.0, Code.RATE_LIMITED: 1.0}
"""Refusals after which the same request may pass, and the wait before it in seconds."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes and what pays for it. `row`: the escrow's row for the node, as agreed on by the quorum."""

    node: TrustedNode
    model: ModelOffer
    escrow: bytes
    row: Row


class Session:
    """Requests of one client through one relayer.

    `abandoned` is told of a request whose caller went away: its receipt is still to be fetched.
    """

    def __init__(
        self,
        store: Store,
        link: RelayerLink,
        *,
        keep_texts: bool = False,
        abandoned: Callable[[Request], None] = lambda request: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._link = link
        self._keep_texts = keep_texts
        self._abandoned = abandoned
        self._clock = clock
        self._running: set[bytes] = set()

    def running(self, request_id: bytes) -> bool:
        """Whether this process reads its answer now: it must not be posted a second time meanwhile."""
        return request_id in self._running

    async def run(
        self, target: Target, body: Body, voucher_key: Ed25519PrivateKey, shape: Shape
    ) -> AsyncGenerator[Event, None]:
        """Text as it comes, then the checked receipt, then Done. Raises ClientErrors; text that came before one is the
        enclave's, but incomplete."""
        refused: NodeRefused | None = None
        for _ in range(MAX_TICKETS):
            request = self.reserve(target, body, voucher_key, shape)
            lines = Lines()
            delivery = Delivery(self._link, self._store, request)
            self._running.add(request.request_id)
            try:
                async with aclosing(delivery.parts()) as parts:
                    async for part in parts:
                        if isinstance(part, bytes):
                            for text in lines.feed(part):
                                yield text
                            continue
                        if isinstance(part, Completed):
                            receipted = self.complete(request, part, delivery.answer)
                            yield receipted
                            self._check_answer(lines, receipted)
                            yield Done(receipted, delivery.attempts)
                            return
                        refused = self.refuse(request, part)
            except (GeneratorExit, asyncio.CancelledError):
                self._abandoned(request)
                raise
            finally:
                self._running.discard(request.request_id)
            if refused is None or Code(refused.code) not in _ASK_AGAIN:
                break
            await asyncio.sleep(_ASK_AGAIN[Code(refused.code)])
        raise refused or AnswerLost("the answer has no end", "ask again", request.request_id)

    async def collect(self, request: Request) -> Receipted | None:
        """Post a stored request again and take its receipt; None where the enclave says that it never ran.

        Raises as `run` does while it cannot be had.
        """
        delivery = Delivery(self._link, self._store, request)
        self._running.add(request.request_id)
        try:
            async with aclosing(delivery.parts()) as parts:
                async for part in parts:
                    if isinstance(part, Completed):
                        return self.complete(request, part, delivery.answer)
                    if isinstance(part, Refused):
                        self.refuse(request, part)
                        return None
        finally:
            self._running.discard(request.request_id)
        raise AnswerLost("the answer has no end", "ask again", request.request_id)

    # ---- one step each: nothing awaits inside

    def reserve(self, target: Target, body: Body, voucher_key: Ed25519PrivateKey, shape: Shape) -> Request:
        """Promise, voucher, seal; on disk when it returns. Raises BadRequest, TooLittleAllotted."""
        node, row, terms = target.node, target.row, target.model.terms
        of = AccountOf(row.allotment, node.signing_key, target.escrow, row.epoch, node.account, node.epoch)
        data, maximum_nano = body.priced(target.model.name, target.model.context_tokens, terms)
        account = self._store.account(of.allotment, of.key) or ClientAccount(of.allotment, node.node_id, of.key)
        secret, request_id = secrets.token_bytes(32), secrets.token_bytes(32)
        promise = Promise(
            request_id,
            maximum_nano,
            terms,
            inner_salt(secret),
            request_commitment(secret, request_id, data),
            node.sealing_key.expires_at,
        )
        try:
            account = account.expire(int(self._clock())).promise(promise)
        except OurFault as error:
            raise TooLittleAllotted(error.cause, error.cure) from error
        self._check_room(target, account)
        sealed = seal(
            Opening(secret, maximum_nano, account.seq, terms, body.endpoint, data, shape),
            request_id=request_id,
            escrow=target.escrow,
            allotment_epoch=row.epoch,
            node=node.account,
            sealing_key=node.sealing_key.public_key,
            voucher=account.voucher(terms.hash),
            voucher_key=voucher_key,
        )
        request = Request(
            request_id=request_id,
            allotment=of.allotment,
            key=of.key,
            sealed=sealed.to_bytes(),
            secret=secret,
            body=data if self._keep_texts else None,
            model=target.model.name,
            tier=int(node.verdict.tier),
            simulated=node.simulated,
            expires_at=node.sealing_key.expires_at,
        )
        self._store.promise(of, account, request)
        return request

    def _check_room(self, target: Target, account: ClientAccount) -> None:
        """Never sign for more than is allotted: what other keys of this node were paid or are owed comes first."""
        row = target.row
        owed = {key: known.paid_nano for key, known in row.keys.items() if key != account.key}
        for of, other in self._store.accounts(row.allotment):
            if of.key != account.key:
                owed[of.key] = max(owed.get(of.key, 0), other.acked_nano)
        room = row.allotted_nano - sum(owed.values())
        if account.cap_nano > room:
            missing = account.cap_nano - room
            raise TooLittleAllotted(
                f"the request may cost up to {account.promises[-1].maximum_nano} nanoTON, and {missing} nanoTON of "
                f"that are not allotted to node {target.node.account.hex()}",
                f"run `cocoon client allot {target.node.account.hex()} AMOUNT`, or ask for fewer tokens",
                missing,
            )

    def complete(self, request: Request, completed: Completed, answer: bytes) -> Receipted:
        """Check the receipt against everything that is known, and store it. Raises NodeFault, AnswerLost."""
        of, before = self._account(request)
        issued = IssuedReceipt(request.request_id, completed.signed, completed.inner)
        promise = next((one for one in before.promises if one.request_id == request.request_id), None)
        try:
            if promise is not None:
                after = before.receive(issued, completed.response)
            elif completed.inner.response != completed.response:
                raise ReceiptFault("the receipt commits to another answer than was received")
            if promise is not None and promise.receipt is None:
                self._store.settle(of, before, after, [issued], answered=request.request_id, answer=answer)
            elif not self._store.mark_answered(issued.signed.receipt.hash, answer):
                # It came in a list of missed receipts before, when there was no answer to compare it with.
                raise ReceiptFault("the node signed two receipts for one request")
        except ReceiptFault as error:
            raise self._fault(of, error) from error
        except NotAuthentic as error:
            raise AnswerLost(error.cause, error.cure, request.request_id) from error
        return Receipted(issued, of.node, request.model, request.tier, request.simulated)

    def refuse(self, request: Request, refused: Refused) -> NodeRefused:
        """Take the enclave's sealed no, and the receipts that came with it. Raises NodeFault, AnswerLost."""
        of, before = self._account(request)
        refusal: Refusal = refused.refusal
        error = refusal.error
        ran = error.code is Code.ALREADY_OPENED
        try:
            after = before.refused(request.request_id, refusal)
        except ReceiptFault as fault:
            raise self._fault(of, fault) from fault
        except NotAuthentic as fault:
            raise AnswerLost(fault.cause, fault.cure, request.request_id) from fault
        self._store.settle(of, before, after, refusal.missed, dropped=None if ran else request.request_id)
        if ran:
            raise AnswerLost(error.cause, error.cure, request.request_id)
        return NodeRefused(error.code, error.cause, error.cure)

    def _account(self, request: Request) -> tuple[AccountOf, ClientAccount]:
        of = self._store.account_of(request.allotment, request.key)
        account = self._store.account(request.allotment, request.key)
        if of is None or account is None:
            raise AnswerLost("its account is not in the books", "restore the client's folder", request.request_id)
        return of, account

    def _fault(self, of: AccountOf, error: ReceiptFault) -> NodeFault:
        pair = (error.first, error.second) if isinstance(error, Equivocation) else (None, None)
        self._store.put_fault(of.node, of.key, error.cause, *pair)
        return NodeFault(f"node {of.node.hex()}: {error.cause}", error.cure)

    @staticmethod
    def _check_answer(lines: Lines, receipted: Receipted) -> None:
        if lines.error is not None:
            raise AnswerFailed(
                lines.error.message,
                invalid=lines.error.invalid,
                receipt=receipted.hash,
                amount_nano=receipted.amount_nano,
            )
        lines.close()
