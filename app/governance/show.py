"""Governance as it stands, for people and for programs."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from app.governance.core.actions import TIERS
from app.governance.core.proposals import Pending, endorsements
from app.governance.core.settings import span, stopped_words
from app.governance.gather import Scene
from wrappers.cells import address_of


def document(scene: Scene, waiting: Sequence[Pending]) -> dict[str, Any]:
    """Times unix seconds."""
    state, verifier = scene.state, scene.verifier_state
    return {
        "registry": scene.registry.account.hex(),
        "governor": state.governor.hex(),
        "offered_to": None if state.candidate is None else state.candidate.hex(),
        "treasury": state.treasury.hex(),
        "time_lock": state.time_lock,
        "stopped": stopped_words(state.stopped),
        "rebuilders": {
            "needed": state.rebuilders.needed,
            "accounts": sorted(map(bytes.hex, state.rebuilders.accounts)),
        },
        "models": {model.hex(): "revoked" if revoked else "listed" for model, revoked in state.models.items()},
        "images": {
            measurement.hex(): {"tier": image.tier, "status": image.status.name.lower()}
            for measurement, image in (verifier.images.items() if verifier is not None else ())
        },
        "dropped_platform_types": sorted(map(bytes.hex, verifier.barred)) if verifier is not None else [],
        "now": scene.now,
        "proposals": [
            {
                "hash": one.hash.hex(),
                "action": None if one.action is None else one.action.name,
                "says": [] if one.action is None else list(one.action.says),
                "phase": one.phase,
                "ready_at": one.proposal.ready_at,
                "expires_at": one.expires_at,
                "endorsed": endorsements(one.proposal, state),
                "lacks_endorsements": one.lacking,
            }
            for one in waiting
        ],
    }


def lines(scene: Scene, waiting: Sequence[Pending]) -> Iterator[str]:
    state, verifier = scene.state, scene.verifier_state
    yield f"registry     {address_of(scene.registry.account).to_str()}"
    yield f"governor     {state.governor.hex()}"
    if state.candidate is not None:
        yield f"offered to   {state.candidate.hex()}, who has not accepted yet"
    yield f"treasury     {state.treasury.hex()}"
    yield f"time-lock    {span(state.time_lock)}; stopped: {stopped_words(state.stopped)}"
    names = ", ".join(sorted(map(bytes.hex, state.rebuilders.accounts))) or "nobody"
    yield f"rebuilders   {state.rebuilders.needed} needed of {names}"
    for measurement, image in sorted(verifier.images.items()) if verifier is not None else ():
        tier = TIERS.get(image.tier, "unknown")
        yield f"image        {measurement.hex()}: tier {image.tier} ({tier}), {image.status.name.lower()}"
    for model, revoked in sorted(state.models.items()):
        yield f"model        {model.hex()}: {'revoked' if revoked else 'listed'}"
    for fmspc in sorted(verifier.barred) if verifier is not None else ():
        yield f"dropped      platforms of type {fmspc.hex()}"
    if verifier is None:
        yield "verifier     none that this release knows"
    if not waiting:
        yield "nothing is proposed"
    for one in waiting:
        yield f"proposal     {one.hash.hex()}: {one.phase}"
        if one.action is None:
            yield "  its action is in no history that the endpoints keep"
        else:
            yield f"  {one.action.name}"
            yield from (f"    {line}" for line in one.action.says)
        yield f"  may be executed from {_when(one.proposal.ready_at)} to {_when(one.expires_at)}"
        if one.lacking:
            yield f"  lacks {one.lacking} endorsement{'' if one.lacking == 1 else 's'} of rebuilders"


def _when(at: int) -> str:
    return f"{at} ({time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(at))})"
