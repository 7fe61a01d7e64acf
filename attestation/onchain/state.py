"""State and policy of the verifier, as cells. TL-B: contracts/attestation/attestation.tlb."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from hashlib import sha256
from typing import TypeVar

from pytoniq_core import Cell, HashMap, Slice, begin_cell

from attestation.onchain.statements import DEFECTS
from wrappers.cells import CellError

_Value = TypeVar("_Value")

NO_LAUNCH = sha256(bytes(144)).digest()
"""`launch` of an image that runs with MRCONFIGID, MROWNER and MROWNERCONFIG all zero."""
_SEPT_VE_DISABLE = 0x0000001000000000
_XFAM_REQUIRED = 0x0300000000000000
_XFAM_ALLOWED = 0xE7DB060000000000
"""x87 and SSE always; what the TDX module can virtualize (XFAM_FIXED0 0x6DBE7)."""


@dataclass(frozen=True, slots=True)
class ChainPolicy:
    """What the network accepts. Attributes and XFAM as 64 bits in the byte order of the TD report."""

    floor: int = 0
    """Evaluation numbers of Intel's collateral that are taken: from `floor` to `ceiling`."""
    ceiling: int = 2**32 - 1
    accepted_statuses: frozenset[str] = frozenset({"UpToDate"})
    longest_seconds: int = 7 * 86_400
    attributes_required: int = _SEPT_VE_DISABLE
    attributes_allowed: int = _SEPT_VE_DISABLE
    xfam_required: int = _XFAM_REQUIRED
    xfam_allowed: int = _XFAM_ALLOWED

    def to_cell(self) -> Cell:
        defects = 0
        for status in self.accepted_statuses:
            defects |= DEFECTS[status]
        cell = begin_cell().store_uint(self.floor, 32).store_uint(self.ceiling, 32)
        cell.store_uint(defects, 8).store_uint(self.longest_seconds, 32)
        for flags in (self.attributes_required, self.attributes_allowed, self.xfam_required, self.xfam_allowed):
            cell.store_uint(flags, 64)
        return cell.end_cell()


class ImageStatus(IntEnum):
    ALLOWED = 0
    RETIRED = 1
    """No new attestation; its keys keep their claim window."""
    COMPROMISED = 2
    """Nothing that only its keys say is believed."""


class Standing(IntFlag):
    """What `sync` tells a node of its image and platform."""

    IMAGE_RETIRED = 1
    IMAGE_COMPROMISED = 2
    PLATFORM_DENIED = 4
    PLATFORM_OUTDATED = 8
    """TCB or PCK certificate would not pass today, or the platform serves another node."""


@dataclass(frozen=True, slots=True)
class ChainImage:
    """One image that may run, or could once. Tier 1: CPU; 2: it verifies its GPU before it asks for a quote."""

    tier: int = 1
    launch: bytes = NO_LAUNCH
    """SHA-256 of MRCONFIGID, MROWNER, MROWNERCONFIG (144 bytes)."""
    status: ImageStatus = ImageStatus.ALLOWED

    def to_cell(self) -> Cell:
        return begin_cell().store_uint(self.tier, 8).store_bytes(self.launch).store_uint(self.status, 8).end_cell()


def genesis_state(
    registry: bytes, network_id: bytes, root_key: bytes, policy: ChainPolicy, images: Mapping[bytes, ChainImage]
) -> Cell:
    """TL-B AttestationGenesis. `root_key`: 64 bytes x||y; any but Intel's is a test root, which mainnet refuses."""
    dictionary = HashMap(256, value_serializer=lambda image, builder: builder.store_cell(image.to_cell()))
    for measurement, image in images.items():
        dictionary.set_int_key(int.from_bytes(measurement, "big"), image)
    more = begin_cell().store_bytes(root_key[32:]).store_maybe_ref(dictionary.serialize() if images else None)
    cell = begin_cell().store_bytes(registry).store_bytes(network_id).store_bytes(root_key[:32])
    return cell.store_ref(policy.to_cell()).store_ref(more.end_cell()).end_cell()


@dataclass(frozen=True, slots=True)
class PendingList:
    """A list whose signature was verified and whose parts are not all taken in. Unix seconds."""

    issued: int
    until: int
    left: tuple[bytes, ...]
    """SHA-256 of the parts still to come, in the order in which they are taken."""


@dataclass(frozen=True, slots=True)
class AuthorityState:
    """A certificate that the root signed, with its list. `end` 0: none; `crl_until` 0: no list. Unix seconds."""

    key: bytes
    begin: int
    end: int
    serial: int
    crl_issued: int
    crl_until: int
    revoked: tuple[bytes, ...]
    """Hashes of the dictionaries of revoked serials; none: no serial."""
    pending: PendingList | None = None


@dataclass(frozen=True, slots=True)
class StatementState:
    """TCB info of one platform type, or the QE identity."""

    issued: int
    until: int
    number: int


@dataclass(frozen=True, slots=True)
class TcbFacts:
    """What a platform's last quote showed; `sync` judges it again. SVNs as in quote and certificate. TL-B: TcbFacts."""

    authority: int
    serial: int
    pce_id: int
    fmspc: bytes
    sgx_svns: bytes
    pce_svn: int
    qe_svn: int
    tdx_svns: bytes
    running_svns: bytes | None


@dataclass(frozen=True, slots=True)
class PlatformState:
    denied: bool
    node: bytes | None
    """The node that the platform serves."""
    since: int
    """A quote must bind a masterchain block with a higher seqno."""
    verdicts: int = 0
    """Sent since the node claimed the platform, less those that came back; 3 means three or more."""
    facts: TcbFacts | None = None


@dataclass(frozen=True, slots=True)
class VerifierState:
    """TL-B: AttestationState, without the serials and levels that only the contract needs."""

    registry: bytes
    network_id: bytes
    simulated: bool
    platforms: Mapping[bytes, PlatformState]
    images: Mapping[bytes, ChainImage]
    policy: ChainPolicy
    root: AuthorityState
    platform_authority: AuthorityState
    processor_authority: AuthorityState
    signer: AuthorityState
    tcb: Mapping[bytes, StatementState]
    """By FMSPC (6 bytes)."""
    qe: StatementState
    barred: frozenset[bytes] = frozenset()
    """FMSPCs that the governor dropped."""

    @classmethod
    def from_cell(cls, cell: Cell) -> VerifierState:
        """Raises CellError for anything else, a contract before its genesis included."""
        try:
            return _state(cell)
        except CellError:
            raise
        except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
            raise CellError(f"not the verifier's state: {error}") from error


def _state(cell: Cell) -> VerifierState:
    root = cell.begin_parse()
    registry, network_id, simulated = root.load_bytes(32), root.load_bytes(32), bool(root.load_bit())
    platforms = _dictionary(root.load_maybe_ref(), 256, _platform)
    images = _dictionary(root.load_maybe_ref(), 256, _image)
    policy_cell, collateral = root.load_ref(), root.load_ref().begin_parse()
    if root.remaining_bits or root.remaining_refs:
        raise CellError("not the verifier's state: something follows it")
    collateral.load_uint(32)
    root_authority, platform, processor = (_authority(collateral.load_ref()) for _ in range(3))
    statements = collateral.load_ref().begin_parse()
    tcb = _dictionary(statements.load_maybe_ref(), 48, _statement)
    signer = _authority(statements.load_ref())
    qe = _statement(statements.load_ref().begin_parse())
    return VerifierState(
        registry=registry,
        network_id=network_id,
        simulated=simulated,
        platforms=platforms,
        images=images,
        policy=read_policy(policy_cell),
        root=root_authority,
        platform_authority=platform,
        processor_authority=processor,
        signer=signer,
        tcb=tcb,
        qe=qe,
        barred=_barred(policy_cell),
    )


def _dictionary(cell: Cell | None, bits: int, read: Callable[[Slice], _Value]) -> dict[bytes, _Value]:
    if cell is None:
        return {}
    found: dict[int, _Value] = HashMap.parse(cell.begin_parse(), bits, value_deserializer=read) or {}
    return {key.to_bytes(bits // 8, "big"): value for key, value in found.items()}


def _image(slice_: Slice) -> ChainImage:
    return ChainImage(slice_.load_uint(8), slice_.load_bytes(32), ImageStatus(slice_.load_uint(8)))


def _platform(slice_: Slice) -> PlatformState:
    denied, node = bool(slice_.load_bit()), slice_.load_bytes(32)
    since, verdicts, facts = slice_.load_uint(32), slice_.load_uint(2), slice_.load_maybe_ref()
    known = None if facts is None else read_facts(facts.begin_parse())
    return PlatformState(denied, node if any(node) else None, since, verdicts, known)


def read_facts(slice_: Slice) -> TcbFacts:
    return TcbFacts(
        slice_.load_uint(8),
        slice_.load_uint(168),
        slice_.load_uint(16),
        slice_.load_bytes(6),
        slice_.load_bytes(16),
        slice_.load_uint(16),
        slice_.load_uint(16),
        slice_.load_bytes(16),
        slice_.load_bytes(16) if slice_.remaining_bits else None,
    )


def _barred(policy: Cell) -> frozenset[bytes]:
    slice_ = policy.begin_parse()
    slice_.skip_bits(360)
    return frozenset(_dictionary(slice_.load_maybe_ref(), 48, lambda _value: None))


def _authority(cell: Cell) -> AuthorityState:
    slice_ = cell.begin_parse()
    key = slice_.load_bytes(64)
    begin, end, serial = slice_.load_uint(32), slice_.load_uint(32), slice_.load_uint(168)
    pending = slice_.load_maybe_ref()
    crl_issued, crl_until = slice_.load_uint(32), slice_.load_uint(32)
    revoked = tuple(bytes(part.hash) for part in serial_parts(slice_))
    return AuthorityState(
        key, begin, end, serial, crl_issued, crl_until, revoked, None if pending is None else _pending(pending)
    )


def _pending(cell: Cell) -> PendingList:
    slice_ = cell.begin_parse()
    issued, until = slice_.load_uint(32), slice_.load_uint(32)
    left: list[bytes] = []
    following: Cell | None = slice_.load_ref()
    while following is not None:
        rest = following.begin_parse()
        left.append(rest.load_bytes(32))
        following = rest.load_maybe_ref()
    return PendingList(issued, until, tuple(left))


def serial_parts(slice_: Slice) -> Iterator[Cell]:
    """Dictionaries `HashmapE 168 True` of TL-B Serials, which is read to its end."""
    while True:
        part, more = slice_.load_maybe_ref(), slice_.load_maybe_ref()
        if part is not None:
            yield part
        if more is None:
            return
        slice_ = more.begin_parse()


def _statement(slice_: Slice) -> StatementState:
    return StatementState(slice_.load_uint(32), slice_.load_uint(32), slice_.load_uint(32))


def read_policy(cell: Cell) -> ChainPolicy:
    slice_ = cell.begin_parse()
    floor, ceiling, defects, longest = (int(slice_.load_uint(bits)) for bits in (32, 32, 8, 32))
    accepted = frozenset(status for status, found in DEFECTS.items() if found & ~defects == 0)
    flags = [int(slice_.load_uint(64)) for _ in range(4)]
    return ChainPolicy(floor, ceiling, accepted, longest, *flags)
