"""An SEV-SNP attestation report field by field (AMD SEV-SNP ABI, ATTESTATION_REPORT)."""

from __future__ import annotations

from attestation.explain.words import Row, Section, certificate_row, shown
from attestation.snp.collateral import AmdCollateral
from attestation.snp.report import SnpReport, parse


def sections(raw: bytes) -> list[Section]:
    """Raises Malformed."""
    report = parse(raw)
    return [_report(report), _platform(report)]


def _report(report: SnpReport) -> Section:
    guest = report.policy
    allowed = {"SMT": guest.smt, "a migration agent": guest.migration_agent, "DEBUG": guest.debug, "CXL": guest.cxl}
    policy = ", ".join(name for name, yes in allowed.items() if yes) or "nothing"
    return Section(
        "SEV-SNP report: what runs",
        (
            Row("version", str(report.version)),
            Row("measurement", report.measurement.hex(), "SHA-256 of the launch digest: the name policies use"),
            Row("launch digest", report.launch_digest.hex(), "firmware, kernel hashes and vCPUs, by the processor"),
            Row("guest SVN", str(report.guest_svn), "the image's own security version"),
            Row("guest policy", f"allows {policy}", f"firmware interface >= {guest.abi[0]}.{guest.abi[1]}"),
            Row("VMPL", str(report.vmpl), "privilege level that asked; 0 is the highest"),
            Row("HOST_DATA", shown(report.host_data), "set by the host at launch"),
            Row(
                "ID key, author key", f"{shown(report.id_key_digest)}, {shown(report.author_key_digest)}", "who signed"
            ),
            Row("REPORTDATA", shown(report.report_data), "64 bytes that the guest chose; see the binding"),
        ),
    )


def _platform(report: SnpReport) -> Section:
    tcb = {name: getattr(report, f"{name}_tcb").hex() for name in ("current", "reported", "committed", "launch")}
    cpu = "not stated" if report.cpu is None else f"family {report.cpu[0]:#x}, model {report.cpu[1]:#x}"
    return Section(
        "The machine, and who signed (not checked by reading)",
        (
            Row("CHIP_ID", shown(report.chip_id), "names the processor; zero where the host hides it"),
            Row("CPU", cpu),
            *(Row(f"{name} TCB", value, "security patch levels, a byte per component") for name, value in tcb.items()),
            Row("firmware interface", f"{report.current_abi}, committed {report.committed_abi}"),
            Row("SMT on", str(report.smt_enabled)),
            Row("memory alias check", str(report.alias_check_complete), "AMD-SB-3015"),
            Row("report", f"signed by the {report.signing_key.name}", "VCEK: the chip's key; VLEK: the provider's"),
        ),
    )


def collateral_section(collateral: AmdCollateral) -> Section:
    rows = [certificate_row("endorsement (VCEK or VLEK)", collateral.endorsement)]
    rows.append(certificate_row("authority (ASK or ASVK)", collateral.authority))
    listed = "none: revocation cannot be checked" if collateral.crl is None else f"{len(collateral.crl)} bytes"
    return Section("AMD's certificates", (*rows, Row("revocation list", listed)))
