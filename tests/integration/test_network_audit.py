"""`cocoon audit` against a running network: every nanoTON explained, receipts opened, no liar believed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from client import control

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

Ask = Callable[..., Awaitable[Any]]


async def audit(net: Any, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "audit", "--home", str(net.home.path), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_g1_g2_g13_a_network_and_a_clients_receipts_hold(net: Any, ask_node: Ask, tmp_path: Path) -> None:
    await net.serving()
    async with net.client("audited") as client:
        for prompt in ("One?", "Two?"):
            await ask_node(client, prompt)
        escrow = (await client.balance()).escrow
        await net.settle()
        await net.wait_paid(escrow, 1)
        shown = await control.run(client, "receipts", {})
    file = tmp_path / "receipts.json"
    file.write_text(json.dumps(shown))

    code, out, err = await audit(net, "--json", "--receipt", str(file))
    assert code == 0, out + err
    found = json.loads(out)
    assert found["holds"] and len(shown["receipts"]) == 2
    assert sum("stands under root" in one["said"] for one in found["receipts"]) == 2, found["receipts"]

    code, out, err = await audit(net, "--json")
    assert code == 0, out + err
    found = json.loads(out)
    kinds = [one["kind"] for one in found["accounts"]]
    assert {"registry", "attestation", "node", "escrow"} <= set(kinds)
    for one in found["accounts"]:
        assert sum(line["nano"] for line in one["balance"]) == one["balance_nano"], one
    (mine,) = [one for one in found["accounts"] if one["account"] == escrow.hex()]
    assert mine["counters"]["paid_to_nodes_nano"] > 0
    assert all(one["holds"] for one in found["between"]) and len(found["between"]) == 2
    code, out, err = await audit(net, "--json", "--registry", net.node.hex(), escrow.hex())
    assert code == 1, out + err
    assert [one["holds"] for one in json.loads(out)["between"]] == [False], "of another registry than the one named"


async def test_g17_an_audit_believes_no_single_endpoint(net: Any) -> None:
    await net.serving()
    async with net.control() as control_of_chain:
        lie = {"kind": "lie", "method": "getAddressInformation", "account": f"0:{net.node.hex()}"}
        await control_of_chain.faults("toncenter-2", [{**lie, "patch": {"balance": "999000000000"}}])
        try:
            code, out, err = await audit(net, net.node.hex())
        finally:
            await control_of_chain.faults("toncenter-2", [])
    assert code == 1 and not out and "differ about account" in err, out + err


async def test_g18_an_audit_of_nothing_names_the_cure(net: Any) -> None:
    code, _, err = await audit(net, "nonsense")
    assert code == 1 and "neither 64 hex digits nor a TON address" in err
    code, out, _ = await audit(net, "11" * 32)
    assert code == 1 and "it never was, or it has ended" in out
