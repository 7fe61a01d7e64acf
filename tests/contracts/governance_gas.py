"""Gas of governance at its worst: full lists of proposals and rebuilders, a verifier that knows many platforms."""

from __future__ import annotations

import random
from dataclasses import replace

from pytoniq_core import Cell, HashMap, begin_cell

from attestation.onchain.messages import governed
from attestation.onchain.state import NO_LAUNCH
from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import TON, World, account_of_name
from wrappers import governance, registry
from wrappers.code import Contract, code, code_hash
from wrappers.job import JobConfig
from wrappers.registry import Proposal, Rebuilders

PLATFORMS, IMAGES, BARRED = 1500, 100, 100


def measure() -> dict[str, int]:
    """By the names of wrappers.gas.Gas."""
    world = World(Ledger(), verifier=True)
    world.deploy()
    genesis = world.ledger.transactions[world.attestation][0].gas_used
    return {
        "GENESIS": genesis,
        "OPEN_JOB": _open_job(world),
        "GOVERN": _govern(world),
        "GOVERNED": _governed(world),
    }


def _open_job(world: World) -> int:
    # Each id shares one bit more with the last: every fork of the dictionary is a level of its own.
    nodes = frozenset(((1 << 256) - (1 << 255 - depth)).to_bytes(32, "big") for depth in range(16))
    config = JobConfig(bytes(32), bytes(32), TON, world.ledger.now + 1, 3600, 600, nodes)
    body = registry.open_job(code_hash(Contract.JOB), 0, config)
    return _used(world.tell(account_of_name("escrow"), world.registry, 3 * TON, body), world.registry)


def _at(world: World, contract: Contract, data: Cell) -> bytes:
    init = begin_cell().store_uint(0b00110, 5).store_ref(code(contract)).store_ref(data).end_cell()
    account = bytes(init.hash)
    world.ledger.send_internal(
        source=world.governor.account, destination=account, value_nano=TON, state_init=init, body=None
    )
    return account


def _used(trace: Trace, account: bytes) -> int:
    (tx, *_) = trace.of(account)
    assert tx.exit_code == 0, tx.exit_code
    return tx.gas_used


def _govern(world: World) -> int:
    accounts = frozenset(account_of_name(f"rebuilder {index}") for index in range(16))
    release = governance.allow_image(b"\x01" * 32, 1, NO_LAUNCH)
    rng = random.Random(2)
    hashes = [bytes(release.hash), *(rng.randbytes(32) for _ in range(7))]
    state = replace(
        world.registry_state,
        rebuilders=Rebuilders(16, accounts),
        proposals={each: Proposal(world.ledger.now, False, accounts) for each in hashes},
    )
    account = _at(world, Contract.REGISTRY, state.to_cell())
    trace = world.tell(world.governor.account, account, TON, governance.execute(release))
    return _used(trace, account)


def _governed(world: World) -> int:
    data = world.ledger.account(world.attestation).data
    assert data is not None
    rng = random.Random(3)
    state = data.begin_parse()
    head = state.load_bits(513)
    platforms = HashMap(256, value_serializer=lambda _, b: b.store_uint(0, 292))
    images = HashMap(256, value_serializer=lambda _, b: b.store_uint(0, 272))
    barred = HashMap(48, value_serializer=lambda _, b: b)
    for dictionary, bits, count in ((platforms, 256, PLATFORMS), (images, 256, IMAGES), (barred, 48, BARRED)):
        for _ in range(count):
            dictionary.set_int_key(rng.getrandbits(bits), None)
    state.load_maybe_ref()
    state.load_maybe_ref()
    policy = begin_cell().store_bits(state.load_ref().bits[:360]).store_maybe_ref(barred.serialize()).end_cell()
    crowd = begin_cell().store_bits(head).store_maybe_ref(platforms.serialize()).store_maybe_ref(images.serialize())
    account = _at(world, Contract.ATTESTATION, crowd.store_ref(policy).store_ref(state.load_ref()).end_cell())
    return max(
        _used(world.tell(world.registry, account, TON, governed(bytes(32), action)), account)
        for _ in range(20)
        for action in (
            governance.deny_platform(rng.randbytes(32)),
            governance.allow_image(rng.randbytes(32), 1, NO_LAUNCH),
            governance.drop_tcb(rng.randbytes(6)),
        )
    )
