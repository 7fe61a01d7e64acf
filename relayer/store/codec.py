"""Flat frozen dataclasses to JSON and back: bytes as hex, enums by value, everything else as JSON has it."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import fields
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from relayer.core import effects, facts
from relayer.core.effects import Effect
from relayer.core.facts import Fact

T = TypeVar("T")


def encode(value: Fact | Effect | Any) -> str:
    """One JSON object of the dataclass's fields."""
    body = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return json.dumps(body, separators=(",", ":"))


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else value


def decode(kind: type[T], text: str) -> T:
    """Raises ValueError or KeyError where the text is not an object of that class: a database of another version."""
    body = json.loads(text)
    converters = _CONVERTERS.get(kind)
    if converters is None:
        converters = _CONVERTERS[kind] = {name: _converter(hint) for name, hint in get_type_hints(kind).items()}
    return kind(**{name: convert(body[name]) for name, convert in converters.items() if name in body})


def decode_fact(kind: str, text: str) -> Fact:
    return decode(_FACTS[kind], text)


def decode_effect(kind: str, text: str) -> Effect:
    return decode(_EFFECTS[kind], text)


_FACTS: dict[str, type[Fact]] = {kind.__name__: kind for kind in get_args(facts.Fact)}
_EFFECTS: dict[str, type[Effect]] = {kind.__name__: kind for kind in get_args(effects.Effect)}


_CONVERTERS: dict[type, dict[str, Callable[[Any], Any]]] = {}


def _converter(hint: Any) -> Callable[[Any], Any]:
    if get_origin(hint) in (Union, types.UnionType):
        inner = [_converter(part) for part in get_args(hint) if part is not type(None)]
        if len(inner) != 1:
            raise TypeError(f"{hint} is not a flat field")
        return lambda value: None if value is None else inner[0](value)
    if hint is bytes:
        return bytes.fromhex
    if isinstance(hint, type) and (hint in (int, str, bool) or issubclass(hint, StrEnum)):
        return hint
    raise TypeError(f"{hint} is not a flat field")
