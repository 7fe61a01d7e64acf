"""The relayer's database: one transaction per fact, wherever the power is cut."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relayer.core import facts
from relayer.core.effects import AskForClaim, SubmitClaim
from relayer.core.machine import Subject, step, subjects
from relayer.core.policy import SettlePolicy
from relayer.core.settlement import Phase
from relayer.store.codec import decode_effect, decode_fact, encode
from relayer.store.queries import migrations, queries, schema
from relayer.store.store import Entry, Mark, Store, StoreError
from relayer.store.writer import Writer

NODE, ESCROW, ALLOTMENT, KEY, RID = (bytes([n]) * 32 for n in (1, 2, 3, 4, 9))
POINTS = ("fact", "state", "outbox", "cursor")


def admitted(attempt: int = 1) -> facts.RequestAdmitted:
    return facts.RequestAdmitted(RID, ESCROW, NODE, ALLOTMENT, KEY, 10, 0, attempt, 5)


def receipt(seq: int, cumulative: int) -> facts.ReceiptSeen:
    return facts.ReceiptSeen(RID, ESCROW, NODE, ALLOTMENT, KEY, seq, 1, cumulative, seq.to_bytes(32, "big"), 10)


def claim(seqno: int) -> facts.ClaimReady:
    return facts.ClaimReady(NODE, seqno, 200, bytes([seqno]) * 32, b"boc", 100)


STORY: list[facts.Fact] = [
    admitted(),
    receipt(1, 5),
    facts.RequestAnswered(RID, 1, 11),
    facts.RowSeen(ESCROW, NODE, ALLOTMENT, KEY, 7, 0, 0, 100, 0, 12),
    facts.NodeSeen(NODE, 8, 1, 0, KEY, 10**9, 12),
    facts.ClaimDue(NODE, 1, "amount", 5, 13),
    claim(0),
    facts.ClaimSubmitted(NODE, 0, claim(0).message_hash, 101),
    facts.ClaimLanded(NODE, 0, claim(0).message_hash, 110),
    facts.RowSeen(ESCROW, NODE, ALLOTMENT, KEY, 9, 5, 5, 100, 0, 111),
]


class PowerCut(BaseException):
    """Not an Exception: nothing may catch it on the way."""


def folded(store: Store) -> dict[Subject, object]:
    """States as a fold over the stored facts."""
    states: dict[Subject, object] = {}
    for fact in store.facts():
        for subject in subjects(fact):
            state, _ = step(subject, states.get(subject), fact, store.policy)  # type: ignore[arg-type]
            states[subject] = state
    return states


def assert_consistent(store: Store) -> None:
    states = folded(store)
    for subject, state in states.items():
        assert store.state(subject) == state
    phases = {one.node: one.phase for one in store.settlements()}
    open_effects = defaultdict(list)
    for effect in store.pending():
        open_effects[effect.node].append(type(effect))
    wanted = {Phase.IDLE: [], Phase.ASKED: [AskForClaim], Phase.READY: [SubmitClaim], Phase.SENT: [SubmitClaim]}
    for node, phase in phases.items():
        assert open_effects[node] == wanted[phase]


def test_schema__equals_the_sum_of_migrations(tmp_path: Path) -> None:
    fresh = sqlite3.connect(":memory:")
    fresh.executescript(schema())
    store = Store(tmp_path / "db")
    query = "select type, name, tbl_name, sql from sqlite_master where name not like 'sqlite_%' order by name"
    migrated = sqlite3.connect(tmp_path / "db")
    assert fresh.execute(query).fetchall() == migrated.execute(query).fetchall()
    assert migrated.execute("pragma user_version").fetchone() == (len(migrations()),)
    store.close()


def test_queries__all_compile_against_the_schema(tmp_path: Path) -> None:
    db = sqlite3.connect(":memory:")
    db.executescript(schema())
    for statement in queries().values():
        names = {word.strip(",();:") for word in statement.replace("(", " ").split() if word.startswith(":")}
        db.execute(f"explain {statement}", dict.fromkeys(names, 0))
    assert len(queries()) > 20


def test_store__newer_schema_is_refused_with_the_cure(tmp_path: Path) -> None:
    Store(tmp_path / "db").close()
    raw = sqlite3.connect(tmp_path / "db")
    raw.execute("pragma user_version=99")
    raw.close()
    with pytest.raises(StoreError, match="newer relayer"):
        Store(tmp_path / "db")


def test_g18_store__unusable_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not open"):
        Store(tmp_path / "missing" / "db")


def test_store__belongs_to_one_network(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    store.bind("network", "aa")
    store.bind("network", "aa")
    with pytest.raises(StoreError, match="own data directory"):
        store.bind("network", "bb")


@pytest.mark.parametrize("fact", STORY, ids=lambda fact: type(fact).__name__)
def test_codec__round_trip(fact: facts.Fact) -> None:
    assert decode_fact(type(fact).__name__, encode(fact)) == fact


def test_codec__optional_fields_round_trip() -> None:
    for fact in (facts.NodeSeen(NODE, 1, 1, 0, None, 0, 1), facts.ReceiptSeen(None, *[ESCROW] * 4, 1, 1, 1, RID, 1)):
        assert decode_fact(type(fact).__name__, encode(fact)) == fact
    effect = SubmitClaim(NODE, 1, 2, RID, b"boc")
    assert decode_effect("SubmitClaim", encode(effect)) == effect


def test_store__story_from_admission_to_payment(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    for fact in STORY:
        assert store.record(fact).new
        assert_consistent(store)
    assert store.pending() == ()
    assert [closed for _, closed in store.outbox()] == [True, True]
    assert store.unclaimed() == ()
    assert store.settlement(NODE).landed == 1


def test_store__effects_stay_open_until_the_chain_shows_them_done(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    for fact in STORY[:8]:
        store.record(fact)
    (effect,) = store.pending()
    assert isinstance(effect, SubmitClaim)
    store.close()
    again = Store(tmp_path / "db")
    assert again.pending() == (effect,)
    assert again.record(STORY[8]).closed
    assert again.pending() == ()


def test_g4_store__repeated_facts_change_nothing_but_the_cursor(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    for fact in STORY:
        store.record(fact)
    before = (store.facts(), store.outbox(), store.settlements(), store.tallies(), store.requests())
    for fact in STORY:
        assert not store.record(fact, cursor=Mark(NODE, 55, RID)).new
    assert before == (store.facts(), store.outbox(), store.settlements(), store.tallies(), store.requests())
    assert store.cursor(NODE) == Mark(NODE, 55, RID)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.tuples(st.sampled_from(POINTS), st.integers(0, 3)), max_size=6), data=st.data())
def test_g16_store__power_cut_at_any_point_leaves_a_consistent_database(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[str, int]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("cut") / "db"
    order = STORY + data.draw(st.lists(st.sampled_from(STORY), max_size=4))
    plan = {data.draw(st.integers(0, len(order) - 1)): cut for cut in cuts}
    for index, fact in enumerate(order):
        mark = Mark(NODE, index + 1, RID)
        if index in plan:
            point, _ = plan[index]

            def die(here: str, point: str = point) -> None:
                if here == point:
                    raise PowerCut

            broken = Store(path, at_point=die)
            with contextlib.suppress(PowerCut):
                broken.record(fact, cursor=mark)
            broken.close()
            after = Store(path)
            assert_consistent(after)
            cut_cursor = after.cursor(NODE)
            assert cut_cursor is None or cut_cursor.lt <= index + 1
            after.close()
        store = Store(path)
        store.record(fact, cursor=mark)  # the shell does it again after the restart
        assert_consistent(store)
        assert store.cursor(NODE) == mark
        store.close()
    store = Store(path)
    assert store.pending() == () and store.settlement(NODE).landed == 1
    assert sum(isinstance(effect, SubmitClaim) for effect, _ in store.outbox()) == 1
    store.close()


def test_g16_store__facts_of_one_read_and_their_cursor_land_together(tmp_path: Path) -> None:
    calls = []

    def die(here: str) -> None:
        calls.append(here)
        if calls.count("fact") == 2:
            raise PowerCut

    store = Store(tmp_path / "db", at_point=die)
    with pytest.raises(PowerCut):
        store.record_many([Entry(STORY[0]), Entry(STORY[1]), Entry(None, Mark(NODE, 3, RID))])
    assert store.facts() == () and store.cursor(NODE) is None and store.requests() == ()


def test_store__database_itself_forbids_two_claims_of_one_node(tmp_path: Path) -> None:
    Store(tmp_path / "db").close()
    raw = sqlite3.connect(tmp_path / "db")
    insert = "insert into outbox (key, kind, node, body, opened_at) values (?, 'SubmitClaim', ?, '{}', 1)"
    raw.execute(insert, ("a", NODE))
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute(insert, ("b", NODE))


def test_store__receipts_by_seq_and_equivocation_is_kept(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    for seq in (2, 1, 3):
        store.record(receipt(seq, seq * 5), payload=b"receipt %d" % seq)
    twin = facts.ReceiptSeen(None, ESCROW, NODE, ALLOTMENT, KEY, 3, 1, 15, b"\xee" * 32, 10)
    store.record(twin, payload=b"twin")
    found = store.receipts(ESCROW, allotment=ALLOTMENT, key=KEY, after=1, limit=10)
    assert [one.seq for one in found] == [2, 3, 3]
    assert {one.payload for one in found[1:]} == {b"receipt 3", b"twin"}
    assert len(store.receipts(ESCROW, allotment=None, key=None, after=0, limit=2)) == 2


def test_store__ask_numbers_are_never_used_twice(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    assert store.next_ask() == 1
    store.record(facts.ClaimDue(NODE, 7, "age", 1, 1))
    store.prune(10**9)
    assert store.next_ask() == 8


def test_store__prune_keeps_what_owes_or_is_open(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    for fact in STORY[:3]:
        store.record(fact, payload=b"r" if isinstance(fact, facts.ReceiptSeen) else None)
    store.prune(10**9)
    assert store.facts() == () and store.requests() == ()
    assert len(store.receipts(ESCROW, allotment=None, key=None, after=0, limit=9)) == 1
    assert store.unclaimed()[0].unclaimed_nano == 5
    store.record(STORY[9])
    store.prune(10**9)
    assert store.receipts(ESCROW, allotment=None, key=None, after=0, limit=9) == ()


async def test_writer__many_facts_share_a_commit_and_a_bad_one_fails_alone(tmp_path: Path) -> None:
    opened: list[object] = []
    store = Store(tmp_path / "db", policy=SettlePolicy())
    writer = Writer(store, opened.extend)
    poison = facts.ReceiptSeen(None, ESCROW, NODE, ALLOTMENT, KEY, 1, 1, 1 << 64, RID, 10)
    waiting = [asyncio.ensure_future(writer.record(receipt(seq, seq), payload=b"r")) for seq in range(1, 40)]
    bad = asyncio.ensure_future(writer.record(poison, payload=b"p"))
    ask = asyncio.ensure_future(writer.record(facts.ClaimDue(NODE, 1, "age", 1, 1)))
    running = asyncio.ensure_future(writer.run())
    done = await asyncio.gather(*waiting, ask)
    assert all(one.new for one in done)
    with pytest.raises(StoreError, match="disk"):
        await bad
    assert [type(one) for one in opened] == [AskForClaim]
    assert len(await writer.read(lambda s: s.facts())) == 40
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await writer.close()
