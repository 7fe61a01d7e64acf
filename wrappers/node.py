"""A node, one machine: what its owner chose, its state, and the payment it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from pytoniq_core import Builder, Cell, Slice, begin_cell

from wrappers.cells import CellError
from wrappers.dicts import ids_cell, load_ids
from wrappers.ops import Op
from wrappers.receipts import Terms
from wrappers.signed import node_id
from wrappers.verdicts import identity_cell

NO_KEY = bytes(32)
STUB_BITS = 552
MAX_RETIRED_KEYS = 32


@dataclass(frozen=True, slots=True)
class NodeExtras:
    """What only some operators use; made, and its rent paid, by the first message that needs it. TL-B: NodeExtras."""

    new_controller: bytes | None = None
    """Who was offered the role and has not accepted yet; `new_payout` likewise."""
    new_payout: bytes | None = None
    draining: bool = False
    """Clients and relayers give no new work."""
    offers: Mapping[bytes, Terms] = field(default_factory=dict)
    """Prices by model. Only an offer: what counts is what voucher and receipt name."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.new_controller or NO_KEY).store_bytes(self.new_payout or NO_KEY)
        offers = ids_cell(self.offers, lambda terms: begin_cell().store_ref(terms.to_cell()))
        return cell.store_bit(int(self.draining)).store_dict(offers).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        controller, payout, draining = s.load_bytes(32), s.load_bytes(32), bool(s.load_bit())
        offers = load_ids(s, lambda value: Terms.from_cell(value.load_ref()))
        return cls(None if controller == NO_KEY else controller, None if payout == NO_KEY else payout, draining, offers)


@dataclass(frozen=True, slots=True)
class RetiredKey:
    """A signing key that serves no more. TL-B: RetiredKey."""

    ends_at: int
    """Last second at which its claims are taken."""
    acked_only: bool
    """Its image was compromised or its platform denied: claims are paid only up to what the client acknowledged."""
    measurement: bytes


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the owner chooses at birth. TL-B: NodeConfig."""

    controller: bytes
    """Account that may unbond and withdraw the stake."""
    payout: bytes
    """Account that earnings and, at the end, the stake go to."""
    release_key: bytes
    extras: NodeExtras | None = None
    """None at opening."""

    def to_cell(self) -> Cell:
        cell = begin_cell().store_bytes(self.controller).store_bytes(self.payout).store_bytes(self.release_key)
        return cell.store_maybe_ref(self.extras.to_cell() if self.extras else None).end_cell()

    @classmethod
    def from_cell(cls, cell: Cell) -> Self:
        s = cell.begin_parse()
        controller, payout, release_key, extras = (
            s.load_bytes(32),
            s.load_bytes(32),
            s.load_bytes(32),
            s.load_maybe_ref(),
        )
        return cls(controller, payout, release_key, NodeExtras.from_cell(extras) if extras is not None else None)


def _retired_cell(key: RetiredKey) -> Builder:
    return begin_cell().store_bit(int(key.acked_only)).store_uint(key.ends_at, 32).store_bytes(key.measurement)


def _load_retired(value: Slice) -> RetiredKey:
    acked_only, ends_at = bool(value.load_bit()), value.load_uint(32)
    return RetiredKey(ends_at, acked_only, value.load_bytes(32))


@dataclass(frozen=True, slots=True)
class NodeState:
    """TL-B: NodeData. Amounts nanoTON, times unix seconds."""

    seqno: int
    tokens: int
    """All tokens that the enclave reported in its claims."""
    node_id: bytes
    signing_key: bytes | None
    acked_only: bool
    """Claims under `signing_key` are paid only up to what the client acknowledged."""
    claims_until: int
    """Last second at which claims under `signing_key` are taken; 0 without a key."""
    stake_nano: int
    requests: int
    earned_nano: int
    unbond_at: int
    """When unbonding began; 0 while bonded."""
    block_seqno: int
    tier: int
    retired: Mapping[bytes, RetiredKey]
    measurement: bytes | None
    platform: bytes | None
    controller: bytes
    payout: bytes
    release_key: bytes
    extras: NodeExtras | None
    registry: bytes
    stub_prefix: bytes = field(repr=False)
    gas_level_nano: int
    payout_threshold_nano: int
    rent_reserve_nano: int
    court: bytes
    owner: bytes
    index: int
    epoch: int
    attestation: bytes
    unbonding: int
    claim_window: int
    challenge_window: int

    @property
    def attested_until(self) -> int:
        """End of the signing key's verdict, or the moment unbonding cut it short; 0 without a key."""
        return self.claims_until - self.claim_window if self.signing_key else 0

    @property
    def withdrawable_at(self) -> int | None:
        """When the stake may leave; None while bonded."""
        if not self.unbond_at:
            return None
        return self.unbond_at + max(self.unbonding, self.claim_window) + self.challenge_window

    def answers_until(self, now: int) -> int:
        """Until when stake and serving key are here at least, were the one unbonded and the other retired at `now`."""
        return now + self.claim_window + self.challenge_window

    def belongs_to(self, network: bytes, account: bytes) -> bool:
        """Whether this is the state of `account` in the network of that id: the node id names both."""
        return self.node_id == node_id(network, account, self.epoch)

    @property
    def config(self) -> NodeConfig:
        return NodeConfig(self.controller, self.payout, self.release_key, self.extras)

    def key_attested(self, key: bytes, now: int) -> bool:
        """Whether new work may be given to `key` at `now`."""
        serving = key == self.signing_key and now <= self.attested_until
        return serving and not self.unbond_at and not self.acked_only

    def key_claimable(self, key: bytes, now: int) -> bool:
        """Whether a claim under `key` is taken at `now`; with `acked_only`, it is paid up to what was acknowledged."""
        if self.signing_key is not None and key == self.signing_key:
            return now <= self.claims_until
        retired = self.retired.get(key)
        return retired is not None and now <= retired.ends_at

    def key_acked_only(self, key: bytes) -> bool:
        """Whether claims under `key` are paid only up to what the client acknowledged."""
        retired = self.retired.get(key)
        return self.acked_only if key == self.signing_key else retired is not None and retired.acked_only

    @property
    def draining(self) -> bool:
        return self.extras is not None and self.extras.draining

    @property
    def offers(self) -> Mapping[bytes, Terms]:
        """Prices that the operator offers, by model."""
        return self.extras.offers if self.extras is not None else {}

    def to_cell(self) -> Cell:
        life = begin_cell().store_bytes(self.court).store_bytes(self.owner).store_uint(self.index, 32)
        life.store_uint(self.epoch, 64).store_bytes(self.attestation).store_uint(self.unbonding, 32)
        life.store_uint(self.claim_window, 32).store_uint(self.challenge_window, 32)
        static = begin_cell().store_uint(0x008A, 16).store_bytes(self.registry).store_uint(1, 7)
        static.store_bytes(self.stub_prefix)
        static.store_coins(self.gas_level_nano + self.payout_threshold_nano).store_coins(self.gas_level_nano)
        static.store_coins(self.rent_reserve_nano).store_ref(life.end_cell())
        identity = None
        if self.measurement is not None and self.platform is not None:
            identity = identity_cell(self.measurement, self.platform)
        root = begin_cell().store_uint(self.stake_nano + self.rent_reserve_nano, 64)
        root.store_uint(self.earned_nano, 64).store_uint(self.requests, 40)
        root.store_uint(self.tokens, 64).store_uint(self.seqno, 32).store_bytes(self.node_id)
        root.store_bytes(self.signing_key or NO_KEY).store_bit(int(self.acked_only)).store_uint(self.claims_until, 32)
        root.store_ref(static.end_cell()).store_ref(self.config.to_cell())
        root.store_uint(self.unbond_at, 32).store_uint(self.block_seqno, 32).store_uint(self.tier, 8)
        root.store_uint(len(self.retired), 8).store_dict(ids_cell(self.retired, _retired_cell))
        root.store_maybe_ref(identity)
        return root.end_cell()

    @classmethod
    def from_cell(cls, data: Cell) -> Self | None:
        """None while the account is still a stub. Raises CellError for what is not a node."""
        if len(data.bits) == STUB_BITS and not data.refs:
            return None
        try:
            return cls._parse(data)
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not a node's state: {error}") from error

    @classmethod
    def _parse(cls, data: Cell) -> Self:
        s = data.begin_parse()
        locked, earned, requests = s.load_uint(64), s.load_uint(64), s.load_uint(40)
        tokens, seqno, id_, key, acked_only, claims_until = (
            s.load_uint(64),
            s.load_uint(32),
            s.load_bytes(32),
            s.load_bytes(32),
            bool(s.load_bit()),
            s.load_uint(32),
        )
        static, config = s.load_ref(), NodeConfig.from_cell(s.load_ref())
        unbond_at, block_seqno, tier = s.load_uint(32), s.load_uint(32), s.load_uint(8)
        count, retired = s.load_uint(8), load_ids(s, _load_retired)
        identity_cell = s.load_maybe_ref()
        t = static.begin_parse()
        if t.load_uint(16) != 0x008A:
            raise CellError("the sibling prefix is missing")
        registry = t.load_bytes(32)
        t.skip_bits(7)
        stub_prefix, forward_above, gas_level, rent = (
            t.load_bytes(39),
            t.load_coins() or 0,
            t.load_coins() or 0,
            t.load_coins() or 0,
        )
        life = t.load_ref().begin_parse()
        court, owner, index, epoch = life.load_bytes(32), life.load_bytes(32), life.load_uint(32), life.load_uint(64)
        attestation, unbonding, claim_window, challenge_window = (
            life.load_bytes(32),
            life.load_uint(32),
            life.load_uint(32),
            life.load_uint(32),
        )
        if s.remaining_bits or s.remaining_refs or t.remaining_bits or life.remaining_bits:
            raise CellError("data beyond the end")
        if count != len(retired):
            raise CellError("the count of retired keys is wrong")
        identity = identity_cell.begin_parse() if identity_cell is not None else None
        return cls(
            seqno=seqno,
            tokens=tokens,
            node_id=id_,
            signing_key=None if key == NO_KEY else key,
            acked_only=acked_only,
            claims_until=claims_until,
            stake_nano=locked - rent,
            requests=requests,
            earned_nano=earned,
            unbond_at=unbond_at,
            block_seqno=block_seqno,
            tier=tier,
            retired=retired,
            measurement=identity.load_bytes(32) if identity else None,
            platform=identity.load_bytes(32) if identity else None,
            controller=config.controller,
            payout=config.payout,
            release_key=config.release_key,
            extras=config.extras,
            registry=registry,
            stub_prefix=stub_prefix,
            gas_level_nano=gas_level,
            payout_threshold_nano=forward_above - gas_level,
            rent_reserve_nano=rent,
            court=court,
            owner=owner,
            index=index,
            epoch=epoch,
            attestation=attestation,
            unbonding=unbonding,
            claim_window=claim_window,
            challenge_window=challenge_window,
        )


def paid(kind: int, owner: bytes, index: int, amount_nano: int, requests: int) -> Cell:
    """Body from an escrow (kind 2) or a job (kind 3) of that owner and index: what its value pays for."""
    body = begin_cell().store_uint(Op.PAID, 32).store_uint(amount_nano, 64).store_uint(requests, 40)
    return body.store_bit(kind & 1).store_bytes(owner).store_uint(index, 32).end_cell()
