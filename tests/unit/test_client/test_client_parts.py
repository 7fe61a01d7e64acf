"""Smaller parts: the relayer's documents, bodies and their maxima, the command line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from client import cli, command, show
from client.answer import Lines, MalformedAnswer, text_of
from client.body import Body
from client.config import load
from client.errors import BadRequest, RelayerRefused, RelayerUnreachable, showable
from protocol.opening import Endpoint
from protocol.pricing import completion_budget
from worker.engine.api import ModelInfo
from worker.engine.request import bounds, validate
from wrappers.receipts import Terms


async def test_the_relayers_documents_are_hints_that_are_read_strictly(world: Any, behave: Any) -> None:
    async with world.client() as client:
        with pytest.raises(RelayerRefused, match="cause of node-unknown"):
            await client.link.offer(b"\x01" * 32)
        with pytest.raises(RelayerUnreachable, match="404"):
            await client.link.status()


# ---- bodies

PRICES = st.integers(0, 10**12)
TERMS = st.builds(Terms, st.just(b"\x01" * 32), PRICES, PRICES, PRICES, PRICES, PRICES)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": st.text(max_size=200)}),
    min_size=1,
    max_size=6,
)
BODIES = st.one_of(
    st.fixed_dictionaries(
        {"messages": MESSAGES}, optional={"max_tokens": st.integers(1, 5000), "stream": st.booleans()}
    ),
    st.fixed_dictionaries({"prompt": st.text(min_size=1, max_size=300)}, optional={"max_tokens": st.integers(1, 5000)}),
)


@given(BODIES, TERMS, st.integers(2, 8192))
def test_the_maximum_always_covers_what_the_enclave_asks_for(raw: dict[str, Any], terms: Terms, context: int) -> None:
    data, maximum = Body.of(raw).priced("m", context, terms)
    request = validate(json.loads(data))
    prompt, completion = bounds(request, ModelInfo("m", b"\x01" * 32, context, True))
    assert completion_budget(terms, maximum, prompt) >= completion


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"messages": []},
        {"messages": [{"role": "user"}]},
        {"messages": ["hi"]},
        {"messages": [{"role": "user", "content": "x"}], "frobnicate": 1},
        {"messages": [{"role": "user", "content": "x"}], "n": 2},
        {"messages": [{"role": "user", "content": "x"}], "model": 5},
        {"prompt": ""},
        {"prompt": ["a", "b"]},
        {"prompt": "x", "echo": True},
    ],
)
def test_g18_a_body_that_would_only_cost_the_minimum_is_refused_here(raw: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        Body.of(raw)


def test_g18_more_bad_bodies() -> None:
    for data in (b"", b"[]", b"{", b'{"a": 1, "a": 2}', b"\xff", b'{"prompt": "x", "temperature": NaN}'):
        with pytest.raises(BadRequest):
            Body.parse(data, Endpoint.COMPLETIONS)
    terms = Terms(b"\x01" * 32, 1, 1, 1, 1, 1)
    for limits in ({"max_tokens": 0}, {"max_tokens": True}, {"max_tokens": 5, "max_completion_tokens": 6}):
        with pytest.raises(BadRequest):
            Body.of({"prompt": "x", **limits} if "max_completion_tokens" not in limits else {**CHAT, **limits}).priced(
                "m", 100, terms
            )
    with pytest.raises(BadRequest):
        Body.of({"prompt": "\ud800"}).priced("m", 100, terms)


CHAT = {"messages": [{"role": "user", "content": "x"}]}


def test_fields_for_openais_own_service_and_nulls_are_left_out() -> None:
    data, _ = Body.of({**CHAT, "store": True, "metadata": {}, "temperature": None}).priced(
        "m", 100, Terms(b"\x01" * 32, 1, 1, 1, 1, 1)
    )
    assert set(json.loads(data)) == {"messages", "model", "max_tokens"}


# ---- answers


@given(st.lists(st.integers(1, 30)))
def test_lines_are_the_same_however_they_are_cut(sizes: list[int]) -> None:
    lines = [{"choices": [{"delta": {"content": f"wörd{n} "}}]} for n in range(5)]
    data = b"".join(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    reader, text, at = Lines(), "", 0
    for size in [*sizes, len(data)]:
        text += "".join(piece.text for piece in reader.feed(data[at : at + size]))
        at += size
    reader.close()
    assert text == "wörd0 wörd1 wörd2 wörd3 wörd4 "


def test_a_malformed_line_is_told_at_the_end() -> None:
    for data in (b"nonsense\n", b"[1]\n", b'{"choices": []}'):
        reader = Lines()
        reader.feed(data)
        with pytest.raises(MalformedAnswer):
            reader.close()
    assert text_of({"choices": [None]}) == text_of({"choices": 5}) == ""


def test_strangers_texts_do_not_reach_the_terminal_raw() -> None:
    assert showable("a\x1b]0;title\x07b") == "a?]0;title?b"
    assert show.terminal("a\x1b[31m\nb") == "a�[31m\nb"


# ---- command line


@pytest.mark.parametrize(
    ("text", "nano"), [("1", 10**9), ("0.25", 250_000_000), (".5", 500_000_000), ("0.000000001", 1)]
)
def test_amounts_are_exact(text: str, nano: int) -> None:
    assert command.nano(text) == nano


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "0.0000000001", "1.2.3", "١"])
def test_g18_amounts_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(Exception, match="amount in TON"):
        command.nano(text)


def test_g18_missing_settings_are_named_with_their_cure(tmp_path: Any) -> None:
    run = CliRunner().invoke(cli.app, ["--home", str(tmp_path), "balance"])
    assert run.exit_code == 1 and "--registry" in run.output and "Traceback" not in run.output
    (tmp_path / "client.toml").write_text("registri = 5\n")
    run = CliRunner().invoke(cli.app, ["--home", str(tmp_path), "balance"])
    assert run.exit_code == 1 and "unknown key 'registri'" in run.output
    (tmp_path / "client.toml").write_text(f'registry = "{"11" * 32}"\n')
    run = CliRunner().invoke(cli.app, ["--home", str(tmp_path), "balance"])
    assert run.exit_code == 1 and "wallet.mnemonic" in run.output


def test_simulated_evidence_is_off_unless_the_flag_is_given(tmp_path: Any) -> None:
    overrides: dict[str, Any] = {"registry": "11" * 32}
    assert not load(tmp_path, overrides).settings.allow_simulated
    assert load(tmp_path, {**overrides, "allow_simulated": True}).settings.allow_simulated
