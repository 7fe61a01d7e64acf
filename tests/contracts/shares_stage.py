"""An escrow of a network with a fee, whose only row pays shares: what the tests of shares stand on."""

from __future__ import annotations

from pytoniq_core import Cell
from test_fees import settle_body

from devnet.trace import Trace
from scripts.stage import TON, World, account_of_name, built_world, key_of, public
from wrappers import escrow

RELAYER, ROYALTY = account_of_name("relayer"), account_of_name("royalty")
FEE = 300


class Shared:
    """An escrow of a network with a fee, one row of 2 TON for a node; those who share are plain accounts."""

    def __init__(self, world: World, account: bytes, node: bytes) -> None:
        self.world, self.account, self.node = world, account, node

    def state(self) -> escrow.EscrowState:
        return self.world.escrow(self.account)

    def settle(self, cumulative: int, key: str = "machine") -> Trace:
        entry = self.world.entry(self.account, self.node, cumulative, key=key_of(key))
        trace = self.world.tell(self.node, self.account, TON // 10, settle_body(entry, public(key_of(key))))
        assert self.kept() == self.state().accrued_nano
        return trace

    def client(self, body: Cell | None, value: int = TON) -> Trace:
        return self.world.send(self.world.client, self.account, value, body)

    def stranger(self, body: Cell | None, value: int = TON) -> Trace:
        return self.world.send(self.world.stranger, self.account, value, body)

    def kept(self) -> int:
        return sum(row.accrued_nano for row in self.state().rows.values())

    def received(self, trace: Trace) -> dict[str, int]:
        """What the escrow's first transaction sent to those who share."""
        names = {RELAYER: "relayer", ROYALTY: "royalty", self.world.treasury: "treasury"}
        sent = trace.of(self.account)[0].out_msgs
        return {names[out.destination]: out.value_nano for out in sent if out.destination in names}

    def release(self, allotted: int) -> bytes:
        return self.world.release(self.account, self.node, allotted)


def build() -> Shared:
    world = built_world(fee=FEE)
    node, _ = world.open_node()
    first = escrow.FirstAllotment(node, 2 * TON, world.row_terms(shares=world.shares))
    account, trace = world.open_escrow(first=first, value_nano=world.fees.open_escrow(4 * TON, 2 * TON, shared=True))
    assert not trace.failed
    return Shared(world, account, node)
