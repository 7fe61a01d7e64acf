"""One liar, one laggard, one dead endpoint: a fact needs two voices (G17)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import pytest
from pytoniq_core import Cell, begin_cell

from chain.api import (
    AccountState,
    BlockId,
    ChainError,
    Disagreement,
    Head,
    Refused,
    Status,
    Transaction,
    Unreachable,
)
from chain.config import ConfigError, Network, connect, load_network
from chain.quorum import Quorum, Unproved

T = TypeVar("T")
ACCOUNT = b"\x05" * 32
CODE = begin_cell().store_uint(1, 8).end_cell()
DATA = begin_cell().store_uint(2, 8).end_cell()
STATE = AccountState(ACCOUNT, Status.ACTIVE, 10, CODE, DATA, 5, b"\x03" * 32)
NEWER = replace(STATE, last_lt=6, last_hash=b"\x04" * 32, balance_nano=11)
ABSENT = AccountState(ACCOUNT, Status.ABSENT, 0, None, None, 0, bytes(32))
HEAD = Head(BlockId(7, b"\x01" * 32, b"\x02" * 32), 1000)


def block(seqno: int, now: int, root: int = 1) -> Head:
    return Head(BlockId(seqno, bytes([root]) * 32, b"\x02" * 32), now)


@dataclass
class Script:
    """Gives its answers in turn, the last one for ever; an exception is raised."""

    name: str
    states: list[AccountState | ChainError] = field(default_factory=lambda: [STATE])
    heads: list[Head | ChainError] = field(default_factory=lambda: [HEAD])
    sending: ChainError | None = None
    asked: int = 0
    sent: list[bytes] = field(default_factory=list)

    async def head(self) -> Head:
        return self._next(self.heads)

    async def account(self, account: bytes) -> AccountState:
        self.asked += 1
        return self._next(self.states)

    async def transactions(self, account: bytes, *, lt: int, hash: bytes, limit: int) -> tuple[Transaction, ...]:
        raise Refused(f"{self.name} has no history")

    async def send(self, message: Cell) -> bytes:
        if self.sending is not None:
            raise self.sending
        self.sent.append(bytes(message.hash))
        return b"false hash"

    async def close(self) -> None: ...

    @staticmethod
    def _next(answers: list[T | ChainError]) -> T:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, ChainError):
            raise answer
        return answer


def quorum(*chains: Script) -> Quorum:
    return Quorum(chains, settle_seconds=0.1, reread_seconds=0.01)


async def test_two_equal_answers_are_a_fact() -> None:
    assert await quorum(Script("A"), Script("B")).account(ACCOUNT) == STATE


@pytest.mark.parametrize(
    "lie",
    [
        ABSENT,
        replace(STATE, status=Status.FROZEN),
        replace(STATE, balance_nano=11),
        replace(STATE, code=DATA),
        replace(STATE, data=CODE),
        replace(STATE, last_lt=4),
        replace(STATE, last_hash=b"\x09" * 32),
    ],
)
async def test_g17_one_lying_endpoint_makes_a_disagreement_that_names_both(lie: AccountState) -> None:
    with pytest.raises(Disagreement, match=r"A says .*B says .*"):
        await quorum(Script("A"), Script("B", [lie])).account(ACCOUNT)


async def test_g17_a_contradiction_about_one_transaction_is_told_at_once() -> None:
    liar = Script("B", [replace(STATE, data=CODE)])
    with pytest.raises(Disagreement):
        await Quorum([Script("A"), liar], settle_seconds=60).account(ACCOUNT)
    assert liar.asked == 1


async def test_a_lagging_endpoint_is_asked_again_until_it_catches_up() -> None:
    late = Script("B", [STATE, STATE, STATE, NEWER])
    assert await quorum(Script("A", [NEWER]), late).account(ACCOUNT) == NEWER


async def test_a_busy_account_is_agreed_though_the_answers_never_meet_at_one_moment() -> None:
    steps: list[AccountState | ChainError] = [
        replace(STATE, last_lt=lt, last_hash=bytes([lt]) * 32) for lt in range(5, 60)
    ]
    agreed = await quorum(Script("A", steps[1:]), Script("B", steps[:])).account(ACCOUNT)
    assert agreed in steps[:3]


@pytest.mark.parametrize("status", [ABSENT, STATE])
async def test_g17_one_answer_is_never_enough(status: AccountState) -> None:
    dead = Script("B", [Unreachable("B is down")])
    with pytest.raises(Unreachable, match="only 1 of the 2"):
        await quorum(Script("A", [status]), dead).account(ACCOUNT)


async def test_g17_both_dead_is_unreachable_never_absent() -> None:
    down: list[AccountState | ChainError] = [Unreachable("down")]
    with pytest.raises(Unreachable, match="only 0 of the 2"):
        await quorum(Script("A", down), Script("B", down)).account(ACCOUNT)


async def test_an_outage_within_the_settle_time_is_waited_through() -> None:
    flaky = Script("B", [Unreachable("x"), STATE])
    assert await quorum(Script("A"), flaky).account(ACCOUNT) == STATE


async def test_two_of_three_agree_against_a_liar() -> None:
    assert await quorum(Script("A"), Script("B", [ABSENT]), Script("C")).account(ACCOUNT) == STATE


async def test_the_head_is_the_older_so_no_endpoint_alone_moves_the_clock_forward() -> None:
    future = Script("B", heads=[block(9, 99_999)])
    assert (await quorum(Script("A"), future).head()) == HEAD
    assert (
        await quorum(Script("A"), Script("B", heads=[block(8, 1001)]), Script("C", heads=[block(9, 9)])).head()
    ).now == 1001


async def test_g17_two_blocks_of_one_number_are_a_disagreement() -> None:
    with pytest.raises(Disagreement, match="different masterchain blocks 7"):
        await quorum(Script("A"), Script("B", heads=[block(7, 1000, root=9)])).head()
    with pytest.raises(Disagreement):
        await quorum(Script("A"), Script("B", heads=[block(7, 1001)])).head()


async def test_a_head_needs_two_voices() -> None:
    with pytest.raises(Unreachable):
        await quorum(Script("A"), Script("B", heads=[Unreachable("x")])).head()


async def test_a_message_goes_to_every_endpoint_and_one_acceptance_is_enough() -> None:
    a, b = Script("A"), Script("B", sending=Refused("no"))
    assert await quorum(a, b).send(CODE) == CODE.hash
    assert a.sent == [CODE.hash]


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ((Refused("exitcode=33"), Refused("exitcode=33")), Refused),
        ((Unreachable("x"), Unreachable("y")), Unreachable),
        ((Refused("exitcode=33"), Unreachable("y")), Refused),
    ],
)
async def test_a_message_that_nobody_takes(errors: tuple[ChainError, ChainError], kind: type[ChainError]) -> None:
    with pytest.raises(kind) as caught:
        await quorum(Script("A", sending=errors[0]), Script("B", sending=errors[1])).send(CODE)
    assert str(errors[0]) in str(caught.value) and str(errors[1]) in str(caught.value)


def test_g17_a_single_endpoint_or_one_named_twice_is_no_quorum() -> None:
    with pytest.raises(ValueError, match="configure a second one"):
        Quorum([Script("A")])
    with pytest.raises(ValueError, match="not distinct"):
        Quorum([Script("A"), Script("A")])


async def test_unproved_says_so_in_its_name() -> None:
    chain = Unproved(Script("A"))
    assert chain.name == "A (unproved)" and await chain.account(ACCOUNT) == STATE


def test_the_shipped_profiles_load() -> None:
    for name, global_id in (("devnet", -7001), ("testnet", -3), ("mainnet", -239)):
        network = load_network(name)
        assert network.global_id == global_id and network.toncenter
    assert len(load_network("devnet").toncenter) == 2


@pytest.mark.parametrize("name", ["devnet", "testnet", "mainnet"])
async def test_every_shipped_profile_makes_a_quorum(name: str) -> None:
    chain = connect(load_network(name))
    assert " + " in chain.name
    await chain.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("global_id = 'x'\ntoncenter=['http://a']", "global_id"),
        ("global_id = true\ntoncenter=['http://a']", "global_id"),
        ("global_id = 1\ntoncenter=[]", "toncenter"),
        ("global_id = 1\ntoncenter='http://a'", "toncenter"),
        ("global_id = 1\ntoncenter=['http://a']\nrequests_per_second=0", "requests_per_second"),
        ("global_id = 1\ntoncenter=['http://a']\napi_key_file=''", "api_key_file"),
        ("global_id = 1\ntoncenter=['http://a']\nliteserver_config=5", "liteserver_config"),
        ("global_id = ", "not TOML"),
    ],
)
def test_g18_a_wrong_profile_names_the_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "net.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_network(path)


def test_g18_an_unknown_network_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="devnet"):
        load_network("nowhere")


def test_g17_a_profile_with_one_endpoint_is_refused() -> None:
    with pytest.raises(ConfigError, match="configure a second one"):
        connect(Network("n", -7001, ("http://127.0.0.1:1",)))
    with pytest.raises(ConfigError, match="not distinct"):
        connect(Network("n", -7001, ("http://127.0.0.1:1", "http://127.0.0.1:1/api/v2")))


def test_g19_the_api_key_goes_to_the_first_host_only(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("k")
    key.chmod(0o600)
    chain = connect(Network("n", 1, ("http://one.example", "http://two.example"), api_key_file=key))
    headers: Callable[[object], dict[str, str]] = lambda c: c._http._headers  # type: ignore[attr-defined] # noqa: E731
    assert [bool(headers(c)) for c in chain._chains] == [True, False]
