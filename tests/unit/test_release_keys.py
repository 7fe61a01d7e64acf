"""Release keys on disk: one takes the place of another once the chain shows it, and none is ever lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from worker.agent.release_keys import KeyFileError, ReleaseKeys, create_release_key, public_bytes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_release_key(tmp_path / "release.key")
    return tmp_path / "release.key"


def test_g16_the_next_key_is_on_disk_before_the_chain_hears_of_it_and_used_when_it_shows_it(path: Path) -> None:
    keys = ReleaseKeys(path)
    old, following = keys.public, keys.following()
    assert following == keys.following() == ReleaseKeys(path).following() != old and keys.public == old
    assert keys.adopt(old) and keys.public == old, "not before the chain shows it"
    assert keys.adopt(following) and keys.public == following
    assert ReleaseKeys(path).public == following and ReleaseKeys(path).adopt(following)
    for one in (old, following):
        held = ReleaseKeys(path).holding(one)
        assert held is not None and public_bytes(held) == one, "rows of both can be released"
    assert keys.following() not in (old, following)
    assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()} == {0o600}


def test_g16_a_swap_that_died_at_any_point_is_finished_by_the_next_process(path: Path) -> None:
    keys = ReleaseKeys(path)
    old, following = keys.public, keys.following()
    # Killed between the link and the rename.
    os.link(path, path.with_name(f"release.key.{old.hex()[:16]}"))
    assert ReleaseKeys(path).adopt(following)
    assert ReleaseKeys(path).holding(old) is not None
    # Another process did it: the one that still has the old key in memory follows.
    assert keys.public == old and keys.adopt(following) and keys.public == following
    assert keys.sign(b"x") == ReleaseKeys(path).sign(b"x")


def test_g18_a_key_of_somebody_else_is_not_adopted(path: Path) -> None:
    keys = ReleaseKeys(path)
    keys.following()
    before = sorted(each.name for each in path.parent.iterdir())
    assert not keys.adopt(b"\x05" * 32) and keys.holding(b"\x05" * 32) is None
    assert sorted(each.name for each in path.parent.iterdir()) == before
    path.with_name("release.key.next").chmod(0o644)
    with pytest.raises(KeyFileError, match="chmod 600"):
        keys.following()
