"""`cocoon attest onchain`: quotes judged by the attestation contract itself, on the emulated chain at mainnet's prices.

The judging transaction is `appraise`: everything that `attest` checks but REPORTDATA and the image, which belong to the
network that a quote was made for. Time is the collateral's own: an old quote is judged as it was when it was fresh.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import dcap_qvl

from attestation.collateral import Collateral
from attestation.collateral import read as read_collateral
from attestation.evidence import Kind
from attestation.onchain.certificates import public_key
from attestation.onchain.errors import explain
from attestation.onchain.hints import NoHints
from attestation.onchain.messages import appraise
from attestation.onchain.pieces import BadWitness
from attestation.presented import Presented
from attestation.quote import parse
from attestation.recognise import LIMIT_BYTES, Document, claimed_kind, quote_of, recognise
from attestation.strict import Malformed
from attestation.trust_roots import root
from attestation.witness import QuoteParts
from devnet.ledger import Ledger
from scripts.attest_stage import Outcome, Stage

MARGIN_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Judgement:
    """One quote's outcome. `gas` and `all_in_nano` (nanoTON, every fee of the trace): None where nothing was sent."""

    quote: str
    verdict: str
    reason: str
    gas: int | None = None
    all_in_nano: int | None = None
    simulated: bool = False
    """True: the quote ends in the test root and was judged under it; it proves no hardware."""

    @property
    def accepted(self) -> bool:
        return self.verdict == "accepted"

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def rejected(name: str, reason: object) -> Judgement:
    return Judgement(name, "rejected", f"not sent: {reason}")


def midst(collateral: Collateral) -> int:
    """A moment at which all of it is valid, unix seconds. Raises Malformed."""
    return read_collateral(collateral).expires_at - MARGIN_SECONDS


def judgement(name: str, outcome: Outcome, *, simulated: bool = False) -> Judgement:
    exit_code = outcome.exit_code
    if exit_code == 0:
        return Judgement(name, "accepted", "", outcome.gas, outcome.all_in_nano, simulated)
    reason = "no code ran" if exit_code is None else explain(exit_code)
    return Judgement(name, "rejected", reason, outcome.gas, outcome.all_in_nano, simulated)


@dataclass(frozen=True, slots=True)
class Judge:
    """The contract under one root, told one set of collateral at `at` (unix seconds)."""

    stage: Stage
    told: dict[str, Outcome]
    """What became of each message of collateral, by its name."""
    simulated: bool

    @classmethod
    def under(cls, kind: Kind, collateral: Collateral, at: int | None = None) -> Judge:
        """Raises Malformed, BadWitness, NoHints for collateral that cannot be told to the chain."""
        ledger = Ledger(now=midst(collateral) if at is None else at)
        stage = Stage(ledger, public_key(root(kind).der))
        stage.deploy()
        return cls(stage, stage.load(collateral), kind is Kind.SIMULATED)

    def judge(self, name: str, quote: bytes) -> Judgement:
        try:
            parts = QuoteParts.of(quote)
            body = appraise(parts.authority, *parts.cells())
        except (Malformed, BadWitness, NoHints) as error:
            return rejected(name, error)
        found = judgement(name, self.stage.tell(body), simulated=self.simulated)
        refused = [f"{what}: {judgement(what, told).reason}" for what, told in self.told.items() if not told.accepted]
        if found.accepted or not refused:
            return found
        # What the contract was not told, it lacks; the refusal of the quote follows from that of the collateral.
        reason = f"{found.reason}; of the collateral the contract refused {'; '.join(refused)}"
        return Judgement(name, found.verdict, reason, found.gas, found.all_in_nano, found.simulated)


@dataclass(frozen=True, slots=True)
class _Quote:
    name: str
    quote: bytes
    own: Collateral | None
    """Collateral that came with it, or that its place names: the file after it or beside it."""


def judge_paths(paths: Sequence[Path], at: int | None, note: Callable[[str], None]) -> Iterator[Judgement]:
    """Every quote in files and folders, in order. `note` is told which files of a folder hold none.

    A quote is judged by the collateral that came in its own file, stands beside it as NAME_collateral.json or follows
    it in `paths`; else by the newest given for its platform type; else by the only one given.
    """
    quotes: list[_Quote | Judgement] = []
    passed: list[str] = []
    given: list[Collateral] = []
    for path, listed in _files(paths):
        try:
            document = recognise(_read(path))
            quote = quote_of(document)
            if quote is not None:
                own = _own(document) or _beside(path)
                quotes.append(_Quote(str(path), quote, own))
            elif isinstance(document, Collateral):
                given.append(document)
                last = quotes[-1] if quotes else None
                if not listed and isinstance(last, _Quote) and last.own is None:
                    quotes[-1] = _Quote(last.name, last.quote, document)
            else:
                raise Malformed("the contract judges TDX quotes alone: what AMD and NVIDIA sign is beyond the TVM")
        except (OSError, Malformed) as error:
            if listed:
                passed.append(path.name)
            else:
                quotes.append(rejected(str(path), error))
    if passed:
        more = f" and {len(passed) - 8} more" if len(passed) > 8 else ""
        note(f"passed over, for they hold neither a quote nor collateral: {', '.join(passed[:8])}{more}")
    judges: dict[tuple[Kind, Collateral], Judge] = {}
    for each in quotes:
        yield each if isinstance(each, Judgement) else _judge(each, given, at, judges)


def _judge(
    each: _Quote, given: list[Collateral], at: int | None, judges: dict[tuple[Kind, Collateral], Judge]
) -> Judgement:
    try:
        kind = claimed_kind(each.quote)
        collateral = each.own or _fitting(each.quote, given)
        if collateral is None:
            return rejected(each.name, "no collateral for its platform type; name a JSON file of it after the quote")
        key = (kind, collateral)
        if key not in judges:
            judges[key] = Judge.under(kind, collateral, at)
        return judges[key].judge(each.name, each.quote)
    except (ValueError, BadWitness, NoHints) as error:
        return rejected(each.name, error)


def _fitting(quote: bytes, given: Iterable[Collateral]) -> Collateral | None:
    unique = list(dict.fromkeys(given))
    if len(unique) == 1:
        return unique[0]
    extension = dcap_qvl.parse_pck_extension_from_pem(parse(quote).pck_chain_pem.rstrip(b"\0"))
    statements = [(read_collateral(each), each) for each in unique]
    fitting = [(said.expires_at, each) for said, each in statements if said.fmspc == extension.fmspc.hex()]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def _files(paths: Sequence[Path]) -> Iterator[tuple[Path, bool]]:
    """(file, whether it is only listed by its folder)."""
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
            yield from ((each, True) for each in found)
        else:
            yield path, False


def _own(document: Document) -> Collateral | None:
    if isinstance(document, Presented) and isinstance(document.collateral, Collateral):
        return document.collateral
    return None


def _beside(path: Path) -> Collateral | None:
    beside = path.with_name(path.name + "_collateral.json")
    return Collateral.from_json(_read(beside)) if beside.is_file() else None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(LIMIT_BYTES + 1)
