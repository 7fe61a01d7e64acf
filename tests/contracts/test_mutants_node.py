"""Borders of the node and of births that a mutation could move without any other test noticing."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from pytoniq_core.boc.address import Address
from test_escrow import code_of
from test_fees import claim_receipt_body
from test_node import one, raw_claim, refused

from chain.decode import decode_message
from devnet.ledger import Pending
from devnet.messages import transaction_messages
from devnet.trace import Trace
from scripts.stage import DAY, TON, Pair, World, account_of_name, key_of, public
from wrappers import addresses, claims, escrow, node, node_rare, registry, verdicts
from wrappers.addresses import Kind
from wrappers.cells import address_of
from wrappers.code import Contract, code_hash
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.signed import Claim, KeyConsent, sign

CELL_UNDERFLOW = 9


def longer(cell: Cell) -> Cell:
    return begin_cell().store_cell(cell).store_bit(0).end_cell()


def merkle_proof(inner: Cell) -> Cell:
    data = begin_cell().store_uint(3, 8).store_bytes(inner.hash).store_uint(inner.get_depth(0), 16).end_cell()
    return Cell(data.bits, [inner], 3)


# ------------------------------------------------------------------------------------------------ batch claims


def test_g10_a_claim_with_anything_more_than_what_is_signed_is_refused(world: World, pair: Pair) -> None:
    entries, roots = claims.batch(one(world, pair))
    until = world.ledger.now + 60
    claim = Claim(world.node(pair.node).node_id, 0, until, 1, 0, bytes(entries.hash), bytes(roots.hash))
    body = begin_cell().store_bytes(sign(claim, world.enclave_key)).store_uint(until, 32).store_uint(1, 8)
    body.store_uint(0, 64).store_uint(0, 32).store_ref(entries).store_ref(roots)
    head = begin_cell().store_uint(0b1000, 4).store_address(address_of(pair.node)).store_coins(0).store_uint(0b01, 2)
    for extra in (body.end_cell(), longer(body.end_cell())):
        message = begin_cell().store_cell(head.end_cell()).store_ref(extra).end_cell()
        if extra.bits.to01() == body.end_cell().bits.to01():
            snapshot = world.ledger.snapshot()
            assert not world.ledger.send_external(message).failed
            world.ledger.revert(snapshot)
        else:
            assert refused(world, message) == CELL_UNDERFLOW


def test_g4_every_claim_spends_the_next_seqno(world: World, pair: Pair) -> None:
    messages = []
    for seqno in (1, 2, 3):
        messages.append(world.claim_external(pair.node, one(world, pair, seqno * TON // 10)))
        assert not world.ledger.send_external(messages[-1]).failed
        assert world.node(pair.node).seqno == seqno
        for message in messages:
            assert refused(world, message) == ContractError.WRONG_SEQNO


@pytest.mark.parametrize("depth", [2, 3])
def test_g8_what_an_external_claim_can_carry_its_settlements_can_carry(world: World, pair: Pair, depth: int) -> None:
    """Merkle cells within each other are the one content that could stop a send; they stop the claim itself before."""
    nested = begin_cell().end_cell()
    for _ in range(depth):
        nested = merkle_proof(nested)
    good = one(world, pair)[0]
    entry_ids = begin_cell().store_bytes(account_of_name("nowhere")).store_bytes(good.escrow)
    spine = entry_ids.store_ref(nested).store_ref(good.entry.to_cell()).end_cell()
    message = raw_claim(world, pair, spine, begin_cell().end_cell(), 2)
    if depth > 2:
        assert refused(world, message) is None
        return
    tx = world.ledger.send_external(message).of(pair.node)[0]
    assert (tx.exit_code, tx.action_code, len(tx.out_msgs)) == (0, 0, 2)
    assert world.node(pair.node).earned_nano == TON


# ------------------------------------------------------------------------------------------------ single receipts


@pytest.mark.parametrize("part", ["body", "receipt", "signature", "entry"])
def test_g10_a_receipt_claim_is_read_to_its_end(world: World, pair: Pair, part: str) -> None:
    body = claim_receipt_body(world, pair)
    refs = list(body.refs)
    if part == "receipt":
        refs[0] = longer(refs[0])
        refs[1] = begin_cell().store_bytes(world.enclave_key.sign(refs[0].hash)).end_cell()
    elif part == "signature":
        refs[1] = longer(refs[1])
    elif part == "entry":
        refs[2] = longer(refs[2])
    message = begin_cell().store_bits(body.bits)
    for ref in refs:
        message.store_ref(ref)
    cell = longer(message.end_cell()) if part == "body" else message.end_cell()
    trace = world.send(world.stranger, pair.node, TON, cell)
    assert (trace.failed[0].account, code_of(trace)) == (pair.node, CELL_UNDERFLOW)


def test_g10_what_is_signed_as_something_else_is_no_receipt(world: World, pair: Pair) -> None:
    body = claim_receipt_body(world, pair)
    bits = body.refs[0].bits.to01()
    receipt = begin_cell().store_bits("0" * 32 + bits[32:])
    for ref in body.refs[0].refs:
        receipt.store_ref(ref)
    other = receipt.end_cell()
    message = begin_cell().store_bits(body.bits).store_ref(other)
    message.store_ref(begin_cell().store_bytes(world.enclave_key.sign(other.hash)).end_cell()).store_ref(body.refs[2])
    assert code_of(world.send(world.stranger, pair.node, TON, message.end_cell())) == ContractError.WRONG_RECEIPT


@pytest.mark.parametrize("index", [0, 2])
def test_g10_an_exotic_receipt_or_entry_is_refused_as_that(world: World, pair: Pair, index: int) -> None:
    body = claim_receipt_body(world, pair)
    refs = list(body.refs)
    refs[index] = merkle_proof(begin_cell().end_cell())
    refs[1] = begin_cell().store_bytes(world.enclave_key.sign(refs[0].hash)).end_cell()
    message = begin_cell().store_bits(body.bits)
    for ref in refs:
        message.store_ref(ref)
    assert code_of(world.send(world.stranger, pair.node, TON, message.end_cell())) == ContractError.EXOTIC_CELL


# ------------------------------------------------------------------------------------------------ keys and windows


def test_g3_a_key_that_had_expired_keeps_its_own_end_when_it_is_rotated(world: World, pair: Pair) -> None:
    end = world.node(pair.node).attested_until + 7 * DAY
    world.ledger.now += 3 * DAY
    assert not world.attest(pair.node, key_of("second")).failed
    assert world.node(pair.node).retired[public(world.enclave_key)].ends_at == end


def test_g3_a_retired_key_is_remembered_to_the_last_second_in_which_it_can_be_accused(world: World, pair: Pair) -> None:
    world.attest(pair.node, key_of("second"))
    challenge = world.parameters.challenge_window
    world.ledger.now = world.node(pair.node).retired[public(world.enclave_key)].ends_at + challenge
    world.attest(pair.node, key_of("third"))
    assert set(world.node(pair.node).retired) == {public(world.enclave_key), public(key_of("second"))}


def test_one_verdict_forgets_two_keys_and_no_more(world: World, pair: Pair) -> None:
    for i in range(4):
        world.attest(pair.node, key_of(f"key {i}"))
    world.ledger.now += 11 * DAY
    assert len(world.node(pair.node).retired) == 4
    world.attest(pair.node, key_of("new"))
    assert len(world.node(pair.node).retired) == 4 + 1 - 2
    world.attest(pair.node, key_of("newer"))
    assert len(world.node(pair.node).retired) == 3 + 1 - 2


def test_g10_a_verdict_for_no_key_is_refused(world: World, pair: Pair) -> None:
    before = world.node(pair.node)
    verdict = world.verdict(pair.node)
    assert code_of(verdict_trace(world, pair, replace(verdict, key=bytes(32)).to_cell())) == ContractError.OLD_VERDICT
    assert code_of(verdict_trace(world, pair, longer(verdict.to_cell()))) == CELL_UNDERFLOW
    assert world.node(pair.node) == before
    assert not verdict_trace(world, pair, verdict.to_cell()).failed


def verdict_trace(world: World, pair: Pair, verdict: Cell) -> Trace:
    """A verdict with this body and consent to the key that it names."""
    key = verdict.begin_parse()
    key.skip_bits(64)
    consent = sign(KeyConsent(world.node(pair.node).node_id, key.load_bytes(32)), world.release_key)
    message = begin_cell().store_uint(Op.VERDICT, 32).store_uint(0, 224).store_ref(verdict)
    message.store_maybe_ref(begin_cell().store_bytes(consent).end_cell())
    return world.tell(world.attestation, pair.node, TON, message.end_cell())


def test_g3_unbonding_does_not_prolong_the_claims_of_an_expired_key(world: World, pair: Pair) -> None:
    world.ledger.now += 3 * DAY
    assert not world.send(world.operator, pair.node, TON, node_rare.unbond()).failed
    world.ledger.now += 5 * DAY
    assert not world.settle_one(pair.escrow, pair.node, TON // 2).failed
    world.ledger.now += 1
    assert refused(world, world.claim_external(pair.node, one(world, pair))) == ContractError.KEY_ENDED


# ------------------------------------------------------------------------------------------------ messages and money


def test_every_message_to_a_node_is_read_to_its_end(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, None)
    verdict = verdicts.verdict(world.verdict(pair.node))
    cases = [
        (world.attestation, verdict),
        (pair.escrow, node.paid(2, world.client.account, 0, TON, 1)),
    ]
    snapshot = world.ledger.snapshot()
    for source, body in cases:
        assert code_of(world.tell(source, pair.node, TON, longer(body))) == CELL_UNDERFLOW
        world.ledger.revert(snapshot)
        assert not world.tell(source, pair.node, TON, body).failed
        world.ledger.revert(snapshot)
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    world.ledger.now += 10 * DAY
    assert (
        code_of(world.tell(world.operator.account, pair.node, TON, longer(node_rare.withdraw_stake())))
        == CELL_UNDERFLOW
    )
    assert not world.tell(world.operator.account, pair.node, TON, node_rare.withdraw_stake()).failed


@pytest.mark.parametrize("above", [0, 1])
def test_earnings_leave_when_they_pass_the_threshold(world: World, pair: Pair, above: int) -> None:
    state = world.node(pair.node)
    keep = state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    value = keep + world.parameters.payout_threshold_nano + above - world.ledger.balance(pair.node)
    body = node.paid(2, world.client.account, 0, value, 1)
    trace = world.tell(pair.escrow, pair.node, value, body)
    assert not trace.failed
    assert len(trace.of(pair.node)[0].out_msgs) == above
    assert world.node(pair.node).requests == state.requests + 1


def test_g8_a_born_node_holds_stake_rent_and_gas(world: World) -> None:
    account, trace = world.open_node()
    assert not trace.failed
    state = world.node(account)
    wanted = state.stake_nano + state.rent_reserve_nano + state.gas_level_nano
    assert wanted <= world.ledger.balance(account) <= wanted + world.fees.prices.gas(7_500)
    assert state.rent_reserve_nano == world.fees.node_rent()


# ------------------------------------------------------------------------------------------------ births


@pytest.mark.parametrize("amount", [None, 1])
def test_g8_opening_an_account_costs_what_the_formula_says(world: World, amount: int | None) -> None:
    first = None if amount is None else escrow.FirstAllotment(account_of_name("n"), amount, world.row_terms())
    need = world.fees.open_escrow(0, amount)
    snapshot = world.ledger.snapshot()
    _, trace = world.open_escrow(value_nano=need - 1, first=first)
    assert trace.failed[0].exit_code == ContractError.LOW_VALUE
    world.ledger.revert(snapshot)
    account, trace = world.open_escrow(value_nano=need, first=first)
    assert not trace.failed
    assert world.escrow(account).deposit_nano >= world.parameters.min_deposit_nano


def test_every_message_to_the_registry_is_read_to_its_end(world: World, pair: Pair) -> None:
    config = escrow.EscrowConfig(public(world.voucher_key))
    node_config = node.NodeConfig(world.operator.account, world.payout, public(world.release_key))
    bodies = [
        registry.open_escrow(code_hash(Contract.ESCROW), 5, config),
        registry.open_node(code_hash(Contract.NODE), 5, node_config),
    ]
    for body in bodies:
        trace = world.send(world.governor, world.registry, 9 * TON, longer(body))
        assert code_of(trace) == CELL_UNDERFLOW
        assert not world.send(world.governor, world.registry, 9 * TON, body).failed


def test_a_first_allotment_is_read_to_its_end(world: World) -> None:
    first = escrow.FirstAllotment(account_of_name("n"), TON, world.row_terms())
    config = begin_cell().store_bytes(public(world.voucher_key)).store_bit(1).store_ref(longer(first.to_cell()))
    body = begin_cell().store_uint(Op.OPEN_ESCROW, 32).store_bytes(code_hash(Contract.ESCROW)).store_uint(0, 32)
    trace = world.send(world.client, world.registry, 3 * TON, body.store_ref(config.end_cell()).end_cell())
    assert code_of(trace) == CELL_UNDERFLOW


def stub(world: World) -> bytes:
    account = addresses.child_address(world.registry, Kind.ESCROW, world.client.account, 7)
    init = addresses.stub_state_init(world.registry, Kind.ESCROW, world.client.account, 7)
    world.ledger.send_internal(
        source=world.stranger.account, destination=account, value_nano=TON, state_init=init, body=None
    )
    return account


def test_g3_a_stub_answers_no_bounced_message(world: World) -> None:
    account = stub(world)
    trace = world.ledger.send_internal(
        source=world.stranger.account, destination=account, value_nano=TON, body=None, bounce=False, bounced=True
    )
    assert len(trace.transactions) == 1 and not trace.transactions[0].out_msgs


def test_g10_a_stub_takes_no_init_from_the_registrys_id_in_the_masterchain(world: World) -> None:
    account = stub(world)
    before = world.ledger.account(account).data
    other, trace = world.open_escrow(index=8)
    genuine = trace.of(other)[0].in_msg
    assert genuine is not None and genuine.body is not None
    message = begin_cell().store_uint(0b0110, 4).store_address(Address((-1, world.registry)))
    message.store_address(address_of(account)).store_coins(3 * TON).store_bit(0).store_coins(0).store_coins(0)
    message.store_uint(world.ledger.lt + 1, 64).store_uint(world.ledger.now, 32).store_bit(0).store_bit(1)
    cell = message.store_ref(genuine.body).end_cell()
    world.ledger.queue.append(Pending(cell, decode_message(cell)))
    trace = world.ledger.run()
    (tx,) = trace.of(account)
    assert (tx.exit_code, len(tx.out_msgs)) == (ContractError.NOT_ALLOWED, 1), "the money goes back"
    after = world.ledger.account(account).data
    assert before is not None and after is not None and after.hash == before.hash


def test_g10_a_stub_takes_nothing_but_init_from_its_registry(world: World) -> None:
    account = stub(world)
    before = world.ledger.account(account).data
    body = begin_cell().store_uint(Op.VERDICT, 32).store_ref(begin_cell().end_cell()).store_ref(begin_cell().end_cell())
    (tx,) = world.tell(world.registry, account, TON, body.end_cell()).of(account)
    assert (tx.exit_code, len(tx.out_msgs)) == (ContractError.UNKNOWN_OP, 1)
    after = world.ledger.account(account).data
    assert before is not None and after is not None and after.hash == before.hash


def test_a_first_verdict_retires_nothing(world: World) -> None:
    account, _ = world.open_node()
    assert not world.attest(account).failed
    assert world.node(account).retired == {}


# ------------------------------------------------------------------------------------------------ bounces


def bounces(trace: Trace, sender: bytes) -> list[bool]:
    """Bounce flag of each message that the account sent."""
    cells = [cell for tx in trace.of(sender) for cell in transaction_messages(tx.cell)[1]]
    return [cell.bits.to01()[2] == "1" for cell in cells]


def test_g7_messages_between_contracts_bounce_and_births_and_payouts_do_not(world: World) -> None:
    account, trace = world.open_node()
    assert bounces(trace, world.registry) == [False], "init: the money stays at the owner's own address"
    assert not world.attest(account).failed
    first = escrow.FirstAllotment(account, TON, world.row_terms())
    opened, trace = world.open_escrow(first=first)
    assert bounces(trace, world.registry) == [False]
    trace = world.settle_one(opened, account, TON)
    assert bounces(trace, account) == [True, False], "settle, then the payout"
    assert bounces(trace, opened) == [True], "paid"
    body = claim_receipt_body(world, Pair(account, opened))
    trace = world.send(world.stranger, account, TON, body)
    assert bounces(trace, account)[:1] == [True]
    trace = world.send(world.client, opened, TON, escrow.close())
    assert bounces(trace, opened) == [False]
