"""Persistent `HashmapAug` (block.tlb): every change copies one path, so each block keeps its own state for little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytoniq_core import Builder, Cell, begin_cell

from wrappers.cells import cell_of

WriteExtra = Callable[[Builder, int], Builder]


def write_currency(builder: Builder, amount_nano: int) -> Builder:
    """`CurrencyCollection` without extra currencies."""
    builder.store_coins(amount_nano).store_bit(0)
    return builder


def write_depth_balance(builder: Builder, amount_nano: int) -> Builder:
    """`DepthBalanceInfo` of an unsplit shard."""
    return write_currency(builder.store_uint(0, 5), amount_nano)


@dataclass(frozen=True, slots=True)
class _Node:
    label: str
    width: int
    """Key bits from here down, the label's included."""
    amount_nano: int
    cell: Cell
    payload: Cell | None
    branches: tuple[_Node, _Node] | None


@dataclass(frozen=True, slots=True)
class AugTree:
    """Key (a string of `width` characters 0 and 1) -> payload cell, stored inline; amounts in nanoTON are summed up."""

    width: int
    write_extra: WriteExtra
    root: _Node | None = None

    @property
    def amount_nano(self) -> int:
        return 0 if self.root is None else self.root.amount_nano

    def hashmap(self) -> Cell:
        """`HashmapAug`, the root edge itself. The tree must not be empty."""
        assert self.root is not None
        return self.root.cell

    def hashmap_e(self) -> Cell:
        """`HashmapAugE`."""
        if self.root is None:
            return cell_of(self.write_extra(begin_cell().store_bit(0), 0))
        return cell_of(self.write_extra(begin_cell().store_bit(1).store_ref(self.root.cell), self.root.amount_nano))

    def set(self, key: str, payload: Cell, amount_nano: int) -> AugTree:
        assert len(key) == self.width
        return AugTree(self.width, self.write_extra, self._set(self.root, key, payload, amount_nano))

    def delete(self, key: str) -> AugTree:
        """Without `key`; the same tree where it has none."""
        root = None if self.root is None else self._delete(self.root, key)
        return AugTree(self.width, self.write_extra, root)

    def get(self, key: str) -> Cell | None:
        node = self.root
        while node is not None and key.startswith(node.label):
            key = key[len(node.label) :]
            if node.branches is None:
                return node.payload
            node, key = node.branches[int(key[0])], key[1:]
        return None

    def off_path(self, key: str) -> list[Cell]:
        """Edges that a proof about `key` may prune: those that a walk towards it does not enter."""
        found: list[Cell] = []
        node = self.root
        while node is not None and key.startswith(node.label) and node.branches is not None:
            key = key[len(node.label) :]
            found.append(node.branches[1 - int(key[0])].cell)
            node, key = node.branches[int(key[0])], key[1:]
        return found

    def _leaf(self, label: str, payload: Cell, amount_nano: int) -> _Node:
        builder = self.write_extra(_labelled(label, len(label)), amount_nano).store_cell(payload)
        return _Node(label, len(label), amount_nano, cell_of(builder), payload, None)

    def _fork(self, label: str, left: _Node, right: _Node) -> _Node:
        width = len(label) + 1 + left.width
        amount_nano = left.amount_nano + right.amount_nano
        builder = _labelled(label, width).store_ref(left.cell).store_ref(right.cell)
        return _Node(label, width, amount_nano, cell_of(self.write_extra(builder, amount_nano)), None, (left, right))

    def _relabel(self, node: _Node, label: str) -> _Node:
        if node.branches is not None:
            return self._fork(label, *node.branches)
        assert node.payload is not None
        return self._leaf(label, node.payload, node.amount_nano)

    def _set(self, node: _Node | None, key: str, payload: Cell, amount_nano: int) -> _Node:
        if node is None:
            return self._leaf(key, payload, amount_nano)
        common = _common(node.label, key)
        bit, rest = key[len(common) : len(common) + 1], key[len(common) + 1 :]
        if len(common) < len(node.label):
            old = self._relabel(node, node.label[len(common) + 1 :])
            new = self._leaf(rest, payload, amount_nano)
            return self._fork(common, *((new, old) if bit == "0" else (old, new)))
        if node.branches is None:
            return self._leaf(key, payload, amount_nano)
        left, right = node.branches
        if bit == "0":
            return self._fork(common, self._set(left, rest, payload, amount_nano), right)
        return self._fork(common, left, self._set(right, rest, payload, amount_nano))

    def _delete(self, node: _Node, key: str) -> _Node | None:
        if not key.startswith(node.label):
            return node
        rest = key[len(node.label) :]
        if node.branches is None:
            return None
        index = int(rest[0])
        child, sibling = node.branches[index], node.branches[1 - index]
        changed = self._delete(child, rest[1:])
        if changed is child:
            return node
        if changed is None:
            return self._relabel(sibling, node.label + str(1 - index) + sibling.label)
        return self._fork(node.label, *((changed, sibling) if index == 0 else (sibling, changed)))


def key_bits(key: bytes) -> str:
    return format(int.from_bytes(key, "big"), f"0{8 * len(key)}b")


def _labelled(label: str, width: int) -> Builder:
    """A builder that begins with the shortest `HmLabel` of `label` where `width` key bits are left."""
    length, size = len(label), width.bit_length()
    count = format(length, f"0{size}b") if size else ""
    short = "0" + "1" * length + "0" + label
    candidates = [short, "10" + count + label]
    if length and len(set(label)) == 1:
        candidates.append("11" + label[0] + count)
    builder: Builder = begin_cell()
    builder.store_bits(min(candidates, key=len))
    return builder


def _common(left: str, right: str) -> str:
    count = next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return left[:count]
