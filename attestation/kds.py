"""AMD's certificates from its key distribution service (AMD document 57230), or from a mirror with the same paths.

GET {base}/vcek/v1/{product}/{chip}?blSPL=..&teeSPL=..&snpSPL=..&ucodeSPL=..   DER; Turin: fmcSPL first
GET {base}/vcek/v1/{product}/cert_chain                                        PEM: ASK, ARK
GET {base}/vcek/v1/{product}/crl                                               DER
"""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from attestation.fetch import Answer, CollateralUnavailable, Get, get_ok
from attestation.snp.collateral import AmdCollateral
from attestation.snp.products import Product, TcbVersion, hardware_id_bytes, of_model, parse_tcb, tcb_components
from attestation.snp.report import SigningKey, SnpReport
from attestation.strict import Malformed

AMD_URL = "https://kdsintf.amd.com"
_PARAMETERS = {"fmc": "fmcSPL", "bootloader": "blSPL", "tee": "teeSPL", "snp": "snpSPL", "microcode": "ucodeSPL"}


def products_of(report: SnpReport) -> tuple[Product, ...]:
    """The lines that may have made a report: one from version 3 on, which names its processor. Raises Malformed."""
    if report.cpu is None:
        return (Product.MILAN, Product.GENOA)
    product = of_model(*report.cpu)
    if product is None:
        raise Malformed(f"processor family {report.cpu[0]:#x}, model {report.cpu[1]:#x} is of no line known here")
    return (product,)


def vcek_url(base: str, product: Product, chip_id: bytes, tcb: TcbVersion) -> str:
    levels = "&".join(f"{_PARAMETERS[name]}={getattr(tcb, name)}" for name in tcb_components(product))
    return f"{base.rstrip('/')}/vcek/v1/{product}/{chip_id[: hardware_id_bytes(product)].hex()}?{levels}"


async def fetch_amd(get: Get, base: str, report: SnpReport, known: AmdCollateral | None) -> AmdCollateral:
    """Certificates for a report of one's own, unverified. With `known` ones only the revocation list is fetched: the
    service counts requests, and a chip's certificate does not change. Raises CollateralUnavailable."""
    if report.signing_key is not SigningKey.VCEK:
        raise CollateralUnavailable(
            "the report is signed by a provider's key (VLEK), whose certificate only the host has; take it from the "
            "host's table and name it in collateral_file"
        )
    if report.chip_id_masked:
        raise CollateralUnavailable("the host masked the chip's id, so AMD cannot be asked; unset MaskChipId there")
    try:
        products = products_of(report)
    except Malformed as error:
        raise CollateralUnavailable(f"{error}; upgrade this program, or take the machine out of service") from error
    refused = []
    for product in products:
        try:
            return await _of_product(get, base.rstrip("/"), product, report, known)
        except (CollateralUnavailable, Malformed) as error:
            refused.append(str(error))
    raise CollateralUnavailable("; ".join(refused))


async def _of_product(
    get: Get, base: str, product: Product, report: SnpReport, known: AmdCollateral | None
) -> AmdCollateral:
    tcb = parse_tcb(report.reported_tcb, product, "reported TCB")
    if known is None:
        endorsement = (await get_ok(get, vcek_url(base, product, report.chip_id, tcb))).body
        authority = _first(await get_ok(get, f"{base}/vcek/v1/{product}/cert_chain"), f"{product} cert_chain")
    else:
        endorsement, authority = known.endorsement, known.authority
    crl = (await get_ok(get, f"{base}/vcek/v1/{product}/crl")).body
    try:
        x509.load_der_x509_certificate(endorsement)
        x509.load_der_x509_crl(crl)
        return AmdCollateral(endorsement, authority, crl)
    except (ValueError, x509.InvalidVersion) as error:
        raise CollateralUnavailable(
            f"{base}: what it sent for {product} is no certificate or list in DER ({error}); check collateral_url"
        ) from error


def _first(answer: Answer, what: str) -> bytes:
    try:
        authority, _root = x509.load_pem_x509_certificates(answer.body)
    except ValueError as error:
        raise CollateralUnavailable(f"{what}: not two certificates in PEM (it begins {answer.body[:40]!r})") from error
    return authority.public_bytes(Encoding.DER)
