"""Intel's identities of TDX modules, as the chain reads them and as the world does (G12)."""

from __future__ import annotations

import json
from typing import Any

from attestation_mirror import Mirror, judged_off_chain, statement, tee

from attestation.evidence import Kind
from attestation.onchain.errors import VerifierError as Error
from attestation.simulated import collateral as simulated

MACHINE = tee()


def identity(*levels: tuple[int, str]) -> dict[str, Any]:
    """Of the simulated module."""
    (known,) = json.loads(simulated.mint(0).tcb_info)["tdxModuleIdentities"]
    made = [{"tcb": {"isvsvn": svn}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status} for svn, status in levels]
    return {**known, "tcbLevels": made}


def test_g12_the_first_identity_of_a_modules_version_is_the_one_that_judges_it(mirror: Mirror) -> None:
    """As off chain: a second one of the same version says nothing."""
    twice = [identity((7, "UpToDate")), identity((6, "UpToDate"))]
    assert mirror.bring_tcb(tdxModuleIdentities=twice).accepted
    assert mirror.attest(MACHINE).exit_code == Error.OLD_MODULE
    now = mirror.ledger.now
    collateral = statement(simulated.mint(now), tcb=lambda document: document.update(tdxModuleIdentities=twice))
    assert judged_off_chain(MACHINE.quote(bytes(64)), collateral, Kind.SIMULATED, now).startswith("rejected")
