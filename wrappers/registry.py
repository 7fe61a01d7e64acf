"""The registry: one per network. Its state, the births of nodes and escrows, and the addresses that follow from it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self

from pytoniq_core import Cell, begin_cell

from wrappers.cells import CellError
from wrappers.code import Contract, code, living_code, size_of
from wrappers.escrow import EscrowConfig
from wrappers.node import NodeConfig, VerdictBody
from wrappers.ops import Op

YEAR_SECONDS = 31_536_000


class Kind(IntEnum):
    """Kind of a registry's child, in its StateInit."""

    NODE = 1
    ESCROW = 2


def _state_init(code_: Cell, data: Cell) -> Cell:
    # TL-B StateInit: no split depth, no tick-tock, code and data present, no library.
    return begin_cell().store_uint(0b00110, 5).store_ref(code_).store_ref(data).end_cell()


def stub_state_init(registry: bytes, kind: Kind, owner: bytes, index: int) -> Cell:
    """StateInit of a child: the constant stub and who it is. `owner` opens it; `index` counts the owner's own."""
    data = begin_cell().store_bytes(registry).store_uint(kind, 8).store_bytes(owner).store_uint(index, 32).end_cell()
    return _state_init(code(Contract.STUB), data)


def child_address(registry: bytes, kind: Kind, owner: bytes, index: int) -> bytes:
    """Account id of a child; the same whatever code it runs now."""
    return bytes(stub_state_init(registry, kind, owner, index).hash)


def singleton_state_init(code_: Cell, genesis_key: bytes, salt: int) -> Cell:
    """StateInit of a registry or attestation contract, inert until the genesis key signs its state."""
    return _state_init(code_, begin_cell().store_bytes(genesis_key).store_uint(salt, 32).end_cell())


def singleton_address(code_: Cell, genesis_key: bytes, salt: int) -> bytes:
    return bytes(singleton_state_init(code_, genesis_key, salt).hash)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What every child freezes at its birth. Times in seconds."""

    min_stake_nano: int
    min_deposit_nano: int
    gas_level_nano: int
    """A node keeps this much for gas beside its stake; what it earns above leaves to the payout address."""
    payout_threshold_nano: int
    unbonding: int
    claim_window: int
    challenge_window: int
    min_close_timer: int
    max_close_timer: int


@dataclass(frozen=True, slots=True)
class RegistryState:
    """TL-B: RegistryData."""

    governor: bytes
    network_id: bytes
    attestation: bytes
    parameters: Parameters
    stub_code: Cell
    node_code: Cell
    escrow_code: Cell

    @property
    def stub_prefix(self) -> bytes:
        """What the StateInit of every child hashes before the hash of its data (39 bytes)."""
        depth = self.stub_code.get_depth(0)
        return b"\x02\x01\x34" + depth.to_bytes(2, "big") + bytes(2) + bytes(self.stub_code.hash)

    def to_cell(self) -> Cell:
        p = self.parameters
        node_cells, node_bits = size_of(living_code(self.node_code))
        node = begin_cell().store_bytes(self.attestation).store_bytes(self.stub_prefix)
        node.store_coins(p.gas_level_nano).store_coins(p.payout_threshold_nano)
        node.store_uint(p.unbonding, 32).store_uint(p.claim_window, 32).store_uint(p.challenge_window, 32)
        node.store_uint(node_cells, 16).store_uint(node_bits, 32).store_ref(self.node_code)
        escrow_cells, escrow_bits = size_of(living_code(self.escrow_code))
        escrow = begin_cell().store_uint(p.min_close_timer, 32).store_uint(p.max_close_timer, 32)
        escrow.store_uint(escrow_cells, 16).store_uint(escrow_bits, 32).store_ref(self.escrow_code)
        root = begin_cell().store_bytes(self.governor).store_bytes(self.attestation).store_bytes(self.stub_prefix)
        root.store_coins(p.min_stake_nano).store_coins(p.min_deposit_nano)
        root.store_ref(self.stub_code).store_ref(node.end_cell()).store_ref(escrow.end_cell())
        return root.store_ref(begin_cell().store_bytes(self.network_id).end_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for anything else, a registry before its genesis included."""
        try:
            root = cell.begin_parse()
            governor, attestation, prefix = root.load_bytes(32), root.load_bytes(32), root.load_bytes(39)
            min_stake, min_deposit = root.load_coins() or 0, root.load_coins() or 0
            stub, node, escrow = root.load_ref(), root.load_ref().begin_parse(), root.load_ref().begin_parse()
            network = root.load_ref().begin_parse().load_bytes(32)
            node.skip_bits(256 + 312)
            gas_level, threshold = node.load_coins() or 0, node.load_coins() or 0
            unbonding, claim_window, challenge_window = (node.load_uint(32) for _ in range(3))
            min_timer, max_timer = escrow.load_uint(32), escrow.load_uint(32)
            node_code, escrow_code = node.load_ref(), escrow.load_ref()
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a registry's state: {error}") from error
        parameters = Parameters(
            min_stake,
            min_deposit,
            gas_level,
            threshold,
            unbonding,
            claim_window,
            challenge_window,
            min_timer,
            max_timer,
        )
        state = cls(governor, network, attestation, parameters, stub, node_code, escrow_code)
        if state.stub_prefix != prefix or state.to_cell().hash != cell.hash:
            raise CellError("not a registry's state: it does not agree with itself")
        return state


def genesis(signature: bytes, state: Cell) -> Cell:
    """Body that sets a singleton's state; `signature` is over `signed.GenesisState`. From anyone, once."""
    return begin_cell().store_uint(Op.GENESIS, 32).store_bytes(signature).store_ref(state).end_cell()


def open_node(code_hash: bytes, index: int, config: NodeConfig) -> Cell:
    """Body to the registry: the sender becomes the owner; all value above fees and reserves is the stake."""
    body = begin_cell().store_uint(Op.OPEN_NODE, 32).store_bytes(code_hash).store_uint(index, 32)
    return body.store_ref(config.to_cell()).end_cell()


def open_escrow(code_hash: bytes, index: int, config: EscrowConfig) -> Cell:
    """Body to the registry: the sender becomes the owner; all value above fees and reserves is the deposit."""
    body = begin_cell().store_uint(Op.OPEN_ESCROW, 32).store_bytes(code_hash).store_uint(index, 32)
    return body.store_ref(config.to_cell()).end_cell()


def admit(node: bytes, verdict: VerdictBody) -> Cell:
    """Body from the governor to the registry; refused by code on the main network."""
    return begin_cell().store_uint(Op.ADMIT, 32).store_bytes(node).store_ref(verdict.to_cell()).end_cell()
