"""When the agent claims and when it does not: every claim costs the node's gas, whether it brings anything or not."""

import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pytoniq_core import begin_cell

from chain.api import Unreachable
from protocol.link import LinkCode
from worker.agent import claims as module
from worker.agent.claims import LATE_SECONDS, REPEAT_SECONDS, Claims, NoEnclave, NothingToClaim, Policy
from worker.agent.front import Front
from worker.agent.questions import Refusal
from worker.messages import ClaimSigned
from wrappers.cells import to_boc
from wrappers.claims import MAX_CLAIM_ENTRIES
from wrappers.node import RetiredKey
from wrappers.receipts import Receipt
from wrappers.rows import KeyRow


def _load(name: str):
    spec = importlib.util.spec_from_file_location(f"claims_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


parts = _load("test_worker_agent")
KEY, OTHER_KEY, NODE, ESCROW, NOW = parts.KEY, parts.OTHER_KEY, parts.NODE, parts.ESCROW, parts.NOW
RECEIPT = Receipt(parts.ALLOTMENT, b"i" * 32, 4, b"t" * 32, 400, 400, bytes(32), bytes(32))


class Place:
    """One node, what the chain shows of it, and an agent that claims. `signed`: (seqno, lines) of each batch."""

    def __init__(self) -> None:
        self.now, self.node, self.row = NOW, parts.node_state(), parts.row()
        self.escrow_changes: dict = {}
        self.accounts = [parts.account(receipt=to_boc(RECEIPT.to_cell()))]
        self.enclave = SimpleNamespace(key=KEY, claim=self.sign)
        self.signed: list = []
        self.sent: list = []
        self.announced: list = []
        self.wallet: list = []
        self.marked: list = []
        view = SimpleNamespace(account=NODE, chain=SimpleNamespace(send=self.take), head=self.head)
        view.node, view.escrow = self.read_node, self.read_escrow
        wallet = SimpleNamespace(send=self.pay)
        journal = SimpleNamespace(read=self.read, write=self.read)
        policy = Policy(amount_nano=1000, age_seconds=600, receipt_claim_nano=100)
        self.claims = Claims(journal, view, policy, wallet, lambda: self.enclave, self.announced.append)

    async def head(self):
        return SimpleNamespace(now=self.now)

    async def read_node(self, *, fresh: bool = False):
        return SimpleNamespace(state=self.node)

    async def read_escrow(self, escrow: bytes, *, fresh: bool = False):
        return parts.escrow_state(self.row, **self.escrow_changes)

    async def read(self, ask):
        def mark(key, allotment, **shown):
            self.marked.append(shown)

        return ask(SimpleNamespace(accounts=lambda: list(self.accounts), mark_landed=mark))

    async def sign(self, seqno, valid_until, lines):
        self.signed.append((seqno, lines))
        return ClaimSigned(1, seqno, valid_until, to_boc(begin_cell().end_cell()))

    async def take(self, cell) -> None:
        self.sent.append(cell)

    async def pay(self, chain, messages):
        self.wallet += messages

        async def landed(chain) -> None:
            return None

        return SimpleNamespace(landed=landed)

    def land(self) -> None:
        """The claim that is out is in a block; what it pays is still on the way."""
        self.node = replace(self.node, seqno=self.node.seqno + 1)

    def earn(self, cumulative: int) -> None:
        changes = {"cumulative_nano": cumulative, "cap_nano": cumulative + 100, "seq": self.accounts[0].seq + 1}
        self.accounts = [parts.account(receipt=self.accounts[0].receipt, **changes)]


@pytest.fixture
def place() -> Place:
    return Place()


async def test_a_batch_covers_what_is_owed_under_the_living_key_and_is_shown_to_all(place: Place) -> None:
    place.accounts.append(parts.account(key=OTHER_KEY, receipt=place.accounts[0].receipt))
    claim = await place.claims.batch()
    ((seqno, lines),) = place.signed
    assert (seqno, [line.allotment for line in lines]) == (3, [parts.ALLOTMENT])
    assert claim.valid_until == NOW + module.VALID_SECONDS and claim.entries == ((ESCROW, 400, 4),)
    assert len(place.sent) == 1 and place.announced == [claim]
    assert await place.claims.batch() is claim and len(place.signed) == 1, "one is out: whoever asks gets the same"


async def test_no_second_claim_races_with_one_that_may_still_land(place: Place) -> None:
    claim = await place.claims.batch()
    place.now = claim.valid_until + LATE_SECONDS
    with pytest.raises(NothingToClaim):
        await place.claims.batch()
    place.now += 1
    assert await place.claims.batch() is not claim, "it is dead; what it covered was never brought"
    assert [seqno for seqno, _ in place.signed] == [3, 3]


async def test_g8_what_a_claim_brought_is_not_claimed_again_while_its_payment_is_on_the_way(place: Place) -> None:
    """A relayer that asks right then would have the node pay for every claim twice."""
    await place.claims.batch()
    place.land()
    with pytest.raises(NothingToClaim):
        await place.claims.batch()
    place.earn(700)
    assert (await place.claims.batch(300)).seqno == 4, "what was earned since counts, and only that"
    place.land()
    place.earn(900)
    with pytest.raises(NothingToClaim):
        await place.claims.batch(201)
    place.row = parts.row(keys={KEY: KeyRow(paid_nano=700)}, paid_nano=700)
    assert (await place.claims.batch(200)).seqno == 5


async def test_what_was_refused_is_tried_again_later_and_not_at_every_poll(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.accounts = [replace(place.accounts[0], unlanded_since=NOW - 10_000)]
    for _ in range(3):
        await place.claims.step()
        place.land()
    assert len(place.signed) == 1
    later = time.monotonic() + REPEAT_SECONDS
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: later))
    await place.claims.step()
    assert len(place.signed) == 2


async def test_g8_a_relayers_ask_is_followed_for_no_less_than_the_operators_least(place: Place) -> None:
    front = Front(lambda: None, None, None, place.claims, None)  # type: ignore[arg-type]
    place.accounts = [parts.account(cumulative_nano=99)]
    with pytest.raises(Refusal) as refused:
        await front.claim()
    assert refused.value.reason.code == LinkCode.NOTHING_TO_CLAIM and not place.signed
    place.row = parts.row(closing_at=NOW + 3600)
    assert (await front.claim()).seqno == 3, "a row that closes is claimed whatever is left in it"


async def test_g8_under_a_compromised_key_only_what_was_acknowledged_is_claimed(place: Place) -> None:
    place.node = replace(place.node, acked_only=True)
    with pytest.raises(NothingToClaim):
        await place.claims.batch()
    place.enclave = None
    place.node = replace(place.node, signing_key=OTHER_KEY, retired={KEY: RetiredKey(NOW, True, bytes(32))})
    assert await place.claims.claim_receipts() == 0
    place.node = replace(place.node, retired={KEY: RetiredKey(NOW, False, bytes(32))})
    assert await place.claims.claim_receipts() == 1


async def test_receipts_of_a_key_that_is_gone_are_claimed_singly_once(place: Place) -> None:
    assert await place.claims.claim_receipts() == 0, "the living key signs batches"
    assert await place.claims.claim_receipts(include_living=True) == 1
    place.earn(1000)
    place.enclave = None
    assert await place.claims.claim_receipts(least_nano=601) == 0
    assert await place.claims.claim_receipts(least_nano=600) == 1
    assert await place.claims.claim_receipts() == 0, "its payment is on the way"
    assert [(one.destination, one.value_nano) for one in place.wallet] == [(NODE, module.CLAIM_RECEIPT_VALUE_NANO)] * 2
    place.node = replace(place.node, claims_until=NOW - 1)
    place.earn(2000)
    assert await place.claims.claim_receipts() == 0, "its window is over: the node refuses it"


async def test_a_batch_is_for_the_key_that_the_chain_shows_and_within_a_claims_bound(place: Place) -> None:
    place.node = replace(place.node, signing_key=OTHER_KEY)
    with pytest.raises(NothingToClaim):
        await place.claims.batch()
    place.node = replace(place.node, signing_key=KEY)
    place.accounts = place.accounts * (MAX_CLAIM_ENTRIES + 1)
    await place.claims.batch()
    assert len(place.signed[0][1]) == MAX_CLAIM_ENTRIES
    place.enclave = None
    with pytest.raises(NoEnclave):
        await place.claims.batch()


async def test_a_claim_that_the_chain_does_not_take_is_shown_to_the_relayers_all_the_same(place: Place) -> None:
    async def refuse(cell) -> None:
        raise Unreachable("down")

    place.claims.view.chain.send = refuse
    assert place.announced == [await place.claims.batch()]


async def test_g17_an_account_is_given_up_only_when_it_stays_gone(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    there, place.row = place.row, None
    assert [one.payable_nano for one in await place.claims.refresh()] == [0] and not place.marked
    clock.now += module.GONE_SECONDS - 1
    place.row = there
    assert [one.payable_nano for one in await place.claims.refresh()] == [400], "an endpoint had fallen back"
    place.row = None
    await place.claims.refresh()
    clock.now += module.GONE_SECONDS
    assert await place.claims.refresh() == () and place.marked[-1]["closed"]


async def test_an_earlier_key_is_over_with_its_window_and_one_on_no_list_only_after_the_longest(place: Place) -> None:
    place.enclave, place.row = None, parts.row()
    state = replace(place.node, signing_key=OTHER_KEY)
    account = replace(place.accounts[0], unlanded_since=NOW)
    for retired, now, over in (
        ({KEY: RetiredKey(NOW, False, bytes(32))}, NOW, False),
        ({KEY: RetiredKey(NOW, False, bytes(32))}, NOW + 1, True),
        ({}, NOW + state.claim_window, False),
        ({}, NOW + state.claim_window + 1, True),
    ):
        assert place.claims._over(replace(state, retired=retired), account, now) is over
    place.enclave = SimpleNamespace(key=KEY)
    assert not place.claims._over(state, account, NOW + 10**8), "the living key's receipts are never given up"
