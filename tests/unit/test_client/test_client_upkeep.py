"""What the client says before it does what an owner seldom does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from client import command as runner
from client.errors import BadRequest, HomeError
from client.home import Home
from client.payments import fees
from client.records import Escrow
from client.upkeep import Upkeep
from client.upkeep_cli import agreed
from wrappers.escrow import EscrowState, NextKey
from wrappers.ops import Op
from wrappers.registry import Parameters
from wrappers.rows import ENDED, KeyRow, Row, RowTerms, Shares

NODE, OLD, NOW_KEY = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
ROW = Row(
    7,
    10**9,
    3 * 10**8,
    0,
    0,
    RowTerms(b"\x04" * 32, 3600, Shares(1000, 0, b"\x05" * 32)),
    {OLD: KeyRow(10**8, 2 * 10**8, 0, 4), NOW_KEY: KeyRow(2 * 10**8, 3 * 10**8, 0, 5)},
    NOW_KEY,
)
STATE = EscrowState(
    b"\x06" * 32, b"", False, 10**9, 7 * 10**8, ROW.accrued_nano, {NODE: ROW}, b"", b"", 0, 3600, 604_800
)


class Books:
    """Money that shows one state and sends nothing."""

    def __init__(self, state: EscrowState) -> None:
        self.state = state
        self.known = Escrow(0, b"\x07" * 32, state.voucher_key, "open")

    async def escrow(self) -> tuple[Escrow, EscrowState]:
        return self.known, self.state

    async def fees(self) -> Any:
        return fees(Parameters(0, 0, 0, 0, 0, 0, 0, 3600, 604_800))

    async def act(self, kind: str, choose: Any) -> Any:
        return choose(self.known, self.state, await self.fees())


def upkeep(path: Path, state: EscrowState = STATE) -> Upkeep:
    with Home(path) as home:
        return Upkeep(Books(state), home)  # type: ignore[arg-type]


async def test_g5_giving_up_a_key_names_what_could_be_claimed_anew(tmp_path: Path) -> None:
    says = await upkeep(tmp_path).plan("give-up-key", 0, NODE, OLD)
    assert any("up to 0.200000000 TON" in line for line in says)
    body, _ = await upkeep(tmp_path).act("give-up-key", 0, NODE, OLD)  # type: ignore[misc]
    s = body.begin_parse()
    assert (s.load_uint(32), s.load_bytes(32), s.load_bytes(32)) == (Op.GIVE_UP_KEY, NODE, OLD)


@pytest.mark.parametrize("key", [NOW_KEY, b"\x09" * 32])
async def test_g18_only_an_old_key_can_be_given_up(tmp_path: Path, key: bytes) -> None:
    with pytest.raises(BadRequest):
        await upkeep(tmp_path).plan("give-up-key", 0, NODE, key)


async def test_shares_that_wait_are_named_and_none_are_refused(tmp_path: Path) -> None:
    says = await upkeep(tmp_path).plan("shares", 0, NODE)
    assert "0.030000000 TON of shares" in says[0]
    shares = ROW.terms.shares
    assert shares is not None
    paid = replace(ROW, terms=replace(ROW.terms, shares=replace(shares, paid_out_nano=ROW.paid_nano)))
    with pytest.raises(BadRequest, match="no shares wait"):
        await upkeep(tmp_path, replace(STATE, rows={NODE: paid})).plan("shares", 0, NODE)


async def test_g18_nothing_is_done_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []

    async def command(name: str, arguments: dict[str, Any] | None) -> dict[str, Any]:
        ran.append(name)
        return {"says": ["it ends"]}

    with pytest.raises(HomeError, match="nobody is here"):
        await agreed(command, {}, False)
    await agreed(command, {}, True)
    assert ran == ["plan", "plan"]


def test_g18_a_close_that_nobody_confirms_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []

    async def command(name: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        sent.append(name)
        return {"says": ["it ends"], "refusals": {}, "waiting": {}, "ended": True, "escrow": "", "refunded_nano": 0}

    monkeypatch.setattr(runner, "ask", command)
    assert CliRunner().invoke(app, ["client", "close"]).exit_code == 1 and sent == ["plan"]
    assert CliRunner().invoke(app, ["client", "close", "--yes"]).exit_code == 0 and sent[1:] == ["plan", "close"]


def test_the_next_key_is_adopted_once_the_chain_shows_it(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        old, new = home.voucher_key(0), home.next_voucher_key(0)
        public = new.public_key().public_bytes_raw()
        assert not home.adopt_voucher_key(0, b"\x08" * 32)
        assert home.known_voucher_key(0).private_bytes_raw() == old.private_bytes_raw()
        assert home.adopt_voucher_key(0, public) and home.adopt_voucher_key(0, public)
        assert home.known_voucher_key(0).private_bytes_raw() == new.private_bytes_raw()
        assert home.next_voucher_key(0).private_bytes_raw() != new.private_bytes_raw()


async def test_rows_and_keys_are_due_to_the_second(tmp_path: Path) -> None:
    with Home(tmp_path) as home:
        mine = home.next_voucher_key(0).public_key().public_bytes_raw()

        async def due(now: int, key: bytes = b"", closing_at: int = 0) -> tuple[str, ...]:
            following = NextKey(key, 500) if key else None
            state = replace(STATE, rows={NODE: replace(ROW, closing_at=closing_at)}, next_key=following)
            return await Upkeep(Books(state), home).due(now)  # type: ignore[arg-type]

        assert await due(1000) == () and await due(499, mine) == ()
        assert await due(500, mine) == ("rotate-voucher-key",)
        assert await due(500, b"\x08" * 32) == (), "a key that this client does not hold would lock it out"
        assert await due(700, closing_at=700) == () and await due(701, closing_at=700) == ("finish",)
        assert await due(700, closing_at=ENDED) == ("finish",)
