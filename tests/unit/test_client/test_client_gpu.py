"""What a node presents of its GPUs reaches the verifier, when it is met and when a receipt is checked later."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

import client.audit
import client.trust
from attestation.gpu.collateral import GpuCollateral
from client.audit import _key_check
from client.records import AccountOf
from client.trust import RefusedNode, TrustedNode

GPU = GpuCollateral({"NV_GPU_DRIVER_GH100_1": b"manifest"})


def presenting(offer: Any, **more: Any) -> Any:
    return replace(offer, evidence={**dict(offer.evidence), **more})


async def test_g12_gpu_collateral_of_an_offer_is_judged_now_and_later(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[GpuCollateral | None] = []

    def recording(*arguments: Any, **keywords: Any) -> Any:
        seen.append(keywords["gpu_collateral"])
        return genuine(*arguments, **keywords)

    genuine = client.trust.verify
    monkeypatch.setattr(client.trust, "verify", recording)
    monkeypatch.setattr(client.audit, "verify", recording)
    world.on_offer = lambda offer: presenting(offer, gpu_collateral=json.loads(GPU.to_json()))
    async with world.client() as one:
        (node,) = await one.nodes()
        assert isinstance(node, TrustedNode)
        kept = one.store.evidence(world.enclave.key)
        assert kept is not None and "gpu_collateral" in kept.document
        of = AccountOf(b"a" * 32, node.signing_key, b"e" * 32, 1, node.account, node.epoch)
        check, _ = _key_check(of, one.settings.facts, kept, world.policy, True)
    assert check.holds and seen == [GPU, GPU]


@pytest.mark.parametrize("more", [{"gpu_collateral": {}}, {"gpu_collateral": "x"}, {"other": {}}])
async def test_g18_offers_that_present_something_else_are_refused(world: Any, more: dict[str, Any]) -> None:
    world.on_offer = lambda offer: presenting(offer, **more)
    async with world.client() as one:
        (node,) = await one.nodes()
    assert isinstance(node, RefusedNode)
