"""Round trips of every row that the wrappers know, and refusal of what is not one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import begin_cell

from chain.decode import decode_message
from wrappers import claims, escrow, node, verdicts
from wrappers.addresses import Kind, child_address, stub_state_init
from wrappers.cells import CellError
from wrappers.code import Contract, code
from wrappers.receipts import Receipt, Terms
from wrappers.registry import Parameters, RegistryState
from wrappers.rows import Fee, KeyRow, Row, RowTerms, Shares, payable

IDS = st.binary(min_size=32, max_size=32)
NAMED = IDS.filter(any)
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
COINS = st.integers(0, (1 << 62) - 1)
TIMES = st.integers(0, 1 << 31)

BPS = st.integers(0, 1000)
fees = st.none() | st.builds(Fee, st.integers(1, 500), IDS)
shares = st.builds(Shares, BPS, BPS, IDS, IDS, fees, U64)
row_terms = st.builds(RowTerms, IDS, U32, st.none() | shares)
key_rows = st.builds(KeyRow, U64, U64, U64, U32)


@st.composite
def rows(draw: st.DrawFn) -> Row:
    keys = draw(st.dictionaries(NAMED, key_rows, max_size=3))
    current = draw(st.sampled_from(sorted(keys))) if keys else None
    if current is None:
        keys = {}
    outdated = draw(st.none() | key_rows) if current is not None else None
    return Row(draw(U64), draw(U64), draw(U64), draw(U32), draw(U32), draw(row_terms), keys, current, outdated)


@st.composite
def escrows(draw: st.DrawFn) -> escrow.EscrowState:
    return escrow.EscrowState(
        draw(IDS), draw(IDS), draw(st.booleans()), draw(COINS), draw(COINS), draw(COINS),
        draw(st.dictionaries(IDS, rows(), max_size=3)), draw(IDS), draw(IDS), draw(U32), draw(U32), draw(U32),
        draw(st.none() | st.builds(escrow.NextKey, IDS, U32)), draw(fees),
    )  # fmt: skip


@st.composite
def extras(draw: st.DrawFn) -> node.NodeExtras:
    offers = draw(st.dictionaries(IDS, st.builds(Terms, IDS, U64, U64, U64, U64, U64), max_size=3))
    return node.NodeExtras(draw(st.none() | NAMED), draw(st.none() | NAMED), draw(st.booleans()), offers)


@st.composite
def nodes(draw: st.DrawFn) -> node.NodeState:
    key = draw(st.none() | NAMED)
    identity = draw(st.none() | st.tuples(IDS, IDS))
    window = draw(st.integers(0, 1 << 30))
    return node.NodeState(
        seqno=draw(U32), tokens=draw(U64), node_id=draw(IDS), signing_key=key,
        claims_until=draw(TIMES) + window if key else 0, stake_nano=draw(COINS),
        requests=draw(st.integers(0, (1 << 40) - 1)), earned_nano=draw(COINS), unbond_at=draw(U32),
        block_seqno=draw(U32), tier=draw(st.integers(0, 255)),
        retired=draw(st.dictionaries(NAMED, st.builds(node.RetiredKey, U32, st.booleans(), IDS), max_size=4)),
        acked_only=draw(st.booleans()), extras=draw(st.none() | extras()),
        measurement=identity[0] if identity else None, platform=identity[1] if identity else None,
        controller=draw(IDS), payout=draw(IDS), release_key=draw(IDS), registry=draw(IDS),
        stub_prefix=draw(st.binary(min_size=39, max_size=39)), gas_level_nano=draw(COINS),
        payout_threshold_nano=draw(COINS), rent_reserve_nano=draw(COINS), court=draw(IDS), owner=draw(IDS),
        index=draw(U32), epoch=draw(U64), attestation=draw(IDS), unbonding=draw(U32), claim_window=window,
        challenge_window=draw(U32),
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(escrows(), IDS)
def test_escrow_state_round_trip(state: escrow.EscrowState, account: bytes) -> None:
    cell = state.to_cell()
    again = escrow.EscrowState.from_cell(cell, account)
    assert again is not None and again.to_cell().hash == cell.hash
    assert {k: v.keys for k, v in again.rows.items()} == {k: v.keys for k, v in state.rows.items()}
    assert (again.deposit_nano, again.free_nano, again.closing) == (state.deposit_nano, state.free_nano, state.closing)


@settings(max_examples=60, deadline=None)
@given(nodes())
def test_node_state_round_trip(state: node.NodeState) -> None:
    assert node.NodeState.from_cell(state.to_cell()) == state


@settings(max_examples=40, deadline=None)
@given(IDS, IDS, IDS, st.builds(Parameters, COINS, COINS, COINS, COINS, U32, U32, U32, U32, U32, st.integers(0, 500)))
def test_registry_state_round_trip(a: bytes, b: bytes, c: bytes, parameters: Parameters) -> None:
    codes = (code(contract) for contract in (Contract.STUB, Contract.NODE, Contract.ESCROW, Contract.JOB))
    state = RegistryState(a, b, c, parameters, *codes, court=b)
    assert RegistryState.from_cell(state.to_cell()) == state


ENTRIES = st.builds(claims.Entry, U64, U32, U64, U64, IDS, st.binary(min_size=64, max_size=64))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.builds(claims.ClaimEntry, IDS, ENTRIES, IDS), min_size=1, max_size=10), U32, U32, U64)
def test_claim_message_round_trip(entries: list[claims.ClaimEntry], seqno: int, until: int, tokens: int) -> None:
    message = claims.claim_message(bytes(32), bytes(64), seqno, until, tokens, entries)
    body = claims.ClaimMessage.from_cell(decode_message(message).body)
    assert body == claims.ClaimMessage(bytes(64), seqno, until, tokens, tuple(entries))


@settings(max_examples=40, deadline=None)
@given(st.builds(verdicts.VerdictBody, U64, IDS, U32, U32, st.integers(0, 255), IDS, IDS), row_terms)
def test_small_rows_round_trip(verdict: verdicts.VerdictBody, terms: RowTerms) -> None:
    assert verdicts.VerdictBody.from_cell(verdict.to_cell()) == verdict
    assert RowTerms.from_cell(terms.to_cell()) == terms


def test_what_is_not_a_state_is_refused() -> None:
    stub = stub_state_init(bytes(32), Kind.NODE, bytes(32), 0).refs[1]
    assert node.NodeState.from_cell(stub) is None and escrow.EscrowState.from_cell(stub) is None
    junk = begin_cell().store_bytes(bytes(70)).end_cell()
    for read in (node.NodeState.from_cell, escrow.EscrowState.from_cell, RegistryState.from_cell):
        with pytest.raises(CellError):
            read(junk)
    for count in (0, 201):
        with pytest.raises(ValueError, match="1 to 200"):
            claims.batch(
                [claims.ClaimEntry(bytes(32), claims.Entry(0, 0, 0, 0, bytes(32), bytes(64)), bytes(32))] * count
            )


def test_addresses_differ_by_every_part() -> None:
    base = (bytes(32), Kind.NODE, bytes(32), 0)
    others = [
        (b"\x01" * 32, *base[1:]),
        (base[0], Kind.ESCROW, *base[2:]),
        (*base[:2], b"\x01" * 32, 0),
        (*base[:3], 1),
    ]
    assert len({child_address(*parts) for parts in [base, *others]}) == 5  # type: ignore[arg-type]


def test_payable_is_what_the_contract_would_pay() -> None:
    row = Row(1, 100, 40, 0, 0, RowTerms(bytes(32), 3600), {b"\x01" * 32: KeyRow(40, 50, 0, 1)})

    def due(key: bytes, cumulative: int, cap: int, acked: int = 0, *, acked_only: bool = False) -> int:
        return payable(row, key, cumulative, cap, acked, acked_only=acked_only)

    assert due(b"\x01" * 32, 70, 60) == 20
    assert due(b"\x01" * 32, 70, 10) == 10, "the highest cap seen counts"
    assert due(b"\x02" * 32, 90, 90) == 60, "the allotment's rest"
    assert due(b"\x01" * 32, 10, 90) == 0
    assert due(b"\x01" * 32, 70, 60, 45, acked_only=True) == 5, "a distrusted key: what the client acknowledged"
    assert due(b"\x01" * 32, 70, 60, acked_only=True) == 0


def test_receipts_root_is_the_dictionary_by_seq() -> None:
    receipts = [Receipt(bytes(32), bytes(32), seq, bytes(32), 1, seq, bytes(32), bytes(32)) for seq in (1, 2, 3)]
    assert claims.receipts_root([]) == bytes(32)
    assert claims.receipts_root(receipts) == claims.receipts_root(receipts[::-1]) != claims.receipts_root(receipts[:2])
