"""The node at its borders: messages in shapes that no builder writes, and money to the nanoTON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from job_stage import code_of
from pytoniq_core import Cell, begin_cell
from test_fees import acceptance_body, attest_raw, claim_receipt_body
from test_node import one, refused
from test_node_rare import ESCROW, IMAGE, MACHINE, REPORTER, TREASURY, notarise, parts, slashed, stands, told

from devnet.trace import Trace
from scripts.stage import DAY, TON, Pair, World, account_of_name, key_of, public
from tests.support.altered import flipped, with_ref
from wrappers import addresses, node, node_rare, registry
from wrappers.addresses import Kind
from wrappers.code import Contract, code_hash
from wrappers.errors import ContractError
from wrappers.receipts import Terms

CELL_UNDERFLOW = 9
OTHER_IMAGE = b"\x33" * 32


def rare_message(world: World, pair: Pair, name: str) -> tuple[bytes, Cell]:
    """One that the node takes, and who sends it."""
    state, key = world.node(pair.node), public(world.enclave_key)
    controller, other = world.operator.account, account_of_name("other")
    return {
        "notarise": (REPORTER, notarise(world, pair)),
        "present": (controller, node_rare.present(other)),
        "standing": (world.attestation, node_rare.standing(IMAGE, MACHINE, 2)),
        "slash": (world.court, node_rare.slash(state.epoch, key, 0, TON, ESCROW, REPORTER, TREASURY)),
        "offer_controller": (controller, node_rare.offer_controller(other)),
        "set_release_key": (controller, node_rare.set_release_key(other)),
        "set_offer": (controller, node_rare.set_offer(Terms(key, 1, 2, 3, 4, 5))),
        "drain": (controller, node_rare.drain(True)),
        "top_up_stake": (REPORTER, node_rare.top_up_stake()),
        "unbond": (controller, node_rare.unbond()),
    }[name]


RARE = (
    "notarise", "present", "standing", "slash", "offer_controller", "set_release_key", "set_offer", "drain",
    "top_up_stake", "unbond",
)  # fmt: skip


@pytest.mark.parametrize("name", RARE)
def test_g10_every_rare_message_is_read_to_its_end(world: World, pair: Pair, name: str) -> None:
    source, body = rare_message(world, pair, name)
    before = world.node(pair.node)
    trace = world.tell(source, pair.node, TON, flipped(body, -1))
    assert trace.of(pair.node)[0].exit_code == CELL_UNDERFLOW and world.node(pair.node) == before
    assert world.tell(source, pair.node, TON, body).of(pair.node)[0].exit_code == 0


@pytest.mark.parametrize("extra", ["reference", "byte"])
def test_g8_nobody_adds_to_a_signed_claim_what_the_node_would_pay_for(world: World, pair: Pair, extra: str) -> None:
    """References are not under the signature's hash, and a node pays an external message's way by its size."""
    message = world.claim_external(pair.node, one(world, pair))
    longer = begin_cell().store_cell(message)  # its body ends it
    longer = longer.store_ref(Cell.empty()) if extra == "reference" else longer.store_uint(0, 8)
    assert refused(world, longer.end_cell()) == CELL_UNDERFLOW
    assert not world.ledger.send_external(message).failed


# ------------------------------------------------------------------------------------------------ money


@pytest.mark.parametrize("harm", [TON, 2 * TON - TON // 10, 2 * TON, 5 * TON])
def test_g2_of_a_penalty_the_harmed_gets_all_that_he_lost_and_the_reporter_what_is_left(
    world: World, pair: Pair, harm: int
) -> None:
    """Half at most is for whole stakes; a penalty is bounded by itself, and no part is paid beyond it."""
    held, stake, penalty = world.ledger.balance(pair.node), world.node(pair.node).stake_nano, 2 * TON
    trace = slashed(world, pair, penalty=penalty, harm=harm)
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    to_escrow = min(harm, penalty)
    reward = min(penalty // 10, penalty - to_escrow)
    rest = penalty - to_escrow - reward
    fee = world.fees.prices.forward(0, 0)
    sent = parts(world, trace)
    assert sent[ESCROW] == to_escrow - fee
    assert sent.get(TREASURY) == (rest - fee if rest else None)
    assert reward - fee <= sent[REPORTER] < reward + world.fees.slash_need()
    assert world.ledger.balance(pair.node) == held - penalty
    assert world.node(pair.node).stake_nano == stake - penalty


@pytest.mark.parametrize("above", [0, 1])
def test_g8_a_part_that_would_only_pay_its_own_way_goes_to_the_reporter(world: World, pair: Pair, above: int) -> None:
    fee = world.fees.prices.forward(0, 0)
    snapshot = world.ledger.snapshot()
    assert (ESCROW in parts(world, slashed(world, pair, penalty=2 * TON, harm=fee + above))) is bool(above)
    world.ledger.revert(snapshot)
    penalty = (fee + above) * 10 // 9
    assert penalty - penalty // 10 == fee + above
    assert (TREASURY in parts(world, slashed(world, pair, penalty=penalty))) is bool(above)


def test_g10_a_node_without_a_key_does_not_answer_for_key_0(world: World) -> None:
    """Nobody holds it, and anybody can forge what it signs."""
    account, _ = world.open_node()
    before, held = world.node(account), world.ledger.balance(account)
    for penalty in (0, TON):
        trace = slashed(world, Pair(account, account), penalty=penalty, key=bytes(32))
        assert not trace.failed and set(parts(world, trace)) == {REPORTER}
        assert (world.node(account), world.ledger.balance(account)) == (before, held)


def first_out(trace: Trace, account: bytes, destination: bytes) -> int:
    (value,) = (out.value_nano for out in trace.of(account)[0].out_msgs if out.destination == destination)
    return int(value)


def test_g1_a_single_receipt_travels_on_its_senders_value_and_comes_back_into_the_reserve(
    world: World, pair: Pair
) -> None:
    body, value = claim_receipt_body(world, pair), TON // 5
    trace = world.tell(REPORTER, pair.node, value, body)
    assert not trace.failed and first_out(trace, pair.node, pair.escrow) < value
    before = world.ledger.balance(pair.node)
    trace = world.tell(REPORTER, pair.node, value, body)
    assert code_of(trace) == ContractError.NOTHING_DUE
    back = trace.of(pair.node)[1]
    assert back.in_msg is not None and back.in_msg.bounced and back.exit_code == 0
    assert world.ledger.balance(pair.node) == before + value - trace.total_fees_nano


@pytest.mark.parametrize("name", ["acceptance", "present"])
def test_g1_what_a_node_tells_others_travels_on_the_message_alone(world: World, pair: Pair, name: str) -> None:
    """And comes back where nobody is there to take it."""
    nobody = account_of_name("job" if name == "acceptance" else "committee")
    body = acceptance_body(world, pair) if name == "acceptance" else node_rare.present(nobody)
    before = world.ledger.balance(pair.node)
    trace = world.tell(world.operator.account, pair.node, TON, body)
    assert TON * 9 // 10 < first_out(trace, pair.node, nobody) < TON
    assert world.ledger.balance(pair.node) == before + TON - trace.total_fees_nano


def test_g4_opening_a_node_again_returns_the_message_to_its_owner_and_nothing_more(world: World) -> None:
    """To an owner without code too: what bounced there would be the node's."""
    owner = account_of_name("a contract that is not deployed yet")
    config = node.NodeConfig(owner, world.payout, public(world.release_key))
    body, value = registry.open_node(code_hash(Contract.NODE), 0, config), world.fees.open_node()
    account = addresses.child_address(world.registry, Kind.NODE, owner, 0)
    assert not world.tell(owner, world.registry, value, body).failed
    held = world.ledger.balance(account)
    trace = world.tell(owner, world.registry, value, body)
    assert not trace.failed and trace.transactions[-1].account == owner
    assert world.ledger.balance(account) == held
    assert world.ledger.balance(owner) == value - trace.total_fees_nano


# ------------------------------------------------------------------------------------------------ settings


@pytest.mark.parametrize("accept", [node_rare.accept_controller, node_rare.accept_payout])
def test_g10_what_was_offered_to_nobody_nobody_takes(world: World, pair: Pair, accept: Callable[[], Cell]) -> None:
    """Account 0 stands for none."""
    controller = world.operator.account
    for body in (node_rare.offer_controller(account_of_name("other")), node_rare.drain(True)):
        assert not world.tell(controller, pair.node, TON, body).failed
    assert not world.tell(controller, pair.node, TON, node_rare.offer_controller(None)).failed
    before = world.node(pair.node)
    assert code_of(world.tell(bytes(32), pair.node, TON, accept())) == ContractError.NOT_ALLOWED
    assert world.node(pair.node) == before


def test_g4_an_offer_of_the_payout_address_is_taken_once(world: World, pair: Pair) -> None:
    other = account_of_name("other")
    assert not world.tell(world.operator.account, pair.node, TON, node_rare.offer_payout(other)).failed
    assert not world.tell(other, pair.node, TON, node_rare.accept_payout()).failed
    extras = world.node(pair.node).extras
    assert world.node(pair.node).payout == other and extras is not None and extras.new_payout is None
    assert code_of(world.tell(other, pair.node, TON, node_rare.accept_payout())) == ContractError.NOT_ALLOWED


def test_g18_an_offer_that_is_no_terms_is_refused(world: World, pair: Pair) -> None:
    good = node_rare.set_offer(Terms(b"\x0a" * 32, 1, 2, 3, 4, 5))
    for bit in (0, 31):
        wrong = with_ref(good, 0, flipped(good.refs[0], bit))
        trace = world.tell(world.operator.account, pair.node, TON, wrong)
        assert code_of(trace) == ContractError.BAD_TERMS and world.node(pair.node).extras is None
    assert not world.tell(world.operator.account, pair.node, TON, good).failed


# ------------------------------------------------------------------------------------------------ standing and keys


def test_g20_an_image_that_was_replaced_and_then_retired_taints_nothing(world: World, pair: Pair) -> None:
    second = key_of("second")
    verdict = replace(world.verdict(pair.node, second), measurement=OTHER_IMAGE)
    assert told(world, pair, verdict, world.consent(pair.node, second)) is None
    before = world.node(pair.node)
    stands(world, pair, 1)
    assert world.node(pair.node) == before
    stands(world, pair, 2, OTHER_IMAGE)
    state = world.node(pair.node)
    assert state.acked_only and not state.retired[public(world.enclave_key)].acked_only, "the keys of one image alone"


@pytest.mark.parametrize("status", [1, 3])
def test_g12_an_image_falls_whatever_machine_the_verifier_names(world: World, pair: Pair, status: int) -> None:
    stands(world, pair, status, IMAGE, b"\x44" * 32)
    state = world.node(pair.node)
    assert state.claims_until == world.ledger.now + world.parameters.claim_window
    assert state.acked_only == (status == 3)


@pytest.mark.parametrize(("new", "forgotten"), [(b"\x40" * 32, 2), (b"\xfe" * 32, 1)], ids=["between", "behind all"])
def test_g3_looking_for_keys_to_forget_begins_at_the_new_one(
    world: World, pair: Pair, new: bytes, forgotten: int
) -> None:
    """Else one key at the tree's beginning that still lives would hide all others, and the dictionary fill up."""
    lowest = bytes(31) + b"\x01"
    for key in (b"\x50" * 32, b"\x60" * 32, lowest):
        assert not attest_raw(world, pair.node, key).failed
    world.ledger.now += 5 * DAY
    assert not attest_raw(world, pair.node, lowest).failed
    assert len(world.node(pair.node).retired) == 3
    world.ledger.now += 4 * DAY + 1
    assert not attest_raw(world, pair.node, new).failed
    retired = world.node(pair.node).retired
    assert len(retired) == 3 + 1 - forgotten and lowest in retired


# ------------------------------------------------------------------------------------------------ who serves


def compromised(world: World, pair: Pair) -> None:
    stands(world, pair, 2)


def unbonded(world: World, pair: Pair) -> None:
    assert not world.tell(world.operator.account, pair.node, TON, node_rare.unbond()).failed


@pytest.mark.parametrize("end", [compromised, unbonded])
def test_g12_whoever_stops_serving_presents_itself_to_nobody_in_the_same_second(
    world: World, pair: Pair, end: Callable[[World, Pair], None]
) -> None:
    body = node_rare.present(account_of_name("committee"))
    end(world, pair)
    assert world.node(pair.node).attested_until == world.ledger.now, "its time alone would still let it"
    assert code_of(world.tell(world.operator.account, pair.node, TON, body)) == ContractError.NOT_SERVING


def test_g12_a_node_presents_itself_to_the_last_second_of_its_attestation(world: World, pair: Pair) -> None:
    body = node_rare.present(account_of_name("committee"))
    world.ledger.now = world.node(pair.node).attested_until
    assert world.tell(world.operator.account, pair.node, TON, body).of(pair.node)[0].exit_code == 0
    world.ledger.now += 1
    assert code_of(world.tell(world.operator.account, pair.node, TON, body)) == ContractError.NOT_SERVING


@pytest.mark.parametrize("rotated", [False, True])
def test_g3_a_key_notarises_to_the_last_second_of_its_window(world: World, pair: Pair, rotated: bool) -> None:
    body, state = notarise(world, pair), world.node(pair.node)
    ends = state.claims_until
    if rotated:
        assert not world.attest(pair.node, key_of("second")).failed
        ends = world.node(pair.node).retired[public(world.enclave_key)].ends_at
    world.ledger.now = ends
    assert not world.tell(REPORTER, pair.node, TON, body).failed
    world.ledger.now += 1
    assert code_of(world.tell(REPORTER, pair.node, TON, body)) == ContractError.KEY_ENDED
