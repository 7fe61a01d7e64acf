"""Fixtures of the contract tests: scripts/stage.py builds what they stand on."""

from __future__ import annotations

import pytest
from attestation_mirror import Mirror
from shares_stage import Shared, build

from devnet.ledger import Snapshot
from scripts.stage import Pair, World, built_world, make_pair


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-gas", action="store_true", help="rewrite tests/contracts/gas.json from what is measured")


@pytest.fixture(scope="session")
def _base() -> World:
    return built_world()


@pytest.fixture(scope="session")
def _base_snapshot(_base: World) -> Snapshot:
    return _base.ledger.snapshot()


@pytest.fixture
def world(_base: World, _base_snapshot: Snapshot) -> World:
    """A deployed network; every test finds it fresh."""
    _base.ledger.revert(_base_snapshot)
    return _base


@pytest.fixture(scope="session")
def _pair_snapshot(_base: World, _base_snapshot: Snapshot) -> tuple[Pair, Snapshot]:
    _base.ledger.revert(_base_snapshot)
    pair = make_pair(_base)
    return pair, _base.ledger.snapshot()


@pytest.fixture
def pair(world: World, _pair_snapshot: tuple[Pair, Snapshot]) -> Pair:
    """The `world` fixture with a node and an escrow in it."""
    world.ledger.revert(_pair_snapshot[1])
    return _pair_snapshot[0]


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    """A file's own: whoever needs another verifier makes one under this name."""
    mirror = Mirror()
    mirror.load()
    mirror.ledger.now += 100
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    """A verifier with all collateral; every test finds it fresh."""
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


@pytest.fixture(scope="module")
def _shared() -> tuple[Shared, Snapshot]:
    shared = build()
    return shared, shared.world.ledger.snapshot()


@pytest.fixture
def shared(_shared: tuple[Shared, Snapshot]) -> Shared:
    """An escrow whose one row of 2 TON pays shares, a fee of the network among them; every test finds it fresh."""
    _shared[0].world.ledger.revert(_shared[1])
    return _shared[0]
