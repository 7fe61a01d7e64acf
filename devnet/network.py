"""The configuration the devnet runs under: mainnet's own, with another global id."""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from pytoniq_core import Cell, HashMap, begin_cell

from wrappers.cells import from_boc

MAINNET_GLOBAL_ID = -239
DEVNET_GLOBAL_ID = -7001
MAINNET_CONFIG_HASH = bytes.fromhex("293c508de227d9755682c6d16468724e04512e9a2263c4d9d6511de11f28e89d")
GLOBAL_ID_PARAMETER = 19


@cache
def config_cell(global_id: int) -> Cell:
    """`Hashmap 32 ^Cell` of mainnet with parameter 19 (int32) set to `global_id`. Nothing else differs."""
    mainnet = from_boc(resources.files("devnet").joinpath("config/mainnet.boc").read_bytes())
    if mainnet.hash != MAINNET_CONFIG_HASH:
        raise ValueError(
            "devnet/config/mainnet.boc is not the pinned configuration: restore the file from the repository"
        )
    parameters = config_parameters(mainnet)
    parameters[GLOBAL_ID_PARAMETER] = begin_cell().store_int(global_id, 32).end_cell()
    # Keys are stored as unsigned: three parameters of mainnet have negative numbers.
    tree = HashMap(32, value_serializer=lambda value, builder: builder.store_ref(value))
    for number, value in parameters.items():
        tree.set_int_key(number & 0xFFFFFFFF, value)
    root: Any = tree.serialize()
    assert isinstance(root, Cell)
    return root


def config_parameters(config: Cell) -> dict[int, Cell]:
    """Parameter number (signed 32-bit) -> its cell."""
    raw: Any = HashMap.parse(config.begin_parse(), 32, value_deserializer=lambda s: s.load_ref())
    return {key - (1 << 32) if key >> 31 else key: value for key, value in raw.items()}
