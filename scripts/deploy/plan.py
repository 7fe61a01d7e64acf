"""What a deployment should be, what the chain shows, and the messages that lead from one to the other. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pytoniq_core import Cell

from attestation.onchain.fees import COLLATERAL_BITS, COLLATERAL_CELLS
from attestation.onchain.needed import needed_messages
from attestation.onchain.state import NO_LAUNCH, ChainImage, VerifierState, genesis_state
from attestation.simulated.collateral import mint
from chain.api import AccountState, Status
from chain.outgoing import Outgoing, internal_message
from scripts.deploy.verifier import VerifierTerms
from wrappers import registry
from wrappers.addresses import singleton_address, singleton_state_init
from wrappers.cells import CellError
from wrappers.code import Contract, code, size_of
from wrappers.court import CourtState
from wrappers.registry import Parameters, Rebuilders, RegistryState
from wrappers.signed import GenesisState, network_id

RENT_YEARS = 20
# Mainnet's ConfigParam 18 (storage) and 25 (forwarding), workchain 0, in nanoTON: a plan estimates, the chain charges.
_BIT_SECOND_PRICE, _CELL_SECOND_PRICE = 1, 500
_LUMP_NANO, _BIT_NANO, _CELL_NANO = 400_000, 400, 40_000
_WALLET_AND_GENESIS_GAS_NANO = 32_000_000
_COLLATERAL_VALUE_NANO = 200_000_000
"""With each statement of the test root; what it does not use comes back."""
_COLLATERAL_FEES_NANO = 70_000_000
_YEAR_SECONDS = 31_536_000
_SEED_BITS = 288

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
    verifier: VerifierTerms
    treasury: bytes | None = None
    """Who gets fees, and what a slash leaves over; None: the governor."""
    rebuilders: Rebuilders = field(default_factory=Rebuilders)

    @property
    def registry(self) -> bytes:
        return singleton_address(code(Contract.REGISTRY), self.genesis_key, self.salt)

    @property
    def attestation(self) -> bytes:
        return singleton_address(code(Contract.ATTESTATION), self.genesis_key, self.salt)

    @property
    def court(self) -> bytes:
        return singleton_address(code(Contract.COURT), self.genesis_key, self.salt)

    @property
    def court_state(self) -> CourtState:
        return CourtState(self.registry, self.registry_state.stub_prefix, self.treasury or self.governor)

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
            job_code=code(Contract.JOB),
            court=self.court,
            treasury=self.treasury or self.governor,
            rebuilders=self.rebuilders,
        )

    @property
    def verifier_genesis(self) -> Cell:
        terms = self.verifier
        network = network_id(self.global_id, self.registry)
        return genesis_state(self.registry, network, terms.root_key, terms.policy, terms.images)


@dataclass(frozen=True, slots=True)
class Observed:
    registry: AccountState
    attestation: AccountState
    court: AccountState


@dataclass(frozen=True, slots=True)
class Step:
    """One message from the deployer's wallet. `fees_nano` is an estimate of what leaves as fees."""

    title: str
    message: Outgoing
    fees_nano: int


def plan(desired: Desired, observed: Observed, sign: Sign | None, now: int) -> tuple[Step, ...]:
    """Messages still to be sent at `now` (unix seconds), in order; empty when the deployment stands.

    `sign`: the genesis key's signature over 32 bytes. None writes 64 zero bytes, which the contracts refuse: enough to
    print a plan. Raises PlanError.
    """
    steps = []
    if not born("attestation", observed.attestation, code(Contract.ATTESTATION)):
        steps.append(birth(desired, "attestation", code(Contract.ATTESTATION), desired.verifier_genesis, sign))
    else:
        identity = _identity_checks(desired, verifier_state(observed.attestation))
        if not identity or not all(check.holds for check in identity):
            raise _another_state("attestation")
    court_state = desired.court_state.to_cell()
    if not born("court", observed.court, code(Contract.COURT)):
        steps.append(birth(desired, "court", code(Contract.COURT), court_state, sign))
    elif observed.court.data is None or observed.court.data.hash != court_state.hash:
        raise _another_state("court")
    state = desired.registry_state.to_cell()
    if not born("registry", observed.registry, code(Contract.REGISTRY)):
        steps.append(birth(desired, "registry", code(Contract.REGISTRY), state, sign))
    elif observed.registry.data is None or observed.registry.data.hash != state.hash:
        raise _another_state("registry")
    return (*steps, *_collateral(desired, observed, now))


def _collateral(desired: Desired, observed: Observed, now: int) -> list[Step]:
    """What the test root has to say, so that a trial network serves from its first minute. Intel's comes from anyone
    (`cocoon attest collateral`, or the first node's agent)."""
    if not desired.verifier.simulated:
        return []
    root_key = desired.verifier.root_key
    needed = needed_messages(mint(now), root_key, verifier_state(observed.attestation), now)
    return [
        Step(f"test root: {name}", Outgoing(desired.attestation, _COLLATERAL_VALUE_NANO, body), _COLLATERAL_FEES_NANO)
        for name, body in needed
    ]


def _another_state(title: str) -> PlanError:
    return PlanError(
        f"{title} is deployed with another state than the profile's; `cocoon deploy verify` shows the differences. "
        "Parameters of a living registry change by governance, not by deployment"
    )


def born(title: str, account: AccountState, code_: Cell) -> bool:
    if account.status is not Status.ACTIVE:
        if account.status is Status.FROZEN:
            raise PlanError(f"{title} is frozen for rent: its state must be restored by hand before anything else")
        return False
    if account.code is None or account.data is None or account.code.hash != code_.hash:
        raise PlanError(
            f"{title} runs other code than this checkout's: deploy with another salt, or check out its version"
        )
    # Still the seed: deployed, but its genesis has not arrived.
    return len(account.data.bits) != _SEED_BITS or bool(account.data.refs)


def birth(desired: Desired, title: str, code_: Cell, state: Cell, sign: Sign | None) -> Step:
    account = singleton_address(code_, desired.genesis_key, desired.salt)
    digest = GenesisState(desired.global_id, account, bytes(state.hash)).to_cell().hash
    message = Outgoing(
        destination=account,
        value_nano=_rent_nano(code_, state, grows=title == "attestation") + _WALLET_AND_GENESIS_GAS_NANO,
        body=registry.genesis(sign(digest) if sign else bytes(64), state),
        state_init=singleton_state_init(code_, desired.genesis_key, desired.salt),
        bounce=False,
    )
    cells, bits = size_of(internal_message(message))
    forward = _LUMP_NANO + cells * _CELL_NANO + bits * _BIT_NANO
    # once into the wallet as an external message, once from the wallet to the contract
    return Step(f"deploy {title} and set its genesis state", message, 2 * forward + _WALLET_AND_GENESIS_GAS_NANO)


def _rent_nano(code_: Cell, state: Cell, *, grows: bool) -> int:
    cells, bits = size_of(code_, state)
    if grows:
        cells, bits = cells + COLLATERAL_CELLS, bits + COLLATERAL_BITS
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
        *_code_checks("court", observed.court, Contract.COURT),
        Check("court state", desired.court_state.to_cell().hash.hex(), _data_hash(observed.court)),
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
            Check("job code", want.job_code.hash.hex(), have.job_code.hash.hex()),
            Check("court of the registry", want.court.hex(), have.court.hex()),
            Check("treasury", want.treasury.hex(), have.treasury.hex()),
            Check("endorsements of an image", _rebuilders(want.rebuilders), _rebuilders(have.rebuilders)),
            Check("time-lock", f"{want.time_lock} s", f"{have.time_lock} s"),
            Check("births that are stopped", str(want.stopped), str(have.stopped)),
            Check("who is to govern next", _account(want.candidate), _account(have.candidate)),
            Check("proposals", _proposals(want), _proposals(have)),
        ]
        checks += [
            Check(name, str(getattr(want.parameters, name)), str(getattr(have.parameters, name)))
            for name in Parameters.__slots__
        ]
    return (*checks, *_verifier_checks(desired, verifier_state(observed.attestation)))


def _data_hash(account: AccountState) -> str:
    return "absent" if account.data is None else account.data.hash.hex()


def _rebuilders(rebuilders: Rebuilders) -> str:
    names = ", ".join(sorted(account.hex() for account in rebuilders.accounts))
    return f"{rebuilders.needed} of {names or 'nobody'}"


def _account(account: bytes | None) -> str:
    return "nobody" if account is None else account.hex()


def _proposals(state: RegistryState) -> str:
    """What may be executed soon, or at once: a time-lock holds back nothing that was proposed before one looked."""
    return ", ".join(sorted(action.hex() for action in state.proposals)) or "none"


def _verifier_checks(desired: Desired, have: VerifierState | None) -> list[Check]:
    if have is None:
        return [Check("verifier state", "genesis done", "no readable state")]
    want = desired.verifier
    checks = _identity_checks(desired, have)
    for name in ("floor", "ceiling", "longest_seconds"):
        checks.append(Check(f"policy {name}", str(getattr(want.policy, name)), str(getattr(have.policy, name))))
    statuses = (", ".join(sorted(policy.accepted_statuses)) for policy in (want.policy, have.policy))
    flags_match = want.policy.to_cell().hash == have.policy.to_cell().hash
    return [
        *checks,
        Check("policy statuses", *statuses),
        Check("policy as a whole", "as in the profile", "as in the profile" if flags_match else "differs"),
        Check("images", _images(want.images), _images(have.images)),
    ]


def _identity_checks(desired: Desired, have: VerifierState | None) -> list[Check]:
    """What never changes after genesis; empty where there is no state to read."""
    if have is None:
        return []
    want = desired.verifier
    network = network_id(desired.global_id, desired.registry)
    return [
        Check("registry of the verifier", desired.registry.hex(), have.registry.hex()),
        Check("network of the verifier", network.hex(), have.network_id.hex()),
        Check("root key", want.root_key.hex(), have.root.key.hex()),
        Check("root", _root_name(want.simulated), _root_name(have.simulated)),
    ]


def _root_name(simulated: bool) -> str:
    return "test root, proves no hardware" if simulated else "Intel SGX Root CA"


def _images(images: Mapping[bytes, ChainImage]) -> str:
    if not images:
        return "none"
    return ", ".join(sorted(f"{measurement.hex()} ({_image(image)})" for measurement, image in images.items()))


def _image(image: ChainImage) -> str:
    launch = f", launch {image.launch.hex()}" if image.launch != NO_LAUNCH else ""
    return f"tier {image.tier}, {image.status.name.lower()}{launch}"


def verifier_state(account: AccountState) -> VerifierState | None:
    """None before the genesis, or where another contract stands."""
    if account.data is None:
        return None
    try:
        return VerifierState.from_cell(account.data)
    except CellError:
        return None


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
