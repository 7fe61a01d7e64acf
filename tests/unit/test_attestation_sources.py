"""Collateral from a PCCS and AMD's service: kept on disk, only ever newer, nothing believed for coming from there."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote as url_quote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.collateral import Collateral
from attestation.evidence import Evidence, Kind
from attestation.fetch import BODY_LIMIT_BYTES, Answer, CollateralUnavailable, http_get
from attestation.hardware import check
from attestation.keeper import Keeper
from attestation.onchain.state import VerifierState
from attestation.pccs import ROOT_CRL_URL
from attestation.report_data import Binding
from attestation.simulated import pki
from attestation.simulated.collateral import Findings, mint
from attestation.simulated.tee import SimulatedTee
from attestation.snp import hardware as snp_hardware
from attestation.snp import products
from attestation.snp.collateral import AmdCollateral
from attestation.snp.products import Product
from attestation.source import AHEAD_SECONDS, REFRESH_SECONDS, RETRY_SECONDS, CollateralSource
from attestation.trust_roots import root
from attestation.verifier import NotAttested, Verifier
from scripts.stage import built_world
from tests.support.snp_mirror import CHIP, NOW, Mirror
from worker.agent.attest import Attesting
from worker.agent.config import ConfigError
from worker.agent.config import parse as parse_config

DAY = 86_400
BINDING = Binding(b"n" * 32, b"o" * 32, 41, b"k" * 32, bytes(32), 1_000, b"r" * 32)
QUOTE = SimulatedTee(b"a test machine").quote(BINDING.report_data())
EVIDENCE = Evidence(Kind.TDX, QUOTE, BINDING)
REPORT = Evidence(Kind.SEV_SNP, Mirror().report(report_data=BINDING.report_data()), BINDING)


class Pccs:
    """Intel's API v4 over one set of collateral."""

    def __init__(self, collateral: Collateral) -> None:
        self.collateral = collateral
        self.asked: list[str] = []
        self.fault: Callable[[str, Answer], Answer] = lambda url, answer: answer
        self.down = False

    async def __call__(self, url: str) -> Answer:
        self.asked.append(url)
        if self.down:
            raise CollateralUnavailable(f"{url} cannot be read")
        return self.fault(url, self._answer(url))

    def _answer(self, url: str) -> Answer:
        it = self.collateral
        if "/tdx/certification/v4/tcb?fmspc=5C0000000000" in url:
            body = f'{{"tcbInfo":{it.tcb_info},"signature":"{it.tcb_info_signature.hex()}"}}'
            return Answer(200, {"tcb-info-issuer-chain": url_quote(it.tcb_info_issuer_chain)}, body.encode())
        if "/tdx/certification/v4/qe/identity" in url:
            body = f'{{"enclaveIdentity":{it.qe_identity},"signature":"{it.qe_identity_signature.hex()}"}}'
            chain = url_quote(it.qe_identity_issuer_chain)
            return Answer(200, {"sgx-enclave-identity-issuer-chain": chain}, body.encode())
        if "/sgx/certification/v4/pckcrl?ca=platform" in url:
            return Answer(200, {"sgx-pck-crl-issuer-chain": url_quote(it.pck_crl_issuer_chain)}, it.pck_crl)
        if url.endswith("/sgx/certification/v4/rootcacrl"):
            return Answer(200, {}, it.root_ca_crl.hex().encode())
        return Answer(404, {}, b"not found")


def source_of(pccs: Pccs, folder: Path) -> CollateralSource:
    return CollateralSource("https://pccs.example/", folder, pccs, root(Kind.SIMULATED))


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def replacing(part: str, **changes: object) -> Callable[[str, Answer], Answer]:
    def fault(url: str, answer: Answer) -> Answer:
        known = {"status": answer.status, "headers": answer.headers, "body": answer.body}
        return Answer(**{**known, **changes}) if part in url else answer  # type: ignore[arg-type]

    return fault


# ---------------------------------------------------------------------------------------------------------------- Intel


async def test_what_a_pccs_serves_judges_the_quote(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW))
    found = await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)
    assert found == pccs.collateral
    assert check(QUOTE, found, Kind.SIMULATED, NOW).tcb_status == "UpToDate"
    assert all(url.startswith("https://pccs.example/") for url in pccs.asked) and len(pccs.asked) == 4
    assert all("update=standard" in url for url in pccs.asked if "/tdx/" in url)


async def test_intels_own_service_has_its_root_list_elsewhere(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW))
    list_of_root = Answer(200, {}, pccs.collateral.root_ca_crl)
    pccs.fault = lambda url, answer: (
        Answer(404, {}, b"") if "rootcacrl" in url else list_of_root if url == ROOT_CRL_URL else answer
    )
    assert await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW) == pccs.collateral
    (point,) = (
        x509.load_der_x509_certificate(root(Kind.TDX).der)
        .extensions.get_extension_for_class(x509.CRLDistributionPoints)
        .value
    )
    assert point.full_name is not None and point.full_name[0].value == ROOT_CRL_URL


async def test_lists_are_read_as_der_hex_and_pem(tmp_path: Path) -> None:
    collateral = mint(NOW)
    pem = x509.load_der_x509_crl(collateral.pck_crl).public_bytes(Encoding.PEM)
    for index, body in enumerate((collateral.pck_crl, collateral.pck_crl.hex().encode() + b"\n", pem)):
        pccs = Pccs(collateral)
        pccs.fault = replacing("pckcrl", body=body)
        assert await source_of(pccs, tmp_path / str(index)).collateral(EVIDENCE, NOW) == collateral


async def test_a_set_is_used_for_a_day_and_survives_restart_and_outage(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pccs = Pccs(mint(NOW))
    first = await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)
    asked = len(pccs.asked)
    assert await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW + REFRESH_SECONDS - 1) == first
    assert len(pccs.asked) == asked
    pccs.down = True
    source = source_of(pccs, tmp_path)
    with caplog.at_level(logging.WARNING):
        for now in (NOW + REFRESH_SECONDS, NOW + REFRESH_SECONDS + RETRY_SECONDS - 1, NOW + 30 * DAY - 1):
            assert await source.collateral(EVIDENCE, now) == first
    assert len(pccs.asked) == asked + 2, "after a failure there is a pause"
    assert "not renewed" in caplog.text
    with pytest.raises(CollateralUnavailable, match="cannot be read"):
        await source.collateral(EVIDENCE, NOW + 30 * DAY)


async def test_a_set_is_renewed_a_day_later_and_well_before_its_end(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW, validity_seconds=AHEAD_SECONDS + 3_600))
    source = source_of(pccs, tmp_path)
    await source.collateral(EVIDENCE, NOW)
    pccs.collateral = mint(NOW + 3_600)
    assert await source.collateral(EVIDENCE, NOW + 3_600) == pccs.collateral
    pccs.collateral = mint(NOW + 3_600 + REFRESH_SECONDS)
    assert await source.collateral(EVIDENCE, NOW + 3_600 + REFRESH_SECONDS) == pccs.collateral


@pytest.mark.parametrize("later", [REFRESH_SECONDS, 40 * DAY])
async def test_older_collateral_is_never_accepted(tmp_path: Path, later: int) -> None:
    """Not while the set at hand is valid, and not after it ended either."""
    pccs = Pccs(mint(NOW))
    source = source_of(pccs, tmp_path)
    first = await source.collateral(EVIDENCE, NOW)
    old = mint(NOW - 3_600, validity_seconds=90 * DAY)
    pccs.collateral = old
    if later < 30 * DAY:
        assert await source.collateral(EVIDENCE, NOW + later) == first
    else:
        with pytest.raises(CollateralUnavailable, match=r"older collateral.*TCB info issue date.*delete"):
            await source.collateral(EVIDENCE, NOW + later)
    assert await source_of(pccs, tmp_path / "new").collateral(EVIDENCE, NOW + later) == old


async def test_a_lower_evaluation_number_is_older_whatever_its_date(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW))
    source = source_of(pccs, tmp_path)
    first = await source.collateral(EVIDENCE, NOW)
    pccs.collateral = mint(NOW + 2 * DAY, findings=Findings(evaluation_number=17))
    assert await source.collateral(EVIDENCE, NOW + 2 * DAY) == first


async def test_a_list_with_a_lower_number_is_older_whatever_its_date(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW))
    source = source_of(pccs, tmp_path)
    first = await source.collateral(EVIDENCE, NOW)
    later = NOW + 2 * DAY
    begin, end = (pki.datetime.datetime.fromtimestamp(at, pki.datetime.UTC) for at in (later - 60, later + 30 * DAY))
    builder = x509.CertificateRevocationListBuilder(pki.platform_ca().certificate.subject, begin, end)
    numbered = builder.add_extension(x509.CRLNumber(0), critical=False)
    fresh = mint(later)
    for each in (numbered, builder):
        crl = each.sign(pki.platform_ca().key, pki.hashes.SHA256()).public_bytes(Encoding.DER)
        pccs.collateral = Collateral(**{**_fields(fresh), "pck_crl": crl})
        assert await source.collateral(EVIDENCE, later) == first
        later += RETRY_SECONDS


def _fields(collateral: Collateral) -> dict[str, object]:
    return {name: getattr(collateral, name) for name in Collateral.__slots__}


HTML = b"<html><body>Sign in to the hotel's network</body></html>"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (replacing("/tcb?", body=HTML), "not the JSON.*<html>.*collateral_url"),
        (replacing("/qe/", body=b'{"enclaveIdentity":{"a":1'), "not the JSON"),
        (replacing("/qe/", body=b'{"tcbInfo":{},"signature":""}'), "expected enclaveIdentity"),
        (replacing("/tcb?", body=b'{"tcbInfo":{},"signature":"00"}'), "64 bytes"),
        (replacing("/tcb?", body=b'{"tcbInfo":{},"signature":""}x'), "not the JSON"),
        (replacing("/tcb?", body=b'{"tcbInfo":{},"tcbInfo":{},"signature":""}'), "not the JSON"),
        (replacing("/tcb?", headers={}), "lacks the header tcb-info-issuer-chain"),
        (replacing("/tcb?", status=302), "answered 302"),
        (replacing("/tcb?", status=404), "answered 404"),
        (replacing("/tcb?", status=429), "too many requests"),
        (replacing("pckcrl", body=HTML), "not a revocation list"),
        (replacing("rootcacrl", body=b"3082"), "not a revocation list"),
        (replacing("rootcacrl", status=500), "answered with 500"),
        (replacing("pckcrl", headers={"sgx-pck-crl-issuer-chain": "x"}), "encoding"),
    ],
)
async def test_bad_answers_are_refused_with_cause_and_cure(
    tmp_path: Path, fault: Callable[[str, Answer], Answer], words: str
) -> None:
    pccs = Pccs(mint(NOW))
    pccs.fault = fault
    with pytest.raises(CollateralUnavailable, match=f"(?s){words}"):
        await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)
    assert files(tmp_path) == []


async def test_what_is_not_signed_or_not_in_time_is_not_kept(tmp_path: Path) -> None:
    honest = mint(NOW)
    wrong = mint(NOW, signer=pki.platform_ca(), signer_chain=pki.platform_ca().pem + pki.root().pem)
    past = tuple(pki.datetime.datetime.fromtimestamp(at, pki.datetime.UTC) for at in (NOW - 9 * DAY, NOW))
    signer = pki.renewed(pki.tcb_signer(), (past[0], past[1]))
    expired = mint(NOW, signer=signer, signer_chain=signer.pem + pki.root().pem)
    cases = {
        "issuer chain.*valid from": _fields(expired),
        "for FMSPC 5c0000000001": {"tcb_info": honest.tcb_info.replace("5C0000000000", "5C0000000001")},
        "not signed": {"tcb_info": honest.tcb_info.replace("UpToDate", "OutOfDate")},
        "not signed by": {"qe_identity": honest.qe_identity.replace('"isvsvn":', '"isvsvn":1')},
        "signer is not": _fields(wrong),
        "PCK CRL is not issued": {"pck_crl": honest.root_ca_crl},
        "ended at": _fields(mint(NOW - 90 * DAY)),
        "in the future": _fields(mint(NOW + DAY)),
    }
    for words, changes in cases.items():
        pccs = Pccs(Collateral(**{**_fields(honest), **changes}))
        with pytest.raises(CollateralUnavailable, match=words):
            await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)
    pccs = Pccs(honest)
    with pytest.raises(CollateralUnavailable, match="pinned root"):
        await CollateralSource("https://pccs.example", tmp_path, pccs).collateral(EVIDENCE, NOW)
    assert files(tmp_path) == []


async def test_a_file_that_was_changed_is_fetched_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pccs = Pccs(mint(NOW))
    await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)
    (path,) = files(tmp_path)
    document = json.loads(path.read_text())
    document["collateral"]["tcb_info"] = document["collateral"]["tcb_info"].replace("UpToDate", "OutOfDate")
    other = json.dumps({"fetched_at": NOW, "collateral": json.loads(Mirror().collateral().to_json())})
    for text in (json.dumps(document), "", '{"fetched_at": 1', other):
        path.write_text(text)
        asked = len(pccs.asked)
        assert await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW) == pccs.collateral
        assert len(pccs.asked) == asked + 4
    assert "of no use" in caplog.text


async def test_a_folder_that_cannot_be_written_does_not_stop_the_machine(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    pccs = Pccs(mint(NOW))
    assert await source_of(pccs, tmp_path / "file" / "cache").collateral(EVIDENCE, NOW) == pccs.collateral
    assert "cannot be kept" in caplog.text


async def test_a_quote_that_cannot_be_read_asks_nobody(tmp_path: Path) -> None:
    pccs = Pccs(mint(NOW))
    with pytest.raises(CollateralUnavailable, match="no collateral can be asked for"):
        await source_of(pccs, tmp_path).collateral(Evidence(Kind.TDX, b"quote", BINDING), NOW)
    assert pccs.asked == []


# ------------------------------------------------------------------------------------------------------------------ AMD


class Kds:
    """AMD's service over a mirror of its hierarchy."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.asked: list[str] = []
        self.body: bytes | None = None

    async def __call__(self, url: str) -> Answer:
        self.asked.append(url)
        base = f"https://kds.example/vcek/v1/{self.mirror.product}/"
        if not url.startswith(base):
            return Answer(404, {}, b"unknown product")
        if url == base + "crl":
            return Answer(200, {}, self.body or self.mirror.revocation_list())
        if url == base + "cert_chain":
            both = (self.mirror.authority(), self.mirror.root)
            return Answer(200, {}, b"".join(each.public_bytes(Encoding.PEM) for each in both))
        return Answer(200, {}, self.mirror.endorsement().public_bytes(Encoding.DER))


@pytest.fixture
def mirror_roots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "root", lambda product: Mirror(product).root)


@pytest.mark.parametrize(
    ("product", "version"),
    [(Product.MILAN, 2), (Product.GENOA, 2), (Product.MILAN, 3), (Product.GENOA, 5), (Product.TURIN, 5)],
)
async def test_amds_service_is_asked_for_chip_and_tcb(
    tmp_path: Path, product: Product, version: int, mirror_roots: None
) -> None:
    mirror = Mirror(product)
    raw = mirror.report(report_data=BINDING.report_data(), version=version)
    kds = Kds(mirror)
    source = CollateralSource("https://kds.example/", tmp_path, kds)
    found = await source.collateral(Evidence(Kind.SEV_SNP, raw, BINDING), NOW)
    assert isinstance(found, AmdCollateral)
    assert snp_hardware.check(raw, found, NOW).platform
    asked = next(url for url in kds.asked if "SPL" in url and f"/{product}/" in url)
    chip = CHIP[product][: 8 if product is Product.TURIN else 64].hex()
    levels = {
        Product.MILAN: "blSPL=4&teeSPL=0&snpSPL=24&ucodeSPL=219",
        Product.GENOA: "blSPL=10&teeSPL=0&snpSPL=24&ucodeSPL=84",
        Product.TURIN: "fmcSPL=1&blSPL=1&teeSPL=1&snpSPL=4&ucodeSPL=80",
    }
    assert asked.endswith(f"/{chip}?{levels[product]}")


async def test_only_amds_list_is_renewed_and_only_by_a_newer_one(tmp_path: Path, mirror_roots: None) -> None:
    kds = Kds(Mirror())
    source = CollateralSource("https://kds.example", tmp_path, kds)
    first = await source.collateral(REPORT, NOW)
    assert len(kds.asked) == 3
    again = await source.collateral(REPORT, NOW + REFRESH_SECONDS)
    assert isinstance(first, AmdCollateral) and isinstance(again, AmdCollateral)
    assert (again.endorsement, again.authority) == (first.endorsement, first.authority)
    assert kds.asked[3:] == ["https://kds.example/vcek/v1/Milan/crl"]
    kds.body = HTML
    assert isinstance(await source.collateral(REPORT, NOW + 3 * REFRESH_SECONDS), AmdCollateral)
    with pytest.raises(CollateralUnavailable, match="DER"):
        await source.collateral(REPORT, NOW + 61 * DAY)


async def test_reports_that_amd_cannot_be_asked_about_say_why(tmp_path: Path) -> None:
    kds = Kds(Mirror())
    source = CollateralSource("https://kds.example", tmp_path, kds)
    for changes, words in (
        ({"flags": 1 << 2}, "VLEK"),
        ({"chip_id": bytes(64)}, "masked"),
        ({"cpu": (0x1A, 0x50)}, "no line known"),
    ):
        raw = Mirror().report(**changes)
        with pytest.raises(CollateralUnavailable, match=words):
            await source.collateral(Evidence(Kind.SEV_SNP, raw, BINDING), NOW)
    assert kds.asked == []


# ----------------------------------------------------------------------------------------------------------------- HTTP


async def test_http_answers_are_bounded() -> None:
    async def big(request: web.Request) -> web.Response:
        return web.Response(body=bytes(BODY_LIMIT_BYTES + int(request.query["more"])))

    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"x" * 10)
        assert request.transport is not None
        request.transport.close()
        return response

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound("/big?more=0")

    application = web.Application()
    application.add_routes([web.get("/big", big), web.get("/cut", cut), web.get("/away", away)])
    async with TestServer(application) as server:
        assert len((await http_get(str(server.make_url("/big?more=0")))).body) == BODY_LIMIT_BYTES
        with pytest.raises(CollateralUnavailable, match="more than"):
            await http_get(str(server.make_url("/big?more=1")))
        with pytest.raises(CollateralUnavailable, match="cannot be read"):
            await http_get(str(server.make_url("/cut")))
        assert (await http_get(str(server.make_url("/away")))).status == 302
        gone = str(server.make_url("/"))
    for url in (gone, "no url at all"):
        with pytest.raises(CollateralUnavailable, match="check the address"):
            await http_get(url)


# ---------------------------------------------------------------------------------------------------------------- agent


class Machine:
    """An enclave and its chain, as far as collateral goes."""

    ready = SimpleNamespace(simulated=False)

    def __init__(self, evidence: Evidence, now: int) -> None:
        self.evidence, self.now = evidence, now

    async def attest(self, seqno: int, root_hash: bytes) -> bytes:
        return self.evidence.to_json().encode()

    async def head(self) -> SimpleNamespace:
        return SimpleNamespace(now=self.now, block=SimpleNamespace(seqno=1, root_hash=bytes(32)))


async def test_the_agent_takes_collateral_for_its_own_machine(tmp_path: Path, mirror_roots: None) -> None:
    async def taken(evidence: Evidence, source: CollateralSource | None, now: int = NOW) -> Collateral:
        machine = Machine(evidence, now)
        return await Attesting(machine, None, None, None, source)._collateral(machine)  # type: ignore[arg-type]

    source = source_of(Pccs(mint(NOW)), tmp_path)
    assert await taken(EVIDENCE, source) == mint(NOW)
    with pytest.raises(NotAttested, match="collateral cannot be had"):
        await taken(EVIDENCE, source, NOW + 31 * DAY)
    with pytest.raises(NotAttested, match="collateral_url"):
        await taken(EVIDENCE, None)
    amd = CollateralSource("https://kds.example", tmp_path, Kds(Mirror()))
    assert isinstance(await taken(REPORT, amd), AmdCollateral)


def test_the_agent_has_one_origin_of_collateral(tmp_path: Path) -> None:
    both = {
        "network": "devnet", "registry": "5a" * 32, "data_dir": "d", "enclave_config": "e", "node": "5a" * 32,
        "collateral_url": "https://pccs.example", "collateral_file": "c.json",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="not both"):
        parse_config(both, where="agent.toml", base=tmp_path)
    del both["collateral_file"]
    assert parse_config(both, where="agent.toml", base=tmp_path).collateral_url == "https://pccs.example"


# ------------------------------------------------------------------------------------------------------ hostile servers


def _unreadable(pem: str) -> str:
    """A chain whose first certificate has a version that X.509 does not know."""
    first = bytearray(x509.load_pem_x509_certificate(pem.encode()).public_bytes(Encoding.DER))
    at = first.index(b"\xa0\x03\x02\x01\x02")
    first[at + 4] = 9
    body = base64.b64encode(bytes(first))
    lines = b"".join(body[start : start + 64] + b"\n" for start in range(0, len(body), 64)).decode()
    rest = pem.partition("-----END CERTIFICATE-----\n")[2]
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n{rest}"


def _hostile() -> dict[str, Callable[[str, Answer], Answer]]:
    honest = mint(NOW)
    chain = {"tcb-info-issuer-chain": url_quote(_unreadable(honest.tcb_info_issuer_chain))}
    return {
        "version": replacing("/tcb?", headers=chain),
        "characters": replacing("/tcb?", headers={"tcb-info-issuer-chain": "\udcff"}),
        "altered": lambda url, answer: Answer(200, answer.headers, answer.body.replace(b"UpToDate", b"OutOfDate")),
    }


@pytest.mark.parametrize("name", _hostile())
async def test_g18_whatever_a_server_sends_is_a_refusal_that_the_agent_knows(tmp_path: Path, name: str) -> None:
    pccs = Pccs(mint(NOW))
    pccs.fault = _hostile()[name]
    with pytest.raises(CollateralUnavailable, match="of no use"):
        await source_of(pccs, tmp_path).collateral(EVIDENCE, NOW)


async def kept_by_keeper(pccs: Pccs, *platforms: str) -> list[Collateral]:
    world = built_world(verifier=True)
    data = world.ledger.account(world.attestation).data
    assert data is not None
    state = replace(VerifierState.from_cell(data), simulated=False, tcb={})
    nobody = Verifier(None, b"")  # type: ignore[arg-type]
    wanted = frozenset(bytes.fromhex(each) for each in platforms)
    keeper = Keeper(nobody, None, "https://pccs.example", wanted, pccs, intel_root=root(Kind.SIMULATED))
    return list(await keeper._gathered(state, NOW))


@pytest.mark.parametrize("name", _hostile())
async def test_g8_a_keeper_pays_for_nothing_that_a_server_forged(name: str) -> None:
    pccs = Pccs(mint(NOW))
    assert await kept_by_keeper(pccs, "5c0000000000") == [pccs.collateral]
    pccs.fault = _hostile()[name]
    with pytest.raises(CollateralUnavailable, match="of no use"):
        await kept_by_keeper(pccs, "5c0000000000")


async def test_g3_a_platform_type_that_a_server_does_not_know_keeps_no_other_from_renewal() -> None:
    pccs = Pccs(mint(NOW))
    assert await kept_by_keeper(pccs, "000000000001", "5c0000000000") == [pccs.collateral]
    with pytest.raises(CollateralUnavailable, match="404"):
        await kept_by_keeper(pccs, "000000000001")
