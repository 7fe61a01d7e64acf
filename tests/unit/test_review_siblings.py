"""Accounts of strangers: what they hold must not be read before it is known whose they are."""

import asyncio
import time

import pytest
from pytoniq_core import Cell, begin_cell

from chain.api import AccountState, Status
from client.chain_view import ChainView as ClientView
from client.errors import Untrusted
from client.trust import NetworkFacts
from protocol.siblings import may_be_child
from relayer.chain.mirror import Mirror
from worker.agent.view import ChainView as AgentView
from worker.agent.view import NodeMissing
from wrappers.addresses import Kind, child_address

REGISTRY, NETWORK, ACCOUNT, OWNER = b"r" * 32, b"n" * 32, b"a" * 32, b"o" * 32
FORKS = 40


def bomb() -> Cell:
    """A `HashmapE 256` of FORKS levels whose forks hold one cell twice: 2^FORKS leaves in 400 bytes."""
    left = 256 - FORKS
    cell = begin_cell().store_bits("110").store_uint(left, left.bit_length()).end_cell()
    for _ in range(FORKS):
        cell = begin_cell().store_bits("00").store_ref(cell).store_ref(cell).end_cell()
    return cell


def escrow_data(owner: bytes = OWNER) -> Cell:
    root = begin_cell().store_bytes(owner).store_uint(0, 32).store_bytes(b"v" * 32).store_bytes(NETWORK).store_bit(0)
    root.store_uint(1, 8).store_bit(1).store_ref(bomb()).store_coins(1).store_coins(0).store_coins(0)
    static = begin_cell().store_bytes(REGISTRY).store_uint(1, 32).store_uint(2, 32).end_cell()
    return root.store_ref(static).end_cell()


def node_data() -> Cell:
    life = begin_cell().store_bytes(NETWORK).store_bytes(OWNER).store_uint(0, 32).store_uint(5, 64)
    life.store_bytes(b"t" * 32).store_uint(1, 32).store_uint(1, 32).store_uint(1, 32)
    static = begin_cell().store_uint(0x008A, 16).store_bytes(REGISTRY).store_uint(2, 8).store_bytes(bytes(39))
    static.store_coins(1).store_coins(1).store_coins(1).store_ref(life.end_cell())
    config = begin_cell().store_bytes(b"c" * 32).store_bytes(b"p" * 32).store_bytes(b"k" * 32).end_cell()
    root = begin_cell().store_uint(3, 32).store_uint(0, 64).store_bytes(b"i" * 32).store_bytes(b"s" * 32)
    root.store_uint(9, 32).store_coins(5).store_coins(0).store_uint(0, 64).store_ref(static.end_cell())
    root.store_ref(config).store_uint(0, 32).store_uint(1, 32).store_uint(1, 8).store_bit(1).store_ref(bomb())
    return root.store_bit(0).end_cell()


class Strangers:
    """A chain on which every account is active and holds the same data."""

    name = "strangers"

    def __init__(self, data: Cell) -> None:
        self.data = data

    async def account(self, account: bytes) -> AccountState:
        return AccountState(account, Status.ACTIVE, 1, self.data, self.data, 7, b"h" * 32)


async def relayer_escrow() -> None:
    mirror = Mirror(Strangers(escrow_data()), registry=REGISTRY, network=NETWORK)
    seen = await mirror.escrow(ACCOUNT, max_age_seconds=0)
    assert seen.state is None and "no child" in seen.why_not


async def relayer_node() -> None:
    mirror = Mirror(Strangers(node_data()), registry=REGISTRY, network=NETWORK)
    assert (await mirror.node(ACCOUNT, max_age_seconds=0)).state is None


async def agent_escrow() -> None:
    assert await AgentView(Strangers(escrow_data()), REGISTRY, ACCOUNT, NETWORK, 1.0).escrow(ACCOUNT) is None


async def agent_node() -> None:
    with pytest.raises(NodeMissing, match="not a node of registry"):
        await AgentView(Strangers(node_data()), REGISTRY, ACCOUNT, NETWORK, 1.0).node()


async def client_node() -> None:
    with pytest.raises(Untrusted):
        await ClientView(Strangers(node_data()), NetworkFacts(-3, NETWORK, REGISTRY)).node(ACCOUNT)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "reads",
    [relayer_escrow, relayer_node, agent_escrow, agent_node, client_node],
    ids=lambda f: f.__name__,
)
async def test_g18_data_of_a_stranger_that_takes_for_ever_to_read_is_not_read(reads) -> None:
    started = time.monotonic()
    await asyncio.wait_for(reads(), 5)
    assert time.monotonic() - started < 2


def test_a_child_is_told_by_owner_and_index() -> None:
    account = child_address(REGISTRY, Kind.ESCROW, OWNER, 0)
    assert may_be_child(escrow_data(), Kind.ESCROW, account, REGISTRY)
    assert not may_be_child(escrow_data(b"x" * 32), Kind.ESCROW, account, REGISTRY)
    assert not may_be_child(escrow_data(), Kind.ESCROW, account, b"q" * 32)
    assert may_be_child(node_data(), Kind.NODE, child_address(REGISTRY, Kind.NODE, OWNER, 0), REGISTRY)
    assert not may_be_child(begin_cell().end_cell(), Kind.NODE, account, REGISTRY)
    assert not may_be_child(begin_cell().end_cell(), Kind.ESCROW, account, REGISTRY)
