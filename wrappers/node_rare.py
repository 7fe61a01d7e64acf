"""Messages to a node that are seldom sent: each carries the node's rare program. What each needs: wrappers.fees."""

from __future__ import annotations

from pytoniq_core import Builder, Cell, begin_cell

from wrappers.code import Contract, rare_program
from wrappers.node import NO_KEY
from wrappers.ops import Op
from wrappers.receipts import Terms

MAX_OFFERS = 16


def _body(op: Op) -> Builder:
    return begin_cell().store_uint(op, 32)


def _with_program(body: Builder) -> Cell:
    return body.store_ref(rare_program(Contract.NODE)).end_cell()


def _signature(signature: bytes) -> Cell:
    return begin_cell().store_bytes(signature).end_cell()


def top_up_stake() -> Cell:
    """Body from anyone, while the node is bonded: the message's value above fees is added to the stake."""
    return _with_program(_body(Op.TOP_UP_STAKE))


def collect() -> Cell:
    """Body from anyone: sends earnings above the node's reserves to the payout address."""
    return _with_program(_body(Op.COLLECT))


def unbond() -> Cell:
    """Body from the controller: ends the signing key's term now and starts the stake's windows."""
    return _with_program(_body(Op.UNBOND))


def withdraw_stake() -> Cell:
    """Body from the controller, at `NodeState.withdrawable_at` or later: everything leaves, the account ends."""
    return _with_program(_body(Op.WITHDRAW_STAKE))


def accept_job(job: bytes, job_epoch: int, spec: bytes, key: bytes, signature: bytes) -> Cell:
    """Body from anyone: tells the job that the enclave took it. `signature`: `key` over `signed.Acceptance`."""
    body = _body(Op.ACCEPT_JOB).store_bytes(job).store_uint(job_epoch, 64).store_bytes(spec).store_bytes(key)
    return _with_program(body.store_ref(_signature(signature)))


def notarise(hash_: bytes, key: bytes, signature: bytes) -> Cell:
    """Body from anyone: puts `hash_` into the chain's history. `signature`: `key` over `signed.Notary`."""
    return _with_program(_body(Op.NOTARISE).store_bytes(hash_).store_bytes(key).store_ref(_signature(signature)))


def present(committee: bytes) -> Cell:
    """Body from the controller: has the node tell a committee what the chain verified of it. The value goes along."""
    return _with_program(_body(Op.PRESENT).store_bytes(committee))


def standing(measurement: bytes, platform: bytes, status: int) -> Cell:
    """Body from attestation, answering sync. `status`: 1 image retired, 2 compromised, 4 platform denied, 8 failing."""
    body = _body(Op.STANDING).store_bytes(measurement).store_bytes(platform)
    return _with_program(body.store_uint(status, 8))


def slash(
    epoch: int, key: bytes, penalty_nano: int, harm_nano: int, escrow: bytes, reporter: bytes, treasury: bytes
) -> Cell:
    """Body from the court. `penalty_nano` 0: the whole stake."""
    parties = begin_cell().store_bytes(reporter).store_bytes(treasury).end_cell()
    body = _body(Op.SLASH).store_uint(epoch, 64).store_bytes(key).store_coins(penalty_nano).store_coins(harm_nano)
    return _with_program(body.store_bytes(escrow).store_ref(parties))


def offer_controller(account: bytes | None) -> Cell:
    """Body from the controller: offers the role; None withdraws the offer."""
    return _with_program(_body(Op.OFFER_CONTROLLER).store_bytes(account or NO_KEY))


def accept_controller() -> Cell:
    """Body from the account that was offered the role."""
    return _with_program(_body(Op.ACCEPT_CONTROLLER))


def offer_payout(account: bytes | None) -> Cell:
    """Body from the controller: offers to be the payout address; None withdraws the offer."""
    return _with_program(_body(Op.OFFER_PAYOUT).store_bytes(account or NO_KEY))


def accept_payout() -> Cell:
    """Body from the account that was offered to be the payout address."""
    return _with_program(_body(Op.ACCEPT_PAYOUT))


def set_release_key(key: bytes) -> Cell:
    """Body from the controller. Rows that were allotted before keep the key that they froze."""
    return _with_program(_body(Op.SET_RELEASE_KEY).store_bytes(key))


def set_offer(terms: Terms) -> Cell:
    """Body from the controller: the price of `terms.model`, which replaces the one before."""
    return _with_program(_body(Op.SET_OFFER).store_bytes(terms.model).store_ref(terms.to_cell()))


def drop_offer(model: bytes) -> Cell:
    """Body from the controller."""
    return _with_program(_body(Op.DROP_OFFER).store_bytes(model))


def drain(on: bool) -> Cell:
    """Body from the controller: tells clients and relayers to give no new work, or that they may again."""
    return _with_program(_body(Op.DRAIN).store_bit(int(on)))
