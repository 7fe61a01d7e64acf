"""The stage of the state machine: two nodes with real verdicts behind them, two clients, what parties sign."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from market_check import Checker
from market_model import storage_of
from market_prices import DEAR, TODAY, Factors, config_with, set_prices
from pytoniq_core import Cell, begin_cell

from attestation.onchain.fees import attest as attest_need
from attestation.report_data import NO_GPU, Binding
from attestation.simulated.tee import SimulatedTee
from attestation.witness import attest_message
from devnet.ledger import Ledger, Rejected, Snapshot
from devnet.trace import Trace
from scripts.stage import HOUR, PARAMETERS, TERMS, TON, World, account_of_name, key_of, public
from wrappers import court, escrow, node, registry, verdicts
from wrappers.addresses import Kind, child_address
from wrappers.claims import Entry
from wrappers.code import Contract, code_hash
from wrappers.escrow import EscrowState
from wrappers.fees import Fees
from wrappers.job import JobState
from wrappers.node import NodeState
from wrappers.prices import Prices
from wrappers.receipts import Voucher
from wrappers.registry import Rebuilders
from wrappers.rows import Fee, RowTerms, Shares
from wrappers.signed import KeyConsent, Release, sign

PASSER_BY = account_of_name("passer-by")
REBUILDER = account_of_name("rebuilder")
RICH = 5 * TON
LAST_MOMENT = 2**32 - 12 * 365 * 86_400
"""Times are 32 bits: none later is travelled to."""


def enclave(index: int) -> bytes:
    return public(key_of(f"enclave {index}"))


@dataclass
class Book:
    """What was ever agreed to, by whom: independent of the references, which say only what each message does."""

    consent: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Highest cap signed by the client, by (allotment, key)."""
    earned: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    """Highest cumulative that an enclave ever signed."""
    paid: dict[tuple[bytes, bytes], int] = field(default_factory=dict)
    forgotten: set[tuple[bytes, bytes]] = field(default_factory=set)
    """Keys that the owner gave up: they count from 0 again."""


class Market:
    def __init__(self, fee: int) -> None:
        self.world = World(Ledger(), parameters=replace(PARAMETERS, fee=fee), verifier=True)
        world = self.world
        world.rebuilders = Rebuilders(1, frozenset({REBUILDER}))
        world.deploy()
        state = court.CourtState(world.registry, world.registry_state.stub_prefix, world.treasury)
        if not world.alive(world.court):
            world._deploy(Contract.COURT, world.court, state.to_cell())
        self.owners = (world.client.account, world.stranger.account)
        self.escrows = tuple(child_address(world.registry, Kind.ESCROW, owner, 0) for owner in self.owners)
        self.nodes = tuple(child_address(world.registry, Kind.NODE, world.operator.account, i) for i in range(2))
        self.jobs = {child_address(world.registry, Kind.JOB, e, i): e for e in self.escrows for i in range(2)}
        self.checker = Checker(
            world.ledger, world.registry, {world.attestation: "attestation", world.court: "court"}, world.network
        )
        self.children = {*self.escrows, *self.nodes, *self.jobs}
        self.fee = Fee(fee, world.treasury) if fee else None
        self.book = Book()
        self.snapshot: Snapshot | None = None
        self.sent: list[tuple[bytes, bytes, Cell]] = []
        self.heard: list[tuple[bytes, Cell]] = []
        """What contracts told each other: where, and what."""
        self.externals: list[Cell] = []
        for index in range(2):
            self.open_node(index)
            self._attest(index)
            self.tell(world.operator.account, self.nodes[index], TON, None)
        states = [world.node(account) for account in self.nodes]
        self.platforms = [state.platform or b"" for state in states]
        self.measurement = states[0].measurement or b""
        self.snapshot = world.ledger.snapshot()

    def reset(self) -> None:
        assert self.snapshot is not None
        self.world.ledger.revert(self.snapshot)
        self.prices(TODAY)
        self.book = Book()
        self.sent, self.heard, self.externals = [], [], []
        self.checker.begin(self.children)

    # ------------------------------------------------------------------------------------------ the chain

    @property
    def now(self) -> int:
        return self.world.ledger.now

    def prices(self, factors: Factors) -> None:
        set_prices(self.world.ledger, factors)
        self.world.fees = Fees(Prices.from_config(self.world.ledger.config), self.world.parameters)

    def tell(self, sender: bytes, account: bytes, value: int, body: Cell | None, *, bounced: bool = False) -> Trace:
        """A message that anyone can send; kept, to be sent again by somebody else."""
        if self.snapshot is not None and body is not None:
            self.sent.append((sender, account, body))
        trace = self.world.ledger.send_internal(
            source=sender, destination=account, value_nano=value, body=body, bounced=bounced
        )
        return self.checked(trace)

    def external(self, message: Cell) -> bool:
        try:
            self.checked(self.world.ledger.send_external(message))
        except Rejected:
            self.checker.refused["node", "claim"] += 1
            return False
        return True

    def checked(self, trace: Trace) -> Trace:
        if self.snapshot is not None:
            assert trace.total_fees_nano == trace.balance_delta_nano, "G2"
            self.checker.check(trace, self.world.fees)
            ours = {*self.children, self.world.registry, self.world.court, self.world.attestation}
            said = (message for tx in trace.transactions if tx.account in ours for message in tx.out_msgs)
            self.heard += [
                (message.destination, message.body)
                for message in said
                if message.destination is not None and len(message.body.bits) >= 32 and not message.bounced
            ]
        return trace

    def _attest(self, which: int) -> None:
        """By a real quote of a simulated machine, so that the verifier knows the platform."""
        world, state = self.world, self.world.node(self.nodes[which])
        block = world.ledger.prev_blocks.hundreds[0]
        binding = Binding(
            world.network, self.nodes[which], state.epoch, enclave(0), NO_GPU, block.seqno, block.root_hash
        )
        quote = SimulatedTee(b"machine %d" % which).quote(binding.report_data())
        consent = sign(KeyConsent(state.node_id, enclave(0)), world.release_key)
        body = attest_message(quote, binding, consent=consent)
        trace = self.tell(PASSER_BY, world.attestation, attest_need(world.fees.prices), body)
        assert not trace.failed

    def escrow(self, which: int) -> EscrowState | None:
        state = self.checker.states.get(self.escrows[which])
        return state if isinstance(state, EscrowState) else None

    def node(self, which: int) -> NodeState | None:
        if self.snapshot is None:
            return self.world.node(self.nodes[which])
        state = self.checker.states.get(self.nodes[which])
        return state if isinstance(state, NodeState) else None

    def job(self, account: bytes) -> JobState | None:
        state = self.checker.states.get(account)
        return state if isinstance(state, JobState) else None

    # ------------------------------------------------------------------------------------------ births

    def open_node(self, which: int, value: int | None = None) -> Trace:
        world = self.world
        config = node.NodeConfig(world.operator.account, world.payout, public(world.release_key))
        body = registry.open_node(code_hash(Contract.NODE), which, config)
        value = world.fees.open_node() + TON if value is None else value
        return self.tell(world.operator.account, world.registry, value, body)

    def terms(self, timer: int, shared: bool) -> RowTerms:
        shares = Shares(1000, 500, account_of_name("relayer"), account_of_name("royalty"), self.fee)
        only_fee = Shares(fee=self.fee) if self.fee else None
        return RowTerms(public(self.world.release_key), timer, shares if shared else only_fee)

    def open_escrow(self, which: int, amount: int, value: int, *, first: bool, shared: bool) -> Trace:
        terms = self.terms(HOUR, shared)
        allotment = escrow.FirstAllotment(self.nodes[which], amount, terms) if first else None
        config = escrow.EscrowConfig(self.voucher_key(which, 0), allotment)
        body = registry.open_escrow(code_hash(Contract.ESCROW), 0, config)
        return self.tell(self.owners[which], self.world.registry, value, body)

    # ------------------------------------------------------------------------------------------ what parties sign

    def voucher_key(self, which: int, generation: int) -> bytes:
        return public(key_of(f"voucher {which} {generation}"))

    def entry(self, which: int, at: int, key: int, more: int, cap_more: int, acked_part: int) -> Entry | None:
        """The client `which` consents to `cap_more` above what node `at` was paid, the enclave claims `more`."""
        state = self.escrow(which)
        if state is None or self.nodes[at] not in state.rows:
            return None
        row = state.rows[self.nodes[at]]
        name = (row.allotment, enclave(key))
        known = row.keys.get(enclave(key))
        paid = known.paid_nano if known else 0
        cumulative, cap = paid + more, paid + cap_more
        acked = cap * acked_part // 2
        secret = next(k for g in range(9) if public(k := key_of(f"voucher {which} {g}")) == state.voucher_key)
        self.book.consent[name] = max(cap, self.book.consent.get(name, 0))
        self.book.earned[name] = max(cumulative, self.book.earned.get(name, 0))
        voucher = Voucher(row.allotment, enclave(key), cap, acked, TERMS)
        return Entry(cumulative, (known.seq if known else 0) + 1, cap, acked, TERMS, sign(voucher, secret))

    def release(self, which: int, at: int, allotted: int) -> bytes:
        state = self.escrow(which)
        assert state is not None
        row = state.rows[self.nodes[at]]
        return sign(Release(row.allotment, row.seqno, allotted), self.world.release_key)

    def verdict(
        self,
        which: int,
        key: int,
        *,
        until: int = 86_400,
        consent: bool = True,
        sender: bytes | None = None,
        platform: int | None = None,
    ) -> Trace:
        state = self.node(which)
        assert state is not None
        body = verdicts.VerdictBody(
            state.epoch,
            enclave(key),
            self.now + until,
            state.block_seqno + 1,
            1,
            measurement=self.measurement,
            platform=self.platforms[which if platform is None else platform],
        )
        signature = sign(KeyConsent(state.node_id, enclave(key)), self.world.release_key) if consent else None
        sender = sender or self.world.attestation
        return self.tell(sender, self.nodes[which], self.world.fees.verdict() * 2, verdicts.verdict(body, signature))

    # ------------------------------------------------------------------------------------------ what always holds

    def invariants(self) -> None:
        """G1, G4 and G5, from the chain and the book alone."""
        ledger = self.world.ledger
        for which, account in enumerate(self.escrows):
            state = self.escrow(which)
            if state is None:
                continue
            spare = ledger.balance(account) - state.deposit_nano - state.accrued_nano
            rent_paid = self.checker.rent_paid.get(account, 0)
            assert spare >= 0 or spare + rent_paid >= 0, "G1: deposits and shares are there, but for what rent took"
            reserved = sum(row.allotted_nano - row.paid_nano for row in state.rows.values())
            assert state.reserved_nano == reserved, "G1: rows"
            uncovered = reserved - state.deposit_nano
            assert uncovered <= self.checker.rent_paid.get(account, 0), "G1: rows are covered, but for what rent took"
            assert state.accrued_nano == sum(row.accrued_nano for row in state.rows.values()), "G4: shares"
            assert not (state.closing and any(row.closing_at == 0 for row in state.rows.values()))
            for row in state.rows.values():
                known = sum(counters.paid_nano for counters in row.keys.values())
                assert known <= row.paid_nano <= row.allotted_nano, "G4: a row never pays more than it holds"
                for key, counters in row.keys.items():
                    name = (row.allotment, key)
                    assert counters.paid_nano <= self.book.consent.get(name, 0), "G5: more than consented"
                    assert counters.paid_nano <= self.book.earned.get(name, 0), "G5: more than earned"
                    if name not in self.book.forgotten:
                        assert counters.paid_nano >= self.book.paid.get(name, 0), "G4: paid fell"
                    self.book.paid[name] = counters.paid_nano
        for which, account in enumerate(self.nodes):
            state = self.node(which) if account in self.checker.states else None
            if state is not None:
                short = ledger.balance(account) < state.stake_nano
                assert not short or self.checker.rent_paid.get(account, 0) > state.rent_reserve_nano, "G1: node"

    def starve(self, account: bytes, debt: int) -> None:
        """Lets time pass, with rent dear, until `account` owes about `debt` more than it has; then somebody knocks."""
        stored = self.world.ledger.accounts[account]
        cells, bits, last_paid, due = storage_of(stored.cell)
        dear = Prices.from_config(config_with(DEAR))
        each = dear.storage_bit_price * bits + dear.storage_cell_price * cells
        moment = last_paid + max(stored.state.balance_nano + debt - due, 0) * 65_536 // each
        if self.now <= moment < LAST_MOMENT:
            self.world.ledger.now = moment
            self.prices(DEAR)
            self.tell(PASSER_BY, account, 1, unknown())
            self.prices(TODAY)

    def forget(self, account: bytes) -> None:
        """What the chain does with an account whose rent debt grew too large (test_escrow_attacks.py has it do so)."""
        ledger = self.world.ledger
        accounts = {name: stored for name, stored in ledger.accounts.items() if name != account}
        ledger.restore(accounts, list(ledger.queue), now=ledger.now, lt=ledger.lt)
        self.checker.forget(account)


def unknown() -> Cell:
    return begin_cell().store_uint(0x12345678, 32).store_uint(7, 64).end_cell()
