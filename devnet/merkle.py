"""Pruned branches, Merkle proofs and Merkle updates (TON: tvm.pdf 3.1.7)."""

from __future__ import annotations

from collections.abc import Collection

from pytoniq_core import Builder, Cell

from wrappers.cells import cell_of

_PRUNED, _PROOF, _UPDATE = 1, 3, 4
_LEVEL_ONE = 1


def pruned(cell: Cell) -> Cell:
    builder = Builder(1023, _PRUNED).store_uint(_PRUNED, 8).store_uint(_LEVEL_ONE, 8)
    return cell_of(builder.store_bytes(cell.get_hash(0)).store_uint(cell.get_depth(0), 16))


def proof(root: Cell, prune: Collection[bytes] = ()) -> Cell:
    """`!merkle_proof` of `root` without the cells whose representation hash is in `prune`."""
    builder = Builder(1023, _PROOF).store_uint(_PROOF, 8).store_bytes(root.get_hash(0))
    return cell_of(builder.store_uint(root.get_depth(0), 16).store_ref(_without(root, frozenset(prune), {})))


def update(old: Cell, new: Cell) -> Cell:
    """`!merkle_update` whose two sides are pruned at the root: it names the states and shows nothing of them."""
    builder = Builder(1023, _UPDATE).store_uint(_UPDATE, 8).store_bytes(old.get_hash(0)).store_bytes(new.get_hash(0))
    builder.store_uint(old.get_depth(0), 16).store_uint(new.get_depth(0), 16)
    return cell_of(builder.store_ref(pruned(old)).store_ref(pruned(new)))


def _without(cell: Cell, prune: frozenset[bytes], known: dict[bytes, Cell]) -> Cell:
    if cell.hash in prune:
        return pruned(cell)
    if cell.is_exotic or not cell.refs:
        return cell
    if cell.hash not in known:
        refs = [_without(ref, prune, known) for ref in cell.refs]
        same = all(new is old for new, old in zip(refs, cell.refs, strict=True))
        known[cell.hash] = cell if same else Cell(cell.bits, refs, cell.type_)
    return known[cell.hash]
