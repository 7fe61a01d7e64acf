"""What messages to a committee must carry: the formulas of contracts/committee/gas.fc. Amounts nanoTON."""

from __future__ import annotations

from dataclasses import dataclass

from wrappers.committee import CommitteeTerms
from wrappers.gas import TEN_YEARS, YEAR, CommitteeGas, CommitteeSize, Gas, Size
from wrappers.prices import Prices


@dataclass(frozen=True, slots=True)
class CommitteeFees:
    """Least values, at the prices of the present configuration."""

    prices: Prices
    terms: CommitteeTerms

    def _gas(self, gas: int, replies: int) -> int:
        return self.prices.gas(gas) + replies * self.prices.forward(0, 0)

    def member_rent(self) -> int:
        return self.prices.storage(CommitteeSize.MEMBER_CELLS, CommitteeSize.MEMBER_BITS, TEN_YEARS)

    def request_rent(self) -> int:
        return self.prices.storage(CommitteeSize.REQUEST_CELLS, CommitteeSize.REQUEST_BITS, YEAR)

    def join(self) -> int:
        """`presented` the first time: bond, rent and gas. All above is bond as well."""
        return self.prices.gas(CommitteeGas.PRESENTED) + self.member_rent() + self.terms.bond_nano

    def presented(self) -> int:
        """`presented` of a member."""
        return self._gas(CommitteeGas.PRESENTED, 1)

    def ask(self) -> int:
        """A request: the fees of all seats (what is not earned comes back), rent and gas."""
        return self._gas(CommitteeGas.ASK, 1) + self.terms.seats * self.terms.fee_nano + self.request_rent()

    def draw(self) -> int:
        return self._gas(CommitteeGas.DRAW, 1)

    def answer(self) -> int:
        return self._gas(CommitteeGas.ANSWER, 2)

    def conclude(self, *, admitted: bool) -> int:
        """Where it admits, with the verifier's and the node's part; what these do not use is the node's gas reserve."""
        return self._gas(CommitteeGas.CONCLUDE, 2) + (self.vouched_value() if admitted else 0)

    def leave(self) -> int:
        return self._gas(CommitteeGas.LEAVE, 1)

    def withdraw_bond(self) -> int:
        return self._gas(CommitteeGas.WITHDRAW_BOND, 2)

    def contradiction(self) -> int:
        return self._gas(CommitteeGas.CONTRADICTION, 2)

    def vouched_need(self) -> int:
        """What attestation must get."""
        rent = self.prices.storage(CommitteeSize.PLATFORM_CELLS, CommitteeSize.PLATFORM_BITS, TEN_YEARS)
        verdict = self.prices.forward(Size.VERDICT_CELLS, Size.VERDICT_BITS)
        return self.prices.gas(CommitteeGas.VOUCHED + Gas.VERDICT) + verdict + rent

    def vouched_value(self) -> int:
        """What leaves the committee for it."""
        return self.vouched_need() + self.prices.forward(3, CommitteeSize.VOUCHED_BITS)
