"""Small signed XML: a parser that refuses what manifests never need, and Canonical XML 1.1 of what it read.

What is verified and what is read are the same tree, so no second parser can see another document. Refused: document
types (and with them entities), comments, processing instructions, CDATA, `xml:` attributes. Without those, and with a
subset that is always a whole element, Canonical XML 1.1 is the few rules below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

from attestation.strict import Malformed

LIMIT_BYTES = 256 * 1024
_MAX_DEPTH = 16
_MAX_ELEMENTS = 4096
_MAX_PREFIXES = 32
"""Declared in one element or in scope. NVIDIA's manifests have four; each element of the result names all in scope."""


@dataclass(slots=True)
class Element:
    """`name` and the keys of `attributes` are `{namespace}local`, or `local` without one."""

    name: str
    attributes: dict[str, str]
    children: list[Element | str] = field(default_factory=list)
    written: str = ""
    """The name as written, with its prefix."""
    written_attributes: list[tuple[str, str, str]] = field(default_factory=list)
    """(expanded, written, value)."""
    scope: dict[str, str] = field(default_factory=dict)
    """Prefixes in scope and their namespaces; the empty prefix is the default."""

    def elements(self, name: str | None = None) -> list[Element]:
        return [each for each in self.children if isinstance(each, Element) and name in (None, each.name)]

    def only(self, name: str) -> Element:
        found = self.elements(name)
        if len(found) != 1:
            raise Malformed(f"manifest: {self.name} has {len(found)} of {name}, expected one")
        return found[0]

    def text(self) -> str:
        if not all(isinstance(each, str) for each in self.children):
            raise Malformed(f"manifest: {self.name} holds elements where text was expected")
        return "".join(each for each in self.children if isinstance(each, str))


def parse(raw: bytes) -> Element:
    """Raises Malformed."""
    if len(raw) > LIMIT_BYTES:
        raise Malformed(f"manifest: {len(raw)} bytes, more than the limit of {LIMIT_BYTES}")
    # Expat follows a byte order mark, or a NUL beside the first character, into UTF-16 whatever encoding it is told.
    if not raw.startswith(b"<") or b"\0" in raw:
        raise Malformed("manifest: not XML in UTF-8")
    builder = _Builder()
    try:
        builder.parser.Parse(raw, True)
    except expat.ExpatError as error:
        raise Malformed(f"manifest: not XML in UTF-8 ({error})") from error
    if builder.root is None:
        raise Malformed("manifest: it is empty")
    return builder.root


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self._open: list[Element] = []
        self._count = 0
        self.parser = expat.ParserCreate("utf-8")
        self.parser.ordered_attributes = True
        self.parser.buffer_text = True
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text
        self.parser.StartDoctypeDeclHandler = _refuse("a document type")
        self.parser.EntityDeclHandler = _refuse("an entity")
        self.parser.CommentHandler = _refuse("a comment")
        self.parser.ProcessingInstructionHandler = _refuse("a processing instruction")
        self.parser.StartCdataSectionHandler = _refuse("a CDATA section")

    def _start(self, written: str, flat: list[str]) -> None:
        self._count += 1
        if self._count > _MAX_ELEMENTS or len(self._open) >= _MAX_DEPTH:
            raise Malformed("manifest: too many or too deep elements")
        attributes = list(zip(flat[::2], flat[1::2], strict=True))
        scope = _scope(self._open[-1].scope if self._open else {"": ""}, attributes)
        kept = [
            (_expand(name, scope, default=False), name, value)
            for name, value in attributes
            if name != "xmlns" and not name.startswith("xmlns:")
        ]
        values = {expanded: value for expanded, _, value in kept}
        if len(values) != len(kept):
            raise Malformed(f"manifest: an attribute of {written} appears twice")
        element = Element(_expand(written, scope, default=True), values, [], written, kept, scope)
        if self._open:
            self._open[-1].children.append(element)
        else:
            self.root = element
        self._open.append(element)

    def _end(self, _: str) -> None:
        self._open.pop()

    def _text(self, text: str) -> None:
        self._open[-1].children.append(text)


def _scope(around: dict[str, str], attributes: list[tuple[str, str]]) -> dict[str, str]:
    """Namespaces of an element. Shared with the element around it where it declares none: a copy for each would make a
    small document fill the memory."""
    declared: dict[str, str] = {}
    for name, value in attributes:
        if name == "xmlns":
            declared[""] = value
        elif name.startswith("xmlns:"):
            if not value or name in ("xmlns:xml", "xmlns:xmlns"):
                raise Malformed(f"manifest: {name} cannot be declared so")
            declared[name[6:]] = value
    if not declared:
        return around
    scope = {**around, **declared}
    if len(scope) > _MAX_PREFIXES:
        raise Malformed(f"manifest: more than {_MAX_PREFIXES} namespaces")
    return scope


def _refuse(what: str) -> Callable[..., None]:
    def handler(*_: object) -> None:
        raise Malformed(f"manifest: {what} has no place in it")

    return handler


def _expand(written: str, scope: dict[str, str], *, default: bool) -> str:
    prefix, colon, local = written.rpartition(":")
    if prefix == "xml" or ":" in prefix or not local:
        raise Malformed(f"manifest: {written} has no place in it")
    if colon and prefix not in scope:
        raise Malformed(f"manifest: the prefix of {written} is not declared")
    namespace = scope[prefix] if colon or default else ""
    return f"{{{namespace}}}{local}" if namespace else local


def canonical(element: Element, without: Element | None = None) -> bytes:
    """The element as the apex of a subset, in Canonical XML 1.1; `without` and all in it is left out."""
    return "".join(_render(element, {"": ""}, without)).encode()


def _render(element: Element, shown: dict[str, str], without: Element | None) -> Iterator[str]:
    yield "<" + element.written
    for prefix, namespace in sorted(element.scope.items()):
        if shown.get(prefix) != namespace:
            yield f' xmlns{":" if prefix else ""}{prefix}="{_value(namespace)}"'
    for _, written, value in sorted(element.written_attributes, key=lambda each: _order(each[0])):
        yield f' {written}="{_value(value)}"'
    yield ">"
    for child in element.children:
        if isinstance(child, str):
            yield child.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\r", "&#xD;")
        elif child is not without:
            yield from _render(child, element.scope, without)
    yield f"</{element.written}>"


def _order(expanded: str) -> tuple[str, str]:
    namespace, _, local = expanded.rpartition("}")
    return namespace[1:], local


def _value(text: str) -> str:
    for plain, escaped in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        ('"', "&quot;"),
        ("\t", "&#x9;"),
        ("\n", "&#xA;"),
        ("\r", "&#xD;"),
    ):
        text = text.replace(plain, escaped)
    return text
