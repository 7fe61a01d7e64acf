"""A small network on the emulated ledger: registry, verifier, wallets. For contract tests and the gas table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytoniq_core import Cell

from attestation.evidence import Kind as EvidenceKind
from attestation.onchain.certificates import public_key
from attestation.onchain.collateral import collateral_messages
from attestation.onchain.fees import attest as attest_need
from attestation.onchain.state import ChainImage, ChainPolicy, genesis_state
from attestation.report_data import NO_GPU, Binding
from attestation.simulated.collateral import mint
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.trust_roots import root
from attestation.witness import attest_message
from chain.api import Status
from chain.outgoing import Outgoing
from chain.wallet import Wallet, external_message
from devnet.ledger import Ledger
from devnet.trace import Trace
from wrappers import addresses, claims, escrow, node, registry, verdicts
from wrappers.addresses import Kind
from wrappers.claims import ClaimEntry, Entry
from wrappers.code import Contract, code, code_hash
from wrappers.court import CourtState
from wrappers.fees import Fees
from wrappers.prices import Prices
from wrappers.receipts import Receipt, Voucher
from wrappers.registry import Parameters, Rebuilders, RegistryState
from wrappers.rows import Fee, RowTerms, Shares
from wrappers.signed import Claim, GenesisState, KeyConsent, Release, network_id, sign

TON = 1_000_000_000
HOUR = 3600
DAY = 86_400
NO_HASH = bytes(32)
TERMS = sha256(b"terms").digest()
SIMULATED_ROOT = public_key(root(EvidenceKind.SIMULATED).der)
GENESIS_NANO = 10 * TON
PARAMETERS = Parameters(
    min_stake_nano=5 * TON,
    min_deposit_nano=TON // 10,
    gas_level_nano=TON // 2,
    payout_threshold_nano=TON // 5,
    unbonding=3 * DAY,
    claim_window=7 * DAY,
    challenge_window=2 * DAY,
    min_close_timer=HOUR,
    max_close_timer=7 * DAY,
)


def key_of(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def account_of_name(name: str) -> bytes:
    return sha256(b"account " + name.encode()).digest()


@dataclass
class World:
    """Acts for honest parties; tests act for the others. Amounts nanoTON."""

    ledger: Ledger
    genesis_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("genesis"))
    governor: Wallet = field(default_factory=lambda: Wallet(key_of("governor")))
    operator: Wallet = field(default_factory=lambda: Wallet(key_of("operator")))
    client: Wallet = field(default_factory=lambda: Wallet(key_of("client")))
    stranger: Wallet = field(default_factory=lambda: Wallet(key_of("stranger")))
    voucher_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("voucher"))
    enclave_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("enclave"))
    release_key: Ed25519PrivateKey = field(default_factory=lambda: key_of("release"))
    payout: bytes = field(default_factory=lambda: Wallet(key_of("payout")).account)
    treasury: bytes = field(default_factory=lambda: account_of_name("treasury"))
    parameters: Parameters = PARAMETERS
    verifier: bool = False
    """Whether the network has the real verifier, under the simulated root, for which every verdict needs a quote. Else
    `attestation` is a plain account whose verdicts `attest` makes up: enough for what nodes do with them, and fast."""
    rebuilders: Rebuilders = field(default_factory=lambda: Rebuilders(1, frozenset({account_of_name("rebuilder")})))
    machine: SimulatedTee = field(default_factory=lambda: SimulatedTee(b"machine"))

    def __post_init__(self) -> None:
        self.registry = addresses.singleton_address(code(Contract.REGISTRY), public(self.genesis_key), 0)
        self.attestation = account_of_name("attestation")
        if self.verifier:
            self.attestation = addresses.singleton_address(code(Contract.ATTESTATION), public(self.genesis_key), 0)
        self.court = addresses.singleton_address(code(Contract.COURT), public(self.genesis_key), 0)
        self.network = network_id(self.ledger.global_id, self.registry)
        self.fees = Fees(Prices.from_config(self.ledger.config), self.parameters)

    # ------------------------------------------------------------------------------------------ deployment

    @property
    def registry_state(self) -> RegistryState:
        return RegistryState(
            self.governor.account,
            self.network,
            self.attestation,
            self.parameters,
            code(Contract.STUB),
            code(Contract.NODE),
            code(Contract.ESCROW),
            code(Contract.JOB),
            court=self.court,
            treasury=self.treasury if self.parameters.fee else NO_HASH,
            rebuilders=self.rebuilders,
        )

    def genesis_body(self, account: bytes, state: Cell, key: Ed25519PrivateKey | None = None) -> Cell:
        signature = sign(GenesisState(self.ledger.global_id, account, bytes(state.hash)), key or self.genesis_key)
        return registry.genesis(signature, state)

    @property
    def verifier_state(self) -> Cell:
        """The verifier's genesis state: the simulated root, the simulated worker's image."""
        images = {Registers.of_image().measurement: ChainImage()}
        return genesis_state(self.registry, self.network, SIMULATED_ROOT, ChainPolicy(), images)

    def deploy(self) -> None:
        self._deploy(Contract.REGISTRY, self.registry, self.registry_state.to_cell())
        court_state = CourtState(self.registry, self.registry_state.stub_prefix, self.treasury)
        self._deploy(Contract.COURT, self.court, court_state.to_cell())
        if self.verifier:
            self._deploy(Contract.ATTESTATION, self.attestation, self.verifier_state)
            for name, body in collateral_messages(mint(self.ledger.now), SIMULATED_ROOT):
                assert not self.tell(self.stranger.account, self.attestation, TON, body).failed, name

    def _deploy(self, contract: Contract, account: bytes, state: Cell) -> None:
        trace = self.ledger.send_internal(
            source=self.governor.account,
            destination=account,
            value_nano=GENESIS_NANO,
            body=self.genesis_body(account, state),
            state_init=addresses.singleton_state_init(code(contract), public(self.genesis_key), 0),
        )
        assert not trace.failed

    def fund_wallets(self, *wallets: Wallet) -> None:
        """Give every wallet money and have it deployed, so that later sends cost what they cost every day."""
        for wallet in wallets:
            self.ledger.faucet(wallet.account, 1_000 * TON)
            self.send(wallet, wallet.account, 1, None)

    # ------------------------------------------------------------------------------------------ sending

    def send(
        self, wallet: Wallet, destination: bytes, value_nano: int, body: Cell | None, *, run: bool = True
    ) -> Trace:
        """A real transaction of a v4r2 wallet."""
        state = self.ledger.account(wallet.account)
        fresh = state.status is not Status.ACTIVE or state.data is None
        seqno = 0 if fresh or state.data is None else int(state.data.begin_parse().load_uint(32))
        message = external_message(
            wallet,
            [Outgoing(destination, value_nano, body)],
            seqno=seqno,
            valid_until=self.ledger.now + 60,
            with_init=fresh,
        )
        return self.ledger.send_external(message, run=run)

    def tell(self, source: bytes, destination: bytes, value_nano: int, body: Cell | None) -> Trace:
        """A message from an account that has no wallet; its value is minted."""
        return self.ledger.send_internal(source=source, destination=destination, value_nano=value_nano, body=body)

    # ------------------------------------------------------------------------------------------ births

    def open_node(
        self, wallet: Wallet | None = None, index: int = 0, value_nano: int | None = None
    ) -> tuple[bytes, Trace]:
        wallet = wallet or self.operator
        config = node.NodeConfig(wallet.account, self.payout, public(self.release_key))
        body = registry.open_node(code_hash(Contract.NODE), index, config)
        trace = self.send(wallet, self.registry, value_nano or self.fees.open_node(), body)
        return addresses.child_address(self.registry, Kind.NODE, wallet.account, index), trace

    def open_escrow(
        self,
        wallet: Wallet | None = None,
        index: int = 0,
        value_nano: int | None = None,
        first: escrow.FirstAllotment | None = None,
    ) -> tuple[bytes, Trace]:
        wallet = wallet or self.client
        config = escrow.EscrowConfig(public(self.voucher_key), first)
        body = registry.open_escrow(code_hash(Contract.ESCROW), index, config)
        shared = first is not None and first.terms.shares is not None
        value = value_nano or self.fees.open_escrow(0, first.amount_nano if first else None, shared=shared)
        trace = self.send(wallet, self.registry, value, body)
        return addresses.child_address(self.registry, Kind.ESCROW, wallet.account, index), trace

    def row_terms(self, close_timer: int = HOUR, shares: Shares | None = None) -> RowTerms:
        return RowTerms(public(self.release_key), close_timer, shares)

    @property
    def shares(self) -> Shares:
        """Ten percent to a relayer, five for a royalty, and what the network takes."""
        fee = Fee(self.parameters.fee, self.treasury) if self.parameters.fee else None
        return Shares(1000, 500, account_of_name("relayer"), account_of_name("royalty"), fee)

    def verdict(self, account: bytes, key: Ed25519PrivateKey | None = None, **changes: int) -> verdicts.VerdictBody:
        state = self.node(account)
        return verdicts.VerdictBody(
            changes.get("epoch", state.epoch),
            public(key or self.enclave_key),
            changes.get("attested_until", self.ledger.now + DAY),
            changes.get("block_seqno", state.block_seqno + 1),
            changes.get("tier", 1),
            measurement=b"\x11" * 32,
            platform=b"\x22" * 32,
        )

    def consent(self, account: bytes, key: Ed25519PrivateKey | None = None) -> bytes:
        return sign(KeyConsent(self.node(account).node_id, public(key or self.enclave_key)), self.release_key)

    def attest(self, account: bytes, key: Ed25519PrivateKey | None = None, **changes: int) -> Trace:
        """Attests a key for a node: by a quote sent to the verifier, or as the account that stands for it."""
        if not self.verifier:
            body = verdicts.verdict(self.verdict(account, key, **changes), self.consent(account, key))
            return self.tell(self.attestation, account, self.fees.verdict(), body)
        assert not changes, "the verifier says what a verdict holds"
        block = self.ledger.prev_blocks.hundreds[0]
        epoch = self.node(account).epoch
        binding = Binding(
            self.network, account, epoch, public(key or self.enclave_key), NO_GPU, block.seqno, block.root_hash
        )
        quote = self.machine.quote(binding.report_data())
        body = attest_message(quote, binding, consent=self.consent(account, key))
        return self.send(self.operator, self.attestation, attest_need(self.fees.prices), body)

    # ------------------------------------------------------------------------------------------ state

    def node(self, account: bytes) -> node.NodeState:
        data = self.ledger.account(account).data
        assert data is not None
        state = node.NodeState.from_cell(data)
        assert state is not None
        assert state.to_cell().hash == data.hash
        return state

    def escrow(self, account: bytes) -> escrow.EscrowState:
        data = self.ledger.account(account).data
        assert data is not None
        state = escrow.EscrowState.from_cell(data, account)
        assert state is not None
        assert state.to_cell().hash == data.hash
        return state

    def alive(self, account: bytes) -> bool:
        return self.ledger.account(account).status is Status.ACTIVE

    # ------------------------------------------------------------------------------------------ signed structures

    def entry(
        self,
        account: bytes,
        node_account: bytes,
        cumulative: int,
        *,
        cap: int | None = None,
        acked: int = 0,
        seq: int = 1,
        key: Ed25519PrivateKey | None = None,
        voucher_key: Ed25519PrivateKey | None = None,
        allotment: bytes | None = None,
    ) -> Entry:
        cap = cumulative if cap is None else cap
        allotment = allotment or self.escrow(account).rows[node_account].allotment
        voucher = Voucher(allotment, public(key or self.enclave_key), cap, acked, TERMS)
        signature = sign(voucher, voucher_key or self.voucher_key)
        return Entry(cumulative, seq, cap, acked, TERMS, signature)

    def receipt(self, account: bytes, node_account: bytes, entry: Entry) -> Receipt:
        return Receipt(
            self.escrow(account).rows[node_account].allotment,
            self.node(node_account).node_id,
            entry.seq,
            entry.terms,
            entry.cumulative_nano,
            entry.cumulative_nano,
            NO_HASH,
            NO_HASH,
        )

    def claim_external(
        self,
        account: bytes,
        entries: Sequence[ClaimEntry],
        *,
        key: Ed25519PrivateKey | None = None,
        **changes: int,
    ) -> Cell:
        state = self.node(account)
        seqno = changes.get("seqno", state.seqno)
        valid_until = changes.get("valid_until", self.ledger.now + 60)
        tokens = changes.get("tokens", state.tokens + 100)
        entries_cell, roots_cell = claims.batch(entries)
        signed = Claim(
            state.node_id, seqno, valid_until, len(entries), tokens, bytes(entries_cell.hash), bytes(roots_cell.hash)
        )
        signature = sign(signed, key or self.enclave_key)
        return claims.claim_message(account, signature, seqno, valid_until, tokens, entries)

    def claim(self, account: bytes, entries: Sequence[ClaimEntry], *, tokens: int | None = None) -> Trace:
        changes = {} if tokens is None else {"tokens": tokens}
        return self.ledger.send_external(self.claim_external(account, entries, key=None, **changes))

    def settle_one(self, account: bytes, node_account: bytes, cumulative: int, *, seq: int = 1) -> Trace:
        entry = self.entry(account, node_account, cumulative, seq=seq)
        return self.claim(node_account, [ClaimEntry(account, entry, NO_HASH)])

    def release(self, account: bytes, node_account: bytes, allotted: int) -> bytes:
        row = self.escrow(account).rows[node_account]
        return sign(Release(row.allotment, row.seqno, allotted), self.release_key)


def built_world(global_id: int | None = None, *, verifier: bool = False, fee: int = 0) -> World:
    ledger = Ledger() if global_id is None else Ledger(global_id=global_id)
    world = World(ledger, verifier=verifier, parameters=replace(PARAMETERS, fee=fee))
    world.deploy()
    world.fund_wallets(world.governor, world.operator, world.client, world.stranger)
    world.ledger.faucet(world.payout, TON)
    return world


@dataclass(frozen=True)
class Pair:
    """A registered, attested node and an escrow with 2 TON allotted to it."""

    node: bytes
    escrow: bytes


def make_pair(world: World) -> Pair:
    node_account, trace = world.open_node()
    assert not trace.failed
    assert not world.attest(node_account).failed
    first = escrow.FirstAllotment(node_account, 2 * TON, world.row_terms())
    account, trace = world.open_escrow(first=first, value_nano=world.fees.open_escrow(3 * TON, 2 * TON))
    assert not trace.failed
    return Pair(node_account, account)
