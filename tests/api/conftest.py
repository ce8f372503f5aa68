"""Pools that tests make from Python: in a home of the test's own, with nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobpool_cli.settings import options


@pytest.fixture(autouse=True)
def own_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep what is mapped in the test's home, and show no bar."""
    monkeypatch.setenv("JOBPOOL_HOME", str(home))
    monkeypatch.setattr(options.show, "enable_tqdm", False)
    return home


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file for which functions wait; the test makes it."""
    return tmp_path / "gate"


@pytest.fixture
def wait_at_gate(gate: Path) -> Callable[[int], int]:
    """A function that returns its argument as soon as the gate is there."""
    path = str(gate)

    def waiting(x: int) -> int:
        import os  # noqa: PLC0415 - it runs elsewhere
        import time  # noqa: PLC0415

        while not os.path.exists(path):
            time.sleep(0.005)
        return x

    return waiting
