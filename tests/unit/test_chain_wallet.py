"""The wallet against two independent libraries, the emulated chain, and a chain that loses messages (G16, G19)."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytoniq_core import Cell, begin_cell
from ton_core import NetworkGlobalID
from ton_core import WalletMessage as OracleMessage
from ton_core.contrib.contracts.wallet.params import WalletV4Params
from tonsdk.contract.wallet import Wallets, WalletVersionEnum
from tonutils.contracts.wallet import WalletV4R2

from chain.api import AccountState, BlockId, ChainError, Head, Refused, Status, Transaction, Unreachable
from chain.decode import DecodeError, decode_message
from chain.mnemonic import MnemonicError, new_words, private_key
from chain.outgoing import Outgoing, internal_message
from chain.sent import COMMIT_MARGIN_SECONDS, seqno_of
from chain.wallet import (
    BroadcastFailed,
    Dropped,
    Expired,
    OutcomeUnknown,
    Sent,
    Wallet,
    WalletError,
    external_message,
)
from devnet.ledger import Ledger, Rejected

TON = 10**9
OTHER = b"\x11" * 32


@pytest.fixture(scope="module")
def words() -> tuple[str, ...]:
    return new_words()


@pytest.fixture
def wallet(words: tuple[str, ...]) -> Wallet:
    return Wallet.from_mnemonic(words)


@dataclass
class LedgerChain:
    """The in-memory ledger as a Chain. `lose`: how many broadcasts vanish after being taken; `down`: all fails."""

    ledger: Ledger = field(default_factory=Ledger)
    name: str = "ledger"
    lose: int = 0
    down: bool = False
    broadcasts: int = 0

    async def head(self) -> Head:
        self._check()
        return Head(BlockId(1, bytes(32), bytes(32)), self.ledger.now)

    async def account(self, account: bytes) -> AccountState:
        self._check()
        return self.ledger.account(account)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        self._check()
        rows = [row for row in self.ledger.transactions.get(account, []) if row.lt <= lt]
        if not rows or rows[-1].hash != hash:
            raise Refused("cannot locate transaction")
        return tuple(rows[::-1][:limit])

    async def send(self, message: Cell) -> bytes:
        self._check()
        self.broadcasts += 1
        if self.lose > 0:
            self.lose -= 1
            return bytes(message.hash)
        try:
            self.ledger.send_external(message)
        except Rejected as error:
            raise Refused(f"exitcode={error.exit_code}") from error
        return bytes(message.hash)

    async def close(self) -> None: ...

    def _check(self) -> None:
        if self.down:
            raise Unreachable("the ledger is down; start it")


@pytest.fixture
def chain(wallet: Wallet) -> LedgerChain:
    fake = LedgerChain()
    fake.ledger.faucet(wallet.account, 100 * TON)
    return fake


async def landed(sent: Sent, chain: LedgerChain, timeout_seconds: float = 2) -> Transaction:
    return await sent.landed(chain, timeout_seconds=timeout_seconds, interval_seconds=0.01, rebroadcast_seconds=0.02)


def test_keys_and_address_agree_with_tonsdk_and_tonutils(words: tuple[str, ...], wallet: Wallet) -> None:
    _, public, _, other = Wallets.from_mnemonics(list(words), WalletVersionEnum.v4r2, 0)
    assert wallet.public_key == public
    assert wallet.account == bytes(other.address.hash_part)
    client = SimpleNamespace(network=NetworkGlobalID.MAINNET)
    third, _, _, _ = WalletV4R2.from_mnemonic(client, list(words))
    assert wallet.account == third.address.hash_part
    assert wallet.state_init.hash == third.state_init.serialize().hash


async def test_the_signed_body_agrees_with_tonutils(words: tuple[str, ...], wallet: Wallet) -> None:
    client = SimpleNamespace(network=NetworkGlobalID.MAINNET)
    oracle, _, _, _ = WalletV4R2.from_mnemonic(client, list(words))
    outgoing = [Outgoing(OTHER, 5, bounce=False), Outgoing(wallet.account, 2**40, mode=130)]
    cells = [internal_message(message) for message in outgoing]
    from pytoniq_core.tlb.transaction import MessageAny

    theirs = [
        OracleMessage(send_mode=message.mode, message=MessageAny.deserialize(cell.begin_parse()))
        for message, cell in zip(outgoing, cells, strict=True)
    ]
    signed = await oracle._build_signed_msg_cell(theirs, WalletV4Params(seqno=7, valid_until=1_800_000_000))
    mine = decode_message(external_message(wallet, outgoing, 7, 1_800_000_000, False)).body
    assert mine.hash == signed.hash


def test_an_external_takes_one_to_four_messages_in_modes_that_cannot_be_replayed(wallet: Wallet) -> None:
    one = Outgoing(OTHER, 1)
    for count in (0, 5):
        with pytest.raises(WalletError, match="1 to 4"):
            external_message(wallet, [one] * count, 0, 1, False)
    for mode in (0, 1, 64, 128):
        with pytest.raises(WalletError, match=f"use {mode | 2}"):
            external_message(wallet, [Outgoing(OTHER, 1, mode=mode)], 0, 1, False)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_deploy_and_transfer_on_the_emulated_chain(wallet: Wallet, chain: LedgerChain, count: int) -> None:
    body = begin_cell().store_uint(0, 32).store_string("x" * 100).end_cell()
    sent = await wallet.send(chain, [Outgoing(OTHER, TON, body, bounce=False)] * count)
    transaction = await landed(sent, chain)
    assert len(transaction.out_msgs) == count and transaction.now <= sent.valid_until
    assert chain.ledger.balance(OTHER) > count * (TON - 10_000_000)
    again = await wallet.send(chain, [Outgoing(OTHER, 7, bounce=False)] * count)
    assert (again.seqno, sent.seqno) == (1, 0)
    assert (await landed(again, chain)).lt > transaction.lt
    assert await landed(sent, chain) == transaction, "asking twice is safe"


async def test_g16_a_lost_broadcast_is_repeated_and_pays_once(wallet: Wallet, chain: LedgerChain) -> None:
    chain.lose = 2
    sent = await wallet.send(chain, [Outgoing(OTHER, TON, bounce=False)])
    await landed(sent, chain)
    for _ in range(3):
        with pytest.raises(Refused, match="exitcode=33"):
            await chain.send(sent.message)
    assert chain.ledger.balance(OTHER) == TON


async def test_g16_a_message_that_never_arrived_expires_and_only_then_says_so(
    wallet: Wallet, chain: LedgerChain
) -> None:
    chain.lose = 1000
    sent = await wallet.send(chain, [Outgoing(OTHER, TON, bounce=False)], valid_seconds=20)
    chain.ledger.now = sent.valid_until + COMMIT_MARGIN_SECONDS
    with pytest.raises(OutcomeUnknown, match="do not send anew"):
        await landed(sent, chain, timeout_seconds=0.1)
    chain.ledger.now += 1
    with pytest.raises(Expired, match="send anew"):
        await landed(sent, chain)
    chain.lose = 0
    with pytest.raises(Refused, match="exitcode=36"):
        await chain.send(sent.message)
    fresh = await wallet.send(chain, [Outgoing(OTHER, TON, bounce=False)])
    await landed(fresh, chain)
    assert chain.ledger.balance(OTHER) == TON


async def test_g16_a_message_whose_number_another_one_took_is_dead(wallet: Wallet, chain: LedgerChain) -> None:
    first = await wallet.prepare(chain, [Outgoing(OTHER, 1, bounce=False)])
    second = await wallet.prepare(chain, [Outgoing(OTHER, 2, bounce=False)], valid_seconds=61)
    assert first.seqno == second.seqno == 0
    await chain.send(second.message)
    with pytest.raises(Expired, match="another message took number 0"):
        await landed(first, chain)
    assert await landed(second, chain)


async def test_g16_a_restarted_process_resumes_what_it_persisted(wallet: Wallet, chain: LedgerChain) -> None:
    sent = await wallet.prepare(chain, [Outgoing(OTHER, TON, bounce=False)] * 3)
    resumed = Sent.resume(sent.message, sent.start)
    assert resumed == sent and resumed.count == 3
    assert len((await landed(resumed, chain)).out_msgs) == 3
    with pytest.raises(DecodeError):
        Sent.resume(internal_message(Outgoing(OTHER, 1)), None)


async def test_sends_from_one_wallet_wait_for_each_other(wallet: Wallet, chain: LedgerChain) -> None:
    async def pay(amount_nano: int) -> Transaction:
        return await landed(await wallet.send(chain, [Outgoing(OTHER, amount_nano, bounce=False)]), chain)

    chain.lose = 1
    done = await asyncio.gather(*(pay(amount) for amount in (TON, 2 * TON, 3 * TON)))
    assert len({transaction.lt for transaction in done}) == 3
    assert chain.ledger.balance(OTHER) == 6 * TON


async def test_an_outage_while_waiting_is_waited_through(wallet: Wallet, chain: LedgerChain) -> None:
    sent = await wallet.send(chain, [Outgoing(OTHER, TON, bounce=False)])
    chain.down = True

    async def recover() -> None:
        await asyncio.sleep(0.1)
        chain.down = False

    task = asyncio.create_task(recover())
    assert await landed(sent, chain)
    await task


async def test_g17_an_outage_is_never_a_fresh_wallet(wallet: Wallet, chain: LedgerChain) -> None:
    await landed(await wallet.send(chain, [Outgoing(OTHER, 1, bounce=False)]), chain)
    chain.down = True
    with pytest.raises(Unreachable):
        await wallet.prepare(chain, [Outgoing(OTHER, 1)])


async def test_a_failed_broadcast_hands_over_the_message(wallet: Wallet, chain: LedgerChain) -> None:
    class Deaf(LedgerChain):
        async def send(self, message: Cell) -> bytes:
            raise Unreachable("no answer")

    with pytest.raises(BroadcastFailed, match="no answer") as caught:
        await wallet.send(Deaf(ledger=chain.ledger), [Outgoing(OTHER, TON, bounce=False)])
    assert await landed(caught.value.sent, chain)


async def test_money_that_is_not_there_is_named_with_the_address_to_fund(words: tuple[str, ...]) -> None:
    poor, chain = Wallet.from_mnemonic(words), LedgerChain()
    with pytest.raises(WalletError, match=r"holds 0 nanoTON.*fund UQ"):
        await poor.send(chain, [Outgoing(OTHER, TON)])
    chain.ledger.faucet(poor.account, TON + 100)
    with pytest.raises((Dropped, ChainError)):
        sent = await poor.send(chain, [Outgoing(OTHER, TON, bounce=False)])
        await landed(sent, chain)


async def test_messages_that_the_chain_left_out_are_told(wallet: Wallet, chain: LedgerChain) -> None:
    sent = await wallet.send(chain, [Outgoing(OTHER, 50 * TON, bounce=False)] * 1 + [Outgoing(OTHER, 49_999_000_000)])
    with pytest.raises(Dropped, match="only 1 of its 2") as caught:
        await landed(sent, chain)
    assert len(caught.value.transaction.out_msgs) == 1


def test_a_frozen_wallet_is_an_error(wallet: Wallet) -> None:
    state = AccountState(wallet.account, Status.FROZEN, 0, None, None, 5, b"\x01" * 32)
    with pytest.raises(WalletError, match="frozen"):
        seqno_of(state)


@pytest.fixture
def umask() -> Iterator[None]:
    import os

    before = os.umask(0)
    yield
    os.umask(before)


def test_g19_a_new_wallet_file_is_private_and_never_overwritten(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "owner.mnemonic"
    created = Wallet.create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Wallet.from_mnemonic_file(path).account == created.account
    assert len(path.read_text().split()) == 24
    with pytest.raises(MnemonicError, match="never overwritten"):
        Wallet.create(path)
    assert Wallet.from_mnemonic_file(path).account == created.account
    assert [entry.name for entry in tmp_path.iterdir()] == ["owner.mnemonic"]
    path.chmod(0o640)
    with pytest.raises(MnemonicError, match="chmod 600"):
        Wallet.from_mnemonic_file(path)


def test_g19_nothing_shows_the_words_or_the_key(words: tuple[str, ...], wallet: Wallet, tmp_path: Path) -> None:
    assert wallet.account.hex() in repr(wallet)
    path = tmp_path / "bad"
    wrong = ["abandon", *words[1:]] if words[0] != "abandon" else ["zoo", *words[1:]]
    for text in (" ".join(words[:23]), " ".join(wrong), " ".join([*words[:23], "xyzzy"]), "é", ""):
        path.write_text(text, encoding="utf-8")
        path.chmod(0o600)
        with pytest.raises(MnemonicError) as caught:
            Wallet.from_mnemonic_file(path)
        assert not any(f"{word} {after}" in str(caught.value) for word, after in pairwise(words))
        assert "xyzzy" not in str(caught.value)
    for place in (tmp_path / "missing", tmp_path):
        with pytest.raises(MnemonicError, match=str(place)):
            Wallet.from_mnemonic_file(place)
    with pytest.raises(MnemonicError, match="cannot write"):
        Wallet.create(tmp_path / "no" / "folder")


def test_words_make_one_key(words: tuple[str, ...]) -> None:
    assert private_key(words).private_bytes_raw() == private_key(list(words)).private_bytes_raw()
