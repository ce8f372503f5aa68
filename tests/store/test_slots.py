from __future__ import annotations

import stat
import time
from pathlib import Path

import pytest

from jobpool_cli.store.slots import (
    ATTEMPT,
    FIRST,
    IDLE,
    LIMIT,
    LOG_START,
    MAX_SLOTS,
    PID,
    POSITION,
    POSITION_BITS,
    SLOT_BYTES,
    STARTED,
    WORDS,
    WORKER,
    SharedSlots,
    create_slots,
    position_in,
    read_running,
    reset,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    create_slots(tmp_path / "slots")
    return tmp_path / "slots"


def busy(path: Path, index: int, *, batch: int, position: int, first: int, seconds: float = 0.0) -> memoryview:
    view = SharedSlots(path).slot(index)
    reset(view, index + 1, 4000 + index)
    view[STARTED] = time.monotonic_ns() - int(seconds * 1e9)
    view[FIRST], view[ATTEMPT], view[LOG_START] = first, 2, 77
    view[POSITION] = batch << POSITION_BITS | position
    return view


def test_a_new_file_is_private_and_shows_nothing(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_size == MAX_SLOTS * SLOT_BYTES
    assert read_running(path) == []


def test_running_tasks_are_read_from_outside_in_the_order_of_tasks(path: Path) -> None:
    busy(path, 5, batch=3, position=4, first=100, seconds=2.0)
    busy(path, MAX_SLOTS - 1, batch=4_000_000, position=2**31, first=-100)
    later, earlier = read_running(path)[::-1]
    assert (earlier.task, earlier.worker, earlier.pid, earlier.attempt, earlier.log_start) == (104, 6, 4005, 2, 77)
    assert 2.0 <= earlier.elapsed < 30.0
    assert later.task == 2**31 - 100


def test_an_idle_worker_and_a_slot_without_a_worker_run_nothing(path: Path) -> None:
    view = busy(path, 0, batch=1, position=0, first=0)
    view[POSITION] = IDLE
    assert read_running(path) == []
    view = busy(path, 1, batch=1, position=0, first=0)
    reset(view, 0, 0)
    assert read_running(path) == []
    assert [view[word] for word in (WORKER, PID, POSITION, LIMIT)] == [0, 0, IDLE, IDLE]


def test_the_position_is_told_for_the_batch_that_runs_and_no_other(path: Path) -> None:
    view = busy(path, 0, batch=9, position=3, first=0)
    assert position_in(view, 9) == 3
    assert position_in(view, 8) is None
    view[POSITION] = IDLE
    assert position_in(view, 9) is None


def test_slots_do_not_overlap_and_two_maps_see_each_other(path: Path) -> None:
    ours, theirs = SharedSlots(path), SharedSlots(path)
    for index in range(MAX_SLOTS):
        view = ours.slot(index)
        assert len(view) == WORDS
        view[WORDS - 1] = index
    assert [theirs.slot(index)[WORDS - 1] for index in range(MAX_SLOTS)] == list(range(MAX_SLOTS))


def test_making_the_file_again_clears_it(path: Path) -> None:
    busy(path, 0, batch=1, position=0, first=0)
    create_slots(path)
    assert read_running(path) == []


def test_a_missing_file_shows_nothing(tmp_path: Path) -> None:
    assert read_running(tmp_path / "none") == []


def test_a_symlink_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "slots").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic links"):
        create_slots(tmp_path / "slots")
    assert (tmp_path / "target").read_text() == "precious"
