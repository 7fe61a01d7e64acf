"""Signed bytes as chains of cells, cut where the contract wants to read, and DER as far as the cuts need it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pytoniq_core import Cell, begin_cell

PIECE_BYTES = 127


class BadWitness(ValueError):
    """The bytes are not laid out as the contract reads them; it would refuse them too."""


def chain(pieces: Sequence[bytes], extra: Mapping[int, Cell] | None = None) -> Cell:
    """A cell per piece, each with the next as its first ref; `extra` gives the second ref of a piece by its index."""
    following: Cell | None = None
    for index in range(len(pieces) - 1, -1, -1):
        if len(pieces[index]) > PIECE_BYTES:
            raise BadWitness(f"piece {index} has {len(pieces[index])} bytes, a cell holds {PIECE_BYTES}")
        builder = begin_cell().store_bytes(pieces[index])
        if following is not None:
            builder.store_ref(following)
        if extra and index in extra:
            builder.store_ref(extra[index])
        following = builder.end_cell()
    if following is None:
        raise BadWitness("nothing to put into cells")
    return following


def cut(data: bytes, lengths: Sequence[int]) -> list[bytes]:
    """Consecutive pieces of these lengths. Raises BadWitness unless they add up."""
    if sum(lengths) != len(data) or min(lengths) < 0:
        raise BadWitness(f"{len(data)} bytes cannot be cut into {list(lengths)}")
    pieces, at = [], 0
    for length in lengths:
        pieces.append(data[at : at + length])
        at += length
    return pieces


def even(data: bytes, count: int = 0) -> list[bytes]:
    """Pieces of any content: as few as possible, or exactly `count`."""
    count = count or -(-len(data) // PIECE_BYTES)
    size = -(-len(data) // count) if count else 0
    return [data[at * size : (at + 1) * size] for at in range(count)]


def texts(parts: Sequence[str]) -> Cell:
    """TL-B Texts: a chain of texts."""
    return chain([part.encode() for part in parts])


def der_header(data: bytes, at: int) -> tuple[int, int]:
    """Bytes of the header of the DER element at `at`, and of its content. Raises BadWitness."""
    try:
        first = data[at + 1]
        if first < 0x80:
            return 2, first
        size = first & 0x7F
        length = int.from_bytes(data[at + 2 : at + 2 + size], "big")
    except IndexError as error:
        raise BadWitness(f"DER ends inside the element at {at}") from error
    return 2 + size, length


def der_end(data: bytes, at: int) -> int:
    header, length = der_header(data, at)
    end = at + header + length
    if end > len(data):
        raise BadWitness(f"the DER element at {at} reaches {end - len(data)} bytes beyond its end")
    return end


def der_elements(data: bytes, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each element between two offsets."""
    while start < end:
        following = der_end(data, start)
        yield start, following
        start = following
    if start != end:
        raise BadWitness("DER elements do not fill their container")


def pack(data: bytes, spans: Sequence[tuple[int, int]]) -> list[bytes]:
    """Whole elements, as many to a piece as fit."""
    pieces: list[bytes] = []
    for start, end in spans:
        if pieces and len(pieces[-1]) + end - start <= PIECE_BYTES:
            pieces[-1] += data[start:end]
        else:
            pieces.append(data[start:end])
    return pieces
