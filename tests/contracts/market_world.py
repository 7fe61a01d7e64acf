"""The governor, whoever goes on with what others began, attackers, prices and time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from market import LAST_MOMENT, PASSER_BY, REBUILDER, RICH, unknown
from market_actions import HONEST, RESULT, VALUES, Actors, action
from market_prices import CHOICES, TODAY
from pytoniq_core import Cell, begin_cell

from scripts.stage import DAY, HOUR, NO_HASH, TON, account_of_name, key_of, public
from wrappers import escrow_rare, governance, job, node, node_rare
from wrappers.code import Contract, code_hash
from wrappers.ops import Op
from wrappers.registry import Rebuilders, RegistryState, open_node
from wrappers.signed import Delivery, sign

Step = tuple[int, bytes, bytes, Cell]
"""When at the earliest, from whom, to whom, what."""


class Surroundings(Actors):
    # ------------------------------------------------------------------------------------------ the governor

    @action(
        4,
        act=[
            "propose",
            "propose",
            "execute",
            "execute",
            "cancel",
            "endorse",
            "offer",
            "accept",
            "stop",
            "revoke model",
            "revoke image",
            "deny",
            "drop tcb",
            "narrow all",
        ],
        pick=range(10),
        honest=HONEST,
        patient=HONEST,
        value=VALUES,
    )
    def govern(self, act: str, pick: int, honest: bool, patient: bool, value: int) -> None:
        """G20: whoever sends it, no child is reached but by what the verifier says of its key."""
        ledger, world = self.world.ledger, self.world
        state = self.m.checker.states[world.registry]
        assert isinstance(state, RegistryState)
        actions = [
            replace(state.settings, treasury=world.treasury, stopped=0, time_lock=DAY).to_cell(),
            governance.allow_model(bytes([pick]) * 32),
            governance.set_rebuilders(Rebuilders(1, frozenset({REBUILDER, account_of_name(f"rebuilder {pick}")}))),
            governance.allow_image(bytes([pick]) * 32, 1, b"\x55" * 32),
            governance.free_platform(bytes([pick]) * 32),
            governance.restore_tcb(bytes([pick]) * 6),
        ]
        action = actions[pick % len(actions)]
        if act in ("execute", "cancel", "endorse") and self.proposed:
            action = self.proposed[pick % len(self.proposed)]
        if act == "propose":
            self.proposed.append(action)
        proposal = state.proposals.get(bytes(action.hash))
        if act == "execute" and patient and proposal is not None:
            self.until(proposal.ready_at)
        body = {
            "propose": lambda: governance.propose(action),
            "execute": lambda: governance.execute(action),
            "cancel": lambda: governance.cancel(bytes(action.hash)),
            "endorse": lambda: governance.endorse(bytes(action.hash)),
            "offer": lambda: governance.offer_governor(account_of_name("next governor")),
            "accept": governance.accept_governor,
            "stop": lambda: governance.stop_opening(pick & 3 if pick else 0),
            "revoke model": lambda: governance.revoke_model(bytes([pick]) * 32),
            "revoke image": lambda: governance.revoke_image(
                self.m.measurement if pick == 9 else b"\x66" * 32, compromised=bool(pick & 1)
            ),
            "deny": lambda: governance.deny_platform(self.m.platforms[0] if pick == 9 else bytes([pick]) * 32),
            "drop tcb": lambda: governance.drop_tcb(bytes([pick]) * 6),
            "narrow all": lambda: governance.stop_opening(8 + pick),
        }[act]()
        sender = state.governor if honest else PASSER_BY
        if act == "endorse" and honest:
            sender = REBUILDER
        if act == "accept" and honest:
            sender = account_of_name("next governor")
        before = [ledger.account(child) for child in sorted(self.m.children)]
        self.m.tell(sender, world.registry, value, body)
        assert [ledger.account(child) for child in sorted(self.m.children)] == before, "G20: a child was reached"

    @action(8, pick=range(10**6), value=[RICH, TON, TON // 100])
    def follow_up(self, pick: int, value: int) -> None:
        """Whatever somebody began and can now go on with, or forges as if he could."""
        steps = [*self._of_escrows(), *self._of_nodes(), *self._of_jobs(), *self._of_the_governor()]
        if steps:
            moment, sender, account, body = steps[pick % len(steps)]
            s = body.begin_parse()
            if s.load_uint(32) == Op.GIVE_UP_KEY:
                state = self.m.checker.states[account]
                self.m.book.forgotten.add((state.rows[s.load_bytes(32)].allotment, s.load_bytes(32)))
            self.until(moment)
            self.m.tell(sender, account, 12 * TON if account == self.world.registry else value, body)

    def _of_escrows(self) -> Iterator[Step]:
        for which, account in enumerate(self.m.escrows):
            state = self.m.escrow(which)
            if state is None:
                continue
            if state.next_key is not None:
                yield state.next_key.ready_at, PASSER_BY, account, escrow_rare.apply_voucher_key()
            for name, row in state.rows.items():
                for key in row.keys:
                    if key != row.current_key:
                        yield 0, state.owner, account, escrow_rare.give_up_key(name, key)

    def _of_nodes(self) -> Iterator[Step]:
        for at, account in enumerate(self.m.nodes):
            state = self.m.node(at)
            if state is None:
                config = node.NodeConfig(self.operator, self.world.payout, public(self.world.release_key))
                yield 0, self.operator, self.world.registry, open_node(code_hash(Contract.NODE), at, config)
                continue
            key = state.signing_key or NO_HASH
            yield 0, PASSER_BY, account, node.paid(2, PASSER_BY, 0, TON, 1)
            yield 0, PASSER_BY, account, node_rare.slash(state.epoch, key, 0, TON, PASSER_BY, PASSER_BY, PASSER_BY)
            if state.withdrawable_at is not None:
                yield state.withdrawable_at, state.controller, account, node_rare.withdraw_stake()
            if state.extras is not None:
                if state.extras.new_controller:
                    yield 0, state.extras.new_controller, account, node_rare.accept_controller()
                if state.extras.new_payout:
                    yield 0, state.extras.new_payout, account, node_rare.accept_payout()
                for model in state.extras.offers:
                    yield 0, state.controller, account, node_rare.drop_offer(model)

    def _of_jobs(self) -> Iterator[Step]:
        for account in self.m.jobs:
            state = self.m.job(account)
            if state is not None:
                yield 0, PASSER_BY, account, begin_cell().store_uint(0, 32).end_cell()
                if state.payable_at is not None:
                    signature = sign(Delivery(state.job_id, RESULT), key_of("delivery"))
                    yield state.payable_at, PASSER_BY, account, job.finish_job()
                    yield 0, PASSER_BY, account, job.deliver(signature)

    def _of_the_governor(self) -> Iterator[Step]:
        account = self.world.registry
        state = self.m.checker.states[account]
        assert isinstance(state, RegistryState)
        if state.candidate is not None:
            yield 0, state.candidate, account, governance.accept_governor()
            yield 0, state.candidate, account, governance.accept_governor()
        else:
            yield 0, state.governor, account, governance.offer_governor(account_of_name("next governor"))
        for proposed in self.proposed:
            proposal = state.proposals.get(bytes(proposed.hash))
            if proposal is not None:
                yield proposal.ready_at, state.governor, account, governance.execute(proposed)
                yield 0, REBUILDER, account, governance.endorse(bytes(proposed.hash))
                yield 0, state.governor, account, governance.cancel(bytes(proposed.hash))

    # ------------------------------------------------------------------------------------------ attackers, prices, time

    @action(2, pick=range(10**6), thief=(False, True), value=VALUES)
    def replay(self, pick: int, thief: bool, value: int) -> None:
        source, where, body = self.m.sent[pick % len(self.m.sent)]
        self.m.tell(PASSER_BY if thief else source, where, value, body)

    @action(1, pick=range(10**6))
    def replay_external(self, pick: int) -> None:
        if self.m.externals:
            self.m.external(self.m.externals[pick % len(self.m.externals)])

    @action(2, pick=range(10**6), at=range(8), bounced=(False, True), value=VALUES, kin=range(8))
    def astray(self, pick: int, at: int, bounced: bool, value: int, kin: int) -> None:
        """Any message at any account, from a sibling or a stranger, also as if it came back."""
        children = sorted(self.m.children)
        said = [
            *self.m.heard,
            *self.m.heard,
            *((there, body) for _, there, body in self.m.sent),
            (children[at], unknown()),
        ]
        there, body = said[pick % len(said)]
        there = there if pick & 64 and not bounced else children[at]
        source = children[kin] if pick % 2 else PASSER_BY
        if bounced:
            body = begin_cell().store_uint(0xFFFFFFFF, 32).store_bits(body.bits[:256]).end_cell()
        self.m.tell(source, there, value, body, bounced=bounced)

    @action(2, seconds=[1, 60, 60, HOUR, HOUR, HOUR, 4 * HOUR, DAY, 2 * DAY, 8 * DAY, 400 * DAY])
    def wait(self, seconds: int) -> None:
        if self.m.now + seconds < LAST_MOMENT:
            self.world.ledger.now += seconds

    @action(1, factors=[*CHOICES, TODAY, TODAY, TODAY])
    def change_prices(self, factors: object) -> None:
        self.m.prices(factors)  # type: ignore[arg-type]

    @action(
        1, pick=range(8), debt=[-TON // 100, 0, 1, 26_500, TON // 100, TON // 100, TON // 11, TON // 9], sure=range(2)
    )
    def starve(self, pick: int, debt: int, sure: int) -> None:
        """Rent takes all there is, and the rest is owed; at a ninth of a TON the chain freezes the account."""
        account = sorted(self.m.children)[pick]
        if sure == 0 and account in self.m.checker.states:
            self.m.starve(account, debt)

    @action(1, pick=range(8), sure=range(6))
    def forgotten_by_the_chain(self, pick: int, sure: int) -> None:
        account = sorted(self.m.children)[pick]
        if sure == 0 and account in self.m.checker.states:
            self.m.forget(account)
