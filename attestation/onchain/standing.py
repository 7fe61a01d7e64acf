"""How a node's image and platform stand today, from the verifier's state.

The same judgement that `sync` passes on chain (contracts/attestation/policy.fc), for clients and relayers, who need not
wait until somebody sent it to the node. Looks up what it needs: the state may hold thousands of platforms.
"""

from __future__ import annotations

from collections.abc import Iterator

from pytoniq_core import Cell, Slice

from attestation.onchain.state import ImageStatus, Standing, TcbFacts, read_facts, serial_parts
from wrappers.cells import CellError
from wrappers.dicts import find

# As in contracts/attestation/tcb.fc.
_REVOKED, _NO_LEVEL, _NO_MODULE, _NO_ENCLAVE_LEVEL = 8, 16, 32, 64
_HEAD_BITS = 513
_IDENTITY_HEAD_BITS = 96 + 64 + 256 + 256 + 16
_IMAGE_STANDING = {
    ImageStatus.ALLOWED: Standing(0),
    ImageStatus.RETIRED: Standing.IMAGE_RETIRED,
    ImageStatus.COMPROMISED: Standing.IMAGE_COMPROMISED,
}
_WORDS = {
    Standing.IMAGE_RETIRED: "its image is retired or was never allowed on this network",
    Standing.IMAGE_COMPROMISED: "its image is called compromised",
    Standing.PLATFORM_DENIED: "its platform is on the chain's deny-list",
    Standing.PLATFORM_OUTDATED: "its platform would not pass today's collateral and policy, or serves another node",
}


def standing(state: Cell, node: bytes, measurement: bytes, platform: bytes) -> Standing:
    """What the verifier with this state would tell the node. TL-B: AttestationState. Raises CellError."""
    try:
        return _standing(state, node, measurement, platform)
    except CellError:
        raise
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise CellError(f"not the verifier's state: {error}") from error


def still_passes(state: Cell, facts: TcbFacts) -> bool:
    """Whether the chain's own collateral and policy let a platform of these facts pass today. Raises CellError."""
    try:
        root = state.begin_parse()
        root.skip_bits(_HEAD_BITS)
        for _ in range(2):
            root.load_maybe_ref()
        return _passes(facts, root.load_ref().begin_parse(), root.load_ref().begin_parse())
    except CellError:
        raise
    except Exception as error:  # pytoniq-core raises many unrelated types on malformed input
        raise CellError(f"not the verifier's state: {error}") from error


def _standing(state: Cell, node: bytes, measurement: bytes, platform: bytes) -> Standing:
    root = state.begin_parse()
    root.skip_bits(_HEAD_BITS)
    entry = find(root.load_maybe_ref(), 256, int.from_bytes(platform, "big"))
    image = find(root.load_maybe_ref(), 256, int.from_bytes(measurement, "big"))
    policy, collateral = root.load_ref().begin_parse(), root.load_ref().begin_parse()
    found = Standing.IMAGE_RETIRED
    if image is not None:
        image.skip_bits(264)
        found = _IMAGE_STANDING[ImageStatus(image.load_uint(8))]
    if entry is None:
        return found
    if entry.load_bit():
        found |= Standing.PLATFORM_DENIED
    serves = entry.load_bytes(32) == node
    entry.skip_bits(34)
    facts = entry.load_maybe_ref()
    passes = facts is None or _passes(read_facts(facts.begin_parse()), policy, collateral)
    return found if serves and passes else found | Standing.PLATFORM_OUTDATED


def _passes(facts: TcbFacts, policy: Slice, collateral: Slice) -> bool:
    policy.skip_bits(64)
    accepted = policy.load_uint(8)
    policy.skip_bits(32 + 256)
    fmspc = int.from_bytes(facts.fmspc, "big")
    if find(policy.load_maybe_ref(), 48, fmspc) is not None:
        return False
    collateral.skip_bits(32)
    collateral.load_ref()
    authorities = collateral.load_ref(), collateral.load_ref()
    statements = collateral.load_ref().begin_parse()
    authority = authorities[1 if facts.authority else 0].begin_parse()
    authority.skip_bits(544)
    end = authority.load_uint(32)
    authority.skip_bits(168)
    authority.load_maybe_ref()
    authority.skip_bits(64)
    revoked = any(find(part, 168, facts.serial) is not None for part in serial_parts(authority))
    # A certificate of the authority without an end was revoked by the root, and all that it signed.
    if not end or revoked:
        return False
    entry = find(statements.load_maybe_ref(), 48, fmspc)
    statements.load_ref()
    defects = _enclave_defects(statements.load_ref().begin_parse(), facts.qe_svn)
    if entry is not None:
        entry.skip_bits(96)
        if entry.load_uint(16) == facts.pce_id:
            levels, modules = entry.load_ref(), entry.load_ref()
            defects |= _platform_defects(levels, modules, facts, facts.tdx_svns)
            if facts.running_svns is not None:
                running = _platform_defects(levels, modules, facts, facts.running_svns)
                defects |= running & (_REVOKED | _NO_LEVEL | _NO_MODULE)
    return defects & ~accepted == 0


def words(found: Standing) -> tuple[str, ...]:
    """Every fault in a sentence; empty where there is none."""
    return tuple(said for flag, said in _WORDS.items() if flag in found)


def _enclave_defects(identity: Slice, svn: int) -> int:
    if identity.remaining_bits <= 96:  # there is none yet
        return 0
    identity.skip_bits(_IDENTITY_HEAD_BITS)
    while identity.remaining_bits:
        needed, defects = identity.load_uint(16), int(identity.load_uint(8))
        if svn >= needed:
            return defects
    return _NO_ENCLAVE_LEVEL


def _platform_defects(levels: Cell, modules: Cell, facts: TcbFacts, tdx_svns: bytes) -> int:
    version = tdx_svns[1]
    found = _NO_LEVEL
    for components, pce_svn, defects in _levels(levels):
        wanted = list(enumerate(components))
        if version:  # the module is judged by its own identity then
            wanted = [(place, svn) for place, svn in wanted if place not in (16, 17)]
        reached = facts.sgx_svns + tdx_svns
        if facts.pce_svn >= pce_svn and all(reached[place] >= svn for place, svn in wanted):
            found = defects
            break
    return found | _module_defects(modules.begin_parse(), version, tdx_svns[0]) if version else found


def _levels(first: Cell) -> Iterator[tuple[bytes, int, int]]:
    following: Cell | None = first
    while following is not None:
        slice_ = following.begin_parse()
        yield slice_.load_bytes(32), slice_.load_uint(16), slice_.load_uint(8)
        following = slice_.load_maybe_ref()


def _module_defects(modules: Slice, version: int, svn: int) -> int:
    while modules.remaining_bits:
        wanted, count = modules.load_uint(8) == version, modules.load_uint(8)
        for _ in range(count):
            needed, defects = modules.load_uint(8), int(modules.load_uint(8))
            if wanted and svn >= needed:
                return defects
        if wanted:
            return _NO_MODULE
    return _NO_MODULE
