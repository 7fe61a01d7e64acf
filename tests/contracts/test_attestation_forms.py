"""Messages of the verifier at the borders of their forms (G12): empty lists, long texts, numbers of two lengths."""

from __future__ import annotations

import json

import pytest
from attestation_mirror import PLATFORM_KEY, Mirror, crl_message, crl_of, longer, serials_of, tee
from pytoniq_core import begin_cell

from attestation.onchain.certificates import LIST_PART, serial_set
from attestation.onchain.collateral import crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import Authority, Op
from attestation.simulated import collateral as simulated
from attestation.simulated import pki, platform

CELL_UNDERFLOW = 9
MACHINE = tee()


def test_g12_a_list_of_nobody_revokes_nobody(mirror: Mirror) -> None:
    """The sender brings the serials: with a list that names none he could else put any machine on it."""
    empty = crl_message(Authority.PLATFORM, crl_of(mirror.ledger.now, []), PLATFORM_KEY)
    brought = serial_set([MACHINE.platform.pck.certificate.serial_number])
    body = begin_cell().store_uint(Op.UPDATE_CRL, 32).store_uint(Authority.PLATFORM, 8).store_maybe_ref(brought)
    for ref in empty.refs:
        body.store_ref(ref)
    assert mirror.stage.tell(body.end_cell()).exit_code == Error.WRONG_SERIALS
    assert mirror.stage.tell(empty).accepted
    assert mirror.attest(MACHINE).accepted


def test_g12_a_later_part_is_read_to_its_end(mirror: Mirror) -> None:
    der = crl_of(mirror.ledger.now, serials_of(LIST_PART + 1))
    first, last = crl_messages(Authority.PLATFORM, der, pki.raw_public_key(pki.platform_ca().key))
    assert mirror.stage.tell(first).accepted
    assert mirror.stage.tell(longer(last)).exit_code == CELL_UNDERFLOW
    assert mirror.stage.tell(last).accepted


@pytest.mark.parametrize("pce_svn", [127, 128, 255, 256])
def test_g12_a_pce_svn_takes_one_byte_or_two(mirror: Mirror, monkeypatch: pytest.MonkeyPatch, pce_svn: int) -> None:
    """A DER INTEGER has a sign: from 128 on it is a byte longer."""
    monkeypatch.setattr(platform, "PCE_SVN", pce_svn)
    machine = tee(extension=platform.sgx_extension(MACHINE.platform.ppid))
    assert mirror.attest(machine).accepted
    facts = mirror.state.platforms[machine.platform_id].facts
    assert facts is not None and facts.pce_svn == pce_svn


def test_g12_a_module_may_have_forty_levels(mirror: Mirror) -> None:
    """Some 300 parts of text, more than a tuple of the TVM holds."""
    (identity,) = json.loads(simulated.mint(0).tcb_info)["tdxModuleIdentities"]
    known = [(svn, "UpToDate") for svn in range(45, 6, -1)] + [(6, "OutOfDate")]
    levels = [{"tcb": {"isvsvn": svn}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status} for svn, status in known]
    assert mirror.bring_tcb(tdxModuleIdentities=[{**identity, "tcbLevels": levels}]).accepted
    assert mirror.attest(MACHINE).exit_code == Error.REFUSED_STATUS
