"""Releases: the node's consent to lower a client's row, given when nothing is owed beyond what stays in it.

A release is written down before it leaves: under the row as it stands nothing is served any more, also after a restart.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chain.api import ChainError
from worker.agent.desk import Desk
from worker.agent.journal import Journal
from worker.agent.relayer_link import Refusal
from worker.agent.relayer_wire import MAX_RELEASE_SECONDS, ReleaseAsk
from worker.agent.store import SignedRelease, Store
from worker.agent.view import ChainView
from wrappers.escrow import Row
from wrappers.signed import Release, sign

_SEED_BYTES = 32


class KeyFileError(Exception):
    """The release key's file is missing, readable by others, or damaged. Names the file and the cure."""


def load_release_key(path: Path) -> Ed25519PrivateKey:
    """From a file of 64 hex digits with mode 0600. Raises KeyFileError."""
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
        seed = bytes.fromhex(text)
    except OSError as error:
        raise KeyFileError(
            f"cannot read the release key {path}: {error.strerror}. `cocoon node open` makes it"
        ) from error
    except ValueError:
        seed = b""
        mode = 0
    if mode & 0o077:
        raise KeyFileError(f"{path} can be read by others; run: chmod 600 {path}")
    if len(seed) != _SEED_BYTES:
        raise KeyFileError(f"{path} is not a release key (64 hex digits); restore it from your copy")
    return Ed25519PrivateKey.from_private_bytes(seed)


def create_release_key(path: Path) -> Ed25519PrivateKey:
    """A new key in a new file. Never overwrites: rows name the key, and only it can release them."""
    key = Ed25519PrivateKey.generate()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise KeyFileError(f"cannot make the release key {path}: {error.strerror}") from error
    with os.fdopen(handle, "w") as file:
        file.write(key.private_bytes_raw().hex() + "\n")
        file.flush()
        os.fsync(file.fileno())
    return key


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


@dataclass(frozen=True, slots=True)
class Releases:
    journal: Journal
    view: ChainView
    desk: Desk
    key: Ed25519PrivateKey
    claim: Callable[[], Awaitable[None]]
    """Starts to claim what is owed."""

    async def sign(self, ask: ReleaseAsk) -> tuple[int, bytes]:
        """(allotted_nano, signature) for the row as it stands. Raises Refusal."""
        try:
            row = await self._row(ask)
        except ChainError as error:
            raise Refusal("chain_unavailable", str(error), "Ask again in a few seconds") from error
        self.desk.hold(ask.allotment)
        try:
            if self.desk.runs_under(ask.allotment):
                raise Refusal("in_flight", "requests are still running under the row", "Wait for their end, ask again")
            release = await self._decide(ask, row)
        except BaseException:
            self.desk.unhold(ask.allotment)
            raise
        # The store now refuses what comes; the row's next seqno is served again.
        self.desk.unhold(ask.allotment)
        return release.allotted_nano, release.signature

    async def _row(self, ask: ReleaseAsk) -> Row:
        now = (await self.view.head()).now
        if not now < ask.expires_at <= now + MAX_RELEASE_SECONDS:
            raise Refusal(
                "expired", "the ask is over or lives too long", "Sign it anew, and check this machine's clock"
            )
        escrow = await self.view.escrow(ask.escrow, fresh=True)
        row = escrow.rows.get(self.view.account) if escrow is not None else None
        if escrow is None or row is None or ask.node != self.view.account:
            raise Refusal("wrong_row", "the escrow has no row for this node", "Read the escrow from the chain")
        if (row.allotment, row.seqno) != (ask.allotment, ask.row_seqno):
            raise Refusal("wrong_row", f"the row is at seqno {row.seqno}", "Read the escrow from the chain, ask again")
        if not ask.signed_by(escrow.voucher_key, self.view.network):
            raise Refusal("not_authorised", "the ask is not signed by the voucher key", "Sign it with the voucher key")
        return row

    async def _decide(self, ask: ReleaseAsk, row: Row) -> SignedRelease:
        held = await self.journal.read(lambda store: store.release(ask.allotment, ask.row_seqno))
        if held is not None:
            return held
        accounts = await self.journal.read(lambda store: store.accounts())
        unpaid = 0
        for one in accounts:
            if one.allotment == ask.allotment:
                shown = row.keys.get(one.key)
                paid = max(one.landed_nano, shown.paid_nano if shown is not None else 0)
                unpaid += max(0, min(one.cumulative_nano, one.cap_nano) - paid)
        if ask.allotted_nano < row.paid_nano + unpaid:
            if unpaid:
                await self.claim()
                raise Refusal("unclaimed", f"{unpaid} nanoTON are owed and not paid yet", "Ask again in a few seconds")
            raise Refusal("wrong_row", f"{row.paid_nano} nanoTON are paid already", "Ask for at least that much")
        if ask.allotted_nano > row.allotted_nano:
            raise Refusal("wrong_row", f"only {row.allotted_nano} nanoTON are allotted", "Ask for at most that much")
        signature = sign(Release(ask.allotment, ask.row_seqno, ask.allotted_nano), self.key)
        release = SignedRelease(ask.allotted_nano, signature)

        def write(store: Store) -> None:
            store.add_release(ask.allotment, ask.row_seqno, release)

        await self.journal.write(write)
        return release
