"""Parameters of HTTP questions: strings out of a query or JSON values. Raises DevnetError naming the parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from devnet.engine import DevnetError
from devnet.messages import parse_account

Params: TypeAlias = Mapping[str, Any]


def text(params: Params, name: str) -> str:
    value = params.get(name)
    if value is None or value == "":
        raise DevnetError(f"parameter {name!r} is missing")
    return str(value)


def number(params: Params, name: str, default: int | None = None) -> int:
    value = params.get(name)
    if value is None or value == "":
        if default is None:
            raise DevnetError(f"parameter {name!r} is missing")
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise DevnetError(f"parameter {name!r} must be an integer, not {str(value)[:40]!r}") from error


def account_of(params: Params) -> bytes:
    return parse_account(text(params, "address"))
