"""The client's money on chain: open, allot, raise, top up, withdraw, close. All of it is the wallet owner's alone.

Closing asks every node for its release first; where one does not give it, its row ends with its close timer. Nobody's
consent is needed for either.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from pytoniq_core import Cell

from chain.api import ChainError
from chain.outgoing import Outgoing
from client.chain_view import ChainView
from client.errors import NoEscrow, PaymentFailed, RelayerRefused, RelayerUnreachable
from client.home import Home
from client.payments import MARGIN_NANO, Paid, Payments, fees
from client.records import Escrow
from client.relayer_link import RelayerLink
from client.store import Store
from client.trust import NetworkFacts, TrustedNode
from protocol.link_messages import ReleaseRequest
from wrappers import escrow as messages
from wrappers import escrow_rare as rare
from wrappers import registry as births
from wrappers.addresses import Kind, child_address
from wrappers.code import Contract, code_hash
from wrappers.escrow import CloseRelease, EscrowConfig, EscrowState, FirstAllotment
from wrappers.fees import Fees
from wrappers.rows import ENDED, Fee, Row, RowTerms, Shares
from wrappers.signed import Release, verify

RELEASE_SECONDS = 300
RELEASE_RETRY_SECONDS = 2.0
_NOT_YET = frozenset({"unclaimed", "in-flight", "claim-in-flight", "node-busy", "rate-limited", "chain-uncertain"})
"""A node's answers to a release that a little patience changes."""
Progress = Callable[[str], None]
Choose = Callable[[Escrow, EscrowState, Fees], tuple[Cell, int]]


def _terms(node: TrustedNode, close_timer: int, fee: Fee | None) -> RowTerms:
    """A row without shares but the one that the network itself takes."""
    return RowTerms(node.release_key, close_timer, None if fee is None else Shares(fee=fee))


@dataclass(frozen=True, slots=True)
class Closed:
    """How a close went. Amounts nanoTON, times unix seconds."""

    escrow: bytes
    ended: bool
    """Whether the account is gone and everything is back in the wallet."""
    refunded_nano: int
    """What came back with this step."""
    waiting: dict[bytes, int]
    """Rows whose close timers run, by node: `finish` frees them at that time."""
    refusals: dict[bytes, str]
    """Why a node gave no release."""
    paid: Paid


class Money:
    """Raises NoEscrow, PaymentFailed, Uncertain, Untrusted. One operation at a time."""

    def __init__(
        self, home: Home, store: Store, view: ChainView, payments: Payments, link: RelayerLink, network: NetworkFacts
    ) -> None:
        self._home = home
        self._store = store
        self._view = view
        self._payments = payments
        self._link = link
        self._network = network
        self._one_at_a_time = asyncio.Lock()

    async def escrow(self) -> tuple[Escrow, EscrowState]:
        """The one in use, as the chain shows it. Raises NoEscrow."""
        known = self._store.escrow()
        if known is None:
            raise NoEscrow("there is no escrow yet", "run `cocoon client open AMOUNT`")
        state = await self._view.escrow(known.account)
        if state is None:
            if known.state == "open":
                self._store.put_escrow(Escrow(known.number, known.account, known.voucher_key, "closed"))
                raise NoEscrow(f"escrow {known.account.hex()} has ended", "run `cocoon client open AMOUNT`")
            raise NoEscrow("the escrow's opening has not arrived on chain", "run `cocoon client open AMOUNT` again")
        if state.voucher_key != known.voucher_key and self._home.adopt_voucher_key(known.number, state.voucher_key):
            # Whoever sent apply_voucher_key: it is the key that this client proposed.
            known = Escrow(known.number, known.account, state.voucher_key, known.state)
            self._store.put_escrow(known)
        facts = (state.voucher_key, state.network_id, state.registry, state.owner)
        if facts != (known.voucher_key, self._network.network_id, self._network.registry, self._payments.account):
            raise NoEscrow(
                f"escrow {known.account.hex()} is not as this client opened it", "restore the client's folder"
            )
        if known.state == "opening":
            known = Escrow(known.number, known.account, known.voucher_key, "open")
            self._store.put_escrow(known)
        return known, state

    async def open(self, deposit_nano: int, first: tuple[TrustedNode, int] | None, close_timer: int | None) -> Escrow:
        """A new escrow with at least `deposit_nano`, `first` (node, amount) reserved in it. Safe to repeat."""
        async with self._one_at_a_time:
            await self._payments.finish_open()
            known = await self._opening()
            if known.state == "open":
                raise PaymentFailed(f"escrow {known.account.hex()} is open", "use it, or close it first")
            registry = await self._view.registry()
            amount = None if first is None else first[1]
            config = EscrowConfig(known.voucher_key)
            if first is not None:
                timer = close_timer or registry.parameters.min_close_timer
                terms = _terms(first[0], timer, registry.settings.fee)
                config = EscrowConfig(known.voucher_key, FirstAllotment(first[0].account, first[1], terms))
            expected = code_hash(Contract.ESCROW)
            if registry.escrow_code.hash != expected:
                raise PaymentFailed(
                    "the registry opens escrows with other code than this release knows", "update cocoon, or review it"
                )
            shared = amount is not None and registry.settings.fee is not None
            value = fees(registry.parameters).open_escrow(deposit_nano, amount, shared=shared) + MARGIN_NANO
            body = births.open_escrow(expected, known.number, config)
            await self._pay("open", Outgoing(self._network.registry, value, body))
            return await self._shown(known)

    async def _opening(self) -> Escrow:
        """The escrow to open: one that was begun before, else the next number that is free on chain."""
        known = self._store.escrow()
        number = self._store.next_number() if known is None else known.number
        while True:
            account = child_address(self._network.registry, Kind.ESCROW, self._payments.account, number)
            state = await self._view.escrow(account)
            if known is not None:
                if state is not None and known.state == "opening":
                    known = Escrow(number, account, known.voucher_key, "open")
                    self._store.put_escrow(known)
                if state is not None or known.state == "opening":
                    return known
                self._store.put_escrow(Escrow(number, account, known.voucher_key, "closed"))
                known = None
            elif state is None:
                # The key is on disk before the number is: a deposit whose key is lost serves nobody.
                key = self._home.voucher_key(number).public_key().public_bytes_raw()
                fresh = Escrow(number, account, key, "opening")
                self._store.put_escrow(fresh)
                return fresh
            number += 1

    async def _shown(self, known: Escrow) -> Escrow:
        deadline = time.monotonic() + 60
        while await self._view.escrow(known.account) is None:
            if time.monotonic() > deadline:
                raise PaymentFailed(
                    f"the chain does not show escrow {known.account.hex()} yet",
                    "look again in a minute; do not pay anew",
                )
            await asyncio.sleep(0.5)
        return (await self.escrow())[0]

    async def allot(self, node: TrustedNode, amount_nano: int, close_timer: int | None = None) -> Paid:
        """Reserve more for a node: a new row, or more in the one that is there. What the free part lacks is paid in."""
        async with self._one_at_a_time:
            known, state = await self.escrow()
            need = await self.fees()
            lacking = max(0, amount_nano - state.free_nano)
            if node.account in state.rows:
                body, value = messages.raise_allotment(node.account, amount_nano), need.raise_allotment()
            else:
                terms = _terms(node, close_timer or state.min_close_timer, state.fee)
                if terms.shares is None:
                    body, value = messages.allot(node.account, amount_nano, terms), need.allot()
                else:
                    body, value = rare.allot_shared(node.account, amount_nano, terms), need.allot_shared()
            return await self._pay("allot", Outgoing(known.account, value + lacking + MARGIN_NANO, body))

    async def top_up(self, amount_nano: int) -> Paid:
        async with self._one_at_a_time:
            known, _ = await self.escrow()
            value = amount_nano + (await self.fees()).top_up()
            return await self._pay("top up", Outgoing(known.account, value, messages.top_up()))

    async def withdraw(self, amount_nano: int = 0) -> Paid:
        """From the free part; 0 = all of it."""
        async with self._one_at_a_time:
            known, _ = await self.escrow()
            value = (await self.fees()).withdraw() + MARGIN_NANO
            return await self._pay("withdraw", Outgoing(known.account, value, messages.withdraw(amount_nano)))

    async def act(self, kind: str, choose: Choose) -> Paid:
        """One message to the escrow, chosen by what the chain shows of it: (body, what it needs)."""
        async with self._one_at_a_time:
            known, state = await self.escrow()
            body, value = choose(known, state, await self.fees())
            return await self._pay(kind, Outgoing(known.account, value + MARGIN_NANO, body))

    async def finish(self) -> Closed:
        """Drop the rows whose timers have run, and send the shares of those that ended; then a closing account ends."""
        async with self._one_at_a_time:
            known, state = await self.escrow()
            need, paid, rows = await self.fees(), None, state.rows
            now = (await self._view.head()).now
            # Where no timer has run the escrow refuses it, for gas; shares of ended rows leave all the same.
            if (state.closing and not rows) or any(ENDED < row.closing_at <= now for row in rows.values()):
                value = need.finish(len(rows)) + MARGIN_NANO
                paid = await self._pay("finish", Outgoing(known.account, value, messages.finish()))
                after = await self._view.escrow(known.account)
                rows = after.rows if after is not None else {}
            for node in (node for node, row in rows.items() if row.closing_at == ENDED):
                body = rare.pay_shares(node)
                paid = await self._pay("pay shares", Outgoing(known.account, need.pay_shares() + MARGIN_NANO, body))
            if paid is None:
                raise PaymentFailed("no row's close timer has run", "wait until its time, then finish")
            return await self._closed(known, paid, {})

    async def close(self, *, patience_seconds: float = 60.0, progress: Progress = lambda text: None) -> Closed:
        """Ask the nodes for their releases, for at most `patience_seconds`, then close: at once where all agreed."""
        async with self._one_at_a_time:
            known, state = await self.escrow()
            releases: dict[bytes, CloseRelease] = {}
            refusals: dict[bytes, str] = {}
            until = time.monotonic() + patience_seconds
            for node in state.rows:
                release = await self._release(known, node, until, progress)
                if isinstance(release, CloseRelease):
                    releases[node] = release
                else:
                    refusals[node] = release
                    progress(f"node {node.hex()[:8]} gives no release ({release}): its close timer will do")
            value = (await self.fees()).close(len(state.rows)) + MARGIN_NANO
            body = messages.close(tuple(releases.values()))
            paid = await self._pay("close", Outgoing(known.account, value, body))
            return await self._closed(known, paid, refusals)

    async def _release(self, known: Escrow, node: bytes, until: float, progress: Progress) -> CloseRelease | str:
        """The node's consent to end its row, or why there is none. A node is owed until the chain has paid it: wait."""
        key = self._home.known_voucher_key(known.number)
        said = ""
        while True:
            state = await self._view.escrow(known.account)
            row = None if state is None else state.rows.get(node)
            if row is None:
                return "its row is gone"
            request = ReleaseRequest.sign(
                key,
                network=self._network.network_id,
                escrow=known.account,
                node=node,
                allotment=row.allotment,
                row_seqno=row.seqno,
                allotted_nano=row.paid_nano,
                expires_at=(await self._view.head()).now + RELEASE_SECONDS,
            )
            try:
                signature = await self._link.release(request)
                return self._checked(node, row, signature)
            except RelayerRefused as error:
                if error.code not in _NOT_YET or time.monotonic() + RELEASE_RETRY_SECONDS > until:
                    return error.cause
                if error.code != said:
                    said = error.code
                    progress(f"node {node.hex()[:8]} is not ready to release: {error.cause}")
            except RelayerUnreachable as error:
                return error.cause
            await asyncio.sleep(RELEASE_RETRY_SECONDS)

    @staticmethod
    def _checked(node: bytes, row: Row, signature: bytes) -> CloseRelease | str:
        if not verify(Release(row.allotment, row.seqno, row.paid_nano), signature, row.terms.release_key):
            return "the release's signature does not hold"
        return CloseRelease(node, row.paid_nano, signature)

    async def _closed(self, known: Escrow, paid: Paid, refusals: dict[bytes, str]) -> Closed:
        state = await self._view.escrow(known.account)
        waiting = {} if state is None else {node: row.closing_at for node, row in state.rows.items() if row.closing_at}
        if state is None:
            self._store.put_escrow(Escrow(known.number, known.account, known.voucher_key, "closed"))
        if paid.arrival is None:
            refunded = await self._payments.refund(known.account, paid.wallet)
        else:
            out = (one for one in paid.arrival.out_msgs if one.destination == self._payments.account)
            refunded = sum(one.value_nano for one in out)
        return Closed(known.account, state is None, refunded, waiting, refusals, paid)

    async def fees(self) -> Fees:
        return fees((await self._view.registry()).parameters)

    async def _pay(self, kind: str, message: Outgoing) -> Paid:
        try:
            return await self._payments.pay(kind, message)
        except ChainError as error:
            raise PaymentFailed(f"{kind}: {error}", "mend the cause and do it again; nothing is paid twice") from error
