"""TCB info and QE identity as the values from which contracts/attestation/statements.fc makes Intel's text again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pytoniq_core import Cell, begin_cell

from attestation.onchain.certificates import Signed
from attestation.onchain.messages import Op, update_tcb
from attestation.onchain.pieces import PIECE_BYTES, BadWitness, texts

DEFECTS = {
    "UpToDate": 0,
    "SWHardeningNeeded": 1,
    "ConfigurationNeeded": 2,
    "ConfigurationAndSWHardeningNeeded": 3,
    "OutOfDate": 4,
    "OutOfDateConfigurationNeeded": 6,
    "Revoked": 8,
}
"""A TCB status as a set of defects."""


def tcb_message(text: str, signature: bytes, signer_key: bytes) -> Cell:
    """Body of `update_tcb` from the exact signed text. Raises BadWitness, NoHints."""
    document = _document(text)
    try:
        tails = _tails(document["tcbLevels"])
        head = begin_cell().store_bytes(document["issueDate"].encode()).store_bytes(document["nextUpdate"].encode())
        head.store_bytes(document["fmspc"].encode()).store_bytes(document["pceId"].encode())
        head.store_uint(document["tcbEvaluationDataNumber"], 32).store_ref(texts(tails))
        modules = _modules(document["tdxModuleIdentities"])
        levels = _levels(document["tcbLevels"], tails)
    except (KeyError, TypeError, AttributeError) as error:
        raise BadWitness(f"TCB info is not in Intel's form of version 3: {error}") from error
    return update_tcb(head.end_cell(), modules, levels, Signed(text.encode(), signature).hints(signer_key))


def qe_message(text: str, signature: bytes, signer_key: bytes) -> Cell:
    """Body of `update_qe` from the exact signed text. Raises BadWitness, NoHints."""
    document = _document(text)
    try:
        signer = begin_cell().store_bytes(document["mrsigner"].encode()).end_cell()
        more = begin_cell().store_bytes(document["attributes"].encode())
        more.store_bytes(document["attributesMask"].encode()).store_ref(signer)
        body = begin_cell().store_uint(Op.UPDATE_QE, 32).store_uint(document["version"], 8)
        body.store_bytes(document["issueDate"].encode()).store_bytes(document["nextUpdate"].encode())
        body.store_uint(document["tcbEvaluationDataNumber"], 32)
        body.store_bytes(document["miscselect"].encode()).store_bytes(document["miscselectMask"].encode())
        body.store_uint(document["isvprodid"], 16).store_ref(more.end_cell())
        body.store_ref(_isv_levels(document["tcbLevels"]))
    except (KeyError, TypeError, AttributeError) as error:
        raise BadWitness(f"QE identity is not in Intel's form: {error}") from error
    return body.store_ref(Signed(text.encode(), signature).hints(signer_key)).end_cell()


def _document(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadWitness(f"not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadWitness("not a JSON object")
    return document


def _tail(component: dict[str, Any]) -> str:
    """What stands between the number and the closing brace of a component's text."""
    if next(iter(component)) != "svn":
        raise BadWitness("a component does not begin with its svn")
    rest = {name: value for name, value in component.items() if name != "svn"}
    return "," + _compact(rest)[1:-1] if rest else ""


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _components(level: dict[str, Any]) -> list[dict[str, Any]]:
    return [*level["tcb"]["sgxtcbcomponents"], *level["tcb"]["tdxtcbcomponents"]]


def _tails(levels: Sequence[dict[str, Any]]) -> list[str]:
    tails = [""]
    for level in levels:
        for component in _components(level):
            tail = _tail(component)
            if tail not in tails:
                tails.append(tail)
    if len(tails) > 16:
        raise BadWitness(f"{len(tails)} kinds of components, the contract takes 16")
    return tails


def _advisories(level: dict[str, Any]) -> Cell | None:
    if "advisoryIDs" not in level:
        return None
    text = _compact(level["advisoryIDs"])[1:-1]
    return texts([text[at : at + PIECE_BYTES] for at in range(0, len(text), PIECE_BYTES)] or [""])


def _levels(levels: Sequence[dict[str, Any]], tails: list[str]) -> Cell:
    following: Cell | None = None
    for level in reversed(levels):
        tcb = level["tcb"]
        sgx, tdx = (bytes(each["svn"] for each in tcb[f"{kind}tcbcomponents"]) for kind in ("sgx", "tdx"))
        if (len(sgx), len(tdx)) != (16, 16):
            raise BadWitness("a TCB level without 16 SGX and 16 TDX components")
        cell = begin_cell().store_bytes(sgx + tdx).store_uint(tcb["pcesvn"], 16)
        cell.store_uint(DEFECTS[level["tcbStatus"]], 8).store_bytes(level["tcbDate"].encode())
        for component in _components(level):
            cell.store_uint(tails.index(_tail(component)), 4)
        following = cell.store_maybe_ref(_advisories(level)).store_maybe_ref(following).end_cell()
    return _present(following, "TCB level")


def _isv_levels(levels: Sequence[dict[str, Any]]) -> Cell:
    following: Cell | None = None
    for level in reversed(levels):
        cell = begin_cell().store_uint(level["tcb"]["isvsvn"], 16).store_uint(DEFECTS[level["tcbStatus"]], 8)
        cell.store_bytes(level["tcbDate"].encode()).store_maybe_ref(_advisories(level))
        following = cell.store_maybe_ref(following).end_cell()
    return _present(following, "level")


def _modules(identities: Sequence[dict[str, Any]]) -> Cell:
    following: Cell | None = None
    for identity in reversed(identities):
        name = identity["id"]
        if len(name) != 6:
            raise BadWitness(f"a TDX module identity with the name {name!r}")
        cell = begin_cell().store_bytes(name[4:].encode()).store_ref(_isv_levels(identity["tcbLevels"]))
        following = (cell if following is None else cell.store_ref(following)).end_cell()
    return _present(following, "TDX module identity")


def _present(cell: Cell | None, what: str) -> Cell:
    if cell is None:
        raise BadWitness(f"there is no {what}")
    return cell
