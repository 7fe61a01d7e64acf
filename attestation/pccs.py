"""Intel's collateral from a PCCS or Intel's own service (PCS API v4), put into our one form.

    GET {base}/tdx/certification/v4/tcb?fmspc=F&update=standard   body, header TCB-Info-Issuer-Chain
    GET {base}/tdx/certification/v4/qe/identity?update=standard   body, header SGX-Enclave-Identity-Issuer-Chain
    GET {base}/sgx/certification/v4/pckcrl?ca=C&encoding=der      body, header SGX-PCK-CRL-Issuer-Chain
    GET {base}/sgx/certification/v4/rootcacrl                     body; Intel's own service has none: see below

Nothing is believed here for coming from there: `attestation.genuine` and `attestation.hardware` check it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import unquote

import dcap_qvl
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from attestation import strict
from attestation.collateral import Collateral
from attestation.fetch import Answer, CollateralUnavailable, Get, get_ok
from attestation.quote import parse as parse_quote
from attestation.strict import Malformed

ROOT_CRL_URL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
"""Where the pinned root certificate says its list is (its CRL distribution point)."""
_WHITE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class IntelPlatform:
    """What selects a platform's collateral."""

    fmspc: str
    authority: str
    """"platform" or "processor": which PCK authority certified it."""


def platform_of(quote: bytes) -> IntelPlatform:
    """Read from a quote of one's own. Raises ValueError (Malformed among them)."""
    parsed = parse_quote(quote)
    extension = dcap_qvl.parse_pck_extension_from_pem(parsed.pck_chain_pem.rstrip(b"\0"))
    leaf = x509.load_der_x509_certificate(parsed.pck_chain[0])
    names = [str(each.value) for each in leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return IntelPlatform(extension.fmspc.hex(), "processor" if names == ["Intel SGX PCK Processor CA"] else "platform")


async def fetch_intel(get: Get, base: str, platform: IntelPlatform) -> Collateral:
    """One set of collateral, unverified. Raises CollateralUnavailable."""
    base = base.rstrip("/")
    tcb_url = f"{base}/tdx/certification/v4/tcb?fmspc={platform.fmspc.upper()}&update=standard"
    qe_url = f"{base}/tdx/certification/v4/qe/identity?update=standard"
    crl_url = f"{base}/sgx/certification/v4/pckcrl?ca={platform.authority}&encoding=der"
    tcb, qe, crl = [await get_ok(get, url) for url in (tcb_url, qe_url, crl_url)]
    try:
        tcb_info, tcb_signature = _signed(tcb.body, "tcbInfo", tcb_url)
        qe_identity, qe_signature = _signed(qe.body, "enclaveIdentity", qe_url)
        return Collateral(
            pck_crl_issuer_chain=_chain(crl, "sgx-pck-crl-issuer-chain", crl_url),
            root_ca_crl=_crl(await _root_crl(get, base), "the root CRL"),
            pck_crl=_crl(crl.body, crl_url),
            tcb_info_issuer_chain=_chain(tcb, "tcb-info-issuer-chain", tcb_url),
            tcb_info=tcb_info,
            tcb_info_signature=tcb_signature,
            qe_identity_issuer_chain=_chain(qe, "sgx-enclave-identity-issuer-chain", qe_url),
            qe_identity=qe_identity,
            qe_identity_signature=qe_signature,
        )
    except Malformed as error:
        raise CollateralUnavailable(
            f"{error}; check that collateral_url is the base of a PCCS or of Intel's service (PCS API v4)"
        ) from error


async def _root_crl(get: Get, base: str) -> bytes:
    answer = await get(f"{base}/sgx/certification/v4/rootcacrl")
    if answer.status == 404:
        # Only caches have that page; Intel publishes the list at the place that its root certificate names.
        answer = await get_ok(get, ROOT_CRL_URL)
    elif answer.status != 200:
        raise CollateralUnavailable(f"{base}: the root CRL was answered with {answer.status}; check the service")
    return answer.body


def _signed(body: bytes, key: str, url: str) -> tuple[str, bytes]:
    """The exact text of the signed object, and its signature of 64 bytes."""
    try:
        text = body.decode()
        spans = _members(text)
        document = json.loads(text)
    except (ValueError, IndexError, RecursionError) as error:
        raise Malformed(f"{url}: not the JSON of Intel's API (it begins {body[:40]!r})") from error
    if set(spans) != {key, "signature"}:
        raise Malformed(f"{url}: expected {key} and signature, got {', '.join(sorted(spans))}")
    begin, end = spans[key]
    return text[begin:end], strict.hex_field(document, "signature", url, length=64)


def _members(text: str) -> dict[str, tuple[int, int]]:
    """Where the value of each member of a JSON object lies. Signatures are over the text as it was sent, so the text is
    cut out and not made again. Raises ValueError or IndexError."""
    decoder = json.JSONDecoder()
    found: dict[str, tuple[int, int]] = {}
    at = _past(text, 0, "{")
    while True:
        key, at = decoder.raw_decode(text, _skip(text, at))
        begin = _skip(text, _past(text, at, ":"))
        _, end = decoder.raw_decode(text, begin)
        if not isinstance(key, str) or key in found:
            raise ValueError("a key is no text or appears twice")
        found[key] = (begin, end)
        at = _skip(text, end)
        if text[at] == "}":
            break
        at = _past(text, at, ",")
    if _skip(text, at + 1) != len(text):
        raise ValueError("text after the end")
    return found


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at


def _past(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if text[at] != mark:
        raise ValueError(f"expected {mark}")
    return at + 1


def _chain(answer: Answer, name: str, url: str) -> str:
    value = answer.headers.get(name)
    if value is None:
        raise Malformed(f"{url}: the answer lacks the header {name}")
    return unquote(value)


def _crl(body: bytes, url: str) -> bytes:
    """DER of a list that came as DER, as PEM, or in hex as PCCS sends it."""
    try:
        if body.startswith(b"-----BEGIN"):
            return x509.load_pem_x509_crl(body).public_bytes(Encoding.DER)
        der = body if body[:1] == b"\x30" and not body.strip().isalnum() else bytes.fromhex(body.decode().strip())
        x509.load_der_x509_crl(der)
    except ValueError as error:
        raise Malformed(f"{url}: not a revocation list (it begins {body[:40]!r})") from error
    return der
