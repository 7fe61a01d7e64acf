"""The worker's rule about engines, the reading of its configuration, and the hashes of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from worker.engine.api import EngineError, ModelInfo
from worker.engine.child import ChildEngine
from worker.engine.choose import engine_from_config
from worker.engine.llama import LlamaConfig, LlamaEngine
from worker.engine.openai_http import OpenAIConfig, OpenAIEngine
from worker.engine.weights import SMOLLM2_SHA256, hash_directory, load_sealed, packaged_smollm2


@pytest.mark.parametrize("url", ["http://10.0.0.5/v1", "http://127.0.0.1:8000/v1", "https://localhost/v1"])
def test_g11_an_engine_the_enclave_did_not_start_is_refused_with_real_evidence(url: str) -> None:
    with pytest.raises(EngineError, match="did not start is refused") as caught:
        engine_from_config({"kind": "url", "url": url}, simulated=False)
    assert "child" in caught.value.cure and "simulated" in caught.value.cure
    assert isinstance(engine_from_config({"kind": "url", "url": url}, simulated=True), OpenAIEngine)


def test_default_and_child_engines_pass_with_real_evidence(tmp_path: Path) -> None:
    assert isinstance(engine_from_config({}, simulated=False), LlamaEngine)
    child = {"kind": "child", "command": ["serve", "{port}"], "model": str(tmp_path), "env": {"A": "b"}}
    assert isinstance(engine_from_config(child, simulated=False), ChildEngine)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"kind": "remote"}, "engine.kind"),
        ({"kind": ["llama"]}, "engine.kind"),
        ({"url": "http://10.0.0.5/v1"}, "url"),
        ({"parallel": 0}, "engine.parallel"),
        ({"context_tokens": 1000}, "engine.context_tokens"),
        ({"parallel": "8"}, "engine.parallel"),
        ({"parallel": True}, "engine.parallel"),
        ({"weights": "/x.gguf"}, "weights_sha256"),
        ({"name": "Renamed"}, "engine.name"),
        ({"weights": "/x.gguf", "weights_sha256": "abc", "name": "x"}, "64 hexadecimal"),
        ({"kind": "child"}, "engine.command"),
        ({"kind": "child", "command": ["x"]}, "engine.model"),
        ({"kind": "child", "command": [1], "model": "m"}, "engine.command"),
        ({"kind": "url"}, "engine.url"),
        ({"kind": "url", "url": "ftp://x/"}, "engine.url"),
        ({"kind": "url", "url": "http://user:pw@x/v1"}, "engine.url"),
        ({"kind": "url", "url": "http://x", "api_key_file": "/nonexistent"}, "api_key_file"),
    ],
)
def test_g18_bad_engine_configuration_is_named(config: dict[str, Any], named: str) -> None:
    with pytest.raises(EngineError, match=named):
        engine_from_config(config, simulated=True)


def test_g19_the_api_key_is_not_in_the_representation() -> None:
    assert "topsecret" not in repr(OpenAIConfig("http://x/v1", "topsecret"))


def test_model_info_cannot_claim_a_measure_it_has_not() -> None:
    with pytest.raises(ValueError, match="hash zero"):
        ModelInfo("m", bytes(32), 64, measured=True)
    with pytest.raises(ValueError, match="hash zero"):
        ModelInfo("m", b"x" * 32, 64, measured=False)


async def test_g12_changed_weights_are_refused_before_they_are_loaded(tmp_path: Path) -> None:
    changed = bytearray(packaged_smollm2().read_bytes()[: 1 << 20])
    changed[-1] ^= 1
    path = tmp_path / "changed.gguf"
    path.write_bytes(changed)
    with pytest.raises(EngineError, match=SMOLLM2_SHA256.hex()) as caught:
        await LlamaEngine(LlamaConfig(weights=path)).start()
    assert "reinstall" in caught.value.cure


def test_the_bytes_loaded_are_the_bytes_hashed(tmp_path: Path) -> None:
    path = tmp_path / "w"
    path.write_bytes(b"weights")
    sealed = load_sealed(path, hashlib.sha256(b"weights").digest())
    path.write_bytes(b"another")
    assert Path(sealed.path).read_bytes() == b"weights"
    with pytest.raises(OSError), open(sealed.path, "r+b", buffering=0) as writer:
        writer.write(b"x")
    sealed.close()
    with pytest.raises(EngineError, match="cannot be read"):
        load_sealed(tmp_path / "none", bytes(32))


def test_folder_hash_is_as_documented_and_sees_names_bytes_and_links(tmp_path: Path) -> None:
    (tmp_path / "b.safetensors").write_bytes(b"2")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "c.json").write_bytes(b"1")
    rows = [(b"a/c.json", b"1"), (b"b.safetensors", b"2")]
    packed = b"".join(len(n).to_bytes(4, "big") + n + hashlib.sha256(d).digest() for n, d in rows)
    before = hash_directory(tmp_path)
    assert before == hashlib.sha256(packed).digest()
    (tmp_path / "a" / "c.json").rename(tmp_path / "a" / "d.json")
    assert hash_directory(tmp_path) != before
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(EngineError, match="link"):
        hash_directory(tmp_path)
    with pytest.raises(EngineError, match="missing or empty"):
        hash_directory(tmp_path / "absent")
