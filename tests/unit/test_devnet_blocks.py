"""Block and state cells, their Merkle proofs, and the chain around the ledger, without any server."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address, Cell, HashMap, begin_cell
from pytoniq_core.proof.check_proof import ProofError, check_account_proof, check_shard_proof
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import Block as ParsedBlock
from tonpy.fift.fift import convert_assembler

from devnet.augmented import AugTree, write_currency
from devnet.blocks import BASECHAIN, MASTERCHAIN, block_transactions
from devnet.core import DevnetChain
from devnet.engine import DevnetError
from devnet.faults import Fault, Faults, Kind, lie, read_fault
from devnet.litequeries import QUERIES
from devnet.merkle import proof, pruned, update
from devnet.messages import external_in
from wrappers.cells import EMPTY, cell_of, from_boc

TON = 10**9
ALICE = bytes([0xA1]) * 32
BOB = bytes([0xB0]) * 32


class Clock:
    def __init__(self) -> None:
        self.seconds = 1_790_000_000.0

    def __call__(self) -> float:
        return self.seconds


def chain(**options: int) -> DevnetChain:
    return DevnetChain.born(clock=Clock(), **options)  # type: ignore[arg-type]


def assemble(source: str) -> Cell:
    return from_boc(base64.b64decode(convert_assembler(f'"Asm.fif" include\n<{{ {source} }}>c').to_boc()))


def payload(number: int) -> Cell:
    return cell_of(begin_cell().store_uint(number, 16))


keys = st.integers(0, 2**16 - 1).map(lambda number: format(number, "016b"))


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(keys, st.integers(0, 10**12), max_size=12), st.lists(keys, max_size=6), st.data())
def test_the_tree_is_the_same_whatever_the_order_of_changes(
    items: dict[str, int], extra: list[str], data: st.DataObject
) -> None:
    straight = AugTree(16, write_currency)
    for key in sorted(items):
        straight = straight.set(key, payload(int(key, 2)), items[key])
    shuffled = AugTree(16, write_currency)
    for key in extra:
        shuffled = shuffled.set(key, payload(7), 7)
    for key in data.draw(st.permutations(sorted(items))):
        shuffled = shuffled.set(key, payload(int(key, 2)), items[key])
    for key in set(extra) - items.keys():
        shuffled = shuffled.delete(key)
    assert shuffled.hashmap_e().hash == straight.hashmap_e().hash
    assert straight.amount_nano == sum(items.values())
    assert all(straight.get(key) == payload(int(key, 2)) for key in items)
    assert all(straight.get(key) is None for key in set(extra) - items.keys())


@given(st.dictionaries(keys, st.integers(0, 10**12), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_labels_are_the_shortest_as_in_a_plain_dictionary(items: dict[str, int]) -> None:
    tree = AugTree(16, lambda builder, _: builder)
    plain = HashMap(16, value_serializer=lambda value, builder: builder.store_uint(value, 16))
    for key in items:
        tree = tree.set(key, payload(int(key, 2)), 0)
        plain.set_int_key(int(key, 2), int(key, 2))
    assert tree.hashmap().hash == plain.serialize().hash


def test_pruning_keeps_hashes_and_updates_name_both_states() -> None:
    leaf = cell_of(begin_cell().store_uint(1, 300))
    root = cell_of(begin_cell().store_uint(2, 300).store_ref(leaf).store_ref(payload(3)))
    cut = proof(root, {leaf.hash})
    assert cut.refs[0].get_hash(0) == root.hash
    assert cut.refs[0].refs[0].data[2:34] == leaf.hash
    assert pruned(root).get_hash(0) == root.hash
    change = update(leaf, root)
    assert [side.get_hash(0) for side in change.refs] == [leaf.hash, root.hash]


def test_a_new_chain_has_sparse_blocks_to_show() -> None:
    seen = chain().at(0)
    assert [block.seqno for block in seen.hundreds] == [100, 0]
    assert len(seen.last) == 16
    assert seen.last[0].seqno - seen.last[15].seqno == 15


def test_contracts_see_the_chains_own_blocks() -> None:
    devnet = chain()
    code = assemble("x{F83402} s, 0 INDEX 3 INDEX NEWC 256 STU x{F83400} s, 0 INDEX 3 INDEX SWAP 256 STU ENDC POPROOT")
    builder = begin_cell().store_uint(0, 2).store_bit(1).store_ref(code).store_bit(1).store_ref(EMPTY).store_bit(0)
    init = cell_of(builder)
    head = devnet.head.master
    devnet.ledger.send_internal(
        source=ALICE, destination=init.hash, value_nano=TON, state_init=init, bounce=False, run=False
    )
    devnet.produce()
    hundred = devnet.sparse_id(100)
    assert hundred is not None
    expected = begin_cell().store_bytes(hundred.root_hash).store_bytes(head.root_hash)
    assert devnet.ledger.account(bytes(init.hash)).data == cell_of(expected)


def test_blocks_hold_their_transactions_and_link_to_the_one_before() -> None:
    devnet = chain()
    before = devnet.head
    for account in (BOB, ALICE, BOB):
        devnet.faucet(account, TON)
    sealed = devnet.produce()
    assert [tx.account for tx in sealed.shard.transactions] == [BOB, ALICE, BOB]
    ordered = block_transactions(sealed.shard)
    assert [tx.account for tx in ordered] == [ALICE, BOB, BOB]
    assert block_transactions(sealed.shard, after=(ALICE, ordered[0].lt)) == ordered[1:]
    parsed = ParsedBlock.deserialize(sealed.shard.cell.begin_parse())
    assert parsed.info.seqno == before.shard.seqno + 1
    assert parsed.info.prev_ref.prev.root_hash == before.shard.root_hash
    assert parsed.info.start_lt < ordered[0].lt < parsed.info.end_lt
    found = {
        tx.cell.hash for _, block in parsed.extra.account_blocks[0].items() for tx in block.transactions[0].values()
    }
    assert found == {tx.hash for tx in ordered}


def _id(devnet: DevnetChain, workchain: int) -> BlockIdExt:
    block = devnet.block(workchain, devnet.head.master.seqno)
    return BlockIdExt(workchain, -(1 << 63), block.seqno, block.root_hash, block.file_hash)


@settings(max_examples=10, deadline=None)
@given(st.sets(st.binary(min_size=32, max_size=32), min_size=1, max_size=8))
def test_account_proofs_check_for_every_account_and_for_no_other(accounts: set[bytes]) -> None:
    devnet = chain()
    for account in accounts:
        devnet.faucet(account, TON)
    devnet.produce()
    master, shard = _id(devnet, MASTERCHAIN), _id(devnet, BASECHAIN)
    answers = {}
    for account in accounts:
        query = {"id": master.to_dict(), "account": {"workchain": 0, "id": account.hex()}}
        answers[account] = QUERIES["getAccountState"](devnet, query)[1]
        check_shard_proof(answers[account]["shard_proof"], master, shard)
        state = from_boc(answers[account]["state"])
        check_account_proof(answers[account]["proof"], shard, Address((0, account)), state)
    for account in accounts:
        for other in accounts - {account}:
            with pytest.raises((ProofError, KeyError)):
                state = from_boc(answers[other]["state"])
                check_account_proof(answers[account]["proof"], shard, Address((0, account)), state)


def test_an_account_proof_is_small_however_many_accounts_there_are() -> None:
    devnet = chain()
    for number in range(300):
        devnet.faucet(number.to_bytes(2, "big") * 16, TON)
    devnet.produce()
    query = {"id": _id(devnet, MASTERCHAIN).to_dict(), "account": {"workchain": 0, "id": (b"\0\7" * 16).hex()}}
    answer = QUERIES["getAccountState"](devnet, query)[1]
    assert len(answer["proof"]) < 4_000


def test_a_state_of_the_past_is_answered_for_the_block_that_was_asked() -> None:
    devnet = chain()
    devnet.faucet(ALICE, TON)
    devnet.produce()
    then = devnet.head.master.seqno
    devnet.faucet(ALICE, TON)
    devnet.produce()
    past, present = devnet.stored_at(then, ALICE), devnet.stored_at(then + 1, ALICE)
    assert past is not None and present is not None
    assert (past.state.balance_nano, present.state.balance_nano) == (TON, 2 * TON)
    assert devnet.stored_at(then - 1, ALICE) is None


def test_an_idle_chain_keeps_a_bounded_number_of_rounds() -> None:
    devnet = chain(kept_rounds=50)
    devnet.faucet(ALICE, TON)
    devnet.produce()
    for _ in range(100):
        devnet.produce()
    assert len(devnet.rounds) == 50
    assert [block.seqno for block in devnet.sparse_ids()] == [0, 100, 200]
    assert len(devnet.history(ALICE)) == 1
    assert devnet.located[devnet.history(ALICE)[0].hash].seqno == 117
    with pytest.raises(DevnetError, match="not kept"):
        devnet.block(BASECHAIN, 117)


def test_a_message_whose_time_has_passed_is_dropped_with_its_reason() -> None:
    devnet = chain()
    # Accepts one external ever, credits always: of two that were both fine when they came in the second must fail.
    source = "NIP NIP NIP IFNOTJMP:<{ DROP }> DROP c4 PUSH CTOS SEMPTY 33 THROWIFNOT ACCEPT"
    code = assemble(f"{source} 1 PUSHINT NEWC 8 STU ENDC POPROOT")
    builder = begin_cell().store_uint(0, 2).store_bit(1).store_ref(code).store_bit(1).store_ref(EMPTY).store_bit(0)
    init = cell_of(builder)
    devnet.faucet(bytes(init.hash), TON)
    devnet.produce()
    messages = [external_in(bytes(init.hash), payload(number), init) for number in (1, 2)]
    for message in messages:
        assert devnet.submit(message) == message.hash
        assert devnet.submit(message) == message.hash
    assert len(devnet.mempool) == 2
    devnet.produce()
    assert [drop.message_hash for drop in devnet.dropped] == [messages[1].hash]
    assert "33" in devnet.dropped[0].reason
    assert len(devnet.history(bytes(init.hash))) == 2


def test_time_is_real_time_plus_what_was_travelled_and_never_goes_back() -> None:
    clock = Clock()
    devnet = DevnetChain.born(clock=clock)
    assert devnet.now() == int(clock.seconds)
    devnet.advance(1000)
    devnet.produce()
    assert devnet.head.master.now == int(clock.seconds) + 1000
    clock.seconds -= 500
    devnet.produce()
    assert devnet.head.master.now == int(clock.seconds) + 1500
    with pytest.raises(DevnetError, match="forward only"):
        devnet.advance(-1)
    with pytest.raises(DevnetError, match="2106"):
        devnet.advance(1 << 32)


def test_faults_match_method_and_account_and_count() -> None:
    faults = Faults()
    faults.set(
        [
            Fault(Kind.ERROR, method="getTransactions", times=2),
            Fault(Kind.LIE, account=ALICE, patch={}),
        ]
    )
    assert [getattr(faults.take("getTransactions", None), "kind", None) for _ in range(3)] == ["error", "error", None]
    assert faults.take("anything", BOB) is None
    assert getattr(faults.take("anything", ALICE), "kind", None) == "lie"


def test_lies_are_merged_into_the_truth() -> None:
    truth = {"balance": "5", "last": {"lt": "1", "hash": "x"}}
    assert lie(truth, {"last": {"lt": "0"}}) == {"balance": "5", "last": {"lt": "0", "hash": "x"}}
    assert lie([1, 2], []) == []
    with pytest.raises(DevnetError, match="unknown fault fields"):
        read_fault({"kind": "lie", "patsh": {}}, None)
