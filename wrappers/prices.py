"""What gas, messages and storage cost, by a chain's configuration; amounts nanoTON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pytoniq_core import Cell, HashMap, Slice

from wrappers.cells import CellError


def _up(numerator: int) -> int:
    return -(-numerator >> 16)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of workchain 0, as configuration parameters 18, 21 and 25 state them (nanoTON; rates times 2^16)."""

    flat_gas_limit: int
    flat_gas_price: int
    gas_price: int
    lump_price: int
    bit_price: int
    cell_price: int
    storage_bit_price: int
    storage_cell_price: int

    @classmethod
    def from_config(cls, config: Cell) -> Self:
        """`config`: `Hashmap 32 ^Cell`. Raises CellError when a price is missing."""
        parameters = HashMap.parse(config.begin_parse(), 32, value_deserializer=lambda value: value.load_ref()) or {}
        try:
            gas, forward = parameters[21].begin_parse(), parameters[25].begin_parse()
            storage_dict = parameters[18].begin_parse()
        except KeyError as error:
            raise CellError(f"configuration parameter {error} is missing: not a whole configuration") from error
        if gas.load_uint(8) != 0xD1:
            raise CellError("configuration parameter 21 is of an unknown form")
        flat_limit, flat_price = gas.load_uint(64), gas.load_uint(64)
        gas.skip_bits(8)
        gas_price = gas.load_uint(64)
        forward.skip_bits(8)
        lump, bit, cell = (forward.load_uint(64) for _ in range(3))
        periods: dict[int, Slice] = HashMap.parse(storage_dict, 32) or {}
        latest = periods[max(periods)]
        latest.skip_bits(8 + 32)
        storage_bit, storage_cell = latest.load_uint(64), latest.load_uint(64)
        return cls(flat_limit, flat_price, gas_price, lump, bit, cell, storage_bit, storage_cell)

    def gas(self, gas: int) -> int:
        """GETGASFEE."""
        if gas <= self.flat_gas_limit:
            return self.flat_gas_price
        return self.flat_gas_price + _up(self.gas_price * (gas - self.flat_gas_limit))

    def forward(self, cells: int, bits: int) -> int:
        """GETFORWARDFEE; the message's root cell is free and not counted."""
        return self.lump_price + _up(self.bit_price * bits + self.cell_price * cells)

    def storage(self, cells: int, bits: int, seconds: int) -> int:
        """GETSTORAGEFEE."""
        return _up((self.storage_bit_price * bits + self.storage_cell_price * cells) * seconds)


PRICES: Final = Prices(100, 40_000, 26_214_400, 400_000, 26_214_400, 2_621_440_000, 1, 500)
"""Mainnet's configuration parameters 18, 21 and 25 for workchain 0. Where a network charges more, a message is refused
with the money returned, and the error says so."""
