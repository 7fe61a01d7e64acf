"""What a node gives up by a release: nothing that was earned under the row, and nothing that still runs."""

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.errors import Code
from protocol.link import MAX_RELEASE_SECONDS, LinkCode
from protocol.link_messages import ReleaseRequest
from worker.agent.questions import Refusal
from worker.agent.releases import Releases
from wrappers.rows import KeyRow
from wrappers.signed import Release, verify


def _load(name: str):
    spec = importlib.util.spec_from_file_location(f"releases_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


parts = _load("test_worker_agent")
KEY, OTHER_KEY, NOW = parts.KEY, parts.OTHER_KEY, parts.NOW
RELEASE_KEY = Ed25519PrivateKey.generate()


class Place:
    """One row of 1000 at seqno 2, an account under it, and an agent that is asked to let it go."""

    def __init__(self) -> None:
        self.row = parts.row(keys={KEY: KeyRow(paid_nano=300)}, paid_nano=300)
        self.accounts = [parts.account(cumulative_nano=300, landed_nano=300)]
        self.running = self.claimed = 0
        self.stored: dict = {}
        self.held: list[str] = []
        self.key: Ed25519PrivateKey | None = RELEASE_KEY
        desk = SimpleNamespace(
            hold=lambda allotment: self.held.append("hold"),
            unhold=lambda allotment: self.held.append("unhold"),
            runs_under=lambda allotment: bool(self.running),
        )
        view = SimpleNamespace(account=parts.NODE, network=parts.NETWORK, head=self.head, escrow=self.escrow)
        keys = SimpleNamespace(holding=lambda public: self.key)
        journal = SimpleNamespace(read=self.read, write=self.read)
        self.releases = Releases(journal, view, desk, keys, self.claim)

    async def head(self):
        return SimpleNamespace(now=NOW)

    async def escrow(self, escrow: bytes, *, fresh: bool = False):
        assert fresh
        return parts.escrow_state(self.row)

    async def read(self, ask):
        assert self.held == ["hold"], "decided while nothing can be begun under the row"
        store = SimpleNamespace(
            release=lambda *place: self.stored.get(place),
            accounts=lambda: self.accounts,
            add_release=lambda allotment, seqno, release: self.stored.setdefault((allotment, seqno), release),
        )
        return ask(store)

    async def claim(self) -> None:
        self.claimed += 1

    async def ask(self, allotted: int, **changes) -> tuple[int, bytes]:
        facts = dict(
            network=parts.NETWORK,
            escrow=parts.ESCROW,
            node=parts.NODE,
            allotment=parts.ALLOTMENT,
            row_seqno=2,
            allotted_nano=allotted,
            expires_at=NOW + 60,
        )
        self.held.clear()
        signer = changes.pop("signer", parts.CLIENT)
        return await self.releases.sign(ReleaseRequest.sign(signer, **{**facts, **changes}))

    async def no(self, allotted: int, **changes) -> Code | LinkCode:
        with pytest.raises(Refusal) as refused:
            await self.ask(allotted, **changes)
        assert not self.stored and self.held in ([], ["hold", "unhold"]), "the row is served again"
        return refused.value.reason.code


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_row_with_nothing_owed_is_released_down_to_what_it_paid(place: Place) -> None:
    allotted, signature = await place.ask(300)
    assert allotted == 300 and verify(
        Release(parts.ALLOTMENT, 2, 300), signature, RELEASE_KEY.public_key().public_bytes_raw()
    )
    assert place.stored[parts.ALLOTMENT, 2].allotted_nano == 300, "written down before it leaves"
    assert await place.ask(1000) == (300, signature), "there is one for each state of the row"


async def test_g3_what_is_owed_stays_in_the_row_and_is_claimed(place: Place) -> None:
    place.accounts = [parts.account(cumulative_nano=700, landed_nano=300, cap_nano=600)]
    assert await place.no(300) == LinkCode.UNCLAIMED and place.claimed == 1
    assert await place.no(599) == LinkCode.UNCLAIMED
    assert (await place.ask(600))[0] == 600, "as much as the voucher covers"


async def test_g3_what_every_key_earned_under_the_row_counts_and_other_rows_do_not(place: Place) -> None:
    earlier = parts.account(key=OTHER_KEY, cumulative_nano=100, cap_nano=100)
    elsewhere = parts.account(allotment=b"z" * 32, cumulative_nano=500, cap_nano=500)
    place.accounts = [*place.accounts, earlier, elsewhere]
    assert await place.no(399) == LinkCode.UNCLAIMED
    assert (await place.ask(400))[0] == 400


async def test_what_the_chain_shows_as_paid_is_not_owed_though_the_books_are_behind(place: Place) -> None:
    place.accounts = [parts.account(cumulative_nano=300, landed_nano=0)]
    assert (await place.ask(300))[0] == 300 and not place.claimed


async def test_nothing_is_released_below_what_was_paid_or_above_what_is_allotted(place: Place) -> None:
    assert await place.no(299) == LinkCode.WRONG_ROW and not place.claimed
    assert await place.no(1001) == LinkCode.WRONG_ROW
    assert (await place.ask(1000))[0] == 1000


async def test_g3_a_row_under_which_something_runs_is_not_released(place: Place) -> None:
    place.running = 1
    assert await place.no(300) == LinkCode.IN_FLIGHT


async def test_g10_only_the_owners_fresh_word_about_the_row_as_it_stands_is_taken(place: Place) -> None:
    assert await place.no(300, signer=Ed25519PrivateKey.generate()) == LinkCode.NOT_AUTHORISED
    assert await place.no(300, network=bytes(32)) == LinkCode.NOT_AUTHORISED
    for changes in ({"row_seqno": 1}, {"allotment": bytes(32)}, {"node": bytes(32)}):
        assert await place.no(300, **changes) == LinkCode.WRONG_ROW
    for expires_at in (NOW, NOW + MAX_RELEASE_SECONDS + 1):
        assert await place.no(300, expires_at=expires_at) == LinkCode.EXPIRED
    place.key = None
    assert await place.no(300) == LinkCode.WRONG_ROW
