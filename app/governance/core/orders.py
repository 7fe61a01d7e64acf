"""Messages of governance, each with who may send it, what it carries and what it means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from pytoniq_core import Cell

from app.governance.core.actions import Action, measurement_of
from app.governance.core.settings import NotUnderstood, stopped_words
from attestation.onchain.state import VerifierState
from wrappers import governance
from wrappers.fees import Fees
from wrappers.prices import PRICES
from wrappers.registry import RegistryState

OWN_NANO = 300_000_000
"""With what the registry does itself: far above gas and a new entry's rent. The rest comes back in the same trace."""
MARGIN_NANO = 100_000_000


class Who(Enum):
    """Whose message the registry takes."""

    GOVERNOR = auto()
    CANDIDATE = auto()
    REBUILDER = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """One message to the registry."""

    body: Cell
    value_nano: int
    says: tuple[str, ...]
    who: Who = Who.GOVERNOR
    about: bytes | None = None
    """Hash of the action that it is about."""
    action: Cell | None = None
    passed_on: bool = False
    """The verifier has the last word."""


def propose(state: RegistryState, action: Action) -> Order:
    says = [f"Proposes {action.name} {action.hash.hex()}:", *(f"  {line}" for line in action.says)]
    says.append(f"It may be executed {state.time_lock} s after it arrives, for two weeks.")
    known = state.proposals.get(action.hash)
    if known is not None:
        says.append(
            f"It is proposed already, ripe at {known.ready_at}: its time-lock starts anew, without endorsements."
        )
    return Order(governance.propose(action.cell), OWN_NANO, tuple(says), about=action.hash, action=action.cell)


def execute(state: RegistryState, action: Action) -> Order:
    own = action.name in ("settings", "allow-model", "set-rebuilders")
    says = (f"Executes {action.name} {action.hash.hex()}:", *(f"  {line}" for line in action.says))
    value = OWN_NANO if own else _passed_on(state)
    body = governance.execute(action.cell)
    return Order(body, value, says, about=action.hash, action=action.cell, passed_on=not own)


def cancel(hash_: bytes, action: Action | None) -> Order:
    what = "a proposal whose action nobody shows" if action is None else action.name
    says = (f"Drops {hash_.hex()}: {what}.", *(f"  {line}" for line in (action.says if action is not None else ())))
    return Order(governance.cancel(hash_), OWN_NANO, says, about=hash_)


def endorse(action: Action, measurement: bytes) -> Order:
    """`measurement`: what the rebuilder measured himself. Raises NotUnderstood where the proposal is about another."""
    proposed = measurement_of(action.cell)
    if proposed is None:
        raise NotUnderstood(f"{action.hash.hex()} is {action.name}: only images are endorsed")
    if proposed != measurement:
        raise NotUnderstood(
            f"the proposed image measures {proposed.hex()}, not {measurement.hex()}: your build is another image; "
            "do not endorse it"
        )
    says = (
        f"Says before everybody that you made image {proposed.hex()} from its sources yourself.",
        *(f"  {line}" for line in action.says),
    )
    return Order(governance.endorse(action.hash), OWN_NANO, says, Who.REBUILDER, action.hash)


def revoke_image(state: RegistryState, verifier: VerifierState | None, measurement: bytes, compromised: bool) -> Order:
    nodes = "its nodes are told by `cocoon attest sync`; relayers and clients obey at once"
    says = [f"Image {measurement.hex()} attests no more, at once: {nodes}."]
    if compromised:
        says.append("Compromised, for good: claims under its keys are paid only up to what clients acknowledged.")
    else:
        says.append("Retired: claims under its keys are paid for their window.")
    if verifier is not None:
        image = verifier.images.get(measurement)
        says.append("The verifier does not know it." if image is None else f"It is {image.status.name.lower()} now.")
    body = governance.revoke_image(measurement, compromised=compromised)
    return Order(body, _passed_on(state), tuple(says), passed_on=True)


def deny_platform(state: RegistryState, verifier: VerifierState | None, platform: bytes) -> Order:
    says = [f"Platform {platform.hex()} attests no more, at once. Claims under its keys: up to what is acknowledged."]
    known = verifier.platforms.get(platform) if verifier is not None else None
    if known is not None and known.node is not None:
        says.append(f"It serves node {known.node.hex()}, which is told by `cocoon attest sync`.")
    return Order(governance.deny_platform(platform), _passed_on(state), tuple(says), passed_on=True)


def drop_tcb(state: RegistryState, fmspc: bytes) -> Order:
    says = (f"No platform of type {fmspc.hex()} attests, at once, until `restore-tcb` is proposed and executed.",)
    return Order(governance.drop_tcb(fmspc), _passed_on(state), says, passed_on=True)


def revoke_model(state: RegistryState, model: bytes) -> Order:
    words = {None: "It was never listed.", False: "It is listed.", True: "It is revoked already."}
    says = (f"Model {model.hex()} is listed no more, at once.", words[state.models.get(model)])
    return Order(governance.revoke_model(model), OWN_NANO, says)


def stop_opening(state: RegistryState, kinds: int) -> Order:
    says = (
        f"No new {stopped_words(kinds)}, at once; stopped so far: {stopped_words(state.stopped)}.",
        "Whoever is in still works and gets out. Only executed settings open again.",
    )
    return Order(governance.stop_opening(kinds), OWN_NANO, says)


def offer_handover(state: RegistryState, account: bytes | None) -> Order:
    if account is None:
        offered = "nobody" if state.candidate is None else state.candidate.hex()
        return Order(governance.offer_governor(None), OWN_NANO, (f"Takes back the offer to govern (to {offered}).",))
    says = (
        f"Offers {account.hex()} to govern. {state.governor.hex()} governs until that account accepts.",
        "It can then narrow at once, and propose; it moves nobody's money.",
    )
    return Order(governance.offer_governor(account), OWN_NANO, says)


def accept_handover(state: RegistryState) -> Order:
    says = (f"The sender governs from now on, instead of {state.governor.hex()}.",)
    return Order(governance.accept_governor(), OWN_NANO, says, Who.CANDIDATE)


def senders(state: RegistryState, order: Order) -> Sequence[bytes]:
    """Accounts that may send it."""
    if order.who is Who.GOVERNOR:
        return (state.governor,)
    if order.who is Who.CANDIDATE:
        return () if state.candidate is None else (state.candidate,)
    return tuple(sorted(state.rebuilders.accounts))


def _passed_on(state: RegistryState) -> int:
    return Fees(PRICES, state.parameters).governed() + MARGIN_NANO
