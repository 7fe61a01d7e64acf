"""The obvious ways to break a contract, one change at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from scripts.mutants.func import Function, Source

_BOUNDARY = {">": ">=", ">=": ">", "<": "<=", "<=": "<", "==": "!=", "!=": "=="}
_ARITHMETIC = {"+": "-", "-": "+", "+=": "-=", "-=": "+=", "*": "+"}
_OTHER_CALL = {
    "min": "max",
    "max": "min",
    "to_bounceable": "to_account",
    "to_account": "to_bounceable",
}
_OTHER_MODE = {
    "mode::carry_value": "mode::carry_balance",
    "mode::carry_balance": "mode::carry_value",
    "mode::carry_and_end": "mode::carry_balance",
}
# Modes are mutated where they are used; the others are names, which test_schema.py compares with the schema.
_NOT_LIMITS = ("mode::", "op::", "tag::", "error::")
_THROWS = ("throw_if", "throw_unless")
# Reading past a field is layout, not a decision: a parse that shifts fails everywhere at once.
_LAYOUT = ("~load_", "~skip_", "~begins_with")
_STATEMENT_WORDS = ("return", "throw", "int", "cell", "slice", "builder", "global", "var", *_THROWS)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed place. `before` and `after` are the whole lines it is on, without indentation and line breaks."""

    file: str
    line: int
    function: str
    operator: str
    before: str
    after: str
    start: int
    end: int
    replacement: str

    def apply(self, text: str) -> str:
        return text[: self.start] + self.replacement + text[self.end :]

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}"


def mutants_of(source: Source) -> Iterator[Mutant]:
    """Every mutant of the file, in order of appearance. Deterministic."""
    found: dict[tuple[int, int, str], Mutant] = {}
    for function in source.functions:
        for operator, (start, end, replacement) in _changes(source, function):
            key = (start, end, replacement)
            if key not in found:
                found[key] = _mutant(source, function, operator, start, end, replacement)
    yield from sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.replacement))
    yield from _constants(source)


Change = tuple[str, tuple[int, int, str]]


def _changes(source: Source, function: Function) -> Iterator[Change]:
    yield from _statements(source, function)
    yield from _branches(source, function)
    yield from _operators(source, function)
    yield from _words(source, function)


def _statements(source: Source, function: Function) -> Iterator[Change]:
    for statement in source.statements(function):
        first = source.tokens[statement.start]
        start, end = first.start, source.tokens[statement.stop - 1].end
        if first.text in _THROWS:
            # The condition stays: what it reads from a message is read as before.
            comma = next(i for i in statement if source.tokens[i].text == ",")
            condition = source.code(comma + 1, statement.stop - 2)
            yield "drop check", (start, end, condition)
        elif first.text not in _STATEMENT_WORDS and first.text != "(":
            texts = [source.tokens[i].text for i in statement]
            if texts[-3:] == [".end_parse", "(", ")"]:
                yield "drop end of parsing", (start, end, "")
            elif not any(layout in text for text in texts[:2] for layout in _LAYOUT):
                yield "skip statement", (start, end, "")


def _branches(source: Source, function: Function) -> Iterator[Change]:
    for index in function.body:
        token = source.tokens[index]
        if token.text in ("if", "ifnot", "elseif", "while") and source.tokens[index + 1].text == "(":
            last = source.partner[index + 1] - 1
            condition = source.code(index + 2, last)
            start, end = source.tokens[index + 2].start, source.tokens[last].end
            never, always = (start, end, f"({condition}) & false"), (start, end, f"({condition}) | true")
            if token.text == "ifnot":
                never, always = always, never
            yield "never branch", never
            if token.text != "while":
                yield "always branch", always
        elif token.text == "?":
            first = source.operand_before(index)
            condition = source.code(first, index - 1)
            start, end = source.tokens[first].start, source.tokens[index - 1].end
            yield "first choice", (start, end, f"(({condition}) | true)")
            yield "second choice", (start, end, f"(({condition}) & false)")


def _operators(source: Source, function: Function) -> Iterator[Change]:
    for index in function.body:
        token = source.tokens[index]
        text, start, end = token.text, token.start, token.end
        if token.kind != "op":
            continue
        if text in _BOUNDARY:
            yield "other comparison", (start, end, _BOUNDARY[text])
        if text in _ARITHMETIC:
            yield "other arithmetic", (start, end, _ARITHMETIC[text])
        if text in ("&", "|", "+", "-", "*"):
            yield from _operands(source, index)


def _operands(source: Source, index: int) -> Iterator[Change]:
    """Leaves out one operand: a condition of several, a fee among amounts, a flag of a mode."""
    text = source.tokens[index].text
    first, last = source.operand_before(index), source.operand_after(index)
    left, right = source.code(first, index - 1), source.code(index + 1, last)
    for kept, dropped, begin, stop in (
        (left, right, source.tokens[index + 1].start, source.tokens[last].end),
        (right, left, source.tokens[first].start, source.tokens[index - 1].end),
    ):
        if "~" in dropped:
            if text in "&|":
                neutral = "| true" if text == "&" else "& false"
                yield "drop operand", (begin, stop, f"(({dropped}) {neutral})")
        elif not (text == "-" and kept == right):
            whole = (source.tokens[first].start, source.tokens[last].end)
            yield "drop operand", (*whole, kept)


def _words(source: Source, function: Function) -> Iterator[Change]:
    for index in function.body:
        token = source.tokens[index]
        at = (token.start, token.end)
        if token.text in _OTHER_CALL:
            yield "other call", (*at, _OTHER_CALL[token.text])
        elif token.text in _OTHER_MODE:
            yield "other mode", (*at, _OTHER_MODE[token.text])
        elif token.text.startswith("mode::"):
            yield "no mode", (*at, "0")
        elif token.text in ("true", "false"):
            yield "other truth", (*at, "false" if token.text == "true" else "true")
        elif token.text == "select":
            close = source.partner[index + 1]
            comma = next(i for i in range(close - 1, index, -1) if source.tokens[i].text == ",")
            before = source.argument_start(comma)
            swapped = f"{source.code(comma + 1, close - 1)}, {source.code(before, comma - 1)}"
            yield "swap choices", (source.tokens[before].start, source.tokens[close - 1].end, swapped)


def _constants(source: Source) -> Iterator[Mutant]:
    """Limits are one off; prices and sizes a fifth off, since they are measured with a margin."""
    tokens = source.tokens
    for index in range(len(tokens) - 4):
        head = [token.text for token in tokens[index : index + 2]]
        name, value = tokens[index + 2], tokens[index + 4]
        if head != ["const", "int"] or value.kind != "number" or name.text.startswith(_NOT_LIMITS):
            continue
        number = int(value.text, 0)
        step = max(1, number // 5) if name.text.startswith(("gas::", "size::")) else 1
        for changed in (number - step, number + step):
            yield _mutant(source, Function(name.text, range(0)), "other constant", value.start, value.end, str(changed))


def _mutant(source: Source, function: Function, operator: str, start: int, end: int, replacement: str) -> Mutant:
    begin, stop = source.lines(start, end)
    text = source.text
    return Mutant(
        file=source.name,
        line=source.line_of(start),
        function=function.name,
        operator=operator,
        before=_flat(text[begin:stop]),
        after=_flat(text[begin:start] + replacement + text[end:stop]),
        start=start,
        end=end,
        replacement=replacement,
    )


def _flat(code: str) -> str:
    """Code on one line, without comments."""
    return " ".join(" ".join(line.split(";;")[0].split()) for line in code.splitlines()).strip()
