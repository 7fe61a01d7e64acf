"""The attestation contract on the emulated ledger. For its tests and `cocoon attest onchain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Builder, Cell, HashMap, begin_cell

from attestation.collateral import Collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.collateral import collateral_messages
from attestation.onchain.messages import governed
from attestation.onchain.state import ChainImage, ChainPolicy, genesis_state
from attestation.simulated.collateral import mint
from attestation.trust_roots import root
from chain.outgoing import Outgoing
from chain.wallet import Wallet, external_message
from devnet.ledger import Ledger
from devnet.trace import Trace
from scripts.stage import TON, key_of, public
from wrappers.addresses import singleton_address, singleton_state_init
from wrappers.code import Contract, code
from wrappers.ops import Op
from wrappers.signed import GenesisState, network_id, sign


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one message did. Amounts nanoTON; `all_in_nano`: all fees of the trace, those of the wallet included."""

    exit_code: int | None
    gas: int
    all_in_nano: int
    trace: Trace

    @property
    def accepted(self) -> bool:
        return self.exit_code == 0 and not self.trace.failed


@dataclass
class Stage:
    """The verifier on the emulated ledger, its registry a plain account, with a wallet that sends everything."""

    ledger: Ledger
    root_key: bytes
    policy: ChainPolicy = field(default_factory=ChainPolicy)
    images: dict[bytes, ChainImage] = field(default_factory=dict)
    registry: bytes = field(default_factory=lambda: sha256(b"account registry").digest())
    genesis_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("genesis"))
    wallet: Wallet = field(default_factory=lambda: Wallet(key_of("stranger")))

    def __post_init__(self) -> None:
        self.code = code(Contract.ATTESTATION)
        self.account = singleton_address(self.code, public(self.genesis_key), 0)
        self.network = network_id(self.ledger.global_id, self.registry)
        self.ledger.faucet(self.wallet.account, 1_000_000 * TON)
        self.send(self.wallet.account, 1, None)

    def deploy(self) -> Trace:
        state = genesis_state(self.registry, self.network, self.root_key, self.policy, self.images)
        signature = sign(GenesisState(self.ledger.global_id, self.account, bytes(state.hash)), self.genesis_key)
        return self.ledger.send_internal(
            source=self.registry,
            destination=self.account,
            value_nano=10 * TON,
            body=begin_cell().store_uint(Op.GENESIS, 32).store_bytes(signature).store_ref(state).end_cell(),
            state_init=singleton_state_init(self.code, public(self.genesis_key), 0),
        )

    def send(self, destination: bytes, value_nano: int, body: Cell | None) -> Trace:
        state = self.ledger.account(self.wallet.account)
        fresh = state.data is None
        seqno = 0 if state.data is None else int(state.data.begin_parse().load_uint(32))
        message = external_message(
            self.wallet,
            [Outgoing(destination, value_nano, body)],
            seqno=seqno,
            valid_until=self.ledger.now + 60,
            with_init=fresh,
        )
        return self.ledger.send_external(message)

    def tell(self, body: Cell, value_nano: int = TON) -> Outcome:
        """A message from the wallet."""
        return self.outcome(self.send(self.account, value_nano, body))

    def govern(self, action: Cell) -> Outcome:
        """An action of wrappers.governance, as the registry passes it on for the wallet."""
        body = governed(self.wallet.account, action)
        trace = self.ledger.send_internal(source=self.registry, destination=self.account, value_nano=TON, body=body)
        return self.outcome(trace)

    def outcome(self, trace: Trace) -> Outcome:
        tx = trace.of(self.account)[0]
        return Outcome(tx.exit_code, tx.gas_used, trace.total_fees_nano, trace)

    def load(self, collateral: Collateral) -> dict[str, Outcome]:
        """Everything that `collateral` holds, each as its own message, in the order that the contract needs."""
        return {name: self.tell(body) for name, body in collateral_messages(collateral, self.root_key)}


def bare_state(images: Mapping[bytes, ChainImage], platforms: Mapping[bytes, tuple[bool, bytes]] | None = None) -> Cell:
    """A verifier's state as far as clients and relayers look into it, with the test root's collateral.

    `platforms`: whether each is denied, and the node that it serves.
    """
    known = HashMap(256, value_serializer=lambda image, builder: builder.store_cell(image.to_cell()))
    for measurement, image in images.items():
        known.set_int_key(int.from_bytes(measurement, "big"), image)
    served = HashMap(256, value_serializer=_store_platform)
    for platform, value in (platforms or {}).items():
        served.set_int_key(int.from_bytes(platform, "big"), value)
    state = begin_cell().store_bytes(bytes(64)).store_bit(1).store_maybe_ref(served.serialize() if platforms else None)
    state.store_maybe_ref(known.serialize() if images else None)
    policy, collateral = _policy_and_collateral()
    return state.store_ref(policy).store_ref(collateral).end_cell()


@cache
def _policy_and_collateral() -> tuple[Cell, Cell]:
    stage = Stage(Ledger(), public_key(root(Kind.SIMULATED).der))
    stage.deploy()
    stage.load(mint(stage.ledger.now))
    data = stage.ledger.account(stage.account).data
    assert data is not None
    return data.refs[-2], data.refs[-1]


def _store_platform(value: tuple[bool, bytes], builder: Builder) -> Builder:
    denied, node = value
    return builder.store_bit(denied).store_bytes(node).store_uint(0, 34).store_bit(0)
