"""The admission process of devnet and testnet: verifies evidence off chain, then the governor's wallet admits the key.

The one place where a person's key stands in for the chain's own verification. The contracts refuse it on mainnet, and
so does this process (G14). POST /admit takes what a node presents; all else is read from the chain.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from attestation.admission import Admission, Refusal, admit
from attestation.policy import MAINNET_GLOBAL_ID, Policy, bundled
from attestation.presented import Presented
from attestation.strict import Malformed
from attestation.verify import Block, Expected
from chain.api import Chain, ChainError, Status
from chain.config import connect
from chain.mnemonic import MnemonicError
from chain.outgoing import Outgoing
from chain.wait import WaitTimeout, until
from chain.wallet import Wallet
from protocol.siblings import may_be_child
from scripts.deploy.profile import load_profile
from wrappers.cells import CellError
from wrappers.node import NodeState, VerdictBody
from wrappers.registry import Kind, child_address
from wrappers.registry import admit as admit_body
from wrappers.signed import network_id

ADMIT_VALUE_NANO = 50_000_000
"""Pays two hops and the node's handler; what is left stays in the node's gas reserve."""
BODY_LIMIT_BYTES = 2 << 20
log = logging.getLogger("admission")


class NotAdmitted(Exception):
    """The node is not admitted. `status` is the HTTP status; the text names cause and cure."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(slots=True)
class AdmissionOffice:
    chain: Chain
    wallet: Wallet
    registry: bytes
    network_id: bytes
    global_id: int
    policy: Policy
    platforms: dict[bytes, bytes] = field(default_factory=dict)
    """Platform -> node, for one live node per platform until the chain keeps it."""
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def decide(self, presented: Presented) -> Admission:
        """Raises NotAdmitted, ChainError."""
        binding = presented.evidence.binding
        node = await self._node(binding.node)
        head = await self.chain.head()
        found = await self.chain.block(binding.block_seqno) if binding.block_seqno <= head.block.seqno else None
        block = Block(found.block.seqno, found.block.root_hash, found.now) if found else None
        decision = admit(
            presented.evidence,
            presented.collateral,
            self.policy,
            head.now,
            expected=Expected(self.global_id, self.network_id, binding.node, node.epoch),
            block=block,
            last_block_seqno=node.block_seqno,
            platforms=self.platforms,
            gpu_collateral=presented.gpu,
        )
        if isinstance(decision, Refusal):
            raise NotAdmitted(403, "; ".join(decision.reasons))
        return decision

    async def admit(self, presented: Presented) -> Admission:
        """Decide, send, and return once the chain shows the key. Raises NotAdmitted, ChainError, WaitTimeout."""
        async with self._one_at_a_time:
            decision = await self.decide(presented)
            body = VerdictBody(
                decision.node_epoch,
                decision.signing_key,
                decision.attested_until,
                decision.block_seqno,
                decision.tier,
                decision.measurement,
                decision.platform,
            )
            message = Outgoing(self.registry, ADMIT_VALUE_NANO, admit_body(decision.node, body))
            sent = await self.wallet.send(self.chain, [message])
            await sent.landed(self.chain)

            async def shown() -> bool | None:
                node = await self._node(decision.node)
                return True if node.block_seqno >= decision.block_seqno else None

            await until(shown, what="the node to show its new key", timeout_seconds=60)
            self.platforms[decision.platform] = decision.node
            log.info("admitted key %s of node %s", decision.signing_key.hex(), decision.node.hex())
            return decision

    async def _node(self, account: bytes) -> NodeState:
        state = await self.chain.account(account)
        if state.status is not Status.ACTIVE or state.data is None:
            raise NotAdmitted(
                404, f"there is no node at {account.hex()} ({state.status}); open it with its stake first"
            )
        if not may_be_child(state.data, Kind.NODE, account, self.registry):
            raise NotAdmitted(403, f"{account.hex()} is not a node of registry {self.registry.hex()}")
        try:
            node = NodeState.from_cell(state.data)
        except CellError as error:
            raise NotAdmitted(403, f"{account.hex()} is not a node: {error}") from error
        if node is None or account != child_address(self.registry, Kind.NODE, node.owner, node.index):
            raise NotAdmitted(403, f"{account.hex()} is not a node of registry {self.registry.hex()}")
        return node


def application(office: AdmissionOffice) -> web.Application:
    async def handle(request: web.Request) -> web.Response:
        try:
            document: Any = await request.json()
            if not isinstance(document, dict):
                raise Malformed('the body must be {"evidence": {...}, "collateral": {...}}')
            decision = await office.admit(Presented.from_document(document))
        except ValueError as error:  # Malformed among them
            return _error(400, "malformed_evidence", str(error), "send what the enclave made, unchanged")
        except NotAdmitted as error:
            return _error(error.status, "not_admitted", str(error), "mend the cause and ask again with fresh evidence")
        except (ChainError, WaitTimeout) as error:
            return _error(503, "chain_unavailable", str(error), "try again in a few seconds")
        return web.json_response(
            {
                "admitted": True,
                "node": decision.node.hex(),
                "key": decision.signing_key.hex(),
                "attested_until": decision.attested_until,
                "tier": decision.tier,
            }
        )

    app = web.Application(client_max_size=BODY_LIMIT_BYTES)
    app.router.add_post("/admit", handle)
    return app


def _error(status: int, code: str, cause: str, cure: str) -> web.Response:
    log.warning("%s: %s", code, cause)
    return web.json_response({"admitted": False, "code": code, "cause": cause, "cure": cure}, status=status)


async def serve(network: Path, registry: bytes, port: int) -> None:
    """Run until SIGTERM; says on standard output when it is ready."""
    profile = load_profile(network)
    if profile.network.global_id == MAINNET_GLOBAL_ID:
        raise NotAdmitted(403, "mainnet admits by on-chain verification only; this process refuses to run there")
    if profile.governor_mnemonic_file is None:
        raise MnemonicError(f"{network}: deploy.governor_mnemonic_file must name the governor's wallet")
    chain = connect(profile.network)
    try:
        office = AdmissionOffice(
            chain,
            Wallet.from_mnemonic_file(profile.governor_mnemonic_file),
            registry,
            network_id(profile.network.global_id, registry),
            profile.network.global_id,
            bundled("devnet"),
        )
        runner = web.AppRunner(application(office), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        bound = runner.addresses[0][1]
        print(json.dumps({"ready": "admission", "url": f"http://127.0.0.1:{bound}/admit"}), flush=True)
        stop = asyncio.Event()
        for sig in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(sig, stop.set)
        await stop.wait()
        await runner.cleanup()
    finally:
        await chain.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", type=Path, required=True)
    parser.add_argument("--registry", type=bytes.fromhex, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(serve(options.network, options.registry, options.port))


if __name__ == "__main__":
    main()
