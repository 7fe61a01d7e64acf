"""An SEV-SNP machine's agent and its judges' agents around the contract, with AMD's hierarchy as a mirror."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

import pytest
from committee_stage import EPOCH, Stage, Verifier
from test_committee_duty import Judging, LedgerChain, duty_of

from attestation.committee import bundled_policy, judge
from attestation.evidence import Evidence, Kind
from attestation.report_data import NO_GPU, Binding
from attestation.snp import products
from attestation.snp.products import Product, tcb_components
from attestation.verifier import EvidenceRefused, NotAttested
from chain.api import BlockId, Head
from chain.wallet import Wallet
from scripts.stage import TON, key_of, public
from tests.support.snp_mirror import CHIP, NOW, TCB, Mirror
from worker.agent.vouching import Next, Vouching, next_step
from worker.messages import Judged
from wrappers.committee import CommitteeVerdict, Question
from wrappers.ops import Op
from wrappers.signed import sign

AMD = Mirror(Product.GENOA)
FLOORS = "\n".join(f"{name} = {getattr(TCB[Product.GENOA], name)}" for name in tcb_components(Product.GENOA))
POLICY = bundled_policy() + f"\n[snp.floors.genoa]\n{FLOORS}\n".encode()


@pytest.fixture(autouse=True)
def mirror_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    """AMD's roots are replaced by the mirror's for these tests only."""
    roots = {product: Mirror(product).root for product in Product}
    monkeypatch.setattr(products, "root", roots.__getitem__)


class MovingChain(LedgerChain):
    """Time passes whenever somebody looks."""

    async def head(self) -> Head:
        self.ledger.now += 60
        return await super().head()


@dataclass
class Measured(Judging):
    """An enclave with the real judgement in it."""

    async def judge(self, question: Any, evidence: Any, collateral: Any) -> Judged:
        asked = Question.from_cell(question)
        found = judge(asked, evidence, collateral, POLICY)
        signature = sign(CommitteeVerdict(asked.hash, found.accepted), self.who.key)
        return Judged(1, found.accepted, signature, "; ".join(found.reasons))


@pytest.fixture
def stage() -> Stage:
    made = Stage()
    assert made.ledger.now == NOW
    made.terms = replace(made.terms, policy=sha256(POLICY).digest(), seats=3, quorum=3)
    assert not made.genesis().failed
    made.fees = replace(made.fees, terms=made.terms)
    return made


def evidence_of(stage: Stage, **report: Any) -> Evidence:
    block = stage.ledger.prev_blocks.hundreds[0]
    binding = Binding(stage.network, stage.node, EPOCH, public(stage.enclave_key), NO_GPU, block.seqno, block.root_hash)
    return Evidence(Kind.SEV_SNP, AMD.report(report_data=binding.report_data(), **report), binding)


def vouching(stage: Stage) -> Vouching:
    wallet = Wallet(key_of("snp operator"))
    stage.ledger.faucet(wallet.account, 100 * TON)
    return Vouching(cast(Any, MovingChain(stage.ledger)), wallet, stage.account, POLICY, None, 0.001)


async def judging(stage: Stage, members: list[Verifier]) -> None:
    duties = [duty_of(stage, who, Measured(who)) for who in members]
    while True:
        for duty in duties:
            await duty.step()
        await asyncio.sleep(0.001)


async def seen_through(stage: Stage, evidence: Evidence, members: list[Verifier]) -> None:
    judges = asyncio.create_task(judging(stage, members))
    try:
        async with asyncio.timeout(60):
            await vouching(stage).vouched(evidence, AMD.collateral(), b"\x05" * 64)
    finally:
        judges.cancel()
        await asyncio.gather(judges, return_exceptions=True)


async def test_a_genuine_machine_is_vouched_for_by_those_the_chain_drew(stage: Stage) -> None:
    members = stage.join(4)
    evidence = evidence_of(stage)
    await seen_through(stage, evidence, members)
    (told,) = [
        message
        for tx in stage.ledger.transactions[stage.account]
        for message in tx.out_msgs
        if message.destination == stage.attestation
    ]
    body = told.body.begin_parse()
    assert body.load_uint(32) == Op.VOUCHED
    assert (body.load_bytes(32), body.load_uint(64)) == (stage.node, EPOCH)
    identity = told.body.refs[0].begin_parse()
    assert identity.load_bytes(32) and identity.load_bytes(32) == sha256(CHIP[Product.GENOA]).digest()
    assert not stage.state.requests


async def test_what_no_member_could_accept_is_not_paid_for(stage: Stage) -> None:
    stage.join(4)
    with pytest.raises(EvidenceRefused, match="debug"):
        await vouching(stage).vouched(
            evidence_of(stage, guest_policy=0x3_00_00 | 55 | 1 << 8 | 1 << 19), AMD.collateral(), None
        )
    assert not stage.state.requests


async def test_a_committee_without_enough_members_takes_no_money(stage: Stage) -> None:
    stage.join(2)
    with pytest.raises(NotAttested, match="2 members for 3 seats"):
        await vouching(stage).vouched(evidence_of(stage), AMD.collateral(), None)


async def test_a_committee_of_another_policy_is_not_asked(stage: Stage) -> None:
    asking = replace(vouching(stage), policy_document=bundled_policy())
    with pytest.raises(NotAttested, match="another policy"):
        await asking.vouched(evidence_of(stage), AMD.collateral(), None)


async def test_silence_is_no_yes(stage: Stage) -> None:
    stage.join(4)
    with pytest.raises(EvidenceRefused, match="0 yes, 0 no"):
        await seen_through(stage, evidence_of(stage), [])


def test_what_a_request_waits_for(stage: Stage) -> None:
    stage.join(4)
    assert not stage.ask().failed
    request = stage.request()

    def head(seqno: int, now: int) -> Head:
        return Head(BlockId(seqno, bytes(32), bytes(32)), now)

    assert next_step(request, head(request.draw_at, request.deadline)) is Next.WAIT
    assert next_step(request, head(request.draw_at + 10, request.deadline)) is Next.DRAW
    assert next_step(request, head(request.draw_at + 10, request.deadline + 1)) is Next.CONCLUDE
    drawn = replace(request, count=0)
    assert next_step(drawn, head(request.draw_at + 99, request.deadline)) is Next.WAIT
