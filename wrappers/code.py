"""Compiled contracts, as committed in `contracts/build`, checked against their pinned hashes when they are loaded."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import cache
from importlib import resources

from pytoniq_core import Cell

from wrappers.cells import CellError, from_boc


class Contract(StrEnum):
    """What is compiled: contracts, and the programs of rare messages of two of them."""

    STUB = "stub"
    REGISTRY = "registry"
    ATTESTATION = "attestation"
    NODE = "node"
    ESCROW = "escrow"
    JOB = "job"
    COURT = "court"
    COMMITTEE = "committee"
    NODE_RARE = "node_rare"
    ESCROW_RARE = "escrow_rare"


@cache
def pinned_hashes() -> dict[str, str]:
    """Code hash (hex) by contract name, as pinned in `contracts/build/hashes.json`."""
    text = resources.files("contracts").joinpath("build", "hashes.json").read_text()
    return {str(name): str(value) for name, value in json.loads(text).items()}


@cache
def code(contract: Contract) -> Cell:
    """The contract's code. Raises CellError when the committed file does not have the pinned hash."""
    cell = from_boc(resources.files("contracts").joinpath("build", f"{contract}.boc").read_bytes())
    if cell.hash.hex() != pinned_hashes()[contract]:
        raise CellError(f"code of {contract} does not have its pinned hash; run `make contracts` and review the change")
    return cell


def code_hash(contract: Contract) -> bytes:
    return bytes(code(contract).hash)


def living_code(birth_program: Cell) -> Cell:
    """The code that a node or escrow runs once it is born: the first reference of the program of its birth."""
    return birth_program.refs[0]


def rare_program(contract: Contract) -> Cell:
    """What a rare message to a node or escrow carries as its last reference (docs/adr/0022-rare-programs.md)."""
    return code(Contract(f"{contract}_rare"))


def size_of(*roots: Cell | None) -> tuple[int, int]:
    """Distinct cells and their bits under `roots`, which count: what rent and forwarding fees are charged for."""
    seen: dict[bytes, int] = {}
    stack = [root for root in roots if root is not None]
    while stack:
        cell = stack.pop()
        if cell.hash not in seen:
            seen[cell.hash] = len(cell.bits)
            stack.extend(cell.refs)
    return len(seen), sum(seen.values())
