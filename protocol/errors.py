"""What goes wrong between client, relayer and enclave.

ProtocolError
|-- PeerFault            somebody else broke the rules; `who` says whose word it is, only then may it cost them anything
|   |-- Malformed        bytes that are not what the codec says
|   |-- NotAuthentic     a signature or seal that does not hold
|   |-- StreamFault      Truncated | OutOfOrder | Duplicate | Altered | AfterEnd
|   |-- VoucherFault     a voucher or request that the sender's peers must refuse
|   `-- ReceiptFault     a receipt, signed by the enclave, that the client must not accept
|       `-- Equivocation two different receipts for one place in the chain: evidence for slashing
`-- OurFault             this program asked for something that the rules do not allow
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum, StrEnum, unique

from protocol import strict_json

MAX_TEXT_BYTES = 1000
MAX_ERROR_BYTES = 8192


@unique
class Peer(Enum):
    CLIENT = "client"
    RELAYER = "relayer"
    NODE = "node"
    PATH = "path"
    """Whoever carried the bytes: without a valid signature nobody can be blamed by name."""


class ProtocolError(Exception):
    """Every error says what happened (`cause`) and what to do about it (`cure`)."""

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}; {cure}")
        self.cause = cause
        self.cure = cure


class OurFault(ProtocolError):
    """A rule that the caller itself would have broken."""


class PeerFault(ProtocolError):
    def __init__(self, who: Peer, cause: str, cure: str) -> None:
        super().__init__(cause, cure)
        self.who = who


class Malformed(PeerFault):
    def __init__(self, cause: str, who: Peer = Peer.PATH) -> None:
        super().__init__(who, cause, "use the same protocol version on both sides, or another relayer")


class NotAuthentic(PeerFault):
    pass


class StreamFault(PeerFault):
    """The answer on the wire is not what the enclave sent."""

    def __init__(self, cause: str) -> None:
        super().__init__(Peer.PATH, cause, "discard the answer and repeat the same request id, or change the relayer")


class Truncated(StreamFault):
    pass


class OutOfOrder(StreamFault):
    pass


class Duplicate(StreamFault):
    pass


class Altered(StreamFault):
    pass


class AfterEnd(StreamFault):
    pass


class VoucherFault(PeerFault):
    pass


class ReceiptFault(PeerFault):
    def __init__(self, cause: str, cure: str = "keep the receipt as evidence and leave the node") -> None:
        super().__init__(Peer.NODE, cause, cure)


class Equivocation(ReceiptFault):
    """`first` and `second` are `receipts.SignedReceipt.to_bytes()` of the contradicting pair."""

    def __init__(self, cause: str, first: bytes, second: bytes) -> None:
        super().__init__(cause, "report both receipts and leave the node")
        self.first = first
        self.second = second


@unique
class Code(StrEnum):
    """Machine names on the wire. A name never changes its meaning."""

    BAD_REQUEST = "bad-request"
    TOO_LARGE = "too-large"
    NODE_UNKNOWN = "node-unknown"
    NODE_NOT_LIVE = "node-not-live"
    NODE_DRAINING = "node-draining"
    NODE_BUSY = "node-busy"
    NODE_GONE = "node-gone"
    ESCROW_UNKNOWN = "escrow-unknown"
    ALLOTMENT_UNKNOWN = "allotment-unknown"
    ALLOTMENT_TOO_LOW = "allotment-too-low"
    ALLOTMENT_CLOSING = "allotment-closing"
    VOUCHER_INVALID = "voucher-invalid"
    CAP_TOO_LOW = "cap-too-low"
    BEHIND = "behind"
    SEALING_KEY_UNKNOWN = "sealing-key-unknown"
    NOT_OPENED = "not-opened"
    ALREADY_OPENED = "already-opened"
    TERMS_REFUSED = "terms-refused"
    MAXIMUM_TOO_LOW = "maximum-too-low"
    ENGINE_FAILED = "engine-failed"
    TIMEOUT = "timeout"
    RATE_LIMITED = "rate-limited"
    CHAIN_UNCERTAIN = "chain-uncertain"
    INTERNAL = "internal"


_TEXTS: dict[Code, tuple[str, str]] = {
    Code.BAD_REQUEST: ("the request is not understood", "check it against the API reference"),
    Code.TOO_LARGE: ("the request is over the size limit", "shorten the prompt or split the request"),
    Code.NODE_UNKNOWN: ("no such node is connected here", "fetch the offers again and choose another node"),
    Code.NODE_NOT_LIVE: ("the node's key is not attested at present", "choose another node or wait for its renewal"),
    Code.NODE_DRAINING: ("the node's operator lets it take no new requests", "choose another node"),
    Code.NODE_BUSY: ("the node takes no more requests now", "repeat in a moment or choose another node"),
    Code.NODE_GONE: ("the node's connection broke", "repeat the same request id; it is never billed twice"),
    Code.ESCROW_UNKNOWN: ("the escrow is not open on chain", "open and fund it, and wait until the chain shows it"),
    Code.ALLOTMENT_UNKNOWN: (
        "the escrow has no such allotment",
        "allot to this node, or refresh the allotment's epoch",
    ),
    Code.ALLOTMENT_TOO_LOW: ("the voucher's cap is over what is allotted", "raise the allotment or ask for less"),
    Code.ALLOTMENT_CLOSING: ("the allotment is being closed", "allot anew after the close, or use another node"),
    Code.VOUCHER_INVALID: ("the voucher does not hold for this request", "sign it with the escrow's voucher key"),
    Code.CAP_TOO_LOW: (
        "the cap does not cover the requests in flight",
        "sign a voucher with the cap that the rules give",
    ),
    Code.BEHIND: ("receipts were issued that the voucher does not accept", "take the receipts here and ask again"),
    Code.SEALING_KEY_UNKNOWN: ("the request is sealed to a key that is gone", "fetch the offer again and seal anew"),
    Code.NOT_OPENED: ("the sealed request does not open", "seal it for this node, escrow, voucher and request id"),
    Code.ALREADY_OPENED: ("this request id was opened before", "take its receipt here; for a new answer use a new id"),
    Code.TERMS_REFUSED: ("the node does not serve these terms", "fetch the offer again and choose among its terms"),
    Code.MAXIMUM_TOO_LOW: ("the request's maximum does not cover it", "allow more tokens' worth or shorten the prompt"),
    Code.ENGINE_FAILED: ("the engine failed", "repeat with a new request id or choose another node"),
    Code.TIMEOUT: ("the request took too long", "ask for fewer tokens or choose another node"),
    Code.RATE_LIMITED: ("too many requests at once from this escrow", "wait for answers before asking more"),
    Code.CHAIN_UNCERTAIN: ("the chain endpoints disagree or are away", "repeat later; nothing was spent"),
    Code.INTERNAL: ("an internal error", "repeat; if it persists report it to who runs the service"),
}


def _showable(text: str) -> bool:
    """These texts end up on terminals: no control sequences, no lone surrogates, bounded."""
    return text.isprintable() and len(text.encode()) <= MAX_TEXT_BYTES


@dataclass(frozen=True, slots=True)
class WireError:
    """A machine code with cause and cure in words. In clear it is a hint; only inside a seal is it the enclave's word.

    Texts must never quote a prompt, an answer or a key.
    """

    code: Code
    cause: str
    cure: str

    @classmethod
    def of(cls, code: Code, detail: str = "") -> WireError:
        """The code's own texts; `detail` is added to the cause, made printable and cut to the limit."""
        cause, cure = _TEXTS[code]
        text = f"{cause}: {detail}" if detail else cause
        printable = "".join(char if char.isprintable() else "?" for char in text[:MAX_TEXT_BYTES])
        return cls(code, printable.encode()[:MAX_TEXT_BYTES].decode(errors="ignore"), cure)

    def to_bytes(self) -> bytes:
        """UTF-8 JSON object with the keys code, cause and cure."""
        for text in (self.cause, self.cure):
            if not _showable(text):
                raise OurFault(
                    f"an error text is not printable or has over {MAX_TEXT_BYTES} bytes", "use `WireError.of`"
                )
        fields = {"code": self.code.value, "cause": self.cause, "cure": self.cure}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> WireError:
        """Raises Malformed on anything but the exact object; an unknown code is malformed too."""
        if len(data) > MAX_ERROR_BYTES:
            raise Malformed(f"an error of {len(data)} bytes is over the limit of {MAX_ERROR_BYTES}")
        try:
            fields = strict_json.parse(data)
        except ValueError as error:
            raise Malformed("an error is not strict JSON") from error
        if not isinstance(fields, dict) or set(fields) != {"code", "cause", "cure"}:
            raise Malformed("an error needs exactly code, cause and cure")
        code, cause, cure = fields["code"], fields["cause"], fields["cure"]
        if not (isinstance(code, str) and isinstance(cause, str) and isinstance(cure, str)):
            raise Malformed("an error's fields are texts")
        if not (_showable(cause) and _showable(cure)):
            raise Malformed("an error's text is too long or not printable")
        try:
            return cls(Code(code), cause, cure)
        except ValueError as error:
            raise Malformed("an error has an unknown code") from error
