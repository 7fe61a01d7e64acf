"""Telling "the chain will not take this message" from "ask me later": nodes use one error code for both."""

from __future__ import annotations

_REFUSALS = ("cannot apply external message", "external message was not accepted", "inbound external message rejected")


def refuses_message(reason: str) -> bool:
    """True where a node's error text is the account's own refusal of an external message."""
    lower = reason.lower()
    return any(words in lower for words in _REFUSALS)
