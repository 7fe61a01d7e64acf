"""G13: a receipt verifies offline from the client's copy and public data; any change of any byte breaks it."""

from __future__ import annotations

import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from client import control
from client.audit import Audit, Texts, verify_chain, verify_receipt
from protocol.receipts import IssuedReceipt

BODY = {"messages": [{"role": "user", "content": "what is the answer?"}], "stream": True}


@pytest.fixture
async def copy(world: Any) -> dict[str, Any]:
    """One receipt with all that its verification takes, as the store gives it."""
    async with world.client(keep_texts=True) as client:
        async with aclosing(client.chat(BODY)) as events:
            async for _ in events:
                pass
        (held,) = client.receipts()
        ((of, _),) = client.store.accounts()
        assert held.secret is not None and held.body is not None
        return {
            "issued": held.issued,
            "of": of,
            "network": client.settings.facts,
            "terms": held.terms,
            "maximum_nano": held.maximum_nano,
            "request": held.request,
            "evidence": client.store.evidence(held.key),
            "policy": world.policy,
            "allow_simulated": True,
            "texts": Texts(held.secret, held.body, held.answer),
        }


def judge(copy: dict[str, Any], **changes: Any) -> Audit:
    return verify_receipt(**{**copy, **changes})


async def test_g13_a_receipt_verifies_offline(copy: dict[str, Any]) -> None:
    audit = judge(copy)
    assert audit.holds and audit.simulated and len(audit.checks) == 6
    assert judge(copy, texts=None).holds


async def test_g13_any_changed_byte_of_the_receipt_breaks_it(copy: dict[str, Any]) -> None:
    data = copy["issued"].to_bytes()
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x01]) + data[at + 1 :]
        # the last check is about the evidence, which these bytes do not touch and which is slow to verify
        audit = judge(copy, issued=IssuedReceipt.from_bytes(changed), evidence=None)
        assert not all(check.holds for check in audit.checks[:-1]), f"byte {at} of the receipt may be changed"


async def test_g13_any_changed_byte_of_what_it_is_bound_to_breaks_it(copy: dict[str, Any]) -> None:
    def flip(value: bytes) -> bytes:
        return value[:-1] + bytes([value[-1] ^ 1])

    of, terms, texts = copy["of"], copy["terms"], copy["texts"]
    for name in ("key", "escrow", "node"):
        assert not judge(copy, of=replace(of, **{name: flip(getattr(of, name))})).holds
    for name in ("epoch", "node_epoch"):
        assert not judge(copy, of=replace(of, **{name: getattr(of, name) + 1})).holds
    for name in ("prompt_price", "completion_price", "minimum_nano"):
        assert not judge(copy, terms=replace(terms, **{name: getattr(terms, name) + 1})).holds
    assert not judge(copy, terms=replace(terms, model=flip(terms.model))).holds
    assert not judge(copy, request=flip(copy["request"])).holds
    assert not judge(copy, maximum_nano=copy["issued"].signed.receipt.amount_nano - 1).holds
    for name in ("secret", "body", "answer"):
        assert not judge(copy, texts=replace(texts, **{name: flip(getattr(texts, name))})).holds
    assert not judge(copy, network=replace(copy["network"], network_id=bytes(32))).holds


async def test_g13_without_proof_of_the_key_nothing_holds(copy: dict[str, Any]) -> None:
    assert not judge(copy, evidence=None).holds
    assert not judge(copy, allow_simulated=False).holds
    assert not judge(copy, network=replace(copy["network"], global_id=-239)).holds
    evidence = copy["evidence"]
    assert not judge(copy, evidence=replace(evidence, document="{}")).holds
    document = json.loads(evidence.document)
    document["evidence"]["binding"]["signing_key"] = "01" * 32
    assert not judge(copy, evidence=replace(evidence, document=json.dumps(document))).holds
    assert not judge(copy, evidence=replace(evidence, verified_at=evidence.verified_at + 400 * 86_400)).holds


async def test_g13_a_missing_receipt_breaks_the_chain(world: Any) -> None:
    async with world.client() as client:
        for _ in range(3):
            async with aclosing(client.chat(BODY)) as events:
                async for _ in events:
                    pass
        found = await control.run(client, "receipts", {"verify": True})
        assert found["holds"] and len(found["receipts"]) == 3 and found["chains"][0]["holds"]
        one, two, three = reversed([held.issued for held in client.receipts()])
    assert verify_chain([one, two, three]).holds
    assert not verify_chain([one, three]).holds
    assert not verify_chain([two, three]).holds
    assert not verify_chain([one, three, two]).holds
