"""FunC as tokens, as much of it as mutations need: functions, statements, calls, operands. Not a compiler.

The compiler itself judges what is made here: a mutant that does not compile is counted as that and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<skip>\s+|;;[^\n]*|\#[^\n]*)
    |(?P<string>"[^"]*"[a-z]?)
    |(?P<number>0x[0-9a-fA-F]+|\d+)
    |(?P<name>[~.]?[A-Za-z_][\w:?!']*)
    |(?P<op><<|>>|<=|>=|==|!=|\+=|-=|\*=|&=|\|=|->|[-+*/%&|^<>=?:~])
    |(?P<mark>[(){}\[\],;])""",
    re.VERBOSE,
)
_OPEN, _CLOSE = "([{", ")]}"
# Binding strength of binary operators, as the FunC compiler orders them.
PRECEDENCE = {
    **dict.fromkeys(("=", "+=", "-=", "*=", "&=", "|="), 10),
    **dict.fromkeys(("?", ":"), 13),
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">="), 15),
    **dict.fromkeys(("<<", ">>"), 17),
    **dict.fromkeys(("+", "-", "|", "^"), 20),
    **dict.fromkeys(("*", "/", "%", "&"), 30),
}


_BEFORE_EXPRESSION = frozenset(("(", "[", "{", "}", ",", ";", "return", "int", "cell", "slice", "builder"))


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Function:
    name: str
    body: range
    """Token indices between the braces."""


class SyntaxSurprise(Exception):
    """The source is not the FunC that this module knows. Says where."""


class Source:
    """One file: its text, tokens and functions that have a body."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.text = text
        self.tokens = list(_tokens(name, text))
        self.partner = self._partners()
        self.functions = list(self._functions())

    def line_of(self, offset: int) -> int:
        return self.text.count("\n", 0, offset) + 1

    def lines(self, start: int, end: int) -> tuple[int, int]:
        """Offsets of the whole lines that hold [start, end)."""
        begin = self.text.rfind("\n", 0, start) + 1
        stop = self.text.find("\n", end)
        return begin, len(self.text) if stop < 0 else stop

    def code(self, first: int, last: int) -> str:
        """Text of tokens first..last, both included."""
        return self.text[self.tokens[first].start : self.tokens[last].end]

    def statements(self, function: Function) -> Iterator[range]:
        """Token indices of every simple statement (one that ends in a semicolon), without the semicolon."""
        start = function.body.start
        for index in function.body:
            text = self.tokens[index].text
            if text in "{}":
                start = index + 1
            elif text == ";":
                if index > start:
                    yield range(start, index)
                start = index + 1

    def operand_after(self, operator: int) -> int:
        """Last token of the right operand of the binary operator at that index."""
        strength = PRECEDENCE[self.tokens[operator].text]
        index = operator + 1
        while True:
            text = self.tokens[index].text
            if text in _OPEN:
                index = self.partner[index] + 1
            elif text in _CLOSE or text in ",;" or self._weaker(index, strength):
                return index - 1
            else:
                index += 1

    def operand_before(self, operator: int) -> int:
        """First token of the left operand of the binary operator at that index."""
        strength = PRECEDENCE[self.tokens[operator].text]
        index = operator - 1
        while True:
            text = self.tokens[index].text
            if text in (")", "]"):
                index = self.partner[index] - 1
            elif text in _BEFORE_EXPRESSION or self._weaker(index, strength - 1):
                return index + 1
            else:
                index -= 1

    def argument_start(self, comma: int) -> int:
        """First token of the argument that the comma at that index ends."""
        index = comma - 1
        while self.tokens[index].text not in ("(", ","):
            index = self.partner[index] - 1 if self.tokens[index].text in _CLOSE else index - 1
        return index + 1

    def _weaker(self, index: int, strength: int) -> bool:
        token = self.tokens[index]
        return token.kind == "op" and PRECEDENCE.get(token.text, 100) <= strength

    def _partners(self) -> dict[int, int]:
        partner: dict[int, int] = {}
        stack: list[int] = []
        for index, token in enumerate(self.tokens):
            if token.kind != "mark":
                continue
            if token.text in _OPEN:
                stack.append(index)
            elif token.text in _CLOSE:
                if not stack:
                    raise SyntaxSurprise(f"{self.name}:{self.line_of(token.start)}: {token.text} closes nothing")
                opened = stack.pop()
                partner[opened], partner[index] = index, opened
        if stack:
            raise SyntaxSurprise(f"{self.name}:{self.line_of(self.tokens[stack[-1]].start)}: never closed")
        return partner

    def _functions(self) -> Iterator[Function]:
        index = 0
        while index < len(self.tokens):
            if self.tokens[index].text != "{":
                index += 1
                continue
            header = index
            while header > 0 and self.tokens[header - 1].text not in (";", "}"):
                header -= 1
            names = [
                i for i in range(header, index) if self.tokens[i + 1].text == "(" and self.tokens[i].kind == "name"
            ]
            name = names[0] if names else header
            yield Function(self.tokens[name].text, range(index + 1, self.partner[index]))
            index = self.partner[index] + 1


def _tokens(name: str, text: str) -> Iterator[Token]:
    offset = 0
    while offset < len(text):
        match = _TOKEN.match(text, offset)
        if match is None:
            raise SyntaxSurprise(
                f"{name}:{text.count(chr(10), 0, offset) + 1}: cannot read {text[offset : offset + 20]!r}"
            )
        if match.lastgroup != "skip":
            yield Token(str(match.lastgroup), match.group(), match.start(), match.end())
        offset = match.end()
