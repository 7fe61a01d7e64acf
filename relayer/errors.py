"""What the relayer refuses, and with which HTTP status. Codes and texts are the protocol's: clients read one list."""

from __future__ import annotations

from collections.abc import Mapping

from protocol.errors import Code, ProtocolError, WireError

STATUS: Mapping[Code, int] = {
    Code.BAD_REQUEST: 400,
    Code.TOO_LARGE: 413,
    Code.NODE_UNKNOWN: 404,
    Code.NODE_NOT_LIVE: 503,
    Code.NODE_DRAINING: 503,
    Code.NODE_BUSY: 503,
    Code.NODE_GONE: 502,
    Code.ESCROW_UNKNOWN: 404,
    Code.ALLOTMENT_UNKNOWN: 404,
    Code.ALLOTMENT_TOO_LOW: 402,
    Code.ALLOTMENT_CLOSING: 409,
    Code.VOUCHER_INVALID: 402,
    Code.SEALING_KEY_UNKNOWN: 409,
    Code.RATE_LIMITED: 429,
    Code.TIMEOUT: 504,
    Code.CHAIN_UNCERTAIN: 503,
    Code.INTERNAL: 503,
}


class Refusal(ProtocolError):
    """The relayer does not do what was asked. `retry_after` in seconds where waiting helps."""

    def __init__(
        self, code: Code, detail: str = "", *, cure: str | None = None, retry_after: int | None = None
    ) -> None:
        wire = WireError.of(code, detail)
        self.wire = wire if cure is None else WireError(code, wire.cause, cure)
        super().__init__(self.wire.cause, self.wire.cure)
        self.code = code
        self.status = STATUS[code]
        self.retry_after = retry_after


class ConfigError(Exception):
    """A setting is missing or wrong. Names the key, what is wrong, and the cure."""
