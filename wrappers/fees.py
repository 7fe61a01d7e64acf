"""What each message must carry: the formulas of contracts/common/gas.fc at the prices of a chain configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from pytoniq_core import Cell, HashMap, Slice

from wrappers.cells import CellError
from wrappers.code import Contract, code, living_code, size_of
from wrappers.registry import Parameters

TEN_YEARS = 315_360_000


class Gas:
    """Gas constants of gas.fc; tests compare both files and pin each to a measurement."""

    OPEN: Final = 9800
    OPEN_JOB: Final = 22000
    GENESIS: Final = 36000
    GOVERNED: Final = 20000
    GOVERN: Final = 28500
    VERDICT: Final = 46500
    NODE_INIT: Final = 6300
    PAID: Final = 4900
    TOP_UP_STAKE: Final = 10400
    COLLECT: Final = 9300
    CLAIM: Final = 4050
    CLAIM_ENTRY: Final = 1650
    CLAIM_RECEIPT: Final = 10000
    ESCROW_INIT: Final = 7750
    SETTLE: Final = 31000
    OWN_PLATFORM: Final = 20000
    STANDING: Final = 395000
    SLASH: Final = 405000
    ACCEPT_JOB: Final = 10500
    PRESENT: Final = 10600
    NOTARISE: Final = 15400
    CHANGE_SETTING: Final = 37000
    TOP_UP: Final = 2450
    ALLOT: Final = 17000
    RAISE: Final = 16250
    ALLOT_SHARED: Final = 21400
    ORDER_JOB: Final = 12400
    PAY_SHARES: Final = 32000
    ROTATE_VOUCHER_KEY: Final = 12000
    APPLY_VOUCHER_KEY: Final = 11600
    RETURN_RENT: Final = 30800
    GIVE_UP_KEY: Final = 32000
    LOWER: Final = 22600
    RECLAIM: Final = 22300
    WITHDRAW: Final = 7400
    CLOSE: Final = 5450
    CLOSE_ROW: Final = 19200
    FINISH: Final = 5450
    FINISH_ROW: Final = 5600
    JOB_INIT: Final = 5600
    ACCEPTED: Final = 8000
    JOB_POSTED: Final = 7100
    FINISH_JOB: Final = 7600
    REFUND: Final = 9400
    MISSED: Final = 5750
    JUDGED: Final = 3550


class Size:
    """Sizes of gas.fc, in cells and bits."""

    NODE_DATA_CELLS: Final = 6
    NODE_DATA_BITS: Final = 4300
    ACCEPTED_BITS: Final = 896
    NOTARISED_BITS: Final = 800
    OPEN_JOB_BITS: Final = 320
    PRESENTED_BITS: Final = 1128
    EXTRAS_CELLS: Final = 1
    EXTRAS_BITS: Final = 514
    OFFER_CELLS: Final = 3
    OFFER_BITS: Final = 1200
    ESCROW_DATA_CELLS: Final = 3
    ESCROW_DATA_BITS: Final = 1700
    ROW_CELLS: Final = 3
    ROW_BITS: Final = 1500
    SHARES_BITS: Final = 881
    NEXT_KEY_BITS: Final = 288
    KEY_ROW_CELLS: Final = 2
    KEY_ROW_BITS: Final = 800
    OPEN_CELLS: Final = 10
    OPEN_BITS: Final = 4000
    VERDICT_CELLS: Final = 3
    VERDICT_BITS: Final = 1416
    JOB_DATA_CELLS: Final = 5
    JOB_DATA_BITS: Final = 3200
    PAID_BITS: Final = 484
    SLASH_BITS: Final = 1368
    MISSED_BITS: Final = 1276
    PROGRAM_CELLS: Final = 64
    GOVERNED_CELLS: Final = 2
    GOVERNED_BITS: Final = 1000
    ACTION_CELLS: Final = 3
    ACTION_BITS: Final = 1000
    ENTRY_BITS: Final = 992


def _up(numerator: int) -> int:
    return -(-numerator >> 16)


@dataclass(frozen=True, slots=True)
class Prices:
    """Prices of workchain 0, as configuration parameters 18, 21 and 25 state them (nanoTON; rates times 2^16)."""

    flat_gas_limit: int
    flat_gas_price: int
    gas_price: int
    lump_price: int
    bit_price: int
    cell_price: int
    storage_bit_price: int
    storage_cell_price: int

    @classmethod
    def from_config(cls, config: Cell) -> Self:
        """`config`: `Hashmap 32 ^Cell`. Raises CellError when a price is missing."""
        parameters = HashMap.parse(config.begin_parse(), 32, value_deserializer=lambda value: value.load_ref()) or {}
        try:
            gas, forward = parameters[21].begin_parse(), parameters[25].begin_parse()
            storage_dict = parameters[18].begin_parse()
        except KeyError as error:
            raise CellError(f"configuration parameter {error} is missing: not a whole configuration") from error
        if gas.load_uint(8) != 0xD1:
            raise CellError("configuration parameter 21 is of an unknown form")
        flat_limit, flat_price = gas.load_uint(64), gas.load_uint(64)
        gas.skip_bits(8)
        gas_price = gas.load_uint(64)
        forward.skip_bits(8)
        lump, bit, cell = (forward.load_uint(64) for _ in range(3))
        periods: dict[int, Slice] = HashMap.parse(storage_dict, 32) or {}
        latest = periods[max(periods)]
        latest.skip_bits(8 + 32)
        storage_bit, storage_cell = latest.load_uint(64), latest.load_uint(64)
        return cls(flat_limit, flat_price, gas_price, lump, bit, cell, storage_bit, storage_cell)

    def gas(self, gas: int) -> int:
        """GETGASFEE."""
        if gas <= self.flat_gas_limit:
            return self.flat_gas_price
        return self.flat_gas_price + _up(self.gas_price * (gas - self.flat_gas_limit))

    def forward(self, cells: int, bits: int) -> int:
        """GETFORWARDFEE; the message's root cell is free and not counted."""
        return self.lump_price + _up(self.bit_price * bits + self.cell_price * cells)

    def storage(self, cells: int, bits: int, seconds: int) -> int:
        """GETSTORAGEFEE."""
        return _up((self.storage_bit_price * bits + self.storage_cell_price * cells) * seconds)


PRICES: Final = Prices(100, 40_000, 26_214_400, 400_000, 26_214_400, 2_621_440_000, 1, 500)
"""Mainnet's configuration parameters 18, 21 and 25 for workchain 0. Where a network charges more, a message is refused
with the money returned, and the error says so."""


@dataclass(frozen=True, slots=True)
class Fees:
    """Needs in nanoTON. A message that brings less than its need is refused, the money returned."""

    prices: Prices
    parameters: Parameters

    def row_rent(self) -> int:
        """Kept aside for each row; the owner has it back when the account ends."""
        return self.prices.storage(Size.ROW_CELLS, Size.ROW_BITS, TEN_YEARS)

    def shares_rent(self) -> int:
        """Kept aside beside `row_rent` for a row that pays shares."""
        return self.prices.storage(1, Size.SHARES_BITS, TEN_YEARS)

    def key_row_rent(self) -> int:
        """Kept from the first payment under each further key of a row (at most all of it), for that key's ten years."""
        return self.prices.storage(Size.KEY_ROW_CELLS, Size.KEY_ROW_BITS, TEN_YEARS)

    def governed_rent(self) -> int:
        """Left for a new entry that governance makes: image, denied platform, platform type, model."""
        return self.prices.storage(Size.GOVERNED_CELLS, Size.GOVERNED_BITS, TEN_YEARS)

    def governed(self) -> int:
        """What an action must bring that the registry passes on to the verifier; what is not used comes back."""
        forward = self.prices.forward(Size.ACTION_CELLS, Size.ACTION_BITS) + self.prices.forward(0, 0)
        return self.prices.gas(Gas.GOVERN) + self.prices.gas(Gas.GOVERNED) + forward + self.governed_rent()

    def node_rent(self) -> int:
        cells, bits = size_of(living_code(code(Contract.NODE)))
        return self.prices.storage(cells + Size.NODE_DATA_CELLS, bits + Size.NODE_DATA_BITS, TEN_YEARS)

    def escrow_rent(self) -> int:
        cells, bits = size_of(living_code(code(Contract.ESCROW)))
        return self.prices.storage(cells + Size.ESCROW_DATA_CELLS, bits + Size.ESCROW_DATA_BITS, TEN_YEARS)

    def _birth(self, contract: Contract, init_gas: int) -> int:
        cells, bits = size_of(living_code(code(contract)))
        forward = self.prices.forward(cells + Size.OPEN_CELLS, bits + Size.OPEN_BITS)
        return self.prices.gas(Gas.OPEN) + self.prices.gas(init_gas) + forward

    def open_node(self, stake_nano: int | None = None) -> int:
        """Value of open_node that leaves at least `stake_nano` (default: the least allowed) staked."""
        stake = max(stake_nano or 0, self.parameters.min_stake_nano)
        return stake + self.parameters.gas_level_nano + self.node_rent() + self._birth(Contract.NODE, Gas.NODE_INIT)

    def open_escrow(
        self, deposit_nano: int = 0, first_allotment_nano: int | None = None, *, shared: bool = False
    ) -> int:
        """Value of open_escrow that leaves at least `deposit_nano` as deposit, the first allotment included in it.

        `shared`: the first row pays shares.
        """
        deposit = max(deposit_nano, self.parameters.min_deposit_nano, first_allotment_nano or 0)
        rent = self.escrow_rent() + (self.row_rent() if first_allotment_nano is not None else 0)
        rent += self.shares_rent() if shared else 0
        return deposit + rent + self._birth(Contract.ESCROW, Gas.ESCROW_INIT)

    def verdict(self) -> int:
        """What the verifier's verdict must bring to a node."""
        return self.prices.gas(Gas.VERDICT)

    def settle_need(self) -> int:
        """What must arrive with `settle`."""
        return self.prices.gas(Gas.SETTLE) + self.paid_value()

    def settle_value(self) -> int:
        """What a node sends with `settle`; what is not used rides back with the payment."""
        return self.settle_need() + self.prices.forward(1, Size.ENTRY_BITS)

    def claim_need(self, count: int) -> int:
        """What a node must hold above stake and rent reserve to be allowed a batch claim of `count` entries."""
        return self.prices.gas(Gas.CLAIM + count * Gas.CLAIM_ENTRY) + count * self.settle_value()

    def claim_receipt(self) -> int:
        return self.prices.gas(Gas.CLAIM_RECEIPT) + self.settle_value()

    def top_up_stake(self) -> int:
        """Taken from what `top_up_stake` brings, which must be more; the rest becomes stake."""
        return self.prices.gas(Gas.TOP_UP_STAKE)

    def collect(self) -> int:
        return self.prices.gas(Gas.COLLECT) + self.prices.forward(0, 0)

    def accept_job(self) -> int:
        gas = self.prices.gas(Gas.ACCEPT_JOB + Gas.ACCEPTED)
        return gas + self.prices.forward(0, 0) + self.prices.forward(1, Size.ACCEPTED_BITS)

    def present(self) -> int:
        """Without what the committee needs: `committee_fees` says that."""
        return self.prices.gas(Gas.PRESENT) + self.prices.forward(2, Size.PRESENTED_BITS)

    def notarise(self) -> int:
        gas = self.prices.gas(Gas.NOTARISE)
        return gas + self.prices.forward(0, 0) + self.prices.forward(1, Size.NOTARISED_BITS)

    def change_setting(self, *, extras: bool = True, new_offer: bool = False) -> int:
        """Hand-overs, release key, offers, drain. `extras`: the node has some already; new ones pay their rent."""
        rent = 0 if extras else self.prices.storage(Size.EXTRAS_CELLS, Size.EXTRAS_BITS, TEN_YEARS)
        rent += self.prices.storage(Size.OFFER_CELLS, Size.OFFER_BITS, TEN_YEARS) if new_offer else 0
        return self.prices.gas(Gas.CHANGE_SETTING) + self.prices.forward(0, 0) + rent

    def top_up(self) -> int:
        """Taken from a top-up; it must bring more."""
        return self.prices.gas(Gas.TOP_UP)

    def allot(self) -> int:
        """Taken from what `allot` brings; the rest becomes deposit."""
        return self.prices.gas(Gas.ALLOT) + self.row_rent()

    def raise_allotment(self) -> int:
        """Taken from what `raise` brings; the rest becomes deposit."""
        return self.prices.gas(Gas.RAISE)

    def lower(self) -> int:
        return self.prices.gas(Gas.LOWER) + 2 * self.prices.forward(0, 0)

    def reclaim(self) -> int:
        return self.prices.gas(Gas.RECLAIM) + 2 * self.prices.forward(0, 0)

    def withdraw(self) -> int:
        return self.prices.gas(Gas.WITHDRAW) + 2 * self.prices.forward(0, 0)

    def close(self, rows: int) -> int:
        return self.prices.gas(Gas.CLOSE + rows * Gas.CLOSE_ROW) + 2 * self.prices.forward(0, 0)

    def finish(self, rows: int) -> int:
        return self.prices.gas(Gas.FINISH + rows * Gas.FINISH_ROW) + 2 * self.prices.forward(0, 0)

    def allot_shared(self) -> int:
        """Taken from what `allot_shared` brings; the rest becomes deposit."""
        return self.prices.gas(Gas.ALLOT_SHARED) + self.row_rent() + self.shares_rent()

    def order_job(self, config: Cell) -> int:
        """Beside the amount: `config` on its way, and what it takes to credit the amount again if it is refused.

        The registry's own need comes on top of it, from value and amount.
        """
        gas = self.prices.gas(Gas.ORDER_JOB) + self.prices.gas(Gas.OPEN) + self.prices.gas(Gas.TOP_UP)
        cells, bits = size_of(config)
        return gas + self.prices.forward(cells + 1, bits + Size.OPEN_JOB_BITS) + self.prices.forward(0, 0)

    def pay_shares(self) -> int:
        return self.prices.gas(Gas.PAY_SHARES) + 5 * self.prices.forward(0, 0)

    def rotate_voucher_key(self) -> int:
        """Rent of the key that waits included, which the owner has back when the account ends."""
        return self.next_key_rent() + self.prices.gas(Gas.ROTATE_VOUCHER_KEY) + 2 * self.prices.forward(0, 0)

    def apply_voucher_key(self) -> int:
        return self.prices.gas(Gas.APPLY_VOUCHER_KEY) + 2 * self.prices.forward(0, 0)

    def next_key_rent(self) -> int:
        return self.prices.storage(1, Size.NEXT_KEY_BITS, TEN_YEARS)

    def return_rent(self) -> int:
        return self.prices.gas(Gas.RETURN_RENT) + 2 * self.prices.forward(0, 0)

    def give_up_key(self) -> int:
        return self.prices.gas(Gas.GIVE_UP_KEY) + 2 * self.prices.forward(0, 0)

    # ------------------------------------------------------------------------------------------ jobs and the court

    def open_job(self, config: Cell, maximum_nano: int) -> int:
        """What must reach the registry with `open_job`; above it everything is the job's."""
        cells, bits = size_of(living_code(code(Contract.JOB)))
        own_cells, own_bits = size_of(config)
        rent = self.prices.storage(own_cells + Size.JOB_DATA_CELLS, own_bits + Size.JOB_DATA_BITS, TEN_YEARS)
        rent += self.prices.storage(cells, bits, TEN_YEARS)
        more = self.prices.forward(own_cells, own_bits) + self.prices.gas(Gas.OPEN_JOB) - self.prices.gas(Gas.OPEN)
        return maximum_nano + rent + more + self._birth(Contract.JOB, Gas.JOB_INIT)

    def job_rent(self, config: Cell) -> int:
        """Ten years for a job's code, data and configuration; the escrow has what is left of it back at the end."""
        cells, bits = size_of(living_code(code(Contract.JOB)), config)
        return self.prices.storage(cells + Size.JOB_DATA_CELLS, bits + Size.JOB_DATA_BITS, TEN_YEARS)

    def job_init(self) -> int:
        return self.prices.gas(Gas.JOB_INIT)

    def job_accepted(self) -> int:
        return self.prices.gas(Gas.ACCEPTED) + self.prices.forward(0, 0)

    def job_posted(self) -> int:
        return self.prices.gas(Gas.JOB_POSTED) + self.prices.forward(0, 0)

    def finish_job(self) -> int:
        """`deliver` too."""
        return self.prices.gas(Gas.FINISH_JOB) + self.paid_value() + self.prices.forward(0, 0)

    def paid_value(self) -> int:
        """What `paid` takes beside the payment; its part that is not used is the node's."""
        return self.prices.gas(Gas.PAID) + self.prices.forward(1, Size.PAID_BITS)

    def refund(self, program: Cell | None) -> int:
        """`program` for an accepted job: what the court and the node need is the sender's."""
        need = self.prices.gas(Gas.REFUND) + self.prices.forward(0, 0)
        if program is None:
            return need
        cells, bits = size_of(program)
        missed = self.prices.gas(Gas.MISSED) + self.prices.forward(cells + 2, bits + Size.MISSED_BITS)
        return need + missed + self.slash_value(program)

    def slash_need(self) -> int:
        """What must arrive at a node with `slash`."""
        return self.prices.gas(Gas.SLASH) + self.prices.gas(Gas.OWN_PLATFORM) + 4 * self.prices.forward(0, 0)

    def slash_value(self, program: Cell) -> int:
        cells, bits = size_of(program)
        return self.slash_need() + self.prices.forward(cells + 2, bits + Size.SLASH_BITS)

    def evidence(self, program: Cell, judging_gas: int = 60_000) -> int:
        """Value of a message to the court; `judging_gas` bounds what judging it takes. The rest comes back."""
        return self.prices.gas(judging_gas) + self.slash_value(program)
