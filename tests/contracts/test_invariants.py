"""Any order of messages by honest, late and malicious parties: solvency, conservation, consent, isolation, exits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pytoniq_core import Cell
from test_fees import settle_body

from devnet.ledger import Rejected, Snapshot
from devnet.trace import Trace
from scripts.stage import DAY, HOUR, NO_HASH, TERMS, TON, World, built_world, key_of, public
from wrappers import escrow, escrow_rare, governance, node, node_rare, registry
from wrappers.registry import Kind, child_address
from wrappers.signed import Voucher, sign

AMOUNTS = st.sampled_from([1, TON // 100, TON // 7, TON // 2, TON, 3 * TON])
NODES = st.integers(0, 1)
KEYS = st.integers(0, 2)
MAX_EARNING = 1_000 * TON


@dataclass
class Base:
    world: World
    snapshot: Snapshot
    nodes: tuple[bytes, bytes]


def _build() -> Base:
    world = built_world()
    nodes = []
    for index in range(2):
        account, _ = world.open_node(index=index)
        world.attest(account, key_of("enclave 0"))
        world.send(world.operator, account, TON, None)
        nodes.append(account)
    return Base(world, world.ledger.snapshot(), (nodes[0], nodes[1]))


_BASE: list[Base] = []


@dataclass
class Model:
    """What the client ever consented to, and what the chain was seen to pay."""

    consent: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Highest cap signed, by (allotment, key)."""
    claimed: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Highest cumulative that any claim ever named."""
    paid: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Highest paid seen."""
    earned: int = 0
    payments: int = 0


class Market(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        if not _BASE:
            _BASE.append(_build())
        base = _BASE[0]
        self.world, self.nodes = base.world, base.nodes
        self.world.ledger.revert(base.snapshot)
        self.model = Model()
        self.escrow = child_address(self.world.registry, Kind.ESCROW, self.world.client.account, 0)
        self.sent: list[tuple[bytes, bytes, Cell]] = []
        self.externals: list[Cell] = []

    # ------------------------------------------------------------------------------------------ helpers

    @property
    def state(self) -> escrow.EscrowState | None:
        return self.world.escrow(self.escrow) if self.world.alive(self.escrow) else None

    def check(self, trace: Trace) -> Trace:
        assert trace.total_fees_nano == trace.balance_delta_nano, "G2"
        self._watch_rows()
        return trace

    def _watch_rows(self) -> None:
        state = self.state
        if state is None:
            return
        for row in state.rows.values():
            assert sum(key.paid_nano for key in row.keys.values()) == row.paid_nano <= row.allotted_nano, "G4"
            for key, counters in row.keys.items():
                name = (row.allotment, key)
                assert counters.paid_nano <= self.model.consent.get(name, 0), "G5: more than consented"
                assert counters.paid_nano <= self.model.claimed.get(name, 0), "G5: more than claimed"
                assert counters.paid_nano >= self.model.paid.get(name, 0), "G4: paid fell"
                self.model.paid[name] = counters.paid_nano

    def client(self, body: Cell | None, value: int = TON) -> Trace:
        if body is not None:
            self.sent.append((self.world.client.account, self.escrow, body))
        return self.check(self.world.send(self.world.client, self.escrow, value, body))

    def entry(self, which: int, key: int, cumulative: int, cap: int) -> node.Entry | None:
        state = self.state
        account = self.nodes[which]
        if state is None or account not in state.rows:
            return None
        allotment, name = state.rows[account].allotment, public(key_of(f"enclave {key}"))
        base = self.model.paid.get((allotment, name), 0)
        cumulative, cap = base + cumulative, base + cap
        self.model.consent[allotment, name] = max(cap, self.model.consent.get((allotment, name), 0))
        self.model.claimed[allotment, name] = max(cumulative, self.model.claimed.get((allotment, name), 0))
        signature = sign(Voucher(allotment, name, cap, 0, TERMS), self.world.voucher_key)
        return node.Entry(cumulative, 1, cap, 0, TERMS, signature)

    # ------------------------------------------------------------------------------------------ client

    @initialize()
    def start(self) -> None:
        self.open(3 * TON, 0)

    @precondition(lambda self: self.state is None)
    @rule(amount=AMOUNTS, which=NODES)
    def open(self, amount: int, which: int) -> None:
        first = escrow.FirstAllotment(self.nodes[which], amount, self.world.row_terms())
        value = self.world.fees.open_escrow(2 * amount, amount)
        _, trace = self.world.open_escrow(value_nano=value, first=first)
        self.check(trace)
        assert not trace.failed

    @rule(amount=AMOUNTS)
    def top_up(self, amount: int) -> None:
        self.check(self.world.send(self.world.stranger, self.escrow, amount, None))

    @rule(which=NODES, amount=AMOUNTS, timer=st.sampled_from([HOUR, 3 * HOUR]))
    def allot(self, which: int, amount: int, timer: int) -> None:
        self.client(escrow.allot(self.nodes[which], amount, self.world.row_terms(timer)))

    @rule(which=NODES, amount=AMOUNTS)
    def raise_row(self, which: int, amount: int) -> None:
        self.client(escrow.raise_allotment(self.nodes[which], amount))

    @rule(which=NODES)
    def reclaim(self, which: int) -> None:
        self.client(escrow_rare.reclaim(self.nodes[which]))

    @rule(amount=st.sampled_from([0, 1, TON // 2, 5 * TON]))
    def withdraw(self, amount: int) -> None:
        self.client(escrow.withdraw(amount))

    @rule(with_releases=st.booleans())
    def close(self, with_releases: bool) -> None:
        state, releases = self.state, []
        if state is not None and with_releases:
            for account, row in state.rows.items():
                signature = self.world.release(self.escrow, account, row.paid_nano)
                releases.append(escrow.CloseRelease(account, row.paid_nano, signature))
        self.client(escrow.close(releases))

    @rule()
    def finish(self) -> None:
        self.check(self.world.send(self.world.stranger, self.escrow, TON, escrow.finish()))

    # ------------------------------------------------------------------------------------------ operator

    @rule(which=NODES, share=st.sampled_from([0, 50, 100]))
    def lower(self, which: int, share: int) -> None:
        state = self.state
        account = self.nodes[which]
        if state is None or account not in state.rows:
            return
        row = state.rows[account]
        allotted = row.paid_nano + (row.allotted_nano - row.paid_nano) * share // 100
        body = escrow_rare.lower(account, allotted, self.world.release(self.escrow, account, allotted))
        self.sent.append((self.world.stranger.account, self.escrow, body))
        self.check(self.world.send(self.world.stranger, self.escrow, TON, body))

    @rule(which=NODES, key=KEYS, cumulative=AMOUNTS, cap=AMOUNTS)
    def claim(self, which: int, key: int, cumulative: int, cap: int) -> None:
        entry = self.entry(which, key, cumulative, cap)
        if entry is None or not self.world.alive(self.nodes[which]):
            return
        others = {n: self._left(n) for n in self.nodes if n != self.nodes[which]}
        item = node.ClaimEntry(self.escrow, entry, NO_HASH)
        message = self.world.claim_external(self.nodes[which], [item], key=key_of(f"enclave {key}"))
        self.externals.append(message)
        self._external(message)
        body = settle_body(entry, public(key_of(f"enclave {key}")))
        self.sent.append((self.nodes[which], self.escrow, body))
        for account, left in others.items():
            assert self._left(account) == left, "G6: another node's row moved"

    @rule(which=NODES, key=KEYS, cumulative=AMOUNTS)
    def claim_receipt(self, which: int, key: int, cumulative: int) -> None:
        entry = self.entry(which, key, cumulative, cumulative)
        account = self.nodes[which]
        if entry is None or not self.world.alive(account):
            return
        receipt = self.world.receipt(self.escrow, account, entry)
        epoch = self.world.escrow(self.escrow).rows[account].epoch
        secret = key_of(f"enclave {key}")
        body = node.claim_receipt(public(secret), self.escrow, epoch, receipt, sign(receipt, secret), entry)
        self.sent.append((self.world.stranger.account, account, body))
        self.check(self.world.send(self.world.stranger, account, TON, body))

    def _left(self, account: bytes) -> int:
        state = self.state
        if state is None or account not in state.rows:
            return 0
        return state.rows[account].allotted_nano - state.rows[account].paid_nano

    def _external(self, message: Cell) -> None:
        try:
            self.check(self.world.ledger.send_external(message))
        except Rejected:
            return

    @rule(which=NODES, key=KEYS)
    def admit(self, which: int, key: int) -> None:
        if self.world.alive(self.nodes[which]):
            self.check(self.world.attest(self.nodes[which], key_of(f"enclave {key}")))

    @rule(which=NODES)
    def collect(self, which: int) -> None:
        self.check(self.world.send(self.world.stranger, self.nodes[which], TON, node_rare.collect()))

    @rule(which=NODES, amount=AMOUNTS)
    def top_up_stake(self, which: int, amount: int) -> None:
        self.check(self.world.send(self.world.stranger, self.nodes[which], amount, node_rare.top_up_stake()))

    @rule(which=NODES)
    def unbond(self, which: int) -> None:
        self.check(self.world.send(self.world.operator, self.nodes[which], TON, node_rare.unbond()))

    @rule(which=NODES)
    def withdraw_stake(self, which: int) -> None:
        self.check(self.world.send(self.world.operator, self.nodes[which], TON, node_rare.withdraw_stake()))

    # ------------------------------------------------------------------------------------------ governor

    @rule(
        act=st.sampled_from(["propose", "execute", "cancel", "stop nothing", "offer", "accept"]),
        treasury=st.integers(0, 1),
        thief=st.booleans(),
    )
    def govern(self, act: str, treasury: int, thief: bool) -> None:
        """G20: whoever sends it, nothing of it moves a deposit or a stake, and only the governor changes anything."""
        world = self.world
        data = world.ledger.account(world.registry).data
        assert data is not None
        state = registry.RegistryState.from_cell(data)
        settings = replace(state.settings, treasury=bytes([treasury]) * 32)
        body = {
            "propose": governance.propose(settings.to_cell()),
            "execute": governance.execute(settings.to_cell()),
            "cancel": governance.cancel(bytes(settings.to_cell().hash)),
            "stop nothing": governance.stop_opening(0),
            "offer": governance.offer_governor(None),
            "accept": governance.accept_governor(),
        }[act]
        children = [self.escrow, *self.nodes]
        before = [world.ledger.account(child) for child in children]
        trace = self.check(world.send(world.stranger if thief else world.governor, world.registry, TON, body))
        assert [world.ledger.account(child) for child in children] == before, "G20: a child was reached"
        after = world.ledger.account(world.registry).data
        assert after is not None
        if thief or act == "accept":
            assert trace.failed and after.hash == data.hash, "G20: somebody else governed"
        elif act == "execute":
            ready = state.proposals.get(bytes(settings.to_cell().hash))
            ripe = ready is not None and ready <= world.ledger.now <= ready + registry.PROPOSAL_LIFE
            assert ripe != bool(trace.failed), "G20: executed outside its time"
        assert len(registry.RegistryState.from_cell(after).proposals) <= registry.MAX_PROPOSALS

    # ------------------------------------------------------------------------------------------ attackers and time

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), thief=st.booleans(), value=st.sampled_from([TON // 1000, TON // 50, TON]))
    def replay(self, data: st.DataObject, thief: bool, value: int) -> None:
        source, target, body = data.draw(st.sampled_from(self.sent))
        source = self.world.stranger.account if thief else source
        self.check(self.world.tell(source, target, value, body))

    @precondition(lambda self: self.externals)
    @rule(data=st.data())
    def replay_external(self, data: st.DataObject) -> None:
        self._external(data.draw(st.sampled_from(self.externals)))

    @rule(seconds=st.sampled_from([1, HOUR, 4 * HOUR, DAY, 8 * DAY]))
    def wait(self, seconds: int) -> None:
        self.world.ledger.now += seconds

    # ------------------------------------------------------------------------------------------ what always holds

    @invariant()
    def g1_solvent(self) -> None:
        state = self.state
        if state is not None:
            assert self.world.ledger.balance(self.escrow) >= state.deposit_nano + state.accrued_nano, "G1: escrow"
            reserved = sum(row.allotted_nano - row.paid_nano for row in state.rows.values())
            assert state.reserved_nano == reserved <= state.deposit_nano, "G1: rows"
            assert not (state.closing and any(row.closing_at == 0 for row in state.rows.values()))
        for account in self.nodes:
            if self.world.alive(account):
                assert self.world.ledger.balance(account) >= self.world.node(account).stake_nano, "G1: node"

    def teardown(self) -> None:
        """G3: each party gets out alone, whatever went before."""
        world = self.world
        if self.state is not None:
            self.client(escrow.close())
            world.ledger.now += 3 * HOUR
            if self.state is not None:
                self.client(escrow.finish())
            assert not world.alive(self.escrow) and world.ledger.balance(self.escrow) == 0, "G3: client"
        for account in self.nodes:
            if world.alive(account):
                world.send(world.operator, account, TON, node_rare.unbond())
                world.ledger.now += 9 * DAY
                trace = world.send(world.operator, account, TON, node_rare.withdraw_stake())
                assert not trace.failed and world.ledger.balance(account) == 0, "G3: operator"


TestMarket = Market.TestCase
TestMarket.settings = settings(
    max_examples=80,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
