"""Governance: messages to the registry, and the actions that can be proposed to it. TL-B: RegistryMsg, Action.

What narrows is a message that holds at once; what widens is an action inside `propose`, then inside `execute`.
"""

from __future__ import annotations

from pytoniq_core import Cell, begin_cell

from wrappers.ops import Op
from wrappers.registry import Rebuilders
from wrappers.rows import NOBODY


def offer_governor(account: bytes | None) -> Cell:
    """Body from the governor: offers the office to `account`; None withdraws the offer."""
    return begin_cell().store_uint(Op.OFFER_GOVERNOR, 32).store_bytes(account or NOBODY).end_cell()


def accept_governor() -> Cell:
    """Body from the account that was offered to govern: it governs from now on."""
    return begin_cell().store_uint(Op.ACCEPT_GOVERNOR, 32).end_cell()


def propose(action: Cell) -> Cell:
    """Body from the governor: starts the time-lock of `action`, `Settings.to_cell()` or one of those below."""
    return begin_cell().store_uint(Op.PROPOSE, 32).store_ref(action).end_cell()


def cancel(action_hash: bytes) -> Cell:
    """Body from the governor: drops a proposal; `action_hash` is that of the action's cell."""
    return begin_cell().store_uint(Op.CANCEL, 32).store_bytes(action_hash).end_cell()


def execute(action: Cell) -> Cell:
    """Body from the governor, when the time-lock has run. Settings drop all other proposed settings."""
    return begin_cell().store_uint(Op.EXECUTE, 32).store_ref(action).end_cell()


def endorse(action_hash: bytes) -> Cell:
    """Body from a rebuilder: he made the image of this proposal from its sources, and it measures the same."""
    return begin_cell().store_uint(Op.ENDORSE, 32).store_bytes(action_hash).end_cell()


def stop_opening(kinds: int) -> Cell:
    """Body from the governor, at once: STOP_NODES, STOP_ESCROWS, STOP_JOBS added up. Only executed settings reopen."""
    return begin_cell().store_uint(Op.STOP_OPENING, 32).store_uint(kinds, 8).end_cell()


def revoke_model(model: bytes) -> Cell:
    """Body from the governor, at once. `model`: the hash that receipts name."""
    return begin_cell().store_uint(Op.REVOKE_MODEL, 32).store_bytes(model).end_cell()


def allow_model(model: bytes) -> Cell:
    return begin_cell().store_uint(Op.ALLOW_MODEL, 32).store_bytes(model).end_cell()


def set_rebuilders(rebuilders: Rebuilders) -> Cell:
    return begin_cell().store_uint(Op.SET_REBUILDERS, 32).store_ref(rebuilders.to_cell()).end_cell()


def revoke_image(measurement: bytes, *, compromised: bool) -> Cell:
    """Body to the registry, at once. Retired: keys keep their window; compromised: claims are paid up to acked."""
    body = begin_cell().store_uint(Op.REVOKE_IMAGE, 32).store_bytes(measurement)
    return body.store_bit(int(compromised)).end_cell()


def deny_platform(platform: bytes) -> Cell:
    """Body to the registry, at once. Also what a slashed node tells the verifier of its own platform."""
    return begin_cell().store_uint(Op.DENY_PLATFORM, 32).store_bytes(platform).end_cell()


def drop_tcb(fmspc: bytes) -> Cell:
    """Body to the registry, at once: no platform of this type (6 bytes) attests until it is restored."""
    return begin_cell().store_uint(Op.DROP_TCB, 32).store_bytes(fmspc).end_cell()


def set_policy(policy: Cell) -> Cell:
    """`policy`: ChainPolicy of attestation.onchain.state, as a cell."""
    return begin_cell().store_uint(Op.SET_POLICY, 32).store_ref(policy).end_cell()


def allow_image(measurement: bytes, tier: int, launch: bytes) -> Cell:
    """Executes with the rebuilders' endorsements only. `launch`: SHA-256 of MRCONFIGID, MROWNER, MROWNERCONFIG."""
    action = begin_cell().store_uint(Op.ALLOW_IMAGE, 32).store_bytes(measurement)
    return action.store_uint(tier, 8).store_bytes(launch).end_cell()


def free_platform(platform: bytes) -> Cell:
    """Lifts a denial, and lets another node have the platform."""
    return begin_cell().store_uint(Op.FREE_PLATFORM, 32).store_bytes(platform).end_cell()


def restore_tcb(fmspc: bytes) -> Cell:
    return begin_cell().store_uint(Op.RESTORE_TCB, 32).store_bytes(fmspc).end_cell()
