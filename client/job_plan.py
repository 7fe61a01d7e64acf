"""From a file of lines to what is sealed and ordered: every line checked and priced before anything leaves. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from client.body import Body
from client.errors import BadRequest, TooExpensive, Untrusted
from client.trust import TrustedNode
from protocol.errors import Malformed
from protocol.job_lines import Line, read_lines
from protocol.jobs import MAX_BODY_BYTES
from protocol.offer import ModelOffer
from protocol.pricing import MAX_TOKENS, maximum
from wrappers.job import (
    MAX_DEADLINE_SECONDS,
    MAX_DELIVERY_SECONDS,
    MAX_GRACE_SECONDS,
    MAX_NODES,
    MIN_DELIVERY_SECONDS,
    MIN_GRACE_SECONDS,
)

DEFAULT_DEADLINE_SECONDS = 7200
DEFAULT_GRACE_SECONDS = 3600
DEFAULT_DELIVERY_SECONDS = 86_400
MIN_DEADLINE_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds: for a node to accept, from then to the result, and for the client to fetch it."""

    deadline: int = DEFAULT_DEADLINE_SECONDS
    grace: int = DEFAULT_GRACE_SECONDS
    delivery_window: int = DEFAULT_DELIVERY_SECONDS

    def check(self) -> None:
        """Raises BadRequest."""
        bounds = {
            "deadline": (self.deadline, MIN_DEADLINE_SECONDS, MAX_DEADLINE_SECONDS - 3600),
            "grace": (self.grace, MIN_GRACE_SECONDS, MAX_GRACE_SECONDS),
            "delivery window": (self.delivery_window, MIN_DELIVERY_SECONDS, MAX_DELIVERY_SECONDS),
        }
        for name, (value, low, high) in bounds.items():
            if not low <= value <= high:
                raise BadRequest(f"a {name} of {value} s", f"choose {low} to {high} s")


@dataclass(frozen=True, slots=True)
class Planned:
    model: ModelOffer
    body: bytes = field(repr=False)
    """JSONL as it is sealed."""
    asked: tuple[str, ...]
    maximum_nano: int


def plan(data: bytes, nodes: Sequence[TrustedNode], maximum_nano: int | None) -> Planned:
    """`maximum_nano` None: whatever the lines can cost. Raises BadRequest, TooExpensive, Untrusted."""
    if not 1 <= len({node.account for node in nodes}) <= MAX_NODES:
        raise BadRequest(f"a job for {len(nodes)} nodes", f"name 1 to {MAX_NODES}")
    try:
        lines = read_lines(data)
    except Malformed as error:
        raise BadRequest(
            f"the file is no batch: {error.cause}", "write one request per line, as docs/client.md shows"
        ) from error
    bodies = [_body(number, line) for number, line in enumerate(lines, 1)]
    model = _model({body.model for body in bodies}, nodes)
    prompt = completion = 0
    rows = []
    for number, (line, body) in enumerate(zip(lines, bodies, strict=True), 1):
        try:
            raw, _ = body.priced(model.name, model.context_tokens, model.terms)
            bounds = body.bounds(model.context_tokens)
        except BadRequest as error:
            raise BadRequest(f"line {number}: {error.cause}", error.cure) from error
        prompt, completion = prompt + bounds[0], completion + bounds[1]
        rows.append(Line(line.custom_id, line.endpoint, json.loads(raw)).to_json())
    sealed = b"".join(rows)
    if len(sealed) > MAX_BODY_BYTES or max(prompt, completion) > MAX_TOKENS:
        raise BadRequest("the job is too large", f"split it: at most {MAX_BODY_BYTES} bytes")
    worst = max(1, maximum(model.terms, prompt, completion))
    if maximum_nano is not None and maximum_nano < worst:
        raise TooExpensive(
            f"the lines may cost up to {worst} nanoTON, the maximum is {maximum_nano}",
            "raise the maximum (`--maximum TON`), set lower max_tokens, or split the job",
        )
    return Planned(model, sealed, tuple(line.custom_id for line in lines), worst)


def _body(number: int, line: Line) -> Body:
    fields = {key: value for key, value in line.body.items() if key not in ("stream", "stream_options")}
    try:
        return Body.of(fields, line.endpoint)
    except BadRequest as error:
        raise BadRequest(f"line {number}: {error.cause}", error.cure) from error


def _model(named: set[str | None], nodes: Sequence[TrustedNode]) -> ModelOffer:
    """The one model of all lines, on the same terms at every node."""
    if len(named) > 1:
        raise BadRequest("the lines name several models", "submit one job per model")
    name = next(iter(named)) or (nodes[0].models[0].name if nodes[0].models else None)
    found = None
    for node in nodes:
        model = None if name is None else node.model(name)
        if model is None:
            raise BadRequest(f"node {node.account.hex()} does not serve {ascii(name)[:80]}", "choose nodes that do")
        if found is not None and (model.terms, model.context_tokens) != (found.terms, found.context_tokens):
            raise Untrusted(node.account, ("it serves the model on other terms than the nodes before it",))
        found = model
    if found is None:
        raise BadRequest("no node is named", "name at least one with --node")
    return found
