"""Other prices than mainnet's present ones, on a ledger that goes on with them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from pytoniq_core import Cell, HashMap, begin_cell

from devnet.engine import Engine
from devnet.ledger import Ledger
from devnet.network import DEVNET_GLOBAL_ID, config_cell, config_parameters


@dataclass(frozen=True, slots=True)
class Factors:
    """Of gas, forwarding and storage prices, in hundredths."""

    gas: int = 100
    forward: int = 100
    storage: int = 100


TODAY = Factors()
DEAR = Factors(storage=100_000)
"""Rent that empties an account within months."""
CHOICES = (
    TODAY,
    Factors(gas=400),
    Factors(gas=25, forward=50),
    Factors(forward=300),
    Factors(storage=500),
    Factors(storage=10),
)


def _scaled(cell: Cell, skip: int, widths: tuple[int, ...], factor: int) -> Cell:
    """The unsigned numbers of those widths after `skip` bits, times `factor` hundredths."""
    s = cell.begin_parse()
    out = begin_cell().store_bits(s.load_bits(skip))
    for width in widths:
        out.store_uint(s.load_uint(width) * factor // 100, width)
    return out.store_slice(s).end_cell()


@cache
def config_with(factors: Factors) -> Cell:
    """Mainnet's configuration with parameters 18, 21 and 25 scaled."""
    parameters = config_parameters(config_cell(DEVNET_GLOBAL_ID))
    gas = parameters[21].begin_parse()
    head = begin_cell().store_bits(gas.load_bits(8 + 64)).store_uint(gas.load_uint(64) * factors.gas // 100, 64)
    head.store_bits(gas.load_bits(8)).store_uint(gas.load_uint(64) * factors.gas // 100, 64)
    parameters[21] = head.store_slice(gas).end_cell()
    parameters[25] = _scaled(parameters[25], 8, (64, 64, 64), factors.forward)
    periods = HashMap.parse(parameters[18].begin_parse(), 32, value_deserializer=lambda s: s.to_cell())
    latest = max(periods)
    periods[latest] = _scaled(periods[latest], 8 + 32, (64, 64), factors.storage)
    storage = HashMap(32, value_serializer=lambda value, builder: builder.store_cell(value))
    for since, cell in periods.items():
        storage.set_int_key(since, cell)
    parameters[18] = storage.serialize()
    tree = HashMap(32, value_serializer=lambda value, builder: builder.store_ref(value))
    for number, value in parameters.items():
        tree.set_int_key(number & 0xFFFFFFFF, value)
    return tree.serialize()


@cache
def _engine(factors: Factors) -> Engine:
    return Engine(config_with(factors))


def set_prices(ledger: Ledger, factors: Factors) -> None:
    ledger.config = config_with(factors)
    ledger._engine = _engine(factors)
