"""The on-chain verdict equals dcap-qvl's, with the checks that the off-chain verifier puts around it.

On every quote that has collateral: Intel's, and those of a mirror hierarchy for what Intel's data lacks. And whole
witnesses are flipped byte by byte.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from attestation_mirror import INTEL_KEY, Findings, Mirror, judged_off_chain, lists, moment, statement, tee
from cryptography.hazmat.primitives.asymmetric import ec

from attestation import vectors
from attestation.collateral import Collateral
from attestation.collateral import read as read_collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import Signed
from attestation.onchain.collateral import authority_message
from attestation.onchain.errors import VerifierError as Error
from attestation.onchain.errors import explain
from attestation.onchain.hints import NoHints
from attestation.onchain.messages import appraise
from attestation.onchain.pieces import BadWitness
from attestation.onchain.state import ChainPolicy
from attestation.simulated import collateral as simulated
from attestation.simulated import pki, platform
from attestation.simulated.platform import sgx_extension
from attestation.simulated.tee import SimulatedTee
from attestation.witness import QuoteParts
from devnet.ledger import Ledger
from scripts.attest_stage import Outcome, Stage

REAL = ("phala/tdx_quote", "phala/tdx_quote_outdated")
# Quotes without collateral of their own meet that of another machine of the same platform type.
PAIRS = (
    (REAL[0], REAL[0]),
    (REAL[1], REAL[1]),
    ("phala/quote-from-tappd.hex", REAL[0]),
    ("phala/tdx-quote.hex", REAL[0]),
    ("cocoon/quote.dat", REAL[1]),
    ("cocoon/quote.dat", REAL[0]),
)
NOW = 1_790_000_000
DAY = 86_400


def evidence(name: str) -> bytes:
    try:
        raw = vectors.read(name)
    except vectors.Unobtainable as error:
        pytest.skip(str(error))
    if raw[:1] in (b"\x04", b"\x05"):
        return raw
    return bytes.fromhex(raw.decode().strip().removeprefix("0x"))


def real(name: str) -> tuple[bytes, Collateral]:
    quote = evidence(name)
    return quote, Collateral.from_json(vectors.read(f"{name}_collateral.json"))


def on_chain(
    quote: bytes, collateral: Collateral, now: int, *, root_key: bytes | None = None, policy: ChainPolicy | None = None
) -> Outcome:
    """A verifier that was given exactly this collateral at `now`, whatever of it the contract refuses."""
    ledger = Ledger(now=now)
    if root_key is None:
        stage = Mirror(ledger, policy or ChainPolicy()).stage
    else:
        stage = Stage(ledger, root_key, policy or ChainPolicy())
        stage.deploy()
    stage.load(collateral)
    parts = QuoteParts.of(quote)
    return stage.tell(appraise(parts.authority, *parts.cells()))


def times(collateral: Collateral) -> list[int]:
    begins = [json.loads(text)["issueDate"] for text in (collateral.tcb_info, collateral.qe_identity)]
    latest = max(int(moment_of(each)) for each in begins)
    end = read_collateral(collateral).expires_at
    return [latest - 1, latest, latest + 1, (latest + end) // 2, end - 1, end, end + 1]


def moment_of(text: str) -> float:
    import datetime

    return datetime.datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(("name", "collateral_of"), PAIRS)
def test_g12_real_quotes_get_the_same_verdict_at_every_border_of_time(name: str, collateral_of: str) -> None:
    quote, (_, collateral) = evidence(name), real(collateral_of)
    for now in times(collateral):
        off_chain = judged_off_chain(quote, collateral, Kind.TDX, now)
        outcome = on_chain(quote, collateral, now, root_key=INTEL_KEY)
        assert outcome.accepted == (off_chain == "UpToDate"), (now, off_chain, outcome.exit_code)


def test_genuine_quote_is_accepted_at_its_time() -> None:
    quote, collateral = real(REAL[0])
    assert on_chain(quote, collateral, times(collateral)[3], root_key=INTEL_KEY).accepted


def test_outdated_platform_is_refused_for_that_reason() -> None:
    quote, collateral = real(REAL[1])
    now = times(collateral)[3]
    assert "No matching TCB level found" in judged_off_chain(quote, collateral, Kind.TDX, now)
    outcome = on_chain(quote, collateral, now, root_key=INTEL_KEY)
    assert outcome.exit_code == Error.OLD_PLATFORM
    assert "no matching TCB level found" in explain(outcome.exit_code)


def extension(**changes: Any) -> bytes:
    """SGX extension of a simulated platform with other values."""
    kept = {name: getattr(platform, name) for name in changes}
    try:
        for name, value in changes.items():
            setattr(platform, name, value)
        return sgx_extension(tee().platform.ppid)
    finally:
        for name, value in kept.items():
            setattr(platform, name, value)


def tcb(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        level = document["tcbLevels"][0]
        for name, value in changes.items():
            if name in level["tcb"]:
                level["tcb"][name] = value
            elif name in level:
                level[name] = value
            else:
                document[name] = value

    return change


def with_level(status: str) -> Callable[[dict[str, Any]], None]:
    """An unreachable first level, then one that the platform reaches."""

    def change(document: dict[str, Any]) -> None:
        second = json.loads(json.dumps(document["tcbLevels"][0]))
        second["tcbStatus"] = status
        second["advisoryIDs"] = [f"INTEL-SA-{number:05}" for number in range(20)]
        document["tcbLevels"][0]["tcb"]["pcesvn"] = 200
        document["tcbLevels"].append(second)

    return change


def module_levels(*levels: tuple[int, str]) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["tdxModuleIdentities"][0]["tcbLevels"] = [
            {"tcb": {"isvsvn": svn}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": status} for svn, status in levels
        ]

    return change


def qe(**changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.update(changes)


def qe_levels(*levels: tuple[int, str]) -> Callable[[dict[str, Any]], None]:
    made = [{"tcb": {"isvsvn": svn}, "tcbDate": "2024-11-13T00:00:00Z", "tcbStatus": s} for svn, s in levels]
    return lambda document: document.update(tcbLevels=made)


MINTED: dict[str, Callable[[], tuple[SimulatedTee, Collateral]]] = {
    "plain": lambda: (tee(), simulated.mint(NOW)),
    "processor authority": lambda: (
        tee(issuer=pki.processor_ca()),
        lists(simulated.mint(NOW), NOW, issuer=pki.processor_ca()),
    ),
    "processor authority, revoked leaf": lambda: (
        (machine := tee(issuer=pki.processor_ca())),
        lists(simulated.mint(NOW), NOW, issuer=pki.processor_ca(), revoked=(machine.platform.pck.certificate,)),
    ),
    "revoked leaf": lambda: (
        (machine := tee()),
        lists(simulated.mint(NOW), NOW, revoked=(tee(b"1").platform.pck.certificate, machine.platform.pck.certificate)),
    ),
    "other leaves revoked": lambda: (
        tee(),
        lists(simulated.mint(NOW), NOW, revoked=tuple(tee(bytes([i])).platform.pck.certificate for i in range(1, 9))),
    ),
    "revoked authority": lambda: (
        tee(),
        lists(simulated.mint(NOW), NOW, root_revoked=(pki.platform_ca().certificate,)),
    ),
    "revoked TCB signer": lambda: (
        tee(),
        lists(simulated.mint(NOW), NOW, root_revoked=(pki.tcb_signer().certificate,)),
    ),
    "ended leaf": lambda: (tee(validity=(moment(NOW - 9 * DAY), moment(NOW - 1))), simulated.mint(NOW)),
    "leaf of tomorrow": lambda: (tee(validity=(moment(NOW + DAY), moment(NOW + 9 * DAY))), simulated.mint(NOW)),
    "leaf that ends in a second": lambda: (tee(validity=(moment(NOW - DAY), moment(NOW + 1))), simulated.mint(NOW)),
    "leaf that began now": lambda: (tee(validity=(moment(NOW), moment(NOW + DAY))), simulated.mint(NOW)),
    "ended lists": lambda: (tee(), lists(simulated.mint(NOW), NOW, end=NOW - 1)),
    "components above 127": lambda: (
        tee(extension=extension(CPU_SVN=bytes((255, 128, 200) + (7,) * 13))),
        simulated.mint(NOW),
    ),
    "PCE SVN of two bytes": lambda: (tee(extension=extension(PCE_SVN=300)), simulated.mint(NOW)),
    "component one below": lambda: (
        tee(extension=extension(CPU_SVN=bytes((3, 3, 2, 2, 4, 1, 0, 4) + (0,) * 8))),
        simulated.mint(NOW),
    ),
    "another FMSPC": lambda: (tee(extension=extension(FMSPC=bytes.fromhex("5c0000000001"))), simulated.mint(NOW)),
    "another PCE": lambda: (tee(extension=extension(PCE_ID=b"\x00\x01")), simulated.mint(NOW)),
    "PCE SVN too low": lambda: (tee(), simulated.mint(NOW, findings=Findings(required_pce_svn=14))),
    "module's own components": lambda: (
        tee(),
        statement(simulated.mint(NOW), tcb=tcb(tdxtcbcomponents=[{"svn": n} for n in (99, 99, 3, *[0] * 13)])),
    ),
    "TDX component one below": lambda: (
        tee(),
        statement(simulated.mint(NOW), tcb=tcb(tdxtcbcomponents=[{"svn": n} for n in (5, 0, 4, *[0] * 13)])),
    ),
    "module too old": lambda: (tee(), statement(simulated.mint(NOW), tcb=module_levels((7, "UpToDate")))),
    "module out of date": lambda: (
        tee(),
        statement(simulated.mint(NOW), tcb=module_levels((7, "UpToDate"), (6, "OutOfDate"))),
    ),
    "module revoked": lambda: (tee(), statement(simulated.mint(NOW), tcb=module_levels((6, "Revoked")))),
    "unknown module": lambda: (
        tee(),
        statement(simulated.mint(NOW), tcb=lambda d: d["tdxModuleIdentities"][0].update(id="TDX_02")),
    ),
    "QE out of date": lambda: (tee(), statement(simulated.mint(NOW), qe=qe_levels((7, "UpToDate"), (1, "OutOfDate")))),
    "QE below all": lambda: (tee(), statement(simulated.mint(NOW), qe=qe_levels((7, "UpToDate")))),
    "QE revoked": lambda: (tee(), statement(simulated.mint(NOW), qe=qe_levels((1, "Revoked")))),
    "QE of another signer": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(mrsigner="AB" * 32))),
    "QE of another product": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(isvprodid=258))),
    "QE attributes": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(attributes="10" + "00" * 15))),
    "QE attributes, masked": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(attributes="11" + "00" * 14 + "FF"))),
    "QE misc": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(miscselect="00000001"))),
    "QE misc, masked": lambda: (
        tee(),
        statement(simulated.mint(NOW), qe=qe(miscselect="00000001", miscselectMask="FEFFFFF0")),
    ),
    "QE version 3": lambda: (tee(), statement(simulated.mint(NOW), qe=qe(version=3))),
    "lower case": lambda: (tee(), statement(simulated.mint(NOW), tcb=lambda d: d.update(fmspc=d["fmspc"].lower()))),
    **{
        f"status {status}": (lambda s: lambda: (tee(), simulated.mint(NOW, findings=Findings(tcb_status=s))))(status)
        for status in ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
    },
    **{
        f"second level {status}": (lambda s: lambda: (tee(), statement(simulated.mint(NOW), tcb=with_level(s))))(status)
        for status in ("UpToDate", "OutOfDate", "OutOfDateConfigurationNeeded", "Revoked", "SWHardeningNeeded")
    },
}
ACCEPTED = {
    "plain",
    "processor authority",
    "other leaves revoked",
    "leaf that ends in a second",
    "leaf that began now",
    "components above 127",
    "PCE SVN of two bytes",
    "module's own components",
    "QE attributes, masked",
    "QE misc, masked",
    "QE version 3",
    "lower case",
    "status UpToDate",
    "second level UpToDate",
}


@pytest.mark.parametrize("name", MINTED)
def test_g12_mirror_cases_get_the_same_verdict(name: str) -> None:
    machine, collateral = MINTED[name]()
    quote = machine.quote(bytes(64))
    off_chain = judged_off_chain(quote, collateral, Kind.SIMULATED, NOW)
    outcome = on_chain(quote, collateral, NOW)
    assert outcome.accepted == (off_chain == "UpToDate"), (off_chain, outcome.exit_code)
    assert outcome.accepted == (name in ACCEPTED)


@pytest.mark.parametrize("accepted", ["SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate"])
def test_policy_decides_which_statuses_pass(accepted: str) -> None:
    policy = ChainPolicy(accepted_statuses=frozenset({"UpToDate", accepted}))
    for status in ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "OutOfDate", "Revoked"):
        collateral = statement(simulated.mint(NOW), tcb=with_level(status))
        outcome = on_chain(tee().quote(bytes(64)), collateral, NOW, policy=policy)
        assert outcome.accepted == (status in policy.accepted_statuses), (status, outcome.exit_code)


def test_leaf_of_the_processor_authority_does_not_verify_under_the_platform_key() -> None:
    mirror = Mirror()
    mirror.load()
    mirror.stage.tell(authority_message(pki_der(pki.processor_ca()), mirror.stage.root_key))
    parts = QuoteParts.of(tee(issuer=pki.processor_ca()).quote(bytes(64)))
    wrong = parts.changed(authority_key=pki.raw_public_key(pki.platform_ca().key))
    assert mirror.stage.tell(appraise(type(parts.authority)(0), *wrong.cells())).exit_code == Error.FORGED


def pki_der(authority: pki.Authority) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return authority.certificate.public_bytes(Encoding.DER)


def flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def signed_by(body: bytes, key: ec.EllipticCurvePrivateKey) -> Signed:
    return Signed(body, pki.raw_signature(key, body))


@pytest.mark.parametrize("name", [REAL[0], "simulated"])
def test_g12_no_forged_witness_passes_though_every_hint_fits(name: str) -> None:
    """An adversary who knows everything but the keys: one bit changed anywhere, hints computed anew."""
    rng = random.Random(name)
    if name == "simulated":
        quote, mirror = tee().quote(bytes(64)), Mirror()
        mirror.load()
        stage = mirror.stage
    else:
        quote, collateral = real(name)
        stage = Stage(Ledger(now=times(collateral)[3]), INTEL_KEY)
        stage.deploy()
        stage.load(collateral)
    genuine = QuoteParts.of(quote)
    own = pki.derive_key("of the adversary")
    forgeries: list[QuoteParts] = []
    for part in ("td", "qe", "pck"):
        signed: Signed = getattr(genuine, part)
        for _ in range(60):
            forgeries.append(genuine.changed(**{part: dataclasses.replace(signed, body=flipped(signed.body, rng))}))
        for _ in range(12):
            altered = dataclasses.replace(signed, signature=flipped(signed.signature, rng))
            forgeries.append(genuine.changed(**{part: altered}))
    forgeries += [genuine.changed(attestation_key=flipped(genuine.attestation_key, rng)) for _ in range(8)]
    forgeries += [genuine.changed(authentication_data=flipped(genuine.authentication_data, rng)) for _ in range(8)]
    # The adversary's own keys, from the attestation key up.
    with_key = genuine.changed(attestation_key=pki.raw_public_key(own), td=signed_by(genuine.td.body, own))
    forgeries.append(with_key)
    forgeries.append(with_key.changed(pck_key=pki.raw_public_key(own), qe=signed_by(genuine.qe.body, own)))
    key_at = genuine.pck.body.index(genuine.pck_key)
    body = genuine.pck.body[:key_at] + pki.raw_public_key(own) + genuine.pck.body[key_at + 64 :]
    forgeries.append(with_key.changed(pck_key=pki.raw_public_key(own), pck=dataclasses.replace(genuine.pck, body=body)))
    forgeries.append(
        with_key.changed(
            pck_key=pki.raw_public_key(own), pck=signed_by(body, own), authority_key=pki.raw_public_key(own)
        )
    )
    assert stage.tell(appraise(genuine.authority, *genuine.cells())).accepted
    snapshot = stage.ledger.snapshot()
    run = 0
    for index, forgery in enumerate(forgeries):
        try:
            cells = forgery.cells()
        except (BadWitness, NoHints, ValueError, IndexError):
            continue  # not encodable: there is nothing to send
        run += 1
        assert stage.tell(appraise(forgery.authority, *cells)).exit_code != 0, index
        if index % 40 == 0:
            stage.ledger.revert(snapshot)
    assert run > 200


def test_g12_no_flipped_bit_of_a_whole_message_passes() -> None:
    from test_attestation_collateral import mutations

    mirror = Mirror()
    mirror.load()
    parts = QuoteParts.of(tee().quote(bytes(64)))
    snapshot = mirror.ledger.snapshot()
    tried = 0
    for changed in mutations(appraise(parts.authority, *parts.cells()), 61):
        assert mirror.stage.tell(changed).exit_code != 0, tried
        tried += 1
        if tried % 50 == 0:
            mirror.ledger.revert(snapshot)
    assert tried > 250
