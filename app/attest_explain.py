"""`cocoon attest explain`: a file of evidence in words; with collateral and policy, judged check by check."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from attestation.collateral import AnyCollateral
from attestation.collateral import parse as parse_collateral
from attestation.collateral import read as read_collateral
from attestation.evidence import Evidence, Kind, gpu_evidence_hash
from attestation.explain import gpu, snp, tdx
from attestation.explain.checks import Judged, Subject, judge
from attestation.explain.words import Row, Section, moment, printable, shown
from attestation.gpu.envelope import nonce
from attestation.policy import Policy
from attestation.presented import Presented
from attestation.recognise import (
    LIMIT_BYTES,
    Document,
    RawGpu,
    RawQuote,
    RawReport,
    claimed_kind,
    recognise,
)
from attestation.report_data import NO_GPU
from attestation.snp.collateral import AmdCollateral


@dataclass(frozen=True, slots=True)
class Explained:
    sections: list[Section]
    judged: Judged | None
    """None: there is nothing to judge in it (collateral, GPU evidence alone)."""

    def to_document(self) -> dict[str, Any]:
        judged = None if self.judged is None else asdict(self.judged)
        return {"sections": [asdict(section) for section in self.sections], "judged": judged}

    def lines(self) -> Iterator[str]:
        """For a terminal: every text printable."""
        for section in self.sections:
            yield section.title
            for row in section.rows:
                yield f"  {row.name}: {printable(row.value)}"
                if row.meaning:
                    yield f"      {printable(row.meaning)}"
            yield ""
        yield from self._verdict()

    def _verdict(self) -> Iterator[str]:
        if self.judged is None:
            return
        yield "Checks"
        for check in self.judged.checks:
            yield f"  {check.outcome}: {check.what}"
            if check.reason:
                yield f"      {printable(check.reason)}"
        yield ""
        if self.judged.accepted is None:
            yield "Verdict: none. What is not checked above is not known; nothing printed here is proven by reading."
        elif self.judged.accepted:
            yield "Verdict: accepted under this policy."
        else:
            yield "Verdict: REJECTED"
            yield from (f"  {printable(reason)}" for reason in self.judged.reasons)


def explain(
    path: Path, collateral_path: Path | None, policy: Policy | None, now: int | None, clock: int, global_id: int
) -> Explained:
    """`now` (unix seconds) if given, else `clock`. Raises Malformed, OSError."""
    document = recognise(_read(path))
    collateral = None if collateral_path is None else parse_collateral(_read(collateral_path))
    gpu_collateral = None
    if isinstance(document, Presented):
        collateral, gpu_collateral = collateral or document.collateral, document.gpu
    subject = _subject(document)
    sections = list(_sections(document, subject))
    if collateral is not None and not isinstance(document, RawGpu):
        sections.append(_collateral(collateral))
    at = clock if now is None else now
    if subject is None:
        return Explained(sections, None)
    judged = judge(subject, collateral, policy, at, global_id=global_id, gpu_collateral=gpu_collateral)
    return Explained(sections, judged)


def _subject(document: Document) -> Subject | None:
    match document:
        case RawQuote(quote):
            return Subject(claimed_kind(quote), quote)
        case RawReport(report):
            return Subject(Kind.SEV_SNP, report)
        case Presented(evidence):
            return _subject(evidence)
        case Evidence():
            return Subject(document.kind, document.quote, document.binding, document.gpu_evidence)
        case _:
            return None


def _sections(document: Document, subject: Subject | None) -> Iterator[Section]:
    if isinstance(document, RawGpu):
        yield from gpu.sections(document.evidence, None)
    elif subject is not None:
        yield from _binding(subject)
        yield from (snp if subject.kind is Kind.SEV_SNP else tdx).sections(subject.quote)
        if subject.gpu_evidence and subject.binding is not None:
            binding = subject.binding
            yield from gpu.sections(subject.gpu_evidence, nonce(binding.signing_key, binding.block_root_hash))
    else:
        assert isinstance(document, AnyCollateral)
        yield _collateral(document)


def _binding(subject: Subject) -> Iterator[Section]:
    bound = subject.binding
    if bound is None:
        return
    gpu_row = Row("GPU evidence hash", "none: no GPU is claimed")
    if bound.gpu_evidence_hash != NO_GPU:
        held = gpu_evidence_hash(subject.gpu_evidence) == bound.gpu_evidence_hash
        gpu_row = Row(
            "GPU evidence hash", shown(bound.gpu_evidence_hash), "fits the evidence" if held else "does NOT fit"
        )
    yield Section(
        "Binding: what REPORTDATA is said to be the hash of",
        (
            Row("kind", subject.kind.value, "which root it claims to end in"),
            Row("network", shown(bound.network_id)),
            Row("node", shown(bound.node), "account in workchain 0"),
            Row("node epoch", str(bound.node_epoch), "logical time of the node's birth: evidence dies with it"),
            Row("signing key", shown(bound.signing_key), "Ed25519, born in the enclave; signs receipts and claims"),
            gpu_row,
            Row("block", f"{bound.block_seqno}, {shown(bound.block_root_hash)}", "evidence is younger than this block"),
        ),
    )


def _collateral(collateral: AnyCollateral) -> Section:
    if isinstance(collateral, AmdCollateral):
        return snp.collateral_section(collateral)
    said = read_collateral(collateral)
    return Section(
        "Intel's collateral (signed by Intel; whoever serves it can only serve old or none)",
        (
            Row("platform type", f"FMSPC {said.fmspc}, PCE id {said.pce_id}"),
            Row("evaluation number", str(said.evaluation_number), "which set of Intel's judgements"),
            Row("ends", moment(said.expires_at), "the earliest nextUpdate in it"),
        ),
    )


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMIT_BYTES + 1)
