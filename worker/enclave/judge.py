"""The enclave as a member of a committee: it judges what others cannot show the chain, and signs its own answer."""

from __future__ import annotations

import asyncio

from attestation.committee import NotAnswerable, bundled_policy, judge
from worker.enclave.keys import Keys
from worker.messages import Failed, Judge, Judged
from wrappers.cells import CellError, from_boc
from wrappers.committee import CommitteeVerdict, Question
from wrappers.signed import sign

MAX_REASON_CHARACTERS = 2000


async def answer_to(order: Judge, network: bytes, keys: Keys, policy_document: bytes | None = None) -> Judged | Failed:
    """`policy_document`: by default the bundled one, which is measured with this code."""
    policy = bundled_policy() if policy_document is None else policy_document
    try:
        question = Question.from_cell(from_boc(order.question))
        if question.network != network:
            raise NotAnswerable("the question is of another network; take it from this network's committee")
        opinion = await asyncio.to_thread(judge, question, from_boc(order.evidence), from_boc(order.collateral), policy)
    except (NotAnswerable, CellError) as error:
        return Failed("judge", order.order, str(error), "Nothing was signed")
    verdict = CommitteeVerdict(question.hash, opinion.accepted)
    reasons = "; ".join(opinion.reasons)[:MAX_REASON_CHARACTERS]
    return Judged(order.order, opinion.accepted, sign(verdict, keys.signing), reasons)
