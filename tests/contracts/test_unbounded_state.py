"""Dictionaries that no contract bounds: whoever reads a state must not stop where somebody made it long."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

from committee_stage import Stage

from scripts.stage import TON, World
from wrappers import governance
from wrappers.committee import MAX_MEMBERS
from wrappers.committee_messages import leave
from wrappers.dicts import MAX_ENTRIES
from wrappers.registry import RegistryState


def model(number: int) -> bytes:
    return sha256(b"model %d" % number).digest()


def test_g6_however_many_models_are_listed_or_revoked_the_registry_can_be_read(world: World) -> None:
    """Revoking is immediate and a listing never goes: else a governor could stop every program within a minute."""
    body = governance.revoke_model(model(0))
    assert not world.send(world.governor, world.registry, TON // 10, body).failed
    data = world.ledger.account(world.registry).data
    assert data is not None
    many = {model(number): True for number in range(MAX_ENTRIES + 1)}
    data = replace(RegistryState.from_cell(data), models=many).to_cell()
    state = RegistryState.from_cell(data)
    assert state.parameters == world.parameters and state.to_cell().hash == data.hash
    assert state.models.get(model(3)) is True and state.models.get(model(-1)) is None
    assert state.models == many and len(state.models) == len(many)
    written = replace(state, models=dict(state.models))
    assert written == state and written.to_cell().hash == data.hash


def test_g6_members_that_are_leaving_do_not_hide_the_committee_from_those_who_stay() -> None:
    stage = Stage()
    assert not stage.genesis().failed
    everybody = stage.join(MAX_MEMBERS)
    assert not stage.tell(leave(everybody[0].owner), stage.fees.leave(), everybody[0].owner).failed
    assert not stage.present(stage.verifier(MAX_MEMBERS)).failed
    assert len(stage.state.members) == MAX_MEMBERS + 1 and stage.state.size == MAX_MEMBERS
