"""A market with a past, on the emulated ledger, and the facts that an audit reads from it."""

from __future__ import annotations

from app.audit.core.facts import Facts
from chain.api import Transaction
from scripts.stage import DAY, HOUR, NO_HASH, TON, World, built_world, key_of
from wrappers import escrow, escrow_rare, node_rare
from wrappers.claims import ClaimEntry
from wrappers.receipts import Terms


def facts_of(world: World, account: bytes) -> Facts:
    """The account as the ledger has it, with its present life's history."""
    history: list[Transaction] = []
    for one in reversed(world.ledger.transactions.get(account, [])):
        history.insert(0, one)
        if one.prev_lt == 0:
            break
    state = world.ledger.account(account)
    return Facts(account, state, tuple(history) if state.last_lt else (), world.ledger.global_id)


def market() -> tuple[World, bytes, bytes]:
    """(world, node, escrow): top-ups, claims under two keys, a shared row, a raise, a lowered row, a waiting key."""
    world = built_world(fee=100)
    pair = make_pair_shared(world)
    other, trace = world.open_node(index=1)
    assert not trace.failed and not world.attest(other).failed
    client, operator = world.client, world.operator
    assert not world.settle_one(pair[1], pair[0], TON // 3).failed
    assert not world.attest(pair[0], key_of("second")).failed
    entry = world.entry(pair[1], pair[0], TON // 7, key=key_of("second"), seq=3)
    claim = world.claim_external(pair[0], [ClaimEntry(pair[1], entry, NO_HASH)], key=key_of("second"))
    assert not world.ledger.send_external(claim).failed
    for account, value, body in (
        (pair[1], TON, None),
        (pair[1], 2 * TON, escrow_rare.allot_shared(other, TON, world.row_terms(3 * HOUR, world.shares))),
        (pair[1], TON // 10, escrow.raise_allotment(pair[0], TON // 5)),
        (pair[1], TON // 10, escrow.withdraw(TON // 50)),
        (pair[1], TON // 5, escrow_rare.pay_shares(pair[0])),
        (pair[1], TON // 5, escrow_rare.rotate_voucher_key(bytes([9]) * 32)),
        (pair[1], TON // 5, escrow_rare.reclaim(other)),
    ):
        assert not world.send(client, account, value, body).failed
    entry = world.entry(pair[1], pair[0], TON // 4, key=key_of("second"), seq=5)
    claim = world.claim_external(pair[0], [ClaimEntry(pair[1], entry, NO_HASH)], key=key_of("second"))
    assert not world.ledger.send_external(claim).failed
    world.ledger.now += DAY
    assert not world.send(world.stranger, pair[1], TON // 5, escrow.finish()).failed
    assert not world.send(operator, pair[0], TON, node_rare.top_up_stake()).failed
    offer = node_rare.set_offer(Terms(bytes([7]) * 32, 1, 2, 3, 4, 5))
    assert not world.send(operator, pair[0], TON, offer).failed
    state = world.node(pair[0])
    assert state.signing_key is not None
    slash = node_rare.slash(state.epoch, state.signing_key, TON, 0, NO_HASH, client.account, world.payout)
    assert not world.tell(world.court, pair[0], world.fees.slash_need(), slash).failed
    return world, pair[0], pair[1]


def make_pair_shared(world: World) -> tuple[bytes, bytes]:
    node_account, trace = world.open_node()
    assert not trace.failed and not world.attest(node_account).failed
    first = escrow.FirstAllotment(node_account, 2 * TON, world.row_terms(shares=world.shares))
    value = world.fees.open_escrow(4 * TON, 2 * TON, shared=True)
    account, trace = world.open_escrow(first=first, value_nano=value)
    assert not trace.failed
    return node_account, account
