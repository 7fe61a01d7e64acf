"""What a client is given, and what it tells about its money."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from attestation.policy import Policy
from chain.config import Network
from client.events import Receipted
from client.trust import NetworkFacts
from protocol.opening import Shape
from wrappers.signed import network_id


def _plain(value: Any) -> Any:
    """The same for equal values in every process: sets have an order of their own there."""
    if is_dataclass(value):
        return [(one.name, _plain(getattr(value, one.name))) for one in fields(value)]
    if isinstance(value, Mapping):
        return sorted((repr(_plain(key)), _plain(inner)) for key, inner in value.items())
    if isinstance(value, (set, frozenset)):
        return sorted(repr(_plain(inner)) for inner in value)
    return [_plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


DEFAULT_MAX_REQUEST_NANO = 500_000_000
"""A node may ask other prices tomorrow than when something was allotted to it: no request may take the whole row."""


@dataclass(frozen=True, slots=True)
class Settings:
    """`registry`: account of the network's registry, from whoever published the network, never from a relayer.

    `allow_simulated`: the client's own word that evidence which proves no hardware will do; the policy must say so too,
    and mainnet refuses it whatever both say. `max_auto_allot_nano`: what may be allotted without asking, in total.
    `max_request_nano`: no single request may cost more. `keep_texts`: store prompts and answers beside their receipts.
    """

    home: Path
    network: Network
    registry: bytes
    relayer_url: str
    policy: Policy
    allow_simulated: bool = False
    keep_texts: bool = False
    max_auto_allot_nano: int = 0
    max_request_nano: int | None = DEFAULT_MAX_REQUEST_NANO
    direct: str | None = None
    """host:port of a node that is dialled over RA-TLS; the relayer is then not used at all."""
    shape: Shape = field(default_factory=Shape)

    def said(self) -> dict[str, str]:
        """What decides whom a request goes to and what it may cost, by name: equal settings are equal texts."""
        policy = hashlib.sha256(repr(_plain(self.policy)).encode()).hexdigest()
        way = self.relayer_url.rstrip("/") if self.direct is None else f"direct {self.direct}"
        return {
            "network": f"{self.network.global_id}",
            "registry": self.registry.hex(),
            "relayer": way,
            "policy": policy,
            "allow_simulated": f"{self.allow_simulated}",
        }

    @property
    def facts(self) -> NetworkFacts:
        return NetworkFacts(self.network.global_id, network_id(self.network.global_id, self.registry), self.registry)


@dataclass(frozen=True, slots=True)
class RowBalance:
    """One allotment, in nanoTON."""

    node: bytes
    allotment: bytes
    allotted_nano: int
    paid_nano: int
    """Settled on chain."""
    owed_nano: int
    """Receipted and not settled yet."""
    promised_nano: int
    """Maxima of requests without a receipt."""
    closing_at: int

    @property
    def room_nano(self) -> int:
        return self.allotted_nano - self.paid_nano - self.owed_nano - self.promised_nano


@dataclass(frozen=True, slots=True)
class Balance:
    escrow: bytes
    deposit_nano: int
    free_nano: int
    closing: bool
    wallet_nano: int
    rows: tuple[RowBalance, ...]


@dataclass(frozen=True, slots=True)
class Recovered:
    """A request that an earlier process left: its receipt, or why there is none."""

    request_id: bytes
    receipt: Receipted | None
    trouble: str
