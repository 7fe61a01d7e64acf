"""What a node publishes for clients, through relayers that nobody trusts.

Nothing here is believed because it is here: the client verifies the evidence against its own policy, which yields
node id and signing key, then the sealing keys against that signing key. Prices bind nobody until a voucher names
their terms.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from protocol import strict_json
from protocol.errors import Malformed, NotAuthentic, OurFault, Peer
from protocol.sealing import PUBLIC_KEY_BYTES, SealingKeyPair, public_key_hash
from wrappers.receipts import Terms
from wrappers.signed import SealingKey, node_id, sign, verify

MAX_OFFER_BYTES = 2 << 20
MAX_SEALING_KEYS = 8
MAX_MODELS = 64
MAX_DEPTH = 50
"""Of an offer's JSON: it travels inside other documents, which have a limit too."""
MAX_NAME_BYTES = 200
MAX_SEALING_SECONDS = 24 * 3600
"""A longer-lived key would open a month of recorded traffic when a machine falls: clients refuse it."""
_T = TypeVar("_T")
_U32 = (1 << 32) - 1
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class AnnouncedKey:
    """A sealing key with the enclave's signature over its hash, node id and end (`wrappers.signed.SealingKey`)."""

    public_key: bytes = field(repr=False)
    expires_at: int
    signature: bytes = field(repr=False)

    @classmethod
    def announce(cls, pair: SealingKeyPair, node: bytes, expires_at: int, signing_key: Ed25519PrivateKey) -> Self:
        """`node` is the node id."""
        return cls(pair.public_key, expires_at, sign(SealingKey(node, pair.hash, expires_at), signing_key))

    def check(self, node: bytes, signing_key: bytes, now: int) -> None:
        """Raises NotAuthentic unless the attested `signing_key` of node id `node` signed it and it is in date."""
        announcement = SealingKey(node, public_key_hash(self.public_key), self.expires_at)
        if not verify(announcement, self.signature, signing_key):
            raise NotAuthentic(
                Peer.PATH, "the sealing key is not signed by the attested key", "fetch the offer from another relayer"
            )
        if not now < self.expires_at <= now + MAX_SEALING_SECONDS:
            raise NotAuthentic(
                Peer.NODE,
                f"the sealing key's end {self.expires_at} is not within a day from now",
                "fetch the offer again, and check this machine's clock",
            )


@dataclass(frozen=True, slots=True)
class ModelOffer:
    """A model as clients name it, its context, and the terms on which it is served."""

    name: str
    context_tokens: int
    terms: Terms


@dataclass(frozen=True, slots=True)
class NodeOffer:
    """`evidence` is opaque here: `attestation` parses it. `network` is the network id, `node` the node's account."""

    network: bytes
    node: bytes
    node_epoch: int
    signing_key: bytes
    evidence: Mapping[str, Any] = field(repr=False)
    sealing_keys: tuple[AnnouncedKey, ...]
    models: tuple[ModelOffer, ...]

    @property
    def node_id(self) -> bytes:
        return node_id(self.network, self.node, self.node_epoch)

    @property
    def says_simulated(self) -> bool:
        """The offer's own word, unverified: enough for a notice, never for trust."""
        inner = self.evidence.get("evidence")
        return isinstance(inner, Mapping) and inner.get("kind") == "simulated"

    def sealing_key(self, now: int) -> AnnouncedKey:
        """The checked key that lives longest. Raises NotAuthentic when none holds.

        Call it only when the evidence has proven `signing_key`, `node` and `node_epoch`.
        """
        fault = NotAuthentic(Peer.NODE, "the offer has no sealing key", "fetch the offer again or choose another node")
        for key in sorted(self.sealing_keys, key=lambda one: one.expires_at, reverse=True):
            try:
                key.check(self.node_id, self.signing_key, now)
            except NotAuthentic as error:
                fault = error
            else:
                return key
        raise fault

    def model(self, name: str) -> ModelOffer | None:
        return next((one for one in self.models if one.name == name), None)

    def to_json(self) -> str:
        """Strict JSON. Bytes are lower-case hex, keys and signatures base64; 64-bit numbers are decimal strings."""
        text = json.dumps(
            {
                "version": 1,
                "network": self.network.hex(),
                "node": self.node.hex(),
                "node_epoch": str(self.node_epoch),
                "signing_key": self.signing_key.hex(),
                "evidence": dict(self.evidence),
                "sealing_keys": [
                    {
                        "public_key": base64.b64encode(key.public_key).decode(),
                        "expires_at": key.expires_at,
                        "signature": base64.b64encode(key.signature).decode(),
                    }
                    for key in self.sealing_keys
                ],
                "models": [
                    {"name": one.name, "context_tokens": one.context_tokens, "terms": _terms_to_json(one.terms)}
                    for one in self.models
                ],
            },
            allow_nan=False,
            separators=(",", ":"),
        )
        try:
            self.from_json(text)
        except Malformed as error:
            raise OurFault(f"no client would take this offer: {error.cause}", "keep it within the bounds") from error
        return text

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Raises Malformed on any missing, unknown, repeated or out-of-bounds field."""
        if len(text) > MAX_OFFER_BYTES:
            raise Malformed(f"an offer of {len(text)} bytes is over the limit of {MAX_OFFER_BYTES}")
        try:
            raw = strict_json.parse(text, depth=MAX_DEPTH)
        except ValueError as error:
            raise Malformed("the offer is not strict JSON") from error
        names = ("version", "network", "node", "node_epoch", "signing_key", "evidence", "sealing_keys", "models")
        fields = _object(raw, names, "the offer")
        if fields["version"] != 1 or isinstance(fields["version"], bool):
            raise Malformed("the offer has an unknown version")
        if not isinstance(fields["evidence"], dict):
            raise Malformed("the offer's evidence is not an object")
        return cls(
            _hex(fields["network"], 32, "network"),
            _hex(fields["node"], 32, "node"),
            _decimal(fields["node_epoch"], "node_epoch"),
            _hex(fields["signing_key"], 32, "signing_key"),
            fields["evidence"],
            _several(fields["sealing_keys"], MAX_SEALING_KEYS, "sealing_keys", _announced),
            _models(fields["models"]),
        )


def _terms_to_json(terms: Terms) -> dict[str, str]:
    return {
        "model": terms.model.hex(),
        "prompt_price": str(terms.prompt_price),
        "cached_price": str(terms.cached_price),
        "completion_price": str(terms.completion_price),
        "reasoning_price": str(terms.reasoning_price),
        "minimum_nano": str(terms.minimum_nano),
    }


def _terms(raw: object) -> Terms:
    prices = ("prompt_price", "cached_price", "completion_price", "reasoning_price", "minimum_nano")
    fields = _object(raw, ("model", *prices), "terms")
    return Terms(_hex(fields["model"], 32, "terms.model"), *(_decimal(fields[name], name) for name in prices))


def _models(raw: object) -> tuple[ModelOffer, ...]:
    models = _several(raw, MAX_MODELS, "models", _model)
    if len({one.name for one in models}) != len(models):
        raise Malformed("the offer names a model twice")
    return models


def _model(raw: object) -> ModelOffer:
    fields = _object(raw, ("name", "context_tokens", "terms"), "a model")
    name = fields["name"]
    # Names end up on terminals and in logs.
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_BYTES or not (name.isascii() and name.isprintable()):
        raise Malformed(f"a model's name is 1 to {MAX_NAME_BYTES} printable ASCII characters")
    return ModelOffer(name, _small(fields["context_tokens"], "context_tokens"), _terms(fields["terms"]))


def _announced(raw: object) -> AnnouncedKey:
    fields = _object(raw, ("public_key", "expires_at", "signature"), "a sealing key")
    return AnnouncedKey(
        _base64(fields["public_key"], PUBLIC_KEY_BYTES, "public_key"),
        _small(fields["expires_at"], "expires_at"),
        _base64(fields["signature"], 64, "signature"),
    )


def _object(raw: object, names: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(raw, dict) or set(raw) != set(names):
        raise Malformed(f"{what} needs exactly the fields {', '.join(names)}")
    return raw


def _several(raw: object, limit: int, what: str, parse: Callable[[object], _T]) -> tuple[_T, ...]:
    if not isinstance(raw, list) or len(raw) > limit:
        raise Malformed(f"{what} is not a list of at most {limit}")
    return tuple(parse(one) for one in raw)


def _hex(raw: object, size: int, what: str) -> bytes:
    try:
        value = bytes.fromhex(raw) if isinstance(raw, str) else b""
    except ValueError:
        value = b""
    if len(value) != size or value.hex() != raw:
        raise Malformed(f"{what} is not {size} bytes in lower-case hex")
    return value


def _base64(raw: object, size: int, what: str) -> bytes:
    try:
        value = base64.b64decode(raw, validate=True) if isinstance(raw, str) else b""
    except (binascii.Error, ValueError):
        value = b""
    if len(value) != size or base64.b64encode(value).decode() != raw:
        raise Malformed(f"{what} is not {size} bytes in base64")
    return value


def _decimal(raw: object, what: str) -> int:
    if not isinstance(raw, str) or len(raw) > 20 or not raw.isascii() or not raw.isdigit() or str(int(raw)) != raw:
        raise Malformed(f"{what} is not a decimal string")
    if int(raw) > _U64:
        raise Malformed(f"{what} is over 64 bits")
    return int(raw)


def _small(raw: object, what: str) -> int:
    if not isinstance(raw, int) or isinstance(raw, bool) or not 0 <= raw <= _U32:
        raise Malformed(f"{what} is not a number of 32 bits")
    return raw
