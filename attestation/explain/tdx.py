"""A TDX quote field by field (Intel TDX DCAP Quoting Library API, appendix A.3; TDX Module ABI, TDREPORT_STRUCT)."""

from __future__ import annotations

import dcap_qvl

from attestation.evidence import Kind
from attestation.explain.words import Row, Section, bits, certificate_row, shown
from attestation.quote import HEADER_BYTES, TD10_BYTES, TdQuote, parse
from attestation.recognise import claimed_kind
from attestation.trust_roots import root

_ATTRIBUTES = {
    0: "DEBUG (the host can read the guest)",
    1: "HGS+ profiling",
    2: "performance profiling",
    27: "LASS",
    28: "SEPT_VE_DISABLE (no surprise exits on missing pages)",
    29: "MIGRATABLE",
    30: "PKS",
    31: "KL",
    62: "TPA",
    63: "PERFMON",
}
_XFAM = {
    0: "x87",
    1: "SSE",
    2: "AVX",
    5: "AVX-512 mask",
    6: "AVX-512 ZMM low",
    7: "AVX-512 ZMM high",
    8: "PT",
    9: "PKU",
    11: "CET user",
    12: "CET supervisor",
    15: "LBR",
    14: "UINTR",
    17: "AMX configuration",
    18: "AMX data",
}
_REGISTERS = (
    ("MRTD", "firmware code and first memory layout, measured by the TDX module at launch"),
    ("RTMR0", "platform: memory map, firmware configuration, secure boot variables, ACPI tables, boot order"),
    ("RTMR1", "what the firmware started: the kernel"),
    ("RTMR2", "what the kernel was given: command line and initrd"),
    ("RTMR3", "left to the guest"),
)


def sections(quote: bytes) -> list[Section]:
    """Raises Malformed."""
    parsed = parse(quote)
    return [_header(quote, parsed), _report(parsed), _signatures(quote, parsed)]


def _header(quote: bytes, parsed: TdQuote) -> Section:
    return Section(
        "TDX quote",
        (
            Row("size", f"{len(quote)} bytes"),
            Row("version", str(parsed.version), "4: TD report 1.0; 5: the body says which"),
            Row("QE vendor", shown(quote[12:28]), "939a7233f79c4ca9940a0db3957f0607 is Intel"),
            Row(
                "QE SVN, PCE SVN", f"{int.from_bytes(quote[8:10], 'little')}, {int.from_bytes(quote[10:12], 'little')}"
            ),
            Row("user data", shown(quote[28:48]), "chosen by the quoting enclave; identifies the platform there"),
        ),
    )


def _report(parsed: TdQuote) -> Section:
    attributes = int.from_bytes(parsed.td_attributes, "little")
    values = (parsed.mrtd, *parsed.rtmrs)
    return Section(
        "TD report: what runs",
        (
            Row("measurement", parsed.measurement.hex(), "SHA-256 of the five registers: the name policies use"),
            *(Row(name, shown(value), meaning) for (name, meaning), value in zip(_REGISTERS, values, strict=True)),
            Row("TEE_TCB_SVN", parsed.tee_tcb_svn.hex(), "security versions of the TDX module at launch, a byte each"),
            Row("MRSEAM", shown(parsed.mr_seam), "measurement of the TDX module"),
            Row("TD attributes", parsed.td_attributes.hex(), bits(attributes, _ATTRIBUTES)),
            Row("XFAM", parsed.xfam.hex(), bits(int.from_bytes(parsed.xfam, "little"), _XFAM)),
            Row("MRCONFIGID", shown(parsed.mr_config_id), "set by the host at launch, software configuration"),
            Row("MROWNER", shown(parsed.mr_owner), "set by the host at launch"),
            Row("MROWNERCONFIG", shown(parsed.mr_owner_config), "set by the host at launch"),
            Row("REPORTDATA", shown(parsed.report_data), "64 bytes that the guest chose; see the binding"),
        ),
    )


def _signatures(quote: bytes, parsed: TdQuote) -> Section:
    # `parse` has checked that all of this lies within the quote.
    body = TD10_BYTES if parsed.version == 4 else 6 + int.from_bytes(quote[50:54], "little")
    key_at = HEADER_BYTES + body + 4 + 64
    attestation_key, qe = quote[key_at : key_at + 64], quote[key_at + 64 + 6 : key_at + 64 + 6 + 384]
    product, version = (int.from_bytes(qe[at : at + 2], "little") for at in (256, 258))
    kind = claimed_kind(quote)
    ends = parsed.pck_chain[-1] == root(kind).der if parsed.pck_chain else False
    what = {
        Kind.TDX: "Intel's root, which is pinned here"
        if ends
        else "a root that is NOT pinned here: nothing can follow",
        Kind.SIMULATED: "the TEST root, whose key is public: this quote proves NO hardware",
    }
    names = ("PCK certificate (signs the QE report)", "its authority", "root")
    chain = [certificate_row(name, der) for name, der in zip(names, parsed.pck_chain, strict=False)]
    return Section(
        "Who signed what (not checked by reading)",
        (
            Row("TD report", "by the attestation key", shown(attestation_key)),
            Row("attestation key", "vouched for by the quoting enclave", "SHA-256 of key and data in its report"),
            Row("QE MRENCLAVE", shown(qe[64:96]), "code of the quoting enclave"),
            Row(
                "QE MRSIGNER",
                shown(qe[128:160]),
                "dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5 is Intel",
            ),
            Row("QE ISVPRODID, ISVSVN", f"{product}, {version}", "2: the TD quoting enclave; its security version"),
            *_platform(parsed),
            *chain,
            Row("chain ends in", what[kind]),
        ),
    )


def _platform(parsed: TdQuote) -> list[Row]:
    try:
        found = dcap_qvl.parse_pck_extension_from_pem(parsed.pck_chain_pem.rstrip(b"\0"))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic inside the quote library is no Exception
        return [Row("platform", "unreadable", str(error))]
    return [
        Row(
            "FMSPC, PCE id",
            f"{found.fmspc.hex()}, {found.pce_id.hex()}",
            "the platform's type: selects Intel's TCB info",
        ),
        Row("CPUSVN, PCESVN", f"{found.cpu_svn.hex()}, {found.pce_svn}", "security versions of the platform"),
        Row("PPID", shown(bytes(found.ppid)), "names the machine; its SHA-256 is the platform id"),
    ]
