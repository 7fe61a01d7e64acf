"""A job, from its opening to each of its ends. The registry, the escrow, the node and the court are played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from job_stage import INNER, RESULT, SPEC, Stage, code_of, node_program
from pytoniq_core import Builder, Cell, begin_cell

from devnet.messages import transaction_messages
from devnet.trace import Trace
from scripts.stage import DAY, TON, account_of_name, key_of, public
from wrappers import court, job
from wrappers.cells import CellError
from wrappers.errors import ContractError
from wrappers.job import Phase
from wrappers.ops import Op
from wrappers.signed import Delivery, JobResult, job_id, network_id, sign

ROOT = Path(__file__).parent.parent.parent
YEAR = 31_536_000


@pytest.fixture
def stage() -> Stage:
    return Stage()


def assert_refused(trace: Trace, error: int, *, sender: bytes) -> None:
    """The first transaction failed with `error`, and its value is on the way back."""
    assert code_of(trace) == error
    (back,) = trace.failed[0].out_msgs
    assert back.bounced and back.destination == sender


def refused(stage: Stage, account: bytes, sender: bytes, body: Cell | None, error: int) -> None:
    """Nothing changes, and all that the sender brought but the gas goes back."""
    before = stage.ledger.account(account).data
    trace = stage.tell(sender, account, TON, body)
    assert_refused(trace, error, sender=sender)
    (failed,) = trace.of(account)
    (back,) = failed.out_msgs
    assert back.value_nano == TON - stage.prices.gas(failed.gas_used) - stage.prices.forward(0, 0)
    after = stage.ledger.account(account).data
    assert before is not None and after is not None and before.hash == after.hash


def bounces(trace: Trace) -> list[bool]:
    """Whether each message of the first transaction asks to come back: int_msg_info$0 ihr_disabled bounce ..."""
    return [bool(cell.bits[2]) for cell in transaction_messages(trace.transactions[0].cell)[1]]


def fees_of_first(trace: Trace) -> int:
    first = trace.transactions[0]
    return int(first.total_fees_nano + sum(message.forward_fee_nano for message in first.out_msgs))


def received(trace: Trace, account: bytes) -> int:
    """Value of the messages to `account`, forward fees paid. Balances would show rent of its own as well."""
    return sum(m.value_nano for tx in trace.transactions for m in tx.out_msgs if m.destination == account)


# ------------------------------------------------------------------------------------------------ birth


def test_a_job_is_born_with_its_id_and_all_that_arrived(stage: Stage) -> None:
    account, trace = stage.init(value_nano=2 * TON)
    assert not trace.failed
    state = stage.state(account)
    assert state.config == stage.config and (state.acceptance, state.outcome) == (None, None)
    assert (state.registry, state.court, state.owner, state.index) == (stage.registry, stage.court, stage.escrow, 0)
    assert state.job_id == stage.id_of(account, state.epoch)
    assert stage.ledger.balance(account) == 2 * TON - trace.total_fees_nano


def test_g7_opened_again_nothing_changes_and_the_money_is_the_escrows(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    before, balance, had = stage.state(account), stage.ledger.balance(account), stage.ledger.balance(stage.escrow)
    _, trace = stage.init(value_nano=TON)
    assert not trace.failed and stage.state(account) == before and stage.ledger.balance(account) == balance
    assert stage.ledger.balance(stage.escrow) - had == TON - trace.total_fees_nano


def test_g10_init_from_anybody_else_is_refused(stage: Stage) -> None:
    account = stage.open()
    body = begin_cell().store_uint(Op.INIT, 32).store_ref(Cell.empty()).store_ref(Cell.empty()).end_cell()
    refused(stage, account, stage.stranger, body, ContractError.NOT_ALLOWED)


def test_a_stub_is_no_job_yet_and_other_data_is_none(stage: Stage) -> None:
    stub = begin_cell().store_bytes(bytes(69)).end_cell()
    assert job.JobState.from_cell(stub) is None
    with pytest.raises(CellError):
        job.JobState.from_cell(begin_cell().store_uint(1, 8).end_cell())


# ------------------------------------------------------------------------------------------------ the table

TABLE = [
    line.strip("|").split("|")
    for line in (ROOT / "docs" / "contracts.md")
    .read_text()
    .partition("A test drives every cell of this table.")[2]
    .splitlines()
]
ROWS = {row[0].strip().strip("`").split("`")[0]: [cell.strip() for cell in row[1:]] for row in TABLE[4:11]}
PHASES = list(Phase)
MESSAGES = ["accepted", "job_posted", "deliver", "finish_job", "refund", "init", "empty body"]


def test_the_table_names_every_message_and_every_state() -> None:
    assert [cell.strip() for cell in TABLE[2]] == ["message", *(phase.value for phase in PHASES)]
    assert list(ROWS) == MESSAGES


def send(stage: Stage, account: bytes, message: str) -> Trace:
    state = stage.state(account)
    if message == "init":
        return stage.init(value_nano=TON)[1]
    if message == "accepted":
        return stage.accept(account)
    body = {
        "job_posted": stage.posted(account),
        "deliver": stage.delivery(account),
        "finish_job": job.finish_job(),
        "refund": job.refund(node_program() if state.acceptance else None),
        "empty body": None,
    }[message]
    return stage.tell(stage.stranger, account, TON, body)


MOMENTS = ["before D", "after D", "after D + G", "R + W"]


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("message", MESSAGES)
def test_every_state_and_message_of_a_job_does_what_the_table_says(message: str, phase: Phase) -> None:
    """At each moment the outcome is one that the cell names, and each that it names comes about at some moment."""
    says = ROWS[message][PHASES.index(phase)]
    seen = set()
    for moment in MOMENTS:
        stage = Stage()
        account = stage.brought_to(phase)
        held = stage.ledger.balance(account)
        deadline, grace = stage.config.deadline, stage.config.grace
        stage.ledger.now = {
            "before D": stage.ledger.now,
            "after D": deadline + 1,
            "after D + G": deadline + grace + 1,
            "R + W": stage.ledger.now + stage.config.delivery_window,
        }[moment]
        trace = send(stage, account, message)
        first = trace.of(account)[0]
        if first.exit_code:
            seen.add(ContractError(first.exit_code).name.lower())
        elif stage.alive(account):
            after = stage.state(account).phase
            if after is not phase:
                seen.add(after.value)
            else:
                seen.add("money to the escrow" if received(trace, stage.escrow) else "stays")
                assert bool(received(trace, stage.escrow)) is (stage.ledger.balance(account) <= held)
        else:
            ends = {"node paid": stage.node, "all to the escrow": stage.escrow, "a miss to the court": stage.court}
            reached = [name for name, receiver in ends.items() if received(trace, receiver) > TON // 1000]
            if "node paid" in reached:
                reached.remove("all to the escrow")  # it has the rest
            seen.add("ended: " + ", ".join(reached))
    words = {
        word
        for part in says.split(";")
        for word in [part.strip().removesuffix(" before").removesuffix(" after").strip("`")]
    }
    told = {word.split(", from ")[0].split(", until ")[0].split(", after ")[0] for word in words}
    assert seen == told


# ------------------------------------------------------------------------------------------------ acceptance


def test_an_allowed_node_accepts_and_its_excess_comes_back(stage: Stage) -> None:
    account = stage.open()
    balance = stage.ledger.balance(account)
    trace = stage.accept(account, value_nano=TON)
    assert not trace.failed
    accepted = stage.state(account).acceptance
    assert accepted == job.Acceptance(stage.node, 5, public(stage.enclave_key), bytes(node_program().hash))
    assert stage.ledger.balance(stage.node) == TON - trace.total_fees_nano
    assert stage.ledger.balance(account) == balance


def test_g10_only_allowed_nodes_accept(stage: Stage) -> None:
    account = stage.open()
    body = job.accepted(stage.state(account).job_id, 5, public(stage.enclave_key), bytes(node_program().hash), 1 << 31)
    for sender in (stage.stranger, stage.escrow, stage.registry, account_of_name("third node")):
        refused(stage, account, sender, body, ContractError.NOT_ALLOWED)


def test_g4_g10_an_acceptance_of_another_life_or_another_input_is_not_for_this_job(stage: Stage) -> None:
    account = stage.open()
    epoch = stage.state(account).epoch
    key, program = public(stage.enclave_key), bytes(node_program().hash)
    for other in (stage.id_of(account, epoch - 1), job_id(stage.network, account, epoch, bytes(32))):
        refused(stage, account, stage.node, job.accepted(other, 5, key, program, 1 << 31), ContractError.OTHER_JOB)
    assert not stage.accept(account).failed


def test_g4_a_job_is_accepted_once_whoever_comes_second(stage: Stage) -> None:
    account = stage.open()
    body = job.accepted(stage.state(account).job_id, 5, public(stage.enclave_key), bytes(node_program().hash), 1 << 31)
    for sender in (stage.node, stage.other_node):
        stage.ledger.send_internal(source=sender, destination=account, value_nano=TON, body=body, run=False)
    trace = stage.ledger.run()
    assert_refused(trace, ContractError.JOB_ACCEPTED, sender=stage.other_node)
    refused(stage, account, stage.node, body, ContractError.JOB_ACCEPTED)
    accepted = stage.state(account).acceptance
    assert accepted is not None and accepted.node == stage.node


@pytest.mark.parametrize("short", [0, 1])
def test_a_stake_that_may_leave_too_early_accepts_nothing(stage: Stage, short: int) -> None:
    account = stage.open()
    until = stage.config.deadline + stage.config.grace + job.REPORT_SECONDS - short
    id_ = stage.state(account).job_id
    body = job.accepted(id_, 5, public(stage.enclave_key), bytes(node_program().hash), until)
    if short:
        refused(stage, account, stage.node, body, ContractError.NOT_COVERED)
    else:
        assert not stage.tell(stage.node, account, TON, body).failed


@pytest.mark.parametrize("late", [0, 1])
def test_acceptance_is_taken_to_the_last_second_of_the_deadline(stage: Stage, late: int) -> None:
    account = stage.open()
    stage.ledger.now = stage.config.deadline + late
    trace = stage.accept(account)
    assert_refused(trace, ContractError.TOO_LATE, sender=stage.node) if late else None
    assert bool(trace.failed) is bool(late)


# ------------------------------------------------------------------------------------------------ result


def test_a_result_is_taken_from_anyone_and_the_excess_is_his(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    balance = stage.ledger.balance(account)
    trace = stage.post(account, TON // 2, value_nano=TON)
    assert not trace.failed
    assert stage.state(account).outcome == job.Outcome(RESULT, TON // 2, INNER, stage.ledger.now)
    assert stage.ledger.balance(stage.stranger) == TON - trace.total_fees_nano
    assert stage.ledger.balance(account) == balance


CHANGES = ["job", "network", "epoch", "result", "amount", "inner", "signer"]


@pytest.mark.parametrize("change", CHANGES)
def test_g5_g10_a_result_that_the_accepting_key_did_not_sign_is_refused(stage: Stage, change: str) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    state, signed = stage.state(account), stage.result(account, TON // 2)
    elsewhere = network_id(-239, stage.registry)
    signed = {
        "job": replace(signed, job=stage.id_of(account_of_name("other job"), state.epoch)),
        "network": replace(signed, job=job_id(elsewhere, account, state.epoch, SPEC)),
        "epoch": replace(signed, job=stage.id_of(account, state.epoch + 1)),
        "result": replace(signed, result=bytes(32)),
        "amount": replace(signed, amount_nano=TON // 2 - 1),
        "inner": replace(signed, inner=bytes(32)),
        "signer": signed,
    }[change]
    key = key_of("thief") if change == "signer" else stage.enclave_key
    body = job.job_posted(RESULT, TON // 2, INNER, sign(signed, key))
    refused(stage, account, stage.stranger, body, ContractError.BAD_SIGNATURE)


def test_g5_never_more_than_the_maximum(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    for amount in (TON + 1, (1 << 64) - 1):
        refused(stage, account, stage.stranger, stage.posted(account, amount), ContractError.OVER_MAXIMUM)
    assert not stage.post(account, TON).failed


def test_g4_there_is_one_result(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    for amount in (TON // 2, TON):
        refused(stage, account, stage.stranger, stage.posted(account, amount), ContractError.HAS_RESULT)


@pytest.mark.parametrize("late", [0, 1])
def test_a_result_is_taken_to_the_last_second_of_the_grace(stage: Stage, late: int) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    stage.ledger.now = stage.config.deadline + stage.config.grace + late
    trace = stage.post(account)
    assert [tx.exit_code for tx in trace.failed] == [ContractError.TOO_LATE] * late


def test_g10_signatures_die_with_the_life_of_the_job(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    old = stage.posted(account)
    assert not stage.tell(stage.stranger, account, TON, old).failed
    delivery = stage.delivery(account)
    assert not stage.tell(stage.stranger, account, TON, delivery).failed
    assert not stage.alive(account)
    assert stage.open() == account
    assert not stage.accept(account).failed
    refused(stage, account, stage.stranger, old, ContractError.BAD_SIGNATURE)
    assert not stage.post(account).failed
    refused(stage, account, stage.stranger, delivery, ContractError.BAD_SIGNATURE)


def test_a_signature_in_a_library_cell_is_refused(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    library = Builder(1023, 2).store_uint(2, 8).store_bytes(bytes(32)).end_cell()
    body = begin_cell().store_uint(Op.JOB_POSTED, 32).store_bytes(RESULT).store_uint(1, 64).store_bytes(INNER)
    refused(stage, account, stage.stranger, body.store_ref(library).end_cell(), ContractError.EXOTIC_CELL)


def test_g10_a_signature_with_anything_more_is_refused(stage: Stage) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    good = stage.posted(account)
    for extra in (begin_cell().store_bit(1), begin_cell().store_ref(Cell.empty())):
        longer = begin_cell().store_cell(good.refs[0]).store_cell(extra.end_cell()).end_cell()
        body = begin_cell().store_bits(good.bits).store_ref(longer).end_cell()
        refused(stage, account, stage.stranger, body, 9)


# ------------------------------------------------------------------------------------------------ payment


def carried(stage: Stage, amount: int) -> int:
    """What arrives with a payment: the amount, its gas, and what a short amount saves of the forward fee."""
    body = paid_body(stage, amount)
    return amount + stage.fees.paid_value() - int(stage.prices.forward(1, len(body.bits)))


def paid_body(stage: Stage, amount: int, index: int = 0) -> Cell:
    body = begin_cell().store_uint(Op.PAID, 32).store_uint(amount, 64).store_uint(1, 40)
    return body.store_bit(1).store_bytes(stage.escrow).store_uint(index, 32).end_cell()


@pytest.mark.parametrize("delivered", [True, False])
@pytest.mark.parametrize("amount", [0, 1, TON // 2, TON])
def test_g2_g5_the_result_pays_its_amount_and_the_rest_is_the_escrows(
    stage: Stage, delivered: bool, amount: int
) -> None:
    account = stage.open(value_nano=3 * TON)
    assert not stage.accept(account).failed and not stage.post(account, amount).failed
    if not delivered:
        stage.ledger.now += stage.config.delivery_window
    body, held = stage.delivery(account) if delivered else job.finish_job(), stage.ledger.balance(account)
    trace = stage.tell(stage.stranger, account, TON, body)
    assert not trace.failed and trace.total_fees_nano == trace.balance_delta_nano
    assert stage.ledger.account(account).balance_nano == 0 and not stage.alive(account)
    pay, rest = trace.transactions[0].out_msgs
    assert pay.destination == stage.node and pay.body.hash == paid_body(stage, amount).hash
    assert rest.destination == stage.escrow and not rest.body.bits and bounces(trace) == [False, False]
    assert received(trace, stage.node) == carried(stage, amount) > amount
    assert received(trace, stage.escrow) == held + TON - carried(stage, amount) - fees_of_first(trace)


@pytest.mark.parametrize("early", [0, 1])
def test_the_delivery_window_ends_at_its_second(stage: Stage, early: int) -> None:
    account = stage.brought_to(Phase.POSTED)
    stage.ledger.now += stage.config.delivery_window - early
    trace = stage.tell(stage.stranger, account, TON, job.finish_job())
    assert [tx.exit_code for tx in trace.failed] == [ContractError.NOT_DUE] * early


def test_g10_only_the_delivery_keys_word_on_this_result_pays_at_once(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    id_ = stage.state(account).job_id
    wrong = [
        sign(Delivery(id_, RESULT), key_of("thief")),
        sign(Delivery(id_, bytes(32)), stage.delivery_key),
        sign(Delivery(bytes(32), RESULT), stage.delivery_key),
        sign(JobResult(id_, RESULT, TON // 2, INNER), stage.delivery_key),
    ]
    for signature in wrong:
        refused(stage, account, stage.stranger, job.deliver(signature), ContractError.BAD_SIGNATURE)


def test_g4_a_second_delivery_finds_nobody_and_comes_back(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    body = stage.delivery(account)
    for _ in range(2):
        stage.ledger.send_internal(source=stage.stranger, destination=account, value_nano=TON, body=body, run=False)
    trace = stage.ledger.run()
    assert received(trace, stage.node) == carried(stage, TON // 2)
    assert stage.ledger.balance(account) == 0
    assert 9 * TON // 10 < received(trace, stage.stranger) < TON


# ------------------------------------------------------------------------------------------------ refund


@pytest.mark.parametrize("early", [0, 1])
def test_g3_a_job_that_nobody_accepted_is_refunded_by_anyone_after_the_deadline(stage: Stage, early: int) -> None:
    account = stage.open(value_nano=2 * TON)
    held = stage.ledger.balance(account)
    due = stage.state(account).refundable_at
    assert due == stage.config.deadline + 1
    stage.ledger.now = due - early
    trace = stage.tell(stage.stranger, account, TON, job.refund(None))
    assert [tx.exit_code for tx in trace.failed] == [ContractError.NOT_DUE] * early
    if not early:
        assert received(trace, stage.escrow) == held + TON - fees_of_first(trace)
        assert stage.ledger.account(account).balance_nano == 0 and not stage.alive(account)
        assert len(trace.transactions[0].out_msgs) == 1, "the court hears of misses only"


@pytest.mark.parametrize("early", [0, 1])
def test_g3_a_miss_gives_everything_back_and_goes_to_court(stage: Stage, early: int) -> None:
    account = stage.brought_to(Phase.ACCEPTED)
    held = stage.ledger.balance(account)
    due = stage.state(account).refundable_at
    assert due == stage.config.deadline + stage.config.grace + 1
    stage.ledger.now = due - early
    value = stage.fees.refund(node_program()) + TON
    stage.ledger.send_internal(
        source=stage.stranger, destination=account, value_nano=value, body=job.refund(node_program()), run=False
    )
    trace = stage.ledger.run(1)
    assert [tx.exit_code for tx in trace.failed] == [ContractError.NOT_DUE] * early
    if early:
        return
    missed, rest = trace.transactions[0].out_msgs
    accused = court.Accused(stage.node, 5, public(stage.enclave_key))
    expected = court.missed(stage.escrow, 0, stage.config.maximum_nano, stage.stranger, accused, node_program())
    assert bounces(trace) == [False, False] and missed.destination == stage.court and missed.body.hash == expected.hash
    assert missed.value_nano >= TON + stage.fees.slash_value(node_program()) + stage.prices.gas(stage.gas_missed)
    stage.ledger.run()
    assert rest.destination == stage.escrow
    assert rest.value_nano == held + value - missed.value_nano - fees_of_first(trace)
    assert abs(rest.value_nano - held) < TON // 1000, "rent of 25 hours, and what gas left of the sender's fees"
    assert stage.ledger.account(account).balance_nano == 0 and not stage.alive(account)


def test_a_miss_takes_only_the_program_that_the_node_named(stage: Stage) -> None:
    """Otherwise the operator would refund the job himself, with a program that his node refuses."""
    account = stage.brought_to(Phase.ACCEPTED)
    stage.ledger.now = stage.config.deadline + stage.config.grace + 1
    for program in (None, Cell.empty(), node_program().refs[0]):
        refused(stage, account, stage.stranger, job.refund(program), ContractError.WRONG_PROGRAM)


def test_g4_a_result_before_the_end_of_the_grace_shuts_out_the_refund_for_ever(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    assert stage.state(account).refundable_at is None
    for now in (stage.ledger.now, stage.config.deadline + 1, stage.config.deadline + stage.config.grace + 1):
        stage.ledger.now = now
        refused(stage, account, stage.stranger, job.refund(node_program()), ContractError.HAS_RESULT)


@pytest.mark.parametrize("late", [0, 1])
def test_g4_result_and_refund_in_one_block_the_clock_decides_and_not_their_order(stage: Stage, late: int) -> None:
    for result_first in (True, False):
        stage = Stage()
        account = stage.brought_to(Phase.ACCEPTED)
        stage.ledger.now = stage.config.deadline + stage.config.grace + late
        bodies = [stage.posted(account), job.refund(node_program())]
        for body in bodies if result_first else reversed(bodies):
            stage.ledger.send_internal(source=stage.stranger, destination=account, value_nano=TON, body=body, run=False)
        stage.ledger.run()
        assert stage.alive(account) is not bool(late)


# ------------------------------------------------------------------------------------------------ money beside


@pytest.mark.parametrize("body", [None, begin_cell().store_uint(0, 32).store_bytes(b"thanks").end_cell()])
def test_g2_money_without_a_message_stays_and_is_the_escrows_in_the_end(stage: Stage, body: Cell | None) -> None:
    account = stage.brought_to(Phase.POSTED)
    held = stage.ledger.balance(account)
    assert not stage.tell(stage.stranger, account, TON, body).failed
    assert held + 9 * TON // 10 < stage.ledger.balance(account) < held + TON
    trace = stage.tell(stage.stranger, account, TON, stage.delivery(account))
    assert not trace.failed
    assert received(trace, stage.escrow) > held + 9 * TON // 10 - TON // 2
    assert received(trace, stage.node) == carried(stage, TON // 2)


def test_what_bounces_back_is_money_like_any_other(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    before = stage.state(account)
    body = begin_cell().store_uint(0xFFFFFFFF, 32).store_uint(Op.FINISH_JOB, 32).end_cell()
    trace = stage.ledger.send_internal(
        source=stage.node, destination=account, value_nano=TON, body=body, bounce=False, bounced=True
    )
    assert not trace.failed and stage.state(account) == before


def test_g9_ten_idle_years_leave_the_maximum_and_the_payment(stage: Stage) -> None:
    account = stage.brought_to(Phase.POSTED)
    stage.ledger.now += 10 * YEAR
    trace = stage.tell(stage.stranger, account, stage.fees.finish_job(), job.finish_job())
    assert not trace.failed
    assert received(trace, stage.node) == carried(stage, TON // 2)
    assert received(trace, stage.escrow) > TON // 2


def test_g9_g3_beyond_the_reserve_the_rest_pays_first_and_then_the_payment_shrinks(stage: Stage) -> None:
    account = stage.open()
    assert not stage.accept(account).failed and not stage.post(account, TON).failed
    stage.ledger.now += 60 * YEAR
    trace = stage.tell(stage.stranger, account, stage.fees.finish_job(), job.finish_job())
    assert not trace.failed
    body = trace.transactions[0].out_msgs[0].body.begin_parse().skip_bits(32)
    paid = body.load_uint(64)
    assert 0 < paid < TON and not stage.alive(account)
    assert received(trace, stage.node) == carried(stage, paid), "the node counts what came"


# ------------------------------------------------------------------------------------------------ what is malformed


def test_g10_anything_more_or_less_than_a_message_is_refused(stage: Stage) -> None:
    bodies = {
        Phase.OPEN: [job.accepted(bytes(32), 5, public(stage.enclave_key), bytes(32), 1 << 31)],
        Phase.ACCEPTED: [],
        Phase.POSTED: [job.finish_job()],
    }
    for phase, messages in bodies.items():
        stage = Stage()
        account = stage.brought_to(phase)
        sender = stage.node if phase is Phase.OPEN else stage.stranger
        if phase is Phase.ACCEPTED:
            messages = [stage.posted(account)]
        if phase is Phase.POSTED:
            messages = [*messages, stage.delivery(account)]
        stage.ledger.now += stage.config.delivery_window
        for body in messages:
            longer = begin_cell().store_cell(body).store_bit(1).end_cell()
            more = begin_cell().store_cell(body).store_ref(Cell.empty()).end_cell()
            for wrong in (longer, more):
                refused(stage, account, sender, wrong, 9)
        refused(stage, account, sender, begin_cell().store_uint(1, 8).end_cell(), 9)
        refused(stage, account, sender, begin_cell().store_uint(Op.SETTLE, 32).end_cell(), ContractError.UNKNOWN_OP)


def test_g10_a_refund_with_anything_more_is_refused(stage: Stage) -> None:
    account = stage.open()
    stage.ledger.now = stage.config.deadline + 1
    body = begin_cell().store_cell(job.refund(None)).store_bit(1).end_cell()
    refused(stage, account, stage.stranger, body, 9)


def test_the_clock_of_a_configuration_may_be_far_away(stage: Stage) -> None:
    """Sums of times are integers of the TVM: a deadline at the end of 32 bits does not wrap into the past."""
    late = replace(stage.config, deadline=(1 << 32) - 1, grace=2 * DAY)
    assert code_of(stage.accept(stage.open(index=1, config=late))) == ContractError.NOT_COVERED, (
        "no stake stays so long"
    )
    deadline = (1 << 32) - 1 - 2 * DAY - job.REPORT_SECONDS
    account = stage.open(config=replace(late, deadline=deadline, delivery_window=7 * DAY))
    assert not stage.accept(account).failed and not stage.post(account).failed
