"""Node: consent to keys, standing, slashing, jobs, and what the operator chooses: messages that bring their program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from pytoniq_core import Cell, begin_cell
from test_escrow import code_of
from test_fees import acceptance_body, claim_receipt_body
from test_node import one, refused

from attestation.onchain.state import VerifierState
from devnet.trace import Trace
from scripts.stage import DAY, TON, Pair, World, account_of_name, built_world, key_of, make_pair, public
from wrappers import claims, node, node_rare, registry, verdicts
from wrappers.code import Contract, code_hash, rare_program
from wrappers.errors import ContractError
from wrappers.gas import Gas
from wrappers.ops import Op
from wrappers.receipts import Terms
from wrappers.signed import Acceptance, KeyConsent, Notary, job_id, sign

IMAGE, MACHINE = b"\x11" * 32, b"\x22" * 32
ESCROW, REPORTER, TREASURY = (account_of_name(name) for name in ("harmed", "reporter", "treasury"))


def told(world: World, pair: Pair, body: verdicts.VerdictBody, consent: bytes | None) -> int | None:
    trace = world.tell(world.attestation, pair.node, TON, verdicts.verdict(body, consent))
    return code_of(trace) if trace.failed else None


# ------------------------------------------------------------------------------------------------ programs


def test_g10_only_the_program_that_the_code_names_is_run(world: World, pair: Pair) -> None:
    good = node_rare.unbond()
    program = rare_program(Contract.NODE)
    changed = begin_cell().store_bits(program.bits)
    for index, ref in enumerate(program.refs):
        changed.store_ref(ref if index else begin_cell().end_cell())
    before = world.node(pair.node)
    for wrong in (changed.end_cell(), rare_program(Contract.ESCROW), begin_cell().end_cell()):
        body = begin_cell().store_bits(good.bits).store_ref(wrong).end_cell()
        assert code_of(world.send(world.operator, pair.node, TON, body)) == ContractError.UNKNOWN_OP
    bare = begin_cell().store_bits(good.bits).end_cell()
    assert code_of(world.send(world.operator, pair.node, TON, bare)) == ContractError.UNKNOWN_OP
    pruned = begin_cell().store_uint(1, 8).store_uint(1, 8).store_bytes(program.hash)
    exotic = Cell(pruned.store_uint(program.get_depth(0), 16).end_cell().bits, [], 1)
    assert bytes(exotic.hash) != bytes(program.hash)
    assert world.node(pair.node) == before
    assert not world.send(world.operator, pair.node, TON, good).failed


def test_a_program_runs_no_op_that_it_does_not_know(world: World, pair: Pair) -> None:
    body = begin_cell().store_uint(0x12345678, 32).store_ref(rare_program(Contract.NODE)).end_cell()
    trace = world.send(world.stranger, pair.node, TON, body)
    assert code_of(trace) == ContractError.UNKNOWN_OP and trace.failed[0].out_msgs[0].bounced


# ------------------------------------------------------------------------------------------------ keys


def test_g10_a_key_without_the_operators_consent_is_refused(world: World, pair: Pair) -> None:
    thief = key_of("thief")
    before = world.node(pair.node)
    verdict = world.verdict(pair.node, thief)
    good = KeyConsent(before.node_id, public(thief))
    wrong = [
        None,
        sign(good, world.enclave_key),
        sign(replace(good, key=public(world.enclave_key)), world.release_key),
        sign(replace(good, node=account_of_name("other")), world.release_key),
    ]
    for consent in wrong:
        assert told(world, pair, verdict, consent) == ContractError.NO_CONSENT
    assert world.node(pair.node) == before
    assert told(world, pair, verdict, sign(good, world.release_key)) is None


def test_g10_the_first_key_needs_consent_too(world: World) -> None:
    account, _ = world.open_node()
    pair = Pair(account, account)
    assert told(world, pair, world.verdict(account), None) == ContractError.NO_CONSENT
    assert world.node(account).signing_key is None
    assert told(world, pair, world.verdict(account), world.consent(account)) is None


def test_the_active_key_is_extended_without_consent(world: World, pair: Pair) -> None:
    assert told(world, pair, world.verdict(pair.node), None) is None


@pytest.mark.parametrize("name", [None, "second"])
def test_g10_a_node_stays_on_its_first_machine(world: World, pair: Pair, name: str | None) -> None:
    key = key_of(name) if name else None
    verdict = replace(world.verdict(pair.node, key), platform=b"\x33" * 32)
    assert told(world, pair, verdict, world.consent(pair.node, key)) == ContractError.WRONG_PLATFORM


def test_g12_a_key_keeps_the_image_that_it_was_attested_with(world: World, pair: Pair) -> None:
    verdict = replace(world.verdict(pair.node), measurement=b"\x33" * 32)
    assert told(world, pair, verdict, world.consent(pair.node)) == ContractError.DEAD_KEY
    world.attest(pair.node, key_of("second"))
    verdict = replace(world.verdict(pair.node), measurement=b"\x33" * 32)
    assert told(world, pair, verdict, world.consent(pair.node)) == ContractError.DEAD_KEY
    assert not world.attest(pair.node).failed


def test_a_new_image_comes_with_a_new_key_and_the_old_ones_image_is_remembered(world: World, pair: Pair) -> None:
    second = key_of("second")
    verdict = replace(world.verdict(pair.node, second), measurement=b"\x33" * 32)
    assert told(world, pair, verdict, world.consent(pair.node, second)) is None
    state = world.node(pair.node)
    assert state.measurement == b"\x33" * 32
    assert state.retired[public(world.enclave_key)].measurement == IMAGE


# ------------------------------------------------------------------------------------------------ standing


def stands(world: World, pair: Pair, status: int, image: bytes = IMAGE, machine: bytes = MACHINE) -> None:
    trace = world.tell(world.attestation, pair.node, TON, node_rare.standing(image, machine, status))
    assert not trace.failed


def test_g10_only_attestation_tells_how_a_node_stands(world: World, pair: Pair) -> None:
    body = node_rare.standing(IMAGE, MACHINE, 4)
    for wallet in (world.operator, world.client, world.stranger):
        assert code_of(world.send(wallet, pair.node, TON, body)) == ContractError.NOT_ALLOWED


@pytest.mark.parametrize("status", [1, 2, 4, 8])
def test_g12_any_fault_ends_the_term_and_leaves_the_window(world: World, pair: Pair, status: int) -> None:
    stands(world, pair, status)
    state, key = world.node(pair.node), public(world.enclave_key)
    assert state.claims_until == world.ledger.now + 7 * DAY
    assert not state.key_attested(key, world.ledger.now + 1)
    assert state.key_claimable(key, world.ledger.now + 7 * DAY)
    assert state.acked_only == (status in (2, 4))
    world.ledger.now += DAY
    stands(world, pair, status)
    assert world.node(pair.node).claims_until == state.claims_until, "told again, it prolongs nothing"


@pytest.mark.parametrize(
    ("status", "image", "machine"),
    [(0, IMAGE, MACHINE), (3, b"\x33" * 32, MACHINE), (12, IMAGE, b"\x33" * 32), (15, b"\x33" * 32, b"\x44" * 32)],
)
def test_g20_what_stands_or_concerns_another_changes_nothing(
    world: World, pair: Pair, status: int, image: bytes, machine: bytes
) -> None:
    before = world.node(pair.node)
    stands(world, pair, status, image, machine)
    assert world.node(pair.node) == before


def test_a_node_that_was_never_attested_has_no_standing(world: World) -> None:
    account, _ = world.open_node()
    before = world.node(account)
    stands(world, Pair(account, account), 15)
    assert world.node(account) == before


def test_g5_under_a_compromised_image_only_what_was_acknowledged_is_paid(world: World, pair: Pair) -> None:
    stands(world, pair, 2)
    entry = world.entry(pair.escrow, pair.node, TON, acked=TON // 4)
    item = claims.ClaimEntry(pair.escrow, entry, bytes(32))
    assert not world.claim(pair.node, [item]).failed
    assert world.node(pair.node).earned_nano == TON // 4


def test_g5_a_single_receipt_of_a_compromised_key_is_paid_up_to_the_acknowledged(world: World, pair: Pair) -> None:
    body = claim_receipt_body(world, pair)
    world.attest(pair.node, key_of("second"))
    stands(world, pair, 4)
    assert world.node(pair.node).retired[public(world.enclave_key)].acked_only
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.NOTHING_DUE
    assert world.node(pair.node).earned_nano == 0


def test_g12_an_image_that_was_replaced_and_then_compromised_taints_its_keys_alone(world: World, pair: Pair) -> None:
    second = key_of("second")
    verdict = replace(world.verdict(pair.node, second), measurement=b"\x33" * 32)
    assert told(world, pair, verdict, world.consent(pair.node, second)) is None
    before = world.node(pair.node)
    stands(world, pair, 2)
    state = world.node(pair.node)
    assert state.retired[public(world.enclave_key)].acked_only and not state.acked_only
    assert state.claims_until == before.claims_until


def test_g12_a_compromised_key_never_comes_back(world: World, pair: Pair) -> None:
    stands(world, pair, 2)
    assert told(world, pair, world.verdict(pair.node), None) == ContractError.DEAD_KEY
    assert not world.attest(pair.node, key_of("second")).failed
    state = world.node(pair.node)
    assert state.retired[public(world.enclave_key)].acked_only and not state.acked_only
    assert code_of(world.attest(pair.node)) == ContractError.DEAD_KEY


# ------------------------------------------------------------------------------------------------ slashing


def slashed(world: World, pair: Pair, penalty: int = 0, harm: int = 0, **changes: bytes | int) -> Trace:
    epoch, key = world.node(pair.node).epoch, public(world.enclave_key)
    facts = {"epoch": epoch, "key": key} | changes
    body = node_rare.slash(
        int(facts["epoch"]),
        bytes(facts["key"]),
        penalty,
        harm,
        ESCROW,
        REPORTER,
        TREASURY,  # type: ignore[arg-type]
    )
    return world.tell(world.court, pair.node, world.fees.slash_need(), body)


def parts(world: World, trace: Trace) -> dict[bytes, int]:
    """What left the node for each account, forwarding fees included."""
    node_transaction = trace.transactions[0]
    return {message.destination: message.value_nano for message in node_transaction.out_msgs}


def test_g10_only_the_court_slashes(world: World, pair: Pair) -> None:
    body = node_rare.slash(world.node(pair.node).epoch, public(world.enclave_key), 0, 0, ESCROW, REPORTER, TREASURY)
    for source in (world.governor.account, world.attestation, world.registry, pair.escrow, world.operator.account):
        assert code_of(world.tell(source, pair.node, TON, body)) == ContractError.NOT_ALLOWED


@pytest.mark.parametrize("harm", [0, TON, 100 * TON])
def test_g1_a_whole_stake_goes_to_harmed_reporter_and_treasury(world: World, pair: Pair, harm: int) -> None:
    before = world.node(pair.node)
    held = world.ledger.balance(pair.node)
    trace = slashed(world, pair, harm=harm)
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    stake = before.stake_nano
    to_escrow, reward = min(harm, stake // 2), stake // 10
    fee = world.fees.prices.forward(0, 0)
    sent = parts(world, trace)
    assert sent.get(ESCROW, 0) == (to_escrow - fee if harm else 0)
    assert sent[TREASURY] == stake - to_escrow - reward - fee
    assert reward - fee <= sent[REPORTER] < reward + world.fees.slash_need()
    assert sent[world.attestation] == world.fees.prices.gas(Gas.OWN_PLATFORM) - fee
    state = world.node(pair.node)
    assert world.ledger.balance(pair.node) == held - stake, "the rest of the node's money is as it was"
    assert (state.stake_nano, state.rent_reserve_nano) == (0, before.rent_reserve_nano)
    assert state.unbond_at == world.ledger.now and state.acked_only
    assert state.claims_until == world.ledger.now + 7 * DAY


def test_g4_a_slash_takes_the_stake_once(world: World, pair: Pair) -> None:
    slashed(world, pair)
    held, before = world.ledger.balance(pair.node), world.node(pair.node)
    trace = slashed(world, pair)
    assert not trace.failed and set(parts(world, trace)) == {REPORTER}
    assert (world.ledger.balance(pair.node), world.node(pair.node)) == (held, before)


def test_a_missed_job_costs_its_amount_and_no_more(world: World, pair: Pair) -> None:
    before = world.node(pair.node)
    trace = slashed(world, pair, penalty=2 * TON)
    assert not trace.failed and set(parts(world, trace)) == {REPORTER, TREASURY}
    state = world.node(pair.node)
    assert replace(state, stake_nano=before.stake_nano) == before
    assert state.stake_nano == before.stake_nano - 2 * TON
    assert parts(world, trace)[TREASURY] == 2 * TON - TON // 5 - world.fees.prices.forward(0, 0)


def test_a_penalty_above_the_stake_takes_the_stake(world: World, pair: Pair) -> None:
    trace = slashed(world, pair, penalty=1_000_000 * TON)
    assert not trace.failed and world.node(pair.node).stake_nano == 0
    assert world.node(pair.node).unbond_at == 0


@pytest.mark.parametrize("penalty", [1, 399_999, 400_000, 4_000_000])
def test_g7_parts_too_small_to_travel_go_to_the_reporter(world: World, pair: Pair, penalty: int) -> None:
    held, stake = world.ledger.balance(pair.node), world.node(pair.node).stake_nano
    trace = slashed(world, pair, penalty=penalty)
    assert not trace.failed
    assert world.node(pair.node).stake_nano == stake - penalty
    assert world.ledger.balance(pair.node) == held - penalty


@pytest.mark.parametrize(
    "change", [{"epoch": 1}, {"key": b"\x77" * 32}, {"key": bytes(32)}], ids=["epoch", "key", "no key"]
)
def test_g4_what_is_not_this_nodes_costs_it_nothing(world: World, pair: Pair, change: dict[str, bytes | int]) -> None:
    held, before = world.ledger.balance(pair.node), world.node(pair.node)
    trace = slashed(world, pair, **change)
    assert not trace.failed and set(parts(world, trace)) == {REPORTER}
    assert (world.ledger.balance(pair.node), world.node(pair.node)) == (held, before)


def test_a_retired_key_answers_for_what_it_signed(world: World, pair: Pair) -> None:
    world.attest(pair.node, key_of("second"))
    world.ledger.now += 8 * DAY
    assert not slashed(world, pair).failed
    state = world.node(pair.node)
    assert state.stake_nano == 0 and state.acked_only and all(key.acked_only for key in state.retired.values())


def test_g3_a_slash_while_unbonding_moves_no_window(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    before = world.node(pair.node)
    world.ledger.now += DAY
    assert not slashed(world, pair).failed
    state = world.node(pair.node)
    assert (state.unbond_at, state.claims_until) == (before.unbond_at, before.claims_until)
    assert state.withdrawable_at is not None
    world.ledger.now = state.withdrawable_at
    assert not world.send(world.operator, pair.node, TON, node_rare.withdraw_stake()).failed
    assert not world.alive(pair.node)


def test_g7_a_slash_reaches_accounts_that_do_not_exist(world: World, pair: Pair) -> None:
    trace = slashed(world, pair, harm=TON)
    assert not trace.failed
    assert not any(message.bounced for tx in trace.transactions for message in tx.out_msgs)
    assert world.ledger.balance(TREASURY) > TON


# ------------------------------------------------------------------------------------------------ jobs


SPEC = b"\x61" * 32


def acceptance(world: World, pair: Pair, job: bytes, epoch: int, key: object = None) -> Cell:
    signer = key or world.enclave_key
    signed = Acceptance(job_id(world.network, job, epoch, SPEC), world.node(pair.node).node_id)
    return node_rare.accept_job(job, epoch, SPEC, public(signer), sign(signed, signer))  # type: ignore[arg-type]


def test_an_acceptance_reaches_the_job_with_who_accepted(world: World, pair: Pair) -> None:
    job = account_of_name("job")
    trace = world.send(world.stranger, pair.node, TON, acceptance(world, pair, job, 7))
    (message,) = trace.of(pair.node)[0].out_msgs
    body = message.body.begin_parse()
    assert message.destination == job and message.value_nano > TON * 9 // 10
    assert (body.load_uint(32), body.load_bytes(32)) == (Op.ACCEPTED, job_id(world.network, job, 7, SPEC))
    assert body.load_uint(64) == world.node(pair.node).epoch
    assert body.load_bytes(32) == public(world.enclave_key)
    assert body.load_bytes(32) == bytes(rare_program(Contract.NODE).hash)


def test_g10_an_acceptance_is_for_one_job_of_one_birth_and_by_the_serving_key(world: World, pair: Pair) -> None:
    job, thief = account_of_name("job"), key_of("thief")
    good = Acceptance(job_id(world.network, job, 7, SPEC), world.node(pair.node).node_id)
    key = public(world.enclave_key)
    for wrong in (replace(good, job=bytes(32)), replace(good, node=bytes(32))):
        body = node_rare.accept_job(job, 7, SPEC, key, sign(wrong, world.enclave_key))
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.BAD_SIGNATURE
    signature = sign(good, world.enclave_key)
    for account, epoch, spec in ((job, 8, SPEC), (account_of_name("other"), 7, SPEC), (job, 7, bytes(32))):
        body = node_rare.accept_job(account, epoch, spec, key, signature)
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.BAD_SIGNATURE
    assert code_of(world.send(world.stranger, pair.node, TON, acceptance(world, pair, job, 7, thief))) == (
        ContractError.NOT_SERVING
    )


def retire(world: World, pair: Pair) -> None:
    world.attest(pair.node, key_of("second"))


def expire(world: World, pair: Pair) -> None:
    world.ledger.now = world.node(pair.node).attested_until + 1


def unbond(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.unbond())


def compromise(world: World, pair: Pair) -> None:
    stands(world, pair, 2)


def test_a_key_accepts_to_the_last_second_of_its_attestation(world: World, pair: Pair) -> None:
    body = acceptance(world, pair, account_of_name("job"), 7)
    world.ledger.now = world.node(pair.node).attested_until
    snapshot = world.ledger.snapshot()
    world.ledger.now += 1
    assert code_of(world.tell(world.stranger.account, pair.node, TON, body)) == ContractError.NOT_SERVING
    world.ledger.revert(snapshot)
    accepted = world.tell(world.stranger.account, pair.node, TON, body)
    assert accepted.of(pair.node)[0].exit_code == 0


@pytest.mark.parametrize("end", [retire, expire, unbond, compromise])
def test_a_key_that_does_not_serve_accepts_nothing(
    world: World, pair: Pair, end: Callable[[World, Pair], None]
) -> None:
    end(world, pair)
    body = acceptance(world, pair, account_of_name("job"), 7)
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.NOT_SERVING


def test_g8_an_acceptance_brings_what_it_and_the_job_need(world: World, pair: Pair) -> None:
    need, body, held = world.fees.accept_job(), acceptance_body(world, pair), world.ledger.balance(pair.node)
    trace = world.tell(REPORTER, pair.node, need - 1, body)
    assert code_of(trace) == ContractError.LOW_VALUE and world.ledger.balance(pair.node) == held
    trace = world.tell(REPORTER, pair.node, need, body)
    (message,) = trace.of(pair.node)[0].out_msgs
    assert message.value_nano >= world.fees.prices.gas(Gas.ACCEPTED) + world.fees.prices.forward(0, 0)


def test_an_acceptance_is_read_to_its_end(world: World, pair: Pair) -> None:
    body = acceptance_body(world, pair)
    longer = begin_cell().store_bits(body.bits).store_bit(0)
    for ref in body.refs:
        longer.store_ref(ref)
    assert world.tell(REPORTER, pair.node, TON, longer.end_cell()).of(pair.node)[0].exit_code == 9
    assert world.tell(REPORTER, pair.node, TON, body).of(pair.node)[0].exit_code == 0


def test_a_job_that_is_none_sends_the_money_into_the_reserve(world: World, pair: Pair) -> None:
    before, held = world.node(pair.node), world.ledger.balance(pair.node)
    trace = world.tell(REPORTER, pair.node, TON, acceptance(world, pair, account_of_name("nobody"), 7))
    assert world.node(pair.node) == before and trace.total_fees_nano == trace.balance_delta_nano
    assert world.ledger.balance(pair.node) > held


# ------------------------------------------------------------------------------------------------ notary


def notarise(world: World, pair: Pair) -> Cell:
    signed = Notary(world.node(pair.node).node_id, b"\x55" * 32)
    return node_rare.notarise(b"\x55" * 32, public(world.enclave_key), sign(signed, world.enclave_key))


@pytest.mark.parametrize("rotated", [False, True])
def test_a_notarised_hash_stands_in_the_chains_history(world: World, pair: Pair, rotated: bool) -> None:
    body = notarise(world, pair)
    if rotated:
        world.attest(pair.node, key_of("second"))
    held = world.ledger.balance(pair.node)
    trace = world.send(world.stranger, pair.node, TON, body)
    assert not trace.failed and world.ledger.balance(pair.node) == held
    node_id = world.node(pair.node).node_id
    event = begin_cell().store_uint(Op.NOTARISED, 32).store_bytes(node_id).store_bytes(public(world.enclave_key))
    outgoing = [bytes(cell.hash) for cell in external_bodies(trace, pair.node)]
    assert outgoing == [bytes(event.store_bytes(b"\x55" * 32).end_cell().hash)]


def external_bodies(trace: Trace, account: bytes) -> list[Cell]:
    found = []
    for message in trace.of(account)[0].out_msgs:
        if message.destination is None:
            found.append(message.body)
    return found


@pytest.mark.parametrize("end", [expire, compromise])
def test_g10_what_a_node_did_not_sign_or_a_dead_key_signed_is_not_notarised(
    world: World, pair: Pair, end: Callable[[World, Pair], None]
) -> None:
    signed = Notary(world.node(pair.node).node_id, b"\x55" * 32)
    key, thief = public(world.enclave_key), key_of("thief")
    cases = [
        (node_rare.notarise(b"\x55" * 32, key, sign(replace(signed, node=bytes(32)), world.enclave_key)), 105),
        (node_rare.notarise(b"\x66" * 32, key, sign(signed, world.enclave_key)), 105),
        (node_rare.notarise(b"\x55" * 32, public(thief), sign(signed, thief)), ContractError.KEY_ENDED),
    ]
    for body, error in cases:
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == error
    body = notarise(world, pair)
    end(world, pair)
    world.ledger.now += 7 * DAY
    dead = ContractError.DEAD_KEY if end is compromise else ContractError.KEY_ENDED
    assert code_of(world.send(world.stranger, pair.node, TON, body)) == dead


# ------------------------------------------------------------------------------------------------ settings

TERMS = Terms(b"\x0a" * 32, 1, 2, 3, 4, 5)


def offered(world: World, pair: Pair, terms: Terms = TERMS) -> Trace:
    return world.send(world.operator, pair.node, TON, node_rare.set_offer(terms))


def test_g10_nobody_but_the_controller_chooses(world: World, pair: Pair) -> None:
    before = world.node(pair.node)
    bodies = [
        node_rare.offer_controller(world.stranger.account),
        node_rare.accept_controller(),
        node_rare.offer_payout(world.stranger.account),
        node_rare.accept_payout(),
        node_rare.set_release_key(bytes(32)),
        node_rare.set_offer(TERMS),
        node_rare.drop_offer(TERMS.model),
        node_rare.drain(True),
    ]
    for body in bodies:
        assert code_of(world.send(world.stranger, pair.node, TON, body)) == ContractError.NOT_ALLOWED
    assert world.node(pair.node) == before


def test_a_controller_hands_over_in_two_steps(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.offer_controller(world.client.account))
    assert world.node(pair.node).controller == world.operator.account
    assert code_of(world.send(world.stranger, pair.node, TON, node_rare.accept_controller())) == (
        ContractError.NOT_ALLOWED
    )
    assert not world.send(world.client, pair.node, TON, node_rare.accept_controller()).failed
    state = world.node(pair.node)
    assert state.controller == world.client.account
    assert state.extras is not None and state.extras.new_controller is None
    assert code_of(world.send(world.operator, pair.node, TON, node_rare.unbond())) == ContractError.NOT_ALLOWED
    assert code_of(world.send(world.client, pair.node, TON, node_rare.accept_controller())) == (
        ContractError.NOT_ALLOWED
    ), "an offer is taken once"


def test_a_payout_address_is_one_that_said_so_itself(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.offer_payout(world.client.account))
    assert world.node(pair.node).payout == world.payout
    world.send(world.operator, pair.node, TON, node_rare.offer_payout(None))
    assert code_of(world.send(world.client, pair.node, TON, node_rare.accept_payout())) == ContractError.NOT_ALLOWED
    world.send(world.operator, pair.node, TON, node_rare.offer_payout(world.client.account))
    assert not world.send(world.client, pair.node, TON, node_rare.accept_payout()).failed
    before = world.ledger.balance(world.client.account)
    assert not world.settle_one(pair.escrow, pair.node, TON).failed
    assert world.ledger.balance(world.client.account) > before + TON * 9 // 10


def test_a_new_release_key_consents_from_then_on(world: World, pair: Pair) -> None:
    other, second = key_of("release 2"), key_of("second")
    state = world.node(pair.node)
    assert not world.send(world.operator, pair.node, TON, node_rare.set_release_key(public(other))).failed
    assert world.node(pair.node).extras is None
    assert code_of(world.attest(pair.node, second)) == ContractError.NO_CONSENT
    consent = sign(KeyConsent(state.node_id, public(second)), other)
    assert told(world, pair, world.verdict(pair.node, second), consent) is None


def test_offers_are_read_by_model_replaced_and_dropped(world: World, pair: Pair) -> None:
    dearer = replace(TERMS, prompt_price=100)
    assert not offered(world, pair).failed and not offered(world, pair, dearer).failed
    assert world.node(pair.node).offers == {TERMS.model: dearer}
    assert not world.send(world.operator, pair.node, TON, node_rare.drop_offer(TERMS.model)).failed
    assert world.node(pair.node).offers == {}
    trace = world.send(world.operator, pair.node, TON, node_rare.drop_offer(TERMS.model))
    assert code_of(trace) == ContractError.NO_OFFER


def test_a_node_has_sixteen_offers_at_most_and_each_pays_its_rent(world: World, pair: Pair) -> None:
    before = world.node(pair.node)
    held = world.ledger.balance(pair.node)
    for index in range(16):
        assert not offered(world, pair, replace(TERMS, model=bytes([index]) * 32)).failed
    state = world.node(pair.node)
    assert len(state.offers) == 16 and state.stake_nano == before.stake_nano
    rent = state.rent_reserve_nano - before.rent_reserve_nano
    assert world.ledger.balance(pair.node) == held + rent
    assert code_of(offered(world, pair, replace(TERMS, model=b"\x99" * 32))) == ContractError.TOO_MANY_OFFERS
    assert not offered(world, pair, replace(TERMS, model=bytes(32), minimum_nano=9)).failed
    assert world.node(pair.node).rent_reserve_nano == state.rent_reserve_nano


def test_g18_an_offer_is_terms_of_its_model_and_nothing_else(world: World, pair: Pair) -> None:
    program = rare_program(Contract.NODE)
    good = TERMS.to_cell()
    longer = begin_cell().store_cell(good).store_bit(0).end_cell()
    deeper = begin_cell().store_cell(good).store_ref(begin_cell().end_cell()).end_cell()
    library = Cell(begin_cell().store_uint(2, 8).store_bytes(bytes(32)).end_cell().bits, [], 2)
    cases = [(TERMS.model, longer), (TERMS.model, deeper), (bytes(32), good), (TERMS.model, library)]
    for model, terms in cases:
        body = begin_cell().store_uint(Op.SET_OFFER, 32).store_bytes(model).store_ref(terms).store_ref(program)
        trace = world.send(world.operator, pair.node, TON, body.end_cell())
        assert code_of(trace) in (ContractError.BAD_TERMS, ContractError.EXOTIC_CELL)
    assert world.node(pair.node).extras is None


def test_drain_is_a_flag_that_can_be_taken_back(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, node_rare.drain(True))
    assert world.node(pair.node).draining
    world.send(world.operator, pair.node, TON, node_rare.drain(False))
    assert not world.node(pair.node).draining


def test_what_a_setting_leaves_over_goes_back_to_who_sent_it(world: World, pair: Pair) -> None:
    held = world.ledger.balance(pair.node)
    trace = world.tell(world.operator.account, pair.node, TON, node_rare.drain(True))
    rent = world.ledger.balance(pair.node) - held
    assert rent == world.fees.change_setting(extras=False) - world.fees.change_setting()
    (back,) = trace.transactions[0].out_msgs
    assert back.destination == world.operator.account and not trace.failed
    assert back.value_nano > TON * 95 // 100 - rent


# ------------------------------------------------------------------------------------------------ ends


def test_the_machine_is_released_with_the_stake(world: World, pair: Pair) -> None:
    unbond(world, pair)
    state = world.node(pair.node)
    assert state.withdrawable_at is not None
    world.ledger.now = state.withdrawable_at
    trace = world.send(world.operator, pair.node, TON, node_rare.withdraw_stake())
    first, second = trace.of(pair.node)[0].out_msgs
    assert first.destination == world.attestation
    body = first.body.begin_parse()
    assert (body.load_uint(32), body.load_bytes(32)) == (Op.RELEASE_PLATFORM, MACHINE)
    assert second.destination == world.payout and not world.alive(pair.node)


def test_g8_a_node_is_born_without_extras(world: World) -> None:
    """They pay their rent when they are made."""
    config = node.NodeConfig(world.operator.account, world.payout, bytes(32), node.NodeExtras(draining=True))
    body = registry.open_node(code_hash(Contract.NODE), 3, config)
    trace = world.send(world.operator, world.registry, 9 * TON, body)
    assert code_of(trace) == ContractError.BAD_TERMS


def test_a_node_that_was_never_attested_releases_no_machine(world: World) -> None:
    account, _ = world.open_node()
    world.send(world.operator, account, TON, node_rare.unbond())
    world.ledger.now += 9 * DAY
    trace = world.send(world.operator, account, TON, node_rare.withdraw_stake())
    (only,) = trace.of(account)[0].out_msgs
    assert only.destination == world.payout


def test_claims_in_flight_at_a_slash_are_paid_up_to_the_acknowledged(world: World, pair: Pair) -> None:
    slashed(world, pair)
    item = replace(one(world, pair)[0], entry=world.entry(pair.escrow, pair.node, TON, acked=TON // 3))
    assert not world.claim(pair.node, [item]).failed
    assert world.node(pair.node).earned_nano == TON // 3
    world.ledger.now += 7 * DAY + 1
    assert refused(world, world.claim_external(pair.node, [item])) == ContractError.KEY_ENDED


@pytest.fixture(scope="module")
def verified() -> tuple[World, Pair]:
    world = built_world(verifier=True)
    return world, make_pair(world)


def test_a_slashed_machine_is_denied_by_the_verifier(verified: tuple[World, Pair]) -> None:
    world, pair = verified
    snapshot = world.ledger.snapshot()
    trace = slashed(world, pair)
    assert not trace.failed
    (denial,) = trace.of(world.attestation)
    assert denial.gas_used * 3 < Gas.OWN_PLATFORM
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    world.ledger.now += 9 * DAY
    assert not world.send(world.operator, pair.node, TON, node_rare.withdraw_stake()).failed
    platforms = VerifierState.from_cell(world.ledger.account(world.attestation).data).platforms  # type: ignore[arg-type]
    (platform,) = platforms.values()
    assert platform.denied and platform.node is None
    world.ledger.revert(snapshot)


def test_a_machine_serves_another_node_when_its_first_has_ended(verified: tuple[World, Pair]) -> None:
    world, pair = verified
    world.send(world.operator, pair.node, TON, node_rare.unbond())
    world.ledger.now += 9 * DAY
    trace = world.send(world.operator, pair.node, TON, node_rare.withdraw_stake())
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    (release,) = trace.of(world.attestation)
    assert release.gas_used * 3 < Gas.OWN_PLATFORM and not release.out_msgs
    platforms = VerifierState.from_cell(world.ledger.account(world.attestation).data).platforms  # type: ignore[arg-type]
    (platform,) = platforms.values()
    assert not platform.denied and platform.node is None
