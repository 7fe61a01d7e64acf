"""The registry: one per network. Its state, what governs it, and the births of nodes, escrows and jobs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from pytoniq_core import Builder, Cell, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.code import living_code, size_of
from wrappers.dicts import Ids, ids_cell, load_ids
from wrappers.escrow import EscrowConfig
from wrappers.job import JobConfig
from wrappers.node import NodeConfig
from wrappers.ops import Op
from wrappers.rows import NOBODY, Fee, fee_builder, load_fee


@dataclass(frozen=True, slots=True)
class Parameters:
    """What every child freezes at its birth. Times in seconds."""

    min_stake_nano: int
    min_deposit_nano: int
    gas_level_nano: int
    """A node keeps this much for gas beside its stake; what it earns above leaves to the payout address."""
    payout_threshold_nano: int
    unbonding: int
    claim_window: int
    challenge_window: int
    min_close_timer: int
    max_close_timer: int
    fee: int = 0
    """The treasury's share of each payment, in 1/10000; at most 500."""


STOP_NODES, STOP_ESCROWS, STOP_JOBS = 1, 2, 4
DAY_SECONDS = 86_400
PROPOSAL_LIFE = 14 * DAY_SECONDS
"""A proposal may be executed from the end of its time-lock for this long."""
MAX_PROPOSALS = 8
MAX_ENDORSERS = 1024
"""Of one proposal, with those who are rebuilders no more: what the contract bounds is who they are at one time."""
MAX_MODELS = 1 << 16
"""As many cells as an account may have."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """TL-B: Proposal."""

    ready_at: int
    """When it may be executed, unix seconds."""
    settings: bool
    """Executing other settings drops it."""
    endorsed: frozenset[bytes] = frozenset()
    """Rebuilders who made the same image from the same sources."""

    def to_builder(self) -> Builder:
        cell = begin_cell().store_uint(self.ready_at, 32).store_bit(int(self.settings))
        return cell.store_dict(id_set(self.endorsed))

    @classmethod
    def from_slice(cls, s: Slice) -> Self:
        ready_at, settings = s.load_uint(32), bool(s.load_bit())
        return cls(ready_at, settings, frozenset(load_ids(s, lambda _: None, MAX_ENDORSERS)))


@dataclass(frozen=True, slots=True)
class Rebuilders:
    """Who must have rebuilt an image before it may serve. TL-B: Rebuilders."""

    needed: int = 0
    """Endorsements that a new image needs. 0 only from genesis on, and never on the main network."""
    accounts: frozenset[bytes] = frozenset()
    """At most 16."""

    def to_cell(self) -> Cell:
        return begin_cell().store_uint(self.needed, 8).store_dict(id_set(self.accounts)).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        return cls(s.load_uint(8), frozenset(load_ids(s, lambda _: None)))


def id_set(ids: Collection[bytes]) -> Cell | None:
    """HashmapE 256 True."""
    return ids_cell(dict.fromkeys(sorted(ids)), lambda _: begin_cell())


@dataclass(frozen=True, slots=True)
class Settings:
    """All that governance may change, for children that are born later. TL-B: Settings."""

    parameters: Parameters
    attestation: bytes
    stub_prefix: bytes
    court: bytes
    """Who may slash; like `attestation` the same for every node of a network."""
    node_code: Cell
    escrow_code: Cell
    job_code: Cell
    treasury: bytes
    time_lock: int
    """Seconds that a proposal waits; 1 to 30 days."""
    stopped: int = 0
    """What may not be opened: STOP_NODES, STOP_ESCROWS, STOP_JOBS, or some of them."""

    def node_terms(self) -> Cell:
        p = self.parameters
        cells, bits = size_of(living_code(self.node_code))
        trusted = begin_cell().store_bytes(self.attestation).store_bytes(self.court).end_cell()
        terms = begin_cell().store_bytes(self.stub_prefix)
        terms.store_coins(p.gas_level_nano).store_coins(p.payout_threshold_nano)
        terms.store_uint(p.unbonding, 32).store_uint(p.claim_window, 32).store_uint(p.challenge_window, 32)
        terms.store_uint(cells, 16).store_uint(bits, 32).store_ref(self.node_code)
        return terms.store_ref(trusted).end_cell()

    def escrow_terms(self) -> Cell:
        p = self.parameters
        cells, bits = size_of(living_code(self.escrow_code))
        terms = begin_cell().store_uint(p.min_close_timer, 32).store_uint(p.max_close_timer, 32)
        terms.store_uint(cells, 16).store_uint(bits, 32).store_ref(self.escrow_code)
        return terms.store_cell(fee_builder(self.fee).end_cell()).end_cell()

    def job_terms(self) -> Cell:
        cells, bits = size_of(living_code(self.job_code))
        terms = begin_cell().store_bytes(self.court).store_uint(cells, 16).store_uint(bits, 32)
        return terms.store_ref(self.job_code).end_cell()

    @property
    def fee(self) -> Fee | None:
        """What escrows that are born under these settings freeze."""
        return Fee(self.parameters.fee, self.treasury) if self.parameters.fee else None

    def to_cell(self) -> Cell:
        """As an action that can be proposed."""
        p = self.parameters
        cell = (
            begin_cell()
            .store_uint(Op.SETTINGS, 32)
            .store_uint(self.stopped, 8)
            .store_coins(p.min_stake_nano)
            .store_coins(p.min_deposit_nano)
        )
        cell.store_bytes(self.treasury).store_uint(self.time_lock, 32)
        cell.store_ref(self.node_terms()).store_ref(self.escrow_terms())
        return cell.store_ref(self.job_terms()).end_cell()


def _models_root(models: Mapping[bytes, bool]) -> Cell | None:
    if isinstance(models, Ids):
        return models.root
    return ids_cell(models, lambda revoked: begin_cell().store_bit(int(revoked)))


@dataclass(frozen=True, slots=True)
class RegistryState:
    """TL-B: RegistryData."""

    governor: bytes
    network_id: bytes
    attestation: bytes
    parameters: Parameters
    stub_code: Cell
    node_code: Cell
    escrow_code: Cell
    job_code: Cell
    court: bytes = NOBODY
    treasury: bytes = NOBODY
    time_lock: int = 2 * DAY_SECONDS
    stopped: int = 0
    candidate: bytes | None = None
    """Who was offered to govern and has not accepted yet."""
    proposals: Mapping[bytes, Proposal] = field(default_factory=dict)
    """By the hash of their actions."""
    models: Mapping[bytes, bool] = field(default_factory=dict)
    """Whether each listed model was revoked, by the hash of its bytes. Grows: reading a state does not walk it."""
    rebuilders: Rebuilders = field(default_factory=Rebuilders)

    @property
    def stub_prefix(self) -> bytes:
        """What the StateInit of every child hashes before the hash of its data (39 bytes)."""
        depth = self.stub_code.get_depth(0)
        return b"\x02\x01\x34" + depth.to_bytes(2, "big") + bytes(2) + bytes(self.stub_code.hash)

    @property
    def settings(self) -> Settings:
        """What a proposal replaces."""
        return Settings(
            self.parameters,
            self.attestation,
            self.stub_prefix,
            self.court,
            self.node_code,
            self.escrow_code,
            self.job_code,
            self.treasury,
            self.time_lock,
            self.stopped,
        )

    def to_cell(self) -> Cell:
        p, settings = self.parameters, self.settings
        root = begin_cell().store_bytes(self.governor).store_bytes(self.attestation).store_bytes(self.stub_prefix)
        root.store_uint(self.stopped, 8).store_coins(p.min_stake_nano).store_coins(p.min_deposit_nano)
        root.store_ref(self.stub_code).store_ref(settings.node_terms()).store_ref(settings.escrow_terms())
        more = begin_cell().store_bytes(self.network_id).store_bytes(self.candidate or NOBODY)
        more.store_bytes(self.treasury).store_uint(self.time_lock, 32)
        more.store_dict(ids_cell(self.proposals, Proposal.to_builder))
        more.store_maybe_ref(_models_root(self.models))
        more.store_ref(self.rebuilders.to_cell()).store_ref(settings.job_terms())
        return root.store_ref(more.end_cell()).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        """Raises CellError for anything else, a registry before its genesis included."""
        try:
            root = cell.begin_parse()
            governor, attestation, prefix = root.load_bytes(32), root.load_bytes(32), root.load_bytes(39)
            stopped, min_stake, min_deposit = root.load_uint(8), root.load_coins() or 0, root.load_coins() or 0
            stub, node, escrow = root.load_ref(), root.load_ref().begin_parse(), root.load_ref().begin_parse()
            more = root.load_ref().begin_parse()
            network, candidate, treasury = more.load_bytes(32), more.load_bytes(32), more.load_bytes(32)
            time_lock, proposals = more.load_uint(32), load_ids(more, Proposal.from_slice)
            models = Ids(more.load_maybe_ref(), lambda value: bool(value.load_bit()), MAX_MODELS)
            rebuilders, job = Rebuilders.from_cell(more.load_ref()), more.load_ref().begin_parse()
            node.skip_bits(312)
            gas_level, threshold = node.load_coins() or 0, node.load_coins() or 0
            unbonding, claim_window, challenge_window = (node.load_uint(32) for _ in range(3))
            min_timer, max_timer = escrow.load_uint(32), escrow.load_uint(32)
            node_code, trusted = node.load_ref(), node.load_ref().begin_parse()
            trusted.skip_bits(256)
            escrow.skip_bits(16 + 32)
            court, escrow_code, job_code = trusted.load_bytes(32), escrow.load_ref(), job.load_ref()
            fee = load_fee(escrow)
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a registry's state: {error}") from error
        parameters = Parameters(
            min_stake,
            min_deposit,
            gas_level,
            threshold,
            unbonding,
            claim_window,
            challenge_window,
            min_timer,
            max_timer,
            fee.share if fee is not None else 0,
        )
        state = cls(
            governor,
            network,
            attestation,
            parameters,
            stub,
            node_code,
            escrow_code,
            job_code,
            court,
            treasury,
            time_lock,
            stopped,
            candidate if candidate != NOBODY else None,
            proposals,
            models,
            rebuilders,
        )
        if state.stub_prefix != prefix or state.to_cell().hash != cell.hash:
            raise CellError("not a registry's state: it does not agree with itself")
        return state


def genesis(signature: bytes, state: Cell) -> Cell:
    """Body that sets a singleton's state; `signature` is over `signed.GenesisState`. From anyone, once."""
    return begin_cell().store_uint(Op.GENESIS, 32).store_bytes(signature).store_ref(state).end_cell()


def open_node(code_hash: bytes, index: int, config: NodeConfig) -> Cell:
    """Body to the registry: the sender becomes the owner; all value above fees and reserves is the stake."""
    body = begin_cell().store_uint(Op.OPEN_NODE, 32).store_bytes(code_hash).store_uint(index, 32)
    return body.store_ref(config.to_cell()).end_cell()


def open_escrow(code_hash: bytes, index: int, config: EscrowConfig) -> Cell:
    """Body to the registry: the sender becomes the owner; all value above fees and reserves is the deposit."""
    body = begin_cell().store_uint(Op.OPEN_ESCROW, 32).store_bytes(code_hash).store_uint(index, 32)
    return body.store_ref(config.to_cell()).end_cell()


def open_job(code_hash: bytes, index: int, config: JobConfig) -> Cell:
    """Body to the registry, from an escrow, which becomes the owner: what fees and rent leave is for the job."""
    body = begin_cell().store_uint(Op.OPEN_JOB, 32).store_bytes(code_hash).store_uint(index, 32)
    return body.store_ref(config.to_cell()).end_cell()
