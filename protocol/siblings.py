"""Whether an account can be a child of our registry, told from two fields of its data before the rest is read.

Anyone may deploy an account with any data and name it in a request. A dictionary in which every fork holds the same
cell twice takes 300 bytes and for ever to read, so whose child it is comes first: only the registry's code writes into
a genuine child.
"""

from __future__ import annotations

from pytoniq_core import Cell

from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.escrow import STUB_BITS
from wrappers.job import JobState


def may_be_child(data: Cell, kind: Kind, account: bytes, registry: bytes) -> bool:
    """True for a stub, which holds nothing to read, and where owner and index lead to `account`. Never raises."""
    if len(data.bits) == STUB_BITS and not data.refs:
        return True
    try:
        if kind is Kind.NODE:
            life = data.refs[0].refs[0].begin_parse()
            life.skip_bits(256)
        else:
            life = data.begin_parse()
        owner, index = life.load_bytes(32), life.load_uint(32)
    except Exception:  # pytoniq-core raises many unrelated types on malformed input; whatever it is, it is no child
        return False
    return child_address(registry, kind, owner, index) == account


def job_of(data: Cell, account: bytes, registry: bytes) -> JobState | None:
    """The job at `account`; None for a stub or anything that is no genuine job of our registry. Never raises."""
    try:
        life = data.refs[-2].begin_parse()  # static and configuration stand last, whatever came before them
        life.skip_bits(256 + 256)
        owner, index = life.load_bytes(32), life.load_uint(32)
        if child_address(registry, Kind.JOB, owner, index) != account:
            return None
    except Exception:  # as above
        return None
    try:
        return JobState.from_cell(data)
    except CellError:
        return None
