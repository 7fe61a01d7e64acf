"""Sending what governs and seeing it taken: by the registry, and by the verifier where it has the last word."""

from __future__ import annotations

from dataclasses import dataclass

from app.governance.core.orders import Order
from app.governance.gather import Scene
from attestation.verifier import reason
from chain.api import Chain, Transaction
from chain.follower import AccountFollower
from chain.outgoing import Outgoing
from chain.wait import wait_for_transaction
from chain.wallet import Wallet

OUTCOME_SECONDS = 120.0


class Refused(Exception):
    """The chain did not take it after all; nothing changed. Why."""


@dataclass(frozen=True, slots=True)
class Done:
    sent: bytes
    """Hash of the wallet's transaction."""
    registry: bytes
    """Of the registry's."""


async def carry_out(chain: Chain, scene: Scene, order: Order, wallet: Wallet) -> Done:
    """Returns when everybody who must has taken it. Raises Refused, ChainError, WalletError, WaitTimeout."""
    registry, verifier = scene.registry.account, scene.verifier.account
    at_registry = await AccountFollower.from_now(chain, registry)
    at_verifier = await AccountFollower.from_now(chain, verifier)
    sent = await wallet.send(chain, [Outgoing(registry, order.value_nano, order.body)])
    landed = await sent.landed(chain)
    body = bytes(order.body.hash)

    def ours(transaction: Transaction) -> bool:
        message = transaction.in_msg
        return message is not None and message.source == wallet.account and bytes(message.body.hash) == body

    found = await wait_for_transaction(at_registry, ours, OUTCOME_SECONDS)
    if found.aborted:
        raise Refused(f"the registry refused it: {reason(found)}")
    if order.passed_on:
        passed = {message.created_lt for message in found.out_msgs if message.destination == verifier}

        def theirs(transaction: Transaction) -> bool:
            message = transaction.in_msg
            return message is not None and message.source == registry and message.created_lt in passed

        judged = await wait_for_transaction(at_verifier, theirs, OUTCOME_SECONDS)
        if judged.aborted:
            raise Refused(f"the verifier refused it: {reason(judged)}")
    return Done(landed.hash, found.hash)
