"""G7 and G8 where they concern all contracts at once: what can bounce, how money leaves, what relaying brings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import contracts
from attestation.onchain.fees import attest as attest_need
from attestation.report_data import NO_GPU, Binding
from attestation.simulated.tee import SimulatedTee
from attestation.witness import attest_message
from devnet.trace import Trace
from scripts.compile import source
from scripts.stage import HOUR, NO_HASH, TON, Pair, World, account_of_name, built_world, key_of, make_pair, public
from wrappers import claims, escrow, escrow_rare, node_rare
from wrappers.code import Contract
from wrappers.signed import sign

ROOT = Path(contracts.__file__).parent


def included(path: Path) -> set[Path]:
    names = re.findall(r'#include "([^"]+)"', path.read_text(encoding="utf-8"))
    # Relative to the contract's folder or to that of all contracts, as the compiler resolves them.
    found = {next(each for each in (ROOT / name, path.parent / name) if each.exists()) for name in names}
    return {path} | {deep for each in found for deep in included(each)}


SOURCES = sorted(
    path
    for path in {path for contract in Contract for path in included(ROOT / source(contract))}
    if path.parent.name != "common"
)


@pytest.fixture
def world() -> World:
    return built_world()


@pytest.fixture
def pair(world: World) -> Pair:
    return make_pair(world)


def data_of(world: World, *accounts: bytes) -> list[bytes]:
    states = [world.ledger.account(account).data for account in accounts]
    return [bytes(data.hash) for data in states if data is not None]


def code(path: Path) -> str:
    return re.sub(r";;.*", "", path.read_text(encoding="utf-8"))


def test_g7_only_the_messages_whose_bounce_is_handled_leave_with_the_bounce_flag() -> None:
    """verdict, slash, governed, vouched, presented (value stays), settle, accepted, paid, open_job (deposit)."""
    found = {}
    for path in SOURCES:
        if sends := re.findall(r"(?:to|begin)_bounceable\(", code(path)):
            found[path.stem] = len(sends)
    assert found == {
        "attestation": 1,
        "node": 2,
        "settle": 1,
        "court": 1,
        "rare": 1,
        "jobs": 1,
        "present": 1,
        "governance": 1,
        "requests": 1,
    }


@pytest.mark.parametrize("where", ["a node that refuses it", "no node at all"])
def test_g7_a_refused_verdict_changes_nothing(where: str) -> None:
    world = built_world(verifier=True)
    pair = make_pair(world)
    refused = where == "a node that refuses it"
    target = pair.node if refused else account_of_name("nowhere")
    machine = world.machine if refused else SimulatedTee(b"another machine")
    block = world.ledger.prev_blocks.hundreds[0]
    key = public(key_of("second"))
    binding = Binding(world.network, target, 1, key, NO_GPU, block.seqno, block.root_hash)
    body = attest_message(machine.quote(binding.report_data()), binding)
    watched = (world.registry, pair.node, pair.escrow)
    before, held = data_of(world, *watched), world.ledger.balance(world.attestation)
    trace = world.send(world.stranger, world.attestation, attest_need(world.fees.prices), body)
    back = trace.of(world.attestation)[-1]
    assert back.in_msg is not None and back.in_msg.bounced and back.exit_code == 0
    assert data_of(world, *watched) == before
    assert trace.total_fees_nano == trace.balance_delta_nano
    assert world.ledger.balance(world.attestation) > held, "what came back pays the contract's rent"


def gains(world: World, act: Trace, before: int) -> int:
    assert not act.failed
    return world.ledger.balance(world.stranger.account) - before


@pytest.mark.parametrize("work", ["finish", "lower", "claim_receipt", "collect", "top_up"])
@pytest.mark.parametrize("value", [TON // 10, 5 * TON])
def test_g8_who_carries_a_message_for_others_gains_nothing(world: World, pair: Pair, work: str, value: int) -> None:
    entry = world.entry(pair.escrow, pair.node, TON)
    receipt = world.receipt(pair.escrow, pair.node, entry)
    epoch = world.escrow(pair.escrow).rows[pair.node].epoch
    claim = claims.claim_receipt(
        public(world.enclave_key), pair.escrow, epoch, receipt, sign(receipt, world.enclave_key), entry
    )
    lower = escrow_rare.lower(pair.node, TON, world.release(pair.escrow, pair.node, TON))
    if work == "finish":
        world.send(world.client, pair.escrow, TON, escrow.close())
        world.ledger.now += 2 * HOUR
    if work == "collect":
        world.settle_one(pair.escrow, pair.node, TON // 10)
    target, body = {
        "finish": (pair.escrow, escrow.finish()),
        "lower": (pair.escrow, lower),
        "claim_receipt": (pair.node, claim),
        "collect": (pair.node, node_rare.collect()),
        "top_up": (pair.escrow, escrow.top_up()),
    }[work]
    before = world.ledger.balance(world.stranger.account)
    assert gains(world, world.send(world.stranger, target, value, body), before) < 0


def test_g8_posting_a_claim_costs_its_poster_nothing_and_brings_nothing(world: World, pair: Pair) -> None:
    item = claims.ClaimEntry(pair.escrow, world.entry(pair.escrow, pair.node, TON), NO_HASH)
    trace = world.ledger.send_external(world.claim_external(pair.node, [item]))
    assert not trace.failed
    assert {tx.account for tx in trace.transactions} == {pair.node, pair.escrow, world.payout}
