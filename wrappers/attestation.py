"""The attestation contract: verdicts on evidence. Today it passes on the governor's admissions, off mainnet only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from pytoniq_core import Cell, begin_cell

from wrappers.cells import CellError


@dataclass(frozen=True, slots=True)
class AttestationState:
    """TL-B: AttestationData."""

    registry: bytes
    network_id: bytes

    def to_cell(self) -> Cell:
        return begin_cell().store_bytes(self.registry).store_bytes(self.network_id).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for anything else, a contract before its genesis included."""
        if len(cell.bits) != 512 or cell.refs:
            raise CellError("not an attestation contract's state")
        slice_ = cell.begin_parse()
        return cls(slice_.load_bytes(32), slice_.load_bytes(32))
