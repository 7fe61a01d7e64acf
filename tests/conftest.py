"""Which tests share a process when they run in several: those of one file, and all that use the one whole network."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        name = item.path.stem
        group = "network" if name.startswith("test_network_") else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
