"""What a client asks of a node that it dials itself, and what it leaves to the check of its offer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

import client.direct
from attestation.policy import bundled
from client.direct import judge_of, link_of

FACTS = SimpleNamespace(global_id=-7001, network_id=b"n" * 32)


def settings(**changes: Any) -> Any:
    policy = replace(bundled("devnet"), block_required=True)
    values = {"policy": policy, "allow_simulated": False, "facts": FACTS, "direct": None, "relayer_url": "http://r"}
    return SimpleNamespace(**{**values, **changes})


def test_block_and_gpu_are_left_to_the_offer_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(client.direct, "verify", lambda *given, **named: asked.append((given, named)))
    own = settings()
    bound = SimpleNamespace(node=b"o" * 32, node_epoch=3)
    evidence: Any = SimpleNamespace(binding=bound)
    collateral: Any = "collateral"
    judge_of(own, lambda: 77.5)(evidence, collateral)
    ((_, given, policy, now), named) = asked[0]
    assert (given, now) == ("collateral", 77)
    assert policy == replace(own.policy, allow_simulated=False, block_required=False, gpu=None)
    expected = named["expected"]
    assert (expected.global_id, expected.network_id, expected.node, expected.node_epoch) == (
        -7001,
        b"n" * 32,
        b"o" * 32,
        3,
    )


async def test_the_settings_choose_the_way() -> None:
    assert link_of(settings()).url == "http://r"
    direct = link_of(settings(direct="node.example:8443"))
    assert direct.url == "https://node.example:8443" and direct._context is not None
