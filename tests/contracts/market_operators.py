"""Operators and their nodes, jobs, and who accuses them."""

from __future__ import annotations

from dataclasses import replace

from market import PASSER_BY, enclave, unknown
from market_actions import HONEST, INNER, KEYS, PRICES, RESULT, USAGE, VALUES, WHICH, Actors, action

from attestation.onchain.messages import sync
from protocol.pricing import Stop, charge
from scripts.stage import DAY, HOUR, NO_HASH, TON, account_of_name, key_of, public
from wrappers import court, escrow_rare, job, node_rare
from wrappers.code import Contract, code_hash, rare_program
from wrappers.receipts import InnerReceipt, Receipt
from wrappers.signed import Acceptance, Delivery, JobResult, Notary, sign


class Operators(Actors):
    # ------------------------------------------------------------------------------------------ nodes

    @action(5, at=WHICH, key=KEYS, until=[DAY, DAY, 60], consent=HONEST, honest=HONEST, stray=HONEST)
    def verdict(self, at: int, key: int, until: int, consent: bool, honest: bool, stray: bool) -> None:
        if self.m.node(at) is not None:
            sender = self.world.attestation if honest else PASSER_BY
            self.m.verdict(at, key, until=until, consent=consent, sender=sender, platform=at if stray else 1 - at)

    @action(1, at=WHICH, status=[0, 1, 1, 8, 2, 4], own=HONEST, honest=HONEST, sure=range(3))
    def standing(self, at: int, status: int, own: bool, honest: bool, sure: int) -> None:
        image = self.m.measurement if own else b"\x99" * 32
        sender = self.world.attestation if honest else PASSER_BY
        if sure == 0:
            self.m.tell(sender, self.m.nodes[at], TON, node_rare.standing(image, self.m.platforms[at], status))

    @action(1, at=WHICH, value=VALUES)
    def sync(self, at: int, value: int) -> None:
        body = sync(self.m.nodes[at], self.m.measurement, self.m.platforms[at], rare_program(Contract.NODE))
        self.m.tell(PASSER_BY, self.world.attestation, value, body)

    @action(
        4,
        at=WHICH,
        value=VALUES,
        honest=HONEST,
        payout=WHICH,
        key=KEYS,
        act=[
            "collect",
            "collect",
            "top up",
            "unbond",
            "withdraw",
            "withdraw",
            "offer controller",
            "accept controller",
            "offer payout",
            "accept payout",
            "accept",
            "accept",
            "release key",
            "offer",
            "drop",
            "drain",
        ],
    )
    def operate(self, at: int, value: int, honest: bool, payout: int, key: int, act: str) -> None:
        state = self.m.node(at)
        controller = state.controller if state is not None else self.operator
        open_offers = state.extras if state is not None else None
        pending = open_offers and (
            (open_offers.new_payout and "payout") or (open_offers.new_controller and "controller")
        )
        if act == "accept" or (pending and act in ("top up", "release key", "offer payout", "drain")):
            act = f"accept {pending or 'controller'}"  # an offer seldom lasts long enough to be taken by chance
        body = {
            "collect": node_rare.collect,
            "top up": node_rare.top_up_stake,
            "unbond": node_rare.unbond,
            "withdraw": node_rare.withdraw_stake,
            "offer controller": lambda: node_rare.offer_controller(account_of_name(f"controller {payout}")),
            "accept controller": node_rare.accept_controller,
            "offer payout": lambda: node_rare.offer_payout(account_of_name(f"payout {payout}")),
            "accept payout": node_rare.accept_payout,
            "release key": lambda: node_rare.set_release_key(public(self.world.release_key)),
            "offer": lambda: node_rare.set_offer(replace(PRICES, model=bytes([key]) * 32)),
            "drop": lambda: node_rare.drop_offer(bytes([key]) * 32),
            "drain": lambda: node_rare.drain(bool(payout)),
        }[act]()
        sender = controller if honest else PASSER_BY
        extras = state.extras if state is not None else None
        if act.startswith("accept") and extras is not None and honest:
            sender = (extras.new_controller if act == "accept controller" else extras.new_payout) or sender
        if act != "unbond" or key == 0:
            self.m.tell(sender, self.m.nodes[at], value, body)

    @action(2, at=WHICH, key=KEYS, value=VALUES, honest=HONEST)
    def notarise(self, at: int, key: int, value: int, honest: bool) -> None:
        state = self.m.node(at)
        if state is not None:
            signature = sign(Notary(state.node_id, RESULT), key_of(f"enclave {key if honest else 5}"))
            self.m.tell(PASSER_BY, self.m.nodes[at], value, node_rare.notarise(RESULT, enclave(key), signature))

    # ------------------------------------------------------------------------------------------ jobs and the court

    @action(
        3,
        which=WHICH,
        index=WHICH,
        maximum=[1, TON // 2],
        amount=[TON // 100, TON],
        grace=[HOUR, HOUR, 1],
        honest=HONEST,
        value=VALUES,
    )
    def order_job(
        self, which: int, index: int, maximum: int, amount: int, grace: int, honest: bool, value: int
    ) -> None:
        key = public(key_of("delivery"))
        config = job.JobConfig(INNER, key, maximum, self.m.now + DAY, grace, HOUR, frozenset(self.m.nodes[: 1 + index]))
        body = escrow_rare.order_job(amount, code_hash(Contract.JOB), index, config.to_cell())
        self.to_escrow(which, honest, value, body)

    @action(
        6,
        pick=range(4),
        at=WHICH,
        act=["next", "next", "next", "accept", "post", "deliver", "finish", "refund"],
        over=(False, True),
        honest=HONEST,
        value=VALUES,
    )
    def job(self, pick: int, at: int, act: str, over: bool, honest: bool, value: int) -> None:
        living = [account for account in self.m.jobs if self.m.job(account) is not None]
        if not living:
            return
        account = living[pick % len(living)]
        state = self.m.job(account)
        assert state is not None
        if act == "next":
            follows = {
                job.Phase.OPEN: "accept",
                job.Phase.ACCEPTED: "post",
                job.Phase.POSTED: "deliver" if over else "finish",
            }
            act = follows[state.phase]
            if state.refundable_at is not None and self.m.now >= state.refundable_at:
                act = "refund"
        owner = self.m.node(at)
        if act == "accept":
            key = (
                0
                if owner is None or owner.signing_key is None
                else next(k for k in range(3) if enclave(k) == owner.signing_key)
            )
            if owner is not None:
                secret = key_of(f"enclave {key if honest else 5}")
                signature = sign(Acceptance(state.job_id, owner.node_id), secret)
                body = node_rare.accept_job(account, state.epoch, state.config.spec, enclave(key), signature)
                self.m.tell(PASSER_BY, self.m.nodes[at], value, body)
            return
        if act == "post":
            signer = state.acceptance.key if state.acceptance else enclave(0)
            secret = key_of(f"enclave {next(k for k in range(3) if enclave(k) == signer) if honest else 5}")
            amount = state.config.maximum_nano + (1 if over and pick == 0 else 0)
            signature = sign(JobResult(state.job_id, RESULT, amount, INNER), secret)
            body = job.job_posted(RESULT, amount, INNER, signature)
        elif act == "deliver":
            body = job.deliver(sign(Delivery(state.job_id, RESULT), key_of("delivery" if honest else "other")))
        elif act == "finish":
            body = job.finish_job()
        else:
            program = unknown() if not honest else rare_program(Contract.NODE) if state.acceptance else None
            body = job.refund(program)
        self.m.tell(PASSER_BY, account, value, body)

    @action(
        2, which=WHICH, at=WHICH, key=KEYS, guilty=(False, True), act=["equivocation", "false amount"], sure=range(4)
    )
    def accuse(self, which: int, at: int, key: int, guilty: bool, act: str, sure: int) -> None:
        """False evidence costs its sender the gas and nothing else: no stake moves."""
        owner, state = self.m.node(at), self.m.escrow(which)
        if owner is None or state is None or self.m.nodes[at] not in state.rows or (guilty and sure):
            return
        row, secret = state.rows[self.m.nodes[at]], key_of(f"enclave {key}")
        counts = USAGE.prompt_tokens, USAGE.cached_tokens, USAGE.completion_tokens, USAGE.reasoning_tokens
        inner = InnerReceipt(b"\x51" * 32, PRICES.model, *counts, Stop.END, b"\x52" * 32, b"\x53" * 32, b"\x54" * 32)
        right = charge(PRICES, USAGE, Stop.END)
        amount = right + (1000 if guilty and act == "false amount" else 0)
        receipt = Receipt(row.allotment, owner.node_id, 1, PRICES.hash, amount, amount, NO_HASH, inner.hash)
        first = court.SignedReceipt(receipt, sign(receipt, secret))
        place = court.Place(self.m.escrows[which], row.epoch, 1)
        accused = court.Accused(self.m.nodes[at], owner.epoch, enclave(key))
        program = rare_program(Contract.NODE)
        if act == "equivocation":
            other = replace(receipt, amount_nano=amount + 1) if guilty else receipt
            second = court.SignedReceipt(other, sign(other, secret))
            body = court.equivocation(place, accused, first, second, program)
        else:
            body = court.false_amount(place, accused, first, inner, PRICES, program)
        stake = owner.stake_nano
        self.m.tell(PASSER_BY, self.world.court, TON, body)
        after = self.m.node(at)
        if not guilty:
            assert after is not None and after.stake_nano == stake, "false evidence took a stake"
