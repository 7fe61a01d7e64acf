"""One whole network for all `test_network_*`: every party a process, bought once, with taps on the wires between them.

It settles only when a test asks for it, so that a test knows what is claimed when. Escrows on it are not closed: the
books of the chain are added up over accounts that are still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from app.books import QUIET_SECONDS
from app.home import Home, Ports
from app.network import Network
from app.processes import Service, Supervisor
from chain.api import Chain, ChainError, Transaction
from chain.follower import AccountFollower
from chain.wait import until
from chain.wallet import Wallet
from client.config import load as load_client
from client.errors import NoEscrow
from client.events import Done, Text
from client.sdk import Client, TrustedNode
from devnet.control import Control
from worker.agent import control as agent_control
from worker.agent.config import load as load_agent
from wrappers.addresses import Kind, child_address
from wrappers.escrow import EscrowState
from wrappers.node import NodeState
from wrappers.rows import Row

TON = 1_000_000_000
FAUCET = bytes(32)
HOLD_SECONDS = 3600
T = TypeVar("T")

# ---------------------------------------------------------------------------------------------------------- the wires


@dataclass
class Tap:
    """A TCP proxy that keeps every byte of both directions, connection by connection."""

    port: int
    target: int
    connections: list[tuple[bytearray, bytearray]] = field(default_factory=list)
    """(from whoever dialled, to it)."""

    @property
    def up(self) -> bytes:
        return b"".join(bytes(up) for up, _ in self.connections)

    @property
    def down(self) -> bytes:
        return b"".join(bytes(down) for _, down in self.connections)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        up, down = bytearray(), bytearray()
        self.connections.append((up, down))
        await asyncio.gather(self._copy(reader, far_writer, up), self._copy(far_reader, writer, down))

    @staticmethod
    async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: bytearray) -> None:
        try:
            while part := await source.read(1 << 16):
                kept += part
                sink.write(part)
                await sink.drain()
            sink.close()
        except ConnectionError:
            sink.transport.abort()


class Wires:
    """Taps in a thread of their own: links stay up while a test blocks or another test's loop runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wires", daemon=True)
        self._thread.start()

    def tap(self, port: int, target: int) -> Tap:
        tap = Tap(port, target)
        self._run(asyncio.start_server(tap.serve, "127.0.0.1", port))
        return tap

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def close(self) -> None:
        async def cancel() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class TappedHome(Home):
    """Clients and agents reach the relayer through taps."""

    client_tap: int
    worker_tap: int

    @property
    def relayer_url(self) -> str:
        return f"http://127.0.0.1:{self.client_tap}"

    @property
    def worker_url(self) -> str:
        return f"ws://127.0.0.1:{self.worker_tap}"


# ---------------------------------------------------------------------------------------------------------- the books


def unaccounted_nano(transactions: Iterable[Transaction], balances: Mapping[bytes, int]) -> int:
    """What a chain holds more (or less) than came out of the faucet and was not paid as fees: 0 where money is kept.

    `transactions`: all of the chain since its birth; `balances`: of all accounts.
    """
    minted = fees = 0
    for one in transactions:
        if one.in_msg is not None and one.in_msg.source == FAUCET:
            minted += one.in_msg.value_nano
        fees += one.total_fees_nano
        fees += sum(message.forward_fee_nano for message in one.out_msgs if not message.external)
        for message in one.out_msgs:
            assert message.external or message.destination in balances, "money left the accounts that are watched"
    return sum(balances.values()) + fees - minted


# -------------------------------------------------------------------------------------------------------- the network


@dataclass
class Net:
    """A running network. Services are killed and started by their names."""

    home: TappedHome
    network: Network
    client_wire: Tap
    worker_wire: Tap
    direct_wire: Tap
    """Where clients dial the node without a relayer."""
    node: bytes = b""
    parties: set[bytes] = field(default_factory=set)
    """Every account that money can be on."""

    @property
    def chain(self) -> Chain:
        return self.network.chain

    @property
    def memory_dump(self) -> Path:
        return self.home.path / "relayer.dump"

    # ---- processes

    def service(self, name: str) -> Service:
        return next(one for one in self.network.supervisor.services if one.name == name)

    async def start_relayer(self, *, settle_after_seconds: int = HOLD_SECONDS) -> None:
        self.home.write_relayer_config(self.network.registry)
        await self.network.supervisor.start(
            "relayer",
            [sys.executable, "-m", "relayer", "run", "--config", str(self.home.relayer_config)],
            env={
                "COCOON_TEST_MEMORY_DUMP": str(self.memory_dump),
                "COCOON_RELAYER_SETTLE_AGE_SECONDS": str(settle_after_seconds),
                "COCOON_RELAYER_SETTLE_SETTLE_SECONDS": "1",
                "COCOON_RELAYER_SETTLE_RETRY_SECONDS": "2",
            },
        )

    async def start_worker(self) -> None:
        await self.network.start_worker()

    def kill_now(self, name: str) -> None:
        """kill -9, at once, of this process alone: what it started is left to itself."""
        os.kill(self.service(name).process.pid, signal.SIGKILL)

    async def reap(self, name: str) -> None:
        service = self.service(name)
        self.network.supervisor.services.remove(service)
        await service.kill(signal.SIGKILL)

    async def kill(self, name: str) -> None:
        self.kill_now(name)
        await self.reap(name)

    def enclave_pid(self) -> int | None:
        agent = self.service("worker").process.pid
        for child in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
            with contextlib.suppress(OSError):
                if b"worker.enclave" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
        return None

    # ---- chain

    def control(self) -> Control:
        return Control(self.home.control_url)

    async def node_state(self) -> NodeState:
        account = await self.chain.account(self.node)
        assert account.data is not None
        state = NodeState.from_cell(account.data)
        assert state is not None
        return state

    async def row(self, escrow: bytes) -> Row:
        account = await self.chain.account(escrow)
        assert account.data is not None
        return EscrowState.from_cell(account.data, escrow).rows[self.node]

    async def wait_paid(self, escrow: bytes, amount_nano: int, seconds: float = 40) -> Row:
        async def paid() -> Row | None:
            row = await self.row(escrow)
            return row if row.paid_nano >= amount_nano else None

        return await until(paid, what=f"{amount_nano} nanoTON to be paid", timeout_seconds=seconds)

    async def settle(self) -> dict[str, Any]:
        """What `cocoon node settle` asks of the running agent."""
        config = load_agent(self.home.agent_config)
        return await agent_control.ask(config.control_socket, {"do": "settle"})

    async def serving(self, key_before: bytes | None = None) -> bytes:
        """The node's key on chain, once the agent serves with it through the relayer and it is another than before."""

        async def key() -> bytes | None:
            try:
                said = await agent_control.ask(load_agent(self.home.agent_config).control_socket, {"do": "status"})
                linked = all(one["connected"] and one["problem"] is None for one in said["relayers"])
                shown = (await self.node_state()).signing_key
            except (agent_control.NotRunning, OSError, ChainError):
                return None
            live = said["serving"] and linked and shown is not None and said["key"] == shown.hex()
            return shown if live and shown != key_before else None

        return await until(key, what="the node to serve", timeout_seconds=60)

    async def unaccounted_nano(self) -> int:
        """Of the whole chain, once nothing moves any more."""
        states = {}
        for _ in range(40):
            before, states = states, {one: await self.chain.account(one) for one in sorted(self.parties)}
            if before == states:
                break
            await asyncio.sleep(QUIET_SECONDS)
        assert before == states, "the chain does not come to rest"
        transactions: list[Transaction] = []
        for account in states:
            follower = AccountFollower(self.chain, account)
            while found := await follower.poll():
                transactions += found
        return unaccounted_nano(transactions, {one: state.balance_nano for one, state in states.items()})

    # ---- clients

    def client_home(self, name: str) -> Path:
        return self.home.path / "clients" / name

    async def make_client(self, name: str, balance_nano: int = 4 * TON) -> Path:
        """A funded wallet and a client's folder that both the SDK and `cocoon client` can use."""
        home = self.client_home(name)
        if home.exists():
            return home
        home.mkdir(parents=True, mode=0o700)
        wallet = Wallet.create(home / "wallet.mnemonic")
        self.parties |= {wallet.account, child_address(self.network.registry, Kind.ESCROW, wallet.account, 0)}
        (home / "client.toml").write_text(
            f'network = "{self.home.profile}"\nregistry = "{self.network.registry.hex()}"\n'
            f'relayer = "{self.home.relayer_url}"\npolicy = "devnet"\nallow_simulated = true\n'
        )
        async with self.control() as control:
            await control.faucet(wallet.account, balance_nano)
        return home

    @asynccontextmanager
    async def client(self, name: str, *, allotted_nano: int = TON, chain: Chain | None = None) -> AsyncIterator[Client]:
        """The client of that name with an escrow; `allotted_nano` of it for the node, 0: no allotment."""
        config = load_client(await self.make_client(name), {})
        async with Client.open(config.settings, Wallet.from_mnemonic_file(config.wallet_file), chain=chain) as client:
            try:
                await client.balance()
            except NoEscrow:
                node = await self.trusted(client)
                first = (node.account, allotted_nano) if allotted_nano else None
                await client.open_escrow(max(2 * allotted_nano, TON), first=first)
            yield client

    @staticmethod
    async def trusted(client: Client) -> TrustedNode:
        async def found() -> TrustedNode | None:
            return next((one for one in await client.nodes() if isinstance(one, TrustedNode)), None)

        return await until(found, what="a node that the client trusts", timeout_seconds=40)


def body(prompt: str, max_tokens: int = 24, **more: Any) -> dict[str, Any]:
    return {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "seed": 1,
        "stream": True,
        **more,
    }


async def ask(
    client: Client, prompt: str, max_tokens: int = 24, on_text: Callable[[], None] = lambda: None
) -> tuple[str, Done]:
    """The answer's text and its end. `on_text` is called at its first words."""
    text, done = "", None
    async for event in client.chat(body(prompt, max_tokens)):
        if isinstance(event, Text):
            if event.text and not text:
                on_text()
            text += event.text
        elif isinstance(event, Done):
            done = event
    assert done is not None
    return text, done


def _free_ports() -> tuple[Ports, list[int]]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(len(fields(Ports)) + 4)]
    numbers = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return Ports(*numbers[4:]), numbers[:4]


async def _start(folder: Path, supervisor: Supervisor, wires: Wires) -> Net:
    ports, (client_tap, worker_tap, direct_tap, direct_port) = _free_ports()
    home = TappedHome(folder, ports, client_tap, worker_tap)
    client_wire = wires.tap(client_tap, ports.relayer_clients)
    worker_wire = wires.tap(worker_tap, ports.relayer_workers)
    network = await Network.start(home, supervisor, lambda _: None)
    net = Net(home, network, client_wire, worker_wire, wires.tap(direct_tap, direct_port))
    names = ("deployer", "governor", "operator", "payout", "client")
    net.parties = {network.wallet(name).account for name in names}
    await net.start_relayer()
    node = await network.open_node()
    net.node = child_address(network.registry, Kind.NODE, node.state.owner, node.state.index)
    net.parties |= {net.node, network.registry, network.desired.attestation, network.desired.court}
    with home.agent_config.open("a", encoding="utf-8") as file:
        file.write(f'[direct]\nlisten = "127.0.0.1:{direct_port}"\n')
    await net.start_worker()
    await net.serving()
    return net


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def net(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Net]:
    folder = tmp_path_factory.mktemp("network")
    supervisor = Supervisor(folder / "logs")
    wires = Wires()
    running: Net | None = None
    try:
        running = await _start(folder, supervisor, wires)
        yield running
    finally:
        await supervisor.stop()
        if running is not None:
            await running.network.chain.close()
        wires.close()


@pytest.fixture(scope="session")
def ask_node() -> Callable[..., Coroutine[Any, Any, tuple[str, Done]]]:
    return ask


@pytest.fixture(scope="session")
def unaccounted() -> Callable[[Iterable[Transaction], Mapping[bytes, int]], int]:
    return unaccounted_nano
