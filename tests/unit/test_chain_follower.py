"""Every transaction once, in order, whatever the endpoint drops, repeats or forgets (G16, G17)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell

from chain.api import AccountState, ChainError, Disagreement, Head, Refused, Status, Transaction, Unreachable
from chain.follower import AccountFollower, AccountGone, AccountRecreated, Cursor, HistoryMismatch, head_of
from chain.history import check_links, cursor_of
from chain.wait import WaitTimeout, until, wait_for_transaction
from wrappers.cells import EMPTY

ACCOUNT = b"\x05" * 32


def history(count: int, *, first_lt: int = 1, salt: str = "", after: Transaction | None = None) -> list[Transaction]:
    """Oldest first, linked."""
    rows: list[Transaction] = [] if after is None else [after]
    for i in range(count):
        lt = first_lt + 2 * i if after is None else rows[-1].lt + 2
        digest = hashlib.sha256(f"{salt}{lt}".encode()).digest()
        prev_lt, prev_hash = (rows[-1].lt, rows[-1].hash) if rows else (0, bytes(32))
        rows.append(Transaction(ACCOUNT, lt, digest, prev_lt, prev_hash, lt, None, (), 0, False, 0, 0, 0, EMPTY))
    return rows if after is None else rows[1:]


@dataclass
class FakeChain:
    """`mood` decides at every question: None to answer, an error to raise, or how many rows to give at most."""

    rows: list[Transaction]
    name: str = "fake"
    mood: Callable[[], ChainError | int | None] = lambda: None
    known: list[Transaction] = field(default_factory=list)
    lag: int = 0
    asked: int = 0
    absent: bool = False

    async def head(self) -> Head:
        raise NotImplementedError

    async def account(self, account: bytes) -> AccountState:
        self._mood()
        seen = self.rows[: len(self.rows) - self.lag]
        if not seen or self.absent:
            return AccountState(account, Status.ABSENT, 0, None, None, 0, bytes(32))
        return AccountState(account, Status.ACTIVE, 1, EMPTY, EMPTY, seen[-1].lt, seen[-1].hash)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        self.asked += 1
        few = self._mood() or limit
        rows = self.known + self.rows
        at = next((i for i, row in enumerate(rows) if (row.lt, row.hash) == (lt, hash)), None)
        if at is None:
            raise Refused("cannot locate transaction")
        found = [rows[at]]
        while len(found) < min(few, limit) and found[-1].prev_lt:
            found.append(next(row for row in rows if row.hash == found[-1].prev_hash))
        return tuple(found)

    async def send(self, message: Cell) -> bytes:
        raise NotImplementedError

    async def close(self) -> None: ...

    def _mood(self) -> int | None:
        mood = self.mood()
        if isinstance(mood, ChainError):
            raise mood
        return mood


async def drain(follower: AccountFollower) -> list[Transaction]:
    got: list[Transaction] = []
    while True:
        got += await follower.poll()
        if follower.caught_up:
            return got


async def test_a_new_follower_gives_the_whole_history_then_only_news() -> None:
    chain = FakeChain(history(7))
    follower = AccountFollower(chain, ACCOUNT, page=3, batch=100)
    assert await follower.poll() == tuple(chain.rows)
    assert await follower.poll() == ()
    assert follower.cursor == cursor_of(chain.rows[-1])
    news = history(2, after=chain.rows[-1])
    chain.rows += news
    assert await follower.poll() == tuple(news)


async def test_an_account_that_does_not_exist_yet_is_waited_for() -> None:
    chain = FakeChain([])
    follower = await AccountFollower.from_now(chain, ACCOUNT)
    assert await follower.poll() == () and follower.cursor is None
    chain.rows = history(2)
    assert await follower.poll() == tuple(chain.rows)


async def test_from_now_skips_the_past() -> None:
    chain = FakeChain(history(5))
    follower = await AccountFollower.from_now(chain, ACCOUNT)
    chain.rows += history(1, after=chain.rows[-1])
    assert await follower.poll() == (chain.rows[-1],)


async def test_a_long_gap_is_delivered_in_bounded_batches_oldest_first() -> None:
    chain = FakeChain(history(1000))
    follower = AccountFollower(chain, ACCOUNT, page=10, batch=50)
    sizes = []
    got: list[Transaction] = []
    while not follower.caught_up:
        batch = await follower.poll()
        sizes.append(len(batch))
        got += batch
    assert got == chain.rows
    assert max(sizes) <= 50 and len(sizes) >= 20
    assert chain.asked <= 2 * 1000 // 10 + len(sizes), "each page is read at most twice"


async def test_g16_a_walk_broken_by_an_outage_resumes_without_starting_over() -> None:
    chain = FakeChain(history(400))
    follower = AccountFollower(chain, ACCOUNT, page=10, batch=20)
    budget = 5

    def mood() -> ChainError | None:
        nonlocal budget
        budget -= 1
        return Unreachable("down") if budget < 0 else None

    chain.mood = mood
    got: list[Transaction] = []
    for _ in range(200):
        budget = 5
        try:
            got += await follower.poll()
        except Unreachable:
            continue
        if follower.caught_up:
            break
    assert got == chain.rows


@settings(max_examples=150, deadline=None)
@given(data=st.data())
async def test_g16_whatever_happens_each_transaction_comes_once_and_in_order(data: st.DataObject) -> None:
    """Outages, short pages, lagging heads, growth, restarts from the persisted cursor, failed writes."""
    chain = FakeChain(history(data.draw(st.integers(0, 12))))
    page = data.draw(st.integers(1, 4))
    batch = data.draw(st.integers(page, 9))
    moods: list[ChainError | int | None] = [None, None, None, 1, 2, Unreachable("x"), Disagreement("y")]
    chain.mood = lambda: data.draw(st.sampled_from(moods))
    stored: list[Transaction] = []
    stored_cursor: Cursor | None = None
    follower = AccountFollower(chain, ACCOUNT, None, page=page, batch=batch)
    for _ in range(data.draw(st.integers(1, 25))):
        event = data.draw(st.sampled_from(["poll", "poll", "poll", "grow", "crash", "lag", "failed write"]))
        if event == "grow":
            after = chain.rows[-1] if chain.rows else None
            chain.rows += history(data.draw(st.integers(1, 5)), after=after)
        elif event == "crash":
            follower = AccountFollower(chain, ACCOUNT, stored_cursor, page=page, batch=batch)
        elif event == "lag":
            chain.lag = data.draw(st.integers(0, max(0, len(chain.rows) - len(stored) - 1)))
        else:
            try:
                got = await follower.poll()
            except (Unreachable, Disagreement):
                continue
            if event == "failed write":
                follower.rewind(stored_cursor)
            else:
                stored += got
                stored_cursor = follower.cursor
        assert stored == chain.rows[: len(stored)]
    chain.mood, chain.lag = lambda: None, 0
    follower.rewind(stored_cursor)
    if chain.rows:
        stored += await drain(follower)
    assert stored == chain.rows


async def test_g17_a_reset_chain_is_a_mismatch() -> None:
    old = history(5, salt="old")
    cursor = cursor_of(old[-1])
    for rows in (history(9, salt="new"), history(5, salt="new"), history(6, first_lt=2, salt="new")):
        with pytest.raises(HistoryMismatch, match="the chain was reset"):
            await AccountFollower(FakeChain(rows), ACCOUNT, cursor).poll()


async def test_g17_a_head_before_the_cursor_is_lag_for_a_while_and_a_reset_when_it_stays() -> None:
    rows = history(5)
    chain = FakeChain(rows, lag=2)
    follower = AccountFollower(chain, ACCOUNT, cursor_of(rows[-1]))
    assert await follower.poll() == () and await follower.poll() == ()
    chain.lag = 0
    assert await follower.poll() == ()
    chain.lag = 2
    impatient = AccountFollower(chain, ACCOUNT, cursor_of(rows[-1]), lag_seconds=0)
    with pytest.raises(HistoryMismatch, match="before the cursor"):
        await impatient.poll()


async def test_a_deleted_account_is_told_not_taken_for_an_idle_one() -> None:
    rows = history(3)
    chain = FakeChain(rows, absent=True)
    with pytest.raises(AccountGone, match="deleted"):
        await AccountFollower(chain, ACCOUNT, cursor_of(rows[-1])).poll()


async def test_a_recreated_account_is_told_and_can_be_followed_anew() -> None:
    old, new = history(3, salt="old"), history(4, first_lt=101, salt="new")
    chain = FakeChain(new, known=old)
    follower = AccountFollower(chain, ACCOUNT, cursor_of(old[-1]), page=2)
    with pytest.raises(AccountRecreated):
        await follower.poll()
    follower.restart()
    assert await drain(follower) == new


async def test_g17_pages_that_break_the_hash_chain_are_refused() -> None:
    rows = history(6)
    forged = [*rows[:3], *history(3, first_lt=rows[3].lt, salt="forged")]

    class Liar(FakeChain):
        async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
            return tuple(forged[::-1])

    with pytest.raises(ChainError, match="hash chain"):
        await AccountFollower(Liar(rows), ACCOUNT).poll()


def test_links() -> None:
    rows = history(4)[::-1]
    head = cursor_of(rows[0])
    check_links(rows, head, account=ACCOUNT, endpoint="e")
    for broken in ([], rows[1:], [rows[0], *rows[2:]], [*rows, rows[-1]], rows[::-1]):
        with pytest.raises(ChainError):
            check_links(broken, head, account=ACCOUNT, endpoint="e")
    with pytest.raises(ChainError):
        check_links(rows, head, account=b"\x06" * 32, endpoint="e")


async def test_waiting_for_a_transaction() -> None:
    chain = FakeChain(history(3))
    follower = AccountFollower(chain, ACCOUNT)
    found = await wait_for_transaction(follower, lambda tx: tx.lt == 3, 1, interval_seconds=0.01)
    assert found.lt == 3
    with pytest.raises(WaitTimeout, match=ACCOUNT.hex()):
        await wait_for_transaction(follower, lambda tx: False, 0.05, interval_seconds=0.01)


async def test_waiting_survives_an_outage_and_names_it_when_it_lasts() -> None:
    answers: list[int | ChainError | None] = [Unreachable("a"), None, 7]

    async def read() -> int | None:
        answer = answers.pop(0) if answers else Unreachable("gone dark")
        if isinstance(answer, ChainError):
            raise answer
        return answer

    assert await until(read, what="x", timeout_seconds=1, interval_seconds=0.01) == 7
    with pytest.raises(WaitTimeout, match="gone dark"):
        await until(read, what="x", timeout_seconds=0.05, interval_seconds=0.01)


def test_the_position_of_a_state() -> None:
    state = AccountState(ACCOUNT, Status.ABSENT, 0, None, None, 0, bytes(32))
    assert head_of(state) is None
