"""A mirror of Intel's hierarchy under the test root, and the verifier on the ledger beside the off-chain one."""

from __future__ import annotations

import dataclasses
import datetime
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from pytoniq_core import Cell, HashMap, begin_cell

from attestation import hardware
from attestation.collateral import Collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.collateral import authority_message, crl_messages
from attestation.onchain.messages import ROOT, Authority, appraise
from attestation.onchain.state import NO_LAUNCH, ChainImage, ChainPolicy, VerifierState
from attestation.onchain.statements import qe_message, tcb_message
from attestation.report_data import NO_GPU, Binding
from attestation.simulated import collateral as simulated
from attestation.simulated import pki
from attestation.simulated.collateral import Findings
from attestation.simulated.platform import Platform, sgx_extension
from attestation.simulated.tee import Registers, SimulatedTee
from attestation.trust_roots import root
from attestation.witness import QuoteParts, attest_message
from devnet.ledger import Ledger
from scripts.attest_stage import TON, Outcome, Stage

ROOT_KEY = public_key(root(Kind.SIMULATED).der)
INTEL_KEY = public_key(root(Kind.TDX).der)
PLATFORM_KEY = pki.raw_public_key(pki.platform_ca().key)
SIGNER_KEY = pki.raw_public_key(pki.tcb_signer().key)
# Stands for nodes that take every verdict (SETCP0 and nothing else) or none (THROW 42); any other account is none.
_TAKES, _REFUSES = (
    begin_cell().store_uint(0b00110, 5).store_ref(program).store_ref(Cell.empty()).end_cell()
    for program in (
        begin_cell().store_uint(0xFF00, 16).end_cell(),
        begin_cell().store_uint(0xFF00F22A, 32).end_cell(),
    )
)
NODE, REFUSING_NODE = bytes(_TAKES.hash), bytes(_REFUSES.hash)
KEY = b"\x44" * 32
EPOCH = 77


def der_of(authority: pki.Authority) -> bytes:
    return authority.certificate.public_bytes(Encoding.DER)


def moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


class IssuedPlatform(Platform):
    """A platform certified by another authority than the usual one."""

    @property
    def chain_pem(self) -> bytes:
        issuer = self.pck.certificate.issuer
        authorities = (pki.platform_ca(), pki.processor_ca())
        authority = next(each for each in authorities if each.certificate.subject == issuer)
        return (self.pck.pem + authority.pem + pki.root().pem).encode()


def tee(
    secret: bytes = b"machine",
    *,
    issuer: pki.Authority | None = None,
    validity: pki.Validity | None = None,
    registers: Registers | None = None,
    extension: bytes | None = None,
) -> SimulatedTee:
    made = SimulatedTee(secret, registers)
    platform = made.platform
    pck = pki.pck_certificate(platform.pck.key, extension or sgx_extension(platform.ppid), issuer, validity)
    made.platform = IssuedPlatform(platform.ppid, pck, platform.attestation_key)
    return made


def statement(collateral: Collateral, *, tcb: Any = None, qe: Any = None) -> Collateral:
    """The collateral with its signed documents changed and signed again. `tcb` and `qe` change the parsed JSON."""
    changes: dict[str, Any] = {}
    for name, change in (("tcb_info", tcb), ("qe_identity", qe)):
        if change is not None:
            document = json.loads(getattr(collateral, name))
            change(document)
            text = json.dumps(document, separators=(",", ":"))
            changes[name] = text
            changes[f"{name}_signature"] = pki.raw_signature(pki.tcb_signer().key, text.encode())
    return dataclasses.replace(collateral, **changes)


def lists(
    collateral: Collateral,
    now: int,
    *,
    issuer: pki.Authority | None = None,
    revoked: tuple[x509.Certificate, ...] = (),
    root_revoked: tuple[x509.Certificate, ...] = (),
    end: int | None = None,
) -> Collateral:
    """The collateral with other revocation lists."""
    issuer = issuer or pki.platform_ca()
    begin, end = now - 3600, end or now + 30 * 86_400
    return dataclasses.replace(
        collateral,
        pck_crl_issuer_chain=issuer.pem + pki.root().pem,
        pck_crl=pki.revocation_list(issuer, begin, end, revoked),
        root_ca_crl=pki.revocation_list(pki.root(), begin, end, root_revoked),
    )


def crl_of(
    now: int,
    serials: Sequence[int],
    *,
    issuer: pki.Authority | None = None,
    ends_after: int = 30 * 86_400,
    reasons: bool = True,
) -> bytes:
    """DER of a list issued five seconds ago. Intel's give a reason for each serial."""
    issuer = issuer or pki.platform_ca()
    builder = x509.CertificateRevocationListBuilder(
        issuer.certificate.subject, moment(now - 5), moment(now + ends_after)
    ).add_extension(x509.CRLNumber(1), critical=False)
    reason = x509.CRLReason(x509.ReasonFlags.key_compromise)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder(serial, moment(now - 5))
        builder = builder.add_revoked_certificate((entry.add_extension(reason, False) if reasons else entry).build())
    return builder.sign(issuer.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def serials_of(count: int, seed: int = 1) -> list[int]:
    """Twenty bytes each, as Intel's."""
    rng = random.Random(seed)
    return [rng.getrandbits(159) | 1 << 158 for _ in range(count)]


def crl_message(issuer: int, der: bytes, issuer_key: bytes) -> Cell:
    """Of a list of one part."""
    (body,) = crl_messages(issuer, der, issuer_key)
    return body


@dataclass
class Mirror:
    """The verifier with an allow-list that holds the simulated worker's image."""

    ledger: Ledger = field(default_factory=Ledger)
    policy: ChainPolicy = field(default_factory=ChainPolicy)
    images: dict[bytes, ChainImage] | None = None

    def __post_init__(self) -> None:
        images = {Registers.of_image().measurement: ChainImage()} if self.images is None else self.images
        self.stage = Stage(self.ledger, ROOT_KEY, self.policy, images)
        assert not self.stage.deploy().failed
        for init in (_TAKES, _REFUSES):
            self.ledger.send_internal(
                source=self.stage.registry, destination=bytes(init.hash), value_nano=TON, state_init=init
            )

    def load(self, collateral: Collateral | None = None) -> dict[str, Outcome]:
        return self.stage.load(collateral or simulated.mint(self.ledger.now))

    def binding(self, **changes: Any) -> Binding:
        block = self.ledger.prev_blocks.hundreds[changes.pop("back", 0)]
        fields = {
            "network_id": self.stage.network,
            "node": NODE,
            "node_epoch": EPOCH,
            "signing_key": KEY,
            "gpu_evidence_hash": NO_GPU,
            "block_seqno": block.seqno,
            "block_root_hash": block.root_hash,
        }
        return Binding(**(fields | changes))

    def attest(self, machine: SimulatedTee | None = None, binding: Binding | None = None, **sent: Any) -> Outcome:
        """A genuine quote over `binding`, sent with claims that may differ from it."""
        binding = binding or self.binding()
        quote = (machine or tee()).quote(binding.report_data())
        return self.stage.tell(attest_message(quote, dataclasses.replace(binding, **sent)))

    @property
    def state(self) -> VerifierState:
        data = self.ledger.account(self.stage.account).data
        assert data is not None
        return VerifierState.from_cell(data)

    def said(self, source: bytes, body: Cell | None, value_nano: int = TON, *, bounced: bool = False) -> Outcome:
        """A message from any account."""
        trace = self.ledger.send_internal(
            source=source, destination=self.stage.account, value_nano=value_nano, body=body, bounced=bounced
        )
        return self.stage.outcome(trace)

    def bring_tcb(self, **changes: Any) -> Outcome:
        """TCB info of today with other fields, signed by the TCB signer."""
        changed = statement(simulated.mint(self.ledger.now), tcb=lambda document: document.update(changes))
        return self.stage.tell(tcb_message(changed.tcb_info, changed.tcb_info_signature, SIGNER_KEY))

    def bring_qe(self, **changes: Any) -> Outcome:
        changed = statement(simulated.mint(self.ledger.now), qe=lambda document: document.update(changes))
        return self.stage.tell(qe_message(changed.qe_identity, changed.qe_identity_signature, SIGNER_KEY))

    def bring_pck_list(self, end: int | None = None) -> Outcome:
        crl = lists(simulated.mint(self.ledger.now), self.ledger.now - 1, end=end).pck_crl
        return self.stage.tell(crl_message(Authority.PLATFORM, crl, PLATFORM_KEY))

    def bring_root_list(self, end: int | None = None, revoked: tuple[x509.Certificate, ...] = ()) -> Outcome:
        now = self.ledger.now
        crl = lists(simulated.mint(now), now - 1, end=end, root_revoked=revoked).root_ca_crl
        return self.stage.tell(crl_message(ROOT, crl, ROOT_KEY))

    def bring_authority(self, who: pki.Authority, end: int, begin: int | None = None) -> Outcome:
        """A renewed certificate of the same key, valid since yesterday unless `begin` is given."""
        begin = self.ledger.now - 86_400 if begin is None else begin
        fresh = pki.renewed(who, (moment(begin), moment(end)))
        return self.stage.tell(authority_message(der_of(fresh), ROOT_KEY))

    def appraise(self, quote: bytes) -> Outcome:
        parts = QuoteParts.of(quote)
        return self.stage.tell(appraise(parts.authority, *parts.cells()))


def longer(cell: Cell) -> Cell:
    """The cell with one more bit."""
    builder = begin_cell().store_bits(cell.bits).store_bit(0)
    for ref in cell.refs:
        builder.store_ref(ref)
    return builder.end_cell()


def judged_off_chain(quote: bytes, collateral: Collateral, kind: Kind, now: int) -> str:
    """The TCB status when dcap-qvl and the checks around it accept the quote at `now`, else the reason."""
    try:
        found = hardware.check(quote, collateral, kind, now)
    except ValueError as error:
        return f"rejected: {error}"
    return found.tcb_status if now < found.expires_at else "rejected: ended"


__all__ = [
    "INTEL_KEY",
    "NODE",
    "PLATFORM_KEY",
    "REFUSING_NODE",
    "ROOT_KEY",
    "SIGNER_KEY",
    "Findings",
    "Mirror",
    "crl_message",
    "crl_of",
    "der_of",
    "judged_off_chain",
    "lists",
    "longer",
    "moment",
    "serials_of",
    "statement",
    "tee",
]


def crowded(mirror: Mirror, platforms: int, images: int, vouchable: tuple[bytes, ...] = ()) -> None:
    """Give the contract an address of its own whose state holds many platforms and images, `vouchable` under tier 3."""
    rng = random.Random(1)
    data = mirror.ledger.account(mirror.stage.account).data
    assert data is not None
    state = data.begin_parse()
    head = state.load_bits(513)
    facts = begin_cell().store_uint(0, 657).end_cell()
    many = HashMap(
        256, value_serializer=lambda node, b: b.store_bit(0).store_bytes(node).store_uint(0, 34).store_maybe_ref(facts)
    )
    for _ in range(platforms):
        many.set_int_key(rng.getrandbits(256), rng.randbytes(32))
    state.load_maybe_ref()
    allowed = HashMap(
        256, value_serializer=lambda image, b: b.store_uint(image[1], 8).store_bytes(image[0]).store_uint(0, 8)
    )
    for _ in range(images):
        allowed.set_int_key(rng.getrandbits(256), (rng.randbytes(32), 1))
    allowed.set_int_key(int.from_bytes(tee().registers.measurement, "big"), (NO_LAUNCH, 1))
    for account in vouchable:
        allowed.set_int_key(int.from_bytes(account, "big"), (bytes(32), 3))
    state.load_maybe_ref()
    crowd = begin_cell().store_bits(head).store_maybe_ref(many.serialize()).store_maybe_ref(allowed.serialize())
    crowd.store_ref(state.load_ref()).store_ref(state.load_ref())
    init = begin_cell().store_uint(0b00110, 5).store_ref(mirror.stage.code).store_ref(crowd.end_cell()).end_cell()
    mirror.stage.account = bytes(init.hash)
    mirror.ledger.send_internal(
        source=mirror.stage.registry, destination=mirror.stage.account, value_nano=TON, state_init=init
    )
