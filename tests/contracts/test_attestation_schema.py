"""attestation.tlb, the FunC constants and literals of the verifier, and their Python mirrors say the same."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import contracts
from attestation.onchain.errors import EXPLANATIONS, VerifierError, explain
from attestation.onchain.messages import Op
from attestation.report_data import TAG
from wrappers.ops import Op as CommonOp
from wrappers.ops import Tag

ROOT = Path(contracts.__file__).parent / "attestation"
ROWS = [
    (m[1], int(m[2], 16), m[3])
    for line in (ROOT / "attestation.tlb").read_text().splitlines()
    if (m := re.match(r"^(\w+)#([0-9a-f]{8}) (.*?);", line))
]


def constants(file: str, kind: str) -> dict[str, int]:
    text = (ROOT / file).read_text()
    return {name.upper(): int(value, 0) for name, value in re.findall(rf"const int {kind}::(\w+) = (\w+);", text)}


def test_every_op_is_crc32_of_its_row_and_the_same_everywhere() -> None:
    for name, tag, rest in ROWS:
        assert tag == zlib.crc32(f"{name} {rest}".encode()) & 0x7FFFFFFF, name
    rows = {name.upper(): tag for name, tag, _ in ROWS}
    assert rows == constants("op.fc", "op") == {op.name: op.value for op in Op}


def test_g10_ops_differ_from_all_others() -> None:
    assert not {op.value for op in Op} & {each.value for each in (*CommonOp, *Tag)}
    assert len({op.value for op in Op}) == len(Op)


def test_errors_are_those_of_errors_fc_and_all_explained() -> None:
    assert constants("errors.fc", "error") == {error.name: error.value for error in VerifierError}
    assert set(EXPLANATIONS) == set(VerifierError)
    assert "wrong_report_data" in explain(640) and "low_value" in explain(102)


def test_every_error_is_thrown_somewhere() -> None:
    code = "".join(path.read_text() for path in ROOT.glob("*.fc") if path.name != "errors.fc")
    for error in VerifierError:
        assert re.search(rf"error::{error.name.lower()}\b", code), error


def test_literals_are_what_their_comments_say() -> None:
    found = re.findall(r"^;; (.+)\n.*?x\{([0-9a-f]+)\}", (ROOT / "literals.fc").read_text(), re.MULTILINE)
    assert len(found) >= 35
    for text, digits in found:
        assert bytes.fromhex(digits) == text.encode()


def test_report_data_tag_is_that_of_the_binding() -> None:
    assert f'"x{{{TAG.hex()}}} STSLICECONST"' in (ROOT / "policy.fc").read_text()


def test_roots_and_curve_in_code_are_the_pinned_ones() -> None:
    from attestation.evidence import Kind
    from attestation.onchain import hints
    from attestation.onchain.certificates import public_key
    from attestation.trust_roots import root

    state, curve = (ROOT / "state.fc").read_text(), (ROOT / "p256.fc").read_text()
    key = public_key(root(Kind.TDX).der)
    assert f"0x{key[:32].hex()} PUSHINT" in state and f"0x{key[32:].hex()} PUSHINT" in state
    for number in (hints.P, hints.N, hints.Z0, hints.G[1]):
        assert f"0x{number:064x} PUSHINT" in curve
    assert f"x{{{2 + hints.G[1] % 2:02x}{hints.G[0]:064x}}}" in curve


def test_no_file_of_the_verifier_is_over_300_lines() -> None:
    paths = list(ROOT.glob("*.fc"))
    assert ROOT / "attestation.fc" in paths
    for path in paths:
        assert len(path.read_text().splitlines()) <= 300, path.name
