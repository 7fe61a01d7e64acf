"""Money of the verifier (G7): what the action phase cannot pay is sent back."""

from __future__ import annotations

import pytest
from attestation_mirror import NODE, PLATFORM_KEY, Mirror, crl_message, crl_of, serials_of, tee
from pytoniq_core import Cell, begin_cell

from attestation.onchain import fees
from attestation.onchain.messages import Authority, appraise, governed, sync
from attestation.witness import QuoteParts, attest_message
from devnet.ledger import Snapshot
from scripts.attest_stage import Outcome
from wrappers.governance import deny_platform
from wrappers.prices import Prices

BOUNCE_FEE = 700_000
"""More than the bounced message's way, less than that of an answer."""
MACHINE = tee()


@pytest.fixture(scope="module")
def _loaded() -> tuple[Mirror, Snapshot]:
    mirror = Mirror()
    mirror.load()
    return mirror, mirror.ledger.snapshot()


@pytest.fixture
def mirror(_loaded: tuple[Mirror, Snapshot]) -> Mirror:
    _loaded[0].ledger.revert(_loaded[1])
    return _loaded[0]


def returned(mirror: Mirror, outcome: Outcome) -> int:
    """NanoTON that bounced back from the verifier; no other message left it."""
    assert not outcome.accepted
    (transaction,) = outcome.trace.of(mirror.stage.account)
    assert all(message.bounced for message in transaction.out_msgs)
    return sum(message.value_nano for message in transaction.out_msgs)


def test_g7_an_action_that_cannot_pay_its_rent_is_returned(mirror: Mirror) -> None:
    body = governed(mirror.stage.wallet.account, deny_platform(b"\x02" * 32))
    before = mirror.ledger.balance(mirror.stage.account)
    assert returned(mirror, mirror.said(mirror.stage.registry, body, 9_000_000)) > 1_000_000
    assert mirror.ledger.balance(mirror.stage.account) <= before


def test_g7_a_list_that_cannot_pay_its_rent_is_returned(mirror: Mirror) -> None:
    mirror.ledger.now += 10
    body = crl_message(Authority.PLATFORM, crl_of(mirror.ledger.now, serials_of(20)), PLATFORM_KEY)
    snapshot = mirror.ledger.snapshot()
    spent = mirror.stage.tell(body).gas * 400
    mirror.ledger.revert(snapshot)
    assert returned(mirror, mirror.stage.tell(body, spent + BOUNCE_FEE)) > 0
    assert mirror.state.platform_authority.crl_issued < mirror.ledger.now - 5


def test_g7_an_answer_that_cannot_be_paid_is_returned(mirror: Mirror) -> None:
    parts = QuoteParts.of(MACHINE.quote(bytes(64)))
    program = begin_cell().store_bytes(bytes(100)).end_cell()
    for body in (
        appraise(parts.authority, *parts.cells()),
        sync(NODE, MACHINE.registers.measurement, MACHINE.platform_id, program),
    ):
        spent = mirror.stage.tell(body).gas * 400
        assert returned(mirror, mirror.stage.tell(body, spent + BOUNCE_FEE)) > 0


def heavy(cells: int) -> Cell:
    cell = Cell.empty()
    for number in range(cells):
        cell = begin_cell().store_uint(number, 1000).store_ref(cell).end_cell()
    return cell


def test_g7_a_verdict_whose_consent_is_too_heavy_to_go_on_is_returned(mirror: Mirror) -> None:
    """Whoever makes it heavy pays its way: the network's own verdict fits what the message must carry."""
    binding = mirror.binding()
    body = attest_message(MACHINE.quote(binding.report_data()), binding)
    changed = (
        begin_cell().store_bits(body.bits[: 32 + 864]).store_maybe_ref(heavy(80)).store_bits(body.bits[32 + 865 :])
    )
    for ref in body.refs:
        changed.store_ref(ref)
    need = fees.attest(Prices.from_config(mirror.ledger.config))
    snapshot = mirror.ledger.snapshot()
    assert returned(mirror, mirror.stage.tell(changed.end_cell(), need)) > 1_000_000
    assert MACHINE.platform_id not in mirror.state.platforms
    mirror.ledger.revert(snapshot)
    assert mirror.stage.tell(changed.end_cell(), 2 * need).accepted
