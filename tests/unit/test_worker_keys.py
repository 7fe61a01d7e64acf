"""The enclave's configuration and keys: what is measured is strict, and what is short-lived dies."""

from pathlib import Path

import pytest

from attestation.evidence import Kind
from attestation.provider import ConfigfsTsm, Simulated
from protocol.offer import MAX_SEALING_SECONDS
from worker.enclave import config
from worker.enclave.keys import Keys, SealingRing
from worker.enclave.server import quote_provider

PRICES = {"prompt": 1, "cached": 2, "completion": 3, "reasoning": 4, "minimum_nano": 5}
GOOD = {"global_id": -7001, "prices": PRICES, "evidence": "simulated", "engine": {"kind": "llama"}}


def test_a_full_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "enclave.toml"
    path.write_text(
        'global_id = -7001\nevidence = "simulated"\nsimulated_platform = "one"\nsealing_seconds = 600\n'
        "[prices]\nprompt = 1\ncached = 2\ncompletion = 3\nreasoning = 4\nminimum_nano = 5\n"
        '[engine]\nkind = "llama"\nparallel = 2\n'
    )
    read = config.load(path)
    assert read.simulated and read.sealing_seconds == 600 and read.engine == {"kind": "llama", "parallel": 2}
    assert (read.prices.prompt, read.prices.minimum_nano) == (1, 5)


def test_real_hardware_is_the_default() -> None:
    read = config.parse({"global_id": -239, "prices": PRICES}, where="x")
    assert read.evidence is Kind.TDX and isinstance(quote_provider(read), ConfigfsTsm)
    assert isinstance(quote_provider(config.parse(GOOD, where="x")), Simulated)


def test_g14_simulated_evidence_is_never_configured_on_mainnet() -> None:
    with pytest.raises(config.ConfigError, match="never served on mainnet"):
        config.parse({**GOOD, "global_id": -239}, where="x")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"evidence": "none"}, "evidence"),
        ({"price": 1}, "price"),
        ({"prices": {**PRICES, "prompt": -1}}, "prompt"),
        ({"prices": {**PRICES, "prompt": 1.5}}, "prompt"),
        ({"prices": {"prompt": 1}}, "cached"),
        ({"prices": {**PRICES, "input": 1}}, "input"),
        ({"prices": 5}, "prices"),
        ({"sealing_seconds": 86_401}, "sealing_seconds"),
        ({"max_in_flight": 0}, "max_in_flight"),
        ({"global_id": True}, "global_id"),
    ],
)
def test_g18_a_wrong_key_is_named(change: dict, named: str) -> None:
    with pytest.raises(config.ConfigError, match=named):
        config.parse({**GOOD, **change}, where="x")


def test_g18_a_missing_file_and_junk_are_named(tmp_path: Path) -> None:
    with pytest.raises(config.ConfigError, match="cannot read"):
        config.load(tmp_path / "none.toml")
    (tmp_path / "junk.toml").write_text("= =")
    with pytest.raises(config.ConfigError, match="not TOML"):
        config.load(tmp_path / "junk.toml")


def test_sealing_keys_overlap_and_die() -> None:
    ring = SealingRing(600)
    assert ring.turn(1000) and not ring.turn(1299)
    (first, end) = ring.keys[0]
    assert end == 1600 and ring.next_turn() == 1300
    ring.mark_opened(first.hash, b"q" * 32)
    assert ring.turn(1300)
    assert [pair.hash for pair, _ in ring.keys][1] == first.hash and ring.next_turn() == 1600
    assert ring.find(first.hash, 1599) is first and ring.opened(first.hash, b"q" * 32)
    assert ring.find(first.hash, 1600) is None
    assert ring.turn(1600)
    assert first.hash not in [pair.hash for pair, _ in ring.keys]
    assert not ring.opened(first.hash, b"q" * 32)


def test_sealing_keys_live_a_day_at_most() -> None:
    assert config.MAX_SEALING_SECONDS <= MAX_SEALING_SECONDS
    ring = SealingRing(config.MAX_SEALING_SECONDS)
    for now in range(0, 10 * 86_400, 3600):
        ring.turn(now)
        assert all(now < end <= now + 86_400 for _, end in ring.keys) and 1 <= len(ring.keys) <= 3


def test_g19_keys_do_not_show_themselves() -> None:
    keys = Keys(600)
    secret = keys.signing.private_bytes_raw().hex()
    assert secret not in repr(keys) and keys.public.hex() in repr(keys)
    assert Keys(600).public != keys.public


def test_g11_a_clock_that_is_set_back_keeps_no_sealing_key_alive() -> None:
    """The guest's time is the host's to tell; what was recorded must not open when the machine falls a month later."""
    steady = [0.0]
    ring = SealingRing(600, lambda: steady[0])
    ring.turn(1000)
    (first, _) = ring.keys[0]
    steady[0] = 299.0
    assert not ring.turn(1000) and ring.find(first.hash, 1000) is first
    steady[0] = 300.0
    assert ring.turn(1000) and len(ring.keys) == 2, "the next one is born in time"
    steady[0] = 600.0
    assert ring.find(first.hash, 1000) is None, "not opened any more, whatever the rounds are about"
    assert ring.turn(1000) and first.hash not in [pair.hash for pair, _ in ring.keys]
