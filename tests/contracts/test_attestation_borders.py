"""Where what a verdict rests on begins and ends: collateral, numbers, flags, hardware, genesis. G12, G14, G20."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from attestation_mirror import (
    INTEL_KEY,
    PLATFORM_KEY,
    ROOT_KEY,
    Mirror,
    der_of,
    lists,
    longer,
    moment,
    tee,
)
from pytoniq_core import Cell, begin_cell

from attestation.onchain import fees
from attestation.onchain.collateral import authority_message, crl_messages
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.hints import P
from attestation.onchain.messages import (
    Authority,
    attest,
)
from attestation.onchain.state import NO_LAUNCH, ChainPolicy, genesis_state
from attestation.simulated import collateral as simulated
from attestation.simulated import pki, platform
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.witness import QuoteParts
from devnet.accounts import planted
from devnet.ledger import Ledger
from scripts.attest_stage import TON, Outcome, Stage
from wrappers.addresses import singleton_state_init
from wrappers.code import Contract, code, size_of
from wrappers.errors import ContractError
from wrappers.gas import TEN_YEARS, Gas
from wrappers.governance import allow_image, set_policy
from wrappers.ops import Op as CommonOp
from wrappers.prices import Prices
from wrappers.signed import GenesisState, sign

CELL_UNDERFLOW = 9
DAY = 86_400
IMAGE = Registers.of_image().measurement
PLATFORM = tee().platform_id


def until(outcome: Outcome) -> int:
    """End of the verdict that went out."""
    assert outcome.accepted, outcome.exit_code
    message = outcome.trace.of(outcome.trace.transactions[1].account)[0].out_msgs[0]
    inner = message.body.refs[0].begin_parse()
    inner.skip_bits(64 + 256)
    return int(inner.load_uint(32))


def rfc3339(seconds: int) -> str:
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


# ------------------------------------------------------------------------------------------------ ends


def ended_authority(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_authority(pki.platform_ca(), end).accepted and mirror.bring_pck_list().accepted
    return tee()


def ended_signer(mirror: Mirror, end: int) -> SimulatedTee:
    """Keeps the QE identity that stands: a TCB info ends with its signer."""
    assert mirror.bring_authority(pki.tcb_signer(), end).accepted and mirror.bring_tcb().accepted
    return tee()


def ended_signer_of_the_enclave(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_authority(pki.tcb_signer(), end).accepted and mirror.bring_qe().accepted
    return tee()


def ended_pck_list(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_pck_list(end).accepted
    return tee()


def ended_root_list(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_root_list(end).accepted
    return tee()


def ended_tcb(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_tcb(nextUpdate=rfc3339(end)).accepted
    return tee()


def ended_qe(mirror: Mirror, end: int) -> SimulatedTee:
    assert mirror.bring_qe(nextUpdate=rfc3339(end)).accepted
    return tee()


def ended_leaf(mirror: Mirror, end: int) -> SimulatedTee:
    return tee(validity=(moment(mirror.ledger.now - DAY), moment(end)))


@pytest.mark.parametrize(
    ("ended", "error"),
    [
        (ended_authority, Error.NO_AUTHORITY), (ended_signer, Error.EXPIRED), (ended_pck_list, Error.EXPIRED),
        (ended_signer_of_the_enclave, Error.EXPIRED), (ended_root_list, Error.EXPIRED), (ended_tcb, Error.EXPIRED),
        (ended_qe, Error.EXPIRED), (ended_leaf, Error.EXPIRED),
    ],
)  # fmt: skip
def test_g12_a_verdict_ends_with_the_first_of_all_that_it_rests_on(
    mirror: Mirror, ended: Callable[[Mirror, int], SimulatedTee], error: Error
) -> None:
    end = mirror.ledger.now + 1000
    machine = ended(mirror, end)
    assert until(mirror.attest(machine)) == end
    mirror.ledger.now = end - 1
    assert until(mirror.attest(machine)) == end
    mirror.ledger.now = end
    assert mirror.attest(machine).exit_code == error


def test_g12_a_verdict_ends_with_the_policys_longest(mirror: Mirror) -> None:
    assert mirror.stage.govern(set_policy(ChainPolicy(longest_seconds=3600).to_cell())).accepted
    assert until(mirror.attest()) == mirror.ledger.now + 3600


def test_g12_nothing_is_taken_from_before_its_first_or_at_its_last_second(mirror: Mirror) -> None:
    now = mirror.ledger.now
    assert mirror.bring_tcb(issueDate=rfc3339(now + 1)).exit_code == Error.EXPIRED
    assert mirror.bring_qe(nextUpdate=rfc3339(now)).exit_code == Error.EXPIRED
    assert mirror.bring_tcb(issueDate=rfc3339(now), nextUpdate=rfc3339(now + 1)).accepted
    assert mirror.bring_authority(pki.tcb_signer(), now + DAY, now + 1).exit_code == Error.EXPIRED
    assert mirror.bring_authority(pki.tcb_signer(), now).exit_code == Error.EXPIRED
    assert mirror.bring_authority(pki.tcb_signer(), now + 1, now).accepted
    for begin, end, expected in ((now + 1, now + DAY, Error.EXPIRED), (now - 1, now, Error.EXPIRED), (now, now + 1, 0)):
        crl = pki.revocation_list(pki.platform_ca(), begin, end)
        outcome = mirror.stage.tell(crl_messages(Authority.PLATFORM, crl, PLATFORM_KEY)[0])
        assert outcome.exit_code == expected, (begin - now, end - now)


def test_g12_an_authority_that_ended_signs_no_more_lists_nor_statements(mirror: Mirror) -> None:
    end = mirror.ledger.now + 1000
    assert (
        mirror.bring_authority(pki.platform_ca(), end).accepted
        and mirror.bring_authority(pki.tcb_signer(), end).accepted
    )
    mirror.ledger.now = end - 1
    assert mirror.bring_pck_list().accepted and mirror.bring_tcb().accepted and mirror.bring_qe().accepted
    mirror.ledger.now = end
    for told in (mirror.bring_pck_list(), mirror.bring_tcb(), mirror.bring_qe()):
        assert told.exit_code == Error.NO_AUTHORITY


def test_g12_an_authority_that_the_root_revoked_signs_no_more_lists(mirror: Mirror) -> None:
    assert mirror.bring_root_list(revoked=(pki.platform_ca().certificate,)).accepted
    mirror.ledger.now += 10
    assert mirror.bring_pck_list().exit_code == Error.NO_AUTHORITY
    assert mirror.bring_root_list().accepted, "the root's own has no end"


def test_g12_the_root_list_removes_the_processor_authority_and_no_other(mirror: Mirror) -> None:
    body = authority_message(der_of(pki.processor_ca()), ROOT_KEY)
    assert mirror.stage.tell(body).accepted
    before = mirror.state
    assert mirror.bring_root_list(revoked=(pki.processor_ca().certificate,)).accepted
    after = mirror.state
    assert after.processor_authority == dataclasses.replace(
        before.processor_authority, end=0, serial=0, crl_issued=0, crl_until=0, revoked=()
    )
    assert (after.platform_authority, after.signer) == (before.platform_authority, before.signer)
    assert (after.tcb, after.qe) == (before.tcb, before.qe)
    assert mirror.stage.tell(body).exit_code == Error.REVOKED


# ------------------------------------------------------------------------------------------------ numbers and flags


def test_g12_both_statements_must_reach_the_floor(mirror: Mirror) -> None:
    number = simulated.EVALUATION_NUMBER
    assert mirror.attest().accepted
    snapshot = mirror.ledger.snapshot()
    floor = set_policy(ChainPolicy(floor=number + 1).to_cell())
    for raised in ((mirror.bring_tcb,), (mirror.bring_qe,), (mirror.bring_tcb, mirror.bring_qe)):
        mirror.ledger.revert(snapshot)
        for bring in raised:
            assert bring(tcbEvaluationDataNumber=number + 1).accepted
        assert mirror.stage.govern(floor).accepted
        assert mirror.attest().exit_code == (0 if len(raised) == 2 else Error.WRONG_NUMBER)


def test_g12_a_platform_type_without_a_statement_is_unknown(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "FMSPC", bytes.fromhex("5c0000000001"))
    machine = tee(extension=platform.sgx_extension(tee().platform.ppid))
    assert mirror.attest(machine).exit_code == Error.UNKNOWN_PLATFORM
    monkeypatch.undo()
    monkeypatch.setattr(platform, "PCE_ID", b"\x00\x01")
    machine = tee(extension=platform.sgx_extension(tee().platform.ppid))
    assert mirror.attest(machine).exit_code == Error.UNKNOWN_PLATFORM
    # The statement of a platform type names its PCE.
    assert mirror.bring_tcb(pceId="0001").accepted
    assert mirror.attest(machine).accepted
    facts = mirror.state.platforms[machine.platform_id].facts
    assert facts is not None and (facts.pce_id, facts.fmspc) == (1, simulated.FMSPC)


@pytest.mark.parametrize(
    ("policy", "attributes", "accepted"),
    [
        (ChainPolicy(xfam_required=0x0308000000000000), "0000001000000000", False),
        (ChainPolicy(xfam_required=0x0302000000000000), "0000001000000000", True),
        (ChainPolicy(attributes_allowed=0x0000003000000000), "0000001000000000", True),
        (ChainPolicy(attributes_allowed=0x0000003000000000), "0000003000000000", True),
        (ChainPolicy(attributes_allowed=0x0000003000000000), "0000002000000000", False),
        (ChainPolicy(attributes_required=0, attributes_allowed=0), "0000000000000000", True),
        (ChainPolicy(attributes_required=0, attributes_allowed=0), "0000001000000000", False),
    ],
)
def test_g12_required_and_allowed_flags_are_the_policys(
    mirror: Mirror, policy: ChainPolicy, attributes: str, accepted: bool
) -> None:
    assert mirror.stage.govern(set_policy(policy.to_cell())).accepted
    base = Registers.of_image()
    machine = tee(registers=Registers(base.mrtd, base.rtmrs, td_attributes=bytes.fromhex(attributes)))
    assert mirror.attest(machine).exit_code == (0 if accepted else Error.WRONG_ATTRIBUTES)


def test_g12_the_second_half_of_reportdata_is_zero(mirror: Mirror) -> None:
    binding = mirror.binding()
    for tail in (bytes(31) + b"\x01", b"\x01" + bytes(31)):
        parts = QuoteParts.of(tee().quote(binding.report_data()[:32] + tail))
        outcome = mirror.stage.tell(attest(binding, parts.authority, *parts.cells()))
        assert outcome.exit_code == Error.WRONG_REPORT_DATA


def test_g12_only_two_authorities_certify_platforms(mirror: Mirror) -> None:
    assert mirror.stage.tell(authority_message(der_of(pki.processor_ca()), ROOT_KEY)).accepted
    now = mirror.ledger.now
    crl = lists(simulated.mint(now), now, issuer=pki.processor_ca()).pck_crl
    key = pki.raw_public_key(pki.processor_ca().key)
    assert mirror.stage.tell(crl_messages(Authority.PROCESSOR, crl, key)[0]).accepted
    binding = mirror.binding()
    parts = QuoteParts.of(tee(issuer=pki.processor_ca()).quote(binding.report_data()))
    for number, expected in ((0, Error.FORGED), (2, Error.NO_AUTHORITY), (255, Error.NO_AUTHORITY), (1, 0)):
        body = begin_cell().store_cell(attest(binding, parts.authority, *parts.cells()))
        bits = body.end_cell().bits.copy()
        bits[-8:] = begin_cell().store_uint(number, 8).end_cell().bits
        changed = begin_cell().store_bits(bits)
        for ref in body.end_cell().refs:
            changed.store_ref(ref)
        assert mirror.stage.tell(changed.end_cell()).exit_code in {
            expected,
            Error.BAD_HINT if number == 0 else expected,
        }


# ------------------------------------------------------------------------------------------------ hardware


def as_hardware(mirror: Mirror) -> None:
    """The test root called Intel's in the stored state: what Intel's own evidence then gets."""
    account = mirror.ledger.account(mirror.stage.account)
    assert account.data is not None
    bits = account.data.bits.copy()
    assert bits[512] == 1
    bits[512] = 0
    data = begin_cell().store_bits(bits)
    for ref in account.data.refs:
        data.store_ref(ref)
    changed = dataclasses.replace(account, data=data.end_cell())
    mirror.ledger._accounts[mirror.stage.account] = planted(changed, mirror.ledger.now)


def tier(outcome: Outcome) -> int:
    assert outcome.accepted, outcome.exit_code
    message = outcome.trace.of(outcome.trace.transactions[1].account)[0].out_msgs[0]
    inner = message.body.refs[0].begin_parse()
    inner.skip_bits(64 + 256 + 64)
    return int(inner.load_uint(8))


@pytest.mark.parametrize("image_tier", [1, 2])
def test_g14_hardware_gets_its_images_tier_where_it_binds_gpu_evidence(mirror: Mirror, image_tier: int) -> None:
    assert mirror.stage.govern(allow_image(IMAGE, image_tier, NO_LAUNCH)).accepted
    as_hardware(mirror)
    assert tier(mirror.attest()) == 1
    assert tier(mirror.attest(binding=mirror.binding(gpu_evidence_hash=b"\x07" * 32))) == image_tier


def test_g14_intels_root_is_at_home_on_the_main_network() -> None:
    ledger = Ledger(global_id=-239)
    stage = Stage(ledger, INTEL_KEY)
    assert not stage.deploy().failed
    registry, network, simulated_ = ledger.run_get(stage.account, "get_attestation")
    assert (registry, network) == (int.from_bytes(stage.registry, "big"), int.from_bytes(stage.network, "big"))
    assert simulated_ == 0
    # The root itself may be revoked by nobody, but evidence is judged there: nothing of it is collateral yet.
    quote = QuoteParts.of(tee().quote(bytes(64)))
    body = attest(Mirror().binding(), quote.authority, *quote.cells())
    assert stage.tell(body).exit_code == Error.NO_AUTHORITY


@pytest.mark.parametrize("name", ["x", "y"])
def test_g14_a_root_that_is_half_intels_is_a_test_root(name: str) -> None:
    """The same x with the other y is another key. (Its secret is the negative of Intel's, but nobody signs with it.)"""
    other = (P - int.from_bytes(INTEL_KEY[32:], "big")).to_bytes(32, "big")
    key = INTEL_KEY[:32] + other if name == "y" else ROOT_KEY
    stage = Stage(Ledger(), key)
    assert not stage.deploy().failed
    assert stage.ledger.run_get(stage.account, "get_attestation")[2] == -1
    assert Stage(Ledger(global_id=-239), key).deploy().failed


# ------------------------------------------------------------------------------------------------ genesis


def birth(change: Callable[[Stage], Cell], value_nano: int = 10 * TON, global_id: int | None = None) -> int | None:
    stage = Stage(Ledger() if global_id is None else Ledger(global_id=global_id), ROOT_KEY)
    state = change(stage)
    signature = sign(GenesisState(stage.ledger.global_id, stage.account, bytes(state.hash)), stage.genesis_key)
    trace = stage.ledger.send_internal(
        source=stage.registry,
        destination=stage.account,
        value_nano=value_nano,
        body=begin_cell().store_uint(CommonOp.GENESIS, 32).store_bytes(signature).store_ref(state).end_cell(),
        state_init=singleton_state_init(code(Contract.ATTESTATION), bytes(stage_key(stage)), 0),
    )
    return trace.of(stage.account)[0].exit_code


def stage_key(stage: Stage) -> bytes:
    return stage.genesis_key.public_key().public_bytes_raw()


def born_with(stage: Stage, **changes: Any) -> Cell:
    fields: dict[str, Any] = {
        "registry": stage.registry, "network_id": stage.network, "root_key": ROOT_KEY, "policy": ChainPolicy(),
        "images": {},
    }  # fmt: skip
    return genesis_state(**(fields | changes))


def test_g20_genesis_is_held_to_the_same_bounds() -> None:
    assert birth(born_with) == 0
    assert birth(lambda stage: born_with(stage, network_id=bytes(32))) == ContractError.WRONG_NETWORK
    assert birth(lambda stage: born_with(stage, registry=bytes(32))) == ContractError.WRONG_NETWORK
    policy = ChainPolicy(longest_seconds=3599)
    assert birth(lambda stage: born_with(stage, policy=policy)) == ContractError.BAD_PARAMETERS
    off_curve = ROOT_KEY[:63] + bytes([ROOT_KEY[63] ^ 1])
    assert birth(lambda stage: born_with(stage, root_key=off_curve)) == Error.BAD_POINT
    assert birth(lambda stage: longer(born_with(stage))) == CELL_UNDERFLOW

    def more_at_the_end(stage: Stage) -> Cell:
        cell = born_with(stage)
        builder = begin_cell().store_bits(cell.bits).store_ref(cell.refs[0])
        return builder.store_ref(longer(cell.refs[1])).end_cell()

    assert birth(more_at_the_end) == CELL_UNDERFLOW


def test_g9_genesis_brings_the_rent_of_the_collateral_too() -> None:
    """Ten years of code, state, and the collateral that nobody pays for, to the nanoTON."""
    stage = Stage(Ledger(), ROOT_KEY)
    assert not stage.deploy().failed
    state = stage.ledger.account(stage.account)
    assert state.code is not None and state.data is not None
    cells, bits = size_of(begin_cell().store_ref(state.code).store_ref(state.data).end_cell())
    prices = Prices.from_config(stage.ledger.config)
    rent = prices.storage(cells + fees.COLLATERAL_CELLS, bits + fees.COLLATERAL_BITS, TEN_YEARS)
    need = prices.gas(Gas.GENESIS) + rent
    assert birth(born_with, need - 1) == ContractError.LOW_VALUE
    assert birth(born_with, need) == 0
