"""What the verifier tells nodes and askers: what it follows from, and what it leaves the verifier with. G1, G7, G12."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from attestation_mirror import NODE, REFUSING_NODE, ROOT_KEY, Mirror, crl_of, serials_of, tee
from pytoniq_core import Cell, begin_cell
from test_attestation_quotes import TD15, signed, version_5

from attestation.onchain.certificates import LIST_PART
from attestation.onchain.collateral import crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.messages import ROOT, appraise, attest, sync
from attestation.onchain.standing import standing as judged
from attestation.onchain.state import ChainPolicy, Standing
from attestation.quote import HEADER_BYTES
from attestation.simulated import collateral as simulated
from attestation.simulated import pki, platform
from attestation.simulated.platform import TEE_TCB_SVN
from attestation.witness import QuoteParts
from scripts.attest_stage import TON, Outcome
from scripts.stage import DAY, account_of_name
from wrappers.committee_fees import CommitteeFees
from wrappers.committee_messages import Vouched
from wrappers.governance import allow_image, set_policy
from wrappers.prices import Prices

MACHINE = tee()
IMAGE, PLATFORM = MACHINE.registers.measurement, MACHINE.platform_id
COMMITTEE, VOUCHED_IMAGE = account_of_name("committee"), b"\x31" * 32
COMMITTEE_TIER = 3
AUTHORITY_BITS = 2 * 256 + 2 * 32 + 168 + 1 + 2 * 32 + 2
"""TL-B Authority. A list adds references and no bit."""
OUTDATED_LEVEL = 200
"""A PCESVN that no simulated platform reaches."""


def appraisal_of(quote: bytes) -> Cell:
    parts = QuoteParts.of(quote)
    return appraise(parts.authority, *parts.cells())


def status(mirror: Mirror, platform_id: bytes = PLATFORM, measurement: bytes = IMAGE) -> Standing:
    """As the contract tells it, which is as clients and relayers judge by its state."""
    outcome = mirror.stage.tell(sync(NODE, measurement, platform_id, Cell.empty()))
    assert outcome.exit_code == 0
    body = outcome.trace.of(mirror.stage.account)[0].out_msgs[0].body.begin_parse()
    body.skip_bits(32 + 512)
    told = Standing(body.load_uint(8))
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None and judged(data, NODE, measurement, platform_id) == told
    return told


def levels(**changes: Any) -> list[dict[str, Any]]:
    """The simulated platform's only level with other fields."""
    (level,) = json.loads(simulated.mint(0).tcb_info)["tcbLevels"]
    return [{**level, "tcb": {**level["tcb"], **changes.pop("tcb", {})}, **changes}]


# ------------------------------------------------------------------------------------------------ money


def test_g1_an_answer_takes_nothing_of_what_the_verifier_holds(mirror: Mirror) -> None:
    """The rest of the money goes with it, and no nanoTON more: what is there is the rent of everybody's entries."""
    assert mirror.said(NODE, None).accepted, "rent is paid up to this moment"
    before = mirror.ledger.balance(mirror.stage.account)
    for body in (appraisal_of(MACHINE.quote(bytes(64))), sync(NODE, IMAGE, PLATFORM, Cell.empty())):
        outcome = mirror.stage.tell(body)
        assert outcome.accepted
        (message,) = outcome.trace.of(mirror.stage.account)[0].out_msgs
        assert TON - TON // 10 < message.value_nano < TON
        assert mirror.ledger.balance(mirror.stage.account) == before


def test_g7_an_appraisal_stays_with_whoever_asked(mirror: Mirror) -> None:
    """Also with one that cannot read it: the money is his."""
    before = mirror.ledger.balance(REFUSING_NODE)
    outcome = mirror.said(REFUSING_NODE, appraisal_of(MACHINE.quote(bytes(64))))
    assert outcome.exit_code == 0
    assert [tx.exit_code for tx in outcome.trace.of(REFUSING_NODE)] == [42]
    assert mirror.ledger.balance(REFUSING_NODE) > before + TON - TON // 10


def heavy(cells: int) -> Cell:
    cell = Cell.empty()
    for number in range(cells):
        cell = begin_cell().store_uint(number, 1000).store_ref(cell).end_cell()
    return cell


def test_g7_a_committees_verdict_whose_consent_is_too_heavy_to_go_on_is_returned(mirror: Mirror) -> None:
    for allowed in (COMMITTEE, VOUCHED_IMAGE):
        assert mirror.stage.govern(allow_image(allowed, COMMITTEE_TIER, bytes(32))).accepted
    seqno = mirror.ledger.prev_blocks.hundreds[0].seqno
    ends = mirror.ledger.now + DAY
    said = Vouched(NODE, 77, b"\x44" * 32, ends, seqno, VOUCHED_IMAGE, PLATFORM).to_cell()
    body = begin_cell().store_bits(said.bits[:-1]).store_ref(said.refs[0]).store_maybe_ref(heavy(80)).end_cell()
    need = CommitteeFees(Prices.from_config(mirror.ledger.config), None).vouched_need()  # type: ignore[arg-type]
    before = mirror.ledger.balance(mirror.stage.account)
    (transaction,) = mirror.said(COMMITTEE, body, need).trace.transactions[:1]
    (message,) = transaction.out_msgs
    assert message.bounced and message.value_nano > 1_000_000
    assert mirror.ledger.balance(mirror.stage.account) <= before and PLATFORM not in mirror.state.platforms
    assert mirror.said(COMMITTEE, body, 3 * need).accepted


# ------------------------------------------------------------------------------------------------ standing


def test_g12_of_a_platform_that_nobody_brought_the_answer_tells_the_image_alone(mirror: Mirror) -> None:
    assert status(mirror) == Standing(0)
    assert status(mirror, measurement=bytes(32)) == Standing.IMAGE_RETIRED


def test_g12_levels_of_another_pce_judge_no_platform_again(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    mirror.ledger.now += 10
    unreached = levels(tcb={"pcesvn": OUTDATED_LEVEL})
    assert mirror.bring_tcb(pceId="0001", tcbLevels=unreached).accepted
    assert status(mirror) == Standing(0)
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tcbLevels=unreached).accepted
    assert status(mirror) == Standing.PLATFORM_OUTDATED


def test_g12_a_platform_is_judged_again_by_what_the_policy_accepts_now(mirror: Mirror) -> None:
    assert mirror.attest().accepted
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tcbLevels=levels(tcbStatus="OutOfDate")).accepted
    assert status(mirror) == Standing.PLATFORM_OUTDATED
    accepting = ChainPolicy(accepted_statuses=frozenset({"UpToDate", "OutOfDate"}))
    assert mirror.stage.govern(set_policy(accepting.to_cell())).accepted
    assert status(mirror) == Standing(0)
    mirror.ledger.now += 10
    assert mirror.bring_tcb(tcbLevels=levels(tcbStatus="ConfigurationNeeded")).accepted
    assert status(mirror) == Standing.PLATFORM_OUTDATED


def test_g12_the_components_that_run_are_judged_again_too(mirror: Mirror) -> None:
    """Started under a microcode that is enough for the new level, running under one that is not."""
    genuine = version_5(mirror.binding().report_data(), kind=TD15)
    started = TEE_TCB_SVN[:2] + bytes([TEE_TCB_SVN[2] + 1]) + TEE_TCB_SVN[3:]
    at = genuine.td.body.index(TEE_TCB_SVN, HEADER_BYTES)
    body = genuine.td.body[:at] + started + genuine.td.body[at + len(started) :]
    assert body.endswith(TEE_TCB_SVN + bytes(48))
    parts = genuine.changed(td=signed(body, MACHINE.platform.attestation_key))
    assert mirror.stage.tell(attest(mirror.binding(), parts.authority, *parts.cells())).accepted
    facts = mirror.state.platforms[PLATFORM].facts
    assert facts is not None and (facts.tdx_svns, facts.running_svns) == (started, TEE_TCB_SVN)
    assert status(mirror) == Standing(0)
    mirror.ledger.now += 10
    components = [{"svn": svn} for svn in (0, 0, started[2], *bytes(13))]
    assert mirror.bring_tcb(tcbLevels=levels(tcb={"tdxtcbcomponents": components})).accepted
    assert status(mirror) == Standing.PLATFORM_OUTDATED
    assert mirror.attest().exit_code == Error.OLD_PLATFORM


def test_g12_facts_follow_the_last_quote_of_a_node_that_keeps_its_platform(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after the three verdicts from which the claim stands: else an update would never reach its standing."""
    for _ in range(4):
        assert mirror.attest().accepted
        mirror.ledger.now += 100
    for pce_svn in (platform.PCE_SVN + 1, platform.PCE_SVN):
        with monkeypatch.context() as patched:
            patched.setattr(platform, "PCE_SVN", pce_svn)
            machine = tee(extension=platform.sgx_extension(MACHINE.platform.ppid))
        assert machine.platform_id == PLATFORM and mirror.attest(machine).accepted
        entry = mirror.state.platforms[PLATFORM]
        assert entry.facts is not None and (entry.facts.pce_svn, entry.verdicts) == (pce_svn, 3)


# ------------------------------------------------------------------------------------------------ authorities


def until(outcome: Outcome) -> int:
    """End of the verdict that went out."""
    assert outcome.accepted, outcome.exit_code
    message = outcome.trace.of(outcome.trace.transactions[1].account)[0].out_msgs[0]
    return int(message.body.refs[0].begin_parse().skip_bits(64 + 256).load_uint(32))


def test_g12_a_root_list_does_nothing_before_its_last_part(mirror: Mirror) -> None:
    """Neither removes the authority that its first part names, nor puts off the end of the list in force."""
    end = mirror.ledger.now + 1000
    assert mirror.bring_root_list(end).accepted
    mirror.ledger.now += 10
    serials = serials_of(LIST_PART + 3)
    serials[0] = int(pki.platform_ca().certificate.serial_number)
    first, last = crl_messages(ROOT, crl_of(mirror.ledger.now, serials, issuer=pki.root()), ROOT_KEY)
    assert mirror.stage.tell(first).accepted
    assert until(mirror.attest()) == end
    assert mirror.stage.tell(last).accepted
    assert mirror.attest().exit_code == Error.NO_AUTHORITY


def test_g12_a_root_list_removes_nobody_whom_it_does_not_name(mirror: Mirror) -> None:
    assert mirror.bring_authority(pki.processor_ca(), mirror.ledger.now + DAY).accepted
    before = mirror.state
    assert mirror.bring_root_list(revoked=(MACHINE.platform.pck.certificate,)).accepted
    assert dataclasses.replace(mirror.state, root=before.root) == before
    assert mirror.state.root != before.root


def test_g9_an_authority_holds_its_fields_and_not_a_bit_more(mirror: Mirror) -> None:
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    root, platform_ca, processor_ca, statements = data.refs[-1].refs
    for authority in (root, platform_ca, processor_ca, statements.refs[-2]):
        assert len(authority.bits) == AUTHORITY_BITS
    assert mirror.bring_root_list(revoked=(pki.platform_ca().certificate,)).accepted
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None and len(data.refs[-1].refs[1].bits) == AUTHORITY_BITS
