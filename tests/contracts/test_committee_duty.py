"""From a question on the chain to a drawn member's answer there, through the agent, with the contract itself."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from committee_stage import Stage, Verifier
from pytoniq_core import Cell, begin_cell

from attestation.committee import Opinion
from chain.api import AccountState, BlockId, Head, Refused, Transaction
from chain.wallet import Wallet
from devnet.ledger import Ledger
from scripts.stage import TON, key_of, public
from worker.agent.duty import Duty, NoCommittee, committee_state
from worker.agent.enclave_process import Enclave, EnclaveRefused
from worker.agent.view import ChainView
from worker.messages import Judged
from wrappers import committee_messages
from wrappers.committee import CommitteeVerdict, Question, Vote
from wrappers.node_rare import present
from wrappers.ops import Op
from wrappers.signed import sign

YES = Opinion(True)


@dataclass
class LedgerChain:
    """The ledger as the agent's chain."""

    ledger: Ledger
    name: str = "ledger"

    async def head(self) -> Head:
        block = self.ledger.prev_blocks.last[0]
        return Head(BlockId(block.seqno, block.root_hash, block.file_hash), self.ledger.now)

    async def account(self, account: bytes) -> AccountState:
        return self.ledger.account(account)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        rows = [row for row in self.ledger.transactions.get(account, []) if row.lt <= lt]
        if not rows or rows[-1].hash != hash:
            raise Refused("cannot locate transaction")
        return tuple(rows[::-1][:limit])

    async def send(self, message: Cell) -> bytes:
        self.ledger.send_external(message)
        return bytes(message.hash)


@dataclass
class Judging:
    """An enclave that says what it is told to, and remembers what it was shown."""

    who: Verifier
    opinion: Opinion | None = YES
    shown: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)

    @property
    def key(self) -> bytes:
        return public(self.who.key)

    async def judge(self, question: Cell, evidence: Cell, collateral: Cell) -> Judged:
        self.shown.append((bytes(question.hash), bytes(evidence.hash), bytes(collateral.hash)))
        if self.opinion is None:
            raise EnclaveRefused("the policy is another")
        assert Question.from_cell(question).hash == question.hash
        verdict = CommitteeVerdict(bytes(question.hash), self.opinion.accepted)
        return Judged(1, self.opinion.accepted, sign(verdict, self.who.key), "; ".join(self.opinion.reasons))


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    assert not made.genesis().failed
    return made


def duty_of(stage: Stage, who: Verifier, enclave: Judging | None, shown: tuple[bytes, int] | None = None) -> Duty:
    """`shown`: key and end as the node shows them, where they are not what the committee knows."""
    chain = cast(Any, LedgerChain(stage.ledger))
    wallet = Wallet(key_of(f"wallet {who.owner.hex()}"))
    stage.ledger.faucet(wallet.account, 10 * TON)
    view = ChainView(chain, stage.registry, who.node, stage.network, 0.0)

    async def node(*, fresh: bool = False) -> Any:
        member = stage.state.members.get(who.owner)
        known = (member.key, member.attested_until) if member is not None else (public(who.key), 0)
        key, ends = shown or known
        state = SimpleNamespace(owner=who.owner, controller=wallet.account, signing_key=key, attested_until=ends)
        return SimpleNamespace(state=state)

    view.node = node  # type: ignore[method-assign]
    return Duty(view, stage.account, wallet, lambda: cast(Enclave, enclave))


async def test_a_drawn_member_answers_once_with_what_the_chain_shows(stage: Stage) -> None:
    first, second, *_ = stage.drawn()
    question = stage.request().question
    enclave = Judging(first)
    duty = duty_of(stage, first, enclave)
    assert await duty.step() == 1
    assert stage.request().seats[first.owner] is Vote.YES
    assert enclave.shown == [(question.hash, question.evidence, question.collateral)]
    assert await duty.step() == 0 and len(enclave.shown) == 1
    assert await duty_of(stage, second, Judging(second, Opinion(False, ("debug",)))).step() == 1
    assert stage.request().seats[second.owner] is Vote.NO


async def test_who_was_not_drawn_or_has_another_key_stays_silent(stage: Stage) -> None:
    seats = stage.drawn()
    owners = {who.owner for who in seats}
    outsider = next(stage.verifier(i) for i in range(7) if stage.verifier(i).owner not in owners)
    for who, enclave in (
        (outsider, Judging(outsider)), (seats[0], Judging(outsider)), (seats[0], None),
        (stage.verifier(9), Judging(outsider)),
    ):  # fmt: skip
        assert await duty_of(stage, who, enclave).step() == 0
    assert set(stage.request().seats.values()) == {Vote.NONE}


async def test_what_the_enclave_cannot_judge_is_left_to_others_and_asked_once(stage: Stage) -> None:
    who, *_ = stage.drawn()
    enclave = Judging(who, None)
    duty = duty_of(stage, who, enclave)
    assert await duty.step() == 0 == await duty.step()
    assert len(enclave.shown) == 1


async def test_a_question_that_is_over_is_not_answered(stage: Stage) -> None:
    who, *_ = stage.drawn()
    stage.past_deadline()
    enclave = Judging(who)
    assert await duty_of(stage, who, enclave).step() == 0 and not enclave.shown


async def test_requests_that_were_refused_do_not_pile_up(stage: Stage) -> None:
    who, *_ = stage.drawn()
    for epoch in range(5):
        assert stage.ask(epoch=epoch).failed
    duty = duty_of(stage, who, Judging(who))
    assert await duty.step() == 1
    assert len(duty._asks) == 1


async def test_an_account_that_is_no_committee_is_named(stage: Stage) -> None:
    chain = cast(Any, LedgerChain(stage.ledger))
    for account in (stage.stranger, Wallet(key_of("nobody")).account):
        with pytest.raises(NoCommittee, match="no committee"):
            await committee_state(chain, account)


async def test_g18_messages_that_are_no_requests_stop_no_members_node(stage: Stage) -> None:
    who, *_ = stage.drawn()
    empty, ids = Cell.empty(), begin_cell().store_bytes(bytes(64)).end_cell()
    for identity, consent in ((empty, None), (ids, empty), (ids, "absent")):
        body = begin_cell().store_uint(Op.ASK, 32).store_bytes(bytes(32)).store_uint(1, 64).store_bytes(bytes(32))
        body.store_uint(1, 32).store_uint(1, 32).store_ref(identity).store_ref(empty).store_ref(empty)
        body.store_bit(0 if consent is None else 1)
        if isinstance(consent, Cell):
            body.store_ref(consent)
        stage.ledger.send_internal(
            source=stage.stranger, destination=stage.account, value_nano=TON, body=body.end_cell()
        )
    assert await duty_of(stage, who, Judging(who)).step() == 1


async def test_g18_a_member_goes_on_after_what_nobody_foresaw(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    who, *_ = stage.drawn()
    duty, steps = duty_of(stage, who, Judging(who)), 0

    async def step() -> int:
        nonlocal steps
        steps += 1
        raise ZeroDivisionError

    monkeypatch.setattr(duty, "step", step)
    monkeypatch.setattr("worker.agent.duty.LOOK_SECONDS", 0.0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await duty.run()
    assert steps > 1 and "report this" in caplog.text


async def test_the_committee_is_told_of_the_nodes_next_key_and_end(stage: Stage) -> None:
    who, *_ = stage.join(1)
    ends = stage.state.members[who.owner].attested_until
    next_key = public(key_of("next"))
    for key, end in ((next_key, ends), (public(who.key), ends + 1)):
        duty = duty_of(stage, who, Judging(who), (key, end))
        assert await duty.step() == 0
        (tx,) = [tx for tx in stage.ledger.transactions[duty.wallet.account] if tx.out_msgs][-1:]
        assert tx.out_msgs[0].destination == who.node and tx.out_msgs[0].body.hash == present(stage.account).hash
    assert not stage.tell(committee_messages.leave(who.owner), TON, who.owner).failed
    duty = duty_of(stage, stage.verifier(0), Judging(who), (next_key, ends))
    sent = len(stage.ledger.transactions[duty.wallet.account])
    await duty.step()
    assert len(stage.ledger.transactions[duty.wallet.account]) == sent, "who is leaving needs no newer key"
