"""What the registry, and the verifier behind it, would do with a message: their own code, on their present state.

So nothing is sent that they would refuse, whoever sends it, and no second copy of their rules can disagree with them.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.governance.core.orders import Order, Who
from app.governance.core.settings import load_settings, outside
from app.governance.gather import Scene
from attestation.onchain.errors import explain
from chain.api import Transaction
from devnet.accounts import planted
from devnet.ledger import Ledger
from wrappers.errors import ContractError
from wrappers.ops import Op
from wrappers.registry import PROPOSAL_LIFE

OFFICE = {
    Who.GOVERNOR: "the governor",
    Who.CANDIDATE: "the account that was offered to govern",
    Who.REBUILDER: "a rebuilder",
}


def refusal(scene: Scene, global_id: int, sender: bytes, order: Order) -> str | None:
    """Why it would be refused, with the cure; None where it would not."""
    ledger = Ledger(global_id=global_id, now=scene.now)
    accounts = {each.account: planted(each, scene.now) for each in (scene.registry, scene.verifier)}
    ledger.restore(accounts, (), now=scene.now, lt=ledger.lt)
    trace = ledger.send_internal(
        source=sender, destination=scene.registry.account, value_nano=order.value_nano, body=order.body
    )
    failed = trace.failed
    return "; ".join(_words(scene, sender, order, failed[0])) if failed else None


def _words(scene: Scene, sender: bytes, order: Order, failed: Transaction) -> Iterator[str]:
    where = "the registry" if failed.account == scene.registry.account else "the verifier"
    code = failed.exit_code
    if code == ContractError.NOT_ALLOWED and failed.account == scene.registry.account:
        office = {Who.GOVERNOR: scene.state.governor, Who.CANDIDATE: scene.state.candidate}.get(order.who)
        known = f", {office.hex()}," if office is not None else ""
        yield f"{sender.hex()} may not send this: {OFFICE[order.who]}{known} may"
        yield "use its --wallet, or --print for a contract such as a multisig to send it"
        return
    proposal = scene.state.proposals.get(order.about) if order.about is not None else None
    if code == ContractError.NOT_READY and proposal is not None:
        yield f"the proposal may be executed from {proposal.ready_at} (unix seconds), it is {scene.now} now; wait"
        return
    if code == ContractError.PROPOSAL_OVER and proposal is not None:
        yield f"the proposal could be executed until {proposal.ready_at + PROPOSAL_LIFE}, it is {scene.now} now"
        yield "propose it again"
        return
    yield f"{where} would refuse it: " + ("it brings too little" if code in (None, 0) else explain(code))
    action = order.action
    if code == ContractError.BAD_PARAMETERS and action and action.begin_parse().load_uint(32) == Op.SETTINGS:
        yield from outside(load_settings(action))
