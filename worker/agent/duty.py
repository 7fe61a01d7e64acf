"""The node as a committee's member: has its enclave judge what the chain drew it for, and carries the answer there.

What it judges stands whole on the chain (the question in the committee's state, evidence and collateral in the message
that asked), so nobody can show one member something else than another.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from pytoniq_core import Cell

from chain.api import Chain, ChainError, Status, Transaction
from chain.follower import AccountFollower
from chain.outgoing import Outgoing
from chain.wallet import Wallet
from worker.agent.enclave_process import Enclave, EnclaveGone, EnclaveRefused
from worker.agent.rounds import every, over_and_over
from worker.agent.view import ChainView, NodeMissing
from wrappers.cells import CellError
from wrappers.committee import CommitteeState, Member, Request, Vote
from wrappers.committee_messages import Ask, answer
from wrappers.node import NodeState
from wrappers.node_rare import present

log = logging.getLogger(__name__)

ANSWER_VALUE_NANO = 100_000_000
"""Above the need of `answer` at mainnet's prices; what is not used comes back."""
PRESENT_VALUE_NANO = 150_000_000
"""Above the needs of `present` and of a member's `presented`; the rest goes to the payout address."""
LOOK_SECONDS = 20.0
TROUBLE = (ChainError, NodeMissing, EnclaveRefused, EnclaveGone, TimeoutError)


class NoCommittee(ChainError):
    """There is no committee where the configuration says."""


async def committee_state(chain: Chain, account: bytes) -> CommitteeState:
    """Raises NoCommittee, ChainError."""
    found = await chain.account(account)
    if found.status is not Status.ACTIVE or found.data is None:
        raise NoCommittee(f"there is no committee at {account.hex()} ({found.status}); correct committee")
    try:
        return CommitteeState.from_cell(found.data)
    except CellError as error:
        raise NoCommittee(f"{account.hex()} is no committee that this release knows ({error})") from error


def asks_in(transactions: tuple[Transaction, ...]) -> Iterator[Ask]:
    """What was asked, refused requests too: which of them a question is about, its hashes say."""
    for transaction in transactions:
        message = transaction.in_msg
        if message is None or message.bounced:
            continue
        try:
            yield Ask.from_cell(message.body)
        except CellError:
            continue


def unanswered(state: CommitteeState, owner: bytes, now: int) -> Iterator[tuple[bytes, Request]]:
    """Places and requests whose seat this owner holds and has not used."""
    for place, request in state.requests.items():
        if request.seats.get(owner) is Vote.NONE and now <= request.deadline:
            yield place, request


def out_of_date(member: Member, node: NodeState) -> bool:
    """Whether the committee knows an older key or end than the node shows. One that is leaving takes no newer ones."""
    if member.leaving_at or node.signing_key is None:
        return False
    return (member.key, member.attested_until) != (node.signing_key, node.attested_until)


def asked(request: Request, asks: Mapping[tuple[bytes, bytes], Ask]) -> Ask | None:
    return asks.get((request.question.evidence, request.question.collateral))


@dataclass
class Duty:
    """`enclave`: the running one, whose key the committee knows."""

    view: ChainView
    committee: bytes
    wallet: Wallet
    enclave: Callable[[], Enclave | None]
    _asks: dict[tuple[bytes, bytes], Ask] = field(default_factory=dict)
    _told: set[tuple[bytes, bytes]] = field(default_factory=set)
    """Places and hashes of questions that this enclave has answered or cannot answer."""

    def __post_init__(self) -> None:
        self._follower = AccountFollower(self.view.chain, self.committee)

    async def run(self) -> None:
        """Until cancelled."""
        await over_and_over("the committee's questions wait", self.step, TROUBLE, every(LOOK_SECONDS))

    async def step(self) -> int:
        """Answer what is open; how many were sent. Raises TROUBLE."""
        enclave = self.enclave()
        if enclave is None:
            return 0
        node = (await self.view.node()).state
        owner = node.owner
        state = await self._caught_up()
        member = state.members.get(owner)
        if member is None:
            return 0
        if out_of_date(member, node) and node.controller == self.wallet.account:
            log.info("telling the committee of key %s, attested until %d", enclave.key.hex(), node.attested_until)
            await self._send(self.view.account, PRESENT_VALUE_NANO, present(self.committee))
        if enclave.key not in (member.key, member.previous_key):
            return 0
        sent = 0
        for place, request in unanswered(state, owner, (await self.view.head()).now):
            if (place, request.question.hash) not in self._told:
                sent += await self._answer(enclave, owner, place, request)
        return sent

    async def _caught_up(self) -> CommitteeState:
        """The committee's state; of all that was asked up to it, what belongs to a request that is open."""
        while True:
            for ask in asks_in(await self._follower.poll()):
                self._asks[bytes(ask.evidence.hash), bytes(ask.collateral.hash)] = ask
            # Read after the transactions, so that none of them is of a request that the state does not show yet.
            state = await committee_state(self.view.chain, self.committee)
            open_ = [request.question for request in state.requests.values()]
            wanted = {(question.evidence, question.collateral) for question in open_}
            self._asks = {key: ask for key, ask in self._asks.items() if key in wanted}
            self._told &= {(place, request.question.hash) for place, request in state.requests.items()}
            if self._follower.caught_up:
                return state

    async def _answer(self, enclave: Enclave, owner: bytes, place: bytes, request: Request) -> int:
        question = request.question
        ask = asked(request, self._asks)
        if ask is None:
            return 0  # its message has not been read yet
        try:
            judged = await enclave.judge(question.to_cell(), ask.evidence, ask.collateral)
        except EnclaveRefused as error:
            log.error("question %s is not answered: %s", question.hash.hex(), error)
            self._told.add((place, question.hash))
            return 0
        log.info("question %s: %s", question.hash.hex(), "yes" if judged.accepted else f"no, {judged.reasons}")
        body = answer(place, owner, judged.accepted, judged.signature)
        await self._send(self.committee, ANSWER_VALUE_NANO, body)
        self._told.add((place, question.hash))
        return 1

    async def _send(self, account: bytes, value_nano: int, body: Cell) -> None:
        sent = await self.wallet.send(self.view.chain, [Outgoing(account, value_nano, body)])
        await sent.landed(self.view.chain)
