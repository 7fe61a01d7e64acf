"""Whom a client seals to. Every refusal must come before a single byte is sealed."""

from __future__ import annotations

import base64
import json
import time
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from attestation.onchain.collateral import crl_messages
from attestation.onchain.state import ChainImage, ImageStatus
from attestation.policy import Tier
from attestation.simulated import pki
from attestation.simulated.collateral import mint
from attestation.verify import Block
from chain.api import BlockId, Head, Unreachable
from client import control, show
from client.errors import ClientError, NoNode, Uncertain, Untrusted
from client.inspect import inspect
from client.trust import RefusedNode, TrustedNode, check_offer
from devnet.ledger import Ledger
from protocol.offer import AnnouncedKey
from scripts.attest_stage import Stage
from wrappers.node import NodeExtras

VERIFIER = b"\x33" * 32
BODY = {"messages": [{"role": "user", "content": "hello"}]}


async def refused(world: Any, **changes: Any) -> str:
    """Why the node is refused; nothing was posted."""
    async with world.client(**changes) as client:
        (node,) = await client.nodes()
        assert isinstance(node, RefusedNode)
        with pytest.raises(ClientError):
            async with aclosing(client.chat(BODY)) as events:
                async for _ in events:
                    pass
        assert not world.posts
        return "; ".join(node.reasons)


async def test_an_honest_node_is_trusted_and_shown_as_simulated(world: Any) -> None:
    async with world.client() as client:
        (node,) = await client.nodes()
        assert isinstance(node, TrustedNode) and node.simulated and node.verdict.tier is Tier.SIMULATED
        assert node.signing_key == world.enclave.key
        assert client.store.evidence(world.enclave.key) is not None


async def test_g14_simulated_evidence_needs_the_clients_own_flag(world: Any) -> None:
    world.allow_simulated = False
    assert "SIMULATED" in await refused(world)


async def test_g14_simulated_evidence_needs_the_policy_too(world: Any) -> None:
    world.policy = replace(world.policy, allow_simulated=False)
    assert "simulated" in await refused(world)


async def test_g14_mainnet_refuses_simulated_evidence_whatever_flag_and_policy_say(world: Any) -> None:
    async with world.client() as client:
        facts = replace(client.settings.facts, global_id=-239)
        judged = check_offer(
            world.offer(),
            account=world.node,
            network=facts,
            policy=world.policy,
            allow_simulated=True,
            node=world.node_state(),
            standing=(),
            block=None,
            now=int(time.time()),
            chain_now=int(time.time()),
        )
    assert isinstance(judged, RefusedNode) and "mainnet" in "; ".join(judged.reasons)


async def test_g12_what_the_verifier_says_today_is_obeyed_before_the_node_was_told(world: Any) -> None:
    image, platform = world.tee.registers.measurement, world.tee.platform_id
    world.show_node()
    for status, word in ((ImageStatus.RETIRED, "retired"), (ImageStatus.COMPROMISED, "compromised")):
        world.show_verifier({image: ChainImage(status=status)})
        assert word in await refused(world)
    world.show_verifier({})
    assert "never allowed" in await refused(world)
    world.show_verifier({image: ChainImage()}, {platform: (True, world.node)})
    assert "deny-list" in await refused(world)
    world.show_verifier({image: ChainImage()}, {platform: (False, b"\x05" * 32)})
    assert "serves another node" in await refused(world)
    world.chain.put(VERIFIER, None)
    assert "no verifier" in await refused(world)
    world.show_verifier({image: ChainImage()}, {platform: (False, world.node)})
    async with world.client() as client:
        assert (await client.verify(world.node)).account == world.node


async def test_g12_a_revocation_that_only_the_chain_knows_refuses_the_node(world: Any) -> None:
    """The node presents collateral from before it, which is genuine and has not ended."""
    stage = Stage(Ledger(), pki.raw_public_key(pki.root().key), images={world.tee.registers.measurement: ChainImage()})
    stage.deploy()
    now = stage.ledger.now
    for name, outcome in stage.load(mint(now)).items():
        assert outcome.accepted, name
    world.chain.put(VERIFIER, stage.ledger.account(stage.account).data)
    async with world.client() as client:
        assert (await client.verify(world.node)).account == world.node
    authority = pki.platform_ca()
    revoked = pki.revocation_list(authority, now - 5, now + 86_400, (world.tee.platform.pck.certificate,))
    assert stage.tell(*crl_messages(0, revoked, pki.raw_public_key(authority.key))).accepted
    world.chain.put(VERIFIER, stage.ledger.account(stage.account).data)
    assert "collateral and the policy that the chain holds today" in await refused(world)


async def test_verify_prints_the_chain_of_trust_without_a_wallet(
    world: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.client() as client:
        settings = client.settings
    found = await inspect(settings, world.node, chain=world.chain)
    assert found.chain_simulated and found.verifier == VERIFIER
    assert "TCB info of" in " ".join(found.collateral_ends)
    show.trust({**control.trust_view(found.node), **control.chain_view(found)})
    show.last_receipt(None)
    said = capsys.readouterr().out
    places = [said.index(word) for word in ("1. root", "SIMULATED test root", "3. image", "chain       verifier", "8.")]
    assert places == sorted(places)
    with pytest.raises(NoNode):
        await inspect(settings, b"\x06" * 32, chain=world.chain)
    world.show_verifier({})
    with pytest.raises(Untrusted, match="never allowed"):
        await inspect(settings, world.node, chain=world.chain)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signing_key": b"\x01" * 32}, "the chain shows key"),
        ({"signing_key": None, "claims_until": 0}, "no attested key"),
        ({"claims_until": 1}, "term on chain ended"),
        ({"unbond_at": 5}, "unbonding"),
        ({"extras": NodeExtras(draining=True)}, "drains it"),
        ({"measurement": b"\x01" * 32}, "another measurement"),
        ({"platform": b"\x01" * 32}, "another platform"),
        ({"tier": 1}, "tier"),
        ({"epoch": 7}, "epoch"),
        ({"node_id": b"\x01" * 32}, "another network"),
    ],
)
async def test_g12_the_chain_can_only_narrow(world: Any, changes: dict[str, Any], reason: str) -> None:
    world.show_node(**changes)
    assert reason in await refused(world)


@pytest.mark.parametrize(
    "name", ["prompt_price", "cached_price", "completion_price", "reasoning_price", "minimum_nano"]
)
async def test_g5_a_node_that_asks_more_than_it_published_is_refused(world: Any, name: str) -> None:
    terms = world.offer().models[0].terms
    dearer = replace(terms, **{name: getattr(terms, name) + 1})
    world.show_node(extras=NodeExtras(offers={terms.model: dearer}))
    async with world.client() as client:
        assert all(isinstance(node, TrustedNode) for node in await client.nodes())
    cheaper = replace(terms, **{name: getattr(terms, name) - 1})
    world.show_node(extras=NodeExtras(offers={terms.model: cheaper}))
    assert "asks more for" in await refused(world)


async def test_g12_an_account_that_is_no_child_of_the_registry_is_no_node(world: Any) -> None:
    world.show_node(owner=b"\x45" * 32)
    assert "no node of this network's registry" in await refused(world)
    world.chain.put(world.node, None)
    assert "no node there" in await refused(world)


async def test_g12_evidence_for_another_key_is_refused(world: Any) -> None:
    world.on_offer = lambda offer: replace(offer, signing_key=b"\x01" * 32)
    assert "key" in await refused(world)


async def test_g12_evidence_made_for_another_node_is_refused(world: Any) -> None:
    def moved(offer: Any) -> Any:
        evidence = json.loads(json.dumps(dict(offer.evidence)))
        evidence["evidence"]["binding"]["node"] = "22" * 32
        return replace(offer, evidence=evidence)

    world.on_offer = moved
    assert "REPORTDATA" in await refused(world)


async def test_g12_an_altered_quote_is_refused(world: Any) -> None:
    def altered(offer: Any) -> Any:
        evidence = json.loads(json.dumps(dict(offer.evidence)))
        quote = evidence["evidence"]["quote"]
        evidence["evidence"]["quote"] = ("B" if quote[900] == "A" else "A").join((quote[:900], quote[901:]))
        return replace(offer, evidence=evidence)

    world.on_offer = altered
    assert await refused(world)


async def test_g12_a_measurement_that_is_not_on_the_clients_list_is_refused(world: Any) -> None:
    world.policy = replace(world.policy, images=(replace(world.policy.images[0], measurement=b"\x01" * 32),))
    assert "not on the allow-list" in await refused(world)


async def test_g12_stale_evidence_is_refused_where_the_policy_looks_up_blocks(world: Any) -> None:
    world.policy = replace(world.policy, block_required=True, max_age_seconds=100)
    world.chain.blocks[900] = Head(BlockId(900, b"\x09" * 32, bytes(32)), int(time.time()) - 50)
    async with world.client() as client:
        assert isinstance((await client.nodes())[0], TrustedNode)
    world.chain.blocks[900] = Head(BlockId(900, b"\x09" * 32, bytes(32)), int(time.time()) - 500)
    assert "stale" in await refused(world)
    world.chain.blocks[900] = Head(BlockId(900, b"\x08" * 32, bytes(32)), int(time.time()) - 50)
    assert "no masterchain block" in await refused(world)


async def test_g12_a_sealing_key_signed_by_another_key_or_over_a_day_long_is_refused(world: Any) -> None:
    stranger = Ed25519PrivateKey.generate()
    honest = world.sealing_life
    world.sealing_life = 25 * 3600
    assert "sealing key" in await refused(world)
    world.sealing_life = -5
    assert "sealing key" in await refused(world)
    world.sealing_life = honest
    world.on_offer = lambda offer: replace(
        offer,
        sealing_keys=(
            AnnouncedKey.announce(world.enclave.sealing, world.enclave.node_id, int(time.time()) + 600, stranger),
        ),
    )
    assert "sealing key" in await refused(world)


async def test_an_offer_under_another_nodes_name_is_refused(world: Any) -> None:
    world.on_offer = lambda offer: replace(offer, node=b"\x22" * 32)
    assert "offer is for node" in await refused(world)


async def test_g17_without_an_answer_of_the_chain_nothing_is_trusted(world: Any) -> None:
    async with world.client() as client:
        world.chain.down = True
        with pytest.raises(Uncertain, match="down"):
            await client.nodes()
        with pytest.raises(Uncertain):
            async with aclosing(client.chat(BODY)) as events:
                async for _ in events:
                    pass
    assert not world.posts


async def test_verify_says_every_reason(world: Any) -> None:
    world.show_node(unbond_at=5, measurement=b"\x01" * 32)
    async with world.client() as client:
        with pytest.raises(Untrusted, match=r"unbonding.*measurement"):
            await client.verify(world.node)


async def test_trust_is_remembered_for_a_short_while_only(world: Any) -> None:
    async with world.client() as client:
        await client.directory.node(world.node)
        reads = world.chain.reads
        await client.directory.node(world.node)
        assert world.chain.reads == reads
        clock = time.time() + 61
        client.directory._clock = lambda: clock
        await client.directory.node(world.node)
        assert world.chain.reads > reads


def _with_leaf(offer: Any, at: int) -> Any:
    """The offer with a PCK certificate that no parser reads."""
    evidence = json.loads(json.dumps(dict(offer.evidence)))
    quote = base64.b64decode(evidence["evidence"]["quote"])
    begin = quote.index(b"-----BEGIN CERTIFICATE-----\n") + 28
    body, end = quote[begin:].partition(b"-----END")[0], quote.index(b"-----END")
    der = bytearray(base64.b64decode(body))
    der[at] ^= 0x40
    text = base64.b64encode(der)
    lines = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
    evidence["evidence"]["quote"] = base64.b64encode(quote[:begin] + lines + quote[end:]).decode()
    return replace(offer, evidence=evidence)


async def test_g18_a_node_whose_evidence_breaks_parsers_is_refused_and_hides_no_other(world: Any) -> None:
    for at in (4, 330):
        world.on_offer = lambda offer, at=at: _with_leaf(offer, at)
        assert "cannot be verified" in await refused(world)


async def test_g17_a_node_that_cannot_be_judged_hides_no_other(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stranger, read = b"\x07" * 32, world.chain.account

    async def account(wanted: bytes) -> Any:
        if wanted == stranger:
            raise Unreachable("no endpoint keeps what it names")
        return await read(wanted)

    monkeypatch.setattr(world.chain, "account", account)
    offer = world.offer().to_json()

    async def offers() -> list[tuple[bytes, str]]:
        return [(stranger, offer), (world.node, offer)]

    async with world.client() as client:
        monkeypatch.setattr(client.directory._link, "offers", offers)
        doubtful, honest = await client.nodes()
    assert isinstance(honest, TrustedNode)
    assert isinstance(doubtful, RefusedNode) and "no endpoint keeps" in doubtful.reasons[0]


async def test_g12_a_clock_of_ours_that_was_set_back_makes_no_evidence_young(world: Any) -> None:
    now = int(time.time())

    def judged(chain_now: int, **changes: Any) -> Any:
        return check_offer(
            world.offer(),
            account=world.node,
            network=facts,
            policy=replace(world.policy, max_age_seconds=3_600, **changes),
            allow_simulated=True,
            node=world.node_state(claims_until=now + 10**7),
            standing=(),
            block=Block(900, b"\x09" * 32, now - 100),
            now=now,
            chain_now=chain_now,
        )

    async with world.client() as client:
        facts = client.settings.facts
    assert isinstance(judged(now), TrustedNode)
    assert "stale" in "; ".join(judged(now + 3_600).reasons)
