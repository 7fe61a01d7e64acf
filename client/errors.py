"""What can go wrong for a client. Every error names its cause and its cure, and never quotes a prompt or an answer."""

from __future__ import annotations

from http import HTTPStatus

MAX_TEXT = 1000


class ClientError(Exception):
    """`code` is for programs, `status` is the HTTP status of the local endpoint."""

    code = "client-error"
    status = HTTPStatus.INTERNAL_SERVER_ERROR
    promised = False
    """Whether a request may have left under a promise: asking anew then counts a second one."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause = cause
        self.cure = cure


class HomeError(ClientError):
    """The client's folder, settings or key file cannot be used."""

    code = "home"


class Locked(HomeError):
    """Another process works with this home."""

    code = "locked"


class BadRequest(ClientError):
    """Refused here, before anything was sealed or could be billed."""

    code = "bad-request"
    status = HTTPStatus.BAD_REQUEST


class UnknownModel(ClientError):
    code = "model-not-found"
    status = HTTPStatus.NOT_FOUND


class NoEscrow(ClientError):
    code = "no-escrow"
    status = HTTPStatus.PAYMENT_REQUIRED


class TooExpensive(ClientError):
    """Over the limit that the client's own settings put on one request."""

    code = "over-limit"
    status = HTTPStatus.PAYMENT_REQUIRED


class TooLittleAllotted(ClientError):
    """What is allotted to the node does not cover the request's maximum."""

    code = "allotment-too-low"
    status = HTTPStatus.PAYMENT_REQUIRED

    def __init__(self, cause: str, cure: str, missing_nano: int = 0) -> None:
        super().__init__(cause, cure)
        self.missing_nano = missing_nano


class Untrusted(ClientError):
    """A node, its evidence or its keys did not pass. `reasons`: one sentence each."""

    code = "node-untrusted"
    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, node: bytes, reasons: tuple[str, ...]) -> None:
        super().__init__(
            f"node {node.hex()} is not trusted: {'; '.join(reasons)}",
            "nothing was sent to it; choose another node, or review the attestation policy",
        )
        self.node = node
        self.reasons = reasons


class NoNode(ClientError):
    """No node at hand may be used. The text says why for each."""

    code = "no-node"
    status = HTTPStatus.SERVICE_UNAVAILABLE


class RelayerUnreachable(ClientError):
    """No answer, or one that broke off. Nothing is known about what the relayer did."""

    code = "relayer-unreachable"
    status = HTTPStatus.BAD_GATEWAY
    promised = True


class NotConnected(RelayerUnreachable):
    """No connection came about: nothing was posted by this attempt."""


class RelayerRefused(ClientError):
    """The relayer says no: a hint that proves nothing. `http_status` and `retry_after` (seconds) are its own."""

    promised = True

    def __init__(self, code: str, cause: str, cure: str, http_status: int, retry_after: float | None = None) -> None:
        super().__init__(f"the relayer refuses: {cause}", cure)
        self.code = code
        self.http_status = http_status
        self.retry_after = retry_after
        self.status = HTTPStatus(http_status) if http_status in (402, 404, 413, 429) else HTTPStatus.BAD_GATEWAY


class NodeRefused(ClientError):
    """The enclave's own word, under seal: the request was not and will not be run, nothing is billed."""

    status = HTTPStatus.BAD_GATEWAY

    def __init__(self, code: str, cause: str, cure: str) -> None:
        super().__init__(f"the node refuses: {cause}", cure)
        self.code = code


class AnswerLost(ClientError):
    """The answer did not arrive whole. `request_id` is what recovery asks for."""

    code = "answer-lost"
    status = HTTPStatus.BAD_GATEWAY
    promised = True

    def __init__(self, cause: str, cure: str, request_id: bytes) -> None:
        super().__init__(f"request {request_id.hex()}: {cause}", cure)
        self.request_id = request_id


class NodeFault(ClientError):
    """The enclave signed something wrong. The evidence is kept and the node is not used again."""

    code = "node-fault"
    status = HTTPStatus.BAD_GATEWAY
    promised = True


class AnswerFailed(ClientError):
    """The engine refused or broke the request, with a receipt for what was done. `invalid`: the body was at fault."""

    promised = True

    def __init__(self, message: str, *, invalid: bool, receipt: bytes, amount_nano: int) -> None:
        super().__init__(message, "correct the request" if invalid else "ask again, or choose another node")
        self.code = "invalid-request" if invalid else "engine-failed"
        self.status = HTTPStatus.BAD_REQUEST if invalid else HTTPStatus.BAD_GATEWAY
        self.message = message
        self.receipt = receipt
        self.amount_nano = amount_nano


class PaymentFailed(ClientError):
    """A message to the chain did not do what it was sent for. Says where the money is."""

    code = "payment-failed"
    status = HTTPStatus.BAD_GATEWAY


class Uncertain(ClientError):
    """The chain could not be read well enough to decide. Nothing was done."""

    code = "chain-uncertain"
    status = HTTPStatus.SERVICE_UNAVAILABLE


def showable(text: object) -> str:
    """A stranger's text for a terminal or a log: printable and bounded."""
    return "".join(char if char.isprintable() else "?" for char in str(text)[:MAX_TEXT])
