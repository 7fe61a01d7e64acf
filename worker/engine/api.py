"""What an inference engine is to the enclave: model identity, a metered stream, and errors that are safe to log.

Token counts follow OpenAI's convention: `cached` is a part of `prompt`, `reasoning` is a part of `completion`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

UNMEASURED = bytes(32)


class EngineError(RuntimeError):
    """The engine failed. `str()` names cause and cure and never quotes a request, so it may be logged.

    `detail` is the engine's own words. They may quote the prompt: seal them for the client or drop them, but never log.
    """

    def __init__(self, cause: str, cure: str, *, detail: str = "") -> None:
        super().__init__(f"{cause}. {cure}")
        self.cause = cause
        self.cure = cure
        self.detail = detail


class RequestError(ValueError):
    """The client's body is refused before or by the engine; nothing was generated. Same rules as `EngineError`."""

    def __init__(self, cause: str, cure: str, *, detail: str = "") -> None:
        super().__init__(f"{cause}. {cure}")
        self.cause = cause
        self.cure = cure
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The loaded model. `model_hash` is SHA-256 of the loaded bytes (32 bytes), zero when `measured` is false.

    `context_tokens` is the most that one request's prompt and completion take together.
    """

    name: str
    model_hash: bytes
    context_tokens: int
    measured: bool

    def __post_init__(self) -> None:
        if len(self.model_hash) != 32:
            raise ValueError(f"model hash has {len(self.model_hash)} bytes, not 32")
        # A receipt must not show an unmeasured model under a real hash, nor a measured one under none.
        if self.measured == (self.model_hash == UNMEASURED):
            raise ValueError("a measured model has a non-zero hash, an unmeasured one has hash zero")
        if self.context_tokens < 2:
            raise ValueError(f"context of {self.context_tokens} tokens holds no prompt and answer")


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one request, as the engine counted them."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0
    reasoning: int = 0

    def __post_init__(self) -> None:
        if min(self.prompt, self.cached, self.completion, self.reasoning) < 0:
            raise ValueError(f"negative token count in {self}")
        if self.cached > self.prompt or self.reasoning > self.completion:
            raise ValueError(f"a part is greater than its whole in {self}")


@dataclass(frozen=True, slots=True)
class Delta:
    """One piece of the answer.

    `raw` is the OpenAI object for the client: a chunk when the request streams, the whole response (then the only
    `Delta`) when it does not. `text` is the visible text in it. `so_far` is what a stream that breaks right after this
    piece has used.
    """

    text: str
    raw: dict[str, Any]
    so_far: Usage

    @property
    def completion_tokens_so_far(self) -> int:
        return self.so_far.completion


@dataclass(frozen=True, slots=True)
class Done:
    """The end of a complete answer: the engine's final count and OpenAI's finish reason (`stop`, `length`, ...)."""

    usage: Usage
    stop_reason: str


class Engine(Protocol):
    """A loaded model that answers requests. One instance serves many requests at once."""

    async def start(self) -> ModelInfo:
        """Load (or find) the model. Raises `EngineError`. Called once, before `chat`."""
        ...

    def chat(self, request: Mapping[str, Any], *, cache_salt: str = "") -> AsyncGenerator[Delta | Done, None]:
        """Answer one OpenAI chat (`messages`) or completion (`prompt`) body; `Done` comes last.

        KV-cache prefixes are shared only among requests with an equal non-empty `cache_salt`; the empty salt shares
        with nobody. The caller derives it from the client's identity, never from the body. Closing the iterator
        aborts the generation: wrap it in `contextlib.aclosing`. Raises `RequestError`, `EngineError`.
        """
        ...

    async def close(self) -> None:
        """Abort what runs and free the model. Idempotent."""
        ...
