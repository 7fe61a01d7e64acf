"""What each message must carry: the formulas of contracts/common/gas.fc at the prices of a chain configuration."""

from __future__ import annotations

from dataclasses import dataclass

from pytoniq_core import Cell

from wrappers.code import Contract, code, living_code, size_of
from wrappers.gas import TEN_YEARS, Gas, Size
from wrappers.prices import Prices
from wrappers.registry import Parameters


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
        return self.prices.gas(Gas.SETTLE + Gas.PAID) + self.prices.forward(1, Size.PAID_BITS)

    def settle_value(self) -> int:
        """What a node sends with `settle`; what is not used rides back with the payment."""
        return self.prices.gas(Gas.SETTLE + Gas.PAID) + 2 * self.prices.forward(1, Size.ENTRY_BITS)

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
        gas = self.prices.gas(Gas.ORDER_JOB) + self.prices.gas(Gas.OPEN_JOB) + self.prices.gas(Gas.TOP_UP)
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
        cells, bits = size_of(program) if program is not None else (0, 0)
        need = self.prices.gas(Gas.REFUND + cells * Gas.PROGRAM_CELL) + self.prices.forward(0, 0)
        if program is None:
            return need
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
