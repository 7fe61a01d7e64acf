"""What the documentation names exists: tests, files, commands, options, targets."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

import app.cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
GUARANTEES = ROOT / "docs" / "guarantees.md"
PROMISED = {1, 2, 3, 4, 5, 7, 8, 10, 11, 13, 16, 17, 18}
"""What the first release must hold for the paths that exist."""
SPAN = re.compile(r"`([^`\n]+)`")
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code_of(page: Path) -> Iterator[str]:
    """Inline code and the lines of code blocks."""
    text = page.read_text(encoding="utf-8")
    for block in FENCE.findall(text):
        yield from block.splitlines()
    yield from SPAN.findall(FENCE.sub("", text))


# ---------------------------------------------------------------------------------------------------- tests


@cache
def test_names() -> dict[str, set[str]]:
    """Names that pytest collects, by file relative to the repository."""
    found = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        names = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                names.add(node.name)
            elif isinstance(node, ast.Assign):  # a stateful test of hypothesis
                targets = [target.id for target in node.targets if isinstance(target, ast.Name)]
                names |= {name for name in targets if name.startswith("Test")}
        found[str(path.relative_to(ROOT))] = names
    return found


test_names.__test__ = False  # type: ignore[attr-defined]


@every_page
def test_every_test_that_is_named_exists(page: Path) -> None:
    known = test_names()
    everywhere = set().union(*known.values())
    for span in code_of(page):
        for path, name in re.findall(r"(tests/[\w/]+\.py)::(\w+)", span):
            assert name in known.get(path, set()), f"{path}::{name}"
        if re.fullmatch(r"test_\w+", span):
            assert span in everywhere or any(Path(path).stem == span for path in known), span


def guarantee_rows() -> dict[int, tuple[str, str]]:
    """Status and the rest of the row, by number."""
    rows = {}
    for number, rest in re.findall(r"^\| G(\d+) (.*)$", GUARANTEES.read_text(encoding="utf-8"), re.MULTILINE):
        cells = [cell.strip() for cell in rest.split("|")]
        assert int(number) not in rows, f"G{number} has two rows"
        rows[int(number)] = (cells[1], rest)
    return rows


def test_each_of_the_twenty_guarantees_has_a_row_with_a_status() -> None:
    rows = guarantee_rows()
    assert sorted(rows) == list(range(1, 21))
    assert {status for status, _ in rows.values()} <= {"held", "in part", "open"}


def test_what_is_held_is_held_by_several_tests_and_what_is_open_says_why() -> None:
    for number, (status, row) in guarantee_rows().items():
        named = re.findall(r"tests/[\w/]+\.py::\w+", row)
        assert len(set(named)) >= (2 if status == "held" else 1 if status == "in part" else 0), f"G{number}"
        open_part = row.split("|")[-2].strip()
        assert open_part, f"G{number} does not say what is open"


def test_the_promised_guarantees_are_held() -> None:
    assert {number for number, (status, _) in guarantee_rows().items() if status == "held"} >= PROMISED


# ---------------------------------------------------------------------------------------------------- files and links


def anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@every_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text(encoding="utf-8"))):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@every_page
def test_every_path_of_this_repository_exists(page: Path) -> None:
    tops = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    for span in code_of(page):
        for path in re.findall(r"(?<![\w/.{])((?:[\w.-]+/)+[\w.-]*)(?![\w{*])", span):
            if path.split("/")[0] in tops - {"node", "client", "relayer"} and "://" not in span:
                assert (ROOT / path).exists(), path


# ---------------------------------------------------------------------------------------------------- commands


def command_lines(page: Path) -> Iterator[list[str]]:
    """The words after each `cocoon`; in `cocoon client balance | close` the last word has alternatives."""
    for span in code_of(page):
        text = span.partition(" #")[0]
        for found in re.findall(r"(?:^|[\s/(])cocoon ([^`;>&]+)", text):
            first, *others = (shlex.split(part) for part in found.split(" | "))
            yield first
            yield from ([*first[:-1], *other] for other in others)


def check_line(words: list[str]) -> None:
    """Raises AssertionError at the first word that the command line would not take."""
    command: Any = typer.main.get_command(app.cli.app)
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("--"):
            name = word.partition("=")[0]
            options = {opt: one for one in command.params for opt in (*one.opts, *one.secondary_opts)}
            assert name in options or name == "--help", f"cocoon {' '.join(words)}: {name}"
            if rest and "=" not in word and name != "--help" and not options[name].is_flag:
                rest.pop(0)
        elif hasattr(command, "commands"):
            assert word in command.commands, f"cocoon {' '.join(words)}: {word}"
            command = command.commands[word]


@every_page
def test_every_command_and_option_exists(page: Path) -> None:
    for words in command_lines(page):
        check_line(words)


@pytest.mark.parametrize("line", ["demos", "client ballance", "client close --now", "--home x up", "node settle --all"])
def test_a_command_that_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        check_line(line.split())


@every_page
def test_every_target_of_make_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for span in code_of(page):
        for target in re.findall(r"(?:^|\s)make ([a-z-]+)", span):
            assert target in targets, f"make {target}"


@every_page
def test_every_module_to_run_exists(page: Path) -> None:
    for span in code_of(page):
        for module in re.findall(r"python3? -m ([\w.]+)", span):
            assert module in ("venv", "pip") or importlib.util.find_spec(module) is not None, module


def test_nothing_speaks_of_a_machine() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home)/", text), page.name
