"""Looking up the block that evidence binds: two endpoints must name the same one."""

from __future__ import annotations

import pytest

from chain.api import ChainError, Disagreement, Refused
from chain.liteserver import LiteServer
from chain.quorum import Quorum
from chain.toncenter import Toncenter
from devnet.control import Control
from devnet.node import Devnet


async def test_g17_a_block_is_what_two_endpoints_name() -> None:
    async with Devnet() as devnet, Control(devnet.endpoints.control) as control:
        first, second = (Toncenter(url, name=url) for url in devnet.endpoints.toncenter)
        lite = LiteServer(devnet.endpoints.global_config)
        quorum = Quorum([first, second])
        try:
            await control.mine()
            seqno = (await quorum.head()).block.seqno
            block = await quorum.block(seqno)
            assert block == await lite.block(seqno)
            assert block.block.seqno == seqno

            with pytest.raises(Refused, match="no masterchain block"):
                await quorum.block(seqno + 10_000)

            lie = {"kind": "lie", "method": "getBlockHeader", "patch": {"gen_utime": block.now - 500}}
            await control.faults("toncenter-2", [lie])
            with pytest.raises(Disagreement):
                await quorum.block(seqno)

            await control.faults("toncenter-2", [{"kind": "drop", "method": "getBlockHeader"}])
            with pytest.raises(ChainError):
                await quorum.block(seqno)
        finally:
            await quorum.close()
            await lite.close()
