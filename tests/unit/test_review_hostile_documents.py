"""What strangers publish to be judged: it may cost its author the judgement, and nobody else anything."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytoniq_core import Cell

from attestation.gpu.canonical import LIMIT_BYTES, parse
from attestation.onchain.state import ChainImage
from attestation.presented import Presented
from attestation.quote import _pem
from attestation.quote import parse as parse_quote
from attestation.simulated.collateral import mint
from attestation.simulated.tee import SimulatedTee
from attestation.standings import _passes
from attestation.strict import Malformed, json_object, only_keys
from protocol import jobs, strict_json
from protocol.errors import Malformed as MalformedOffer
from protocol.job_lines import read_answers, read_lines
from protocol.offer import NodeOffer
from protocol.sealing import SealingKeyPair
from relayer.api.jobs import _signed
from relayer.errors import Refusal
from scripts.attest_stage import bare_state
from worker.agent.direct_api import DirectApi, _Refused
from wrappers.job import JobSpec

QUOTE = SimulatedTee(b"a hostile machine").quote(bytes(64))


def state() -> Cell:
    return bare_state({SimulatedTee(b"x").registers.measurement: ChainImage()})


def with_leaf(change: Callable[[bytearray], object]) -> bytes:
    """The quote with another PCK certificate of the same size in it."""
    parsed = parse_quote(QUOTE)
    leaf = bytearray(parsed.pck_chain[0])
    change(leaf)
    pem = b"".join(_pem(each) for each in (bytes(leaf), *parsed.pck_chain[1:]))
    return QUOTE.replace(parsed.pck_chain_pem, pem.ljust(len(parsed.pck_chain_pem), b"\0"))


@pytest.mark.parametrize("at", [4, 330, 345])
def test_g18_a_quote_whose_certificate_cannot_be_read_does_not_pass_and_breaks_nobody(at: int) -> None:
    quote = with_leaf(lambda leaf: leaf.__setitem__(at, leaf[at] ^ 0x40))
    assert _passes(state(), quote) is False


def test_g18_every_place_of_a_hostile_certificate_is_survived() -> None:
    leaf = parse_quote(QUOTE).pck_chain[0]
    for at in range(0, len(leaf), 3):
        quote = with_leaf(lambda found, at=at: found.__setitem__(at, 0xFF))  # type: ignore[misc]
        _passes(state(), quote)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def offer(depth: int) -> str:
    fields: dict[str, Any] = {"version": 1, "network": "00" * 32, "node": "00" * 32, "node_epoch": "1"}
    fields |= {"signing_key": "00" * 32, "evidence": "HERE", "sealing_keys": [], "models": []}
    return json.dumps(fields).replace('"HERE"', f'{{"evidence": {nested(depth)}, "collateral": {{}}}}')


@pytest.mark.parametrize("depth", [60, 200, 960])
def test_g18_an_offer_that_the_next_reader_could_not_write_again_is_refused(depth: int) -> None:
    with pytest.raises(MalformedOffer, match="strict JSON"):
        NodeOffer.from_json(offer(depth))


def test_g18_the_border_of_nesting() -> None:
    assert strict_json.parse(nested(strict_json.MAX_DEPTH)) is not None
    with pytest.raises(ValueError, match="too deeply"):
        strict_json.parse(nested(strict_json.MAX_DEPTH + 1))
    assert json_object('{"a": ' + nested(31) + "}", "it", limit_bytes=500)
    with pytest.raises(Malformed, match="nested deeper"):
        json_object('{"a": ' + nested(32) + "}", "it", limit_bytes=500)


def test_g18_half_a_character_is_a_refusal() -> None:
    with pytest.raises(Malformed):
        json_object('{"a": "\ud800"}', "it", limit_bytes=500)


def test_g18_what_a_stranger_called_a_field_does_not_reach_the_terminal_raw() -> None:
    with pytest.raises(Malformed) as refused:
        only_keys({"\x1b]0;trusted\x07": 1, "\u202egood": 2}, "evidence", required=())
    assert str(refused.value).isprintable()
    with pytest.raises(Malformed) as refused:
        only_keys({f"{number:03}" + "x" * 100_000: 1 for number in range(50)}, "evidence", required=())
    assert len(str(refused.value)) < 1_000 and "42 more" in str(refused.value)


def test_g18_presented_evidence_nested_too_deep_is_malformed() -> None:
    document = {"evidence": json.loads(nested(900)), "collateral": json.loads(mint(1_790_000_000).to_json())}
    with pytest.raises(Malformed):
        Presented.from_document(document)


# ---------------------------------------------------------------------------------------------------- manifests


def test_g18_a_manifest_of_many_namespaces_does_not_fill_the_memory() -> None:
    names = "".join(f'xmlns:n{number:x}="b" ' for number in range(9_000))
    document = f"<r {names}>{'<a/>' * 4_000}</r>".encode()
    assert len(document) <= LIMIT_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match="namespaces"):
            parse(document)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_a_handful_of_namespaces_is_kept_in_scope() -> None:
    root = parse(b'<p:r xmlns:p="u" xmlns="d"><a xmlns="e"><b/></a><c/></p:r>')
    (a, c), (b,) = root.elements(), root.elements()[0].elements()
    assert (root.name, a.name, b.name, c.name) == ("{u}r", "{e}a", "{e}b", "{d}c")


# ---------------------------------------------------------------------------------------------------- jobs, headers


def test_g18_a_job_of_empty_lines_takes_no_memory() -> None:
    data = b"\n" * (16 << 20)
    for read in (lambda: read_lines(data), lambda: read_answers(data, ["a"])):
        tracemalloc.start()
        try:
            with pytest.raises(MalformedOffer):
                read()
            assert tracemalloc.get_traced_memory()[1] < 4 << 20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id":"a","response":{"body":[]},"error":null}',
        b'{"custom_id":"a","response":{},"error":null}',
        b'{"custom_id":"a","response":{"body":{}},"error":"no object"}',
    ],
)
def test_g18_an_answer_is_a_response_or_an_error_and_never_neither(line: bytes) -> None:
    with pytest.raises(MalformedOffer):
        read_answers(line + b"\n", ["a"])


def test_g18_a_job_beyond_every_limit_is_not_opened() -> None:
    pair = SealingKeyPair.generate()
    spec = JobSpec(bytes(32), jobs.MAX_INPUT_BYTES + 1, bytes(32), bytes(32), 1)
    wrapped = jobs.Wrap(bytes(32), pair.hash, bytes(jobs.WRAP_OVERHEAD + 32))
    with pytest.raises(MalformedOffer, match="over the limit"):
        jobs.open_job(pair, wrapped, spec=spec, ciphertext=b"", network=bytes(32), job=bytes(32))


async def test_g18_a_time_beyond_all_numbers_is_a_refusal() -> None:
    request: Any = SimpleNamespace(headers={"Cocoon-Time": "9" * 400, "Cocoon-Signature": "00" * 64}, query={})
    with pytest.raises(Refusal, match="not now"):
        _signed(request)
    api = DirectApi(cast(Any, None), cast(Any, None))
    with pytest.raises(_Refused, match="not now"):
        await api._authorise(request, bytes(32))
