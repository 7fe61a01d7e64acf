"""What the documentation states holds: keys, codes, sizes, messages, examples, reasons of dependencies."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import json
import re
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

import chain.config
import client.config
import client.errors
import relayer.config as relayer_config
import worker.agent.config
import worker.enclave.config
import wrappers.code
from attestation.policy import AllowedImage, Policy, from_document
from chain.api import AccountState
from protocol.errors import Code
from relayer.config import Limits, RelayerConfig
from relayer.core.policy import SettlePolicy
from scripts.stage import built_world
from worker.agent.config import AgentConfig
from worker.enclave.config import EnclaveConfig, Prices
from worker.engine.choose import engine_from_config
from wrappers.errors import ContractError

ROOT = Path(__file__).resolve().parents[2]
SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    text = (ROOT / "docs" / name).read_text(encoding="utf-8").replace("<64 hex digits>", "5a" * 32)
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_examples_of_settings_are_taken(tmp_path: Path) -> None:
    agent, enclave, gpu, direct, relayer = (tomllib.loads(block) for block in blocks("operator.md", "toml"))
    assert worker.agent.config.parse(agent, where="agent.toml", base=tmp_path).relayers
    assert worker.agent.config.parse({**agent, **direct}, where="agent.toml", base=tmp_path).direct
    assert not worker.enclave.config.parse(enclave, where="enclave.toml").simulated
    assert worker.enclave.config.parse({**enclave, **gpu}, where="enclave.toml").gpu
    assert engine_from_config(enclave["engine"], simulated=False)
    assert relayer_config.parse_config(relayer, {}, where="relayer.toml", base=tmp_path).worker_urls
    (policy,) = (tomllib.loads(block) for block in blocks("client.md", "toml"))
    assert from_document(policy).images


@pytest.mark.parametrize("page", ["client.md", "auditor.md"])
def test_the_examples_of_code_are_python_over_names_that_exist(page: str) -> None:
    for block in blocks(page, "python"):
        compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        for module, names in re.findall(r"^from ([\w.]+) import (.+)$", block, re.MULTILINE):
            found = importlib.import_module(module)
            assert all(hasattr(found, name.strip()) for name in names.split(",")), module


async def test_the_auditors_lines_run_against_a_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """And fail against other code."""
    (block,) = blocks("auditor.md", "python")
    world = built_world(verifier=True)
    lines = compile(block, "auditor.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)

    class Chain:
        async def account(self, account: bytes) -> AccountState:
            return world.ledger.account(world.registry if account == b"\x5a" * 32 else account)

    monkeypatch.setattr(chain.config, "connect", lambda network: Chain())
    await eval(lines, {"print": lambda *told: None})
    with pytest.raises(AssertionError):
        monkeypatch.setattr(wrappers.code, "code_hash", lambda contract: bytes(32))
        await eval(lines, {"print": lambda *told: None})


def spans(name: str) -> set[str]:
    """Inline code of a page."""
    return set(SPAN.findall(FENCE.sub("", (ROOT / "docs" / name).read_text(encoding="utf-8"))))


@pytest.mark.parametrize("kind", [AgentConfig, EnclaveConfig, Prices, RelayerConfig, Limits, SettlePolicy])
def test_every_key_of_the_operators_files_is_documented(kind: type) -> None:
    missing = {one.name for one in fields(kind)} - spans("operator.md")
    assert not missing


def test_every_key_of_the_clients_files_is_documented() -> None:
    known = spans("client.md")
    wanted = {*client.config._KINDS, *(one.name for kind in (Policy, AllowedImage) for one in fields(kind))}
    assert not wanted - known


def test_every_error_of_the_client_is_documented() -> None:
    known = spans("client.md")
    own = {kind.code for kind in vars(client.errors).values() if isinstance(kind, type) and hasattr(kind, "code")}
    assert not (own | {code.value for code in Code}) - known


def test_every_exit_code_of_the_contracts_is_documented() -> None:
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    listed = {int(number): name for number, name in re.findall(r"^\| (\d{3}) \| `(\w+)`", text, re.MULTILINE)}
    assert listed == {error.value: error.name.lower() for error in ContractError}


def schema_rows() -> dict[str, str]:
    text = (ROOT / "contracts" / "schema.tlb").read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+)(?:#\w+|\$_) (.*?) = \w+;", text, re.MULTILINE))


def size_of_row(row: str) -> tuple[int, int, int]:
    """Fixed bits, Coins fields, references at most; a tag is not counted."""
    bits = coins = references = 0
    for kind in re.findall(r"\w+:(\([^)]*\)|\^?\w+)", row):
        if number := re.fullmatch(r"u?int(\d+)|bits(\d+)", kind):
            bits += int(number[1] or number[2])
        elif kind == "Coins":
            coins += 1
        elif kind == "Bool":
            bits += 1
        elif kind.startswith(("(Maybe ^", "(HashmapE")):
            bits, references = bits + 1, references + 1
        elif kind.startswith("^"):
            references += 1
        elif kind == "KeyRow":
            bits += size_of_row(schema_rows()["key_row"])[0]
        elif kind == "(Maybe Fee)":
            bits += 1 + size_of_row(schema_rows()["fee"])[0]
        else:
            raise AssertionError(f"unknown type {kind}")
    return bits, coins, references


def test_sizes_of_storage_are_those_of_the_schema() -> None:
    text = (ROOT / "docs" / "contracts.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    rows = schema_rows()
    assert {name for name, *_ in listed} >= {name for name in rows if name.endswith("_data")} | {"row", "key_row"}
    for name, *numbers in listed:
        assert tuple(map(int, numbers)) == size_of_row(rows[name]), name


def test_every_message_is_documented() -> None:
    text = (ROOT / "contracts" / "schema.tlb").read_text(encoding="utf-8")
    wanted = set(re.findall(r"^(\w+)#\w+ .*= \w+Msg;", text, re.MULTILINE))
    assert not wanted - spans("contracts.md")


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for names in project["optional-dependencies"].values() for name in names]
    npm = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    wanted = {re.split(r"[<>=\[]", name)[0] for name in (*project["dependencies"], *extras)} | set(npm)
    assert not wanted - spans("dependencies.md")


def test_every_package_that_is_imported_has_its_reason() -> None:
    ours = {path.name for path in ROOT.iterdir() if (path / "__init__.py").exists()} | {"scripts"}
    distributions = {name: found[0] for name, found in importlib.metadata.packages_distributions().items()}
    known = {span.lower() for span in spans("dependencies.md")}
    for path in (path for name in ours for path in (ROOT / name).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [one.name for one in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
                modules = [node.module]
            for module in {name.partition(".")[0] for name in modules} - ours - sys.stdlib_module_names:
                assert distributions[module].lower() in known, f"{module} in {path.relative_to(ROOT)}"
