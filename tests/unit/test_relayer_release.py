"""A client's ask for a release on its way through the relayer: one client's affair, while the link is everybody's."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol.link import Kind, json_body, json_message
from protocol.link_messages import ReleaseRequest
from relayer.api.client import ClientApi
from relayer.config import Limits
from relayer.errors import Refusal
from wrappers.rows import Row, RowTerms
from wrappers.signed import Release, sign

NETWORK, ESCROW, NODE, NOW = b"n" * 32, b"e" * 32, b"o" * 32, 1_000_000
VOUCHER, RELEASE = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
ROW = Row(7, 100, 40, 0, 0, RowTerms(RELEASE.public_key().public_bytes_raw(), 3600), {}, None, b"a" * 32)


class Agent:
    """A node's agent: reads the link strictly, as all agents do."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def ask(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        read = json_body(json_message(kind, {"ask": 1, **body}))  # raises what would end the link
        self.asked.append(read["release_request"])
        signature = sign(Release(ROW.allotment, 0, 40), RELEASE)
        return {"allotment": ROW.allotment.hex(), "row_seqno": 0, "allotted_nano": 40, "signature": signature.hex()}


def api(agent: Agent) -> ClientApi:
    state = SimpleNamespace(voucher_key=VOUCHER.public_key().public_bytes_raw(), rows={NODE: ROW})
    seen = SimpleNamespace(state=state, why_not="")

    async def escrow(account: bytes, *, max_age_seconds: float) -> Any:
        return seen

    async def meet(account: bytes) -> None:
        return None

    mirror = SimpleNamespace(network=NETWORK, escrow=escrow)
    admission = SimpleNamespace(meet=meet, spend=lambda account: None)
    hub = SimpleNamespace(get=lambda node: agent if node == NODE else None)
    nothing: Any = None
    return ClientApi(hub, mirror, nothing, admission, Limits(), dict, lambda: NOW)  # type: ignore[arg-type]


def posted(text: str) -> Any:
    async def read() -> bytes:
        return text.encode()

    return SimpleNamespace(read=read)


def ask() -> dict[str, Any]:
    return ReleaseRequest.sign(
        VOUCHER,
        network=NETWORK,
        escrow=ESCROW,
        node=NODE,
        allotment=ROW.allotment,
        row_seqno=0,
        allotted_nano=40,
        expires_at=NOW + 60,
    ).to_json()


async def test_a_release_is_asked_for_and_brought_back() -> None:
    agent = Agent()
    response = await api(agent).release(posted(json.dumps(ask())))
    assert response.status == 200 and agent.asked == [ask()]


@pytest.mark.parametrize("extra", ['"x": NaN', '"x": Infinity', '"x": ' + "[" * 150 + "]" * 150, '"escrow": "00"'])
async def test_g18_no_client_ends_a_nodes_link_by_what_it_adds_to_an_ask(extra: str) -> None:
    agent = Agent()
    with pytest.raises(Refusal, match="strict JSON"):
        await api(agent).release(posted(json.dumps(ask())[:-1] + f", {extra}}}"))
    assert not agent.asked


async def test_g18_what_is_not_understood_does_not_travel() -> None:
    agent = Agent()
    await api(agent).release(posted(json.dumps({**ask(), "note": "x" * 1000})))
    assert agent.asked == [ask()]
