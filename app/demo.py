"""`cocoon demo`: the whole network once, on embedded defaults, and a table of what moved, read back from the chain."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.books import Books, NotQuiet, Step
from app.home import Home, Ports
from app.network import Network, NetworkError, lock_home
from app.processes import ProcessFailed, Supervisor
from attestation.policy import bundled
from chain.api import ChainError
from chain.config import load_network
from chain.wait import WaitTimeout, until
from client.errors import ClientError
from client.sdk import Client, Closed, Done, Receipted, Settings, Text, TrustedNode
from devnet.engine import DevnetError
from scripts.deploy.cli import nano
from scripts.deploy.plan import PlanError
from worker.agent.operations import OperationRefused
from wrappers.addresses import Kind, child_address
from wrappers.cells import CellError
from wrappers.claims import ClaimMessage, receipts_root

PROMPT = "In one short paragraph: why is the sky blue?"
MAX_TOKENS = 96
DEPOSIT_NANO = 1_000_000_000
ALLOTTED_NANO = 400_000_000
SETTLED_WITHIN_SECONDS = 90.0
EXPECTED = (
    CellError,
    ChainError,
    ClientError,
    DevnetError,
    NetworkError,
    NotQuiet,
    OperationRefused,
    OSError,
    PlanError,
    ProcessFailed,
    TimeoutError,
    WaitTimeout,
)


class DemoFailed(Exception):
    """A step did not do what it is there to show."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that the last lines are made of."""

    receipted: Receipted
    closed: Closed
    claim_root: bytes
    claim_hash: bytes
    paid_nano: int
    books: Books


class Progress:
    """Lines with the seconds since the start; a slow step says that it is still at work."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def __call__(self, text: str) -> None:
        self._console.print(f"[dim]{self.seconds:6.1f} s[/dim]  {text}", highlight=False, soft_wrap=True)

    @contextlib.asynccontextmanager
    async def slow(self, text: str, every_seconds: float = 5.0) -> AsyncIterator[None]:
        async def remind() -> None:
            while True:
                await asyncio.sleep(every_seconds)
                self(f"... still {text}")

        reminder = asyncio.create_task(remind())
        try:
            yield
        finally:
            reminder.cancel()


async def run(prompt: str, home: Home, console: Console) -> dict[str, Any]:
    """The demonstration. Raises one of EXPECTED, or DemoFailed."""
    progress = Progress(console)
    supervisor = Supervisor(home.logs)
    try:
        network = await Network.start(home, supervisor, progress)
        try:
            await network.start_relayer()
            node = await network.open_node()
            async with progress.slow("loading the model and having its key attested"):
                worker = await network.start_worker()
            progress(
                f"node {worker.ready['node'][:16]}... serves {worker.ready['model']} on [bold]SIMULATED[/] evidence"
            )
            await network.collect()
            parties = {
                "client's wallet": network.wallet("client").account,
                "escrow": child_address(network.registry, Kind.ESCROW, network.wallet("client").account, 0),
                "node": child_address(network.registry, Kind.NODE, node.state.owner, node.state.index),
                "operator's payout": network.wallet("payout").account,
                "operator's wallet": network.wallet("operator").account,
                "registry": network.registry,
                "attestation": network.desired.attestation,
                "governor": network.wallet("governor").account,
            }
            outcome = await _client(network, Books(network.chain, parties), prompt, console, progress)
        finally:
            await network.chain.close()
    finally:
        await supervisor.stop()
    _table(console, outcome)
    return _summary(outcome, progress.seconds)


async def _client(network: Network, books: Books, prompt: str, console: Console, progress: Progress) -> Outcome:
    settings = Settings(
        home=network.home.client,
        network=load_network(network.home.profile),
        registry=network.registry,
        relayer_url=network.home.relayer_url,
        policy=bundled("devnet"),
        allow_simulated=True,
    )
    async with Client.open(settings, network.wallet("client")) as client:
        node = await until(lambda: _trusted(client), what="a node that this client trusts", timeout_seconds=60)
        progress(
            f"the client verified the quote itself: image {node.verdict.image_name!r}, TCB {node.verdict.tcb_status}, "
            f"tier {node.verdict.tier.name.lower()}; [bold]SIMULATED[/], so it proves no hardware"
        )
        await books.open()
        progress(f"the client opens an escrow with {nano(DEPOSIT_NANO)} and allots {nano(ALLOTTED_NANO)} to the node")
        await client.open_escrow(DEPOSIT_NANO, first=(node.account, ALLOTTED_NANO))
        await books.book("open and fund the escrow, first allotment")

        receipted = await _ask(client, prompt, console, progress)
        progress("waiting for the claim: the relayer asks, the enclave signs, anyone may post")

        async def settled() -> int | None:
            return next((row.paid_nano for row in (await client.balance()).rows if row.paid_nano), None)

        async with progress.slow("waiting for the claim"):
            paid_nano = await until(settled, what="the escrow to pay the node", timeout_seconds=SETTLED_WITHIN_SECONDS)
        claim = await books.book("claim: settle, pay the node, forward to the operator")
        claim_root, claim_hash = _claim_of(claim, books, receipted)

        progress("the client closes the escrow with the node's release")
        closed = await client.close(progress=progress)
        if not closed.ended:
            raise DemoFailed(
                f"the escrow did not end: {'; '.join(closed.refusals.values()) or 'no reason was given'}; its rows end "
                "with their close timers instead"
            )
        await books.book("close the escrow, refund")
        return Outcome(receipted, closed, claim_root, claim_hash, paid_nano, books)


async def _trusted(client: Client) -> TrustedNode | None:
    return next((node for node in await client.nodes() if isinstance(node, TrustedNode)), None)


async def _ask(client: Client, prompt: str, console: Console, progress: Progress) -> Receipted:
    progress(f"sealing the prompt and streaming the answer\n\n[bold]> {prompt}[/bold]\n")
    body = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": MAX_TOKENS,
        "temperature": 0.3,
        "seed": 7,
        "stream": True,
    }
    done: Done | None = None
    async for event in client.chat(body):
        if isinstance(event, Text):
            console.out(event.text, end="", highlight=False)
            console.file.flush()
        elif isinstance(event, Done):
            done = event
    console.print("\n")
    if done is None:
        raise DemoFailed("the answer ended without a receipt")
    usage = done.receipt.usage
    progress(
        f"receipt {done.receipt.hash.hex()[:16]}... holds: {usage.prompt_tokens} prompt and {usage.completion_tokens} "
        f"completion tokens for {nano(done.receipt.amount_nano)}"
    )
    return done.receipt


def _claim_of(step: Step, books: Books, receipted: Receipted) -> tuple[bytes, bytes]:
    """The root in the claim's transaction, checked to be the root over this receipt, and the transaction's hash."""
    wanted = receipts_root([receipted.issued.signed.receipt])
    for transaction in step.transactions:
        message = transaction.in_msg
        if transaction.account == books.parties["node"] and message is not None and message.external:
            for entry in ClaimMessage.from_cell(message.body).entries:
                if entry.escrow == books.parties["escrow"] and entry.root == wanted:
                    return entry.root, transaction.hash
    raise DemoFailed("no claim on the chain has a root that contains the receipt")


def _table(console: Console, outcome: Outcome) -> None:
    books = outcome.books
    table = Table(title="Read back from the chain (nanoTON)", show_lines=True)
    table.add_column("step")
    table.add_column("balances that moved")
    table.add_column("gas", justify="right")
    table.add_column("fees", justify="right")
    for step in books.steps:
        moved = "\n".join(f"{name}: {change:+,}" for name, change in step.moved_nano.items())
        table.add_row(step.title, moved, f"{step.gas:,}", f"{step.fees_nano:,}")
    table.add_row("[bold]in all[/bold]", "", f"{sum(step.gas for step in books.steps):,}", f"{books.fees_nano:,}")
    console.print(table)
    receipt, usage = outcome.receipted.issued.signed.receipt, outcome.receipted.usage
    for name, value in (
        ("model", f"{outcome.receipted.model} ({'measured' if outcome.receipted.measured else 'unmeasured'})"),
        ("evidence", "SIMULATED: a test root signed the quote; it proves no hardware"),
        (
            "tokens",
            f"{usage.prompt_tokens} prompt ({usage.cached_tokens} cached), {usage.completion_tokens} completion",
        ),
        ("price", f"{receipt.amount_nano:,} nanoTON = {nano(receipt.amount_nano)}"),
        ("receipt", receipt.hash.hex()),
        ("receipts root in the claim", outcome.claim_root.hex()),
        ("claim's transaction", outcome.claim_hash.hex()),
        ("escrow paid", nano(outcome.paid_nano)),
        ("operator's payout received", nano(books.moved_nano("operator's payout"))),
        ("client was refunded", nano(outcome.closed.refunded_nano)),
    ):
        console.print(f"{name:<28}{value}", highlight=False, soft_wrap=True)
    console.print(
        "\nGas leaves out the closed escrow's last transaction (its account is gone); fees leave out nothing.",
        soft_wrap=True,
    )


def _summary(outcome: Outcome, seconds: float) -> dict[str, Any]:
    usage = outcome.receipted.usage
    return {
        "settled": True,
        "simulated": outcome.receipted.simulated,
        "model": outcome.receipted.model,
        "usage": {
            "prompt_tokens": usage.prompt_tokens,
            "cached_tokens": usage.cached_tokens,
            "completion_tokens": usage.completion_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        },
        "paid_nano": outcome.paid_nano,
        "operator_received_nano": outcome.books.moved_nano("operator's payout"),
        "refunded_nano": outcome.closed.refunded_nano,
        "fees_nano": outcome.books.fees_nano,
        "receipt": outcome.receipted.hash.hex(),
        "receipts_root": outcome.claim_root.hex(),
        "seconds": round(seconds, 1),
    }


def main(prompt: str, keep: Path | None) -> int:
    """Exit status: 0 when the answer was paid and the rest refunded."""
    console = Console(soft_wrap=False)
    folder = (keep or Path(tempfile.mkdtemp(prefix="cocoon-demo-"))).resolve()
    failed = True
    try:
        lock_home(folder)
        if any(one.name != "lock" for one in folder.iterdir()):
            raise DemoFailed(f"{folder} is not empty: a demonstration starts from nothing, give a new folder")
        summary = asyncio.run(run(prompt, Home(folder, Ports.free()), console))
        failed = False
    except (*EXPECTED, DemoFailed) as error:
        console.print(f"\n[red]the demo failed:[/red] {error or type(error).__name__}", highlight=False, soft_wrap=True)
        console.print(f"logs of every party: {folder / 'logs'}", soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print("\nstopped")
        return 130
    finally:
        if keep is None and not failed:
            shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(summary) + "\n")
    sys.stdout.flush()
    return 0
