"""What a deployment should be, what the chain shows, and the messages that lead from one to the other. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pytoniq_core import Cell
from wrappers.attestation import AttestationState

from chain.api import AccountState, Status
from chain.outgoing import Outgoing, internal_message
from wrappers import registry
from wrappers.cells import CellError
from wrappers.code import Contract, code, size_of
from wrappers.registry import Parameters, RegistryState, singleton_address, singleton_state_init
from wrappers.signed import GenesisState, network_id

RENT_YEARS = 20
# Mainnet's ConfigParam 18 (storage) and 25 (forwarding), workchain 0, in nanoTON: a plan estimates, the chain charges.
_BIT_SECOND_PRICE, _CELL_SECOND_PRICE = 1, 500
_LUMP_NANO, _BIT_NANO, _CELL_NANO = 400_000, 400, 40_000
_WALLET_AND_GENESIS_GAS_NANO = 8_000_000
_YEAR_SECONDS = 31_536_000

Sign = Callable[[bytes], bytes]


class PlanError(Exception):
    """The chain shows something that no message can turn into what is wanted. Says what and what to do."""


@dataclass(frozen=True, slots=True)
class Desired:
    """A whole deployment. Addresses follow from code, key and salt."""

    global_id: int
    genesis_key: bytes
    salt: int
    governor: bytes
    parameters: Parameters

    @property
    def registry(self) -> bytes:
        return singleton_address(code(Contract.REGISTRY), self.genesis_key, self.salt)

    @property
    def attestation(self) -> bytes:
        return singleton_address(code(Contract.ATTESTATION), self.genesis_key, self.salt)

    @property
    def registry_state(self) -> RegistryState:
        return RegistryState(
            governor=self.governor,
            network_id=network_id(self.global_id, self.registry),
            attestation=self.attestation,
            parameters=self.parameters,
            stub_code=code(Contract.STUB),
            node_code=code(Contract.NODE),
            escrow_code=code(Contract.ESCROW),
        )

    @property
    def attestation_state(self) -> AttestationState:
        return AttestationState(self.registry, network_id(self.global_id, self.registry))


@dataclass(frozen=True, slots=True)
class Observed:
    registry: AccountState
    attestation: AccountState


@dataclass(frozen=True, slots=True)
class Step:
    """One message from the deployer's wallet. `fees_nano` is an estimate of what leaves as fees."""

    title: str
    message: Outgoing
    fees_nano: int


def plan(desired: Desired, observed: Observed, sign: Sign | None) -> tuple[Step, ...]:
    """Messages still to be sent, in order; empty when the deployment stands.

    `sign`: the genesis key's signature over 32 bytes. None writes 64 zero bytes, which the contracts refuse: enough to
    print a plan. Raises PlanError.
    """
    wanted = (
        ("attestation", Contract.ATTESTATION, observed.attestation, desired.attestation_state.to_cell()),
        ("registry", Contract.REGISTRY, observed.registry, desired.registry_state.to_cell()),
    )
    return tuple(
        _birth(desired, title, code(contract), state, sign)
        for title, contract, account, state in wanted
        if not _stands(title, account, code(contract), state)
    )


def _stands(title: str, account: AccountState, code_: Cell, state: Cell) -> bool:
    if account.status is not Status.ACTIVE:
        if account.status is Status.FROZEN:
            raise PlanError(f"{title} is frozen for rent: its state must be restored by hand before anything else")
        return False
    if account.code is None or account.data is None or account.code.hash != code_.hash:
        raise PlanError(
            f"{title} runs other code than this checkout's: deploy with another salt, or check out its version"
        )
    if account.data.hash == state.hash:
        return True
    if len(account.data.bits) == 288 and not account.data.refs:
        return False  # still the seed: born, but its genesis has not arrived
    raise PlanError(
        f"{title} is deployed with another state than the profile's; `cocoon deploy verify` shows the differences. "
        "Parameters of a living registry change by governance, not by deployment"
    )


def _birth(desired: Desired, title: str, code_: Cell, state: Cell, sign: Sign | None) -> Step:
    account = singleton_address(code_, desired.genesis_key, desired.salt)
    digest = GenesisState(desired.global_id, account, bytes(state.hash)).to_cell().hash
    message = Outgoing(
        destination=account,
        value_nano=_rent_nano(code_, state) + _WALLET_AND_GENESIS_GAS_NANO,
        body=registry.genesis(sign(digest) if sign else bytes(64), state),
        state_init=singleton_state_init(code_, desired.genesis_key, desired.salt),
        bounce=False,
    )
    cells, bits = size_of(internal_message(message))
    forward = _LUMP_NANO + cells * _CELL_NANO + bits * _BIT_NANO
    # once into the wallet as an external message, once from the wallet to the contract
    return Step(f"deploy {title} and set its genesis state", message, 2 * forward + _WALLET_AND_GENESIS_GAS_NANO)


def _rent_nano(code_: Cell, state: Cell) -> int:
    cells, bits = size_of(code_, state)
    per_second = bits * _BIT_SECOND_PRICE + cells * _CELL_SECOND_PRICE
    return per_second * RENT_YEARS * _YEAR_SECONDS // 65_536 + 1


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `verify`."""

    name: str
    expected: str
    actual: str

    @property
    def holds(self) -> bool:
        return self.expected == self.actual


def verify(desired: Desired, observed: Observed) -> tuple[Check, ...]:
    """Read a deployment back: code hashes, ownership, network, every parameter."""
    checks = [
        *_code_checks("registry", observed.registry, Contract.REGISTRY),
        *_code_checks("attestation", observed.attestation, Contract.ATTESTATION),
    ]
    want, have = desired.registry_state, _registry_state(observed.registry)
    if have is None:
        checks.append(Check("registry state", "genesis done", "no readable state"))
    else:
        checks += [
            Check("governor", want.governor.hex(), have.governor.hex()),
            Check("network id", want.network_id.hex(), have.network_id.hex()),
            Check("attestation of the registry", want.attestation.hex(), have.attestation.hex()),
            Check("stub code", want.stub_code.hash.hex(), have.stub_code.hash.hex()),
            Check("node code", want.node_code.hash.hex(), have.node_code.hash.hex()),
            Check("escrow code", want.escrow_code.hash.hex(), have.escrow_code.hash.hex()),
        ]
        checks += [
            Check(name, str(getattr(want.parameters, name)), str(getattr(have.parameters, name)))
            for name in Parameters.__slots__
        ]
    data = observed.attestation.data
    checks.append(
        Check(
            "attestation state",
            desired.attestation_state.to_cell().hash.hex(),
            data.hash.hex() if data is not None else "absent",
        )
    )
    return tuple(checks)


def _code_checks(title: str, account: AccountState, contract: Contract) -> list[Check]:
    actual = account.code.hash.hex() if account.code is not None else "absent"
    return [
        Check(f"{title} status", Status.ACTIVE.value, account.status.value),
        Check(f"{title} code", code(contract).hash.hex(), actual),
    ]


def _registry_state(account: AccountState) -> RegistryState | None:
    if account.data is None:
        return None
    try:
        return RegistryState.from_cell(account.data)
    except CellError:
        return None
