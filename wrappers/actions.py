"""What the governor may do besides settings: at once what narrows, after the time-lock what widens. TL-B: Action."""

from __future__ import annotations

from pytoniq_core import Cell, begin_cell

from wrappers.ops import Op


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
