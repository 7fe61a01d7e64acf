"""Any order of all messages by honest, late, absent and malicious parties, through other prices, years and deletions.

Every transaction is held to the references (market_escrow, market_node, market_job): same state, same balance to the
nanoTON, same refusals. What the references cannot say, because they look at one account at a time, is said here.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from hashlib import sha256
from random import Random

import pytest
from hypothesis import HealthCheck, Phase, currently_in_test_context, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from market import PASSER_BY, RICH, Market
from market_actions import ACTIONS
from market_prices import TODAY
from market_stories import Stories
from market_world import Surroundings
from pytoniq_core import Cell

from scripts.stage import DAY, HOUR, TON
from wrappers import escrow, escrow_rare, job, node_rare
from wrappers.code import Contract, rare_program

_MARKETS: dict[int, Market] = {}
DONE = {"steps": 0, "examples": 0}
# Every message of these contracts must have been taken and refused at least once.
EXPECTED = {
    "escrow": "settle allot raise withdraw close finish top_up money lower reclaim allot_shared order_job pay_shares "
    "rotate_voucher_key apply_voucher_key return_rent give_up_key",
    "node": "claim claim_receipt paid verdict standing slash top_up_stake collect unbond withdraw_stake accept_job "
    "notarise offer_controller accept_controller offer_payout accept_payout set_release_key set_offer drop_offer drain",
    "job": "accepted job_posted deliver finish_job refund",
    "registry": "open_node open_escrow open_job propose cancel execute endorse offer_governor accept_governor "
    "stop_opening revoke_model revoke_image deny_platform drop_tcb",
    "court": "equivocation false_amount missed",
}
# Taken whoever sends it with whatever: money, and what only a genuine sender can make happen.
NEVER_REFUSED = {("escrow", "bounced"), ("court", "missed")}
ALSO_TAKEN = (
    ("escrow", "bounced"),
    ("node", "bounced"),
    ("node", "money"),
    ("job", "money"),
    ("escrow", "birth"),
    ("node", "birth"),
    ("job", "birth"),
    ("escrow", "debt"),
    ("node", "debt"),
    ("attestation", "governed"),
    ("attestation", "release_platform"),
    ("attestation", "deny_platform"),
)


class Machine(Stories, Surroundings, RuleBasedStateMachine):
    left_out: frozenset[str] = frozenset()
    """Actions that a kind of machine does without."""

    @initialize(fee=st.sampled_from([0, 0, 300]), seed=st.binary(min_size=8, max_size=8))
    def start(self, fee: int, seed: bytes) -> None:
        if fee not in _MARKETS:
            _MARKETS[fee] = Market(fee)
        self.m = _MARKETS[fee]
        self.m.reset()
        self.world = self.m.world
        self.governor = self.world.governor.account
        self.operator = self.world.operator.account
        self.proposed: list[Cell] = []
        self.seed = seed
        DONE["examples"] += 1
        for which in range(2):
            self.open_escrow(which, 3 * TON, True, which == 1, 8 * TON)

    @rule(seed=st.binary(min_size=8, max_size=8))
    def step(self, seed: bytes) -> None:
        """One action, chosen by all seeds so far. Hypothesis repeats much of one example in the next: with its own
        choice of rules and values most messages stay out of most sequences."""
        self.seed = sha256(self.seed + seed).digest()
        rng = Random(self.seed)
        names = [name for name in ACTIONS if name not in self.left_out]
        name = rng.choices(names, [ACTIONS[name][0] for name in names])[0]
        arguments = {key: rng.choice(choices) for key, choices in ACTIONS[name][1].items()}
        if currently_in_test_context():
            note(f"{name} {arguments}")
        getattr(self, name)(**arguments)

    # ------------------------------------------------------------------------------------------ what always holds

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "m"):
            DONE["steps"] += 1
            self.m.invariants()

    def teardown(self) -> None:
        """G3, G6: each gets out alone, whatever went before and whatever the others do."""
        if not hasattr(self, "m"):
            return
        m, world = self.m, self.world
        m.prices(TODAY)
        for account in m.jobs:
            state = m.job(account)
            if state is not None:
                world.ledger.now += 9 * DAY
                program = rare_program(Contract.NODE) if state.acceptance else None
                m.tell(PASSER_BY, account, RICH, job.refund(program) if state.outcome is None else job.finish_job())
                assert m.job(account) is None, "G3: job"
        for which, account in enumerate(m.escrows):
            if m.escrow(which) is None:
                continue
            m.tell(m.owners[which], account, RICH, escrow.close())
            world.ledger.now += 3 * HOUR
            if m.escrow(which) is not None:
                m.tell(m.owners[which], account, RICH, escrow.finish())
            for node_account in m.nodes:
                state = m.escrow(which)
                if state is not None and node_account in state.rows:
                    m.tell(m.owners[which], account, RICH, escrow_rare.pay_shares(node_account))
            assert m.escrow(which) is None and world.ledger.balance(account) == 0, "G3: client"
        for at, account in enumerate(m.nodes):
            state = m.node(at) if account in m.checker.states else None
            if state is not None:
                m.tell(state.controller, account, RICH, node_rare.unbond())
                world.ledger.now += 70 * DAY
                m.tell(state.controller, account, RICH, node_rare.withdraw_stake())
                assert m.node(at) is None and world.ledger.balance(account) == 0, "G3: operator"


QUIET = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large, HealthCheck.large_base_example]
TestMachine = pytest.mark.timeout(900)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "85")),
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],  # a shorter sequence is another one: what failed is printed as it was
    suppress_health_check=QUIET,
)


def unreached() -> list[str]:
    """Messages that were never taken, or never refused."""
    missing = []
    for kind, names in EXPECTED.items():
        for name in names.split():
            taken = sum(m.checker.taken[kind, name] for m in _MARKETS.values())
            refused = sum(m.checker.refused[kind, name] for m in _MARKETS.values())
            missing += [f"{kind}.{name} never taken"] * (not taken)
            missing += [f"{kind}.{name} never refused"] * (not refused and (kind, name) not in NEVER_REFUSED)
    for pair in ALSO_TAKEN:
        missing += ["{}.{} never taken".format(*pair)] * (not any(m.checker.taken[pair] for m in _MARKETS.values()))
    return missing


def live(number: int) -> None:
    machine = Machine()
    Machine.start(machine, fee=(0, 300)[number % 2], seed=number.to_bytes(8, "big"))
    for step in range(60):
        Machine.step(machine, seed=step.to_bytes(8, "big"))
        Machine.holds(machine)
    machine.teardown()


def report() -> None:
    print(f"\n{DONE['examples']} lives of the network, {DONE['steps']} steps; taken and refused, by message:")
    names = {pair for m in _MARKETS.values() for pair in (*m.checker.taken, *m.checker.refused)}
    for pair in sorted(names):
        taken, refused = (
            sum(c[pair] for c in cs)
            for cs in zip(*((m.checker.taken, m.checker.refused) for m in _MARKETS.values()), strict=True)
        )
        codes = sum((m.checker.codes for m in _MARKETS.values()), Counter[tuple[str, str, int | None]]())
        told = " ".join(f"{code}:{count}" for (*name, code), count in codes.items() if tuple(name) == pair)
        print(f"  {'.'.join(pair):32} {taken:7} {refused:7}  {told}")


@pytest.mark.timeout(600)
def test_every_message_was_taken_and_refused() -> None:
    if not DONE["steps"]:
        pytest.skip("the state machine was not run before this")
    number = 0
    while unreached() and number < 120:  # the same lives each time, of other randomness than those before
        live(number)
        number += 1
    report()
    assert DONE["steps"] >= 5_000
    assert not unreached()


@pytest.mark.timeout(0)
def test_soak() -> None:
    """`make soak`: the same with new randomness until the time is up."""
    minutes = float(os.environ.get("SOAK_MINUTES", "0"))
    if not minutes:
        pytest.skip("set SOAK_MINUTES, or: make soak")
    end = time.monotonic() + minutes * 60
    while time.monotonic() < end:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine,
            settings=settings(
                max_examples=50,
                stateful_step_count=80,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=QUIET,
            ),
        )
        print(f"{DONE['steps']} steps, {(end - time.monotonic()) / 60:.0f} minutes left", flush=True)
    report()
    assert DONE["steps"] < 20_000 or not unreached()
