"""Wallet v4r2: keys from a file, up to four messages in one external, each landing once or expiring.

Own code cells around 40 lines of cell layout rather than a wallet library: tonutils' wallets read their state with a
call that answers "no account" during an outage, and tonsdk is unmaintained. Both are the oracles in the tests.

A v4r2 signature binds no network: the same words on two networks would let a message be replayed where the numbers
meet, so use separate words per network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytoniq_core import Address, Cell, begin_cell

from chain.api import Chain, ChainError, Status
from chain.follower import head_of
from chain.mnemonic import new_words, private_key, read_words, write_words
from chain.outgoing import Outgoing, external_in, internal_message
from chain.sent import Dropped, Expired, OutcomeUnknown, Sent, WalletError, seqno_of
from wrappers.cells import address_of, from_boc

__all__ = [
    "MAX_MESSAGES",
    "BroadcastFailed",
    "Dropped",
    "Expired",
    "OutcomeUnknown",
    "Outgoing",
    "Sent",
    "Wallet",
    "WalletError",
    "external_message",
]

MAX_MESSAGES = 4
WALLET_ID = 698983191
CODE = from_boc(Path(__file__).with_name("wallet_v4r2.boc").read_bytes())
CODE_HASH = bytes.fromhex("feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0")
if CODE.hash != CODE_HASH:
    raise ImportError("wallet_v4r2.boc is damaged: reinstall cocoon")

_SKIP_ERRORS = 2


class BroadcastFailed(WalletError):
    """No endpoint took the message. It may land all the same until it expires: `sent.landed(chain)` tells."""

    def __init__(self, text: str, sent: Sent) -> None:
        super().__init__(text)
        self.sent = sent


class Wallet:
    """A v4r2 wallet of workchain 0. One message is on its way at a time; let one process use it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.state_init: Cell = _state_init(self.public_key)
        self.account: bytes = bytes(self.state_init.hash)
        self._one_at_a_time = asyncio.Lock()
        self._in_flight: Sent | None = None

    @classmethod
    def from_mnemonic(cls, words: Sequence[str]) -> Wallet:
        """Raises MnemonicError."""
        return cls(private_key(words))

    @classmethod
    def from_mnemonic_file(cls, path: Path) -> Wallet:
        """24 words in a file with mode 0600. Raises MnemonicError."""
        return cls(private_key(read_words(path)))

    @classmethod
    def create(cls, path: Path) -> Wallet:
        """A new wallet whose words are in the new file `path`. Raises MnemonicError, never overwrites."""
        words = new_words()
        write_words(path, words)
        return cls(private_key(words))

    @property
    def address(self) -> Address:
        return address_of(self.account)

    def __repr__(self) -> str:
        return f"Wallet({self.account.hex()})"

    def sign(self, digest: bytes) -> bytes:
        return self._key.sign(digest)

    async def prepare(self, chain: Chain, messages: Sequence[Outgoing], *, valid_seconds: int = 60) -> Sent:
        """Signs for the wallet's present number and the chain's clock, sends nothing: persist it, then `send` it.

        `chain` must be a quorum: a false number makes the message worthless, a false clock makes it long-lived.
        """
        state = await chain.account(self.account)
        seqno = seqno_of(state)
        needed_nano = sum(message.value_nano for message in messages if message.mode < 64)
        if state.balance_nano <= needed_nano:
            raise WalletError(
                f"the wallet holds {state.balance_nano} nanoTON, the messages carry {needed_nano} and need fees on "
                f"top: fund {self.address.to_str(is_bounceable=False)}"
            )
        valid_until = (await chain.head()).now + valid_seconds
        message = external_message(self, messages, seqno, valid_until, state.status is not Status.ACTIVE)
        return Sent.resume(message, head_of(state))

    async def send(self, chain: Chain, messages: Sequence[Outgoing], *, valid_seconds: int = 60) -> Sent:
        """Signs and broadcasts once the message before it has landed or expired. Await `landed` on the result.

        Raises WalletError, BroadcastFailed (holds the `Sent`), OutcomeUnknown (of the message before), or what the
        chain raises before anything was signed.
        """
        async with self._one_at_a_time:
            if self._in_flight is not None:
                with suppress(Expired, Dropped):  # told to whoever awaits that message; its number is settled
                    await self._in_flight.landed(chain)
                self._in_flight = None
            sent = await self.prepare(chain, messages, valid_seconds=valid_seconds)
            self._in_flight = sent
            try:
                await chain.send(sent.message)
            except ChainError as error:
                raise BroadcastFailed(f"no endpoint took the wallet's message: {error}", sent) from error
            return sent


def external_message(
    wallet: Wallet, messages: Sequence[Outgoing], seqno: int, valid_until: int, with_init: bool
) -> Cell:
    """The signed external message (v4r2: signature, wallet id, valid_until, seqno, op 0, then mode and message each).

    `with_init`: for the first message of a wallet, which deploys it. Raises WalletError.
    """
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise WalletError(
            f"a v4r2 wallet sends 1 to {MAX_MESSAGES} messages at once, not {len(messages)}; send several times"
        )
    body = begin_cell().store_uint(WALLET_ID, 32).store_uint(valid_until, 32).store_uint(seqno, 32).store_uint(0, 8)
    for message in messages:
        if not message.mode & _SKIP_ERRORS:
            # without it a failing action reverts the number, and the message is replayed until it expires
            raise WalletError(f"send mode {message.mode} lacks bit 2 (skip errors); use {message.mode | _SKIP_ERRORS}")
        body.store_uint(message.mode, 8).store_ref(internal_message(message))
    unsigned = body.end_cell()
    signed = begin_cell().store_bytes(wallet.sign(unsigned.hash)).store_cell(unsigned).end_cell()
    return external_in(wallet.account, signed, wallet.state_init if with_init else None)


def _state_init(public_key: bytes) -> Cell:
    """`StateInit` with v4r2 code; data: seqno, wallet id, public key, no plugins."""
    data = begin_cell().store_uint(0, 32).store_uint(WALLET_ID, 32).store_bytes(public_key).store_bit(0).end_cell()
    init: Cell = begin_cell().store_bits("00110").store_ref(CODE).store_ref(data).end_cell()
    return init
