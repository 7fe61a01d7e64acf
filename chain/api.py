"""What the rest of Cocoon may ask of a chain. Facts only: no caching, no policy, no retries hidden inside."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from pytoniq_core import Cell


class ChainError(Exception):
    """A chain endpoint could not answer, or its answer could not be believed. Says which endpoint, and the cure."""


class Unreachable(ChainError):
    """No answer. Never to be read as an absent account (G17)."""


class Refused(ChainError):
    """The endpoint answered with a refusal: a message that the chain will not take, an unknown method."""


class Disagreement(ChainError):
    """Two endpoints told different things about the same block: one of them lies or lags."""


class Status(StrEnum):
    ABSENT = "absent"
    UNINIT = "uninit"
    ACTIVE = "active"
    FROZEN = "frozen"


@dataclass(frozen=True, slots=True)
class BlockId:
    """A masterchain block."""

    seqno: int
    root_hash: bytes
    file_hash: bytes


@dataclass(frozen=True, slots=True)
class Head:
    block: BlockId
    now: int
    """Unix seconds of the block."""


@dataclass(frozen=True, slots=True)
class AccountState:
    account: bytes
    """32-byte account id, workchain 0."""
    status: Status
    balance_nano: int
    code: Cell | None
    data: Cell | None
    last_lt: int
    last_hash: bytes
    """Hash of the last transaction; 32 zero bytes where there is none."""


@dataclass(frozen=True, slots=True)
class Message:
    """An inbound or outbound message of a transaction. `source` is None for an external one, `destination` for a log.

    Both are also None for an account outside workchain 0, whose 32-byte id could repeat one of ours: `external` tells.
    """

    source: bytes | None
    destination: bytes | None
    value_nano: int
    body: Cell
    bounced: bool
    created_lt: int
    forward_fee_nano: int
    external: bool = False
    """True for a message from or to the world outside the chain."""
    hash: bytes = b""
    """Representation hash of the message cell."""


@dataclass(frozen=True, slots=True)
class Transaction:
    account: bytes
    lt: int
    hash: bytes
    prev_lt: int
    prev_hash: bytes
    now: int
    in_msg: Message | None
    out_msgs: tuple[Message, ...]
    total_fees_nano: int
    aborted: bool
    exit_code: int | None
    """None where the compute phase was skipped."""
    action_code: int | None
    gas_used: int
    cell: Cell


class Chain(Protocol):
    """One endpoint's view of the chain. Raises Unreachable, Refused; never invents an answer."""

    @property
    def name(self) -> str:
        """For people: what to look at when it fails."""

    async def head(self) -> Head: ...

    async def block(self, seqno: int) -> Head:
        """The masterchain block with that number. Raises Refused where the endpoint has none, or has it no more."""

    async def account(self, account: bytes) -> AccountState: ...

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        """Up to `limit` transactions, newest first, beginning with the one named by (lt, hash), which is included."""

    async def send(self, message: Cell) -> bytes:
        """Broadcast an external message; its hash. Raises Refused with the chain's own reason."""

    async def close(self) -> None: ...
