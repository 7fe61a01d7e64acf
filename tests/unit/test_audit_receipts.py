"""Receipts opened by `cocoon audit`: what holds, what does not, and evidence that the court takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from app.audit.core.audit import audit
from app.audit.core.facts import Finding
from app.audit.core.receipts import Evidence, Shown, check_receipts, parse
from app.audit.gather import node_of
from protocol.pricing import Stop, Usage, charge
from protocol.receipts import IssuedReceipt, SignedReceipt
from scripts.stage import World, built_world, make_pair, public
from tests.support.audit_world import facts_of
from tests.unit.test_chain_wallet import LedgerChain
from wrappers.cells import to_boc
from wrappers.claims import ClaimEntry, receipts_root
from wrappers.ops import Op
from wrappers.prices import PRICES
from wrappers.receipts import InnerReceipt, Receipt, Terms
from wrappers.signed import sign

TERMS = Terms(b"\x41" * 32, 3 << 20, 1 << 20, 7 << 20, 11 << 20, 1000)
USAGE = Usage(prompt_tokens=500, cached_tokens=100, completion_tokens=60, reasoning_tokens=20)


@dataclass
class Books:
    """An enclave's books with one client, claimed on the ledger in two claims."""

    world: World
    node: bytes
    escrow: bytes
    epoch: int
    allotment: bytes

    def one(
        self, seq: int, previous: bytes, total: int, *, amount: int | None = None, secret: str = "", stop: int = 0
    ) -> Shown:
        salt = sha256(f"salt {seq} {secret}".encode()).digest()
        counts = USAGE.prompt_tokens, USAGE.cached_tokens, USAGE.completion_tokens, USAGE.reasoning_tokens
        inner = InnerReceipt(salt, TERMS.model, *counts, stop, b"\x52" * 32, b"\x53" * 32, b"\x54" * 32)
        amount = charge(TERMS, USAGE, Stop(stop)) if amount is None else amount
        life = self.world.node(self.node)
        receipt = Receipt(self.allotment, life.node_id, seq, TERMS.hash, amount, total + amount, previous, inner.hash)
        key = self.world.enclave_key
        signed = SignedReceipt(receipt, sign(receipt, key))
        issued = IssuedReceipt(bytes([seq]) * 32, signed, inner)
        return Shown(self.escrow, self.epoch, self.node, life.epoch, public(key), issued, TERMS)

    def chain(self, count: int, **last: Any) -> list[Shown]:
        found: list[Shown] = []
        for seq in range(1, count + 1):
            before = found[-1].receipt if found else None
            more = last if seq == count else {}
            found.append(
                self.one(seq, before.hash if before else bytes(32), before.cumulative_nano if before else 0, **more)
            )
        return found

    def claim(self, receipts: Sequence[Shown]) -> None:
        last = receipts[-1].receipt
        entry = self.world.entry(self.escrow, self.node, last.cumulative_nano, seq=last.seq)
        root = receipts_root([one.receipt for one in receipts])
        assert not self.world.claim(self.node, [ClaimEntry(self.escrow, entry, root)]).failed

    def check(self, shown: Sequence[Shown]) -> tuple[tuple[Finding, ...], tuple[Evidence, ...]]:
        nodes = {self.node: facts_of(self.world, self.node)}
        return check_receipts(shown, self.world.network, nodes, self.world.fees)


@cache
def books() -> Books:
    world = built_world()
    pair = make_pair(world)
    row = world.escrow(pair.escrow).rows[pair.node]
    found = Books(world, pair.node, pair.escrow, row.epoch, row.allotment)
    chain = found.chain(5)
    found.claim(chain[:2])
    found.claim(chain[2:5])
    return found


def test_g13_receipts_stand_under_the_roots_that_their_enclave_signed() -> None:
    findings, evidence = books().check(books().chain(6))
    assert all(finding.holds for finding in findings) and not evidence, findings
    said = [finding.said for finding in findings if "claim" in finding.rule]
    assert [("claim 0" in text, "claim 1" in text) for text in said[:5]] == [(True, False)] * 2 + [(False, True)] * 3
    assert said[5] == "no claim holds it yet"


def test_g13_a_part_of_the_receipts_is_not_taken_for_a_contradiction() -> None:
    findings, _ = books().check(books().chain(5)[:1])
    assert all(finding.holds for finding in findings) and "not recomputed" in findings[-1].said


def test_g13_a_claim_over_other_receipts_is_found() -> None:
    chain = books().chain(5)
    other = books().one(2, chain[0].receipt.hash, chain[0].receipt.cumulative_nano, secret="other")
    findings, _ = books().check([chain[0], other, *chain[2:]])
    assert any("other receipts than these" in finding.said for finding in findings if not finding.holds)


def test_g13_a_receipt_shown_twice_with_different_contents_is_evidence() -> None:
    chain = books().chain(2)
    other = books().one(2, chain[0].receipt.hash, chain[0].receipt.cumulative_nano, secret="other")
    findings, evidence = books().check([*chain, other])
    assert not all(finding.holds for finding in findings)
    (found,) = [one for one in evidence if "both number 2" in one.why]
    assert found.body.begin_parse().load_uint(32) == Op.EQUIVOCATION and found.court == books().world.court


@pytest.mark.parametrize("change", [1, -1, 10**9])
def test_g13_an_amount_that_is_not_usage_times_terms_is_evidence(change: int) -> None:
    due = charge(TERMS, USAGE, Stop.END)
    (shown,) = books().chain(1, amount=due + change)
    findings, evidence = books().check([shown])
    assert any(f"where usage x terms is {due}" in finding.said for finding in findings if not finding.holds)
    (found,) = evidence
    assert found.body.begin_parse().load_uint(32) == Op.FALSE_AMOUNT and found.court is not None
    # What is printed is what the court takes: the stake is gone, and an audit explains where it went.
    world, snapshot = books().world, books().world.ledger.snapshot()
    try:
        assert not world.send(world.stranger, found.court, found.value_nano, found.body).failed
        assert world.node(books().node).stake_nano == 0
        report = audit(facts_of(world, books().node), PRICES)
        assert report.holds, [one for one in report.findings if not one.holds]
    finally:
        world.ledger.revert(snapshot)


def test_g10_nobody_is_accused_with_what_the_enclave_did_not_sign() -> None:
    (shown,) = books().chain(1, amount=7)
    forged = replace(shown.issued, signed=replace(shown.issued.signed, signature=bytes(64)))
    for wrong in (
        replace(shown, issued=forged),
        replace(shown, escrow=b"\x05" * 32),
        replace(shown, terms=replace(TERMS, minimum_nano=1)),
    ):
        findings, evidence = books().check([wrong])
        assert not all(finding.holds for finding in findings) and not evidence
    stranger = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)
    signed = SignedReceipt(shown.receipt, sign(shown.receipt, stranger))
    other = replace(shown, key=public(stranger), issued=replace(shown.issued, signed=signed))
    findings, evidence = books().check([other])
    assert any("attested its key" in one.rule for one in findings if not one.holds) and not evidence
    # Two receipts for one number, under a key that is nobody's.
    again = books().one(1, bytes(32), 0, amount=7, secret="other")
    signed = SignedReceipt(again.receipt, sign(again.receipt, stranger))
    again = replace(again, key=public(stranger), issued=replace(again.issued, signed=signed))
    findings, evidence = books().check([other, again])
    assert any(one.rule == "one receipt per number" for one in findings) and not evidence


def test_g10_a_receipt_of_a_node_that_the_network_does_not_have_does_not_hold() -> None:
    """Without a node there is no key: whoever makes the receipt chooses it."""
    for shown in (books().chain(1), books().chain(1, amount=7), [*books().chain(1), *books().chain(1, secret="other")]):
        findings, evidence = check_receipts(shown, books().world.network, {}, books().world.fees)
        assert any("is no node of this network" in one.said for one in findings if not one.holds) and not evidence


async def test_g10_a_nodes_code_with_data_of_a_strangers_own_is_no_node() -> None:
    world, node = books().world, books().node
    chain: Any = LedgerChain(world.ledger)
    found = await node_of(chain, node, world.registry, world.ledger.global_id)
    assert found is not None and found.account == node and found.history
    for account in (books().escrow, b"\x01" * 32):
        assert await node_of(chain, account, world.registry, world.ledger.global_id) is None
    other, snapshot = b"\x02" * 32, world.ledger.snapshot()
    try:
        # Code and data of a born node at an account of the forger's choice: keys and court would be his.
        accounts = world.ledger.accounts
        world.ledger.restore({**accounts, other: accounts[node]}, (), now=world.ledger.now, lt=world.ledger.lt)
        assert await node_of(chain, other, world.registry, world.ledger.global_id) is None
        assert await node_of(chain, node, b"\x03" * 32, world.ledger.global_id) is None
    finally:
        world.ledger.revert(snapshot)


def test_g18_the_file_is_read_back_and_a_wrong_one_is_named() -> None:
    (shown,) = books().chain(1)
    one = {
        "escrow": shown.escrow.hex(),
        "allotment_epoch": shown.allotment_epoch,
        "node": shown.node.hex(),
        "node_epoch": shown.node_epoch,
        "key": shown.key.hex(),
        "issued": shown.issued.to_bytes().hex(),
        "terms": to_boc(shown.terms.to_cell()).hex(),
    }
    assert parse(json.dumps({"receipts": [one]})) == (shown,)
    for wrong in ("", "[]", "{}", json.dumps({"receipts": [{**one, "issued": "00"}]}), json.dumps({"receipts": [1]})):
        with pytest.raises(ValueError, match="cocoon client receipts --json"):
            parse(wrong)
