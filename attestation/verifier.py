"""The network's on-chain verifier as whoever needs it reaches it: its state, messages to it, and what became of them.

Nobody is trusted here: a message that the contract refuses costs its gas, and its exit code is explained in words. Give
it a quorum, so that neither state nor outcome hangs on one endpoint's word (G17).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from pytoniq_core import Cell

from attestation.collateral import Collateral
from attestation.onchain.errors import VerifierError, explain
from attestation.onchain.hints import NoHints
from attestation.onchain.needed import needed_messages
from attestation.onchain.pieces import BadWitness
from attestation.onchain.state import VerifierState
from attestation.report_data import Binding
from attestation.strict import Malformed
from attestation.witness import attest_message
from chain.api import Chain, Refused, Status, Transaction
from chain.follower import AccountFollower
from chain.outgoing import Outgoing
from chain.wait import WaitTimeout, until, wait_for_transaction
from chain.wallet import MAX_MESSAGES, Wallet
from wrappers.cells import CellError, to_boc

ATTEST_VALUE_NANO = 120_000_000
"""Above the need of `attest` at mainnet's prices; what is not used goes to the node's gas reserve."""
LIST_VALUE_NANO = 400_000_000
"""With a revocation list or a part of one, whose gas grows with the serials, and its rent. The rest comes back."""
STATEMENT_VALUE_NANO = 200_000_000
TRANSFER_BYTES = 60_000
"""Messages that a wallet sends at once: an external message has at most 65,535 bytes."""
OUTCOME_SECONDS = 120.0
HUNDRED = 100
"""Evidence binds a masterchain block whose seqno is divisible by this: the TVM sees the newest sixteen of them."""
_DONE_BY_OTHERS = (VerifierError.NOT_NEWER, VerifierError.WRONG_PART)


class NotAttested(Exception):
    """The chain does not take the evidence. In words: who refused what, why, and the cure."""


class EvidenceRefused(NotAttested):
    """The chain judged and refused, for gas: asking again before anything changed costs as much again."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """`account`: as the node froze it at its birth, or as the registry names it."""

    chain: Chain
    account: bytes

    async def state(self) -> VerifierState:
        """Raises NotAttested, ChainError."""
        found = await self.chain.account(self.account)
        if found.status is not Status.ACTIVE or found.data is None:
            raise NotAttested(
                f"there is no verifier at {self.account.hex()} ({found.status}); deploy the network's contracts first"
            )
        try:
            return VerifierState.from_cell(found.data)
        except CellError as error:
            raise NotAttested(
                f"{self.account.hex()} is no verifier that this release knows ({error}); use a release of this network"
            ) from error

    async def lacks(self, collateral: Collateral, *, ahead_seconds: int = 0) -> tuple[str, ...]:
        """Names of what the chain needs of this collateral. Raises NotAttested, ChainError."""
        return tuple(name for name, _ in await self._needed(collateral, ahead_seconds))

    async def bring(self, wallet: Wallet, collateral: Collateral, *, ahead_seconds: int = 0) -> tuple[str, ...]:
        """Send what the chain needs of this collateral; the names of what was taken. Raises NotAttested, ChainError."""
        needed = await self._needed(collateral, ahead_seconds)
        taken = []
        for part in _transfers(needed):
            values = [LIST_VALUE_NANO if "crl" in name else STATEMENT_VALUE_NANO for name, _ in part]
            outcomes = await self._outcomes(wallet, [body for _, body in part], values)
            for (name, _), outcome in zip(part, outcomes, strict=True):
                # Somebody else was faster: that is what these messages are for.
                if outcome.aborted and outcome.exit_code not in _DONE_BY_OTHERS:
                    raise EvidenceRefused(f"the verifier refused {name}: {reason(outcome)}")
                taken.append(name)
        return tuple(taken)

    async def _needed(self, collateral: Collateral, ahead_seconds: int) -> list[tuple[str, Cell]]:
        state, now = await self.state(), (await self.chain.head()).now
        try:
            return list(needed_messages(collateral, state.root.key, state, now, ahead_seconds=ahead_seconds))
        except (BadWitness, NoHints, Malformed) as error:
            raise NotAttested(f"the collateral is of no use: {error}; fetch it anew") from error

    async def attest(self, wallet: Wallet, quote: bytes, binding: Binding, *, consent: bytes | None) -> None:
        """Returns when the node took the verdict on the quote. Raises NotAttested, ChainError, WaitTimeout.

        `consent`: the node's release key over `signed.KeyConsent`; a key that is active already needs none.
        """
        try:
            body = attest_message(quote, binding, consent=consent)
        except (BadWitness, NoHints, Malformed) as error:
            raise NotAttested(f"the quote cannot be sent: {error}; quote again") from error
        node = await AccountFollower.from_now(self.chain, binding.node)
        (outcome,) = await self._outcomes(wallet, [body], [ATTEST_VALUE_NANO])
        if outcome.aborted:
            raise EvidenceRefused(f"the verifier refused the evidence: {reason(outcome)}")
        # Others have the verifier write to the node too, and may see to it that the node refuses that.
        ours = {message.hash for message in outcome.out_msgs if message.destination == binding.node}
        verdict = await self._answer(node, ours)
        if verdict.aborted:
            raise EvidenceRefused(f"the node refused the verdict: {reason(verdict)}")

    async def _outcomes(self, wallet: Wallet, bodies: Sequence[Cell], values: Sequence[int]) -> tuple[Transaction, ...]:
        """What the contract did with each message, in order."""
        follower = await AccountFollower.from_now(self.chain, self.account)
        messages = [Outgoing(self.account, value, body) for body, value in zip(bodies, values, strict=True)]
        sent = await wallet.send(self.chain, messages)
        await sent.landed(self.chain)
        found: dict[bytes, Transaction] = {}
        wanted = {bytes(body.hash) for body in bodies}

        async def read() -> bool | None:
            for transaction in await follower.poll():
                message = transaction.in_msg
                if message is not None and message.source == wallet.account and not message.bounced:
                    found.setdefault(bytes(message.body.hash), transaction)
            return True if wanted <= set(found) else None

        await until(read, what="the verifier's answers", timeout_seconds=OUTCOME_SECONDS)
        return tuple(found[bytes(body.hash)] for body in bodies)

    async def _answer(self, node: AccountFollower, messages: Collection[bytes]) -> Transaction:
        try:
            return await wait_for_transaction(
                node, lambda tx: tx.in_msg is not None and tx.in_msg.hash in messages, OUTCOME_SECONDS
            )
        except WaitTimeout as error:
            raise WaitTimeout(f"the verifier accepted, but the node shows no verdict: {error}") from error


def _transfers(messages: Sequence[tuple[str, Cell]]) -> Iterator[list[tuple[str, Cell]]]:
    """The messages in order, as many at once as a wallet sends."""
    part: list[tuple[str, Cell]] = []
    size_bytes = 0
    for name, body in messages:
        body_bytes = len(to_boc(body))
        if part and (len(part) == MAX_MESSAGES or size_bytes + body_bytes > TRANSFER_BYTES):
            yield part
            part, size_bytes = [], 0
        part.append((name, body))
        size_bytes += body_bytes
    if part:
        yield part


async def block_to_bind(chain: Chain, newer_than: int) -> tuple[int, bytes] | None:
    """(seqno, root hash) of the newest block that evidence may bind; None until one after `newer_than` is there."""
    head = (await chain.head()).block.seqno
    seqno = head - head % HUNDRED
    if seqno <= newer_than:
        seqno = newer_than - newer_than % HUNDRED + HUNDRED
    try:
        found = await chain.block(seqno)
    except Refused:
        return None
    return seqno, found.block.root_hash


def reason(transaction: Transaction) -> str:
    """Why the contract refused, with the cure."""
    if transaction.exit_code is not None and transaction.exit_code not in (0, 1):
        return explain(transaction.exit_code)
    if transaction.exit_code is None:
        return "the message brought too little to run at all; send it with more"
    return f"its actions failed with code {transaction.action_code}; send it with more"
