"""The court: what convicts, what does not, and who gets what. The node is played."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from court_stage import ALLOTMENT_EPOCH, NODE_EPOCH, TERMS, USAGE, Court, least_value, slash_of, spine_of
from job_stage import TREASURY, Stage, code_of, node_program, stub_prefix
from pytoniq_core import Builder, Cell, HashMap, begin_cell

from devnet.merkle import proof as merkle_proof
from devnet.merkle import pruned
from devnet.merkle import update as merkle_update
from devnet.messages import transaction_messages
from devnet.trace import Trace
from protocol.pricing import Stop, Usage, charge
from scripts.stage import TON, account_of_name, key_of, public
from wrappers import court, job
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.claims import receipts_root
from wrappers.code import Contract, code
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.receipts import Receipt
from wrappers.signed import MAX_AMOUNT_NANO, sign

HONEST = charge(TERMS, USAGE, Stop.END)


@pytest.fixture
def bench() -> Court:
    return Court()


def acquitted(bench: Court, body: Cell, error: int) -> None:
    """Refused: nothing leaves but the value less its gas, back to who sent it."""
    data, balance = bench.ledger.account(bench.court).data, bench.ledger.balance(bench.court)
    trace = bench.accuse(body)
    assert code_of(trace) == error
    (failed,) = trace.transactions
    (back,) = failed.out_msgs
    assert back.bounced and back.destination == bench.stranger
    assert back.value_nano == TON - bench.prices.gas(failed.gas_used) - bench.prices.forward(0, 0)
    after = bench.ledger.account(bench.court)
    assert after.data is not None and data is not None and after.data.hash == data.hash
    assert after.balance_nano == balance


def dictionary(entries: dict[int, Cell]) -> Cell:
    map_ = HashMap(32, value_serializer=lambda cell, builder: builder.store_ref(cell))
    for seq, cell in entries.items():
        map_.set_int_key(seq, cell)
    root = map_.serialize()
    assert root is not None
    return root


# ------------------------------------------------------------------------------------------------ genesis


def test_a_court_is_born_once_and_knows_three_things(bench: Court) -> None:
    data = bench.ledger.account(bench.court).data
    assert data is not None
    assert court.CourtState.from_cell(data) == court.CourtState(bench.registry, stub_prefix(), TREASURY)
    assert bench.ledger.run_get(bench.court, "get_version") == [1]
    ids = [int.from_bytes(each, "big") for each in (bench.registry, TREASURY)]
    assert bench.ledger.run_get(bench.court, "get_court") == ids
    again = bench.genesis(court.CourtState(bench.stranger, stub_prefix(), bench.stranger).to_cell())
    assert code_of(again) == ContractError.UNKNOWN_OP


@pytest.mark.parametrize(
    "state",
    [
        lambda stub: court.CourtState(b"\x01" * 32, stub, bytes(32)),
        lambda stub: court.CourtState(b"\x01" * 32, b"\x02\x01\x35" + stub[3:], TREASURY),
        lambda stub: court.CourtState(b"\x01" * 32, stub[:5] + b"\x00\x01" + stub[7:], TREASURY),
    ],
    ids=["no treasury", "another form of StateInit", "data with a depth"],
)
def test_a_genesis_state_that_could_not_work_is_refused(state: Callable[[bytes], court.CourtState]) -> None:
    assert code_of(Stage().genesis(state(stub_prefix()).to_cell())) == ContractError.BAD_PARAMETERS


def test_g10_genesis_of_another_key_is_refused() -> None:
    assert code_of(Stage().genesis(key=key_of("thief"))) == ContractError.BAD_SIGNATURE


def test_a_genesis_state_with_anything_more_is_refused() -> None:
    state = court.CourtState(b"\x01" * 32, stub_prefix(), TREASURY).to_cell()
    assert code_of(Stage().genesis(begin_cell().store_cell(state).store_bit(1).end_cell())) == 9


def test_before_its_genesis_a_court_judges_nothing() -> None:
    stage = Stage()
    bench = Court()
    trace = stage.genesis(key=key_of("thief"))
    assert trace.failed
    body = bench.equivocation(bench.signed(bench.receipt()), bench.signed(bench.receipt(amount=1)))
    assert code_of(stage.tell(stage.stranger, stage.court, TON, body)) == ContractError.NOT_BORN
    with pytest.raises(CellError):
        data = stage.ledger.account(stage.court).data
        assert data is not None
        court.CourtState.from_cell(data)


# ------------------------------------------------------------------------------------------------ equivocation


@pytest.mark.parametrize("first_claimed", [False, True])
@pytest.mark.parametrize("second_claimed", [False, True])
def test_a_lie_slashes_everything_and_names_who_gets_what(
    bench: Court, first_claimed: bool, second_claimed: bool
) -> None:
    receipts = [bench.receipt(), bench.receipt(amount=7)]
    others = [bench.receipt(seq) for seq in range(2, 12)]
    first, second = (
        bench.claimed([receipt, *others], index=i, count=4) if claimed else bench.signed(receipt)
        for i, (receipt, claimed) in enumerate(zip(receipts, (first_claimed, second_claimed), strict=True))
    )
    balance = bench.ledger.balance(bench.court)
    trace = bench.accuse(bench.equivocation(first, second))
    assert slash_of(trace) == court.Slash(
        NODE_EPOCH,
        public(bench.enclave_key),
        court.WHOLE_STAKE,
        HONEST,
        bench.escrow,
        bench.stranger,
        TREASURY,
        node_program(),
    )
    (message,) = trace.transactions[0].out_msgs
    assert message.destination == bench.node
    (cell,) = transaction_messages(trace.transactions[0].cell)[1]
    assert cell.bits[2], "it asks to come back: a node that is gone must not keep what was sent to it"
    assert bench.ledger.balance(bench.court) == balance, "evidence costs the court nothing"


@pytest.mark.parametrize("amounts", [(1, 9), (9, 1), (0, MAX_AMOUNT_NANO)])
def test_the_harm_of_an_equivocation_is_the_larger_amount(bench: Court, amounts: tuple[int, int]) -> None:
    first, second = (bench.signed(bench.receipt(amount=amount)) for amount in amounts)
    assert slash_of(bench.accuse(bench.equivocation(first, second))).harm_nano == max(amounts)


@pytest.mark.parametrize("field", ["terms", "cumulative_nano", "previous", "inner"])
def test_any_difference_makes_two_receipts(bench: Court, field: str) -> None:
    first = bench.receipt()
    change = {"cumulative_nano": first.cumulative_nano + 1}.get(field, b"\x77" * 32)
    second = replace(first, **{field: change})  # type: ignore[arg-type]
    assert slash_of(bench.accuse(bench.equivocation(bench.signed(first), bench.signed(second)))).harm_nano == HONEST


def test_g10_the_same_receipt_twice_is_no_offence(bench: Court) -> None:
    receipt, others = bench.receipt(), [bench.receipt(seq) for seq in range(2, 9)]
    testimonies = [bench.signed(receipt), bench.claimed([receipt, *others]), bench.claimed([receipt])]
    for first in testimonies:
        for second in testimonies:
            acquitted(bench, bench.equivocation(first, second), ContractError.NO_OFFENCE)


def test_the_same_receipt_with_a_branch_pruned_is_no_equivocation(bench: Court) -> None:
    """By its own hash a receipt with a part left out is another cell; the court must not fall for that."""
    receipt = bench.receipt()
    whole = receipt.to_cell()
    root = dictionary({1: whole})
    spine = spine_of([bytes(root.hash)])
    less = bench.under(spine, 1, 0, merkle_proof(root, {whole.refs[0].hash}))
    assert less.proof.refs[0].hash != root.hash, "it is another cell"
    for testimony in (bench.signed(receipt), bench.claimed([receipt])):
        acquitted(bench, bench.equivocation(testimony, less), ContractError.EXOTIC_CELL)
        acquitted(bench, bench.equivocation(less, testimony), ContractError.EXOTIC_CELL)


@pytest.mark.parametrize("what", ["node", "epoch", "key", "escrow", "allotment epoch", "seq", "network"])
def test_g10_receipts_for_anything_else_convict_nobody(bench: Court, what: str) -> None:
    first, second = bench.signed(bench.receipt()), bench.signed(bench.receipt(amount=1))
    place = bench.place()
    other = account_of_name("another")
    body = {
        "node": lambda: bench.equivocation(first, second, node=other),
        "epoch": lambda: bench.equivocation(first, second, epoch=NODE_EPOCH + 1),
        "key": lambda: bench.equivocation(first, second, key=public(key_of("another"))),
        "escrow": lambda: bench.equivocation(first, second, place=replace(place, escrow=other)),
        "allotment epoch": lambda: bench.equivocation(
            first, second, place=replace(place, allotment_epoch=ALLOTMENT_EPOCH + 1)
        ),
        "seq": lambda: bench.equivocation(first, second, place=replace(place, seq=2)),
        "network": lambda: another_network(bench).equivocation(first, second),
    }[what]()
    expected = ContractError.BAD_SIGNATURE if what == "key" else ContractError.OTHER_RECEIPT
    if what == "network":
        bench = another_network(bench)
    acquitted(bench, body, expected)


def another_network(bench: Court) -> Court:
    return Court(registry=account_of_name("another registry"))


def test_g10_receipts_of_two_seqs_or_two_allotments_are_two_receipts_and_no_lie(bench: Court) -> None:
    first = bench.signed(bench.receipt())
    others = (
        bench.receipt(2),
        replace(bench.receipt(), allotment=b"\x01" * 32),
        replace(bench.receipt(), node=b"\x01" * 32),
    )
    for second in others:
        acquitted(bench, bench.equivocation(first, bench.signed(second)), ContractError.OTHER_RECEIPT)
        acquitted(bench, bench.equivocation(bench.signed(second), first), ContractError.OTHER_RECEIPT)


def test_g10_a_signature_of_anything_else_is_no_testimony(bench: Court) -> None:
    honest, lie = bench.receipt(), bench.receipt(amount=1)
    stolen = court.SignedReceipt(lie, sign(honest, bench.enclave_key))
    forged = court.SignedReceipt(lie, sign(lie, key_of("thief")))
    claimed = replace(bench.claimed([lie]), signature=sign(lie, bench.enclave_key))
    for false in (stolen, forged, claimed):
        acquitted(bench, bench.equivocation(bench.signed(honest), false), ContractError.BAD_SIGNATURE)
        acquitted(bench, bench.equivocation(false, bench.signed(honest)), ContractError.BAD_SIGNATURE)


CLAIM_FIELDS = ["seqno", "valid_until", "count", "tokens", "entries", "roots"]


@pytest.mark.parametrize("field", CLAIM_FIELDS)
def test_g10_a_claim_with_anything_altered_is_no_testimony(bench: Court, field: str) -> None:
    lie = bench.claimed([bench.receipt(amount=1)], count=2)
    change: object = {"entries": b"\x09" * 32, "roots": begin_cell().store_cell(lie.roots).store_bit(1).end_cell()}.get(
        field, 7
    )
    altered = replace(lie, **{field: change})  # type: ignore[arg-type]
    acquitted(bench, bench.equivocation(bench.signed(bench.receipt()), altered), ContractError.BAD_SIGNATURE)


# ------------------------------------------------------------------------------------------------ false amount


@pytest.mark.parametrize("claimed", [False, True])
@pytest.mark.parametrize(
    ("amount", "harm"), [(HONEST + 1, 1), (HONEST - 1, 0), (0, 0), (MAX_AMOUNT_NANO, MAX_AMOUNT_NANO - HONEST)]
)
def test_a_false_amount_slashes_everything_and_harms_by_what_was_too_much(
    bench: Court, claimed: bool, amount: int, harm: int
) -> None:
    receipt = bench.receipt(amount=amount)
    testimony = bench.claimed([receipt, bench.receipt(2)], index=2, count=3) if claimed else bench.signed(receipt)
    slash = slash_of(bench.accuse(bench.false_amount(testimony)))
    assert (slash.penalty_nano, slash.harm_nano) == (court.WHOLE_STAKE, harm)
    assert (slash.escrow, slash.reporter, slash.treasury) == (bench.escrow, bench.stranger, TREASURY)


@pytest.mark.parametrize("stop", [*Stop, 5, 255])
@pytest.mark.parametrize("completion", [0, 60])
def test_g10_evidence_of_an_honest_enclave_is_refused(bench: Court, stop: int, completion: int) -> None:
    """Stop reasons that this court does not know are billed like those that it does."""
    usage = Usage(500, 100, completion, 0)
    inner = bench.inner(usage, stop)
    amount = charge(TERMS, usage, Stop(stop) if stop in set(Stop) else Stop.END)
    assert (amount == 0) is (stop == Stop.FAILED and completion == 0)
    receipt = bench.receipt(amount=amount, inner=inner)
    for testimony in (bench.signed(receipt), bench.claimed([receipt, bench.receipt(2)])):
        acquitted(bench, bench.false_amount(testimony, inner), ContractError.NO_OFFENCE)


def test_g10_all_cached_and_all_reasoning_is_an_honest_count(bench: Court) -> None:
    usage = Usage(500, 500, 60, 60)
    inner = bench.inner(usage)
    receipt = bench.receipt(amount=charge(TERMS, usage, Stop.END), inner=inner)
    acquitted(bench, bench.false_amount(bench.signed(receipt), inner), ContractError.NO_OFFENCE)


@pytest.mark.parametrize("amount", [0, 5])
@pytest.mark.parametrize("field", ["cached_tokens", "reasoning_tokens"])
def test_counts_that_contradict_each_other_have_no_right_amount(bench: Court, field: str, amount: int) -> None:
    inner = replace(bench.inner(), **{field: 501})  # type: ignore[arg-type]
    slash = slash_of(bench.accuse(bench.false_amount(bench.signed(bench.receipt(amount=amount, inner=inner)), inner)))
    assert slash.harm_nano == amount


def test_g10_only_what_the_receipt_names_opens_it(bench: Court) -> None:
    lie = bench.signed(bench.receipt(amount=HONEST + 1))
    bad_inner = replace(bench.inner(), prompt_tokens=501)
    bad_terms = replace(TERMS, minimum_nano=0)
    acquitted(bench, bench.false_amount(lie, bad_inner), ContractError.WRONG_OPENING)
    acquitted(bench, bench.false_amount(lie, terms=bad_terms), ContractError.WRONG_OPENING)


def test_g10_a_library_opens_nothing_though_the_receipt_names_it(bench: Court) -> None:
    library = Builder(1023, 2).store_uint(2, 8).store_bytes(bench.inner().hash).end_cell()
    receipt = replace(bench.receipt(amount=1), inner=bytes(library.hash))
    acquitted(bench, opening(bench, receipt, library, TERMS.to_cell()), ContractError.EXOTIC_CELL)


# ------------------------------------------------------------------------------------------------ proofs


def against(bench: Court, testimony: court.Testimony) -> Cell:
    return bench.equivocation(bench.signed(bench.receipt()), testimony)


def test_every_entry_of_a_claim_of_two_hundred_can_be_opened(bench: Court) -> None:
    receipts = [bench.receipt(amount=1), bench.receipt(2)]
    for index in (0, 1, 2, 3, 100, 199):
        slash_of(bench.accuse(against(bench, bench.claimed(receipts, index=index, count=200))))


def test_g10_an_entry_beyond_the_claim_or_of_another_root_proves_nothing(bench: Court) -> None:
    receipts = [bench.receipt(amount=1), bench.receipt(2)]
    good = bench.claimed(receipts, index=1, count=4)
    for index in (0, 2, 3):
        acquitted(bench, against(bench, replace(good, index=index)), ContractError.WRONG_PROOF)
    for index in (4, 5, 255):
        acquitted(bench, against(bench, replace(good, index=index)), ContractError.WRONG_PROOF)


def test_g10_a_proof_of_another_dictionary_proves_nothing(bench: Court) -> None:
    lie = [bench.receipt(amount=1), bench.receipt(2)]
    other = bench.claimed([bench.receipt(amount=2), bench.receipt(2)])
    acquitted(bench, against(bench, replace(other, proof=court.receipt_proof(lie, 1))), ContractError.WRONG_PROOF)


def test_g10_what_is_no_merkle_proof_proves_nothing(bench: Court) -> None:
    lie = bench.receipt(amount=1)
    root = dictionary({1: lie.to_cell(), 2: bench.receipt(2).to_cell()})
    spine = spine_of([bytes(root.hash)])
    library = Builder(1023, 2).store_uint(2, 8).store_bytes(root.hash).end_cell()
    for wrong in (root, library, merkle_update(root, root), Cell.empty()):
        acquitted(bench, against(bench, bench.under(spine, 1, 0, wrong)), ContractError.WRONG_PROOF)


def test_g10_a_pruned_branch_where_data_is_needed_proves_nothing(bench: Court) -> None:
    lie = bench.receipt(amount=1).to_cell()
    root = dictionary({1: lie, 2: bench.receipt(2).to_cell(), 3: bench.receipt(3).to_cell()})
    spine = spine_of([bytes(root.hash)])
    cases = {"root": root.hash, "receipt": lie.hash, "more": lie.refs[0].hash, "fork": root.refs[0].hash}
    for name, hash_ in cases.items():
        proof = merkle_proof(root, {hash_})
        trace = bench.accuse(against(bench, bench.under(spine, 1, 0, proof)))
        assert code_of(trace) in (ContractError.EXOTIC_CELL, 9, 10), name
        (back,) = trace.transactions[0].out_msgs
        assert back.bounced and back.destination == bench.stranger


def test_g10_a_receipt_that_is_not_in_the_dictionary_is_not_proved(bench: Court) -> None:
    receipts = [bench.receipt(2), bench.receipt(3)]
    spine = spine_of([receipts_root(receipts)])
    absent = bench.under(spine, 1, 0, court.receipt_proof(receipts, 2))
    acquitted(bench, against(bench, absent), ContractError.WRONG_PROOF)
    with pytest.raises(ValueError, match="no receipt 1"):
        court.receipt_proof(receipts, 1)


def test_g10_a_receipt_under_another_seq_is_another_receipt(bench: Court) -> None:
    root = dictionary({1: bench.receipt(2).to_cell()})
    testimony = bench.under(spine_of([bytes(root.hash)]), 1, 0, merkle_proof(root))
    acquitted(bench, against(bench, testimony), ContractError.OTHER_RECEIPT)


def test_g10_a_proof_within_a_proof_or_a_value_that_is_no_reference_is_refused(bench: Court) -> None:
    lie = bench.receipt(amount=1).to_cell()
    inner = merkle_proof(lie)
    nested = dictionary({1: inner, 2: lie})
    testimony = bench.under(spine_of([bytes(nested.hash)]), 1, 0, merkle_proof(nested))
    acquitted(bench, against(bench, testimony), ContractError.EXOTIC_CELL)
    map_ = HashMap(32, value_serializer=lambda value, builder: builder.store_uint(value, 8))
    map_.set_int_key(1, 5)
    flat = map_.serialize()
    assert flat is not None
    trace = bench.accuse(against(bench, bench.under(spine_of([bytes(flat.hash)]), 1, 0, merkle_proof(flat))))
    assert code_of(trace) == 10


def test_a_spine_is_read_as_the_node_reads_it(bench: Court) -> None:
    receipts = [bench.receipt(amount=1), bench.receipt(2)]
    roots = [bytes([i]) * 32 for i in range(5)] + [receipts_root(receipts)]
    proof = court.receipt_proof(receipts, 1)
    for thin in (False, True):
        spine = spine_of(roots, thin=thin)
        slash_of(bench.accuse(against(bench, bench.under(spine, 6, 5, proof))))
    hollow = begin_cell().store_ref(begin_cell().store_ref(spine_of(roots)).end_cell()).end_cell()
    acquitted(bench, against(bench, bench.under(hollow, 6, 5, proof)), 9)
    library = Builder(1023, 2).store_uint(2, 8).store_bytes(spine_of(roots).hash).end_cell()
    acquitted(bench, against(bench, bench.under(library, 6, 5, proof)), ContractError.EXOTIC_CELL)


def test_a_pruned_branch_cannot_travel_outside_a_proof(bench: Court) -> None:
    """What the court relies on: the chain takes no message whose cells have a level."""
    assert pruned(bench.receipt().to_cell()).level_mask.mask != 0
    assert court.receipt_proof([bench.receipt(), bench.receipt(2)], 1).level_mask.mask == 0


# ------------------------------------------------------------------------------------------------ malformed


def test_g10_evidence_with_anything_more_is_refused(bench: Court) -> None:
    first, second = bench.signed(bench.receipt()), bench.claimed([bench.receipt(amount=1)])
    good = bench.equivocation(first, second)
    s = good.refs
    longer = [begin_cell().store_cell(ref).store_bit(1).end_cell() for ref in s]
    for i in range(3):
        body = begin_cell().store_bits(good.bits)
        for j, ref in enumerate(s):
            body.store_ref(longer[j] if i == j else ref)
        acquitted(bench, body.end_cell(), 9)
    body = begin_cell().store_bits(good.bits).store_bit(0)
    for ref in s:
        body.store_ref(ref)
    acquitted(bench, body.end_cell(), 9)


@dataclass(frozen=True)
class Raw:
    """A receipt cell as it is, signed."""

    cell: Cell
    signature: bytes

    def to_cell(self) -> Cell:
        return begin_cell().store_bit(0).store_bytes(self.signature).store_ref(self.cell).end_cell()


def with_ref(cell: Cell, ref: Cell) -> Cell:
    return begin_cell().store_bits(cell.bits).store_ref(ref).end_cell()


def longer_cells(cell: Cell) -> list[Cell]:
    """`cell` with a bit more, and with a reference more."""
    return [
        begin_cell().store_cell(cell).store_bit(1).end_cell(),
        begin_cell().store_cell(cell).store_ref(Cell.empty()).end_cell(),
    ]


def test_g10_receipts_with_anything_more_are_none_though_the_key_signed_them(bench: Court) -> None:
    honest, lie = bench.signed(bench.receipt()), bench.receipt(amount=1).to_cell()
    more = lie.refs[0]
    for cell in [*longer_cells(lie), *(with_ref(lie, each) for each in longer_cells(more))]:
        raw = Raw(cell, bench.enclave_key.sign(cell.hash))
        acquitted(bench, bench.equivocation(honest, raw), 9)


def test_g10_openings_with_anything_more_are_none_though_the_receipt_names_them(bench: Court) -> None:
    inner, terms = bench.inner().to_cell(), TERMS.to_cell()
    inners = [*longer_cells(inner), *(with_ref(inner, each) for each in longer_cells(inner.refs[0]))]
    for opened_inner, opened_terms in [
        *((each, terms) for each in inners),
        *((inner, each) for each in longer_cells(terms)),
    ]:
        receipt = replace(bench.receipt(amount=1), inner=bytes(opened_inner.hash), terms=bytes(opened_terms.hash))
        acquitted(bench, opening(bench, receipt, opened_inner, opened_terms), 9)
    receipt = replace(bench.receipt(amount=1), terms=bytes(inner.hash))
    acquitted(bench, opening(bench, receipt, inner, inner), ContractError.WRONG_OPENING)


def opening(bench: Court, receipt: Receipt, inner: Cell, terms: Cell) -> Cell:
    opened = begin_cell().store_ref(inner).store_ref(terms).end_cell()
    body = begin_cell().store_uint(Op.FALSE_AMOUNT, 32).store_bytes(bench.escrow).store_uint(ALLOTMENT_EPOCH, 64)
    body.store_uint(1, 32).store_ref(bench.accused.to_cell()).store_ref(bench.signed(receipt).to_cell())
    return body.store_ref(opened).store_ref(node_program()).end_cell()


def test_g10_what_is_no_receipt_is_no_testimony_though_the_key_signed_it(bench: Court) -> None:
    """The same fields under another tag are another structure."""
    cell = bench.receipt(amount=1).to_cell()
    other = begin_cell().store_uint(1, 32).store_bits(cell.bits[32:]).store_ref(cell.refs[0]).end_cell()
    raw = Raw(other, bench.enclave_key.sign(other.hash))
    acquitted(bench, bench.equivocation(bench.signed(bench.receipt()), raw), ContractError.OTHER_RECEIPT)


def test_g10_an_opening_of_more_than_two_cells_is_refused(bench: Court) -> None:
    body = bench.false_amount(bench.signed(bench.receipt(amount=1)))
    for longer in longer_cells(body.refs[2]):
        changed = begin_cell().store_bits(body.bits)
        for i, ref in enumerate(body.refs):
            changed.store_ref(longer if i == 2 else ref)
        acquitted(bench, changed.end_cell(), 9)


@pytest.mark.parametrize("op", [Op.SLASH, Op.GENESIS, Op.PAID, 1])
def test_the_court_knows_three_messages(bench: Court, op: int) -> None:
    acquitted(bench, begin_cell().store_uint(op, 32).end_cell(), ContractError.UNKNOWN_OP)


@pytest.mark.parametrize("body", [None, begin_cell().store_uint(0, 32).store_bytes(b"rent").end_cell()])
def test_money_without_a_message_is_rent(bench: Court, body: Cell | None) -> None:
    before = bench.ledger.balance(bench.court)
    assert not bench.tell(bench.stranger, bench.court, TON, body).failed
    assert bench.ledger.balance(bench.court) > before + TON - TON // 1000


def test_g7_a_slash_that_comes_back_changes_nothing(bench: Court) -> None:
    body = begin_cell().store_uint(0xFFFFFFFF, 32).store_uint(Op.MISSED, 32).end_cell()
    data = bench.ledger.account(bench.court).data
    trace = bench.ledger.send_internal(
        source=bench.node, destination=bench.court, value_nano=TON, body=body, bounce=False, bounced=True
    )
    after = bench.ledger.account(bench.court).data
    assert not trace.failed and not trace.transactions[0].out_msgs
    assert data is not None and after is not None and data.hash == after.hash


# ------------------------------------------------------------------------------------------------ misses


def missed_body(bench: Court, amount: int = 3 * TON) -> Cell:
    return court.missed(bench.escrow, 4, amount, bench.stranger, bench.accused, node_program())


def tell_court(bench: Court, source: bytes, body: Cell) -> Trace:
    bench.ledger.send_internal(source=source, destination=bench.court, value_nano=TON, body=body, run=False)
    trace = bench.ledger.run(1)
    bench.ledger.queue.clear()
    return trace


def test_a_genuine_job_slashes_its_maximum_and_harms_nobody(bench: Court) -> None:
    account = child_address(bench.registry, Kind.JOB, bench.escrow, 4)
    slash = slash_of(tell_court(bench, account, missed_body(bench)))
    key = public(bench.enclave_key)
    assert slash == court.Slash(NODE_EPOCH, key, 3 * TON, 0, bench.escrow, bench.stranger, TREASURY, node_program())


def test_g10_a_miss_from_anybody_but_that_job_is_refused(bench: Court) -> None:
    others = [
        child_address(bench.registry, Kind.JOB, bench.escrow, 5),
        child_address(bench.registry, Kind.ESCROW, bench.escrow, 4),
        child_address(bench.registry, Kind.NODE, bench.escrow, 4),
        child_address(bench.registry, Kind.JOB, bench.stranger, 4),
        child_address(account_of_name("another registry"), Kind.JOB, bench.escrow, 4),
        bench.stranger,
        bench.registry,
        bench.escrow,
    ]
    for source in others:
        assert code_of(tell_court(bench, source, missed_body(bench))) == ContractError.NOT_GENUINE


def test_a_job_worth_nothing_never_takes_the_whole_stake(bench: Court) -> None:
    """A penalty of 0 would mean everything. No registry opens such a job; the court does not rely on it."""
    account = child_address(bench.registry, Kind.JOB, bench.escrow, 4)
    trace = tell_court(bench, account, missed_body(bench, 0))
    (back,) = trace.transactions[0].out_msgs
    assert not trace.failed and back.destination == bench.stranger and not back.body.bits


def test_a_miss_travels_from_the_job_to_the_node(bench: Court) -> None:
    account = bench.brought_to(job.Phase.ACCEPTED)
    bench.ledger.now = bench.config.deadline + bench.config.grace + 1
    value = bench.fees.refund(node_program())
    trace = bench.tell(bench.stranger, account, value, job.refund(node_program()))
    sent = [m for tx in trace.transactions if tx.account == bench.court for m in tx.out_msgs]
    slash = court.Slash.from_cell(sent[0].body)
    assert sent[0].destination == bench.node and sent[0].value_nano >= bench.fees.slash_need()
    assert slash == court.Slash(
        5, public(bench.enclave_key), TON, 0, bench.escrow, bench.stranger, TREASURY, node_program()
    )


# ------------------------------------------------------------------------------------------------ money


def test_g8_below_the_need_evidence_comes_back_and_at_it_the_node_can_act(bench: Court) -> None:
    lie = bench.receipt(amount=1)
    for testimony in (bench.signed(lie), bench.claimed([lie, bench.receipt(2)], index=99, count=100)):
        body = against(bench, testimony)
        need = least_value(bench, body)
        gas = need - bench.fees.slash_value(node_program()) - bench.prices.flat_gas_price
        assert gas % (bench.prices.gas_price >> 16) == 0, "the need is a price of gas and what goes on, to the nanoTON"
        refused = bench.accuse(body, need - 1)
        assert code_of(refused) == ContractError.LOW_VALUE
        (back,) = refused.transactions[0].out_msgs
        assert back.bounced and back.destination == bench.stranger
        trace = bench.accuse(body, need)
        (message,) = trace.transactions[0].out_msgs
        assert bench.fees.slash_need() <= message.value_nano
        assert need <= bench.fees.evidence(node_program())


def test_g8_a_program_too_large_to_send_is_refused(bench: Court) -> None:
    big: Cell | None = None
    for i in range(65):
        builder = begin_cell().store_uint(i, 32)
        big = (builder.store_ref(big) if big is not None else builder).end_cell()
    assert big is not None
    first, second = bench.signed(bench.receipt()), bench.signed(bench.receipt(amount=1))
    body = court.equivocation(bench.place(), bench.accused, first, second, big)
    assert code_of(bench.accuse(body)) == 8


def test_receipts_of_a_claim_are_proved_by_what_leads_to_them(bench: Court) -> None:
    receipts = [bench.receipt(seq) for seq in range(1, 65)]
    proof = court.receipt_proof(receipts, 33)
    assert proof.refs[0].get_hash(0) == receipts_root(receipts)
    assert bytes(proof.bits[8:264].tobytes()) == receipts_root(receipts)


def test_wrappers_read_what_they_write(bench: Court) -> None:
    slash = court.Slash(1, b"\x01" * 32, 2, 3, b"\x02" * 32, b"\x03" * 32, b"\x04" * 32, node_program())
    assert court.Slash.from_cell(slash.to_cell()) == slash
    assert court.Accused.from_cell(bench.accused.to_cell()) == bench.accused
    with pytest.raises(CellError):
        court.Slash.from_cell(Cell.empty())
    with pytest.raises(CellError):
        court.CourtState.from_cell(code(Contract.COURT))
