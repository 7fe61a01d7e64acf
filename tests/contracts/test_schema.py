"""schema.tlb, the FunC constants and their Python mirrors say the same."""

from __future__ import annotations

import re
import zlib
from pathlib import Path

import contracts
from scripts.compile import assembly
from wrappers.code import Contract
from wrappers.errors import EXPLANATIONS, ContractError, explain
from wrappers.ops import Op, Tag

ROOT = Path(contracts.__file__).parent
ROWS = [
    (m[1], int(m[2], 16), m[3])
    for line in (ROOT / "schema.tlb").read_text().splitlines()
    if (m := re.match(r"^(\w+)#([0-9a-f]{8}) (.*?);", line))
]
# Numbers that wallets and nodes give a meaning of their own.
RESERVED = {0, 0xFFFFFFFF, 0xFFFFFFFE, 0x2167DA4B, 0xD53276DB}


def constants(file: str, kind: str) -> dict[str, int]:
    text = (ROOT / "common" / file).read_text()
    return {name.upper(): int(value, 0) for name, value in re.findall(rf"const int {kind}::(\w+) = (\w+);", text)}


def test_every_tag_is_crc32_of_its_row() -> None:
    assert len(ROWS) == len(Op) + len(Tag)
    for name, tag, rest in ROWS:
        assert tag == zlib.crc32(f"{name} {rest}".encode()) & 0x7FFFFFFF, name


def test_g10_tags_are_distinct_and_none_is_reserved() -> None:
    tags = [tag for _, tag, _ in ROWS]
    assert len(set(tags)) == len(tags)
    assert not RESERVED & set(tags)


def test_func_and_python_use_the_schemas_numbers() -> None:
    rows = {name.upper(): tag for name, tag, _ in ROWS}
    ops, tags = constants("op.fc", "op"), constants("op.fc", "tag")
    assert ops == {op.name: op.value for op in Op}
    assert tags == {tag.name: tag.value for tag in Tag}
    assert ops | tags == rows


def test_constants_folded_into_builders_are_the_schemas() -> None:
    types = (ROOT / "common" / "types.fc").read_text()
    folded = re.findall(
        r"builder begin_(\w+)\(\) asm \"NEWC\" \"x\{00([0-9a-f]{2})([0-9a-f]{8})\} STSLICECONST\"", types
    )
    assert len(folded) == 14
    assert re.findall(r"slice allotment_birth\(\) asm \"x\{00d8(\w{8})\} PUSHSLICE\"", types) == [
        f"{Tag.ALLOTMENT_BIRTH:08x}"
    ]
    for name, _, tag in folded:
        assert int(tag, 16) == Tag[name.upper()], name
    messages = (ROOT / "common" / "messages.fc").read_text()
    read = re.findall(r"(?:begins_with_|store_)(settle|paid)(?:_op)?\(.*x\{([0-9a-f]{8})\}", messages)
    assert [name for name, _ in read] == ["settle", "paid", "settle", "paid"]
    for name, op in read:
        assert int(op, 16) == Op[name.upper()]


def test_errors_are_those_of_errors_fc_and_all_explained() -> None:
    assert constants("errors.fc", "error") == {error.name: error.value for error in ContractError}
    assert set(EXPLANATIONS) == set(ContractError)
    assert "low_value" in explain(ContractError.LOW_VALUE) and "TVM" in explain(-14)


def test_no_opcode_newer_than_tvm_v11() -> None:
    newer = re.compile(r"\b(BTOS|HASHBU|LDSTDADDR|STSTDADDR|LDOPTSTDADDR|STOPTSTDADDR|LDSTDADDRQ)\b")
    for contract in Contract:
        assert not newer.search(assembly(contract))


def test_no_contract_file_is_over_300_lines() -> None:
    for path in ROOT.rglob("*.fc"):
        assert len(path.read_text().splitlines()) <= 300, path.name


def test_g7_every_send_and_reserve_says_what_happens_when_it_fails() -> None:
    """Neither mode would leave the value of a failed action with the contract, unaccounted for."""
    calls = 0
    for path in sorted(ROOT.glob("**/*.fc")):
        pattern = r"^(?!\(\)).*?\b(?:send_raw_message|raw_reserve|pay_out|send_money)\((.*?)\);"
        for call in re.findall(pattern, path.read_text(), re.M | re.S):
            calls += 1
            assert re.search(r"mode::(bounce|skip)_on_failure|64 \+ 16|, mode$", call), f"{path.name}: {call}"
        for mode in re.findall(r"\bmode = ([^;]*);", path.read_text()):
            assert re.search(r"mode::(bounce|skip)_on_failure$", mode), f"{path.name}: {mode}"
    assert calls >= 12
