"""What attestation costs: constants pinned to the measured worst case, targets held, sizes bounded."""

from __future__ import annotations

import dataclasses
import re

import pytest
from attestation_mirror import INTEL_KEY, Mirror, crl_of, crowded, lists, serials_of, tee
from pytoniq_core import Cell

from attestation import vectors
from attestation.collateral import Collateral
from attestation.onchain import fees
from attestation.onchain.certificates import LIST_PART
from attestation.onchain.collateral import collateral_messages, crl_messages
from attestation.onchain.messages import appraise
from attestation.onchain.pieces import BadWitness
from attestation.simulated import collateral as simulated
from attestation.simulated import pki, platform
from attestation.verifier import LIST_VALUE_NANO, TRANSFER_BYTES
from attestation.witness import QuoteParts
from devnet.ledger import Ledger
from scripts.attest_stage import Stage
from scripts.compile import CONTRACTS
from wrappers.cells import to_boc
from wrappers.code import Contract, code, size_of

MEASURED_BORDER_NANO = 65_000_000
COLLATERAL_BORDER_NANO = 150_000_000
NOW = 1_790_000_000


def constant(name: str) -> int:
    text = (CONTRACTS / "attestation" / "gas.fc").read_text()
    found = re.search(rf"const int {name} = (\d+);", text)
    assert found
    return int(found[1])


def worst_collateral(now: int) -> Collateral:
    return dataclasses.replace(lists(simulated.mint(now), now), pck_crl=crl_of(now, serials_of(961)))


def test_g8_gas_constant_covers_the_worst_case_and_little_more(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror()
    for name, outcome in mirror.load(worst_collateral(mirror.ledger.now)).items():
        assert outcome.accepted, name
    crowded(mirror, platforms=4000, images=60)
    # Every component SVN in the long form, which takes the longer way through the certificate.
    monkeypatch.setattr(platform, "CPU_SVN", bytes([200] * 16))
    worst = mirror.attest(tee(extension=platform.sgx_extension(tee().platform.ppid)))
    assert worst.exit_code == 0
    limit = constant("gas::attest")
    assert worst.gas <= limit <= worst.gas * 1.1
    assert (limit, constant("size::platform_cells"), constant("size::platform_bits")) == (
        fees.ATTEST_GAS,
        fees.PLATFORM_CELLS,
        fees.PLATFORM_BITS,
    )


def test_attestation_stays_within_its_targets() -> None:
    mirror = Mirror()
    for name, outcome in mirror.load().items():
        assert outcome.accepted and outcome.all_in_nano <= COLLATERAL_BORDER_NANO, name
    costs = []
    for _ in range(5):
        outcome = mirror.attest()
        assert outcome.exit_code == 0
        assert outcome.gas <= 100_000
        assert outcome.all_in_nano <= MEASURED_BORDER_NANO
        costs.append(outcome.all_in_nano)
        mirror.ledger.now += 100
    # The second and third still count the verdicts since the claim; from then on the entry stays as it is.
    first, second, third, *renewals = costs
    assert max(second, third) <= first + 1_000_000
    assert max(renewals) <= first


def test_collateral_stays_within_its_target_with_intels_real_lists() -> None:
    try:
        text = vectors.read("phala/tdx_quote_outdated_collateral.json")
    except vectors.Unobtainable as error:
        pytest.skip(str(error))
    stage = Stage(Ledger(now=1_772_000_000), INTEL_KEY)
    stage.deploy()
    for name, outcome in stage.load(Collateral.from_json(text)).items():
        assert outcome.accepted and outcome.all_in_nano <= COLLATERAL_BORDER_NANO, (name, outcome.all_in_nano)


@pytest.mark.parametrize(("count", "reasons"), [(LIST_PART, True), (961, True), (1270, False)])
def test_gas_of_a_list_is_bounded_however_long_it_is(count: int, reasons: bool) -> None:
    """Of one part, and as many serials as an external message carries."""
    mirror = Mirror()
    mirror.load()
    mirror.ledger.now += 100
    crl = crl_of(mirror.ledger.now, serials_of(count), reasons=reasons)
    bodies = crl_messages(0, crl, pki.raw_public_key(pki.platform_ca().key))
    first, *others = (mirror.stage.tell(body, LIST_VALUE_NANO) for body in bodies)
    assert first.accepted and all(each.accepted for each in others)
    limit = fees.LIST_GAS if others else fees.LIST_PART_GAS
    assert first.gas <= limit <= first.gas * 1.1
    assert all(each.gas <= fees.LIST_PART_GAS for each in others)
    assert max(len(to_boc(body)) for body in bodies) <= TRANSFER_BYTES


def test_a_list_that_no_wallet_can_send_is_refused_off_chain() -> None:
    crl = crl_of(NOW, serials_of(980))
    with pytest.raises(BadWitness, match="verified in one message"):
        crl_messages(0, crl, pki.raw_public_key(pki.platform_ca().key))


def cells(body: Cell) -> int:
    return size_of(body)[0]


def test_messages_and_code_do_not_grow_unnoticed() -> None:
    parts = QuoteParts.of(tee().quote(bytes(64)))
    assert cells(appraise(parts.authority, *parts.cells())) <= 26
    assert size_of(code(Contract.ATTESTATION))[0] <= 175
    for name, body in collateral_messages(simulated.mint(NOW), pki.raw_public_key(pki.root().key)):
        assert cells(body) <= 40, name
