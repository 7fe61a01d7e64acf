"""The ledger: fees, rent, bounces, snapshots, and what the TVM sees of the chain."""

from __future__ import annotations

import base64
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell, begin_cell
from tonpy.fift.fift import convert_assembler

from chain.api import Status
from chain.reader import Reader
from devnet.engine import DevnetError
from devnet.ledger import GetMethodFailed, Ledger, Rejected
from devnet.messages import external_in
from devnet.network import DEVNET_GLOBAL_ID, MAINNET_CONFIG_HASH, MAINNET_GLOBAL_ID, config_cell, config_parameters
from wrappers.cells import EMPTY, address_of, from_boc

TON = 10**9
YEAR = 365 * 86400
ALICE = bytes([0xA1]) * 32
NOBODY = bytes([0x0B]) * 32

# Sends the message that the body holds as mode:uint8 ^message, for anyone; an empty body is a plain credit.
SENDER = "DROP NIP NIP NIP ACCEPT DUP SEMPTY IFJMP:<{ DROP }> 8 LDU LDREF DROP SWAP SENDRAWMSG"
THROWER = "99 THROW"


@cache
def assemble(source: str) -> Cell:
    return from_boc(base64.b64decode(convert_assembler(f'"Asm.fif" include\n<{{ {source} }}>c').to_boc()))


def state_init(code: Cell, data: Cell = EMPTY) -> Cell:
    builder = begin_cell().store_uint(0, 2).store_bit(1).store_ref(code).store_bit(1).store_ref(data)
    return builder.store_bit(0).end_cell()


def deploy(ledger: Ledger, source: str, *, data: Cell = EMPTY, value_nano: int = TON) -> bytes:
    init = state_init(assemble(source), data)
    ledger.send_internal(source=ALICE, destination=init.hash, value_nano=value_nano, state_init=init, bounce=False)
    assert ledger.account(init.hash).status is Status.ACTIVE
    return bytes(init.hash)


def deploy_sender(ledger: Ledger, number: int, value_nano: int) -> bytes:
    return deploy(ledger, SENDER, data=begin_cell().store_uint(number, 8).end_cell(), value_nano=value_nano)


def outgoing(destination: bytes, value_nano: int, body: Cell = EMPTY, *, bounce: bool = True) -> Cell:
    builder = begin_cell().store_bit(0).store_bit(1).store_bit(int(bounce)).store_bit(0).store_uint(0, 2)
    builder.store_address(address_of(destination)).store_coins(value_nano).store_uint(0, 1 + 4 + 4 + 64 + 32)
    return builder.store_bit(0).store_bit(1).store_ref(body).end_cell()


def order(message: Cell, mode: int = 1) -> Cell:
    return begin_cell().store_uint(mode, 8).store_ref(message).end_cell()


def test_configuration_is_mainnets_but_for_the_global_id() -> None:
    assert config_cell(MAINNET_GLOBAL_ID).hash == MAINNET_CONFIG_HASH
    ours, theirs = config_parameters(config_cell(DEVNET_GLOBAL_ID)), config_parameters(config_cell(MAINNET_GLOBAL_ID))
    assert [number for number in theirs if ours[number].hash != theirs[number].hash] == [19]
    assert ours.keys() == theirs.keys()


def test_faucet_creates_an_uninitialized_account_and_adds_up() -> None:
    ledger = Ledger()
    assert ledger.account(ALICE).status is Status.ABSENT
    ledger.faucet(ALICE, 5 * TON)
    ledger.faucet(ALICE, 300 * TON)
    assert ledger.account(ALICE).status is Status.UNINIT
    assert ledger.balance(ALICE) == 305 * TON
    assert ALICE not in ledger.transactions
    with pytest.raises(DevnetError, match="positive"):
        ledger.faucet(ALICE, 0)


def test_faucet_credits_an_active_account_without_touching_it() -> None:
    ledger = Ledger()
    sender = deploy(ledger, SENDER)
    before = ledger.account(sender)
    ledger.faucet(sender, 1000 * TON)
    after = ledger.account(sender)
    assert after.balance_nano == before.balance_nano + 1000 * TON
    assert (after.code, after.data, after.last_lt, after.last_hash) == (
        before.code,
        before.data,
        before.last_lt,
        before.last_hash,
    )
    trace = ledger.send_external(external_in(sender, order(outgoing(NOBODY, 900 * TON, bounce=False))))
    assert not trace.failed
    assert trace.total_fees_nano == trace.balance_delta_nano


@pytest.mark.parametrize("global_id", [DEVNET_GLOBAL_ID, MAINNET_GLOBAL_ID])
def test_contracts_and_get_methods_see_the_global_id(global_id: int) -> None:
    ledger = Ledger(global_id=global_id)
    account = deploy(ledger, f"GLOBALID {global_id} PUSHINT EQUAL 44 THROWIFNOT")
    assert ledger.transactions[account][-1].exit_code == 0
    reader = deploy(ledger, "DEPTH DEC IFJMP:<{ }> DROP GLOBALID")
    assert ledger.run_get(reader, "anything") == [global_id]


def test_transactions_see_both_lists_of_previous_masterchain_blocks() -> None:
    ledger = Ledger()
    store = "3 INDEX NEWC 256 STU ENDC POPROOT"
    recent = deploy(ledger, f"x{{F83400}} s, 0 INDEX {store}")
    sparse = deploy(ledger, f"x{{F83402}} s, 15 INDEX {store}")
    seen = ledger.mc_blocks.at(ledger.now)
    assert ledger.account(recent).data == begin_cell().store_bytes(seen.last[0].root_hash).end_cell()
    assert ledger.account(sparse).data == begin_cell().store_bytes(seen.hundreds[15].root_hash).end_cell()


def test_get_methods_see_both_lists_of_previous_masterchain_blocks() -> None:
    ledger = Ledger()
    only_get = "DEPTH DEC IFJMP:<{ }> DROP"
    blocks = deploy(ledger, f"{only_get} x{{F83400}} s, x{{F83402}} s,")
    recent, sparse = ledger.run_get(blocks, "blocks")
    seen = ledger.prev_blocks
    assert isinstance(recent, list) and isinstance(sparse, list)
    assert [block[2] for block in recent] == [seen.last[0].seqno - back for back in range(16)]
    assert [block[2] % 100 for block in sparse] == [0] * 16
    assert [block[3] for block in sparse] == [int.from_bytes(block.root_hash, "big") for block in seen.hundreds]
    assert ledger.now - ledger.run_get(deploy(ledger, f"{only_get} NOW"), "time")[0] == 0  # type: ignore[operator]


def test_get_methods_compute_prices_from_the_configuration() -> None:
    ledger = Ledger()
    get = "DEPTH DEC IFJMP:<{ }> DROP"
    # gas 1000 and workchain 0: mainnet's flat price of the first 100 gas, 400 nanoTON each for the rest.
    price = deploy(ledger, f"{get} 1000 PUSHINT 0 PUSHINT x{{F836}} s,")
    assert ledger.run_get(price, "price") == [400_000]


@pytest.mark.parametrize("value", [0, -1, 2**63, 2**256 - 1, -(2**256)])
def test_get_methods_take_and_return_whole_integers(value: int) -> None:
    ledger = Ledger()
    echo = deploy(ledger, "DEPTH DEC DEC IFJMP:<{ }> DROP")
    assert ledger.run_get(echo, "echo", value) == [value]


def test_get_methods_pass_cells_and_report_failures() -> None:
    ledger = Ledger()
    echo = deploy(ledger, "DEPTH DEC DEC IFJMP:<{ }> DROP")
    assert ledger.run_get(echo, "echo", order(EMPTY)) == [order(EMPTY)]
    thrower = deploy(ledger, "DEPTH DEC IFJMP:<{ }> 77 THROW")
    with pytest.raises(GetMethodFailed) as failure:
        ledger.run_get(thrower, "fail")
    assert failure.value.exit_code == 77
    with pytest.raises(DevnetError, match="no code"):
        ledger.run_get(NOBODY, "fail")


def test_an_external_that_is_not_accepted_changes_nothing() -> None:
    ledger = Ledger()
    thrower = deploy(ledger, "DEPTH 4 PUSHINT LEQ IF:<{ }>ELSE<{ DUP IF:<{ 42 THROW }> }>")
    before = ledger.snapshot()
    with pytest.raises(Rejected) as refusal:
        ledger.send_external(external_in(thrower, EMPTY))
    assert refusal.value.exit_code == 42
    ledger.faucet(NOBODY, TON)
    for account in (NOBODY, ALICE):
        with pytest.raises(Rejected) as refusal:
            ledger.send_external(external_in(account, EMPTY))
        assert refusal.value.exit_code is None
    assert ledger.account(thrower) == before.accounts[thrower].state
    assert ledger.lt == before.lt
    with pytest.raises(DevnetError, match="external"):
        ledger.send_external(outgoing(thrower, 1))


def test_a_bounce_is_reported_as_failed_and_returns_the_money() -> None:
    ledger = Ledger()
    sender, thrower = deploy(ledger, SENDER, value_nano=5 * TON), deploy(ledger, THROWER)
    trace = ledger.send_external(external_in(sender, order(outgoing(thrower, TON))))
    assert [tx.account for tx in trace.failed][:1] == [thrower]
    assert trace.failed[0].exit_code == 99
    returned = trace.transactions[2].in_msg
    assert returned is not None and returned.bounced and returned.source == thrower
    assert trace.total_fees_nano == trace.balance_delta_nano


def test_a_credit_without_code_is_no_failure_but_its_bounce_is() -> None:
    ledger = Ledger()
    sender = deploy(ledger, SENDER, value_nano=5 * TON)
    assert not ledger.send_external(external_in(sender, order(outgoing(NOBODY, TON, bounce=False)))).failed
    assert ledger.send_external(external_in(sender, order(outgoing(ALICE, TON)))).of(ALICE)[0].aborted
    assert ledger.send_external(external_in(sender, order(outgoing(ALICE, TON)))).failed


def test_messages_to_other_workchains_leave_and_are_accounted_for() -> None:
    ledger = Ledger()
    sender = deploy(ledger, SENDER, value_nano=5 * TON)
    message = begin_cell().store_uint(0b0100, 4).store_uint(0, 2).store_uint(0b100, 3).store_int(-1, 8)
    message.store_bytes(NOBODY).store_coins(TON).store_uint(0, 1 + 4 + 4 + 64 + 32 + 2)
    trace = ledger.send_external(external_in(sender, order(message.end_cell())))
    assert trace.left_nano == TON
    assert trace.total_fees_nano == trace.balance_delta_nano
    assert ledger.account(NOBODY).status is Status.ABSENT


def test_g9_rent_is_collected_to_the_nanoton() -> None:
    ledger = Ledger()
    ledger.faucet(NOBODY, TON)
    storage = Reader(ledger.accounts[NOBODY].cell)
    storage.uint(268)
    cells, bits = storage.var_uint(3), storage.var_uint(3)
    assert (cells, bits) == (1, 64 + 4 + 8 * 4 + 1 + 2)
    ledger.now += 3 * YEAR
    trace = ledger.send_internal(source=ALICE, destination=NOBODY, value_nano=TON, bounce=False)
    rent = -(-(bits * 1 + cells * 500) * 3 * YEAR // 65536)  # mainnet's prices per bit and cell, rounded up
    assert trace.total_fees_nano == rent
    assert ledger.balance(NOBODY) == 2 * TON - rent


def test_step_mode_delivers_in_order_and_as_told() -> None:
    ledger = Ledger()
    first, second = deploy_sender(ledger, 1, 9 * TON), deploy_sender(ledger, 2, 9 * TON)
    nested = outgoing(second, 3 * TON, order(outgoing(NOBODY, TON, bounce=False)))
    trace = ledger.send_external(external_in(first, order(nested)), run=False)
    assert (len(trace.transactions), len(ledger.queue)) == (1, 1)
    assert trace.total_fees_nano == trace.balance_delta_nano
    ledger.send_external(external_in(first, order(outgoing(ALICE, TON, bounce=False))), run=False)
    step = ledger.run(1)
    assert [tx.account for tx in step.transactions] == [second]
    assert step.total_fees_nano == step.balance_delta_nano
    assert [pending.message.destination for pending in ledger.queue] == [ALICE, NOBODY]
    assert [tx.account for tx in ledger.run().transactions] == [ALICE, NOBODY]
    assert not ledger.queue


def test_snapshots_can_be_reverted_to_again_and_again() -> None:
    ledger = Ledger()
    sender = deploy(ledger, SENDER, value_nano=9 * TON)
    ledger.send_external(external_in(sender, order(outgoing(NOBODY, TON, bounce=False))), run=False)
    snapshot = ledger.snapshot()
    hashes = set()
    for _ in range(2):
        ledger.now += YEAR
        ledger.run()
        trace = ledger.send_external(external_in(sender, order(outgoing(NOBODY, TON, bounce=False))))
        hashes.add(trace.transactions[-1].hash)
        ledger.revert(snapshot)
        assert ledger.now == snapshot.now
        assert len(ledger.transactions[sender]) == 2
        assert ledger.balance(NOBODY) == 0
        assert len(ledger.queue) == 1
    assert len(hashes) == 1, "the same calls from the same snapshot give the same transactions"


def test_time_never_goes_back_nor_past_its_field() -> None:
    ledger = Ledger()
    with pytest.raises(DevnetError, match="back"):
        ledger.now -= 1
    with pytest.raises(DevnetError, match="32 bits"):
        ledger.now = 1 << 32


def test_an_estimate_changes_nothing_and_may_ignore_signatures() -> None:
    ledger = Ledger()
    # Checks the body's 512-bit signature of hash 0 under key 0 before it accepts.
    checked = "DROP NIP NIP NIP DUP SEMPTY IFJMP:<{ DROP }> 0 PUSHINT SWAP 0 PUSHINT CHKSIGNU 35 THROWIFNOT ACCEPT"
    account = deploy(ledger, checked)
    message = external_in(account, begin_cell().store_uint(0, 512).end_cell())
    before = ledger.account(account)
    with pytest.raises(Rejected) as refusal:
        ledger.estimate(message)
    assert refusal.value.exit_code == 35
    assert ledger.estimate(message, ignore_signatures=True).total_fees_nano > 0
    assert ledger.account(account) == before
    with pytest.raises(Rejected):
        ledger.send_external(message)


actions = st.tuples(
    st.integers(0, 2),  # who sends
    st.integers(0, 4),  # to whom: three senders, one thrower, one without code
    st.integers(0, 4 * TON),
    st.sampled_from([0, 1, 2, 3, 64, 128, 128 + 32]),
    st.booleans(),
    st.booleans(),  # deliver at once
    st.sampled_from([0, 0, 0, 1000, YEAR, 8 * YEAR]),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(actions, min_size=1, max_size=8))
def test_g2_every_nanoton_is_in_a_balance_in_the_queue_or_in_the_fees(steps: list[tuple[int, ...]]) -> None:
    ledger = Ledger()
    senders = [deploy_sender(ledger, number, 5 * TON) for number in range(3)]
    everyone = [*senders, deploy(ledger, THROWER, value_nano=TON // 2), NOBODY]

    def held() -> int:
        return sum(map(ledger.balance, everyone)) + sum(pending.message.value_nano for pending in ledger.queue)

    for who, to, value_nano, mode, bounce, run, later in steps:
        ledger.now += later
        before = held()
        message = order(outgoing(everyone[to], value_nano, bounce=bool(bounce)), mode)
        try:
            trace = ledger.send_external(external_in(senders[who], message), run=bool(run))
        except Rejected:
            assert held() == before
            continue
        assert before - held() == trace.total_fees_nano == trace.balance_delta_nano
    before = held()
    trace = ledger.run()
    assert before - held() == trace.total_fees_nano == trace.balance_delta_nano
