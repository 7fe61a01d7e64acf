"""Which engine a worker runs: the one place where the worker's rule about engines is enforced (G11).

The configuration decides where plaintext goes and which weights run, so with real evidence it is itself measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from worker.engine.api import Engine, EngineError
from worker.engine.child import ChildConfig, ChildEngine
from worker.engine.llama import LlamaConfig, LlamaEngine
from worker.engine.openai_http import OpenAIConfig, OpenAIEngine

_T = TypeVar("_T")


def engine_from_config(config: Mapping[str, Any], *, simulated: bool) -> Engine:
    """The engine that the table `[engine]` describes. `simulated` is true only with simulated evidence.

    `kind` is `llama` (default; `weights` with `weights_sha256`, `name`, `parallel`, `context_tokens`, `threads`),
    `child` (`command`, `model`, `name`, `context_tokens`, `env`, `start_limit_s`) or `url` (`url`, `name`,
    `context_tokens`, `api_key_file`); all take `silence_limit_s`. Raises `EngineError`.
    """
    kind = config.get("kind", "llama")
    makers: dict[Any, Callable[[_Table], Engine]] = {"llama": _llama, "child": _child, "url": _url}
    if not isinstance(kind, str) or kind not in makers:
        raise EngineError("`engine.kind` is unknown", f"Use one of: {', '.join(makers)}")
    # Before anything else of it is read, and loopback is no exception: what listens there was not measured by us.
    if kind == "url" and not simulated:
        raise EngineError(
            "An engine at a URL that the enclave did not start is refused with real evidence: the prompt would leave "
            "the measured code in clear",
            'Use kind = "child" (the enclave starts the engine itself) or "llama"; a URL needs simulated evidence',
        )
    table = _Table({key: value for key, value in config.items() if key != "kind"})
    engine = makers[kind](table)
    table.finish()
    return engine


class _Table:
    """Reads a configuration table once; a key of a wrong type or one that nothing reads is an error, not a default."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def take(self, key: str, kind: type[_T]) -> _T | None:
        value = self._values.pop(key, None)
        if value is None:
            return None
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise EngineError(f"`engine.{key}` is not of type {kind.__name__}", "Correct the engine's configuration")
        if isinstance(value, int | float) and value <= 0:
            raise EngineError(f"`engine.{key}` is not positive", "Correct the engine's configuration")
        return value

    def need(self, key: str, kind: type[_T]) -> _T:
        value = self.take(key, kind)
        if value is None:
            raise EngineError(f"`engine.{key}` is missing", "Add it to the engine's configuration")
        return value

    def given(self, **kinds: type[Any]) -> dict[str, Any]:
        """Those of the keys that are set."""
        taken = {key: self.take(key, kind) for key, kind in kinds.items()}
        return {key: value for key, value in taken.items() if value is not None}

    def finish(self) -> None:
        if self._values:
            unknown = ", ".join(sorted(map(str, self._values)))
            raise EngineError(f"Unknown keys in the engine's configuration: {unknown}", "Remove or correct them")


def _llama(table: _Table) -> Engine:
    weights, digest = table.take("weights", str), table.take("weights_sha256", str)
    rest = table.given(name=str, parallel=int, context_tokens=int, threads=int, silence_limit_s=float)
    if (weights is None) != (digest is None) or (weights is None) != ("name" not in rest):
        raise EngineError(
            "`engine.weights`, `engine.weights_sha256` and `engine.name` belong together",
            "Set all three for a model of your own, none for the embedded one",
        )
    if weights is None or digest is None:
        return LlamaEngine(LlamaConfig(**rest))
    try:
        sha256 = bytes.fromhex(digest)
    except ValueError:
        sha256 = b""
    if len(sha256) != 32:
        raise EngineError("`engine.weights_sha256` is not 64 hexadecimal digits", "Take it from sha256sum of the file")
    return LlamaEngine(LlamaConfig(weights=Path(weights), weights_sha256=sha256, **rest))


def _child(table: _Table) -> Engine:
    command: list[Any] = table.need("command", list)
    env: dict[Any, Any] = table.take("env", dict) or {}
    if not command or not all(isinstance(part, str) for part in [*command, *env, *env.values()]):
        raise EngineError("`engine.command` or `engine.env` is not made of strings", "Correct the configuration")
    rest = table.given(name=str, context_tokens=int, start_limit_s=float, silence_limit_s=float)
    return ChildEngine(ChildConfig(tuple(command), Path(table.need("model", str)), env=env, **rest))


def _url(table: _Table) -> Engine:
    url = table.need("url", str).rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username or parts.password:
        raise EngineError(
            "`engine.url` is not a plain http or https address",
            "Write it as http://host:port/v1; a key belongs in the file that `api_key_file` names",
        )
    key_file = table.take("api_key_file", str)
    try:
        key = Path(key_file).read_text().strip() if key_file else ""
    except OSError as error:
        raise EngineError(f"`engine.api_key_file` cannot be read: {error.strerror}", "Check the path") from error
    base = url if url.endswith("/v1") else f"{url}/v1"
    return OpenAIEngine(OpenAIConfig(base, key, **table.given(name=str, context_tokens=int, silence_limit_s=float)))
