"""G8: gas constants against measured worst cases, exact borders of every need, and the formulas on both sides."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import governance_gas
import pytest
from job_gas import measure_jobs
from pytoniq_core import Cell, begin_cell

import contracts
from chain.api import Transaction
from devnet.ledger import Rejected
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, NO_HASH, TON, Pair, World, account_of_name, built_world, make_pair, public
from wrappers import addresses, claims, escrow, escrow_rare, node, node_rare, registry, verdicts
from wrappers.addresses import Kind
from wrappers.code import Contract, code, code_hash, size_of
from wrappers.errors import ContractError
from wrappers.gas import Gas, Size
from wrappers.ops import Op
from wrappers.receipts import Terms, Voucher
from wrappers.signed import Acceptance, KeyConsent, Notary, job_id, sign

GAS_FC = Path(contracts.__file__).parent / "common" / "gas.fc"


def settle_body(entry: claims.Entry, key: bytes, *, acked_only: bool = False) -> Cell:
    body = begin_cell().store_uint(Op.SETTLE, 32).store_bytes(key).store_bit(int(acked_only))
    return body.store_ref(entry.to_cell()).end_cell()


def neighbours(account: bytes, count: int) -> list[bytes]:
    """Ids that share ever longer prefixes with `account`: with them its leaf is as deep in a dictionary as can be."""
    number = int.from_bytes(account, "big")
    return [(number ^ (1 << (255 - i))).to_bytes(32, "big") for i in range(count)]


def gas_at(trace: Trace, account: bytes) -> int:
    return int(trace.of(account)[0].gas_used)


@dataclass
class Deep:
    """An escrow with sixteen rows, one of them with sixteen keys, in the deepest possible trees.

    Nodes and keys are fixed numbers, so that the shape of the trees does not follow the code's addresses.
    """

    world: World
    escrow: bytes
    node: bytes

    def settle(self, key: bytes, cumulative: int) -> Trace:
        row = self.world.escrow(self.escrow).rows[self.node]
        voucher = Voucher(row.allotment, key, cumulative, 0, NO_HASH)
        entry = claims.Entry(cumulative, 1, cumulative, 0, NO_HASH, sign(voucher, self.world.voucher_key))
        # The payment is not delivered: nobody lives at the node's address.
        ledger, body = self.world.ledger, settle_body(entry, key)
        ledger.send_internal(source=self.node, destination=self.escrow, value_nano=TON // 10, body=body, run=False)
        trace = ledger.run(1)
        ledger.queue.clear()
        return trace


def allotment(world: World, row: bytes) -> Cell:
    if world.parameters.fee:
        return escrow_rare.allot_shared(row, TON, world.row_terms(shares=world.shares))
    return escrow.allot(row, TON, world.row_terms())


def make_deep(world: World, base: bytes) -> Deep:
    """In a network with a fee all rows pay shares, to three receivers."""
    account, _ = world.open_escrow(value_nano=world.fees.open_escrow(10 * TON))
    for row in [*neighbours(base, 15), base]:
        trace = world.send(world.client, account, TON, allotment(world, row))
        assert not trace.failed
    deep = Deep(world, account, base)
    for key in [*neighbours(base, 15), base]:
        assert not deep.settle(key, TON // 50).failed
    return deep


def thin_batch(entries: Sequence[claims.ClaimEntry]) -> tuple[Cell, Cell]:
    """A batch with the dearest spine that the schema allows: one entry to a cell, behind an empty first cell."""
    chain: tuple[Cell, Cell] | None = None
    for item in reversed(entries):
        cells = (
            begin_cell().store_bytes(item.escrow).store_ref(item.entry.to_cell()),
            begin_cell().store_bytes(item.root),
        )
        if chain is not None:
            cells = cells[0].store_ref(chain[0]), cells[1].store_ref(chain[1])
        chain = cells[0].end_cell(), cells[1].end_cell()
    assert chain is not None
    return begin_cell().store_ref(chain[0]).end_cell(), begin_cell().store_ref(chain[1]).end_cell()


@contextmanager
def thin_spines() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(claims, "batch", thin_batch)
        yield


BASES = (b"\x5a" * 32, b"\xff" * 32)


def measure() -> dict[str, int]:
    """Worst-case gas of every operation."""
    world = built_world()
    used: dict[str, int] = {}
    account, trace = world.open_node()
    used["NODE_INIT"] = gas_at(trace, account)
    open_gas = gas_at(trace, world.registry)
    first = escrow.FirstAllotment(account, 2 * TON, world.row_terms())
    account, trace = world.open_escrow(first=first)
    shared = built_world(fee=500)
    _, other = shared.open_escrow(first=replace(first, terms=shared.row_terms(shares=shared.shares)))
    used["ESCROW_INIT"] = max(gas_at(trace, account), gas_at(other, account))
    used["OPEN"] = max(open_gas, gas_at(trace, world.registry), gas_at(other, shared.registry))
    used.update(measure_node())
    used.update(measure_jobs())
    for base in BASES:
        for fee in (0, 500):
            for name, gas in measure_deep(base, fee).items():
                used[name] = max(gas, used.get(name, 0))
    return used


def measure_deep(base: bytes, fee: int) -> dict[str, int]:
    world = built_world(fee=fee)
    deep = make_deep(world, base)
    account, ledger = deep.escrow, world.ledger
    used: dict[str, int] = {}
    snapshot = ledger.snapshot()

    def at(act: Callable[[], Trace]) -> int:
        ledger.revert(snapshot)
        trace = act()
        assert not trace.failed, [(tx.exit_code, tx.action_code) for tx in trace.failed]
        return gas_at(trace, account)

    def client(body: Cell | None) -> Callable[[], Trace]:
        return lambda: world.send(world.client, account, TON, body)

    def release(row: bytes, allotted: int) -> bytes:
        return world.release(account, row, allotted)

    hot, old = base, neighbours(base, 15)[-1]
    used["SETTLE"] = max(at(lambda: deep.settle(hot, TON // 10)), at(lambda: deep.settle(old, TON // 10)))
    used["TOP_UP"] = at(client(escrow.top_up()))
    used["RAISE"] = at(client(escrow.raise_allotment(base, 1)))
    used["WITHDRAW"] = at(client(escrow.withdraw(1)))
    used["RECLAIM"] = at(client(escrow_rare.reclaim(base)))
    ledger.revert(snapshot)
    rows = world.escrow(account).rows
    bodies = [escrow_rare.lower(base, amount, release(base, amount)) for amount in (rows[base].paid_nano, TON)]
    releases = [escrow.CloseRelease(row, TON, release(row, TON)) for row in rows]
    used["LOWER"] = max(at(client(body)) for body in bodies)
    with_rows = at(client(escrow.close(releases)))

    def ripe() -> Trace:
        world.send(world.client, account, TON, escrow.close())
        ledger.now += DAY
        return world.send(world.stranger, account, TON, escrow.finish())

    finish_with_rows = at(ripe)
    ledger.revert(snapshot)
    last = neighbours(base, 15)[-1]
    paid = world.escrow(account).rows[last].paid_nano
    assert not world.send(world.client, account, TON, escrow_rare.lower(last, paid, release(last, paid))).failed
    trace = world.send(world.client, account, TON, allotment(world, last))
    used["ALLOT_SHARED" if fee else "ALLOT"] = gas_at(trace, account)
    ledger.revert(snapshot)
    used.update(measure_rare(deep, at, client))

    world = built_world()
    empty, _ = world.open_escrow()
    used["CLOSE"] = gas_at(world.send(world.client, empty, TON, escrow.close()), empty)
    used["CLOSE_ROW"] = -(-(with_rows - used["CLOSE"]) // 16)
    # `finish` without rows has nothing to do: its fixed part is that of `close`, which shares all of it.
    used["FINISH"] = used["CLOSE"]
    used["FINISH_ROW"] = -(-(finish_with_rows - used["FINISH"]) // 16)
    return used


def measure_rare(
    deep: Deep, at: Callable[[Callable[[], Trace]], int], client: Callable[[Cell | None], Callable[[], Trace]]
) -> dict[str, int]:
    world, base = deep.world, deep.node
    used: dict[str, int] = {}
    if world.parameters.fee:
        used["PAY_SHARES"] = at(client(escrow_rare.pay_shares(base)))
    used["RETURN_RENT"] = at(with_spare(deep))
    used["ROTATE_VOUCHER_KEY"] = at(client(escrow_rare.rotate_voucher_key(b"\x01" * 32)))
    used["GIVE_UP_KEY"] = max(at(client(escrow_rare.give_up_key(base, key))) for key in neighbours(base, 15)[::7])

    def applied() -> Trace:
        world.send(world.client, deep.escrow, TON, escrow_rare.rotate_voucher_key(b"\x01" * 32))
        world.ledger.now += 8 * DAY
        return world.send(world.stranger, deep.escrow, TON, escrow_rare.apply_voucher_key())

    used["APPLY_VOUCHER_KEY"] = at(applied)
    config = wide_config()
    body = escrow_rare.order_job(1, NO_HASH, 0, config)
    used["ORDER_JOB"] = gas_at(world.send(world.client, deep.escrow, TON, body), deep.escrow)
    return used


def with_spare(deep: Deep) -> Callable[[], Trace]:
    """All that a give-back can find, a waiting key included; what is spare was kept for a key of a row."""

    def act() -> Trace:
        world = deep.world
        world.send(world.client, deep.escrow, TON, escrow_rare.rotate_voucher_key(b"\x01" * 32))
        world.send(world.client, deep.escrow, TON, escrow_rare.rotate_voucher_key(b"\x02" * 32))
        for key in neighbours(deep.node, 15)[:2]:
            world.send(world.client, deep.escrow, TON, escrow_rare.give_up_key(deep.node, key))
        return world.send(world.client, deep.escrow, TON, escrow_rare.return_rent())

    return act


def wide_config() -> Cell:
    """As many cells as a job's configuration of sixteen nodes has."""
    cells = [begin_cell().store_uint(i, 300).end_cell() for i in range(16)]
    while len(cells) > 1:
        pairs = zip(cells[::2], cells[1::2], strict=True)
        cells = [begin_cell().store_ref(a).store_ref(b).end_cell() for a, b in pairs]
    return begin_cell().store_ref(cells[0]).end_cell()


def attest_raw(world: World, account: bytes, key: bytes) -> Trace:
    """A verdict for any 32 bytes, with consent."""
    state = world.node(account)
    verdict = replace(world.verdict(account), key=key)
    consent = sign(KeyConsent(state.node_id, key), world.release_key)
    return world.tell(world.attestation, account, TON, verdicts.verdict(verdict, consent))


def crowd(world: World, account: bytes) -> None:
    """Retires 32 keys in the deepest possible tree around the enclave key, which is retired with them."""
    base = public(world.enclave_key)
    for key in [*neighbours(base, 31), b"\x99" * 32]:
        assert not attest_raw(world, account, key).failed
    assert len(world.node(account).retired) == 32


def measure_node() -> dict[str, int]:
    world = built_world()
    pair, used = make_pair(world), {}
    crowd(world, pair.node)
    snapshot = world.ledger.snapshot()

    def at(source: bytes, body: Cell, value: int = 10 * TON) -> int:
        world.ledger.revert(snapshot)
        trace = world.tell(source, pair.node, value, body)
        assert not trace.transactions[0].exit_code and not trace.transactions[0].action_code
        return gas_at(trace, pair.node)

    key, state = public(world.enclave_key), world.node(pair.node)
    used["CLAIM_RECEIPT"] = at(world.client.account, claim_receipt_body(world, pair))
    used["STANDING"] = at(world.attestation, node_rare.standing(b"\x11" * 32, b"\x22" * 32, 6))
    accounts = [account_of_name(name) for name in ("harmed", "reporter", "treasury")]
    slash = node_rare.slash(state.epoch, key, 0, 2 * TON, accounts[0], accounts[1], accounts[2])
    used["SLASH"] = at(world.court, slash)
    notary = sign(Notary(state.node_id, NO_HASH), world.enclave_key)
    used["NOTARISE"] = at(world.client.account, node_rare.notarise(NO_HASH, key, notary))
    used["PRESENT"] = at(world.operator.account, node_rare.present(world.payout))
    world.ledger.revert(snapshot)
    world.ledger.now += 10 * DAY
    trace = attest_raw(world, pair.node, neighbours(key, 32)[-1])
    assert not trace.failed and len(world.node(pair.node).retired) == 32 + 1 - 2
    used["VERDICT"] = gas_at(trace, pair.node)

    world = built_world()
    pair = make_pair(world)
    entry = world.entry(pair.escrow, pair.node, TON)
    item = claims.ClaimEntry(pair.escrow, entry, NO_HASH)
    snapshot = world.ledger.snapshot()
    # 1.3 TON above gas level and threshold: the payment is forwarded at once, the dearest case.
    trace = world.claim(pair.node, [item])
    one = gas_at(trace, pair.node)
    used["PAID"] = int(trace.of(pair.node)[1].gas_used)
    world.ledger.revert(snapshot)
    world.send(world.operator, pair.node, 10 * TON, None)
    with thin_spines():
        many = gas_at(world.claim(pair.node, [item] * 200), pair.node)
    used["CLAIM_ENTRY"] = -(-(many - one) // 199)
    used["CLAIM"] = one - used["CLAIM_ENTRY"]
    world.ledger.revert(snapshot)
    world.send(world.operator, pair.node, 10 * TON, None)
    used["TOP_UP_STAKE"] = gas_at(world.send(world.stranger, pair.node, TON, node_rare.top_up_stake()), pair.node)
    used["COLLECT"] = gas_at(world.send(world.stranger, pair.node, TON, node_rare.collect()), pair.node)
    used["ACCEPT_JOB"] = gas_at(world.send(world.stranger, pair.node, TON, acceptance_body(world, pair)), pair.node)
    for model in neighbours(NO_HASH, 15):
        world.send(world.operator, pair.node, TON, node_rare.set_offer(Terms(model, 1, 2, 3, 4, 5)))
    body = node_rare.set_offer(Terms(neighbours(NO_HASH, 16)[-1], 1, 2, 3, 4, 5))
    used["CHANGE_SETTING"] = gas_at(world.send(world.operator, pair.node, TON, body), pair.node)
    assert len(world.node(pair.node).offers) == 16
    return used


def acceptance_body(world: World, pair: Pair) -> Cell:
    job = account_of_name("job")
    acceptance = Acceptance(job_id(world.network, job, 7, bytes(32)), world.node(pair.node).node_id)
    return node_rare.accept_job(job, 7, bytes(32), public(world.enclave_key), sign(acceptance, world.enclave_key))


def claim_receipt_body(world: World, pair: Pair) -> Cell:
    entry = world.entry(pair.escrow, pair.node, TON)
    receipt = world.receipt(pair.escrow, pair.node, entry)
    epoch = world.escrow(pair.escrow).rows[pair.node].epoch
    signature = sign(receipt, world.enclave_key)
    return claims.claim_receipt(public(world.enclave_key), pair.escrow, epoch, receipt, signature, entry)


@pytest.fixture(scope="module")
def measured() -> dict[str, int]:
    return measure() | governance_gas.measure()


# Grows with the number of platforms: test_node_rare.py looks at it on a verifier.
UNBOUNDED = {"OWN_PLATFORM"}


@pytest.mark.parametrize("operation", sorted(name for name in vars(Gas) if name.isupper() and name not in UNBOUNDED))
def test_g8_gas_constant_is_at_least_the_worst_case_and_at_most_a_tenth_above(
    measured: dict[str, int], operation: str
) -> None:
    constant, used = getattr(Gas, operation), measured[operation]
    assert used <= constant <= used * 1.1 + 1, f"{operation}: {constant} against {used} measured"


# ------------------------------------------------------------------------------------------------ borders


@dataclass(frozen=True)
class Border:
    """One message, what it needs, and whether its effect is there."""

    sender: bytes
    target: bytes
    need_nano: int
    body: Cell | None


def borders(world: World, pair: Pair) -> dict[str, Border]:
    fees, client, controller = world.fees, world.client.account, world.operator.account
    row = world.escrow(pair.escrow).rows[pair.node]
    release = world.release(pair.escrow, pair.node, TON)
    released = escrow.CloseRelease(pair.node, 0, world.release(pair.escrow, pair.node, 0))
    first = escrow.FirstAllotment(pair.node, TON, world.row_terms())
    config = escrow.EscrowConfig(public(world.voucher_key), first)
    node_config = node.NodeConfig(controller, world.payout, public(world.release_key))
    entry = world.entry(pair.escrow, pair.node, TON)
    other = b"\x55" * 32
    hashes = code_hash(Contract.NODE), code_hash(Contract.ESCROW)
    key = public(world.enclave_key)
    return {
        "open_node": Border(
            controller, world.registry, fees.open_node(), registry.open_node(hashes[0], 5, node_config)
        ),
        "open_escrow": Border(
            client, world.registry, fees.open_escrow(0, TON), registry.open_escrow(hashes[1], 5, config)
        ),
        "settle": Border(pair.node, pair.escrow, fees.settle_need(), settle_body(entry, key)),
        "claim_receipt": Border(client, pair.node, fees.claim_receipt(), claim_receipt_body(world, pair)),
        "top_up": Border(client, pair.escrow, fees.top_up() + 1, escrow.top_up()),
        "plain transfer": Border(client, pair.escrow, fees.top_up() + 1, None),
        "notarise": Border(
            client,
            pair.node,
            fees.notarise(),
            node_rare.notarise(NO_HASH, key, sign(Notary(world.node(pair.node).node_id, NO_HASH), world.enclave_key)),
        ),
        "drain": Border(controller, pair.node, fees.change_setting(extras=False), node_rare.drain(True)),
        "set_release_key": Border(controller, pair.node, fees.change_setting(), node_rare.set_release_key(key)),
        "set_offer": Border(
            controller,
            pair.node,
            fees.change_setting(extras=False, new_offer=True),
            node_rare.set_offer(Terms(key, 1, 2, 3, 4, 5)),
        ),
        "top_up_stake": Border(client, pair.node, fees.top_up_stake() + 1, node_rare.top_up_stake()),
        "allot": Border(client, pair.escrow, fees.allot(), escrow.allot(other, TON // 2, world.row_terms())),
        "raise": Border(client, pair.escrow, fees.raise_allotment(), escrow.raise_allotment(pair.node, TON // 2)),
        "lower": Border(client, pair.escrow, fees.lower(), escrow_rare.lower(pair.node, TON, release)),
        "reclaim": Border(client, pair.escrow, fees.reclaim(), escrow_rare.reclaim(pair.node)),
        "withdraw": Border(client, pair.escrow, fees.withdraw(), escrow.withdraw(TON // 2)),
        "close": Border(client, pair.escrow, fees.close(len([row])), escrow.close([released])),
        "allot_shared": Border(
            client,
            pair.escrow,
            fees.allot_shared(),
            escrow_rare.allot_shared(other, TON // 2, world.row_terms(shares=world.shares)),
        ),
        "rotate_voucher_key": Border(
            client, pair.escrow, fees.rotate_voucher_key(), escrow_rare.rotate_voucher_key(NO_HASH[1:] + b"\x01")
        ),
    }


BORDERS = [
    "notarise",
    "drain",
    "set_release_key",
    "set_offer",
    "top_up_stake",
    "open_node",
    "open_escrow",
    "settle",
    "claim_receipt",
    "top_up",
    "allot",
    "raise",
    "lower",
    "reclaim",
    "withdraw",
    "close",
    "plain transfer",
    "allot_shared",
    "rotate_voucher_key",
]


@pytest.mark.parametrize("operation", BORDERS)
def test_g8_need_minus_one_is_refused_with_the_money_back_and_need_passes(
    world: World, pair: Pair, operation: str
) -> None:
    border = borders(world, pair)[operation]
    before = world.ledger.account(border.target)
    snapshot = world.ledger.snapshot()
    trace = world.tell(border.sender, border.target, border.need_nano - 1, border.body)
    assert trace.failed[0].exit_code == ContractError.LOW_VALUE
    returned = trace.failed[0].out_msgs
    assert len(returned) == 1 and returned[0].bounced and returned[0].destination == border.sender
    after = world.ledger.account(border.target)
    assert after.data is not None and before.data is not None and after.data.hash == before.data.hash
    assert after.balance_nano == before.balance_nano

    world.ledger.revert(snapshot)
    trace = world.tell(border.sender, border.target, border.need_nano, border.body)
    assert not trace.failed, [(tx.exit_code, tx.action_code) for tx in trace.failed]
    assert trace.total_fees_nano == trace.balance_delta_nano


def test_g8_finish_border(world: World, pair: Pair) -> None:
    world.send(world.client, pair.escrow, TON, escrow.close())
    world.ledger.now += 2 * HOUR
    need = world.fees.finish(1)
    refused = world.tell(world.stranger.account, pair.escrow, need - 1, escrow.finish())
    assert refused.failed[0].exit_code == ContractError.LOW_VALUE
    assert not world.tell(world.stranger.account, pair.escrow, need, escrow.finish()).failed
    assert not world.alive(pair.escrow)


def test_g8_every_row_is_paid_for_when_an_account_closes(world: World, pair: Pair) -> None:
    world.send(
        world.client, pair.escrow, TON, escrow.allot(account_of_name("second node"), TON // 10, world.row_terms())
    )
    for need, body, seconds in (
        (world.fees.close(2), escrow.close(), 2 * HOUR),
        (world.fees.finish(2), escrow.finish(), 0),
    ):
        refused = world.tell(world.client.account, pair.escrow, need - 1, body)
        assert refused.failed[0].exit_code == ContractError.LOW_VALUE
        assert not world.tell(world.client.account, pair.escrow, need, body).failed
        world.ledger.now += seconds
    assert not world.alive(pair.escrow)


def test_g8_collect_border(world: World, pair: Pair) -> None:
    world.send(world.operator, pair.node, TON, None)
    need = world.fees.collect()
    refused = world.tell(world.stranger.account, pair.node, need - 1, node_rare.collect())
    assert refused.failed[0].exit_code == ContractError.LOW_VALUE
    assert not world.tell(world.stranger.account, pair.node, need, node_rare.collect()).failed


@pytest.mark.parametrize(("count", "thin"), [(40, False), (200, False), (200, True)])
def test_g8_claim_is_refused_one_nano_below_the_closed_formula_and_cannot_fail_at_it(
    world: World, pair: Pair, count: int, thin: bool
) -> None:
    entry = world.entry(pair.escrow, pair.node, TON)
    with thin_spines() if thin else nullcontext():
        message = world.claim_external(pair.node, [claims.ClaimEntry(pair.escrow, entry, NO_HASH)] * count)
    cells, bits = size_of(*message.refs)
    state = world.node(pair.node)
    locked = state.stake_nano + state.rent_reserve_nano
    wanted = locked + world.fees.claim_need(count) + world.fees.prices.forward(cells, bits)
    have = world.ledger.balance(pair.node)
    assert have < wanted
    world.ledger.faucet(pair.node, wanted - have - 1)
    with pytest.raises(Rejected) as rejected:
        world.ledger.send_external(message)
    assert rejected.value.exit_code == ContractError.LOW_RESERVE
    assert world.ledger.balance(pair.node) == wanted - 1, "an external refused before accept costs nothing"
    world.ledger.faucet(pair.node, 1)
    trace = world.ledger.send_external(message, run=False)
    (tx,) = trace.transactions
    assert (tx.exit_code, tx.action_code, len(tx.out_msgs)) == (0, 0, count)
    assert world.ledger.balance(pair.node) >= locked


def test_g8_stake_and_deposit_are_at_least_what_was_asked_for(world: World) -> None:
    account, _ = world.open_node()
    assert world.node(account).stake_nano >= world.parameters.min_stake_nano
    first = escrow.FirstAllotment(account, TON, world.row_terms())
    account, _ = world.open_escrow(first=first)
    state = world.escrow(account)
    assert state.deposit_nano >= TON and state.free_nano >= 0


def test_g8_a_payment_of_one_nano_is_taken_by_the_node(world: World, pair: Pair) -> None:
    entry = world.entry(pair.escrow, pair.node, 1)
    body = settle_body(entry, public(world.enclave_key))
    trace = world.tell(pair.node, pair.escrow, world.fees.settle_need(), body)
    assert not trace.failed
    assert world.node(pair.node).earned_nano == 1


# ------------------------------------------------------------------------------------------------ formulas and sizes


def test_g8_formulas_and_constants_are_those_of_gas_fc() -> None:
    text = GAS_FC.read_text()
    for kind, ours in (("gas", Gas), ("size", Size)):
        theirs = {name.upper(): int(value) for name, value in re.findall(rf"const int {kind}::(\w+) = (\d+);", text)}
        assert theirs == {name: value for name, value in vars(ours).items() if name.isupper()}


def test_g8_needs_follow_the_chains_prices(world: World) -> None:
    dear = replace(world.fees, prices=replace(world.fees.prices, gas_price=world.fees.prices.gas_price * 3))
    assert dear.settle_need() > 2 * world.fees.settle_need()


def test_g9_sizes_reserved_for_are_at_least_the_real_ones(world: World, pair: Pair) -> None:
    node_cells, node_bits = size_of(world.ledger.account(pair.node).data)
    assert (node_cells + 1, node_bits + 450) <= (Size.NODE_DATA_CELLS, Size.NODE_DATA_BITS)
    empty, _ = world.open_escrow(index=1)
    cells, bits = size_of(world.ledger.account(empty).data)
    assert cells + 1 <= Size.ESCROW_DATA_CELLS and bits + 450 <= Size.ESCROW_DATA_BITS
    with_row = size_of(world.ledger.account(pair.escrow).data)
    assert with_row[0] - cells <= Size.ROW_CELLS and with_row[1] - bits <= Size.ROW_BITS


def test_g8_init_message_is_within_the_size_that_its_forwarding_was_priced_for(world: World) -> None:
    _, trace = world.open_node()
    first = escrow.FirstAllotment(b"\x55" * 32, TON, world.row_terms())
    _, escrow_trace = world.open_escrow(first=first)
    for contract, run in ((Contract.NODE, trace), (Contract.ESCROW, escrow_trace)):
        (birth,) = run.of(world.registry)
        (message,) = birth.out_msgs
        cells, bits = size_of(code(contract))
        priced = world.fees.prices.forward(cells + Size.OPEN_CELLS, bits + Size.OPEN_BITS)
        total_fee = message.forward_fee_nano * 3 // 2  # a third of it is collected in the sender's transaction
        assert total_fee <= priced


def test_second_open_of_an_index_returns_the_money_to_the_owner(world: World, pair: Pair) -> None:
    before = world.escrow(pair.escrow)
    _, trace = world.open_escrow(value_nano=world.fees.open_escrow(3 * TON))
    assert not trace.failed
    assert world.escrow(pair.escrow) == before
    last: Transaction = trace.transactions[-1]
    assert last.account == world.client.account and last.in_msg is not None
    assert last.in_msg.value_nano > 3 * TON
    assert addresses.child_address(world.registry, Kind.ESCROW, world.client.account, 0) == pair.escrow
