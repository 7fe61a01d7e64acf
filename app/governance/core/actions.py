"""Actions as they stand in proposals, read from cells and said in words. TL-B: Action."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pytoniq_core import Cell, Slice

from app.governance.core.settings import changes, load_settings, policy_changes
from attestation.onchain.state import VerifierState, read_policy
from wrappers.cells import CellError
from wrappers.ops import Op
from wrappers.registry import Rebuilders, RegistryState

TIERS = {1: "cpu", 2: "gpu", 3: "committee"}


@dataclass(frozen=True, slots=True)
class Action:
    """One action, and what it would change today."""

    cell: Cell
    name: str
    says: tuple[str, ...]

    @property
    def hash(self) -> bytes:
        return bytes(self.cell.hash)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    words: Callable[[Slice, Cell, RegistryState, VerifierState | None], Iterator[str]]


def read(cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Action:
    """`state`, `verifier`: what holds today. Raises CellError for what is no action."""
    try:
        s = cell.begin_parse()
        kind = KINDS.get(s.load_uint(32))
        if kind is None:
            raise CellError("not an action that this release knows")
        return Action(cell, kind.name, tuple(kind.words(s, cell, state, verifier)))
    except CellError:
        raise
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise CellError(f"not an action: {error}") from error


def measurement_of(cell: Cell) -> bytes | None:
    """Of the image that an action allows; None for any other action."""
    s = cell.begin_parse()
    if len(cell.bits) != 32 + 256 + 8 + 256 or s.load_uint(32) != Op.ALLOW_IMAGE:
        return None
    measurement: bytes = s.load_bytes(32)
    return measurement


def _settings(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    found = list(changes(state.settings, load_settings(cell)))
    yield from found or ["nothing: these settings hold already"]
    yield "for accounts that are born later; whoever lives keeps what it froze at its birth"
    yield "executing it drops all other proposed settings"


def _policy(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    wanted = read_policy(s.load_ref())
    found = list(policy_changes(verifier.policy if verifier is not None else None, wanted))
    yield from found or ["nothing: this policy holds already"]
    yield "for every quote from then on, and for living nodes at the next `sync`"


def _allow_image(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    measurement, tier, launch = s.load_bytes(32), s.load_uint(8), s.load_bytes(32)
    known = verifier.images.get(measurement) if verifier is not None else None
    was = "" if known is None else f"; it is {known.status.name.lower()} now, in tier {known.tier}"
    yield f"image {measurement.hex()} may serve, tier {tier} ({TIERS.get(tier, 'unknown')}), launch {launch.hex()}{was}"
    needed = state.rebuilders.needed
    yield f"it needs {needed} endorsement{'' if needed == 1 else 's'} of rebuilders when it is executed"


def _rebuilders(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    wanted, have = Rebuilders.from_cell(s.load_ref()), state.rebuilders
    of = f"{wanted.needed} of {len(wanted.accounts)} rebuilders"
    yield f"an image needs the endorsements of {of} ({have.needed} of {len(have.accounts)} today)"
    yield from (f"new rebuilder {one.hex()}" for one in sorted(wanted.accounts - have.accounts))
    yield from (f"no rebuilder any more: {one.hex()}" for one in sorted(have.accounts - wanted.accounts))


def _model(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    model = s.load_bytes(32)
    words = {None: "not listed", False: "listed", True: "revoked"}
    yield f"model {model.hex()} is listed; today it is {words[state.models.get(model)]}"


def _free_platform(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    platform = s.load_bytes(32)
    known = verifier.platforms.get(platform) if verifier is not None else None
    yield f"platform {platform.hex()} is denied no more, and may serve another node"
    if known is not None and known.node is not None:
        yield f"today it serves node {known.node.hex()}"


def _restore_tcb(s: Slice, cell: Cell, state: RegistryState, verifier: VerifierState | None) -> Iterator[str]:
    yield f"platforms of type {s.load_bytes(6).hex()} may attest again"


KINDS: Mapping[int, _Kind] = {
    Op.SETTINGS: _Kind("settings", _settings),
    Op.SET_POLICY: _Kind("set-policy", _policy),
    Op.ALLOW_IMAGE: _Kind("allow-image", _allow_image),
    Op.SET_REBUILDERS: _Kind("set-rebuilders", _rebuilders),
    Op.ALLOW_MODEL: _Kind("allow-model", _model),
    Op.FREE_PLATFORM: _Kind("free-platform", _free_platform),
    Op.RESTORE_TCB: _Kind("restore-tcb", _restore_tcb),
}
